//! The object store: an S3 bucket or a folder. It holds originals, crops and the documents of [`crate::archive`].

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::domain::{ContentHash, ImageFormat, PhotoKey, RunName, StoredUrl, VersionName};
use crate::server_error::ServerError;

pub mod folder;
pub mod observed;
pub mod s3;

/// The name of an object: segments of `[A-Za-z0-9._-]` joined by `/`, so that it is safe as a key and as a path.
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

    /// The record of a photo that has ended: `records/RUN/ab/PHOTO.json`, where `ab` is a hash of the id.
    pub fn record(key: &PhotoKey) -> Self {
        let spread = ContentHash::of(key.photo_id.as_str().as_bytes()).to_string();
        Self(format!("{}{}/{}.json", Self::records(&key.run), &spread[..2], escape(key.photo_id.as_str())))
    }

    /// The prefix of all records of a run.
    pub fn records(run: &RunName) -> String {
        format!("records/{run}/")
    }

    /// Ids of candidates that a run has taken: `candidates/RUN/SHA256.json`.
    pub fn candidates(run: &RunName, sha256: ContentHash) -> Self {
        Self(format!("{}{sha256}.json", Self::all_candidates(run)))
    }

    /// The prefix of all candidates of a run.
    pub fn all_candidates(run: &RunName) -> String {
        format!("candidates/{run}/")
    }

    /// A model under its content hash: `models/SHA256.onnx`.
    pub fn model(hash: ContentHash) -> Self {
        Self(format!("{}{hash}.onnx", Self::MODELS))
    }

    /// The prefix of all models.
    pub const MODELS: &'static str = "models/";

    /// A document about a run as a whole: `runs/RUN/NAME.json`.
    pub fn of_run(run: &RunName, name: &str) -> Self {
        Self(format!("runs/{run}/{name}.json"))
    }

    /// A document of the curation page that all runs of the store share: `curation/NAME.json`.
    pub fn of_curation(name: &str) -> Self {
        Self(format!("{}{name}.json", Self::CURATION))
    }

    const CURATION: &'static str = "curation/";

    /// The prediction of a model for a crop: `predictions/MODEL/ab/CROP.json`.
    pub fn prediction(model: ContentHash, crop: ContentHash) -> Self {
        let hash = crop.to_string();
        Self(format!("{}{}/{hash}.json", Self::predictions(model), &hash[..2]))
    }

    /// The prefix of all predictions of a model.
    pub fn predictions(model: ContentHash) -> String {
        format!("predictions/{model}/")
    }

    /// How far a model has scored the crops of a run again: `rescores/RUN/MODEL.json`.
    pub fn rescore(run: &RunName, model: ContentHash) -> Self {
        Self(format!("{}{model}.json", Self::rescores(run)))
    }

    /// The prefix of all rescores of a run.
    pub fn rescores(run: &RunName) -> String {
        format!("rescores/{run}/")
    }

    /// Why a model could not score a crop again: `score-faults/MODEL/ab/CROP.json`.
    pub fn score_fault(model: ContentHash, crop: ContentHash) -> Self {
        let hash = crop.to_string();
        Self(format!("{}{}/{hash}.json", Self::score_faults(model), &hash[..2]))
    }

    /// The prefix of all faults of a model.
    pub fn score_faults(model: ContentHash) -> String {
        format!("score-faults/{model}/")
    }

    /// A segment of the log of verdicts: `verdicts/RUN/NNNNNNNN.jsonl`. Numbers begin at 1.
    pub fn verdicts(run: &RunName, segment: u64) -> Self {
        Self(format!("{}{segment:08}.jsonl", Self::all_verdicts(run)))
    }

    /// The prefix of the log of verdicts of a run.
    pub fn all_verdicts(run: &RunName) -> String {
        format!("verdicts/{run}/")
    }

    /// What a version of a dataset is: `versions/RUN/NAME/version.json`.
    pub fn version(run: &RunName, name: &VersionName) -> Self {
        Self(format!("{}{name}/version.json", Self::versions(run)))
    }

    /// A part of the faces of a version: `versions/RUN/NAME/SHA256.parquet`.
    pub fn version_shard(run: &RunName, name: &VersionName, sha256: ContentHash) -> Self {
        Self(format!("{}{name}/{sha256}.parquet", Self::versions(run)))
    }

    /// The prefix of all versions of a run.
    pub fn versions(run: &RunName) -> String {
        format!("versions/{run}/")
    }

    /// The groups of duplicates of a run: `duplicates/RUN/SHA256.jsonl`.
    pub fn duplicates(run: &RunName, sha256: ContentHash) -> Self {
        Self(format!("duplicates/{run}/{sha256}.jsonl"))
    }

    /// The identities of a run: `identities/RUN/SHA256.jsonl`.
    pub fn identities(run: &RunName, sha256: ContentHash) -> Self {
        Self(format!("identities/{run}/{sha256}.jsonl"))
    }

    /// Says that photos at an address are refused: `refusals/urls/HH/SHA256.json`, by the hash of the address.
    pub fn refused_url(address: ContentHash) -> Self {
        Self::refused(Self::REFUSED_URLS, address)
    }

    /// The prefix of all refusals.
    pub const REFUSALS: &'static str = "refusals/";

    /// The prefix of all refused addresses.
    pub const REFUSED_URLS: &'static str = "refusals/urls/";

    /// Says that an original is refused: `refusals/originals/HH/SHA256.json`.
    pub fn refused_original(original: ContentHash) -> Self {
        Self::refused("refusals/originals/", original)
    }

    /// The fingerprints of all crops that are refused: `refusals/fingerprints.json`.
    pub fn refused_fingerprints() -> Self {
        Self("refusals/fingerprints.json".to_owned())
    }

    /// A takedown: `takedowns/ID.json`. `id`: letters and digits.
    pub fn takedown(id: &str) -> Self {
        Self(format!("{}{id}.json", Self::TAKEDOWNS))
    }

    /// The prefix of all takedowns.
    pub const TAKEDOWNS: &'static str = "takedowns/";

    fn refused(folder: &str, hash: ContentHash) -> Self {
        let hash = hash.to_string();
        Self(format!("{folder}{}/{hash}.json", &hash[..2]))
    }

    fn hashed(folder: &str, hash: ContentHash, format: ImageFormat) -> Self {
        let hash = hash.to_string();
        Self(format!("{folder}/{}/{hash}.{}", &hash[..2], format.extension()))
    }

    /// Reads a key from a listing. None: the object does not belong to this program.
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let segment = |s: &str| !s.is_empty() && !s.starts_with('.') && s.chars().all(legal);
        text.split('/').all(segment).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash of the content, if the key holds it.
    pub fn content_hash(&self) -> Option<ContentHash> {
        let name = self.0.rsplit('/').next()?;
        name.split('.').next()?.parse().ok().filter(|_| self.is_content_addressed())
    }

    pub fn is_original(&self) -> bool {
        self.0.starts_with("originals/")
    }

    /// Whether the object holds secrets: password hashes, sessions, keys.
    pub fn is_secret(&self) -> bool {
        self.0.starts_with(Self::CURATION)
    }

    /// Whether the key holds the hash of the content. An object that exists under such a key needs no second write.
    pub fn is_content_addressed(&self) -> bool {
        ["originals/", "faces/", Self::MODELS].iter().any(|prefix| self.0.starts_with(prefix))
    }
}

