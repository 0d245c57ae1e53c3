//! `facemill curate`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::dataset::access::AccessArgs;
use crate::cli::dataset::features::FeatureArgs;
use crate::cli::dataset::index::{IndexArgs, progress, thumbnails};
use crate::cli::failure::Failure;
use crate::cli::output::print_text;
use crate::cli::process::Signals;
use crate::cli::progress::Bars;
use crate::cli::settings::flags::ModelArgs;
use crate::cli::settings::run_target::RunTargetArgs;
use crate::curation::{Curation, CurationSettings, FeatureSettings};
use crate::services::health::Health;
use crate::services::worker_routes;
use crate::web::{self, ClientLimits, HttpLimits};

/// The name of the index in the answer of a probe.
const INDEX: &str = "index";

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
    /// Megabytes of thumbnails that are kept in $XDG_CACHE_HOME/facemill/thumbnails
    #[arg(long, env = "FACEMILL_THUMBNAIL_MEGABYTES", value_name = "N", default_value_t = 1024)]
    thumbnail_megabytes: u32,
    /// Serves /healthz, /readyz and /metrics over HTTP at this address [default: off]
    #[arg(long, env = "FACEMILL_LISTEN", value_name = "ADDRESS:PORT")]
    health_listen: Option<SocketAddr>,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    models: ModelArgs,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    target: RunTargetArgs,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    let bars = Bars::new(!args.target.json);
    let scraped = args.health_listen.is_some();
    let telemetry = crate::cli::process::observe("facemill=info", &bars, "facemill-curate", scraped)?;
    crate::cli::process::block_on(async {
        let certificate = args.access.certificate()?;
        let listener = listen("--listen", args.listen).await?;
        let Signals { shutdown, .. } = Signals::catch();
        let health = Arc::new(Health::new(shutdown.clone()).starting(INDEX, "it is being brought up to date"));
        // The server outlives the page, so that a probe learns that the process shuts down.
        let closing = CancellationToken::new();
        let probes = match args.health_listen {
            Some(address) => {
                let listener = listen("--health-listen", address).await?;
                let router = worker_routes::router(health.clone(), telemetry.prometheus.clone().unwrap_or_default());
                Some(tokio::spawn(web::serve(listener, router, worker_routes::LIMITS, closing.clone())))
            }
            None => None,
        };
        let target = args.target.open().await?;
        let user = std::env::var("USER").ok();
        let access = args.access.open(target.objects.clone(), args.listen, user).await?;
        let settings = CurationSettings {
            index: args.index.path(&target)?,
            wanted: args.wanted,
            jaeger: args.jaeger.clone(),
            thumbnails: thumbnails()?,
            thumbnail_bytes: u64::from(args.thumbnail_megabytes) << 20,
            access,
            features: FeatureSettings {
                models: args.models.find(),
                store: args.features.path(target.folder())?,
                most_bytes: args.features.most_bytes(),
            },
        };
        let opened = Curation::open(&target, settings, &progress(&bars)).await;
        bars.clear();
        let curation = opened.map_err(Failure::broken)?;
        health.note(INDEX, None);
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
        closing.cancel();
        if let Some(probes) = probes {
            let _ = probes.await;
        }
        served.map_err(Failure::broken)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Binds the address, so that a port that is taken is an error before anything else starts.
async fn listen(flag: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::broken(format!("{flag}: cannot listen on {address}: {error}; choose another port")))
}
