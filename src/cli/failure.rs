//! Why a command failed.

use std::fmt;

use crate::error_chain::without_os_codes;

/// Why a command failed, and its exit code.
#[derive(Debug)]
pub struct Failure {
    pub(super) code: u8,
    pub(super) message: String,
}

impl Failure {
    /// The command ran and found something wrong: an audit's fault, a failed check. Exit 1.
    pub fn findings(message: impl fmt::Display) -> Self {
        Self { code: 1, message: without_os_codes(message.to_string()) }
    }

    /// The command could not run: a missing file, bad input, an unreachable server, a full disk. Exit 3.
    pub fn broken(message: impl fmt::Display) -> Self {
        Self { code: 3, message: without_os_codes(message.to_string()) }
    }

    /// Flags, environment or settings file are wrong in themselves, whatever there is in files and servers. Exit 2, as
    /// clap's own.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { code: 2, message: without_os_codes(message.to_string()) }
    }

    /// All faults of the settings, not only the first.
    pub fn settings(faults: &[String]) -> Self {
        Self::usage(faults.join("\n          "))
    }

    /// The values of both, or the faults of both.
    pub fn join<A, B>(one: Result<A, Self>, other: Result<B, Self>) -> Result<(A, B), Self> {
        match (one, other) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            (Err(one), Err(other)) => Err(Self {
                code: one.code.max(other.code),
                message: format!("{}\n          {}", one.message, other.message),
            }),
            (Err(failure), _) | (_, Err(failure)) => Err(failure),
        }
    }
}
