//! Every byte that a run has stored: files, objects, Redis, queues. Compressed parts are read as they were before.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use facemill::broker::Broker;
use facemill::versions::FrozenFaces;
use support::curation::CuratedRun;

pub struct Leftovers {
    /// The name of a place, and its bytes.
    places: Vec<(String, Vec<u8>)>,
}

impl Leftovers {
    pub async fn read(curated: &CuratedRun, broker: &dyn Broker, cache: &Path) -> Self {
        let mut found = Self { places: Vec::new() };
        found.files(curated.path());
        found.files(cache);
        found.objects(curated).await;
        found.versions(curated).await;
        found.redis(curated).await;
        let bodies = Mutex::new(Vec::new());
        let note = |body: &[u8]| {
            bodies.lock().unwrap().extend_from_slice(body);
            false
        };
        broker.remove_messages(&note).await.unwrap();
        let letters = broker.dead_letters(1000).await.unwrap();
        bodies.lock().unwrap().extend(serde_json::to_vec(&letters).unwrap());
        found.places.push(("queues".into(), bodies.into_inner().unwrap()));
        found
    }

    /// The places that have these bytes in their names or contents.
    pub fn with(&self, bytes: &[u8]) -> Vec<String> {
        let has = |place: &[u8]| place.windows(bytes.len()).any(|window| window == bytes);
        let places = self.places.iter().filter(|(name, content)| has(name.as_bytes()) || has(content));
        places.map(|(name, _)| name.clone()).collect()
    }

    fn files(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => self.files(&path),
                // Another process reads it: closing a database's file here would drop the locks that this process has on it.
                false => {
                    let content = Command::new("cat").arg(&path).output().unwrap().stdout;
                    self.places.push((path.display().to_string(), content));
                }
            }
        }
    }

    /// Those of a folder are its files.
    async fn objects(&mut self, curated: &CuratedRun) {
        if curated.path().join("ledger.sqlite").is_file() {
            return;
        }
        let mut after = None;
        loop {
            let page = curated.objects.list("", after.as_ref(), 500).await.unwrap();
            for key in &page.keys {
                if let Ok(body) = curated.objects.get(key).await {
                    self.places.push((key.to_string(), body.to_vec()));
                }
            }
            after = page.keys.last().cloned();
            if !page.more {
                return;
            }
        }
    }

    /// Their shards are compressed.
    async fn versions(&mut self, curated: &CuratedRun) {
        let stored = facemill::archive::versions::StoredVersions::new(curated.objects.clone(), curated.run.clone());
        for header in stored.all().await.unwrap() {
            let frozen = FrozenFaces::open(&stored, &header.name, &|_, _| {}).await.unwrap();
            let faces = frozen.selection(1, true).unwrap().faces;
            for face in faces {
                let face = frozen.face(&face.photo_id).unwrap().unwrap();
                self.places.push((format!("versions/{}", header.name), serde_json::to_vec(&face).unwrap()));
            }
        }
    }

    async fn redis(&mut self, curated: &CuratedRun) {
        let variable = |name: &str| {
            let command = curated.command(&[]);
            let value = command.get_envs().find(|(known, _)| *known == name)?.1?;
            Some(value.to_str().unwrap().to_owned())
        };
        let (Some(url), Some(prefix)) = (variable("FACEMILL_REDIS_URL"), variable("FACEMILL_PREFIX")) else { return };
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(format!("{prefix}:*")).query_async(&mut connection).await.unwrap();
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut connection).await.unwrap();
            let mut read = match kind.as_str() {
                "hash" => redis::cmd("HGETALL"),
                "zset" => redis::cmd("ZRANGE"),
                "set" => redis::cmd("SMEMBERS"),
                "stream" => redis::cmd("XRANGE"),
                _ => redis::cmd("GET"),
            };
            read.arg(&key);
            match kind.as_str() {
                "zset" => drop(read.arg(0).arg(-1)),
                "stream" => drop(read.arg("-").arg("+")),
                _ => {}
            }
            let value: redis::Value = read.query_async(&mut connection).await.unwrap();
            let mut content = Vec::new();
            bytes(&value, &mut content);
            self.places.push((format!("redis {key}"), content));
        }
    }
}

/// All strings of an answer; messages are decompressed.
fn bytes(value: &redis::Value, content: &mut Vec<u8>) {
    match value {
        redis::Value::BulkString(text) => match zstd::bulk::decompress(text, 4 << 20) {
            Ok(plain) => content.extend(plain),
            Err(_) => content.extend_from_slice(text),
        },
        redis::Value::SimpleString(text) => content.extend_from_slice(text.as_bytes()),
        redis::Value::Array(values) => values.iter().for_each(|value| bytes(value, content)),
        redis::Value::Map(values) => values.iter().for_each(|(key, value)| {
            bytes(key, content);
            bytes(value, content);
        }),
        _ => {}
    }
    content.push(b' ');
}
