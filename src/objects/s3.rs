//! Objects in a bucket of an S3 service.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::tls;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::{ObjectError, ObjectKey, Objects, Page, nonce};

/// Access to the service. `Debug` shows the id of the access key only.
#[derive(Clone)]
pub struct Keys {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

impl Keys {
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, for borrowed keys, `AWS_SESSION_TOKEN`.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let get = |name| get(name).filter(|value| !value.is_empty());
        Some(Self {
            access_key_id: get("AWS_ACCESS_KEY_ID")?,
            secret_access_key: get("AWS_SECRET_ACCESS_KEY")?,
            session_token: get("AWS_SESSION_TOKEN"),
        })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access key {}", self.access_key_id)
    }
}

/// Which bucket, and how to reach it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `http(s)://host:port` of the service; none: Amazon's for the region.
    pub endpoint: Option<String>,
    pub region: String,
    pub bucket: String,
    /// Keys begin with it: empty, or ending with `/`. [`Prefix`] reads what a person writes.
    pub prefix: String,
    /// `host/bucket/key` instead of `bucket.host/key`: what most services other than Amazon's need.
    pub path_style: bool,
    pub keys: Keys,
    pub timeouts: Timeouts,
}

/// What keys begin with: nothing, or folders, with a `/` at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefix(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("begin keys with letters, digits and any of -_.=, in folders like `team/faces`; at most 200 of them")]
pub struct BadPrefix;

impl Prefix {
    const LONGEST: usize = 200;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Prefix {
    type Err = BadPrefix;

    /// With or without the last `/`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.is_empty() {
            return Ok(Self::default());
        }
        let is_plain = |letter: u8| letter.is_ascii_alphanumeric() || b"-_.=".contains(&letter);
        let is_folder = |name: &str| !["", ".", ".."].contains(&name) && name.bytes().all(is_plain);
        match text.len() <= Self::LONGEST && text.split('/').all(is_folder) {
            true => Ok(Self(format!("{text}/"))),
            false => Err(BadPrefix),
        }
    }
}

/// How long to wait for the service.
#[derive(Debug, Clone)]
pub struct Timeouts {
    pub connect: Duration,
    /// For one try.
    pub attempt: Duration,
    /// With all tries.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(3), attempt: seconds(10), total: seconds(30) }
    }
}

impl Settings {
    pub const REGION: &'static str = "us-east-1";

    pub fn new(bucket: impl Into<String>, keys: Keys) -> Self {
        Self {
            endpoint: None,
            region: Self::REGION.into(),
            bucket: bucket.into(),
            prefix: String::new(),
            path_style: false,
            keys,
            timeouts: Timeouts::default(),
        }
    }
}

/// Objects of one bucket. Clones share the connections.
#[derive(Clone)]
pub struct S3 {
    client: Client,
    bucket: String,
    prefix: String,
    /// For messages.
    name: String,
    patience: Duration,
}

impl S3 {
    /// The name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Originals are at most 30 MB; what is far beyond was not written by us.
    const MAX_OBJECT: usize = 64 << 20;
    const ATTEMPTS: u32 = 3;
    /// The most keys that a service lists at a time.
    const MAX_LISTED: usize = 1000;

    /// Connects with the first call.
    pub fn new(settings: Settings) -> Self {
        let Settings { endpoint, region, bucket, prefix, path_style, keys, timeouts } = settings;
        let name = match &endpoint {
            Some(endpoint) => format!("bucket {bucket} at {}", without_login(endpoint)),
            None => format!("bucket {bucket} in {region}"),
        };
        let Keys { access_key_id, secret_access_key, session_token } = keys;
        let credentials = Credentials::new(access_key_id, secret_access_key, session_token, None, "settings");
        let limits = TimeoutConfig::builder()
            .connect_timeout(timeouts.connect)
            .read_timeout(timeouts.attempt)
            .operation_attempt_timeout(timeouts.attempt)
            .operation_timeout(timeouts.total)
            .build();
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(http_client())
            .credentials_provider(credentials)
            .region(Region::new(region))
            .force_path_style(path_style)
            .timeout_config(limits)
            .retry_config(RetryConfig::standard().with_max_attempts(Self::ATTEMPTS));
        config.set_endpoint_url(endpoint);
        Self { client: Client::from_conf(config.build()), bucket, prefix, name, patience: timeouts.total }
    }

