//! Limits the requests to each host: how many at the same time, how close together, and none during a quiet period.
//!
//! # Queueing
//!
//! Most collections come from a few hosts, and 100,000 photos of one host may be in a row. They must not block the
//! photos of other hosts, and the host must not be idle while photos wait for it.
//!
//! Each host has `per_host` slots, one for each request; single hosts may have another number
//! ([`host_rules`](super::host_rules)). A photo without a slot waits in the host's queue in memory. It needs no
//! connection and blocks no other host, because a process prefetches several photos for each request
//! ([`Rules::prefetch`]). A photo that cannot enter the queue, or waits in it for longer than `queue_timeout`, is
//! *deferred*: it goes back to the broker with a delay.
//!
//! The queue holds as many photos as the host serves in half of `queue_timeout` at its usual pace. That takes a little
//! longer than the shortest deferral, so a deferred photo is back before the queue is empty. One host's queue holds at
//! most half of the photos that a process prefetches, or all if they take it less than a second.
//!
//! A host that does not respond frees no slots. The longer this lasts, the lower the estimate of its pace, and the
//! shorter its queue: down to one photo for each slot.
//!
//! # Deferrals
//!
//! A deferral is one of [`DEFERRALS`], the delays of the broker's delay queues; another delay would be rounded up and
//! leave the host idle. The longest one is taken for which the host has enough work: the photos in its queue, and the
//! deferred photos that come back in time. A photo may be deferred several times. With an hour of work for one host, a
//! photo is delivered about thirty times, which is cheap.
//!
//! # Several processes
//!
//! All of this applies to one process. Where several processes fetch, a photo with a slot also needs a lease of the
//! shared [`HostLimiter`], and returns it before the slot. So a process holds at most as many leases as slots, and the
//! photos that exceed them cause no calls. While all leases are in use, one photo of the process asks again at
//! intervals; the more processes share the host, the longer the intervals and the shorter each queue. While the limiter
//! is unavailable, no request starts.
//!
//! An operator can pause a host. Its photos are deferred for half of the time that the pause has lasted: a short pause
//! delays them little, and a long pause causes few deliveries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::host::{Host, QueuePlace, times};
use super::host_limiter::{Feedback, HostLimiter, Lease, LeaseDecision};
use super::host_rules::Paces;
use super::rules::Rules;
use crate::retry::TIERS;

/// How many hosts are remembered. Above it, hosts without requests are dropped.
const MAX_HOSTS: usize = 20_000;
/// How long a photo of a busy host is deferred: the shorter delays of the broker. With longer ones, a host that is
/// faster than estimated would be idle for too long.
pub const DEFERRALS: [Duration; 3] = [TIERS[0], TIERS[1], TIERS[2]];
/// A host that serves all photos of a process within this time may take all places: others wait for no longer.
const SHORT: Duration = Duration::from_secs(1);
/// The shortest deferral during a quiet period: a shorter one is not worth the delivery.
const MIN_QUIET_DEFERRAL: Duration = Duration::from_secs(1);
/// The least and the longest time between two requests for a lease.
const LEASE_POLL: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(500));
/// The shortest and the longest deferral of a photo whose host is paused.
const PAUSED_DEFERRAL: (Duration, Duration) = (TIERS[0], TIERS[3]);
/// The deferral while the limiter is unavailable.
const UNAVAILABLE_DEFERRAL: Duration = Duration::from_secs(10);
/// How often a process tries to return a lease. After that the lease expires.
const RELEASE_ATTEMPTS: u32 = 5;

/// The limits of one process for all hosts. Cheap to share.
pub struct HostLimits {
    settings: HostLimitSettings,
    hosts: Mutex<HashMap<Box<str>, Arc<Host>>>,
    /// A permit for each request that may run at the same time, to all hosts together.
    requests: Arc<Semaphore>,
    /// None: no other process fetches.
    limiter: Option<Arc<dyn HostLimiter>>,
}

struct HostLimitSettings {
    paces: Paces,
    queue_timeout: Duration,
    max_requests: usize,
    /// Photos that the process is given at the same time.
    prefetch: usize,
}

/// Whether a request may start.
pub enum Admission {
    Granted(Permit),
    Deferred { after: Duration, reason: DeferReason },
}

/// Why a photo is deferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeferReason {
    /// The host has as many requests as it may have.
    Busy,
    /// The host has asked for a quiet period.
    Quiet,
    /// An operator has paused the host.
    Paused,
    /// The shared host limiter is unavailable.
    LimiterUnavailable,
}

