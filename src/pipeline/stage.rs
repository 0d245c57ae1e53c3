//! The interface of a stage, and its outcomes.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{Cause, CauseCode, Ending, Photo, StageName};
use crate::objects::ObjectError;
use crate::server_error::ServerError;

/// One stage of the pipeline.
///
/// A stage knows a photo, an object store and its own tools, but no queue, delivery or ledger. So a worker, the local
/// pipeline, a test and a benchmark can all run it. It must be idempotent: the same photo may be processed twice.
#[async_trait]
pub trait Stage: Send + Sync {
    fn name(&self) -> StageName;

    /// Processes one photo. Blocking and native work must not run on the async threads.
    async fn run(&self, photo: &Photo) -> Outcome;

    /// How the photo ends when its last attempt has failed with `cause`.
    fn exhausted(&self, _cause: &Cause) -> Ending {
        Ending::Failed
    }
}

/// The result of a stage for one photo.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The photo goes on to the next stage, with this stage's part of [`crate::domain::Facts`] added.
    Advance(Box<Photo>),
    /// The photo is no longer available.
    Gone(Cause),
    /// The photo does not qualify.
    Reject(Cause),
    /// Another attempt may succeed.
    Retry(Retry),
    /// The photo does harm or is damaged: no further attempt is made.
    Poison(Cause),
}

/// When to try again, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    pub cause: Cause,
    /// The least wait. None: the number of the attempt decides.
    pub after: Option<Duration>,
    /// False for waits (status 429, a busy host, an unavailable store): the photo has not failed.
    pub costs_attempt: bool,
}

impl Retry {
    /// A failed attempt.
    pub fn failed(cause: Cause) -> Outcome {
        Outcome::Retry(Retry { cause, after: None, costs_attempt: true })
    }

    /// A wait that costs no attempt.
    pub fn wait(cause: Cause, after: Option<Duration>) -> Outcome {
        Outcome::Retry(Retry { cause, after, costs_attempt: false })
    }
}

/// The outcome for an error of the object store.
pub fn store_failed(error: &ObjectError) -> Outcome {
    let detail = error.to_string();
    match error {
        ObjectError::Changed { .. } => Outcome::Poison(Cause::new(CauseCode::OriginalChanged, detail)),
        // An eventually consistent store may return the object later; a lost object costs all attempts.
        ObjectError::Missing(_) => Retry::failed(Cause::new(CauseCode::ObjectMissing, detail)),
        ObjectError::Server(ServerError::Unavailable { .. }) => {
            Retry::wait(Cause::new(CauseCode::StoreUnavailable, detail), None)
        }
        // The photo has not failed; an operator has to fix the store.
        ObjectError::Server(ServerError::Refused { .. }) => {
            Retry::wait(Cause::new(CauseCode::StoreRefused, detail), None)
        }
    }
}

/// The message of a panic.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked without a message".into())
}
