//! The meaning of lapin's errors: whether a retry can help, and what the operator can do.

use lapin::ErrorKind;

use crate::broker::BrokerError;

/// RabbitMQ's reply codes, AMQP 0-9-1 section 1.2.
mod reply {
    pub const ACCESS_REFUSED: u16 = 403;
    pub const PRECONDITION_FAILED: u16 = 406;
    pub const NOT_ALLOWED: u16 = 530;
    pub const NOT_IMPLEMENTED: u16 = 540;
}

/// The error of an operation. `what` is the operation, as in "cannot {what}".
pub(super) fn map_error(what: String, error: &lapin::Error) -> BrokerError {
    use reply::{ACCESS_REFUSED, NOT_ALLOWED, NOT_IMPLEMENTED, PRECONDITION_FAILED};
    match error.kind() {
        ErrorKind::ProtocolError(said) => {
            let detail = said.get_message().to_string();
            match said.get_id() {
                ACCESS_REFUSED => BrokerError::Refused {
                    what,
                    detail: format!("{detail}; the user needs to configure, write and read all names with our prefix"),
                },
                PRECONDITION_FAILED | NOT_ALLOWED | NOT_IMPLEMENTED => BrokerError::Refused { what, detail },
                _ => BrokerError::Unavailable { what, detail },
            }
        }
        _ => BrokerError::Unavailable { what, detail: error.to_string() },
    }
}

/// The error of connecting as `user`.
pub(super) fn map_connect_error(what: String, user: &str, error: &lapin::Error) -> BrokerError {
    match error.kind() {
        ErrorKind::ProtocolError(said) if said.get_id() == reply::ACCESS_REFUSED => {
            BrokerError::Refused { what, detail: format!("wrong user name or password for `{user}`") }
        }
        ErrorKind::ProtocolError(said) if said.get_id() == reply::NOT_ALLOWED => BrokerError::Refused {
            what,
            detail: format!(
                "{}; make the virtual host with `rabbitmqctl add_vhost` and let `{user}` in with `rabbitmqctl \
                 set_permissions`",
                said.get_message()
            ),
        },
        ErrorKind::IOError(io) => {
            let mut cause: Option<&(dyn std::error::Error + 'static)> = io.get_ref().map(|error| error as _);
            while let Some(error) = cause {
                if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                    let detail = format!(
                        "TLS: {tls}; is this the TLS port, and is its certificate signed by an authority that this \
                         machine trusts (SSL_CERT_FILE names another)?"
                    );
                    return BrokerError::Refused { what, detail };
                }
                cause = error.source();
            }
            BrokerError::Unavailable { what, detail: format!("cannot be reached: {io}") }
        }
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => {
            BrokerError::Refused { what, detail: format!("whoever answers there does not speak AMQP: {error}") }
        }
        _ => map_error(what, error),
    }
}
