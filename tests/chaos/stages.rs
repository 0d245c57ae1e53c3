//! Stages that cost almost nothing. The URL of a photo says what happens to it, so that every process knows.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use facemill::domain::{
    Align, Candidate, Cause, CauseCode, ContentHash, Crop, Face, Id, ImageFormat, LandmarkScheme, Original, Photo,
    Prediction, Search, StageName,
};
use facemill::objects::{ObjectError, ObjectKey, Objects};
use facemill::pipeline::stage::{Outcome, Retry, Stage};

/// What happens to a photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Plain,
    Gone,
    Rejected,
    /// Its stage asks for a wait once.
    RateLimited,
    /// Fails at its stage until its attempts are used up.
    AlwaysFails,
    /// Poison at its stage.
    Poison,
    /// Crashes the process that runs its stage.
    CrashesWorker,
}

impl Kind {
    const ALL: [Kind; 7] = [
        Self::Plain,
        Self::Gone,
        Self::Rejected,
        Self::RateLimited,
        Self::AlwaysFails,
        Self::Poison,
        Self::CrashesWorker,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Gone => "gone",
            Self::Rejected => "rejected",
            Self::RateLimited => "rate-limited",
            Self::AlwaysFails => "always-fails",
            Self::Poison => "poison",
            Self::CrashesWorker => "crashes-worker",
        }
    }

    /// Whether the photo must be dead-lettered.
    pub fn is_dead_lettered(self) -> bool {
        matches!(self, Self::AlwaysFails | Self::Poison | Self::CrashesWorker)
    }
}

/// A photo of a kind, with its effect at `stage`.
pub fn candidate(number: u64, kind: Kind, stage: StageName) -> Candidate {
    Candidate {
        photo_id: Id::from(1000 + number as i64),
        face_id: Id::from(5000 + number as i64),
        label_id: Id::from(number as i64 % 7),
        label_name: Some(format!("person {}", number % 7)),
        photo_url: format!("http://photos.test/{}/{stage}/{number}.png", kind.name()),
        source_url: None,
        posted_at: None,
        source: None,
        columns: Default::default(),
    }
}

/// The kind and the stage in the URL of a photo.
pub fn kind_of(candidate: &Candidate) -> (Kind, StageName) {
    let mut words = candidate.photo_url.split('/').skip(3);
    let kind = words.next().and_then(|word| Kind::ALL.into_iter().find(|kind| kind.name() == word));
    let stage = words.next().and_then(|word| word.parse().ok());
    kind.zip(stage).expect("a photo of this suite")
}

/// A stage that derives its results from the photo's URL.
pub struct FakeStage {
    pub name: StageName,
    pub objects: Arc<dyn Objects>,
    /// Stores which photos were seen before. Its writes do not count for failpoints.
    pub unwatched: Arc<dyn Objects>,
    /// Whether [`Kind::CrashesWorker`] crashes the process. Otherwise the photo is poison.
    pub crashes: bool,
}

#[async_trait]
impl Stage for FakeStage {
    fn name(&self) -> StageName {
        self.name
    }

    async fn run(&self, photo: &Photo) -> Outcome {
        let cause = |code| Cause::new(code, "as the URL says");
        let worked = match kind_of(&photo.candidate) {
            (kind, stage) if stage == self.name => match kind {
                Kind::Gone => return Outcome::Gone(cause("http-404")),
                Kind::Rejected => return Outcome::Reject(cause("no-face")),
                Kind::AlwaysFails => return Retry::failed(cause("timeout")),
                Kind::CrashesWorker if self.crashes => std::process::abort(),
                Kind::Poison | Kind::CrashesWorker => return Outcome::Poison(cause("harmful")),
                Kind::RateLimited => match self.was_seen(photo).await {
                    Ok(true) => self.work(photo).await,
                    Ok(false) => return Retry::wait(cause("http-429"), None),
                    Err(error) => Err(error),
                },
                Kind::Plain => self.work(photo).await,
            },
            _ => self.work(photo).await,
        };
        match worked {
            Ok(photo) => Outcome::Advance(Box::new(photo)),
            Err(error) => Retry::wait(Cause::new(CauseCode::StoreUnavailable, error.to_string()), None),
        }
    }
}

