//! Every operation of the description, called as described, on a run in a folder and on one on servers.

use std::collections::BTreeSet;

use axum::http::Method;
use facemill::domain::Role;
use serde_json::{Value, json};
use support::curation::CuratedRun;

use super::client::{ApiClient, verdict};
use super::schema::faults;
use super::visitor::{PASSWORD, Visitor, add_users};

/// Calls operations and compares requests and answers with the description.
struct Described<'a> {
    api: &'a ApiClient,
    document: Value,
    called: BTreeSet<String>,
}

impl Described<'_> {
    /// `operation`: its id. `path`: its path with values in place of names. Returns the body.
    async fn call(&mut self, operation: &str, path: &str, body: Option<Value>) -> Value {
        let (method, described) = self.operation(operation, path);
        if let Some(body) = &body {
            let schema = &described["requestBody"]["content"]["application/json"]["schema"];
            assert_eq!(faults(&self.document, schema, body), [] as [&str; 0], "{operation}");
        }
        let (status, answer) = self.api.send(method, path, body.as_ref()).await;
        let response = &described["responses"][status.to_string()];
        assert!(response.is_object(), "{operation}: {status} is not described: {answer}");
        assert!(status < 300, "{operation}: {status} {answer}");
        if let schema @ Value::Object(_) = &response["content"]["application/json"]["schema"] {
            assert_eq!(faults(&self.document, schema, &answer), [] as [&str; 0], "{operation}: {answer}");
        }
        self.called.insert(operation.to_owned());
        answer
    }

    fn operation(&self, operation: &str, path: &str) -> (Method, Value) {
        let (mut parts, query) = (path.split('?'), path.split_once('?').map_or("", |(_, query)| query));
        let segments: Vec<&str> = parts.next().unwrap().split('/').collect();
        for (described_path, methods) in self.document["paths"].as_object().unwrap() {
            for (method, described) in methods.as_object().unwrap() {
                if described["operationId"] == operation {
                    let names: Vec<&str> = described_path.split('/').collect();
                    let fits = |(name, value): (&&str, &&str)| name.starts_with('{') || name == value;
                    assert!(names.len() == segments.len() && names.iter().zip(&segments).all(fits), "{path}");
                    let parameters = described["parameters"].as_array().cloned().unwrap_or_default();
                    for parameter in query.split('&').filter(|query| !query.is_empty()) {
                        let name = parameter.split('=').next().unwrap();
                        assert!(parameters.iter().any(|one| one["name"] == name), "{operation} has no {name}");
                    }
                    return (method.to_uppercase().parse().unwrap(), described.clone());
                }
            }
        }
        panic!("{operation} is not described")
    }

    fn all(&self) -> BTreeSet<String> {
        let methods = self.document["paths"].as_object().unwrap().values();
        let operations = methods.flat_map(|methods| methods.as_object().unwrap().values());
        operations.map(|operation| operation["operationId"].as_str().unwrap().to_owned()).collect()
    }
}

