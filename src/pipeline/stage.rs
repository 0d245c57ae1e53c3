//! What a stage is, and what it may answer.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{Cause, CauseCode, Ending, Photo, StageName};
use crate::objects::ObjectError;

/// One step of a photo's way.
///
/// A stage sees a photo, an object store and its own tools; it knows nothing of queues, deliveries or the ledger.
/// So a worker, the local pipeline, a test and a benchmark run it alike. Its effects must be repeatable: the same
/// photo may come twice.
#[async_trait]
pub trait Stage: Send + Sync {
    fn name(&self) -> StageName;

    /// Works on one photo. Blocking and native work belongs off the async threads.
    async fn run(&self, photo: &Photo) -> Outcome;

    /// What a photo comes to when `cause` has used up its last attempt.
    fn exhausted(&self, _cause: &Cause) -> Ending {
        Ending::Failed
    }
}

/// A stage's answer is a value: only what nobody foresaw is a panic.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The photo with this stage's part of [`crate::domain::Facts`] added; it goes on to the next stage.
    Advance(Box<Photo>),
    /// The photo is not to be had any more.
    Gone(Cause),
    /// The photo does not qualify.
    Reject(Cause),
    /// Something passing is in the way.
    Retry(Retry),
    /// The photo does harm; nobody should try it again.
    Poison(Cause),
}

/// When and why to try again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    pub cause: Cause,
    /// How long to wait at least; without it the attempt number decides.
    pub after: Option<Duration>,
    /// Being told to wait (429, a busy host, a store that is away) is nobody's failure and costs no attempt.
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

/// What a failure of the object store means for the photo.
pub fn store_failed(error: &ObjectError) -> Outcome {
    let detail = error.to_string();
    match error {
        // A store that is consistent only in the end may still show it; a lost object it will not.
        ObjectError::Missing(_) => Retry::failed(Cause::new(CauseCode::ObjectMissing, detail)),
        ObjectError::Unavailable { .. } => Retry::wait(Cause::new(CauseCode::StoreUnavailable, detail), None),
        // No photo is to blame, and somebody has to mend it: wait.
        ObjectError::Refused { .. } => Retry::wait(Cause::new(CauseCode::StoreRefused, detail), None),
    }
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".into())
}
