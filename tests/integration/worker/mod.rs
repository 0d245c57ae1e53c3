//! The worker with scripted stages, mostly on the embedded adapters: no photo is lost, and none ends twice.

use support::failpoints;
use support::servers::rabbitmq as server;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use facemill::archive::records::Records;
use facemill::broker::embedded::Embedded;
use facemill::broker::rabbitmq::topology::Names;
use facemill::broker::rabbitmq::{self, RabbitMq};
use facemill::broker::{BodyFilter, Broker, BrokerError, Consumer, DeadLetter, DeadLetterFilter, Depth};
use facemill::domain::{
    Candidate, Cause, CauseCode, Ending, Id, Message, Photo, PhotoKey, Position, RunName, StageName, State,
};
use facemill::ledger::sqlite::Sqlite;
use facemill::ledger::{EventKind, Filter, Ledger};
use facemill::objects::folder::Folder;
use facemill::pipeline::event::Observer;
use facemill::pipeline::gate::{self, Gate};
use facemill::pipeline::local::{Countdown, Finish, drive};
use facemill::pipeline::producer;
use facemill::pipeline::stage::{Outcome, Retry, Stage};
use facemill::pipeline::worker::{Worker, WorkerSettings};
use facemill::sqlite::{Access, Database};
use tokio_util::sync::CancellationToken;

use failpoints::{Failing, Failpoint};

/// The action of a scripted stage for one attempt of a photo. The last one in a list applies to all later attempts.
#[derive(Clone, Copy)]
enum Action {
    Pass,
    Gone,
    Reject,
    Fail,
    Wait,
    Poison,
    Panic,
    Hang,
}

