//! Why a photo did not advance.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a photo did not advance: a code that is counted, and a sentence for the person who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    pub code: CauseCode,
    pub detail: String,
}

impl Cause {
    /// Bytes. Longer details are clipped: they may quote a stranger's server.
    pub const MAX_DETAIL: usize = 300;

    pub fn new(code: impl Into<CauseCode>, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > Self::MAX_DETAIL {
            detail.truncate(detail.floor_char_boundary(Self::MAX_DETAIL));
            detail.push('…');
        }
        Self { code: code.into(), detail }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A ledger may keep only the code of earlier events.
        match self.detail.as_str() {
            "" => self.code.fmt(f),
            detail => write!(f, "{}: {detail}", self.code),
        }
    }
}

/// The kind of a cause. There are a few dozen, so that a code can be a metric's label.
///
/// In text a code is lower-case words joined by hyphens: `no-face`, `http-404`, `timeout`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CauseCode {
    // Fetch: the request.
    BadUrl,
    ForbiddenAddress,
    TooManyRedirects,
    /// The name does not exist, or has no address.
    Dns,
    /// The name servers failed to answer, or did not answer.
    DnsFailed,
    Tls,
    ConnectionRefused,
    ConnectionReset,
    Unreachable,
    Timeout,
    /// Any status but success and a redirect.
    Http(u16),
    BadResponse,
    Truncated,
    EmptyBody,
    /// An X-Robots-Tag forbids the use.
    RefusedByRobotsTag,
    /// A person has had the photo taken down, or one that it is a copy of.
    TakenDown,
    // Fetch: waits that are not the photo's fault.
    /// The host has as many requests as it is allowed.
    HostBusy,
    /// The host asked for a pause.
    HostQuiet,
    /// A person paused the host.
    HostPaused,
    /// The limiter that all fetch workers share cannot be reached.
    HostLimiter,
    /// No host can be reached from this machine.
    NoNetwork,
    /// The downloads of this process use all the memory that they may use.
    DownloadMemory,
    // The image.
    /// The images that this process decodes use all the memory that they may use.
    DecodeMemory,
    NotAnImage,
    /// An image of a known format that is not read.
    UnsupportedFormat,
    TooLarge,
    Undecodable,
    // The face.
    NoFace,
    SeveralFaces,
    FaceTooSmall,
    OutOfFrame,
    FaceLostInCrop,
    // The program and its servers.
    DetectorFailed,
    ClassifierFailed,
    EncoderFailed,
    BadCrop,
    ObjectMissing,
    /// The photo that an original links to has another content than when it was fetched.
    OriginalChanged,
    StoreUnavailable,
    StoreRefused,
    /// The worker cannot process photos of this run: it has another landmark model than the run's settings demand.
    RunSettings,
    Panic,
    TimeLimit,
    /// Workers died while they processed the photo.
    KillsWorkers,
    /// The message lacks what the stage needs.
    UnfitMessage,
    /// The message was not written by this program.
    ForeignMessage,
    /// The broker's delivery limit was reached.
    DeliveryLimit,
    Unknown,
    /// A code of another version of the program.
    Other(String),
}

/// Codes that have no parameter, with their text.
static FIXED: &[(CauseCode, &str)] = {
    use CauseCode::*;
    &[
        (BadUrl, "bad-url"),
        (ForbiddenAddress, "forbidden-address"),
        (TooManyRedirects, "too-many-redirects"),
        (Dns, "dns"),
        (DnsFailed, "dns-failed"),
        (Tls, "tls"),
        (ConnectionRefused, "connection-refused"),
        (ConnectionReset, "connection-reset"),
        (Unreachable, "unreachable"),
        (Timeout, "timeout"),
        (BadResponse, "bad-response"),
        (Truncated, "truncated"),
        (EmptyBody, "empty-body"),
        (RefusedByRobotsTag, "refused-by-robots-tag"),
        (TakenDown, "taken-down"),
        (HostBusy, "host-busy"),
        (HostQuiet, "host-quiet"),
        (HostPaused, "host-paused"),
        (HostLimiter, "host-limiter"),
        (NoNetwork, "no-network"),
        (DownloadMemory, "download-memory"),
        (DecodeMemory, "decode-memory"),
        (NotAnImage, "not-an-image"),
        (UnsupportedFormat, "unsupported-format"),
        (TooLarge, "too-large"),
        (Undecodable, "undecodable"),
        (NoFace, "no-face"),
        (SeveralFaces, "several-faces"),
        (FaceTooSmall, "face-too-small"),
        (OutOfFrame, "out-of-frame"),
        (FaceLostInCrop, "face-lost-in-crop"),
        (DetectorFailed, "detector-failed"),
        (ClassifierFailed, "classifier-failed"),
        (EncoderFailed, "encoder-failed"),
        (BadCrop, "bad-crop"),
        (ObjectMissing, "object-missing"),
        (OriginalChanged, "original-changed"),
        (StoreUnavailable, "store-unavailable"),
        (StoreRefused, "store-refused"),
        (RunSettings, "run-settings"),
        (Panic, "panic"),
        (TimeLimit, "time-limit"),
        (KillsWorkers, "kills-workers"),
        (UnfitMessage, "unfit-message"),
        (ForeignMessage, "foreign-message"),
        (DeliveryLimit, "delivery-limit"),
        (Unknown, "unknown"),
    ]
};

