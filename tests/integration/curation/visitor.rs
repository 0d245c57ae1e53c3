//! A browser of one person, with its cookie and with any headers.

use std::path::Path;
use std::sync::Arc;

use facemill::domain::Role;
use facemill::objects::folder::Folder;
use facemill::services::passwords::Password;
use facemill::services::users::Accounts;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use support::curation::CurationServer;
use zeroize::Zeroizing;

pub const PASSWORD: &str = "correct horse battery";

/// The answer to a request. A body that is not JSON is null.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A browser that keeps the cookie of the server.
pub struct Visitor {
    http: Client,
    url: String,
    pub cookie: Option<String>,
}

impl Visitor {
    pub fn of(server: &CurationServer) -> Self {
        Self::at(&server.url)
    }

    pub fn at(url: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
        Self { http, url: url.trim_end_matches('/').to_owned(), cookie: None }
    }

    /// A browser with this cookie.
    pub fn with_cookie(server: &CurationServer, cookie: Option<String>) -> Self {
        Self { cookie, ..Self::of(server) }
    }

    pub async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<String>) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(cookie) = &self.cookie {
            request = request.header("Cookie", cookie);
        }
        if let Some(body) = body {
            if !headers.iter().any(|(name, _)| *name == "Content-Type") {
                request = request.header("Content-Type", "application/json");
            }
            request = request.body(body);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if let Some(cookie) = headers.get("set-cookie") {
            let (pair, attributes) = cookie.to_str().unwrap().split_once(';').unwrap();
            self.cookie = (!attributes.contains("Max-Age=0")).then(|| pair.to_owned());
        }
        let body = response.bytes().await.unwrap();
        Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    pub async fn sign_in_with(&mut self, name: &str, password: &str, headers: &[(&str, &str)]) -> Answer {
        let body = json!({ "name": name, "password": password }).to_string();
        self.send(Method::POST, "/api/session", headers, Some(body)).await
    }

    /// A person who has signed in.
    pub async fn signed_in(server: &CurationServer, name: &str) -> Self {
        let mut visitor = Self::of(server);
        let answer = visitor.sign_in_with(name, PASSWORD, &[]).await;
        assert_eq!(answer.status, 204, "{answer:?}");
        visitor
    }
}

/// Adds users to the folder of a run.
pub async fn add_users(folder: &Path, users: &[(&str, Role)]) {
    let accounts = Accounts::new(Arc::new(Folder::at(folder)));
    for (name, role) in users {
        let password = Password::new(Zeroizing::new(PASSWORD.to_owned())).unwrap();
        accounts.add(&name.parse().unwrap(), *role, Some(password)).await.unwrap();
    }
}