/// Ids of the source DB can hold any characters. A byte that is not a letter, digit or `-` becomes `_xx` (hex).
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

/// The error of an operation on the object store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectError {
    #[error("object {0} does not exist")]
    Missing(ObjectKey),
    #[error("{photo} has changed since it was fetched: put the photo back, or give the new one another name")]
    Changed { key: ObjectKey, photo: String },
    /// The store is unavailable or refuses the operation.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl ObjectError {
    /// The kind of error in one word, for traces.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Changed { .. } => "changed",
            Self::Server(error) => error.kind(),
        }
    }

    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Server(error) if error.is_retryable())
    }
}

impl From<ObjectError> for ServerError {
    /// A missing object stays missing until a person acts.
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Missing(key) => {
                Self::Refused { what: format!("cannot read {key}"), detail: "the object does not exist".into() }
            }
            ObjectError::Changed { ref key, .. } => {
                Self::Refused { what: format!("cannot read {key}"), detail: error.to_string() }
            }
            ObjectError::Server(error) => error,
        }
    }
}

/// One page of a listing, in key order.
#[derive(Debug, Default)]
pub struct Page {
    pub keys: Vec<ObjectKey>,
    /// Whether more keys follow the last one.
    pub more: bool,
}

/// The state of an object's content, as [`Objects::get_versioned`] returns it: an ETag, or a hash of the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

