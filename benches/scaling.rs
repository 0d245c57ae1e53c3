//! The speed-up by more workers: `cargo bench --bench scaling [-- --json]`.
//!
//! Processes the same photos with 1, 2 and 4 processes of `facemill work detect`. A cgroup limits each to a share of a
//! core, so that four of them leave CPU time for the servers on a machine with two cores. The photos are those beside
//! the project (`../shared/data/photos`, or `FACEMILL_TEST_DATA`), or else the sample photographs.

use support::servers::process;
use support::servers::rabbitmq;
use support::servers::redis;
use support::servers::seaweedfs;
use support::synthetic;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use facemill::broker::Broker;
use facemill::broker::rabbitmq::{RabbitMq, RabbitMqSettings};
use facemill::domain::Message;
use facemill::domain::{ContentHash, ImageFormat, Original, Photo, Position, RunName, StageName};
use facemill::ledger::redis::Redis;
use facemill::ledger::{Counts, Ledger};
use facemill::objects::s3::{S3, S3Settings};
use facemill::objects::{ObjectKey, Objects};
use facemill::redis::{RedisClient, RedisSettings};
use serde::Serialize;

/// The share of a core for each worker.
const SHARE: f64 = 0.2;
const WORKERS: [usize; 3] = [1, 2, 4];
const PREFIX: &str = "scaling";

#[derive(Debug, Serialize)]
struct Figures {
    workers: usize,
    photos: usize,
    seconds: f64,
    photos_per_second: f64,
    /// The throughput relative to the same number of times one worker's.
    efficiency: f64,
}

fn main() {
    let Some(limits) = Limits::find() else {
        println!("scaling: no cgroup for CPU quotas can be made here (not root, or a read-only mount): not measured");
        return;
    };
    let photos = std::env::var("FACEMILL_BENCH_PHOTOS").ok().and_then(|count| count.parse().ok()).unwrap_or(240);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let figures = runtime.block_on(async {
        let rabbit = rabbitmq::exclusive().await;
        let (redis, s3) =
            tokio::task::block_in_place(|| (redis::RedisServer::start(&[]), seaweedfs::SeaweedFs::start()));
        let site = Site { rabbit, redis, s3, limits };
        let originals = site.store(photos).await;
        let mut figures: Vec<Figures> = Vec::new();
        for workers in WORKERS {
            let seconds = site.measure(workers, &originals).await;
            let photos_per_second = photos as f64 / seconds;
            let alone = figures.first().map_or(photos_per_second, |first| first.photos_per_second);
            let efficiency = photos_per_second / (workers as f64 * alone);
            figures.push(Figures { workers, photos, seconds, photos_per_second, efficiency });
        }
        figures
    });
    match std::env::args().any(|argument| argument == "--json") {
        true => println!("{}", serde_json::to_string_pretty(&figures).expect("JSON")),
        false => print(&figures),
    }
}

fn print(figures: &[Figures]) {
    println!("{} photos through detect, each worker with {SHARE} of a core", figures[0].photos);
    println!("{:>8} {:>9} {:>9} {:>11}", "workers", "seconds", "photos/s", "efficiency");
    for Figures { workers, seconds, photos_per_second, efficiency, .. } in figures {
        println!("{workers:8} {seconds:9.1} {photos_per_second:9.2} {:10.0} %", 100.0 * efficiency);
    }
}

struct Site {
    rabbit: rabbitmq::ExclusiveServer,
    redis: redis::RedisServer,
    s3: seaweedfs::SeaweedFs,
    limits: Limits,
}

impl Site {
    /// Stores the photos as fetch does.
    async fn store(&self, count: usize) -> Vec<Original> {
        let objects = S3::new(S3Settings { prefix: String::new(), ..self.s3.settings() });
        let mut originals = Vec::new();
        for file in photographs().iter().cycle().take(count) {
            let body = Bytes::from(std::fs::read(file).expect("a photograph"));
            let format = ImageFormat::sniff(&body).expect("a photograph");
            let original = Original { sha256: ContentHash::of(&body), bytes: body.len() as u64, format };
            let key = ObjectKey::original(original.sha256, format);
            objects.put(&key, body, format.media_type()).await.expect("S3 is up");
            originals.push(original);
        }
        originals
    }

