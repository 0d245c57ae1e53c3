//! A person may let a stage rest.

use tokio::sync::watch;

/// Whether a stage rests now. By default nobody can pause it.
#[derive(Debug, Clone, Default)]
pub struct Pause(Option<watch::Receiver<bool>>);

impl Pause {
    pub fn new(paused: watch::Receiver<bool>) -> Self {
        Self(Some(paused))
    }

    pub fn is_on(&self) -> bool {
        self.0.as_ref().is_some_and(|paused| *paused.borrow())
    }

    /// Waits until it may have changed; for ever, when it cannot any more.
    pub async fn changed(&mut self) {
        if let Some(paused) = &mut self.0
            && paused.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}
