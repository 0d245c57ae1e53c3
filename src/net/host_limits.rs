//! Manners towards hosts: few requests at once, not too close together, none while a host asks for a pause.
//!
//! # The busiest host
//!
//! Most collections come from a few hosts; a hundred thousand photos of one may lie before everybody else's. They
//! must not fill the workers, and yet the host must never be without a request that it could serve. So a host has its
//! slots, and a line before them, in memory: who waits there needs no connection and keeps nobody else from asking, as
//! a process is given several times as many photos as it asks for at once ([`Rules::in_hand`]). The line is as long as
//! what the host serves in half of the patience that a photo has, at its usual pace. That is a little longer than the
//! shortest time for which anybody is sent away: who is turned away at the end of a full line is back before the line is
//! through. No host may have more than half of a process's photos in its line.
//!
//! A host that hangs gives no slots. The longer it has given none, the slower it is taken to be and the shorter is its
//! line, until there is but one place for each slot; who stood in the line longer than patience lasts is sent away.
//!
//! How long somebody is sent away for depends on the others: it is the longest of [`ABSENCES`] for which the host has
//! enough to do with those that are in line and those that come back one after the other. He may thus be sent away
//! again, but the host does not wait for him. These times are those of the broker's delay queues: others would be rounded
//! up, and leave the host idle. What takes an hour to serve is handled some thirty times, which is cheap.
//!
//! # Many processes
//!
//! What stands above is one process's. Where several fetch, whoever has a slot here asks for one of all processes'
//! [`HostLimiter`] besides, and gives it back with the slot. So a process never has more turns than slots, and a heap for one
//! host is turned away here, without a word to anybody. While the turns are all taken, one asks for the whole process,
//! the less often the more processes share the host; as much shorter is each of their lines. When nobody can be asked,
//! nobody goes.
//!
//! A person may pause a host: then nobody goes either, and comes back after half as long as the pause has lasted, so that
//! a short pause costs little time and a long one little work.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::host_limiter::{Answer, FIRST_WAIT, Feedback, HostLimiter, LONGEST_WAIT, Lease};
use super::rules::Rules;

/// So many hosts are remembered; above it, those that nobody is talking to are forgotten.
const REMEMBERED: usize = 20_000;
/// For so long a photo is sent away while its host is busy: the shorter tiers of the broker's delay. Above the last, what
/// a host that is faster than we thought would lose grows more than what we save.
pub const ABSENCES: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120)];
/// Coming back sooner to a host that wants quiet is not worth the way.
const SHORTEST_QUIET: Duration = Duration::from_secs(1);
/// What a request takes until we know better.
const USUAL_REQUEST: Duration = Duration::from_millis(200);
/// Between two questions for a turn.
const ASKS: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(500));
/// How long a photo of a paused host stays away.
const PAUSED_ABSENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// The same where nobody can be asked for a turn.
const AWAY_ABSENCE: Duration = Duration::from_secs(10);
/// How often a process tries to give a turn back; after that it comes back by itself.
const GIVING_BACK: u32 = 5;

/// The manners of one process towards all hosts. Cheap to share.
pub struct HostLimits {
    limits: Limits,
    hosts: Mutex<HashMap<Box<str>, Arc<Host>>>,
    /// A permit for every request that may be under way.
    requests: Arc<Semaphore>,
    /// None: no other process fetches.
    turns: Option<Arc<dyn HostLimiter>>,
}

#[derive(Clone, Copy)]
struct Limits {
    per_host: usize,
    spacing: Duration,
    patience: Duration,
    longest_line: usize,
}

struct Host {
    name: Box<str>,
    slots: Arc<Semaphore>,
    /// Who holds it asks for a turn, for the whole process.
    asking: tokio::sync::Mutex<()>,
    state: Mutex<HostState>,
}

