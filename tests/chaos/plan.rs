//! What will be done to whom. It follows from the seed alone.

use std::collections::VecDeque;
use std::fmt;

use facemill::classifier::random::Random;
use facemill::domain::{Candidate, StageName};
use serde::{Deserialize, Serialize};

use super::failpoints::Step;
use super::stages::{Kind, candidate};

/// A process's death: kill -9 before or after the `count`th write of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    pub step: Step,
    pub count: i64,
    pub after: bool,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = if self.after { "after" } else { "before" };
        write!(f, "{when} {} {}", words(self.step), self.count)
    }
}

pub fn words(step: Step) -> &'static str {
    match step {
        Step::Register => "register",
        Step::Begin => "begin",
        Step::Release => "release",
        Step::PutObject => "put object",
        Step::Advance => "advance",
        Step::Publish => "publish",
        Step::PublishLater => "publish for later",
        Step::DeadLetter => "dead_letter",
        Step::PutRecord => "put record",
        Step::Recorded => "recorded",
        Step::Acknowledge => "acknowledge",
        Step::HandBack => "hand back",
        Step::TakeDeadLetters => "take_dead_letters",
        Step::Restore => "restore",
        Step::Reopen => "reopen",
    }
}

/// A place for a worker: when one dies there the next one is started.
#[derive(Debug, Clone)]
pub struct Post {
    pub name: String,
    pub stage: StageName,
    pub fates: VecDeque<Fate>,
}

/// What happens to a server while photos flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// kill -9, and started again on its data.
    RestartRabbitMq,
    RestartRedis,
    /// It takes connections and answers nothing.
    FreezeS3,
    /// It refuses connections.
    KillS3,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RestartRabbitMq => "RabbitMQ is killed and started again",
            Self::RestartRedis => "Redis is killed and started again",
            Self::FreezeS3 => "S3 freezes and thaws",
            Self::KillS3 => "S3 is killed and started again",
        })
    }
}

pub struct Plan {
    pub seed: u64,
    pub posts: Vec<Post>,
    pub acts: Vec<Act>,
    /// The deaths of the producer, one after the other.
    pub producer: Vec<Fate>,
    photos: u64,
    killer: u64,
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

    /// `thorough`: every failpoint of every stage, and the servers' troubles twice; otherwise every failpoint once.
    pub fn new(seed: u64, photos: u64, thorough: bool) -> Self {
        let mut random = Random::seeded(seed);
        let mut below = |bound: u64| random.bits() % bound;
        let killer = photos / 4 + below(photos / 4);
        let mut posts: Vec<Post> = StageName::ALL
            .into_iter()
            .flat_map(|stage| (1..=Self::WORKERS_PER_STAGE).map(move |number| (stage, number)))
            .map(|(stage, number)| Post { name: format!("{stage}-{number}"), stage, fates: VecDeque::new() })
            .collect();
        for step in Self::STEPS {
            for after in [false, true] {
                let stages: Vec<StageName> = StageName::ALL.into_iter().filter(|&stage| takes(stage, step)).collect();
                let chosen = if thorough { stages } else { vec![stages[below(stages.len() as u64) as usize]] };
                for stage in chosen {
                    // What happens seldom is not waited for.
                    let seldom = matches!(step, Step::PublishLater | Step::DeadLetter);
                    let fate = Fate { step, count: if seldom { 1 } else { 1 + below(6) as i64 }, after };
                    let mut posts: Vec<&mut Post> = posts.iter_mut().filter(|post| post.stage == stage).collect();
                    let least = posts.iter_mut().min_by_key(|post| post.fates.len()).expect("every stage has posts");
                    if seldom { least.fates.push_front(fate) } else { least.fates.push_back(fate) }
                }
            }
        }
        let producer = vec![
            Fate { step: Step::Register, count: 1, after: true },
            Fate { step: Step::Publish, count: 1 + below(photos / 10) as i64, after: false },
        ];
        let mut acts = vec![Act::RestartRabbitMq, Act::RestartRedis, Act::FreezeS3, Act::KillS3];
        random.shuffle(&mut acts);
        // RabbitMQ 3.10 that is killed within a second of declaring its first queues can leave the last one without a
        // leader for good. That is its own fault, and not what is tried here.
        if acts[0] == Act::RestartRabbitMq {
            acts.swap(0, 2);
        }
        if thorough {
            let mut again = acts.clone();
            random.shuffle(&mut again);
            acts.append(&mut again);
        }
        Self { seed, posts, acts, producer, photos, killer }
    }

    /// The photos, in as many portions as there are acts.
    pub fn portions(&self) -> Vec<Vec<Candidate>> {
        let portions = self.acts.len() as u64;
        (0..portions)
            .map(|portion| self.photos(self.photos * portion / portions..self.photos * (portion + 1) / portions))
            .collect()
    }

    /// Photos of these numbers. Of ten, five go all the way, and one each is gone, rejected, late, tired, harmful.
    pub fn photos(&self, numbers: std::ops::Range<u64>) -> Vec<Candidate> {
        let photo = |number: u64| {
            let stage = StageName::ALL[(number / 10 % 4) as usize];
            let (kind, stage) = match number % 10 {
                _ if number == self.killer => (Kind::Killer, StageName::Detect),
                1 => (Kind::Gone, StageName::Fetch),
                3 => (Kind::Rejected, stage),
                5 => (Kind::Late, stage),
                7 => (Kind::Tired, stage),
                9 => (Kind::Harmful, stage),
                _ => (Kind::Plain, stage),
            };
            candidate(number, kind, stage)
        };
        numbers.map(photo).collect()
    }

    pub fn deaths(&self) -> usize {
        self.producer.len() + self.posts.iter().map(|post| post.fates.len()).sum::<usize>()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan of seed {}: {} photos, every message enqueued twice", self.seed, self.photos)?;
        let fates = |fates: &mut dyn Iterator<Item = &Fate>| {
            let told: Vec<String> = fates.map(Fate::to_string).collect();
            if told.is_empty() { "lives".to_owned() } else { format!("dies {}; then lives", told.join(", ")) }
        };
        writeln!(f, "  producer    {}", fates(&mut self.producer.iter()))?;
        for post in &self.posts {
            writeln!(f, "  {:11} {}", post.name, fates(&mut post.fates.iter()))?;
        }
        writeln!(f, "  photo {} kills every detect worker that runs it", 1000 + self.killer)?;
        let acts: Vec<String> = self.acts.iter().map(Act::to_string).collect();
        write!(f, "  {}", acts.join("; "))
    }
}

/// Whether a worker of this stage makes such writes.
fn takes(stage: StageName, step: Step) -> bool {
    match step {
        Step::PutObject => matches!(stage, StageName::Fetch | StageName::Crop),
        Step::Publish => stage != StageName::Classify,
        _ => true,
    }
}
