//! The bucket, and how to reach it.

use std::str::FromStr;
use std::time::Duration;

use aws_types::SdkConfig;
use aws_types::service_config::ServiceConfigKey;

use super::credentials::{Credentials, GivenService, find_config};

/// The bucket, and how to reach it.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// `http(s)://host:port` of the service. None: Amazon's service in the region.
    pub endpoint: Option<String>,
    pub region: String,
    pub bucket: String,
    /// Starts every key: empty, or text that ends with `/`. [`Prefix`] parses user input.
    pub prefix: String,
    /// `host/bucket/key` instead of `bucket.host/key`. Most services other than Amazon's need it.
    pub path_style: bool,
    pub credentials: Credentials,
    pub timeouts: Timeouts,
}

/// The start of all keys: empty, or folders with a `/` at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefix(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key prefix is folders like `team/faces` of letters, digits and -_.=, at most 200 characters")]
pub struct BadPrefix;

impl Prefix {
    const LONGEST: usize = 200;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Prefix {
    type Err = BadPrefix;

    /// The last `/` is optional.
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

/// Limits on the time to wait for the service.
#[derive(Debug, Clone)]
pub struct Timeouts {
    pub connect: Duration,
    /// For one attempt.
    pub attempt: Duration,
    /// For all attempts together.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(3), attempt: seconds(10), total: seconds(30) }
    }
}

impl S3Settings {
    pub const REGION: &'static str = "us-east-1";

    pub fn new(bucket: impl Into<String>, credentials: Credentials) -> Self {
        Self {
            endpoint: None,
            region: Self::REGION.into(),
            bucket: bucket.into(),
            prefix: String::new(),
            path_style: false,
            credentials,
            timeouts: Timeouts::default(),
        }
    }

    /// Settings with what is given; the rest as Amazon's SDKs find it. Reads variables and files, and connects to
    /// nothing: a machine without a metadata service does not wait for one.
    ///
    /// # Errors
    /// A profile file cannot be parsed, or it lacks the profile that `AWS_PROFILE` names.
    pub fn complete(bucket: impl Into<String>, given: GivenService) -> Result<Self, String> {
        // Nothing here waits for a network, so a caller need not be asynchronous.
        let found = futures::executor::block_on(tokio::task::unconstrained(find_config(&given, Self::REGION)))?;
        let endpoint = given.endpoint.or_else(|| endpoint_of(&found));
        check_endpoint(endpoint.as_deref())?;
        let credentials = match (given.keys, found.credentials_provider()) {
            (Some(keys), _) => Credentials::Keys(keys),
            (None, Some(provider)) => Credentials::Found(provider),
            (None, None) => return Err("the AWS SDK offers no credentials".into()),
        };
        Ok(Self {
            region: found.region().map_or_else(|| Self::REGION.to_owned(), ToString::to_string),
            path_style: endpoint.is_some(),
            endpoint,
            ..Self::new(bucket, credentials)
        })
    }
}

fn check_endpoint(endpoint: Option<&str>) -> Result<(), String> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    match url::Url::parse(endpoint) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(()),
        // The text is left out: it may contain a password.
        _ => Err("the address of the S3 service is no URL: write http://host:port or https://host".into()),
    }
}

/// Whether `name` can be the name of a bucket, and is not the address of one.
///
/// # Errors
/// With the name that was most likely meant.
pub fn check_bucket(name: &str) -> Result<(), String> {
    let (scheme, path) = name.split_once("://").unwrap_or_default();
    let fault = format!("`{name}` is no name of a bucket");
    // An address may have its bucket in the host's name or in the path.
    if matches!(scheme, "http" | "https") {
        return Err(format!("{fault}: --s3-endpoint takes the address of the service, and --bucket only the name"));
    }
    let bare = if scheme.is_empty() { name } else { path }.split('/').next().unwrap_or_default();
    match bare == name && !name.is_empty() {
        true => Ok(()),
        false => Err(format!("{fault}: write `{bare}`; --s3-prefix names a folder in it")),
    }
}

/// `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` or the profile's.
fn endpoint_of(found: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let of_s3 = key.ok().and_then(|key| found.service_config()?.load_config(key));
    of_s3.or_else(|| found.endpoint_url().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_with_a_slash() {
        for (given, expected) in [("", ""), ("/", ""), ("a", "a/"), ("a/", "a/"), ("team-1/x_2.y=z", "team-1/x_2.y=z/")]
        {
            assert_eq!(given.parse::<Prefix>().unwrap().as_str(), expected);
        }
        for bad in ["/a", "a//b", "a//", "..", "a/../b", "a b", "ä", &"x".repeat(201)] {
            assert_eq!(bad.parse::<Prefix>(), Err(BadPrefix), "{bad}");
        }
    }

    #[test]
    fn a_bucket_is_named_without_an_address() {
        for good in ["faces", "faces.example"] {
            check_bucket(good).unwrap();
        }
        for (bad, hint) in [
            ("", "write ``"),
            ("s3://faces", "write `faces`"),
            ("s3://faces/a/b", "write `faces`"),
            ("faces/a", "write `faces`"),
            ("http://127.0.0.1:9000/faces", "--s3-endpoint takes the address"),
            ("https://faces.s3.amazonaws.com/", "--s3-endpoint takes the address"),
        ] {
            let fault = check_bucket(bad).unwrap_err();
            assert!(fault.starts_with(&format!("`{bad}` is no name of a bucket: ")) && fault.contains(hint), "{fault}");
        }
    }
}
