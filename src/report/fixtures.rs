//! Photos of every status for the report's tests.

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
    }
}

/// A photo with the facts of all stages.
pub fn predicted(id: i64, p_ok: f64) -> Photo {
    let mut photo = Photo::new(RunName::default(), candidate(id));
    let bytes = format!("original {id}");
    let original = ContentHash::of(bytes.as_bytes());
    photo.facts = Facts {
        original: Some(Original { sha256: original, bytes: bytes.len() as u64, format: ImageFormat::Jpeg }),
        face: Some(Face {
            width: 900,
            height: 1200,
            angle: 11.5,
            score: 1.25,
            landmarks: vec![[1.0, 2.0]; 68],
            faces: 1,
            search: Search::Guided,
        }),
        crop: Some(Crop {
            sha256: ContentHash::of(format!("crop {id}").as_bytes()),
            format: ImageFormat::Png,
            align: Align::Paper,
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
        }),
        prediction: Some(Prediction { p_ok, model: "okng-1".into(), model_sha256: ContentHash::of(b"okng-1") }),
    };
    photo
}

fn entry(photo: Photo, state: State, at: Position, cause: Option<Cause>) -> Entry {
    let photo_id = photo.candidate.photo_id.clone();
    let message = Message { position: at, ..Message::first(photo, 1_700_000_000) };
    Entry {
        photo_id,
        status: PhotoStatus { state, stage: at.stage, attempt: 1, due_at: 0, cause, message: Some(message) },
    }
}

/// A photo that ended as predicted.
pub fn predicted_entry(id: i64, p_ok: f64) -> Entry {
    let at = Position::entering(StageName::Classify);
    entry(predicted(id, p_ok), State::Ended(Ending::Predicted), at, None)
}

pub fn ended(id: i64, ending: Ending, stage: StageName, code: &str) -> Entry {
    let photo = Photo::new(RunName::default(), candidate(id));
    entry(photo, State::Ended(ending), Position::entering(stage), Some(Cause::new(code, "test cause")))
}

pub fn waiting(id: i64, stage: StageName) -> Entry {
    let photo = Photo::new(RunName::default(), candidate(id));
    entry(photo, State::Waiting(Position::entering(stage)), Position::entering(stage), None)
}
