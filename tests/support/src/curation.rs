//! Runs with pictures, and a server on which people judge them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use facemill::archive::run_classifier::{ClassifierChange, RunClassifiers};
use facemill::domain::{ContentHash, Ending, ImageFormat, Message, Original, Photo, Position, RunName, StageName};
use facemill::ledger::Ledger;
use facemill::ledger::sqlite::Sqlite;
use facemill::objects::folder::Folder;
use facemill::objects::{ObjectKey, Objects};
use facemill::sqlite::{Access, Database};
use facemill::vision::image::encode;
use image::RgbImage;
use serde_json::Value;
use std::sync::Arc;

use crate::faces;

/// The width of the crop of a photo in pixels.
pub fn crop_size(id: u64) -> u32 {
    [96, 256, 512, 1024][(id % 4) as usize]
}

/// A picture with a colour and a pattern of its own.
pub fn picture(id: u64, width: u32, height: u32) -> RgbImage {
    let colour = ContentHash::of(&id.to_le_bytes());
    let [red, green, blue, ..] = *colour.as_bytes();
    RgbImage::from_fn(width, height, |x, y| {
        let shade = if (x * 8 / width + y * 8 / height).is_multiple_of(2) { 0 } else { 40 };
        image::Rgb([red, green, blue].map(|part| part.saturating_add(shade)))
    })
}

/// A photo with a face, as [`faces::photo`], whose crop and original are pictures. Returns these, too.
pub fn photo(run: &RunName, id: u64) -> (Photo, Vec<u8>, Vec<u8>) {
    let mut photo = faces::photo(id);
    photo.run = run.clone();
    let size = crop_size(id);
    let crop = encode(&picture(id, size, size), ImageFormat::Png).unwrap();
    let original = encode(&picture(id, 300, 400), ImageFormat::Jpeg).unwrap();
    let facts = &mut photo.facts;
    let of_crop = facts.crop.as_mut().unwrap();
    (of_crop.sha256, of_crop.format, of_crop.size) = (ContentHash::of(&crop), ImageFormat::Png, size);
    let scale = size as f32 / 68.0;
    of_crop.landmarks.iter_mut().enumerate().for_each(|(at, point)| *point = [at as f32 * scale, size as f32 / 2.0]);
    let (sha256, bytes) = (ContentHash::of(&original), original.len() as u64);
    facts.original = Some(Original { sha256, bytes, format: ImageFormat::Jpeg });
    let face = facts.face.as_mut().unwrap();
    (face.width, face.height) = (300, 400);
    let of_crop = facts.crop.as_mut().unwrap();
    (of_crop.centre, of_crop.side) = ([150.0, 200.0], 120.0);
    (photo, crop, original)
}

/// Lets a photo end with its face, as the last stage does.
pub async fn classify(ledger: &dyn Ledger, objects: &dyn Objects, run: &RunName, id: u64) {
    end(ledger, objects, photo(run, id)).await;
}

async fn end(ledger: &dyn Ledger, objects: &dyn Objects, (photo, crop, original): (Photo, Vec<u8>, Vec<u8>)) {
    let (of_crop, of_original) = (photo.facts.crop.clone().unwrap(), photo.facts.original.clone().unwrap());
    let key = ObjectKey::face(of_crop.sha256, of_crop.format);
    objects.put(&key, Bytes::from(crop), "image/png").await.unwrap();
    let key = ObjectKey::original(of_original.sha256, of_original.format);
    objects.put(&key, Bytes::from(original), "image/jpeg").await.unwrap();
    let at = Position::entering(StageName::Classify);
    let message = Message { position: at, ..Message::first(photo, 1_700_000_000) };
    assert!(ledger.restore(&message, Ending::Predicted, None).await.unwrap());
}

/// Makes [`faces::MODEL`] the classifier of a run.
pub async fn set_classifier(objects: Arc<dyn Objects>, run: &RunName, threshold: f64) {
    let change = ClassifierChange {
        model_sha256: ContentHash::of(faces::MODEL.as_bytes()),
        model: faces::MODEL.into(),
        threshold,
        at: 1_700_000_000,
        by: "test".into(),
        why: String::new(),
    };
    RunClassifiers::new(objects).change(run, change).await.unwrap();
}

/// The folder of a run in one process, with pictures.
pub struct RunFolder {
    pub folder: tempfile::TempDir,
    pub ledger: Sqlite,
    pub objects: Arc<Folder>,
}

impl RunFolder {
    /// A run in which so many photos became faces.
    pub async fn with_faces(faces: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("ledger.sqlite"), Access::Write).unwrap();
        let ledger = Sqlite::open(database).await.unwrap();
        let objects = Arc::new(Folder::at(folder.path()));
        set_classifier(objects.clone(), &RunName::default(), 0.5).await;
        let run = Self { folder, ledger, objects };
        for id in 0..faces {
            run.classify(id).await;
        }
        run
    }

    /// One more photo becomes a face.
    pub async fn classify(&self, id: u64) {
        classify(&self.ledger, &*self.objects, &RunName::default(), id).await;
    }

    /// The same with a label of this name.
    pub async fn classify_named(&self, id: u64, label: &str) {
        let mut ended = photo(&RunName::default(), id);
        ended.0.candidate.label_name = Some(label.to_owned());
        end(&self.ledger, &*self.objects, ended).await;
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a server on a free port.
    pub fn serve(&self, arguments: &[&str]) -> CurationServer {
        self.serve_at(0, arguments)
    }

    /// Starts a server on a port, from which an earlier one was killed. 0: a free port.
    pub fn serve_at(&self, port: u16, arguments: &[&str]) -> CurationServer {
        let mut command = Command::new(crate::program());
        command.arg("curate").arg("--out").arg(self.path()).env("XDG_CACHE_HOME", self.path().join("cache"));
        command.env("USER", "ada").args(arguments);
        CurationServer::start_at(command, port)
    }
}

/// A server as a process. It is killed when this is dropped.
pub struct CurationServer {
    pub process: Child,
    /// Ends with `/`.
    pub url: String,
}

impl CurationServer {
    /// Starts `command`, which lacks `--listen` and `--json`, on a free port, and waits until it serves.
    pub fn start(command: Command) -> Self {
        Self::start_at(command, 0)
    }

    pub fn start_at(mut command: Command, port: u16) -> Self {
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--json"]).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Self { process, url: value["url"].as_str().unwrap().to_owned() }
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Sends SIGTERM. Returns the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.process.wait().unwrap().code()
    }
}

impl Drop for CurationServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
