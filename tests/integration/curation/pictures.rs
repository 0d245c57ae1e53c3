//! Pictures, by their hashes.

use axum::http::Method;
use facemill::domain::{ContentHash, ImageFormat, Original, RunName};
use facemill::vision::image::{Limits, decode};
use image::{ImageBuffer, ImageFormat as FileFormat};
use serde_json::Value;
use support::curation::{CuratedRun, crop_size, photo, picture};

use super::client::{Answer, ApiClient};
use super::inside;

async fn get(api: &ApiClient, path: &str) -> Answer {
    api.answer(Method::GET, path, &[], Vec::new()).await
}

fn width(answer: &Answer) -> u32 {
    decode(&answer.body, Limits { pixels: 10_000_000 }).unwrap().width()
}

#[tokio::test(flavor = "multi_thread")]
async fn crops_come_whole_or_as_thumbnails_and_are_kept_by_browsers() {
    let run = CuratedRun::in_folder(4).await;
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    for id in 0..4 {
        let (_, crop, _) = photo(&RunName::default(), id);
        let path = format!("/pictures/crops/{}", ContentHash::of(&crop));
        let whole = get(&api, &path).await;
        assert_eq!((whole.status, &whole.body[..]), (200, &crop[..]));
        assert_eq!(whole.header("etag"), format!("\"{}\"", ContentHash::of(&crop)));
        assert_eq!(whole.header("cache-control"), "private, max-age=31536000, immutable");
        assert_eq!((whole.header("content-type"), whole.header("x-content-type-options")), ("image/png", "nosniff"));
        assert_eq!(whole.header("content-length"), crop.len().to_string());
        for size in [256, 512, 1024] {
            let path = format!("{path}?size={size}");
            let answer = get(&api, &path).await;
            assert_eq!(width(&answer), size.min(crop_size(id)), "{path}");
            let is_whole = size >= crop_size(id);
            assert_eq!(answer.header("content-type"), if is_whole { "image/png" } else { "image/jpeg" });
            assert_eq!(answer.header("etag") == whole.header("etag"), is_whole);
            assert_eq!(get(&api, &path).await.body, answer.body);
            let known = [("If-None-Match", answer.header("etag"))];
            let again = api.answer(Method::GET, &path, &known, Vec::new()).await;
            assert_eq!((again.status, again.body.len()), (304, 0));
        }
    }
    let head = api.answer(Method::HEAD, &crop_path(0), &[], Vec::new()).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

fn crop_path(id: u64) -> String {
    format!("/pictures/crops/{}", ContentHash::of(&photo(&RunName::default(), id).1))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pictures_of_the_run_are_served() {
    let run = CuratedRun::in_folder(1).await;
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    // The object is there, but belongs to no face of the run.
    let (_, crop, _) = photo(&RunName::default(), 1);
    let key = facemill::objects::ObjectKey::face(ContentHash::of(&crop), ImageFormat::Png);
    run.objects.put(&key, crop.into(), "image/png").await.unwrap();
    for path in [
        crop_path(1),
        crop_path(0).replace("crops", "originals"),
        format!("{}0", crop_path(0)),
        "/pictures/crops/..%2f..%2fledger.sqlite".into(),
        "/pictures/crops/".into(),
        "/pictures/ledger.sqlite".into(),
    ] {
        let answer = get(&api, &path).await;
        assert_eq!(answer.status, 404, "{path}");
        let error: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(error["error"]["code"], "not-found", "{path}");
    }
    for query in ["?size=300", "?size=x", "?width=256", "?size=256&size=512"] {
        assert_eq!(get(&api, &format!("{}{query}", crop_path(0))).await.status, 400, "{query}");
    }
    assert_eq!(api.answer(Method::POST, &crop_path(0), &[], Vec::new()).await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_original_that_browsers_do_not_show_is_converted() {
    let run = CuratedRun::in_folder(1).await;
    let (mut tiff_photo, crop, jpeg) = photo(&RunName::default(), 1);
    let pixels = picture(1, 300, 400);
    let pixels: ImageBuffer<image::Rgb<u8>, Vec<u8>> = pixels;
    let mut tiff = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut tiff, FileFormat::Tiff).unwrap();
    let tiff = tiff.into_inner();
    let (sha256, bytes) = (ContentHash::of(&tiff), tiff.len() as u64);
    tiff_photo.facts.original = Some(Original { sha256, bytes, format: ImageFormat::Tiff });
    run.finish(tiff_photo, crop, tiff).await;
    let (_server, api) = inside::open(&run, run.objects.clone(), "ada").await.unwrap();
    let answer = get(&api, &format!("/pictures/originals/{sha256}")).await;
    assert_eq!((answer.status, answer.header("content-type"), width(&answer)), (200, "image/jpeg", 300));
    // One that browsers show comes as it is.
    let (_, _, original) = photo(&RunName::default(), 0);
    let answer = get(&api, &format!("/pictures/originals/{}", ContentHash::of(&original))).await;
    assert_eq!(answer.body, original);
    assert_ne!(original, jpeg);
}
