//! What the users of the servers must be permitted, and what is said when a server does not answer or does not suit.

use std::collections::HashSet;
use std::process::Output;

use serde_json::Value;
use support::collection::Collection;
use support::servers::process;
use support::servers::rabbitmq::{self, RabbitServer};
use support::servers::redis::RedisServer;
use support::servers::seaweedfs::SeaweedFs;

use super::ended;
use super::installation::Installation;

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

impl Installation {
    fn get(&self, name: &str) -> String {
        self.environment.iter().find(|(known, _)| *known == name).unwrap().1.clone()
    }

    fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.into()));
    }

    /// Another Redis user with these rules.
    fn use_redis_user(&mut self, server: &RedisServer, name: &str, rules: &str) {
        let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg(name).arg("on").arg(">secret").arg(rules.split(' ').collect::<Vec<_>>());
        let _: () = command.query(&mut connection).unwrap();
        self.set("FACEMILL_REDIS_URL", format!("redis://{name}:secret@127.0.0.1:{}/", server.port));
    }
}

/// Rules of docs/operations.md, for the prefix of an installation.
fn documented(rule: &str, prefix: &str) -> String {
    let text = include_str!("../../../docs/operations.md");
    assert!(text.contains(rule), "docs/operations.md lacks `{rule}`");
    rule.replace("facemill", prefix)
}

#[test]
fn the_documented_permissions_suffice_for_a_pipeline() {
    let server = RedisServer::shared();
    let mut installation = Installation::on(server);
    let prefix = installation.get("FACEMILL_PREFIX");
    let rules = documented("~facemill* &facemill* +@all -@dangerous +info", &prefix);
    installation.use_redis_user(server, &format!("user-{prefix}"), &rules);
    let pattern = documented("^facemill.*", &prefix);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        installation.rabbit.ctl(&["add_user", &prefix, "secret"]).await;
        let permit = ["set_permissions", "-p", "/", prefix.as_str(), &pattern, &pattern, &pattern];
        installation.rabbit.ctl(&permit).await;
    });
    let amqp = installation.rabbit.url_of(&prefix, "secret", "%2F");
    installation.set("FACEMILL_AMQP_URL", amqp);

    let collection = Collection::serve();
    let dump = collection.dump.to_str().unwrap();
    let doctor = installation.facemill(&["doctor"]);
    assert!(doctor.status.success(), "{}", text(&doctor));
    let candidates = installation.json(&["produce", dump])["new"].as_u64().unwrap();
    let mut worker = installation.worker(&["fetch", "detect", "crop", "classify"], &collection);
    installation.until("the end of all photos", |status| ended(status) == candidates);
    assert_eq!(worker.terminate(), Some(0));
    let audit = installation.facemill(&["audit", dump]);
    assert!(audit.status.success(), "{}", text(&audit));

    reading_needs_no_permission_to_write(&mut installation, server, dump, &collection);
    drop(installation);
}

fn reading_needs_no_permission_to_write(
    installation: &mut Installation,
    server: &RedisServer,
    dump: &str,
    collection: &Collection,
) {
    let prefix = installation.get("FACEMILL_PREFIX");
    let reader = format!("reader-{prefix}");
    let pattern = documented("`^$` for configure and write, `^facemill.*` for read", &prefix);
    let [nothing, read] = [1, 3].map(|at| pattern.split('`').nth(at).unwrap());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        installation.rabbit.ctl(&["add_user", &reader, "secret"]).await;
        installation.rabbit.ctl(&["set_permissions", "-p", "/", &reader, nothing, nothing, read]).await;
    });
    let amqp = installation.rabbit.url_of(&reader, "secret", "%2F");
    installation.set("FACEMILL_AMQP_URL", amqp);
    let rules = documented("~facemill* &facemill* +@read +@connection +@scripting +@transaction +info +time", &prefix);
    installation.use_redis_user(server, &format!("reader-{prefix}"), &rules);
    let (access, secret) = SeaweedFs::READER;
    installation.set("AWS_ACCESS_KEY_ID", access);
    installation.set("AWS_SECRET_ACCESS_KEY", secret);
    let scratch = tempfile::tempdir().unwrap();
    let (report, photo) = (scratch.path().to_str().unwrap(), collection.id_of("/broken.jpg").to_string());
    for arguments in [&["status"][..], &["why", &photo], &["audit", dump], &["report", "--to", report]] {
        let output = installation.facemill(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    }
    let retried = installation.facemill(&["retry", "--photo", &photo]);
    assert!(!retried.status.success(), "the permissions are for reading only: {}", text(&retried));
}