type Script = HashMap<(StageName, &'static str), Vec<Action>>;

/// A stage that follows the script and counts its runs.
struct ScriptedStage {
    name: StageName,
    script: Arc<Script>,
    runs: Arc<Mutex<BTreeMap<(StageName, String), usize>>>,
}

#[async_trait]
impl Stage for ScriptedStage {
    fn name(&self) -> StageName {
        self.name
    }

    async fn run(&self, photo: &Photo) -> Outcome {
        let id = photo.candidate.photo_id.as_str();
        let earlier = {
            let mut runs = self.runs.lock().unwrap();
            let count = runs.entry((self.name, id.to_owned())).or_default();
            *count += 1;
            *count - 1
        };
        let actions = self.script.iter().find(|((stage, photo), _)| *stage == self.name && *photo == id);
        let action = actions.map_or(Action::Pass, |(_, actions)| actions[earlier.min(actions.len() - 1)]);
        let cause = |code| Cause::new(code, "from the script");
        match action {
            Action::Pass => Outcome::Advance(Box::new(photo.clone())),
            Action::Gone => Outcome::Gone(cause("http-404")),
            Action::Reject => Outcome::Reject(cause("no-face")),
            Action::Fail => Retry::failed(cause("timeout")),
            Action::Wait => Retry::wait(cause("http-429"), Some(Duration::from_millis(3))),
            Action::Poison => Outcome::Poison(cause("poison")),
            Action::Panic => panic!("from the script"),
            Action::Hang => std::future::pending().await,
        }
    }
}

/// A run in a temporary folder. Clones share it.
#[derive(Clone)]
struct TestRun {
    folder: Arc<tempfile::TempDir>,
    path: PathBuf,
    run: RunName,
    script: Arc<Script>,
    runs: Arc<Mutex<BTreeMap<(StageName, String), usize>>>,
}

impl TestRun {
    fn new(script: Script) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.sqlite");
        let run = "r".parse().unwrap();
        Self { folder: Arc::new(folder), path, run, script: Arc::new(script), runs: Arc::default() }
    }

    async fn open(&self) -> (Arc<Sqlite>, Arc<Embedded>) {
        Self::open_on(Database::open(&self.path, Access::Write).unwrap()).await
    }

    async fn open_on(database: Database) -> (Arc<Sqlite>, Arc<Embedded>) {
        let ledger = Sqlite::open(database.clone()).await.unwrap();
        (Arc::new(ledger), Arc::new(Embedded::open(database, 8).await.unwrap()))
    }

    fn records(&self) -> Records {
        Records::new(Arc::new(Folder::at(self.folder.path())))
    }

    fn settings() -> WorkerSettings {
        WorkerSettings {
            concurrency: 3,
            attempts: 3,
            waits: "0.002,0.004".parse().unwrap(),
            time_limit: Duration::from_millis(300),
            ..WorkerSettings::default()
        }
    }

    fn workers(
        &self,
        ledger: Arc<dyn Ledger>,
        broker: Arc<dyn Broker>,
        observer: Arc<dyn Observer>,
        settings: &WorkerSettings,
    ) -> Vec<Worker> {
        let gate = Gate::default();
        let worker = |name| Worker {
            stage: Arc::new(ScriptedStage { name, script: self.script.clone(), runs: self.runs.clone() }),
            broker: broker.clone(),
            ledger: ledger.clone(),
            records: Some(self.records()),
            observer: observer.clone(),
            gate: (name != StageName::Fetch).then(|| gate.clone()),
            name: format!("w-{name}"),
            settings: settings.clone(),
        };
        StageName::ALL.into_iter().map(worker).collect()
    }

    /// The life of one process: enqueues the photos and processes them, until the run ends or the failpoint triggers.
    async fn live(&self, photos: &[Candidate], failpoint: Failpoint) -> Option<Finish> {
        self.live_with(photos, failpoint, None).await
    }

    /// Each life has its own runtime, like a process: no task is left that could write to the ledger of the next life.
    async fn live_with(
        &self,
        photos: &[Candidate],
        failpoint: Failpoint,
        lost_answers: Option<Mutex<HashSet<String>>>,
    ) -> Option<Finish> {
        let (rig, photos) = (self.clone(), photos.to_vec());
        let life = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let database = Database::open(&rig.path, Access::Write).unwrap();
            let finish = runtime.block_on(rig.live_on(database.clone(), &photos, failpoint, lost_answers));
            drop(runtime);
            // Waits for the database calls that the tasks made before they ended.
            tokio::runtime::Handle::current().block_on(database.call(|_| Ok(()))).unwrap();
            finish
        };
        tokio::task::spawn_blocking(life).await.unwrap()
    }

    async fn live_on(
        &self,
        database: Database,
        photos: &[Candidate],
        failpoint: Failpoint,
        lost_answers: Option<Mutex<HashSet<String>>>,
    ) -> Option<Finish> {
        let (ledger, broker) = Self::open_on(database).await;
        let failpoints = Arc::new(Failing { ledger, broker, failpoint: failpoint.clone(), lost_answers });
        let countdown = Arc::new(Countdown::default());
        let life = async {
            producer::enqueue(&self.run, photos, &*failpoints, &*failpoints, None, &|_| ()).await.unwrap();
            let workers = self.workers(failpoints.clone(), failpoints.clone(), countdown.clone(), &Self::settings());
            drive(&self.run, &*failpoints, &*failpoints, workers, countdown.clone(), CancellationToken::new())
                .await
                .unwrap()
        };
        tokio::select! {
            finish = life => Some(finish),
            () = failpoint.reached() => None,
        }
    }

    async fn endings(&self) -> BTreeMap<String, (Ending, String)> {
        let (ledger, _) = self.open().await;
        let entries = ledger.page(&self.run, &Filter::default(), None, 1000).await.unwrap();
        let endings = entries.into_iter().map(|entry| {
            let State::Ended(ending) = entry.status.state else { panic!("{} has not ended", entry.photo_id) };
            let code = entry.status.cause.map_or(String::new(), |cause| cause.code.to_string());
            (entry.photo_id.to_string(), (ending, code))
        });
        endings.collect()
    }
}

fn photos(ids: &[&str]) -> Vec<Candidate> {
    let candidate = |id: &&str| Candidate {
        photo_id: Id::from(*id),
        face_id: Id::from("1"),
        label_id: Id::from("1"),
        label_name: None,
        photo_url: format!("http://photos.test/{id}.jpg"),
        source_url: None,
        posted_at: None,
        source: None,
        columns: Default::default(),
    };
    ids.iter().map(candidate).collect()
}

const CAST: [&str; 8] = ["passes", "gone", "retried", "rejected", "always-fails", "poison", "panics", "waits"];

fn script() -> Script {
    use Action::{Fail, Gone, Panic, Pass, Poison, Reject, Wait};
    use StageName::{Classify, Crop, Detect, Fetch};
    HashMap::from([
        ((Fetch, "gone"), vec![Gone]),
        ((Fetch, "retried"), vec![Fail, Fail, Pass]),
        ((Detect, "rejected"), vec![Reject]),
        ((Crop, "always-fails"), vec![Fail]),
        ((Classify, "poison"), vec![Poison]),
        ((Detect, "panics"), vec![Panic]),
        ((Fetch, "waits"), vec![Wait, Wait, Wait, Wait, Wait, Pass]),
    ])
}

