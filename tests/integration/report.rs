//! The files of a report, also with hostile labels, URLs and causes.

use std::path::Path;
use std::sync::Arc;

use facemill::archive::run_classifier::{ClassifierChange, ClassifierHistory};
use facemill::dataset::index::{Change, Index};
use facemill::dataset::{EndedPhoto, FollowError, IndexSource};
use facemill::domain::*;
use facemill::ledger::sqlite::Sqlite;
use facemill::ledger::{Entry, Ledger, PhotoStatus};
use facemill::objects::folder::Folder;
use facemill::objects::{ObjectKey, Objects};
use facemill::report::{
    self, About, FaceRecord, Funnel, PhotoRecord, Pictures, ReportError, ReportProgress, Unindexed, WaitingPhoto,
    Written,
};
use facemill::sqlite::{Access, Database};

pub fn index_of(records: impl IntoIterator<Item = Record>) -> Index {
    let mut index = Index::open(":memory:".as_ref(), &RunName::default()).unwrap();
    let changes: Vec<Change> = records.into_iter().map(|record| Change::Ended(Box::new(record))).collect();
    index.apply(&changes, None).unwrap();
    index
}

pub fn write(dir: &Path, index: &Index) -> Result<Written, ReportError> {
    report::write(dir, index, Unindexed::default(), &about())
}

fn about() -> About {
    About {
        run: RunName::default(),
        folder: None,
        pictures: Pictures { linked: true, thumbnails: false },
        made_at: 1_735_689_599,
        ok_threshold: Some(0.5),
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
        source: None,
        columns: Default::default(),
    };
    Photo::new(RunName::default(), candidate)
}

pub fn with_face(id: i64, p_ok: f64) -> Photo {
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
        landmark_scheme: LandmarkScheme::Ibug,
        search: Search::Guided,
    });
    photo.facts.crop = Some(Crop {
        sha256: hash("crop"),
        format: ImageFormat::Png,
        align: Align::Paper,
        fill: Default::default(),
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
        quality: None,
        fingerprint: None,
    });
    photo.facts.prediction =
        Some(Prediction { p_ok, model: "okng-1".into(), model_sha256: ContentHash::of(b"okng-1") });
    photo
}

fn ended(photo: Photo, ending: Ending, stage: StageName, cause: Option<Cause>) -> Record {
    let message = Message { position: Position::entering(stage), ..Message::first(photo, 0) };
    Record { ending, cause, message }
}

pub fn predicted(photo: Photo) -> Record {
    ended(photo, Ending::Predicted, StageName::Classify, None)
}