    /// Seconds from the first message until the last photo has left detect.
    async fn measure(&self, workers: usize, originals: &[Original]) -> f64 {
        let run: RunName = format!("scaling-{workers}").parse().expect("a name");
        let broker = RabbitMq::new(
            RabbitMqSettings::new(&self.rabbit.url()).expect("a URL").with_prefix(PREFIX).expect("a prefix"),
        );
        let broker = broker.expect("settings that can be used");
        let ledger = RedisSettings { prefix: PREFIX.into(), ..RedisSettings::new(self.redis.url()) };
        let ledger = Redis::new(Arc::new(RedisClient::new(ledger).expect("a URL")));
        let detectors: Vec<Detector> = (0..workers).map(|number| self.worker(10 * workers + number)).collect();
        tokio::task::block_in_place(|| detectors.iter().for_each(Detector::is_ready));
        let began = Instant::now();
        for (number, original) in originals.iter().enumerate() {
            let mut photo = Photo::new(run.clone(), synthetic::candidate(number as u64));
            photo.facts.original = Some(original.clone());
            let message = Message { position: Position::entering(StageName::Detect), ..Message::first(photo, 1) };
            broker.publish(&message).await.expect("RabbitMQ is up");
        }
        while left_detect(&ledger.counts(&run).await.expect("Redis is up")) < originals.len() as u64 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        began.elapsed().as_secs_f64()
    }

    fn worker(&self, number: usize) -> Detector {
        let s3 = self.s3.settings();
        let [port] = process::free_ports();
        let child = Command::new(env!("CARGO_BIN_EXE_facemill"))
            .args(["work", "detect", "--concurrency", "1", "--listen", &format!("127.0.0.1:{port}")])
            .env("FACEMILL_AMQP_URL", self.rabbit.url())
            .env("FACEMILL_REDIS_URL", self.redis.url())
            .env("FACEMILL_S3_BUCKET", s3.bucket)
            .env("FACEMILL_S3_ENDPOINT", s3.endpoint.expect("a server of ours"))
            .env("AWS_ACCESS_KEY_ID", seaweedfs::SeaweedFs::keys().access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", seaweedfs::SeaweedFs::keys().secret_access_key)
            .env("FACEMILL_PREFIX", PREFIX)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this project's program");
        let limit = self.limits.of(number, child.id());
        Detector { child, port, _limit: limit }
    }
}

/// The photos that have passed detect or ended there.
fn left_detect(counts: &Counts) -> u64 {
    let passed = counts.waiting.get(&StageName::Crop).copied().unwrap_or(0);
    passed + counts.ended.values().sum::<u64>()
}

fn photographs() -> Vec<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let data = std::env::var_os("FACEMILL_TEST_DATA").map_or(project.join("../shared/data"), PathBuf::from);
    let mut files = pictures_under(&data.join("photos"));
    if files.is_empty() {
        files = pictures_under(&project.join(".cache/photos"));
    }
    files.sort();
    assert!(!files.is_empty(), "there are no photographs: run `make setup`");
    files
}

fn pictures_under(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(pictures_under(&path));
        } else if path.extension().is_some_and(|extension| extension == "jpg") {
            found.push(path);
        }
    }
    found
}

/// A `facemill work detect` process that is killed when this is dropped.
struct Detector {
    child: Child,
    port: u16,
    _limit: Limit,
}

impl Detector {
    fn is_ready(&self) {
        process::wait_for("a worker that is ready", || {
            let answer = process::send_request(self.port, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            (answer.split(' ').nth(1) == Some("200")).then_some(())
        });
    }
}

impl Drop for Detector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The cgroup hierarchies where CPU quotas can be set.
struct Limits {
    folder: PathBuf,
    version: u8,
}

/// The cgroup of one process. It is removed when this is dropped.
struct Limit(PathBuf);

impl Limits {
    const PERIOD_US: u32 = 50_000;

    /// The first hierarchy in which a cgroup with a quota can be created.
    fn find() -> Option<Self> {
        let places = [("/sys/fs/cgroup", 2), ("/sys/fs/cgroup/cpu", 1), ("/sys/fs/cgroup/cpu,cpuacct", 1)];
        places.into_iter().find_map(|(folder, version)| {
            let limits = Self { folder: folder.into(), version };
            limits.make(usize::MAX).map(|_| limits)
        })
    }

    fn make(&self, number: usize) -> Option<Limit> {
        let folder = self.folder.join(format!("facemill-bench-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).ok()?;
        let limit = Limit(folder);
        let quota = (SHARE * f64::from(Self::PERIOD_US)) as u32;
        let set = |name: &str, value: String| write(&limit.0.join(name), &value).ok();
        match self.version {
            2 => set("cpu.max", format!("{quota} {}", Self::PERIOD_US))?,
            _ => {
                set("cpu.cfs_period_us", Self::PERIOD_US.to_string())?;
                set("cpu.cfs_quota_us", quota.to_string())?;
            }
        }
        Some(limit)
    }

    fn of(&self, number: usize, pid: u32) -> Limit {
        let limit = self.make(number).expect("a cgroup could be made before");
        write(&limit.0.join("cgroup.procs"), &pid.to_string()).expect("a process can be put into its cgroup");
        limit
    }
}

/// Writes to an existing file of the kernel; in an ordinary folder there is none.
fn write(file: &Path, value: &str) -> std::io::Result<()> {
    std::fs::File::options().write(true).open(file)?.write_all(value.as_bytes())
}

impl Drop for Limit {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}
