//! Manners towards hosts: few requests at once, not too close together, none while a host asks for a pause.
//!
//! # The busiest host
//!
//! Most collections come from a few hosts; a hundred thousand photos of one may lie before everybody else's. They
//! must not fill the workers: so a host has its slots, a line as long as it has slots, so that a slot that falls
//! free is taken at once, and nobody waits beyond that. Who finds the line full is told when to come back, and
//! these times are dealt out one after the other at the pace at which the host has served so far. The first pass
//! over the heap thus costs microseconds a photo, the others behind it are served meanwhile, and the host's photos
//! come back about as fast as it can take them, instead of all at once. Nobody is sent away for more than two
//! minutes: a broker with few kinds of delay rounds up, and what comes back late leaves the host idle. So a heap that
//! takes an hour to serve is handled some thirty times, which is cheap.
//!
//! # Many processes
//!
//! The counting is per process: with N workers a host may see N times its slots. [`Politeness::enter`] is the only
//! way in, and all that a limiter for a whole cluster has to replace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use super::obstacle::LONGEST_WAIT;
use super::rules::Rules;

/// So many hosts are remembered; above it, those that nobody is talking to are forgotten.
const REMEMBERED: usize = 20_000;
/// A pause when the host wants one and names no time. It doubles each time in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Coming back sooner is not worth the way.
const SHORTEST_ABSENCE: Duration = Duration::from_secs(1);
/// Nor is staying away for longer, when the host is only busy.
const LONGEST_ABSENCE: Duration = Duration::from_secs(120);
/// What a request takes until we know better.
const USUAL_VISIT: Duration = Duration::from_millis(300);

/// The manners of one process towards all hosts. Cheap to share.
pub struct Politeness {
    limits: Limits,
    hosts: Mutex<HashMap<Box<str>, Arc<Host>>>,
}

#[derive(Clone, Copy)]
struct Limits {
    per_host: usize,
    spacing: Duration,
    patience: Duration,
}

struct Host {
    slots: Arc<Semaphore>,
    /// Places in the line for a slot.
    line: Semaphore,
    diary: Mutex<Diary>,
}

/// What is known and promised about a host. Times in the past mean nothing.
struct Diary {
    /// No request before.
    quiet_until: Instant,
    /// The next request starts then at the earliest.
    next_start: Instant,
    /// The next photo that is sent away comes back after this.
    next_return: Instant,
    /// How long a request takes, smoothed.
    usual: Duration,
    /// Pauses in a row.
    pauses: u32,
}

/// Leave to ask a host, or not.
pub enum Entry {
    Go(Visit),
    /// The host is busy or wants quiet.
    Later {
        after: Duration,
        quiet: bool,
    },
}

/// One request's stay with a host. Ends when it is dropped.
pub struct Visit {
    host: Arc<Host>,
    began: Instant,
    _slot: OwnedSemaphorePermit,
}

impl Politeness {
    pub fn new(rules: &Rules) -> Self {
        let limits = Limits { per_host: rules.per_host.max(1), spacing: rules.spacing, patience: rules.patience };
        Self { limits, hosts: Mutex::default() }
    }

    /// Waits for the host's turn, for a short while.
    pub async fn enter(&self, name: &str) -> Entry {
        let host = self.host(name);
        if let Some(later) = self.quiet(&host) {
            return later;
        }
        let Some(slot) = self.slot(&host).await else { return self.later(&host, false) };
        let start = self.start(&host);
        sleep_until(start).await;
        // While this one stood in line, another may have been told to wait.
        if let Some(later) = self.quiet(&host) {
            return later;
        }
        Entry::Go(Visit { host, began: Instant::now(), _slot: slot })
    }