    /// The bucket, as messages name it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same service and keys, another bucket, no prefix.
    pub fn in_bucket(&self, bucket: &str) -> Self {
        let place = self.name.strip_prefix(&format!("bucket {}", self.bucket)).unwrap_or_default();
        let name = format!("bucket {bucket}{place}");
        Self { bucket: bucket.into(), prefix: String::new(), name, ..self.clone() }
    }

    /// Begins to read an object of any size, which may not be ours.
    pub async fn download(&self, key: &str) -> Result<Download, ObjectError> {
        let object = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => object,
            Err(error) if error.code() == Some("NoSuchKey") => {
                return Err(self.refused(format!("read {key}"), "there is no such object"));
            }
            Err(error) => return Err(self.failure(format!("read {key}"), &error)),
        };
        let total = object.content_length().and_then(|length| u64::try_from(length).ok());
        let version = object.e_tag().map(str::to_owned);
        Ok(Download { s3: self.clone(), key: key.into(), version, total, read: 0, body: object.body })
    }

    fn full(&self, key: impl fmt::Display) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Stores an object. False: it is there, and `only_new` was asked for.
    async fn write(&self, key: &str, body: Bytes, media_type: &str, only_new: bool) -> Result<bool, ObjectError> {
        let put = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_type(media_type)
            .content_length(body.len() as i64)
            .checksum_sha256(BASE64.encode(Sha256::digest(&body)))
            .set_if_none_match(only_new.then(|| "*".to_owned()))
            .body(ByteStream::from(body));
        match put.send().await {
            Ok(_) => Ok(true),
            Err(error) if only_new && status(&error) == Some(412) => Ok(false),
            Err(error) => Err(self.failure(format!("write {key}"), &error)),
        }
    }

    /// None: it is not there.
    async fn read(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        let what = || format!("read {key}");
        let object = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => object,
            Err(error) if error.code() == Some("NoSuchKey") => return Ok(None),
            Err(error) => return Err(self.failure(what(), &error)),
        };
        let expected = usize::try_from(object.content_length().unwrap_or_default()).unwrap_or_default();
        let mut stream = object.body;
        let whole = async {
            let mut body = BytesMut::with_capacity(expected.min(Self::MAX_OBJECT));
            while let Some(part) = stream.next().await {
                let part = part.map_err(|error| self.unavailable(what(), DisplayErrorContext(&error)))?;
                if body.len() + part.len() > Self::MAX_OBJECT {
                    return Err(self.refused(what(), "it is larger than any object of ours"));
                }
                body.extend_from_slice(&part);
            }
            Ok(body.freeze())
        };
        match tokio::time::timeout(self.patience, whole).await {
            Ok(body) => body.map(Some),
            Err(_) => Err(self.unavailable(what(), format_args!("it takes longer than {:?}", self.patience))),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let deleted = self.client.delete_object().bucket(&self.bucket).key(key).send().await;
        deleted.map(drop).map_err(|error| self.failure(format!("delete {key}"), &error))
    }

    fn unavailable(&self, what: String, detail: impl fmt::Display) -> ObjectError {
        ObjectError::Unavailable { what: format!("cannot {what}"), detail: format!("{}: {detail}", self.name) }
    }

    fn refused(&self, what: String, detail: impl fmt::Display) -> ObjectError {
        ObjectError::Refused { what: format!("cannot {what}"), detail: format!("{}: {detail}", self.name) }
    }

    fn failure<E>(&self, what: String, error: &SdkError<E>) -> ObjectError
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        match explain(error.code(), status(error)) {
            Some(said) => self.refused(what, said),
            None => match error {
                SdkError::ConstructionFailure(_) => self.refused(what, DisplayErrorContext(error)),
                SdkError::ServiceError(answer) if (400..500).contains(&answer.raw().status().as_u16()) => {
                    let status = answer.raw().status().as_u16();
                    let said = error.message().unwrap_or("no reason is given");
                    match status {
                        // Conflict with another writer, slow client, too many requests.
                        408 | 409 | 425 | 429 => self.unavailable(what, said),
                        _ => self.refused(what, format_args!("{said} ({status} {})", error.code().unwrap_or("-"))),
                    }
                }
                SdkError::ServiceError(answer) => {
                    let code = error.code().unwrap_or("-");
                    let status = answer.raw().status().as_u16();
                    self.unavailable(what, format_args!("the service is in trouble ({status} {code})"))
                }
                SdkError::TimeoutError(_) => self.unavailable(what, "no answer in time"),
                _ => self.unavailable(what, DisplayErrorContext(error)),
            },
        }
    }
}

