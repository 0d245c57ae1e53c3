//! The keys of the bucket: given ones, or those that Amazon's SDKs find in the environment, in profile files, by web
//! identity, or from the metadata of a container or an instance. Region and address are found in the same places.

use std::error::Error;
use std::fmt;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::{BehaviorVersion, Credentials as SdkCredentials, Region, SharedHttpClient};
use aws_sdk_s3::error::ErrorMetadata;
use aws_smithy_http_client::tls;
use aws_types::SdkConfig;

use crate::error_chain::{find, innermost, reason};

/// Given keys. `Debug` shows only the id of the access key.
#[derive(Clone)]
pub struct Keys {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

impl Keys {
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, for temporary keys, `AWS_SESSION_TOKEN`. None: neither key is
    /// given.
    ///
    /// # Errors
    /// Only one of the keys is given.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let get = |name| get(name).filter(|value| !value.is_empty());
        match (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")) {
            (Some(access_key_id), Some(secret_access_key)) => {
                Ok(Some(Self { access_key_id, secret_access_key, session_token: get("AWS_SESSION_TOKEN") }))
            }
            (None, None) => Ok(None),
            (Some(_), None) => Err("AWS_SECRET_ACCESS_KEY: missing beside AWS_ACCESS_KEY_ID".into()),
            (None, Some(_)) => Err("AWS_ACCESS_KEY_ID: missing beside AWS_SECRET_ACCESS_KEY".into()),
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access key {}", self.access_key_id)
    }
}

/// Where the keys of a bucket come from.
#[derive(Debug, Clone)]
pub enum Credentials {
    Keys(Keys),
    /// As Amazon's SDKs find them. They are looked up at the first request, and again before they expire.
    Found(SharedCredentialsProvider),
}

impl Credentials {
    pub(super) fn provider(self) -> SharedCredentialsProvider {
        match self {
            Self::Keys(Keys { access_key_id, secret_access_key, session_token }) => SharedCredentialsProvider::new(
                SdkCredentials::new(access_key_id, secret_access_key, session_token, None, "settings"),
            ),
            Self::Found(provider) => provider,
        }
    }
}

/// What the settings of this program say about the service.
#[derive(Debug, Clone, Default)]
pub struct GivenService {
    pub keys: Option<Keys>,
    pub region: Option<String>,
    pub endpoint: Option<String>,
}

/// The variables that Amazon's SDK reads itself.
pub const VARIABLES: [&str; 20] = [
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

/// What Amazon's SDKs find beside what is given. The region is `region` if nothing names another one.
///
/// # Errors
/// A profile file cannot be parsed, or it lacks the profile that `AWS_PROFILE` names.
pub(super) async fn find_config(given: &GivenService, region: &'static str) -> Result<SdkConfig, String> {
    let region_chain = RegionProviderChain::first_try(given.region.clone().map(Region::new))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new())
        .or_else(Region::new(region));
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).region(region_chain);
    if given.keys.is_some() {
        return Ok(loader.no_credentials().load().await);
    }
    check_profile().await?;
    Ok(loader.http_client(http_client()).load().await)
}

/// Without this check, the SDK would leave out a profile that does not exist, and ask a metadata service.
async fn check_profile() -> Result<(), String> {
    let (fs, env, files) = Default::default();
    let profiles = aws_config::profile::load(&fs, &env, &files, None).await;
    let profiles = profiles.map_err(|error| format!("the AWS profiles cannot be read: {}", innermost(&error)))?;
    match std::env::var("AWS_PROFILE") {
        Ok(name) if profiles.get_profile(&name).is_none() => {
            Err(format!("AWS_PROFILE: there is no profile `{name}` in ~/.aws/config or ~/.aws/credentials"))
        }
        _ => Ok(()),
    }
}

pub(super) fn http_client() -> SharedHttpClient {
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    aws_smithy_http_client::Builder::new().tls_provider(provider).build_https()
}

/// Why there are no keys, and whether another attempt may find some. None: the error is of another kind.
pub(super) fn explain_missing(error: &(dyn Error + 'static)) -> Option<(String, bool)> {
    let problem = find::<CredentialsError>(error)?;
    let said = match (problem, find::<ErrorMetadata>(problem)) {
        (CredentialsError::CredentialsNotLoaded(_), _) => {
            let said = "there are no keys for the bucket: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                        AWS_PROFILE, or give this machine or pod a role";
            return Some((said.into(), false));
        }
        (CredentialsError::ProviderTimedOut(_), _) => "no answer in time".into(),
        (_, Some(answer)) => {
            format!("{} ({})", answer.message().unwrap_or("no reason is given"), answer.code().unwrap_or("-"))
        }
        _ => match reason(problem) {
            // Signing in through a browser is left out at compile time.
            left_out if left_out.contains("cargo feature") => {
                "the AWS profile asks for a way to sign in that facemill does not have: export its keys with `aws \
                 configure export-credentials --format env`"
                    .into()
            }
            expired if expired.starts_with("ExpiredToken") => "the token of the web identity has expired".into(),
            said => said,
        },
    };
    let is_temporary = !matches!(problem, CredentialsError::InvalidConfiguration(_));
    Some((format!("cannot get keys for the bucket: {said}"), is_temporary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_from_the_environment() {
        let get = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("a".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("b".to_owned()),
            _ => Some(String::new()),
        };
        let keys = Keys::from_env(get).unwrap().unwrap();
        assert_eq!((keys.access_key_id.as_str(), keys.session_token), ("a", None));
        assert!(Keys::from_env(|_| None).unwrap().is_none());
        let half = |name: &str| (name == "AWS_ACCESS_KEY_ID").then(|| "a".to_owned());
        assert!(Keys::from_env(half).unwrap_err().starts_with("AWS_SECRET_ACCESS_KEY"));
    }
}
