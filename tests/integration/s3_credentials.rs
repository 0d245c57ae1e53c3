//! Keys, region and address of the bucket as Amazon's SDKs find them: a command that needs only the bucket runs with
//! one way at a time, against a real S3 service.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::any;
use facemill::web::{HttpLimits, serve as serve_http};
use support::servers::process;
use support::servers::seaweedfs::SeaweedFs;
use tokio_util::sync::CancellationToken;

/// A home folder without any setting, and a command in it.
struct Home {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Home {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// With the variables of the service's address.
    fn with_endpoint() -> Self {
        Self::new().set("AWS_ENDPOINT_URL_S3", &endpoint())
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Lists the users in the bucket: the command writes, reads and deletes a probe.
    fn outcome(&self) -> Result<(), String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
        command.args(["users", "list", "--json"]).env_clear().env("HOME", self.folder.path());
        command.env("FACEMILL_S3_BUCKET", SeaweedFs::BUCKET).env("FACEMILL_S3_PREFIX", "credentials");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        // Whatever asks Amazon's metadata service reaches nobody, at once.
        if !self.variables.iter().any(|(name, _)| name.contains("METADATA")) {
            command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9");
        }
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    }
}

fn endpoint() -> String {
    SeaweedFs::shared().settings().endpoint.unwrap()
}

fn key_lines() -> String {
    let keys = SeaweedFs::keys();
    format!("aws_access_key_id = {}\naws_secret_access_key = {}\n", keys.access_key_id, keys.secret_access_key)
}

fn with_keys(home: Home) -> Home {
    let keys = SeaweedFs::keys();
    home.set("AWS_ACCESS_KEY_ID", &keys.access_key_id).set("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key)
}

/// A server that answers every request with what `answer` makes of the path, the query, the authorization header and
/// the number of the request.
async fn serve(
    answer: impl Fn(usize, &str, &str) -> (u16, String) + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let (counted, answer) = (count.clone(), Arc::new(answer));
    let handler = move |State(count): State<Arc<AtomicUsize>>, headers: HeaderMap, body: String| {
        let authorization = headers.get("authorization").map(|value| value.to_str().unwrap()).unwrap_or_default();
        let (status, text) = answer(count.fetch_add(1, Ordering::SeqCst), authorization, &body);
        let response = (StatusCode::from_u16(status).unwrap(), text).into_response();
        async { response }
    };
    let address = serve_router(Router::new().fallback(any(handler)).with_state(counted)).await;
    (address, count)
}

/// Serves until the end of the test. Returns the address.
async fn serve_router(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let time = Duration::from_secs(9);
    let limits = HttpLimits { connections: 9, head: time, request: time, buffer: 9000 };
    tokio::spawn(async move { serve_http(listener, router, limits, CancellationToken::new()).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn address_and_keys_come_from_the_environment() {
    with_keys(Home::with_endpoint()).outcome().unwrap();
    with_keys(Home::new().set("AWS_ENDPOINT_URL", &endpoint())).outcome().unwrap();
    let [closed] = process::free_ports();
    let closed = format!("http://127.0.0.1:{closed}");
    with_keys(Home::with_endpoint().set("AWS_ENDPOINT_URL", &closed)).outcome().unwrap();
    let own = with_keys(Home::new().set("AWS_ENDPOINT_URL_S3", &closed).set("FACEMILL_S3_ENDPOINT", &endpoint()));
    own.outcome().unwrap();
    let error = with_keys(Home::new().set("AWS_ENDPOINT_URL_S3", &closed)).outcome().unwrap_err();
    assert!(error.contains(&closed) && error.contains("connection refused"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_have_keys_region_and_address() {
    let home = Home::new().set("AWS_PROFILE", "faces");
    home.file(".aws/credentials", &format!("[faces]\n{}", key_lines()));
    home.file(".aws/config", &format!("[profile faces]\nregion = eu-west-9\nendpoint_url = {}\n", endpoint()));
    home.outcome().unwrap();

    let home = Home::new();
    let services = format!(
        "[default]\nservices = local\n{}[services local]\ns3 =\n  endpoint_url = {}\n",
        key_lines(),
        endpoint()
    );
    let config = home.file("elsewhere", &services);
    home.set("AWS_CONFIG_FILE", config.to_str().unwrap()).outcome().unwrap();

    let home = Home::with_endpoint().set("AWS_PROFILE", "program");
    let keys = SeaweedFs::keys();
    let printed = serde_json::json!({
        "Version": 1, "AccessKeyId": keys.access_key_id, "SecretAccessKey": keys.secret_access_key
    });
    let printed = home.file("keys.json", &printed.to_string());
    home.file(".aws/config", &format!("[profile program]\ncredential_process = cat {}\n", printed.display()));
    let home = home.set("PATH", "/usr/bin:/bin");
    home.outcome().unwrap();

    let home = Home::with_endpoint().set("AWS_PROFILE", "browser");
    let portal =
        "sso_start_url = https://portal.test/\nsso_region = eu-west-9\nsso_account_id = 1\nsso_role_name = r\n";
    home.file(".aws/config", &format!("[profile browser]\n{portal}"));
    let error = home.outcome().unwrap_err();
    assert!(error.contains("aws configure export-credentials"), "{error}");

    let home = Home::with_endpoint().set("AWS_PROFILE", "nobody");
    home.file(".aws/config", "[profile faces]\nregion = eu-west-9\n");
    let error = home.outcome().unwrap_err();
    assert!(error.contains("AWS_PROFILE: there is no profile `nobody`"), "{error}");
    // Without an address, the region of the profile is Amazon's.
    let home = Home::new().set("AWS_PROFILE", "faces").set("AWS_DEFAULT_REGION", "eu-west-8");
    home.file(".aws/config", "[profile faces]\nregion = eu-west-9\n");
    let error = home.outcome().unwrap_err();
    assert!(error.contains("in eu-west-8"), "the environment overrides the profile: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn given_keys_override_a_profile_and_ask_no_metadata_service() {
    let (metadata, asked) = serve(|_, _, _| (500, String::new())).await;
    let home = with_keys(Home::with_endpoint()).set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata);
    home.file(".aws/credentials", "[default]\naws_access_key_id = other\naws_secret_access_key = other\n");
    home.outcome().unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 0);

    let half = Home::with_endpoint().set("AWS_ACCESS_KEY_ID", "a");
    assert!(half.outcome().unwrap_err().contains("AWS_SECRET_ACCESS_KEY: missing"));
    let error = Home::with_endpoint().outcome().unwrap_err();
    assert!(error.contains("there are no keys for the bucket") && error.contains("AWS_PROFILE"), "{error}");
}

fn sts_answer(access: &str, secret: &str) -> String {
    format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><SessionToken></SessionToken>\
         <SecretAccessKey>{secret}</SecretAccessKey><Expiration>2099-01-01T00:00:00Z</Expiration>\
         <AccessKeyId>{access}</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult>\
         </AssumeRoleWithWebIdentityResponse>"
    )
}

fn web_identity(home: Home, sts: &str, token: &Path) -> Home {
    home.set("AWS_ENDPOINT_URL_STS", sts)
        .set("AWS_ROLE_ARN", "arn:aws:iam::1:role/faces")
        .set("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_is_exchanged_for_keys() {
    let keys = SeaweedFs::keys();
    let (sts, asked) = serve(move |_, _, body| {
        let is_right = body.contains("Action=AssumeRoleWithWebIdentity") && body.contains("WebIdentityToken=the-token");
        if is_right { (200, sts_answer(&keys.access_key_id, &keys.secret_access_key)) } else { (400, body.into()) }
    })
    .await;
    let home = Home::with_endpoint();
    let token = home.file("token", "the-token");
    web_identity(home, &sts, &token).outcome().unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the keys are kept until they expire");

    let expired = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
                   <Code>ExpiredTokenException</Code><Message>Token expired</Message></Error></ErrorResponse>";
    let (sts, _) = serve(move |_, _, _| (400, expired.to_owned())).await;
    let home = Home::with_endpoint();
    let token = home.file("token", "an old token");
    let error = web_identity(home, &sts, &token).outcome().unwrap_err();
    assert!(error.contains("the token of the web identity has expired"), "{error}");
}

/// The keys of a container expire at once, and its authorization token changes with each use.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_new_keys_before_old_ones_expire() {
    let home = Home::with_endpoint();
    let token = home.file("authorization", "first");
    let file = token.clone();
    let keys = SeaweedFs::keys();
    let (address, asked) = serve(move |number, authorization, _| {
        let expected = std::fs::read_to_string(&file).unwrap();
        if authorization != expected {
            return (401, format!("{{\"message\":\"{authorization} is not {expected}\"}}"));
        }
        std::fs::write(&file, format!("token-{number}")).unwrap();
        let answer = serde_json::json!({
            "AccessKeyId": keys.access_key_id, "SecretAccessKey": keys.secret_access_key, "Token": "",
            "Expiration": "2020-01-01T00:00:00Z",
        });
        (200, answer.to_string())
    })
    .await;
    let home = home
        .set("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{address}/keys"))
        .set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().unwrap());
    home.outcome().unwrap();
    assert!(asked.load(Ordering::SeqCst) > 1, "{asked:?}");
}

/// The metadata service of an instance, version 2: a token first, then the name of the role, then its keys.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_gets_the_keys_of_its_role() {
    const TOKEN: &str = "x-aws-ec2-metadata-token";
    const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
    const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
    let answer = async |method: Method, uri: Uri, headers: HeaderMap| {
        let has_token = headers.get(TOKEN).is_some_and(|token| token == "the-token");
        match (method, uri.path().strip_prefix(ROLES)) {
            (Method::PUT, _) if uri.path() == "/latest/api/token" && headers.contains_key(TTL) => {
                ([(TTL, "21600")], "the-token").into_response()
            }
            (Method::GET, _) if !has_token => StatusCode::UNAUTHORIZED.into_response(),
            (Method::GET, Some("")) => "faces-role".into_response(),
            (Method::GET, Some("faces-role")) => {
                let keys = SeaweedFs::keys();
                let keys = serde_json::json!({
                    "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
                    "AccessKeyId": keys.access_key_id, "SecretAccessKey": keys.secret_access_key, "Token": "",
                    "Expiration": "2099-01-01T00:00:00Z",
                });
                keys.to_string().into_response()
            }
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    };
    let metadata = serve_router(Router::new().fallback(any(answer))).await;
    Home::with_endpoint().set("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata).outcome().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_session_token_says_so() {
    let expired = "<?xml version=\"1.0\"?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.\
                   </Message></Error>";
    let (service, _) = serve(move |_, _, _| (400, expired.to_owned())).await;
    let home = with_keys(Home::new().set("AWS_ENDPOINT_URL_S3", &service)).set("AWS_SESSION_TOKEN", "old");
    let error = home.outcome().unwrap_err();
    assert!(error.contains("the session token has expired"), "{error}");
}
