//! `facemill takedown`, on a run in a folder and on one on servers: nothing of the photo is left, and it does not come back.

mod leftovers;
mod refusal;
mod runs;

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use facemill::archive::crop_groups::{CropGroup, GroupKind, StoredGroups};
use facemill::broker::embedded::Embedded;
use facemill::broker::rabbitmq::{RabbitMq, RabbitMqSettings};
use facemill::broker::{Broker, DeadLetter};
use facemill::classifier::feature_store::{FeatureKind, FeatureStore};
use facemill::domain::{Cause, CauseCode, ContentHash, Message, Photo, Position, StageName};
use facemill::sqlite::{Access, Database};
use facemill::vision::embedding::DIMENSIONS;
use leftovers::Leftovers;
use serde_json::{Value, json};
use support::curation::{CuratedRun, photo};

/// The photo that is taken down, and a copy of it under another id.
const PHOTO: u64 = 4712;
const COPY: u64 = 4714;
/// A photo with the same label that has not ended.
const WAITING: u64 = 4716;
const LABEL: &str = "Ada Nobody-Else";

/// A run with ten other faces.
struct Case {
    curated: CuratedRun,
    broker: Arc<dyn Broker>,
    crop: ContentHash,
    original: ContentHash,
}

impl Case {
    async fn new(curated: CuratedRun) -> Self {
        let (mut taken, crop_file, original_file) = photo(&curated.run, PHOTO);
        taken.candidate.label_name = Some(LABEL.to_owned());
        let (crop, original) = (ContentHash::of(&crop_file), ContentHash::of(&original_file));
        // The same picture at another address, with another label.
        let mut copy = taken.clone();
        copy.candidate = support::faces::photo(COPY).candidate;
        curated.finish(taken, crop_file.clone(), original_file.clone()).await;
        curated.finish(copy, crop_file, original_file).await;
        let broker = broker(&curated).await;
        let case = Self { curated, broker, crop, original };
        case.enqueue().await;
        case.find_person().await;
        case
    }

    /// A photo that waits, with its messages: in the queue, in a delay queue and as a dead letter.
    async fn enqueue(&self) {
        let mut waiting = support::faces::photo(WAITING);
        waiting.run = self.curated.run.clone();
        waiting.candidate.label_name = Some(LABEL.to_owned());
        let message = Message::first(Photo::new(waiting.run, waiting.candidate.clone()), 5);
        self.curated.ledger.register(&self.curated.run, &[waiting.candidate], 5).await.unwrap();
        self.broker.publish(&message).await.unwrap();
        let late = Message { position: Position { stage: StageName::Fetch, delivery: 2 }, ..message.clone() };
        self.broker.publish_after(&late, std::time::Duration::from_secs(3000)).await.unwrap();
        let letter = DeadLetter {
            stage: Some(StageName::Fetch),
            cause: Cause::new(CauseCode::Http(500), "x"),
            attempt: 1,
            first_at: 5,
            last_at: 5,
            trace_id: None,
            body: String::from_utf8(message.encode()).unwrap(),
        };
        self.broker.dead_letter(&letter).await.unwrap();
    }

    /// What `facemill identities` leaves: the face looks like those of two others.
    async fn find_person(&self) {
        let others = [1, 2].map(|id| photo(&self.curated.run, id).0.facts.crop.unwrap().sha256);
        let group = CropGroup { crops: vec![others[0], self.crop, others[1]] };
        let objects = self.curated.objects.clone();
        let stored = StoredGroups::new(objects, self.curated.run.clone(), GroupKind::Identities);
        stored.write(&[group], 12, 1_700_000_000).await.unwrap();
    }

    fn cache(&self) -> PathBuf {
        let folder = self.curated.path().join(if self.is_folder() { "cache/facemill" } else { "facemill" });
        std::fs::create_dir_all(folder.join("thumbnails")).unwrap();
        folder
    }

    fn is_folder(&self) -> bool {
        self.curated.path().join("ledger.sqlite").is_file()
    }

