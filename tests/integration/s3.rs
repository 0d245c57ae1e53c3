//! The S3 adapter's own behaviour. `conformance` tests what all object stores have in common.

use support::servers::process;
use support::servers::seaweedfs;

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use facemill::domain::{ContentHash, Id, ImageFormat, PhotoKey, RunName};
use facemill::objects::s3::{Credentials, Keys, Prefix, Reader, S3, S3Settings, Timeouts};
use facemill::objects::{ObjectError, ObjectKey, Objects, PutIfAbsent, Swap};
use facemill::server_error::ServerError;

use seaweedfs::SeaweedFs;
use tokio::io::AsyncReadExt;

fn original(body: &'static str) -> (ObjectKey, Bytes) {
    (ObjectKey::original(ContentHash::of(body.as_bytes()), ImageFormat::Jpeg), Bytes::from_static(body.as_bytes()))
}

/// Short timeouts.
fn impatient(settings: S3Settings) -> S3Settings {
    let (connect, attempt) = (Duration::from_millis(200), Duration::from_millis(300));
    S3Settings { timeouts: Timeouts { connect, attempt, total: Duration::from_secs(1) }, ..settings }
}

async fn refusal(settings: S3Settings) -> String {
    let error = S3::new(settings).check().await.unwrap_err();
    assert!(matches!(error, ObjectError::Server(ServerError::Refused { .. })), "{error:?}");
    let text = format!("{error} {error:?}");
    assert!(!text.contains("secret-key"), "{text}");
    text
}

#[tokio::test]
async fn a_refusal_names_its_cause() {
    let server = SeaweedFs::shared();
    let with = |change: fn(&mut S3Settings)| {
        let mut settings = server.settings();
        change(&mut settings);
        settings
    };
    let text = refusal(with(|settings| settings.bucket = "nobodys".into())).await;
    assert!(text.contains("the bucket does not exist") && text.contains("nobodys"), "{text}");
    let text = refusal(with(|settings| {
        settings.credentials = Credentials::Keys(Keys { access_key_id: "nobody".into(), ..SeaweedFs::keys() })
    }))
    .await;
    assert!(text.contains("does not know this access key"), "{text}");
    let text = refusal(with(|settings| {
        settings.credentials =
            Credentials::Keys(Keys { secret_access_key: "wrong-secret-key".into(), ..SeaweedFs::keys() })
    }))
    .await;
    assert!(text.contains("does not belong to the access key"), "{text}");
    let (key, body) = original("not stored");
    let foreign = S3::new(with(|settings| settings.bucket = "nobodys".into()));
    assert!(matches!(
        foreign.put(&key, body, "image/jpeg").await,
        Err(ObjectError::Server(ServerError::Refused { .. }))
    ));
    assert!(
        matches!(foreign.get(&key).await, Err(ObjectError::Server(ServerError::Refused { .. }))),
        "the bucket is missing, not the object"
    );
}

#[tokio::test]
async fn an_unreachable_service_is_a_temporary_error() {
    let [port] = process::free_ports();
    let keys = Keys { access_key_id: "a".into(), secret_access_key: "b".into(), session_token: None };
    let endpoint = Some(format!("http://127.0.0.1:{port}"));
    let settings = S3Settings { endpoint, path_style: true, ..S3Settings::new("bucket", Credentials::Keys(keys)) };
    let error = S3::new(impatient(settings)).check().await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains(&port.to_string()), "{error}");
}

/// The answer once the whole service is back: the gateway may start before the volumes have reported.
async fn eventually<T>(call: impl AsyncFn() -> Result<T, ObjectError>) -> T {
    let deadline = Instant::now() + support::PATIENCE;
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!(error.is_retryable() && Instant::now() < deadline, "{error}"),
        }
    }
}

