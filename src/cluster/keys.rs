//! The Redis keys of the cluster's state. `docs/names-stores.md` lists them in a table.

/// Hash: `stage/STAGE` or `host/HOST`, when its pause started, in seconds since 1970. Also the name of the channel that
/// announces a change.
pub fn pauses(prefix: &str) -> String {
    format!("{prefix}:pauses")
}

/// Hash: name of a worker, its report as JSON.
pub fn worker_reports(prefix: &str) -> String {
    format!("{prefix}:{{workers}}:reports")
}

/// Sorted set: name of a worker, the time of its last report, in milliseconds since 1970.
pub fn worker_report_times(prefix: &str) -> String {
    format!("{prefix}:{{workers}}:seen")
}

/// Hash: the end of the host's quiet period, the number of quiet periods in a row, the start of the next request.
pub fn host(prefix: &str, host: &str) -> String {
    format!("{prefix}:host:{{{host}}}")
}

/// Sorted set: the leases of requests to a host, by the millisecond of their expiry.
pub fn leases(prefix: &str, host: &str) -> String {
    format!("{prefix}:host:{{{host}}}:leases")
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
