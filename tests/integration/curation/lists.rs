//! Lists: what they contain, for whom, and how a person goes on after a restart.

use std::collections::{BTreeSet, HashMap};

use axum::http::Method;
use facemill::archive::duplicates::StoredDuplicates;
use facemill::domain::{RunName, Selection};
use facemill::verdicts::{LogPosition, VerdictLog};
use serde_json::{Value, json};
use support::curation::{CuratedRun, photo};

use super::client::{ApiClient, results, verdict};
use super::inside;

fn ids(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["photo_id"].as_str().unwrap()).collect()
}

/// Judges all entries of a list, in parts. Returns them.
async fn judge_all(api: &ApiClient, list: &str, client: &str, prefix: &str) -> Vec<Value> {
    let entries = api.entries(list, client).await;
    for (part, chunk) in entries.chunks(50).enumerate() {
        let sent = chunk.iter().enumerate().map(|(number, entry)| {
            let judgement = if entry["p_ok"].as_f64().unwrap_or(0.0) < 0.5 { "ng" } else { "ok" };
            verdict(&format!("{prefix}-{part}-{number}"), entry, judgement)
        });
        api.judge(&sent.collect::<Vec<_>>()).await;
    }
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_random_faces_and_repeats_that_look_like_all_others() {
    let run = CuratedRun::in_folder(400).await;
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let list = api.open_list("status in (ready, predicted)", "-p_ok", "single", "tab").await;
    let first = judge_all(&api, &list, "tab", "a").await;
    assert_eq!(ids(&first).iter().collect::<BTreeSet<_>>().len(), ids(&first).len(), "no face comes twice");
    assert_eq!(first.len(), 400, "nothing was judged when the list was read, so that there were no repeats");
    // The next faces: among them some that were judged before.
    for id in 400..800 {
        run.classify(id).await;
    }
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let list = api.open_list("status in (ready, predicted)", "-p_ok", "single", "tab").await;
    let second = judge_all(&api, &list, "tab", "b").await;
    let repeats: Vec<&Value> =
        second.iter().filter(|entry| ids(&first).contains(&entry["photo_id"].as_str().unwrap())).collect();
    assert!((3..=30).contains(&repeats.len()), "{}", repeats.len());
    for repeat in &repeats {
        assert!(["ready", "predicted"].contains(&repeat["status"].as_str().unwrap()));
        assert_eq!((&repeat["verdicts"], &repeat["judgement"]), (&json!([]), &Value::Null));
    }
    assert_eq!(second.len(), 400 + repeats.len());

    let mut selections: HashMap<(Selection, bool), usize> = HashMap::new();
    let log = VerdictLog::new(run.objects.clone(), RunName::default());
    let count = |verdict: facemill::domain::Verdict| {
        *selections.entry((verdict.selection, verdict.repeat)).or_default() += 1;
    };
    log.read(&mut LogPosition::default(), count).await.unwrap();
    let random = selections[&(Selection::Random, false)];
    assert!((40..=140).contains(&random), "{selections:?}");
    assert_eq!(selections[&(Selection::BestFirst, false)], 800 - random);
    let repeated: usize = selections.iter().filter(|((_, repeat), _)| *repeat).map(|(_, count)| count).sum();
    assert_eq!(repeated, repeats.len());
    // The person agrees with themselves, and a repeat changes nothing.
    let statistics = api.get("/api/statistics").await;
    let agreement = &statistics["agreement"][0];
    assert_eq!((&agreement["pairs"], &agreement["same"]), (&json!(repeated), &json!(repeated)), "{statistics}");
    let statuses = api.counts().await;
    assert_eq!(statuses["statuses"]["ok"].as_u64().unwrap() + statuses["statuses"]["ng"].as_u64().unwrap(), 800);

    // A list by filter has neither.
    let list = api.open_list("size>=256", "-p_ok", "single", "tab").await;
    assert_eq!(api.entries(&list, "tab").await.len(), 600);
    // Nor has a grid repeats.
    let list = api.open_list("", "-p_ok", "grid", "tab").await;
    assert_eq!(api.entries(&list, "tab").await.len(), 800);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_read_again_are_the_same_ones() {
    let run = CuratedRun::in_folder(200).await;
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let list = api.open_list("status in (ready, predicted)", "-p_ok", "single", "tab").await;
    let (first, next) = api.entries_after(&list, "tab", &Value::Null, 60).await;
    let (rest, _) = api.entries_after(&list, "tab", &next, 200).await;
    assert_eq!(first.len() + rest.len(), 200);
    let (again, next) = api.entries_after(&list, "tab", &Value::Null, 60).await;
    assert_eq!(ids(&again), ids(&first));
    assert_eq!(ids(&api.entries_after(&list, "tab", &next, 200).await.0), ids(&rest));
}

/// In about a tenth of the lists, the last face comes as a random one.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_ends_with_a_random_face_ends_so_again() {
    let run = CuratedRun::in_folder(3).await;
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    for _ in 0..100 {
        let list = api.open_list("status in (ready, predicted)", "-p_ok", "single", "tab").await;
        let (first, _) = api.entries_after(&list, "tab", &Value::Null, 10).await;
        let (again, _) = api.entries_after(&list, "tab", &Value::Null, 10).await;
        assert_eq!((first.len(), ids(&again)), (3, ids(&first)));
        assert_eq!(api.send(Method::POST, "/api/clients/tab/closed", None).await.0, 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_do_not_get_the_same_unjudged_faces() {
    let run = CuratedRun::in_folder(40).await;
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let open = async |client: &str| api.open_list("", "id", "single", client).await;
    let (first, second) = (open("one").await, open("two").await);
    let (of_first, _) = api.entries_after(&first, "one", &Value::Null, 15).await;
    let (of_second, next) = api.entries_after(&second, "two", &Value::Null, 15).await;
    assert_eq!((ids(&of_first)[0], ids(&of_second)[0]), ("0", "15"));
    assert!(!next.is_null());
    // The client has gone: its faces are free.
    let closed = api.send(Method::POST, "/api/clients/one/closed", None).await;
    assert_eq!(closed.0, 204);
    let (again, _) = api.entries_after(&second, "two", &Value::Null, 40).await;
    assert_eq!(again.len(), 40);
    // A judged face may be seen by everybody.
    api.judge(&[verdict("v", &again[0], "ok")]).await;
    let judged = api.open_list("status=ok", "id", "single", "one").await;
    assert_eq!(ids(&api.entries(&judged, "one").await), ["0"]);
    let left = open("one").await;
    assert_eq!(ids(&api.entries(&left, "one").await), ["0"], "the rest belongs to the other client");
    for (status, path) in [(400, "/api/clients/a%20b/alive"), (204, "/api/clients/unknown/alive")] {
        assert_eq!(api.send(Method::POST, path, None).await.0, status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_goes_on_where_they_were_after_a_restart() {
    let run = CuratedRun::in_folder(50).await;
    let (server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let open = json!({ "where": "status in (ready, predicted)", "sort": "random", "view": "grid", "client": "tab" });
    let list = api.post("/api/lists", open.clone()).await;
    let (first, next) = api.entries_after(list["list"].as_str().unwrap(), "tab", &Value::Null, 20).await;
    let sent: Vec<Value> =
        first.iter().enumerate().map(|(number, entry)| verdict(&format!("v{number}"), entry, "ok")).collect();
    api.judge(&sent).await;
    drop(server);

    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let path = format!("/api/lists/{}/entries", list["list"].as_str().unwrap());
    let (status, answer) = api.send(Method::POST, &path, Some(&json!({ "client": "tab", "after": next }))).await;
    assert_eq!((status, &answer["error"]["code"]), (410, &json!("gone")));
    let mut again = open;
    again["after"] = next.clone();
    let list = api.post("/api/lists", again).await;
    assert_eq!((&list["total"], &list["left"]), (&json!(30), &json!(30)));
    let mut rest = Vec::new();
    let mut after = next;
    while !after.is_null() {
        let (entries, next) = api.entries_after(list["list"].as_str().unwrap(), "tab", &after, 7).await;
        rest.extend(entries);
        after = next;
    }
    let all: BTreeSet<&str> = ids(&first).into_iter().chain(ids(&rest)).collect();
    assert_eq!((all.len(), first.len() + rest.len()), (50, 50), "each face came once");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_one_card() {
    let run = CuratedRun::in_folder(5).await;
    // Two more photos whose crops have the same bytes as the first one's.
    for id in [5, 6] {
        let (mut copy, ..) = photo(&RunName::default(), id);
        let (original, crop, file) = photo(&RunName::default(), 0);
        copy.facts = original.facts;
        run.finish(copy, crop, file).await;
    }
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let list = api.open_list("", "id", "grid", "tab").await;
    let entries = api.entries(&list, "tab").await;
    assert_eq!(ids(&entries), ["0", "1", "2", "3", "4"]);
    assert_eq!((&entries[0]["copies"], &entries[1]["copies"]), (&json!(3), &json!(1)));
    assert_eq!(results(&api.judge(&[verdict("v", &entries[0], "ok")]).await), ["stored"]);
    assert_eq!(api.counts().await["statuses"]["ok"], 3, "the verdict holds for all copies");
    let filtered = api.open_list("id=6", "id", "grid", "tab").await;
    assert_eq!(ids(&api.entries(&filtered, "tab").await), ["6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn near_duplicates_are_one_card_of_the_grid() {
    let run = CuratedRun::in_folder(6).await;
    run.group(&[4, 1, 5]).await;
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let grid = async |query: &str, sort: &str| {
        let list = api.open_list(query, sort, "grid", "tab").await;
        api.entries(&list, "tab").await
    };
    let entries = grid("", "id").await;
    assert_eq!(ids(&entries), ["0", "2", "3", "4"], "the best one is the card");
    let near = |entries: &[Value]| entries.iter().map(|entry| entry["near_duplicates"].clone()).collect::<Vec<_>>();
    assert_eq!(near(&entries), [0, 0, 0, 2]);
    assert_eq!(ids(&grid("id!=4", "id").await), ["0", "1", "2", "3"], "the best one of those in the list");
    assert_eq!(ids(&grid("duplicate", "id").await), ["1", "5"], "who asks for duplicates sees all");
    let random = grid("", "random").await;
    assert_eq!(ids(&random).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(["0", "1", "2", "3", "4", "5"]));
    let single = api.open_list("", "id", "single", "tab").await;
    assert_eq!(ids(&api.entries(&single, "tab").await), ["0", "1", "2", "3", "4", "5"]);

    // A verdict is one on the card alone. If it is NG, the next one comes.
    let unjudged = "status in (ready, predicted)";
    assert_eq!(results(&api.judge(&[verdict("v", &entries[3], "ng")]).await), ["stored"]);
    assert_eq!(ids(&grid(unjudged, "id").await), ["0", "1", "2", "3"]);

    // A person who looks at the group can take a face out of it.
    let face = api.get("/api/faces/1").await;
    let others = face["group"].as_array().unwrap();
    assert_eq!((ids(others), &others[0]["judgement"]), (vec!["4", "5"], &json!("ng")));
    let (status, parted) = api.send(Method::POST, "/api/faces/1/part", None).await;
    assert_eq!((status, &parted["parted"]), (200, &json!(1)));
    assert_eq!(api.get("/api/faces/1").await["group"], json!([]));
    assert_eq!(ids(api.get("/api/faces/4").await["group"].as_array().unwrap()), ["5"]);
    assert_eq!(ids(&grid(unjudged, "id").await), ["0", "1", "2", "3", "5"]);
    let (status, error) = api.send(Method::POST, "/api/faces/1/part", None).await;
    assert_eq!((status, &error["error"]["code"]), (409, &json!("no-group")));
    let (status, error) = api.send(Method::POST, "/api/faces/77/part", None).await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!("not-found")));
    let stored = StoredDuplicates::new(run.objects.clone(), RunName::default());
    let partings = stored.partings().await.unwrap();
    assert_eq!((partings.len(), partings[0].by.as_str(), partings[0].group.len()), (1, "ada", 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lists_are_refused() {
    let run = CuratedRun::in_folder(1).await;
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let good = json!({ "where": "", "sort": "id", "view": "grid", "client": "tab" });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for (status, body) in [
        (400, with("where", json!("moon=1"))),
        (400, with("where", json!("(".repeat(50)))),
        (400, with("sort", json!("moon"))),
        (422, with("view", json!("bulk"))),
        (422, with("client", json!(""))),
        (400, with("after", json!("x"))),
        (422, with("extra", json!(1))),
        (422, json!([])),
    ] {
        assert_eq!(api.send(Method::POST, "/api/lists", Some(&body)).await.0, status, "{body}");
    }
    let list = api.open_list("", "id", "grid", "tab").await;
    let path = format!("/api/lists/{list}/entries");
    for (status, path, body) in [
        (422, &path, json!({ "client": "tab", "limit": 0 })),
        (422, &path, json!({ "client": "tab", "limit": 201 })),
        (400, &path, json!({ "client": "tab", "after": "1.2.zz" })),
        (410, &"/api/lists/none/entries".to_owned(), json!({ "client": "tab" })),
    ] {
        assert_eq!(api.send(Method::POST, path, Some(&body)).await.0, status, "{body}");
    }
    for (status, path) in [
        (400, "/api/faces?limit=0"),
        (400, "/api/faces?order=id"),
        (400, "/api/counts?where=moon"),
        (404, "/api/faces/none"),
        (404, "/api/moon"),
        (405, "/api/verdicts"),
        (400, "/api/border?p=2"),
    ] {
        assert_eq!(api.send(Method::GET, path, None).await.0, status, "{path}");
    }
}