fn waiting(id: i64) -> WaitingPhoto {
    let message = Message::first(photo(id), 0);
    let (state, stage) = (State::Waiting(Position::START), StageName::Fetch);
    let status = PhotoStatus { state, stage, attempt: 1, due_at: 0, cause: None, message: Some(message) };
    Entry { photo_id: id.into(), status }.into()
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

#[test]
fn all_photos_are_written_in_id_order() {
    let dir = tempfile::tempdir().unwrap();
    // Ids of different lengths. Every tenth photo waits.
    let index = index_of((1..=2500).filter(|id| id % 10 != 9).map(|id| match id % 3 {
        0 => predicted(with_face(id, id as f64 / 2500.0)),
        1 => ended(photo(id), Ending::Gone, StageName::Fetch, Some(Cause::new(CauseCode::Http(404), "Not Found"))),
        _ => ended(photo(id), Ending::Rejected, StageName::Detect, Some(Cause::new(CauseCode::NoFace, "no face"))),
    }));
    // Photo 1 has ended since it was listed.
    let waiting = (1..=2500).filter(|id| id % 10 == 9 || *id == 1).map(waiting).collect();
    let written = report::write(dir.path(), &index, Unindexed { waiting, ..Unindexed::default() }, &about()).unwrap();

    let photos: Vec<PhotoRecord> = lines(&dir.path().join("photos.jsonl"));
    assert!(photos.iter().map(|photo| photo.photo_id.clone()).eq((1..=2500).map(Id::from)));
    let faces: Vec<FaceRecord> = lines(&dir.path().join("faces.jsonl"));
    let with_face = (1..=2500).filter(|id| id % 3 == 0 && id % 10 != 9);
    assert!(faces.iter().map(|face| face.photo_id.clone()).eq(with_face.map(Id::from)));
    assert_eq!(written.funnel, Funnel { candidates: 2500, downloaded: 749, faces: 749, ok: 375 });
    assert_eq!((written.waiting, written.unrecorded.0), (250, 0));

    let page = std::fs::read_to_string(&written.page).unwrap();
    let cards = cards(&page);
    assert_eq!(cards.len(), 749);
    let original = ObjectKey::original(faces[0].original_sha256, ImageFormat::Jpeg);
    assert_eq!(cards[0][0], serde_json::json!(["3", faces[0].file, original.as_str(), "Ann"]));
    for text in ["2,500", "http-404", "no-face", "photos.example", "2024-12-31 23:59", "guided", "250 have not ended"] {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(histogram(&page).iter().sum::<u64>(), 749);
    assert_eq!(names(dir.path()), ["faces.jsonl", "photos.jsonl", "report.html"]);
}

/// The histogram of P(OK) in the page.
#[test]
fn the_numbers_of_quality_have_histograms() {
    let dir = tempfile::tempdir().unwrap();
    let mut measured = with_face(2, 0.9);
    measured.facts.crop.as_mut().unwrap().quality = Some(Quality {
        contrast: 0.2,
        saturation: 0.1,
        face_blur: 80.0,
        jpeg_quality: None,
        yaw: 0.5,
        pitch: 0.6,
        eyes_open: 0.3,
        mouth_open: 0.0,
        outlier: 9.0,
        pixels: ContentHash::of(b"pixels"),
    });
    let index = index_of([predicted(with_face(1, 0.5)), predicted(measured)]);
    write(dir.path(), &index).unwrap();
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    for (name, faces) in [("exposure", 2), ("outlier", 1), ("yaw", 1), ("jpeg_quality", 0)] {
        assert!(page.contains(&format!("Histogram of {name}: {faces} faces")), "{name}");
    }
    let lines: Vec<FaceRecord> = lines(&dir.path().join("faces.jsonl"));
    let outliers: Vec<Option<f64>> =
        lines.iter().map(|face| face.quality.as_ref().map(|quality| quality.outlier)).collect();
    assert_eq!(outliers, [None, Some(9.0)], "a line without the numbers can be read");
}

fn histogram(page: &str) -> Vec<u64> {
    let (_, data) = page.split_once("data-histogram=\"").unwrap();
    serde_json::from_str(data.split_once('"').unwrap().0).unwrap()
}

#[test]
fn the_threshold_is_the_runs_unless_another_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = index_of((1..=9).map(|id| predicted(with_face(id, id as f64 / 10.0))));
    let change = ClassifierChange {
        model_sha256: ContentHash::of(b"okng-1"),
        model: "okng-1".into(),
        threshold: 0.8,
        at: 0,
        by: "a test".into(),
        why: String::new(),
    };
    index.set_classifier(&ClassifierHistory { changes: vec![change.clone()] }).unwrap();
    let predictions = index
        .unscored()
        .unwrap()
        .into_iter()
        .zip(1..=9)
        .map(|((key, _), id)| (key, with_face(id, id as f64 / 10.0).facts.prediction.unwrap()));
    let predictions: Vec<_> = predictions.collect();
    index.add_predictions(&predictions[..8]).unwrap();

    let own = About { ok_threshold: None, ..about() };
    assert_eq!(report::write(dir.path(), &index, Unindexed::default(), &own).unwrap().funnel.ok, 1);
    assert_eq!(write(dir.path(), &index).unwrap().funnel.ok, 4);
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("Faces without a P(OK) of the run's classifier: 1."), "the ninth");
    assert_eq!(cards(&page)[8][1][0], serde_json::Value::Null);
    let faces: Vec<FaceRecord> = lines(&dir.path().join("faces.jsonl"));
    assert_eq!((faces[7].p_ok, faces[8].p_ok, &faces[8].model), (Some(0.8), None, &None));
}

#[test]
fn an_empty_run_has_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new/folder");
    let written = write(&out, &index_of([])).unwrap();
    assert_eq!(written.funnel, Funnel::default());
    assert_eq!(std::fs::read_to_string(out.join("faces.jsonl")).unwrap(), "");
    assert!(cards(&std::fs::read_to_string(written.page).unwrap()).is_empty());
}

#[test]
fn hostile_text_is_escaped_in_the_page() {
    const HOSTILE: &str = r#"</script><script>alert(1)</script><img src=x onerror=alert(1)>"'&<!--"#;
    let dir = tempfile::tempdir().unwrap();
    let mut labelled = with_face(1, 0.9);
    labelled.candidate.label_name = Some(HOSTILE.into());
    let mut hostile = photo(2);
    hostile.candidate.photo_url = format!("gopher://{}/", "<b>host".repeat(3));
    let cause = Cause::new(HOSTILE, HOSTILE);
    let mut index = index_of([predicted(labelled), ended(hostile, Ending::Gone, StageName::Fetch, Some(cause))]);
    index.apply(&[unrecorded(HOSTILE.into())], None).unwrap();
    let mut about = about();
    about.settings.push((HOSTILE.into(), HOSTILE.into()));
    let written = report::write(dir.path(), &index, Unindexed::default(), &about).unwrap();

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

#[test]
fn the_content_security_policy_allows_only_the_pages_script() {
    use base64::Engine;
    use sha2::Digest;
    let dir = tempfile::tempdir().unwrap();
    let written = write(dir.path(), &index_of([])).unwrap();
    let page = std::fs::read_to_string(written.page).unwrap();
    let script = page.rsplit_once("<script>").unwrap().1.rsplit_once("</script>").unwrap().0;
    let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(script));
    assert!(page.contains(&format!("script-src 'sha256-{hash}';")));
}