impl FakeStage {
    /// Notes that the photo was seen. Returns whether it was seen before.
    async fn was_seen(&self, photo: &Photo) -> Result<bool, ObjectError> {
        let name = format!("seen/{}/{}", self.name, photo.candidate.photo_id);
        let mark = ObjectKey::parse(&name).expect("letters and digits");
        let known = self.unwatched.exists(&mark).await?;
        self.unwatched.put(&mark, Bytes::new(), "text/plain").await?;
        Ok(known)
    }

    async fn work(&self, photo: &Photo) -> Result<Photo, ObjectError> {
        let mut photo = photo.clone();
        match self.name {
            StageName::Fetch => {
                let body = picture(photo.candidate.photo_url.as_bytes(), 3000);
                let (sha256, format) = (ContentHash::of(&body), ImageFormat::Png);
                let bytes = body.len() as u64;
                self.objects.put(&ObjectKey::original(sha256, format), body, format.media_type()).await?;
                photo.facts.original = Some(Original { sha256, bytes, format });
            }
            StageName::Detect => photo.facts.face = Some(face(&self.original(&photo).await?)),
            StageName::Crop => {
                let body = picture(&self.original(&photo).await?, 2000);
                let crop = crop(&body);
                self.objects.put(&ObjectKey::face(crop.sha256, crop.format), body, crop.format.media_type()).await?;
                photo.facts.crop = Some(crop);
            }
            StageName::Classify => {
                let crop = photo.facts.crop.as_ref().expect("it passed crop");
                let body = self.objects.get(&ObjectKey::face(crop.sha256, crop.format)).await?;
                photo.facts.prediction = Some(Prediction {
                    p_ok: f64::from(body[100]) / 256.0,
                    model: "chaos 1".into(),
                    model_sha256: ContentHash::of(b"chaos 1"),
                });
            }
        }
        Ok(photo)
    }

    async fn original(&self, photo: &Photo) -> Result<Bytes, ObjectError> {
        let original = photo.facts.original.as_ref().expect("it passed fetch");
        self.objects.get(&ObjectKey::original(original.sha256, original.format)).await
    }
}

/// Bytes derived from `seed`, with the signature of a PNG.
fn picture(seed: &[u8], length: usize) -> Bytes {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut link = ContentHash::of(seed).to_string();
    while bytes.len() < length {
        bytes.extend_from_slice(link.as_bytes());
        link = ContentHash::of(link.as_bytes()).to_string();
    }
    bytes.into()
}

fn face(original: &[u8]) -> Face {
    let at = |index: usize| f32::from(original[100 + index]);
    Face {
        width: 900,
        height: 1200,
        angle: f64::from(at(0)) / 4.0,
        score: 1.5,
        landmarks: (0..68).map(|index| [at(2 * index), at(2 * index + 1)]).collect(),
        faces: 1,
        landmark_scheme: LandmarkScheme::Ibug,
        search: Search::Guided,
    }
}

fn crop(body: &[u8]) -> Crop {
    Crop {
        sha256: ContentHash::of(body),
        format: ImageFormat::Png,
        align: Align::Paper,
        fill: Default::default(),
        angle: 1.0,
        centre: [450.0, 600.0],
        side: 512.0,
        size: 512,
        landmarks: (0..68u8).map(|index| [f32::from(index); 2]).collect(),
        mirrored: 0.0,
        mirrored_head: 0.0,
        mirrored_grid: vec![0.0; 16],
        blur: 1.0,
        exposure: 0.5,
        quality: None,
        fingerprint: None,
    }
}
