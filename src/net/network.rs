//! Detects an outage of the local network, so that photos do not use up attempts during one.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// The network counts as down after this many different hosts in a row are unreachable.
const MIN_HOSTS: usize = 3;
/// After this long an outage no longer counts, so that a run ends at some point.
const MAX_OUTAGE: Duration = Duration::from_secs(12 * 3600);
/// How many hosts are remembered.
const MAX_HOSTS: usize = 10_000;

/// Watches the results of the requests to all hosts.
#[derive(Default)]
pub(super) struct NetworkMonitor {
    state: Mutex<NetworkState>,
    recovered: Notify,
}

#[derive(Default)]
struct NetworkState {
    /// Unreachable hosts since the last answer of any host, without `dead`.
    unreachable: HashSet<String>,
    /// When the first of `unreachable` was added.
    since: Option<Instant>,
    /// Hosts that were unreachable while others answered. They say nothing about the local network. An old collection
    /// has many of them, and at the end of a run only they are left.
    dead: HashSet<String>,
}

impl NetworkState {
    fn is_down(&self) -> bool {
        self.unreachable.len() >= MIN_HOSTS && self.since.is_some_and(|since| since.elapsed() < MAX_OUTAGE)
    }
}

impl NetworkMonitor {
    /// Returns at once while the network is up; otherwise when it is up again, or after `limit`.
    pub(super) async fn wait_until_up(&self, limit: Duration) {
        let recovered = self.recovered.notified();
        if self.state().is_down() {
            let _ = timeout(limit, recovered).await;
        }
    }

    /// Notes that a host, or a name server asked about it, has answered.
    pub(super) fn on_answer(&self, host: &str) {
        let mut state = self.state();
        let state = &mut *state;
        if state.is_down() {
            tracing::info!(host, "the network is up again");
            self.recovered.notify_waiters();
        }
        state.since = None;
        state.dead.remove(host);
        if state.dead.len() + state.unreachable.len() > MAX_HOSTS {
            state.dead.clear();
        }
        state.dead.extend(state.unreachable.drain().filter(|unreachable| unreachable != host));
    }

    /// Notes that a host is unreachable. Returns whether the local network is the likely reason.
    pub(super) fn on_unreachable(&self, host: &str) -> bool {
        let mut state = self.state();
        if state.dead.contains(host) {
            return false;
        }
        let was_down = state.is_down();
        state.since.get_or_insert_with(Instant::now);
        if state.unreachable.len() < MAX_HOSTS {
            state.unreachable.insert(host.to_owned());
        }
        let is_down = state.is_down();
        if is_down && !was_down {
            tracing::warn!("no host is reachable: is the local network down? photos wait until a host answers");
        }
        is_down
    }

    fn state(&self) -> MutexGuard<'_, NetworkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_unreachable_hosts_in_a_row_are_an_outage() {
        let network = NetworkMonitor::default();
        assert_eq!(
            ["a", "a", "b", "b", "c"].map(|host| network.on_unreachable(host)),
            [false, false, false, false, true]
        );
        assert!(network.on_unreachable("a"), "the first host too");
        network.on_answer("d");
        assert_eq!(["x", "y"].map(|host| network.on_unreachable(host)), [false, false]);
        network.on_answer("d");
        assert_eq!(["v", "w"].map(|host| network.on_unreachable(host)), [false, false], "a host answered in between");
    }

    #[test]
    fn dead_hosts_are_no_outage() {
        let network = NetworkMonitor::default();
        ["a", "b", "c", "d"].iter().for_each(|host| _ = network.on_unreachable(host));
        network.on_answer("e");
        assert!(!["a", "b", "c", "d", "a", "b"].iter().any(|host| network.on_unreachable(host)));
        // A host that has answered counts again.
        ["a", "b", "c"].iter().for_each(|host| network.on_answer(host));
        assert_eq!(["d", "a", "b", "c"].map(|host| network.on_unreachable(host)), [false, false, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn photos_wait_while_the_network_is_down() {
        let (network, limit) = (NetworkMonitor::default(), Duration::from_secs(10));
        let began = Instant::now();
        network.wait_until_up(limit).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        ["a", "b", "c"].iter().for_each(|host| _ = network.on_unreachable(host));
        network.wait_until_up(limit).await;
        assert_eq!(began.elapsed(), limit);
        tokio::join!(network.wait_until_up(limit), async { network.on_answer("d") });
        assert_eq!(began.elapsed(), limit, "the wait ends with the first answer");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_has_a_maximum_length() {
        let network = NetworkMonitor::default();
        assert_eq!(["a", "b", "c"].map(|host| network.on_unreachable(host)), [false, false, true]);
        tokio::time::advance(MAX_OUTAGE).await;
        assert!(!network.on_unreachable("a"));
    }
}