#[tokio::test]
async fn nothing_stored_is_lost_when_the_service_is_killed() {
    let mut server = SeaweedFs::start();
    let settings = server.settings();
    let (store, impatient_store) = (S3::new(settings.clone()), S3::new(impatient(settings)));
    let (early, early_body) = original("stored before");
    let (late, late_body) = original("stored after");
    store.put(&early, early_body.clone(), "image/jpeg").await.unwrap();

    server.process.freeze();
    let error = impatient_store.get(&early).await.unwrap_err();
    assert!(error.is_retryable(), "the service hangs: {error}");
    server.process.thaw();

    server.process.kill();
    let error = impatient_store.put(&late, late_body.clone(), "image/jpeg").await.unwrap_err();
    assert!(error.is_retryable(), "the service is unreachable: {error}");
    assert!(impatient_store.exists(&early).await.unwrap_err().is_retryable());
    assert!(impatient_store.list("originals/", None, 9).await.unwrap_err().is_retryable());

    server.restart();
    assert_eq!(eventually(async || store.get(&early).await).await, early_body);
    assert!(
        !eventually(async || store.put(&early, early_body.clone(), "image/jpeg").await).await,
        "the object still exists"
    );
    eventually(async || store.put(&late, late_body.clone(), "image/jpeg").await).await;
    assert_eq!(eventually(async || store.get(&late).await).await, late_body);
}

/// A proxy to `port`. It closes the first `broken` connections after `bytes` of the answer. Returns its own port.
async fn break_off(port: u16, broken: usize, bytes: u64) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for number in 0.. {
            let (client, _) = listener.accept().await.unwrap();
            let limit = if number < broken { bytes } else { u64::MAX };
            tokio::spawn(async move {
                let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let ((mut answer, mut request), (mut from_client, mut to_client)) =
                    (server.into_split(), client.into_split());
                let forward = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut request).await });
                let _ = tokio::io::copy(&mut (&mut answer).take(limit), &mut to_client).await;
                forward.abort();
            });
        }
    });
    own
}

/// Stores a record of 5 MB in the shared service. A record may be replaced.
async fn large_record(settings: &S3Settings) -> (ObjectKey, Bytes) {
    let body: Bytes = (0..5_000_000_u32).map(|i| (i ^ (i >> 8)) as u8).collect::<Vec<_>>().into();
    let key = ObjectKey::record(&PhotoKey { run: RunName::default(), photo_id: Id::from(1) });
    S3::new(settings.clone()).put(&key, body.clone(), "application/json").await.unwrap();
    (key, body)
}

fn through(port: u16, settings: &S3Settings) -> S3Settings {
    S3Settings { endpoint: Some(format!("http://127.0.0.1:{port}")), ..settings.clone() }
}