    /// What people and programs make of the photo.
    fn use_it(&self) {
        let judgements = self.curated.path().join("judgements.csv");
        std::fs::write(&judgements, format!("photo_id,judgement\n{PHOTO},ok\n1,ok\n2,ng\n3,ok\n")).unwrap();
        done(&self.curated, &["verdicts", "import", judgements.to_str().unwrap()]);
        done(&self.curated, &["dataset", "freeze", "v1", "--size", "64", "--where", "size>=1", "--placeholders"]);
        done(&self.curated, &["dataset", "freeze", "others", "--size", "64", "--where", "size>=256"]);
        if self.is_folder() {
            done(&self.curated, &["report"]);
        }
        let cache = self.cache();
        let features = if self.is_folder() { self.curated.path().to_owned() } else { cache.clone() };
        let kind = FeatureKind::EMBEDDINGS;
        let mut embeddings =
            FeatureStore::open_kind(kind, &features.join("embeddings.sqlite"), kind.most_bytes).unwrap();
        embeddings.write(ContentHash::of(b"v"), &[(self.crop, vec![0.5; DIMENSIONS])]).unwrap();
        let mut features = FeatureStore::open(&features.join("features.sqlite"), 1 << 30).unwrap();
        let values = vec![0.5; 5488];
        features.write(ContentHash::of(b"v"), &[(self.crop, values)]).unwrap();
        for name in [format!("{}-256.jpg", self.crop), format!("{}-original.jpg", self.original)] {
            std::fs::write(cache.join("thumbnails").join(name), self.crop.to_string()).unwrap();
        }
    }

    async fn leftovers(&self) -> Leftovers {
        Leftovers::read(&self.curated, &*self.broker, &self.cache()).await
    }

    /// Where the texts and hashes of the photo are.
    async fn traces(&self) -> Vec<String> {
        let leftovers = self.leftovers().await;
        let mut found = Vec::new();
        for text in
            [LABEL.to_owned(), format!("/{PHOTO}.jpg"), format!("blog.example/{PHOTO}"), format!("/{WAITING}.jpg")]
        {
            found.extend(leftovers.with(text.as_bytes()));
        }
        for hash in [self.crop, self.original] {
            found.extend(leftovers.with(hash.to_string().as_bytes()));
            found.extend(leftovers.with(hash.as_bytes()));
        }
        // A refusal is named like the hash that it refuses.
        found.retain(|place| !place.contains("refusals/originals/"));
        found.sort();
        found.dedup();
        found
    }
}

async fn broker(curated: &CuratedRun) -> Arc<dyn Broker> {
    let variable = |name: &str| {
        let command = curated.command(&[]);
        let found = command.get_envs().find(|(known, _)| *known == name)?.1?;
        Some(found.to_str().unwrap().to_owned())
    };
    match variable("FACEMILL_AMQP_URL") {
        Some(url) => {
            let settings = RabbitMqSettings::new(&url).unwrap();
            Arc::new(RabbitMq::new(settings.with_prefix(&variable("FACEMILL_PREFIX").unwrap()).unwrap()).unwrap())
        }
        None => {
            let database = Database::open(&curated.path().join("ledger.sqlite"), Access::Write).unwrap();
            Arc::new(Embedded::open(database, Embedded::CAPACITY).await.unwrap())
        }
    }
}

/// The JSON of a command that succeeds.
fn done(curated: &CuratedRun, arguments: &[&str]) -> Value {
    let words = if ["dataset", "verdicts"].contains(&arguments[0]) { 2 } else { 1 };
    let (name, rest) = arguments.split_at(words);
    let output = curated.command(name).args(rest).arg("--json").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|_| json!(text))
}

