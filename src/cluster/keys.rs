//! The Redis keys of the cluster's state. `docs/names-stores.md` lists them in a table.

/// Hash: `stage/STAGE` or `host/HOST`, the second since 1970 since when it is paused. Also the name of the channel that
/// announces a change.
pub fn pauses(prefix: &str) -> String {
    format!("{prefix}:pauses")
}

/// Hash: name of a worker, its report as JSON.
pub fn workers(prefix: &str) -> String {
    format!("{prefix}:{{workers}}:reports")
}

/// Sorted set: name of a worker, the millisecond since 1970 of its last report.
pub fn workers_seen(prefix: &str) -> String {
    format!("{prefix}:{{workers}}:seen")
}

/// Hash: until when a host gets no requests, how many waits in a row it asked for, when the next request may start.
pub fn host(prefix: &str, host: &str) -> String {
    format!("{prefix}:host:{{{host}}}")
}

/// Sorted set: the leases of requests to a host, by the millisecond at which each expires.
pub fn leases(prefix: &str, host: &str) -> String {
    format!("{prefix}:host:{{{host}}}:turns")
}

/// Sorted set: the processes that share a host, by the millisecond of their last request for a lease.
pub fn processes(prefix: &str, host: &str) -> String {
    format!("{prefix}:host:{{{host}}}:processes")
}

/// Text: the shared report on the queues, as JSON; expires after a few seconds.
pub fn queue_report(prefix: &str) -> String {
    format!("{prefix}:{{queues}}:report")
}

/// Text: present while a worker measures the queues.
pub fn queue_claim(prefix: &str) -> String {
    format!("{prefix}:{{queues}}:claim")
}
