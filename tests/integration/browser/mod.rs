//! The page of curation in a real browser: what people type arrives, whatever is killed or closed meanwhile.

mod border;
mod filters;
mod grid;
mod latency;
mod recrop;
mod report;
mod sign_in;
mod single;
mod story;
mod suggested;
mod training;

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use support::servers::chromium::{Browser, Chromedriver, Screen};
use tokio::sync::{Mutex, MutexGuard};

/// One browser test at a time: a browser takes both cores and much memory.
static TURN: Mutex<()> = Mutex::const_new(());

/// A browser whose profile lasts as long as the test.
struct Page {
    browser: Browser,
    url: String,
    profile: tempfile::TempDir,
}

impl Page {
    async fn open(url: &str, screen: Screen) -> Self {
        let profile = tempfile::Builder::new().prefix("facemill-browser-").tempdir().unwrap();
        let browser = driver().open(profile.path(), screen).await;
        Self { browser, url: url.trim_end_matches('/').to_owned(), profile }
    }

    async fn go(&self, path: &str) {
        self.browser.go(&format!("{}{path}", self.url)).await;
    }

    /// Waits until the picture at this place of the list is drawn. Returns its photo.
    async fn photo_at(&self, place: usize) -> String {
        let drawn = format!(
            "(({{dataset}}) => dataset.drawn === 'yes' && dataset.place === '{place}' && dataset.photo)\
             (document.querySelector('main.single') ?? {{dataset: {{}}}})"
        );
        self.browser.wait_for(&drawn).await.as_str().unwrap().to_owned()
    }

    async fn grid_at(&self, place: usize) {
        let drawn = format!(
            "(({{dataset}}) => dataset.drawn === 'yes' && dataset.place === '{place}')\
             (document.querySelector('main.grid') ?? {{dataset: {{}}}}) && \
             [...document.querySelectorAll('.page:not([hidden]) img')].every((image) => image.complete)"
        );
        self.browser.wait_for(&drawn).await;
    }

    async fn all_sent(&self) {
        self.browser.wait_for("document.querySelector('.unsent')?.dataset.unsent === '0'").await;
    }

    async fn text(&self, selector: &str) -> String {
        let text = self.browser.run(&format!("return document.querySelector({selector:?})?.textContent")).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Ends the browser. Its console must not have had an error, except for requests that failed.
    async fn close(self) {
        let log = self.browser.log().await;
        let errors: Vec<&str> =
            log.lines().filter(|line| line.contains("SEVERE") && !line.contains("Failed to load")).collect();
        assert!(errors.is_empty(), "{errors:?}");
        self.browser.close().await;
        self.profile.close().unwrap();
    }
}

fn driver() -> &'static Chromedriver {
    static DRIVER: OnceLock<Chromedriver> = OnceLock::new();
    DRIVER.get_or_init(Chromedriver::start)
}

async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

/// Photo and judgement of all verdicts in the log, in order.
fn exported(out: &Path) -> Vec<(String, String)> {
    let verdicts = exported_lines(out).into_iter();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    verdicts.map(|verdict| (text(&verdict["photo_id"]), text(&verdict["judgement"]))).collect()
}

fn exported_lines(out: &Path) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
    let output = command.args(["verdicts", "export", "--out"]).arg(out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Compares what was typed with the log: nothing lost, doubled or out of order.
fn assert_typed(out: &Path, typed: &[(String, String)]) {
    let stored = exported(out);
    let first = stored.iter().zip(typed).position(|(stored, typed)| stored != typed);
    assert!(
        first.is_none() && stored.len() == typed.len(),
        "{} typed, {} stored; the first difference: {:?}",
        typed.len(),
        stored.len(),
        first.map(|at| (at, &typed[at], &stored[at])),
    );
}
