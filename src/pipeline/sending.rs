//! Every message leaves through here: with the place in its trace, and counted.

use std::time::{Duration, Instant};

use tracing::Instrument;

use super::spans;
use crate::broker::{Broker, BrokerError};
use crate::domain::Message;
use crate::telemetry::{context, instruments};

/// Publishes a message, at once or after a delay, and returns when the broker has confirmed it.
pub async fn send(broker: &dyn Broker, message: &Message, delay: Option<Duration>) -> Result<(), BrokerError> {
    let span = spans::send(message, broker);
    let begun = Instant::now();
    let sent = match context::of(&span) {
        // The worker that receives the message continues the trace.
        Some(place) => {
            let message = Message { traceparent: Some(context::write(&place)), ..message.clone() };
            publish(broker, &message, delay).instrument(span.clone()).await
        }
        None => publish(broker, message, delay).await,
    };
    if let Err(error) = &sent {
        spans::failed(&span, error.kind(), error);
    }
    if let Some(instruments) = instruments::get() {
        instruments.sent(message.position.stage, begun.elapsed(), sent.as_ref().err().map(BrokerError::kind));
    }
    sent
}

async fn publish(broker: &dyn Broker, message: &Message, delay: Option<Duration>) -> Result<(), BrokerError> {
    match delay {
        Some(delay) => broker.publish_after(message, delay).await,
        None => broker.publish(message).await,
    }
}
