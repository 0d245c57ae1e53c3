//! Scores the jobs of a rescore in this process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

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
    let store_progress = async {
        let mut ticks = tokio::time::interval(PROGRESS);
        loop {
            ticks.tick().await;
            let tally = count();
            if let Err(error) = plan.write(&tally, false).await {
                tracing::warn!(%error, "cannot store the progress of the rescore");
            }
        }
    };
    tokio::select! {
        scored = score_all(plan, runtime, threads, &tally, progress) => scored?,
        () = store_progress => {}
    }
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
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
