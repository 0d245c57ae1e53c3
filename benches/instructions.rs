//! Instructions of one photo's way through the stages, counted by valgrind. Other work on the machine does not change
//! them, so that a slower program is noticed where a time would not show it.
//!
//! `cargo bench --bench instructions` compares the counts with those in `benches/instructions.tsv`, and ends with 1 if a
//! part, or the whole way, needs more than 3 % more. `-- --write` replaces the file.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use facemill::classifier::model::{self, Input, ModelFile};
use facemill::domain::{Align, FacePolicy, ImageFormat, LandmarkScheme, Search};
use facemill::inference::{Models, Runtime};
use facemill::pipeline::measures::{self, CropFacts};
use facemill::vision::detector::Detector;
use facemill::vision::image::{Limits, decode, encode, jpeg_quality};
use facemill::vision::{align, fingerprint, pose, quality};
use support::reference::package_photos;

/// The parts, in the order of the photo's way.
const PARTS: [&str; 8] = ["decode", "find", "cut", "check", "measure", "encode", "shrink", "classify"];
/// A photo with one face that is not tilted.
const PHOTO: &str = "obama.jpg";
/// How much more a part may need.
const ROOM: f64 = 0.03;
/// By how much two counts of one part may differ: a process starts with 3,000 million instructions, give or take one.
const NOISE: u64 = 5_000_000;
/// Makes this program go the photo's way. The value names the part that is done twice, or none.
const WAY: &str = "FACEMILL_BENCH_WAY";

/// Does the work of one part, and beforehand once more if it is the one that is done twice.
fn part<T>(name: &str, twice: &str, mut work: impl FnMut() -> T) -> T {
    if name == twice {
        black_box(work());
    }
    work()
}

/// One photo's way, without the object store.
fn way(twice: &str) {
    let models = Models::find(std::env::var_os(Models::ENV).map(Into::into));
    let detector = Detector::open(&models, 1, LandmarkScheme::Ibug).expect("the models (`make setup` fetches them)");
    let runtime = Runtime::load(&models.onnxruntime()).expect("onnxruntime");
    let mut classifier = ModelFile::read(&models.classifier()).expect("a classifier").open(&runtime).expect("a model");
    let bytes = std::fs::read(package_photos().join(PHOTO)).expect("the photo");

    let picture = part("decode", twice, || decode(&bytes, Limits::default()).expect("a picture"));
    let face = part("find", twice, || {
        detector.find(&picture, Search::Guided, LandmarkScheme::Ibug, 1, FacePolicy::One).expect("a face")
    });
    let square = align::square(&face.landmarks, Align::Paper);
    let crop = part("cut", twice, || align::cut(&picture, &square, align::native_size(&square)));
    part("check", twice, || detector.check_crop(&crop)).expect("the crop shows the face");
    let landmarks = align::landmarks_in_crop(&face.landmarks, &square, crop.width());
    let reference = pose::reference(Align::Paper, LandmarkScheme::Ibug);
    part("measure", twice, || {
        let measured = quality::measure(&crop, &landmarks);
        let (angle, jpeg_quality) = (square.angle, jpeg_quality(&bytes));
        let facts = CropFacts { landmarks: &landmarks, angle, jpeg_quality, reference: &reference };
        (measures::quality(&crop, &measured, facts), fingerprint::of(&crop))
    });
    part("encode", twice, || encode(&crop, ImageFormat::Png)).expect("a file");
    let mirrored = quality::mirrored(&square, face.width, face.height);
    let mirrors = model::mirrors(mirrored.share, mirrored.head, &mirrored.grid).expect("mirrors");
    let input = part("shrink", twice, || Input::new(&crop, mirrors));
    part("classify", twice, || classifier.predict(std::slice::from_ref(&input)).expect("a prediction"));
}

/// The instructions of a process that goes the way.
fn count(twice: &str) -> u64 {
    let program = std::env::current_exe().expect("the path of this program");
    let valgrind = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(program)
        .env(WAY, twice)
        .output()
        .expect("valgrind (`deploy/setup.sh --benches` installs it)");
    let log = String::from_utf8_lossy(&valgrind.stderr);
    assert!(valgrind.status.success(), "{log}");
    let total = log.lines().find_map(|line| line.split_once("I   refs:").or_else(|| line.split_once("I refs:")));
    let total = total.unwrap_or_else(|| panic!("valgrind counts instructions: {log}")).1;
    total.replace(',', "").trim().parse().expect("a number")
}

fn needs_more(instructions: u64, before: u64) -> bool {
    instructions > before + (ROOM * before as f64) as u64 + NOISE
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.tsv")
}

/// The counts in the file.
fn kept() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(file()).unwrap_or_default();
    let rows = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('\t'));
    rows.map(|(part, count)| (part.to_owned(), count.parse().expect("a number"))).collect()
}

fn main() -> ExitCode {
    if let Ok(twice) = std::env::var(WAY) {
        way(&twice);
        return ExitCode::SUCCESS;
    }
    let kept = kept();
    let once = count("");
    let mut text = format!("# Instructions of one photo's way ({PHOTO}), see benches/instructions.rs.\n");
    let mut more = Vec::new();
    let (mut whole, mut whole_before) = (0, 0);
    println!("{:<10} {:>16} {:>16} {:>9}", "part", "instructions", "in the file", "change");
    for part in PARTS {
        let instructions = count(part).saturating_sub(once);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{part}\t{instructions}");
        let before = kept.get(part).copied();
        let change = before.map(|before| instructions as f64 / before as f64 - 1.0);
        let shown = change.map_or_else(|| "new".to_owned(), |change| format!("{:+.1} %", 100.0 * change));
        println!("{part:<10} {instructions:>16} {:>16} {shown:>9}", before.unwrap_or_default());
        if before.is_some_and(|before| needs_more(instructions, before)) {
            more.push(part);
        }
        whole += instructions;
        whole_before += before.unwrap_or(instructions);
    }
    println!("{:<10} {whole:>16} {whole_before:>16}", "whole way");
    if needs_more(whole, whole_before) {
        more.push("the whole way");
    }
    if std::env::args().any(|argument| argument == "--write") {
        std::fs::write(file(), text).expect("the file of the counts");
        return ExitCode::SUCCESS;
    }
    if more.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "more than 3 % more instructions: {}; if that is meant, `cargo bench --bench instructions -- --write`",
        more.join(", ")
    );
    ExitCode::from(1)
}
