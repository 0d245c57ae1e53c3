//! The page of a report, as a browser shows it.

use support::servers::chromium::Screen;

use super::{Page, turn};
use crate::report::{index_of, predicted, with_face, write};

#[tokio::test(flavor = "multi_thread")]
async fn angles_that_round_to_zero_have_no_sign() {
    let _turn = turn().await;
    let angles = [-0.04, -0.0, 0.04, -0.06, -12.34];
    let faces = (1i64..).zip(angles).map(|(id, angle)| {
        let mut photo = with_face(id, 0.9);
        photo.facts.crop.as_mut().unwrap().angle = angle;
        predicted(photo)
    });
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &index_of(faces)).unwrap();
    let page = Page::open(&format!("file://{}/report.html", folder.path().display()), Screen::DESKTOP).await;
    page.go("").await;
    page.browser.wait_for("document.querySelectorAll('li dl').length === 5").await;
    let shown = "return [...document.querySelectorAll('li dt')].filter((name) => name.textContent === 'angle')\
        .map((name) => name.nextElementSibling.textContent).sort().join(' ')";
    assert_eq!(page.browser.run(shown).await, "-0.1° -12.3° 0.0° 0.0° 0.0°");
    page.close().await;
}
