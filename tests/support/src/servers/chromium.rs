//! Real browsers: Chromium, driven over the WebDriver protocol (<https://www.w3.org/TR/webdriver2/>).

use crate::PATIENCE;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::process::{self, Process};
use super::rabbitmq::no_tls;

/// Names of keys that type no character.
pub mod key {
    pub const ENTER: char = '\u{e007}';
    pub const ESCAPE: char = '\u{e00c}';
    pub const LEFT: char = '\u{e012}';
    pub const RIGHT: char = '\u{e014}';
    pub const DOWN: char = '\u{e015}';
}

/// How a browser looks at pages.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
    /// A phone with a touch screen.
    pub is_phone: bool,
    pub is_dark: bool,
    pub language: &'static str,
}

impl Screen {
    pub const DESKTOP: Self = Self { width: 1400, height: 1000, is_phone: false, is_dark: false, language: "en" };
    pub const PHONE: Self = Self { width: 390, height: 844, is_phone: true, ..Self::DESKTOP };
}

/// Kills a browser at the end of standard input, thus when a test fails or the test process is killed.
const WATCHDOG: &str = r#"read -r _; kill -9 "$1" 2>/dev/null; true"#;

/// The server that starts browsers.
pub struct Chromedriver {
    port: u16,
    _process: Process,
}

impl Chromedriver {
    pub fn start() -> Self {
        let folder = process::folder();
        for _ in 0..5 {
            let [port] = process::free_ports();
            let command = vec!["chromedriver".into(), format!("--port={port}"), "--log-level=WARNING".into()];
            let process = Process::start(&folder, command);
            let is_up = || process::send_request(port, "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").is_some();
            if process.wait_until_up(is_up) {
                return Self { port, _process: process };
            }
        }
        panic!("chromedriver does not start: {}", process::log_tail(&folder));
    }

    /// A browser with a profile folder, which has what earlier browsers with this folder kept.
    pub async fn open(&self, profile: &Path, screen: Screen) -> Browser {
        let mut arguments = vec![
            "--headless=new".to_owned(),
            // Tests run as root in containers, where Chromium's sandbox does not start.
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            "--disable-dev-shm-usage".into(),
            "--no-first-run".into(),
            "--hide-scrollbars".into(),
            format!("--user-data-dir={}", profile.display()),
            format!("--window-size={},{}", screen.width, screen.height),
            format!("--lang={}", screen.language),
            format!("--accept-lang={}", screen.language),
        ];
        if screen.is_dark {
            arguments.push("--force-dark-mode".into());
        }
        let mut options = json!({ "args": arguments });
        if screen.is_phone {
            let metrics = json!({ "width": screen.width, "height": screen.height, "pixelRatio": 2, "touch": true });
            options["mobileEmulation"] = json!({ "deviceMetrics": metrics });
        }
        let wanted = json!({
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
        });
        let http = reqwest::Client::builder().tls_backend_preconfigured(no_tls()).no_proxy().build().unwrap();
        let driver = format!("http://127.0.0.1:{}", self.port);
        let body = json!({ "capabilities": { "alwaysMatch": wanted } });
        let session = command(&http, Method::POST, format!("{driver}/session"), body).await;
        let pid = session["capabilities"]["goog:processID"].to_string();
        let watchdog =
            Command::new("sh").args(["-c", WATCHDOG, "watchdog", &pid]).stdin(Stdio::piped()).spawn().unwrap();
        Browser { http, base: format!("{driver}/session/{}", session["sessionId"].as_str().unwrap()), watchdog }
    }
}

/// Runs a command of the protocol. Panics if it fails.
async fn command(http: &reqwest::Client, method: Method, url: String, body: Value) -> Value {
    let mut request = http.request(method.clone(), &url);
    if method == Method::POST {
        request = request.header("Content-Type", "application/json").body(body.to_string());
    }
    let answer = request.send().await.unwrap().bytes().await.unwrap();
    let mut answer: Value = serde_json::from_slice(&answer).unwrap();
    let value = answer["value"].take();
    if let Some(error) = value.get("error").filter(|error| error.is_string()) {
        panic!("{method} {url} {body}: {error}: {}", value["message"]);
    }
    value
}

