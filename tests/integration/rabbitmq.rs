//! Behaviour that only RabbitMQ has: restarts, alarms, closed channels, lost queues, refusals.

use support::PATIENCE;
use support::servers::rabbitmq as server;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use facemill::broker::rabbitmq::{RabbitMq, RabbitMqSettings};
use facemill::broker::{Broker, BrokerError, Consumer, DeadLetter, Delivery, Depth};
use facemill::domain::Message;
use facemill::domain::{Candidate, Cause, CauseCode, Id, Photo, Position, StageName};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use server::RabbitServer;

fn settings(server: &RabbitServer, prefix: &str) -> RabbitMqSettings {
    RabbitMqSettings::new(&server.url()).unwrap().with_prefix(prefix).unwrap()
}

fn broker(server: &RabbitServer, prefix: &str) -> RabbitMq {
    RabbitMq::new(settings(server, prefix)).unwrap()
}

fn message(id: &str, stage: StageName) -> Message {
    let candidate = Candidate {
        photo_id: Id::from(id),
        face_id: Id::from("f1"),
        label_id: Id::from("l1"),
        label_name: None,
        photo_url: format!("http://photos.test/{id}.jpg"),
        source_url: None,
        posted_at: None,
        source: None,
        columns: Default::default(),
    };
    let first = Message::first(Photo::new("r".parse().unwrap(), candidate), 1_700_000_000);
    Message { position: Position::entering(stage), ..first }
}

async fn take(consumer: &mut Box<dyn Consumer>) -> Delivery {
    timeout(PATIENCE, consumer.next()).await.expect("no delivery within the time limit").expect("the stream ended")
}

fn id_of(delivery: &Delivery) -> String {
    Message::decode(&delivery.body).unwrap().photo.candidate.photo_id.to_string()
}

/// Waits until the condition holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within the time limit: {what}");
        // The condition is about the server, which sends no notice.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn depth(broker: &RabbitMq, stage: Option<StageName>) -> Depth {
    broker.depths().await.unwrap().into_iter().find(|depth| depth.stage == stage).unwrap()
}

/// The AMQP connections, from the management API.
async fn connections(server: &RabbitServer) -> Vec<Value> {
    let (_, body) = server.api(Method::GET, "connections", Value::Null).await;
    serde_json::from_str(&body).unwrap()
}

/// Closes the connections whose name ends with `purpose`. Returns their number.
async fn close_connections(server: &RabbitServer, purpose: &str) -> usize {
    let mut closed = 0;
    for connection in connections(server).await {
        let ours =
            connection["client_properties"]["connection_name"].as_str().is_some_and(|name| name.ends_with(purpose));
        if ours {
            let name = connection["name"].as_str().unwrap().replace(' ', "%20").replace('>', "%3E");
            let (status, _) = server.api(Method::DELETE, &format!("connections/{name}"), Value::Null).await;
            closed += usize::from(status == 204);
        }
    }
    closed
}