#[test]
fn status_answers_with_what_it_can_reach() {
    let mut installation = Installation::new();
    let collection = Collection::serve();
    let produced = installation.json(&["produce", collection.dump.to_str().unwrap()])["new"].clone();
    let [closed] = process::free_ports();
    let status = |installation: &Installation| {
        let output = installation.facemill(&["status", "--json"]);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let line_of_fetch = |installation: &Installation| {
        let printed = text(&installation.facemill(&["status"]));
        let line = printed.lines().find(|line| line.starts_with("fetch ")).unwrap();
        (line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>(), printed)
    };
    let (rabbit, redis) = (installation.get("FACEMILL_AMQP_URL"), installation.get("FACEMILL_REDIS_URL"));
    installation.set("FACEMILL_AMQP_URL", format!("amqp://a:hunter2@127.0.0.1:{closed}/"));
    let without_rabbitmq = status(&installation);
    assert_eq!(without_rabbitmq["candidates"], produced);
    let fault = without_rabbitmq["missing"]["queues"].as_str().unwrap();
    assert!(fault.starts_with("cannot reach RabbitMQ at ") && fault.ends_with(": connection refused"), "{fault}");
    let (line, printed) = line_of_fetch(&installation);
    assert_eq!(line[..5], ["?", "?", "?", "0", "0"], "{printed}");
    assert!(printed.contains(" not ended") && !printed.contains("dead letter"), "{printed}");

    installation.set("FACEMILL_AMQP_URL", rabbit);
    installation.set("FACEMILL_REDIS_URL", format!("redis://:hunter2@127.0.0.1:{closed}/"));
    let without_redis = status(&installation);
    assert_eq!(without_redis["stages"]["fetch"]["ready"], produced);
    let fault = without_redis["missing"]["photos"].as_str().unwrap();
    assert_eq!(fault, format!("cannot reach redis at 127.0.0.1:{closed}/0: connection refused"));
    let (line, printed) = line_of_fetch(&installation);
    assert_eq!(line[1..5], ["0", "0", "?", "?"], "{printed}");
    assert!(!printed.contains(" not ended") && !printed.contains("no workers\n"), "{printed}");

    installation.set("FACEMILL_REDIS_URL", redis);
    installation.set("FACEMILL_S3_ENDPOINT", format!("http://127.0.0.1:{closed}"));
    let fault = status(&installation)["missing"]["rescores"].as_str().unwrap().to_owned();
    assert_eq!(fault, format!("cannot reach http://127.0.0.1:{closed}: connection refused"));
}

/// Whether the checks of RabbitMQ, Redis and S3 pass, with what they say.
fn checks(installation: &Installation) -> [(bool, String); 3] {
    let output = installation.facemill(&["doctor", "--json"]);
    let checks: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    ["rabbitmq", "redis", "s3"].map(|server| {
        let mut checks = checks.as_array().unwrap().iter();
        let check = checks.find(|check| check["name"] == server).unwrap();
        (check["ok"].as_bool().unwrap(), check["detail"].as_str().unwrap().to_owned())
    })
}

#[test]
fn doctor_fails_a_redis_that_forgets() {
    for (settings, fault) in [
        (&["--appendfsync", "everysec"][..], "appendfsync everysec"),
        (&["--appendonly", "no"], "set appendonly yes"),
        (&["--maxmemory-policy", "volatile-lru"], "set maxmemory-policy noeviction"),
    ] {
        let server = RedisServer::start(settings);
        let [_, (is_ok, detail), _] = checks(&Installation::on(&server));
        assert!(!is_ok && detail.contains(fault), "{settings:?}: {detail}");
    }
}

#[test]
fn doctor_checks_each_server_whatever_is_wrong_with_the_others() {
    let mut installation = Installation::new();
    let bucket = installation.get("FACEMILL_S3_BUCKET");
    installation.set("FACEMILL_S3_BUCKET", format!("s3://{bucket}/faces"));
    installation.set("FACEMILL_AMQP_URL", "amqp://me:pa/ss@127.0.0.1/");
    let [rabbitmq, redis, s3] = checks(&installation);
    assert!(!s3.0 && s3.1.contains(&format!("write `{bucket}`")), "{s3:?}");
    assert!(!rabbitmq.0 && rabbitmq.1.contains("write `/` as %2F") && !rabbitmq.1.contains("pa/ss"), "{rabbitmq:?}");
    assert!(redis.0, "{redis:?}");

    installation.set("FACEMILL_S3_BUCKET", bucket);
    installation.set("FACEMILL_S3_ENDPOINT", "127.0.0.1:8333");
    let url = installation.get("FACEMILL_REDIS_URL");
    installation.set("FACEMILL_REDIS_URL", format!("{url}99"));
    // Too long for DNS, so that no name server is contacted.
    installation.set("FACEMILL_AMQP_URL", format!("amqp://{}.test/", "x".repeat(70)));
    let [rabbitmq, redis, s3] = checks(&installation);
    assert!(!s3.0 && s3.1.contains("write http://host:port"), "{s3:?}");
    assert!(!redis.0 && redis.1.contains("there is no such database"), "{redis:?}");
    assert!(!rabbitmq.0 && rabbitmq.1.ends_with(": the host name is not known"), "{rabbitmq:?}");
}

#[test]
fn doctor_fails_a_rabbitmq_without_quorum_queues() {
    let server = RabbitServer::without_quorum_queues();
    let mut installation = Installation::new();
    installation.set("FACEMILL_AMQP_URL", server.url());
    let [(is_ok, detail), ..] = checks(&installation);
    assert!(!is_ok && detail.contains("the corresponding feature flag is disabled"), "{detail}");
    assert!(detail.contains("facemill needs quorum queues: RabbitMQ 3.8 or later"), "{detail}");
}

/// PEM files of an authority that nobody knows, and of a certificate for `localhost` that it signed.
struct Certificates {
    authority: String,
    certificate: String,
    key: String,
    _folder: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let [authority_key, key] = [(); 2].map(|()| rcgen::KeyPair::generate().unwrap());
        let issuer = rcgen::Issuer::from_params(&authority, &authority_key);
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        Self {
            authority: file("ca.pem", authority.self_signed(&authority_key).unwrap().pem()),
            certificate: file("server.pem", certificate.signed_by(&key, &issuer).unwrap().pem()),
            key: file("server.key", key.serialize_pem()),
            _folder: folder,
        }
    }
}

