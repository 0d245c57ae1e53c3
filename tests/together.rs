//! What the processes of an installation tell each other through a real Redis: whose turn it is at a host, what is paused,
//! who is at work.

#[path = "servers/process.rs"]
mod process;
#[path = "servers/redis.rs"]
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use facemill::cluster::hosts::{Hosts, Limits};
use facemill::cluster::pauses::{Pauses, Subject, Watch};
use facemill::cluster::workers::{Report, Workers};
use facemill::domain::StageName;
use facemill::net::Rules;
use facemill::net::host_limiter::{Feedback, HostLimiter, Lease, LeaseDecision};
use facemill::net::host_limits::{Admission, DeferReason, HostLimits};
use facemill::redis::{RedisClient, RedisSettings};
use futures::future::join_all;
use tokio::sync::watch;

use server::RedisServer;

const PATIENCE: Duration = Duration::from_secs(30);

fn connect(settings: &RedisSettings) -> Arc<RedisClient> {
    Arc::new(RedisClient::new(settings.clone()).unwrap())
}

fn rules() -> Rules {
    Rules { per_host: 3, spacing: Duration::ZERO, queue_timeout: PATIENCE, ..Rules::default() }
}

/// As one process has it: with a connection of its own.
fn hosts(settings: &RedisSettings, process: &str, limits: Limits) -> Arc<Hosts> {
    let (_, paused) = watch::channel(BTreeMap::new());
    Arc::new(Hosts::new(connect(settings), process.into(), limits, paused))
}

async fn go(hosts: &Hosts, host: &str) -> Lease {
    match hosts.acquire(host).await.unwrap() {
        LeaseDecision::Granted { lease, .. } => lease,
        other => panic!("{host} should have time: {other:?}"),
    }
}

async fn is_busy(hosts: &Hosts, host: &str) -> bool {
    matches!(hosts.acquire(host).await.unwrap(), LeaseDecision::Busy { .. })
}

async fn quiet(hosts: &Hosts, host: &str) -> u64 {
    match hosts.acquire(host).await.unwrap() {
        LeaseDecision::Quiet { left, .. } => left.as_secs_f64().round() as u64,
        other => panic!("{host} should want quiet: {other:?}"),
    }
}