fn expected() -> BTreeMap<String, (Ending, String)> {
    let endings = [
        ("passes", Ending::Predicted, ""),
        ("gone", Ending::Gone, "http-404"),
        ("retried", Ending::Predicted, ""),
        ("rejected", Ending::Rejected, "no-face"),
        ("always-fails", Ending::Failed, "timeout"),
        ("poison", Ending::Failed, "poison"),
        ("panics", Ending::Failed, "panic"),
        ("waits", Ending::Predicted, ""),
    ];
    endings.into_iter().map(|(id, ending, code)| (id.to_owned(), (ending, code.to_owned()))).collect()
}

/// Checks that every photo has its one expected ending, the queues are empty, and only failed photos are dead letters.
async fn assert_accounted_for(rig: &TestRun, context: &str) {
    let (_, broker) = rig.open().await;
    assert_accounted_for_on(rig, &*broker, context).await;
}

async fn assert_accounted_for_on(rig: &TestRun, broker: &dyn Broker, context: &str) {
    assert_eq!(rig.endings().await, expected(), "{context}");
    let (ledger, _) = rig.open().await;
    for depth in broker.depths().await.unwrap() {
        let left = depth.ready + depth.in_flight + depth.delayed;
        assert_eq!(left, if depth.stage.is_none() { 3 } else { 0 }, "{context}: {depth:?}");
    }
    let mut dead: Vec<String> =
        broker.dead_letters(10).await.unwrap().iter().map(|letter| letter.cause.code.to_string()).collect();
    dead.sort();
    assert_eq!(dead, ["panic", "poison", "timeout"], "{context}");
    for id in CAST {
        let key = PhotoKey { run: rig.run.clone(), photo_id: Id::from(id) };
        let ends = ledger.history(&key).await.unwrap().into_iter();
        use EventKind::{Advanced, Enqueued, Retried};
        let ends = ends.filter(|event| !matches!(event.what, Enqueued | Advanced | Retried)).count();
        assert_eq!(ends, 1, "{context}: {id} ended {ends} times");
        let record = rig.records().read(&key).await.unwrap().expect("every ended photo has a record");
        let status = ledger.status(&key).await.unwrap().unwrap();
        assert_eq!(State::Ended(record.ending), status.state, "{context}: {id}");
        assert_eq!((record.cause, Some(record.message)), (status.cause, status.message), "{context}: {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_outcome_has_its_ending() {
    let rig = TestRun::new(script());
    assert_eq!(rig.live(&photos(&CAST), Failpoint::endless()).await, Some(Finish::Complete));
    assert_accounted_for(&rig, "undisturbed").await;
    let runs = rig.runs.lock().unwrap().clone();
    let ran = |stage, id: &str| runs.get(&(stage, id.to_owned())).copied().unwrap_or(0);
    assert_eq!(ran(StageName::Fetch, "retried"), 3);
    assert_eq!(ran(StageName::Crop, "always-fails"), 3, "no more than its attempts");
    assert_eq!(ran(StageName::Fetch, "waits"), 6, "waits cost no attempt");
    assert_eq!(ran(StageName::Classify, "poison"), 1, "poison is not retried");
    assert_eq!(ran(StageName::Crop, "rejected"), 0);
}

/// The same on RabbitMQ, where the shortest wait is five seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_outcome_has_its_ending_on_rabbitmq() {
    let server = server::shared().await;
    let settings = rabbitmq::RabbitMqSettings::new(&server.url()).unwrap().with_prefix("outcomes").unwrap();
    let broker: Arc<dyn Broker> = Arc::new(RabbitMq::new(settings).unwrap());
    let mut script = script();
    script.insert((StageName::Fetch, "waits"), vec![Action::Wait, Action::Wait, Action::Pass]);
    let rig = TestRun::new(script);
    let (ledger, _) = rig.open().await;
    let countdown = Arc::new(Countdown::default());
    producer::enqueue(&rig.run, &photos(&CAST), &*ledger, &*broker, None, &|_| ()).await.unwrap();
    let workers = rig.workers(ledger.clone(), broker.clone(), countdown.clone(), &TestRun::settings());
    let finish = drive(&rig.run, &*ledger, &*broker, workers, countdown, CancellationToken::new()).await.unwrap();
    assert_eq!(finish, Finish::Complete);
    assert_accounted_for_on(&rig, &*broker, "on RabbitMQ").await;
}

/// The process dies once, before or after one write to ledger or queues, for every write, and is started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_loses_and_doubles_no_photo() {
    /// Returns whether the run has so many writes.
    async fn die_at(step: i64, after: bool) -> bool {
        let rig = TestRun::new(script());
        let died = rig.live(&photos(&CAST), Failpoint::of(step, after)).await.is_none();
        if died {
            assert_eq!(rig.live(&photos(&CAST), Failpoint::endless()).await, Some(Finish::Complete));
        }
        assert_accounted_for(&rig, &format!("died at write {step}, after it: {after}")).await;
        died
    }
    let mut steps = 0;
    for first in (1..).step_by(16) {
        let lives: Vec<_> = (first..first + 16)
            .flat_map(|step| [tokio::spawn(die_at(step, false)), tokio::spawn(die_at(step, true))])
            .collect();
        let died = futures::future::join_all(lives).await.into_iter().filter(|died| *died.as_ref().unwrap()).count();
        steps += died;
        if died == 0 {
            break;
        }
    }
    assert!(steps > 120, "only {steps} steps: does the failpoint see the writes?");
}

