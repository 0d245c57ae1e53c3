//! The border between OK and NG.

use support::curation::RunFolder;
use support::servers::chromium::Screen;

use super::{Page, exported_lines, turn};

#[tokio::test(flavor = "multi_thread")]
async fn all_above_are_accepted_after_a_confirmation_and_taken_back_as_one() {
    let _turn = turn().await;
    let run = RunFolder::with_faces(80).await;
    let server = run.serve(&[]);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/border").await;
    let set = "const slider = document.querySelector('#border'); slider.value = 0.8; slider.dispatchEvent(new Event('input'))";
    page.browser.wait_for("document.querySelectorAll('.cells.border img').length > 0").await;
    page.browser.run(set).await;
    let accept =
        "document.querySelector('.choices button.ok:enabled')?.textContent.match(/^Accept all (\\d+) above$/)?.[1]";
    page.browser.wait_for("document.querySelector('output').textContent === '0.800'").await;
    let above = page.browser.wait_for(accept).await.as_str().unwrap().to_owned();
    page.browser.click(".choices button.ok").await;
    let question = page.browser.wait_for("document.querySelector('dialog[open] p')?.textContent").await;
    assert_eq!(question, format!("Set {above} faces with P(OK) of 0.800 or more to OK?"));
    page.browser.click("dialog button.ok").await;
    page.browser.wait_for("document.querySelector('.toast').textContent.includes('stored:')").await;
    let verdicts = exported_lines(run.path());
    assert_eq!(verdicts.len(), above.parse::<usize>().unwrap());
    assert!(verdicts.iter().all(|verdict| verdict["view"] == "bulk" && verdict["judgement"] == "ok"));
    page.browser.wait_for(&format!("document.querySelector('.chip.ok').textContent === 'OK {above}'")).await;
    // Undo is there after the tab was closed.
    page.browser.replace_tab().await;
    page.go("/border").await;
    let undo = "[...document.querySelectorAll('main.border .choices button')].find((button) => button.textContent === 'Undo the bulk verdicts' && !button.hidden)";
    page.browser.wait_for(&format!("{undo} !== undefined")).await;
    page.browser.run(&format!("{undo}.click()")).await;
    page.browser.wait_for("document.querySelector('.toast').textContent.includes('taken back')").await;
    page.browser.wait_for("document.querySelector('.chip.ok').textContent === 'OK 0'").await;
    assert_eq!(exported_lines(run.path()).len(), 2 * verdicts.len());
    page.close().await;
}
