//! A client of the API.

use reqwest::{Client, Method};
use serde_json::{Value, json};
use support::curation::CurationServer;

/// A person at one server. Requests that fail are answers, too.
pub struct ApiClient {
    http: Client,
    url: String,
}

impl ApiClient {
    pub fn of(server: &CurationServer) -> Self {
        Self::at(&server.url)
    }

    pub fn at(url: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { http: Client::builder().build().unwrap(), url: url.trim_end_matches('/').to_owned() }
    }

    /// Returns status and body; a body that is not JSON is null.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
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
