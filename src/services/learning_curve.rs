//! What more verdicts would bring: figures of heads that were trained on fewer.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::judged_crops::Judged;
use super::training::{Trainer, TrainingError, TrainingStep};
use crate::objects::Objects;
use crate::training::learner::LearnSettings;
use crate::training::learning_curve::{self, LearningPoint};

/// The learning curve of the crops that people judged.
///
/// # Errors
/// The crops cannot be read.
pub async fn learning_curve(
    trainer: &mut Trainer,
    objects: &Arc<dyn Objects>,
    judged: &Judged,
) -> Result<Vec<LearningPoint>, TrainingError> {
    let (set, _) = trainer.from_run(objects, judged).await?;
    let settings = LearnSettings { seed: trainer.settings.seed, threads: trainer.settings.threads };
    let progress = trainer.progress.clone();
    let points = spawn_blocking(move || {
        let report = move |done, of| progress(TrainingStep::Fits { done, of });
        learning_curve::points(&set, settings, &report)
    });
    Ok(points.await?)
}
