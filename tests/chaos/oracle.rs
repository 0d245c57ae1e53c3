//! Checks the results after all faults.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use facemill::archive::records::Records;
use facemill::broker::rabbitmq::RabbitMq;
use facemill::broker::{Broker, BrokerError, Depth};
use facemill::domain::CauseCode;
use facemill::domain::Message;
use facemill::domain::Record;
use facemill::domain::{Candidate, ContentHash, Ending, Id, PhotoKey, RunName, StageName, State};
use facemill::ledger::{EventKind, Filter, Ledger};
use facemill::objects::{ObjectKey, Objects};
use facemill::pipeline::local::{Countdown, Finish, RunDir, drive};
use facemill::pipeline::producer;
use facemill::pipeline::worker::{Worker, WorkerSettings};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::child::settings;
use super::stages::{FakeStage, Kind, kind_of};
use super::worker_processes::Environment;

/// An expected and a found value.
pub struct Finding {
    pub what: &'static str,
    pub expected: String,
    pub found: String,
}

impl Finding {
    pub fn new(what: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        Self { what, expected: expected.to_string(), found: found.to_string() }
    }

    pub fn is_fine(&self) -> bool {
        self.expected == self.found
    }
}

/// Checks the run after all processes have ended. `fresh` was enqueued after all faults.
pub async fn check(environment: &Environment, candidates: &[Candidate], fresh: &Candidate) -> Vec<Finding> {
    let (ledger, objects) = (environment.endpoints.ledger(), Arc::new(environment.endpoints.objects()));
    let run = &environment.endpoints.run;
    let mut findings = Vec::new();
    let states = states(&ledger, run).await;
    let known: BTreeSet<&Id> = states.keys().collect();
    let sought: BTreeSet<&Id> = candidates.iter().map(|candidate| &candidate.photo_id).collect();
    let once = candidates.len() - sought.symmetric_difference(&known).count();
    findings.push(Finding::new("candidates that the ledger knows, each once", candidates.len(), once));
    let ended = states.values().filter(|state| matches!(state, State::Ended(_))).count();
    findings.push(Finding::new("photos with a final state", candidates.len(), ended));
    let counted: u64 = ledger.counts(run).await.expect("Redis is up").ended.values().sum();
    findings.push(Finding::new("final states that the ledger counts", candidates.len(), counted));
    findings.push(Finding::new("photos that ended once", candidates.len(), ended_once(&ledger, run, candidates).await));

    let records = by_id(&Records::new(objects.clone()), run, candidates).await;
    let reference = undisturbed(&environment.folder.join("undisturbed"), run, candidates).await;
    let equal = reference.iter().filter(|(id, record)| records.get(id) == Some(record)).count();
    findings.push(Finding::new("records equal to those of an undisturbed process", reference.len(), equal));
    findings.push(Finding::new("records", candidates.len(), records.len()));
    let agreeing = records.values().filter(|record| states.get(id_of(record)) == Some(&State::Ended(record.ending)));
    findings.push(Finding::new("records that agree with the ledger", candidates.len(), agreeing.count()));

    let crops = records.values().filter_map(|record| record.message.photo.facts.crop.as_ref());
    let faces: BTreeSet<ObjectKey> = crops.map(|crop| ObjectKey::face(crop.sha256, crop.format)).collect();
    let stored = keys(&*objects, "faces/").await;
    findings.push(Finding::new("faces missing", "none", missing(&*objects, &faces, &stored).await));
    findings.push(Finding::new("faces without a record", 0, stored.difference(&faces).count()));
    let originals = keys(&*objects, "originals/").await;
    let known = records.values().filter_map(|record| record.message.photo.facts.original.as_ref());
    let known: BTreeSet<ObjectKey> = known.map(|of| ObjectKey::original(of.sha256, of.format)).collect();
    findings.push(Finding::new("originals missing", "none", missing(&*objects, &known, &originals).await));
    let all = stored.iter().chain(&originals);
    findings.push(Finding::new("objects that are whole", stored.len() + originals.len(), whole(&*objects, all).await));

    findings.extend(dead_letters(environment, candidates).await);
    let depths = depths(&environment.endpoints.broker()).await.expect("RabbitMQ is up");
    let waiting: u64 = depths.into_iter().map(|(_, count)| count).sum();
    findings.push(Finding::new("messages left in the queues", 0, waiting));
    let end = states.get(&fresh.photo_id).map_or("not known".to_owned(), |state| format!("{state:?}"));
    findings.push(Finding::new("a fresh photo", format!("{:?}", State::Ended(Ending::Predicted)), end));
    findings.push(Finding::new("faults that `facemill audit` finds", 0, audit(environment, candidates)));
    findings
}

