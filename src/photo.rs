//! The domain words: what a photo is, where it stands, and what is known about it.
//!
//! Everything that travels between stages or is written for the user is defined here, once.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest;

/// An id of the source DB: a photo's, a face's or a label's.
///
/// Most databases number their rows, some use UUIDs; both are kept as written. Ids order shorter first, then
/// by their bytes, which is numeric order for numbers. In JSON a canonical 64-bit number is a number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Id(Box<str>);

impl Id {
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn as_number(&self) -> Option<i64> {
        let number = self.0.parse::<i64>().ok()?;
        (number.to_string() == *self.0).then_some(number)
    }
}

impl Ord for Id {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.len(), &self.0).cmp(&(other.0.len(), &other.0))
    }
}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<i64> for Id {
    fn from(number: i64) -> Self {
        Self::new(number.to_string())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_number() {
            Some(number) => serializer.serialize_i64(number),
            None => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Text(String),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Number(number) => Id::from(number),
            Written::Text(text) => Id::new(text),
        })
    }
}

/// A photo worth fetching: it shows exactly one labelled face. One row of the candidate query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub photo_id: Id,
    pub face_id: Id,
    pub label_id: Id,
    pub label_name: Option<String>,
    /// Where the photo itself is to be had.
    pub photo_url: String,
    /// The page that showed it.
    pub source_url: Option<String>,
    /// As the source DB wrote it; never parsed.
    pub posted_at: Option<String>,
}

#[cfg(test)]
impl Candidate {
    /// Any candidate, for tests.
    pub fn example(photo_id: i64) -> Self {
        Self {
            photo_id: photo_id.into(),
            face_id: 1.into(),
            label_id: 1.into(),
            label_name: None,
            photo_url: "http://photos.test/1.jpg".into(),
            source_url: None,
            posted_at: None,
        }
    }
}

impl Candidate {
    /// The host that serves the photo, for politeness and statistics; empty when the URL has none.
    pub fn host(&self) -> String {
        url::Url::parse(&self.photo_url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// The name of a run: one collection's way through the pipeline. `[a-z0-9][a-z0-9-]{0,39}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunName(String);

#[derive(Debug, Clone, thiserror::Error)]
#[error("run name `{0}` is not usable: take 1 to 40 of a-z, 0-9 and '-', not starting with '-'")]
pub struct BadRunName(String);

impl RunName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RunName {
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for RunName {
    type Err = BadRunName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=40).contains(&text.len()) && text.chars().all(legal) && !text.starts_with('-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadRunName(text.to_owned()))
        }
    }
}

impl TryFrom<String> for RunName {
    type Error = BadRunName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RunName> for String {
    fn from(name: RunName) -> Self {
        name.0
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which photo of which run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PhotoKey {
    pub run: RunName,
    pub photo_id: Id,
}

impl PhotoKey {
    /// The photo's trace: 16 bytes derived from run and id, so that every process, and `why` years later, names
    /// the same one without storing it. The second half of the same hash is its root span.
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
        hex(&self.trace_id)
    }

    /// The trace and its root as a W3C `traceparent` header, sampled.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace_id_hex(), hex(&self.root_span))
    }
}

/// The four stages, in the order in which a photo passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageName {
    Fetch,
    Detect,
    Crop,
    Classify,
}

impl StageName {
    pub const ALL: [StageName; 4] = [Self::Fetch, Self::Detect, Self::Crop, Self::Classify];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Detect => "detect",
            Self::Crop => "crop",
            Self::Classify => "classify",
        }
    }

    /// The stage after this one; none after the last.
    pub fn next(self) -> Option<StageName> {
        Self::ALL.get(self as usize + 1).copied()
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is not a stage: take fetch, detect, crop or classify")]
pub struct UnknownStage(String);

impl FromStr for StageName {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text).ok_or_else(|| UnknownStage(text.to_owned()))
    }
}