fn port_of(settings: &S3Settings) -> u16 {
    settings.endpoint.as_ref().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_download_resumes_after_a_broken_connection() {
    let settings = SeaweedFs::shared().settings();
    let (key, body) = large_record(&settings).await;
    let port = break_off(port_of(&settings), 2, 2_000_000).await;
    let download = S3::new(through(port, &settings)).download(&format!("{}{key}", settings.prefix)).await.unwrap();
    assert_eq!(download.total, Some(body.len() as u64));
    let mut reader = Reader::new(download);
    let read = tokio::task::spawn_blocking(move || {
        let mut read = Vec::new();
        reader.read_to_end(&mut read).map(|_| read)
    });
    assert!(read.await.unwrap().unwrap() == body);
}

#[tokio::test]
async fn a_download_fails_when_the_object_changes() {
    let settings = SeaweedFs::shared().settings();
    let (key, _) = large_record(&settings).await;
    let port = break_off(port_of(&settings), 1, 2_000_000).await;
    let store = S3::new(settings.clone());
    let mut download = S3::new(through(port, &settings)).download(&format!("{}{key}", settings.prefix)).await.unwrap();
    store.put(&key, Bytes::from_static(b"another"), "application/json").await.unwrap();
    let error = loop {
        match download.next().await {
            Ok(part) => assert!(part.is_some(), "the download ended as if it were complete"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("the object has changed meanwhile"), "{error}");
    let missing = store.download("nothing").await.err().unwrap();
    assert!(missing.to_string().contains("the object does not exist"), "{missing}");
}

#[tokio::test]
async fn listings_skip_foreign_objects() {
    let server = SeaweedFs::shared();
    let outer = server.settings();
    let inner = S3Settings { prefix: format!("{}originals/", outer.prefix), ..outer.clone() };
    let (key, body) = original("listed");
    let store = S3::new(outer);
    store.put(&key, body, "image/jpeg").await.unwrap();
    store.check().await.unwrap();
    let all = store.list("", None, 9).await.unwrap();
    assert_eq!((all.keys, all.more), (vec![key.clone()], false), "the probe of check is deleted");
    // With a longer prefix the same object has a shorter key. Keys that start with a dot are skipped.
    let below = S3::new(inner).list("", None, 9).await.unwrap().keys;
    assert_eq!(below.iter().map(ObjectKey::as_str).collect::<Vec<_>>(), [&key.as_str()["originals/".len()..]]);
}

/// Two installations in one bucket have a run of the same name.
#[tokio::test]
async fn prefixes_separate_installations() {
    let server = SeaweedFs::shared();
    let base = server.settings();
    let under = |prefix: &str| {
        let prefix = base.prefix.clone() + prefix.parse::<Prefix>().unwrap().as_str();
        S3::new(S3Settings { prefix, ..base.clone() })
    };
    let (one, other) = (under("team/one"), under("team/on"));
    let key = ObjectKey::record(&PhotoKey { run: RunName::default(), photo_id: Id::from("1") });
    one.put(&key, Bytes::from_static(b"first"), "application/json").await.unwrap();
    assert!(!other.exists(&key).await.unwrap());
    assert!(other.list("", None, 9).await.unwrap().keys.is_empty());
    other.put(&key, Bytes::from_static(b"second"), "application/json").await.unwrap();
    assert_eq!(one.get(&key).await.unwrap(), "first");
    assert_eq!(one.list(ObjectKey::records(&RunName::default()).as_str(), None, 9).await.unwrap().keys, [key]);
}

#[tokio::test]
async fn one_of_many_concurrent_puts_is_new() {
    let store = SeaweedFs::shared().objects();
    let (key, body) = original("written by sixteen at once");
    let puts = (0..16).map(|_| store.put(&key, body.clone(), "image/jpeg"));
    let mut first = 0;
    for put in futures::future::join_all(puts).await {
        match put {
            Ok(new) => first += usize::from(new),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
    assert_eq!(first, 1);
    assert_eq!(store.get(&key).await.unwrap(), body);
}

/// The service stores the object, but the client gets one byte of the answer and sends the request again.
#[tokio::test]
async fn a_lost_answer_is_no_conflict() {
    let settings = SeaweedFs::shared().settings();
    let direct = S3::new(settings.clone());
    let key = ObjectKey::of_run(&RunName::default(), "settings");
    let lossy = || async { S3::new(through(break_off(port_of(&settings), 1, 1).await, &settings)) };
    let json = "application/json";

    let put = lossy().await.put_if_absent(&key, Bytes::from("one"), json).await.unwrap();
    assert_eq!(put, PutIfAbsent::Created);
    let (body, one) = direct.get_versioned(&key).await.unwrap();
    assert_eq!(body, "one");
    let swap = lossy().await.compare_and_swap(&key, &one, Bytes::from("two"), json).await.unwrap();
    assert_eq!(swap, Swap::Done);
    assert_eq!(direct.get(&key).await.unwrap(), "two");

    let put = lossy().await.put_if_absent(&key, Bytes::from("two"), json).await.unwrap();
    assert_eq!(put, PutIfAbsent::AlreadyThere, "another call wrote the same content");
    let swap = lossy().await.compare_and_swap(&key, &one, Bytes::from("two"), json).await.unwrap();
    assert_eq!(swap, Swap::Conflict, "another call wrote the same content");
}
