//! Keeps the index of a server up to date.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::state::CurationState;
use crate::dataset::FollowError;

/// The longest wait for an ending. Verdicts of other servers and changes of the classifier are noticed after it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often predictions are looked up that were made without an ending, by a re-score.
const SCORES: Duration = Duration::from_secs(30);
/// The wait after a fault.
const PAUSE: Duration = Duration::from_secs(2);

/// Follows the feed of endings, the log of verdicts and the run's classifier until `shutdown`.
pub async fn follow(shared: &CurationState, shutdown: CancellationToken) {
    let mut follower = Follower { shared, scored: Instant::now(), is_faulty: false };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = follower.run() => {}
    }
}

struct Follower<'a> {
    shared: &'a CurationState,
    scored: Instant,
    is_faulty: bool,
}

impl Follower<'_> {
    async fn run(&mut self) {
        loop {
            match self.turn().await {
                Ok(()) => {
                    if std::mem::take(&mut self.is_faulty) {
                        tracing::info!("the index of faces is up to date again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.is_faulty, true) {
                        tracing::warn!(%error, "the index of faces is not up to date");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn turn(&mut self) -> Result<(), FollowError> {
        let CurationState { run, ledger, index, source, recorder, .. } = self.shared;
        let (position, model) = index.with(|index| Ok::<_, FollowError>((index.position()?, index.model()))).await?;
        ledger.wait_for_endings(run, position.as_ref(), 1, PATIENCE).await?;
        let mut index = index.clone();
        source.follow(&mut index, &drop).await?;
        recorder.follow().await?;
        let is_other = index.with(|index| index.model()).await != model;
        if is_other || self.scored.elapsed() >= SCORES {
            source.score(&mut index, &drop).await?;
            self.scored = Instant::now();
        }
        Ok(())
    }
}
