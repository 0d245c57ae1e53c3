//! Scores crops again for an installation: takes them from their queue, beside the photos of classify.
//!
//! For each delivery: score the crop, store the prediction or the fault, acknowledge. Neither a photo's state nor its
//! record changes. A crop that cannot be scored is a fault with a reason, and blocks nothing.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::archive::models::StoredModels;
use crate::archive::predictions::Predictions;
use crate::archive::score_faults::{ScoreFault, ScoreFaults};
use crate::broker::rabbitmq::RabbitMq;
use crate::broker::{Broker, Consumer, DeadLetter, Delivery};
use crate::classifier::model::{Input, MIRRORS, ModelFile};
use crate::domain::clock::now;
use crate::domain::{ContentHash, Prediction, ScoreMessage, StageName};
use crate::objects::{ObjectError, ObjectKey, Objects};
use crate::pipeline::classify::CropScorer;
use crate::pipeline::event::Observer;
use crate::pipeline::gate::{self, Gate};
use crate::pipeline::worker::{WorkerError, WorkerSettings};
use crate::retry::Backoff;
use crate::server_error::ServerError;

/// After so many deliveries without an acknowledgement a crop is not scored any more: it ends its workers.
const CRASHES: u32 = 4;

/// The worker. All crops of a process share the threads and the gate of classify.
pub struct RescoreWorker {
    pub broker: RabbitMq,
    pub objects: Arc<dyn Objects>,
    pub scorer: CropScorer,
    pub gate: Gate,
    pub observer: Arc<dyn Observer>,
    pub settings: WorkerSettings,
    pub models: KnownModels,
}

/// The models that this process has read, the last used one at the end.
#[derive(Default)]
pub struct KnownModels(Mutex<Vec<Arc<ModelFile>>>);

impl KnownModels {
    const KEPT: usize = 3;

    fn get(&self, sha256: ContentHash) -> Option<Arc<ModelFile>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = known.iter().position(|model| model.sha256 == sha256)?;
        let model = known.remove(at);
        known.push(model.clone());
        Some(model)
    }

    fn keep(&self, model: Arc<ModelFile>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|other| other.sha256 != model.sha256);
        known.push(model);
        if known.len() > Self::KEPT {
            known.remove(0);
        }
    }
}

/// Why a crop has no score.
enum Unscored {
    /// This crop cannot be scored.
    Fault(String),
    /// Native code does not end: the process must.
    Stuck(ServerError),
}

