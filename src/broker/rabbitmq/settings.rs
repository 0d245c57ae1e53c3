//! The address of RabbitMQ and the prefix of all names.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use url::Url;

use crate::server_error::ESCAPES;

/// How to reach RabbitMQ. `Debug` shows no passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct RabbitMqSettings {
    endpoint: Endpoint,
    prefix: String,
    management: Option<Management>,
    /// Time limit for TCP, TLS and the handshake. A busy server may take seconds; one that is away refuses at once.
    pub connect_timeout: Duration,
    /// Time limit for the confirm of a message, alarms included.
    pub patience: Duration,
}

/// The content of an `amqp` URL.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    tls: bool,
    host: String,
    port: u16,
    user: String,
    password: String,
    pub vhost: String,
}

/// The management API, which reports unacknowledged messages.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Management {
    /// Scheme, host, port and path, without a user.
    pub url: Url,
    pub user: String,
    pub password: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    // The message does not quote the URL, since it may contain a password.
    #[error("the RabbitMQ URL {0}: write amqp://user:password@host:5672/vhost, or amqps:// for TLS ({ESCAPES})")]
    Url(String),
    #[error("the RabbitMQ prefix `{0}` is not valid: use 1 to 60 of a-z, 0-9, `-`, `_` and `.`, with a letter first")]
    Prefix(String),
    #[error("the URL of RabbitMQ's management API {0}: write http://user:password@host:15672 or https://...")]
    Management(String),
}

impl RabbitMqSettings {
    pub const PREFIX: &'static str = "facemill";

    /// Parses `amqp(s)://user:password@host:port/vhost`. Without a user, user and password are `guest`. Without a
    /// virtual host, it is `/`. A `/` in a virtual host is written `%2F`.
    pub fn new(url: &str) -> Result<Self, BadSettings> {
        Ok(Self {
            endpoint: Endpoint::parse(url)?,
            prefix: Self::PREFIX.into(),
            management: None,
            connect_timeout: Duration::from_secs(30),
            patience: Duration::from_secs(10),
        })
    }

    /// `prefix` starts every name, so that several installations can share a virtual host.
    pub fn with_prefix(self, prefix: &str) -> Result<Self, BadSettings> {
        Self::check_prefix(prefix)?;
        Ok(Self { prefix: prefix.into(), ..self })
    }

    /// Whether a prefix is valid.
    pub fn check_prefix(prefix: &str) -> Result<(), BadSettings> {
        let legal = prefix.len() <= 60
            && prefix.starts_with(|c: char| c.is_ascii_lowercase())
            && prefix.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
        if legal { Ok(()) } else { Err(BadSettings::Prefix(prefix.into())) }
    }

    /// Reads the unacknowledged messages from the management API at `url`. A URL without a user uses that of the
    /// broker.
    pub fn with_management(self, url: &str) -> Result<Self, BadSettings> {
        let bad = |what: String| BadSettings::Management(what);
        let mut url = Url::parse(url).map_err(|error| bad(format!("is not valid ({error})")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(bad(format!("begins with {}:", url.scheme())));
        }
        let mut user = decode(url.username()).map_err(bad)?;
        let mut password = decode(url.password().unwrap_or_default()).map_err(bad)?;
        if user.is_empty() {
            (user, password) = (self.endpoint.user.clone(), self.endpoint.password.clone());
        }
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| bad("has no host".into()))?;
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self { management: Some(Management { url, user, password }), ..self })
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn management(&self) -> Option<&Management> {
        self.management.as_ref()
    }
}

impl fmt::Debug for RabbitMqSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqSettings")
            .field("endpoint", &format_args!("{}", self.endpoint))
            .field("prefix", &self.prefix)
            .field("management", &self.management.as_ref().map(|management| management.url.as_str()))
            .field("connect_timeout", &self.connect_timeout)
            .field("patience", &self.patience)
            .finish()
    }
}

