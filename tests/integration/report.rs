//! The files of a report, also with hostile labels, URLs and causes.

use facemill::domain::CauseCode;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use facemill::domain::Message;
use facemill::domain::*;
use facemill::ledger::{
    Counts, Cursor, Endings, Entry, Event, Filter, Ledger, LedgerError, Move, Moved, Permission, PhotoStatus,
    Registration,
};
use facemill::objects::ObjectKey;
use facemill::report::{self, About, FaceRecord, Funnel, PhotoRecord, ReportError};

/// A ledger that only returns pages. It can fail or hang after a number of pages.
#[derive(Default)]
struct ReadOnlyLedger {
    entries: BTreeMap<Id, Entry>,
    /// Number of pages that it returns before it fails or hangs.
    pages_left: Option<Mutex<u32>>,
    /// Whether it hangs instead of failing.
    hangs: bool,
}

impl ReadOnlyLedger {
    fn of(entries: impl IntoIterator<Item = Entry>) -> Self {
        let entries = entries.into_iter().map(|entry| (entry.photo_id.clone(), entry)).collect();
        Self { entries, ..Self::default() }
    }
}

#[async_trait]
impl Ledger for ReadOnlyLedger {
    async fn page(&self, _: &RunName, _: &Filter, after: Option<&Id>, limit: usize) -> Result<Vec<Entry>, LedgerError> {
        let exhausted = self.pages_left.as_ref().is_some_and(|pages_left| {
            let mut left = pages_left.lock().unwrap();
            let out = *left == 0;
            *left = left.saturating_sub(1);
            out
        });
        if exhausted && self.hangs {
            std::future::pending::<()>().await;
        }
        if exhausted {
            return Err(LedgerError::Unavailable { what: "test ledger".into(), detail: "injected fault".into() });
        }
        let rest = self.entries.values().filter(|entry| after.is_none_or(|after| entry.photo_id > *after));
        Ok(rest.take(limit).cloned().collect())
    }

    async fn register(&self, _: &RunName, _: &[Candidate], _: u64) -> Result<Vec<Registration>, LedgerError> {
        unreachable!("the report does not write to the ledger")
    }
    async fn begin(&self, _: &Message, _: &str, _: bool) -> Result<Permission, LedgerError> {
        unreachable!("the report does not write to the ledger")
    }
    async fn release(&self, _: &PhotoKey, _: Position, _: &str) -> Result<(), LedgerError> {
        unreachable!("the report does not write to the ledger")
    }
    async fn advance(&self, _: &Move<'_>) -> Result<Moved, LedgerError> {
        unreachable!("the report does not write to the ledger")
    }
    async fn restore(&self, _: &Message, _: Ending, _: Option<&Cause>) -> Result<bool, LedgerError> {
        unreachable!("the report does not write to the ledger")
    }
    async fn reopen(&self, _: &PhotoKey, _: Option<&Message>, _: u64) -> Result<Option<Message>, LedgerError> {
        unreachable!("the report does not write to the ledger")
    }
    async fn status(&self, _: &PhotoKey) -> Result<Option<PhotoStatus>, LedgerError> {
        unreachable!("the report reads only pages")
    }
    async fn history(&self, _: &PhotoKey) -> Result<Vec<Event>, LedgerError> {
        unreachable!("the report reads only pages")
    }
    async fn counts(&self, _: &RunName) -> Result<Counts, LedgerError> {
        unreachable!("the report reads only pages")
    }
    async fn endings(&self, _: &RunName, _: Option<&Cursor>, _: usize) -> Result<Endings, LedgerError> {
        unreachable!("the report reads only pages")
    }
    async fn wait_for_endings(
        &self,
        _: &RunName,
        _: Option<&Cursor>,
        _: usize,
        _: std::time::Duration,
    ) -> Result<Endings, LedgerError> {
        unreachable!("the report reads only pages")
    }
    async fn runs(&self) -> Result<Vec<RunName>, LedgerError> {
        unreachable!("the report reads only pages")
    }
    async fn check(&self) -> Result<(), LedgerError> {
        Ok(())
    }
}

fn about() -> About {
    About {
        run: RunName::default(),
        made_at: 1_735_689_599,
        ok_threshold: 0.5,
        settings: vec![("search".into(), "guided".into())],
    }
}

fn photo(id: i64) -> Photo {
    let candidate = Candidate {
        photo_id: id.into(),
        face_id: id.into(),
        label_id: 1.into(),
        label_name: Some("Ann".into()),
        photo_url: format!("https://photos.example/{id}.jpg"),
        source_url: None,
        posted_at: None,
    };
    Photo::new(RunName::default(), candidate)
}