/// The messages in the queues of the stages, including those in flight and delayed.
pub async fn depths(broker: &RabbitMq) -> Result<Vec<(StageName, u64)>, BrokerError> {
    let of_stage = |depth: Depth| Some((depth.stage?, depth.ready + depth.in_flight + depth.delayed));
    Ok(broker.depths().await?.into_iter().filter_map(of_stage).collect())
}

async fn states(ledger: &dyn Ledger, run: &RunName) -> BTreeMap<Id, State> {
    const PAGE: usize = 500;
    let mut states = BTreeMap::new();
    let mut after = None;
    loop {
        let page = ledger.page(run, &Filter::default(), after.as_ref(), PAGE).await.expect("Redis is up");
        let Some(last) = page.last() else { return states };
        after = Some(last.photo_id.clone());
        states.extend(page.into_iter().map(|entry| (entry.photo_id, entry.status.state)));
    }
}

/// How many photos have exactly one ending in their history.
async fn ended_once(ledger: &dyn Ledger, run: &RunName, candidates: &[Candidate]) -> usize {
    use EventKind::{Advanced, Enqueued, Retried};
    let mut once = 0;
    for candidate in candidates {
        let key = PhotoKey { run: run.clone(), photo_id: candidate.photo_id.clone() };
        let history = ledger.history(&key).await.expect("Redis is up");
        let endings = history.iter().filter(|event| !matches!(event.what, Enqueued | Advanced | Retried)).count();
        once += usize::from(endings == 1);
    }
    once
}

fn id_of(record: &Record) -> &Id {
    &record.message.photo.candidate.photo_id
}

/// The records by photo, without what depends on time and number of attempts. As in [`missing`], a record of a candidate
/// may not be listed.
async fn by_id(records: &Records, run: &RunName, candidates: &[Candidate]) -> BTreeMap<Id, Record> {
    let all: Vec<_> = records.all(run).try_collect().await.expect("S3 is up");
    let mut all: Vec<Record> = all.into_iter().collect::<Result<_, _>>().expect("records that can be read");
    let listed: BTreeSet<Id> = all.iter().map(|record| id_of(record).clone()).collect();
    for photo_id in candidates.iter().map(|candidate| &candidate.photo_id).filter(|id| !listed.contains(id)) {
        let key = PhotoKey { run: run.clone(), photo_id: photo_id.clone() };
        all.extend(records.read(&key).await.expect("S3 is up"));
    }
    let settled = all.into_iter().map(|mut record| {
        record.message = Message { enqueued_at: 0, ..record.message };
        record.message.position.delivery = 0;
        (id_of(&record).clone(), record)
    });
    settled.collect()
}

/// The records of the same photos from one process without faults, in a folder. The crashing photo is left out.
async fn undisturbed(folder: &Path, run: &RunName, candidates: &[Candidate]) -> BTreeMap<Id, Record> {
    let harmless: Vec<Candidate> =
        candidates.iter().filter(|candidate| kind_of(candidate).0 != Kind::CrashesWorker).cloned().collect();
    let folder = RunDir::at(folder).lock().await.expect("a folder");
    let (ledger, broker) = (Arc::new(folder.ledger), Arc::new(folder.broker));
    let objects: Arc<dyn Objects> = Arc::new(folder.objects);
    let records = Records::new(objects.clone());
    let countdown = Arc::new(Countdown::default());
    let worker = |name| Worker {
        stage: Arc::new(FakeStage { name, objects: objects.clone(), unwatched: objects.clone(), crashes: false }),
        broker: broker.clone(),
        ledger: ledger.clone(),
        records: Some(records.clone()),
        observer: countdown.clone(),
        gate: None,
        name: format!("undisturbed-{name}"),
        settings: WorkerSettings { waits: "0.001".parse().expect("a wait"), ..settings(name) },
    };
    let produced = producer::enqueue(run, &harmless, &*ledger, &*broker, None, &|_| ()).await;
    produced.expect("the folder accepts photos");
    let workers = StageName::ALL.into_iter().map(worker).collect();
    let finish = drive(run, &*ledger, &*broker, workers, countdown.clone(), CancellationToken::new()).await;
    assert_eq!(finish.expect("the run succeeds"), Finish::Complete);
    by_id(&records, run, &harmless).await
}

