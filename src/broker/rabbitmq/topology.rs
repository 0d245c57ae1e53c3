//! All names that facemill uses in RabbitMQ, and their declaration. The tables in `docs/names.md` list the same names.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, ExchangeKind};

use super::error::map_error;
use crate::broker::BrokerError;
use crate::domain::StageName;
use crate::retry::{TIERS, tier_for};

/// After so many deliveries without an acknowledgement, RabbitMQ dead-letters a message. A safety net below the
/// worker's own limit, for messages that crash even the code that counts.
pub const DELIVERY_LIMIT: i64 = 20;

/// For queues whose messages are only read: RabbitMQ 3 has no value for "unlimited", and RabbitMQ 4 has a default of
/// 20.
pub const NO_DELIVERY_LIMIT: i64 = i32::MAX as i64;

/// Header of a message: the W3C trace context of the span that published it.
pub const TRACEPARENT: &str = "traceparent";
/// Header that RabbitMQ adds: the number of deliveries without an acknowledgement. Missing means 0.
pub const DELIVERY_COUNT: &str = "x-delivery-count";
/// Header that RabbitMQ adds when it dead-letters a message: from which queue, why and when.
pub const DEATHS: &str = "x-death";
/// `type` of a dead letter that a worker wrote. A message that RabbitMQ dead-letters itself has none.
pub const DEAD_LETTER_TYPE: &str = "facemill.dead-letter";
pub const CONTENT_TYPE: &str = "application/json";

/// The names. All begin with the installation's prefix. The routing key of a queue is its name.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

/// A queue and the arguments of its declaration.
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

/// Numbers the declarations of the topology by this process, from 1. 0: none yet.
pub(super) type Generation = u64;

/// The exchanges and queues, which this process declares once, and again when the server may have lost them.
pub(super) struct Topology {
    pub names: Names,
    state: Mutex<TopologyState>,
    declaring: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Default)]
struct TopologyState {
    generation: Generation,
    is_declared: bool,
}

impl Topology {
    pub fn new(prefix: &str) -> Self {
        Self { names: Names::new(prefix), state: Mutex::default(), declaring: tokio::sync::Mutex::default() }
    }

    pub fn generation(&self) -> Generation {
        self.state().generation
    }

    /// Declares the topology on a new channel, unless that was done and nothing was lost since. Concurrent callers
    /// share one declaration.
    pub async fn ensure<F>(&self, channel: impl FnOnce() -> F) -> Result<Generation, BrokerError>
    where
        F: Future<Output = Result<Channel, BrokerError>>,
    {
        if let Some(generation) = self.declared() {
            return Ok(generation);
        }
        let _declaring = self.declaring.lock().await;
        if let Some(generation) = self.declared() {
            return Ok(generation);
        }
        self.names.declare(&channel().await?).await?;
        let mut state = self.state();
        *state = TopologyState { generation: state.generation + 1, is_declared: true };
        Ok(state.generation)
    }

    /// Notes that the server may have lost a part of this generation. Without effect if a later one was declared.
    pub fn invalidate(&self, generation: Generation) {
        let mut state = self.state();
        if state.generation == generation {
            state.is_declared = false;
        }
    }

    fn declared(&self) -> Option<Generation> {
        let state = *self.state();
        state.is_declared.then_some(state.generation)
    }

    fn state(&self) -> MutexGuard<'_, TopologyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The direct exchange to which every message is published.
    pub fn exchange(&self) -> &str {
        &self.prefix
    }

    /// The exchange and the queue for messages that the direct exchange cannot route.
    pub fn unroutable(&self) -> String {
        format!("{}.unroutable", self.prefix)
    }

    pub fn stage(&self, stage: StageName) -> String {
        format!("{}.{stage}", self.prefix)
    }

    pub fn retry(&self, stage: StageName, tier: Duration) -> String {
        format!("{}.{stage}.retry.{}", self.prefix, tier.as_secs())
    }

    /// Crops that are scored again.
    pub fn rescore(&self) -> String {
        format!("{}.rescore", self.prefix)
    }