fn with_face(id: i64, p_ok: f64) -> Photo {
    let mut photo = photo(id);
    let hash = |what: &str| ContentHash::of(format!("{what} {id}").as_bytes());
    let landmarks = vec![[1.0, 2.0]; 68];
    photo.facts.original = Some(Original { sha256: hash("original"), bytes: 1, format: ImageFormat::Jpeg });
    photo.facts.face = Some(Face {
        width: 900,
        height: 1200,
        angle: 1.0,
        score: 1.0,
        landmarks: landmarks.clone(),
        faces: 1,
        search: Search::Guided,
    });
    photo.facts.crop = Some(Crop {
        sha256: hash("crop"),
        format: ImageFormat::Png,
        align: Align::Paper,
        angle: 1.0,
        centre: [450.0, 600.0],
        side: 500.0,
        size: 500,
        landmarks,
        mirrored: 0.1,
        mirrored_head: 0.0,
        mirrored_grid: vec![0.1; 16],
        blur: 1.0,
        exposure: 0.5,
    });
    photo.facts.prediction =
        Some(Prediction { p_ok, model: "okng-1".into(), model_sha256: ContentHash::of(b"okng-1") });
    photo
}

fn entry(photo: Photo, ending: Ending, stage: StageName, cause: Option<Cause>) -> Entry {
    let message = Message { position: Position::entering(stage), ..Message::first(photo, 0) };
    let photo_id = message.photo.candidate.photo_id.clone();
    let status =
        PhotoStatus { state: State::Ended(ending), stage, attempt: 1, due_at: 0, cause, message: Some(message) };
    Entry { photo_id, status }
}

fn predicted(photo: Photo) -> Entry {
    entry(photo, Ending::Predicted, StageName::Classify, None)
}

fn lines<T: serde::de::DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The faces in the page's JSON, as its script parses them.
fn cards(page: &str) -> Vec<serde_json::Value> {
    let start = "<script type=\"application/json\" id=\"faces\">";
    let data = page.split_once(start).unwrap().1.split_once("</script>").unwrap().0;
    serde_json::from_str(data).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn all_photos_are_written_in_id_order() {
    let dir = tempfile::tempdir().unwrap();
    // Ids of different lengths, on more than one page of the ledger.
    let ledger = ReadOnlyLedger::of((1..=2500).map(|id| match id % 3 {
        0 => predicted(with_face(id, id as f64 / 2500.0)),
        1 => entry(photo(id), Ending::Gone, StageName::Fetch, Some(Cause::new(CauseCode::Http(404), "Not Found"))),
        _ => entry(photo(id), Ending::Rejected, StageName::Detect, Some(Cause::new(CauseCode::NoFace, "no face"))),
    }));
    let written = report::write_all(dir.path(), &ledger, None, about()).await.unwrap();

    let photos: Vec<PhotoRecord> = lines(&dir.path().join("photos.jsonl"));
    assert!(photos.iter().map(|photo| photo.photo_id.clone()).eq((1..=2500).map(Id::from)));
    let faces: Vec<FaceRecord> = lines(&dir.path().join("faces.jsonl"));
    assert!(faces.iter().map(|face| face.photo_id.clone()).eq((1..=2500).filter(|id| id % 3 == 0).map(Id::from)));
    assert_eq!(written.funnel, Funnel { candidates: 2500, downloaded: 833, faces: 833, ok: 417 });
    assert_eq!(written.waiting, 0);

    let page = std::fs::read_to_string(&written.page).unwrap();
    let cards = cards(&page);
    assert_eq!(cards.len(), 833);
    let original = ObjectKey::original(faces[0].original_sha256, ImageFormat::Jpeg);
    assert_eq!(cards[0][0], serde_json::json!(["3", faces[0].file, original.as_str(), "Ann"]));
    for text in ["2,500", "http-404", "no-face", "photos.example", "2024-12-31 23:59", "guided"] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(names(dir.path()), ["faces.jsonl", "photos.jsonl", "report.html"]);
}

#[tokio::test]
async fn an_empty_run_has_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new/folder");
    let written = report::write_all(&out, &ReadOnlyLedger::default(), None, about()).await.unwrap();
    assert_eq!(written.funnel, Funnel::default());
    assert_eq!(std::fs::read_to_string(out.join("faces.jsonl")).unwrap(), "");
    assert!(cards(&std::fs::read_to_string(written.page).unwrap()).is_empty());
}

