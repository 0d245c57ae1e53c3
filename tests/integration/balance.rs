//! `facemill dataset balance`, and the data card of an export, on a run in a folder and on the same one on servers.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};
use support::curation::CuratedRun;

const FACES: u64 = 60;

/// The JSON of a command that succeeds.
fn done(curated: &CuratedRun, arguments: &[&str]) -> Value {
    let output = curated.command(arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn shares<'a>(balance: &'a Value, by: &str) -> &'a Vec<Value> {
    let grouping = balance["groupings"].as_array().unwrap().iter().find(|grouping| grouping["by"] == by).unwrap();
    grouping["shares"].as_array().unwrap()
}

fn sum(shares: &[Value], of: &str) -> u64 {
    shares.iter().map(|share| share[of].as_u64().unwrap()).sum()
}

/// Returns what the command says, and the data card of an export.
fn balanced(curated: &CuratedRun) -> (Value, [String; 2]) {
    let count = |query: &str| done(curated, &["faces", "--count", "--where", query]).as_u64().unwrap();
    let large = count("size>=256");
    let of_all = ["dataset", "balance", "--where", "size>=256", "--limit", "100"];
    let balance = done(curated, &of_all);
    assert_eq!((&balance["faces"], &balance["left"]), (&json!(large), &Value::Null));
    for grouping in balance["groupings"].as_array().unwrap() {
        assert_eq!(sum(grouping["shares"].as_array().unwrap(), "faces"), large, "{grouping}");
    }
    let labels = shares(&balance, "label");
    let named: HashMap<&str, u64> =
        labels.iter().map(|share| (share["name"].as_str().unwrap(), share["faces"].as_u64().unwrap())).collect();
    let label = labels[0]["name"].as_str().unwrap();
    let quoted = label.replace('\'', "''");
    assert_eq!(named[label], count(&format!("size>=256 and label='{quoted}'")));
    let frontal = shares(&balance, "pose").iter().find(|share| share["name"] == "frontal").unwrap();
    assert_eq!(frontal["faces"], count("size>=256 and yaw>=-0.2 and yaw<0.2"));
    let middle = shares(&balance, "size").iter().find(|share| share["name"] == "512-1023").unwrap();
    assert_eq!(middle["faces"], count("size>=512 and size<1024"));
    let years = shares(&balance, "year");
    assert_eq!(years[0]["name"], "2015");
    assert_eq!(years[1], json!({ "name": "unknown", "faces": large - years[0]["faces"].as_u64().unwrap() }));

    // With a cap, so many are left as an export has, and as the row of the cap says.
    let capped = done(curated, &[&of_all[..], &["--max-per-label", "1"]].concat());
    assert_eq!(capped["left"], named.len());
    assert!(shares(&capped, "label").iter().all(|share| share["left"] == 1));
    assert_eq!(sum(shares(&capped, "pose"), "left"), named.len() as u64);
    let effect = &balance["caps"][0];
    let cut = named.values().filter(|faces| **faces > 1).count();
    assert_eq!(effect, &json!({ "of": "label", "limit": 1, "left": named.len(), "cut": cut }));
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let export = |name: &str, flags: &[&str]| {
        let place = place(name);
        let fixed = ["export", "--size", "256", "--format", "folder", "--where", "size>=256", "--to", &place];
        done(curated, &[&fixed[..], flags].concat())
    };
    assert_eq!(export("capped", &["--max-per-label", "1"])["faces"], capped["left"]);

    let refused = curated.command(&of_all).args(["--max-per-identity", "1"]).output().unwrap();
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(3) && message.contains("`facemill identities` finds them"), "{message}");

    export("all", &[]);
    (balance, ["README.md", "README.html"].map(|name| read(&folder.path().join("all").join(name))))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn faces_are_spread_alike_in_a_folder_and_on_servers() {
    let (folder, [markdown, page]) = balanced(&CuratedRun::in_folder(FACES).await);
    let (servers, [markdown_of_servers, page_of_servers]) = balanced(&CuratedRun::on_servers(FACES).await);
    assert_eq!(folder, servers);
    // The name of the run is in the title.
    let renamed = |card: String| card.replace("run faces", "run default");
    assert!(markdown == renamed(markdown_of_servers) && page == renamed(page_of_servers), "the cards differ");

    let faces = folder["faces"].as_u64().unwrap();
    assert!(markdown.contains("\n## By pose: 6\n"), "{markdown}");
    for part in
        ["Least sharp", "Most mirrored", "<h2 id=\"quality\">", "<h2 id=\"balance\">", "By host", "--max-per-label"]
    {
        assert!(page.contains(part), "{part} is missing");
    }
    let pictures = page.matches("<img src=\"data:image/jpeg;base64,").count() as u64;
    assert_eq!(pictures, faces + 4 * 12, "all faces, and four sheets of the most unusual ones");
    // It loads nothing, and text of strangers is no HTML.
    assert!(!page.contains("://") && !page.contains("<script"), "it loads something");
    assert!(page.contains("Person O&#39;"), "labels are escaped");
}
