//! The index of faces at size: how long it takes to make, to open, to page and to count.
//!
//! `FACEMILL_BENCH_FACES=1000000 cargo bench --bench dataset`. `FACEMILL_BENCH_RECORDS`: faces that are read from a
//! ledger and from files of records. `FACEMILL_BENCH_PARTS="freezing"`: only these parts of what is measured at size.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use facemill::archive::records::Records;
use facemill::archive::run_classifier::{ClassifierChange, ClassifierHistory};
use facemill::archive::versions::StoredVersions;
use facemill::dataset::caps::Caps;
use facemill::dataset::face::{FIELDS, Number, Text};
use facemill::dataset::index::{Change, Index};
use facemill::dataset::page::Order;
use facemill::dataset::query::Query;
use facemill::dataset::selection::SelectionSettings;
use facemill::dataset::suggested::Rest;
use facemill::dataset::{Direction, IndexSource, Sort};
use facemill::domain::{ContentHash, Ending, Message, Position, Record, RunName, StageName, VersionName};
use facemill::ledger::Ledger;
use facemill::ledger::sqlite::Sqlite;
use facemill::objects::folder::Folder;
use facemill::objects::{ObjectKey, Objects};
use facemill::pipeline::local::RunDir;
use facemill::services::run_target::RunTarget;
use facemill::services::takedown::{Chosen, SurveySettings, plan_takedown};
use facemill::sqlite::{Access, Database};
use facemill::versions::{compare, freeze};

use support::faces;
use tempfile::TempDir;

const THRESHOLD: f64 = 0.837;
const QUERIES: [&str; 12] = [
    "",
    "ok",
    "not ok and size>=512",
    "label=\"Person O'7\"",
    "label=\"Person O'7\" and p_ok>=0.9 and size>=1024",
    "p_ok>=0.45 and p_ok<0.55",
    "host in ('host1.example', 'host2.example') and not mirrored>0.1",
    "label contains 'o''1' or label is null",
    "id=123456",
    "id contains '456'",
    "p_ok>0.9999 and blur>899",
    "p_ok is null or not (size>=256 and side>=256 and width>=900 and blur>=100 and angle>-40 and angle<40)",
];
const ORDERS: [&str; 6] = ["id", "-updated", "published", "uncertainty", "-p_ok", "-size"];
const ROUNDS: usize = 20;

fn main() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().expect("a number"));
    // Deleted at the end: a file system may be slow for a while after it has deleted many files.
    let _records = from_records(number("FACEMILL_BENCH_RECORDS", 20_000));
    at_size(number("FACEMILL_BENCH_FACES", 200_000));
}

/// Makes indexes as a run in a folder and a run on servers do: from the messages in the ledger, and from the files of
/// records. Returns the folder with all of it.
fn from_records(faces: u64) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let database = Database::open(&folder.path().join("ledger.sqlite"), Access::Write).expect("an empty database");
    runtime.block_on(async {
        let ledger = Sqlite::open(database.clone()).await.expect("an empty ledger");
        for id in 0..faces {
            let record = record(id);
            let path = folder.path().join(ObjectKey::record(&record.message.photo.key()).as_str());
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder of records");
            std::fs::write(path, serde_json::to_vec(&record).expect("JSON")).expect("a record");
            ledger.restore(&record.message, Ending::Predicted, None).await.expect("an ending");
        }
        make(&ledger, None, folder.path(), "messages in the ledger").await;
        takedown(folder.path(), None, "messages in the ledger").await;
        database.call(|c| c.execute("DELETE FROM messages", [])).await.expect("a ledger without messages");
        let records = Records::new(Arc::new(Folder::at(folder.path())));
        make(&ledger, Some(records.clone()), folder.path(), "files of records").await;
        takedown(folder.path(), Some(records), "files of records").await;
    });
    folder
}

