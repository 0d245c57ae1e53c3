//! Tickets: what the server knows of a picture that it has shown, sealed, so that a client gives it back unchanged with
//! its verdict.
//!
//! How a picture was chosen must not be for the client to say or to read: a hidden repeat looks like any other picture.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::domain::{ContentHash, Id, RunName, SeenPrediction, Selection};
use crate::objects::{ObjectError, ObjectKey, Objects};
use crate::server_error::ServerError;

/// A picture that was shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    #[serde(rename = "i")]
    pub photo_id: Id,
    #[serde(rename = "c")]
    pub crop: ContentHash,
    #[serde(rename = "s")]
    pub selection: Selection,
    /// Whether it is shown again to measure how far the person agrees with themselves.
    #[serde(rename = "r", default, skip_serializing_if = "std::ops::Not::not")]
    pub repeat: bool,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SeenPrediction>,
    /// Who it was shown to.
    #[serde(rename = "b")]
    pub person: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ticket is not one of this run: list the face again")]
pub struct BadTicket;

/// Seals tickets of a run with ChaCha20-Poly1305 (RFC 8439) and random nonces.
pub struct TicketKey {
    key: LessSafeKey,
    random: SystemRandom,
    run: RunName,
    store: String,
}

/// The document `curation/key.json`.
#[derive(Serialize, Deserialize)]
struct StoredKey {
    /// 32 bytes in base64.
    key: String,
}

impl TicketKey {
    /// Longer texts are no tickets: names and ids of a ticket are bounded.
    const MAX_LENGTH: usize = 8192;
    /// Tickets are a multiple of so many bytes long.
    const PADDED: usize = 512;

    /// Reads the key, or makes it. It is stored, so that tickets hold across restarts.
    pub async fn open(objects: Arc<dyn Objects>, run: RunName) -> Result<Self, ObjectError> {
        let object = ObjectKey::of_curation("key");
        let random = SystemRandom::new();
        let refused = |detail: String| ServerError::Refused { what: format!("cannot use {object}"), detail };
        let body = match objects.get(&object).await {
            Err(ObjectError::Missing(_)) => {
                let mut key = [0; 32];
                random.fill(&mut key).map_err(|_| refused("the system gives no random numbers".into()))?;
                let stored = StoredKey { key: STANDARD.encode(key) };
                let body = serde_json::to_vec(&stored).map_err(|error| refused(error.to_string()))?;
                // Another server may have been first: its key counts.
                let _ = objects.put_if_absent(&object, Bytes::from(body), "application/json").await?;
                objects.get(&object).await?
            }
            body => body?,
        };
        let damaged =
            || refused("it holds no key: delete it, and the pages that are open load their lists again".into());
        let stored: StoredKey = serde_json::from_slice(&body).map_err(|_| damaged())?;
        let bytes = STANDARD.decode(&stored.key).map_err(|_| damaged())?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| damaged())?;
        let store = ContentHash::of(&[&bytes[..], run.as_str().as_bytes()].concat()).to_string();
        Ok(Self { key: LessSafeKey::new(key), random, run, store: store[..16].to_owned() })
    }

    /// Names the run in its object store for ever: a page keeps what is unsent under this name.
    pub fn store_name(&self) -> &str {
        &self.store
    }

    /// The ticket as a text that only this key opens.
    pub fn seal(&self, ticket: &Ticket) -> String {
        let mut nonce = [0; NONCE_LEN];
        let mut text = serde_json::to_vec(ticket).unwrap_or_default();
        // The length must not tell a repeat, nor how the picture was chosen.
        text.resize(text.len().next_multiple_of(Self::PADDED), b' ');
        let sealed = self.random.fill(&mut nonce).and_then(|()| {
            let aad = Aad::from(self.run.as_str());
            self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text)
        });
        match sealed {
            Ok(()) => URL_SAFE_NO_PAD.encode([&nonce[..], &text].concat()),
            // Without random numbers nothing can be judged, and nothing is shown in clear.
            Err(ring::error::Unspecified) => String::new(),
        }
    }

    pub fn open_ticket(&self, text: &str) -> Result<Ticket, BadTicket> {
        if text.len() > Self::MAX_LENGTH {
            return Err(BadTicket);
        }
        let mut bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BadTicket)?;
        let (nonce, sealed) = bytes.split_first_chunk_mut::<NONCE_LEN>().ok_or(BadTicket)?;
        let aad = Aad::from(self.run.as_str());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place(nonce, aad, sealed).map_err(|_| BadTicket)?;
        serde_json::from_slice(opened).map_err(|_| BadTicket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::folder::Folder;

    fn ticket() -> Ticket {
        Ticket {
            photo_id: 7.into(),
            crop: ContentHash::of(b"crop"),
            selection: Selection::Random,
            repeat: true,
            seen: Some(SeenPrediction { p_ok: 0.25, model_sha256: ContentHash::of(b"model") }),
            person: "ada".into(),
        }
    }

    #[tokio::test]
    async fn tickets_hold_across_restarts_and_only_in_their_run() {
        let scratch = tempfile::tempdir().unwrap();
        let open = async |run: &str| {
            let objects: Arc<dyn Objects> = Arc::new(Folder::at(scratch.path()));
            TicketKey::open(objects, run.parse().unwrap()).await.unwrap()
        };
        let (key, again, other_run) = (open("one").await, open("one").await, open("two").await);
        let sealed = key.seal(&ticket());
        assert_eq!(again.open_ticket(&sealed), Ok(ticket()));
        assert_eq!(other_run.open_ticket(&sealed), Err(BadTicket));
        assert_eq!((key.store_name(), key.store_name().len()), (again.store_name(), 16));
        assert_ne!(key.store_name(), other_run.store_name());
        assert_ne!(key.seal(&ticket()), sealed, "equal tickets look different");
        let other = Ticket { repeat: false, selection: Selection::BestFirst, seen: None, ..ticket() };
        assert_eq!(key.seal(&other).len(), sealed.len(), "the length tells nothing");
        assert!(sealed.len() < 750, "{}", sealed.len());
    }

    #[tokio::test]
    async fn changed_texts_are_no_tickets() {
        let scratch = tempfile::tempdir().unwrap();
        let key = TicketKey::open(Arc::new(Folder::at(scratch.path())), RunName::default()).await.unwrap();
        let sealed = key.seal(&ticket());
        let mut changed = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        changed[20] ^= 1;
        let changed = URL_SAFE_NO_PAD.encode(changed);
        for bad in ["", "AAAA", "not base64!", &sealed[..40], &changed, &"A".repeat(10_000)] {
            assert_eq!(key.open_ticket(bad), Err(BadTicket), "{bad}");
        }
    }
}
