//! `facemill duplicates`: copies of photographs go through the whole pipeline, and are found, left out and parted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{DynamicImage, Rgb, RgbImage};
use serde_json::Value;

use crate::classifier::facemill;
use crate::training::answer;
use support::reference::package_photos;

/// Two of them show the same person, but are different photographs.
const PHOTOS: [&str; 4] = ["astronaut.png", "biden.jpg", "obama.jpg", "obama3.jpg"];

/// Turned by `degrees` around the middle, on grey.
fn turned(picture: &RgbImage, degrees: f64) -> RgbImage {
    let (sine, cosine) = degrees.to_radians().sin_cos();
    let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
    let side = width.hypot(height);
    RgbImage::from_fn(side as u32, side as u32, |x, y| {
        let (x, y) = (f64::from(x) - side / 2.0, f64::from(y) - side / 2.0);
        let (x, y) = (cosine * x + sine * y + width / 2.0, cosine * y - sine * x + height / 2.0);
        let is_inside = (0.0..width).contains(&x) && (0.0..height).contains(&y);
        if is_inside { *picture.get_pixel(x as u32, y as u32) } else { Rgb([128; 3]) }
    })
}

/// A photograph, and copies of it by name.
fn copies(picture: &RgbImage) -> Vec<(&'static str, RgbImage)> {
    let (width, height) = picture.dimensions();
    let (left, top) = (width * 6 / 100, height * 6 / 100);
    vec![
        ("original", picture.clone()),
        ("rescaled", imageops::resize(picture, width * 6 / 10, height * 6 / 10, FilterType::Lanczos3)),
        ("turned", turned(picture, 20.0)),
        ("cut", imageops::crop_imm(picture, left, top, width - 2 * left, height - 2 * top).to_image()),
        ("mirrored", imageops::flip_horizontal(picture)),
        ("grey", DynamicImage::from(picture.clone()).grayscale().into_rgb8()),
        ("bright", imageops::brighten(picture, 30)),
    ]
}

/// A run of the photographs and their copies, in a folder.
fn run_copies(scratch: &Path) -> String {
    let photos = scratch.join("photos");
    std::fs::create_dir(&photos).unwrap();
    for name in PHOTOS {
        let picture = image::open(package_photos().join(name)).unwrap().into_rgb8();
        let stem = name.split('.').next().unwrap();
        for (copy, picture) in copies(&picture) {
            picture.save(photos.join(format!("{stem}-{copy}.png"))).unwrap();
        }
        let mut file = std::fs::File::create(photos.join(format!("{stem}-jpeg.jpg"))).unwrap();
        JpegEncoder::new_with_quality(&mut file, 30).encode_image(&picture).unwrap();
    }
    let out = scratch.join("out");
    let run = facemill(&["run", photos.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    out.to_str().unwrap().to_owned()
}

/// The names of the photos of each group, the best first.
fn groups(answer: &Value) -> Vec<Vec<String>> {
    let names = |group: &Value| group.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    answer["listed"].as_array().unwrap().iter().map(names).collect()
}

fn photograph(photo: &str) -> &str {
    photo.split('-').next().unwrap()
}

#[test]
fn copies_of_a_photograph_are_one_face_of_a_dataset() {
    let scratch = tempfile::tempdir().unwrap();
    let out = run_copies(scratch.path());
    let out = Path::new(&out);
    let faces = answer(out, &["faces", "--count"]).as_u64().unwrap();
    let found = answer(out, &["duplicates"]);
    let all = groups(&found);
    assert_eq!((all.len(), found["groups"].as_u64(), found["compared"].as_u64()), (4, Some(4), Some(faces)), "{found}");
    for group in &all {
        let photographs: BTreeSet<&str> = group.iter().map(|photo| photograph(photo)).collect();
        assert_eq!(photographs.len(), 1, "different photographs are one group: {group:?}");
        assert!(group.len() >= 7, "copies are missing: {group:?}");
        let worse = ["rescaled", "grey", "jpeg"];
        assert!(!worse.iter().any(|worse| group[0].contains(worse)), "a better one is there: {group:?}");
    }
    assert_eq!(found["duplicates"], all.iter().map(|group| group.len() - 1).sum::<usize>());
    assert_eq!(answer(out, &["duplicates"])["groups_sha256"], found["groups_sha256"], "the same again");

    // An export takes the best of the faces that fulfil its query, also where the best one of all does not.
    let export = |name: &str, flags: &[&str]| {
        let to = scratch.path().join(name);
        let export = ["export", "--size", "64", "--format", "folder", "--to", to.to_str().unwrap()];
        answer(out, &[&export[..], flags].concat())
    };
    let alone = faces - found["duplicates"].as_u64().unwrap();
    let exported = export("once", &["--where", "size>=64"]);
    assert_eq!((&exported["faces"], &exported["duplicates"]), (&alone.into(), &found["duplicates"]));
    let exported = export("all", &["--where", "size>=64", "--duplicates"]);
    assert_eq!((&exported["faces"], &exported["duplicates"]), (&faces.into(), &0.into()));
    let best = format!("size>=64 and id!='{}'", all[0][0]);
    assert_eq!(export("others", &["--where", &best])["faces"], alone);
    assert_eq!(answer(out, &["faces", "--count", "--where", "duplicate"]), found["duplicates"]);

    // Only the faces of a query are compared.
    let of_one = answer(out, &["duplicates", "--where", "id contains 'biden'"]);
    let biden = all.iter().find(|group| photograph(&group[0]) == "biden").unwrap();
    assert_eq!(groups(&of_one), std::slice::from_ref(biden));
    assert_eq!(of_one["compared"], answer(out, &["faces", "--count", "--where", "id contains 'biden'"]));
    assert_eq!(answer(out, &["duplicates"])["groups_sha256"], found["groups_sha256"]);

    // What a person parts stays apart.
    let parted = &all[1][1];
    assert_eq!(answer(out, &["duplicates", "--part", parted, "--by", "ada"])["parted"], 1);
    let sizes = |answer: &Value| -> BTreeMap<String, usize> {
        groups(answer).into_iter().map(|group| (photograph(&group[0]).to_owned(), group.len())).collect()
    };
    let again = answer(out, &["duplicates"]);
    let mut expected = sizes(&found);
    *expected.get_mut(photograph(parted)).unwrap() -= 1;
    assert_eq!(sizes(&again), expected);
    assert!(!groups(&again).concat().contains(parted));
    assert_eq!(export("parted", &["--where", "size>=64"])["faces"], alone + 1);
    let unknown = facemill(&["duplicates", "--part", parted, "--out", out.to_str().unwrap()]);
    assert_eq!(unknown.status.code(), Some(2));
    let error = String::from_utf8_lossy(&unknown.stderr);
    assert!(error.contains("is in no group of duplicates"), "{error}");
}
