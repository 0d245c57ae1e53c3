//! The published method, by a Python script with dlib and OpenCV.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Deserialize;

use crate::Figures;
use crate::photos::Photos;
use crate::processes::{Cost, cost_until_end};

pub const NAME: &str = "published method";

pub struct Published {
    python: PathBuf,
    script: PathBuf,
}

/// The last line of the script.
#[derive(Debug, Deserialize)]
struct Times {
    /// CPU seconds before the first photo.
    startup: f64,
}

#[derive(Debug, Deserialize)]
struct PhotoAnswer {
    file: String,
    outcome: String,
}

pub struct Answer {
    cost: Cost,
    startup: f64,
    faces: usize,
    written: u64,
}

impl Published {
    /// None: the packages are not there, or dlib is a slow build. The reason is printed.
    pub fn find(python: &Path) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/run/published.py");
        let check = Command::new(python).arg(&script).arg("--check").output();
        let reason = match check {
            Ok(output) if output.status.success() => return Some(Self { python: python.into(), script }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        println!("the published method is not measured: {}", reason.lines().last().unwrap_or_default());
        None
    }

    pub fn answer(&self, photos: &Photos, reference: Option<&Path>) -> Answer {
        let scratch = tempfile::tempdir().expect("a folder");
        let [list, lines] = ["photos.txt", "answers.jsonl"].map(|name| scratch.path().join(name));
        let faces = scratch.path().join("faces");
        std::fs::create_dir(&faces).expect("a new folder");
        let paths: Vec<String> = photos.files().iter().map(|file| file.display().to_string()).collect();
        std::fs::write(&list, paths.join("\n")).expect("room for a list");
        let landmarks = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/landmarks-68.dat");
        let began = Instant::now();
        let mut script = Command::new(&self.python)
            .arg(&self.script)
            .args([&list, &landmarks, &faces])
            .stdout(Stdio::from(std::fs::File::create(&lines).expect("a new file")))
            .spawn()
            .expect("Python was found");
        let cost = cost_until_end(&mut script, began);
        assert!(script.wait().expect("an ended child").success(), "the script of the published method failed");
        let lines = std::fs::read_to_string(&lines).expect("the script wrote it");
        let mut lines: Vec<&str> = lines.lines().collect();
        let times: Times = serde_json::from_str(lines.pop().expect("a last line")).expect("times");
        let answers: Vec<PhotoAnswer> =
            lines.iter().map(|line| serde_json::from_str(line).expect("an answer")).collect();
        if let Some(reference) = reference {
            compare(photos, &answers, reference);
        }
        let faces_made = answers.iter().filter(|answer| answer.outcome == "ok").count();
        Answer { cost, startup: times.startup, faces: faces_made, written: crate::bytes_under(&faces) }
    }
}

/// Prints on how many photos script and reference agree.
fn compare(photos: &Photos, answers: &[PhotoAnswer], reference: &Path) {
    let text = std::fs::read_to_string(reference).expect("the reference");
    let known: BTreeMap<String, String> = text
        .lines()
        .map(|line| serde_json::from_str::<PhotoAnswer>(line).expect("a line of the reference"))
        .map(|answer| (answer.file, answer.outcome))
        .collect();
    let mut agreeing = 0;
    let mut compared = 0;
    for answer in answers {
        let name = photos.name(Path::new(&answer.file)).display().to_string();
        let Some(expected) = known.get(&name) else { continue };
        compared += 1;
        if *expected == answer.outcome {
            agreeing += 1;
        } else {
            println!("{name}: {} instead of {expected}", answer.outcome);
        }
    }
    println!("the published method's script agrees with the reference on {agreeing} of {compared} photos");
}

pub fn figures(answers: &[Answer], photos: usize) -> Option<Figures> {
    let last = answers.last()?;
    let mean = |value: &dyn Fn(&Answer) -> f64| answers.iter().map(value).sum::<f64>() / answers.len() as f64;
    Some(Figures {
        what: NAME.into(),
        ms: 1000.0 * mean(&|answer| answer.cost.cpu - answer.startup) / photos as f64,
        startup: mean(&|answer| answer.startup),
        peak: answers.iter().map(|answer| answer.cost.peak).max().unwrap_or(0),
        written: Some(last.written as f64 / photos as f64),
        rate: photos as f64 / mean(&|answer| answer.cost.wall),
        faces: last.faces,
    })
}
