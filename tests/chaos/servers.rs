//! The three servers and their faults.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::child::Endpoints;
use super::plan::ServerFault;
use super::worker_processes::Environment;
use support::servers::rabbitmq::{self, ExclusiveServer};
use support::servers::redis::RedisServer;
use support::servers::seaweedfs::SeaweedFs;

pub struct Servers {
    rabbit: ExclusiveServer,
    redis: RedisServer,
    s3: SeaweedFs,
}

impl Servers {
    pub async fn start() -> Self {
        let others = tokio::task::spawn_blocking(|| (RedisServer::start(&[]), SeaweedFs::start()));
        let (rabbit, others) = tokio::join!(rabbitmq::exclusive(), others);
        let (redis, s3) = others.expect("the servers start");
        Self { rabbit, redis, s3 }
    }

    pub fn endpoints(&self) -> Endpoints {
        let s3 = self.s3.settings();
        Endpoints {
            amqp: self.rabbit.url(),
            redis: self.redis.url(),
            endpoint: s3.endpoint.expect("a started server"),
            bucket: s3.bucket,
            access_key_id: SeaweedFs::keys().access_key_id,
            secret_access_key: SeaweedFs::keys().secret_access_key,
            prefix: "chaos".into(),
            run: "chaos".parse().expect("a name"),
        }
    }

    /// The logs of RabbitMQ and S3.
    pub fn logs(&self) -> Vec<PathBuf> {
        self.rabbit.logs().into_iter().chain([self.s3.process.log()]).collect()
    }

    /// Injects a fault, waits until a process has noticed it, and repairs the server.
    pub async fn inject(&mut self, fault: ServerFault, environment: &Environment) {
        environment.log.say(fault);
        let mentions = environment.mentions(fault);
        match fault {
            ServerFault::RestartRabbitMq => self.rabbit.kill(),
            ServerFault::RestartRedis => self.redis.process.kill(),
            ServerFault::FreezeS3 => self.s3.process.freeze(),
            ServerFault::KillS3 => self.s3.process.kill(),
        }
        noticed(environment, fault, mentions).await;
        match fault {
            ServerFault::RestartRabbitMq => {
                self.rabbit.restart();
                self.rabbit.wait_until_up().await;
            }
            ServerFault::RestartRedis => tokio::task::block_in_place(|| self.redis.restart()),
            ServerFault::FreezeS3 => self.s3.process.thaw(),
            ServerFault::KillS3 => tokio::task::block_in_place(|| self.s3.restart()),
        }
        environment.log.say("noticed and repaired");
    }
}

/// Waits until the logs of the processes mention the server more often than before.
async fn noticed(environment: &Environment, fault: ServerFault, before: usize) {
    let began = Instant::now();
    while environment.mentions(fault) <= before {
        if began.elapsed() > support::PATIENCE {
            return environment.log.fault("no process has noticed the fault".into());
        }
        // The logs are files of other processes; there is no signal to wait for.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