#[tokio::test]
async fn hostile_text_is_escaped_in_the_page() {
    const HOSTILE: &str = r#"</script><script>alert(1)</script><img src=x onerror=alert(1)>"'&<!--"#;
    let dir = tempfile::tempdir().unwrap();
    let mut labelled = with_face(1, 0.9);
    labelled.candidate.label_name = Some(HOSTILE.into());
    let mut hostile = photo(2);
    hostile.candidate.photo_url = format!("gopher://{}/", "<b>host".repeat(3));
    let cause = Cause::new(HOSTILE, HOSTILE);
    let ledger = ReadOnlyLedger::of([predicted(labelled), entry(hostile, Ending::Gone, StageName::Fetch, Some(cause))]);
    let mut about = about();
    about.settings.push((HOSTILE.into(), HOSTILE.into()));
    let written = report::write_all(dir.path(), &ledger, None, about).await.unwrap();

    let page = std::fs::read_to_string(written.page).unwrap();
    assert_eq!(cards(&page)[0][0][3], HOSTILE, "the label must be unchanged");
    for markup in ["<script>alert", "<img src=x", "<!--", "<b>host", "onerror=alert(1)>\""] {
        assert!(!page.contains(markup), "{markup}");
    }
    assert_eq!(page.matches("<script").count(), 2, "one for the data, one for the page's script");
    assert_eq!(page.matches("</script").count(), 2);
    for outside in ["src=\"http", "href=\"http", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[tokio::test]
async fn the_content_security_policy_allows_only_the_pages_script() {
    use base64::Engine;
    use sha2::Digest;
    let dir = tempfile::tempdir().unwrap();
    let written = report::write_all(dir.path(), &ReadOnlyLedger::default(), None, about()).await.unwrap();
    let page = std::fs::read_to_string(written.page).unwrap();
    let script = page.rsplit_once("<script>").unwrap().1.rsplit_once("</script>").unwrap().0;
    let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(script));
    assert!(page.contains(&format!("script-src 'sha256-{hash}';")));
}

#[tokio::test]
async fn a_failing_ledger_leaves_the_old_report() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = ReadOnlyLedger::of((1..=1500).map(|id| predicted(with_face(id, 0.5))));
    report::write_all(dir.path(), &ledger, None, about()).await.unwrap();
    let before: Vec<_> = names(dir.path()).iter().map(|name| std::fs::read(dir.path().join(name)).unwrap()).collect();

    ledger.entries.clear();
    ledger.entries.extend((1..=1200).map(|id| (Id::from(id), predicted(with_face(id, 0.1)))));
    ledger.pages_left = Some(Mutex::new(1));
    let error = report::write_all(dir.path(), &ledger, None, about()).await.unwrap_err();
    assert!(matches!(error, ReportError::Ledger(LedgerError::Unavailable { .. })), "{error}");
    for (name, before) in ["faces.jsonl", "photos.jsonl", "report.html"].iter().zip(before) {
        assert!(std::fs::read(dir.path().join(name)).unwrap() == before, "{name} changed");
    }

    // The next report, with the ledger available again, is complete.
    ledger.pages_left = None;
    assert_eq!(report::write_all(dir.path(), &ledger, None, about()).await.unwrap().funnel.faces, 1200);
    assert_eq!(names(dir.path()), ["faces.jsonl", "photos.jsonl", "report.html"]);
}

#[test]
fn an_interrupted_report_leaves_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut ledger = ReadOnlyLedger::of((1..=1500).map(|id| predicted(with_face(id, 0.5))));
    runtime.block_on(report::write_all(dir.path(), &ledger, None, about())).unwrap();
    let files = || -> Vec<_> {
        let done = names(dir.path()).into_iter().filter(|name| !name.ends_with(".part"));
        done.map(|name| (std::fs::read(dir.path().join(&name)).unwrap(), name)).collect()
    };
    let before = files();
    (ledger.pages_left, ledger.hangs) = (Some(Mutex::new(1)), true);
    runtime.block_on(async {
        let mut writing = Box::pin(report::write_all(dir.path(), &ledger, None, about()));
        // One poll sends the first page. The future is then dropped.
        assert!(futures::poll!(&mut writing).is_pending());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !names(dir.path()).iter().any(|name| name.ends_with(".part")) {
            assert!(std::time::Instant::now() < deadline, "no file was begun within 30 seconds");
            tokio::task::yield_now().await;
        }
    });
    drop(runtime); // Joins the writer's thread.
    assert_eq!(before.len(), 3);
    assert!(files() == before, "{:?}", names(dir.path()));
}

#[tokio::test]
async fn a_predicted_photo_with_missing_facts_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut incomplete = with_face(7, 0.5);
    incomplete.facts.crop = None;
    let error =
        report::write_all(dir.path(), &ReadOnlyLedger::of([predicted(incomplete)]), None, about()).await.unwrap_err();
    assert!(error.to_string().starts_with("photo 7 ended as predicted"), "{error}");
    assert!(!dir.path().join("report.html").exists());
}

#[tokio::test]
async fn an_error_names_the_folder_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let error = report::write_all(&blocked.join("out"), &ReadOnlyLedger::default(), None, about()).await.unwrap_err();
    assert!(error.to_string().contains(&*blocked.to_string_lossy()), "{error}");
}
