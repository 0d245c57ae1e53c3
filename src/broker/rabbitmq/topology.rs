//! Every name that we use in RabbitMQ, and what stands behind it. The table in `docs/names.md` lists the same.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, ExchangeKind};

use super::error::map_error;
use crate::broker::BrokerError;
use crate::domain::StageName;

/// The tiers of delay, seconds. A message waits in the queue of the shortest tier that is long enough.
pub const TIERS: [u32; 5] = [5, 30, 120, 600, 3600];

/// How often RabbitMQ hands a message to consumers that die over it before it is a dead letter. A safety net below the
/// worker's own limit, for messages that kill even the code which counts.
pub const DELIVERY_LIMIT: i64 = 20;

/// For queues whose letters are only looked at: RabbitMQ 3 knows no word for "unlimited" and RabbitMQ 4 has a limit of
/// 20 where none is given.
pub const NO_DELIVERY_LIMIT: i64 = i32::MAX as i64;

/// Header of a message: the W3C trace context of the span that published it.
pub const TRACEPARENT: &str = "traceparent";
/// Header that RabbitMQ adds: how often the message was handed out without an answer. Missing means 0.
pub const DELIVERY_COUNT: &str = "x-delivery-count";
/// Header that RabbitMQ adds when it dead-letters a message: whence, why and when.
pub const DEATHS: &str = "x-death";
/// `type` of a dead letter that a worker wrote; what RabbitMQ itself laid among the dead has none.
pub const LETTER_TYPE: &str = "facemill.dead-letter";
pub const CONTENT_TYPE: &str = "application/json";

/// The names, all of which begin with the installation's prefix. A queue's routing key is its name.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