/// An object that streams by. A connection that breaks is taken up again where it broke, as long as the object is the
/// same.
pub struct Download {
    s3: S3,
    key: String,
    /// The ETag; without one a broken connection is the end.
    version: Option<String>,
    /// Bytes, where the service tells.
    pub total: Option<u64>,
    read: u64,
    body: ByteStream,
}

impl Download {
    const ATTEMPTS: u32 = 5;
    const PAUSE: Duration = Duration::from_millis(500);

    /// The next part; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ObjectError> {
        let mut failed = 0;
        loop {
            let error = match self.try_next().await {
                Ok(part) => {
                    self.read += part.as_ref().map_or(0, Bytes::len) as u64;
                    return Ok(part);
                }
                Err(error) => error,
            };
            failed += 1;
            if failed == Self::ATTEMPTS || self.version.is_none() {
                return Err(error);
            }
            tokio::time::sleep(Self::PAUSE * failed).await;
            match self.go_on().await {
                Err(error) if error.is_retryable() => {}
                other => other?,
            }
        }
    }

    async fn try_next(&mut self) -> Result<Option<Bytes>, ObjectError> {
        let what = || format!("read {}", self.key);
        match tokio::time::timeout(self.s3.patience, self.body.next()).await {
            Err(_) => Err(self.s3.unavailable(what(), format_args!("nothing came for {:?}", self.s3.patience))),
            Ok(Some(Err(error))) => Err(self.s3.unavailable(what(), DisplayErrorContext(&error))),
            Ok(None) if self.total.is_some_and(|total| self.read < total) => {
                Err(self.s3.unavailable(what(), format_args!("the connection ended after {} bytes", self.read)))
            }
            Ok(Some(Ok(part))) => Ok(Some(part)),
            Ok(None) => Ok(None),
        }
    }

    async fn go_on(&mut self) -> Result<(), ObjectError> {
        let rest = self.s3.client.get_object().bucket(&self.s3.bucket).key(&self.key);
        let rest = rest.range(format!("bytes={}-", self.read)).set_if_match(self.version.clone());
        let object = rest.send().await.map_err(|error| {
            let what = format!("read on in {} after {} bytes", self.key, self.read);
            match status(&error) {
                Some(412) => self.s3.refused(what, "it has changed meanwhile"),
                _ => self.s3.failure(what, &error),
            }
        })?;
        // Who does not know ranges begins anew.
        if self.read > 0 && object.content_range().is_none() {
            let what = format!("read on in {} after {} bytes", self.key, self.read);
            return Err(self.s3.refused(what, "the service sends whole objects only"));
        }
        self.body = object.body;
        Ok(())
    }
}

/// A [`Download`] for who reads off the async threads.
pub struct Reader {
    download: Download,
    part: Bytes,
    runtime: tokio::runtime::Handle,
}

impl Reader {
    /// # Panics
    /// Outside of a runtime.
    pub fn new(download: Download) -> Self {
        Self { download, part: Bytes::new(), runtime: tokio::runtime::Handle::current() }
    }
}

impl std::io::Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        use std::io::{Error, ErrorKind};
        while self.part.is_empty() {
            // The kind tells a lost source from broken content.
            let part = self.runtime.block_on(self.download.next());
            match part.map_err(|error| Error::new(ErrorKind::ConnectionAborted, error))? {
                Some(part) => self.part = part,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.part.len());
        buffer[..count].copy_from_slice(&self.part.split_to(count));
        Ok(count)
    }
}

/// What will not pass by itself, in plain words.
fn explain(code: Option<&str>, status: Option<u16>) -> Option<&'static str> {
    Some(match (code.unwrap_or_default(), status) {
        ("NoSuchBucket", _) => "there is no such bucket: make it, or name another one",
        ("InvalidAccessKeyId" | "InvalidClientTokenId", _) => "the service does not know this access key",
        ("SignatureDoesNotMatch", _) => "the secret key does not belong to the access key",
        ("ExpiredToken" | "ExpiredTokenException", _) => "the session token has expired",
        ("RequestTimeTooSkewed", _) => "the clock of this machine is wrong: set it",
        ("AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException", _) => {
            "the bucket is in another region: name it"
        }
        ("AccessDenied", _) | (_, Some(401 | 403)) => "these keys may not do that with this bucket",
        ("XMinioStorageFull" | "QuotaExceeded", _) => "the service has no room left",
        _ => return None,
    })
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

