//! The error of a server that facemill depends on: the broker, the ledger, Redis, the object store.

/// For messages about URLs.
pub const ESCAPES: &str = "in a password, write `/` as %2F, `@` as %40, `#` as %23, `?` as %3F";

/// Why an operation on a server failed. `what` names the operation, `detail` the reason and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// Temporary: the server is unreachable, restarts, is busy or has raised an alarm.
    #[error("{what}: {detail}")]
    Unavailable { what: String, detail: String },
    /// Permanent until a person acts: credentials, permissions, a foreign file or queue, a full disk.
    #[error("{what}: {detail}")]
    Refused { what: String, detail: String },
}

impl ServerError {
    /// The kind of error in one word, for traces and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Refused { .. } => "refused",
        }
    }

    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
