//! The fault suite: photos flow through processes that are killed, on servers that are killed, and then everything is
//! counted. `make chaos SEED=7 PHOTOS=500`.
//!
//! `plan.rs` is what is done, `stages.rs` what the photos are like, `oracle.rs` what must hold. The program starts
//! itself again as the workers that die: the shipped one has no failpoints.

mod doubled;
#[path = "../worker/failpoints.rs"]
mod failpoints;
mod log;
mod oracle;
mod orders;
mod plan;
#[path = "../servers/process.rs"]
mod process;
#[path = "../servers/rabbitmq.rs"]
mod rabbitmq;
#[path = "../servers/redis.rs"]
mod redis;
#[path = "../servers/seaweedfs.rs"]
mod seaweedfs;
mod servers;
mod stages;
mod worker_processes;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use facemill::domain::{Candidate, StageName};
use facemill::ledger::{Counts, Ledger};

use log::Log;
use oracle::Finding;
use orders::{CRASH_LIMIT, ORDERS, Orders};
use plan::{Plan, Post};
use servers::Servers;
use stages::Kind;
use worker_processes::{Crew, Ground};

/// What the short form takes, which runs with all tests.
const SEED: u64 = 1;
const PHOTOS: u64 = 100;

fn main() -> ExitCode {
    if let Some(file) = std::env::var_os(ORDERS) {
        let orders: Orders = serde_json::from_slice(&std::fs::read(file).expect("orders")).expect("orders");
        orders.obey();
        return ExitCode::SUCCESS;
    }
    // Test programs are also asked what they have, or to run something else.
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let is_meant = |word: &String| word.starts_with('-') || "chaos".contains(word.as_str());
    if asked.iter().any(|word| word == "--list") || !asked.iter().all(is_meant) {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    match runtime.block_on(suite()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Answers whether everything held.
async fn suite() -> bool {
    let (seed, photos) = (number("FACEMILL_CHAOS_SEED"), number("FACEMILL_CHAOS_PHOTOS"));
    let thorough = photos.is_some();
    let plan = Plan::new(seed.unwrap_or(SEED), photos.unwrap_or(PHOTOS).max(40), thorough);
    println!("{plan}\n");
    let log = Arc::new(Log::new());
    // It stays when something is wrong.
    let scratch = tempfile::Builder::new().prefix("facemill-chaos-").tempdir().expect("a scratch folder").keep();
    let mut servers = Servers::start().await;
    log.say("RabbitMQ, Redis and S3 are up");
    let ground = Ground { place: servers.place(), folder: scratch.clone(), log: log.clone() };

    let mut candidates = flow(&plan, &ground, &mut servers).await;
    let fresh = stages::candidate(candidates.len() as u64, Kind::Plain, StageName::Fetch);
    candidates.push(fresh.clone());
    let worker_processes = Crew::start(one_each(), &ground);
    ground.produce(std::slice::from_ref(&fresh), &[]).await;
    until_over(&ground, candidates.len()).await;
    worker_processes.stop().await;

    log.say("everything has ended; the oracle counts");
    let mut findings = oracle::judge(&ground, &candidates, &fresh).await;
    findings.push(Finding::new("deaths at failpoints", plan.deaths(), log.deaths().len()));
    // Its copy may take as many along before both are known to kill.
    let killings = log.killings().clamp(CRASH_LIMIT.into(), 2 * u64::from(CRASH_LIMIT));
    findings.push(Finding::new("workers that the killer took along", killings, log.killings()));
    findings.push(Finding::new("processes that ended by themselves", 0, log.faults().len()));
    let fine = report(&plan, &findings);
    match fine {
        true => std::fs::remove_dir_all(&scratch).expect("our own folder"),
        false => println!("logs of all processes: {}", scratch.display()),
    }
    fine
}

/// Everything that the plan says; answers the photos that took part.
async fn flow(plan: &Plan, ground: &Ground, servers: &mut Servers) -> Vec<Candidate> {
    /// Photos that are added as long as somebody has yet to die.
    const MORE: u64 = 40;
    let mut candidates = Vec::new();
    let mut worker_processes = None;
    for (number, portion) in plan.portions().into_iter().enumerate() {
        let ended = ended(&ground.counts().await);
        ground.produce(&portion, if number == 0 { &plan.producer } else { &[] }).await;
        candidates.extend(portion);
        worker_processes.get_or_insert_with(|| Crew::start(plan.posts.clone(), ground));
        ground.until("some of them at their end", async |counts| self::ended(counts) > ended).await;
        servers.act(plan.acts[number], ground).await;
    }
    let worker_processes = worker_processes.expect("there are photos");
    until_over(ground, candidates.len()).await;
    for _ in 0..10 {
        if ground.log.deaths().len() == plan.deaths() {
            break;
        }
        let first = candidates.len() as u64;
        ground.log.say("somebody has yet to die: more photos");
        let more = plan.photos(first..first + MORE);
        ground.produce(&more, &[]).await;
        candidates.extend(more);
        until_over(ground, candidates.len()).await;
    }
    ground.log.say("all have ended");
    // What is known must not be enqueued again.
    ground.produce(&candidates, &[]).await;
    until_over(ground, candidates.len()).await;
    worker_processes.stop().await;
    candidates
}

fn one_each() -> Vec<Post> {
    let post = |stage: StageName| Post { name: format!("{stage}-fresh"), stage, fates: VecDeque::new() };
    StageName::ALL.into_iter().map(post).collect()
}

fn ended(counts: &Counts) -> u64 {
    counts.ended.values().sum()
}

/// Waits until all photos have ended and the queues of the stages are empty.
async fn until_over(ground: &Ground, photos: usize) {
    let is_over = async |counts: &Counts| {
        ended(counts) == photos as u64 && oracle::depths(ground).await.iter().all(|(_, count)| *count == 0)
    };
    ground.until("all photos at their end", is_over).await;
}

impl Ground {
    async fn counts(&self) -> Counts {
        self.place.ledger().counts(&self.place.run).await.expect("Redis is up")
    }

    /// Asks the ledger again and again until `enough` is true of it.
    async fn until(&self, what: &str, enough: impl AsyncFn(&Counts) -> bool) {
        const PATIENCE: Duration = Duration::from_secs(120);
        let ledger = self.place.ledger();
        let began = Instant::now();
        loop {
            let counts = ledger.counts(&self.place.run).await.expect("Redis is up");
            if enough(&counts).await {
                return;
            }
            let is_hopeless = began.elapsed() > PATIENCE || self.log.faults().len() > 20;
            assert!(!is_hopeless, "still not {what}: {counts:#?}; logs are in {}", self.folder.display());
            // Other processes write there, and ring no bell.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Prints what the oracle found, and answers whether that is fine.
fn report(plan: &Plan, findings: &[Finding]) -> bool {
    println!("\n{:48} {:>20} {:>20}", "", "expected", "found");
    for finding in findings {
        let mark = if finding.is_fine() { "" } else { "  WRONG" };
        println!("{:48} {:>20} {:>20}{mark}", finding.what, finding.expected, finding.found);
    }
    let wrong = findings.iter().filter(|finding| !finding.is_fine()).count();
    match wrong {
        0 => println!("\nnothing lost, nothing done twice (seed {})", plan.seed),
        _ => println!("\n{wrong} findings are WRONG; try again with seed {}", plan.seed),
    }
    wrong == 0
}
