//! A crop on its way to a worker that scores it again, in JSON, with a schema version.

use serde::{Deserialize, Serialize};

use super::message::{BadMessage, decode_versioned};
use super::{ContentHash, ImageFormat};

/// The job to score a crop with a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreMessage {
    /// [`ScoreMessage::SCHEMA`] of the program that wrote it.
    pub schema: u16,
    /// SHA-256 of the model's file.
    pub model: ContentHash,
    pub crop: ContentHash,
    pub format: ImageFormat,
    /// The mirror features of the crop: 18 shares from 0 to 1.
    pub mirrors: Vec<f32>,
}

impl ScoreMessage {
    /// Grows when a field changes its meaning. Fields that are merely added keep it.
    pub const SCHEMA: u16 = 1;

    /// The same for every copy.
    pub fn id(&self) -> String {
        format!("{}/{}", self.model, self.crop)
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a message has only string keys and finite numbers")
    }

    /// Reads a message of this schema or an earlier one.
    pub fn decode(body: &[u8]) -> Result<Self, BadMessage> {
        decode_versioned(body, Self::SCHEMA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_small_and_versioned() {
        let message = ScoreMessage {
            schema: ScoreMessage::SCHEMA,
            model: ContentHash::of(b"model"),
            crop: ContentHash::of(b"crop"),
            format: ImageFormat::Png,
            mirrors: vec![0.123_456_79; 18],
        };
        let body = message.encode();
        assert!(body.len() < 600, "{} bytes", body.len());
        assert_eq!(ScoreMessage::decode(&body).unwrap(), message);
        let later = String::from_utf8(body).unwrap().replace("\"schema\":1", "\"schema\":2");
        assert!(matches!(ScoreMessage::decode(later.as_bytes()), Err(BadMessage::FromTheFuture { found: 2, .. })));
        assert!(matches!(ScoreMessage::decode(b"hello"), Err(BadMessage::Foreign(_))));
    }
}
