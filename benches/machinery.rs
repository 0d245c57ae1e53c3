//! The cost of the pipeline without image processing: `cargo bench --bench machinery [-- --json]`,
//! `FACEMILL_BENCH_PHOTOS=20000`, `FACEMILL_BENCH_EXTENT=queues` (or `records`, `objects`) for one row only.
//!
//! Runs stages without computation on real servers. Measures photos per second through all four queues, and the CPU
//! time of workers and servers for one photo at one stage. Each worker is a process of its own, so that its CPU time
//! contains nothing else.

use support::servers::cpu;
use support::servers::rabbitmq;
use support::servers::redis;
use support::servers::seaweedfs::SeaweedFs;
use support::synthetic;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use facemill::archive::records::Records;
use facemill::broker::rabbitmq::{RabbitMq, RabbitMqSettings};
use facemill::domain::{
    Align, Candidate, ContentHash, Crop, Face, ImageFormat, LandmarkScheme, Original, Photo, Prediction, RunName,
    Search, StageName,
};
use facemill::domain::{Cause, CauseCode};
use facemill::ledger::Ledger;
use facemill::ledger::redis::Redis;
use facemill::objects::s3::{Credentials, Keys, S3, S3Settings};
use facemill::objects::{ObjectKey, Objects};
use facemill::pipeline::event::NullObserver;
use facemill::pipeline::gate::Gate;
use facemill::pipeline::producer;
use facemill::pipeline::stage::{Outcome, Retry, Stage};
use facemill::pipeline::stages::runs_native_code;
use facemill::pipeline::worker::{Worker, WorkerSettings};
use facemill::redis::{RedisClient, RedisSettings};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

const ORDERS: &str = "FACEMILL_BENCH_ORDERS";
const HOPS: f64 = StageName::ALL.len() as f64;

/// What a measurement includes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Extent {
    /// Queues and ledger.
    Queues,
    /// Also the record of every photo in S3, as real workers write it.
    Records,
    /// Also an original and a face in S3 for every photo, as fetch and crop store them.
    Objects,
}

impl Extent {
    const ALL: [Extent; 3] = [Self::Queues, Self::Records, Self::Objects];

    /// Those that the environment asks for.
    fn chosen() -> Vec<Self> {
        let chosen = std::env::var("FACEMILL_BENCH_EXTENT").ok();
        let is_chosen = |extent: &Self| chosen.as_ref().is_none_or(|chosen| *chosen == extent.prefix());
        Self::ALL.into_iter().filter(is_chosen).collect()
    }

    fn prefix(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Queues => "queues and ledger",
            Self::Records => "with records in S3",
            Self::Objects => "with originals and faces too",
        }
    }
}

/// The parameters of a worker process.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Orders {
    stage: StageName,
    extent: Extent,
    concurrency: usize,
    place: Place,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    amqp: String,
    redis: String,
    endpoint: String,
    bucket: String,
    access_key_id: String,
    secret_access_key: String,
    prefix: String,
    run: RunName,
}

impl Place {
    fn broker(&self) -> RabbitMq {
        let settings = RabbitMqSettings::new(&self.amqp).expect("a URL").with_prefix(&self.prefix).expect("a prefix");
        RabbitMq::new(settings).expect("settings that can be used")
    }

    fn ledger(&self) -> Redis {
        let settings = RedisSettings { prefix: self.prefix.clone(), ..RedisSettings::new(&self.redis) };
        Redis::new(Arc::new(RedisClient::new(settings).expect("a URL")))
    }

    fn objects(&self) -> S3 {
        let keys = Keys {
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            session_token: None,
        };
        let settings = S3Settings::new(&self.bucket, Credentials::Keys(keys));
        S3::new(S3Settings { endpoint: Some(self.endpoint.clone()), path_style: true, ..settings })
    }
}

/// Adds the results of a real stage without computing them.
struct Copying {
    name: StageName,
    /// Stores originals and faces, if there is one.
    objects: Option<S3>,
}

#[async_trait]
impl Stage for Copying {
    fn name(&self) -> StageName {
        self.name
    }

