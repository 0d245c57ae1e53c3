//! Quality and speed of face detection: `cargo bench --bench vision -- [--every N] [--full-every N] [--landmarks NAME]
//! [--json]`.
//!
//! Uses the reference data where it is available, else the photographs from packages. Times are CPU time of one thread.
//! The published method takes seconds per photo; `--full-every 1` runs it on all of them.

use std::collections::BTreeMap;

use ::image::RgbImage;
use facemill::domain::{Align, FacePolicy, ImageFormat, LandmarkScheme, Search};
use facemill::inference::Models;
use facemill::pipeline::measures::{self, CropFacts};
use facemill::vision::align;
use facemill::vision::detector::{Detector, NoFace};
use facemill::vision::geometry::{self, Square};
use facemill::vision::image::{Limits, decode, encode, jpeg_quality};
use facemill::vision::{pose, quality};
use serde_json::{Value, json};

use reference::{Kind, Sample, quantile};
use support::reference;

/// CPU time of this thread in seconds.
fn cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "the clock of the thread can be read");
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Runs a step and records its milliseconds.
fn timed<T>(times: &mut BTreeMap<&'static str, f64>, step: &'static str, work: impl FnOnce() -> T) -> T {
    let start = cpu();
    let result = work();
    *times.entry(step).or_default() += (cpu() - start) * 1e3;
    result
}

/// The result for one photo.
struct Run {
    /// One of the outcomes of the reference.
    outcome: &'static str,
    square: Option<Square>,
    /// The centres of the eyes by the landmarks.
    eyes: Option<[[f64; 2]; 2]>,
    times: BTreeMap<&'static str, f64>,
}

impl Run {
    fn found(&self) -> bool {
        self.square.is_some()
    }

    fn total(&self) -> f64 {
        self.times.values().sum()
    }
}

/// The work of the detect and crop stages, without the object store.
fn run(detector: &Detector, bytes: &[u8], search: Search, scheme: LandmarkScheme, align: Align) -> Run {
    let mut times = BTreeMap::new();
    let picture = timed(&mut times, "decode", || decode(bytes, Limits::default())).expect("a picture");
    let face = match timed(&mut times, "find", || detector.find(&picture, search, scheme, 1, FacePolicy::One)) {
        Ok(face) => face,
        Err(NoFace::Failed(why)) => panic!("{why}"),
        Err(_) => return Run { outcome: "no_face", square: None, eyes: None, times },
    };
    let square = align::square(&face.landmarks, align);
    let eyes = Some(geometry::eyes(&face.landmarks));
    if align::leaves_canvas(&square, face.width, face.height) {
        return Run { outcome: "out_of_frame", square: Some(square), eyes, times };
    }
    let crop = timed(&mut times, "cut", || align::cut(&picture, &square, align::native_size(&square)));
    let check = timed(&mut times, "check", || detector.check_crop(&crop));
    let landmarks = align::landmarks_in_crop(&face.landmarks, &square, crop.width());
    let reference = pose::reference(align, scheme);
    timed(&mut times, "measure", || {
        let measured = quality::measure(&crop, &landmarks);
        let (angle, jpeg_quality) = (square.angle, jpeg_quality(bytes));
        measures::quality(
            &crop,
            &measured,
            CropFacts { landmarks: &landmarks, angle, jpeg_quality, reference: &reference },
        )
    });
    timed(&mut times, "encode", || encode(&crop, ImageFormat::Png)).expect("a file");
    Run { outcome: if check.is_ok() { "ok" } else { "not_one_in_crop" }, square: Some(square), eyes, times }
}