/// A queue and the arguments that it is declared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    pub name: String,
    pub arguments: Vec<(&'static str, Argument)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    Text(String),
    Number(i64),
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The direct exchange that everything is published to.
    pub fn exchange(&self) -> &str {
        &self.prefix
    }

    /// Exchange and queue that catch what the exchange cannot route.
    pub fn unroutable(&self) -> String {
        format!("{}.unroutable", self.prefix)
    }

    pub fn stage(&self, stage: StageName) -> String {
        format!("{}.{stage}", self.prefix)
    }

    pub fn retry(&self, stage: StageName, tier: u32) -> String {
        format!("{}.{stage}.retry.{tier}", self.prefix)
    }

    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The stage whose queue or delay queue has this name.
    pub fn stage_of(&self, queue: &str) -> Option<StageName> {
        let rest = queue.strip_prefix(self.prefix.as_str())?.strip_prefix('.')?;
        rest.split('.').next()?.parse().ok()
    }

    /// The delay queue for a wait: the tier is rounded up, and the longest serves for all longer waits.
    pub fn retry_for(&self, stage: StageName, delay: Duration) -> String {
        let long_enough = |tier: &&u32| Duration::from_secs(u64::from(**tier)) >= delay;
        let tier = TIERS.iter().find(long_enough).unwrap_or(&TIERS[TIERS.len() - 1]);
        self.retry(stage, *tier)
    }

    /// All queues. They are quorum queues: replicated where there are several nodes, with confirms that mean "on disk",
    /// and with dead-lettering that takes a message from one queue only when the next has it.
    pub fn queues(&self) -> Vec<Queue> {
        let mut queues = Vec::new();
        for stage in StageName::ALL {
            let mut arguments = vec![("x-delivery-limit", Argument::Number(DELIVERY_LIMIT))];
            arguments.extend(self.dead_lettered_to(self.dead()));
            queues.push(quorum(self.stage(stage), arguments));
            for tier in TIERS {
                let mut arguments = vec![("x-message-ttl", Argument::Number(i64::from(tier) * 1000))];
                arguments.extend(self.dead_lettered_to(self.stage(stage)));
                queues.push(quorum(self.retry(stage, tier), arguments));
            }
        }
        for name in [self.dead(), self.unroutable()] {
            queues.push(quorum(name, vec![("x-delivery-limit", Argument::Number(NO_DELIVERY_LIMIT))]));
        }
        queues
    }

    fn dead_lettered_to(&self, queue: String) -> [(&'static str, Argument); 4] {
        let text = |text: &str| Argument::Text(text.into());
        [
            ("x-dead-letter-exchange", text(self.exchange())),
            ("x-dead-letter-routing-key", Argument::Text(queue)),
            ("x-dead-letter-strategy", text("at-least-once")),
            // At-least-once dead-lettering asks for it. Our queues have no length limit, so nothing is ever rejected.
            ("x-overflow", text("reject-publish")),
        ]
    }

    /// Declares exchanges, queues and bindings. What is there already stays as it is.
    pub(super) async fn declare(&self, channel: &Channel) -> Result<(), BrokerError> {
        self.declare_exchanges(channel).await.map_err(|error| refused(&error))?;
        for queue in self.queues() {
            let arguments = table(queue.arguments);
            let options = QueueDeclareOptions::durable();
            let declared = channel.queue_declare(queue.name.as_str().into(), options, arguments).await;
            declared.map_err(|error| refused(&error))?;
            let exchange = if queue.name == self.unroutable() { self.unroutable() } else { self.exchange().to_owned() };
            let bound = channel
                .queue_bind(
                    queue.name.as_str().into(),
                    exchange.into(),
                    queue.name.as_str().into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await;
            bound.map_err(|error| map_error(format!("bind the queue {}", queue.name), &error))?;
        }
        Ok(())
    }

    async fn declare_exchanges(&self, channel: &Channel) -> lapin::Result<()> {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let unroutable = self.unroutable();
        let nothing = FieldTable::default();
        channel.exchange_declare(unroutable.as_str().into(), ExchangeKind::Fanout, durable, nothing).await?;
        let alternate = table(vec![("alternate-exchange", Argument::Text(unroutable))]);
        channel.exchange_declare(self.exchange().into(), ExchangeKind::Direct, durable, alternate).await
    }
}

fn quorum(name: String, mut arguments: Vec<(&'static str, Argument)>) -> Queue {
    arguments.insert(0, ("x-queue-type", Argument::Text("quorum".into())));
    Queue { name, arguments }
}

fn table(arguments: Vec<(&'static str, Argument)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, argument) in arguments {
        let value = match argument {
            Argument::Text(text) => AMQPValue::LongString(LongString::from(text)),
            Argument::Number(number) => AMQPValue::LongLongInt(number),
        };
        table.insert(key.into(), value);
    }
    table
}

/// RabbitMQ's own words name the queue and the argument: "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/':
/// received '5000' but current is '7000'".
fn refused(error: &lapin::Error) -> BrokerError {
    const PRECONDITION_FAILED: u16 = 406;
    match error.kind() {
        lapin::ErrorKind::ProtocolError(said) if said.get_id() == PRECONDITION_FAILED => BrokerError::Refused {
            what: "declare the queues".into(),
            detail: format!(
                "{}; something of that name was made by hand or by another program: delete it once it is empty, or \
                 choose another prefix",
                said.get_message()
            ),
        },
        _ => map_error("declare the queues".into(), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up_to_a_tier() {
        let names = Names::new("p");
        let tier = |seconds: f64| names.retry_for(StageName::Crop, Duration::from_secs_f64(seconds));
        for (wait, queue) in [(0.0, "5"), (5.0, "5"), (5.001, "30"), (30.0, "30"), (599.0, "600"), (9e9, "3600")] {
            assert_eq!(tier(wait), format!("p.crop.retry.{queue}"), "{wait} s");
        }
    }

    #[test]
    fn a_queue_tells_its_stage() {
        let names = Names::new("my.mill");
        for stage in StageName::ALL {
            assert_eq!(names.stage_of(&names.stage(stage)), Some(stage));
            assert_eq!(names.stage_of(&names.retry(stage, 5)), Some(stage));
        }
        for foreign in ["my.mill.dead", "my.millfetch", "other.fetch", ""] {
            assert_eq!(names.stage_of(foreign), None, "{foreign}");
        }
    }

    /// The rows of the table under a heading of `docs/names.md`, cells stripped of their backticks.
    fn rows(heading: &str) -> Vec<Vec<String>> {
        let section = include_str!("../../../docs/names.md").split("\n## ").find(|part| part.starts_with(heading));
        let lines = section.unwrap_or_else(|| panic!("no `{heading}`")).lines().filter(|line| line.starts_with('|'));
        let cells = |line: &str| line.trim_matches('|').split(" | ").map(|c| c.trim().replace('`', "")).collect();
        lines.skip(2).map(cells).collect()
    }

    #[test]
    fn the_documentation_lists_the_same_queues() {
        let described = |queue: Queue| {
            let argument = |(key, argument): &(&str, Argument)| match argument {
                Argument::Text(text) => format!("{key}={text}"),
                Argument::Number(number) => format!("{key}={number}"),
            };
            let arguments: Vec<String> = queue.arguments.iter().map(argument).collect();
            (queue.name, arguments.join(", "))
        };
        let mut queues: Vec<_> = Names::new("facemill").queues().into_iter().map(described).collect();
        let mut listed = Vec::new();
        for row in rows("RabbitMQ: queues") {
            for stage in StageName::ALL {
                let spelt = |cell: &str| cell.replace("STAGE", stage.as_str());
                let tiers = if row[0].contains("SECONDS") { TIERS.to_vec() } else { vec![0] };
                for tier in tiers {
                    let spelt = |cell: &str| {
                        spelt(cell).replace("SECONDS000", &format!("{tier}000")).replace("SECONDS", &tier.to_string())
                    };
                    listed.push((spelt(&row[0]), spelt(&row[1])));
                }
            }
        }
        queues.sort();
        listed.sort();
        listed.dedup();
        assert_eq!(queues, listed);
    }

    #[test]
    fn the_documentation_lists_the_same_exchanges_and_fields() {
        let names = Names::new("facemill");
        let first = |heading| rows(heading).into_iter().map(|row| row[0].clone()).collect::<Vec<_>>();
        assert_eq!(first("RabbitMQ: exchanges"), [names.exchange().to_owned(), names.unroutable()]);
        let fields = ["message_id", "content_type", "type", TRACEPARENT, DELIVERY_COUNT, DEATHS];
        assert_eq!(first("RabbitMQ: properties"), fields);
        let text = include_str!("../../../docs/names.md");
        for value in [CONTENT_TYPE, LETTER_TYPE] {
            assert!(text.contains(&format!("`{value}`")), "{value}");
        }
    }
}
