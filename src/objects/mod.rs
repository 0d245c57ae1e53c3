//! Where originals, crops and records are kept: S3, or a folder.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::domain::{ContentHash, ImageFormat, PhotoKey, RunName};

pub mod folder;
pub mod observed;
pub mod s3;

/// The name of an object: segments of `[A-Za-z0-9._-]` joined by `/`, so that it is as safe as a path as it is as a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The original under its content hash: `originals/ab/ab….jpg`.
    pub fn original(hash: ContentHash, format: ImageFormat) -> Self {
        Self::hashed("originals", hash, format)
    }

    /// The crop under its content hash: `faces/ab/ab….png`.
    pub fn face(hash: ContentHash, format: ImageFormat) -> Self {
        Self::hashed("faces", hash, format)
    }

    /// What is known of a photo that has ended: `records/RUN/ab/PHOTO.json`, spread by a hash of the id.
    pub fn record(key: &PhotoKey) -> Self {
        let spread = ContentHash::of(key.photo_id.as_str().as_bytes()).to_string();
        Self(format!("{}{}/{}.json", Self::records(&key.run), &spread[..2], escape(key.photo_id.as_str())))
    }

    /// The prefix of all records of a run.
    pub fn records(run: &RunName) -> String {
        format!("records/{run}/")
    }

    fn hashed(folder: &str, hash: ContentHash, format: ImageFormat) -> Self {
        let hash = hash.to_string();
        Self(format!("{folder}/{}/{hash}.{}", &hash[..2], format.extension()))
    }

    /// A key as an adapter lists it. None when it is not one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let segment = |s: &str| !s.is_empty() && !s.starts_with('.') && s.chars().all(legal);
        text.split('/').all(segment).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the key is the hash of the content: what lies there already is the same.
    pub fn is_content_addressed(&self) -> bool {
        self.0.starts_with("originals/") || self.0.starts_with("faces/")
    }
}

/// Ids of the source DB can hold anything; `_xx` stands for a byte that is not a letter, digit or `-`.
fn escape(id: &str) -> String {
    use fmt::Write;
    id.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            text.push(byte as char);
        } else {
            let _ = write!(text, "_{byte:02x}");
        }
        text
    })
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectError {
    #[error("object {0} is not there")]
    Missing(ObjectKey),
    /// May pass: the store is away, slow or busy.
    #[error("{what}: {detail}")]
    Unavailable { what: String, detail: String },
    /// Will not pass by itself: credentials, bucket, permissions, a full disk.
    #[error("{what}: {detail}")]
    Refused { what: String, detail: String },
}

impl ObjectError {
    /// In one word, for traces.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Unavailable { .. } => "unavailable",
            Self::Refused { .. } => "refused",
        }
    }

    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// One page of a listing, in key order.
#[derive(Debug, Default)]
pub struct Page {
    pub keys: Vec<ObjectKey>,
    /// There is more after the last key.
    pub more: bool,
}

/// Tells apart what several writers begin at the same time, also across processes.
fn nonce() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// A store of immutable objects. Writing the same key twice is harmless: equal keys have equal content, but for
/// records, where the later one counts.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Stores the object durably before it returns; a reader never sees half of one. False: it was already there
    /// (only told for content-addressed keys, which are not written again).
    async fn put(&self, key: &ObjectKey, body: Bytes, media_type: &str) -> Result<bool, ObjectError>;

    async fn get(&self, key: &ObjectKey) -> Result<Bytes, ObjectError>;

    async fn exists(&self, key: &ObjectKey) -> Result<bool, ObjectError>;

    /// Keys that start with `prefix`, after `after`, at most `limit` of them, in byte order.
    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Page, ObjectError>;

    /// Whether the store can be reached and written to, for `doctor` and readiness.
    async fn check(&self) -> Result<(), ObjectError>;
}
