//! The tests that every adapter of a port must pass.

mod broker;
mod feed;
mod ledger;
mod objects;
mod users;
mod verdicts;

use facemill::domain::{Candidate, Id, Message, Photo, RunName};

fn candidate(id: &str) -> Candidate {
    Candidate {
        photo_id: Id::from(id),
        face_id: Id::from("f1"),
        label_id: Id::from("l1"),
        label_name: Some("宇佐美 'n' \"é\"".into()),
        photo_url: format!("http://photos.test/{id}.jpg"),
        source_url: None,
        posted_at: Some("2019-12-31 23:59:59".into()),
        source: None,
        columns: Default::default(),
    }
}

fn run(name: &str) -> RunName {
    name.parse().unwrap()
}

fn first(id: &str) -> Message {
    Message::first(Photo::new(run("r"), candidate(id)), 1_700_000_000)
}
