//! The worker with scripted stages, mostly on the embedded adapters: nothing lost, nothing done twice, whatever happens.

mod failpoints;
#[path = "../servers/rabbitmq.rs"]
mod server;

use facemill::domain::CauseCode;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use facemill::archive::records::Records;
use facemill::broker::Broker;
use facemill::broker::embedded::Embedded;
use facemill::broker::rabbitmq::{self, RabbitMq};
use facemill::domain::Message;
use facemill::domain::{Candidate, Cause, Ending, Id, Photo, PhotoKey, Position, RunName, StageName, State};
use facemill::ledger::sqlite::Sqlite;
use facemill::ledger::{EventKind, Filter, Ledger};
use facemill::objects::folder::Folder;
use facemill::pipeline::event::Observer;
use facemill::pipeline::local::{Countdown, Finish, drive};
use facemill::pipeline::producer;
use facemill::pipeline::stage::{Outcome, Retry, Stage};
use facemill::pipeline::worker::{Gate, Settings, Worker};
use facemill::sqlite::{Access, Database};
use tokio_util::sync::CancellationToken;

use failpoints::{Failing, Failpoint};

/// What a scripted stage does with a photo, attempt by attempt; the last line holds for all later ones.
#[derive(Clone, Copy)]
enum Line {
    Pass,
    Gone,
    Reject,
    Fail,
    Wait,
    Poison,
    Panic,
    Hang,
}

type Script = HashMap<(StageName, &'static str), Vec<Line>>;

/// Plays the script and counts its runs.
struct Player {
    name: StageName,
    script: Arc<Script>,
    runs: Arc<Mutex<BTreeMap<(StageName, String), usize>>>,
}

#[async_trait]
impl Stage for Player {
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
        let lines = self.script.iter().find(|((stage, photo), _)| *stage == self.name && *photo == id);
        let line = lines.map_or(Line::Pass, |(_, lines)| lines[earlier.min(lines.len() - 1)]);
        let cause = |code| Cause::new(code, "as the script says");
        match line {
            Line::Pass => Outcome::Advance(Box::new(photo.clone())),
            Line::Gone => Outcome::Gone(cause("http-404")),
            Line::Reject => Outcome::Reject(cause("no-face")),
            Line::Fail => Retry::failed(cause("timeout")),
            Line::Wait => Retry::wait(cause("http-429"), Some(Duration::from_millis(3))),
            Line::Poison => Outcome::Poison(cause("poison")),
            Line::Panic => panic!("the script says panic"),
            Line::Hang => std::future::pending().await,
        }
    }
}

/// A run in a scratch folder; clones share it.
#[derive(Clone)]
struct Rig {
    folder: Arc<tempfile::TempDir>,
    path: PathBuf,
    run: RunName,
    script: Arc<Script>,
    runs: Arc<Mutex<BTreeMap<(StageName, String), usize>>>,
}

impl Rig {
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

    fn settings() -> Settings {
        Settings {
            concurrency: 3,
            attempts: 3,
            waits: "0.002,0.004".parse().unwrap(),
            time_limit: Duration::from_millis(300),
            ..Settings::default()
        }
    }