    /// A slot, at once or after some time in the line.
    async fn slot(&self, host: &Host) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&host.slots).try_acquire_owned() {
            return Some(slot);
        }
        let _place = host.line.try_acquire().ok()?;
        timeout(self.limits.patience, Arc::clone(&host.slots).acquire_owned()).await.ok()?.ok()
    }

    /// Takes the next free start.
    fn start(&self, host: &Host) -> Instant {
        let mut diary = host.diary();
        let start = diary.next_start.max(Instant::now());
        diary.next_start = start + self.limits.spacing;
        start
    }

    fn quiet(&self, host: &Host) -> Option<Entry> {
        let quiet = host.diary().quiet_until > Instant::now();
        quiet.then(|| self.later(host, true))
    }

    /// Deals out the next time to come back.
    fn later(&self, host: &Host, quiet: bool) -> Entry {
        let now = Instant::now();
        let mut diary = host.diary();
        let pace = (diary.usual / self.limits.per_host as u32).max(self.limits.spacing);
        let soonest = diary.quiet_until.max(now + SHORTEST_ABSENCE);
        diary.next_return = (diary.next_return + pace).clamp(soonest, soonest + LONGEST_ABSENCE);
        Entry::Later { after: diary.next_return - now, quiet }
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = lock(&self.hosts);
        if let Some(host) = hosts.get(name) {
            return Arc::clone(host);
        }
        if hosts.len() >= REMEMBERED {
            forget(&mut hosts);
        }
        let host = Arc::new(Host::new(self.limits.per_host));
        hosts.insert(name.into(), Arc::clone(&host));
        host
    }
}

/// Forgets who has nothing coming; if that does not make room, everybody who is not being asked just now. What is
/// left is bounded by the requests under way.
fn forget(hosts: &mut HashMap<Box<str>, Arc<Host>>) {
    let now = Instant::now();
    hosts.retain(|_, host| Arc::strong_count(host) > 1 || host.diary().is_open(now));
    if hosts.len() > REMEMBERED / 2 {
        hosts.retain(|_, host| Arc::strong_count(host) > 1);
    }
}

impl Host {
    fn new(per_host: usize) -> Self {
        let now = Instant::now();
        let diary = Diary { quiet_until: now, next_start: now, next_return: now, usual: USUAL_VISIT, pauses: 0 };
        Self { slots: Arc::new(Semaphore::new(per_host)), line: Semaphore::new(per_host), diary: Mutex::new(diary) }
    }

    fn diary(&self) -> MutexGuard<'_, Diary> {
        lock(&self.diary)
    }
}

impl Diary {
    fn is_open(&self, now: Instant) -> bool {
        self.quiet_until > now || self.next_start > now || self.next_return > now
    }
}

impl Visit {
    /// The host wants no requests for a while: a time it named, or one that grows while it keeps saying so.
    /// Answers how long.
    pub fn told_to_wait(&self, after: Option<Duration>) -> Duration {
        let now = Instant::now();
        let mut diary = self.host.diary();
        // Requests that were under way together are told so together: that is one pause.
        if diary.quiet_until <= now {
            diary.pauses = diary.pauses.saturating_add(1);
        }
        let growing = FIRST_PAUSE.saturating_mul(1 << (diary.pauses.saturating_sub(1)).min(12));
        let pause = after.unwrap_or(growing).min(LONGEST_WAIT);
        diary.quiet_until = diary.quiet_until.max(now + pause);
        diary.quiet_until - now
    }

    /// The host answered like one that has time.
    pub fn was_welcome(&self) {
        self.host.diary().pauses = 0;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut diary = self.host.diary();
        diary.usual = (diary.usual * 4 + self.began.elapsed()) / 5;
    }
}

