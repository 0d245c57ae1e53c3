//! Photos that are large, damaged, or show more than one good face.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use facemill::domain::{
    Candidate, CauseCode, ContentHash, FacePolicy, Facts, ImageFormat, LandmarkScheme, Original, Photo, RunName, Search,
};
use facemill::inference::Models;
use facemill::memory::MemoryBudget;
use facemill::objects::{ObjectKey, Objects};
use facemill::pipeline::detect::{Detect, DetectSettings};
use facemill::pipeline::originals::Originals;
use facemill::pipeline::stage::{Outcome, Stage};
use facemill::vision::detector::{Detector, NoFace};
use facemill::vision::image::{Limits, decode, encode};
use facemill::vision::resample;
use image::{Rgb, RgbImage, imageops};

use support::objects::MemoryObjects;
use support::reference;

fn detector() -> Detector {
    let models = Models::find(std::env::var_os(Models::ENV).map(Into::into));
    Detector::open(&models, 2, LandmarkScheme::Ibug).expect("the models (`make setup` fetches them)")
}

/// A portrait, and the frame of its face: left, top, right, bottom.
struct Portrait {
    pixels: RgbImage,
    face: [f64; 4],
}

impl Portrait {
    fn of(detector: &Detector) -> Self {
        let bytes = std::fs::read(reference::package_photos().join("obama.jpg")).expect("`make setup` fetches it");
        let pixels = decode(&bytes, Limits::default()).unwrap();
        let face = detector.find(&pixels, Search::Guided, LandmarkScheme::Ibug, 80, FacePolicy::One).expect("one face");
        let axis = |i: usize| face.landmarks.iter().map(move |point| f64::from(point[i]));
        let (least, most) = (|i| axis(i).fold(f64::MAX, f64::min), |i| axis(i).fold(f64::MIN, f64::max));
        Self { face: [least(0), least(1), most(0), most(1)], pixels }
    }

    /// The portrait with a face of this width.
    fn scaled(&self, width: f64) -> (RgbImage, [f64; 4]) {
        let factor = width / (self.face[2] - self.face[0]);
        let side = |length: u32| (f64::from(length) * factor).round() as u32;
        let pixels = resample::resize(&self.pixels, side(self.pixels.width()), side(self.pixels.height()));
        (pixels, self.face.map(|edge| edge * factor))
    }
}

/// A wall with a little texture.
fn wall(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let value = (100 + 60 * y / height + (x ^ y) % 7) as u8;
        Rgb([value, value, (value - 10) + (x / 97 % 5) as u8])
    })
}

#[test]
fn small_faces_are_found_in_large_photos() {
    let detector = detector();
    let portrait = Portrait::of(&detector);
    for (width, height) in [(4000, 3000), (4000, 6000)] {
        let mut photo = wall(width, height);
        for (size, [x, y]) in [(95.0, [0.1, 0.15]), (120.0, [0.8, 0.45]), (170.0, [0.45, 0.85])] {
            let (small, frame) = portrait.scaled(size);
            let corner = [(f64::from(width) * x) as u32, (f64::from(height) * y) as u32];
            let covered = imageops::crop_imm(&photo, corner[0], corner[1], small.width(), small.height()).to_image();
            imageops::replace(&mut photo, &small, corner[0].into(), corner[1].into());
            let found = detector.find(&photo, Search::Guided, LandmarkScheme::Ibug, 80, FacePolicy::One);
            let face = found.unwrap_or_else(|error| panic!("{size} pixels in {width} x {height}: {error}"));
            let nose = face.landmarks[30].map(f64::from);
            for i in 0..2 {
                let edges = [frame[i], frame[i + 2]].map(|edge| edge + f64::from(corner[i]));
                assert!((edges[0]..edges[1]).contains(&nose[i]), "{nose:?} is outside of the face");
            }
            imageops::replace(&mut photo, &covered, corner[0].into(), corner[1].into());
        }
    }
}

