//! Runs with pictures, and a server on which people judge them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use facemill::archive::crop_groups::{CropGroup, GroupKind, StoredGroups};
use facemill::archive::duplicates::StoredDuplicates;
use facemill::archive::records::Records;
use facemill::archive::run_classifier::{ClassifierChange, RunClassifiers};
use facemill::domain::{
    ContentHash, Ending, ImageFormat, Message, Original, Photo, Position, Record, RunName, StageName,
};
use facemill::ledger::Ledger;
use facemill::ledger::sqlite::Sqlite;
use facemill::objects::folder::Folder;
use facemill::objects::s3::S3;
use facemill::objects::{ObjectKey, Objects};
use facemill::sqlite::{Access, Database};
use facemill::vision::image::encode;
use image::RgbImage;
use serde_json::Value;

use crate::faces;
use crate::servers::rabbitmq;
use crate::servers::redis::RedisServer;
use crate::servers::seaweedfs::SeaweedFs;

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

/// A run with pictures, in a folder or on servers.
pub struct CuratedRun {
    pub run: RunName,
    pub ledger: Arc<dyn Ledger>,
    pub objects: Arc<dyn Objects>,
    /// Where the messages of ended photos are, on servers.
    records: Option<Records>,
    /// Flags and variables that name the run.
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// The folder of the run, or the cache of its servers.
    pub folder: tempfile::TempDir,
}

impl CuratedRun {
    /// See [`CuratedRun::in_folder`].
    pub async fn with_faces(faces: u64) -> Self {
        Self::in_folder(faces).await
    }

