//! The dead letters: looked at without being lost, taken out one by one.

use crate::domain::CauseCode;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions};
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Channel};

use super::error::map_error;
use super::topology::{DEATHS, LETTER_TYPE, Names};
use crate::broker::{BrokerError, Choice, DeadLetter};
use crate::domain::Message;
use crate::domain::{Cause, StageName};

/// All dead letters, held by a channel. What is not answered lies in the queue again when the channel is closed, also
/// when this process dies.
///
/// A quorum queue hands out again what was put back in the order in which it was put back, before all that is new. So
/// letters keep their order only if they are all taken and all put back.
pub(super) struct DeadLetterQueue<'a> {
    names: &'a Names,
    channel: Channel,
    letters: Vec<DeadLettered>,
}

/// A letter and the delivery tags of its burials, the last of which counts.
type DeadLettered = (DeadLetter, Vec<u64>);

impl<'a> DeadLetterQueue<'a> {
    /// Takes all letters into its hands. Someone else who looks meanwhile misses them.
    pub async fn open(names: &'a Names, channel: Channel) -> Result<Self, BrokerError> {
        let mut open = Self { names, channel, letters: Vec::new() };
        let mut places = std::collections::HashMap::new();
        loop {
            let got = open.channel.basic_get(open.names.dead().into(), BasicGetOptions::default()).await;
            let Some(got) = got.map_err(|error| map_error("read the dead letters".into(), &error))? else {
                return Ok(open);
            };
            let letter = read(open.names, &got.data, &got.properties);
            let place = *places.entry(letter.id()).or_insert(open.letters.len());
            if place == open.letters.len() {
                open.letters.push((letter, vec![got.delivery_tag]));
            } else {
                open.letters[place].0 = letter;
                open.letters[place].1.push(got.delivery_tag);
            }
        }
    }

    /// Puts everything back and tells the first `limit` letters.
    pub async fn look(mut self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.put_back(&self.letters).await?;
        self.close().await?;
        self.letters.truncate(limit);
        Ok(contents(self.letters))
    }

    /// Takes out the chosen letters. Nothing is removed before all the rest is back, and then everything at once: there
    /// is no moment at which a crash removes some of them only.
    pub async fn take_dead_letters(mut self, chosen: &Choice<'_>) -> Result<Vec<DeadLetter>, BrokerError> {
        let letters = std::mem::take(&mut self.letters);
        let (out, rest): (Vec<_>, Vec<_>) = letters.into_iter().partition(|(letter, _)| chosen(letter));
        self.put_back(&rest).await?;
        if let Some(last) = out.iter().flat_map(|(_, tags)| tags).max() {
            let removed = self.channel.basic_ack(*last, BasicAckOptions { multiple: true }).await;
            removed.map_err(|error| map_error("remove dead letters".into(), &error))?;
        }
        self.close().await?;
        Ok(contents(out))
    }

    async fn put_back(&self, letters: &[DeadLettered]) -> Result<(), BrokerError> {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        let mut tags: Vec<u64> = letters.iter().flat_map(|(_, tags)| tags.iter().copied()).collect();
        tags.sort_unstable();
        for tag in tags {
            let put_back = self.channel.basic_nack(tag, options).await;
            put_back.map_err(|error| map_error("put dead letters back".into(), &error))?;
        }
        Ok(())
    }

    /// RabbitMQ's answer to the closing comes after it has dealt with all that was sent before.
    async fn close(&self) -> Result<(), BrokerError> {
        const SUCCESS: u16 = 200;
        let closed = self.channel.close(SUCCESS, "OK".into()).await;
        closed.map_err(|error| map_error("put dead letters back".into(), &error))
    }
}

fn contents(letters: Vec<DeadLettered>) -> Vec<DeadLetter> {
    letters.into_iter().map(|(letter, _)| letter).collect()
}

/// A letter that a worker wrote, or a message that RabbitMQ itself laid here.
fn read(names: &Names, body: &[u8], properties: &BasicProperties) -> DeadLetter {
    let ours = properties.kind().as_ref().is_some_and(|kind| kind.as_str() == LETTER_TYPE);
    if ours && let Ok(letter) = serde_json::from_slice(body) {
        return letter;
    }
    let message = Message::decode(body).ok();
    let death = Death::read(names, properties);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let last_at = death.at.unwrap_or(now);
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

/// Whence, why and when RabbitMQ dead-lettered a message.
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
            let cause = Cause::new(CauseCode::ForeignMessage, "it was put among the dead letters by someone else");
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
            "delivery_limit" => format!("RabbitMQ handed it out of {queue} again and again and had no answer"),
            _ => format!("RabbitMQ moved it here from {queue}: {reason}"),
        };
        Self { stage: names.stage_of(&queue), cause: Cause::new(reason.replace('_', "-"), detail), at }
    }
}
