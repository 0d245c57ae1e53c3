//! The flags for an object store, for commands that need no run.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::settings::servers::ServerArgs;
use crate::objects::Objects;
use crate::pipeline::local::RunDir;

/// The object store of a folder or of an installation.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// The folder of a run in one process [default: out, if no servers are configured]
    #[arg(long, env = "FACEMILL_OUT", value_name = "DIR")]
    out: Option<PathBuf>,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    servers: ServerArgs,
}

impl StoreArgs {
    /// Opens the store. A folder must exist: a new one is most likely a mistyped name.
    pub async fn open(&self) -> Result<Arc<dyn Objects>, Failure> {
        let folder = match &self.out {
            Some(out) => out.clone(),
            None if self.servers.store_is_given() => {
                let objects = self.servers.objects_only()?;
                objects.check().await.map_err(Failure::broken)?;
                return Ok(Arc::new(objects));
            }
            None => PathBuf::from("out"),
        };
        if !folder.is_dir() {
            let folder = folder.display();
            return Err(Failure::broken(format!("there is no folder {folder}: --out names the folder of a run")));
        }
        Ok(Arc::new(RunDir::at(folder).objects()))
    }
}
