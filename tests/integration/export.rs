//! `facemill export` as a process: the formats, read back by their own readers, resumption, and S3.

use std::path::Path;
use std::process::{Command, Output};

use facemill::objects::s3::{S3, S3Settings};
use serde_json::{Value, json};
use support::curation::{RunFolder, crop_size, picture};
use support::servers::seaweedfs::SeaweedFs;

/// The libraries that people read datasets with, installed by `make setup-tests`.
pub fn python(script: &str, arguments: &[&str]) -> Value {
    let output = Command::new("python3")
        .args(["-B", "-W", "ignore", "-c", script])
        .args(arguments)
        .env("PYTHONPATH", support::project().join(".cache/python-datasets"))
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", std::env::temp_dir().join(format!("facemill-hf-{}", std::process::id())))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn command(run: &RunFolder, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_facemill"));
    command.arg("export").args(arguments).arg("--out").arg(run.path());
    command
}

fn run_export(run: &RunFolder, arguments: &[&str]) -> Output {
    command(run, arguments).output().unwrap()
}

/// The JSON of an export that succeeds.
fn exported(run: &RunFolder, arguments: &[&str]) -> Value {
    let output = run_export(run, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Judges all photos with a crop of 256 pixels or more as OK.
fn judge(run: &RunFolder, faces: u64) {
    let file = run.path().join("labels.csv");
    let rows: String = (0..faces).filter(|id| crop_size(*id) >= 256).map(|id| format!("{id},ok\n")).collect();
    std::fs::write(&file, format!("photo_id,judgement\n{rows}")).unwrap();
    let mut import = Command::new(env!("CARGO_BIN_EXE_facemill"));
    import.args(["verdicts", "import"]).arg(&file).arg("--out").arg(run.path());
    assert!(import.output().unwrap().status.success());
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                    found.push((name, std::fs::read(&path).unwrap()));
                }
            }
        }
    }
    found.sort();
    found
}

/// What the loader of StyleGAN3 (`ImageFolderDataset`) asks of a zip, written after its rules.
pub const STYLEGAN: &str = r#"
import io, json, sys, zipfile
from PIL import Image
archive = zipfile.ZipFile(sys.argv[1])
assert archive.testzip() is None
names = archive.namelist()
pictures = sorted(name for name in names if name.lower().endswith((".png", ".jpg", ".jpeg", ".webp", ".bmp")))
sizes = set()
for name in pictures:
    picture = Image.open(io.BytesIO(archive.read(name)))
    assert picture.mode == "RGB", picture.mode
    sizes.add(picture.size)
assert len(sizes) == 1, sizes
width, height = sizes.pop()
assert width == height and width & (width - 1) == 0, (width, height)
assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
labels = json.loads(archive.read("dataset.json"))["labels"]
if labels is not None:
    by_name = dict(labels)
    labels = [by_name[name] for name in pictures]
    assert all(type(label) is int for label in labels)
print(json.dumps({"names": pictures, "width": width, "labels": labels}))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_is_what_the_loaders_of_stylegan_read() {
    let run = RunFolder::with_faces(40).await;
    judge(&run, 40);
    let folder = tempfile::tempdir().unwrap();
    let zip = folder.path().join("faces.zip");
    let to = zip.to_str().unwrap();
    let done = exported(&run, &["--to", to, "--size", "256", "--class", "label"]);
    assert_eq!((&done["faces"], &done["too_small"], &done["already_there"]), (&json!(30), &json!(0), &json!(0)));

    let read = python(STYLEGAN, &[to]);
    let names: Vec<String> = (0..30).map(|at| format!("00000/img{at:08}.png")).collect();
    assert_eq!((&read["names"], &read["width"]), (&json!(names), &json!(256)));
    // The classes are the positions of the label's names, and follow the photos.
    let manifest = std::fs::read_to_string(folder.path().join("faces.manifest.jsonl")).unwrap();
    let lines: Vec<Value> = manifest.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["complete"], lines.len()), (&json!(true), 31));
    let class_names = lines[0]["class_names"].as_array().unwrap();
    assert!(class_names.is_sorted_by_key(|name| name.as_str().unwrap().to_owned()) && class_names.len() > 1);
    for (line, label) in lines[1..].iter().zip(read["labels"].as_array().unwrap()) {
        assert_eq!(&class_names[label.as_u64().unwrap() as usize], &line["label"]);
        assert_eq!((&line["class"], &line["verdict"]), (label, &json!("ok")));
    }
    assert!(std::fs::read_to_string(folder.path().join("faces.md")).unwrap().contains("30 aligned faces of 256x256"));

    // Without classes, and the same bytes again in another place and on a repetition.
    let plain = folder.path().join("plain.zip");
    let again = folder.path().join("again.zip");
    for place in [&plain, &again] {
        exported(&run, &["--to", place.to_str().unwrap(), "--size", "256"]);
    }
    assert_eq!(python(STYLEGAN, &[plain.to_str().unwrap()])["labels"], Value::Null);
    assert_eq!(std::fs::read(&plain).unwrap(), std::fs::read(&again).unwrap());
    let before = std::fs::metadata(&again).unwrap().modified().unwrap();
    let repeated = exported(&run, &["--to", again.to_str().unwrap(), "--size", "256"]);
    assert_eq!((&repeated["faces"], &repeated["already_there"]), (&json!(30), &json!(30)));
    assert_eq!(std::fs::metadata(&again).unwrap().modified().unwrap(), before);
    let hidden = files(folder.path()).into_iter().filter(|(name, _)| name.starts_with('.')).count();
    assert_eq!(hidden, 0, "nothing is left behind");
}