    fn workers(
        &self,
        ledger: Arc<dyn Ledger>,
        broker: Arc<dyn Broker>,
        observer: Arc<dyn Observer>,
        settings: &Settings,
    ) -> Vec<Worker> {
        let gate = Gate::default();
        let worker = |name| Worker {
            stage: Arc::new(Player { name, script: self.script.clone(), runs: self.runs.clone() }),
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

    /// One process's life: produces, works to the end, or dies when the failpoint burns through.
    async fn live(&self, photos: &[Candidate], failpoint: Failpoint) -> Option<Finish> {
        self.live_with(photos, failpoint, None).await
    }

    /// A life has a runtime of its own, as a process has: when it is over, none of its tasks is left to write into the
    /// next one's ledger.
    async fn live_with(
        &self,
        photos: &[Candidate],
        failpoint: Failpoint,
        untold: Option<Mutex<HashSet<String>>>,
    ) -> Option<Finish> {
        let (rig, photos) = (self.clone(), photos.to_vec());
        let life = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let database = Database::open(&rig.path, Access::Write).unwrap();
            let finish = runtime.block_on(rig.live_on(database.clone(), &photos, failpoint, untold));
            drop(runtime);
            // What its tasks had asked the database for before they ended is done before this is.
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
        untold: Option<Mutex<HashSet<String>>>,
    ) -> Option<Finish> {
        let (ledger, broker) = Self::open_on(database).await;
        let failpoints = Arc::new(Failing { ledger, broker, failpoint: failpoint.clone(), untold });
        let countdown = Arc::new(Countdown::default());
        let life = async {
            producer::enqueue(&self.run, photos, &*failpoints, &*failpoints, &|_| ()).await.unwrap();
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
        let told = entries.into_iter().map(|entry| {
            let State::Ended(ending) = entry.status.state else { panic!("{} has not ended", entry.photo_id) };
            let code = entry.status.cause.map_or(String::new(), |cause| cause.code.to_string());
            (entry.photo_id.to_string(), (ending, code))
        });
        told.collect()
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
    };
    ids.iter().map(candidate).collect()
}

const CAST: [&str; 8] = ["passes", "gone", "late", "rejected", "tired", "poison", "panics", "told-to-wait"];

fn script() -> Script {
    use Line::{Fail, Gone, Panic, Pass, Poison, Reject, Wait};
    use StageName::{Classify, Crop, Detect, Fetch};
    HashMap::from([
        ((Fetch, "gone"), vec![Gone]),
        ((Fetch, "late"), vec![Fail, Fail, Pass]),
        ((Detect, "rejected"), vec![Reject]),
        ((Crop, "tired"), vec![Fail]),
        ((Classify, "poison"), vec![Poison]),
        ((Detect, "panics"), vec![Panic]),
        ((Fetch, "told-to-wait"), vec![Wait, Wait, Wait, Wait, Wait, Pass]),
    ])
}

fn expected() -> BTreeMap<String, (Ending, String)> {
    let told = [
        ("passes", Ending::Predicted, ""),
        ("gone", Ending::Gone, "http-404"),
        ("late", Ending::Predicted, ""),
        ("rejected", Ending::Rejected, "no-face"),
        ("tired", Ending::Failed, "timeout"),
        ("poison", Ending::Failed, "poison"),
        ("panics", Ending::Failed, "panic"),
        ("told-to-wait", Ending::Predicted, ""),
    ];
    told.into_iter().map(|(id, ending, code)| (id.to_owned(), (ending, code.to_owned()))).collect()
}

/// The oracle: every photo has its one right ending, nothing is left over, the dead letters are exactly the failed.
async fn assert_accounted_for(rig: &Rig, context: &str) {
    let (_, broker) = rig.open().await;
    assert_accounted_for_on(rig, &*broker, context).await;
}

async fn assert_accounted_for_on(rig: &Rig, broker: &dyn Broker, context: &str) {
    assert_eq!(rig.endings().await, expected(), "{context}");
    let (ledger, _) = rig.open().await;
    for depth in broker.depths().await.unwrap() {
        let left = depth.ready + depth.in_flight + depth.delayed;
        assert_eq!(left, if depth.stage.is_none() { 3 } else { 0 }, "{context}: {depth:?}");
    }
    let mut dead: Vec<String> =
        broker.dead(10).await.unwrap().iter().map(|letter| letter.cause.code.to_string()).collect();
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
async fn every_outcome_ends_as_it_should() {
    let rig = Rig::new(script());
    assert_eq!(rig.live(&photos(&CAST), Failpoint::endless()).await, Some(Finish::Complete));
    assert_accounted_for(&rig, "undisturbed").await;
    let runs = rig.runs.lock().unwrap().clone();
    let ran = |stage, id: &str| runs.get(&(stage, id.to_owned())).copied().unwrap_or(0);
    assert_eq!(ran(StageName::Fetch, "late"), 3);
    assert_eq!(ran(StageName::Crop, "tired"), 3, "its attempts and no more");
    assert_eq!(ran(StageName::Fetch, "told-to-wait"), 6, "waits cost no attempt");
    assert_eq!(ran(StageName::Classify, "poison"), 1, "poison is not tried again");
    assert_eq!(ran(StageName::Crop, "rejected"), 0);
}

/// The same on RabbitMQ, where the shortest wait takes five seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_outcome_ends_as_it_should_on_rabbitmq() {
    let server = server::shared().await;
    let settings = rabbitmq::Settings::new(&server.url()).unwrap().with_prefix("outcomes").unwrap();
    let broker: Arc<dyn Broker> = Arc::new(RabbitMq::new(settings).unwrap());
    let mut script = script();
    script.insert((StageName::Fetch, "told-to-wait"), vec![Line::Wait, Line::Wait, Line::Pass]);
    let rig = Rig::new(script);
    let (ledger, _) = rig.open().await;
    let countdown = Arc::new(Countdown::default());
    producer::enqueue(&rig.run, &photos(&CAST), &*ledger, &*broker, &|_| ()).await.unwrap();
    let workers = rig.workers(ledger.clone(), broker.clone(), countdown.clone(), &Rig::settings());
    let finish = drive(&rig.run, &*ledger, &*broker, workers, countdown, CancellationToken::new()).await.unwrap();
    assert_eq!(finish, Finish::Complete);
    assert_accounted_for_on(&rig, &*broker, "on RabbitMQ").await;
}

/// The process dies before or after every single write to ledger and queues, each time once, and is started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_at_any_step_loses_and_doubles_nothing() {
    /// Answers whether there was such a step.
    async fn die_at(step: i64, after: bool) -> bool {
        let rig = Rig::new(script());
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

/// A ledger on another machine can make a move and be cut off before it says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_whose_answer_is_lost_counts() {
    let rig = Rig::new(script());
    let untold = Some(Mutex::default());
    assert_eq!(rig.live_with(&photos(&CAST), Failpoint::endless(), untold).await, Some(Finish::Complete));
    assert_accounted_for(&rig, "answers lost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_twice_changes_nothing() {
    let rig = Rig::new(script());
    let (ledger, broker) = rig.open().await;
    let broker: Arc<dyn Broker> = Arc::new(failpoints::Twice(broker));
    let countdown = Arc::new(Countdown::default());
    producer::enqueue(&rig.run, &photos(&CAST), &*ledger, &*broker, &|_| ()).await.unwrap();
    let workers = rig.workers(ledger.clone(), broker.clone(), countdown.clone(), &Rig::settings());
    let finish = drive(&rig.run, &*ledger, &*broker, workers, countdown, CancellationToken::new()).await.unwrap();
    assert_eq!(finish, Finish::Complete);
    assert_accounted_for(&rig, "every message twice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_photo_that_keeps_killing_its_process_is_buried() {
    let rig = Rig::new(Script::new());
    let (ledger, broker) = rig.open().await;
    let photo = Photo::new(rig.run.clone(), photos(&["killer"]).remove(0));
    let message = Message { position: Position::entering(StageName::Detect), ..Message::first(photo, 1) };
    ledger.begin(&message, "enrols it", false).await.unwrap();
    ledger.release(&message.photo.key(), message.position, "enrols it").await.unwrap();
    broker.publish(&message).await.unwrap();
    for life in 0..Rig::settings().crash_limit {
        // A process takes it, begins, and dies: it runs no destructor.
        let (ledger, broker) = rig.open().await;
        let mut consumer = broker.consume(StageName::Detect, 1).await.unwrap();
        let delivery = consumer.next().await.unwrap();
        let message = Message::decode(&delivery.body).unwrap();
        ledger.begin(&message, &format!("life {life}"), delivery.redelivered).await.unwrap();
        std::mem::forget((delivery, consumer));
    }
    assert_eq!(rig.live(&[], Failpoint::endless()).await, Some(Finish::Complete));
    assert_eq!(rig.endings().await["killer"], (Ending::Failed, "kills-workers".into()));
    assert!(rig.runs.lock().unwrap().is_empty(), "it ran again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_messages_go_to_the_dead_letters() {
    let rig = Rig::new(Script::new());
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
    producer::enqueue(&rig.run, &photos(&["passes"]), &*ledger, &*broker, &|_| ()).await.unwrap();
    assert_eq!(rig.live(&[], Failpoint::endless()).await, Some(Finish::Complete));
    let dead = broker.dead(10).await.unwrap();
    assert_eq!(dead.len(), 3);
    assert!(dead.iter().all(|letter| letter.cause.code == CauseCode::ForeignMessage));
    assert!(dead.iter().any(|letter| letter.cause.detail.contains("schema 99")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_says_wait_for_ever_is_not_waited_for_for_ever() {
    let rig = Rig::new(HashMap::from([((StageName::Fetch, "told-to-wait"), vec![Line::Wait])]));
    let (ledger, broker) = rig.open().await;
    let long_ago = Message::first(Photo::new(rig.run.clone(), photos(&["told-to-wait"]).remove(0)), 1_000_000_000);
    ledger.begin(&long_ago, "enrols it", false).await.unwrap();
    broker.publish(&long_ago).await.unwrap();
    assert_eq!(rig.live(&[], Failpoint::endless()).await, Some(Finish::Complete));
    assert_eq!(rig.endings().await["told-to-wait"], (Ending::Failed, "http-429".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_hangs_is_a_failed_attempt() {
    let rig = Rig::new(HashMap::from([((StageName::Detect, "hangs"), vec![Line::Hang, Line::Pass])]));
    assert_eq!(rig.live(&photos(&["hangs"]), Failpoint::endless()).await, Some(Finish::Complete));
    let (ledger, _) = rig.open().await;
    let history = ledger.history(&PhotoKey { run: rig.run.clone(), photo_id: Id::from("hangs") }).await.unwrap();
    assert!(history.iter().any(|event| event.cause.as_ref().is_some_and(|cause| cause.code == CauseCode::TimeLimit)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_the_grace_period_and_hands_the_rest_back() {
    let rig = Rig::new(HashMap::from([((StageName::Fetch, "hangs"), vec![Line::Hang, Line::Pass])]));
    let (ledger, broker) = rig.open().await;
    let countdown = Arc::new(Countdown::default());
    producer::enqueue(&rig.run, &photos(&["hangs"]), &*ledger, &*broker, &|_| ()).await.unwrap();
    let settings =
        Settings { grace: Duration::from_millis(20), time_limit: Duration::from_secs(60), ..Rig::settings() };
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