const UNKNOWN_AUTHORITY: &str = "its authority is not trusted here: SSL_CERT_FILE names a file";

#[test]
fn an_unknown_authority_of_rabbitmq_is_told_with_its_remedy() {
    let certificates = Certificates::new();
    let (server, port) = RabbitServer::with_tls(&certificates.certificate, &certificates.key);
    let mut installation = Installation::new();
    let url = server.url().replace("amqp:", "amqps:").replace(&server.port().to_string(), &port.to_string());
    installation.set("FACEMILL_AMQP_URL", url.replace("127.0.0.1", "localhost"));
    let [(is_ok, detail), ..] = checks(&installation);
    assert!(!is_ok && detail.contains(UNKNOWN_AUTHORITY), "{detail}");
    installation.set("SSL_CERT_FILE", &certificates.authority);
    let [(is_ok, detail), ..] = checks(&installation);
    assert!(is_ok, "{detail}");
    installation.set("FACEMILL_AMQP_URL", url);
    let [(is_ok, detail), ..] = checks(&installation);
    assert!(!is_ok && detail.contains("the certificate is for another name"), "{detail}");
}

#[test]
fn an_unknown_authority_of_redis_is_told_with_its_remedy() {
    let certificates = Certificates::new();
    let [port] = process::free_ports();
    let server = RedisServer::start(
        &[
            ["--tls-port", &port.to_string()],
            ["--tls-cert-file", &certificates.certificate],
            ["--tls-key-file", &certificates.key],
            ["--tls-ca-cert-file", &certificates.authority],
            ["--tls-auth-clients", "no"],
        ]
        .concat(),
    );
    let mut installation = Installation::on(&server);
    installation.set("FACEMILL_REDIS_URL", format!("rediss://localhost:{port}/"));
    let [_, (is_ok, detail), _] = checks(&installation);
    assert!(!is_ok && detail.contains(UNKNOWN_AUTHORITY), "{detail}");
    installation.set("SSL_CERT_FILE", &certificates.authority);
    let [_, (is_ok, detail), _] = checks(&installation);
    assert!(is_ok, "{detail}");
}

