//! Training from the page, by its API.

use axum::http::Method;
use facemill::domain::Role;
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};
use support::curation::CurationServer;

use super::client::ApiClient;
use super::visitor::{Visitor, add_users};
use crate::training::{answer, import, run_folder};

const PATH: &str = "/api/training";

/// Waits until no training runs.
async fn ended(api: &ApiClient) -> Value {
    let deadline = Instant::now() + support::PATIENCE;
    loop {
        let training = api.get(PATH).await;
        if training["state"] != "running" {
            return training;
        }
        assert!(Instant::now() < deadline, "{training}");
        // The server sends no notice.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn serve(out: &std::path::Path) -> CurationServer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
    let cache = out.join("cache");
    command.args(["curate", "--out", out.to_str().unwrap()]).env("USER", "ada").env("XDG_CACHE_HOME", cache);
    CurationServer::start(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_curator_trains_while_the_page_answers() {
    let folder = run_folder().await;
    let out = folder.path();
    let server = serve(out);
    let api = ApiClient::of(&server);
    assert_eq!(api.get(PATH).await, json!({ "state": "idle" }));

    // Too few verdicts are the end of a training, not of the server.
    let (status, started) = api.send(Method::POST, PATH, None).await;
    assert_eq!((status, &started["state"], &started["by"]), (202, &json!("running"), &json!("ada")));
    let failed = ended(&api).await;
    assert_eq!(failed["state"], "failed");
    assert!(failed["message"].as_str().unwrap().contains("judge more"), "{failed}");

    import(out, &std::fs::read_to_string(out.join("verdicts.jsonl")).unwrap());
    let deadline = Instant::now() + support::PATIENCE;
    while api.get("/api/counts").await["statuses"]["ok"] != 48 {
        assert!(Instant::now() < deadline, "the server has not read the verdicts");
        // The server follows the log of another process and sends no notice.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (status, _) = api.send(Method::POST, PATH, None).await;
    let (refused, error) = api.send(Method::POST, PATH, None).await;
    assert_eq!((status, refused, &error["error"]["code"]), (202, 409, &json!("training")));
    assert_eq!(api.get("/api/counts").await["total"], 96, "the page answers meanwhile");
    let done = ended(&api).await;
    assert_eq!(done["state"], "done", "{done}");

    // It is what the command makes, is stored, and is not used yet.
    let trained = &done["training"];
    let listed = answer(out, &["models", "list"]);
    assert_eq!((&listed[0]["sha256"], &listed[0]["current"]), (&trained["sha256"], &json!(false)));
    let by_command = answer(out, &["train"]);
    assert_eq!((&by_command["sha256"], &by_command["report"]), (&trained["sha256"], &trained["report"]));

    // The next one is compared with the classifier in use, once that has scored the faces.
    answer(out, &["rescore", "--model", trained["model"].as_str().unwrap()]);
    answer(out, &["models", "use", trained["model"].as_str().unwrap()]);
    answer(out, &["faces", "--count"]);
    assert_eq!(api.send(Method::POST, PATH, None).await.0, 202);
    let again = ended(&api).await;
    let comparison = &again["training"]["report"]["comparison"];
    assert_eq!(comparison["model"], trained["model"], "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_starts_no_training() {
    let folder = run_folder().await;
    add_users(folder.path(), &[("bob", Role::Viewer)]).await;
    let server = serve(folder.path());
    let cookie = Visitor::signed_in(&server, "bob").await.cookie.unwrap();
    let bob = ApiClient::with_cookie(&server, &cookie);
    assert_eq!(bob.send(Method::POST, PATH, None).await.0, 403);
    assert_eq!(bob.get(PATH).await["state"], "idle");
    assert_eq!(ApiClient::of(&server).send(Method::GET, PATH, None).await.0, 401);
}
