//! Dead letters and requeued photos on servers, and a dump in S3.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use bytes::Bytes;
use facemill::broker::rabbitmq::{RabbitMq, RabbitMqSettings};
use facemill::broker::{Broker, DeadLetter};
use facemill::domain::{Cause, CauseCode, ContentHash, ImageFormat};
use facemill::objects::s3::{self, S3};
use facemill::objects::{ObjectKey, Objects};
use serde_json::Value;

use super::ended;
use super::installation::{Installation, Worker};
use support::collection::Collection;
use support::servers::seaweedfs::SeaweedFs;

impl Installation {
    fn setting(&self, name: &str) -> &str {
        &self.environment.iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// Stores a dump in the bucket. Returns its address, which does not contain its format.
    async fn upload(&self, dump: String) -> String {
        let prefix = format!("dumps-{}/", std::process::id());
        let settings = s3::S3Settings { prefix: prefix.clone(), ..SeaweedFs::shared().settings() };
        let key = ObjectKey::original(ContentHash::of(dump.as_bytes()), ImageFormat::Jpeg);
        S3::new(settings).put(&key, Bytes::from(dump), "image/jpeg").await.unwrap();
        format!("s3://{}/{prefix}{key}", self.setting("FACEMILL_S3_BUCKET"))
    }

    /// Publishes a dead letter that is not a message of facemill.
    async fn dead_letter_foreign(&self) {
        let settings = RabbitMqSettings::new(self.setting("FACEMILL_AMQP_URL")).unwrap();
        let broker = RabbitMq::new(settings.with_prefix(self.setting("FACEMILL_PREFIX")).unwrap()).unwrap();
        let (stage, cause) = (None, Cause::new(CauseCode::ForeignMessage, "a foreign message"));
        let body = "a foreign body".to_owned();
        let letter = DeadLetter { stage, cause, attempt: 0, first_at: 1, last_at: 1, trace_id: None, body };
        broker.dead_letter(&letter).await.unwrap();
    }

    fn dead(&self) -> Vec<Value> {
        self.json(&["dead", "list"]).as_array().unwrap().clone()
    }

    /// Fetches until all four photos have ended.
    fn fetch(&self, collection: &Collection) {
        let mut worker = self.worker(&["fetch"], collection);
        self.until("four ended photos", |status| ended(status) == 4);
        // Once the worker has ended, its dead letters are published.
        assert_eq!(worker.terminate(), Some(0));
    }
}

#[test]
fn photos_are_requeued_and_their_letters_removed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let collection = Collection::serve();
    let installation = Installation::new();
    let table = collection.table_of(&["/broken.jpg", "/410.jpg", "/403.jpg", "/loop.jpg"]);
    let dump = runtime.block_on(installation.upload(table));
    assert_eq!(installation.json(&["produce", &dump])["new"], 4);
    assert_eq!(installation.json(&["produce", &dump])["known"], 4);
    let audit = installation.json(&["audit", &dump]);
    assert_eq!((&audit["candidates"], &audit["waiting"]), (&4.into(), &4.into()), "{audit}");
    let missing = installation.facemill(&["produce", &format!("{dump}x")]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("the object does not exist"));

    installation.fetch(&collection);
    let id = collection.id_of("/broken.jpg").to_string();
    let [letter] = &installation.dead()[..] else { panic!("one photo failed") };
    assert_eq!((letter["photo_id"].to_string(), &letter["cause"]["code"]), (id.clone(), &"http-500".into()));
    let shown = installation.json(&["dead", "show", &id]);
    assert!(shown[0]["body"].as_str().unwrap().contains("/broken.jpg"));
    runtime.block_on(installation.dead_letter_foreign());

    // The ledger has deleted these messages, so they are restored from the records.
    let gone = installation.json(&["retry", "--where", "outcome=gone"]);
    assert_eq!((&gone["requeued"], &gone["letters_removed"]), (&2.into(), &0.into()));
    let replayed = installation.json(&["dead", "replay"]);
    assert_eq!((&replayed["requeued"], &replayed["foreign"]), (&1.into(), &1.into()));
    let [foreign] = &installation.dead()[..] else { panic!("the foreign letter remains") };
    assert_eq!(foreign["photo_id"], Value::Null);
    installation.until("three photos in the queue", |status| status["stages"]["fetch"]["ready"] == 3);

    installation.fetch(&collection);
    assert_eq!(installation.dead().len(), 2, "the photo failed again");
    let failed = installation.json(&["retry", "--where", "cause=http-500"]);
    assert_eq!((&failed["requeued"], &failed["letters_removed"]), (&1.into(), &1.into()));
    let kept = installation.facemill(&["dead", "drop"]);
    assert_eq!((kept.status.code(), installation.dead().len()), (Some(1), 1));
    let dropped = installation.json(&["dead", "drop", "--yes", "--where", "cause=foreign-message"]);
    assert_eq!((&dropped["dropped"], installation.dead()), (&1.into(), vec![]));

    let mut watch = installation.command(&["status", "--watch", "1", "--json"]);
    let mut watch = Worker(watch.stdout(Stdio::piped()).spawn().unwrap());
    let mut statuses = BufReader::new(watch.0.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&statuses.next().unwrap().unwrap()).unwrap();
    let (first, second) = (next(), next());
    assert_eq!((first.get("rate"), &second["rate"], &second["seconds_left"]), (None, &0.0.into(), &Value::Null));
    assert_eq!(watch.signal("-INT"), Some(0));
}
