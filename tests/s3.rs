//! What is particular about objects in S3; what they have in common with others is in `conformance`.

#[path = "servers/process.rs"]
mod process;
#[path = "servers/seaweedfs.rs"]
mod seaweedfs;

use std::time::Duration;

use bytes::Bytes;
use facemill::objects::s3::{Keys, S3, Settings, Timeouts};
use facemill::objects::{ObjectError, ObjectKey, Objects};
use facemill::photo::{ContentHash, ImageFormat};

use seaweedfs::SeaweedFs;

fn original(body: &'static str) -> (ObjectKey, Bytes) {
    (ObjectKey::original(ContentHash::of(body.as_bytes()), ImageFormat::Jpeg), Bytes::from_static(body.as_bytes()))
}

/// Gives up soon.
fn impatient(settings: Settings) -> Settings {
    let (connect, attempt) = (Duration::from_millis(200), Duration::from_millis(300));
    Settings { timeouts: Timeouts { connect, attempt, total: Duration::from_secs(1) }, ..settings }
}

async fn refusal(settings: Settings) -> String {
    let error = S3::new(settings).check().await.unwrap_err();
    assert!(matches!(error, ObjectError::Refused { .. }), "{error:?}");
    let told = format!("{error} {error:?}");
    assert!(!told.contains("secret-key"), "{told}");
    told
}

#[tokio::test]
async fn a_service_that_will_not_have_us_is_told_why() {
    let server = SeaweedFs::shared();
    let with = |change: fn(&mut Settings)| {
        let mut settings = server.settings();
        change(&mut settings);
        settings
    };
    let told = refusal(with(|settings| settings.bucket = "nobodys".into())).await;
    assert!(told.contains("no such bucket") && told.contains("nobodys"), "{told}");
    let told = refusal(with(|settings| settings.keys.access_key_id = "nobody".into())).await;
    assert!(told.contains("does not know this access key"), "{told}");
    let told = refusal(with(|settings| settings.keys.secret_access_key = "wrong-secret-key".into())).await;
    assert!(told.contains("does not belong to the access key"), "{told}");
    let (key, body) = original("not stored");
    let foreign = S3::new(with(|settings| settings.bucket = "nobodys".into()));
    assert!(matches!(foreign.put(&key, body, "image/jpeg").await, Err(ObjectError::Refused { .. })));
    assert!(matches!(foreign.get(&key).await, Err(ObjectError::Refused { .. })), "the object is not what is missing");
}

#[tokio::test]
async fn a_service_that_is_away_may_come_back() {
    let [port] = process::free_ports();
    let keys = Keys { access_key_id: "a".into(), secret_access_key: "b".into(), session_token: None };
    let endpoint = Some(format!("http://127.0.0.1:{port}"));
    let settings = Settings { endpoint, path_style: true, ..Settings::new("bucket", keys) };
    let error = S3::new(impatient(settings)).check().await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains(&port.to_string()), "{error}");
}

#[tokio::test]
async fn nothing_stored_is_lost_when_the_service_is_killed() {
    let mut server = SeaweedFs::start();
    let settings = server.settings();
    let (store, hasty) = (S3::new(settings.clone()), S3::new(impatient(settings)));
    let (early, early_body) = original("stored before");
    let (late, late_body) = original("stored after");
    store.put(&early, early_body.clone(), "image/jpeg").await.unwrap();

    server.signal("STOP");
    let error = hasty.get(&early).await.unwrap_err();
    assert!(error.is_retryable(), "it hangs: {error}");
    server.signal("CONT");

    server.kill();
    let error = hasty.put(&late, late_body.clone(), "image/jpeg").await.unwrap_err();
    assert!(error.is_retryable(), "it is away: {error}");
    assert!(hasty.exists(&early).await.unwrap_err().is_retryable());
    assert!(hasty.list("originals/", None, 9).await.unwrap_err().is_retryable());

    server.restart();
    assert_eq!(store.get(&early).await.unwrap(), early_body);
    assert!(!store.put(&early, early_body, "image/jpeg").await.unwrap(), "it is still there");
    // Its volumes may not all have reported yet.
    let mut stored = Err(());
    for _ in 0..20 {
        stored = store.put(&late, late_body.clone(), "image/jpeg").await.map_err(|error| assert!(error.is_retryable()));
        if stored.is_ok() {
            break;
        }
    }
    stored.unwrap();
    assert_eq!(store.get(&late).await.unwrap(), late_body);
}

#[tokio::test]
async fn what_is_not_ours_is_not_listed() {
    let server = SeaweedFs::shared();
    let outer = server.settings();
    let inner = Settings { prefix: format!("{}originals/", outer.prefix), ..outer.clone() };
    let (key, body) = original("one of ours");
    let store = S3::new(outer);
    store.put(&key, body, "image/jpeg").await.unwrap();
    store.check().await.unwrap();
    let all = store.list("", None, 9).await.unwrap();
    assert_eq!((all.keys, all.more), (vec![key.clone()], false), "the probe is gone");
    // Below another prefix the same object has another name, and keys that begin with a dot are none.
    let below = S3::new(inner).list("", None, 9).await.unwrap().keys;
    assert_eq!(below.iter().map(ObjectKey::as_str).collect::<Vec<_>>(), [&key.as_str()["originals/".len()..]]);
}

#[tokio::test]
async fn one_of_many_writers_is_the_first() {
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
