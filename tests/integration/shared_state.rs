//! The state that the processes of an installation share in a real Redis: leases of hosts, pauses, workers.

use support::PATIENCE;
use support::servers::redis as server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use facemill::cluster::host_limiter::{LeaseLimits, RedisHostLimiter};
use facemill::cluster::pauses::{PauseTarget, PauseWatch, Pauses};
use facemill::cluster::workers::{WorkerReport, Workers};
use facemill::domain::StageName;
use facemill::net::Rules;
use facemill::net::host_limiter::{Feedback, HostLimiter, Lease, LeaseDecision};
use facemill::net::host_limits::{Admission, DeferReason, HostLimits};
use facemill::net::host_rules::HostRules;
use facemill::redis::{RedisClient, RedisSettings};
use futures::future::join_all;
use tokio::sync::watch;

use server::RedisServer;

const IN_QUEUE: Duration = Duration::from_secs(30);

fn connect(settings: &RedisSettings) -> Arc<RedisClient> {
    Arc::new(RedisClient::new(settings.clone()).unwrap())
}

fn rules() -> Rules {
    Rules { per_host: 3, spacing: Duration::ZERO, queue_timeout: IN_QUEUE, ..Rules::default() }
}

/// The limiter of one process, with a connection of its own.
fn limiter(settings: &RedisSettings, process: &str, limits: LeaseLimits) -> Arc<RedisHostLimiter> {
    let (_, paused) = watch::channel(BTreeMap::new());
    Arc::new(RedisHostLimiter::new(connect(settings), process.into(), limits, paused))
}

async fn acquire(limiter: &RedisHostLimiter, host: &str) -> Lease {
    match limiter.acquire(host).await.unwrap() {
        LeaseDecision::Granted { lease, .. } => lease,
        other => panic!("{host} should grant a lease: {other:?}"),
    }
}

async fn is_busy(limiter: &RedisHostLimiter, host: &str) -> bool {
    matches!(limiter.acquire(host).await.unwrap(), LeaseDecision::Busy { .. })
}

async fn quiet(limiter: &RedisHostLimiter, host: &str) -> u64 {
    match limiter.acquire(host).await.unwrap() {
        LeaseDecision::Quiet { left, .. } => left.as_secs_f64().round() as u64,
        other => panic!("{host} should be quiet: {other:?}"),
    }
}

/// Polls until the condition is true.
async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "timeout: {what}");
        // An expiry is not announced, so the test polls up to a deadline.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Sends a command over a connection of its own.