/// The wanted objects that do not exist. A SeaweedFS that is killed while it creates a folder may not list the folder's
/// objects afterwards, but has them.
async fn missing(objects: &dyn Objects, wanted: &BTreeSet<ObjectKey>, listed: &BTreeSet<ObjectKey>) -> String {
    let mut missing = Vec::new();
    for key in wanted.difference(listed) {
        if !objects.exists(key).await.expect("S3 is up") {
            missing.push(key.as_str());
        }
    }
    if missing.is_empty() { "none".into() } else { missing.join(", ") }
}

async fn keys(objects: &dyn Objects, prefix: &str) -> BTreeSet<ObjectKey> {
    let mut keys = BTreeSet::new();
    loop {
        let page = objects.list(prefix, keys.last(), 1000).await.expect("S3 is up");
        keys.extend(page.keys);
        if !page.more {
            return keys;
        }
    }
}

/// How many objects have the content hash of their key.
async fn whole(objects: &dyn Objects, keys: impl Iterator<Item = &ObjectKey>) -> usize {
    let mut whole = 0;
    for key in keys {
        let body = objects.get(key).await.expect("what is listed is there");
        whole += usize::from(key.as_str().contains(&ContentHash::of(&body).to_string()));
    }
    whole
}

async fn dead_letters(environment: &Environment, candidates: &[Candidate]) -> [Finding; 2] {
    let letters = environment.endpoints.broker().dead_letters(10_000).await.expect("RabbitMQ is up");
    let mut found: Vec<(Id, CauseCode)> = Vec::new();
    for letter in &letters {
        let message = Message::decode(letter.body.as_bytes()).expect("a dead letter of facemill");
        found.push((message.photo.candidate.photo_id, letter.cause.code.clone()));
    }
    let poison = candidates.iter().filter(|candidate| kind_of(candidate).0.is_dead_lettered());
    let mut expected: Vec<(Id, CauseCode)> =
        poison.map(|candidate| (candidate.photo_id.clone(), code(candidate).into())).collect();
    found.sort();
    expected.sort();
    let matching = found.iter().filter(|letter| expected.binary_search(letter).is_ok()).count();
    let of_crashes = |letters: &[(Id, CauseCode)]| {
        let ids: Vec<&str> =
            letters.iter().filter(|(_, code)| code.as_str() == CRASHES).map(|(id, _)| id.as_str()).collect();
        ids.join(" ")
    };
    let matching = format!("{matching} of {}", found.len());
    [
        Finding::new("dead letters that are poison", format!("{0} of {0}", expected.len()), matching),
        Finding::new("photos dead-lettered for crashes", of_crashes(&expected), of_crashes(&found)),
    ]
}

const CRASHES: &str = "kills-workers";

fn code(candidate: &Candidate) -> &'static str {
    match kind_of(candidate).0 {
        Kind::CrashesWorker => CRASHES,
        Kind::AlwaysFails => "timeout",
        _ => "harmful",
    }
}

/// The number of faults that the facemill program reports.
fn audit(environment: &Environment, candidates: &[Candidate]) -> String {
    let mut table = String::from("photo_id,face_id,label_id,label_name,photo_url\n");
    for Candidate { photo_id, face_id, label_id, label_name, photo_url, .. } in candidates {
        let name = label_name.as_deref().unwrap_or_default();
        table += &format!("{photo_id},{face_id},{label_id},{name},{photo_url}\n");
    }
    let dump = environment.folder.join("candidates.csv");
    std::fs::write(&dump, table).expect("a scratch folder");
    let endpoints = &environment.endpoints;
    let output = Command::new(env!("CARGO_BIN_EXE_facemill"))
        .args(["audit", "--json"])
        .arg(&dump)
        .env("FACEMILL_AMQP_URL", &endpoints.amqp)
        .env("FACEMILL_REDIS_URL", &endpoints.redis)
        .env("FACEMILL_S3_BUCKET", &endpoints.bucket)
        .env("FACEMILL_S3_ENDPOINT", &endpoints.endpoint)
        .env("AWS_ACCESS_KEY_ID", &endpoints.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &endpoints.secret_access_key)
        .env("FACEMILL_PREFIX", &endpoints.prefix)
        .env("FACEMILL_RUN", endpoints.run.as_str())
        .output()
        .expect("the program runs");
    match serde_json::from_slice::<serde_json::Value>(&output.stdout) {
        Ok(findings) => findings["faults"].as_array().map_or("no answer".into(), |faults| faults.len().to_string()),
        Err(_) => String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
