//! A small collection with its host, for one test.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use facemill::demo::dump;
use facemill::demo::host::WebHost;
use facemill::demo::scene::{FaceCount, HOSTS, Scene, Truth};

pub struct Collection {
    pub dump: PathBuf,
    collection: dump::Collection,
    truths: Vec<Truth>,
    resolve: Vec<String>,
    _scratch: tempfile::TempDir,
    /// Serves the photos until it is dropped.
    _runtime: tokio::runtime::Runtime,
    _host: WebHost,
}

impl Collection {
    /// A part of the demonstration: few pictures, and none that only wait for a time-out.
    pub fn serve() -> Self {
        Self::of(24)
    }

    /// A collection with at most this many pictures.
    pub fn of(pictures: usize) -> Self {
        // Most of the time is spent on making the pictures.
        static SCENE: LazyLock<Scene> = LazyLock::new(|| {
            let photos = crate::project().join(".cache/photos");
            Scene::make(&photos).expect("`make setup` fetches the photographs that the tests need")
        });
        let mut scene = SCENE.clone();
        let small: BTreeSet<usize> = scene.truths.iter().take(pictures).map(|truth| truth.photo_id).collect();
        let none = scene.truths.iter().filter(|truth| truth.kind == FaceCount::None).map(|truth| truth.photo_id);
        let wanted: BTreeSet<usize> = none.take(4).chain(small).collect();
        let pictures: BTreeSet<usize> = scene.truths.iter().map(|truth| truth.photo_id).collect();
        let slow = ["slow.test", "head.jpg", "endless.jpg", "reset.jpg"];
        scene.collection.photos.retain(|photo| {
            wanted.contains(&photo.id)
                || !(pictures.contains(&photo.id) || slow.iter().any(|slow| photo.photo_url.contains(slow)))
        });
        let kept: BTreeSet<usize> = scene.collection.photos.iter().map(|photo| photo.id).collect();
        scene.collection.faces.retain(|face| kept.contains(&face.photo_id));
        scene.truths.retain(|truth| kept.contains(&truth.photo_id));

        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("demo.sql");
        std::fs::write(&file, dump::postgres(&scene.collection)).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let host = runtime.block_on(WebHost::start("127.0.0.1:0", scene.routes)).unwrap();
        let resolve = HOSTS.iter().map(|name| format!("{name}={}", host.address())).collect();
        Self {
            dump: file,
            collection: scene.collection,
            truths: scene.truths,
            resolve,
            _scratch: scratch,
            _runtime: runtime,
            _host: host,
        }
    }

    /// The arguments of a run in the folder `out` that prints events.
    pub fn run_text<'a>(&'a self, out: &'a Path) -> Vec<&'a str> {
        let run = ["run", self.dump.to_str().unwrap(), "--out", out.to_str().unwrap(), "--json"];
        run.into_iter().chain(self.stage_arguments()).collect()
    }

    /// The arguments that direct the stages to the host of the collection and shorten the retry delays.
    pub fn stage_arguments(&self) -> Vec<&str> {
        let mut arguments = vec!["--waits", "0.05,0.1", "--attempts", "3", "--timeout", "20"];
        self.resolve.iter().for_each(|entry| arguments.extend(["--resolve", entry]));
        arguments
    }

    /// The ids of the photos with exactly one labelled face, ascending.
    pub fn candidates(&self) -> Vec<u64> {
        let mut labelled: BTreeMap<u64, usize> = BTreeMap::new();
        for face in self.collection.faces.iter().filter(|face| face.label_id.is_some()) {
            *labelled.entry(face.photo_id as u64).or_default() += 1;
        }
        labelled.into_iter().filter(|(_, faces)| *faces == 1).map(|(photo, _)| photo).collect()
    }

    /// The id of a candidate with one face in its picture, and a table of it alone.
    pub fn row_of_a_face(&self) -> (String, String) {
        let face = self.truths.iter().find(|truth| truth.kind == FaceCount::One).unwrap().photo_id;
        let photo = self.collection.photos.iter().find(|photo| photo.id == face).unwrap();
        (face.to_string(), self.table_of(&[&photo.photo_url]))
    }

    /// A table of the candidates whose URLs have the given endings.
    pub fn table_of(&self, ends: &[&str]) -> String {
        let listed = Command::new(crate::program()).arg("candidates").arg(&self.dump).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let (header, rows) = listed.split_once('\n').unwrap();
        let url = header.split(',').position(|column| column == "photo_url").unwrap();
        let is_wanted = |row: &&str| ends.iter().any(|end| row.split(',').nth(url).unwrap().ends_with(end));
        let rows: Vec<&str> = rows.lines().filter(is_wanted).collect();
        assert_eq!(rows.len(), ends.len(), "{rows:?}");
        format!("{header}\n{}\n", rows.join("\n"))
    }

    pub fn id_of(&self, end_of_url: &str) -> usize {
        self.collection.photos.iter().find(|photo| photo.photo_url.ends_with(end_of_url)).unwrap().id
    }

    /// Checks that each angle differs from that of the untilted photograph by the tilt, and that photos without a face
    /// have none.
    pub fn check_angles(&self, found: &BTreeMap<u64, f64>) {
        let angle = |truth: &Truth| found.get(&(truth.photo_id as u64)).copied();
        let upright: BTreeMap<&str, f64> = self
            .truths
            .iter()
            .filter(|truth| truth.cut == "original" && truth.kind == FaceCount::One)
            .filter_map(|truth| Some((truth.photograph.as_str(), angle(truth)?)))
            .collect();
        assert!(upright.len() >= 3, "too few faces in the untilted photographs: {upright:?}");
        let (mut compared, mut portraits) = (0, 0);
        for truth in &self.truths {
            if truth.kind == FaceCount::None {
                assert_eq!(angle(truth), None, "a face in {}", truth.photograph);
                continue;
            }
            portraits += 1;
            if let (Some(angle), Some(upright)) = (angle(truth), upright.get(truth.photograph.as_str())) {
                // The search covers 48 degrees.
                if (upright + truth.tilt).abs() > 48.0 {
                    continue;
                }
                let error = angle - upright - truth.tilt;
                assert!(error.abs() < 3.0, "{truth:?}: {angle:.1} instead of {:.1}", upright + truth.tilt);
                compared += 1;
            }
        }
        assert!(4 * compared >= 3 * portraits, "only {compared} of {portraits} faces were found");
    }
}
