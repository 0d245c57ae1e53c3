//! A broker that publishes every message twice, as a publisher does that has lost the first confirm.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use facemill::broker::{BodyFilter, Broker, BrokerError, Consumer, DeadLetter, DeadLetterFilter, Depth};
use facemill::domain::{Message, StageName};

pub struct Doubled(pub Arc<dyn Broker>);

#[async_trait]
impl Broker for Doubled {
    async fn publish(&self, message: &Message) -> Result<(), BrokerError> {
        self.0.publish(message).await?;
        self.0.publish(message).await
    }

    async fn publish_after(&self, message: &Message, delay: Duration) -> Result<(), BrokerError> {
        self.0.publish_after(message, delay).await?;
        self.0.publish_after(message, delay).await
    }

    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), BrokerError> {
        self.0.dead_letter(letter).await?;
        self.0.dead_letter(letter).await
    }

    async fn consume(&self, stage: StageName, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        self.0.consume(stage, prefetch).await
    }

    async fn depths(&self) -> Result<Vec<Depth>, BrokerError> {
        self.0.depths().await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>, BrokerError> {
        self.0.dead_letters(limit).await
    }

    async fn take_dead_letters(&self, filter: &DeadLetterFilter<'_>) -> Result<Vec<DeadLetter>, BrokerError> {
        self.0.take_dead_letters(filter).await
    }

    async fn remove_messages(&self, matches: &BodyFilter<'_>) -> Result<u64, BrokerError> {
        self.0.remove_messages(matches).await
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.0.check().await
    }
}