#[test]
fn the_cause_tells_what_was_not_searched_for() {
    let detector = detector();
    let photo = wall(9000, 5500);
    let error = detector.find(&photo, Search::Guided, LandmarkScheme::Ibug, 20, FacePolicy::One).unwrap_err();
    let NoFace::None(Some(smallest)) = error else { panic!("{error:?}") };
    assert!((21..=60).contains(&smallest), "{smallest}");
    assert_eq!(error.code(), Some(CauseCode::NoFace));
    assert!(error.to_string().contains(&format!("no face of {smallest} pixels or more; it is too large")), "{error}");
    let error = detector.find(&photo, Search::Guided, LandmarkScheme::Ibug, 80, FacePolicy::One).unwrap_err();
    assert_eq!(error.to_string(), "the photo shows no face");
}

#[test]
fn a_half_face_at_the_edge_does_not_decide() {
    let detector = detector();
    let portrait = Portrait::of(&detector);
    let (good, frame) = portrait.scaled(220.0);
    for size in [150.0, 330.0, 420.0] {
        let (other, other_frame) = portrait.scaled(size);
        let mut photo = wall(1400, 1000.max(other.height()));
        imageops::replace(&mut photo, &good, 700, 100);
        // From the middle of the face on.
        let middle = ((other_frame[0] + other_frame[2]) / 2.0) as u32;
        let half = imageops::crop_imm(&other, middle, 0, (other.width() - middle).min(650), other.height()).to_image();
        imageops::replace(&mut photo, &half, 0, 0);
        let face = detector.find(&photo, Search::Guided, LandmarkScheme::Ibug, 80, FacePolicy::One);
        let face = face.unwrap_or_else(|error| panic!("half a face of {size} pixels: {error}"));
        assert_eq!(face.faces, 1);
        let nose = f64::from(face.landmarks[30][0]) - 700.0;
        assert!((frame[0]..frame[2]).contains(&nose), "the whole face is the one: {nose} in {frame:?}");
    }
}

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
        columns: BTreeMap::new(),
    };
    let format = ImageFormat::sniff(&bytes).expect("an image");
    let original = Original { sha256: ContentHash::of(&bytes), bytes: bytes.len() as u64, format };
    objects.put(&ObjectKey::original(original.sha256, format), bytes.into(), format.media_type()).await.unwrap();
    let mut photo = Photo::new(RunName::default(), candidate);
    photo.facts = Facts { original: Some(original), ..Facts::default() };
    photo
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_in_its_record() {
    let objects = Arc::new(MemoryObjects::default());
    let detector = detector();
    let portrait = Portrait::of(&detector).pixels;
    let whole = encode(&portrait, ImageFormat::Jpeg).unwrap();
    let detect = Detect::new(Originals::new(objects.clone()), detector.clone(), DetectSettings::default());
    for (bytes, damaged) in [(whole.clone(), false), (whole[..whole.len() - 2].to_vec(), true)] {
        let Outcome::Advance(photo) = detect.run(&fetched(&objects, bytes).await).await else {
            panic!("it has a face")
        };
        let decoding = photo.facts.decoding;
        assert_eq!(decoding.is_some(), damaged);
        assert!(decoding.is_none_or(|decoding| decoding.damaged.is_some_and(|what| what.contains("end of JPEG"))));
    }
    let Outcome::Reject(cause) = detect.run(&fetched(&objects, whole[..whole.len() / 2].to_vec()).await).await else {
        panic!("half of the image is missing");
    };
    assert_eq!(cause.code, CauseCode::Truncated);
    assert!(cause.detail.contains("rows are missing"), "{cause}");
}