/// Nothing here can be left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn politeness(per_host: usize, spacing: u64, patience: u64) -> Politeness {
        Politeness::new(&Rules {
            per_host,
            spacing: Duration::from_millis(spacing),
            patience: Duration::from_millis(patience),
            ..Rules::default()
        })
    }

    async fn go(politeness: &Politeness, host: &str) -> Visit {
        match politeness.enter(host).await {
            Entry::Go(visit) => visit,
            Entry::Later { after, .. } => panic!("{host} has no time for {after:?}"),
        }
    }

    async fn later(politeness: &Politeness, host: &str) -> Duration {
        match politeness.enter(host).await {
            Entry::Later { after, .. } => after,
            Entry::Go(_) => panic!("{host} should have no time"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_falls_free_goes_to_the_line() {
        let politeness = politeness(1, 0, 1000);
        let first = go(&politeness, "a").await;
        let mut second = std::pin::pin!(politeness.enter("a"));
        assert!(second.as_mut().now_or_never().is_none(), "it waits");
        drop(go(&politeness, "b").await);
        drop(first);
        assert!(matches!(second.await, Entry::Go(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let politeness = politeness(1, 0, 1000);
        let _busy = go(&politeness, "a").await;
        let begin = Instant::now();
        assert!(later(&politeness, "a").await >= SHORTEST_ABSENCE);
        assert_eq!(begin.elapsed(), Duration::from_millis(1000));
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_the_line_full_is_spread_over_the_time_to_come() {
        let politeness = politeness(2, 0, 1000);
        let _busy = (go(&politeness, "a").await, go(&politeness, "a").await);
        let mut line = (std::pin::pin!(politeness.enter("a")), std::pin::pin!(politeness.enter("a")));
        assert!(line.0.as_mut().now_or_never().is_none());
        assert!(line.1.as_mut().now_or_never().is_none());

        let begin = Instant::now();
        let mut times = Vec::new();
        for _ in 0..700 {
            times.push(later(&politeness, "a").await);
        }
        assert_eq!(begin.elapsed(), Duration::ZERO, "nobody is kept");
        let pace = USUAL_VISIT / 2;
        assert!(times.windows(2).skip(10).all(|pair| pair[1] - pair[0] == pace), "at the host's pace");
        assert!(times[699] > pace * 690 && times[699] < pace * 710);
        for _ in 0..1000 {
            assert!(later(&politeness, "a").await <= SHORTEST_ABSENCE + LONGEST_ABSENCE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_keep_their_distance() {
        let politeness = politeness(4, 100, 1000);
        let begin = Instant::now();
        let _first = go(&politeness, "a").await;
        let _second = go(&politeness, "a").await;
        let _third = go(&politeness, "a").await;
        assert_eq!(begin.elapsed(), Duration::from_millis(200));
        go(&politeness, "b").await;
        assert_eq!(begin.elapsed(), Duration::from_millis(200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_wants_quiet_gets_it_from_everybody() {
        let politeness = politeness(1, 0, 60_000);
        let visit = go(&politeness, "a").await;
        let mut waiting = std::pin::pin!(politeness.enter("a"));
        assert!(waiting.as_mut().now_or_never().is_none());
        visit.told_to_wait(Some(Duration::from_secs(30)));
        drop(visit);
        assert!(matches!(waiting.await, Entry::Later { quiet: true, .. }), "the line is sent away too");
        assert!(later(&politeness, "a").await >= Duration::from_secs(30));
        go(&politeness, "b").await;
        tokio::time::advance(Duration::from_secs(30)).await;
        go(&politeness, "a").await;
    }

    #[tokio::test(start_paused = true)]
    async fn unnamed_pauses_grow_until_the_host_is_well_again() {
        let politeness = politeness(2, 0, 0);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let visit = go(&politeness, "a").await;
            let pause = visit.told_to_wait(None);
            assert_eq!(visit.told_to_wait(None), pause, "said twice at once, it is one pause");
            pauses.push(pause.as_secs());
            tokio::time::advance(pause).await;
        }
        assert_eq!(pauses[..4], [5, 10, 20, 40]);
        assert_eq!(pauses[11], 3600);
        let visit = go(&politeness, "a").await;
        visit.was_welcome();
        assert_eq!(visit.told_to_wait(None), FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let politeness = politeness(1, 0, 0);
        let kept = go(&politeness, "kept").await;
        for n in 0..3 * REMEMBERED {
            let visit = go(&politeness, &format!("host-{n}")).await;
            visit.told_to_wait(Some(LONGEST_WAIT));
        }
        assert!(lock(&politeness.hosts).len() <= REMEMBERED);
        assert!(later(&politeness, "kept").await > Duration::ZERO, "who is being asked is not forgotten");
        drop(kept);
    }
}