async fn nothing_is_left(curated: CuratedRun) {
    let case = Case::new(curated).await;
    let curated = &case.curated;
    case.use_it();
    let before = case.traces().await;
    let places = match case.is_folder() {
        true => vec!["ledger.sqlite", "index.sqlite", "features.sqlite", "verdicts/", "photos.jsonl", "report.html"],
        false => vec!["redis", "queues", "records/", "verdicts/", "index-", "features.sqlite"],
    };
    for place in places.into_iter().chain(["originals/", "faces/", "thumbnails", "versions/"]) {
        assert!(
            before.iter().any(|found| found.contains(place)),
            "nothing in {place}, so this proves nothing: {before:#?}"
        );
    }
    let v1 = done(curated, &["dataset", "show", "v1"]);
    let others = done(curated, &["dataset", "show", "others"]);
    let faces = done(curated, &["faces", "--count"]).as_u64().unwrap();

    // Without --yes, the command only says what it would do.
    let plan = curated.command(&["takedown"]).args(["--label", LABEL, "--json"]).output().unwrap();
    assert_eq!(plan.status.code(), Some(1));
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    let photos: Vec<(u64, &str)> = plan["photos"]
        .as_array()
        .unwrap()
        .iter()
        .map(|photo| (photo["photo_id"].as_u64().unwrap(), photo["why"].as_str().unwrap()))
        .collect();
    assert_eq!(photos, [(PHOTO, "named"), (COPY, "same-original"), (WAITING, "named")]);
    assert_eq!(plan["versions"], json!([{ "run": curated.run.as_str(), "version": "v1", "faces": 1 }]));
    // The content of a write-ahead log may have gone into its file.
    let files = |places: Vec<String>| -> BTreeSet<String> {
        places.iter().map(|place| place.trim_end_matches("-wal").to_owned()).collect()
    };
    assert_eq!(files(case.traces().await), files(before), "nothing is changed");

    let reason = "asked for by letter";
    let removed = done(curated, &["takedown", "--label", LABEL, "--yes", "--reason", reason, "--by", "ada"]);
    assert_eq!((&removed["removed"]["photos"], &removed["removed"]["verdicts"]), (&json!(3), &json!(1)));
    assert_eq!(removed["removed"]["messages"], 3);
    assert_eq!(case.traces().await, Vec::<String>::new());
    let about: HashSet<String> = case.leftovers().await.with(reason.as_bytes()).into_iter().collect();
    assert!(about.iter().any(|place| place.contains("takedowns/")), "{about:?}");

    // Lists, counts, versions and exports lack the faces, and nothing else.
    assert_eq!(done(curated, &["faces", "--count"]), faces - 2);
    let after = done(curated, &["dataset", "show", "v1"]);
    assert_eq!(after["tombstones"][0]["digest_before"], v1["digest"]);
    assert_eq!(after["tombstones"][0]["faces"], 1, "exports take one of two copies");
    assert_ne!(after["digest"], v1["digest"]);
    assert_eq!(after["counts"]["faces"], v1["counts"]["faces"].as_u64().unwrap() - 1);
    assert_eq!(after["counts"]["by_verdict"]["ok"], 2);
    assert_eq!(done(curated, &["dataset", "show", "others"]), others);
    let to = tempfile::tempdir().unwrap();
    let zip = to.path().join("faces.zip");
    done(curated, &["export", "--frozen", "v1", "--size", "64", "--to", zip.to_str().unwrap()]);
    let manifest = std::fs::read_to_string(to.path().join("faces.manifest.jsonl")).unwrap();
    assert_eq!(manifest.lines().count() as u64 - 1, after["counts"]["faces"].as_u64().unwrap());
    let fresh = done(curated, &["dataset", "freeze", "again", "--size", "64", "--where", "size>=1", "--placeholders"]);
    assert_eq!(fresh["digest"], after["digest"], "the same as if the photo had never been there");

    // The photo is known by its id alone.
    let story = done(curated, &["why", &PHOTO.to_string()]);
    assert_eq!((&story["cause"]["code"], &story["photo"]), (&json!("taken-down"), &Value::Null));
    let again = done(curated, &["takedown", "--photo", &PHOTO.to_string(), "--yes"]);
    assert_eq!(again["photos"], json!([]));
    let retried = done(curated, &["retry", "--where", "cause=taken-down"]);
    assert_eq!(retried["requeued"], 0);
    assert_eq!(case.traces().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_in_a_folder() {
    nothing_is_left(CuratedRun::in_folder(10).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_on_servers() {
    nothing_is_left(CuratedRun::on_servers(10).await).await;
}
