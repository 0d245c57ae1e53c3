//! What travels: a photo under way, in JSON, with a schema version.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Candidate, Photo, PhotoKey, Position, StageName};

/// A photo on its way to a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// [`Message::SCHEMA`] of the program that wrote it.
    pub schema: u16,
    pub position: Position,
    /// Which attempt at this stage this is, counted from 1. Waits that cost none do not count.
    pub attempt: u32,
    /// Seconds since 1970, UTC, when the producer enqueued the photo.
    pub enqueued_at: u64,
    pub photo: Photo,
    /// W3C trace context of the span that published it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum BadMessage {
    #[error("not a facemill message: {0}")]
    Foreign(String),
    #[error("message has schema {found}, this program reads 1 to {known}: update the workers first, then the producer")]
    FromTheFuture { found: u64, known: u16 },
}

impl Message {
    /// Grows when a field changes its meaning. Fields that are merely added keep it.
    pub const SCHEMA: u16 = 1;

    pub fn first(photo: Photo, enqueued_at: u64) -> Self {
        Self::entering(StageName::Fetch, photo, enqueued_at)
    }

    /// The message of a photo that starts at `stage`, with the results of the stages before it.
    pub fn entering(stage: StageName, photo: Photo, enqueued_at: u64) -> Self {
        let traceparent = Some(photo.key().trace().traceparent());
        let position = Position::entering(stage);
        Self { schema: Self::SCHEMA, position, attempt: 1, enqueued_at, photo, traceparent }
    }

    /// All that is left of a photo that was taken down: its run and id. `at`: seconds since 1970, UTC.
    pub fn taken_down(key: &PhotoKey, at: u64) -> Self {
        Self::first(Photo::new(key.run.clone(), Candidate::new(key.photo_id.clone(), String::new())), at)
    }

    /// The same for every copy of the same turn of the same photo.
    pub fn id(&self) -> String {
        format!("{}/{}/{}", self.photo.key(), self.position.stage, self.position.delivery)
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a message has only string keys and finite numbers")
    }

    /// Reads a message of this schema or an earlier one.
    pub fn decode(body: &[u8]) -> Result<Self, BadMessage> {
        decode_versioned(body, Self::SCHEMA)
    }
}

/// Reads a message of the schema `known` or an earlier one.
pub(super) fn decode_versioned<M: DeserializeOwned>(body: &[u8], known: u16) -> Result<M, BadMessage> {
    #[derive(Deserialize)]
    struct Envelope {
        schema: u64,
    }
    let foreign = |error: serde_json::Error| BadMessage::Foreign(error.to_string());
    let Envelope { schema } = serde_json::from_slice(body).map_err(foreign)?;
    if !(1..=u64::from(known)).contains(&schema) {
        return Err(BadMessage::FromTheFuture { found: schema, known });
    }
    serde_json::from_slice(body).map_err(foreign)
}