    async fn run(&self, photo: &Photo) -> Outcome {
        let mut photo = Box::new(photo.clone());
        // The photo id makes each object different.
        let seed = format!("{} {}", photo.candidate.photo_id, self.name);
        let (sha256, format) = (ContentHash::of(seed.as_bytes()), ImageFormat::Png);
        let key = match self.name {
            StageName::Fetch => {
                photo.facts.original = Some(Original { sha256, bytes: 4096, format });
                Some(ObjectKey::original(sha256, format))
            }
            StageName::Detect => {
                photo.facts.face = Some(face());
                None
            }
            StageName::Crop => {
                photo.facts.crop = Some(crop(sha256));
                Some(ObjectKey::face(sha256, format))
            }
            StageName::Classify => {
                photo.facts.prediction = Some(Prediction {
                    p_ok: 0.9047,
                    model: "copying 1".into(),
                    model_sha256: ContentHash::of(b"copying 1"),
                });
                None
            }
        };
        if let (Some(key), Some(objects)) = (key, &self.objects) {
            let body = Bytes::from(seed.into_bytes().repeat(200));
            if let Err(error) = objects.put(&key, body, format.media_type()).await {
                return Retry::wait(Cause::new(CauseCode::StoreUnavailable, error.to_string()), None);
            }
        }
        Outcome::Advance(photo)
    }
}

fn landmarks() -> Vec<[f32; 2]> {
    (0..68u8).map(|index| [f32::from(index) * 3.7, f32::from(index) * 2.9]).collect()
}

fn face() -> Face {
    let (angle, score) = (-7.25, 1.734);
    Face {
        width: 900,
        height: 1200,
        angle,
        score,
        landmarks: landmarks(),
        landmark_scheme: LandmarkScheme::Ibug,
        faces: 1,
        search: Search::Guided,
    }
}

