//! Training, measuring and scoring again on the servers of an installation.

use std::sync::Arc;

use facemill::archive::records::Records;
use facemill::domain::{Ending, Photo, Record, RunName};
use facemill::ledger::Ledger;
use facemill::objects::s3::{S3, S3Settings};
use facemill::objects::{ObjectKey, Objects};
use facemill::redis::RedisSettings;
use serde_json::json;

use super::installation::Installation;
use crate::training::{judged_photos, last_message};
use support::servers::redis::RedisServer;
use support::servers::seaweedfs::SeaweedFs;

/// The bucket of all installations.
pub fn bucket() -> Arc<dyn Objects> {
    Arc::new(S3::new(S3Settings { prefix: String::new(), ..SeaweedFs::shared().settings() }))
}

pub fn run_of(installation: &Installation) -> RunName {
    setting(installation, "FACEMILL_RUN").parse().unwrap()
}

fn setting<'a>(installation: &'a Installation, name: &str) -> &'a str {
    installation.environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str()).unwrap()
}

/// Puts the photos that [`judged_photos`] draws into the installation, as its workers would have left them, and
/// returns their verdicts.
pub async fn put_photos(installation: &Installation) -> String {
    let (url, prefix) = (setting(installation, "FACEMILL_REDIS_URL"), setting(installation, "FACEMILL_PREFIX"));
    let ledger = RedisServer::ledger_with(RedisSettings { prefix: prefix.into(), ..RedisSettings::new(url) });
    let (objects, run) = (bucket(), run_of(installation));
    let records = Records::new(objects.clone());
    let mut lines = String::new();
    for (photo, bytes, line) in judged_photos() {
        let crop = photo.facts.crop.as_ref().unwrap();
        objects.put(&ObjectKey::face(crop.sha256, crop.format), bytes.into(), "image/png").await.unwrap();
        let message = last_message(Photo { run: run.clone(), ..photo });
        let record = Record { ending: Ending::Predicted, cause: None, message };
        records.write(&record).await.unwrap();
        assert!(ledger.restore(&record.message, Ending::Predicted, None).await.unwrap());
        lines += &line;
    }
    lines
}

#[test]
fn an_installation_trains_measures_and_scores_again() {
    let installation = Installation::new();
    let lines = tokio::runtime::Runtime::new().unwrap().block_on(put_photos(&installation));
    let scratch = tempfile::tempdir().unwrap();
    let verdicts = scratch.path().join("verdicts.jsonl");
    std::fs::write(&verdicts, lines).unwrap();
    installation.json(&["verdicts", "import", verdicts.to_str().unwrap()]);

    let trained = installation.json(&["train", "--use"]);
    let report = &trained["report"];
    assert_eq!([&report["training"]["groups"], &report["test"]["groups"]], [18, 6]);
    assert!(report["model"]["auc"].as_f64().unwrap() > 0.9, "no better than chance: {report}");
    assert_eq!(trained["unreadable"], 0);
    // The features are in the cache of the user, so that the same verdicts give the same file without the network.
    assert!(installation.cache.path().join("facemill/features.sqlite").exists());
    let name = trained["model"].as_str().unwrap();
    let listed = installation.json(&["models", "show", name]);
    assert_eq!((&listed["sha256"], &listed["current"]), (&trained["sha256"], &json!(true)));
    assert_eq!(installation.json(&["train"])["sha256"], trained["sha256"]);

    let page = scratch.path().join("evaluation.html");
    let found = installation.json(&["evaluate", name, "--page", page.to_str().unwrap()]);
    assert_eq!((&found["crops"], &found["groups"]), (&report["test"]["crops"], &json!(6)));
    assert_eq!(found["measures"]["ok_as_ok"], report["model"]["ok_as_ok"]);
    assert!(std::fs::read_to_string(&page).unwrap().contains(name));

    let rescored = installation.json(&["rescore", "--model", name]);
    assert_eq!([&rescored["crops"], &rescored["scored"], &rescored["unreadable_count"]], [96, 96, 0]);
    assert_eq!(installation.json(&["faces", "--count", "--where", "p_ok is not null"]), 96);
    let again = installation.json(&["rescore", "--model", name]);
    assert_eq!([&again["known"], &again["scored"]], [96, 0]);
    let status = installation.json(&["status"]);
    assert_eq!([&status["rescores"][0]["scored"], &status["rescores"][0]["crops"]], [96, 96]);
    assert_eq!(status["rescores"][0]["has_ended"], true);
}