/// What is known and promised about a host. Times in the past mean nothing.
struct HostState {
    /// No request before.
    quiet_until: Instant,
    /// The next request starts then at the earliest.
    next_start: Instant,
    /// When a slot was last given.
    moved: Instant,
    /// Requests that are being made.
    under_way: usize,
    /// Photos that wait for a slot.
    in_line: usize,
    away: Away,
    /// How long a request takes, smoothed.
    usual: Duration,
    /// Times in a row that it wanted quiet.
    waits: u32,
    /// Processes that ask for it, this one included.
    sharers: u32,
}

/// Photos that are sent away and not back yet, as far as this process has sent them.
struct Away {
    since: Instant,
    /// By the second since then in which they come back.
    back: BTreeMap<u64, usize>,
}

/// A place in a host's line, until it is dropped.
struct Place<'a>(&'a Host);

/// Leave to ask a host, or not.
pub enum Entry {
    Go(Permit),
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
    /// NullObserver can tell whether other processes leave room.
    Away,
}

/// One request's stay with a host. Ends when it is dropped.
pub struct Permit {
    host: Arc<Host>,
    /// None: it has yet to begin.
    began: Option<Instant>,
    feedback: Mutex<Feedback>,
    slot: Option<OwnedSemaphorePermit>,
    turn: Option<(Arc<dyn HostLimiter>, Lease)>,
    /// One of the requests to all hosts.
    _request: OwnedSemaphorePermit,
}

impl HostLimits {
    pub fn new(rules: &Rules) -> Self {
        let at_once = rules.at_once.clamp(1, Semaphore::MAX_PERMITS);
        let limits = Limits {
            per_host: rules.per_host.clamp(1, at_once),
            spacing: rules.spacing,
            patience: rules.patience,
            longest_line: rules.in_hand() / 2,
        };
        Self { limits, hosts: Mutex::default(), requests: Arc::new(Semaphore::new(at_once)), turns: None }
    }

    /// Keeps to the turns of all processes, too.
    pub fn with_limiter(self, turns: Arc<dyn HostLimiter>) -> Self {
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
        let deadline = Instant::now() + self.limits.patience;
        let Some(slot) = self.slot(&host, deadline).await else { return self.later(&host, Why::Busy) };
        let Ok(Ok(request)) = timeout_at(deadline, Arc::clone(&self.requests).acquire_owned()).await else {
            return self.later(&host, Why::Busy);
        };
        let start = self.start(&host);
        sleep_until(start).await;
        // While this one stood in line, another may have been told to wait.
        if let Some(later) = self.quiet(&host) {
            return later;
        }
        let feedback = Mutex::default();
        let mut permit = Permit { host, began: None, feedback, slot: Some(slot), turn: None, _request: request };
        if let Some(turns) = &self.turns {
            match self.turn(&permit.host, turns, deadline).await {
                Ok((lease, starts_in)) => {
                    permit.turn = Some((turns.clone(), lease));
                    sleep(starts_in).await;
                }
                Err(later) => return later,
            }
        }
        permit.began = Some(Instant::now());
        permit.host.state().under_way += 1;
        Entry::Go(permit)
    }

    /// A turn among all processes, and when it begins.
    async fn turn(
        &self,
        host: &Host,
        turns: &Arc<dyn HostLimiter>,
        deadline: Instant,
    ) -> Result<(Lease, Duration), Entry> {
        let Ok(_asking) = timeout_at(deadline, host.asking.lock()).await else {
            return Err(self.later(host, Why::Busy));
        };
        loop {
            let why = match turns.ask(&host.name).await {
                Ok(Answer::Go { lease, starts_in, sharers }) => {
                    host.state().sharers = sharers;
                    return Ok((lease, starts_in));
                }
                Ok(Answer::Quiet { left, sharers }) => {
                    host.state().sharers = sharers;
                    host.keep_quiet(left);
                    return Err(self.later(host, Why::Quiet));
                }
                Ok(Answer::Busy { sharers }) => {
                    host.state().sharers = sharers;
                    Why::Busy
                }
                Err(error) => {
                    tracing::debug!(host = &*host.name, %error, "nobody can be asked for a turn");
                    Why::Away
                }
            };
            let again = (self.usual_pace(&host.state()) / 2).clamp(ASKS.0, ASKS.1);
            if Instant::now() + again > deadline {
                return Err(self.later(host, why));
            }
            sleep(again).await;
        }
    }

