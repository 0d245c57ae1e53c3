//! What is known and planned for one host: its slots, its queue, its quiet period and the photos that were deferred.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::host_limiter::{FIRST_WAIT, LONGEST_WAIT};
use super::host_rules::Pace;

/// The assumed duration of a request until one was measured.
const INITIAL_REQUEST_TIME: Duration = Duration::from_millis(200);

/// A host, as this process sees it.
pub struct Host {
    pub name: Box<str>,
    pub pace: Pace,
    /// One for each request at the same time.
    pub slots: Arc<Semaphore>,
    /// Its holder requests a lease on behalf of the whole process.
    pub leasing: tokio::sync::Mutex<()>,
    state: Mutex<HostState>,
}

/// What is known and planned for a host. Times in the past have no effect.
pub struct HostState {
    /// The end of the quiet period.
    pub quiet_until: Instant,
    /// The earliest start of the next request.
    next_start: Instant,
    /// When a slot was last taken.
    pub slot_taken: Instant,
    /// Requests that are running.
    running: usize,
    /// Photos in the queue.
    pub queued: usize,
    pub deferred: DeferredPhotos,
    /// How long a request takes, smoothed.
    request_time: Duration,
    /// Quiet periods in a row that the host asked for.
    quiet_periods: u32,
    /// Processes that request this host, this one included.
    pub processes: u32,
}

/// The photos that this process has deferred and that are not back yet.
pub struct DeferredPhotos {
    since: Instant,
    /// How many come back, by whole seconds after `since`.
    due: BTreeMap<u64, usize>,
}

/// A photo's place in the queue of a host, until it is dropped.
pub struct QueuePlace<'a>(&'a Host);

impl Host {
    pub fn new(name: &str, pace: Pace) -> Self {
        let now = Instant::now();
        let state = HostState {
            quiet_until: now,
            next_start: now,
            slot_taken: now,
            running: 0,
            queued: 0,
            deferred: DeferredPhotos::new(now),
            request_time: INITIAL_REQUEST_TIME,
            quiet_periods: 0,
            processes: 1,
        };
        Self {
            name: name.into(),
            pace,
            slots: Arc::new(Semaphore::new(pace.per_host)),
            leasing: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
        }
    }

    /// The time from one request of this process to the next, where all processes get an equal share of the host.
    pub fn usual_pace(&self, state: &HostState) -> Duration {
        self.pace_at(state.request_time * state.processes.max(1), state)
    }

    /// The usual pace, corrected for a host that does not respond: if all slots are taken and none was freed for longer
    /// than a request usually takes, requests take at least that long.
    pub fn current_pace(&self, state: &HostState) -> Duration {
        let stalled = state.running > 0 && self.slots.available_permits() == 0;
        let since = if stalled { state.slot_taken.elapsed() } else { Duration::ZERO };
        self.usual_pace(state).max(self.pace_at(since, state))
    }

    fn pace_at(&self, request_time: Duration, state: &HostState) -> Duration {
        (request_time / self.pace.per_host as u32).max(self.pace.spacing * state.processes.max(1))
    }

    /// Extends the quiet period to at least `left` from now.
    pub fn extend_quiet(&self, left: Duration) {
        let mut state = self.state();
        state.quiet_until = state.quiet_until.max(Instant::now() + left);
    }

    /// A place in the queue, unless `capacity` photos are in it.
    pub fn enqueue(&self, capacity: usize) -> Option<QueuePlace<'_>> {
        let mut state = self.state();
        (state.queued < capacity).then(|| {
            state.queued += 1;
            QueuePlace(self)
        })
    }

    /// Reserves the next start of a request.
    pub fn next_start(&self) -> Instant {
        let mut state = self.state();
        let start = state.next_start.max(Instant::now());
        state.next_start = start + self.pace.spacing;
        start
    }

    /// A request starts.
    pub fn on_start(&self) {
        self.state().running += 1;
    }

    /// A request that began at `started` has ended.
    pub fn on_end(&self, started: Instant) {
        let mut state = self.state();
        state.running -= 1;
        state.request_time = (state.request_time * 4 + started.elapsed()) / 5;
    }

    /// The host has served a request.
    pub fn on_success(&self) {
        self.state().quiet_periods = 0;
    }

    /// The host asks for a quiet period: of the given duration, or of one that doubles each time in a row. Returns how
    /// long the quiet period lasts.
    pub fn on_retry_after(&self, after: Option<Duration>) -> Duration {
        let now = Instant::now();
        let mut state = self.state();
        // Requests that ran at the same time get the same answer: that is one quiet period.
        if state.quiet_until <= now {
            state.quiet_periods = state.quiet_periods.saturating_add(1);
        }
        let growing = FIRST_WAIT.saturating_mul(1 << (state.quiet_periods.saturating_sub(1)).min(12));
        let quiet = after.unwrap_or(growing).min(LONGEST_WAIT);
        state.quiet_until = state.quiet_until.max(now + quiet);
        state.quiet_until - now
    }

    pub fn state(&self) -> MutexGuard<'_, HostState> {
        // A panic leaves no state half written here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostState {
    /// Whether dropping the state would lose something that still counts.
    pub fn is_in_use(&mut self, now: Instant) -> bool {
        self.quiet_until > now || self.next_start > now || self.deferred.is_any(now)
    }
}

impl DeferredPhotos {
    fn new(since: Instant) -> Self {
        Self { since, due: BTreeMap::new() }
    }

    pub fn add(&mut self, due: Instant) {
        *self.due.entry((due - self.since).as_secs()).or_default() += 1;
    }

    /// How long the host is busy without a gap, if it is for `busy_for` without the deferred photos. `pace`: from one
    /// request to the next.
    pub fn extend_busy_time(&mut self, now: Instant, mut busy_for: Duration, pace: Duration) -> Duration {
        self.drop_past(now);
        let now = now - self.since;
        for (second, photos) in &self.due {
            if Duration::from_secs(*second).saturating_sub(now) > busy_for {
                break;
            }
            busy_for = busy_for.saturating_add(times(pace, *photos));
        }
        busy_for
    }

    fn is_any(&mut self, now: Instant) -> bool {
        self.drop_past(now);
        !self.due.is_empty()
    }

    /// Removes the photos that are back.
    fn drop_past(&mut self, now: Instant) {
        let second = (now - self.since).as_secs();
        while self.due.first_entry().filter(|due| *due.key() <= second).map(|due| due.remove()).is_some() {}
    }
}

/// The time of so many requests.
pub fn times(pace: Duration, photos: usize) -> Duration {
    pace.saturating_mul(u32::try_from(photos).unwrap_or(u32::MAX))
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        self.0.state().queued -= 1;
    }
}