fn crop(sha256: ContentHash) -> Crop {
    Crop {
        sha256,
        format: ImageFormat::Png,
        align: Align::Paper,
        fill: Default::default(),
        angle: -7.25,
        centre: [451.5, 602.25],
        side: 611.5,
        size: 611,
        landmarks: landmarks(),
        mirrored: 0.0625,
        mirrored_head: 0.015,
        mirrored_grid: vec![0.0625; 16],
        blur: 103.5,
        exposure: 0.47,
        quality: None,
        fingerprint: None,
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    if let Ok(orders) = std::env::var(ORDERS) {
        runtime.block_on(work(serde_json::from_str(&orders).expect("orders")));
        return;
    }
    let photos = std::env::var("FACEMILL_BENCH_PHOTOS").ok().and_then(|count| count.parse().ok()).unwrap_or(3000);
    assert!(!Extent::chosen().is_empty(), "FACEMILL_BENCH_EXTENT is queues, records or objects");
    let figures: Vec<Figures> = runtime.block_on(async {
        let rabbit = rabbitmq::exclusive().await;
        let (redis, s3) = tokio::task::block_in_place(|| (redis::RedisServer::start(&[]), SeaweedFs::start()));
        let servers = Servers { rabbit, redis, s3 };
        let mut figures = Vec::new();
        for extent in Extent::chosen() {
            figures.push(measure(&servers, extent, photos).await);
        }
        figures
    });
    match std::env::args().any(|argument| argument == "--json") {
        true => println!("{}", serde_json::to_string_pretty(&figures).expect("JSON")),
        false => print(&figures, photos),
    }
}

/// Runs a worker process until its standard input is closed, so not longer than its parent.
async fn work(orders: Orders) {
    let Orders { stage, extent, concurrency, place } = orders;
    let objects = place.objects();
    let worker = Worker {
        stage: Arc::new(Copying { name: stage, objects: (extent == Extent::Objects).then(|| objects.clone()) }),
        broker: Arc::new(place.broker()),
        ledger: Arc::new(place.ledger()),
        records: (extent != Extent::Queues).then(|| Records::new(Arc::new(objects))),
        observer: Arc::new(NullObserver),
        gate: runs_native_code(stage).then(Gate::default),
        name: format!("{stage}-{}", std::process::id()),
        settings: WorkerSettings { concurrency, ..WorkerSettings::default() },
    };
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    std::thread::spawn(move || {
        let _ = std::io::read_to_string(std::io::stdin());
        stop.cancel();
    });
    worker.run(shutdown).await.expect("a worker that can go on");
}

struct Servers {
    rabbit: rabbitmq::ExclusiveServer,
    redis: redis::RedisServer,
    s3: SeaweedFs,
}

impl Servers {
    fn place(&self, extent: Extent) -> Place {
        let s3 = self.s3.settings();
        Place {
            amqp: self.rabbit.url(),
            redis: self.redis.url(),
            endpoint: s3.endpoint.expect("a server of ours"),
            bucket: s3.bucket,
            access_key_id: SeaweedFs::keys().access_key_id,
            secret_access_key: SeaweedFs::keys().secret_access_key,
            prefix: format!("bench-{}", extent.prefix()),
            run: format!("bench-{}", extent.prefix()).parse().expect("a name"),
        }
    }

    /// CPU seconds of RabbitMQ, Redis and S3 so far.
    fn cpu(&self) -> [f64; 3] {
        [self.rabbit.pid(), self.redis.process.pid(), self.s3.process.pid()].map(cpu::seconds_of_tree)
    }
}

/// One row of the table. CPU time in microseconds for one photo at one stage.
#[derive(Debug, Serialize)]
struct Figures {
    extent: &'static str,
    photos_per_second: f64,
    workers_us: f64,
    rabbitmq_us: f64,
    redis_us: f64,
    s3_us: f64,
}

async fn measure(servers: &Servers, extent: Extent, photos: u64) -> Figures {
    const CONCURRENCY: usize = 16;
    /// Photos before the measurement, to open connections and fill caches.
    const WARM_UP: u64 = 200;
    let place = servers.place(extent);
    let workers: Vec<Member> = StageName::ALL
        .into_iter()
        .map(|stage| Member::start(&Orders { stage, extent, concurrency: CONCURRENCY, place: place.clone() }))
        .collect();
    enqueue(&place, 0..WARM_UP).await;
    all_ended(&place, WARM_UP).await;
    let own = || workers.iter().map(|worker| cpu::seconds_of_tree(worker.0.id())).sum::<f64>();

    // The servers' CPU time includes enqueueing; the workers' does not.
    let (began, own_before, before) = (Instant::now(), own(), servers.cpu());
    enqueue(&place, WARM_UP..WARM_UP + photos).await;
    all_ended(&place, WARM_UP + photos).await;
    let (took, own_after, after) = (began.elapsed().as_secs_f64(), own(), servers.cpu());

    let each = |seconds: f64| 1e6 * seconds / (photos as f64 * HOPS);
    Figures {
        extent: extent.name(),
        photos_per_second: photos as f64 / took,
        workers_us: each(own_after - own_before),
        rabbitmq_us: each(after[0] - before[0]),
        redis_us: each(after[1] - before[1]),
        s3_us: each(after[2] - before[2]),
    }
}

async fn enqueue(place: &Place, numbers: std::ops::Range<u64>) {
    let candidates: Vec<Candidate> = numbers.map(synthetic::candidate).collect();
    let (ledger, broker) = (place.ledger(), place.broker());
    producer::enqueue(&place.run, &candidates, &ledger, &broker, None, &|_| ())
        .await
        .expect("servers that take photos in");
}

async fn all_ended(place: &Place, photos: u64) {
    let ledger = place.ledger();
    while ledger.counts(&place.run).await.expect("Redis is up").ended.values().sum::<u64>() < photos {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A worker process that ends when this is dropped.
struct Member(Child);

impl Member {
    fn start(orders: &Orders) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a path"));
        command.env(ORDERS, serde_json::to_string(orders).expect("JSON")).stdin(Stdio::piped());
        Self(command.spawn().expect("this program can be run"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn print(figures: &[Figures], photos: u64) {
    println!("{photos} photos through four stages that only copy; CPU in microseconds a photo and hop\n");
    println!("{:30} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "photos/s", "workers", "RabbitMQ", "Redis", "S3");
    for row in figures {
        let Figures { extent, photos_per_second, workers_us, rabbitmq_us, redis_us, s3_us } = row;
        println!("{extent:30} {photos_per_second:9.0} {workers_us:9.0} {rabbitmq_us:9.0} {redis_us:9.0} {s3_us:9.0}");
    }
}