    /// A slot, at once or after some time in the line.
    async fn slot(&self, host: &Host, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        let slot = match Arc::clone(&host.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => {
                let _place = self.place(host)?;
                timeout_at(deadline, Arc::clone(&host.slots).acquire_owned()).await.ok()?.ok()?
            }
        };
        host.state().moved = Instant::now();
        Some(slot)
    }

    /// A place in the line, unless it is full.
    fn place<'a>(&self, host: &'a Host) -> Option<Place<'a>> {
        let mut state = host.state();
        let served = (self.limits.patience / 2).div_duration_f64(self.pace(host, &state).max(Duration::from_nanos(1)));
        let most = (served as usize).min(self.limits.longest_line).max(self.limits.per_host);
        (state.in_line < most).then(|| {
            state.in_line += 1;
            Place(host)
        })
    }

    /// Takes the next free start.
    fn start(&self, host: &Host) -> Instant {
        let mut state = host.state();
        let start = state.next_start.max(Instant::now());
        state.next_start = start + self.limits.spacing;
        start
    }

    fn quiet(&self, host: &Host) -> Option<Entry> {
        let quiet = host.state().quiet_until > Instant::now();
        quiet.then(|| self.later(host, Why::Quiet))
    }

    /// From one request of this process to the next, where all that share the host get as much of it.
    fn usual_pace(&self, state: &HostState) -> Duration {
        self.pace_of(state.usual * state.sharers.max(1), state)
    }

    /// The same as it seems by now: where requests are being made and no slot was given for longer than one takes, they
    /// take that long.
    fn pace(&self, host: &Host, state: &HostState) -> Duration {
        let hangs = state.under_way > 0 && host.slots.available_permits() == 0;
        let permit = if hangs { state.moved.elapsed() } else { Duration::ZERO };
        self.usual_pace(state).max(self.pace_of(permit, state))
    }

    fn pace_of(&self, permit: Duration, state: &HostState) -> Duration {
        (permit / self.limits.per_host as u32).max(self.limits.spacing * state.sharers.max(1))
    }

    /// Sends a photo away, and counts it among those that are.
    fn later(&self, host: &Host, why: Why) -> Entry {
        if why == Why::Away {
            return Entry::Later { after: AWAY_ABSENCE, why };
        }
        let now = Instant::now();
        let mut state = host.state();
        let quiet = state.quiet_until.saturating_duration_since(now);
        // The others that share the host may have nothing more to ask it for.
        let pace = self.usual_pace(&state) / state.sharers.max(1);
        let from = quiet.saturating_add(times(pace, state.in_line));
        let has_enough_for = state.away.has_enough_for(now, from, pace);
        let soonest = if quiet.is_zero() { ABSENCES[0] } else { quiet.max(SHORTEST_QUIET) };
        let in_time = ABSENCES.into_iter().rfind(|absence| *absence <= has_enough_for).unwrap_or_default();
        let after = in_time.max(soonest);
        state.away.add(now + after);
        Entry::Later { after, why }
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
    hosts.retain(|_, host| Arc::strong_count(host) > 1 || host.state().is_open(now));
    if hosts.len() > REMEMBERED / 2 {
        hosts.retain(|_, host| Arc::strong_count(host) > 1);
    }
}