/// A final answer. Every candidate ends in exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The photo is not to be had any more: 404, 410, 403, or the host refuses.
    Gone,
    /// It is there and does not qualify: not an image, no face, several faces, ...
    Rejected,
    /// Every attempt was used up, or it is poison: a dead letter.
    Failed,
    /// It went all the way.
    Predicted,
}

impl Ending {
    pub const ALL: [Ending; 4] = [Self::Gone, Self::Rejected, Self::Failed, Self::Predicted];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Predicted => "predicted",
        }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is not a final answer: take gone, rejected, failed or predicted")]
pub struct UnknownEnding(String);

impl FromStr for Ending {
    type Err = UnknownEnding;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|ending| ending.as_str() == text).ok_or_else(|| UnknownEnding(text.to_owned()))
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where in its way a photo is. Positions only grow: first by stage, then by turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub stage: StageName,
    /// How often the photo was enqueued for this stage, counted from 1. Waits that cost no attempt count too.
    pub turn: u32,
}

impl Position {
    pub const START: Position = Position { stage: StageName::Fetch, turn: 1 };

    pub fn entering(stage: StageName) -> Self {
        Self { stage, turn: 1 }
    }

    pub fn again(self) -> Self {
        Self { turn: self.turn + 1, ..self }
    }
}

/// A photo's standing in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Enqueued for a stage, or being worked on there.
    Waiting(Position),
    Ended(Ending),
}

/// Why a photo did not simply advance: a short slug that is counted, and a sentence for the person who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Lower-case words with hyphens: `no-face`, `http-404`, `timeout`. One of a few dozen, fit for a metric's label.
    pub slug: String,
    pub detail: String,
}

impl Cause {
    /// Longer details are clipped: they may quote a stranger's server.
    pub const MAX_DETAIL: usize = 300;
    /// A person has the photo's host paused.
    pub const HOST_PAUSED: &'static str = "host-paused";
    /// The photo's host has as many requests as we allow.
    pub const HOST_BUSY: &'static str = "host-busy";
    /// Nobody can tell how many requests the photo's host has.
    pub const TURNS_AWAY: &'static str = "turns-away";
    /// This machine reaches nobody.
    pub const NO_NETWORK: &'static str = "no-network";

    pub fn new(slug: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > Self::MAX_DETAIL {
            let end = (0..=Self::MAX_DETAIL).rev().find(|&i| detail.is_char_boundary(i)).unwrap_or(0);
            detail.truncate(end);
            detail.push('…');
        }
        Self { slug: slug.into(), detail }
    }

    /// Whether a photo waits for us and not for its host: however long that takes, nobody has failed.
    pub fn is_our_own(&self) -> bool {
        [Self::HOST_PAUSED, Self::HOST_BUSY, Self::TURNS_AWAY, Self::NO_NETWORK].contains(&self.slug.as_str())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.slug, self.detail)
    }
}

/// A SHA-256, 64 lower-case hex digits in text: the name of an object is the hash of its content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is not a SHA-256 of 64 hex digits")]
pub struct BadContentHash(String);

impl FromStr for ContentHash {
    type Err = BadContentHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadContentHash(text.to_owned());
        if text.len() != 64 || !text.is_ascii() {
            return Err(bad());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Self(digest))
    }
}

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The kinds of picture file that are accepted, told by their first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    Jpeg,
    Png,
    Webp,
    Gif,
    Bmp,
    Tiff,
}

impl ImageFormat {
    /// Looks at the magic bytes; a name or a Content-Type is a stranger's claim.
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'B', b'M', ..] => Some(Self::Bmp),
            [b'I', b'I', 0x2a, 0, ..] | [b'M', b'M', 0, 0x2a, ..] => Some(Self::Tiff),
            _ => None,
        }
    }

    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Webp => "webp",
            Self::Gif => "gif",
            Self::Bmp => "bmp",
            Self::Tiff => "tiff",
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
            Self::Gif => "image/gif",
            Self::Bmp => "image/bmp",
            Self::Tiff => "image/tiff",
        }
    }
}

/// What fetch found out: the photo as its host served it, unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    pub sha256: ContentHash,
    pub bytes: u64,
    pub format: ImageFormat,
}