async fn send_command<T: redis::FromRedisValue>(settings: &RedisSettings, command: &[&str]) -> T {
    let client = redis::Client::open(settings.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (name, arguments) = command.split_first().unwrap();
    redis::cmd(name).arg(arguments).query_async(&mut connection).await.unwrap()
}

#[tokio::test]
async fn all_processes_together_stay_within_the_limit() {
    let settings = RedisServer::shared().settings();
    let limits = LeaseLimits::new(&rules());
    let (a, b) = (limiter(&settings, "a", limits.clone()), limiter(&settings, "b", limits));
    let first = acquire(&a, "x").await;
    acquire(&b, "x").await;
    let third = acquire(&a, "x").await;
    assert!(is_busy(&a, "x").await && is_busy(&b, "x").await);
    acquire(&b, "y").await;
    a.release("x", &first, Feedback::Neither).await.unwrap();
    a.release("x", &first, Feedback::Neither).await.unwrap();
    acquire(&b, "x").await;
    assert!(is_busy(&b, "x").await, "a lease that is released twice counts once");
    b.release("x", &third, Feedback::Neither).await.unwrap();
    assert!(matches!(b.acquire("x").await.unwrap(), LeaseDecision::Granted { processes: 2, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_of_several_processes_stay_within_the_limit() {
    let settings = RedisServer::shared().settings();
    let (now, peak, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let processes: Vec<(HostLimits, Arc<RedisClient>)> = ["a", "b", "c"]
        .map(|name| {
            let limiter = limiter(&settings, name, LeaseLimits::new(&rules()));
            (HostLimits::new(&rules()).with_limiter(limiter), connect(&settings))
        })
        .into();
    let requests = processes.iter().flat_map(|(host_limits, redis)| {
        let (now, peak, done) = (&now, &peak, &done);
        (0..30).map(move |_| async move {
            let permit = loop {
                // The queue is short. A request that finds it full is deferred and tries again.
                match host_limits.admit("x").await {
                    Admission::Granted(permit) => break permit,
                    Admission::Deferred { reason, .. } => assert_eq!(reason, DeferReason::Busy),
                }
                tokio::task::yield_now().await;
            };
            peak.fetch_max(1 + now.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            // A request that takes no time.
            redis.check("check").await.unwrap();
            now.fetch_sub(1, Ordering::SeqCst);
            done.fetch_add(1, Ordering::SeqCst);
            drop(permit);
        })
    });
    tokio::time::timeout(PATIENCE, join_all(requests)).await.unwrap();
    assert_eq!(done.into_inner(), 90);
    let peak = peak.into_inner();
    assert!((2..=3).contains(&peak), "{peak} at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_several_processes_queue_and_are_not_deferred() {
    let settings = RedisServer::shared().settings();
    let processes: Vec<(HostLimits, Arc<RedisClient>)> = ["a", "b"]
        .map(|name| {
            let limiter = limiter(&settings, name, LeaseLimits::new(&rules()));
            (HostLimits::new(&rules()).with_limiter(limiter), connect(&settings))
        })
        .into();
    let requests = processes.iter().flat_map(|(host_limits, redis)| {
        (0..100).map(move |_| async move {
            let admission = host_limits.admit("x").await;
            // A request that takes no time.
            redis.check("check").await.unwrap();
            matches!(admission, Admission::Granted(_))
        })
    });
    let admitted = tokio::time::timeout(PATIENCE, join_all(requests)).await.unwrap();
    assert!(admitted.into_iter().all(|admitted| admitted));
}

#[tokio::test]
async fn requests_of_all_processes_keep_the_spacing() {
    let settings = RedisServer::shared().settings();
    let limits = LeaseLimits::new(&Rules { spacing: Duration::from_secs(100), ..rules() });
    let (a, b) = (limiter(&settings, "a", limits.clone()), limiter(&settings, "b", limits));
    let starts_in = async |limiter: &RedisHostLimiter| match limiter.acquire("x").await.unwrap() {
        LeaseDecision::Granted { starts_in, .. } => starts_in.as_secs_f64().round() as u64,
        other => panic!("{other:?}"),
    };
    assert_eq!((starts_in(&a).await, starts_in(&b).await, starts_in(&a).await), (0, 100, 200));
}

#[tokio::test]
async fn all_processes_keep_the_rules_of_a_host() {
    let settings = RedisServer::shared().settings();
    let mut rules = Rules { spacing: Duration::from_secs(100), ..rules() };
    let own = HostRules { per_host: Some(4), spacing: Some(Duration::ZERO), ..HostRules::default() };
    rules.host_rules.insert("own.example".to_owned(), own);
    let limits = LeaseLimits::new(&rules);
    let (a, b) = (limiter(&settings, "a", limits.clone()), limiter(&settings, "b", limits));
    for limiter in [&a, &b, &a, &b] {
        let granted = limiter.acquire("own.example").await.unwrap();
        assert!(matches!(granted, LeaseDecision::Granted { starts_in: Duration::ZERO, .. }), "{granted:?}");
    }
    assert!(is_busy(&a, "own.example").await && is_busy(&b, "own.example").await);
}

#[tokio::test]
async fn a_quiet_period_applies_to_all_processes() {
    let settings = RedisServer::shared().settings();
    let limits = LeaseLimits::new(&rules());
    let (a, b) = (limiter(&settings, "a", limits.clone()), limiter(&settings, "b", limits));
    let (first, second) = (acquire(&a, "x").await, acquire(&b, "x").await);
    let named = Feedback::RetryAfter(Some(Duration::from_secs(90)));
    assert_eq!(a.release("x", &first, named).await.unwrap().as_secs(), 90);
    assert_eq!(quiet(&b, "x").await, 90);
    // Both requests were in flight at the same time. So this is the same quiet period, and the longer one counts.
    b.release("x", &second, Feedback::RetryAfter(None)).await.unwrap();
    assert_eq!(quiet(&a, "x").await, 90);
    acquire(&a, "y").await;

    let key = format!("{}:host:{{z}}", settings.prefix);
    for expected in [5, 10, 20] {
        let lease = acquire(&a, "z").await;
        a.release("z", &lease, Feedback::RetryAfter(None)).await.unwrap();
        assert_eq!(quiet(&b, "z").await, expected, "quiet periods without a duration grow");
        let _: u64 = send_command(&settings, &["HSET", &key, "quiet_until", "0"]).await;
    }
    let lease = acquire(&b, "z").await;
    b.release("z", &lease, Feedback::Success).await.unwrap();
    let lease = acquire(&a, "z").await;
    a.release("z", &lease, Feedback::RetryAfter(None)).await.unwrap();
    assert_eq!(quiet(&b, "z").await, 5, "a success resets the growth");
}

#[tokio::test]
async fn a_quiet_period_reaches_the_other_processes() {
    let settings = RedisServer::shared().settings();
    let limits = |name| HostLimits::new(&rules()).with_limiter(limiter(&settings, name, LeaseLimits::new(&rules())));
    let (a, b) = (limits("a"), limits("b"));
    let Admission::Granted(permit) = a.admit("x").await else { panic!("no lease is in use") };
    permit.on_retry_after(Some(Duration::from_secs(90)));
    drop(permit);
    until("a quiet host", async || match b.admit("x").await {
        Admission::Deferred { reason, after } => reason == DeferReason::Quiet && after > Duration::from_secs(60),
        Admission::Granted(_) => false,
    })
    .await;
}

#[tokio::test]
async fn the_lease_of_a_crashed_process_expires() {
    let settings = RedisServer::shared().settings();
    let one = Rules { per_host: 1, ..rules() };
    let short = LeaseLimits { lease_time: Duration::from_millis(300), ..LeaseLimits::new(&one) };
    let (a, b) = (limiter(&settings, "a", short.clone()), limiter(&settings, "b", short));
    acquire(&a, "x").await;
    drop(a);
    until("a free host", async || !is_busy(&b, "x").await).await;
}

#[tokio::test]
async fn all_keys_of_a_host_expire() {
    let settings = RedisServer::shared().settings();
    let short = Duration::from_millis(200);
    let limits = LeaseLimits { lease_time: short, sharing: short, memory: short, ..LeaseLimits::new(&rules()) };
    let limiter = limiter(&settings, "a", limits);
    let _crashed = acquire(&limiter, "x").await;
    let lease = acquire(&limiter, "y").await;
    limiter.release("y", &lease, Feedback::RetryAfter(Some(short))).await.unwrap();
    let pattern = format!("{}:*", settings.prefix);
    let keys = async || send_command::<Vec<String>>(&settings, &["KEYS", &pattern]).await;
    assert!(!keys().await.is_empty());
    until("no keys", async || keys().await.is_empty()).await;
}

#[tokio::test]
async fn requests_are_deferred_while_the_limiter_is_unavailable() {
    let server = RedisServer::start(&[]);
    let settings = server.settings();
    let rules = Rules { queue_timeout: Duration::from_millis(50), ..rules() };
    let host_limits = HostLimits::new(&rules).with_limiter(limiter(&settings, "a", LeaseLimits::new(&rules)));
    assert!(matches!(host_limits.admit("x").await, Admission::Granted(_)));
    server.process.kill();
    assert!(matches!(
        host_limits.admit("y").await,
        Admission::Deferred { reason: DeferReason::LimiterUnavailable, .. }
    ));
}

#[tokio::test]
async fn the_delay_of_a_paused_host_grows_with_the_length_of_the_pause() {
    let settings = RedisServer::shared().settings();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let paused = BTreeMap::from([("new".into(), now), ("old".into(), now - 60), ("older".into(), now - 5000)]);
    let (_sender, paused) = watch::channel(paused);
    let limiter = RedisHostLimiter::new(connect(&settings), "a".into(), LeaseLimits::new(&rules()), paused);
    let host_limits = HostLimits::new(&rules()).with_limiter(Arc::new(limiter));
    for (host, least, most) in [("new", 5, 30), ("old", 30, 60), ("older", 600, 600)] {
        let Admission::Deferred { reason: DeferReason::Paused, after } = host_limits.admit(host).await else {
            panic!("{host} is paused")
        };
        assert!((least..=most).contains(&after.as_secs()), "{host}: {after:?}");
    }
    assert!(matches!(host_limits.admit("other").await, Admission::Granted(_)));
}

#[tokio::test]
async fn pauses_reach_all_workers_and_survive_a_restart_of_the_server() {
    let mut server = RedisServer::start(&[]);
    let settings = server.settings();
    let redis = connect(&settings);
    let fetch = [PauseTarget::Stage(StageName::Fetch)];
    Pauses::add(&redis, &fetch).await.unwrap();
    let watch = PauseWatch::start(connect(&settings)).await.unwrap();
    let (mut stage, mut hosts) = (watch.stage(StageName::Fetch), watch.hosts());
    assert!(*stage.borrow_and_update(), "a worker that starts later reads the pauses");
    tokio::spawn(watch.run());

    let becomes = async |stage: &mut watch::Receiver<bool>, paused: bool| {
        tokio::time::timeout(PATIENCE, stage.wait_for(|now| *now == paused)).await.unwrap().unwrap();
    };
    Pauses::remove(&redis, &fetch).await.unwrap();
    becomes(&mut stage, false).await;
    let host = PauseTarget::Host("Photos.Example".parse().unwrap());
    Pauses::add(&redis, std::slice::from_ref(&host)).await.unwrap();
    tokio::time::timeout(PATIENCE, hosts.wait_for(|hosts| hosts.contains_key("photos.example")))
        .await
        .unwrap()
        .unwrap();

    let before = Pauses::read(&redis).await.unwrap();
    Pauses::add(&redis, &[host]).await.unwrap();
    assert_eq!(Pauses::read(&redis).await.unwrap(), before, "the pause keeps its start");

    server.process.kill();
    server.restart();
    until("an available server", async || Pauses::add(&redis, &fetch).await.is_ok()).await;
    becomes(&mut stage, true).await;
    assert!(hosts.borrow().contains_key("photos.example"), "the pause survives the restart");
}

#[tokio::test]
async fn workers_are_listed_until_they_are_removed_or_stop_reporting() {
    let settings = RedisServer::shared().settings();
    let redis = connect(&settings);
    let report = |name: &str, done| WorkerReport {
        name: name.into(),
        version: "1".into(),
        stages: vec![StageName::Fetch],
        since: 5,
        in_flight: 2,
        done,
    };
    let workers = Workers::new(&redis);
    assert_eq!(workers.active().await.unwrap(), []);
    for worker in [report("b", 1), report("a", 1), report("b", 7)] {
        workers.report(&worker).await.unwrap();
    }
    let reports: Vec<WorkerReport> = workers.active().await.unwrap().into_iter().map(|worker| worker.report).collect();
    assert_eq!(reports, [report("a", 1), report("b", 7)]);
    workers.remove("a").await.unwrap();
    assert_eq!(workers.active().await.unwrap().len(), 1);

    let short_memory = Workers::with_memory(&redis, Duration::from_millis(200));
    short_memory.report(&report("c", 1)).await.unwrap();
    until("an empty list", async || short_memory.active().await.unwrap().is_empty()).await;
    let pattern = format!("{}:*", settings.prefix);
    until("no keys", async || send_command::<Vec<String>>(&settings, &["KEYS", &pattern]).await.is_empty()).await;
}
