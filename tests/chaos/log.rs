//! What was done to whom, told as it happens and counted at the end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use super::plan::Fate;

pub struct Log {
    began: Instant,
    deaths: Mutex<Vec<Fate>>,
    /// Workers that the killer took along.
    killed: AtomicU64,
    faults: Mutex<Vec<String>>,
}

impl Log {
    pub fn new() -> Self {
        Self { began: Instant::now(), deaths: Mutex::default(), killed: AtomicU64::new(0), faults: Mutex::default() }
    }

    pub fn say(&self, what: impl std::fmt::Display) {
        println!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    pub fn death(&self, name: &str, fate: Fate) {
        self.say(format_args!("{name} died {fate}"));
        lock(&self.deaths).push(fate);
    }

    pub fn killed(&self, name: &str) {
        self.say(format_args!("{name} was killed by a photo"));
        self.killed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn fault(&self, what: String) {
        self.say(format_args!("fault: {what}"));
        lock(&self.faults).push(what);
    }

    pub fn deaths(&self) -> Vec<Fate> {
        lock(&self.deaths).clone()
    }

    pub fn killings(&self) -> u64 {
        self.killed.load(Ordering::Relaxed)
    }

    pub fn faults(&self) -> Vec<String> {
        lock(&self.faults).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|error| error.into_inner())
}