    /// A run in a folder, in which so many photos became faces.
    pub async fn in_folder(faces: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("ledger.sqlite"), Access::Write).unwrap();
        let run = Self {
            run: RunName::default(),
            ledger: Arc::new(Sqlite::open(database).await.unwrap()),
            objects: Arc::new(Folder::at(folder.path())),
            records: None,
            arguments: vec!["--out".into(), folder.path().display().to_string()],
            environment: vec![("XDG_CACHE_HOME", folder.path().join("cache").display().to_string())],
            folder,
        };
        run.fill(faces).await
    }

    /// The same on servers that other tests use, too.
    pub async fn on_servers(faces: u64) -> Self {
        let rabbit = rabbitmq::shared().await;
        let redis = RedisServer::shared();
        let redis_settings = redis.settings();
        let store = SeaweedFs::shared().settings();
        let folder = tempfile::tempdir().unwrap();
        let objects: Arc<dyn Objects> = Arc::new(S3::new(store.clone()));
        let run: RunName = "faces".parse().unwrap();
        let environment = vec![
            ("XDG_CACHE_HOME", folder.path().display().to_string()),
            ("FACEMILL_AMQP_URL", rabbit.url()),
            ("FACEMILL_REDIS_URL", redis.url()),
            ("FACEMILL_S3_BUCKET", store.bucket.clone()),
            ("FACEMILL_S3_PREFIX", store.prefix.trim_end_matches('/').to_owned()),
            ("FACEMILL_S3_ENDPOINT", store.endpoint.clone().unwrap()),
            ("AWS_ACCESS_KEY_ID", SeaweedFs::keys().access_key_id),
            ("AWS_SECRET_ACCESS_KEY", SeaweedFs::keys().secret_access_key),
            ("FACEMILL_PREFIX", redis_settings.prefix.clone()),
        ];
        let run = Self {
            ledger: Arc::new(RedisServer::ledger_with(redis_settings)),
            records: Some(Records::new(objects.clone())),
            objects,
            arguments: vec!["--run".into(), run.to_string()],
            run,
            environment,
            folder,
        };
        run.fill(faces).await
    }

    /// An empty run of another name on the same servers.
    pub async fn beside(&self, name: &str) -> Self {
        let run: RunName = name.parse().unwrap();
        let other = Self {
            ledger: self.ledger.clone(),
            objects: self.objects.clone(),
            records: self.records.clone(),
            arguments: vec!["--run".into(), run.to_string()],
            run,
            environment: self.environment.clone(),
            folder: tempfile::tempdir().unwrap(),
        };
        assert!(other.records.is_some(), "a folder has one run");
        other.fill(0).await
    }

    async fn fill(self, faces: u64) -> Self {
        set_classifier(self.objects.clone(), &self.run, 0.5).await;
        for id in 0..faces {
            self.classify(id).await;
        }
        self
    }

    /// One more photo becomes a face, as the last stage does it.
    pub async fn classify(&self, id: u64) {
        let (photo, crop, original) = photo(&self.run, id);
        self.finish(photo, crop, original).await;
    }

    /// The same for a photo, with the files of its crop and its original.
    pub async fn finish(&self, photo: Photo, crop: Vec<u8>, original: Vec<u8>) {
        let (of_crop, of_original) = (photo.facts.crop.clone().unwrap(), photo.facts.original.clone().unwrap());
        let key = ObjectKey::face(of_crop.sha256, of_crop.format);
        self.objects.put(&key, Bytes::from(crop), "image/png").await.unwrap();
        let key = ObjectKey::original(of_original.sha256, of_original.format);
        self.objects.put(&key, Bytes::from(original), "image/jpeg").await.unwrap();
        let at = Position::entering(StageName::Classify);
        let message = Message { position: at, ..Message::first(photo, 1_700_000_000) };
        if let Some(records) = &self.records {
            let record = Record { ending: Ending::Predicted, cause: None, message: message.clone() };
            records.write(&record).await.unwrap();
        }
        assert!(self.ledger.restore(&message, Ending::Predicted, None).await.unwrap());
    }

    /// The same with a label of this name.
    pub async fn classify_named(&self, id: u64, label: &str) {
        let (mut photo, crop, original) = photo(&self.run, id);
        photo.candidate.label_name = Some(label.to_owned());
        self.finish(photo, crop, original).await;
    }

    /// Makes the faces of these photos a group of near-duplicates, the first one the best. There is no other group.
    pub async fn group(&self, ids: &[u64]) {
        let crops = ids.iter().map(|id| photo(&self.run, *id).0.facts.crop.unwrap().sha256).collect();
        let stored = StoredDuplicates::new(self.objects.clone(), self.run.clone());
        stored.groups.write(&[CropGroup { crops }], ids.len() as u64, 1_700_000_000).await.unwrap();
    }

    /// Makes the faces of these photos identities, the first one number 1. There are no others.
    pub async fn identify(&self, identities: &[&[u64]]) {
        let crop = |id: &u64| photo(&self.run, *id).0.facts.crop.unwrap().sha256;
        let groups: Vec<CropGroup> =
            identities.iter().map(|ids| CropGroup { crops: ids.iter().map(crop).collect() }).collect();
        let stored = StoredGroups::new(self.objects.clone(), self.run.clone(), GroupKind::Identities);
        stored.write(&groups, groups.iter().map(|group| group.crops.len() as u64).sum(), 1_700_000_000).await.unwrap();
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command of the program on this run.
    pub fn command(&self, name: &[&str]) -> Command {
        let mut command = Command::new(crate::program());
        command.args(name).args(&self.arguments).env("USER", "ada");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a server on a free port.
    pub fn serve(&self, arguments: &[&str]) -> CurationServer {
        self.serve_at(0, arguments)
    }

    /// Starts a server on a port, from which an earlier one was killed. 0: a free port.
    pub fn serve_at(&self, port: u16, arguments: &[&str]) -> CurationServer {
        let mut command = self.command(&["curate"]);
        command.args(arguments);
        CurationServer::start_at(command, port)
    }
}

/// A run in a folder.
pub type RunFolder = CuratedRun;

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

    /// `port`: 0 for a free one.
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
