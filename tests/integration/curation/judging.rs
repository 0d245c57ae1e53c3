//! Lists, entries, verdicts, and what they change.

use serde_json::json;
use support::curation::RunFolder;

use super::client::{ApiClient, results, verdict};

#[tokio::test(flavor = "multi_thread")]
async fn faces_are_listed_judged_and_undone() {
    let run = RunFolder::with_faces(40).await;
    let mut server = run.serve(&["--wanted", "5"]);
    let api = ApiClient::of(&server);
    let session = api.get("/api/session").await;
    assert_eq!((&session["person"]["name"], &session["run"]), (&json!("ada"), &json!("default")));
    let before = api.counts().await;
    assert_eq!((&before["total"], &before["left"]), (&json!(40), &json!(5)));

    let list = api.open_list("size>=256", "-p_ok", "grid", "tab").await;
    let entries = api.entries(&list, "tab").await;
    assert_eq!(entries.len(), 30);
    let p_ok: Vec<f64> = entries.iter().filter_map(|entry| entry["p_ok"].as_f64()).collect();
    assert!(p_ok.is_sorted_by(|a, b| a >= b), "{p_ok:?}");

    let ok = verdict("v1", &entries[0], "ok");
    let mut ng = verdict("v2", &entries[1], "ng");
    ng["reason"] = json!("blurred");
    assert_eq!(results(&api.judge(&[ok.clone(), ng.clone()]).await), ["stored", "stored"]);
    assert_eq!(results(&api.judge(&[ok.clone(), ng]).await), ["known", "known"]);
    let counts = api.counts().await;
    assert_eq!(
        (&counts["statuses"]["ok"], &counts["statuses"]["ng"], &counts["left"]),
        (&json!(1), &json!(1), &json!(4))
    );

    let today = api.get("/api/faces?where=judged_at%3E%3D%272026-01-01%27").await;
    assert_eq!(today["total"], 2);
    assert_eq!(api.get("/api/faces?where=judged_at%3C%272026-01-01%27").await["total"], 0);

    // The list is as it was; the faces show what was judged.
    let again = api.entries(&list, "tab").await;
    assert_eq!(again.len(), 30);
    assert_eq!((&again[0]["status"], &again[0]["verdicts"][0]["id"]), (&json!("ok"), &json!("v1")));
    assert_eq!((&again[1]["judgement"], &again[1]["reason"]), (&json!("ng"), &json!("blurred")));
    // An undo is a verdict.
    let undo = verdict("v3", &again[0], "unjudged");
    assert_eq!(results(&api.judge(&[undo]).await), ["stored"]);
    assert_eq!(api.counts().await["statuses"]["ok"], 0);

    // A server that is killed has lost nothing.
    server.kill();
    let server = run.serve(&[]);
    let api = ApiClient::of(&server);
    assert_eq!(api.counts().await["statuses"]["ng"], 1);
    let id = entries[0]["photo_id"].as_str().unwrap();
    let face = api.get(&format!("/api/faces/{id}")).await;
    let history: Vec<&str> =
        face["history"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(history, ["v1", "v3"]);
    assert_eq!(face["status"], if face["p_ok"].as_f64().unwrap() >= 0.5 { "predicted" } else { "ready" });
    assert_eq!(results(&api.judge(&[ok]).await), ["known"], "the ticket holds, and so does the id");
}