impl Endpoint {
    fn parse(url: &str) -> Result<Self, BadSettings> {
        let bad = |what: String| BadSettings::Url(what);
        let url = Url::parse(url).map_err(|error| bad(format!("is not valid ({error})")))?;
        let tls = match url.scheme() {
            "amqp" => false,
            "amqps" => true,
            other => return Err(bad(format!("begins with {other}:"))),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| bad("has no host".into()))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("has options after its path, which are not supported".into()));
        }
        let named = |text: &str, default: &str| {
            decode(text).map(|text| if text.is_empty() { default.to_owned() } else { text }).map_err(bad)
        };
        let path = url.path().strip_prefix('/').unwrap_or_default();
        if path.contains('/') {
            return Err(bad("has more than a virtual host in its path (write %2F for a / in a name)".into()));
        }
        Ok(Self {
            tls,
            // An IPv6 address has brackets only inside a URL.
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(if tls { 5671 } else { 5672 }),
            user: named(url.username(), "guest")?,
            password: named(url.password().unwrap_or_default(), "guest")?,
            vhost: named(path, "/")?,
        })
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    pub fn uri(&self) -> AMQPUri {
        /// Seconds. After twice this time without data the connection counts as lost.
        const HEARTBEAT: u16 = 10;
        AMQPUri {
            scheme: if self.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: self.user.clone(), password: self.password.clone() },
                host: self.host.clone(),
                port: self.port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString { heartbeat: Some(HEARTBEAT), ..AMQPQueryString::default() },
        }
    }
}

/// Shows no password.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        write!(f, "{scheme}://{}@{}:{}, virtual host `{}`", self.user, self.host, self.port, self.vhost)
    }
}

fn decode(text: &str) -> Result<String, String> {
    // The crate ignores an invalid escape.
    let is_escape = |part: &str| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(is_escape) {
        return Err("has a % that is not followed by two hex digits (write %25 for a %)".into());
    }
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| "is not UTF-8 after decoding its %.. escapes".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        RabbitMqSettings::new(url).unwrap().endpoint
    }

    #[test]
    fn urls_are_parsed() {
        let all = endpoint("amqps://us%40er:p%2Fw@mq.example:5999/fa%2Fces");
        assert_eq!((all.tls, all.host.as_str(), all.port), (true, "mq.example", 5999));
        assert_eq!((all.user.as_str(), all.password.as_str(), all.vhost.as_str()), ("us@er", "p/w", "fa/ces"));
        let least = endpoint("amqp://[::1]");
        assert_eq!((least.host.as_str(), least.port, least.vhost.as_str()), ("::1", 5672, "/"));
        assert_eq!((least.user.as_str(), least.password.as_str()), ("guest", "guest"));
        assert_eq!(endpoint("amqp://h/").vhost, "/", "a trailing slash is no virtual host");
        assert_eq!(endpoint("amqps://h").port, 5671);
    }

    #[test]
    fn errors_do_not_show_the_password() {
        let bad = [
            "",
            "localhost:5672",
            "http://u:geheim@h",
            "amqp://",
            "amqp://u:geheim@h/a/b",
            "amqp://u:geheim@h/?heartbeat=1",
            "amqp://u:geheim%zz@h",
            "amqp://u:geheim@h:99999",
        ];
        for url in bad {
            let error = RabbitMqSettings::new(url).unwrap_err().to_string();
            assert!(!error.contains("geheim") && error.contains("amqp://user"), "{url}: {error}");
        }
        let settings = RabbitMqSettings::new("amqp://h").unwrap();
        for prefix in ["", "Faces", "1a", "a b", "ä", &"x".repeat(61)] {
            assert!(settings.clone().with_prefix(prefix).is_err(), "{prefix}");
        }
        for url in ["", "amqp://h", "h:15672"] {
            assert!(settings.clone().with_management(url).is_err(), "{url}");
        }
    }

    #[test]
    fn passwords_are_not_printed() {
        let settings = RabbitMqSettings::new("amqp://u:geheim@h/v").unwrap();
        let settings = settings.with_management("https://w:verborgen@h:15671/api?x=1").unwrap();
        let printed = format!("{settings:?} {settings:#?} {}", settings.endpoint());
        assert!(!printed.contains("geheim") && !printed.contains("verborgen"), "{printed}");
        assert!(printed.contains("amqp://u@h:5672, virtual host `v`"), "{printed}");
        let management = settings.management().unwrap();
        assert_eq!((management.user.as_str(), management.password.as_str()), ("w", "verborgen"));
    }
}
