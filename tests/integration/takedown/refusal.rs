//! What was taken down does not come back: by its address, its bytes or its looks. And what is interrupted is completed.

use std::path::Path;
use std::sync::Arc;

use facemill::archive::takedowns::Takedowns;
use facemill::objects::Objects;
use facemill::objects::folder::Folder;
use facemill::pipeline::local::RunDir;
use facemill::services::run_target::RunTarget;
use facemill::services::takedown::{Chosen, Site, SurveySettings, carry_out, plan_takedown};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use serde_json::{Value, json};
use support::curation::CuratedRun;
use support::failpoints::{Failpoint, FailpointObjects};
use support::reference::package_photos;

use super::done;
use crate::classifier::facemill;
use crate::training::answer;

fn run(photos: &Path, out: &Path) {
    let run = facemill(&["run", photos.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

/// Ending and cause of a photo.
fn ending(out: &Path, photo: &str) -> (Value, Value) {
    let story = answer(out, &["why", photo]);
    (story["state"]["ended"].clone(), story["cause"]["code"].clone())
}

#[test]
fn a_photo_of_a_folder_is_hidden_and_refused_and_its_file_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let (photos, out) = (scratch.path().join("photos"), scratch.path().join("out"));
    std::fs::create_dir(&photos).unwrap();
    for name in ["obama.jpg", "biden.jpg"] {
        std::fs::copy(package_photos().join(name), photos.join(name)).unwrap();
    }
    run(&photos, &out);
    assert_eq!(answer(&out, &["faces", "--count"]), 2);
    let removed = answer(&out, &["takedown", "--photo", "obama.jpg", "--yes"]);
    assert_eq!((&removed["removed"]["photos"], &removed["removed"]["crops"]), (&json!(1), &json!(1)));
    assert!(photos.join("obama.jpg").is_file(), "a user's folder is never deleted from");
    let taken_down = (json!("rejected"), json!("taken-down"));
    assert_eq!(ending(&out, "obama.jpg"), taken_down);

    // The same file at its place and under another name, and copies that have other bytes.
    let picture = image::open(package_photos().join("obama.jpg")).unwrap().into_rgb8();
    std::fs::copy(photos.join("obama.jpg"), photos.join("renamed.jpg")).unwrap();
    let (width, height) = picture.dimensions();
    imageops::resize(&picture, width * 6 / 10, height * 6 / 10, FilterType::Lanczos3)
        .save(photos.join("smaller.png"))
        .unwrap();
    imageops::flip_horizontal(&picture).save(photos.join("mirrored.png")).unwrap();
    let mut file = std::fs::File::create(photos.join("compressed.jpg")).unwrap();
    JpegEncoder::new_with_quality(&mut file, 40).encode_image(&picture).unwrap();
    std::fs::copy(package_photos().join("astronaut.png"), photos.join("astronaut.png")).unwrap();
    run(&photos, &out);
    for name in ["obama.jpg", "renamed.jpg", "smaller.png", "mirrored.png", "compressed.jpg"] {
        assert_eq!(ending(&out, name), taken_down, "{name}");
    }
    for name in ["biden.jpg", "astronaut.png"] {
        assert_eq!(ending(&out, name).0, "predicted", "{name}");
    }
    assert_eq!(answer(&out, &["faces", "--count"]), 2);
    let audit = facemill(&["audit", photos.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));

    // A picture at hand finds its copies in the run, and is refused also where there are none.
    let biden = scratch.path().join("at-hand.png");
    let picture = image::open(package_photos().join("biden.jpg")).unwrap().into_rgb8();
    imageops::brighten(&picture, 10).save(&biden).unwrap();
    let removed = answer(&out, &["takedown", "--file", biden.to_str().unwrap(), "--yes"]);
    assert_eq!(removed["photos"][0]["photo_id"], "biden.jpg");
    assert_eq!(answer(&out, &["faces", "--count"]), 1);
    for name in ["biden.jpg", "obama.jpg"] {
        assert!(photos.join(name).is_file());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_is_refused_before_any_run_has_it() {
    let curated = CuratedRun::in_folder(1).await;
    let url = "https://photos.test/later.jpg?size=1&v=2";
    let done = done(&curated, &["takedown", "--url", url, "--yes"]);
    assert_eq!((&done["photos"], &done["refused"]), (&json!([]), &json!([1, 0, 0])));
    let list = curated.path().join("urls.txt");
    std::fs::write(&list, "http://photos.test/later.jpg?size=1&amp;v=2#top\n").unwrap();
    let (out, list) = (curated.path().to_str().unwrap(), list.to_str().unwrap());
    let run = facemill(&["run", list, "--out", out, "--json"]);
    let output = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{output} {}", String::from_utf8_lossy(&run.stderr));
    let summary: Value = serde_json::from_str(output.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["enqueued"]["taken_down"], &summary["enqueued"]["new"]), (&json!(1), &json!(0)), "{summary}");
    let ledger = std::fs::read(curated.path().join("ledger.sqlite")).unwrap();
    assert!(!ledger.windows(14).any(|window| window == b"test/later.jpg"), "the ledger does not learn the URL");
}

fn of_photo(id: i64) -> SurveySettings {
    SurveySettings {
        chosen: Chosen::Photos(vec![id.into()]),
        copies: true,
        all_runs: false,
        by: "ada".into(),
        reason: None,
        at: 5,
    }
}

/// The process dies before or after each write to the object store, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_takedown_that_dies_at_any_write_is_completed() {
    const PHOTOS: i64 = 30;
    let curated = CuratedRun::in_folder(PHOTOS as u64).await;
    let judgements = curated.path().join("judgements.csv");
    let rows: String = (0..PHOTOS).map(|id| format!("{id},ok\n")).collect();
    std::fs::write(&judgements, format!("photo_id,judgement\n{rows}")).unwrap();
    done(&curated, &["verdicts", "import", judgements.to_str().unwrap()]);
    done(&curated, &["dataset", "freeze", "v1", "--size", "64"]);
    let takedowns = Takedowns::new(curated.objects.clone());
    for id in 0..PHOTOS {
        let target = RunTarget::of_folder(RunDir::at(curated.path())).await.unwrap();
        let takedown = plan_takedown(&target, &of_photo(id), &|_| ()).await.unwrap().takedown;
        let crop = takedown.pending.as_ref().unwrap().crops[0].to_string();
        let name = takedowns.begin(&takedown).await.unwrap();
        let locked = target.lock().await.unwrap();
        let failpoint = Failpoint::of(id / 2 + 1, id % 2 == 1);
        let dying = FailpointObjects { objects: curated.objects.clone(), failpoint: failpoint.clone() };
        let objects: Arc<dyn Objects> = Arc::new(dying);
        let site = Site { ledger: &*locked.ledger, broker: &*locked.broker, objects, records: None };
        let has_died = tokio::select! {
            removed = carry_out(&site, &name, &takedown, &|_| ()) => removed.is_err(),
            () = failpoint.reached() => true,
        };
        drop(locked);
        let completed = curated.command(&["takedown"]).output().unwrap();
        assert!(completed.status.success(), "write {}: {completed:?}", id / 2 + 1);
        let left = (PHOTOS - id - 1) as u64;
        assert_eq!(done(&curated, &["dataset", "show", "v1"])["counts"]["faces"], left);
        assert_eq!(done(&curated, &["faces", "--count"]), left);
        assert!(!curated.path().join(format!("faces/{}/{crop}.png", &crop[..2])).exists());
        let log = std::fs::read_to_string(curated.path().join("verdicts/default/00000001.jsonl")).unwrap();
        assert!(!log.contains(&crop) && log.lines().count() as i64 == PHOTOS);
        let shards = std::fs::read_dir(curated.path().join("versions/default/v1")).unwrap().count();
        assert!(shards <= 2, "no shard with the face is left");
        if !has_died {
            assert!(id > 12, "the takedown has only {} writes", id / 2);
            return;
        }
    }
    panic!("a takedown has more writes than the run has photos");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_takedown_is_completed_by_the_next_one() {
    let curated = CuratedRun::in_folder(5).await;
    let target = RunTarget::of_folder(RunDir::at(curated.path())).await.unwrap();
    let settings = of_photo(3);
    let plan = plan_takedown(&target, &settings, &|_| ()).await.unwrap();
    drop(target);
    let takedowns = Takedowns::new(Arc::new(Folder::at(curated.path())));
    takedowns.begin(&plan.takedown).await.unwrap();
    // The command dies here, or anywhere later: every step is done again.
    let crop = plan.takedown.pending.as_ref().unwrap().crops[0].to_string();
    let file = curated.path().join(format!("faces/{}/{crop}.png", &crop[..2]));
    assert!(file.is_file());
    std::fs::remove_dir_all(curated.path().join("originals")).unwrap();
    let completed = curated.command(&["takedown"]).output().unwrap();
    assert!(completed.status.success(), "{completed:?}");
    assert!(String::from_utf8_lossy(&completed.stderr).contains("completing 1 takedown"), "{completed:?}");
    assert!(!file.exists());
    assert_eq!(done(&curated, &["faces", "--count"]), 4);
    assert_eq!(takedowns.pending().await.unwrap(), []);
    let nothing = curated.command(&["takedown"]).output().unwrap();
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
    let unknown = curated.command(&["takedown", "--photo", "77", "--yes"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_original_that_another_photo_has_stays_if_that_is_not_meant() {
    let curated = CuratedRun::in_folder(2).await;
    let (mut copy, crop, original) = support::curation::photo(&curated.run, 1);
    copy.candidate = support::faces::photo(9).candidate;
    curated.finish(copy, crop, original).await;
    let plan = done(&curated, &["takedown", "--photo", "9", "--only", "--yes"]);
    assert_eq!((&plan["kept_originals"], &plan["removed"]["originals"]), (&json!(1), &json!(0)));
    assert_eq!(done(&curated, &["faces", "--count"]), 2);
    let audit = done(
        &curated,
        &["export", "--where", "size>=1", "--size", "64", "--to", &{
            let to = curated.path().join("x.zip");
            to.to_str().unwrap().to_owned()
        }],
    );
    assert_eq!(audit["faces"], 2, "the other photo has its crop");
}
