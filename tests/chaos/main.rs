//! The chaos suite: processes and servers are killed while photos pass through the pipeline, and the results are
//! counted. `make chaos SEED=7 PHOTOS=500`.
//!
//! `plan.rs` plans the faults, `stages.rs` defines the photos, `oracle.rs` checks the results. The test program starts
//! itself again as the workers that are killed, because the facemill program has no failpoints.

mod child;
mod doubled;
mod log;
mod oracle;
mod plan;
mod servers;
mod stages;
mod worker_processes;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use facemill::broker::Broker;
use facemill::domain::{Candidate, StageName};
use facemill::ledger::{Counts, Ledger};

use child::{CHILD_SPEC, CRASH_LIMIT, ChildSpec};
use log::Log;
use oracle::Finding;
use plan::{Plan, WorkerSlot};
use servers::Servers;
use stages::Kind;
use worker_processes::{Environment, WorkerProcesses};

/// The size of the short form, which runs with all tests.
const SEED: u64 = 1;
const PHOTOS: u64 = 100;

fn main() -> ExitCode {
    if let Some(file) = std::env::var_os(CHILD_SPEC) {
        let spec: ChildSpec = serde_json::from_slice(&std::fs::read(file).expect("a child specification"))
            .expect("a child specification");
        spec.run();
        return ExitCode::SUCCESS;
    }
    // The test harness may also list the tests, or select others.
    let mut asked: Vec<String> = std::env::args().skip(1).collect();
    // The name after `--skip` is that of another test.
    while let Some(at) = asked.iter().position(|word| word == "--skip") {
        asked.drain(at..asked.len().min(at + 2));
    }
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

/// Runs the suite. Returns whether all checks passed.
async fn suite() -> bool {
    let (seed, photos) = (number("FACEMILL_CHAOS_SEED"), number("FACEMILL_CHAOS_PHOTOS"));
    let thorough = photos.is_some();
    let plan = Plan::new(seed.unwrap_or(SEED), photos.unwrap_or(PHOTOS).max(40), thorough);
    println!("{plan}\n");
    let log = Arc::new(Log::new());
    // The folder is kept after a failure.
    let scratch = tempfile::Builder::new().prefix("facemill-chaos-").tempdir().expect("a scratch folder").keep();
    let mut servers = Servers::start().await;
    log.say("RabbitMQ, Redis and S3 are up");
    let environment = Environment {
        endpoints: servers.endpoints(),
        folder: scratch.clone(),
        log: log.clone(),
        server_logs: servers.logs(),
    };

    let mut candidates = flow(&plan, &environment, &mut servers).await;
    let fresh = stages::candidate(candidates.len() as u64, Kind::Plain, StageName::Fetch);
    candidates.push(fresh.clone());
    let worker_processes = WorkerProcesses::start(one_worker_each(), &environment);
    environment.produce(std::slice::from_ref(&fresh), &[]).await;
    until_over(&environment, candidates.len()).await;
    worker_processes.stop().await;

    log.say("all photos have ended; the oracle checks");
    let mut findings = oracle::check(&environment, &candidates, &fresh).await;
    findings.push(Finding::new("kills at failpoints", plan.kills(), log.kills().len()));
    // The photo's second message may crash as many workers before both are dead-lettered.
    let crashes = log.crashes().clamp(CRASH_LIMIT.into(), 2 * u64::from(CRASH_LIMIT));
    findings.push(Finding::new("workers that a photo crashed", crashes, log.crashes()));
    findings.push(Finding::new("processes that ended unexpectedly", 0, log.faults().len()));
    let fine = report(&plan, &findings);
    match fine {
        true => std::fs::remove_dir_all(&scratch).expect("our own folder"),
        false => {
            environment.keep_server_logs();
            println!("logs of all processes: {}", scratch.display());
        }
    }
    fine
}

/// Carries out the plan. Returns all photos.
async fn flow(plan: &Plan, environment: &Environment, servers: &mut Servers) -> Vec<Candidate> {
    /// How many photos are added while a planned kill has not happened.
    const MORE: u64 = 40;
    let mut candidates = Vec::new();
    let mut worker_processes = None;
    for (number, portion) in plan.portions().into_iter().enumerate() {
        let ended = ended(&environment.counts().await);
        environment.produce(&portion, if number == 0 { &plan.producer } else { &[] }).await;
        candidates.extend(portion);
        worker_processes.get_or_insert_with(|| WorkerProcesses::start(plan.slots.clone(), environment));
        environment.until("at the end of some photos", async |counts| self::ended(counts) > ended).await;
        servers.inject(plan.server_faults[number], environment).await;
    }
    let worker_processes = worker_processes.expect("there are photos");
    until_over(environment, candidates.len()).await;
    for _ in 0..10 {
        if environment.log.kills().len() == plan.kills() {
            break;
        }
        let first = candidates.len() as u64;
        environment.log.say("some kills have not happened: adding photos");
        let more = plan.photos(first..first + MORE);
        environment.produce(&more, &[]).await;
        candidates.extend(more);
        until_over(environment, candidates.len()).await;
    }
    environment.log.say("all photos have ended");
    // A second run of the producer must not enqueue known photos.
    environment.produce(&candidates, &[]).await;
    until_over(environment, candidates.len()).await;
    worker_processes.stop().await;
    candidates
}

fn one_worker_each() -> Vec<WorkerSlot> {
    let slot = |stage: StageName| WorkerSlot { name: format!("{stage}-fresh"), stage, kills: VecDeque::new() };
    StageName::ALL.into_iter().map(slot).collect()
}

fn ended(counts: &Counts) -> u64 {
    counts.ended.values().sum()
}

/// Waits until all photos have ended and the queues of the stages are empty.
async fn until_over(environment: &Environment, photos: usize) {
    let broker = environment.endpoints.broker();
    let is_over = async |counts: &Counts| {
        // A RabbitMQ that does not answer is asked again.
        let depths = if ended(counts) == photos as u64 { oracle::depths(&broker).await.ok() } else { None };
        depths.is_some_and(|depths| depths.iter().all(|(_, count)| *count == 0))
    };
    environment.until("at the end of all photos", is_over).await;
    broker.close().await;
}

impl Environment {
    async fn counts(&self) -> Counts {
        self.endpoints.ledger().counts(&self.endpoints.run).await.expect("Redis is up")
    }

    /// Polls the ledger until `enough` is true.
    async fn until(&self, what: &str, enough: impl AsyncFn(&Counts) -> bool) {
        const TIMEOUT: Duration = Duration::from_secs(120);
        let ledger = self.endpoints.ledger();
        let mut last = None;
        let polling = async {
            loop {
                let counts = ledger.counts(&self.endpoints.run).await.expect("Redis is up");
                if enough(&counts).await {
                    return true;
                }
                last = Some(counts);
                if self.log.faults().len() > 20 {
                    return false;
                }
                // Other processes write to the ledger; there is no signal to wait for.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let succeeded = tokio::time::timeout(TIMEOUT, polling).await.unwrap_or(false);
        if !succeeded {
            self.keep_server_logs();
            let depths = self.endpoints.broker().depths().await;
            panic!("still not {what}: {last:#?}; queues: {depths:?}; logs are in {}", self.folder.display());
        }
    }
}

/// Prints the findings. Returns whether all are right.
fn report(plan: &Plan, findings: &[Finding]) -> bool {
    println!("\n{:48} {:>20} {:>20}", "", "expected", "found");
    for finding in findings {
        let mark = if finding.is_fine() { "" } else { "  WRONG" };
        println!("{:48} {:>20} {:>20}{mark}", finding.what, finding.expected, finding.found);
    }
    let wrong = findings.iter().filter(|finding| !finding.is_fine()).count();
    match wrong {
        0 => println!("\nnothing lost, nothing done twice (seed {})", plan.seed),
        _ => println!("\n{wrong} findings are WRONG; repeat with seed {}", plan.seed),
    }
    wrong == 0
}
