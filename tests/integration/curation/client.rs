//! A client of the API.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, header};
use bytes::Bytes;
use reqwest::Client;
use serde_json::{Value, json};
use support::curation::CurationServer;
use tower::ServiceExt;

/// A person at one server. Requests that fail are answers, too.
pub struct ApiClient {
    server: Server,
}

enum Server {
    Process { http: Client, url: String },
    Inside(Router),
}

/// An answer of the server.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl ApiClient {
    pub fn of(server: &CurationServer) -> Self {
        Self::at(&server.url)
    }

    pub fn at(url: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = url.trim_end_matches('/').to_owned();
        Self { server: Server::Process { http: Client::builder().build().unwrap(), url } }
    }

    /// A browser that sends this cookie.
    pub fn with_cookie(server: &CurationServer, cookie: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let headers = HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())]);
        let http = Client::builder().default_headers(headers).build().unwrap();
        Self { server: Server::Process { http, url: server.url.trim_end_matches('/').to_owned() } }
    }

    /// A server in this process.
    pub fn inside(router: Router) -> Self {
        Self { server: Server::Inside(router) }
    }

    pub async fn answer(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        match &self.server {
            Server::Process { http, url } => {
                let request = http.request(method, format!("{url}{path}")).body(body);
                let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
                let response = request.send().await.unwrap();
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                Answer { status, headers, body: response.bytes().await.unwrap() }
            }
            Server::Inside(router) => {
                let request = Request::builder().method(method).uri(path).header("Host", "localhost");
                let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
                let response = router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                Answer { status, headers, body: to_bytes(response.into_body(), 64 << 20).await.unwrap() }
            }
        }
    }

    /// Returns status and body; a body that is not JSON is null.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (headers, body): (&[_], _) = match body {
            Some(body) => (&[("Content-Type", "application/json")], body.to_string().into_bytes()),
            None => (&[], Vec::new()),
        };
        let answer = self.answer(method, path, headers, body).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    /// The body of a request that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.send(Method::POST, path, Some(&body)).await;
        assert_eq!(status, 200, "{path}: {body}: {answer}");
        answer
    }

    pub async fn counts(&self) -> Value {
        self.get("/api/counts").await
    }

    /// Opens a list and returns its id.
    pub async fn open_list(&self, query: &str, sort: &str, view: &str, client: &str) -> String {
        let body = json!({ "where": query, "sort": sort, "view": view, "client": client });
        self.post("/api/lists", body).await["list"].as_str().unwrap().to_owned()
    }

    /// All entries of a list, read in parts.
    pub async fn entries(&self, list: &str, client: &str) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), Value::Null);
        loop {
            let (entries, next) = self.entries_after(list, client, &after, 50).await;
            all.extend(entries);
            if next.is_null() {
                return all;
            }
            after = next;
        }
    }

    pub async fn entries_after(&self, list: &str, client: &str, after: &Value, limit: u64) -> (Vec<Value>, Value) {
        let body = json!({ "client": client, "after": after, "limit": limit });
        let mut page = self.post(&format!("/api/lists/{list}/entries"), body).await;
        (page["entries"].as_array().unwrap().clone(), page["next"].take())
    }

    /// Sends verdicts and returns the results.
    pub async fn judge(&self, verdicts: &[Value]) -> Vec<Value> {
        let body = json!({ "client": "tab", "verdicts": verdicts });
        self.post("/api/verdicts", body).await["results"].as_array().unwrap().clone()
    }
}

/// A verdict on an entry. It replaces those that the entry shows.
pub fn verdict(id: &str, entry: &Value, judgement: &str) -> Value {
    let replaces: Vec<&Value> = entry["verdicts"].as_array().unwrap().iter().map(|verdict| &verdict["id"]).collect();
    json!({ "id": id, "ticket": entry["ticket"], "judgement": judgement, "view": "single", "replaces": replaces })
}

/// The results of verdicts, word by word.
pub fn results(results: &[Value]) -> Vec<&str> {
    results.iter().map(|result| result["result"].as_str().unwrap()).collect()
}