/// RabbitMQ warns about each connection that its client did not close, and writes a crash report for some.
#[test]
fn busy_workers_end_without_an_error_in_the_log_of_rabbitmq() {
    let mut installation = Installation::new();
    // The log has no lines of other tests meanwhile.
    let rabbit = tokio::runtime::Runtime::new().unwrap().block_on(rabbitmq::exclusive());
    installation.set("FACEMILL_AMQP_URL", rabbit.url());
    let collection = Collection::serve();
    let produced = installation.facemill(&["produce", collection.dump.to_str().unwrap()]);
    assert!(produced.status.success(), "{}", text(&produced));
    let before = rabbit.log().len();
    let arguments = [&["work", "fetch", "detect", "crop", "classify"], &collection.stage_arguments()[..]].concat();
    let start = |_| {
        let mut worker = installation.command(&arguments);
        super::installation::Worker(worker.stderr(std::process::Stdio::null()).spawn().unwrap())
    };
    let mut workers: Vec<_> = (0..4).map(start).collect();
    process::wait_for("four busy workers", || {
        let status = installation.facemill(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        (status["workers"].as_array().unwrap().len() == 4 && ended(&status) > 0).then_some(())
    });
    for worker in &mut workers {
        assert_eq!(worker.terminate(), Some(0));
    }
    let closed = |log: &str| log.matches("closing AMQP connection").count();
    // Two connections of each worker.
    process::wait_for("the ends of all connections in the log", || {
        (closed(&rabbit.log()[before..]) >= 2 * workers.len()).then_some(())
    });
    let log = &rabbit.log()[before..];
    let racing = channels_that_ended_with_their_connection(log);
    let mut errors = log.lines().filter(|line| line.contains("[error]") && !racing.contains(process_of(line)));
    assert_eq!(errors.next(), None, "{log}");
    assert!(!log.contains("CRASH"), "{log}");
    let mut lost = log.lines().filter(|line| line.contains("unexpectedly closed"));
    assert_eq!(lost.next(), None, "{log}");
}

/// The process of RabbitMQ that wrote the line: `2026-11-30 04:30:50.706524+00:00 [error] <0.24719.1> ...`.
fn process_of(line: &str) -> &str {
    line.split_whitespace().nth(3).unwrap_or_default()
}

/// The processes that report the end of a channel as an error because it came while their connection ended. A channel
/// ends by itself after its close-ok, and on a busy machine it takes its time.
fn channels_that_ended_with_their_connection(log: &str) -> HashSet<&str> {
    let of = |end: &'static str| log.lines().filter(move |line| line.ends_with(end)).map(process_of);
    let ended: HashSet<&str> = of("reason: noproc").chain(of("reason: shutdown")).collect();
    of(",rabbit_channel_sup_sup}").filter(|process| ended.contains(process)).collect()
}
