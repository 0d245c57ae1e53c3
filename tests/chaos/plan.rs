//! The planned faults. They depend on the seed only.

use std::collections::VecDeque;
use std::fmt;

use facemill::domain::{Candidate, StageName};
use facemill::training::random::Random;
use serde::{Deserialize, Serialize};

use super::stages::{Kind, candidate};
use support::failpoints::Step;

/// A kill -9 of a process, before or after its `count`th write of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    pub step: Step,
    pub count: i64,
    pub after: bool,
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = if self.after { "after" } else { "before" };
        write!(f, "{when} {} {}", step_name(self.step), self.count)
    }
}

fn step_name(step: Step) -> &'static str {
    match step {
        Step::Register => "register",
        Step::Begin => "begin",
        Step::Release => "release",
        Step::PutObject => "put object",
        Step::Advance => "advance",
        Step::Publish => "publish",
        Step::PublishLater => "publish for later",
        Step::DeadLetter => "dead-letter",
        Step::PutRecord => "put record",
        Step::Recorded => "recorded",
        Step::Acknowledge => "acknowledge",
        Step::Nack => "nack",
        Step::TakeDeadLetters => "take dead letters",
        Step::Restore => "restore",
        Step::Reopen => "reopen",
    }
}

/// A worker that is started again after each kill.
#[derive(Debug, Clone)]
pub struct WorkerSlot {
    pub name: String,
    pub stage: StageName,
    pub kills: VecDeque<Kill>,
}

/// A fault of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerFault {
    /// kill -9 and restart on the same data.
    RestartRabbitMq,
    RestartRedis,
    /// The server accepts connections and does not respond.
    FreezeS3,
    /// The server refuses connections.
    KillS3,
}

impl fmt::Display for ServerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RestartRabbitMq => "RabbitMQ is killed and restarted",
            Self::RestartRedis => "Redis is killed and restarted",
            Self::FreezeS3 => "S3 is stopped and continued",
            Self::KillS3 => "S3 is killed and restarted",
        })
    }
}

pub struct Plan {
    pub seed: u64,
    pub slots: Vec<WorkerSlot>,
    pub server_faults: Vec<ServerFault>,
    /// The kills of the producer, in order.
    pub producer: Vec<Kill>,
    photos: u64,
    crasher: u64,
}

impl Plan {
    pub const WORKERS_PER_STAGE: usize = 2;
    const STEPS: [Step; 9] = [
        Step::Begin,
        Step::PutObject,
        Step::Advance,
        Step::Publish,
        Step::PublishLater,
        Step::DeadLetter,
        Step::PutRecord,
        Step::Recorded,
        Step::Acknowledge,
    ];

    /// `thorough`: every failpoint at every stage, and every server fault twice. Otherwise every failpoint at one
    /// stage.
    pub fn new(seed: u64, photos: u64, thorough: bool) -> Self {
        let mut random = Random::seeded(seed);
        let mut below = |bound: u64| random.bits() % bound;
        let crasher = photos / 4 + below(photos / 4);
        let mut slots: Vec<WorkerSlot> = StageName::ALL
            .into_iter()
            .flat_map(|stage| (1..=Self::WORKERS_PER_STAGE).map(move |number| (stage, number)))
            .map(|(stage, number)| WorkerSlot { name: format!("{stage}-{number}"), stage, kills: VecDeque::new() })
            .collect();
        for step in Self::STEPS {
            for after in [false, true] {
                let stages: Vec<StageName> = StageName::ALL.into_iter().filter(|&stage| makes(stage, step)).collect();
                let chosen = if thorough { stages } else { vec![stages[below(stages.len() as u64) as usize]] };
                for stage in chosen {
                    // Rare writes are counted from the first.
                    let rare = matches!(step, Step::PublishLater | Step::DeadLetter);
                    let kill = Kill { step, count: if rare { 1 } else { 1 + below(6) as i64 }, after };
                    let mut slots: Vec<&mut WorkerSlot> = slots.iter_mut().filter(|slot| slot.stage == stage).collect();
                    let slot = slots.iter_mut().min_by_key(|slot| slot.kills.len()).expect("every stage has slots");
                    if rare { slot.kills.push_front(kill) } else { slot.kills.push_back(kill) }
                }
            }
        }
        let producer = vec![
            Kill { step: Step::Register, count: 1, after: true },
            Kill { step: Step::Publish, count: 1 + below(photos / 10) as i64, after: false },
        ];
        let mut server_faults =
            vec![ServerFault::RestartRabbitMq, ServerFault::RestartRedis, ServerFault::FreezeS3, ServerFault::KillS3];
        random.shuffle(&mut server_faults);
        // RabbitMQ 3.10 that is killed within a second of its first queue declarations can leave a queue without a
        // leader for good. That is a bug of RabbitMQ.
        if server_faults[0] == ServerFault::RestartRabbitMq {
            server_faults.swap(0, 2);
        }
        if thorough {
            let mut second = server_faults.clone();
            random.shuffle(&mut second);
            server_faults.append(&mut second);
        }
        Self { seed, slots, server_faults, producer, photos, crasher }
    }

    /// The photos, in one portion for each server fault.
    pub fn portions(&self) -> Vec<Vec<Candidate>> {
        let portions = self.server_faults.len() as u64;
        (0..portions)
            .map(|portion| self.photos(self.photos * portion / portions..self.photos * (portion + 1) / portions))
            .collect()
    }

    /// The photos with these numbers. Of ten, five pass all stages; the others are one of each other kind.
    pub fn photos(&self, numbers: std::ops::Range<u64>) -> Vec<Candidate> {
        let photo = |number: u64| {
            let stage = StageName::ALL[(number / 10 % 4) as usize];
            let (kind, stage) = match number % 10 {
                _ if number == self.crasher => (Kind::CrashesWorker, StageName::Detect),
                1 => (Kind::Gone, StageName::Fetch),
                3 => (Kind::Rejected, stage),
                5 => (Kind::RateLimited, stage),
                7 => (Kind::AlwaysFails, stage),
                9 => (Kind::Poison, stage),
                _ => (Kind::Plain, stage),
            };
            candidate(number, kind, stage)
        };
        numbers.map(photo).collect()
    }

    pub fn kills(&self) -> usize {
        self.producer.len() + self.slots.iter().map(|slot| slot.kills.len()).sum::<usize>()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan of seed {}: {} photos, every message enqueued twice", self.seed, self.photos)?;
        let kills = |kills: &mut dyn Iterator<Item = &Kill>| {
            let texts: Vec<String> = kills.map(Kill::to_string).collect();
            if texts.is_empty() { "is not killed".to_owned() } else { format!("is killed {}", texts.join(", ")) }
        };
        writeln!(f, "  producer    {}", kills(&mut self.producer.iter()))?;
        for slot in &self.slots {
            writeln!(f, "  {:11} {}", slot.name, kills(&mut slot.kills.iter()))?;
        }
        writeln!(f, "  photo {} crashes every detect worker that processes it", 1000 + self.crasher)?;
        let server_faults: Vec<String> = self.server_faults.iter().map(ServerFault::to_string).collect();
        write!(f, "  {}", server_faults.join("; "))
    }
}

/// Whether a worker of this stage makes writes of this type.
fn makes(stage: StageName, step: Step) -> bool {
    match step {
        Step::PutObject => matches!(stage, StageName::Fetch | StageName::Crop),
        Step::Publish => stage != StageName::Classify,
        _ => true,
    }
}