fn unrecorded(photo_id: Id) -> Change {
    Change::Unrecorded(EndedPhoto {
        photo_id,
        photo_url: None,
        ending: Ending::Predicted,
        stage: StageName::Classify,
        cause: None,
        attempt: 2,
    })
}

#[test]
fn photos_without_a_usable_record_are_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut incomplete = with_face(7, 0.5);
    incomplete.facts.crop = None;
    let mut index = index_of([predicted(incomplete), predicted(with_face(8, 0.5))]);
    index.apply(&[unrecorded(12.into())], None).unwrap();
    let written = write(dir.path(), &index).unwrap();
    assert_eq!(written.unrecorded, (2, vec![7.into(), 12.into()]));
    assert_eq!((written.funnel.candidates, written.funnel.faces), (3, 1));
    let page = std::fs::read_to_string(written.page).unwrap();
    assert!(page.contains("<strong>Photos that ended without a record: 2</strong> (ids: 7, 12). Run"), "{page}");
    let photos: Vec<PhotoRecord> = lines(&dir.path().join("photos.jsonl"));
    let of_12 = photos.last().unwrap();
    assert_eq!((&of_12.photo_id, &of_12.photo_url, of_12.attempts), (&12.into(), &None, 2));
}

#[test]
fn a_report_that_fails_leaves_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &index_of((1..=1500).map(|id| predicted(with_face(id, 0.5))))).unwrap();
    let read = || ["photos.jsonl", "report.html"].map(|name| std::fs::read(dir.path().join(name)).unwrap());
    let before = read();
    let blocked = dir.path().join("faces.jsonl");
    std::fs::remove_file(&blocked).unwrap();
    std::fs::create_dir(&blocked).unwrap();
    let index = index_of((1..=1200).map(|id| predicted(with_face(id, 0.1))));
    let error = write(dir.path(), &index).unwrap_err();
    assert!(matches!(error, ReportError::File { .. }), "{error}");
    assert!(read() == before);
    assert_eq!(names(dir.path()), ["faces.jsonl", "photos.jsonl", "report.html"]);

    std::fs::remove_dir(&blocked).unwrap();
    assert_eq!(write(dir.path(), &index).unwrap().funnel.faces, 1200);
    assert_eq!(names(dir.path()), ["faces.jsonl", "photos.jsonl", "report.html"]);
}

#[test]
fn an_error_names_the_folder_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let error = write(&blocked.join("out"), &index_of([])).unwrap_err();
    assert!(error.to_string().contains(&*blocked.to_string_lossy()), "{error}");
}

#[tokio::test]
async fn a_report_brings_the_index_up_to_date_first() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open(&dir.path().join("ledger.sqlite"), Access::Write).unwrap();
    let ledger = Sqlite::open(database).await.unwrap();
    for id in 1..=4 {
        let record = predicted(with_face(id, 0.5));
        assert!(ledger.restore(&record.message, Ending::Predicted, None).await.unwrap());
    }
    let candidates: Vec<Candidate> = (5..=1205).map(|id| photo(id).candidate).collect();
    ledger.register(&RunName::default(), &candidates, 1).await.unwrap();
    let objects: Arc<dyn Objects> = Arc::new(Folder::at(dir.path()));
    let source = IndexSource::new(RunName::default(), Arc::new(ledger), objects.clone(), None);
    let out = dir.path().join("report");
    let write_all = async |out: &Path, about: About| {
        report::write_all(out, index_of([]), &source, &objects, about, ReportProgress::SILENT).await
    };
    let written = write_all(&out, about()).await.unwrap();
    assert_eq!(written.funnel, Funnel { candidates: 1205, downloaded: 4, faces: 4, ok: 4 });
    assert_eq!((written.waiting, lines::<PhotoRecord>(&out.join("photos.jsonl")).len()), (1201, 1205));

    // An archive that cannot be read.
    let classifier = dir.path().join("runs/default/classifier.json");
    std::fs::create_dir_all(classifier.parent().unwrap()).unwrap();
    std::fs::write(classifier, "{").unwrap();
    let error = write_all(&out, about()).await.unwrap_err();
    assert!(matches!(error, ReportError::Follow(FollowError::Objects(_))), "{error}");
    assert_eq!(lines::<PhotoRecord>(&out.join("photos.jsonl")).len(), 1205, "the old report stays");
}
