//! Filters, orders and the history of the browser.

use support::curation::RunFolder;
use support::servers::chromium::Screen;

use super::{Page, turn};

#[tokio::test(flavor = "multi_thread")]
async fn filters_are_in_the_address_and_back_and_forward_follow_them() {
    let _turn = turn().await;
    let run = RunFolder::with_faces(60).await;
    let server = run.serve(&[]);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/").await;
    page.photo_at(0).await;
    let address = async || page.browser.run("return decodeURIComponent(location.search.replaceAll('+', ' '))").await;
    let shown = "Number(document.querySelector('.place')?.textContent.split(' of ')[1] ?? 0)";
    let all = page.browser.wait_for(shown).await.as_i64().unwrap();
    page.browser.click("summary").await;
    page.browser.fill("input[name=label]", "o'1").await;
    page.browser.run("document.querySelector('select[name=size]').value = '512'").await;
    page.browser.fill("input[name=p_ok-least]", "0.1").await;
    page.browser.click(".more button.main").await;
    page.browser.wait_for("location.search.includes('label')").await;
    let where_text = "?where=status in (ready, predicted) and label contains 'o''1' and p_ok>=0.1 and size>=512";
    assert_eq!(address().await, where_text);
    let few = page.browser.wait_for(&format!("document.querySelector('.place')?.textContent && {shown}")).await;
    assert!(few.as_i64().unwrap() < all, "{few} of {all}");
    // The form shows what the address says, also after a reload.
    page.browser.refresh().await;
    page.browser.wait_for(shown).await;
    let label = page.browser.run("return document.querySelector('input[name=label]').value").await;
    assert_eq!(label, "o'1");
    page.browser.run("const s = document.querySelector('.filters > select'); s.value = 'blur'; s.dispatchEvent(new Event('change'))").await;
    page.browser.wait_for("location.search.includes('sort=blur')").await;
    page.browser.back().await;
    page.browser.wait_for("!location.search.includes('sort=blur')").await;
    page.browser.back().await;
    page.browser.wait_for(&format!("location.search === '' && {shown} > {few}")).await;
    page.browser.forward().await;
    page.browser
        .wait_for(&format!(
            "location.search !== '' && document.querySelector('.place')?.textContent && {shown} === {few}"
        ))
        .await;
    // A wrong query is explained.
    page.go("/?where=size%3E").await;
    page.browser
        .wait_for("document.querySelector('[role=alert]')?.textContent.startsWith('The filter is not valid')")
        .await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_face_appears_on_an_empty_page_by_itself() {
    let _turn = turn().await;
    let run = RunFolder::with_faces(0).await;
    let server = run.serve(&[]);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/").await;
    page.browser.wait_for("document.querySelector('main.single')?.dataset.drawn === 'end'").await;
    run.classify(8).await;
    assert_eq!(page.photo_at(0).await, "8");
    page.go("/faces/8").await;
    page.browser.wait_for("document.querySelector('main.face')?.dataset.drawn === 'yes'").await;
    page.browser.wait_for("document.querySelector('main.face .original img').naturalWidth === 300").await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_with_markup_stays_text() {
    let _turn = turn().await;
    let run = RunFolder::with_faces(0).await;
    run.classify_named(4, "<img src=x onerror=document.title='x'><b>Ada</b>").await;
    let server = run.serve(&[]);
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    for (path, place) in [("/", "h1"), ("/grid", ".cell .caption span"), ("/faces/4", "h1")] {
        page.go(path).await;
        page.browser.wait_for(&format!("document.querySelector({place:?})?.textContent.includes('onerror=')")).await;
        let elements = page.browser.run("return document.querySelectorAll('b, [onerror]').length").await;
        assert_eq!(elements, 0, "{path}");
    }
    page.close().await;
}
