//! Photos that are in a bucket already.

use bytes::Bytes;
use facemill::domain::{ContentHash, ImageFormat, StoredUrl};
use facemill::objects::s3::{S3, S3Settings};
use facemill::objects::{ObjectError, ObjectKey, Objects};
use serde_json::Value;

use super::ended;
use super::installation::Installation;
use support::collection::Collection;
use support::servers::seaweedfs::SeaweedFs;

fn photo(name: &str) -> Bytes {
    std::fs::read(support::project().join(".cache/photos").join(name)).unwrap().into()
}

/// The bucket below a prefix, for objects with any names.
fn below(prefix: &str) -> S3 {
    S3::new(S3Settings { prefix: prefix.into(), ..SeaweedFs::shared().settings() })
}

fn put(prefix: &str, name: &str, body: Bytes) {
    let key = ObjectKey::parse(name).unwrap();
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(async { below(prefix).put(&key, body, "image/jpeg").await.map(drop) })
        .unwrap();
}

#[test]
fn a_prefix_in_a_bucket_becomes_faces_without_copies() {
    let installation = Installation::new();
    let prefix = format!("incoming {}/", std::process::id());
    put(&prefix, "anna/1.jpg", photo("obama.jpg"));
    put(&prefix, "ben/2.jpg", photo("biden.jpg"));
    put(&prefix, "ben/notes.txt", Bytes::from_static(b"no photo"));
    let bucket = SeaweedFs::shared().settings().bucket;
    let source = format!("s3://{bucket}/{prefix}");
    let produced = installation.json(&["produce", &source, "--label-from", "folder"]);
    assert_eq!((&produced["new"], &produced["known"]), (&Value::from(2), &Value::from(0)), "{produced}");

    // A dump cannot name an object, not even one of this prefix.
    let scratch = tempfile::tempdir().unwrap();
    let dump = scratch.path().join("dump.csv");
    let url = source.replace(' ', "%20");
    std::fs::write(&dump, format!("photo_id,photo_url\nx,{url}anna/1.jpg\ny,file:///etc/passwd\n")).unwrap();
    installation.json(&["produce", dump.to_str().unwrap()]);

    let collection = Collection::serve();
    let mut worker = installation.worker(&["fetch", "detect", "crop", "classify"], &collection);
    let status = installation.until("the end of all photos", |status| ended(status) == 4);
    assert_eq!((&status["ended"]["predicted"], &status["ended"]["rejected"]), (&2.into(), &2.into()), "{status}");

    // The prefix grows.
    put(&prefix, "ben/3.jpg", photo("obama3.jpg"));
    let produced = installation.json(&["produce", &source, "--label-from", "folder"]);
    assert_eq!((&produced["new"], &produced["known"]), (&Value::from(1), &Value::from(2)), "{produced}");
    installation.until("the end of all photos", |status| ended(status) == 5);
    assert_eq!(worker.terminate(), Some(0));

    let audit = installation.facemill(&["audit", &source]);
    assert!(audit.status.success(), "{audit:?}");
    let why = installation.json(&["why", "anna/1.jpg"]);
    assert_eq!(why["photo"]["candidate"]["photo_url"], format!("{url}anna/1.jpg"));
    assert_eq!(why["photo"]["candidate"]["source"], url);
    assert_eq!(why["photo"]["candidate"]["label_name"], "anna");
    let original = ObjectKey::original(ContentHash::of(&photo("obama.jpg")), ImageFormat::Jpeg);
    assert_eq!(why["objects"][0], original.to_string());
    let rebuilt = installation.json(&["rebuild", &source, "--label-from", "folder"]);
    assert_eq!((&rebuilt["stood"], &rebuilt["enqueued"]), (&Value::from(5), &Value::from(0)), "{rebuilt}");

    let refused = installation.facemill(&["produce", &format!("s3://{bucket}/")]);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && text.contains("keeps its own objects there"), "{text}");
    let folder = installation.facemill(&["produce", scratch.path().to_str().unwrap()]);
    let text = String::from_utf8(folder.stderr).unwrap();
    assert!(folder.status.code() == Some(2) && text.contains("cannot read a local folder"), "{text}");

    // A run in one process downloads the photos.
    let out = scratch.path().join("out");
    let run = installation.command(&["run", &source, "--out", out.to_str().unwrap(), "--limit", "1"]).output().unwrap();
    assert!(run.status.success(), "{run:?}");
    assert_eq!(std::fs::read(out.join(original.as_str())).unwrap(), photo("obama.jpg"));
}

#[tokio::test]
async fn a_link_leads_to_the_photo_it_was_made_for() {
    let prefix = format!("links-{}/", std::process::id());
    let (photos, store) = (below(&format!("{prefix}photos/")), below(&format!("{prefix}store/")));
    let name = ObjectKey::parse("1.jpg").unwrap();
    let body = photo("obama.jpg");
    photos.put(&name, body.clone(), "image/jpeg").await.unwrap();
    let key = ObjectKey::original(ContentHash::of(&body), ImageFormat::Jpeg);
    let url = StoredUrl::S3 { bucket: photos.bucket().into(), key: format!("{prefix}photos/1.jpg") };
    assert!(store.links_to(&url) && !store.links_to(&StoredUrl::File(b"/a".to_vec())));
    assert!(store.link(&key, &url).await.unwrap());
    assert!(!store.link(&key, &url).await.unwrap(), "the link is there");
    assert_eq!(store.get(&key).await.unwrap(), body);
    assert!(store.exists(&key).await.unwrap());

    photos.put(&name, photo("biden.jpg"), "image/jpeg").await.unwrap();
    assert!(matches!(store.get(&key).await, Err(ObjectError::Changed { .. })));
    photos.delete(&name).await.unwrap();
    assert!(!store.exists(&key).await.unwrap());
    assert!(matches!(store.get(&key).await, Err(ObjectError::Missing(_))));
    assert!(store.put(&key, body.clone(), "image/jpeg").await.unwrap(), "a copy takes the place of a dead link");
    assert_eq!(store.get(&key).await.unwrap(), body);
    store.delete(&key).await.unwrap();
    assert!(!store.exists(&key).await.unwrap());
}
