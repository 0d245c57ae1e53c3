//! Whether anybody can be reached at all. While this machine's own network is away, no photo is to blame for it.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// So many hosts in a row that do not answer are no coincidence.
const HOSTS: usize = 3;
/// After that, photos pay for their attempts as usual: a run has to end some day.
const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// How many mute hosts are remembered.
const MANY: usize = 10_000;

/// What the answers and the silence of all hosts together say about the way to them.
#[derive(Default)]
pub(super) struct Reach {
    state: Mutex<State>,
    back: Notify,
}

#[derive(Default)]
struct State {
    /// Hosts that were asked in vain since anybody answered, but for the mute ones.
    silent: HashSet<String>,
    since: Option<Instant>,
    /// Hosts that were silent while others answered: what they do not say is nothing about us. In an old collection
    /// there are many, and in the end they are all that is left.
    mute: HashSet<String>,
}

impl State {
    fn is_lost(&self) -> bool {
        self.silent.len() >= HOSTS && self.since.is_some_and(|since| since.elapsed() < LONGEST)
    }
}

impl Reach {
    /// While nobody answers, returns when somebody has, or after `patience`.
    pub(super) async fn wait(&self, patience: Duration) {
        let back = self.back.notified();
        if self.state().is_lost() {
            let _ = timeout(patience, back).await;
        }
    }

    /// A host, or whoever knows about it, has answered something.
    pub(super) fn answered(&self, host: &str) {
        let mut state = self.state();
        let state = &mut *state;
        if state.is_lost() {
            tracing::info!(host, "the network is back");
            self.back.notify_waiters();
        }
        state.since = None;
        state.mute.remove(host);
        if state.mute.len() + state.silent.len() > MANY {
            state.mute.clear();
        }
        state.mute.extend(state.silent.drain().filter(|silent| silent != host));
    }

    /// A host was asked and nobody answered. Whether that is because nobody can be reached.
    pub(super) fn is_lost_without(&self, host: &str) -> bool {
        let mut state = self.state();
        if state.mute.contains(host) {
            return false;
        }
        let before = state.is_lost();
        state.since.get_or_insert_with(Instant::now);
        if state.silent.len() < MANY {
            state.silent.insert(host.to_owned());
        }
        let lost = state.is_lost();
        if lost && !before {
            tracing::warn!("no host answers: is this machine's network away? Photos wait for it");
        }
        lost
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_silent_hosts_in_a_row_are_our_own_network() {
        let reach = Reach::default();
        assert_eq!(
            ["a", "a", "b", "b", "c"].map(|host| reach.is_lost_without(host)),
            [false, false, false, false, true]
        );
        assert!(reach.is_lost_without("a"), "the first one, too");
        reach.answered("d");
        assert_eq!(["x", "y"].map(|host| reach.is_lost_without(host)), [false, false]);
        reach.answered("d");
        assert_eq!(["v", "w"].map(|host| reach.is_lost_without(host)), [false, false], "somebody answers in between");
    }

    #[test]
    fn the_dead_hosts_that_are_left_at_the_end_are_no_outage() {
        let reach = Reach::default();
        ["a", "b", "c", "d"].iter().for_each(|host| _ = reach.is_lost_without(host));
        reach.answered("e");
        assert!(!["a", "b", "c", "d", "a", "b"].iter().any(|host| reach.is_lost_without(host)));
        // One that comes back counts again.
        ["a", "b", "c"].iter().for_each(|host| reach.answered(host));
        assert_eq!(["d", "a", "b", "c"].map(|host| reach.is_lost_without(host)), [false, false, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn photos_wait_for_the_network_while_it_is_away() {
        let (reach, patience) = (Reach::default(), Duration::from_secs(10));
        let began = Instant::now();
        reach.wait(patience).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        ["a", "b", "c"].iter().for_each(|host| _ = reach.is_lost_without(host));
        reach.wait(patience).await;
        assert_eq!(began.elapsed(), patience);
        tokio::join!(reach.wait(patience), async { reach.answered("d") });
        assert_eq!(began.elapsed(), patience, "told at once");
    }

    #[tokio::test(start_paused = true)]
    async fn no_outage_lasts_for_ever() {
        let reach = Reach::default();
        assert_eq!(["a", "b", "c"].map(|host| reach.is_lost_without(host)), [false, false, true]);
        tokio::time::advance(LONGEST).await;
        assert!(!reach.is_lost_without("a"));
    }
}