/// RabbitMQ is killed and restarted while 500 messages are published and consumed. Every confirmed message arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_no_confirmed_message() {
    let server = server::exclusive().await;
    let broker = Arc::new(broker(&server, "killed"));
    broker.check().await.unwrap();
    let mut consumer = broker.consume(StageName::Detect, 20).await.unwrap();
    let (sender, mut published) = tokio::sync::watch::channel(0);
    let publish = async {
        for i in 0..500 {
            let message = message(&format!("k{i}"), StageName::Detect);
            while let Err(error) = broker.publish(&message).await {
                assert!(error.is_retryable(), "{error}");
                // The back-off of a worker. RabbitMQ takes seconds to restart.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            sender.send_replace(i + 1);
        }
    };
    let consume = async {
        let mut seen = BTreeSet::new();
        while seen.len() < 500 {
            let delivery = take(&mut consumer).await;
            seen.insert(id_of(&delivery));
            delivery.ack().await;
        }
        seen
    };
    let disturb = async {
        published.wait_for(|count| *count >= 150).await.unwrap();
        server.kill();
        server.restart();
    };
    let ((), seen, ()) = tokio::join!(publish, consume, disturb);
    assert_eq!(seen, (0..500).map(|i| format!("k{i}")).collect());
    consumer.stop().await;
    let rest = depth(&broker, Some(StageName::Detect)).await;
    assert!(rest.ready < 40, "only messages whose acknowledgement was lost may be left: {rest:?}");
    server.wait_until_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_an_error_within_the_time_limit_and_ends() {
    let server = server::exclusive().await;
    let mut settings = settings(&server, "alarm");
    settings.patience = Duration::from_millis(500);
    let broker = RabbitMq::new(settings).unwrap();
    broker.publish(&message("before", StageName::Crop)).await.unwrap();
    let mut consumer = broker.consume(StageName::Crop, 1).await.unwrap();
    let before = take(&mut consumer).await;
    server.ctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
    until("the alarm", async || {
        let attempt =
            timeout(PATIENCE, broker.publish(&message("during", StageName::Crop))).await.expect("publish blocks");
        attempt.is_err_and(|error| error.is_retryable() && error.to_string().contains("alarm"))
    })
    .await;
    // Consumers continue during the alarm.
    before.ack().await;
    until("the acknowledgement", async || depth(&broker, Some(StageName::Crop)).await.in_flight == 0).await;
    server.ctl(&["set_vm_memory_high_watermark", "absolute", "512MiB"]).await;
    until("the end of the alarm", async || broker.publish(&message("after", StageName::Crop)).await.is_ok()).await;
    while id_of(&take(&mut consumer).await) != "after" {}
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_survives_the_loss_of_its_connection_and_queue() {
    let server = server::exclusive().await;
    let broker = broker(&server, "outlives");
    let mut consumer = broker.consume(StageName::Classify, 4).await.unwrap();
    broker.publish(&message("one", StageName::Classify)).await.unwrap();
    let held = take(&mut consumer).await;
    assert!(!held.redelivered);

    until("a closed connection", async || close_connections(&server, "consuming").await > 0).await;
    let again = take(&mut consumer).await;
    assert_eq!((id_of(&again).as_str(), again.redelivered), ("one", true));
    // The channel of the first delivery is lost. Its acknowledgement must not apply to another message.
    held.ack().await;
    again.ack().await;
    broker.publish(&message("two", StageName::Classify)).await.unwrap();
    let two = take(&mut consumer).await;
    assert_eq!((id_of(&two).as_str(), two.redelivered), ("two", false));

    // The queue is deleted, and RabbitMQ cancels the consumer. The consumer declares the queue again. Messages that
    // were published meanwhile were unroutable, and arrive too.
    let (status, answer) = server.api(Method::DELETE, "queues/%2F/outlives.classify", Value::Null).await;
    assert_eq!(status, 204, "{answer}");
    two.ack().await;
    for id in ["three", "four"] {
        broker.publish(&message(id, StageName::Classify)).await.unwrap();
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let delivery = take(&mut consumer).await;
        seen.insert(id_of(&delivery));
        delivery.ack().await;
    }
    assert_eq!(seen, ["four", "three"].map(String::from).into());

    consumer.stop().await;
    assert!(consumer.next().await.is_none());
}

/// RabbitMQ closes the channel of a consumer that does not acknowledge a message in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_survives_a_closed_channel() {
    let server = server::exclusive().await;
    let timeouts = |milliseconds: u32, tick: u32| {
        format!(
            "application:set_env(rabbit, consumer_timeout, {milliseconds}), \
             application:set_env(rabbit, channel_tick_interval, {tick})."
        )
    };
    server.ctl(&["eval", &timeouts(500, 250)]).await;
    let broker = broker(&server, "closed");
    let mut consumer = broker.consume(StageName::Crop, 2).await.unwrap();
    broker.publish(&message("late", StageName::Crop)).await.unwrap();
    let late = take(&mut consumer).await;
    let again = take(&mut consumer).await;
    assert_eq!((id_of(&again).as_str(), again.redelivered), ("late", true));
    late.ack().await;
    again.ack().await;
    consumer.stop().await;
    server.ctl(&["eval", &timeouts(1_800_000, 60_000)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetched_messages_are_not_redelivered_after_a_stop() {
    let server = server::shared().await;
    let broker = broker(server, "stopped");
    for i in 0..4 {
        broker.publish(&message(&format!("s{i}"), StageName::Crop)).await.unwrap();
    }
    for _ in 0..3 {
        let mut consumer = broker.consume(StageName::Crop, 8).await.unwrap();
        let first = take(&mut consumer).await;
        assert!(!first.redelivered);
        consumer.stop().await;
        drop(consumer);
        broker.publish(&message(&id_of(&first), StageName::Crop)).await.unwrap();
        first.ack().await;
    }
    let mut consumer = broker.consume(StageName::Crop, 8).await.unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        let delivery = take(&mut consumer).await;
        assert!(!delivery.redelivered, "no worker had begun with it");
        seen.insert(id_of(&delivery));
        delivery.ack().await;
    }
    assert_eq!(seen.len(), 4);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unroutable_messages_are_kept_or_returned() {
    let server = server::shared().await;
    let broker = broker(server, "unroutable");
    broker.check().await.unwrap();
    let delete = async |queue: &str| {
        let (status, answer) = server.api(Method::DELETE, &format!("queues/%2F/{queue}"), Value::Null).await;
        assert_eq!(status, 204, "{answer}");
    };
    delete("unroutable.fetch").await;
    broker.publish(&message("kept", StageName::Fetch)).await.unwrap();
    let mut consumer = broker.consume(StageName::Fetch, 1).await.unwrap();
    let kept = take(&mut consumer).await;
    assert_eq!(id_of(&kept), "kept");
    kept.ack().await;
    consumer.stop().await;

    delete("unroutable.crop").await;
    delete("unroutable.unroutable").await;
    let error = broker.publish(&message("returned", StageName::Crop)).await.unwrap_err();
    assert!(error.to_string().contains("returned the message: 312"), "{error}");
    broker.publish(&message("fine", StageName::Detect)).await.unwrap();
}

/// Declarations of queues since the server started, as RabbitMQ counts them. Passive declarations do not count.
async fn declarations(server: &RabbitServer) -> u64 {
    let expression = "io:format(\"~p\", [lists:sum([element(6, Churn) \
                      || Churn <- ets:tab2list(connection_churn_metrics)])]).";
    let printed = server.ctl(&["eval", expression]).await;
    printed.split_whitespace().next().unwrap().trim_end_matches("ok").parse().unwrap_or_else(|_| panic!("{printed}"))
}

/// The topology has 27 queues. A process declares them once, and once more after RabbitMQ has restarted.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_declares_the_topology_once_for_each_restart_of_the_server() {
    const QUEUES: u64 = 27;
    let server = server::exclusive().await;
    let broker = broker(&server, "declared-once");
    let before = declarations(&server).await;
    broker.check().await.unwrap();
    let mut consumers = Vec::new();
    for stage in StageName::ALL {
        consumers.push(broker.consume(stage, 1).await.unwrap());
        broker.publish(&message("m", stage)).await.unwrap();
    }
    for consumer in &mut consumers {
        take(consumer).await.ack().await;
    }
    consumers[0].stop().await;
    consumers[0] = broker.consume(StageName::Fetch, 1).await.unwrap();
    assert_eq!(declarations(&server).await - before, QUEUES, "two connections, five consumers");

    server.kill();
    server.restart();
    server.wait_until_up().await;
    for (stage, consumer) in StageName::ALL.into_iter().zip(&mut consumers) {
        let after = message("after", stage);
        until("a publish after the restart", async || broker.publish(&after).await.is_ok()).await;
        while id_of(&take(consumer).await) != "after" {}
    }
    assert_eq!(declarations(&server).await, QUEUES, "the restart resets the server's counter");
}

/// On one thread, a channel that is dropped right before the end has not closed by itself yet.
#[tokio::test]
async fn connections_end_in_order_after_their_last_use() {
    let server = server::exclusive().await;
    let broker = broker(&server, "end-in-order");
    broker.check().await.unwrap();
    let before = server.log().len();
    for _ in 0..5 {
        broker.depths().await.unwrap();
        broker.close().await;
    }
    // One for publishing, from the check.
    let is_complete = || server.log()[before..].matches("closing AMQP connection").count() >= 6;
    until("the ends of all connections in the log", async || is_complete()).await;
    let log = &server.log()[before..];
    assert!(!log.contains("unexpectedly closed"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_names_a_queue_with_other_arguments() {
    let server = server::shared().await;
    let arguments = json!({
        "x-queue-type": "quorum",
        "x-delivery-limit": 7,
        "x-dead-letter-exchange": "foreign",
        "x-dead-letter-routing-key": "foreign.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    });
    let foreign = json!({"durable": true, "arguments": arguments});
    let (status, answer) = server.api(Method::PUT, "queues/%2F/foreign.detect", foreign).await;
    assert_eq!(status, 201, "{answer}");
    let broker = broker(server, "foreign");
    let Err(error @ BrokerError::Refused { .. }) = broker.check().await else { panic!("the queue was accepted") };
    let text = error.to_string();
    for part in ["foreign.detect", "x-delivery-limit", "'20'", "'7'", "delete it once it is empty", "prefix"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(matches!(broker.consume(StageName::Fetch, 1).await, Err(BrokerError::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_why_access_is_denied() {
    let server = server::shared().await;
    let (status, answer) =
        server.api(Method::PUT, "users/poor", json!({"password": "geheim-poor", "tags": "monitoring"})).await;
    assert_eq!(status, 201, "{answer}");
    let error = async |settings: Result<RabbitMqSettings, _>| {
        let error = RabbitMq::new(settings.unwrap()).unwrap().check().await.unwrap_err();
        assert!(!error.to_string().contains("geheim"), "{error}");
        error
    };
    let refused = async |url: String, part: &str| {
        let error = error(RabbitMqSettings::new(&url)).await;
        assert!(matches!(error, BrokerError::Refused { .. }) && error.to_string().contains(part), "{error}");
    };
    refused(server.url_of("mill", "geheim-wrong", "%2F"), "wrong user name or password for `mill`").await;
    refused(server.url_of("mill", "geheim", "nowhere"), "add_vhost").await;
    refused(server.url_of("poor", "geheim-poor", "%2F"), "`poor`").await;
    refused(format!("amqps://mill:geheim@127.0.0.1:{}", server.port()), "TLS").await;

    // A user that may read everything and not publish.
    broker(server, "poor").check().await.unwrap();
    let may = json!({"configure": ".*", "write": "^$", "read": ".*"});
    let (status, answer) = server.api(Method::PUT, "permissions/%2F/poor", may).await;
    assert_eq!(status, 201, "{answer}");
    let poor = RabbitMqSettings::new(&server.url_of("poor", "geheim-poor", "%2F")).unwrap().with_prefix("poor");
    let denied = error(poor).await;
    assert!(denied.to_string().contains("write") && matches!(denied, BrokerError::Refused { .. }), "{denied}");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let unavailable = error(RabbitMqSettings::new(&format!("amqp://mill:geheim@127.0.0.1:{closed}"))).await;
    assert!(unavailable.is_retryable() && unavailable.to_string().ends_with(": connection refused"), "{unavailable}");

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("amqp://mill:geheim@{}", silent.local_addr().unwrap());
    let mut short = RabbitMqSettings::new(&url);
    short.as_mut().unwrap().connect_timeout = Duration::from_millis(100);
    assert!(error(short).await.to_string().contains("no answer within"));

    let managed = |url: &str| settings(server, "management").with_management(url);
    assert!(error(managed("http://mill:geheim@127.0.0.1:1")).await.is_retryable());
    let denied = error(managed(&server.management_url().replace("//", "//mill:geheim-wrong@"))).await;
    assert!(denied.to_string().contains("401"), "{denied}");
}

fn letter(id: &str, last_at: u64) -> DeadLetter {
    let message = message(id, StageName::Detect);
    DeadLetter {
        stage: Some(StageName::Detect),
        cause: Cause::new(CauseCode::Panic, "index out of bounds"),
        attempt: 5,
        first_at: 1_700_000_000,
        last_at,
        trace_id: None,
        body: String::from_utf8(message.encode()).unwrap(),
    }
}

/// Repeated reads of any size remove nothing and keep the order.
#[tokio::test(flavor = "multi_thread")]
async fn reading_dead_letters_removes_none() {
    let server = server::shared().await;
    let broker = broker(server, "read");
    let letters: Vec<DeadLetter> = (0..6).map(|i| letter(&format!("d{i}"), 1_700_000_900)).collect();
    for letter in &letters {
        broker.dead_letter(letter).await.unwrap();
    }
    for limit in (0..25).map(|i| [1, 3, 6, 100, 2][i % 5]) {
        assert_eq!(broker.dead_letters(limit).await.unwrap(), letters[..limit.min(6)], "{limit}");
    }
    let chosen = |letter: &DeadLetter| letter.body.contains("\"d1\"") || letter.body.contains("\"d4\"");
    assert_eq!(broker.take_dead_letters(&chosen).await.unwrap(), [letters[1].clone(), letters[4].clone()]);
    let rest = [&letters[0], &letters[2], &letters[3], &letters[5]].map(Clone::clone);
    for _ in 0..3 {
        assert_eq!(broker.dead_letters(10).await.unwrap(), rest);
    }
    until("four letters", async || depth(&broker, None).await.ready == 4).await;
    assert_eq!(broker.take_dead_letters(&|_: &DeadLetter| false).await.unwrap(), []);
    assert_eq!(broker.take_dead_letters(&|_: &DeadLetter| true).await.unwrap(), rest);
    assert_eq!(broker.dead_letters(10).await.unwrap(), []);
}

/// A process that ends while it reads or removes dead letters removes none.
#[tokio::test(flavor = "multi_thread")]
async fn unacknowledged_dead_letters_return() {
    let server = server::shared().await;
    let other = broker(server, "interrupted");
    let letters: Vec<DeadLetter> = (0..3).map(|i| letter(&format!("d{i}"), 1_700_000_900)).collect();
    for letter in &letters {
        other.dead_letter(letter).await.unwrap();
    }
    let interrupted = broker(server, "interrupted");
    // The filter is asked when all dead letters are read and none is acknowledged. This unwinding prints nothing.
    let taking = tokio::spawn(async move {
        interrupted.take_dead_letters(&|_: &DeadLetter| std::panic::resume_unwind(Box::new("interrupted"))).await
    });
    assert!(taking.await.unwrap_err().is_panic(), "it held the dead letters");
    until("all dead letters are back", async || other.dead_letters(10).await.unwrap().len() == 3).await;
}

/// RabbitMQ dead-letters a message whose consumers never acknowledge it.
#[tokio::test(flavor = "multi_thread")]
async fn the_delivery_limit_makes_a_dead_letter() {
    let server = server::shared().await;
    let broker = broker(server, "limit");
    let crashing = message("crashing", StageName::Detect);
    broker.publish(&crashing).await.unwrap();
    let mut deliveries = 0;
    while depth(&broker, None).await.ready == 0 {
        let mut consumer = broker.consume(StageName::Detect, 1).await.unwrap();
        tokio::select! {
            delivery = take(&mut consumer) => {
                assert_eq!(delivery.redelivered, deliveries > 0);
                deliveries += 1;
                drop((delivery, consumer));
            }
            () = until("a dead letter", async || depth(&broker, None).await.ready > 0) => {}
        }
        assert!(deliveries <= 30, "there is no limit");
    }
    let letters = broker.dead_letters(10).await.unwrap();
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((letter.stage, letter.cause.code.clone()), (Some(StageName::Detect), CauseCode::DeliveryLimit));
    assert_eq!(letter.body.as_bytes(), crashing.encode());
    assert_eq!((letter.attempt, letter.first_at), (1, 1_700_000_000));
    assert_eq!(letter.trace_id, Some(crashing.photo.key().trace().trace_id_hex()));
    assert!(letter.last_at > 1_700_000_000);
    assert_eq!(
        broker
            .take_dead_letters(&|letter: &DeadLetter| letter.cause.code == CauseCode::DeliveryLimit)
            .await
            .unwrap()
            .len(),
        1
    );
}

/// A person can read a message in RabbitMQ's management page.
#[tokio::test(flavor = "multi_thread")]
async fn messages_carry_their_properties() {
    let server = server::shared().await;
    let broker = broker(server, "properties");
    let sent = message("p", StageName::Fetch);
    broker.publish(&sent).await.unwrap();
    let get = json!({"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"});
    let (_, answer) = server.api(Method::POST, "queues/%2F/properties.fetch/get", get).await;
    let got: Value = serde_json::from_str(&answer).unwrap();
    let properties = &got[0]["properties"];
    assert_eq!(properties["message_id"], "r/p/fetch/1");
    assert_eq!((&properties["delivery_mode"], &properties["content_type"]), (&json!(2), &json!("application/json")));
    assert_eq!(properties["headers"]["traceparent"].as_str(), sent.traceparent.as_deref());
    assert_eq!(got[0]["exchange"], "properties");
}

/// A proxy to `port` that cuts each connection after 150 to 550 ms. Returns its own port and the number of connections.
async fn cutting_proxy(port: u16) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (own, accepted) = (listener.local_addr().unwrap().port(), Arc::<AtomicU64>::default());
    let count = accepted.clone();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let life = Duration::from_millis(150 + count.fetch_add(1, Ordering::Relaxed) * 37 % 400);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = timeout(life, copy_bidirectional(&mut client, &mut server)).await;
            });
        }
    });
    (own, accepted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_soon_when_its_connection_is_lost() {
    const BROKERS: usize = 6;
    const CALLERS: usize = 4;
    const CONNECTIONS: u64 = 240;
    // lapin may not notice a loss during the handshake, so that connecting takes all its time, for one caller after the
    // other. The answers of RabbitMQ have 30 seconds.
    const CONNECTING: Duration = Duration::from_secs(3);
    const LIMIT: Duration = PATIENCE;
    let server = server::shared().await;
    broker(server, "losses").check().await.unwrap();
    let (proxy, connections) = cutting_proxy(server.port()).await;
    let url = server.url().replace(&format!(":{}/", server.port()), &format!(":{proxy}/"));
    let mut settings = RabbitMqSettings::new(&url).unwrap().with_prefix("losses").unwrap();
    settings.connect_timeout = CONNECTING;
    let brokers: Vec<RabbitMq> = (0..BROKERS).map(|_| RabbitMq::new(settings.clone()).unwrap()).collect();
    let callers = brokers.iter().flat_map(|broker| std::iter::repeat_n(broker, CALLERS)).map(async |broker| {
        while connections.load(Ordering::Relaxed) < CONNECTIONS {
            // It opens a channel, often while the connection is about to be lost.
            let called = timeout(LIMIT, broker.score_depth()).await;
            if called.expect("an answer or an error").is_err() {
                // A lost connection gives no notice of the moment at which another one is worth a try.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    futures::future::join_all(callers).await;
}