impl RescoreWorker {
    /// Scores crops until `shutdown`. Then finishes those in flight within the grace period, and returns the rest.
    ///
    /// # Errors
    /// RabbitMQ refuses the queue, or native code does not end.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), WorkerError> {
        let broken = |error| WorkerError { stage: StageName::Classify, error };
        let worker = Arc::new(self);
        let most = worker.settings.concurrency;
        let prefetch = u16::try_from(most + 1).unwrap_or(u16::MAX);
        let mut pause = worker.settings.pause.clone();
        let mut consumer: Option<Box<dyn Consumer>> = None;
        let aborted = CancellationToken::new();
        let mut in_flight: JoinSet<Result<(), ServerError>> = JoinSet::new();
        let mut fault = None;
        while fault.is_none() {
            if pause.is_on() {
                stop(&mut consumer).await;
            } else if consumer.is_none() {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break,
                    started = worker.broker.consume_scores(prefetch) => match started {
                        Ok(started) => consumer = Some(started),
                        Err(error) => fault = Some(broken(error)),
                    }
                }
                continue;
            }
            let room = in_flight.len() < most;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                // A crop whose task panics was not acknowledged: it is delivered again, and counted.
                Some(ended) = in_flight.join_next() => fault = ended.ok().and_then(Result::err).map(broken),
                () = pause.changed() => {}
                delivery = next(&mut consumer), if room => {
                    let Some(delivery) = delivery else { break };
                    in_flight.spawn(worker.clone().handle(delivery, aborted.clone()));
                }
            }
        }
        stop(&mut consumer).await;
        let finish = async { while in_flight.join_next().await.is_some() {} };
        if tokio::time::timeout(worker.settings.grace, finish).await.is_err() {
            aborted.cancel();
            while in_flight.join_next().await.is_some() {}
        }
        fault.map_or(Ok(()), Err)
    }

    /// Scores a delivery, then acknowledges or returns it.
    async fn handle(self: Arc<Self>, delivery: Delivery, aborted: CancellationToken) -> Result<(), ServerError> {
        self.observer.on_delivery();
        let done = tokio::select! {
            done = self.process(&delivery) => Some(done),
            () = aborted.cancelled() => None,
        };
        self.observer.on_done();
        match done {
            Some(Ok(())) => {
                delivery.ack().await;
                Ok(())
            }
            Some(Err(stuck)) => {
                delivery.nack().await;
                Err(stuck)
            }
            None => {
                delivery.nack().await;
                Ok(())
            }
        }
    }

    /// Ok: a prediction, a fault or a dead letter is stored.
    async fn process(&self, delivery: &Delivery) -> Result<(), ServerError> {
        let message = match ScoreMessage::decode(&delivery.body) {
            Ok(message) => message,
            Err(error) => {
                let letter = DeadLetter::foreign(StageName::Classify, &delivery.body, error.to_string());
                let publish = || self.broker.dead_letter(&letter);
                if let Err(error) = retry("store a dead letter", publish, ServerError::is_retryable).await {
                    tracing::error!(%error, cause = %letter.cause, "a foreign message is lost");
                }
                return Ok(());
            }
        };
        match self.score(&message, delivery.redelivered, delivery.unacknowledged).await {
            Ok(()) => Ok(()),
            Err(Unscored::Stuck(error)) => Err(error),
            Err(Unscored::Fault(reason)) => {
                self.store_fault(&message, reason).await;
                Ok(())
            }
        }
    }

    async fn score(&self, message: &ScoreMessage, redelivered: bool, unacknowledged: u32) -> Result<(), Unscored> {
        let ScoreMessage { model: sha256, crop, .. } = *message;
        let predictions = Predictions::new(self.objects.clone());
        let read = || predictions.read(sha256, crop);
        if retry("read a prediction", read, ObjectError::is_retryable).await.map_err(fault)?.is_some() {
            return Ok(());
        }
        if unacknowledged >= CRASHES {
            return Err(Unscored::Fault(format!("{unacknowledged} workers ended while they scored it")));
        }
        let mirrors: [f32; MIRRORS] = message.mirrors.as_slice().try_into().map_err(|_| {
            Unscored::Fault(format!("its job has {} shares instead of {MIRRORS}", message.mirrors.len()))
        })?;
        let model = self.model(sha256).await?;
        let key = ObjectKey::face(crop, message.format);
        let bytes = retry("read a crop", || self.objects.get(&key), ObjectError::is_retryable).await.map_err(fault)?;
        let p_ok = self.predict(bytes, mirrors, model.clone(), redelivered).await?;
        let prediction = Prediction::new(p_ok, &model.name, sha256);
        let write = || predictions.write(crop, prediction.clone());
        retry("store a prediction", write, ObjectError::is_retryable).await.map_err(fault).map(drop)
    }

    async fn predict(
        &self,
        bytes: Bytes,
        mirrors: [f32; MIRRORS],
        model: Arc<ModelFile>,
        alone: bool,
    ) -> Result<f64, Unscored> {
        let limit = self.settings.time_limit;
        let guard = self.gate.enter(alone, limit).await.map_err(|stuck| {
            Unscored::Stuck(ServerError::Refused { what: "score a crop alone".into(), detail: stuck.to_string() })
        })?;
        let overdue = guard.clone();
        let scoring = guard.hold(async {
            let decoded = gate::spawn_blocking(move || Input::decode(&bytes, mirrors)).await;
            let input = decoded.map_err(|error| format!("the decoder panicked: {error}"))??;
            self.scorer.score(input, model).await
        });
        match tokio::time::timeout(limit, scoring).await {
            Ok(scored) => scored.map_err(Unscored::Fault),
            Err(_) => {
                overdue.set_overdue();
                Err(Unscored::Fault(format!("it took longer than {limit:?}")))
            }
        }
    }

    async fn model(&self, sha256: ContentHash) -> Result<Arc<ModelFile>, Unscored> {
        if let Some(known) = self.models.get(sha256) {
            return Ok(known);
        }
        let stored = StoredModels::new(self.objects.clone());
        let bytes = retry("read a model", || stored.read(sha256), ObjectError::is_retryable).await.map_err(fault)?;
        let file = ModelFile::from_bytes(&format!("models/{sha256}.onnx"), bytes).map_err(fault)?;
        let model = Arc::new(file);
        self.models.keep(model.clone());
        Ok(model)
    }

    async fn store_fault(&self, message: &ScoreMessage, reason: String) {
        tracing::warn!(crop = %message.crop, model = %message.model, reason, "a crop cannot be scored");
        let at = now().as_secs();
        let fault = ScoreFault { crop: message.crop, model_sha256: message.model, reason, at };
        let faults = ScoreFaults::new(self.objects.clone());
        if let Err(error) = retry("store a fault", || faults.write(&fault), ObjectError::is_retryable).await {
            tracing::error!(%error, crop = %message.crop, "a fault cannot be stored");
        }
    }
}

fn fault(error: impl Display) -> Unscored {
    Unscored::Fault(error.to_string())
}

async fn stop(consumer: &mut Option<Box<dyn Consumer>>) {
    if let Some(mut consumer) = consumer.take() {
        consumer.stop().await;
    }
}

/// Never returns without a consumer.
async fn next(consumer: &mut Option<Box<dyn Consumer>>) -> Option<Delivery> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}

/// Repeats an action until it succeeds or fails for good. `what` completes "cannot ...".
async fn retry<T, E: Display, F: Future<Output = Result<T, E>>>(
    what: &str,
    action: impl Fn() -> F,
    is_retryable: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(15));
    loop {
        match action().await {
            Err(error) if is_retryable(&error) => {
                let wait = backoff.next_wait();
                tracing::warn!(%error, retry_in = ?wait, "cannot {what}");
                tokio::time::sleep(wait).await;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_used_models_are_kept() {
        let models = KnownModels::default();
        let file = |number: u8| {
            let mut file = ModelFile::example();
            file.sha256 = ContentHash::of(&[number]);
            Arc::new(file)
        };
        (0..3).for_each(|number| models.keep(file(number)));
        assert!(models.get(ContentHash::of(&[0])).is_some());
        models.keep(file(3));
        let known = |number: u8| models.get(ContentHash::of(&[number])).is_some();
        assert_eq!([0, 1, 2, 3].map(known), [true, false, true, true]);
    }
}
