//! The four workers of an installation, each a process of its own.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use facemill::domain::{Ending, RunName, StageName};
use facemill::ledger::redis::Redis;
use facemill::ledger::{Counts, Ledger};
use facemill::redis::{RedisClient, RedisSettings};
use support::servers::process::free_ports;
use support::servers::rabbitmq::{self, ExclusiveServer};
use support::servers::redis::RedisServer;
use support::servers::seaweedfs::SeaweedFs;

use crate::Figures;
use crate::photos::Photos;
use crate::processes::{Cost, Process, finish, wait_until_ready};

/// RabbitMQ, Redis and an S3 server.
pub struct Installation {
    runtime: tokio::runtime::Runtime,
    rabbit: ExclusiveServer,
    redis: RedisServer,
    s3: SeaweedFs,
}

/// What a stage's worker cost: its start, and the whole.
pub struct StageCost {
    stage: StageName,
    startup: f64,
    whole: Cost,
    faces: usize,
}

impl Installation {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        let rabbit = runtime.block_on(rabbitmq::exclusive());
        Self { runtime, rabbit, redis: RedisServer::start(&[]), s3: SeaweedFs::start() }
    }

    fn command(&self, program: &Path, run: &RunName) -> Command {
        let s3 = self.s3.settings();
        let mut command = Command::new(program);
        command
            .env("FACEMILL_AMQP_URL", self.rabbit.url())
            .env("FACEMILL_REDIS_URL", self.redis.url())
            .env("FACEMILL_S3_BUCKET", s3.bucket)
            .env("FACEMILL_S3_ENDPOINT", s3.endpoint.expect("a server of ours"))
            .env("AWS_ACCESS_KEY_ID", SeaweedFs::keys().access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", SeaweedFs::keys().secret_access_key)
            .env("FACEMILL_RUN", run.to_string());
        command
    }

    /// Sends all photos through the four workers.
    pub fn measure(&mut self, program: &Path, photos: &Photos, round: usize) -> Vec<StageCost> {
        let run: RunName = format!("bench-{round}").parse().expect("a name");
        let workers: Vec<(StageName, Process, u16)> = StageName::ALL
            .into_iter()
            .map(|stage| {
                let [port] = free_ports();
                let mut command = self.command(program, &run);
                command.args(["work", stage.as_str(), "--listen", &format!("127.0.0.1:{port}")]);
                (stage, Process::start(command.args(photos.stage_arguments())), port)
            })
            .collect();
        let startups: Vec<f64> = workers
            .iter()
            .map(|(_, worker, port)| {
                wait_until_ready(*port);
                worker.cpu()
            })
            .collect();
        let began = Instant::now();
        finish(self.command(program, &run).arg("produce").arg(photos.list()));
        let ledger = RedisSettings::new(self.redis.url());
        let ledger = Redis::new(Arc::new(RedisClient::new(ledger).expect("a URL")));
        let counts = self.until_all_ended(&ledger, &run, photos.count() as u64);
        let wall = began.elapsed().as_secs_f64();
        let faces = counts.ended.get(&Ending::Predicted).map_or(0, |count| *count as usize);
        let costs = workers.into_iter().zip(startups).map(|((stage, worker, _), startup)| {
            let whole = Cost { wall, ..worker.end() };
            StageCost { stage, startup, whole, faces }
        });
        costs.collect()
    }

    fn until_all_ended(&self, ledger: &Redis, run: &RunName, photos: u64) -> Counts {
        const PERIOD: Duration = Duration::from_millis(50);
        loop {
            let counts = self.runtime.block_on(ledger.counts(run)).expect("Redis is up");
            if counts.ended.values().sum::<u64>() >= photos {
                return counts;
            }
            std::thread::sleep(PERIOD);
        }
    }
}

/// A line for each stage, and one for all. `rounds`: the workers of each round.
pub fn figures(rounds: &[Vec<StageCost>], photos: usize) -> Vec<Figures> {
    let Some(last) = rounds.last() else { return Vec::new() };
    let mut lines: Vec<Figures> = Vec::new();
    for (number, StageCost { stage, faces, .. }) in last.iter().enumerate() {
        let of_stage = || rounds.iter().map(|round| &round[number]);
        let mean = |value: &dyn Fn(&StageCost) -> f64| of_stage().map(value).sum::<f64>() / rounds.len() as f64;
        lines.push(Figures {
            what: format!("work {stage}"),
            ms: 1000.0 * mean(&|cost| cost.whole.cpu - cost.startup) / photos as f64,
            startup: mean(&|cost| cost.startup),
            peak: of_stage().map(|cost| cost.whole.peak).max().unwrap_or(0),
            written: None,
            rate: photos as f64 / mean(&|cost| cost.whole.wall),
            faces: *faces,
        });
    }
    let all = Figures {
        what: "work, all four".into(),
        ms: lines.iter().map(|line| line.ms).sum(),
        startup: lines.iter().map(|line| line.startup).sum(),
        peak: lines.iter().map(|line| line.peak).sum(),
        written: None,
        rate: lines[0].rate,
        faces: lines[0].faces,
    };
    lines.push(all);
    lines
}
