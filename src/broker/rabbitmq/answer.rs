//! The time limits for RabbitMQ's answers.

use std::io;
use std::time::Duration;

/// Longer than the nodes of a busy cluster take to agree.
pub(super) const ANSWERING: Duration = Duration::from_secs(30);

/// Long enough for a million messages that return to their queue.
const SETTLING: Duration = Duration::from_secs(600);

/// The result of a call, or an error after [`ANSWERING`]. A lost connection ends the calls that wait for it, but not one
/// that begins while lapin notices the loss: nobody would answer it.
pub(super) async fn answered<T>(call: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    within(ANSWERING, call).await
}

/// The same for the end of a channel, which RabbitMQ confirms after it has processed everything sent before.
pub(super) async fn settled(closing: impl Future<Output = lapin::Result<()>>) -> lapin::Result<()> {
    within(SETTLING, closing).await
}

async fn within<T>(limit: Duration, call: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"));
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(late().into()))
}

/// Whether a call ended at its time limit.
pub(super) fn is_late(error: &lapin::Error) -> bool {
    matches!(error.kind(), lapin::ErrorKind::IOError(io) if io.kind() == io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_ends() {
        let began = tokio::time::Instant::now();
        let error = answered(std::future::pending::<lapin::Result<()>>()).await.unwrap_err();
        assert_eq!(began.elapsed().as_secs(), ANSWERING.as_secs());
        assert!(is_late(&error), "{error}");
        assert!(error.to_string().contains("no answer within 30s"), "{error}");
        assert_eq!(answered(async { Ok(7) }).await.unwrap(), 7);
        assert!(settled(std::future::pending()).await.is_err_and(|error| is_late(&error)));
    }
}
