//! Whether an operator has paused a stage.

use tokio::sync::watch;

/// Watches whether a stage is paused. By default a stage cannot be paused.
#[derive(Debug, Clone, Default)]
pub struct Pause(Option<watch::Receiver<bool>>);

impl Pause {
    pub fn new(paused: watch::Receiver<bool>) -> Self {
        Self(Some(paused))
    }

    pub fn is_on(&self) -> bool {
        self.0.as_ref().is_some_and(|paused| *paused.borrow())
    }

    /// Waits until the state may have changed. Never returns if it cannot change any more.
    pub async fn changed(&mut self) {
        if let Some(paused) = &mut self.0
            && paused.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}
