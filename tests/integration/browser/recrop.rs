//! The page of a face that was cut anew.

use std::path::Path;
use std::process::Command;

use support::curation::CurationServer;
use support::reference::package_photos;
use support::servers::chromium::Screen;

use super::{Page, turn};
use crate::classifier::facemill;
use crate::training::answer;

/// Its face is near an edge, so that the crop is partly mirrored, and another fill makes another crop.
const PHOTO: &str = "obama_partial_face2.jpg";

fn succeed(arguments: &[&str]) {
    let output = facemill(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A run whose only face is judged OK, and the same photo with another fill. Returns the new run and the photo's id.
fn recropped(scratch: &Path) -> (String, String) {
    let [photos, first, new] = ["photos", "first", "new"].map(|name| scratch.join(name).display().to_string());
    std::fs::create_dir(&photos).unwrap();
    std::fs::copy(package_photos().join(PHOTO), Path::new(&photos).join(PHOTO)).unwrap();
    succeed(&["run", &photos, "--out", &first]);
    let photo = answer(Path::new(&first), &["faces"])["faces"][0]["photo_id"].as_str().unwrap().to_owned();
    let verdict = scratch.join("verdict.csv");
    std::fs::write(&verdict, format!("photo_id,judgement,by\n{photo},ok,ada\n")).unwrap();
    answer(Path::new(&first), &["verdicts", "import", verdict.to_str().unwrap()]);
    succeed(&["recrop", "--out", &first, "--as", &new, "--fill", "ffhq"]);
    (new, photo)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_on_an_earlier_crop_is_shown_and_does_not_count() {
    let _turn = turn().await;
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().to_owned();
    let (new, photo) = tokio::task::spawn_blocking(move || recropped(&folder)).await.unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
    command.args(["curate", "--out", &new]).env("USER", "bea").env("XDG_CACHE_HOME", scratch.path().join("cache"));
    let server = CurationServer::start(command);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go(&format!("/faces/{photo}")).await;
    page.browser.wait_for("document.querySelector('main.face')?.dataset.drawn === 'yes'").await;
    assert_eq!(page.text("p.earlier").await, "OK by ada, on an earlier crop of this photo: it does not count");
    assert!(page.text("main.face header .status").await != "OK", "the crop of now has no verdict");

    // A verdict on the crop of now counts. The earlier one stays in sight.
    page.browser.click(".judge .ng").await;
    page.browser.wait_for("document.querySelector('main.face header .status')?.textContent === 'NG'").await;
    page.all_sent().await;
    page.go(&format!("/faces/{photo}")).await;
    page.browser.wait_for("document.querySelector('main.face header .status')?.textContent === 'NG'").await;
    assert!(page.text("p.earlier").await.starts_with("OK by ada"));
    page.close().await;
}
