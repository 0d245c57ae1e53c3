use std::sync::Arc;

use bytes::Bytes;
use facemill::domain::{ContentHash, Id, ImageFormat, PhotoKey};
use facemill::objects::folder::Folder;
use facemill::objects::{ObjectError, ObjectKey, Objects, PutIfAbsent, Swap};

use super::run;
use support::servers::seaweedfs::SeaweedFs;

const JSON: &str = "application/json";

/// `first` and `second` are two clients of one store, as two processes have them.
async fn suite(first: Arc<dyn Objects>, second: Arc<dyn Objects>) {
    round_trip(&*first).await;
    records_are_replaced(&*first).await;
    listing(&*first).await;
    concurrent_writers_of_one_key(first.clone()).await;
    put_if_absent_never_replaces(&*first).await;
    put_if_absent_has_one_winner(&first, &second).await;
    compare_and_swap_needs_the_present_version(&*first).await;
    no_concurrent_swap_is_lost(&first, &second).await;
    delete_is_idempotent(&*first).await;
}

async fn round_trip(store: &dyn Objects) {
    store.check().await.unwrap();
    let body = Bytes::from_static(b"\xff\xd8\xff not really a photo \0\r\n");
    let key = ObjectKey::original(ContentHash::of(&body), ImageFormat::Jpeg);
    assert!(!store.exists(&key).await.unwrap());
    assert!(matches!(store.get(&key).await, Err(ObjectError::Missing(missing)) if missing == key));
    assert!(store.put(&key, body.clone(), "image/jpeg").await.unwrap(), "the object was new");
    assert!(!store.put(&key, body.clone(), "image/jpeg").await.unwrap(), "the object existed");
    assert!(store.exists(&key).await.unwrap());
    assert_eq!(store.get(&key).await.unwrap(), body);
}

async fn records_are_replaced(store: &dyn Objects) {
    let key = ObjectKey::record(&PhotoKey { run: run("r"), photo_id: Id::from("../odd id/ü") });
    for body in ["{\"a\":1}", "{}"] {
        store.put(&key, Bytes::from(body), JSON).await.unwrap();
        assert_eq!(store.get(&key).await.unwrap(), body);
    }
}

async fn listing(store: &dyn Objects) {
    let of = |id: &str| ObjectKey::record(&PhotoKey { run: run("listed"), photo_id: Id::from(id) });
    let mut keys: Vec<ObjectKey> = (0..57).map(|i| of(&i.to_string())).collect();
    for key in &keys {
        store.put(key, Bytes::from_static(b"{}"), JSON).await.unwrap();
    }
    let other = ObjectKey::record(&PhotoKey { run: run("listed2"), photo_id: Id::from("1") });
    store.put(&other, Bytes::from_static(b"{}"), JSON).await.unwrap();
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
    let none = store.list("records/unknown/", None, 10).await.unwrap();
    assert!(none.keys.is_empty() && !none.more);
}

async fn concurrent_writers_of_one_key(store: Arc<dyn Objects>) {
    let body = Bytes::from(vec![7; 300_000]);
    let key = ObjectKey::face(ContentHash::of(&body), ImageFormat::Png);
    let writers = (0..16).map(|_| {
        let (store, key, body) = (store.clone(), key.clone(), body.clone());
        tokio::spawn(async move { store.put(&key, body, "image/png").await.unwrap() })
    });
    futures::future::join_all(writers).await.into_iter().for_each(|put| assert!(put.is_ok()));
    assert_eq!(store.get(&key).await.unwrap(), body);
}

async fn put_if_absent_never_replaces(store: &dyn Objects) {
    let key = ObjectKey::of_run(&run("kept"), "settings");
    let put = async |body: &'static str| store.put_if_absent(&key, Bytes::from(body), JSON).await.unwrap();
    assert_eq!(put("{}").await, PutIfAbsent::Created);
    assert_eq!(put("[]").await, PutIfAbsent::AlreadyThere);
    assert_eq!(put("{}").await, PutIfAbsent::AlreadyThere, "equal content changes nothing");
    assert_eq!(store.get(&key).await.unwrap(), "{}");
}