/// Maps the outcomes without a face to one, because guided search has no separate levelling step.
fn normalised(outcome: &str) -> &str {
    if outcome == "not_one_after_levelling" { "no_face" } else { outcome }
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Compares runs with the original scripts.
fn agreement(runs: &[(&Sample, Run)]) -> Value {
    let same = runs.iter().filter(|(s, run)| normalised(&s.reference.outcome) == run.outcome).count();
    let squares = || runs.iter().filter_map(|(s, run)| Some((s.reference.square?, run.square?)));
    let overlaps: Vec<f64> = squares().map(|(a, b)| a.overlap(&b)).collect();
    let angles: Vec<f64> = squares().map(|(a, b)| geometry::wrap(a.angle - b.angle).abs()).collect();
    json!({
        "photos": runs.len(),
        "same_outcome": share(same, runs.len()),
        "angle_difference_median": quantile(&angles, 0.5),
        "angle_difference_p90": quantile(&angles, 0.9),
        "square_iou_median": quantile(&overlaps, 0.5),
    })
}

/// Compares runs with those of other landmarks.
fn between_landmarks(runs: &[(&Sample, Run)], others: &[(&Sample, Run)]) -> Value {
    let squares = || runs.iter().zip(others).filter_map(|((_, run), (_, other))| Some((run.square?, other.square?)));
    let overlaps: Vec<f64> = squares().map(|(a, b)| a.overlap(&b)).collect();
    let angles: Vec<f64> = squares().map(|(a, b)| geometry::wrap(a.angle - b.angle).abs()).collect();
    json!({
        "photos": overlaps.len(),
        "square_iou_median": quantile(&overlaps, 0.5),
        "square_iou_p10": quantile(&overlaps, 0.1),
        "angle_difference_median": quantile(&angles, 0.5),
        "angle_difference_p90": quantile(&angles, 0.9),
    })
}

/// The distances of the eye centres from the pupils, by the distance of the pupils from each other.
fn eyes(runs: &[(&Sample, Run)]) -> Value {
    let distance = |[a, b]: [[f64; 2]; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
    let pairs = runs.iter().filter_map(|(sample, run)| Some((run.eyes?, sample.pupils?)));
    let errors = |(eyes, pupils): ([[f64; 2]; 2], [[f64; 2]; 2])| {
        [0, 1].map(|eye| distance([eyes[eye], pupils[eye]]) / distance(pupils))
    };
    let errors: Vec<f64> = pairs.flat_map(errors).collect();
    json!({ "eyes": errors.len(), "median": quantile(&errors, 0.5), "p99": quantile(&errors, 0.99) })
}

/// Faces found by guided search, by the reference and by both.
fn yield_of(runs: &[(&Sample, Run)]) -> Value {
    let of = |kinds: &[Kind]| {
        let those: Vec<_> = runs.iter().filter(|(s, _)| kinds.contains(&s.kind)).collect();
        let theirs = those.iter().filter(|(s, _)| s.reference.found()).count();
        let both = those.iter().filter(|(s, run)| s.reference.found() && run.found()).count();
        let ours = those.iter().filter(|(_, run)| run.found()).count();
        json!({ "photos": those.len(), "reference": theirs, "of_these": both, "found": ours })
    };
    json!({
        "one face": of(&[Kind::Single]),
        "one face, tilted": of(&[Kind::Tilted]),
        "group": of(&[Kind::Group]),
        "no face": of(&[Kind::NoFace]),
    })
}

/// Milliseconds of each step, of the whole, and of the lower bound (decode and encode).
fn times(runs: &[(&Sample, Run)]) -> Value {
    let complete: Vec<&Run> = runs.iter().map(|(_, run)| run).filter(|run| run.times.contains_key("encode")).collect();
    let median = |of: &dyn Fn(&Run) -> f64| quantile(&complete.iter().map(|run| of(run)).collect::<Vec<_>>(), 0.5);
    let step = |name: &'static str| median(&move |run| run.times[name]);
    let total = median(&Run::total);
    let empty: Vec<f64> = runs.iter().filter(|(s, _)| s.kind == Kind::NoFace).map(|(_, run)| run.total()).collect();
    json!({
        "decode": step("decode"),
        "find": step("find"),
        "cut": step("cut"),
        "check": step("check"),
        "measure": step("measure"),
        "encode": step("encode"),
        "whole photo": total,
        "lower bound (decode and encode)": median(&|run| run.times["decode"] + run.times["encode"]),
        "photo without a face": quantile(&empty, 0.5),
        "photos per second and core": 1e3 / (complete.iter().map(|run| run.total()).sum::<f64>() / complete.len() as f64),
    })
}

/// Errors of the angle for all photos with known pupils, and for the same photos rotated by known angles.
fn angles(detector: &Detector, scheme: LandmarkScheme, samples: &[Sample], runs: &[(&Sample, Run)]) -> Value {
    let error = |square: &Square, roll: f64| geometry::wrap(square.angle - roll).abs();
    let unrotated: Vec<f64> = runs.iter().filter_map(|(s, run)| Some(error(run.square.as_ref()?, s.roll()?))).collect();
    let tilted: Vec<f64> = runs
        .iter()
        .filter(|(s, _)| s.kind == Kind::Tilted)
        .filter_map(|(s, run)| Some(error(run.square.as_ref()?, s.roll()?)))
        .collect();
    let (mut pupils, mut rotations, mut missed) = (Vec::new(), Vec::new(), 0);
    for sample in samples.iter().filter(|s| s.kind != Kind::Tilted) {
        let Some(roll) = sample.roll() else { continue };
        let picture = decode(&sample.bytes(), Limits::default()).expect("a picture");
        let find = |picture: &RgbImage| detector.find(picture, Search::Guided, scheme, 1, FacePolicy::One).ok();
        let Some(original) = find(&picture) else { continue };
        for rotation in [-45.0, -30.0, -15.0, 15.0, 30.0, 45.0] {
            let Some(face) = find(&reference::rotated(&picture, rotation)) else {
                missed += 1;
                continue;
            };
            pupils.push(geometry::wrap(face.angle - roll + rotation).abs());
            rotations.push(geometry::wrap(face.angle - original.angle + rotation).abs());
        }
    }
    let row = |errors: &[f64]| {
        let (median, p99) = (quantile(errors, 0.5), quantile(errors, 0.99));
        json!({ "photos": errors.len(), "median": median, "p99": p99 })
    };
    json!({
        "against pupils": row(&unrotated),
        "against pupils, tilted photos": row(&tilted),
        "against pupils, rotated by up to 45": row(&pupils),
        "against the same face unrotated": row(&rotations),
        "not found after rotation": missed,
    })
}

/// Ratio of the CPU times of full and guided search, per photo.
fn ratio(guided: &[(&Sample, Run)], full: &[(&Sample, Run)]) -> Value {
    let fast: BTreeMap<&str, f64> = guided.iter().map(|(s, run)| (s.name.as_str(), run.total())).collect();
    let ratios: Vec<f64> = full.iter().filter_map(|(s, run)| Some(run.total() / fast.get(s.name.as_str())?)).collect();
    let totals: Vec<f64> = full.iter().map(|(_, run)| run.total()).collect();
    json!({ "photos": ratios.len(), "full, ms": quantile(&totals, 0.5), "full / guided": quantile(&ratios, 0.5) })
}

/// Photographs from packages. They have no reference, but their times are comparable.
fn package_samples() -> Vec<Sample> {
    let folder = reference::package_photos();
    let mut paths: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "jpg" || e == "png"));
    paths.sort();
    paths.into_iter().map(Sample::unknown).collect()
}

