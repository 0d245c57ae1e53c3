//! Logs, traces, the runtime, signals and the author of a command.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::failure::Failure;
use crate::cli::output::print_note;
use crate::cli::progress::Bars;
use crate::telemetry::{Telemetry, TelemetrySettings};

/// Starts logging, and sends traces and metrics if the environment says so. `scraped`: Prometheus reads the metrics of
/// this process. Keep the value until the command ends.
pub fn observe(log: &str, bars: &Bars, service: &str, scraped: bool) -> Result<Telemetry, Failure> {
    let settings = TelemetrySettings { log, sink: bars.sink(), service: service.to_owned(), scraped };
    Telemetry::start(settings).map_err(Failure::usage)
}

/// How long the end of a command waits for its blocking threads.
const THREAD_LIMIT: Duration = Duration::from_secs(5);

/// Runs a command's asynchronous part. Threads whose native code does not end are left behind.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    block_on_within(THREAD_LIMIT, work)
}

fn block_on_within<T>(thread_limit: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::broken)?;
    // One type for the futures of all commands: the runtime's code for each would be large.
    let work: LocalBoxFuture<'_, _> = Box::pin(work);
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(thread_limit);
    result
}

/// The user and the machine, as the author of a change.
pub fn person() -> String {
    let user = std::env::var("USER").ok().filter(|user| !user.is_empty()).unwrap_or_else(|| "unknown".into());
    format!("{user}@{}", crate::services::work::host_name())
}

/// The signals that end a command, Ctrl-C (SIGINT) and SIGTERM. After the first the command shuts down in order; the
/// second ends the process at once.
#[derive(Debug)]
pub struct Signals {
    /// Cancelled by the first signal.
    pub shutdown: CancellationToken,
    /// The exit code of a process that the first signal would have ended; 0 before it.
    code: Arc<AtomicU8>,
}

impl Signals {
    /// Catches signals from here to the end of the process: dropping the value does not let them end it again.
    pub fn catch() -> Self {
        let signals = Self { shutdown: CancellationToken::new(), code: Arc::default() };
        tokio::spawn(hear(signals.shutdown.clone(), signals.code.clone()));
        signals
    }

    /// The exit code of a command that a signal has interrupted, as shells report it: 130 or 143.
    pub fn exit_code(&self) -> ExitCode {
        match self.code.load(Ordering::Relaxed) {
            0 => ExitCode::from(SIGINT_CODE),
            code => ExitCode::from(code),
        }
    }
}

const SIGINT_CODE: u8 = 128 + 2;
const SIGTERM_CODE: u8 = 128 + 15;

#[expect(clippy::exit, reason = "the second signal must end the process at once")]
async fn hear(shutdown: CancellationToken, code: Arc<AtomicU8>) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return tracing::warn!("cannot catch signals: Ctrl-C ends the process at once");
    };
    let mut next = async || {
        tokio::select! {
            _ = interrupt.recv() => SIGINT_CODE,
            _ = terminate.recv() => SIGTERM_CODE,
        }
    };
    code.store(next().await, Ordering::Relaxed);
    shutdown.cancel();
    print_note("finishing what is in flight; press Ctrl-C again to stop at once");
    std::process::exit(next().await.into());
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_that_does_not_end_does_not_block_the_end() {
        let (sender, receiver) = mpsc::channel::<()>();
        let (ended, has_ended) = mpsc::channel();
        std::thread::spawn(move || {
            let result = block_on_within(Duration::from_millis(10), async {
                tokio::task::spawn_blocking(move || receiver.recv());
                Ok(7)
            });
            let _ = ended.send(result.is_ok_and(|answer| answer == 7));
        });
        assert_eq!(has_ended.recv_timeout(Duration::from_secs(60)), Ok(true));
        drop(sender);
    }
}
