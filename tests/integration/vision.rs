//! Detection and crops of faces in real photographs.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use facemill::archive::landmark_references::LandmarkReferences;
use facemill::domain::{
    Align, Candidate, CauseCode, ContentHash, FacePolicy, Facts, ImageFormat, LandmarkScheme, Original, Photo, RunName,
    Search,
};
use facemill::inference::Models;
use facemill::objects::{ObjectKey, Objects};
use facemill::pipeline::crop::{Crop, CropSettings};
use facemill::pipeline::detect::{Detect, DetectSettings};
use facemill::pipeline::handover::Handover;
use facemill::pipeline::originals::Originals;
use facemill::pipeline::stage::{Outcome, Retry, Stage};
use facemill::vision::detector::Detector;
use facemill::vision::dlib::Hog;
use facemill::vision::geometry::{self, Square};
use facemill::vision::image::{Limits, decode, encode};
use facemill::vision::{align, pose, resample};
use image::RgbImage;

use reference::{Kind, Sample, quantile};
use support::objects::MemoryObjects;
use support::reference;

fn detector() -> Detector {
    let models = Models::find(std::env::var_os(Models::ENV).map(Into::into));
    Detector::open(&models, cores(), LandmarkScheme::Ibug).expect("the models (`make setup` fetches them)")
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Maps the items on all cores and keeps their order.
fn parallel_map<T: Sync, U: Send>(items: &[T], work: impl Fn(&T) -> U + Sync) -> Vec<U> {
    thread::scope(|scope| {
        let share = items.len().div_ceil(cores()).max(1);
        let parts: Vec<_> =
            items.chunks(share).map(|part| scope.spawn(|| part.iter().map(&work).collect::<Vec<_>>())).collect();
        parts.into_iter().flat_map(|part| part.join().expect("no thread panicked")).collect()
    })
}

fn picture(sample: &Sample) -> RgbImage {
    decode(&sample.bytes(), Limits::default()).unwrap_or_else(|error| panic!("{}: {error}", sample.name))
}

#[test]
#[ignore = "needs the reference data: FACEMILL_TEST_DATA, or shared/data beside the project"]
fn guided_search_finds_the_faces_of_the_original_scripts() {
    let data = reference::required_data();
    let detector = detector();
    let samples = reference::samples(&data);
    let squares: Vec<Option<Square>> = parallel_map(&samples, |sample| {
        let face = detector.find(&picture(sample), Search::Guided, LandmarkScheme::Ibug, 1, FacePolicy::One).ok()?;
        Some(align::square(&face.landmarks, Align::Paper))
    });
    let with = |kind: Kind| samples.iter().zip(&squares).filter(move |(sample, _)| sample.kind == kind);

    for kind in [Kind::Single, Kind::Tilted] {
        let theirs = with(kind).filter(|(sample, _)| sample.reference.found()).count();
        let both = with(kind).filter(|(sample, square)| sample.reference.found() && square.is_some()).count();
        let ours = with(kind).filter(|(_, square)| square.is_some()).count();
        println!("{kind:?}: {both} of {theirs}, {ours} in total");
        assert!(both as f64 >= 0.99 * theirs as f64 && ours >= theirs, "{kind:?}: {both} of {theirs}, {ours} in total");
    }
    let false_positives: Vec<_> =
        with(Kind::NoFace).filter(|(_, square)| square.is_some()).map(|(s, _)| &s.name).collect();
    assert!(false_positives.is_empty(), "{false_positives:?} show no face");

    let errors: Vec<f64> = samples
        .iter()
        .zip(&squares)
        .filter_map(|(sample, square)| Some(geometry::wrap(square.as_ref()?.angle - sample.roll()?).abs()))
        .collect();
    assert!(errors.len() > 100);
    let (median, worst) = (quantile(&errors, 0.5), quantile(&errors, 0.99));
    println!("angle errors: median {median:.3}, p99 {worst:.3}");
    assert!(median <= 0.3 && worst <= 1.5, "angle errors: median {median}, p99 {worst}");
}

/// The published method takes seconds per photo, so the test uses every 17th photograph. `make bench` compares all of
/// them.
#[test]
#[ignore = "needs the reference data: FACEMILL_TEST_DATA, or shared/data beside the project"]
fn full_search_agrees_with_the_original_scripts() {
    let data = reference::required_data();
    let detector = detector();
    let samples: Vec<Sample> = reference::samples(&data).into_iter().step_by(17).collect();
    let results: Vec<(&str, Option<Square>)> = parallel_map(&samples, |sample| {
        let picture = picture(sample);
        let Ok(face) = detector.find(&picture, Search::Full, LandmarkScheme::Ibug, 1, FacePolicy::One) else {
            return ("no_face", None);
        };
        let square = align::square(&face.landmarks, Align::Seed);
        if align::leaves_canvas(&square, face.width, face.height) {
            return ("out_of_frame", Some(square));
        }
        let crop = align::cut(&picture, &square, align::native_size(&square));
        (if detector.check_crop(&crop).is_ok() { "ok" } else { "not_one_in_crop" }, Some(square))
    });
    let matches = |outcome: &'static str, other: &str| {
        outcome == other || (outcome == "no_face" && other == "not_one_after_levelling")
    };
    let pairs = || samples.iter().zip(&results);
    let differ: Vec<_> = pairs().filter(|(s, a)| !matches(a.0, &s.reference.outcome)).map(|(s, _)| &s.name).collect();
    let most = samples.len() * 3 / 100;
    assert!(differ.len() <= most, "more than {most} outcomes differ from the reference: {differ:?}");
    let squares = || pairs().filter_map(|(sample, (_, square))| Some((sample.reference.square?, (*square)?)));
    let overlaps: Vec<f64> = squares().map(|(a, b)| a.overlap(&b)).collect();
    let angles: Vec<f64> = squares().map(|(a, b)| geometry::wrap(a.angle - b.angle).abs()).collect();
    assert!(quantile(&overlaps, 0.5) >= 0.98, "{overlaps:?}");
    assert!(quantile(&angles, 0.5) <= 0.5 && quantile(&angles, 0.9) <= 2.0, "{angles:?}");
}

