//! `facemill curate`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::dataset::index::{IndexArgs, progress};
use crate::cli::failure::Failure;
use crate::cli::output::print_text;
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::curation::access::Access;
use crate::curation::{Curation, CurationSettings};
use crate::web::{self, HttpLimits};

/// Pictures are large, and lines slow.
const LIMITS: HttpLimits =
    HttpLimits { connections: 256, head: Duration::from_secs(10), request: Duration::from_secs(120), buffer: 64 << 10 };

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Serves the page at this address
    #[arg(long, env = "FACEMILL_CURATE_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// How many OK faces are wanted
    #[arg(long, env = "FACEMILL_WANTED", value_name = "N", default_value_t = 10_000)]
    wanted: u64,
    /// Where Jaeger is, for links to the traces of photos: http://jaeger:16686
    #[arg(long, env = "FACEMILL_JAEGER_URL", value_name = "URL")]
    jaeger: Option<String>,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    target: RunTargetArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let bars = Bars::new(!args.target.json);
    let _telemetry = crate::cli::process::observe("facemill=info", &bars, "facemill-curate", false)?;
    crate::cli::process::block_on(async {
        if !args.listen.ip().is_loopback() {
            return Err(Failure::broken(format!(
                "--listen {}: anybody who reaches this address could judge; listen on a loopback address",
                args.listen
            )));
        }
        let listener = TcpListener::bind(args.listen).await.map_err(|error| {
            Failure::broken(format!("--listen: cannot listen on {}: {error}; choose another port", args.listen))
        })?;
        let shutdown = CancellationToken::new();
        let signals = tokio::spawn(crate::cli::process::signals(shutdown.clone()));
        let target = args.target.open().await?;
        let settings = CurationSettings {
            index: args.index.path(&target)?,
            wanted: args.wanted,
            jaeger: args.jaeger.clone(),
            access: Access::local(std::env::var("USER").ok()),
        };
        let opened = Curation::open(&target, settings, &progress(&bars)).await;
        bars.clear();
        let curation = opened.map_err(Failure::broken)?;
        let address = listener.local_addr().map_err(Failure::broken)?;
        match args.target.json {
            true => print_text(&format!("{}\n", serde_json::json!({ "url": format!("http://{address}/") })))?,
            false => print_text(&format!("http://{address}/\n"))?,
        }
        tokio::join!(
            curation.follow(shutdown.clone()),
            web::serve(listener, curation.router(), LIMITS, shutdown.clone())
        );
        signals.abort();
        Ok(ExitCode::SUCCESS)
    })
}
