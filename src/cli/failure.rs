//! Why a command failed.

use std::fmt;

/// Why a command failed, and its exit code.
#[derive(Debug)]
pub struct Failure {
    pub(super) code: u8,
    pub(super) message: String,
}

impl Failure {
    /// The command ran and found something wrong: an audit's fault, a failed check. Exit 1.
    pub fn findings(message: impl fmt::Display) -> Self {
        Self { code: 1, message: message.to_string() }
    }

    /// The command could not run: bad input, an unreachable server, a full disk. Exit 3. (2 is clap's, for usage.)
    pub fn broken(message: impl fmt::Display) -> Self {
        Self { code: 3, message: message.to_string() }
    }

    /// Flags contradict each other. Exit 2, as clap's own.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { code: 2, message: message.to_string() }
    }

    /// All faults, not only the first.
    pub fn all(faults: Vec<String>) -> Self {
        Self::broken(faults.join("\n          "))
    }

    /// The values of both, or the faults of both.
    pub fn join<A, B>(one: Result<A, Self>, other: Result<B, Self>) -> Result<(A, B), Self> {
        match (one, other) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            (Err(one), Err(other)) => Err(Self::all(vec![one.message, other.message])),
            (Err(failure), _) | (_, Err(failure)) => Err(failure),
        }
    }
}
