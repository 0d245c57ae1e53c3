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
//! What stands above is one process's. Where several fetch, whoever has a slot here asks for one of all processes'
//! [`Turns`] besides, and gives it back with the slot. So a process never has more turns than slots, and a heap for one
//! host is turned away here, without a word to anybody. While the turns are all taken, one asks for the whole process,
//! the less often the more processes share the host; as many fewer photos does each of them call back. When nobody can
//! be asked, nobody goes.
//!
//! A person may pause a host: then nobody goes either, and comes back after half as long as the pause has lasted, so that
//! a short pause costs little time and a long one little work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::rules::Rules;
use super::turns::{Answer, FIRST_WAIT, LONGEST_WAIT, Reception, Ticket, Turns};

/// So many hosts are remembered; above it, those that nobody is talking to are forgotten.
const REMEMBERED: usize = 20_000;
/// Coming back sooner is not worth the way.
const SHORTEST_ABSENCE: Duration = Duration::from_secs(1);
/// Nor is staying away for longer, when the host is only busy.
const LONGEST_ABSENCE: Duration = Duration::from_secs(120);
/// What a request takes until we know better.
const USUAL_VISIT: Duration = Duration::from_millis(300);
/// Between two questions for a turn.
const ASKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// How long a photo of a paused host stays away.
const PAUSED_ABSENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// The same where nobody can be asked for a turn.
const AWAY_ABSENCE: Duration = Duration::from_secs(10);
/// How often a process tries to give a turn back; after that it comes back by itself.
const GIVING_BACK: u32 = 5;

/// The manners of one process towards all hosts. Cheap to share.
pub struct Politeness {
    limits: Limits,
    hosts: Mutex<HashMap<Box<str>, Arc<Host>>>,
    /// None: no other process fetches.
    turns: Option<Arc<dyn Turns>>,
}

#[derive(Clone, Copy)]
struct Limits {
    per_host: usize,
    spacing: Duration,
    patience: Duration,
}

struct Host {
    name: Box<str>,
    slots: Arc<Semaphore>,
    /// Places in the line for a slot.
    line: Semaphore,
    /// Who holds it asks for a turn, for the whole process.
    asking: tokio::sync::Mutex<()>,
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
    /// Times in a row that it wanted quiet.
    waits: u32,
    /// Processes that ask for it, this one included.
    sharers: u32,
}

/// Leave to ask a host, or not.
pub enum Entry {
    Go(Visit),
    Later { after: Duration, why: Why },
}

/// Why not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The host has as many requests as it gets.
    Busy,
    /// It wants none for a while.
    Quiet,
    /// A person has paused it.
    Paused,
    /// Nobody can tell whether other processes leave room.
    Away,
}

/// One request's stay with a host. Ends when it is dropped.
pub struct Visit {
    host: Arc<Host>,
    /// None: it has yet to begin.
    began: Option<Instant>,
    reception: Mutex<Reception>,
    slot: Option<OwnedSemaphorePermit>,
    turn: Option<(Arc<dyn Turns>, Ticket)>,
}

impl Politeness {
    pub fn new(rules: &Rules) -> Self {
        let limits = Limits { per_host: rules.per_host.max(1), spacing: rules.spacing, patience: rules.patience };
        Self { limits, hosts: Mutex::default(), turns: None }
    }

    /// Keeps to the turns of all processes, too.
    pub fn with_turns(self, turns: Arc<dyn Turns>) -> Self {
        Self { turns: Some(turns), ..self }
    }

    /// Waits for the host's turn, for a short while.
    pub async fn enter(&self, name: &str) -> Entry {
        if let Some(time) = self.turns.as_ref().and_then(|turns| turns.paused_for(name)) {
            return Entry::Later { after: (time / 2).clamp(PAUSED_ABSENCE.0, PAUSED_ABSENCE.1), why: Why::Paused };
        }
        let host = self.host(name);
        if let Some(later) = self.quiet(&host) {
            return later;
        }
        let Some(slot) = self.slot(&host).await else { return self.later(&host, Why::Busy) };
        let start = self.start(&host);
        sleep_until(start).await;
        // While this one stood in line, another may have been told to wait.
        if let Some(later) = self.quiet(&host) {
            return later;
        }
        let mut visit = Visit { host, began: None, reception: Mutex::default(), slot: Some(slot), turn: None };
        if let Some(turns) = &self.turns {
            match self.turn(&visit.host, turns).await {
                Ok((ticket, starts_in)) => {
                    visit.turn = Some((turns.clone(), ticket));
                    sleep(starts_in).await;
                }
                Err(later) => return later,
            }
        }
        visit.began = Some(Instant::now());
        Entry::Go(visit)
    }