/// Looks for one photo and its copies among all.
async fn takedown(folder: &Path, records: Option<Records>, what: &str) {
    let mut target = RunTarget::of_folder(RunDir::at(folder)).await.expect("the folder");
    target.records = records;
    let settings = SurveySettings {
        chosen: Chosen::Photos(vec![7.into()]),
        copies: true,
        all_runs: false,
        by: "bench".into(),
        reason: None,
        at: 0,
    };
    let (began, processor) = (Instant::now(), time_of(libc::CLOCK_PROCESS_CPUTIME_ID));
    let plan = plan_takedown(&target, &settings, &|_| {}).await.expect("a plan");
    let processor = time_of(libc::CLOCK_PROCESS_CPUTIME_ID) - processor;
    println!(
        "{} photo found for a takedown from {what}: {:.3} s, processor {:.3} s",
        plan.photos.len(),
        began.elapsed().as_secs_f64(),
        processor.as_secs_f64()
    );
}

async fn make(ledger: &Sqlite, records: Option<Records>, folder: &Path, what: &str) {
    let objects: Arc<dyn Objects> = Arc::new(Folder::at(folder));
    let source = IndexSource::new(RunName::default(), Arc::new(ledger.clone()), objects, records);
    let mut index = Index::open(&folder.join(format!("{what}.sqlite")), &RunName::default()).expect("an empty index");
    let began = Instant::now();
    source.update(&mut index, &|_| ()).await.expect("the index is filled");
    let (took, faces) = (began.elapsed().as_secs_f64(), index.count(&Query::ALL, THRESHOLD));
    println!("{faces} faces made in {took:.1} s from {what}: a million in {:.0} s", took / faces as f64 * 1e6);
}

fn at_size(faces: u64) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = folder.path().join("index.sqlite");
    let mut index = Index::open(&path, &RunName::default()).expect("an empty index");

    // Records are made beforehand, in parts: their making is not measured.
    let mut making = Duration::ZERO;
    for first in (0..faces).step_by(10_000) {
        let json: Vec<Vec<u8>> =
            (first..(first + 10_000).min(faces)).map(|id| serde_json::to_vec(&record(id)).expect("JSON")).collect();
        let began = Instant::now();
        let changes: Vec<Change> =
            json.iter().map(|json| Change::Ended(serde_json::from_slice(json).expect("a record"))).collect();
        index.apply(&changes, None).expect("the index takes them");
        making += began.elapsed();
    }
    let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
    println!(
        "{faces} faces: made in {:.1} s from JSON in memory, {} bytes a face",
        making.as_secs_f64(),
        bytes / faces
    );
    drop(index);
    let mut index = timed("opened", || Index::open(&path, &RunName::default()).expect("the index"));
    type Part = (&'static str, fn(&mut Index));
    let parts: [Part; 5] = [
        ("pages", pages),
        ("balance", |index| balance(index)),
        ("judging", judging),
        ("classifier", classifier),
        ("freezing", |index| freezing(index)),
    ];
    let chosen = std::env::var("FACEMILL_BENCH_PARTS").ok();
    let is_chosen = |part: &str| chosen.as_ref().is_none_or(|parts| parts.split_whitespace().any(|one| one == part));
    parts.into_iter().filter(|(name, _)| is_chosen(name)).for_each(|(_, part)| part(&mut index));
}