/// Permits one request to a host at a time, redirects within the host included. Dropping it frees slot and lease.
pub struct Permit {
    host: Arc<Host>,
    /// None: the request has not started.
    started: Option<Instant>,
    feedback: Mutex<Feedback>,
    slot: Option<OwnedSemaphorePermit>,
    lease: Option<(Arc<dyn HostLimiter>, Lease)>,
    /// One of the requests to all hosts.
    _request: OwnedSemaphorePermit,
}

impl HostLimits {
    pub fn new(rules: &Rules) -> Self {
        let max_requests = rules.max_requests.clamp(1, Semaphore::MAX_PERMITS);
        let settings = HostLimitSettings {
            paces: rules.paces(),
            queue_timeout: rules.queue_timeout,
            max_requests,
            prefetch: rules.prefetch(),
        };
        Self { settings, hosts: Mutex::default(), requests: Arc::new(Semaphore::new(max_requests)), limiter: None }
    }

    /// Also applies the limits that all processes share.
    pub fn with_limiter(self, limiter: Arc<dyn HostLimiter>) -> Self {
        Self { limiter: Some(limiter), ..self }
    }

    /// Waits until a request to the host may start, for `queue_timeout` at most.
    pub async fn admit(&self, name: &str) -> Admission {
        if let Some(paused) = self.limiter.as_ref().and_then(|limiter| limiter.paused_for(name)) {
            let after = (paused / 2).clamp(PAUSED_DEFERRAL.0, PAUSED_DEFERRAL.1);
            return Admission::Deferred { after, reason: DeferReason::Paused };
        }
        let host = self.host(name);
        if let Some(deferred) = self.defer_if_quiet(&host) {
            return deferred;
        }
        let deadline = Instant::now() + self.settings.queue_timeout;
        let Some(slot) = self.slot(&host, deadline).await else { return self.defer(&host, DeferReason::Busy) };
        let Ok(Ok(request)) = timeout_at(deadline, Arc::clone(&self.requests).acquire_owned()).await else {
            return self.defer(&host, DeferReason::Busy);
        };
        sleep_until(host.next_start()).await;
        // A quiet period may have begun while this photo was in the queue.
        if let Some(deferred) = self.defer_if_quiet(&host) {
            return deferred;
        }
        let feedback = Mutex::default();
        let mut permit = Permit { host, started: None, feedback, slot: Some(slot), lease: None, _request: request };
        if let Some(limiter) = &self.limiter {
            match self.lease(&permit.host, limiter, deadline).await {
                Ok((lease, starts_in)) => {
                    permit.lease = Some((limiter.clone(), lease));
                    sleep(starts_in).await;
                }
                Err(deferred) => return deferred,
            }
        }
        permit.started = Some(Instant::now());
        permit.host.on_start();
        Admission::Granted(permit)
    }

    /// A lease of the shared limiter, and in how long it begins.
    async fn lease(
        &self,
        host: &Host,
        limiter: &Arc<dyn HostLimiter>,
        deadline: Instant,
    ) -> Result<(Lease, Duration), Admission> {
        let Ok(_leasing) = timeout_at(deadline, host.leasing.lock()).await else {
            return Err(self.defer(host, DeferReason::Busy));
        };
        loop {
            let reason = match limiter.acquire(&host.name).await {
                Ok(LeaseDecision::Granted { lease, starts_in, processes }) => {
                    host.state().processes = processes;
                    return Ok((lease, starts_in));
                }
                Ok(LeaseDecision::Quiet { left, processes }) => {
                    host.state().processes = processes;
                    host.extend_quiet(left);
                    return Err(self.defer(host, DeferReason::Quiet));
                }
                Ok(LeaseDecision::Busy { processes }) => {
                    host.state().processes = processes;
                    DeferReason::Busy
                }
                Err(error) => {
                    tracing::debug!(host = &*host.name, %error, "the host limiter is unavailable");
                    DeferReason::LimiterUnavailable
                }
            };
            let interval = (host.usual_pace(&host.state()) / 2).clamp(LEASE_POLL.0, LEASE_POLL.1);
            if Instant::now() + interval > deadline {
                return Err(self.defer(host, reason));
            }
            sleep(interval).await;
        }
    }

