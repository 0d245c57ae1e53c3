//! `facemill demo`.

use std::path::PathBuf;

use super::Failure;
use crate::demo::{self, Demo};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder with photographs and their list, photos.tsv
    #[arg(long, default_value = ".cache/photos", value_name = "DIR")]
    photos: PathBuf,
    /// Where the dump and everything made of it goes
    #[arg(long, default_value = "demo", value_name = "DIR")]
    out: PathBuf,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::broken)?;
    runtime.block_on(async {
        let demo = demo::prepare(&args.photos, &args.out).await.map_err(Failure::broken)?;
        let Demo { host, dump, candidates, .. } = demo;
        println!("{}: {candidates} candidates", dump.display());
        println!("their host listens on {} until Ctrl-C", host.address());
        tokio::signal::ctrl_c().await.map_err(Failure::broken)?;
        host.stop().await;
        Ok(())
    })
}
