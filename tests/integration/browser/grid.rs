//! A page of crops.

use axum::http::Method;
use support::curation::RunFolder;
use support::servers::chromium::{Screen, key};

use super::{Page, assert_typed, exported_lines, turn};
use crate::curation::client::ApiClient;

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_judged_but_for_the_exceptions_and_taken_back_as_one() {
    let _turn = turn().await;
    let run = RunFolder::with_faces(110).await;
    let server = run.serve(&[]);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/grid?where=not+status%3Dok&sort=id").await;
    page.grid_at(0).await;
    // The third crop is marked by key, the fifth by click, the sixth gets a verdict of its own.
    page.browser.press([key::RIGHT, key::RIGHT, 'x']).await;
    page.browser.click(".page:not([hidden]) .cell:nth-child(5)").await;
    page.browser.press([key::RIGHT, '2']).await;
    assert_eq!(page.text("button[data-action=page] span").await, "45 crops OK, 3 NG");
    page.browser.press([key::ENTER]).await;
    page.grid_at(48).await;
    let cells = page.browser.run("return document.querySelectorAll('.cell').length").await;
    assert!(cells.as_i64().unwrap() <= 400, "{cells}");
    page.browser.press(['u']).await;
    page.grid_at(0).await;
    // Now the other way around.
    page.browser.press(['m', 'x', key::ENTER]).await;
    page.grid_at(48).await;
    page.browser.press([key::ENTER]).await;
    page.grid_at(96).await;
    page.all_sent().await;
    let id = |at: usize| at.to_string();
    let first =
        (0..48).map(|at| (id(at), ["ok", "ok", "ng", "ok", "ng", "pending"].get(at).unwrap_or(&"ok").to_string()));
    let undo = (0..48).map(|at| (id(at), "unjudged".to_owned()));
    let second = (0..48).map(|at| (id(at), if at == 0 { "ok" } else { "ng" }.to_owned()));
    let third = (48..96).map(|at| (id(at), "ng".to_owned()));
    let typed: Vec<_> = first.chain(undo).chain(second).chain(third).collect();
    assert_typed(run.path(), &typed);
    assert!(exported_lines(run.path()).iter().all(|verdict| verdict["view"] == "grid"));
    // The list goes on after a reload.
    page.browser.refresh().await;
    page.grid_at(96).await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn near_duplicates_are_one_card_and_can_be_parted() {
    let _turn = turn().await;
    let run = RunFolder::with_faces(12).await;
    run.group(&[7, 3, 8]).await;
    let server = run.serve(&[]);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/grid?where=not+status%3Dok&sort=id").await;
    page.grid_at(0).await;
    let cards = "return document.querySelectorAll('.page:not([hidden]) .cell').length";
    assert_eq!(page.browser.run(cards).await, 10);
    assert_eq!(page.text(".page:not([hidden]) .cell .badge").await, "\u{2248}2");
    page.go("/faces/3").await;
    page.browser.wait_for("document.querySelectorAll('.near img').length === 2").await;
    page.browser.click("button[data-action=part]").await;
    page.browser.wait_for("document.querySelector('dialog[open]') !== null").await;
    page.browser.click("dialog button.main").await;
    page.browser
        .wait_for("document.querySelector('main.face')?.dataset.drawn && document.querySelector('.near') === null")
        .await;
    page.go("/grid?where=not+status%3Dok&sort=size").await;
    page.grid_at(0).await;
    assert_eq!(page.browser.run(cards).await, 11);
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_link_to_the_faces_that_look_alike() {
    let _turn = turn().await;
    let run = RunFolder::with_faces(1).await;
    for (id, label) in [(1, "Ada"), (2, "Ada"), (3, "Grace"), (4, "Grace"), (5, "Grace")] {
        run.classify_named(id, label).await;
    }
    run.identify(&[&[1, 2, 3], &[4, 5]]).await;
    let server = run.serve(&[]);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    let cards = "return document.querySelectorAll('.page:not([hidden]) .cell').length";
    page.go("/faces/3").await;
    page.browser.wait_for("document.querySelector('.identity a') !== null").await;
    let text = page.text(".identity").await;
    assert!(text.contains("the face looks like Ada.") && text.contains("All 3 faces"), "{text}");
    page.browser.click(".identity a").await;
    page.grid_at(0).await;
    assert_eq!(page.browser.run(cards).await, 3);
    page.go("/statistics").await;
    page.browser.wait_for("document.querySelector('.wrong-persons a') !== null").await;
    assert_eq!(page.text(".wrong-persons a").await, "Faces that look like the person of another label: 1");
    page.browser.click(".wrong-persons a").await;
    page.grid_at(0).await;
    assert_eq!(page.browser.run(cards).await, 1);
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faces_that_others_have_are_no_empty_list() {
    let _turn = turn().await;
    let run = RunFolder::with_faces(6).await;
    let server = run.serve(&[]);
    let other = ApiClient::of(&server);
    let list = other.open_list("", "id", "grid", "other").await;
    assert_eq!(other.entries(&list, "other").await.len(), 6);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/grid").await;
    page.browser.wait_for("document.querySelector('main.grid h2')?.textContent === 'Others have these faces'").await;
    // They come by themselves.
    other.send(Method::POST, "/api/clients/other/closed", None).await;
    page.grid_at(0).await;
    page.close().await;
}
