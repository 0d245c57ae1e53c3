//! The meaning of lapin's errors: whether a retry can help, and what the operator can do.

use lapin::ErrorKind;

use crate::broker::BrokerError;
use crate::error_chain::{find, reason};

/// RabbitMQ's reply codes, AMQP 0-9-1 section 1.2.
mod reply {
    pub const ACCESS_REFUSED: u16 = 403;
    pub const NOT_FOUND: u16 = 404;
    pub const PRECONDITION_FAILED: u16 = 406;
    pub const NOT_ALLOWED: u16 = 530;
    pub const NOT_IMPLEMENTED: u16 = 540;
}

/// Whether a queue or an exchange is missing.
pub(super) fn is_not_found(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(reply) if reply.get_id() == reply::NOT_FOUND)
}

/// The error of an operation. `what` completes "cannot ...".
pub(super) fn map_error(what: String, error: &lapin::Error) -> BrokerError {
    use reply::{ACCESS_REFUSED, NOT_ALLOWED, NOT_IMPLEMENTED, PRECONDITION_FAILED};
    match error.kind() {
        ErrorKind::ProtocolError(reply) => {
            let detail = reply.get_message().to_string();
            match reply.get_id() {
                ACCESS_REFUSED => BrokerError::Refused {
                    what,
                    detail: format!(
                        "{detail}; the user needs to configure, write and read all names with facemill's prefix"
                    ),
                },
                PRECONDITION_FAILED | NOT_ALLOWED | NOT_IMPLEMENTED => BrokerError::Refused { what, detail },
                _ => BrokerError::Unavailable { what, detail },
            }
        }
        _ => BrokerError::Unavailable { what, detail: error.to_string() },
    }
}

/// The error of a connection attempt as `user`. `what` is the whole failure, as in "cannot reach RabbitMQ at HOST".
pub(super) fn map_connect_error(what: String, user: &str, error: &lapin::Error) -> BrokerError {
    match error.kind() {
        ErrorKind::ProtocolError(reply) if reply.get_id() == reply::ACCESS_REFUSED => {
            BrokerError::Refused { what, detail: format!("wrong user name or password for `{user}`") }
        }
        ErrorKind::ProtocolError(reply) if reply.get_id() == reply::NOT_ALLOWED => BrokerError::Refused {
            what,
            detail: format!(
                "{}; create the virtual host with `rabbitmqctl add_vhost`, and give `{user}` access with `rabbitmqctl \
                 set_permissions`",
                reply.get_message()
            ),
        },
        ErrorKind::IOError(io) => {
            let detail = reason(&**io);
            match find::<rustls::Error>(&**io) {
                Some(_) => BrokerError::Refused { what, detail },
                None => BrokerError::Unavailable { what, detail },
            }
        }
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => {
            BrokerError::Refused { what, detail: format!("the server does not speak AMQP: {error}") }
        }
        _ => map_error(what, error),
    }
}