impl Host {
    fn new(name: &str, per_host: usize) -> Self {
        let now = Instant::now();
        let state = HostState {
            quiet_until: now,
            next_start: now,
            moved: now,
            under_way: 0,
            in_line: 0,
            away: Away::new(now),
            usual: USUAL_REQUEST,
            waits: 0,
            sharers: 1,
        };
        Self {
            name: name.into(),
            slots: Arc::new(Semaphore::new(per_host)),
            asking: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
        }
    }

    /// The host wants quiet for that long at least.
    fn keep_quiet(&self, left: Duration) {
        let mut state = self.state();
        state.quiet_until = state.quiet_until.max(Instant::now() + left);
    }

    fn state(&self) -> MutexGuard<'_, HostState> {
        lock(&self.state)
    }
}

impl HostState {
    fn is_open(&mut self, now: Instant) -> bool {
        self.quiet_until > now || self.next_start > now || self.away.is_any(now)
    }
}

impl Away {
    fn new(since: Instant) -> Self {
        Self { since, back: BTreeMap::new() }
    }

    fn add(&mut self, back: Instant) {
        *self.back.entry((back - self.since).as_secs()).or_default() += 1;
    }

    /// For how long the host has something to do without a gap, if it has for `busy_for` anyway.
    fn has_enough_for(&mut self, now: Instant, mut busy_for: Duration, pace: Duration) -> Duration {
        self.welcome(now);
        let now = now - self.since;
        for (second, photos) in &self.back {
            if Duration::from_secs(*second).saturating_sub(now) > busy_for {
                break;
            }
            busy_for = busy_for.saturating_add(times(pace, *photos));
        }
        busy_for
    }

    /// Whether anybody is away.
    fn is_any(&mut self, now: Instant) -> bool {
        self.welcome(now);
        !self.back.is_empty()
    }

    /// Forgets who is back.
    fn welcome(&mut self, now: Instant) {
        let second = (now - self.since).as_secs();
        while self.back.first_entry().filter(|back| *back.key() <= second).map(|back| back.remove()).is_some() {}
    }
}

fn times(pace: Duration, photos: usize) -> Duration {
    pace.saturating_mul(u32::try_from(photos).unwrap_or(u32::MAX))
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.state().in_line -= 1;
    }
}

impl Permit {
    /// The host wants no requests for a while: a time it named, or one that grows while it keeps saying so.
    /// Answers how long.
    pub fn on_retry_after(&self, after: Option<Duration>) -> Duration {
        *lock(&self.feedback) = Feedback::RetryAfter(after);
        let now = Instant::now();
        let mut state = self.host.state();
        // Requests that were under way together are told so together: that is one wait.
        if state.quiet_until <= now {
            state.waits = state.waits.saturating_add(1);
        }
        let growing = FIRST_WAIT.saturating_mul(1 << (state.waits.saturating_sub(1)).min(12));
        let pause = after.unwrap_or(growing).min(LONGEST_WAIT);
        state.quiet_until = state.quiet_until.max(now + pause);
        state.quiet_until - now
    }

    /// The host answered like one that has time.
    pub fn on_success(&self) {
        *lock(&self.feedback) = Feedback::Success;
        self.host.state().waits = 0;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(began) = self.began {
            let mut state = self.host.state();
            state.under_way -= 1;
            state.usual = (state.usual * 4 + began.elapsed()) / 5;
        }
        // The slot stays taken meanwhile: who waits for it would be told that there is no turn.
        let (turn, slot, feedback) = (self.turn.take(), self.slot.take(), *lock(&self.feedback));
        if let (Some((turns, lease)), Ok(runtime)) = (turn, Handle::try_current()) {
            runtime.spawn(give_back(turns, lease, self.host.clone(), feedback, slot));
        }
    }
}