/// Pages, counts and histograms.
fn pages(index: &mut Index) {
    let faces = index.count(&Query::ALL, THRESHOLD);
    let keys: Vec<i64> = (0..2000).map(|number| (number * 7919) % faces as i64 + 1).collect();
    let suggested = Sort::Suggested(index.add_suggested(&keys, Rest::Uncertain));
    let suggested = Order { sort: suggested, direction: Direction::Ascending };
    let (mut pages, mut counts) = (Vec::new(), Vec::new());
    for text in QUERIES {
        let query = Query::parse(text, FIELDS).unwrap_or_else(|error| panic!("{error}"));
        let mut of_query = Vec::new();
        for order in ORDERS.into_iter().map(|order| order.parse().expect("a sort")).chain([suggested]) {
            let mut after = None;
            // The first pages, as a person turns them.
            for _ in 0..5 {
                let (page, took) =
                    Took::of(|| index.page(&query, order, THRESHOLD, after.as_ref(), 60).expect("a page"));
                of_query.push(took);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        let times = times(|| {
            index.count(&query, THRESHOLD);
        });
        println!(
            "{:>9} faces  page {:>6.1} ms  count {:>5.1} ms (longest)  {text}",
            index.count(&query, THRESHOLD),
            longest(&of_query),
            longest(&times)
        );
        pages.extend(of_query);
        counts.extend(times);
    }
    for text in Text::ALL {
        let times = times(|| {
            index.count_by(text, &Query::ALL, THRESHOLD);
        });
        println!("counts by {}: {:.1} ms (longest)", text.field().name, longest(&times));
        counts.extend(times);
    }
    let histogram = times(|| {
        index.histogram(Number::POk, (0.0, 1.0), 50, &Query::ALL, THRESHOLD);
    });
    let split = times(|| {
        index.ok_split(&Query::ALL, THRESHOLD);
    });
    println!("histogram {:.1} ms, OK and NG {:.1} ms (longest)", longest(&histogram), longest(&split));
    counts.extend(histogram.into_iter().chain(split));
    summary("pages of 60", &pages);
    summary("counts", &counts);
}

fn balance(index: &Index) {
    for caps in [Caps::default(), Caps { per_label: Some(50), per_identity: None }] {
        let order = "-p_ok".parse().expect("a sort");
        let balance = times(|| {
            index.balance(&Query::ALL, THRESHOLD, order, caps, 20);
        });
        println!("balance, {caps:?}: {:.1} ms (longest)", longest(&balance));
    }
}

/// Another classifier, and its predictions.
fn classifier(index: &mut Index) {
    let classifier = |threshold, model: &[u8]| {
        let (model_sha256, model, by, why) = (ContentHash::of(model), "a model".into(), "bench".into(), String::new());
        ClassifierHistory { changes: vec![ClassifierChange { model_sha256, model, threshold, at: 0, by, why }] }
    };
    timed("another model", || index.set_classifier(&classifier(0.5, b"one")).expect("it is taken"));
    timed("another threshold, and all counts", || {
        index.set_classifier(&classifier(0.6, b"one")).expect("it is taken");
        index.status_counts(&Query::ALL, 0.6)
    });
    let unscored = timed("faces to score", || index.unscored().expect("their crops"));
    let prediction = |at: usize| faces::prediction(at as f64 % 1000.0 / 1000.0, "one");
    let predictions: Vec<_> = unscored.iter().enumerate().map(|(at, (key, _))| (*key, prediction(at))).collect();
    timed("their predictions", || {
        predictions.chunks(1000).for_each(|batch| index.add_predictions(batch).expect("they are taken"));
    });
}

/// Two versions with nearly all faces, and their comparison.
fn freezing(index: &Index) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let versions = StoredVersions::new(Arc::new(Folder::at(folder.path())), RunName::default());
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let name = |text: &str| text.parse::<VersionName>().expect("a name");
    let freeze_as = |text: &str, query: &str| {
        let settings = SelectionSettings {
            query: Query::parse(query, FIELDS).expect("a query"),
            order: "id".parse().expect("a sort"),
            sort: "id".into(),
            number: None,
            size: 1,
            upscale: true,
            caps: Caps::default(),
            placeholders: true,
            duplicates: false,
        };
        let name = name(text);
        let frozen = freeze(index, &versions, &name, &settings, 0, &|_, _| {});
        runtime.block_on(frozen).expect("a version").counts.faces
    };
    let faces = timed("a version frozen", || freeze_as("all", ""));
    let fewer = freeze_as("most", "size>=257");
    let difference =
        timed("two versions compared", || runtime.block_on(compare(&versions, &name("most"), &name("all"))));
    let difference = difference.expect("the difference");
    println!("{faces} and {fewer} faces, {} added, {} the same", difference.added.len(), difference.same);
}

/// What the page for judging asks: a list is opened, and counts by status and size are shown again after each change.
fn judging(index: &mut Index) {
    let judged = times_of(index, |index, query| {
        index.status_counts(query, THRESHOLD);
    });
    summary("counts by status and size", &judged);
    let mut opened = Vec::new();
    for text in QUERIES {
        let query = Query::parse(text, FIELDS).unwrap_or_else(|error| panic!("{error}"));
        for order in ORDERS {
            let order = order.parse().expect("a sort");
            // The set of a list, those that nobody has judged, and the first entries.
            opened.extend(times(|| {
                let rows = index.rows(&query, THRESHOLD);
                let unjudged = index.unjudged(&rows);
                for row in index.first(&unjudged, order, THRESHOLD, None, 60) {
                    let face = index.face_of(row).expect("a face").expect("it is there");
                    index.verdicts_on(face.crop).expect("its verdicts");
                    index.keys_of_crop(face.crop).expect("its copies");
                }
            }));
        }
    }
    summary("lists opened, with 60 entries", &opened);
    let border = times(|| {
        let rows = index.all_unjudged();
        index.p_ok_histogram(&rows, 0.9, 50);
    });
    summary("the border", &border);
}

fn times_of(index: &mut Index, work: impl Fn(&Index, &Query)) -> Vec<Took> {
    let mut all = Vec::new();
    for text in QUERIES {
        let query = Query::parse(text, FIELDS).unwrap_or_else(|error| panic!("{error}"));
        all.extend(times(|| work(index, &query)));
    }
    all
}

fn record(id: u64) -> Record {
    let message = Message {
        position: Position::entering(StageName::Classify),
        ..Message::first(faces::photo(id), 1_700_000_000)
    };
    Record { ending: Ending::Predicted, cause: None, message }
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (began, processor) = (Instant::now(), time_of(libc::CLOCK_PROCESS_CPUTIME_ID));
    let done = work();
    let processor = time_of(libc::CLOCK_PROCESS_CPUTIME_ID) - processor;
    println!("{what}: {:.3} s, processor {:.3} s", began.elapsed().as_secs_f64(), processor.as_secs_f64());
    done
}

/// The time of a piece of work of one thread. On a busy machine, the time of its processor is what an idle one takes.
#[derive(Clone, Copy)]
struct Took {
    wall: Duration,
    processor: Duration,
}

impl Took {
    fn of<T>(work: impl FnOnce() -> T) -> (T, Self) {
        let (began, processor) = (Instant::now(), time_of(libc::CLOCK_THREAD_CPUTIME_ID));
        let done = work();
        (done, Self { wall: began.elapsed(), processor: time_of(libc::CLOCK_THREAD_CPUTIME_ID) - processor })
    }
}

fn time_of(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `time` only.
    let answer = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(answer, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn times(mut work: impl FnMut()) -> Vec<Took> {
    (0..ROUNDS).map(|_| Took::of(&mut work).1).collect()
}

/// Milliseconds.
fn longest(times: &[Took]) -> f64 {
    times.iter().map(|took| took.processor).max().map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn summary(what: &str, times: &[Took]) {
    spread(&format!("{what}, processor"), times.iter().map(|took| took.processor).collect());
    spread(&format!("{what}, wall clock"), times.iter().map(|took| took.wall).collect());
}

fn spread(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
    let (least, median, p99) = (at(0.0), at(0.5), at(0.99));
    println!("{what}: min {least:.1} ms, median {median:.1} ms, p99 {p99:.1} ms, {} timed", times.len());
}
