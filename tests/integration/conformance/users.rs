//! Users and sessions, on a folder and on S3.

use std::sync::Arc;

use facemill::archive::sessions::{MOST_SESSIONS, Session, StoredSessions};
use facemill::archive::users::{MOST_USERS, StoredUsers, User, Users, UsersError};
use facemill::domain::{ContentHash, Role, UserName};
use facemill::objects::folder::Folder;
use facemill::objects::s3::S3;
use facemill::objects::{ObjectKey, Objects};
use support::failpoints::{Failpoint, FailpointObjects};
use support::servers::seaweedfs::SeaweedFs;

/// `first` and `second` are two clients of one store, as two processes have them.
async fn suite(first: Arc<dyn Objects>, second: Arc<dyn Objects>) {
    users_are_added_changed_and_removed(&first).await;
    two_writers_lose_no_user(&first, &second).await;
    a_crash_at_a_write_leaves_all_users(&first).await;
    sessions_end(&first, &second).await;
    there_is_room_for_so_many(&first).await;
    damage_is_named(&first).await;
}

fn name(text: &str) -> UserName {
    text.parse().unwrap()
}

fn user(stamp: &str) -> User {
    User { role: Role::Viewer, password: Some("$argon2id$".into()), stamp: stamp.into(), added_at: 1, password_at: 1 }
}

async fn clear(objects: &Arc<dyn Objects>) {
    for document in ["users", "sessions"] {
        objects.delete(&ObjectKey::of_curation(document)).await.unwrap();
    }
}

async fn names(users: &StoredUsers) -> Vec<String> {
    users.read().await.unwrap().users.into_keys().map(String::from).collect()
}

async fn users_are_added_changed_and_removed(objects: &Arc<dyn Objects>) {
    let users = StoredUsers::new(objects.clone());
    assert_eq!(users.read().await.unwrap(), Users::default());
    assert!(matches!(users.remove(&name("ada")).await, Err(UsersError::Unknown(_))));
    assert!(!objects.exists(&ObjectKey::of_curation("users")).await.unwrap(), "a change that fails writes nothing");
    users.add(&name("ada"), user("one")).await.unwrap();
    users.add(&name("Grace.Hopper@example.org"), user("two")).await.unwrap();
    assert!(matches!(users.add(&name("ada"), user("three")).await, Err(UsersError::Taken(_))));
    assert!(matches!(users.set_password(&name("bob"), "hash", "s", 2).await, Err(UsersError::Unknown(_))));
    users.set_password(&name("ada"), "hash", "four", 9).await.unwrap();
    let expected = User { password: Some("hash".into()), stamp: "four".into(), password_at: 9, ..user("") };
    assert_eq!(users.read().await.unwrap().users[&name("ada")], expected);
    users.remove(&name("ada")).await.unwrap();
    assert_eq!(names(&users).await, ["Grace.Hopper@example.org"]);
}

async fn two_writers_lose_no_user(first: &Arc<dyn Objects>, second: &Arc<dyn Objects>) {
    clear(first).await;
    let writers = [(first, "one"), (second, "two")].map(|(objects, prefix)| {
        let users = StoredUsers::new(objects.clone());
        tokio::spawn(async move {
            for number in 0..10 {
                users.add(&name(&format!("{prefix}-{number}")), user("s")).await.unwrap();
            }
            for number in 0..5 {
                users.remove(&name(&format!("{prefix}-{number}"))).await.unwrap();
            }
        })
    });
    futures::future::join_all(writers).await.into_iter().for_each(Result::unwrap);
    let expected: Vec<String> =
        ["one", "two"].iter().flat_map(|prefix| (5..10).map(move |number| format!("{prefix}-{number}"))).collect();
    assert_eq!(names(&StoredUsers::new(first.clone())).await, expected);
}

async fn a_crash_at_a_write_leaves_all_users(objects: &Arc<dyn Objects>) {
    clear(objects).await;
    let users = StoredUsers::new(objects.clone());
    users.add(&name("ada"), user("s")).await.unwrap();
    for after in [false, true] {
        let failpoint = Failpoint::of(1, after);
        let failing = FailpointObjects { objects: objects.clone(), failpoint: failpoint.clone() };
        let bob = name("bob");
        let dying = StoredUsers::new(Arc::new(failing));
        tokio::select! {
            biased;
            _ = dying.add(&bob, user("s")) => panic!("the process dies"),
            () = failpoint.reached() => {}
        }
        let expected: &[&str] = if after { &["ada", "bob"] } else { &["ada"] };
        assert_eq!(names(&users).await, expected);
    }
}

