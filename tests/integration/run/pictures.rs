//! The pictures of a run's report.

use std::collections::BTreeSet;
use std::path::Path;

use super::{UNDISTURBED, facemill, lines, path};

/// The names of the files in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

/// The sources of the pictures that the page has without its script.
fn sources(page: &str) -> Vec<&str> {
    page.split(" src=\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(source, _)| source).collect()
}

#[test]
fn a_report_with_faces_can_be_looked_at_anywhere() {
    let out = UNDISTURBED.out();
    let elsewhere = tempfile::tempdir().unwrap();
    let to = elsewhere.path().join("report");
    let write = |more: &[&str]| {
        let report = facemill(&[&["report", "--out", path(out), "--to", path(&to)], more].concat());
        assert!(report.status.success(), "{report:?}");
        assert_eq!(String::from_utf8(report.stdout).unwrap(), format!("{}\n", to.join("report.html").display()));
        std::fs::read_to_string(to.join("report.html")).unwrap()
    };
    // Without pictures the page says how to get them, and has no broken ones.
    let page = write(&[]);
    assert!(page.contains("--with-faces") && sources(&page).is_empty(), "{page}");
    assert!(!to.join("thumbnails").exists());

    let page = write(&["--with-faces"]);
    let name = out.file_name().unwrap().to_str().unwrap();
    assert!(page.contains(&format!("<title>facemill: folder {name}</title>")), "{page}");
    let faces = lines(&to.join("faces.jsonl"));
    let crops: BTreeSet<String> =
        faces.iter().map(|face| format!("{}.jpg", face["crop_sha256"].as_str().unwrap())).collect();
    let made = names(&to.join("thumbnails"));
    assert!(made.is_superset(&crops), "{made:?}");
    for file in &made {
        let picture = image::open(to.join("thumbnails").join(file)).unwrap();
        assert!(picture.width().max(picture.height()) <= 256, "{file}");
    }
    // Rejected photos are shown by cause, as far as they can be decoded.
    let rejected: BTreeSet<String> =
        sources(&page).iter().map(|source| source.strip_prefix("thumbnails/").unwrap().to_owned()).collect();
    assert!(!rejected.is_empty() && rejected.is_subset(&made), "{rejected:?}");
    assert!(page.contains("Photos without a face") && page.contains(">rejected at detect</span>"), "{page}");
    let all: BTreeSet<String> = crops.union(&rejected).cloned().collect();
    assert_eq!(made, all);

    // A small copy that the report no longer needs goes; a file of somebody else stays.
    let stale = to.join("thumbnails").join(format!("{}.jpg", "0".repeat(64)));
    std::fs::write(&stale, "stale").unwrap();
    std::fs::write(to.join("thumbnails/mine.jpg"), "mine").unwrap();
    write(&["--with-faces"]);
    assert!(!stale.exists() && to.join("thumbnails/mine.jpg").exists());
    write(&[]);
    assert_eq!(names(&to.join("thumbnails")), BTreeSet::from(["mine.jpg".to_owned()]));
}

#[test]
fn the_report_of_a_folder_links_to_the_originals_of_rejected_photos() {
    let page = std::fs::read_to_string(UNDISTURBED.out().join("report.html")).unwrap();
    let sources = sources(&page);
    assert!(!sources.is_empty());
    for source in sources {
        assert!(source.starts_with("originals/") && UNDISTURBED.out().join(source).is_file(), "{source}");
    }
}