/// Gives a turn back, and the slot after it. If that cannot be, the turn ends by itself.
async fn give_back(
    turns: Arc<dyn HostLimiter>,
    lease: Lease,
    host: Arc<Host>,
    feedback: Feedback,
    _slot: Option<OwnedSemaphorePermit>,
) {
    for _ in 0..GIVING_BACK {
        match turns.over(&host.name, &lease, feedback).await {
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
    use std::collections::VecDeque;
    use std::pin::Pin;

    use futures::stream::FuturesUnordered;
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn host_limits(per_host: usize, spacing: u64, patience: u64) -> HostLimits {
        HostLimits::new(&Rules {
            per_host,
            spacing: Duration::from_millis(spacing),
            patience: Duration::from_millis(patience),
            ..Rules::default()
        })
    }

    async fn go(host_limits: &HostLimits, host: &str) -> Permit {
        match host_limits.enter(host).await {
            Entry::Go(permit) => permit,
            Entry::Later { after, .. } => panic!("{host} has no time for {after:?}"),
        }
    }

    async fn later(host_limits: &HostLimits, host: &str) -> Duration {
        match host_limits.enter(host).await {
            Entry::Later { after, .. } => after,
            Entry::Go(_) => panic!("{host} should have no time"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_falls_free_goes_to_the_line() {
        let host_limits = host_limits(1, 0, 1000);
        let first = go(&host_limits, "a").await;
        let mut second = std::pin::pin!(host_limits.enter("a"));
        assert!(second.as_mut().now_or_never().is_none(), "it waits");
        drop(go(&host_limits, "b").await);
        drop(first);
        assert!(matches!(second.await, Entry::Go(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let host_limits = host_limits(1, 0, 1000);
        let _busy = go(&host_limits, "a").await;
        let begin = Instant::now();
        assert_eq!(later(&host_limits, "a").await, ABSENCES[0]);
        assert_eq!(begin.elapsed(), Duration::from_millis(1000));
    }

    /// Fills the host's line; answers how many stand in it, and keeps them there.
    fn fill<'a>(host_limits: &'a HostLimits, host: &'a str) -> Vec<Pin<Box<dyn Future<Output = Entry> + 'a>>> {
        let mut line: Vec<Pin<Box<dyn Future<Output = Entry>>>> = Vec::new();
        loop {
            let mut next = Box::pin(host_limits.enter(host));
            if next.as_mut().now_or_never().is_some() {
                return line;
            }
            line.push(next);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_as_long_as_what_the_host_serves_in_half_of_the_patience() {
        let host_limits = host_limits(2, 50, 8000);
        let _busy = (go(&host_limits, "a").await, go(&host_limits, "a").await);
        assert_eq!(fill(&host_limits, "a").len(), 40, "two at a time, of 200 ms each");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_host_has_a_short_line() {
        let host_limits = host_limits(2, 0, 8000);
        for _ in 0..30 {
            let _both = (go(&host_limits, "a").await, go(&host_limits, "a").await);
            sleep(Duration::from_secs(1)).await;
        }
        let _busy = (go(&host_limits, "a").await, go(&host_limits, "a").await);
        assert_eq!(fill(&host_limits, "a").len(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_hangs_loses_its_line() {
        let host_limits = host_limits(2, 0, 8000);
        let _busy = (go(&host_limits, "a").await, go(&host_limits, "a").await);
        for (seconds, places) in [(1, 8), (1, 4), (2, 2), (26, 2)] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(fill(&host_limits, "a").len(), places, "{seconds} s later");
        }
        let free = go(&host_limits, "b").await;
        drop(free);
        assert_eq!(fill(&host_limits, "b").len(), 0, "where a slot is free nobody stands in line");
    }

    #[tokio::test(start_paused = true)]
    async fn no_host_has_all_places() {
        let rules = Rules { at_once: 3, per_host: 1, ..Rules::default() };
        let host_limits = HostLimits::new(&rules);
        let _busy = go(&host_limits, "a").await;
        assert_eq!(fill(&host_limits, "a").len(), rules.in_hand() / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_together_get_no_more_than_a_process_can_take() {
        let host_limits =
            HostLimits::new(&Rules { at_once: 3, per_host: 2, spacing: Duration::ZERO, ..Rules::default() });
        let first = go(&host_limits, "a").await;
        let _busy = (go(&host_limits, "b").await, go(&host_limits, "c").await);
        let mut fourth = std::pin::pin!(host_limits.enter("d"));
        assert!(fourth.as_mut().now_or_never().is_none());
        drop(first);
        assert!(matches!(fourth.await, Entry::Go(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_sent_away_for_longer_than_the_host_has_enough_to_do() {
        let host_limits = host_limits(2, 50, 12_000);
        let _busy = (go(&host_limits, "a").await, go(&host_limits, "a").await);
        let line = fill(&host_limits, "a");
        let begin = Instant::now();
        let mut absences = BTreeMap::new();
        for _ in 0..2000 {
            *absences.entry(later(&host_limits, "a").await).or_insert(0) += 1;
        }
        assert_eq!(begin.elapsed(), Duration::ZERO, "nobody is kept");
        // At 100 ms each: those in line for six seconds, then those who come back after five.
        let [short, middle, long] = ABSENCES.map(|absence| absences[&absence]);
        assert_eq!((line.len(), short + middle + long), (60, 2000));
        assert!((235..=240).contains(&short), "{short}: with the line they last for 30 s");
        assert!((895..=900).contains(&middle), "{middle}: with all before them they last for 120 s");
    }

    /// As workers do it: the photos of a queue, named by their hosts, so many in hand, and those that are sent away lie in
    /// the broker's delay queues. Answers when the last photo of each host was served, and how often one was sent away.
    async fn serve(
        host_limits: &HostLimits,
        in_hand: usize,
        queue: impl IntoIterator<Item = &'static str>,
        permit: impl Fn(&str) -> Duration,
    ) -> (BTreeMap<&'static str, Duration>, usize) {
        const TIERS: [u64; 5] = [5, 30, 120, 600, 3600];
        let begin = Instant::now();
        let mut queue: VecDeque<_> = queue.into_iter().collect();
        let (mut at_work, mut delayed) = (FuturesUnordered::new(), FuturesUnordered::new());
        let (mut served, mut sent_away) = (BTreeMap::new(), 0);
        loop {
            while at_work.len() < in_hand && !queue.is_empty() {
                let host = queue.pop_front().unwrap();
                let permit = permit(host);
                at_work.push(async move {
                    match host_limits.enter(host).await {
                        Entry::Go(_there) => {
                            sleep(permit).await;
                            (host, None)
                        }
                        Entry::Later { after, .. } => (host, Some(after)),
                    }
                });
            }
            tokio::select! {
                biased;
                Some((host, after)) = at_work.next() => match after {
                    None => drop(served.insert(host, begin.elapsed())),
                    Some(after) => {
                        sent_away += 1;
                        let tier = TIERS.map(Duration::from_secs).into_iter().find(|tier| *tier >= after).unwrap();
                        delayed.push(async move {
                            sleep(tier).await;
                            host
                        });
                    }
                },
                Some(host) = delayed.next() => queue.push_back(host),
                else => return (served, sent_away),
            }
        }
    }

    /// So many photos of two hosts that answer within 50 ms: host_limits alone lets through one in 50 ms of each.
    async fn serve_two_hosts(photos: u32) -> usize {
        let rules = Rules::default();
        let host_limits = HostLimits::new(&rules);
        let queue = ["a", "b"].repeat(photos as usize / 2);
        let (served, sent_away) = serve(&host_limits, rules.in_hand(), queue, |_| Duration::from_millis(50)).await;
        let polite = rules.spacing * (photos / 2);
        for took in served.into_values() {
            assert!(took < polite * 11 / 10, "{took:?} instead of {polite:?}");
        }
        sent_away
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_do_not_wait_while_photos_of_theirs_do() {
        assert!(serve_two_hosts(300).await <= 300 / 4);
        assert!(serve_two_hosts(3000).await <= 4 * 3000);
        assert!(serve_two_hosts(30_000).await <= 8 * 30_000);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_hosts_do_not_wait_either() {
        let host_limits = host_limits(4, 50, 12_000);
        let (served, _) = serve(&host_limits, 512, vec!["slow"; 1000], |_| Duration::from_secs(2)).await;
        assert!(served["slow"] < Duration::from_secs(550), "{served:?} where 500 s are polite");
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_that_hang_do_not_hold_up_another() {
        let rules = Rules::default();
        let host_limits = HostLimits::new(&rules);
        let hang = ["x", "y", "z"].repeat(300);
        let permit = |host: &str| if host == "well" { Duration::from_millis(50) } else { rules.first_byte };
        let queue = hang.into_iter().chain(vec!["well"; 300]);
        let (served, _) = serve(&host_limits, rules.in_hand(), queue, permit).await;
        assert!(served["well"] < rules.spacing * 300 * 11 / 10, "{served:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_heap_of_one_host_does_not_hold_up_another() {
        let rules = Rules::default();
        let host_limits = HostLimits::new(&rules);
        let queue = vec!["heap"; 5000].into_iter().chain(vec!["other"; 300]);
        let (served, _) = serve(&host_limits, rules.in_hand(), queue, |_| Duration::from_millis(50)).await;
        assert!(served["other"] < rules.spacing * 300 * 11 / 10, "{served:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_keep_their_distance() {
        let host_limits = host_limits(4, 100, 1000);
        let begin = Instant::now();
        let _first = go(&host_limits, "a").await;
        let _second = go(&host_limits, "a").await;
        let _third = go(&host_limits, "a").await;
        assert_eq!(begin.elapsed(), Duration::from_millis(200));
        go(&host_limits, "b").await;
        assert_eq!(begin.elapsed(), Duration::from_millis(200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_wants_quiet_gets_it_from_everybody() {
        let host_limits = host_limits(1, 0, 60_000);
        let permit = go(&host_limits, "a").await;
        let mut waiting = std::pin::pin!(host_limits.enter("a"));
        assert!(waiting.as_mut().now_or_never().is_none());
        permit.on_retry_after(Some(Duration::from_secs(30)));
        drop(permit);
        assert!(matches!(waiting.await, Entry::Later { why: Why::Quiet, .. }), "the line is sent away too");
        assert!(later(&host_limits, "a").await >= Duration::from_secs(30));
        go(&host_limits, "b").await;
        tokio::time::advance(Duration::from_secs(30)).await;
        go(&host_limits, "a").await;
    }

    #[tokio::test(start_paused = true)]
    async fn unnamed_pauses_grow_until_the_host_is_well_again() {
        let host_limits = host_limits(2, 0, 0);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let permit = go(&host_limits, "a").await;
            let pause = permit.on_retry_after(None);
            assert_eq!(permit.on_retry_after(None), pause, "said twice at once, it is one pause");
            pauses.push(pause.as_secs());
            tokio::time::advance(pause).await;
        }
        assert_eq!(pauses[..4], [5, 10, 20, 40]);
        assert_eq!(pauses[11], 3600);
        let permit = go(&host_limits, "a").await;
        permit.on_success();
        assert_eq!(permit.on_retry_after(None), FIRST_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let host_limits = host_limits(1, 0, 0);
        let kept = go(&host_limits, "kept").await;
        for n in 0..3 * REMEMBERED {
            let permit = go(&host_limits, &format!("host-{n}")).await;
            permit.on_retry_after(Some(LONGEST_WAIT));
        }
        assert!(lock(&host_limits.hosts).len() <= REMEMBERED);
        assert!(later(&host_limits, "kept").await > Duration::ZERO, "who is being asked is not forgotten");
        drop(kept);
    }
}
