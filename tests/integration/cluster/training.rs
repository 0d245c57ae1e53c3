//! Training, measuring and scoring again on the servers of an installation.

use std::process::Stdio;
use std::sync::Arc;

use facemill::archive::records::Records;
use facemill::broker::rabbitmq::{RabbitMq, RabbitMqSettings};
use facemill::domain::{ContentHash, Ending, Photo, Record, RunName};
use facemill::ledger::Ledger;
use facemill::objects::s3::{S3, S3Settings};
use facemill::objects::{ObjectKey, Objects};
use facemill::redis::RedisSettings;
use serde_json::json;

use super::installation::Installation;
use crate::own_classifier::brightness;
use crate::training::{judged_photos, last_message, photo};
use support::servers::redis::RedisServer;
use support::servers::seaweedfs::SeaweedFs;

/// The bucket of all installations.
fn bucket() -> Arc<dyn Objects> {
    Arc::new(S3::new(S3Settings { prefix: String::new(), ..SeaweedFs::shared().settings() }))
}

fn run_of(installation: &Installation) -> RunName {
    setting(installation, "FACEMILL_RUN").parse().unwrap()
}

fn setting<'a>(installation: &'a Installation, name: &str) -> &'a str {
    installation.environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str()).unwrap()
}

/// Puts the photos that [`judged_photos`] draws into the installation, as its workers would have left them, and
/// returns their verdicts. `lost`: as many photos more, whose crops are not there.
async fn put_photos(installation: &Installation, lost: u64) -> String {
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
    for number in 0..lost {
        let (mut photo, _) = photo(0, 0);
        photo.candidate.photo_id = (1000 + number as i64).into();
        let crop = photo.facts.crop.as_mut().unwrap();
        crop.sha256 = ContentHash::of(format!("{run} {number}").as_bytes());
        let message = last_message(Photo { run: run.clone(), ..photo });
        let record = Record { ending: Ending::Predicted, cause: None, message };
        records.write(&record).await.unwrap();
        assert!(ledger.restore(&record.message, Ending::Predicted, None).await.unwrap());
    }
    lines
}

#[test]
fn an_installation_trains_measures_and_scores_again() {
    let installation = Installation::new();
    let lines = tokio::runtime::Runtime::new().unwrap().block_on(put_photos(&installation, 0));
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

    let rescored = installation.json(&["rescore", "--here", "--model", name]);
    assert_eq!([&rescored["crops"], &rescored["scored"], &rescored["unreadable_count"]], [96, 96, 0]);
    assert_eq!(installation.json(&["faces", "--count", "--where", "p_ok is not null"]), 96);
    let again = installation.json(&["rescore", "--here", "--model", name]);
    assert_eq!([&again["known"], &again["scored"]], [96, 0]);
    let status = installation.json(&["status"]);
    assert_eq!([&status["rescores"][0]["scored"], &status["rescores"][0]["crops"]], [96, 96]);
    assert_eq!(status["rescores"][0]["has_ended"], true);
}

#[test]
fn workers_score_crops_again_and_a_crop_that_is_lost_blocks_nothing() {
    let installation = Installation::new();
    tokio::runtime::Runtime::new().unwrap().block_on(put_photos(&installation, 2));
    let before = installation.json(&["status"]);
    // The predictions of all installations share a bucket: the run's name makes the model another one.
    let scratch = tempfile::tempdir().unwrap();
    let own = scratch.path().join("own.onnx");
    std::fs::write(&own, brightness(&format!("{}-{}", run_of(&installation), std::process::id())).encode()).unwrap();
    let rescore = ["rescore", "--model", own.to_str().unwrap(), "--json"];

    // A command that is killed leaves its jobs in the queue, and workers score them.
    let mut killed = installation.command(&rescore).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = installation.until("all jobs", |status| status["rescore_queue"]["ready"] == 98);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let progress = &status["rescores"][0];
    assert_eq!(
        [&progress["crops"], &progress["scored"], &progress["has_ended"]],
        [&json!(98), &json!(0), &json!(false)]
    );
    let mut worker = installation.worker_without_photos(&["classify"]);
    installation.until("no jobs", |status| status["rescore_queue"]["ready"] == 0);

    // The same command finds what is scored, and tries the others again.
    let again = installation.facemill(&rescore);
    let error = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{error}");
    let rescored: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    let count = |name: &str| rescored[name].as_u64().unwrap();
    assert_eq!((count("crops"), count("known") + count("scored"), count("unreadable_count")), (98, 96, 2));
    for lost in rescored["unreadable"].as_array().unwrap() {
        assert!(lost["reason"].as_str().unwrap().contains("does not exist"), "{lost}");
    }
    let status = installation.json(&["status"]);
    let progress = &status["rescores"][0];
    assert_eq!(
        [&progress["scored"], &progress["unreadable"], &progress["has_ended"]],
        [&json!(96), &json!(2), &json!(true)]
    );
    for of_photos in ["ended", "stages", "causes", "dead_letters"] {
        assert_eq!(status[of_photos], before[of_photos], "{of_photos}: a photo has changed");
    }
    installation.json(&["models", "use", rescored["model"].as_str().unwrap()]);
    assert_eq!(installation.json(&["faces", "--count", "--where", "p_ok is not null"]), 96);
    assert_eq!(worker.terminate(), Some(0));
}

/// Takes the only job of the rescore queue and returns it, as often as given.
async fn return_job(installation: &Installation, times: u32) {
    let settings = RabbitMqSettings::new(&installation.rabbit.url()).unwrap();
    let broker = RabbitMq::new(settings.with_prefix(setting(installation, "FACEMILL_PREFIX")).unwrap()).unwrap();
    let mut consumer = broker.consume_scores(1).await.unwrap();
    for time in 0..times {
        let delivery = consumer.next().await.unwrap();
        assert_eq!(delivery.unacknowledged, time);
        // RabbitMQ 3 counts it like the delivery of a worker that has ended.
        drop(delivery);
    }
    consumer.stop().await;
}

#[test]
fn a_crop_that_ends_its_workers_is_not_scored_for_ever() {
    let installation = Installation::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(put_photos(&installation, 0));
    let scratch = tempfile::tempdir().unwrap();
    let own = scratch.path().join("own.onnx");
    std::fs::write(&own, brightness(&format!("crash-{}-{}", run_of(&installation), std::process::id())).encode())
        .unwrap();
    let rescore = ["rescore", "--model", own.to_str().unwrap(), "--where", "id=0", "--json"];
    let command = installation.command(&rescore).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    installation.until("the job", |status| status["rescore_queue"]["ready"] == 1);
    runtime.block_on(return_job(&installation, 4));
    let mut worker = installation.worker_without_photos(&["classify"]);
    let output = command.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let rescored: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!([&rescored["crops"], &rescored["scored"], &rescored["unreadable_count"]], [1, 0, 1]);
    // The consumer may have got it once more before it stopped.
    let reason = rescored["unreadable"][0]["reason"].as_str().unwrap();
    assert!(["4", "5"].map(|times| format!("{times} workers ended while they scored it")).contains(&reason.to_owned()));

    // Another try is a new job.
    let again = installation.facemill(&rescore);
    let again: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!([&again["crops"], &again["scored"]], [1, 1]);
    assert_eq!(worker.terminate(), Some(0));
}
