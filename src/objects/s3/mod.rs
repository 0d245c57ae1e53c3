//! The object store as a bucket of an S3 service.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::{ObjectError, ObjectKey, Objects, Page, PutIfAbsent, Swap, Version, nonce};
use crate::domain::StoredUrl;
use crate::error_chain::{find, reason};
use crate::retry::Backoff;
use crate::server_error::ServerError;

mod credentials;
mod photos;
mod settings;
mod upload;

pub use credentials::{Credentials, GivenService, Keys, VARIABLES};
pub use photos::Names;
pub use settings::{BadPrefix, Prefix, S3Settings, Timeouts, check_bucket};
pub use upload::Upload;

use credentials::{explain_missing, http_client};

/// Objects of one bucket. Clones share the connections.
#[derive(Clone)]
pub struct S3 {
    client: Client,
    bucket: String,
    prefix: String,
    /// The bucket's name in messages.
    name: String,
    /// The service's name in messages.
    place: String,
    /// Limit on the time to read a whole object, or to wait for the next part of a download.
    total: Duration,
}

impl S3 {
    /// The name of the bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// In bytes. An original has at most 30 MB; this program writes no larger object.
    const MAX_OBJECT: usize = 64 << 20;
    const ATTEMPTS: u32 = 3;
    /// The largest page that a service lists.
    const MAX_LISTED: usize = 1000;
    /// Attempts at a conditional write while the service answers that another one is in progress.
    const CONDITIONAL_ATTEMPTS: u32 = 8;
    /// The first and the longest back-off between such attempts.
    const CONDITIONAL_BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(3));
    /// The metadata entry of a link: the URL of the photo.
    const LINK: &'static str = "facemill-links-to";
    /// The metadata entry that tells whose write an object is.
    const WRITER: &'static str = "facemill-write";

    /// Connects on the first call.
    pub fn new(settings: S3Settings) -> Self {
        let S3Settings { endpoint, region, bucket, prefix, path_style, credentials, timeouts } = settings;
        let (place, name) = match endpoint.as_deref().map(without_login) {
            Some(endpoint) => (endpoint.clone(), format!("bucket {bucket} at {endpoint}")),
            None => (format!("Amazon S3 in {region}"), format!("bucket {bucket} in {region}")),
        };
        let limits = TimeoutConfig::builder()
            .connect_timeout(timeouts.connect)
            .read_timeout(timeouts.attempt)
            .operation_attempt_timeout(timeouts.attempt)
            .operation_timeout(timeouts.total)
            .build();
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(http_client())
            .credentials_provider(credentials.provider())
            .region(Region::new(region))
            .force_path_style(path_style)
            .timeout_config(limits)
            .retry_config(RetryConfig::standard().with_max_attempts(Self::ATTEMPTS));
        config.set_endpoint_url(endpoint);
        Self { client: Client::from_conf(config.build()), bucket, prefix, name, place, total: timeouts.total }
    }

    /// The bucket's name and address for messages, without credentials.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// [`S3::name`] with the prefix of the keys.
    pub fn full_name(&self) -> String {
        format!("{} {}", self.name, self.prefix)
    }

    /// Another bucket of the same service with the same credentials, without a prefix.
    pub fn in_bucket(&self, bucket: &str) -> Self {
        let place = self.name.strip_prefix(&format!("bucket {}", self.bucket)).unwrap_or_default();
        let name = format!("bucket {bucket}{place}");
        Self { bucket: bucket.into(), prefix: String::new(), name, ..self.clone() }
    }

    /// Starts the download of an object of any size. `key` is used as it is, without the prefix.
    pub async fn download(&self, key: &str) -> Result<Download, ObjectError> {
        let object = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => object,
            Err(error) if error.code() == Some("NoSuchKey") => {
                return Err(self.refused(format!("read {key}"), "the object does not exist"));
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

    fn put_request(&self, key: &str, body: Bytes, media_type: &str) -> PutObjectFluentBuilder {
        let request = self.client.put_object().bucket(&self.bucket).key(key);
        request
            .content_type(media_type)
            .content_length(body.len() as i64)
            .checksum_sha256(BASE64.encode(Sha256::digest(&body)))
            .body(ByteStream::from(body))
    }

    async fn write(&self, key: &str, body: Bytes, media_type: &str) -> Result<(), ObjectError> {
        let put = self.put_request(key, body, media_type).send().await;
        put.map(drop).map_err(|error| self.failure(format!("write {key}"), &error))
    }

    /// Writes an object if the condition holds. False: it does not hold, and the object is unchanged.
    ///
    /// The client repeats a request whose answer was lost. If the lost request wrote the object, the service refuses
    /// the repetition. A random mark on the object then shows that this call wrote it.
    async fn write_if(&self, condition: &If, key: &str, body: Bytes, media_type: &str) -> Result<bool, ObjectError> {
        let mark = format!("{:x}", nonce());
        if self.try_write_if(condition, key, body, media_type, &mark).await? {
            return Ok(true);
        }
        let present = self.head(key).await?;
        let written_by = present.as_ref().and_then(|present| present.metadata()?.get(Self::WRITER));
        Ok(written_by == Some(&mark))
    }

    /// False: the service refuses the write, or this call wrote the object and the answer was lost.
    async fn try_write_if(
        &self,
        condition: &If,
        key: &str,
        body: Bytes,
        media_type: &str,
        mark: &str,
    ) -> Result<bool, ObjectError> {
        let mut backoff = Backoff::new(Self::CONDITIONAL_BACKOFF.0, Self::CONDITIONAL_BACKOFF.1);
        loop {
            let request = self.put_request(key, body.clone(), media_type);
            let request = request.set_metadata((!mark.is_empty()).then(|| [(Self::WRITER.into(), mark.into())].into()));
            let request = match condition {
                If::Absent => request.if_none_match("*"),
                If::Has(version) => request.if_match(version.as_str()),
            };
            let Err(error) = request.send().await else { return Ok(true) };
            match status(&error) {
                Some(412) => return Ok(false),
                Some(404) if matches!(condition, If::Has(_)) && error.code() != Some("NoSuchBucket") => {
                    return Ok(false);
                }
                // Another conditional write of this key is in progress.
                Some(409) if backoff.failures() + 1 < Self::CONDITIONAL_ATTEMPTS => {
                    tokio::time::sleep(backoff.next_wait()).await;
                }
                _ => return Err(self.failure(format!("write {key}"), &error)),
            }
        }
    }

    /// None: the object does not exist.
    async fn head(&self, key: &str) -> Result<Option<HeadObjectOutput>, ObjectError> {
        match self.client.head_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => Ok(Some(object)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(self.failure(format!("look for {key}"), &error)),
        }
    }

    /// None: the object does not exist.
    async fn read(&self, key: &str) -> Result<Option<ReadObject>, ObjectError> {
        let what = || format!("read {key}");
        let object = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(object) => object,
            Err(error) if error.code() == Some("NoSuchKey") => return Ok(None),
            Err(error) => return Err(self.failure(what(), &error)),
        };
        let expected = usize::try_from(object.content_length().unwrap_or_default()).unwrap_or_default();
        let tag = object.e_tag().map(str::to_owned);
        let link = object.metadata().and_then(|metadata| metadata.get(Self::LINK)).cloned();
        let mut stream = object.body;
        let whole = async {
            let mut body = BytesMut::with_capacity(expected.min(Self::MAX_OBJECT));
            while let Some(part) = stream.next().await {
                let part = part.map_err(|error| self.unavailable(what(), reason(&error)))?;
                if body.len() + part.len() > Self::MAX_OBJECT {
                    return Err(self.refused(what(), "it is larger than any object that facemill writes"));
                }
                body.extend_from_slice(&part);
            }
            Ok(body.freeze())
        };
        match tokio::time::timeout(self.total, whole).await {
            Ok(body) => Ok(Some(ReadObject { body: body?, tag, link })),
            Err(_) => Err(self.unavailable(what(), format_args!("it takes longer than {:?}", self.total))),
        }
    }

    /// Succeeds also when the object does not exist.
    async fn remove(&self, key: &str) -> Result<(), ObjectError> {
        match self.client.delete_object().bucket(&self.bucket).key(key).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("NoSuchKey") => Ok(()),
            Err(error) => Err(self.failure(format!("delete {key}"), &error)),
        }
    }

    fn unavailable(&self, what: String, detail: impl fmt::Display) -> ObjectError {
        let detail = format!("{}: {detail}", self.name);
        ServerError::Unavailable { what: format!("cannot {what}"), detail }.into()
    }

    fn refused(&self, what: String, detail: impl fmt::Display) -> ObjectError {
        let detail = format!("{}: {detail}", self.name);
        ServerError::Refused { what: format!("cannot {what}"), detail }.into()
    }

    fn failure<E>(&self, what: String, error: &SdkError<E>) -> ObjectError
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        match explain_missing(error) {
            Some((said, true)) => return self.unavailable(what, said),
            Some((said, false)) => return self.refused(what, said),
            None => {}
        }
        match explain(error.code(), status(error)) {
            Some(said) => self.refused(what, said),
            None => match error {
                SdkError::ConstructionFailure(_) => self.refused(what, reason(error)),
                SdkError::ServiceError(answer) if (400..500).contains(&answer.raw().status().as_u16()) => {
                    let status = answer.raw().status().as_u16();
                    let said = error.message().unwrap_or("no reason is given");
                    match status {
                        // Slow client, conflict with another writer, too many requests.
                        408 | 409 | 425 | 429 => self.unavailable(what, said),
                        _ => self.refused(what, format_args!("{said} ({status} {})", error.code().unwrap_or("-"))),
                    }
                }
                SdkError::ServiceError(answer) => {
                    let code = error.code().unwrap_or("-");
                    let status = answer.raw().status().as_u16();
                    self.unavailable(what, format_args!("the service reports an internal error ({status} {code})"))
                }
                SdkError::TimeoutError(_) => self.unavailable(what, "no answer in time"),
                SdkError::DispatchFailure(failure) if !failure.is_timeout() => {
                    let what = format!("cannot reach {}", self.place);
                    let detail = reason(error);
                    match find::<rustls::Error>(error) {
                        Some(_) => ServerError::Refused { what, detail }.into(),
                        None => ServerError::Unavailable { what, detail }.into(),
                    }
                }
                _ => self.unavailable(what, reason(error)),
            },
        }
    }
}

