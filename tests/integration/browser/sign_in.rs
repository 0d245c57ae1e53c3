//! People who sign in.

use facemill::domain::Role;
use support::curation::RunFolder;
use support::servers::chromium::Screen;

use super::{Page, assert_typed, exported_lines, turn};
use crate::curation::visitor::{PASSWORD, add_users};

async fn sign_in(page: &Page, name: &str, password: &str) {
    page.browser.wait_for("document.querySelector('main.sign-in') !== null").await;
    page.browser.fill("input[name=name]", name).await;
    page.browser.fill("input[name=password]", password).await;
    page.browser.click("button[type=submit]").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_loses_nothing() {
    let _turn = turn().await;
    let run = RunFolder::with_faces(12).await;
    add_users(run.path(), &[("ada", Role::Curator), ("vera", Role::Viewer)]).await;
    let server = run.serve(&[]);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/?sort=id").await;
    sign_in(&page, "ada", "not the password").await;
    page.browser.wait_for("document.querySelector('[role=alert]').textContent === 'Name or password is wrong.'").await;
    sign_in(&page, "ada", PASSWORD).await;
    // Back where the person wanted to go.
    let first = page.photo_at(0).await;
    assert_eq!(page.browser.run("return location.search").await, "?sort=id");
    assert_eq!(page.text(".person").await, "ada");
    // The session ends, as it does on sign-out in another tab.
    page.browser.run("return fetch('/api/session', {method: 'DELETE'}).then(({status}) => status)").await;
    page.browser.press(['1']).await;
    page.browser.wait_for("document.querySelector('main.sign-in') !== null").await;
    assert!(exported_lines(run.path()).is_empty());
    // Somebody else does not send it.
    sign_in(&page, "vera", PASSWORD).await;
    page.browser.wait_for("document.querySelector('.person')?.textContent === 'vera'").await;
    assert_eq!(page.browser.run("return document.querySelectorAll('.judge button:disabled').length").await, 3);
    assert_eq!(page.text(".unsent").await, "all sent");
    page.browser.click(".top .right button:last-child").await;
    sign_in(&page, "ada", PASSWORD).await;
    page.browser.wait_for("document.querySelector('.person')?.textContent === 'ada'").await;
    page.all_sent().await;
    assert_typed(run.path(), &[(first, "ng".into())]);
    assert_eq!(exported_lines(run.path())[0]["by"], "ada");
    page.close().await;
}