async fn every_operation(run: &CuratedRun) {
    let server = run.serve(&["--jaeger", "http://jaeger:16686"]);
    let api = ApiClient::of(&server);
    let document = api.get("/api/openapi.json").await;
    let mut described = Described { api: &api, document, called: BTreeSet::new() };
    described.call("getDescription", "/api/openapi.json", None).await;
    let session = described.call("getSession", "/api/session", None).await;
    assert_eq!(session["run"], run.run.as_str());

    let open = json!({ "where": "status in (ready, predicted)", "sort": "random", "view": "single", "client": "tab" });
    let list = described.call("openList", "/api/lists", Some(open)).await;
    assert_eq!((&list["total"], &list["left"], &list["selection"]), (&json!(30), &json!(30), &json!("random")));
    let entries = format!("/api/lists/{}/entries", list["list"].as_str().unwrap());
    let read = described.call("readEntries", &entries, Some(json!({ "client": "tab", "limit": 20 }))).await;
    let after = json!({ "client": "tab", "after": read["next"] });
    described.call("readEntries", &entries, Some(after)).await;
    let entry = &read["entries"][0];

    let mut ng = verdict("v1", entry, "ng");
    ng["reason"] = json!("cut-off");
    let sent = json!({ "client": "tab", "verdicts": [ng, verdict("v2", &read["entries"][1], "ok"),
                       { "id": "v3", "ticket": "x", "judgement": "ok", "view": "grid" }] });
    let stored = described.call("sendVerdicts", "/api/verdicts", Some(sent)).await;
    let results: Vec<&Value> = stored["results"].as_array().unwrap().iter().map(|one| &one["result"]).collect();
    assert_eq!(results, ["stored", "stored", "refused"]);
    // Somebody who did not see the verdict.
    let blind = json!({ "id": "v4", "ticket": entry["ticket"], "judgement": "ok", "view": "single" });
    let sent = json!({ "client": "other", "verdicts": [blind] });
    let stored = described.call("sendVerdicts", "/api/verdicts", Some(sent)).await;
    assert_eq!(stored["results"][0]["verdicts"].as_array().unwrap().len(), 2, "{stored}");
    described.call("keepAlive", "/api/clients/tab/alive", None).await;
    described.call("closeClient", "/api/clients/tab/closed", None).await;

    let path = "/api/faces?where=not%20status%3Dready&sort=-size&limit=5";
    let faces = described.call("listFaces", path, None).await;
    let next = faces["next"].as_str().unwrap();
    described.call("listFaces", &format!("{path}&after={next}"), None).await;
    let face = format!("/api/faces/{}", entry["photo_id"].as_str().unwrap());
    let face = described.call("getFace", &face, None).await;
    assert_eq!((&face["judgement"], face["history"].as_array().unwrap().len()), (&json!("pending"), 2));
    assert!(face["trace"]["url"].as_str().unwrap().starts_with("http://jaeger:16686/trace/"));
    assert!(face["story"].as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains("crop")));
    described.call("getCrop", face["picture"].as_str().unwrap(), None).await;
    described.call("getCrop", &format!("{}?size=256", face["picture"].as_str().unwrap()), None).await;
    described.call("getOriginal", face["original"]["picture"].as_str().unwrap(), None).await;

    run.group(&[0, 1, 2]).await;
    described.call("partFace", "/api/faces/0/part", None).await;

    described.call("getCounts", "/api/counts?where=size%3E%3D512", None).await;
    described.call("findLabels", "/api/labels?prefix=person&limit=3", None).await;
    described.call("countLabels", "/api/labels/counts?where=size%3E%3D512&limit=3", None).await;
    let balance = described.call("getBalance", "/api/balance?where=size%3E%3D512&limit=3&max_per_label=1", None).await;
    assert!(balance["left"].as_u64().unwrap() < balance["faces"].as_u64().unwrap(), "{balance}");
    described.call("getBalance", "/api/balance", None).await;
    described.call("findHosts", "/api/hosts?prefix=host1", None).await;
    let counts = described.call("setThreshold", "/api/threshold", Some(json!({ "threshold": 0.75 }))).await;
    assert_eq!(counts["threshold"], 0.75);
    let border = described.call("getBorder", "/api/border?p=0.75&where=", None).await;
    assert!(border["crops"].as_array().unwrap().len() > 5);
    let all = json!({ "id": "b1", "judgement": "ng", "below": 0.75, "count": border["below"] });
    let judged = described.call("judgeAll", "/api/bulk", Some(all)).await;
    assert_eq!(judged["stored"], border["below"]);
    let undone = described.call("undoBulk", "/api/bulk/b1/undo", None).await;
    assert_eq!(undone["stored"], border["below"]);
    let statistics = described.call("getStatistics", "/api/statistics", None).await;
    assert_eq!(statistics["by_person"], json!([{ "person": "ada", "verdicts": 3, "in_bulk": border["below"] }]));

    described.call("startTraining", "/api/training", None).await;
    while described.call("getTraining", "/api/training", None).await["state"] == "running" {
        tokio::task::yield_now().await;
    }

    let mut missing = described.all();
    missing.retain(|operation| !described.called.contains(operation));
    assert_eq!(missing, of_access(), "the other test calls these");
}

/// Operations that need people who sign in.
fn of_access() -> BTreeSet<String> {
    ["signIn", "signOut"].map(str::to_owned).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_and_out_as_described() {
    let run = CuratedRun::in_folder(2).await;
    add_users(run.path(), &[("ada", Role::Curator)]).await;
    let server = run.serve(&[]);
    let stranger = ApiClient::of(&server);
    let document = stranger.get("/api/openapi.json").await;
    let mut described = Described { api: &stranger, document: document.clone(), called: BTreeSet::new() };
    let body = json!({ "name": "ada", "password": PASSWORD });
    described.call("signIn", "/api/session", Some(body)).await;
    let mut called = described.called;

    let cookie = Visitor::signed_in(&server, "ada").await.cookie.unwrap();
    let ada = ApiClient::with_cookie(&server, &cookie);
    let mut described = Described { api: &ada, document, called: BTreeSet::new() };
    described.call("signOut", "/api/session", None).await;
    called.extend(described.called);
    assert_eq!(called, of_access());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_as_described_on_a_folder() {
    every_operation(&CuratedRun::in_folder(30).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_as_described_on_servers() {
    every_operation(&CuratedRun::on_servers(30).await).await;
}