/// A ledger on another machine can make a move whose answer is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_whose_answer_is_lost_counts() {
    let rig = TestRun::new(script());
    let lost_answers = Some(Mutex::default());
    assert_eq!(rig.live_with(&photos(&CAST), Failpoint::endless(), lost_answers).await, Some(Finish::Complete));
    assert_accounted_for(&rig, "answers lost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_twice_changes_nothing() {
    let rig = TestRun::new(script());
    let (ledger, broker) = rig.open().await;
    let broker: Arc<dyn Broker> = Arc::new(failpoints::Twice(broker));
    let countdown = Arc::new(Countdown::default());
    producer::enqueue(&rig.run, &photos(&CAST), &*ledger, &*broker, None, &|_| ()).await.unwrap();
    let workers = rig.workers(ledger.clone(), broker.clone(), countdown.clone(), &TestRun::settings());
    let finish = drive(&rig.run, &*ledger, &*broker, workers, countdown, CancellationToken::new()).await.unwrap();
    assert_eq!(finish, Finish::Complete);
    assert_accounted_for(&rig, "every message twice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_photo_that_crashes_its_process_repeatedly_is_dead_lettered() {
    let rig = TestRun::new(Script::new());
    let (ledger, broker) = rig.open().await;
    let photo = Photo::new(rig.run.clone(), photos(&["crashes"]).remove(0));
    let message = Message { position: Position::entering(StageName::Detect), ..Message::first(photo, 1) };
    ledger.begin(&message, "registers", false).await.unwrap();
    ledger.release(&message.photo.key(), message.position, "registers").await.unwrap();
    broker.publish(&message).await.unwrap();
    for life in 0..TestRun::settings().crash_limit {
        // A process takes the message, begins, and dies: it runs no destructor.
        let (ledger, broker) = rig.open().await;
        let mut consumer = broker.consume(StageName::Detect, 1).await.unwrap();
        let delivery = consumer.next().await.unwrap();
        let message = Message::decode(&delivery.body).unwrap();
        ledger.begin(&message, &format!("life {life}"), delivery.redelivered).await.unwrap();
        std::mem::forget((delivery, consumer));
    }
    assert_eq!(rig.live(&[], Failpoint::endless()).await, Some(Finish::Complete));
    assert_eq!(rig.endings().await["crashes"], (Ending::Failed, "kills-workers".into()));
    assert!(rig.runs.lock().unwrap().is_empty(), "the stage must not run again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_messages_are_dead_lettered() {
    let rig = TestRun::new(Script::new());
    let (ledger, broker) = rig.open().await;
    let database = Database::open(&rig.path, Access::Write).unwrap();
    database
        .call(|c| {
            for (id, body) in [("a", "{\"schema\":99}"), ("b", "not json"), ("c", "{\"schema\":1}")] {
                c.execute(
                    "INSERT INTO queue(id, stage, due_ms, body) VALUES (?1, 'fetch', 0, CAST(?2 AS BLOB))",
                    [id, body],
                )?;
            }
            Ok(())
        })
        .await
        .unwrap();
    producer::enqueue(&rig.run, &photos(&["passes"]), &*ledger, &*broker, None, &|_| ()).await.unwrap();
    assert_eq!(rig.live(&[], Failpoint::endless()).await, Some(Finish::Complete));
    let dead = broker.dead_letters(10).await.unwrap();
    assert_eq!(dead.len(), 3);
    assert!(dead.iter().all(|letter| letter.cause.code == CauseCode::ForeignMessage));
    assert!(dead.iter().any(|letter| letter.cause.detail.contains("schema 99")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_waits_use_up_attempts() {
    let rig = TestRun::new(HashMap::from([((StageName::Fetch, "waits"), vec![Action::Wait])]));
    let (ledger, broker) = rig.open().await;
    let long_ago = Message::first(Photo::new(rig.run.clone(), photos(&["waits"]).remove(0)), 1_000_000_000);
    ledger.begin(&long_ago, "registers", false).await.unwrap();
    broker.publish(&long_ago).await.unwrap();
    assert_eq!(rig.live(&[], Failpoint::endless()).await, Some(Finish::Complete));
    assert_eq!(rig.endings().await["waits"], (Ending::Failed, "http-429".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_over_its_time_limit_is_a_failed_attempt() {
    let rig = TestRun::new(HashMap::from([((StageName::Detect, "hangs"), vec![Action::Hang, Action::Pass])]));
    assert_eq!(rig.live(&photos(&["hangs"]), Failpoint::endless()).await, Some(Finish::Complete));
    let (ledger, _) = rig.open().await;
    let history = ledger.history(&PhotoKey { run: rig.run.clone(), photo_id: Id::from("hangs") }).await.unwrap();
    assert!(history.iter().any(|event| event.cause.as_ref().is_some_and(|cause| cause.code == CauseCode::TimeLimit)));
}

/// Publishes at once what has to wait, and notes the delay queue that RabbitMQ would use.
struct WithoutWaits {
    broker: Arc<Embedded>,
    tiers: Mutex<Vec<String>>,
}

#[async_trait]
impl Broker for WithoutWaits {
    async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        self.broker.publish(message).await
    }

    async fn publish_after(&self, message: &Message, delay: Duration) -> Result<(), BrokerError> {
        self.tiers.lock().unwrap().push(Names::new("p").retry_for(message.position.stage, delay));
        self.broker.publish_after(message, Duration::ZERO).await
    }

    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), BrokerError> {
        self.broker.dead_letter(letter).await
    }

    async fn consume(&self, stage: StageName, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        self.broker.consume(stage, prefetch).await
    }

    async fn depths(&self) -> Result<Vec<Depth>, BrokerError> {
        self.broker.depths().await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.broker.dead_letters(limit).await
    }

    async fn take_dead_letters(&self, filter: &DeadLetterFilter<'_>) -> Result<Vec<DeadLetter>, BrokerError> {
        self.broker.take_dead_letters(filter).await
    }

    async fn remove_messages(&self, matches: &BodyFilter<'_>) -> Result<u64, BrokerError> {
        self.broker.remove_messages(matches).await
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.broker.check().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_photo_that_always_fails_uses_every_delay_tier_by_default() {
    let rig = TestRun::new(HashMap::from([((StageName::Crop, "always-fails"), vec![Action::Fail])]));
    let (ledger, broker) = rig.open().await;
    let broker = Arc::new(WithoutWaits { broker, tiers: Mutex::default() });
    let countdown = Arc::new(Countdown::default());
    producer::enqueue(&rig.run, &photos(&["always-fails"]), &*ledger, &*broker, None, &|_| ()).await.unwrap();
    let workers = rig.workers(ledger.clone(), broker.clone(), countdown.clone(), &WorkerSettings::default());
    let finish = drive(&rig.run, &*ledger, &*broker, workers, countdown, CancellationToken::new()).await.unwrap();
    assert_eq!(finish, Finish::Complete);
    let expected = [5, 30, 120, 600, 3600].map(|seconds| format!("p.crop.retry.{seconds}"));
    assert_eq!(*broker.tiers.lock().unwrap(), expected);
    assert_eq!(rig.endings().await["always-fails"], (Ending::Failed, "timeout".into()));
}

/// A stage whose blocking work exceeds the time limit for the photo `slow`.
struct BlockingStage {
    slow: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
    runs: tokio::sync::watch::Sender<Vec<String>>,
}

#[async_trait]
impl Stage for BlockingStage {
    fn name(&self) -> StageName {
        StageName::Detect
    }

    async fn run(&self, photo: &Photo) -> Outcome {
        let id = photo.candidate.photo_id.to_string();
        let slow = (id == "slow").then(|| self.slow.lock().unwrap().take()).flatten();
        self.runs.send_modify(|runs| runs.push(id));
        let blocked = gate::spawn_blocking(move || slow.map(|slow| slow.recv())).await;
        blocked.map_or_else(|error| panic!("{error}"), |_| Outcome::Advance(Box::new(photo.clone())))
    }
}

/// A redelivered photo may crash the process. While native code of another photo runs, that one would be blamed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redelivered_photo_waits_for_native_code_that_exceeds_its_time_limit() {
    let rig = TestRun::new(Script::new());
    let (ledger, broker) = rig.open().await;
    let (release, slow) = std::sync::mpsc::channel();
    let (runs, mut has_run) = tokio::sync::watch::channel(Vec::new());
    let stage = Arc::new(BlockingStage { slow: Mutex::new(Some(slow)), runs });
    let enqueue = async |id: &str| {
        let photo = Photo::new(rig.run.clone(), photos(&[id]).remove(0));
        let message = Message { position: Position::entering(StageName::Detect), ..Message::first(photo, 1) };
        ledger.begin(&message, "registers", false).await.unwrap();
        ledger.release(&message.photo.key(), message.position, "registers").await.unwrap();
        broker.publish(&message).await.unwrap();
    };
    let redeliver = async |id: &str| {
        enqueue(id).await;
        let mut consumer = broker.consume(StageName::Detect, 1).await.unwrap();
        consumer.next().await.unwrap().nack().await;
        consumer.stop().await;
    };
    let waits = "3600".parse().unwrap();
    let settings = WorkerSettings { waits, time_limit: Duration::from_millis(200), ..TestRun::settings() };
    let shared = rig.workers(ledger.clone(), broker.clone(), Arc::new(Countdown::default()), &settings);
    let worker = Worker { stage, ..shared.into_iter().nth(1).unwrap() };
    let shutdown = CancellationToken::new();
    enqueue("slow").await;
    let running = tokio::spawn({
        let (worker, shutdown) = (worker.clone(), shutdown.clone());
        async move { worker.run(shutdown).await }
    });
    let retried = async || {
        let key = PhotoKey { run: rig.run.clone(), photo_id: Id::from("slow") };
        ledger.history(&key).await.unwrap().iter().any(|event| event.what == EventKind::Retried)
    };
    while !retried().await {
        tokio::task::yield_now().await;
    }
    // The attempt has ended and its native code has not.
    shutdown.cancel();
    running.await.unwrap().unwrap();
    redeliver("suspect").await;
    let error = worker.run(CancellationToken::new()).await.expect_err("the photo must not run beside native code");
    assert!(error.to_string().contains("native code still runs"), "{error}");
    assert_eq!(*has_run.borrow_and_update(), ["slow"]);

    release.send(()).unwrap();
    let gate = worker.gate.clone().unwrap();
    drop(gate.enter(true, Duration::from_secs(60)).await.unwrap());
    let shutdown = CancellationToken::new();
    let again = worker.run(shutdown.clone());
    let stop = async {
        has_run.wait_for(|runs| runs.len() == 2).await.unwrap();
        shutdown.cancel();
    };
    let (result, ()) = tokio::join!(again, stop);
    result.unwrap();
    assert_eq!(*has_run.borrow(), ["slow", "suspect"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_the_grace_period_and_returns_the_rest() {
    let rig = TestRun::new(HashMap::from([((StageName::Fetch, "hangs"), vec![Action::Hang, Action::Pass])]));
    let (ledger, broker) = rig.open().await;
    let countdown = Arc::new(Countdown::default());
    producer::enqueue(&rig.run, &photos(&["hangs"]), &*ledger, &*broker, None, &|_| ()).await.unwrap();
    let settings =
        WorkerSettings { grace: Duration::from_millis(20), time_limit: Duration::from_secs(60), ..TestRun::settings() };
    let workers = rig.workers(ledger.clone(), broker.clone(), countdown.clone(), &settings);
    let shutdown = CancellationToken::new();
    let driven = drive(&rig.run, &*ledger, &*broker, workers, countdown, shutdown.clone());
    let stop = async {
        while rig.runs.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        shutdown.cancel();
    };
    let (finish, ()) = tokio::join!(driven, stop);
    assert_eq!(finish.unwrap(), Finish::Interrupted { waiting: 1 });
    drop((ledger, broker));
    assert_eq!(rig.live(&[], Failpoint::endless()).await, Some(Finish::Complete));
    assert_eq!(rig.endings().await["hangs"].0, Ending::Predicted);
}