fn without_login(endpoint: &str) -> String {
    match url::Url::parse(endpoint) {
        Ok(mut url) => {
            let _ = url.set_password(None);
            let _ = url.set_username("");
            url.to_string().trim_end_matches('/').to_owned()
        }
        Err(_) => "an unreadable endpoint".into(),
    }
}

fn http_client() -> SharedHttpClient {
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    aws_smithy_http_client::Builder::new().tls_provider(provider).build_https()
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl Objects for S3 {
    async fn put(&self, key: &ObjectKey, body: Bytes, media_type: &str) -> Result<bool, ObjectError> {
        self.write(&self.full(key), body, media_type, key.is_content_addressed()).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Bytes, ObjectError> {
        self.read(&self.full(key)).await?.ok_or_else(|| ObjectError::Missing(key.clone()))
    }

    async fn exists(&self, key: &ObjectKey) -> Result<bool, ObjectError> {
        let full = self.full(key);
        match self.client.head_object().bucket(&self.bucket).key(&full).send().await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) => Ok(false),
            Err(error) => Err(self.failure(format!("look for {full}"), &error)),
        }
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Page, ObjectError> {
        let full = self.full(prefix);
        let mut page = Page::default();
        let mut after = after.map(|key| self.full(key));
        loop {
            // One more than fits tells whether there is more.
            let wanted = (limit - page.keys.len() + 1).min(Self::MAX_LISTED);
            let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(&full);
            let request = request.set_start_after(after.clone()).max_keys(wanted as i32);
            let listed = request.send().await.map_err(|error| self.failure(format!("list {full}"), &error))?;
            let names = listed.contents().iter().filter_map(|object| object.key());
            for name in names {
                after = Some(name.to_owned());
                let Some(key) = name.strip_prefix(&self.prefix).and_then(ObjectKey::parse) else { continue };
                if page.keys.len() == limit {
                    return Ok(Page { more: true, ..page });
                }
                page.keys.push(key);
            }
            if !listed.is_truncated().unwrap_or_default() || listed.contents().is_empty() {
                return Ok(page);
            }
        }
    }

    /// Writes a probe, reads and deletes it.
    async fn check(&self) -> Result<(), ObjectError> {
        let body = Bytes::from_static(b"facemill");
        let probe = self.full(format_args!(".check-{:x}", nonce()));
        self.write(&probe, body.clone(), "text/plain", true).await?;
        let read = self.read(&probe).await;
        self.delete(&probe).await?;
        match read? {
            Some(read) if read == body => Ok(()),
            _ => Err(self.refused(format!("read {probe}"), "it does not give back what was written")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys {
            access_key_id: "AKIA1".into(),
            secret_access_key: "hunter2".into(),
            session_token: Some("hunter2-token".into()),
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let settings =
            Settings { endpoint: Some("http://me:hunter2@127.0.0.1:1/".into()), ..Settings::new("b", keys()) };
        assert!(!format!("{:?} {:?}", settings.keys, S3::new(settings.clone())).contains("hunter2"));
        assert_eq!(S3::new(settings).name(), "bucket b at http://127.0.0.1:1");
    }

    #[test]
    fn prefixes_are_folders() {
        for (told, meant) in [("", ""), ("/", ""), ("a", "a/"), ("a/", "a/"), ("team-1/x_2.y=z", "team-1/x_2.y=z/")] {
            assert_eq!(told.parse::<Prefix>().unwrap().as_str(), meant);
        }
        for bad in ["/a", "a//b", "a//", "..", "a/../b", "a b", "ä", &"x".repeat(201)] {
            assert_eq!(bad.parse::<Prefix>(), Err(BadPrefix), "{bad}");
        }
    }

    #[test]
    fn keys_come_from_the_environment() {
        let get = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("a".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("b".to_owned()),
            _ => Some(String::new()),
        };
        let keys = Keys::from_env(get).unwrap();
        assert_eq!((keys.access_key_id.as_str(), keys.session_token), ("a", None));
        assert!(Keys::from_env(|_| None).is_none());
    }

    #[test]
    fn what_does_not_pass_is_said_plainly() {
        assert!(explain(Some("RequestTimeTooSkewed"), Some(403)).unwrap().contains("clock"));
        assert!(explain(Some("AuthorizationHeaderMalformed"), Some(400)).unwrap().contains("region"));
        assert!(explain(None, Some(403)).is_some(), "a HEAD has no body to name a code in");
        for passes in [(Some("SlowDown"), Some(503)), (Some("InternalError"), Some(500)), (None, None)] {
            assert_eq!(explain(passes.0, passes.1), None);
        }
    }
}