async fn sessions_end(first: &Arc<dyn Objects>, second: &Arc<dyn Objects>) {
    clear(first).await;
    let users = StoredUsers::new(first.clone());
    users.add(&name("ada"), user("one")).await.unwrap();
    users.add(&name("bob"), user("one")).await.unwrap();
    let session = |user: &str, number: u64| Session {
        token_sha256: ContentHash::of(format!("{user} {number}").as_bytes()),
        user: name(user),
        stamp: "one".into(),
        begun_at: number,
        ends_at: number + 1000,
    };
    let known = users.read().await.unwrap();
    let [one, two] = [first, second].map(|objects| StoredSessions::new(objects.clone()));
    let of = async |user: &str| {
        let all = one.read().await.unwrap().sessions;
        all.into_iter().filter(|session| session.user == name(user)).map(|one| one.begun_at).collect::<Vec<_>>()
    };
    one.begin(&session("bob", 1), &known).await.unwrap();
    // Both servers write; a further session of one user ends the oldest.
    for number in 1..=MOST_SESSIONS as u64 + 2 {
        let store = if number % 2 == 0 { &one } else { &two };
        store.begin(&session("ada", number), &known).await.unwrap();
    }
    assert_eq!(of("ada").await, (3..=MOST_SESSIONS as u64 + 2).collect::<Vec<_>>());
    assert_eq!(of("bob").await, [1]);
    // The same session again, because the answer was lost.
    let again = session("ada", MOST_SESSIONS as u64 + 2);
    two.begin(&again, &known).await.unwrap();
    assert_eq!(of("ada").await.len(), MOST_SESSIONS);
    one.end(again.token_sha256).await.unwrap();
    one.end(again.token_sha256).await.unwrap();
    assert_eq!(of("ada").await.len(), MOST_SESSIONS - 1);
    // Another password ends all sessions of its user; they are forgotten at the next sign-in. So are old ones.
    users.set_password(&name("ada"), "hash", "two", 9).await.unwrap();
    let known = users.read().await.unwrap();
    assert!(!session("ada", 5).is_valid(&known, 10) && session("bob", 1).is_valid(&known, 1000));
    assert!(!session("bob", 1).is_valid(&known, 1001));
    two.begin(&session("bob", 1500), &known).await.unwrap();
    assert_eq!((of("ada").await, of("bob").await), (vec![], vec![1500]));
    users.remove(&name("bob")).await.unwrap();
    assert!(!session("bob", 1500).is_valid(&users.read().await.unwrap(), 1500));
}

async fn there_is_room_for_so_many(objects: &Arc<dyn Objects>) {
    clear(objects).await;
    let all = Users { users: (0..MOST_USERS).map(|number| (name(&format!("u{number}")), user("s"))).collect() };
    let body = serde_json::to_vec(&all).unwrap().into();
    objects.put(&ObjectKey::of_curation("users"), body, "application/json").await.unwrap();
    let users = StoredUsers::new(objects.clone());
    assert!(matches!(users.add(&name("ada"), user("s")).await, Err(UsersError::Full)));
    users.remove(&name("u0")).await.unwrap();
    users.add(&name("ada"), user("s")).await.unwrap();
}

async fn damage_is_named(objects: &Arc<dyn Objects>) {
    objects.put(&ObjectKey::of_curation("users"), "{".into(), "application/json").await.unwrap();
    let error = StoredUsers::new(objects.clone()).read().await.unwrap_err().to_string();
    assert!(error.starts_with("cannot read curation/users.json: "), "{error}");
    let changed = StoredUsers::new(objects.clone()).add(&name("ada"), user("s")).await;
    assert!(changed.is_err(), "damaged users are not replaced by an empty list");
    assert_eq!(objects.get(&ObjectKey::of_curation("users")).await.unwrap(), "{");
}

#[tokio::test(flavor = "multi_thread")]
async fn folder() {
    let folder = tempfile::tempdir().unwrap();
    suite(Arc::new(Folder::at(folder.path())), Arc::new(Folder::at(folder.path()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    let settings = SeaweedFs::shared().settings();
    suite(Arc::new(S3::new(settings.clone())), Arc::new(S3::new(settings))).await;
}
