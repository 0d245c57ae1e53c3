//! The suggested order, as a person judges in it.

use axum::http::Method;
use support::curation::RunFolder;
use support::servers::chromium::Screen;

use super::{Page, exported_lines, turn};
use crate::curation::client::ApiClient;
use crate::curation::suggested::{suggested_photos, wait_for_order};

const JUDGED: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_person_judges_in_the_suggested_order_with_random_faces_among_it() {
    let _turn = turn().await;
    let run = RunFolder::with_faces(60).await;
    let order = suggested_photos(&run);
    let server = run.serve(&[]);
    let api = ApiClient::of(&server);
    wait_for_order(&api, &order).await;
    // Others get the faces at once.
    api.answer(Method::POST, "/api/clients/tab/closed", &[], Vec::new()).await;
    let page = Page::open(&server.url, Screen::DESKTOP).await;
    page.go("/").await;
    page.photo_at(0).await;
    let choose = "const s = document.querySelector('.filters > select'); s.value = 'suggested'; \
                  s.dispatchEvent(new Event('change'))";
    page.browser.run(choose).await;
    page.browser.wait_for("location.search.includes('sort=suggested')").await;
    let mut shown = Vec::new();
    for place in 0..JUDGED {
        shown.push(page.photo_at(place).await);
        page.browser.press([if place % 2 == 0 { '1' } else { '3' }]).await;
    }
    page.photo_at(JUDGED).await;
    page.all_sent().await;
    page.close().await;

    let verdicts = exported_lines(run.path());
    let text = |verdict: &serde_json::Value, name: &str| match &verdict[name] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let judged: Vec<String> = verdicts.iter().map(|verdict| text(verdict, "photo_id")).collect();
    assert_eq!(judged, shown);
    let of = |selection: &str| {
        let chosen = verdicts.iter().filter(|verdict| text(verdict, "selection") == selection);
        chosen.map(|verdict| text(verdict, "photo_id")).collect::<Vec<_>>()
    };
    let [suggested, random] = [of("suggested"), of("random")];
    assert_eq!(suggested.len() + random.len(), JUDGED, "{verdicts:?}");
    assert!(suggested.len() > random.len(), "{random:?}");
    let places = suggested.iter().map(|photo| order.iter().position(|other| other == photo).unwrap());
    assert!(places.is_sorted(), "{suggested:?} of {order:?}");
}