#[tokio::test]
async fn a_photo_that_needs_more_memory_than_there_is_is_rejected() {
    let objects = Arc::new(MemoryObjects::default());
    let photo = fetched(&objects, encode(&RgbImage::new(1000, 1000), ImageFormat::Png).unwrap()).await;
    let reject = async |megabytes: u64, search: Search| {
        let originals = Originals::new(objects.clone()).with_memory(Arc::new(MemoryBudget::new(megabytes * 1_000_000)));
        let settings = DetectSettings { search, ..DetectSettings::default() };
        match Detect::new(originals, detector(), settings).run(&photo).await {
            Outcome::Reject(cause) => cause,
            other => panic!("{other:?}"),
        }
    };
    let cause = reject(2, Search::Guided).await;
    assert_eq!(cause.code, CauseCode::TooLarge);
    assert!(cause.detail.contains("--decode-megabytes is 2"), "{cause}");
    assert_eq!(reject(16, Search::Guided).await.code, CauseCode::NoFace);
    assert_eq!(reject(16, Search::Full).await.code, CauseCode::TooLarge, "two rotated canvases");
}

/// A PNG of few bytes and 75 MB of pixels.
fn large_png() -> Vec<u8> {
    const SIDE: u32 = 5000;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIDE, SIDE);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().unwrap();
    let mut stream = writer.stream_writer().unwrap();
    let row = vec![90; 3 * SIDE as usize];
    (0..SIDE).for_each(|_| std::io::Write::write_all(&mut stream, &row).unwrap());
    stream.finish().unwrap();
    writer.finish().unwrap();
    bytes
}

/// Runs the program, and returns the most memory that it had, in megabytes. The kernel counts the memory of the process
/// that starts another one as well, so a small one does.
fn run_measured(arguments: &[&str]) -> u64 {
    const MEASURE: &str = "import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(code)";
    let program = env!("CARGO_BIN_EXE_facemill");
    let output = Command::new("python3").args(["-c", MEASURE, program]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

/// Eight detectors on eight large photos.
#[test]
fn many_large_photos_stay_within_the_memory() {
    let scratch = tempfile::tempdir().unwrap();
    let photos = photo_folder(scratch.path());
    let bytes = large_png();
    for id in 0..8u8 {
        // Photos with the same bytes would be one.
        std::fs::write(format!("{photos}/{id}.png"), [&bytes[..], &[id]].concat()).unwrap();
    }
    let out = scratch.path().join("out").to_str().unwrap().to_owned();
    let run = ["run", &photos, "--out", &out, "--json", "--cores", "8", "--decode-megabytes", "100"];
    let megabytes = run_measured(&run);
    let photos = std::fs::read_to_string(format!("{out}/photos.jsonl")).unwrap();
    assert_eq!(photos.matches("no-face").count(), 8, "{photos}");
    // The process takes 330 MB without large photos. Eight at a time would take 600 MB more.
    assert!(megabytes < 600, "{megabytes} MB");
}

fn photo_folder(scratch: &Path) -> String {
    let photos = scratch.join("photos");
    std::fs::create_dir(&photos).unwrap();
    photos.to_str().unwrap().to_owned()
}

/// A grey picture of 64 x 64 pixels.
fn heic() -> Vec<u8> {
    let digits: Vec<u8> =
        include_bytes!("../data/heif/small-heic.hex").iter().copied().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Runs the program on a HEIC, and returns what it prints.
fn run_on_heic(environment: &[(&str, &Path)]) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let photos = photo_folder(scratch.path());
    std::fs::write(format!("{photos}/1.heic"), heic()).unwrap();
    let out = scratch.path().join("out");
    let run = Command::new(env!("CARGO_BIN_EXE_facemill"))
        .args(["run", &photos, "--json", "--out", out.to_str().unwrap()])
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8_lossy(&run.stdout).into_owned()
}

#[test]
fn heic_is_read_where_libheif_is_and_named_where_it_is_not() {
    let printed = run_on_heic(&[]);
    assert!(printed.contains("no-face"), "it is decoded: {printed}");
    // A library that cannot be loaded comes before that of the system.
    let broken = tempfile::tempdir().unwrap();
    std::fs::write(broken.path().join("libheif.so.1"), b"no library").unwrap();
    let printed = run_on_heic(&[("LD_LIBRARY_PATH", broken.path())]);
    assert!(printed.contains("unsupported-format") && printed.contains("install libheif1"), "{printed}");
}