/// An object that was read.
struct ReadObject {
    body: Bytes,
    /// The ETag, if the service sends it.
    tag: Option<String>,
    /// The URL of the photo that the object links to.
    link: Option<String>,
}

/// An object that is read part by part. After a broken connection the download resumes where it stopped, if the object
/// is unchanged.
pub struct Download {
    s3: S3,
    key: String,
    /// The ETag. Without one a download cannot resume.
    version: Option<String>,
    /// The size in bytes, if the service sends it.
    pub total: Option<u64>,
    read: u64,
    body: ByteStream,
}

impl Download {
    const ATTEMPTS: u32 = 5;
    /// The first and the longest back-off.
    const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

    /// The next part. None: the object is complete.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ObjectError> {
        let mut backoff = Backoff::new(Self::BACKOFF.0, Self::BACKOFF.1);
        loop {
            let error = match self.try_next().await {
                Ok(part) => {
                    self.read += part.as_ref().map_or(0, Bytes::len) as u64;
                    return Ok(part);
                }
                Err(error) => error,
            };
            if backoff.failures() + 1 == Self::ATTEMPTS || self.version.is_none() {
                return Err(error);
            }
            tokio::time::sleep(backoff.next_wait()).await;
            match self.resume().await {
                Err(error) if error.is_retryable() => {}
                other => other?,
            }
        }
    }

    async fn try_next(&mut self) -> Result<Option<Bytes>, ObjectError> {
        let what = || format!("read {}", self.key);
        match tokio::time::timeout(self.s3.total, self.body.next()).await {
            Err(_) => Err(self.s3.unavailable(what(), format_args!("no data for {:?}", self.s3.total))),
            Ok(Some(Err(error))) => Err(self.s3.unavailable(what(), reason(&error))),
            Ok(None) if self.total.is_some_and(|total| self.read < total) => {
                Err(self.s3.unavailable(what(), format_args!("the connection ended after {} bytes", self.read)))
            }
            Ok(Some(Ok(part))) => Ok(Some(part)),
            Ok(None) => Ok(None),
        }
    }

    async fn resume(&mut self) -> Result<(), ObjectError> {
        let rest = self.s3.client.get_object().bucket(&self.s3.bucket).key(&self.key);
        let rest = rest.range(format!("bytes={}-", self.read)).set_if_match(self.version.clone());
        let object = rest.send().await.map_err(|error| {
            let what = format!("resume {} after {} bytes", self.key, self.read);
            match status(&error) {
                Some(412) => self.s3.refused(what, "the object has changed meanwhile"),
                _ => self.s3.failure(what, &error),
            }
        })?;
        // A service without ranges starts at the beginning.
        if self.read > 0 && object.content_range().is_none() {
            let what = format!("resume {} after {} bytes", self.key, self.read);
            return Err(self.s3.refused(what, "the service sends whole objects only"));
        }
        self.body = object.body;
        Ok(())
    }
}

