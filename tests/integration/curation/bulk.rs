//! Verdicts in bulk, the border and the statistics.

use axum::http::Method;
use serde_json::{Value, json};
use support::curation::CuratedRun;

use super::client::{ApiClient, results, verdict};
use super::inside;

async fn bulk(api: &ApiClient, body: Value) -> (u16, Value) {
    api.send(Method::POST, "/api/bulk", Some(&body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_judges_what_the_person_was_told_and_one_undo_takes_it_back() {
    let run = CuratedRun::in_folder(60).await;
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let border = api.get("/api/border?p=0.6").await;
    let (above, below) = (border["above"].as_u64().unwrap(), border["below"].as_u64().unwrap());
    assert!(above > 10 && below > 10 && above + below < 60, "{border}");
    assert_eq!(border["unjudged"], 60);
    let bins: u64 = border["histogram"]["bins"].as_array().unwrap().iter().map(|bin| bin.as_u64().unwrap()).sum();
    assert_eq!(bins, above + below);
    let around: Vec<f64> =
        border["crops"].as_array().unwrap().iter().map(|crop| crop["p_ok"].as_f64().unwrap()).collect();
    assert!(around.len() >= 20 && around.is_sorted_by(|a, b| a >= b), "{around:?}");
    assert_eq!(around.iter().filter(|p_ok| **p_ok >= 0.6).count(), 12);

    let ask = |id: &str, count: u64| json!({ "id": id, "judgement": "ok", "from": 0.6, "count": count });
    let (status, answer) = bulk(&api, ask("b1", above + 1)).await;
    assert_eq!((status, &answer["error"]["count"]), (409, &json!(above)));
    assert_eq!(api.counts().await["statuses"]["ok"], 0, "nothing was stored");
    assert_eq!(bulk(&api, ask("b1", above)).await, (200, json!({ "stored": above, "undo": "b1" })));
    assert_eq!(api.counts().await["statuses"]["ok"], above);
    // The answer was lost: the same again stores nothing more.
    assert_eq!(bulk(&api, ask("b1", above)).await, (200, json!({ "stored": above, "undo": "b1" })));
    let mut other = ask("b1", 0);
    other["judgement"] = json!("ng");
    assert_eq!(bulk(&api, other).await.1["error"]["code"], "id-taken");

    // What people judge since stays.
    let list = api.open_list("status=ok", "id", "single", "tab").await;
    let entries = api.entries(&list, "tab").await;
    assert_eq!(results(&api.judge(&[verdict("mine", &entries[0], "ng")]).await), ["stored"]);
    let undone = api.post("/api/bulk/b1/undo", json!({})).await;
    assert_eq!(undone["stored"], above - 1);
    let counts = api.counts().await;
    assert_eq!((&counts["statuses"]["ok"], &counts["statuses"]["ng"]), (&json!(0), &json!(1)));
    assert_eq!(api.post("/api/bulk/b1/undo", json!({})).await["stored"], 0);
    assert_eq!(bulk(&api, ask("b1", above - 1)).await.1["error"]["code"], "id-taken");
    assert_eq!(bulk(&api, ask("b2", above - 1)).await.0, 200);
    assert_eq!(api.send(Method::POST, "/api/bulk/none/undo", None).await.0, 404);

    for (status, body) in [
        (422, json!({ "id": "b 3", "judgement": "ok", "count": 0 })),
        (422, json!({ "id": "b3", "judgement": "pending", "count": 0 })),
        (422, json!({ "id": "b3", "judgement": "ok", "from": 1.5, "count": 0 })),
        (400, json!({ "id": "b3", "judgement": "ok", "where": "size", "count": 0 })),
        (422, json!({ "id": "b3", "judgement": "ok" })),
    ] {
        assert_eq!(bulk(&api, body.clone()).await.0, status, "{body}");
    }
    let statistics = api.get("/api/statistics").await;
    assert_eq!(statistics["by_person"], json!([{ "person": "ada", "verdicts": 1, "in_bulk": 2 * above - 1 }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_precision_is_that_of_random_pictures_that_were_judged_singly() {
    let run = CuratedRun::in_folder(80).await;
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    assert_eq!(api.get("/api/border?p=0.3").await["precision"], Value::Null);
    let list = api.open_list("", "random", "single", "tab").await;
    let entries: Vec<Value> = api.entries(&list, "tab").await;
    let scored: Vec<&Value> = entries.iter().filter(|entry| entry["p_ok"].as_f64().is_some_and(|p| p >= 0.3)).collect();
    assert!(scored.len() > 20);
    for (number, entry) in scored.iter().enumerate().take(12) {
        let judgement = if number < 9 { "ok" } else { "ng" };
        assert_eq!(results(&api.judge(&[verdict(&format!("v{number}"), entry, judgement)]).await), ["stored"]);
    }
    // Neither a grid nor an undone verdict counts, nor what a filter chose.
    let mut grid = verdict("grid", scored[12], "ng");
    grid["view"] = json!("grid");
    let undone = verdict("undone", scored[13], "ng");
    let mut undo = verdict("undo", scored[13], "unjudged");
    undo["replaces"] = json!(["undone"]);
    let face = api.get(&format!("/api/faces/{}", scored[14]["photo_id"].as_str().unwrap())).await;
    api.judge(&[grid, undone, undo, verdict("filter", &face, "ng")]).await;
    let precision = &api.get("/api/border?p=0.3").await["precision"];
    assert_eq!((&precision["n"], &precision["ok"], &precision["share"]), (&json!(12), &json!(9), &json!(0.75)));
    // Wilson's interval of 9 in 12.
    let near = |name: &str, value: f64| (precision[name].as_f64().unwrap() - value).abs() < 1e-3;
    assert!(near("low", 0.4677) && near("high", 0.9111), "{precision}");
    // Of another model nothing is known.
    let mut change =
        facemill::archive::run_classifier::RunClassifiers::new(run.objects.clone()).read(&run.run).await.unwrap();
    let mut change = change.changes.pop().unwrap();
    change.model_sha256 = facemill::domain::ContentHash::of(b"another model");
    facemill::archive::run_classifier::RunClassifiers::new(run.objects.clone()).change(&run.run, change).await.unwrap();
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    assert_eq!(api.get("/api/border?p=0.3").await["precision"], Value::Null);
}
