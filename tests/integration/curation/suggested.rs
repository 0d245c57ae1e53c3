//! The suggested order of a list.

use std::collections::HashMap;
use std::time::Instant;

use facemill::domain::{RunName, Selection};
use facemill::verdicts::{LogPosition, VerdictLog};
use serde_json::Value;
use support::curation::CuratedRun;

use super::client::{ApiClient, verdict};

/// The photos in the order that `facemill suggest` prints.
pub fn suggested_photos(run: &CuratedRun) -> Vec<String> {
    let index = run.path().join("other.sqlite").display().to_string();
    let mut command = run.command(&["suggest", "--json", "--limit", "100", "--where", "size>=1", "--index", &index]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let suggested: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&suggested["method"], &suggested["candidates"]), (&"typical".into(), &60.into()), "{suggested}");
    let id = |face: &Value| face["photo_id"].as_str().map_or_else(|| face["photo_id"].to_string(), str::to_owned);
    suggested["faces"].as_array().unwrap().iter().map(id).collect()
}

/// Waits until the server has made its suggested order.
pub async fn wait_for_order(api: &ApiClient, expected: &[String]) {
    let began = Instant::now();
    while photos(api).await != expected {
        assert!(began.elapsed() < support::PATIENCE, "the list is not in the suggested order");
    }
}

/// The photos in the suggested order, without random faces among them.
async fn photos(api: &ApiClient) -> Vec<String> {
    let list = api.open_list("size>=1", "suggested", "single", "tab").await;
    let entries = api.entries(&list, "tab").await;
    entries.iter().map(|entry| entry["photo_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_in_the_suggested_order_as_soon_as_it_is_made() {
    let run = CuratedRun::in_folder(60).await;
    let expected = suggested_photos(&run);
    assert_eq!(expected.len(), 60);
    let server = run.serve(&[]);
    let api = ApiClient::of(&server);
    wait_for_order(&api, &expected).await;
    // People get the same faces, with random ones among them, and the log says which is which.
    let list = api.open_list("status in (ready, predicted)", "suggested", "single", "tab").await;
    let entries = api.entries(&list, "tab").await;
    assert_eq!(entries.len(), 60);
    let sent: Vec<Value> =
        entries.iter().enumerate().map(|(number, entry)| verdict(&format!("v{number}"), entry, "ok")).collect();
    api.judge(&sent[..30]).await;
    api.judge(&sent[30..]).await;
    let mut selections: HashMap<Selection, Vec<String>> = HashMap::new();
    let log = VerdictLog::new(run.objects.clone(), RunName::default());
    let note = |verdict: facemill::domain::Verdict| {
        selections.entry(verdict.selection).or_default().push(verdict.photo_id.to_string());
    };
    log.read(&mut LogPosition::default(), note).await.unwrap();
    let in_order = &selections[&Selection::Suggested];
    let random = selections.get(&Selection::Random).map_or(0, Vec::len);
    assert_eq!(in_order.len() + random, 60, "{selections:?}");
    let places: Vec<usize> =
        in_order.iter().map(|photo| expected.iter().position(|other| other == photo).unwrap()).collect();
    assert!(places.is_sorted(), "{places:?}");
}