impl CauseCode {
    pub fn as_str(&self) -> Cow<'_, str> {
        match self {
            Self::Http(status) => Cow::Owned(format!("http-{status}")),
            Self::Other(text) => Cow::Borrowed(text),
            fixed => Cow::Borrowed(FIXED.iter().find(|(code, _)| code == fixed).map_or("", |(_, text)| text)),
        }
    }

    /// Whether the photo waits for this installation and not for its host: such a wait never costs an attempt, however
    /// long it takes.
    pub fn is_local_wait(&self) -> bool {
        use CauseCode::{DecodeMemory, DownloadMemory, HostBusy, HostLimiter, HostPaused, NoNetwork, RunSettings};
        matches!(self, HostPaused | HostBusy | HostLimiter | NoNetwork | DownloadMemory | DecodeMemory | RunSettings)
    }

    /// Whether the cause is a host that cannot be reached: all its photos have the same one.
    pub fn is_of_host(&self) -> bool {
        matches!(self, Self::Dns | Self::DnsFailed | Self::ConnectionRefused | Self::Unreachable)
    }

    /// Whether the photo is gone when the cause outlasts all attempts: no server is at that address any more. After
    /// other causes the photo has failed, and a person may want to look at it.
    pub fn means_gone_when_lasting(&self) -> bool {
        matches!(self, Self::Dns | Self::ConnectionRefused | Self::Unreachable)
    }
}

impl From<&str> for CauseCode {
    fn from(text: &str) -> Self {
        if let Some((code, _)) = FIXED.iter().find(|(_, fixed)| *fixed == text) {
            return code.clone();
        }
        let status = text.strip_prefix("http-").and_then(|digits| digits.parse().ok()).map(Self::Http);
        // `http-0404` is not what this program writes: it keeps its spelling.
        status.filter(|status| status.as_str() == text).unwrap_or_else(|| Self::Other(text.to_owned()))
    }
}

impl From<String> for CauseCode {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl fmt::Display for CauseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.as_str())
    }
}

impl Serialize for CauseCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.as_str())
    }
}

impl<'de> Deserialize<'de> for CauseCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(String::deserialize(deserializer)?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_details_are_clipped_at_a_character() {
        let cause = Cause::new(CauseCode::Http(500), "é".repeat(400));
        assert!(cause.detail.len() <= Cause::MAX_DETAIL + '…'.len_utf8());
        assert!(cause.detail.ends_with('…'));
    }

    #[test]
    fn a_cause_without_a_detail_is_its_code() {
        assert_eq!(Cause::new(CauseCode::Http(404), "gone").to_string(), "http-404: gone");
        assert_eq!(Cause::new(CauseCode::Http(404), "").to_string(), "http-404");
    }

    #[test]
    fn codes_read_back_as_they_were_written() {
        let fixed = FIXED.iter().map(|(code, text)| (code.clone(), *text));
        let others = [(CauseCode::Http(404), "http-404"), (CauseCode::Other("http-0404".into()), "http-0404")];
        let foreign = (CauseCode::Other("moon-phase".into()), "moon-phase");
        for (code, text) in fixed.chain(others).chain([foreign]) {
            assert_eq!(CauseCode::from(text), code, "{text}");
            assert_eq!(code.to_string(), text);
            assert_eq!(serde_json::from_str::<CauseCode>(&serde_json::to_string(&code).unwrap()).unwrap(), code);
        }
    }
}
