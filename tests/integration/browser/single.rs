//! One picture at a time.

use serde_json::json;
use support::curation::RunFolder;
use support::servers::chromium::{Screen, key};
use support::servers::process::free_ports;

use super::{Page, assert_typed, exported_lines, turn};

/// A run with so many small crops.
async fn small(faces: u64) -> RunFolder {
    let run = RunFolder::with_faces(0).await;
    for id in 0..faces {
        // Every fourth has a crop of 96 pixels.
        run.classify(4 * id).await;
    }
    run
}

fn judgement(key: char) -> String {
    match key {
        '1' => "ng",
        '2' => "pending",
        _ => "ok",
    }
    .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_survive_kills_of_the_server_and_closed_tabs() {
    const PICTURES: usize = 500;
    const EVENTS: usize = 20;
    let _turn = turn().await;
    let run = small(PICTURES as u64 + 40).await;
    let [port] = free_ports();
    let mut server = run.serve_at(port, &[]);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/").await;
    let mut typed = Vec::new();
    let mut place = 0;
    for event in 0..EVENTS {
        let part = PICTURES / EVENTS;
        for step in 0..part {
            let photo = page.photo_at(place).await;
            let key = ['1', '2', '3', '3', '1'][(place * 7 + event) % 5];
            page.browser.press([key]).await;
            typed.push((photo, judgement(key)));
            place += 1;
            if step == 5 {
                server.kill();
            }
            // The tab is closed while the server is down, or while it is up.
            match (step, event % 2) {
                (8, 0) => {
                    page.browser.replace_tab().await;
                    server = run.serve_at(port, &[]);
                    page.go("/").await;
                }
                (9, 1) => server = run.serve_at(port, &[]),
                (18, 1) => {
                    page.browser.replace_tab().await;
                    page.go("/").await;
                }
                _ => (),
            }
        }
        let photo = page.photo_at(place).await;
        if event % 4 == 3 {
            // Undo, also of what was typed before the last restarts; then again.
            page.browser.press(['u', 'u']).await;
            let back: Vec<_> = typed.iter().rev().take(2).cloned().collect();
            typed.extend(back.iter().map(|(photo, _)| (photo.clone(), "unjudged".to_owned())));
            let again = page.photo_at(place - 2).await;
            assert_eq!(again, back[1].0);
            page.browser.press(['3', '2']).await;
            typed.push((back[1].0.clone(), "ok".into()));
            typed.push((back[0].0.clone(), "pending".into()));
            assert_eq!(page.photo_at(place).await, photo);
        }
    }
    page.all_sent().await;
    assert_typed(run.path(), &typed);
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_of_a_closed_tab_are_sent_when_it_is_opened_later() {
    let _turn = turn().await;
    let run = small(30).await;
    let [port] = free_ports();
    let mut server = run.serve_at(port, &[]);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/?sort=id").await;
    let first = page.photo_at(0).await;
    server.kill();
    page.browser.press(['3']).await;
    let second = page.photo_at(1).await;
    page.browser.press(['r']).await;
    page.browser.wait_for("document.querySelector('dialog[open]') !== null").await;
    page.browser.press(['2']).await;
    let third = page.photo_at(2).await;
    assert_eq!(page.text(".unsent").await, "2 unsent");
    page.browser.replace_tab().await;
    let _server = run.serve_at(port, &[]);
    // Another view sends them, too.
    page.go("/statistics").await;
    page.all_sent().await;
    assert_typed(run.path(), &[(first.clone(), "ok".into()), (second, "ng".into())]);
    assert_eq!(exported_lines(run.path())[1]["reason"], "cut-off");
    // The list goes on where it was, and undo reaches behind the restart.
    page.go("/?sort=id").await;
    assert_eq!(page.photo_at(2).await, third);
    page.browser.press(['u', 'u']).await;
    assert_eq!(page.photo_at(0).await, first);
    page.browser.press(['u']).await;
    assert_eq!(page.text(".toast").await, "Nothing to undo");
    page.all_sent().await;
    assert_eq!(exported_lines(run.path()).len(), 4);
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_the_browser_and_of_fields_are_left_alone_and_others_can_be_changed() {
    let _turn = turn().await;
    let run = small(30).await;
    let server = run.serve(&[]);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/").await;
    page.photo_at(0).await;
    const CONTROL: char = '\u{e009}';
    for key in ['1', '3', 'u', 'l', key::RIGHT] {
        page.browser.press_with(CONTROL, key).await;
    }
    page.browser.click("summary").await;
    page.browser.fill("input[name=query]", "u123").await;
    page.photo_at(0).await;
    page.browser.run("document.activeElement.blur()").await;
    // Space moves, and Shift brings back.
    page.browser.press([' ', ' ', key::RIGHT]).await;
    page.photo_at(3).await;
    page.browser.press([key::LEFT]).await;
    page.browser.press_with('\u{e008}', ' ').await;
    page.photo_at(1).await;
    // OK gets the key k, and the key 1 is nobody's after that.
    page.browser.press(['?']).await;
    page.browser.click("dialog .keys dd:nth-of-type(3) button").await;
    page.browser.press(['1']).await;
    page.browser.press([key::ESCAPE]).await;
    page.browser.wait_for("document.querySelector('dialog') === null").await;
    page.browser.refresh().await;
    let photo = page.photo_at(1).await;
    page.browser.press(['3', '1']).await;
    page.photo_at(2).await;
    page.all_sent().await;
    assert_typed(run.path(), &[(photo, "ok".into())]);
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_somebody_else_contradicts_is_shown_until_it_is_decided() {
    let _turn = turn().await;
    let run = small(12).await;
    let server = run.serve(&[]);
    let ada = Page::open(&server.url, Screen::DESKTOP).await;
    ada.go("/?sort=id").await;
    let photo = ada.photo_at(0).await;
    ada.browser.press(['3']).await;
    ada.all_sent().await;
    // Both look at the same judged picture.
    let other = Page::open(&server.url, Screen::DESKTOP).await;
    for page in [&ada, &other] {
        page.go("/?where=status%3Dok&sort=id").await;
        assert_eq!(page.photo_at(0).await, photo);
    }
    ada.browser.press(['1']).await;
    ada.all_sent().await;
    other.browser.press(['2']).await;
    let shown = other.browser.wait_for("document.querySelector('.conflict')?.innerText").await;
    let shown = shown.as_str().unwrap();
    assert!(shown.contains("you: Pending") && shown.contains("ada: NG"), "{shown}");
    // It stays after the tab was closed.
    other.browser.replace_tab().await;
    other.go("/").await;
    other.browser.wait_for("document.querySelector('.conflict button.ok') !== null").await;
    other.browser.click(".conflict button.ok").await;
    other.browser.wait_for("document.querySelector('.conflict') === null").await;
    other.all_sent().await;
    let verdicts = exported_lines(run.path());
    let judgements: Vec<_> = verdicts.iter().map(|verdict| verdict["judgement"].as_str().unwrap()).collect();
    assert_eq!(judgements, ["ok", "ng", "pending", "ok"]);
    let counts: Vec<_> = verdicts.iter().map(|verdict| verdict["counts"].clone()).collect();
    assert_eq!(counts, [json!(false), json!(false), json!(false), json!(true)]);
    ada.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_judges_by_touch_with_large_buttons() {
    let _turn = turn().await;
    let run = small(12).await;
    let server = run.serve(&[]);
    let screen = Screen { is_dark: true, language: "ja", ..Screen::PHONE };
    let page = Page::open(&server.url, screen).await;
    page.go("/").await;
    let first = page.photo_at(0).await;
    assert_eq!(page.text("nav a").await, "一枚ずつ");
    let background = page.browser.run("return getComputedStyle(document.body).backgroundColor").await;
    assert_eq!(background, "rgb(22, 21, 19)");
    let small = page.browser.run(
        "return [...document.querySelectorAll('.judge button')].map((button) => button.getBoundingClientRect())\
         .filter(({width, height, bottom}) => width < 44 || height < 44 || bottom > innerHeight).length + \
         (document.documentElement.scrollWidth > innerWidth)",
    );
    assert_eq!(small.await, 0);
    page.browser.click("button[data-action=ng]").await;
    let second = page.photo_at(1).await;
    page.browser.click("button[data-action=ok]").await;
    page.photo_at(2).await;
    page.browser.click("button[data-action=undo]").await;
    page.photo_at(1).await;
    page.all_sent().await;
    let typed = [(first, "ng".into()), (second.clone(), "ok".into()), (second, "unjudged".into())];
    assert_typed(run.path(), &typed);
    for path in ["/grid", "/border", "/statistics"] {
        page.go(path).await;
        page.browser.wait_for("document.querySelector('main') !== null").await;
        let overflow = page.browser.run("return document.documentElement.scrollWidth - innerWidth").await;
        assert!(overflow.as_i64().unwrap() <= 0, "{path}: {overflow}");
    }
    page.close().await;
}
