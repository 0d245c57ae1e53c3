//! Photos of every status for the report's tests.

use crate::dataset::Index;
use crate::dataset::index::Change;

use crate::domain::Message;
use crate::domain::*;
use crate::ledger::{Entry, PhotoStatus};

fn candidate(id: i64) -> Candidate {
    Candidate {
        photo_id: id.into(),
        face_id: (id * 10).into(),
        label_id: (id % 3).into(),
        label_name: Some(format!("Person {}", id % 3)),
        photo_url: format!("https://photos.example/{id}.jpg"),
        source_url: Some(format!("https://blog.example/{id}")),
        posted_at: Some("2015-01-02 03:04:05".into()),
        source: None,
        columns: Default::default(),
    }
}

/// A photo with the facts of all stages.
pub fn predicted(id: i64, p_ok: f64) -> Photo {
    let mut photo = Photo::new(RunName::default(), candidate(id));
    let bytes = format!("original {id}");
    let original = ContentHash::of(bytes.as_bytes());
    photo.facts = Facts {
        mended_url: None,
        opt_out: None,
        original: Some(Original { sha256: original, bytes: bytes.len() as u64, format: ImageFormat::Jpeg }),
        decoding: None,
        face: Some(Face {
            width: 900,
            height: 1200,
            angle: 11.5,
            score: 1.25,
            landmarks: vec![[1.0, 2.0]; 68],
            faces: 1,
            landmark_scheme: LandmarkScheme::Ibug,
            search: Search::Guided,
        }),
        crop: Some(Crop {
            sha256: ContentHash::of(format!("crop {id}").as_bytes()),
            format: ImageFormat::Png,
            align: Align::Paper,
            fill: Default::default(),
            angle: 12.5,
            centre: [450.0, 600.5],
            side: 512.25,
            size: 512,
            landmarks: vec![[3.0, 4.5]; 68],
            mirrored: 0.125,
            mirrored_head: 0.0,
            mirrored_grid: vec![0.125; 16],
            blur: 120.0,
            exposure: 0.5,
            quality: Some(Quality {
                contrast: 0.25,
                saturation: 0.5,
                face_blur: 90.5,
                jpeg_quality: Some(92),
                yaw: -0.25,
                pitch: 0.5,
                eyes_open: 0.25,
                mouth_open: 0.125,
                outlier: 1.5,
                pixels: ContentHash::of(format!("pixels {id}").as_bytes()),
            }),
            fingerprint: None,
        }),
        prediction: Some(Prediction { p_ok, model: "okng-1".into(), model_sha256: ContentHash::of(b"okng-1") }),
    };
    photo
}

fn record(photo: Photo, ending: Ending, stage: StageName, cause: Option<Cause>) -> Record {
    let message = Message { position: Position::entering(stage), ..Message::first(photo, 1_700_000_000) };
    Record { ending, cause, message }
}

/// A photo that ended as predicted.
pub fn predicted_record(id: i64, p_ok: f64) -> Record {
    record(predicted(id, p_ok), Ending::Predicted, StageName::Classify, None)
}

pub fn ended(id: i64, ending: Ending, stage: StageName, code: &str) -> Record {
    record(Photo::new(RunName::default(), candidate(id)), ending, stage, Some(Cause::new(code, "test cause")))
}

pub fn waiting(id: i64, stage: StageName) -> Entry {
    let at = Position::entering(stage);
    let photo = Photo::new(RunName::default(), candidate(id));
    let message = Message { position: at, ..Message::first(photo, 1_700_000_000) };
    let state = State::Waiting(at);
    let status = PhotoStatus { state, stage, attempt: 1, due_at: 0, cause: None, message: Some(message) };
    Entry { photo_id: id.into(), status }
}

pub fn index_of(records: impl IntoIterator<Item = Record>) -> Index {
    let mut index = Index::open(":memory:".as_ref(), &RunName::default()).unwrap();
    let changes: Vec<Change> = records.into_iter().map(|record| Change::Ended(Box::new(record))).collect();
    index.apply(&changes, None).unwrap();
    index
}
