//! A candidate, the photo in the pipeline, and what each stage has found.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::photo_url::{self, MendedUrl};
use super::{ContentHash, Crop, Decoding, Face, Id, ImageFormat, Prediction, RunName, hash};

/// A photo with exactly one labelled face: one row of the candidate query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub photo_id: Id,
    pub face_id: Id,
    pub label_id: Id,
    pub label_name: Option<String>,
    /// The URL of the image file.
    pub photo_url: String,
    /// The page that showed the photo.
    pub source_url: Option<String>,
    /// As the source database wrote it; never parsed.
    pub posted_at: Option<String>,
    /// The source that the photo was read from: a file as the command line names it, or the URL of a photo folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Further columns of the source by their names, for export and data card. A column that is NULL is left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
}

impl Candidate {
    /// Any candidate, for tests.
    pub fn example(photo_id: i64) -> Self {
        Self { face_id: 1.into(), label_id: 1.into(), ..Self::new(photo_id.into(), "http://photos.test/1.jpg".into()) }
    }

    /// A photo of which only the URL is known. Its face has the id of the photo; it has no label.
    pub fn new(photo_id: Id, photo_url: String) -> Self {
        Self {
            face_id: photo_id.clone(),
            photo_id,
            label_id: Id::new(""),
            label_name: None,
            photo_url,
            source_url: None,
            posted_at: None,
            source: None,
            columns: BTreeMap::new(),
        }
    }

    /// The host that serves the photo, for rate limits and statistics; empty when the URL has none.
    pub fn host(&self) -> String {
        photo_url::host(&self.photo_url)
    }
}

/// Identifies a photo: its run and its id in the source database.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PhotoKey {
    pub run: RunName,
    pub photo_id: Id,
}

impl PhotoKey {
    /// The photo's trace: 16 bytes derived from run and id, so that every process, and `why` years later,
    /// computes the same one without storing it. The second half of the same hash is its root span.
    pub fn trace(&self) -> Trace {
        let hash = sha2::Sha256::digest(format!("{}/{}", self.run, self.photo_id));
        let mut trace = Trace { trace_id: [0; 16], root_span: [0; 8] };
        trace.trace_id.copy_from_slice(&hash[..16]);
        trace.root_span.copy_from_slice(&hash[16..24]);
        trace
    }
}

impl fmt::Display for PhotoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run, self.photo_id)
    }
}

/// A photo's trace and the span at its root, as W3C trace context counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    pub trace_id: [u8; 16],
    pub root_span: [u8; 8],
}

impl Trace {
    pub fn trace_id_hex(&self) -> String {
        hash::hex(&self.trace_id)
    }

    /// The trace and its root as a W3C `traceparent` header, sampled.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace_id_hex(), hash::hex(&self.root_span))
    }
}

/// The result of fetch: the photo as its host served it, unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    pub sha256: ContentHash,
    pub bytes: u64,
    pub format: ImageFormat,
}

/// The results of the stages so far. Each stage adds its own and removes nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// The URL that fetch requested; none if it is that of the candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mended_url: Option<MendedUrl>,
    /// What the host reserved about the use of the photo, in its headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opt_out: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Original>,
    /// Detect adds it with the face.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoding: Option<Decoding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub face: Option<Face>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Crop>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<Prediction>,
}

/// A photo in the pipeline: the candidate and the results of the stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Photo {
    pub run: RunName,
    pub candidate: Candidate,
    #[serde(default)]
    pub facts: Facts,
}

impl Photo {
    pub fn new(run: RunName, candidate: Candidate) -> Self {
        Self { run, candidate, facts: Facts::default() }
    }

    pub fn key(&self) -> PhotoKey {
        PhotoKey { run: self.run.clone(), photo_id: self.candidate.photo_id.clone() }
    }
}
