//! `facemill curate`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::dataset::access::AccessArgs;
use crate::cli::dataset::index::{IndexArgs, progress};
use crate::cli::failure::Failure;
use crate::cli::output::print_text;
use crate::cli::progress::Bars;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::curation::{Curation, CurationSettings};
use crate::web::{self, ClientLimits, HttpLimits};

/// A browser has six connections, and an office many browsers. Pictures are large, and lines slow.
fn limits(args: &Args) -> ClientLimits {
    let head = Duration::from_secs(60);
    ClientLimits {
        http: HttpLimits { connections: 1024, head, request: Duration::from_secs(60), buffer: 64 << 10 },
        per_address: 128,
        proxies: args.access.proxies(),
        requests: 256,
        stall: Duration::from_secs(30),
        age: Duration::from_secs(600),
    }
}

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
    access: AccessArgs,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    target: RunTargetArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let bars = Bars::new(!args.target.json);
    let _telemetry = crate::cli::process::observe("facemill=info", &bars, "facemill-curate", false)?;
    crate::cli::process::block_on(async {
        let certificate = args.access.certificate()?;
        let listener = TcpListener::bind(args.listen).await.map_err(|error| {
            Failure::broken(format!("--listen: cannot listen on {}: {error}; choose another port", args.listen))
        })?;
        let shutdown = CancellationToken::new();
        let signals = tokio::spawn(crate::cli::process::signals(shutdown.clone()));
        let target = args.target.open().await?;
        let user = std::env::var("USER").ok();
        let access = args.access.open(target.objects.clone(), args.listen, user).await?;
        let settings = CurationSettings {
            index: args.index.path(&target)?,
            wanted: args.wanted,
            jaeger: args.jaeger.clone(),
            access,
        };
        let opened = Curation::open(&target, settings, &progress(&bars)).await;
        bars.clear();
        let curation = opened.map_err(Failure::broken)?;
        let address = listener.local_addr().map_err(Failure::broken)?;
        let scheme = if certificate.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{address}/");
        match args.target.json {
            true => print_text(&format!("{}\n", serde_json::json!({ "url": url })))?,
            false => print_text(&format!("{url}\n"))?,
        }
        let (_, served) = tokio::join!(
            curation.follow(shutdown.clone()),
            web::serve_clients(listener, certificate, curation.router(), limits(args), shutdown.clone())
        );
        served.map_err(Failure::broken)?;
        signals.abort();
        Ok(ExitCode::SUCCESS)
    })
}