    /// A slot, if necessary after a wait in the queue.
    async fn slot(&self, host: &Host, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        let slot = match Arc::clone(&host.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => {
                let _place = self.enqueue(host)?;
                timeout_at(deadline, Arc::clone(&host.slots).acquire_owned()).await.ok()?.ok()?
            }
        };
        host.state().slot_taken = Instant::now();
        Some(slot)
    }

    /// A place in the queue, unless it is full.
    fn enqueue<'a>(&self, host: &'a Host) -> Option<QueuePlace<'a>> {
        let pace = host.current_pace(&host.state()).max(Duration::from_nanos(1));
        let served = (self.settings.queue_timeout / 2).div_duration_f64(pace) as usize;
        let prefetch = self.settings.prefetch;
        let most = if times(pace, prefetch) <= SHORT { prefetch } else { prefetch / 2 };
        host.enqueue(served.min(most).max(host.pace.per_host))
    }

    fn defer_if_quiet(&self, host: &Host) -> Option<Admission> {
        let quiet = host.state().quiet_until > Instant::now();
        quiet.then(|| self.defer(host, DeferReason::Quiet))
    }

    /// Defers a photo, and counts it among the deferred photos of its host.
    fn defer(&self, host: &Host, reason: DeferReason) -> Admission {
        if reason == DeferReason::LimiterUnavailable {
            return Admission::Deferred { after: UNAVAILABLE_DEFERRAL, reason };
        }
        let now = Instant::now();
        let mut state = host.state();
        let quiet = state.quiet_until.saturating_duration_since(now);
        // The other processes may have no more photos of the host: count with its full pace.
        let pace = host.usual_pace(&state) / state.processes.max(1);
        let busy_for = quiet.saturating_add(times(pace, state.queued));
        let busy_for = state.deferred.extend_busy_time(now, busy_for, pace);
        let shortest = if quiet.is_zero() { DEFERRALS[0] } else { quiet.max(MIN_QUIET_DEFERRAL) };
        let longest = DEFERRALS.into_iter().rfind(|deferral| *deferral <= busy_for).unwrap_or_default();
        let after = longest.max(shortest);
        state.deferred.add(now + after);
        Admission::Deferred { after, reason }
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = lock(&self.hosts);
        if let Some(host) = hosts.get(name) {
            return Arc::clone(host);
        }
        if hosts.len() >= MAX_HOSTS {
            evict(&mut hosts);
        }
        let mut pace = self.settings.paces.of(name);
        pace.per_host = pace.per_host.clamp(1, self.settings.max_requests);
        let host = Arc::new(Host::new(name, pace));
        hosts.insert(name.into(), Arc::clone(&host));
        host
    }
}

/// Drops the hosts that are in no use. If that is not enough, drops all hosts without a request; the number of requests
/// limits what is left.
fn evict(hosts: &mut HashMap<Box<str>, Arc<Host>>) {
    let now = Instant::now();
    hosts.retain(|_, host| Arc::strong_count(host) > 1 || host.state().is_in_use(now));
    if hosts.len() > MAX_HOSTS / 2 {
        hosts.retain(|_, host| Arc::strong_count(host) > 1);
    }
}

impl Permit {
    /// The host has asked for a quiet period: of the given duration, or of one that doubles each time in a row.
    /// Returns how long the quiet period lasts.
    pub fn on_retry_after(&self, after: Option<Duration>) -> Duration {
        *lock(&self.feedback) = Feedback::RetryAfter(after);
        self.host.on_retry_after(after)
    }

    /// The host has served the request.
    pub fn on_success(&self) {
        *lock(&self.feedback) = Feedback::Success;
        self.host.on_success();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(started) = self.started {
            self.host.on_end(started);
        }
        // The slot is freed after the lease: the next photo would get no lease before.
        let (lease, slot, feedback) = (self.lease.take(), self.slot.take(), *lock(&self.feedback));
        if let (Some((limiter, lease)), Ok(runtime)) = (lease, Handle::try_current()) {
            runtime.spawn(release(limiter, lease, self.host.clone(), feedback, slot));
        }
    }
}