/// Reads a [`Download`] outside the async threads.
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
            // The kind lets the caller tell a lost connection from damaged content.
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

/// Explains an error that lasts until a person acts. None: the error may be temporary.
fn explain(code: Option<&str>, status: Option<u16>) -> Option<&'static str> {
    Some(match (code.unwrap_or_default(), status) {
        ("NoSuchBucket", _) => "the bucket does not exist: create it, or name another one",
        ("InvalidAccessKeyId" | "InvalidClientTokenId", _) => "the service does not know this access key",
        ("SignatureDoesNotMatch", _) => "the secret key does not belong to the access key",
        ("ExpiredToken" | "ExpiredTokenException", _) => "the session token has expired: get new keys",
        ("RequestTimeTooSkewed", _) => "the clock of this machine is wrong: set it",
        ("AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException", _) => {
            "the bucket is in another region: set that region"
        }
        ("AccessDenied", _) | (_, Some(401 | 403)) => "these keys have no permission to do that in this bucket",
        ("XMinioStorageFull" | "QuotaExceeded", _) => "the service has no space left",
        _ => return None,
    })
}

/// The condition of a write.
enum If {
    Absent,
    Has(Version),
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

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl Objects for S3 {
    async fn put(&self, key: &ObjectKey, body: Bytes, media_type: &str) -> Result<bool, ObjectError> {
        let full = self.full(key);
        if key.is_content_addressed() {
            // Whoever wrote it, the content is the same: no mark is needed.
            let was_absent = self.try_write_if(&If::Absent, &full, body.clone(), media_type, "").await?;
            // Only an original can be a link.
            if was_absent || !key.is_original() || self.is_intact(key).await? {
                return Ok(was_absent);
            }
        }
        self.write(&full, body, media_type).await?;
        Ok(true)
    }

    async fn put_if_absent(&self, key: &ObjectKey, body: Bytes, media_type: &str) -> Result<PutIfAbsent, ObjectError> {
        Ok(match self.write_if(&If::Absent, &self.full(key), body, media_type).await? {
            true => PutIfAbsent::Created,
            false => PutIfAbsent::AlreadyThere,
        })
    }

    async fn compare_and_swap(
        &self,
        key: &ObjectKey,
        expected: &Version,
        body: Bytes,
        media_type: &str,
    ) -> Result<Swap, ObjectError> {
        Ok(match self.write_if(&If::Has(expected.clone()), &self.full(key), body, media_type).await? {
            true => Swap::Done,
            false => Swap::Conflict,
        })
    }

    fn links_to(&self, photo: &StoredUrl) -> bool {
        matches!(photo, StoredUrl::S3 { .. })
    }

    async fn link(&self, key: &ObjectKey, photo: &StoredUrl) -> Result<bool, ObjectError> {
        self.write_link(key, photo).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Bytes, ObjectError> {
        let object = self.read(&self.full(key)).await?.ok_or_else(|| ObjectError::Missing(key.clone()))?;
        match object.link {
            Some(link) if key.is_content_addressed() => self.follow(key, &link).await,
            _ => Ok(object.body),
        }
    }

    async fn get_versioned(&self, key: &ObjectKey) -> Result<(Bytes, Version), ObjectError> {
        let full = self.full(key);
        let object = self.read(&full).await?.ok_or_else(|| ObjectError::Missing(key.clone()))?;
        let ReadObject { body, tag, .. } = object;
        let tag = tag.ok_or_else(|| self.refused(format!("read {full}"), "the service sends no ETag"))?;
        Ok((body, Version::new(tag)))
    }

    async fn exists(&self, key: &ObjectKey) -> Result<bool, ObjectError> {
        let Some(object) = self.head(&self.full(key)).await? else { return Ok(false) };
        match object.metadata().and_then(|metadata| metadata.get(Self::LINK)) {
            Some(link) if key.is_content_addressed() => self.leads_to_something(key, link).await,
            _ => Ok(true),
        }
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), ObjectError> {
        self.remove(&self.full(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Page, ObjectError> {
        let full = self.full(prefix);
        let mut page = Page::default();
        let mut after = after.map(|key| self.full(key));
        loop {
            // One key more than fits shows whether the page is the last.
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

    /// Writes a probe object, reads and deletes it.
    async fn check(&self) -> Result<(), ObjectError> {
        let body = Bytes::from_static(b"facemill");
        let probe = self.full(format_args!(".check-{:x}", nonce()));
        self.write(&probe, body.clone(), "text/plain").await?;
        let read = self.read(&probe).await;
        self.remove(&probe).await?;
        match read? {
            Some(read) if read.body == body => Ok(()),
            _ => Err(self.refused(format!("read {probe}"), "the service does not return what was written")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Credentials {
        Credentials::Keys(Keys {
            access_key_id: "AKIA1".into(),
            secret_access_key: "hunter2".into(),
            session_token: Some("hunter2-token".into()),
        })
    }

    #[test]
    fn debug_and_name_show_no_secrets() {
        let settings =
            S3Settings { endpoint: Some("http://me:hunter2@127.0.0.1:1/".into()), ..S3Settings::new("b", keys()) };
        assert!(!format!("{:?} {:?}", settings.credentials, S3::new(settings.clone())).contains("hunter2"));
        assert_eq!(S3::new(settings).name(), "bucket b at http://127.0.0.1:1");
    }

    #[test]
    fn permanent_errors_are_explained() {
        assert!(explain(Some("RequestTimeTooSkewed"), Some(403)).unwrap().contains("clock"));
        assert!(explain(Some("AuthorizationHeaderMalformed"), Some(400)).unwrap().contains("region"));
        assert!(explain(None, Some(403)).is_some(), "the answer to a HEAD has no body with a code");
        for temporary in [(Some("SlowDown"), Some(503)), (Some("InternalError"), Some(500)), (None, None)] {
            assert_eq!(explain(temporary.0, temporary.1), None);
        }
    }
}
