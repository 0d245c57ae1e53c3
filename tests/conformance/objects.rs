use std::sync::Arc;

use bytes::Bytes;
use facemill::domain::{ContentHash, Id, ImageFormat, PhotoKey};
use facemill::objects::folder::Folder;
use facemill::objects::{ObjectError, ObjectKey, Objects};

use crate::run;
use crate::seaweedfs::SeaweedFs;

async fn suite(store: Arc<dyn Objects>) {
    round_trip(&*store).await;
    records_are_replaced(&*store).await;
    listing(&*store).await;
    writers_of_one_key(store).await;
}

async fn round_trip(store: &dyn Objects) {
    store.check().await.unwrap();
    let body = Bytes::from_static(b"\xff\xd8\xff not really a photo \0\r\n");
    let key = ObjectKey::original(ContentHash::of(&body), ImageFormat::Jpeg);
    assert!(!store.exists(&key).await.unwrap());
    assert!(matches!(store.get(&key).await, Err(ObjectError::Missing(missing)) if missing == key));
    assert!(store.put(&key, body.clone(), "image/jpeg").await.unwrap(), "it was new");
    assert!(!store.put(&key, body.clone(), "image/jpeg").await.unwrap(), "it was there");
    assert!(store.exists(&key).await.unwrap());
    assert_eq!(store.get(&key).await.unwrap(), body);
}

async fn records_are_replaced(store: &dyn Objects) {
    let key = ObjectKey::record(&PhotoKey { run: run("r"), photo_id: Id::from("../odd id/ü") });
    for body in ["{\"a\":1}", "{}"] {
        store.put(&key, Bytes::from(body), "application/json").await.unwrap();
        assert_eq!(store.get(&key).await.unwrap(), body);
    }
}

async fn listing(store: &dyn Objects) {
    let of = |id: &str| ObjectKey::record(&PhotoKey { run: run("listed"), photo_id: Id::from(id) });
    let mut keys: Vec<ObjectKey> = (0..57).map(|i| of(&i.to_string())).collect();
    for key in &keys {
        store.put(key, Bytes::from_static(b"{}"), "application/json").await.unwrap();
    }
    let other = ObjectKey::record(&PhotoKey { run: run("listed2"), photo_id: Id::from("1") });
    store.put(&other, Bytes::from_static(b"{}"), "application/json").await.unwrap();
    keys.sort();
    for limit in [1, 10, 57, 1000] {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = store.list(&ObjectKey::records(&run("listed")), after.as_ref(), limit).await.unwrap();
            assert!(page.keys.len() <= limit);
            after = page.keys.last().cloned();
            listed.extend(page.keys);
            if !page.more {
                break;
            }
        }
        assert_eq!(listed, keys, "in pages of {limit}");
    }
    let none = store.list("records/nobody/", None, 10).await.unwrap();
    assert!(none.keys.is_empty() && !none.more);
}

async fn writers_of_one_key(store: Arc<dyn Objects>) {
    let body = Bytes::from(vec![7; 300_000]);
    let key = ObjectKey::face(ContentHash::of(&body), ImageFormat::Png);
    let writers = (0..16).map(|_| {
        let (store, key, body) = (store.clone(), key.clone(), body.clone());
        tokio::spawn(async move { store.put(&key, body, "image/png").await.unwrap() })
    });
    futures::future::join_all(writers).await.into_iter().for_each(|put| assert!(put.is_ok()));
    assert_eq!(store.get(&key).await.unwrap(), body);
}

#[tokio::test(flavor = "multi_thread")]
async fn folder() {
    let folder = tempfile::tempdir().unwrap();
    suite(Arc::new(Folder::at(folder.path().join("made/when/needed")))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    suite(Arc::new(SeaweedFs::shared().objects())).await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let error = Folder::at(&file).check().await.unwrap_err();
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}