/// Returns a lease, and frees the slot afterwards. A lease that cannot be returned expires.
async fn release(
    limiter: Arc<dyn HostLimiter>,
    lease: Lease,
    host: Arc<Host>,
    feedback: Feedback,
    _slot: Option<OwnedSemaphorePermit>,
) {
    for _ in 0..RELEASE_ATTEMPTS {
        match limiter.release(&host.name, &lease, feedback).await {
            Ok(left) => return host.extend_quiet(left),
            Err(error) => tracing::debug!(host = &*host.name, %error, "cannot return a lease yet"),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// A panic leaves nothing half written here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};
    use std::pin::Pin;

    use futures::stream::FuturesUnordered;
    use futures::{FutureExt, StreamExt};

    use super::super::host_limiter::{FIRST_WAIT, LONGEST_WAIT};
    use super::super::host_rules::HostRules;
    use super::*;

    fn host_limits(per_host: usize, spacing: u64, queue_timeout: u64) -> HostLimits {
        HostLimits::new(&Rules {
            per_host,
            spacing: Duration::from_millis(spacing),
            queue_timeout: Duration::from_millis(queue_timeout),
            ..Rules::default()
        })
    }

    async fn admitted(host_limits: &HostLimits, host: &str) -> Permit {
        match host_limits.admit(host).await {
            Admission::Granted(permit) => permit,
            Admission::Deferred { after, .. } => panic!("{host}: deferred for {after:?}"),
        }
    }

    async fn deferred(host_limits: &HostLimits, host: &str) -> Duration {
        match host_limits.admit(host).await {
            Admission::Deferred { after, .. } => after,
            Admission::Granted(_) => panic!("{host} is not deferred"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_slot_goes_to_the_queue() {
        let host_limits = host_limits(1, 0, 1000);
        let first = admitted(&host_limits, "a").await;
        let mut second = std::pin::pin!(host_limits.admit("a"));
        assert!(second.as_mut().now_or_never().is_none(), "it is in the queue");
        drop(admitted(&host_limits, "b").await);
        drop(first);
        assert!(matches!(second.await, Admission::Granted(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_photo_is_deferred_after_the_queue_timeout() {
        let host_limits = host_limits(1, 0, 1000);
        let _busy = admitted(&host_limits, "a").await;
        let begin = Instant::now();
        assert_eq!(deferred(&host_limits, "a").await, DEFERRALS[0]);
        assert_eq!(begin.elapsed(), Duration::from_millis(1000));
    }

    /// Fills the queue of a host and keeps the photos in it.
    fn fill<'a>(host_limits: &'a HostLimits, host: &'a str) -> Vec<Pin<Box<dyn Future<Output = Admission> + 'a>>> {
        let mut queue: Vec<Pin<Box<dyn Future<Output = Admission>>>> = Vec::new();
        loop {
            let mut next = Box::pin(host_limits.admit(host));
            if next.as_mut().now_or_never().is_some() {
                return queue;
            }
            queue.push(next);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_holds_what_the_host_serves_in_half_of_the_timeout() {
        let host_limits = host_limits(2, 50, 8000);
        let _busy = (admitted(&host_limits, "a").await, admitted(&host_limits, "a").await);
        assert_eq!(fill(&host_limits, "a").len(), 40, "two at the same time, 200 ms each");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_host_has_a_short_queue() {
        let host_limits = host_limits(2, 0, 8000);
        for _ in 0..30 {
            let _both = (admitted(&host_limits, "a").await, admitted(&host_limits, "a").await);
            sleep(Duration::from_secs(1)).await;
        }
        let _busy = (admitted(&host_limits, "a").await, admitted(&host_limits, "a").await);
        assert_eq!(fill(&host_limits, "a").len(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_does_not_respond_loses_its_queue() {
        let host_limits = host_limits(2, 0, 8000);
        let _busy = (admitted(&host_limits, "a").await, admitted(&host_limits, "a").await);
        for (seconds, places) in [(1, 8), (1, 4), (2, 2), (26, 2)] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(fill(&host_limits, "a").len(), places, "{seconds} s later");
        }
        let free = admitted(&host_limits, "b").await;
        drop(free);
        assert_eq!(fill(&host_limits, "b").len(), 0, "with a free slot the queue is empty");
    }

    #[tokio::test(start_paused = true)]
    async fn one_host_cannot_take_all_places() {
        let rules = Rules { max_requests: 3, per_host: 1, ..Rules::default() };
        let host_limits = HostLimits::new(&rules);
        let _busy = admitted(&host_limits, "a").await;
        assert_eq!(fill(&host_limits, "a").len(), rules.prefetch() / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_with_rules_of_its_own_keeps_them_and_others_do_not() {
        let mut rules = Rules { max_requests: 16, per_host: 1, spacing: Duration::from_secs(1), ..Rules::default() };
        let own = HostRules { per_host: Some(100), spacing: Some(Duration::ZERO), ..HostRules::default() };
        rules.host_rules.insert("*.own.example".to_owned(), own);
        let host_limits = HostLimits::new(&rules);
        let begin = Instant::now();
        // Its requests take no time, which is measured.
        for _ in 0..10 {
            drop(admitted(&host_limits, "a.own.example").await);
        }
        let mut busy = Vec::new();
        for _ in 0..16 {
            busy.push(admitted(&host_limits, "a.own.example").await);
        }
        assert_eq!(begin.elapsed(), Duration::ZERO);
        assert_eq!(fill(&host_limits, "a.own.example").len(), rules.prefetch(), "it is fast: it may take all places");
        busy.clear();
        drop(admitted(&host_limits, "b").await);
        let _second = admitted(&host_limits, "b").await;
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
        assert!(host_limits.admit("b").now_or_never().is_none(), "one request at a time");
    }

    #[tokio::test(start_paused = true)]
    async fn all_hosts_together_get_no_more_than_max_requests() {
        let host_limits =
            HostLimits::new(&Rules { max_requests: 3, per_host: 2, spacing: Duration::ZERO, ..Rules::default() });
        let first = admitted(&host_limits, "a").await;
        let _busy = (admitted(&host_limits, "b").await, admitted(&host_limits, "c").await);
        let mut fourth = std::pin::pin!(host_limits.admit("d"));
        assert!(fourth.as_mut().now_or_never().is_none());
        drop(first);
        assert!(matches!(fourth.await, Admission::Granted(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn no_deferral_is_longer_than_the_host_is_busy() {
        let host_limits = host_limits(2, 50, 12_000);
        let _busy = (admitted(&host_limits, "a").await, admitted(&host_limits, "a").await);
        let queue = fill(&host_limits, "a");
        let begin = Instant::now();
        let mut deferrals = BTreeMap::new();
        for _ in 0..2000 {
            *deferrals.entry(deferred(&host_limits, "a").await).or_insert(0) += 1;
        }
        assert_eq!(begin.elapsed(), Duration::ZERO, "no call waits");
        // At 100 ms each, the queue lasts for 6 s. Photos that are deferred for 5 s are back before.
        let [short, middle, long] = DEFERRALS.map(|deferral| deferrals[&deferral]);
        assert_eq!((queue.len(), short + middle + long), (60, 2000));
        assert!((235..=240).contains(&short), "{short}: with the queue they last for 30 s");
        assert!((895..=900).contains(&middle), "{middle}: with all the others they last for 120 s");
    }

    /// Simulates a worker: it takes photos, each named by its host, from a queue, at most `prefetch` at the same time.
    /// Deferred photos pass a delay queue of the broker. `request` returns how long a request to a host takes. Returns
    /// when the last photo of each host was served, and the number of deferrals.
    async fn serve(
        host_limits: &HostLimits,
        prefetch: usize,
        queue: impl IntoIterator<Item = &'static str>,
        request: impl Fn(&str) -> Duration,
    ) -> (BTreeMap<&'static str, Duration>, usize) {
        let begin = Instant::now();
        let mut queue: VecDeque<_> = queue.into_iter().collect();
        let (mut working, mut delayed) = (FuturesUnordered::new(), FuturesUnordered::new());
        let (mut served, mut deferrals) = (BTreeMap::new(), 0);
        loop {
            while working.len() < prefetch && !queue.is_empty() {
                let host = queue.pop_front().unwrap();
                let request = request(host);
                working.push(async move {
                    match host_limits.admit(host).await {
                        Admission::Granted(_permit) => {
                            sleep(request).await;
                            (host, None)
                        }
                        Admission::Deferred { after, .. } => (host, Some(after)),
                    }
                });
            }
            tokio::select! {
                biased;
                Some((host, after)) = working.next() => match after {
                    None => drop(served.insert(host, begin.elapsed())),
                    Some(after) => {
                        deferrals += 1;
                        let tier = crate::retry::tier_for(after);
                        delayed.push(async move {
                            sleep(tier).await;
                            host
                        });
                    }
                },
                Some(host) = delayed.next() => queue.push_back(host),
                else => return (served, deferrals),
            }
        }
    }

    /// Serves photos of two hosts that answer within 50 ms. The spacing of 50 ms is the only limit. Returns the number
    /// of deferrals.
    async fn serve_two_hosts(photos: u32) -> usize {
        let rules = Rules::default();
        let host_limits = HostLimits::new(&rules);
        let queue = ["a", "b"].repeat(photos as usize / 2);
        let (served, deferrals) = serve(&host_limits, rules.prefetch(), queue, |_| Duration::from_millis(50)).await;
        let expected = rules.spacing * (photos / 2);
        for took in served.into_values() {
            assert!(took < expected * 11 / 10, "{took:?} instead of {expected:?}");
        }
        deferrals
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_are_not_idle_while_photos_wait_for_them() {
        assert!(serve_two_hosts(300).await <= 300 / 4);
        assert!(serve_two_hosts(3000).await <= 4 * 3000);
        assert!(serve_two_hosts(30_000).await <= 8 * 30_000);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_hosts_are_not_idle_either() {
        let host_limits = host_limits(4, 50, 12_000);
        let (served, _) = serve(&host_limits, 512, vec!["slow"; 1000], |_| Duration::from_secs(2)).await;
        assert!(served["slow"] < Duration::from_secs(550), "{served:?} instead of 500 s");
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_that_do_not_respond_do_not_delay_another() {
        let rules = Rules::default();
        let host_limits = HostLimits::new(&rules);
        let stalled = ["x", "y", "z"].repeat(300);
        let request = |host: &str| if host == "healthy" { Duration::from_millis(50) } else { rules.first_byte };
        let queue = stalled.into_iter().chain(vec!["healthy"; 300]);
        let (served, _) = serve(&host_limits, rules.prefetch(), queue, request).await;
        assert!(served["healthy"] < rules.spacing * 300 * 11 / 10, "{served:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn many_photos_of_one_host_do_not_delay_another() {
        let rules = Rules::default();
        let host_limits = HostLimits::new(&rules);
        let queue = vec!["large"; 5000].into_iter().chain(vec!["other"; 300]);
        let (served, _) = serve(&host_limits, rules.prefetch(), queue, |_| Duration::from_millis(50)).await;
        assert!(served["other"] < rules.spacing * 300 * 11 / 10, "{served:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_to_a_host_are_spaced() {
        let host_limits = host_limits(4, 100, 1000);
        let begin = Instant::now();
        let _first = admitted(&host_limits, "a").await;
        let _second = admitted(&host_limits, "a").await;
        let _third = admitted(&host_limits, "a").await;
        assert_eq!(begin.elapsed(), Duration::from_millis(200));
        admitted(&host_limits, "b").await;
        assert_eq!(begin.elapsed(), Duration::from_millis(200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_period_holds_for_all_requests() {
        let host_limits = host_limits(1, 0, 60_000);
        let permit = admitted(&host_limits, "a").await;
        let mut waiting = std::pin::pin!(host_limits.admit("a"));
        assert!(waiting.as_mut().now_or_never().is_none());
        permit.on_retry_after(Some(Duration::from_secs(30)));
        drop(permit);
        assert!(
            matches!(waiting.await, Admission::Deferred { reason: DeferReason::Quiet, .. }),
            "queued photos are deferred too"
        );
        assert!(deferred(&host_limits, "a").await >= Duration::from_secs(30));
        admitted(&host_limits, "b").await;
        tokio::time::advance(Duration::from_secs(30)).await;
        admitted(&host_limits, "a").await;
    }

    #[tokio::test(start_paused = true)]
    async fn quiet_periods_without_a_duration_grow_until_a_success() {
        let host_limits = host_limits(2, 0, 0);
        let mut periods = Vec::new();
        for _ in 0..12 {
            let permit = admitted(&host_limits, "a").await;
            let period = permit.on_retry_after(None);
            assert_eq!(permit.on_retry_after(None), period, "two answers at the same time are one quiet period");
            periods.push(period.as_secs());
            tokio::time::advance(period).await;
        }
        assert_eq!(periods[..4], [5, 10, 20, 40]);
        assert_eq!(periods[11], 3600);
        let permit = admitted(&host_limits, "a").await;
        permit.on_success();
        assert_eq!(permit.on_retry_after(None), FIRST_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_hosts_is_bounded() {
        let host_limits = host_limits(1, 0, 0);
        let kept = admitted(&host_limits, "kept").await;
        for n in 0..3 * MAX_HOSTS {
            let permit = admitted(&host_limits, &format!("host-{n}")).await;
            permit.on_retry_after(Some(LONGEST_WAIT));
        }
        assert!(lock(&host_limits.hosts).len() <= MAX_HOSTS);
        assert!(deferred(&host_limits, "kept").await > Duration::ZERO, "a host with a request is kept");
        drop(kept);
    }
}