    pub fn dead_letters(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The stage to which the queue or delay queue of this name belongs.
    pub fn stage_of(&self, queue: &str) -> Option<StageName> {
        let rest = queue.strip_prefix(self.prefix.as_str())?.strip_prefix('.')?;
        rest.split('.').next()?.parse().ok()
    }

    /// The delay queue for a wait, which is rounded up to a tier.
    pub fn retry_for(&self, stage: StageName, wait: Duration) -> String {
        self.retry(stage, tier_for(wait))
    }

    /// All queues. They are quorum queues: they are replicated if there are several nodes, a confirm means "on disk",
    /// and dead-lettering removes a message from one queue only after the next has it.
    pub fn queues(&self) -> Vec<Queue> {
        let mut queues = Vec::new();
        let consumed = |name: String| {
            let mut arguments = vec![("x-delivery-limit", Argument::Number(DELIVERY_LIMIT))];
            arguments.extend(self.dead_lettered_to(self.dead_letters()));
            quorum(name, arguments)
        };
        queues.push(consumed(self.rescore()));
        for stage in StageName::ALL {
            queues.push(consumed(self.stage(stage)));
            for tier in TIERS {
                let mut arguments = vec![("x-message-ttl", Argument::Number(tier.as_secs() as i64 * 1000))];
                arguments.extend(self.dead_lettered_to(self.stage(stage)));
                queues.push(quorum(self.retry(stage, tier), arguments));
            }
        }
        for name in [self.dead_letters(), self.unroutable()] {
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
            // At-least-once dead-lettering requires it. Without a length limit, it rejects nothing.
            ("x-overflow", text("reject-publish")),
        ]
    }

    /// Declares exchanges, queues and bindings. Existing ones do not change.
    async fn declare(&self, channel: &Channel) -> Result<(), BrokerError> {
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

/// RabbitMQ's message names the queue and the argument: "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/':
/// received '5000' but current is '7000'".
fn refused(error: &lapin::Error) -> BrokerError {
    const PRECONDITION_FAILED: u16 = 406;
    const INTERNAL_ERROR: u16 = 541;
    let is_refused = |reply: &lapin::protocol::AMQPError| match reply.get_id() {
        PRECONDITION_FAILED => true,
        // The feature flag of quorum queues is disabled.
        INTERNAL_ERROR => reply.get_message().as_str().contains("quorum_queue"),
        _ => false,
    };
    match error.kind() {
        lapin::ErrorKind::ProtocolError(reply) if is_refused(reply) => {
            let said = reply.get_message().to_string();
            let hint = if said.contains("inequivalent") {
                "it was created by hand or by another program: delete it once it is empty, or choose another prefix"
            } else {
                "facemill needs quorum queues: RabbitMQ 3.8 or later, with its feature flag quorum_queue enabled"
            };
            BrokerError::Refused { what: "declare the queues".into(), detail: format!("{said}; {hint}") }
        }
        _ => map_error("declare the queues".into(), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_of_a_queue_is_parsed() {
        let names = Names::new("my.mill");
        for stage in StageName::ALL {
            assert_eq!(names.stage_of(&names.stage(stage)), Some(stage));
            assert_eq!(names.stage_of(&names.retry(stage, TIERS[0])), Some(stage));
        }
        for foreign in ["my.mill.dead", "my.millfetch", "other.fetch", ""] {
            assert_eq!(names.stage_of(foreign), None, "{foreign}");
        }
    }

    /// The rows of the table under a heading of `docs/names.md`, without backticks.
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
                let tiers = if row[0].contains("SECONDS") { &TIERS[..] } else { &TIERS[..1] };
                for tier in tiers {
                    let seconds = tier.as_secs().to_string();
                    let fill = |cell: &str| cell.replace("STAGE", stage.as_str()).replace("SECONDS", &seconds);
                    listed.push((fill(&row[0]), fill(&row[1])));
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
        for value in [CONTENT_TYPE, DEAD_LETTER_TYPE] {
            assert!(text.contains(&format!("`{value}`")), "{value}");
        }
    }
}
