//! Reads dead letters without removing them, and removes chosen ones.

use std::collections::HashMap;

use base64::Engine;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions};
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Channel};

use super::answer::{answered, settled};
use super::error::map_error;
use super::topology::{DEAD_LETTER_TYPE, DEATHS, Names};
use crate::broker::{BrokerError, DeadLetter, DeadLetterFilter};
use crate::domain::clock::now;
use crate::domain::{Cause, CauseCode, Message, StageName};

/// All dead letters, unacknowledged on a channel. When the channel closes, also because this process ends, RabbitMQ
/// returns to the queue what is unacknowledged.
///
/// A quorum queue delivers returned messages before new ones, in the order of their return. So dead letters keep their
/// order only if all of them are read and all are returned.
pub(super) struct DeadLetterQueue<'a> {
    names: &'a Names,
    channel: Channel,
    letters: Vec<Copies>,
}

/// A dead letter, and the delivery tags of its copies. The last copy counts.
type Copies = (DeadLetter, Vec<u64>);

impl<'a> DeadLetterQueue<'a> {
    /// Reads all dead letters. Until they are returned, other readers do not see them.
    pub async fn open(names: &'a Names, channel: Channel) -> Result<Self, BrokerError> {
        let mut open = Self { names, channel, letters: Vec::new() };
        let mut indexes = HashMap::new();
        loop {
            let get = open.channel.basic_get(open.names.dead_letters().into(), BasicGetOptions::default());
            let got = answered(get).await.map_err(|error| map_error("read the dead letters".into(), &error))?;
            let Some(got) = got else {
                return Ok(open);
            };
            let letter = read(open.names, &got.data, &got.properties);
            let index = *indexes.entry(letter.id()).or_insert(open.letters.len());
            if index == open.letters.len() {
                open.letters.push((letter, vec![got.delivery_tag]));
            } else {
                open.letters[index].0 = letter;
                open.letters[index].1.push(got.delivery_tag);
            }
        }
    }

    /// The first `limit` dead letters. All of them return to the queue.
    pub async fn list(mut self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.release(&self.letters).await?;
        self.close().await?;
        self.letters.truncate(limit);
        Ok(contents(self.letters))
    }

    /// Removes the dead letters that match. First returns all others to the queue, then removes the matching ones with
    /// one acknowledgement, so that a crash cannot remove only some of them.
    pub async fn take(mut self, filter: &DeadLetterFilter<'_>) -> Result<Vec<DeadLetter>, BrokerError> {
        let letters = std::mem::take(&mut self.letters);
        let (taken, rest): (Vec<_>, Vec<_>) = letters.into_iter().partition(|(letter, _)| filter(letter));
        self.release(&rest).await?;
        if let Some(last) = taken.iter().flat_map(|(_, tags)| tags).max() {
            let removed = answered(self.channel.basic_ack(*last, BasicAckOptions { multiple: true })).await;
            removed.map_err(|error| map_error("remove dead letters".into(), &error))?;
        }
        self.close().await?;
        Ok(contents(taken))
    }

    /// Returns letters to the queue, in their order.
    async fn release(&self, letters: &[Copies]) -> Result<(), BrokerError> {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        let mut tags: Vec<u64> = letters.iter().flat_map(|(_, tags)| tags.iter().copied()).collect();
        tags.sort_unstable();
        for tag in tags {
            let released = answered(self.channel.basic_nack(tag, options)).await;
            released.map_err(|error| map_error("return dead letters to their queue".into(), &error))?;
        }
        Ok(())
    }

    /// Waits until RabbitMQ has processed everything sent before.
    async fn close(&self) -> Result<(), BrokerError> {
        const SUCCESS: u16 = 200;
        let closed = settled(self.channel.close(SUCCESS, "OK".into())).await;
        closed.map_err(|error| map_error("return dead letters to their queue".into(), &error))
    }
}

fn contents(letters: Vec<Copies>) -> Vec<DeadLetter> {
    letters.into_iter().map(|(letter, _)| letter).collect()
}

/// Reads a dead letter that a worker wrote, or a message that RabbitMQ dead-lettered itself.
fn read(names: &Names, body: &[u8], properties: &BasicProperties) -> DeadLetter {
    let is_ours = properties.kind().as_ref().is_some_and(|kind| kind.as_str() == DEAD_LETTER_TYPE);
    if is_ours && let Ok(letter) = serde_json::from_slice(body) {
        return letter;
    }
    let message = Message::decode(body).ok();
    let death = Death::read(names, properties);
    let last_at = death.at.unwrap_or_else(|| now().as_secs());
    DeadLetter {
        stage: message.as_ref().map(|message| message.position.stage).or(death.stage),
        cause: death.cause,
        attempt: message.as_ref().map_or(0, |message| message.attempt),
        first_at: message.as_ref().map_or(last_at, |message| message.enqueued_at),
        last_at,
        trace_id: message.map(|message| message.photo.key().trace().trace_id_hex()),
        body: match std::str::from_utf8(body) {
            Ok(text) => text.to_owned(),
            Err(_) => base64::engine::general_purpose::STANDARD.encode(body),
        },
    }
}

/// From which queue, why and when RabbitMQ dead-lettered a message.
struct Death {
    stage: Option<StageName>,
    cause: Cause,
    at: Option<u64>,
}

impl Death {
    fn read(names: &Names, properties: &BasicProperties) -> Self {
        let headers = properties.headers().as_ref();
        let latest = headers.and_then(|headers| match headers.inner().get(DEATHS)? {
            AMQPValue::FieldArray(deaths) => deaths.as_slice().first(),
            _ => None,
        });
        let Some(AMQPValue::FieldTable(death)) = latest else {
            let cause = Cause::new(CauseCode::ForeignMessage, "another program published it to the dead letters");
            return Self { stage: None, cause, at: None };
        };
        let text = |key: &str| match death.inner().get(key) {
            Some(AMQPValue::LongString(text)) => text.to_string(),
            _ => String::new(),
        };
        let (queue, reason) = (text("queue"), text("reason"));
        let at = match death.inner().get("time") {
            Some(AMQPValue::Timestamp(at)) => Some(*at),
            _ => None,
        };
        // RabbitMQ's reasons: rejected, expired, maxlen, delivery_limit.
        let detail = match reason.as_str() {
            "delivery_limit" => {
                format!("RabbitMQ delivered it from {queue} again and again without an acknowledgement")
            }
            _ => format!("RabbitMQ moved it here from {queue}: {reason}"),
        };
        Self { stage: names.stage_of(&queue), cause: Cause::new(reason.replace('_', "-"), detail), at }
    }
}
