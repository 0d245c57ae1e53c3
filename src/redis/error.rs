//! The meaning of Redis errors: whether a retry can help, and what the operator can do.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::error_chain::{self, find};
use crate::server_error::ServerError;

/// The error of an operation on `server`. `what` is the operation, as in "cannot {what}".
pub fn map_error(server: &str, what: &str, error: &RedisError) -> ServerError {
    let failed = failed_command(error);
    let code = failed.as_ref().map_or(error.code(), |failed| Some(failed.code())).unwrap_or_default();
    let detail = failed.as_ref().map_or(error.detail(), |failed| failed.details());
    let reason = detail.map_or_else(|| error.to_string(), str::to_owned);
    let (is_refused, reason) = match code {
        "WRONGPASS" => (true, "wrong user or password".to_owned()),
        "NOAUTH" => (true, "the server requires a password: redis://user:password@host".to_owned()),
        "NOPERM" => (true, format!("this user lacks the permission: {reason}")),
        "WRONGTYPE" => (true, "a key holds foreign data: choose another prefix or database".to_owned()),
        "MOVED" | "CROSSSLOT" | "ASK" => {
            (true, "the server is one node of a cluster: use the address of a proxy for the whole cluster".to_owned())
        }
        "LOADING" => (false, "the server is still loading its data from disk".to_owned()),
        "READONLY" => (false, "the server is a read-only replica".to_owned()),
        "OOM" => (false, "the server's memory is full: raise maxmemory".to_owned()),
        "MISCONF" => (false, format!("the server cannot write to its disk: {reason}")),
        "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "NOREPLICAS" | "NOGOODSLAVE" => (false, reason),
        _ => match error.kind() {
            ErrorKind::AuthenticationFailed => (true, "wrong user or password".to_owned()),
            // Redis does not say which of its databases exist.
            _ if reason.contains("DB index is out of range") => {
                (true, "there is no such database: the number at the end of the URL".to_owned())
            }
            ErrorKind::Parse => (false, "its answer is none of Redis: is this the port of another server?".to_owned()),
            ErrorKind::Io | ErrorKind::Client => (find::<rustls::Error>(error).is_some(), error_chain::reason(error)),
            _ => (true, error.to_string()),
        },
    };
    let (what, detail) = (cannot(what), format!("{server}: {reason}"));
    if is_refused { ServerError::Refused { what, detail } } else { ServerError::Unavailable { what, detail } }
}

/// The server's answer to the command that failed: of a transaction or pipeline, to the first one, as the others may have
/// failed because of it.
fn failed_command(error: &RedisError) -> Option<redis::ServerError> {
    let all = error.clone().into_server_errors()?;
    let cause = all.iter().find(|(_, error)| error.kind() != Some(ServerErrorKind::ExecAbort)).or(all.first());
    cause.map(|(_, error)| error.clone())
}

/// The error of an attempt to connect to `server`.
pub fn map_connect_error(server: &str, error: &RedisError) -> ServerError {
    let what = format!("cannot reach {server}");
    match map_error("", "", error) {
        ServerError::Refused { detail, .. } => ServerError::Refused { what, detail: without_server(&detail) },
        ServerError::Unavailable { detail, .. } => ServerError::Unavailable { what, detail: without_server(&detail) },
    }
}

fn without_server(detail: &str) -> String {
    detail.trim_start_matches(": ").to_owned()
}

/// Whether the connection is unusable. After a failover the former primary answers READONLY.
pub fn is_connection_broken(error: &RedisError) -> bool {
    let is_read_only = || failed_command(error).is_some_and(|error| error.kind() == Some(ServerErrorKind::ReadOnly));
    error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error() || is_read_only()
}

pub fn cannot(what: &str) -> String {
    format!("cannot {what}")
}
