//! The progress of long work where standard error is no terminal: now and then a line.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use indicatif::{HumanCount, HumanDuration, ProgressBar};

/// Whether a bar's total is that of the whole work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
    Known,
    /// More may arrive, so that the time left is not known.
    Grows,
}

/// Bars that nobody draws. A thread prints those in progress, until this value is dropped.
#[derive(Debug)]
pub struct ProgressLines {
    bars: Mutex<Vec<(ProgressBar, Total)>>,
    /// Dropping it ends the thread.
    _alive: Sender<()>,
}

impl ProgressLines {
    /// `print` gets a line after each `period` in which something was in progress.
    pub fn start(period: Duration, print: impl Fn(&str) + Send + 'static) -> Arc<Self> {
        let (alive, ended) = channel();
        let lines = Arc::new(Self { bars: Mutex::default(), _alive: alive });
        let bars = Arc::downgrade(&lines);
        // Without the thread there are no lines; the work goes on.
        let _ = std::thread::Builder::new().name("progress".into()).spawn(move || tell(&bars, period, &ended, print));
        lines
    }

    pub fn add(&self, bar: &ProgressBar, total: Total) {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner).push((bar.clone(), total));
    }

    /// Forgets all bars.
    pub fn clear(&self) {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// None: nothing is in progress.
    fn line(&self) -> Option<String> {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        bars.retain(|(bar, _)| !bar.is_finished());
        let moving = bars.iter().filter(|(bar, _)| bar.position() > 0);
        let moving: Vec<String> = moving.map(|(bar, total)| text(bar, *total)).collect();
        (!moving.is_empty()).then(|| moving.join("; "))
    }
}

fn tell(lines: &Weak<ProgressLines>, period: Duration, ended: &Receiver<()>, print: impl Fn(&str)) {
    while ended.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
        let Some(lines) = lines.upgrade() else { return };
        if let Some(line) = lines.line() {
            print(&line);
        }
    }
}

/// `photos 120 of 500, 40s left`.
fn text(bar: &ProgressBar, total: Total) -> String {
    let (what, done) = (bar.prefix(), HumanCount(bar.position()));
    let Some(all) = bar.length() else { return format!("{what} {done}") };
    let text = format!("{what} {done} of {}", HumanCount(all));
    if total == Total::Grows || all <= bar.position() || bar.per_sec() < 0.01 {
        return text;
    }
    format!("{text}, {} left", time_left(bar.eta()))
}

/// The time left for work that is not done: at least a second.
pub fn time_left(left: Duration) -> String {
    format!("{:#}", HumanDuration(left.max(Duration::from_secs(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_progress_is_printed_until_the_end() {
        let (sender, lines) = channel();
        let progress = ProgressLines::start(Duration::from_millis(1), move |line| {
            let _ = sender.send(line.to_owned());
        });
        let hidden = |what: &'static str, all: Option<u64>, total: Total| {
            let bar = ProgressBar::hidden().with_prefix(what);
            all.map_or_else(|| bar.unset_length(), |all| bar.set_length(all));
            progress.add(&bar, total);
            bar
        };
        let (idle, photos) = (hidden("crop", None, Total::Grows), hidden("photos", Some(2000), Total::Known));
        let done = hidden("enqueue", Some(7), Total::Known);
        photos.inc(1500);
        done.inc(7);
        done.finish();
        let patience = Duration::from_secs(60);
        let line = lines.recv_timeout(patience).unwrap();
        assert!(line.starts_with("photos 1,500 of 2,000"), "{line}");
        assert!(!line.contains("crop") && !line.contains("enqueue"), "{line}");
        idle.inc(3);
        let both = std::iter::from_fn(|| lines.recv_timeout(patience).ok()).find(|line| line.starts_with("crop 3; "));
        assert!(both.is_some());
        // Of what is still to arrive nobody knows how long it takes.
        idle.set_length(5);
        let all =
            std::iter::from_fn(|| lines.recv_timeout(patience).ok()).find(|line| line.starts_with("crop 3 of 5; "));
        let all = all.unwrap();
        assert!(all.starts_with("crop 3 of 5; photos 1,500 of 2,000, ") && all.ends_with(" left"), "{all}");
        // The thread ends with the last value, and drops its sender.
        drop(progress);
        while lines.recv_timeout(patience).is_ok() {}
        assert_eq!(lines.recv_timeout(patience), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn unfinished_work_has_a_second_left() {
        assert_eq!(time_left(Duration::from_millis(300)), "1s");
        assert_eq!(time_left(Duration::from_secs(40)), "40s");
    }
}