#[test]
fn dlibs_detector_is_read_once_however_many_threads_search() {
    let detector = detector();
    let picture = RgbImage::from_pixel(200, 200, image::Rgb([90; 3]));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| detector.check_crop(&picture).unwrap_err());
        }
    });
    let found = detector.find(&RgbImage::new(90, 90), Search::Full, LandmarkScheme::Ibug, 1, FacePolicy::One);
    assert_eq!(found.unwrap_err().code(), Some(CauseCode::NoFace));
    assert_eq!(Hog::times_loaded(), 1);
}

/// Portraits from packages, which are available without the reference data.
fn portraits() -> Vec<RgbImage> {
    let folder = reference::package_photos();
    let names = ["obama.jpg", "obama2.jpg", "astronaut.png"];
    names
        .iter()
        .map(|name| std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")))
        .map(|bytes| decode(&bytes, Limits::default()).expect("a picture"))
        .collect()
}

#[test]
fn rotating_a_portrait_rotates_the_angle() {
    let (detector, portraits) = (detector(), portraits());
    let find = |picture: &RgbImage, search| {
        detector.find(picture, search, LandmarkScheme::Ibug, 1, FacePolicy::One).expect("one face")
    };
    for portrait in &portraits {
        let original = find(portrait, Search::Guided);
        for rotation in [-45.0, -20.0, 20.0, 45.0] {
            let rotated = find(&reference::rotated(portrait, rotation), Search::Guided);
            let error = geometry::wrap(rotated.angle - original.angle + rotation);
            assert!(error.abs() < 1.5, "rotated by {rotation}: error of {error}");
        }
    }
    // The published method finds a second face on the astronaut.
    if let Some(portrait) = portraits.first() {
        let [full, guided] = [Search::Full, Search::Guided].map(|search| find(portrait, search));
        assert!(geometry::wrap(full.angle - guided.angle).abs() < 2.5, "{} {}", full.angle, guided.angle);
        let both = [&full, &guided].map(|face| align::square(&face.landmarks, Align::Paper));
        assert!(both[0].overlap(&both[1]) > 0.9, "{both:?}");
    }
}

#[test]
fn images_without_a_face_have_no_face() {
    let detector = detector();
    let mut pictures =
        vec![RgbImage::new(1, 1), RgbImage::new(3000, 2), RgbImage::from_pixel(640, 480, image::Rgb([90; 3]))];
    let folder = reference::package_photos();
    let names = ["coffee.png", "chelsea.png", "brick.png", "rocket.jpg", "hubble_deep_field.jpg"];
    pictures.extend(names.iter().map(|name| {
        let bytes = std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        decode(&bytes, Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
    }));
    for picture in &pictures {
        let found = detector.find(picture, Search::Guided, LandmarkScheme::Ibug, 1, FacePolicy::One);
        assert_eq!(found.unwrap_err().code(), Some(CauseCode::NoFace), "{:?}", picture.dimensions());
    }
    let long = detector.find(&RgbImage::new(1_000_000, 1), Search::Full, LandmarkScheme::Ibug, 1, FacePolicy::One);
    assert_eq!(long.unwrap_err().code(), Some(CauseCode::TooLarge), "its canvas would take terabytes");
    let found = detector.find(&pictures[2], Search::Full, LandmarkScheme::Ibug, 1, FacePolicy::One);
    assert_eq!(found.unwrap_err().code(), Some(CauseCode::NoFace));
}

/// A photo in the state after the fetch stage.
async fn fetched(objects: &MemoryObjects, bytes: Vec<u8>) -> Photo {
    let candidate = Candidate {
        photo_id: 1.into(),
        face_id: 2.into(),
        label_id: 3.into(),
        label_name: None,
        photo_url: "http://photos.test/1.jpg".into(),
        source_url: None,
        posted_at: None,
        source: None,
        columns: Default::default(),
    };
    let format = ImageFormat::sniff(&bytes).unwrap_or(ImageFormat::Jpeg);
    let original = Original { sha256: ContentHash::of(&bytes), bytes: bytes.len() as u64, format };
    let key = ObjectKey::original(original.sha256, format);
    objects.put(&key, bytes.into(), format.media_type()).await.unwrap();
    let mut photo = Photo::new(RunName::default(), candidate);
    photo.facts = Facts { original: Some(original), ..Facts::default() };
    photo
}

fn advanced(outcome: Outcome) -> Photo {
    match outcome {
        Outcome::Advance(photo) => *photo,
        other => panic!("{other:?}"),
    }
}

fn rejected(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Reject(cause) => cause.code.to_string(),
        other => panic!("{other:?}"),
    }
}

fn any_portrait() -> RgbImage {
    portraits().swap_remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_becomes_a_crop_with_reproducible_bytes() {
    let portrait = any_portrait();
    let objects = Arc::new(MemoryObjects::default());
    let detector = detector();
    let photo = fetched(&objects, encode(&reference::rotated(&portrait, 20.0), ImageFormat::Jpeg).unwrap()).await;
    let originals = Originals::new(objects.clone()).with_images(Arc::new(Handover::new(100 << 20)));
    let detect = Detect::new(originals.clone(), detector.clone(), DetectSettings::default());
    let crop = Crop::new(originals, detector.clone(), CropSettings::default());
    let found = advanced(detect.run(&photo).await);
    let first = advanced(crop.run(&found).await);
    let made = first.facts.crop.as_ref().unwrap();
    assert_eq!((made.format, made.align), (ImageFormat::Png, Align::Paper));

    let key = ObjectKey::face(made.sha256, made.format);
    let bytes = objects.get(&key).await.expect("the crop is stored");
    assert_eq!(ContentHash::of(&bytes), made.sha256);
    let pixels = decode(&bytes, Limits::default()).unwrap();
    assert_eq!(pixels.dimensions(), (made.size, made.size));
    assert_eq!(f64::from(made.size), made.side.round());
    let [e0, e1] = geometry::eyes(&made.landmarks);
    assert!((e0[1] - e1[1]).abs() < 0.5, "the eyes are level");
    assert!(made.mirrored >= 0.0 && made.exposure > 0.0 && made.blur > 0.0);
    let quality = made.quality.as_ref().expect("the crop is measured");
    assert_eq!(quality.pixels, ContentHash::of(&pixels), "the pixels that the file has");
    assert_eq!(quality.jpeg_quality, Some(100), "of the original, not of the crop");
    assert!(quality.yaw.abs() < 0.8 && (0.2..1.0).contains(&quality.pitch), "{quality:?}");
    assert!(quality.contrast > 0.01 && quality.face_blur > 0.0 && quality.outlier > 0.0, "{quality:?}");
    let reference = LandmarkReferences::new(objects.clone()).read(&photo.run).await.unwrap();
    assert_eq!(
        reference,
        Some(pose::reference(Align::Paper, LandmarkScheme::Ibug)),
        "the first crop of the run fixes it"
    );

    // On other threads and without the cache, the bytes are the same.
    let uncached = Arc::new(Crop::new(Originals::new(objects.clone()), detector.clone(), CropSettings::default()));
    let repeated: Vec<_> = (0..4)
        .map(|_| {
            let (detect, uncached, photo) = (
                Detect::new(Originals::new(objects.clone()), detector.clone(), DetectSettings::default()),
                uncached.clone(),
                photo.clone(),
            );
            tokio::spawn(async move { advanced(uncached.run(&advanced(detect.run(&photo).await)).await) })
        })
        .collect();
    for task in repeated {
        assert_eq!(task.await.unwrap(), first);
    }

    // The numbers of a JPEG crop are those of its decoded file.
    let settings = CropSettings { image_format: ImageFormat::Jpeg, ..CropSettings::default() };
    let as_jpeg = Crop::new(Originals::new(objects.clone()), detector.clone(), settings);
    let made = advanced(as_jpeg.run(&found).await).facts.crop.unwrap();
    let bytes = objects.get(&ObjectKey::face(made.sha256, made.format)).await.unwrap();
    let pixels = decode(&bytes, Limits::default()).unwrap();
    assert_eq!(made.quality.unwrap().pixels, ContentHash::of(&pixels));

    let small = DetectSettings { min_face: 5000, ..DetectSettings::default() };
    let outcome = Detect::new(Originals::new(objects.clone()), detector.clone(), small).run(&photo).await;
    assert_eq!(rejected(&outcome), "face-too-small");

    // The face is in the corner of the photo, and its square leaves the canvas.
    let mut in_corner = found.clone();
    in_corner.facts.face.as_mut().unwrap().landmarks.iter_mut().for_each(|p| *p = [p[0] - 4000.0, p[1]]);
    assert_eq!(rejected(&uncached.run(&in_corner).await), "out-of-frame");
    // The landmarks are at a wrong position, so the crop shows no face.
    let mut misplaced = found.clone();
    misplaced.facts.face.as_mut().unwrap().landmarks.iter_mut().for_each(|p| *p = [0.2 * p[0], 0.2 * p[1]]);
    assert_eq!(rejected(&uncached.run(&misplaced).await), "face-lost-in-crop");
}

#[tokio::test]
async fn bad_photos_are_rejected_and_a_missing_object_is_retried() {
    let objects = Arc::new(MemoryObjects::default());
    let detector = detector();
    let detect = Detect::new(Originals::new(objects.clone()), detector.clone(), DetectSettings::default());
    let grey = encode(&RgbImage::from_pixel(640, 480, image::Rgb([128; 3])), ImageFormat::Png).unwrap();
    for (bytes, code) in [
        (b"<!doctype html>".to_vec(), "not-an-image"),
        (b"\xff\xd8\xff\xe0no data".to_vec(), "undecodable"),
        (grey.clone(), "no-face"),
    ] {
        assert_eq!(rejected(&detect.run(&fetched(&objects, bytes).await).await), code);
    }
    let tight = DetectSettings { limits: Limits { pixels: 1000 }, ..DetectSettings::default() };
    let outcome = Detect::new(Originals::new(objects.clone()), detector.clone(), tight)
        .run(&fetched(&objects, grey.clone()).await)
        .await;
    assert_eq!(rejected(&outcome), "too-large");

    let mut unknown = fetched(&objects, grey).await;
    unknown.facts.original.as_mut().unwrap().sha256 = ContentHash::of(b"never stored");
    assert!(matches!(detect.run(&unknown).await, Outcome::Retry(Retry { costs_attempt: true, .. })));
    let unavailable = Arc::new(MemoryObjects::default());
    unavailable.set_unavailable(true);
    let waiting =
        Detect::new(Originals::new(unavailable), detector.clone(), DetectSettings::default()).run(&unknown).await;
    assert!(matches!(waiting, Outcome::Retry(Retry { costs_attempt: false, .. })), "{waiting:?}");

    unknown.facts.original = None;
    assert!(matches!(detect.run(&unknown).await, Outcome::Poison(_)));
    let crop = Crop::new(Originals::new(objects), detector, CropSettings::default());
    assert!(matches!(crop.run(&unknown).await, Outcome::Poison(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_that_crop_rejects_leaves_no_pixels_behind() {
    let objects = Arc::new(MemoryObjects::default());
    let images = Arc::new(Handover::new(100 << 20));
    let originals = Originals::new(objects.clone()).with_images(images.clone());
    let detect = Detect::new(originals.clone(), detector(), DetectSettings::default());
    let crop = Crop::new(originals, detector(), CropSettings::default());
    let photo = fetched(&objects, encode(&any_portrait(), ImageFormat::Jpeg).unwrap()).await;
    let original = photo.facts.original.as_ref().unwrap().sha256;
    let mut found = advanced(detect.run(&photo).await);
    assert!(images.take(original).is_some(), "detect leaves the pixels");

    detect.run(&photo).await;
    for point in &mut found.facts.face.as_mut().unwrap().landmarks {
        point[0] += 10_000.0;
    }
    assert_eq!(rejected(&crop.run(&found).await), "out-of-frame");
    assert!(images.take(original).is_none(), "what nobody takes would keep others out");
}

#[test]
fn several_faces_are_rejected_unless_the_policy_is_largest() {
    let portrait = any_portrait();
    let detector = detector();
    let (width, height) = portrait.dimensions();
    let smaller = resample::resize(&portrait, width * 3 / 4, height * 3 / 4);
    let mut pair = RgbImage::new(width + smaller.width(), height);
    image::imageops::replace(&mut pair, &smaller, 0, 0);
    image::imageops::replace(&mut pair, &portrait, i64::from(smaller.width()), 0);
    let several = detector.find(&pair, Search::Guided, LandmarkScheme::Ibug, 1, FacePolicy::One).unwrap_err();
    assert_eq!(several.code(), Some(CauseCode::SeveralFaces));
    // The published method may find both faces at no angle. It must return neither of them.
    assert!(detector.find(&pair, Search::Full, LandmarkScheme::Ibug, 1, FacePolicy::One).is_err());
    let largest = detector.find(&pair, Search::Guided, LandmarkScheme::Ibug, 1, FacePolicy::Largest).unwrap();
    assert!(largest.faces >= 2);
    assert!(largest.landmarks[30][0] > smaller.width() as f32, "the one on the right");
}
