//! From a dump to a dataset, as a person does it: run, judge in the browser, train, score again, accept, export.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::collection::Collection;
use support::curation::CurationServer;
use support::servers::chromium::Screen;

use super::{Page, turn};
use crate::cluster::installation::Installation;
use crate::curation::client::ApiClient;
use crate::export::{STYLEGAN, python};

/// Pictures of the collection. Its last ones are cut off at the edge of the photo.
const PICTURES: usize = 66;
/// Faces that the person judges.
const JUDGED: usize = 30;
/// The person says NG from this mirrored share of the crop on.
const NG_FROM: f64 = 0.085;

/// Where the run is.
enum SetUp<'a> {
    Folder(&'a Path),
    Servers(&'a Installation),
}

impl SetUp<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        match self {
            Self::Folder(out) => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
                command.args(arguments).arg("--out").arg(out).env("XDG_CACHE_HOME", out.join("cache"));
                command
            }
            Self::Servers(installation) => installation.command(arguments),
        }
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[arguments, &["--json"]].concat()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn count(&self, query: &str) -> u64 {
        self.json(&["faces", "--count", "--where", query]).as_u64().unwrap()
    }
}

/// Judges the faces with the largest mirrored share, by keys. Returns the number of NG.
async fn judge(server: &CurationServer) -> usize {
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/?where=status+in+(ready%2C+predicted)&sort=-mirrored").await;
    let api = ApiClient::of(server);
    let mut ng = 0;
    for place in 0..JUDGED {
        let photo = page.photo_at(place).await;
        let face = api.get(&format!("/api/faces/{photo}")).await;
        let is_ng = face["mirrored"].as_f64().unwrap() >= NG_FROM;
        ng += usize::from(is_ng);
        page.browser.press([if is_ng { '1' } else { '3' }]).await;
    }
    page.photo_at(JUDGED).await;
    page.all_sent().await;
    page.close().await;
    ng
}

/// Accepts all predicted faces on the page of the border.
async fn accept(server: &CurationServer, threshold: f64) {
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/border").await;
    page.browser.wait_for("document.querySelector('main.border .choices button.ok:enabled') !== null").await;
    let set = format!(
        "const slider = document.querySelector('#border'); slider.value = {threshold}; \
         slider.dispatchEvent(new Event('input'))"
    );
    page.browser.run(&set).await;
    page.browser.wait_for(&format!("document.querySelector('output').textContent === '{threshold:.3}'")).await;
    page.browser.wait_for("document.querySelector('main.border .choices button.ok:enabled') !== null").await;
    page.browser.click(".choices button.ok").await;
    page.browser.wait_for("document.querySelector('dialog[open] p') !== null").await;
    page.browser.click("dialog button.ok").await;
    page.browser.wait_for("document.querySelector('.toast').textContent.includes('stored:')").await;
    page.close().await;
}

/// Everything after the run.
async fn from_faces_to_a_dataset(set_up: &SetUp<'_>, scratch: &Path) {
    let faces = set_up.count("");
    assert!(faces > JUDGED as u64 + 10, "{faces}");
    let ng = judge(&CurationServer::start(set_up.command(&["curate"]))).await;
    assert!(ng >= 5 && ng + 10 < JUDGED, "{ng} NG");
    // A verdict holds for all faces with the crop.
    let (of_ng, of_ok) = (set_up.count("status=ng"), set_up.count("status=ok"));
    assert!(of_ng >= ng as u64 && of_ok >= (JUDGED - ng) as u64, "{of_ng} NG and {of_ok} OK of {JUDGED}, {ng} NG");

    let trained = set_up.json(&["train"]);
    let crops = ["training", "test"].map(|side| trained["report"][side]["crops"].as_u64().unwrap());
    assert!((20..=JUDGED as u64).contains(&crops.iter().sum()), "{trained}");
    let model = trained["model"].as_str().unwrap();
    let rescored = set_up.json(&["rescore", "--model", model]);
    assert_eq!(rescored["unreadable_count"], 0, "{rescored}");
    set_up.json(&["models", "use", model]);
    assert_eq!(set_up.count("p_ok is not null"), faces, "the new classifier has scored all");

    let predicted = set_up.count("status=predicted");
    assert!(predicted > 5, "{predicted} predicted");
    // The slider moves in hundredths.
    let threshold = (trained["threshold"].as_f64().unwrap() * 100.0).ceil() / 100.0;
    accept(&CurationServer::start(set_up.command(&["curate"])), threshold).await;
    let accepted = set_up.count("status=ok") - of_ok;
    assert!(accepted > 5 && accepted <= predicted, "{accepted} of {predicted}");

    let zip = scratch.join("faces.zip");
    let to = zip.to_str().unwrap();
    let exported =
        set_up.json(&["export", "--where", "status=ok", "--size", "128", "--format", "stylegan", "--to", to]);
    let read = python(STYLEGAN, &[to]);
    assert_eq!(
        (&read["width"], read["names"].as_array().unwrap().len() as u64),
        (&json!(128), exported["faces"].as_u64().unwrap())
    );
    assert!(exported["faces"].as_u64().unwrap() > 20, "{exported}");
}

fn copy_folder(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_becomes_a_dataset_in_a_folder() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("faces");
    let folder = out.clone();
    let run = tokio::task::spawn_blocking(move || {
        let collection = Collection::of(PICTURES);
        Command::new(env!("CARGO_BIN_EXE_facemill")).args(collection.run_text(&folder)).output().unwrap()
    });
    let run = run.await.unwrap();
    assert!(run.status.success(), "{run:?}");
    // The same without a person.
    let unattended = scratch.path().join("unattended");
    copy_folder(&out, &unattended);
    let script = support::project().join("deploy/tutorial.py");
    let mut tutorial = Command::new("python3");
    tutorial.arg("-B").arg(script).args(["--unattended", "--program", env!("CARGO_BIN_EXE_facemill"), "--out"]);
    let tutorial = tutorial.arg(&unattended).output().unwrap();
    let told = String::from_utf8_lossy(&tutorial.stdout);
    assert!(tutorial.status.success(), "{told}{}", String::from_utf8_lossy(&tutorial.stderr));
    assert!(told.contains(" pictures of 128x128, read with zipfile"), "{told}");

    let _turn = turn().await;
    from_faces_to_a_dataset(&SetUp::Folder(&out), scratch.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_becomes_a_dataset_on_servers() {
    let scratch = tempfile::tempdir().unwrap();
    let run = tokio::task::spawn_blocking(|| {
        let (collection, installation) = (Collection::of(PICTURES), Installation::new());
        let produced = installation.json(&["produce", collection.dump.to_str().unwrap()]);
        let stages = ["fetch", "detect", "crop", "classify"];
        let worker = installation.worker(&stages, &collection);
        installation.until("the end of all photos", |status| {
            let ended = status["ended"].as_object().unwrap().values().map(|count| count.as_u64().unwrap());
            ended.sum::<u64>() == produced["new"].as_u64().unwrap()
        });
        (installation, worker, collection)
    });
    let (installation, mut worker, collection) = run.await.unwrap();
    let _turn = turn().await;
    from_faces_to_a_dataset(&SetUp::Servers(&installation), scratch.path()).await;
    // A collection and an installation have runtimes of their own, which end on a thread that may wait.
    let ended = tokio::task::spawn_blocking(move || {
        let code = worker.terminate();
        drop((installation, collection));
        code
    });
    assert_eq!(ended.await.unwrap(), Some(0));
}
