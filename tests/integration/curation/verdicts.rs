//! Verdicts are stored once and in order, whatever fails.

use std::sync::Arc;

use axum::http::Method;
use facemill::domain::{ContentHash, Judgement, NgReason, Selection, Verdict, View};
use facemill::objects::Objects;
use facemill::verdicts::{LogPosition, VerdictLog, VerdictWriter};
use serde_json::{Value, json};
use support::curation::{CuratedRun, set_classifier};
use support::failpoints::{Failpoint, FailpointObjects};
use support::objects::MemoryObjects;

use super::client::{ApiClient, results, verdict};
use super::inside;

async fn logged(run: &CuratedRun, objects: Arc<dyn Objects>) -> Vec<(String, String)> {
    let mut verdicts = Vec::new();
    let log = VerdictLog::new(objects, run.run.clone());
    log.read(&mut LogPosition::default(), |verdict| verdicts.push((verdict.id.to_string(), verdict.by))).await.unwrap();
    verdicts
}

async fn entries(api: &ApiClient) -> Vec<Value> {
    let list = api.open_list("", "id", "single", "tab").await;
    api.entries(&list, "tab").await
}

fn body(verdicts: &[Value]) -> Value {
    json!({ "client": "tab", "verdicts": verdicts })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_answers_503_and_the_same_verdicts_are_stored_once_later() {
    let run = CuratedRun::in_folder(4).await;
    let objects = Arc::new(MemoryObjects::default());
    set_classifier(objects.clone(), &run.run, 0.5).await;
    let (_server, api) = inside::open(&run, objects.clone(), "ada").await.unwrap();
    let entries = entries(&api).await;
    let sent = [verdict("a", &entries[0], "ok"), verdict("b", &entries[1], "ng")];
    objects.set_unavailable(true);
    let answer = api
        .answer(Method::POST, "/api/verdicts", &[("Content-Type", "application/json")], body(&sent).to_string().into())
        .await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"));
    assert_eq!(api.counts().await["statuses"]["ok"], 0, "nothing was stored");
    objects.set_unavailable(false);
    assert_eq!(logged(&run, objects.clone()).await, []);
    assert_eq!(results(&api.judge(&sent).await), ["stored", "stored"]);
    assert_eq!(results(&api.judge(&sent).await), ["known", "known"]);
    let expected = ["a", "b"].map(|id| (id.to_owned(), "ada".to_owned()));
    assert_eq!(logged(&run, objects.clone()).await, expected);
    let counts = api.counts().await;
    assert_eq!((&counts["statuses"]["ok"], &counts["statuses"]["ng"]), (&json!(1), &json!(1)));
}

/// As after `facemill recrop`, or when a photo was requeued and cut differently.
#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_on_an_earlier_crop_is_shown_and_does_not_count() {
    let run = CuratedRun::in_folder(2).await;
    let log = VerdictLog::new(run.objects.clone(), run.run.clone());
    let earlier = Verdict {
        id: "earlier".parse().unwrap(),
        photo_id: 1.into(),
        crop: ContentHash::of(b"an earlier crop"),
        judgement: Judgement::Ng,
        reason: Some(NgReason::CutOff),
        by: "ada".into(),
        at: 1_700_000_000_000,
        replaces: vec![],
        selection: Selection::Import,
        view: View::Single,
        repeat: false,
        seen: None,
    };
    VerdictWriter::open(log, |_| ()).await.unwrap().append(std::slice::from_ref(&earlier)).await.unwrap();
    let (_server, api) = inside::open(&run, run.objects.clone(), "bob").await.unwrap();
    let face = api.get("/api/faces/1").await;
    assert_eq!((&face["judgement"], &face["history"][0]["id"]), (&Value::Null, &json!("earlier")), "{face}");
    let shown = json!([{ "id": "earlier", "crop": earlier.crop, "judgement": "ng", "reason": "cut-off", "by": "ada",
                         "at": 1_700_000_000_000_u64 }]);
    assert_eq!(face["earlier"], shown);
    assert_eq!(api.get("/api/faces/0").await["earlier"], json!([]));
    assert_eq!(api.counts().await["statuses"]["ng"], 0, "it does not count");
}

