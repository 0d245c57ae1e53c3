//! Keeps photos that may crash the process apart, as long as native code works on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::task::JoinError;
use tokio::time::timeout;
use tracing::Span;

/// Runs redelivered photos alone, and others in parallel. All workers of a process that run native code share one gate.
/// So if the process crashes again, the cause is known, and no other photo is interrupted twice.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    lock: Arc<RwLock<()>>,
    /// Stages that have exceeded their time limit and whose native code still runs.
    overdue: AtomicUsize,
}

/// Held by a stage, and by every thread that runs [`spawn_blocking`] for it: a stage that has exceeded its time limit
/// leaves the gate only when its native code has ended.
#[derive(Debug)]
pub struct GateGuard {
    gate: Gate,
    is_overdue: AtomicBool,
    _lock: Lock,
}

#[derive(Debug)]
enum Lock {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Exclusive { _guard: OwnedRwLockWriteGuard<()> },
}

/// Native code does not end after its time limit, and another photo has to wait for it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("native code still runs {0:?} after its time limit: restart the process")]
pub struct Stuck(Duration);

tokio::task_local! {
    static GUARD: Arc<GateGuard>;
}

impl Gate {
    /// Waits until the photo may run. Fails when another stage has exceeded its time limit and its native code has not
    /// ended for `patience`.
    pub async fn enter(&self, alone: bool, patience: Duration) -> Result<Arc<GateGuard>, Stuck> {
        let lock = async {
            match alone {
                true => Lock::Exclusive { _guard: self.0.lock.clone().write_owned().await },
                false => Lock::Shared { _guard: self.0.lock.clone().read_owned().await },
            }
        };
        tokio::pin!(lock);
        loop {
            // Without an overdue stage, other photos make progress.
            let was_overdue = self.0.overdue.load(Ordering::Acquire) > 0;
            match timeout(patience, &mut lock).await {
                Ok(lock) => {
                    let is_overdue = AtomicBool::new(false);
                    return Ok(Arc::new(GateGuard { gate: self.clone(), is_overdue, _lock: lock }));
                }
                Err(_) if was_overdue && self.0.overdue.load(Ordering::Acquire) > 0 => return Err(Stuck(patience)),
                Err(_) => {}
            }
        }
    }
}

impl GateGuard {
    /// Notes that the stage has exceeded its time limit.
    pub fn set_overdue(&self) {
        if !self.is_overdue.swap(true, Ordering::AcqRel) {
            self.gate.0.overdue.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Runs a stage whose blocking work holds the guard, too.
    pub async fn hold<T>(self: Arc<Self>, stage: impl Future<Output = T>) -> T {
        GUARD.scope(self, stage).await
    }
}

impl Drop for GateGuard {
    fn drop(&mut self) {
        if *self.is_overdue.get_mut() {
            self.gate.0.overdue.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The guard of the stage that calls this. A thread keeps it while it works for the stage.
pub fn current() -> Option<Arc<GateGuard>> {
    GUARD.try_with(Arc::clone).ok()
}

/// Runs native or blocking work of a stage off the async threads, within the caller's span. The gate stays held until
/// the work has ended, even if the caller no longer waits for it.
pub async fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    let (span, guard) = (Span::current(), current());
    tokio::task::spawn_blocking(move || {
        let _guard = guard;
        span.in_scope(work)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A stage that exceeds its time limit. Its blocking work ends when the sender is dropped.
    async fn time_out(gate: &Gate) -> mpsc::Sender<()> {
        let guard = gate.enter(false, PATIENCE).await.unwrap();
        let (sender, receiver) = mpsc::channel::<()>();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let work = spawn_blocking(move || {
            let _ = started.send(());
            receiver.recv()
        });
        tokio::select! {
            _ = guard.clone().hold(work) => panic!("the work has not ended"),
            started = has_started => started.unwrap(),
        }
        guard.set_overdue();
        sender
    }

    #[tokio::test]
    async fn the_gate_stays_held_until_blocking_work_has_ended() {
        let gate = Gate::default();
        let work = time_out(&gate).await;
        let mut alone = std::pin::pin!(gate.enter(true, PATIENCE));
        assert!(futures::poll!(&mut alone).is_pending(), "the native code of another photo runs");
        drop(work);
        drop(alone.await.unwrap());
        assert_eq!(gate.0.overdue.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn work_that_does_not_end_is_an_error_for_the_next_photo() {
        let gate = Gate::default();
        let work = time_out(&gate).await;
        assert!(gate.enter(false, PATIENCE).await.is_ok(), "photos that need not be alone continue");
        assert!(gate.enter(true, Duration::from_millis(1)).await.is_err());
        drop(work);
    }

    #[tokio::test(start_paused = true)]
    async fn a_photo_waits_for_others_within_their_time_limit() {
        let gate = Gate::default();
        let other = gate.enter(false, PATIENCE).await.unwrap();
        let (mut alone, limit) = (Box::pin(gate.enter(true, PATIENCE)), 10 * PATIENCE);
        assert!(timeout(limit, &mut alone).await.is_err(), "a long queue is no error");
        drop(other);
        alone.await.unwrap();
    }
}
