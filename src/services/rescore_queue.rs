//! Lets the workers of an installation score the jobs of a rescore, and follows them.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};

use super::rescore::{RescoreError, RescorePlan, ScoreJob, ScoreTally};
use crate::archive::predictions::Predictions;
use crate::archive::score_faults::ScoreFaults;
use crate::broker::rabbitmq::RabbitMq;
use crate::domain::{ContentHash, ScoreMessage};

/// Jobs that are published, and faults that are read, at a time.
const AT_A_TIME: usize = 64;
/// Between two looks at the results.
const LOOKS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A look takes at most this share of the time.
const SHARE_OF_LOOKS: u32 = 10;
/// After so long without a result, jobs that are not in the queue are lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Enqueues all jobs of the plan, and returns when each has a prediction or a fault. `progress` receives how many of the
/// crops are done. When the call is interrupted, the workers go on.
///
/// # Errors
/// A server is unavailable, or the queue has lost jobs.
pub async fn score_on_workers(
    plan: &RescorePlan,
    broker: &RabbitMq,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<ScoreTally, RescoreError> {
    let (model, objects) = (plan.file.sha256, plan.objects.clone());
    let (predictions, faults) = (Predictions::new(objects.clone()), ScoreFaults::new(objects));
    let wanted: Vec<ContentHash> = plan.jobs.iter().map(|job| job.crop).collect();
    // What failed earlier is tried again.
    let earlier: Vec<ContentHash> = faults.crops_of_model(model).try_collect().await?;
    let earlier = both(&wanted, &earlier);
    stream::iter(&earlier)
        .map(|crop| faults.remove(model, *crop))
        .buffer_unordered(AT_A_TIME)
        .try_collect::<()>()
        .await?;
    stream::iter(&plan.jobs)
        .map(|job| async move { broker.publish_score(&message(model, job)).await })
        .buffer_unordered(AT_A_TIME)
        .try_collect::<()>()
        .await?;

    let mut last = Instant::now();
    let mut tally = ScoreTally::default();
    loop {
        progress(plan.done(&tally));
        let began = Instant::now();
        let scored: Vec<ContentHash> = predictions.crops_of_model(model).try_collect().await?;
        let failed: Vec<ContentHash> = faults.crops_of_model(model).try_collect().await?;
        let scored = both(&wanted, &scored);
        // Of two copies of a job, one may have failed.
        let failed: Vec<ContentHash> =
            both(&wanted, &failed).into_iter().filter(|crop| scored.binary_search(crop).is_err()).collect();
        let now = ScoreTally { scored: scored.len(), unreadable_count: failed.len(), ..ScoreTally::default() };
        if now.done() > tally.done() {
            last = Instant::now();
        }
        tally = now;
        if tally.done() == wanted.len() {
            progress(plan.done(&tally));
            return named(&faults, model, tally, &failed).await;
        }
        plan.write(&tally, false).await?;
        let depth = broker.score_depth().await?;
        if depth.ready == 0 && depth.in_flight == 0 && last.elapsed() > PATIENCE {
            return Err(RescoreError::Lost(wanted.len() - tally.done()));
        }
        let wait = (began.elapsed() * SHARE_OF_LOOKS).clamp(LOOKS.0, LOOKS.1);
        tokio::time::sleep(wait).await;
    }
}

fn message(model: ContentHash, job: &ScoreJob) -> ScoreMessage {
    ScoreMessage {
        schema: ScoreMessage::SCHEMA,
        model,
        crop: job.crop,
        format: job.format,
        mirrors: job.mirrors.to_vec(),
    }
}

/// The tally with the reasons of the first faults.
async fn named(
    faults: &ScoreFaults,
    model: ContentHash,
    tally: ScoreTally,
    failed: &[ContentHash],
) -> Result<ScoreTally, RescoreError> {
    let mut named = ScoreTally { scored: tally.scored, ..ScoreTally::default() };
    let mut reasons = stream::iter(failed.iter().take(ScoreTally::NAMED))
        .map(|crop| async move { Ok::<_, RescoreError>((*crop, faults.read(model, *crop).await?)) })
        .buffered(AT_A_TIME);
    while let Some((crop, fault)) = reasons.try_next().await? {
        named.add_unreadable(crop, fault.map(|fault| fault.reason).unwrap_or_default());
    }
    named.unreadable_count = failed.len();
    Ok(named)
}

/// What both lists have, in order. `wanted` is in order.
fn both(wanted: &[ContentHash], found: &[ContentHash]) -> Vec<ContentHash> {
    let mut both: Vec<ContentHash> = found.iter().copied().filter(|crop| wanted.binary_search(crop).is_ok()).collect();
    both.sort_unstable();
    both.dedup();
    both
}