/// Asks again until it is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        // A key that expires tells nobody: asking again, up to a deadline, is all there is.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Speaks to the server behind everybody's back.
async fn tell<T: redis::FromRedisValue>(settings: &RedisSettings, command: &[&str]) -> T {
    let client = redis::Client::open(settings.url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (name, arguments) = command.split_first().unwrap();
    redis::cmd(name).arg(arguments).query_async(&mut connection).await.unwrap()
}

#[tokio::test]
async fn a_host_gets_as_many_requests_from_all_as_from_one() {
    let settings = RedisServer::shared().settings();
    let limits = Limits::new(&rules());
    let (a, b) = (hosts(&settings, "a", limits.clone()), hosts(&settings, "b", limits));
    let first = go(&a, "x").await;
    go(&b, "x").await;
    let third = go(&a, "x").await;
    assert!(is_busy(&a, "x").await && is_busy(&b, "x").await);
    go(&b, "y").await;
    a.release("x", &first, Feedback::Neither).await.unwrap();
    a.release("x", &first, Feedback::Neither).await.unwrap();
    go(&b, "x").await;
    assert!(is_busy(&b, "x").await, "a lease that is given back twice is one");
    b.release("x", &third, Feedback::Neither).await.unwrap();
    assert!(matches!(b.acquire("x").await.unwrap(), LeaseDecision::Granted { processes: 2, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn crowds_in_two_processes_never_exceed_the_limit_together() {
    let settings = RedisServer::shared().settings();
    let (now, peak, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let processes: Vec<(HostLimits, Arc<RedisClient>)> = ["a", "b", "c"]
        .map(|name| {
            let hosts = hosts(&settings, name, Limits::new(&rules()));
            (HostLimits::new(&rules()).with_limiter(hosts), connect(&settings))
        })
        .into();
    let visits = processes.iter().flat_map(|(host_limits, redis)| {
        let (now, peak, done) = (&now, &peak, &done);
        (0..30).map(move |_| async move {
            let permit = loop {
                // The line is short; who finds it full comes again.
                match host_limits.admit("x").await {
                    Admission::Granted(permit) => break permit,
                    Admission::Deferred { reason, .. } => assert_eq!(reason, DeferReason::Busy),
                }
                tokio::task::yield_now().await;
            };
            peak.fetch_max(1 + now.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            // As long as a request takes that is answered at once.
            redis.check("check").await.unwrap();
            now.fetch_sub(1, Ordering::SeqCst);
            done.fetch_add(1, Ordering::SeqCst);
            drop(permit);
        })
    });
    tokio::time::timeout(PATIENCE * 2, join_all(visits)).await.unwrap();
    assert_eq!(done.into_inner(), 90);
    let peak = peak.into_inner();
    assert!((2..=3).contains(&peak), "{peak} at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn crowds_in_two_processes_stand_in_line_and_are_not_sent_away() {
    let settings = RedisServer::shared().settings();
    let processes: Vec<(HostLimits, Arc<RedisClient>)> = ["a", "b"]
        .map(|name| {
            let hosts = hosts(&settings, name, Limits::new(&rules()));
            (HostLimits::new(&rules()).with_limiter(hosts), connect(&settings))
        })
        .into();
    let visits = processes.iter().flat_map(|(host_limits, redis)| {
        (0..100).map(move |_| async move {
            let entry = host_limits.admit("x").await;
            // As long as a request takes that is answered at once.
            redis.check("check").await.unwrap();
            matches!(entry, Admission::Granted(_))
        })
    });
    let went = tokio::time::timeout(PATIENCE, join_all(visits)).await.unwrap();
    assert!(went.into_iter().all(|went| went));
}

#[tokio::test]
async fn requests_of_all_keep_their_distance() {
    let settings = RedisServer::shared().settings();
    let limits = Limits { spacing: Duration::from_secs(100), ..Limits::new(&rules()) };
    let (a, b) = (hosts(&settings, "a", limits.clone()), hosts(&settings, "b", limits));
    let starts_in = async |hosts: &Hosts| match hosts.acquire("x").await.unwrap() {
        LeaseDecision::Granted { starts_in, .. } => starts_in.as_secs_f64().round() as u64,
        other => panic!("{other:?}"),
    };
    assert_eq!((starts_in(&a).await, starts_in(&b).await, starts_in(&a).await), (0, 100, 200));
}

#[tokio::test]
async fn a_host_that_wants_quiet_gets_it_from_all() {
    let settings = RedisServer::shared().settings();
    let limits = Limits::new(&rules());
    let (a, b) = (hosts(&settings, "a", limits.clone()), hosts(&settings, "b", limits));
    let (first, second) = (go(&a, "x").await, go(&b, "x").await);
    let named = Feedback::RetryAfter(Some(Duration::from_secs(90)));
    assert_eq!(a.release("x", &first, named).await.unwrap().as_secs(), 90);
    assert_eq!(quiet(&b, "x").await, 90);
    // Told while it was under way: that is the same wait, and the longer one counts.
    b.release("x", &second, Feedback::RetryAfter(None)).await.unwrap();
    assert_eq!(quiet(&a, "x").await, 90);
    go(&a, "y").await;

    let key = format!("{}:host:{{z}}", settings.prefix);
    for expected in [5, 10, 20] {
        let lease = go(&a, "z").await;
        a.release("z", &lease, Feedback::RetryAfter(None)).await.unwrap();
        assert_eq!(quiet(&b, "z").await, expected, "unnamed waits grow");
        let _: u64 = tell(&settings, &["HSET", &key, "quiet_until", "0"]).await;
    }
    let lease = go(&b, "z").await;
    b.release("z", &lease, Feedback::Success).await.unwrap();
    let lease = go(&a, "z").await;
    a.release("z", &lease, Feedback::RetryAfter(None)).await.unwrap();
    assert_eq!(quiet(&b, "z").await, 5, "until the host is well again");
}

#[tokio::test]
async fn a_whole_process_learns_of_the_quiet_that_another_was_asked_for() {
    let settings = RedisServer::shared().settings();
    let polite = |name| HostLimits::new(&rules()).with_limiter(hosts(&settings, name, Limits::new(&rules())));
    let (a, b) = (polite("a"), polite("b"));
    let Admission::Granted(permit) = a.admit("x").await else { panic!("nobody is there") };
    permit.on_retry_after(Some(Duration::from_secs(90)));
    drop(permit);
    until("a quiet host", async || match b.admit("x").await {
        Admission::Deferred { reason, after } => reason == DeferReason::Quiet && after > Duration::from_secs(60),
        Admission::Granted(_) => false,
    })
    .await;
}

#[tokio::test]
async fn the_turn_of_a_process_that_died_comes_back() {
    let settings = RedisServer::shared().settings();
    let short = Limits { per_host: 1, longest_turn: Duration::from_millis(300), ..Limits::new(&rules()) };
    let (a, b) = (hosts(&settings, "a", short.clone()), hosts(&settings, "b", short));
    go(&a, "x").await;
    drop(a);
    until("a free host", async || !is_busy(&b, "x").await).await;
}

#[tokio::test]
async fn nothing_of_a_host_is_kept_for_ever() {
    let settings = RedisServer::shared().settings();
    let short = Duration::from_millis(200);
    let limits = Limits { longest_turn: short, sharing: short, memory: short, ..Limits::new(&rules()) };
    let hosts = hosts(&settings, "a", limits);
    let _died = go(&hosts, "x").await;
    let lease = go(&hosts, "y").await;
    hosts.release("y", &lease, Feedback::RetryAfter(Some(short))).await.unwrap();
    let pattern = format!("{}:*", settings.prefix);
    let keys = async || tell::<Vec<String>>(&settings, &["KEYS", &pattern]).await;
    assert!(!keys().await.is_empty());
    until("no keys", async || keys().await.is_empty()).await;
}

#[tokio::test]
async fn nobody_goes_while_nobody_can_be_asked() {
    let server = RedisServer::start(&[]);
    let settings = server.settings();
    let rules = Rules { queue_timeout: Duration::from_millis(50), ..rules() };
    let host_limits = HostLimits::new(&rules).with_limiter(hosts(&settings, "a", Limits::new(&rules)));
    assert!(matches!(host_limits.admit("x").await, Admission::Granted(_)));
    server.kill();
    assert!(matches!(
        host_limits.admit("y").await,
        Admission::Deferred { reason: DeferReason::LimiterUnavailable, .. }
    ));
}

#[tokio::test]
async fn a_paused_host_is_left_alone_the_longer_the_longer_it_is_paused() {
    let settings = RedisServer::shared().settings();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let paused = BTreeMap::from([("new".into(), now), ("old".into(), now - 60), ("older".into(), now - 5000)]);
    let (_sender, paused) = watch::channel(paused);
    let hosts = Hosts::new(connect(&settings), "a".into(), Limits::new(&rules()), paused);
    let host_limits = HostLimits::new(&rules()).with_limiter(Arc::new(hosts));
    for (host, least, most) in [("new", 5, 30), ("old", 30, 60), ("older", 600, 600)] {
        let Admission::Deferred { reason: DeferReason::Paused, after } = host_limits.admit(host).await else {
            panic!("{host} is paused")
        };
        assert!((least..=most).contains(&after.as_secs()), "{host}: {after:?}");
    }
    assert!(matches!(host_limits.admit("other").await, Admission::Granted(_)));
}

#[tokio::test]
async fn pauses_reach_everybody_whatever_happens_to_the_server() {
    let mut server = RedisServer::start(&[]);
    let settings = server.settings();
    let redis = connect(&settings);
    let fetch = [Subject::Stage(StageName::Fetch)];
    Pauses::add(&redis, &fetch).await.unwrap();
    let watch = Watch::begin(connect(&settings)).await.unwrap();
    let (mut stage, mut hosts) = (watch.stage(StageName::Fetch), watch.hosts());
    assert!(*stage.borrow_and_update(), "who starts later knows too");
    tokio::spawn(watch.keep());

    let becomes = async |stage: &mut watch::Receiver<bool>, paused: bool| {
        tokio::time::timeout(PATIENCE, stage.wait_for(|now| *now == paused)).await.unwrap().unwrap();
    };
    Pauses::remove(&redis, &fetch).await.unwrap();
    becomes(&mut stage, false).await;
    let host = Subject::Host("Photos.Example".parse().unwrap());
    Pauses::add(&redis, std::slice::from_ref(&host)).await.unwrap();
    tokio::time::timeout(PATIENCE, hosts.wait_for(|hosts| hosts.contains_key("photos.example")))
        .await
        .unwrap()
        .unwrap();

    let before = Pauses::read(&redis).await.unwrap();
    Pauses::add(&redis, &[host]).await.unwrap();
    assert_eq!(Pauses::read(&redis).await.unwrap(), before, "it keeps its time");

    server.kill();
    server.restart();
    until("a server that is back", async || Pauses::add(&redis, &fetch).await.is_ok()).await;
    becomes(&mut stage, true).await;
    assert!(hosts.borrow().contains_key("photos.example"), "nothing is forgotten");
}

#[tokio::test]
async fn workers_are_seen_until_they_leave_or_fall_silent() {
    let settings = RedisServer::shared().settings();
    let redis = connect(&settings);
    let report = |name: &str, done| Report {
        name: name.into(),
        version: "1".into(),
        stages: vec![StageName::Fetch],
        since: 5,
        in_flight: 2,
        done,
    };
    let workers = Workers::new(&redis);
    assert_eq!(workers.seen().await.unwrap(), []);
    for worker in [report("b", 1), report("a", 1), report("b", 7)] {
        workers.report(&worker).await.unwrap();
    }
    let seen: Vec<Report> = workers.seen().await.unwrap().into_iter().map(|seen| seen.report).collect();
    assert_eq!(seen, [report("a", 1), report("b", 7)]);
    workers.leave("a").await.unwrap();
    assert_eq!(workers.seen().await.unwrap().len(), 1);

    let forgetful = Workers::with_memory(&redis, Duration::from_millis(200));
    forgetful.report(&report("c", 1)).await.unwrap();
    until("silence", async || forgetful.seen().await.unwrap().is_empty()).await;
    let pattern = format!("{}:*", settings.prefix);
    until("no keys", async || tell::<Vec<String>>(&settings, &["KEYS", &pattern]).await.is_empty()).await;
}
