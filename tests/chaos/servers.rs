//! The three servers, and what is done to them.

use std::time::{Duration, Instant};

use super::orders::Place;
use super::plan::Act;
use super::rabbitmq::{self, Alone};
use super::redis::RedisServer;
use super::seaweedfs::SeaweedFs;
use super::worker_processes::Ground;

pub struct Servers {
    rabbit: Alone,
    redis: RedisServer,
    s3: SeaweedFs,
}

impl Servers {
    pub async fn start() -> Self {
        let others = tokio::task::spawn_blocking(|| (RedisServer::start(&[]), SeaweedFs::start()));
        let (rabbit, others) = tokio::join!(rabbitmq::alone(), others);
        let (redis, s3) = others.expect("the servers start");
        Self { rabbit, redis, s3 }
    }

    pub fn place(&self) -> Place {
        let s3 = self.s3.settings();
        Place {
            amqp: self.rabbit.url(),
            redis: self.redis.url(),
            endpoint: s3.endpoint.expect("a server of ours"),
            bucket: s3.bucket,
            access_key_id: s3.keys.access_key_id,
            secret_access_key: s3.keys.secret_access_key,
            prefix: "chaos".into(),
            run: "chaos".parse().expect("a name"),
        }
    }

    /// Does it, waits until some process has noticed, and puts it right.
    pub async fn act(&mut self, act: Act, ground: &Ground) {
        ground.log.say(act);
        let mentions = ground.mentions(act);
        match act {
            Act::RestartRabbitMq => self.rabbit.kill(),
            Act::RestartRedis => self.redis.kill(),
            Act::FreezeS3 => self.s3.signal("STOP"),
            Act::KillS3 => self.s3.kill(),
        }
        noticed(ground, act, mentions).await;
        match act {
            Act::RestartRabbitMq => {
                self.rabbit.start_again();
                self.rabbit.is_up().await;
            }
            Act::RestartRedis => tokio::task::block_in_place(|| self.redis.restart()),
            Act::FreezeS3 => self.s3.signal("CONT"),
            Act::KillS3 => tokio::task::block_in_place(|| self.s3.restart()),
        }
        ground.log.say("noticed, and put right");
    }
}

/// Waits until the processes have complained of the server more often than before.
async fn noticed(ground: &Ground, act: Act, before: usize) {
    const PATIENCE: Duration = Duration::from_secs(30);
    let began = Instant::now();
    while ground.mentions(act) <= before {
        if began.elapsed() > PATIENCE {
            return ground.log.fault("nobody has noticed".into());
        }
        // Their logs tell, and a log rings no bell: looking again, up to a deadline, is all there is.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