    /// A turn among all processes, and when it begins.
    async fn turn(&self, host: &Host, turns: &Arc<dyn Turns>) -> Result<(Ticket, Duration), Entry> {
        let deadline = Instant::now() + self.limits.patience;
        let Ok(_asking) = timeout_at(deadline, host.asking.lock()).await else {
            return Err(self.later(host, Why::Busy));
        };
        loop {
            let why = match turns.ask(&host.name).await {
                Ok(Answer::Go { ticket, starts_in, sharers }) => {
                    host.diary().sharers = sharers;
                    return Ok((ticket, starts_in));
                }
                Ok(Answer::Quiet { left, sharers }) => {
                    host.diary().sharers = sharers;
                    host.keep_quiet(left);
                    return Err(self.later(host, Why::Quiet));
                }
                Ok(Answer::Busy { sharers }) => {
                    host.diary().sharers = sharers;
                    Why::Busy
                }
                Err(error) => {
                    tracing::debug!(host = &*host.name, %error, "nobody can be asked for a turn");
                    Why::Away
                }
            };
            let again = self.pace(&host.diary()).clamp(ASKS.0, ASKS.1);
            if Instant::now() + again > deadline {
                return Err(self.later(host, why));
            }
            sleep(again).await;
        }
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
        quiet.then(|| self.later(host, Why::Quiet))
    }

    /// From one request of this process to the next, where all that share the host get as much of it.
    fn pace(&self, diary: &Diary) -> Duration {
        (diary.usual / self.limits.per_host as u32).max(self.limits.spacing) * diary.sharers.max(1)
    }

    /// Deals out the next time to come back.
    fn later(&self, host: &Host, why: Why) -> Entry {
        if why == Why::Away {
            return Entry::Later { after: AWAY_ABSENCE, why };
        }
        let now = Instant::now();
        let mut diary = host.diary();
        let pace = self.pace(&diary);
        let soonest = diary.quiet_until.max(now + SHORTEST_ABSENCE);
        diary.next_return = (diary.next_return + pace).clamp(soonest, soonest + LONGEST_ABSENCE);
        Entry::Later { after: diary.next_return - now, why }
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = lock(&self.hosts);
        if let Some(host) = hosts.get(name) {
            return Arc::clone(host);
        }
        if hosts.len() >= REMEMBERED {
            forget(&mut hosts);
        }
        let host = Arc::new(Host::new(name, self.limits.per_host));
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
    fn new(name: &str, per_host: usize) -> Self {
        let now = Instant::now();
        let (quiet_until, next_start, next_return) = (now, now, now);
        let diary = Diary { quiet_until, next_start, next_return, usual: USUAL_VISIT, waits: 0, sharers: 1 };
        Self {
            name: name.into(),
            slots: Arc::new(Semaphore::new(per_host)),
            line: Semaphore::new(per_host),
            asking: tokio::sync::Mutex::default(),
            diary: Mutex::new(diary),
        }
    }

    /// The host wants quiet for that long at least.
    fn keep_quiet(&self, left: Duration) {
        let mut diary = self.diary();
        diary.quiet_until = diary.quiet_until.max(Instant::now() + left);
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
        *lock(&self.reception) = Reception::Wait(after);
        let now = Instant::now();
        let mut diary = self.host.diary();
        // Requests that were under way together are told so together: that is one wait.
        if diary.quiet_until <= now {
            diary.waits = diary.waits.saturating_add(1);
        }
        let growing = FIRST_WAIT.saturating_mul(1 << (diary.waits.saturating_sub(1)).min(12));
        let pause = after.unwrap_or(growing).min(LONGEST_WAIT);
        diary.quiet_until = diary.quiet_until.max(now + pause);
        diary.quiet_until - now
    }

    /// The host answered like one that has time.
    pub fn was_welcome(&self) {
        *lock(&self.reception) = Reception::Welcome;
        self.host.diary().waits = 0;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(began) = self.began {
            let mut diary = self.host.diary();
            diary.usual = (diary.usual * 4 + began.elapsed()) / 5;
        }
        // The slot stays taken meanwhile: who waits for it would be told that there is no turn.
        let (turn, slot, reception) = (self.turn.take(), self.slot.take(), *lock(&self.reception));
        if let (Some((turns, ticket)), Ok(runtime)) = (turn, Handle::try_current()) {
            runtime.spawn(give_back(turns, ticket, self.host.clone(), reception, slot));
        }
    }
}

/// Gives a turn back, and the slot after it. If that cannot be, the turn ends by itself.
async fn give_back(
    turns: Arc<dyn Turns>,
    ticket: Ticket,
    host: Arc<Host>,
    reception: Reception,
    _slot: Option<OwnedSemaphorePermit>,
) {
    for _ in 0..GIVING_BACK {
        match turns.over(&host.name, &ticket, reception).await {
            Ok(left) => return host.keep_quiet(left),
            Err(error) => tracing::debug!(host = &*host.name, %error, "a turn is not given back yet"),
        }
        sleep(Duration::from_secs(1)).await;
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
        assert!(matches!(waiting.await, Entry::Later { why: Why::Quiet, .. }), "the line is sent away too");
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
        assert_eq!(visit.told_to_wait(None), FIRST_WAIT);
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