impl Version {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The result of [`Objects::put_if_absent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum PutIfAbsent {
    /// This call wrote the object.
    Created,
    /// The object existed and is unchanged.
    AlreadyThere,
}

/// The result of [`Objects::compare_and_swap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Swap {
    /// This call wrote the object.
    Done,
    /// The object has another version, or does not exist. It is unchanged.
    Conflict,
}

/// A random number that makes the names of concurrent writers differ, also between processes.
fn nonce() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// An object store.
///
/// Most objects are immutable: equal keys have equal content, so writing one twice is harmless. A record may be
/// replaced; the last write counts. A document that several writers change is written only by
/// [`put_if_absent`](Self::put_if_absent) and [`compare_and_swap`](Self::compare_and_swap).
#[async_trait]
pub trait Objects: Send + Sync {
    /// Stores the object durably before it returns. A reader never sees a partial object. False: the key is
    /// content-addressed and the object exists, so nothing was written.
    async fn put(&self, key: &ObjectKey, body: Bytes, media_type: &str) -> Result<bool, ObjectError>;

    /// Stores the object as `put` does, but never replaces one. Exactly one of several concurrent callers creates it.
    async fn put_if_absent(&self, key: &ObjectKey, body: Bytes, media_type: &str) -> Result<PutIfAbsent, ObjectError>;

    /// Replaces the object if it has the version `expected`. Of several concurrent callers with the same `expected`
    /// exactly one succeeds.
    ///
    /// After [`ServerError::Unavailable`] the write may have happened. A caller reads the object again before it
    /// repeats the change.
    async fn compare_and_swap(
        &self,
        key: &ObjectKey,
        expected: &Version,
        body: Bytes,
        media_type: &str,
    ) -> Result<Swap, ObjectError>;

    /// Whether [`link`](Self::link) can refer to the photo.
    fn links_to(&self, photo: &StoredUrl) -> bool {
        let _ = photo;
        false
    }

    /// Stores a link to a photo in place of its content, which has the hash in the key. Who reads the object gets the
    /// photo. False: the object exists, and nothing was written.
    async fn link(&self, key: &ObjectKey, photo: &StoredUrl) -> Result<bool, ObjectError> {
        let detail = format!("this store cannot link to {photo}");
        Err(ServerError::Refused { what: format!("cannot write {key}"), detail }.into())
    }

    /// # Errors
    /// [`ObjectError::Missing`]: there is no such object, or the photo that it links to is gone.
    /// [`ObjectError::Changed`]: the photo that it links to has another content now.
    async fn get(&self, key: &ObjectKey) -> Result<Bytes, ObjectError>;

    /// The object with its version, for [`compare_and_swap`](Self::compare_and_swap).
    async fn get_versioned(&self, key: &ObjectKey) -> Result<(Bytes, Version), ObjectError>;

    async fn exists(&self, key: &ObjectKey) -> Result<bool, ObjectError>;

    /// Deletes the object; of a link, not the photo. Deleting a missing object succeeds.
    async fn delete(&self, key: &ObjectKey) -> Result<(), ObjectError>;

    /// Keys that start with `prefix`, after `after`, at most `limit` of them, in byte order.
    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Page, ObjectError>;

    /// Checks that the store can be reached and written to, for `doctor` and readiness.
    async fn check(&self) -> Result<(), ObjectError>;
}
