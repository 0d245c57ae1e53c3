//! Prints and counts the faults as they happen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use super::plan::Kill;

pub struct Log {
    began: Instant,
    kills: Mutex<Vec<Kill>>,
    /// Workers that a photo has crashed.
    crashed: AtomicU64,
    faults: Mutex<Vec<String>>,
}

impl Log {
    pub fn new() -> Self {
        Self { began: Instant::now(), kills: Mutex::default(), crashed: AtomicU64::new(0), faults: Mutex::default() }
    }

    pub fn say(&self, what: impl std::fmt::Display) {
        println!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    pub fn on_kill(&self, name: &str, kill: Kill) {
        self.say(format_args!("{name} was killed {kill}"));
        lock(&self.kills).push(kill);
    }

    pub fn on_crash(&self, name: &str) {
        self.say(format_args!("{name} was crashed by a photo"));
        self.crashed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn fault(&self, what: String) {
        self.say(format_args!("unexpected: {what}"));
        lock(&self.faults).push(what);
    }

    pub fn kills(&self) -> Vec<Kill> {
        lock(&self.kills).clone()
    }

    pub fn crashes(&self) -> u64 {
        self.crashed.load(Ordering::Relaxed)
    }

    pub fn faults(&self) -> Vec<String> {
        lock(&self.faults).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|error| error.into_inner())
}