/// 68 points, iBUG 300-W order, `[x, y]` in pixels; a pixel's centre has whole coordinates.
pub type Landmarks = Vec<[f32; 2]>;

/// How the face is searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Search {
    /// One look with YuNet, then dlib on an upright region of interest.
    #[default]
    Guided,
    /// The published method: nine turns of the whole photo.
    Full,
}

/// How the square of the crop is laid around the face.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Align {
    /// Levelled on the eyes, centre moved towards the forehead (Karras et al., arXiv 1710.10196, appendix C).
    #[default]
    Paper,
    /// As `paper`, levelled on eyes and mouth together, as FFHQ does.
    Ffhq,
    /// The original scripts: the centre moved the wrong way. For comparison only.
    Seed,
}

/// What detect found out: the one face of the photo, in pixels of the upright original.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Face {
    /// Size of the upright original (EXIF orientation applied).
    pub width: u32,
    pub height: u32,
    /// Degrees as `cv2.getRotationMatrix2D` counts them: turning the picture by it levels the eyes.
    pub angle: f64,
    /// dlib's HOG score.
    pub score: f64,
    pub landmarks: Landmarks,
    /// How many faces the photo shows.
    pub faces: u32,
    pub search: Search,
}

/// What crop found out: the square that was cut, and what its pixels are like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Crop {
    pub sha256: ContentHash,
    pub format: ImageFormat,
    pub align: Align,
    /// The square's turn in degrees, as [`Face::angle`].
    pub angle: f64,
    /// `[x, y]` of the square's centre and its side, in pixels of the upright original.
    pub centre: [f64; 2],
    pub side: f64,
    /// Width and height of the saved crop.
    pub size: u32,
    /// In pixels of the crop.
    pub landmarks: Landmarks,
    /// Share of the crop's pixels that are mirrored, 0 to 1.
    pub mirrored: f64,
    /// The same inside the head's ellipse.
    pub mirrored_head: f64,
    /// Share of mirrored pixels in each cell of a 4x4 grid, row by row: the classifier's second input.
    pub mirrored_grid: Vec<f32>,
    pub blur: f64,
    pub exposure: f64,
}

/// What classify found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Probability that a person would say OK, rounded to four decimals.
    pub p_ok: f64,
    /// Name and version of the model: a score means nothing without it.
    pub model: String,
}

/// What is known about a photo so far. Each stage adds its part and takes nothing away.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Facts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Original>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub face: Option<Face>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Crop>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// A photo under way: the candidate and what the stages have found out about it.
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

/// Lower-case hex digits of some bytes.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_order_like_numbers_and_keep_their_spelling() {
        let mut ids: Vec<Id> = ["10", "9", "007", "a-1"].into_iter().map(Id::from).collect();
        ids.sort();
        assert_eq!(ids.iter().map(Id::as_str).collect::<Vec<_>>(), ["9", "10", "007", "a-1"]);
        assert_eq!(serde_json::to_string(&ids).unwrap(), r#"[9,10,"007","a-1"]"#);
        assert_eq!(serde_json::from_str::<Vec<Id>>(r#"[9,10,"007","a-1"]"#).unwrap(), ids);
    }

    #[test]
    fn run_names_are_checked() {
        assert!("faces-2026".parse::<RunName>().is_ok());
        for bad in ["", "-x", "Faces", "a/b", &"x".repeat(41)] {
            assert!(bad.parse::<RunName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn long_details_are_clipped_at_a_character() {
        let cause = Cause::new("http-500", "é".repeat(400));
        assert!(cause.detail.len() <= Cause::MAX_DETAIL + '…'.len_utf8());
        assert!(cause.detail.ends_with('…'));
    }

    #[test]
    fn content_hashes_round_trip() {
        let hash = ContentHash::of(b"abc");
        assert_eq!(hash.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash.to_string().parse::<ContentHash>().unwrap(), hash);
        assert!("xyz".parse::<ContentHash>().is_err());
    }
}