async fn put_if_absent_has_one_winner(first: &Arc<dyn Objects>, second: &Arc<dyn Objects>) {
    for round in 0..5 {
        let key = ObjectKey::of_run(&run("contested"), &format!("settings{round}"));
        let writers = (0..16).map(|writer| {
            let store = if writer % 2 == 0 { first.clone() } else { second.clone() };
            let (key, body) = (key.clone(), Bytes::from(format!("writer {writer}")));
            tokio::spawn(async move { (store.put_if_absent(&key, body.clone(), JSON).await.unwrap(), body) })
        });
        let puts = futures::future::join_all(writers).await.into_iter().map(Result::unwrap);
        let won: Vec<Bytes> = puts.filter(|(put, _)| *put == PutIfAbsent::Created).map(|(_, body)| body).collect();
        assert_eq!(won, [first.get(&key).await.unwrap()]);
    }
}

async fn compare_and_swap_needs_the_present_version(store: &dyn Objects) {
    let key = ObjectKey::of_run(&run("swapped"), "classifier");
    let swap = async |expected, body: &'static str| {
        store.compare_and_swap(&key, expected, Bytes::from(body), JSON).await.unwrap()
    };
    assert!(matches!(store.get_versioned(&key).await, Err(ObjectError::Missing(missing)) if missing == key));
    assert_eq!(store.put_if_absent(&key, Bytes::from("one"), JSON).await.unwrap(), PutIfAbsent::Created);
    let (body, one) = store.get_versioned(&key).await.unwrap();
    assert_eq!(body, "one");
    assert_eq!(swap(&one, "two").await, Swap::Done);
    assert_eq!(swap(&one, "three").await, Swap::Conflict);
    let (body, two) = store.get_versioned(&key).await.unwrap();
    assert_eq!(body, "two");
    assert_ne!(one, two);
    store.delete(&key).await.unwrap();
    assert_eq!(swap(&two, "three").await, Swap::Conflict, "a missing object has no version");
    assert!(!store.exists(&key).await.unwrap());
}

async fn no_concurrent_swap_is_lost(first: &Arc<dyn Objects>, second: &Arc<dyn Objects>) {
    const INCREMENTS: u32 = 50;
    let key = ObjectKey::of_run(&run("counted"), "classifier");
    assert_eq!(first.put_if_absent(&key, Bytes::from("0"), JSON).await.unwrap(), PutIfAbsent::Created);
    let counters = [first, second].map(|store| {
        let (store, key) = (store.clone(), key.clone());
        tokio::spawn(async move {
            for _ in 0..INCREMENTS {
                loop {
                    let (body, version) = store.get_versioned(&key).await.unwrap();
                    let count: u32 = std::str::from_utf8(&body).unwrap().parse().unwrap();
                    let next = Bytes::from((count + 1).to_string());
                    if store.compare_and_swap(&key, &version, next, JSON).await.unwrap() == Swap::Done {
                        break;
                    }
                }
            }
        })
    });
    for counter in counters {
        counter.await.unwrap();
    }
    assert_eq!(first.get(&key).await.unwrap(), (2 * INCREMENTS).to_string());
}

async fn delete_is_idempotent(store: &dyn Objects) {
    let key = ObjectKey::record(&PhotoKey { run: run("deleted"), photo_id: Id::from("1") });
    store.delete(&key).await.unwrap();
    store.put(&key, Bytes::from("{}"), JSON).await.unwrap();
    for _ in 0..2 {
        store.delete(&key).await.unwrap();
        assert!(!store.exists(&key).await.unwrap());
        assert!(matches!(store.get(&key).await, Err(ObjectError::Missing(missing)) if missing == key));
        assert!(store.list(&ObjectKey::records(&run("deleted")), None, 9).await.unwrap().keys.is_empty());
    }
    assert_eq!(store.put_if_absent(&key, Bytes::from("[]"), JSON).await.unwrap(), PutIfAbsent::Created);
    assert_eq!(store.get(&key).await.unwrap(), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("created/on/demand");
    suite(Arc::new(Folder::at(&root)), Arc::new(Folder::at(&root))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    let settings = SeaweedFs::shared().settings();
    let client = || Arc::new(facemill::objects::s3::S3::new(settings.clone()));
    suite(client(), client()).await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "a file, not a folder").unwrap();
    let error = Folder::at(&file).check().await.unwrap_err();
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}