/// The server dies before or after each write in turn. The client sends everything that was not acknowledged to the next
/// server.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_write_loses_and_doubles_nothing() {
    let run = CuratedRun::in_folder(12).await;
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let entries = entries(&api).await;
    assert_eq!(entries.len(), 12);
    let mut expected = Vec::new();
    for (round, (step, after)) in (1..=3).flat_map(|step| [(step, false), (step, true)]).enumerate() {
        // Each round replaces the verdicts of the one before.
        let judge = |(number, entry): (usize, &Value)| {
            let mut sent = verdict(&format!("r{round}-{number}"), entry, ["ok", "ng", "pending"][round % 3]);
            if round > 0 {
                sent["replaces"] = json!([format!("r{}-{number}", round - 1)]);
            }
            sent
        };
        let sent: Vec<Value> = entries.iter().enumerate().map(judge).collect();
        expected.extend((0..12).map(|number| format!("r{round}-{number}")));
        let failpoint = Failpoint::of(step, after);
        let failing: Arc<dyn Objects> =
            Arc::new(FailpointObjects { objects: run.objects.clone(), failpoint: failpoint.clone() });
        let (_dies, api) = inside::open(&run, failing, "ada").await.unwrap();
        let mut acknowledged = 0;
        for batch in sent.chunks(4) {
            tokio::select! {
                biased;
                answers = api.judge(batch) => acknowledged += results(&answers).len(),
                () = failpoint.reached() => break,
            }
        }
        assert_eq!(acknowledged as i64, 4 * (step - 1), "{step} {after}");
        let (_next, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
        let answers = api.judge(&sent[acknowledged..]).await;
        let stored = results(&answers).iter().filter(|result| **result == "stored").count();
        assert_eq!(stored, 12 - acknowledged - if after { 4 } else { 0 }, "{step} {after}");
        let ids: Vec<String> = logged(&run, run.objects.clone()).await.into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, expected, "{step} {after}");
        let counts = api.counts().await;
        assert_eq!(counts["statuses"][["ok", "ng", "pending"][round % 3]], 12, "{counts}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_log_lose_nothing_and_tell_conflicts() {
    let run = CuratedRun::in_folder(10).await;
    let (first, ada) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let (second, grace) = inside::open(&run, run.objects.clone(), "grace").await.unwrap();
    let (of_ada, of_grace) = (entries(&ada).await, entries(&grace).await);
    let send = async |api: &ApiClient, entries: &[Value], name: &str, judgement: &str| {
        let mut all = Vec::new();
        for (number, entry) in entries.iter().enumerate() {
            all.extend(api.judge(&[verdict(&format!("{name}-{number}"), entry, judgement)]).await);
        }
        all
    };
    let (answers, others) =
        tokio::join!(send(&ada, &of_ada[..6], "ada", "ok"), send(&grace, &of_grace[4..], "grace", "ng"));
    // Both judged the faces 4 and 5: whoever came second was told.
    let both = [results(&answers), results(&others)].concat();
    assert_eq!(both.iter().filter(|result| **result == "conflict").count(), 2, "{both:?}");
    let conflict = answers.iter().chain(&others).find(|answer| answer["result"] == "conflict").unwrap();
    let judgements: Vec<&Value> =
        conflict["verdicts"].as_array().unwrap().iter().map(|verdict| &verdict["judgement"]).collect();
    assert!(judgements.contains(&&json!("ok")) && judgements.contains(&&json!("ng")), "{conflict}");
    let log = logged(&run, run.objects.clone()).await;
    assert_eq!(log.len(), 12);
    for name in ["ada", "grace"] {
        let ids: Vec<&String> = log.iter().filter(|(_, by)| by == name).map(|(id, _)| id).collect();
        assert_eq!(ids, (0..6).map(|number| format!("{name}-{number}")).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    }
    // Somebody who has seen both decides; the other server follows.
    let pending = ada.get("/api/faces?where=status%3Dpending").await;
    assert_eq!(pending["total"], 2);
    let id = pending["faces"][0]["photo_id"].as_str().unwrap();
    let face = ada.get(&format!("/api/faces/{id}")).await;
    assert_eq!(results(&ada.judge(&[verdict("decided", &face, "ok")]).await), ["stored"]);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let following = async {
        // Too many requests are an answer, too.
        while grace.send(Method::GET, "/api/counts", None).await.1["statuses"]["pending"] != 1 {}
        shutdown.cancel();
    };
    tokio::join!(first.follow(shutdown.clone()), second.follow(shutdown.clone()), following);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_verdict_is_refused_and_does_not_stop_the_others() {
    let run = CuratedRun::in_folder(3).await;
    let (_server, ada) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let (_other, grace) = inside::open(&run, run.objects.clone(), "grace").await.unwrap();
    let (entries, of_grace) = (entries(&ada).await, entries(&grace).await);
    let with = |id: &str, name: &str, value: Value| {
        let mut sent = verdict(id, &entries[1], "ok");
        sent[name] = value;
        sent
    };
    let mut foreign = verdict("x1", &of_grace[0], "ok");
    foreign["replaces"] = json!([]);
    let sent = [
        verdict("good", &entries[0], "ok"),
        foreign,
        with("x2", "judgement", json!("maybe")),
        with("x3", "view", json!("bulk")),
        with("x4", "reason", json!("blurred")),
        with("x5", "ticket", json!("AAAA")),
        with("no id!", "judgement", json!("ok")),
        with("x6", "replaces", json!(["a b"])),
        verdict("good", &entries[0], "ok"),
        verdict("good", &entries[0], "ng"),
        verdict("last", &entries[2], "pending"),
    ];
    let answers = ada.judge(&sent).await;
    let expected = ["stored", "refused", "refused", "refused", "refused", "refused", "refused", "refused", "known"];
    assert_eq!(results(&answers)[..9], expected);
    assert_eq!(results(&answers)[9..], ["refused", "stored"]);
    assert!(answers[1]["message"].as_str().unwrap().contains("another person"));
    assert!(answers[4]["message"].as_str().unwrap().contains("only NG has a reason"));
    let ids: Vec<String> = logged(&run, run.objects.clone()).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["good", "last"]);

    let many: Vec<Value> = (0..201).map(|number| verdict(&format!("m{number}"), &entries[0], "ok")).collect();
    for (status, request) in [
        (422, body(&many)),
        (422, json!({ "client": "tab", "verdicts": [{ "id": "x" }] })),
        (422, json!({ "client": "tab", "verdicts": [], "extra": 1 })),
        (422, json!({ "client": "not a client", "verdicts": [] })),
    ] {
        assert_eq!(ada.send(Method::POST, "/api/verdicts", Some(&request)).await.0, status, "{request}");
    }
    let raw = async |media_type: &str, body: Vec<u8>| {
        ada.answer(Method::POST, "/api/verdicts", &[("Content-Type", media_type)], body).await.status
    };
    assert_eq!(raw("application/json", b"{".to_vec()).await, 400);
    assert_eq!(raw("text/plain", b"{}".to_vec()).await, 415);
    assert_eq!(raw("application/json", vec![b' '; 300 << 10]).await, 413);
}