const IMAGE_FOLDER: &str = r#"
import json, sys
from datasets import load_dataset
rows = load_dataset("imagefolder", data_dir=sys.argv[1], split="train", cache_dir=sys.argv[2])
print(json.dumps([{"photo_id": row["photo_id"], "size": row["image"].size, "pixel": row["image"].convert("RGB").getpixel((0, 0))}
                  for row in rows]))
"#;

const PARQUET: &str = r#"
import json, sys
import pyarrow.parquet
from datasets import load_dataset
files = sorted(__import__("glob").glob(sys.argv[1] + "/data/*.parquet"))
groups = [pyarrow.parquet.ParquetFile(file).metadata.num_row_groups for file in files]
rows = load_dataset("parquet", data_files=files, split="train", cache_dir=sys.argv[2])
print(json.dumps({"groups": groups, "features": sorted(rows.features),
                  "rows": [{"photo_id": row["photo_id"], "size": row["image"].size, "class": row["class"], "p_ok": row["p_ok"],
                            "verdict": row["verdict"], "numbers": {name: row[name] for name in rows.features if name not in
                            ("image", "photo_id", "label", "class", "photo_url", "source_url", "crop_sha256", "crop_size", "p_ok", "verdict")},
                            "pixel": row["image"].convert("RGB").getpixel((0, 0))} for row in rows]}))
"#;

const WEB_DATASET: &str = r#"
import glob, json, sys
import webdataset
shards = sorted(glob.glob(sys.argv[1] + "/*.tar"))
rows = webdataset.WebDataset(shards, shardshuffle=False).decode("pil")
print(json.dumps([{"key": row["__key__"], "photo_id": row["json"]["photo_id"], "class": row["cls"], "size": row["png"].size}
                  for row in rows]))
"#;

