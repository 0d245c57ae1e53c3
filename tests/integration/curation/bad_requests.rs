//! Requests that must be refused, on every path of the API: nothing changes, and the answer says why.

use std::collections::BTreeMap;
use std::path::Path;

use facemill::domain::{ContentHash, Role, RunName};
use reqwest::Method;
use serde_json::{Value, json};
use support::curation::{CuratedRun, CurationServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::visitor::{Visitor, add_users};

/// An operation of `/api/openapi.json`.
struct Operation {
    method: Method,
    /// With a value for each parameter.
    path: String,
    /// The path as it is described.
    template: String,
    description: Value,
}

impl Operation {
    fn answers(&self, status: &str) -> bool {
        self.description["responses"][status].is_object()
    }

    fn has_body(&self) -> bool {
        self.description["requestBody"].is_object()
    }

    fn changes(&self) -> bool {
        self.method != Method::GET
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

async fn operations(visitor: &mut Visitor) -> Vec<Operation> {
    let described = visitor.get("/api/openapi.json").await;
    assert_eq!(described.status, 200);
    let mut operations = Vec::new();
    for (path, methods) in described.body["paths"].as_object().unwrap() {
        for (method, description) in methods.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            operations.push(Operation {
                method,
                path: with_parameter(path, "1"),
                template: path.clone(),
                description: description.clone(),
            });
        }
    }
    assert!(operations.len() >= 18, "{}", operations.len());
    operations
}

fn with_parameter(path: &str, value: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { value } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// The objects of a store that requests may change. Sessions begin and end, and the index follows.
fn objects(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut objects = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            let is_derived = name.starts_with("cache") || name.contains(".sqlite") || name.ends_with("sessions.json");
            if path.is_dir() {
                folders.push(path);
            } else if !is_derived {
                objects.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    objects
}

struct Scene {
    run: CuratedRun,
    server: CurationServer,
    before: BTreeMap<String, Vec<u8>>,
    counts: Value,
}

impl Scene {
    async fn new() -> Self {
        let run = CuratedRun::in_folder(8).await;
        add_users(run.path(), &[("ada", Role::Curator), ("bob", Role::Viewer)]).await;
        let server = run.serve(&[]);
        let counts = Visitor::signed_in(&server, "ada").await.get("/api/counts").await.body;
        let before = objects(run.path());
        Self { run, server, before, counts }
    }

    /// Nothing has changed, and the server still serves.
    async fn check(&self) {
        let after = objects(self.run.path());
        assert!(after.keys().eq(self.before.keys()), "{:?}", after.keys());
        assert!(after == self.before);
        assert_eq!(Visitor::signed_in(&self.server, "ada").await.get("/api/counts").await.body, self.counts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_the_wrong_people_change_nothing() {
    let scene = Scene::new().await;
    let (mut stranger, mut ada) = (Visitor::of(&scene.server), Visitor::signed_in(&scene.server, "ada").await);
    let mut bob = Visitor::signed_in(&scene.server, "bob").await;
    let body = |operation: &Operation| operation.has_body().then(|| "{}".to_owned());
    for operation in operations(&mut ada).await {
        let Operation { method, path, .. } = &operation;
        if operation.answers("401") && path != "/api/session" {
            // Also while a large body is under way: the page must learn that its session has ended.
            let large = operation.has_body().then(|| "x".repeat(2 << 20));
            let answer = stranger.send(method.clone(), path, &[], large).await;
            assert_eq!((answer.status, answer.code()), (401, "sign-in"), "{}", operation.name());
            let answer = stranger.send(method.clone(), path, &[], body(&operation)).await;
            assert_eq!((answer.status, answer.code()), (401, "sign-in"), "{}", operation.name());
        }
        if operation.answers("403") && path != "/api/session" {
            let answer = bob.send(method.clone(), path, &[], body(&operation)).await;
            assert_eq!((answer.status, answer.code()), (403, "forbidden"), "{}", operation.name());
        }
        if operation.changes() {
            for headers in [
                [("Sec-Fetch-Site", "cross-site")].as_slice(),
                &[("Sec-Fetch-Site", "same-site")],
                &[("Origin", "https://evil.example")],
                &[("Origin", "null")],
                &[("Sec-Fetch-Site", "cross-site"), ("Content-Type", "text/plain")],
            ] {
                let answer = ada.send(method.clone(), path, headers, body(&operation)).await;
                assert_eq!((answer.status, answer.code()), (403, "foreign-origin"), "{} {headers:?}", operation.name());
            }
        }
    }
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_read_change_nothing() {
    let scene = Scene::new().await;
    let mut ada = Visitor::signed_in(&scene.server, "ada").await;
    let operations = operations(&mut ada).await;
    for operation in &operations {
        let Operation { method, path, .. } = operation;
        let name = operation.name();
        if operation.has_body() {
            let large = format!("\"{}\"", "x".repeat(256 * 1024));
            let deep = "[".repeat(100_000);
            for (status, body) in [
                (413, large.as_str()),
                (400, "{"),
                (400, ""),
                (400, "\u{0}"),
                (422, &deep),
                (422, "{}"),
                (422, "[]"),
                (422, "null"),
                (422, "{\"nonsense\": 1}"),
            ] {
                let answer = ada.send(method.clone(), path, &[], Some(body.to_owned())).await;
                assert_eq!(answer.status, status, "{name} {:.20}: {:?}", body, answer.body);
                assert!(!answer.code().is_empty(), "{name}");
            }
            for media_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
                let headers = [("Content-Type", media_type)];
                let answer = ada.send(method.clone(), path, &headers, Some("{}".to_owned())).await;
                assert_eq!(answer.status, 415, "{name} {media_type}");
            }
        }
        if operation.answers("400") && !operation.changes() {
            let answer = ada.get(&format!("{path}?nonsense=1")).await;
            assert!([400, 404].contains(&answer.status), "{name}: {}", answer.status);
        }
        for other in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::GET] {
            if operations.iter().any(|one| one.template == operation.template && one.method == other) {
                continue;
            }
            let answer = ada.send(other.clone(), path, &[], None).await;
            assert_eq!((answer.status, answer.code()), (405, "method"), "{other} {path}");
        }
    }
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_hashes_of_others_are_unknown() {
    let scene = Scene::new().await;
    // A crop and an original in the same store that belong to no face of this run.
    let other = RunName::default();
    let (photo, crop, original) = support::curation::photo(&other, 77);
    let facts = &photo.facts;
    let (of_crop, of_original) = (facts.crop.as_ref().unwrap(), facts.original.as_ref().unwrap());
    let store = facemill::objects::folder::Folder::at(scene.run.path());
    let keys = [
        facemill::objects::ObjectKey::face(of_crop.sha256, of_crop.format),
        facemill::objects::ObjectKey::original(of_original.sha256, of_original.format),
    ];
    for (key, body) in keys.iter().zip([crop, original]) {
        let path = store.path(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, body).unwrap();
    }
    let before = objects(scene.run.path());
    let mut ada = Visitor::signed_in(&scene.server, "ada").await;
    let own = ada.get("/api/faces?limit=1").await.body["faces"][0]["crop"].as_str().unwrap().to_owned();
    assert_eq!(ada.get(&format!("/pictures/crops/{own}")).await.status, 200);
    for path in [
        format!("/pictures/crops/{}", of_crop.sha256),
        format!("/pictures/originals/{}", of_original.sha256),
        // A crop is no original.
        format!("/pictures/originals/{own}"),
        format!("/pictures/crops/{}", ContentHash::of(b"nothing")),
        format!("/pictures/crops/{own}.png"),
        "/api/faces/77".to_owned(),
        "/api/bulk".to_owned(),
    ] {
        let answer = ada.get(&path).await;
        assert!([404, 405].contains(&answer.status), "{path}: {}", answer.status);
    }
    // Tickets of another store, and of another person.
    let elsewhere = CuratedRun::in_folder(8).await;
    let their_server = elsewhere.serve(&[]);
    let theirs = Visitor::of(&their_server).get("/api/faces/1").await.body["ticket"].clone();
    let mut bob = Visitor::signed_in(&scene.server, "bob").await;
    let of_bob = bob.get("/api/faces/1").await.body["ticket"].clone();
    assert!(theirs.is_string() && of_bob.is_string());
    for ticket in [theirs, of_bob, json!("nonsense"), json!(""), json!("é".repeat(100))] {
        let one = json!({ "id": "v1", "ticket": ticket, "judgement": "ok", "view": "single", "replaces": [] });
        let body = json!({ "client": "tab", "verdicts": [one] }).to_string();
        let answer = ada.send(Method::POST, "/api/verdicts", &[], Some(body)).await;
        let is_refused = answer.body["results"][0]["result"] == "refused";
        assert!(is_refused || (400..500).contains(&answer.status), "{ticket}: {answer:?}");
    }
    assert!(objects(scene.run.path()) == before);
}

/// Sends a request line as it is: other clients would tidy the path. Returns the status.
async fn raw(server: &CurationServer, cookie: &str, line: &str) -> u16 {
    let address = server.url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{line}\r\nHost: {address}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    let text = String::from_utf8_lossy(&response).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    assert!(!text.contains("argon2") && !text.contains("token_sha256"), "{line}: {text}");
    status.unwrap_or_else(|| panic!("{line}: {text:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_lead_nowhere_else() {
    let scene = Scene::new().await;
    let ada = Visitor::signed_in(&scene.server, "ada").await;
    let cookie = ada.cookie.clone().unwrap();
    let long = "x".repeat(10_000);
    for path in [
        "/pictures/crops/../../curation/users.json",
        "/pictures/crops/..%2f..%2fcuration%2fusers.json",
        "/pictures/originals/%2e%2e/%2e%2e/curation/users.json",
        "/assets/../curation/users.json",
        "/assets/..%2f..%2fcuration%2fusers.json",
        "/assets//etc/passwd",
        "/faces/../../curation/users.json/x",
        "/curation/users.json",
        "//curation/users.json",
        "/api/../curation/users.json",
        "/api/faces/..%2f..%2fcuration%2fusers.json",
        "/api/faces/%00",
        "/api/faces/%ff",
        "/api/faces/'%20or%201=1--",
        &format!("/api/faces/{long}"),
        "/api/lists/%2e%2e/entries",
        "/API/counts",
        "/api//counts",
        "/api/counts/",
        "/api",
        "/pictures",
        "/%61pi/counts",
        "/index.sqlite",
        "/ledger.sqlite",
        "/.objects.lock",
    ] {
        // With a session and without: a trick must not make a path public.
        for cookie in [cookie.as_str(), "a=b"] {
            let status = raw(&scene.server, cookie, &format!("GET {path} HTTP/1.1")).await;
            assert!((400..500).contains(&status), "{path}: {status}");
        }
    }
    for (line, expected) in [("TRACE /api/counts HTTP/1.1", 405), ("GET /api/counts HTTP/9.9", 400), ("nonsense", 400)]
    {
        assert_eq!(raw(&scene.server, &cookie, line).await, expected, "{line}");
    }
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_an_end_is_refused() {
    let scene = Scene::new().await;
    let ada = Visitor::signed_in(&scene.server, "ada").await;
    let address = scene.server.url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /api/lists HTTP/1.1\r\nHost: {address}\r\nCookie: {}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        ada.cookie.clone().unwrap()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    // The server stops reading after some megabytes; writing fails then.
    for _ in 0..1024 {
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    let text = String::from_utf8_lossy(&response);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 413 "), "{text}");
    scene.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_with_markup_stays_text() {
    const LABEL: &str = "<img src=x onerror=alert(1)>\"'</script>";
    let run = CuratedRun::in_folder(1).await;
    let (mut photo, crop, original) = support::curation::photo(&run.run, 9);
    photo.candidate.label_name = Some(LABEL.to_owned());
    run.finish(photo, crop, original).await;
    let server = run.serve(&[]);
    let mut local = Visitor::of(&server);
    let query: String =
        url::form_urlencoded::byte_serialize(format!("label='{}'", LABEL.replace('\'', "''")).as_bytes()).collect();
    let found = local.get(&format!("/api/faces?where={query}")).await;
    assert_eq!((&found.body["total"], &found.body["faces"][0]["label"]), (&json!(1), &json!(LABEL)), "{found:?}");
    assert_eq!(found.header("content-type"), "application/json");
    assert_eq!(found.header("x-content-type-options"), "nosniff");
    let labels = local.get("/api/labels?prefix=%3Cimg").await;
    assert_eq!(labels.body["labels"][0], json!({ "label": LABEL, "count": 1 }));
    // What is quoted in an error is JSON, too.
    let error = local.get("/api/faces?where=%3Cscript%3E").await;
    assert_eq!((error.status, error.header("content-type")), (400, "application/json"));
}