/// A browser with one tab at a time.
pub struct Browser {
    http: reqwest::Client,
    base: String,
    watchdog: Child,
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

impl Browser {
    async fn command(&self, method: Method, path: &str, body: Value) -> Value {
        command(&self.http, method, format!("{}{path}", self.base), body).await
    }

    pub async fn go(&self, url: &str) {
        self.command(Method::POST, "/url", json!({ "url": url })).await;
    }

    pub async fn back(&self) {
        self.command(Method::POST, "/back", json!({})).await;
    }

    pub async fn forward(&self) {
        self.command(Method::POST, "/forward", json!({})).await;
    }

    pub async fn refresh(&self) {
        self.command(Method::POST, "/refresh", json!({})).await;
    }

    /// Runs the body of a function in the page and returns its value.
    pub async fn run(&self, script: &str) -> Value {
        self.command(Method::POST, "/execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Waits until an expression is true in the page. Returns its value.
    pub async fn wait_for(&self, expression: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.run(&format!("return {expression}")).await;
            if !matches!(value, Value::Null | Value::Bool(false)) && value != json!(0) && value != json!("") {
                return value;
            }
            if Instant::now() >= deadline {
                let text = self.run("return document.body.innerText").await;
                panic!("timeout: {expression}\n{text}\n{}", self.log().await);
            }
            // Pages give no signal to a test, so this polls up to a deadline.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Presses and releases keys, one after the other.
    pub async fn press(&self, keys: impl IntoIterator<Item = char>) {
        let presses = keys
            .into_iter()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]);
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": presses.collect::<Vec<_>>() });
        self.command(Method::POST, "/actions", json!({ "actions": [keyboard] })).await;
    }

    /// Presses a key while others are held.
    pub async fn press_with(&self, held: char, key: char) {
        let events = [("keyDown", held), ("keyDown", key), ("keyUp", key), ("keyUp", held)];
        let actions: Vec<Value> = events.iter().map(|(kind, key)| json!({ "type": kind, "value": key })).collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.command(Method::POST, "/actions", json!({ "actions": [keyboard] })).await;
    }

    /// Clicks, or taps, the first element that a CSS selector finds.
    pub async fn click(&self, selector: &str) {
        let id = self.element(selector).await;
        self.command(Method::POST, &format!("/element/{id}/click"), json!({})).await;
    }

    /// Types a text into a field.
    pub async fn fill(&self, selector: &str, text: &str) {
        let id = self.element(selector).await;
        self.command(Method::POST, &format!("/element/{id}/clear"), json!({})).await;
        self.command(Method::POST, &format!("/element/{id}/value"), json!({ "text": text })).await;
    }

    async fn element(&self, selector: &str) -> String {
        let body = json!({ "using": "css selector", "value": selector });
        let found = self.command(Method::POST, "/element", body).await;
        found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
    }

    /// Closes the tab, and opens an empty one.
    pub async fn replace_tab(&self) {
        let opened = self.command(Method::POST, "/window/new", json!({ "type": "tab" })).await;
        self.command(Method::DELETE, "/window", Value::Null).await;
        self.command(Method::POST, "/window", json!({ "handle": opened["handle"] })).await;
    }

    /// A picture of the page, as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        use base64::Engine;
        let picture = self.command(Method::GET, "/screenshot", Value::Null).await;
        base64::engine::general_purpose::STANDARD.decode(picture.as_str().unwrap()).unwrap()
    }

    /// What the browser's console says, and has not said before.
    pub async fn log(&self) -> String {
        let entries = self.command(Method::POST, "/se/log", json!({ "type": "browser" })).await;
        let lines = entries.as_array().unwrap().iter().map(|entry| format!("{}: {}", entry["level"], entry["message"]));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Runs a command of the DevTools protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.command(Method::POST, "/goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    pub async fn close(self) {
        self.command(Method::DELETE, "", Value::Null).await;
    }
}
