//! Scores the jobs of a rescore in this process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::crop_features::read_crop;
use super::rescore::{RescoreError, RescorePlan, ScoreTally};
use crate::archive::predictions::Predictions;
use crate::classifier::crop_threads::each_crop;
use crate::classifier::model::{Input, Model};
use crate::domain::Prediction;
use crate::inference::Runtime;

/// How often the progress is stored.
const PROGRESS: Duration = Duration::from_secs(2);

/// Scores all jobs of the plan on so many threads. `progress` receives how many of the crops are done.
///
/// # Errors
/// The store is unavailable. What was scored stays.
pub async fn score_here(
    plan: &RescorePlan,
    runtime: &Runtime,
    threads: usize,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<ScoreTally, RescoreError> {
    let tally = Mutex::new(ScoreTally::default());
    let count = || tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
    progress(plan.done(&count()));
    let store_progress = async || {
        let tally = count();
        if let Err(error) = plan.write(&tally, false).await {
            tracing::warn!(%error, "cannot store the progress of the rescore");
        }
    };
    with_progress(score_all(plan, runtime, threads, &tally, progress), store_progress).await?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Calls `store` now and then until `work` is done. Returns when the last call has ended, too: a request that is
/// abandoned may reach the store after the next one, which says how the work ended.
async fn with_progress<T>(work: impl Future<Output = T>, store: impl AsyncFn()) -> T {
    let is_over = CancellationToken::new();
    let working = async {
        let done = work.await;
        is_over.cancel();
        done
    };
    let storing = async {
        let mut ticks = tokio::time::interval(PROGRESS);
        while is_over.run_until_cancelled(ticks.tick()).await.is_some() {
            store().await;
        }
    };
    tokio::join!(working, storing).0
}

async fn score_all(
    plan: &RescorePlan,
    runtime: &Runtime,
    threads: usize,
    tally: &Mutex<ScoreTally>,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<(), RescoreError> {
    let opened = (0..threads.clamp(1, plan.jobs.len().max(1))).map(|_| plan.file.open(runtime));
    let workers = opened.collect::<Result<Vec<Model>, _>>()?;
    let jobs: Arc<[_]> = plan.jobs.clone().into();
    let predictions = Predictions::new(plan.objects.clone());
    let (name, sha256, handle) = (plan.file.name.clone(), plan.file.sha256, Handle::current());
    let of_work = jobs.clone();
    let work = move |model: &mut Model, i: usize, bytes: &[u8]| {
        let job = &of_work[i];
        let input = Input::decode(bytes, job.mirrors)?;
        let p_ok = model.predict(&[input]).map_err(|error| error.to_string())?[0];
        // A failure of the store is not the crop's: it ends the rescore.
        Ok(handle.block_on(predictions.write(job.crop, Prediction::new(p_ok, &name, sha256))))
    };
    let read = |i: usize| read_crop(plan.objects.clone(), jobs[i].crop, jobs[i].format);
    each_crop((0..jobs.len()).collect(), workers, read, work, |i, result| {
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(written) => {
                written?;
                tally.scored += 1;
            }
            Err(reason) => tally.add_unreadable(jobs[i].crop, reason),
        }
        progress(plan.done(&tally));
        Ok::<_, RescoreError>(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn progress_is_not_being_stored_when_the_work_is_over() {
        let (began, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let store = async || {
            began.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PROGRESS / 2).await;
            ended.fetch_add(1, Ordering::Relaxed);
        };
        // The work ends while the third call waits for the store.
        let work = async {
            tokio::time::sleep(PROGRESS * 2 + PROGRESS / 4).await;
            "done"
        };
        assert_eq!(with_progress(work, store).await, "done");
        assert_eq!((began.into_inner(), ended.into_inner()), (3, 3));
    }
}