fn print(value: &Value, depth: usize) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let label = format!("{:depth$}{name}", "", depth = 2 * depth);
        match value {
            Value::Object(_) => {
                println!("{label}");
                print(value, depth + 1);
            }
            Value::Number(number) if number.is_f64() => {
                println!("{label:40} {:10.3}", number.as_f64().unwrap_or(f64::NAN))
            }
            other => println!("{label:40} {other:>6}"),
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: usize| {
        let value = arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1));
        value.map_or(default, |value| value.parse().expect("a number")).max(1)
    };
    let named = arguments.iter().position(|a| a == "--landmarks").and_then(|i| arguments.get(i + 1));
    let scheme: LandmarkScheme = named.map_or_else(Default::default, |name| name.parse().expect("ibug or permissive"));
    let models = Models::find(std::env::var_os(Models::ENV).map(Into::into));
    let start = cpu();
    let detector = Detector::open(&models, 1, scheme).expect("the models (`make setup` fetches them)");
    let opening = cpu() - start;

    let data = reference::data();
    let samples = data.as_deref().map_or_else(package_samples, reference::samples);
    if samples.is_empty() {
        println!("no photographs: `make setup` fetches some");
        return;
    }
    let over = |every: usize, search: Search, scheme: LandmarkScheme, align: Align| -> Vec<(&Sample, Run)> {
        let photos = samples.iter().step_by(every);
        photos.map(|sample| (sample, run(&detector, &sample.bytes(), search, scheme, align))).collect()
    };
    let guided = over(number("--every", 1), Search::Guided, scheme, Align::Paper);
    let mut report =
        json!({ "photos": samples.len(), "loading the models, s": opening, "guided, ms of CPU": times(&guided) });
    if data.is_some() {
        report["guided finds"] = yield_of(&guided);
        report["guided angles, degrees"] = angles(&detector, scheme, &samples, &guided);
        report["guided eyes, distance from the pupils"] = eyes(&guided);
        let other = LandmarkScheme::ALL.into_iter().find(|other| *other != scheme).expect("two schemes");
        let others = over(number("--every", 1), Search::Guided, other, Align::Paper);
        report[format!("{scheme} against {other}")] = between_landmarks(&guided, &others);
    }
    let full = over(number("--full-every", 6), Search::Full, scheme, Align::Seed);
    if data.is_some() {
        report["full and seed against the reference"] = agreement(&full);
    }
    report["full against guided"] = ratio(&guided, &full);
    if arguments.iter().any(|a| a == "--json") {
        println!("{report:#}");
    } else {
        print(&report, 0);
    }
}
