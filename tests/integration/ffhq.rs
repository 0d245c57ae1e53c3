//! `--align ffhq` and `--fill ffhq` against what `tests/ffhq/golden.py` makes with numpy and Pillow.

use std::process::Command;

use facemill::domain::{Align, Fill};
use facemill::vision::align;
use facemill::vision::ffhq_fill::{self, Filled};
use facemill::vision::geometry::Square;
use image::{Rgb, RgbImage};
use serde::Deserialize;
use serde_json::Value;

const VECTORS: &str = include_str!("../data/ffhq.json");

#[derive(Deserialize)]
struct Case {
    name: String,
    photo: [u32; 2],
    eyes: [[f32; 2]; 2],
    mouth: [[f32; 2]; 2],
    /// In pixels of the photo: upper left, lower left, lower right, upper right.
    corners: [[f64; 2]; 4],
    filled: Option<Expected>,
    crop: Sampled,
}

#[derive(Deserialize)]
struct Expected {
    size: [u32; 2],
    corners: [[f64; 2]; 4],
    samples: Vec<Pixel>,
}

#[derive(Deserialize)]
struct Sampled {
    size: u32,
    samples: Vec<Pixel>,
}

/// x, y, red, green, blue.
type Pixel = [u32; 5];

/// The same photo as in the script.
fn photo([width, height]: [u32; 2]) -> RgbImage {
    let wave = |at: u32, period: u32| (at % (2 * period)).abs_diff(period) * 255 / period;
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([0, 1, 2].map(|channel| {
            ((wave(x + 2 * y + 17 * channel, 61) + wave(3 * x + 1000 - y + 31 * channel, 97)) / 2) as u8
        }))
    })
}

fn square(case: &Case) -> Square {
    let mut landmarks = vec![[0f32; 2]; 68];
    landmarks[36..42].fill(case.eyes[0]);
    landmarks[42..48].fill(case.eyes[1]);
    (landmarks[48], landmarks[54]) = (case.mouth[0], case.mouth[1]);
    align::square(&landmarks, Align::Ffhq)
}

fn assert_corners(name: &str, square: &Square, expected: &[[f64; 2]; 4]) {
    for (corner, expected) in [[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]].into_iter().zip(expected) {
        let [x, y] = square.to_picture(corner, 1);
        assert!((x - expected[0]).hypot(y - expected[1]) < 1e-3, "{name}: [{x}, {y}], not {expected:?}");
    }
}

/// The differences of all channels from the expected pixels, ascending.
fn differences(picture: &RgbImage, samples: &[Pixel]) -> Vec<u8> {
    let mut differences: Vec<u8> = samples
        .iter()
        .flat_map(|[x, y, colour @ ..]| {
            let found = picture.get_pixel(*x, *y).0;
            [0, 1, 2].map(|channel| found[channel].abs_diff(colour[channel] as u8))
        })
        .collect();
    differences.sort_unstable();
    differences
}

/// All numbers of a value, in order; the shape as well.
fn numbers(value: &Value, found: &mut Vec<f64>) {
    match value {
        Value::Number(number) => found.push(number.as_f64().unwrap()),
        Value::Array(values) => {
            found.push(values.len() as f64);
            values.iter().for_each(|value| numbers(value, found));
        }
        Value::Object(values) => values.values().for_each(|value| numbers(value, found)),
        _ => {}
    }
}

#[test]
fn the_vectors_are_those_of_the_script() {
    let script = Command::new("python3")
        .arg("-B")
        .arg(support::project().join("tests/ffhq/golden.py"))
        .env("PYTHONPATH", support::project().join(".cache/python-datasets"))
        .output()
        .unwrap();
    assert!(script.status.success(), "{}", String::from_utf8_lossy(&script.stderr));
    let [mut made, mut kept] = [Vec::new(), Vec::new()];
    numbers(&serde_json::from_slice(&script.stdout).unwrap(), &mut made);
    numbers(&serde_json::from_str(VECTORS).unwrap(), &mut kept);
    assert_eq!(made.len(), kept.len());
    // Another processor may round the level of a pixel otherwise.
    let farthest = made.iter().zip(&kept).map(|(made, kept)| (made - kept).abs()).fold(0.0, f64::max);
    assert!(farthest <= 1.0, "tests/data/ffhq.json is not what tests/ffhq/golden.py prints: {farthest}");
}

#[test]
fn squares_and_fill_match_an_independent_implementation() {
    let cases: Vec<Case> = serde_json::from_str(VECTORS).unwrap();
    assert_eq!(cases.len(), 6);
    for case in &cases {
        let (name, photo, square) = (&case.name, photo(case.photo), square(case));
        assert_corners(name, &square, &case.corners);
        match (ffhq_fill::fill(&photo, &square), &case.filled) {
            (None, None) => {}
            (Some(Filled { picture, square }), Some(expected)) => {
                assert_eq!([picture.width(), picture.height()], expected.size, "{name}");
                assert_corners(name, &square, &expected.corners);
                let differences = differences(&picture, &expected.samples);
                assert!(*differences.last().unwrap() <= 1, "{name}: {differences:?}");
            }
            (found, expected) => panic!("{name}: filled {}, expected {}", found.is_some(), expected.is_some()),
        }
        // The script samples at four times the size, bilinear, and reduces: a softer filter than ours.
        let crop = align::cut_filled(&photo, &square, case.crop.size, Fill::Ffhq);
        let differences = differences(&crop, &case.crop.samples);
        let mean = differences.iter().map(|value| f64::from(*value)).sum::<f64>() / differences.len() as f64;
        assert!(mean < 1.5 && differences[differences.len() * 99 / 100] <= 8, "{name}: {mean}, {differences:?}");
        let mirrored = align::cut_filled(&photo, &square, case.crop.size, Fill::Mirror);
        assert_eq!(mirrored == crop, case.filled.is_none(), "{name}");
    }
}
