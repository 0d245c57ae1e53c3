//! Logs, traces, the runtime and signals of a command.

use tokio_util::sync::CancellationToken;

use crate::cli::failure::Failure;
use crate::cli::progress::Bars;
use crate::telemetry::{Telemetry, TelemetrySettings};

/// The exit code of an interrupted command, as shells report Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// Starts logging, and sends traces and metrics if the environment says so. `scraped`: Prometheus reads the metrics of this
/// process. Keep the value until the command ends.
pub fn observe(log: &str, bars: &Bars, service: &str, scraped: bool) -> Result<Telemetry, Failure> {
    let settings = TelemetrySettings { log, sink: bars.sink(), service: service.to_owned(), scraped };
    Telemetry::start(settings).map_err(Failure::broken)
}

/// Runs a command's asynchronous part.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::broken)?;
    runtime.block_on(work)
}

/// Shuts down in order after the first Ctrl-C or SIGTERM, and exits at once after the second.
#[expect(clippy::exit, reason = "the second signal must end the process at once")]
pub async fn signals(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return tracing::warn!("cannot catch signals: Ctrl-C ends the process at once");
    };
    let mut next = async || tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () };
    next().await;
    eprintln!("finishing the photos in flight; press Ctrl-C again to stop at once");
    shutdown.cancel();
    next().await;
    std::process::exit(INTERRUPTED.into());
}
