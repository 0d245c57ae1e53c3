//! Training from the page.

use std::process::Command;

use support::curation::CurationServer;
use support::servers::chromium::Screen;

use super::{Page, turn};
use crate::training::{answer, import, run_folder};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_the_training_and_its_figures_stand_beside_those_of_the_grid() {
    let _turn = turn().await;
    let folder = run_folder().await;
    let out = folder.path();
    let judged = std::fs::read_to_string(out.join("verdicts.jsonl")).unwrap();
    let chosen = r#"{"selection":"suggested","#;
    import(out, &judged.lines().map(|line| format!("{line}\n").replacen('{', chosen, 1)).collect::<String>());
    let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
    command
        .args(["curate", "--out", out.to_str().unwrap()])
        .env("USER", "ada")
        .env("XDG_CACHE_HOME", out.join("cache"));
    let server = CurationServer::start(command);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/statistics").await;
    page.browser.wait_for("document.querySelector('main.statistics table') !== null").await;
    page.browser.press(['t']).await;
    page.browser.wait_for("document.querySelector('dialog[open] .training')?.dataset.state === 'idle'").await;
    page.browser.click("dialog .start-training").await;
    let progress = "document.querySelector('dialog[open] .training progress') !== null";
    page.browser.wait_for(progress).await;
    page.browser.wait_for("document.querySelector('dialog[open] .training').dataset.state === 'done'").await;
    let stored = answer(out, &["models", "list"]);
    let name = stored[0]["model"].as_str().unwrap();
    let text = page.text("dialog .training").await;
    let start = &stored[0]["sha256"].as_str().unwrap()[..8];
    let chosen = "P(OK) has chosen 96 of the judged faces";
    for part in [name, "mirrored share alone", chosen, &format!("facemill rescore --model {start}")] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // The long name of a classifier in use hides no figure.
    let script = format!(
        "document.querySelector('dialog td').textContent = '{name}, in use'; \
         const table = document.querySelector('dialog .scroll'); return table.scrollWidth - table.clientWidth"
    );
    assert_eq!(page.browser.run(&script).await, 0);
    page.close().await;
}