/// The quality numbers of a face, as the columns of Parquet have them.
fn numbers(id: u64) -> Value {
    let facts = support::faces::photo(id).facts;
    let (face, crop) = (facts.face.unwrap(), facts.crop.unwrap());
    let quality = crop.quality.as_ref();
    json!({
        "score": face.score, "mirrored": crop.mirrored, "mirrored_head": crop.mirrored_head, "blur": crop.blur,
        "exposure": crop.exposure, "contrast": quality.map(|quality| quality.contrast),
        "saturation": quality.map(|quality| quality.saturation), "face_blur": quality.map(|quality| quality.face_blur),
        "yaw": quality.map(|quality| quality.yaw), "pitch": quality.map(|quality| quality.pitch),
        "eyes_open": quality.map(|quality| quality.eyes_open), "mouth_open": quality.map(|quality| quality.mouth_open),
        "outlier": quality.map(|quality| quality.outlier),
        "jpeg_quality": quality.and_then(|quality| quality.jpeg_quality),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_parquet_and_shards_are_read_by_their_libraries() {
    let run = RunFolder::with_faces(40).await;
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let cache = place("cache");
    // All photos with a crop of 512 pixels or more: a query that needs no verdict.
    let ids: Vec<u64> = (0..40).filter(|id| crop_size(*id) >= 512).collect();
    let arguments = |to: &str, format: &str| {
        let fixed = ["--size", "512", "--where", "size>=1", "--class", "label", "--format"].map(str::to_owned);
        [&fixed[..], &[format.to_owned(), "--to".into(), to.to_owned()]].concat()
    };
    let export = |name: &str, format: &str| {
        let to = place(name);
        let arguments = arguments(&to, format);
        let done = exported(&run, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((&done["faces"], &done["too_small"]), (&json!(ids.len()), &json!(40 - ids.len())), "{format}");
        to
    };
    // A crop of the wanted size keeps its pixels.
    let kept: Vec<u64> = ids.iter().copied().filter(|id| crop_size(*id) == 512).collect();
    let pixel = |id: u64| json!(picture(id, 512, 512).get_pixel(0, 0).0);
    let check_pixels = |rows: &[Value]| {
        let mut compared = 0;
        for row in rows {
            assert_eq!(row["size"], json!([512, 512]));
            let id: u64 = row["photo_id"].as_str().unwrap().parse().unwrap();
            if kept.contains(&id) {
                assert_eq!(row["pixel"], pixel(id), "photo {id}");
                compared += 1;
            }
        }
        assert_eq!(compared, kept.len());
    };

    let rows = python(IMAGE_FOLDER, &[&export("folder", "folder"), &cache]);
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), ids.len());
    check_pixels(rows);

    let read = python(PARQUET, &[&export("parquet", "parquet"), &cache]);
    let rows = read["rows"].as_array().unwrap();
    let read_ids: Vec<u64> = rows.iter().map(|row| row["photo_id"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!((&read["groups"], &read_ids), (&json!([1]), &ids));
    assert!(rows.iter().all(|row| row["verdict"].is_null() && row["class"].is_u64() && row["p_ok"].is_f64()));
    check_pixels(rows);
    for (row, id) in rows.iter().zip(&ids) {
        let (read, expected) = (row["numbers"].as_object().unwrap(), numbers(*id));
        assert!(read.keys().eq(expected.as_object().unwrap().keys()), "{row}");
        for (name, number) in read {
            // The decimal digits of Python, read as JSON, may differ in the last place.
            let (read, expected) = (number.as_f64(), expected[name].as_f64());
            let is_close = read.zip(expected).is_none_or(|(read, expected)| (read - expected).abs() < 1e-9);
            assert!(read.is_some() == expected.is_some() && is_close, "{id} {name}: {read:?}, not {expected:?}");
        }
    }
    assert!(rows.iter().any(|row| row["numbers"]["contrast"].is_null()), "none is of an earlier version");

    let rows = python(WEB_DATASET, &[&export("shards", "webdataset")]);
    let keys: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap()).collect();
    let expected: Vec<String> = (0..ids.len()).map(|at| format!("{at:08}")).collect();
    assert_eq!(keys, expected);
    assert!(rows.as_array().unwrap().iter().all(|row| row["size"] == json!([512, 512]) && row["class"].is_u64()));
}

#[tokio::test(flavor = "multi_thread")]
async fn which_faces_are_exported_follows_from_the_flags() {
    let run = RunFolder::with_faces(40).await;
    let folder = tempfile::tempdir().unwrap();
    let to = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let sized = |name: &str, size: &str, more: &[&str]| {
        let to = to(name);
        let fixed = ["--to", &to, "--format", "folder", "--size", size, "--where", "size>=1"];
        exported(&run, &[&fixed[..], more].concat())
    };
    let export = |name: &str, more: &[&str]| sized(name, "64", more);
    let labels = |name: &str| -> Vec<String> {
        let manifest = std::fs::read_to_string(folder.path().join(name).join("manifest.jsonl")).unwrap();
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["label"].as_str().unwrap().to_owned();
        manifest.lines().skip(1).map(line).collect()
    };
    let ten = export("ten", &["--num", "10"]);
    let seen = 10 + ten["copies"].as_u64().unwrap() + ten["duplicates"].as_u64().unwrap();
    assert_eq!((&ten["faces"], &ten["beyond_number"]), (&10.into(), &(40 - seen).into()), "{ten}");
    let card = std::fs::read_to_string(folder.path().join("ten/README.md")).unwrap();
    assert!(card.contains("left out: behind the wanted number"), "{card}");
    let capped = export("capped", &["--max-per-label", "1"]);
    let mut once = labels("capped");
    let count = once.len();
    once.sort();
    once.dedup();
    assert_eq!((once.len(), capped["beyond_label_limit"].as_u64().unwrap()), (count, 40 - count as u64));
    // Small crops are enlarged only on request.
    assert_eq!(sized("native", "1024", &[])["faces"], 10);
    assert_eq!(sized("enlarged", "1024", &["--upscale"])["faces"], 40);

    // An empty result, other exports in the way, and contradicting flags are errors.
    let fails = |arguments: &[&str]| {
        let output = run_export(&run, arguments);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, message) = fails(&["--to", &to("none.zip")]);
    let expected = "facemill: no face fulfils the query `status='ok'`: judge faces with `facemill curate`, or give another --where\n";
    assert_eq!((code, message.as_str()), (Some(3), expected));
    assert!(!folder.path().join("none.zip").exists());
    let (code, message) = fails(&["--to", &to("ten"), "--format", "folder", "--where", "size>=1", "--num", "9"]);
    assert_eq!(code, Some(3));
    assert!(message.contains("has another export or other files"), "{message}");
    let (code, message) = fails(&["--to", &to("odd.zip"), "--size", "500"]);
    assert_eq!(code, Some(2));
    assert!(message.contains("StyleGAN needs a power of two"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_export_continues_and_gives_the_same_bytes() {
    const FACES: u64 = 40;
    let run = RunFolder::with_faces(FACES).await;
    let folder = tempfile::tempdir().unwrap();
    let export = |to: &Path| {
        let to = to.to_str().unwrap().to_owned();
        ["--to", &to, "--size", "512", "--where", "size>=1", "--upscale"].map(str::to_owned)
    };
    let whole = folder.path().join("whole.zip");
    let arguments = export(&whole);
    exported(&run, &arguments.each_ref().map(String::as_str));

    let killed = folder.path().join("killed.zip");
    let arguments = export(&killed);
    let arguments = arguments.each_ref().map(String::as_str);
    // The system kills a process that writes a larger file: in blocks of 512 bytes.
    let limited = "ulimit -f 20000; exec \"$0\" \"$@\"";
    let mut process = Command::new("sh");
    process.args(["-c", limited]).arg(env!("CARGO_BIN_EXE_facemill")).arg("export").args(arguments);
    let status = process.arg("--out").arg(run.path()).status().unwrap();
    assert!(!status.success() && status.code().is_none(), "{status}");
    assert!(!killed.exists(), "a part of an archive has no name");
    let done = exported(&run, &arguments);
    let again = done["already_there"].as_u64().unwrap();
    // Ten megabytes have 13 pictures. The last of them were not written yet.
    assert!((10..=13).contains(&again), "{again} pictures were taken over");
    assert!(std::fs::read(&whole).unwrap() == std::fs::read(&killed).unwrap(), "the bytes differ");
    let hidden: Vec<String> =
        files(folder.path()).into_iter().map(|(name, _)| name).filter(|name| name.starts_with('.')).collect();
    assert!(hidden.is_empty(), "left behind: {hidden:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_to_s3_has_the_bytes_of_a_local_one() {
    let run = RunFolder::with_faces(40).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = SeaweedFs::shared().settings();
    let S3Settings { endpoint, bucket, prefix, .. } = settings.clone();
    let keys = SeaweedFs::keys();
    let environment = [
        ("FACEMILL_S3_ENDPOINT", endpoint.unwrap()),
        ("AWS_ACCESS_KEY_ID", keys.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", keys.secret_access_key),
    ];
    for (format, name) in [("stylegan", "sets/faces.zip"), ("webdataset", "sets/shards"), ("folder", "sets/pictures")] {
        let local = folder.path().join("local").join(name);
        let settings = ["--size", "512", "--where", "size>=1", "--upscale", "--format", format, "--to"];
        exported(&run, &[&settings[..], &[local.to_str().unwrap()]].concat());
        let address = format!("s3://{bucket}/{prefix}{name}");
        let mut export = command(&run, &[&settings[..], &[&address]].concat());
        let output = export.envs(environment.clone()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let store = S3::new(settings);
    let local = files(&folder.path().join("local"));
    assert!(local.len() > 40);
    for (name, content) in local {
        let key = format!("{prefix}{name}");
        let stored = download(&store, &key).await;
        assert!(stored == content, "{key} differs");
    }
}

async fn download(store: &S3, key: &str) -> Vec<u8> {
    let mut download = store.download(key).await.unwrap();
    let mut content = Vec::new();
    while let Some(part) = download.next().await.unwrap() {
        content.extend_from_slice(&part);
    }
    content
}
