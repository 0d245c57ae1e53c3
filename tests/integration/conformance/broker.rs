use std::collections::BTreeSet;
use std::time::Duration;
use support::PATIENCE;

use facemill::broker::embedded::Embedded;
use facemill::broker::rabbitmq::{RabbitMq, RabbitMqSettings};
use facemill::broker::{Broker, Consumer, DeadLetter, Delivery};
use facemill::domain::Message;
use facemill::domain::{Cause, CauseCode, Position, StageName};
use facemill::sqlite::{Access, Database};

use super::first;

use support::servers::rabbitmq as server;

/// How exact the depths of an adapter are.
#[derive(Clone, Copy, PartialEq)]
enum Counts {
    /// They are those of now.
    Exact,
    /// The server updates its figures at intervals.
    Lag,
}

async fn suite(broker: &dyn Broker, counts: Counts) {
    broker.check().await.unwrap();
    in_order_and_unchanged(broker, counts).await;
    at_most_prefetch(broker, counts).await;
    unacknowledged_messages_return(broker, counts).await;
    prefetched_messages_return_at_a_stop(broker, counts).await;
    delays(broker, counts).await;
    stages_do_not_mix(broker).await;
    dead_letters(broker, counts).await;
    two_consumers_share(broker, counts).await;
    chosen_messages_are_removed(broker, counts).await;
}

fn message(id: &str, stage: StageName) -> Message {
    Message { position: Position::entering(stage), ..first(id) }
}

async fn take(consumer: &mut Box<dyn Consumer>) -> Delivery {
    tokio::time::timeout(PATIENCE, consumer.next())
        .await
        .expect("no delivery within the time limit")
        .expect("the stream ended")
}

fn read(delivery: &Delivery) -> Message {
    Message::decode(&delivery.body).unwrap()
}

/// Asserts how many messages of the stage are ready, in flight and delayed. None: dead letters.
async fn assert_depth(broker: &dyn Broker, counts: Counts, stage: Option<StageName>, expected: (u64, u64, u64)) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let depths = broker.depths().await.unwrap();
        let depth = depths.iter().find(|depth| depth.stage == stage).unwrap();
        let found = (depth.ready, depth.in_flight, depth.delayed);
        if found == expected || counts == Counts::Exact || tokio::time::Instant::now() > deadline {
            assert_eq!(found, expected, "{stage:?}: ready, in flight, delayed");
            return;
        }
        // The server sends no notice of its figures.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn in_order_and_unchanged(broker: &dyn Broker, counts: Counts) {
    let sent: Vec<Message> = (0..20).map(|i| message(&format!("o{i}"), StageName::Detect)).collect();
    for message in &sent {
        broker.publish(message).await.unwrap();
    }
    let mut consumer = broker.consume(StageName::Detect, 5).await.unwrap();
    for message in &sent {
        let delivery = take(&mut consumer).await;
        assert_eq!(read(&delivery), *message);
        assert!(!delivery.redelivered);
        delivery.ack().await;
    }
    consumer.stop().await;
    assert_depth(broker, counts, Some(StageName::Detect), (0, 0, 0)).await;
}

async fn at_most_prefetch(broker: &dyn Broker, counts: Counts) {
    for i in 0..5 {
        broker.publish(&message(&format!("p{i}"), StageName::Crop)).await.unwrap();
    }
    let mut consumer = broker.consume(StageName::Crop, 2).await.unwrap();
    let (one, two) = (take(&mut consumer).await, take(&mut consumer).await);
    assert!(futures::poll!(std::pin::pin!(consumer.next())).is_pending());
    assert_depth(broker, counts, Some(StageName::Crop), (3, 2, 0)).await;
    one.ack().await;
    let three = take(&mut consumer).await;
    assert_eq!(read(&three).photo.candidate.photo_id.as_str(), "p2");
    two.ack().await;
    three.ack().await;
    for _ in 0..2 {
        take(&mut consumer).await.ack().await;
    }
    consumer.stop().await;
}

async fn unacknowledged_messages_return(broker: &dyn Broker, counts: Counts) {
    for id in ["u1", "u2"] {
        broker.publish(&message(id, StageName::Classify)).await.unwrap();
    }
    let mut consumer = broker.consume(StageName::Classify, 2).await.unwrap();
    take(&mut consumer).await.nack().await;
    drop(take(&mut consumer).await);
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let delivery = take(&mut consumer).await;
        // The consumer may have dropped one of the two before it returned it.
        if delivery.redelivered {
            seen.insert(read(&delivery).id());
            delivery.ack().await;
        } else {
            delivery.nack().await;
        }
    }
    consumer.stop().await;
    assert_depth(broker, counts, Some(StageName::Classify), (0, 0, 0)).await;
}

async fn prefetched_messages_return_at_a_stop(broker: &dyn Broker, counts: Counts) {
    for i in 0..6 {
        broker.publish(&message(&format!("s{i}"), StageName::Detect)).await.unwrap();
    }
    let mut consumer = broker.consume(StageName::Detect, 4).await.unwrap();
    let held = take(&mut consumer).await;
    consumer.stop().await;
    assert!(consumer.next().await.is_none());
    assert_depth(broker, counts, Some(StageName::Detect), (5, 1, 0)).await;
    held.ack().await;
    let mut consumer = broker.consume(StageName::Detect, 8).await.unwrap();
    for _ in 0..5 {
        take(&mut consumer).await.ack().await;
    }
    consumer.stop().await;
}

async fn delays(broker: &dyn Broker, counts: Counts) {
    let (later, much_later) = (message("later", StageName::Fetch), message("much-later", StageName::Fetch));
    broker.publish_after(&much_later, Duration::from_secs(3000)).await.unwrap();
    broker.publish_after(&later, Duration::from_millis(50)).await.unwrap();
    let mut consumer = broker.consume(StageName::Fetch, 2).await.unwrap();
    let delivery = take(&mut consumer).await;
    assert_eq!(read(&delivery), later);
    assert!(!delivery.redelivered, "a wait is no redelivery");
    delivery.ack().await;
    assert_depth(broker, counts, Some(StageName::Fetch), (0, 0, 1)).await;
    consumer.stop().await;
}

async fn stages_do_not_mix(broker: &dyn Broker) {
    let mut crop = broker.consume(StageName::Crop, 2).await.unwrap();
    let mut detect = broker.consume(StageName::Detect, 2).await.unwrap();
    broker.publish(&message("m", StageName::Detect)).await.unwrap();
    broker.publish(&message("m", StageName::Crop)).await.unwrap();
    for (consumer, stage) in [(&mut crop, StageName::Crop), (&mut detect, StageName::Detect)] {
        let delivery = take(consumer).await;
        assert_eq!((delivery.stage, read(&delivery).position.stage), (stage, stage));
        delivery.ack().await;
        consumer.stop().await;
    }
}

fn letter(id: &str) -> DeadLetter {
    let message = message(id, StageName::Detect);
    DeadLetter {
        stage: Some(StageName::Detect),
        cause: Cause::new(CauseCode::Panic, "index out of bounds"),
        attempt: 5,
        first_at: 1_700_000_000,
        last_at: 1_700_000_900,
        trace_id: Some(message.photo.key().trace().trace_id_hex()),
        body: String::from_utf8(message.encode()).unwrap(),
    }
}

async fn dead_letters(broker: &dyn Broker, counts: Counts) {
    let foreign = DeadLetter { stage: None, trace_id: None, body: "bm9pc2U=".into(), ..letter("x") };
    for letter in [&letter("d1"), &letter("d2"), &letter("d1"), &foreign] {
        broker.dead_letter(letter).await.unwrap();
    }
    let letters = broker.dead_letters(10).await.unwrap();
    assert_eq!(letters, [letter("d1"), letter("d2"), foreign.clone()], "a second copy counts once");
    assert_eq!(broker.dead_letters(1).await.unwrap(), [letter("d1")]);
    let taken = broker.take_dead_letters(&|letter: &DeadLetter| letter.stage.is_some()).await.unwrap();
    assert_eq!(taken, [letter("d1"), letter("d2")]);
    assert_eq!(broker.dead_letters(10).await.unwrap(), [foreign]);
    assert_depth(broker, counts, None, (1, 0, 0)).await;
}

/// From the queues of the stages and the delay queues. The others stay, and none counts as redelivered.
async fn chosen_messages_are_removed(broker: &dyn Broker, counts: Counts) {
    let stage = StageName::Fetch;
    broker.remove_messages(&|_| true).await.unwrap();
    for id in ["c1", "c2", "c3"] {
        broker.publish(&message(id, stage)).await.unwrap();
    }
    for id in ["c1-late", "c2-late"] {
        broker.publish_after(&message(id, stage), Duration::from_secs(3600)).await.unwrap();
    }
    let is_chosen = |body: &[u8]| {
        let id = Message::decode(body).unwrap().photo.candidate.photo_id;
        id.as_str().starts_with("c1") || id.as_str() == "c3"
    };
    assert_depth(broker, counts, Some(stage), (3, 0, 2)).await;
    assert_eq!(broker.remove_messages(&is_chosen).await.unwrap(), 3);
    assert_depth(broker, counts, Some(stage), (1, 0, 1)).await;
    assert_eq!(broker.remove_messages(&is_chosen).await.unwrap(), 0);
    let mut consumer = broker.consume(stage, 9).await.unwrap();
    let left = take(&mut consumer).await;
    assert_eq!((read(&left), left.redelivered), (message("c2", stage), false));
    left.ack().await;
    consumer.stop().await;
    assert_eq!(broker.remove_messages(&|_| true).await.unwrap(), 1, "the delayed one");
}

async fn two_consumers_share(broker: &dyn Broker, counts: Counts) {
    let mut consumers =
        [broker.consume(StageName::Crop, 3).await.unwrap(), broker.consume(StageName::Crop, 3).await.unwrap()];
    let sent: BTreeSet<String> = (0..30).map(|i| message(&format!("t{i}"), StageName::Crop).id()).collect();
    for i in 0..30 {
        broker.publish(&message(&format!("t{i}"), StageName::Crop)).await.unwrap();
    }
    let mut got = Vec::new();
    while got.len() < 30 {
        let [a, b] = &mut consumers;
        let delivery = tokio::select! {
            delivery = take(a) => delivery,
            delivery = take(b) => delivery,
        };
        got.push(read(&delivery).id());
        delivery.ack().await;
    }
    assert_eq!(got.iter().cloned().collect::<BTreeSet<_>>(), sent);
    for mut consumer in consumers {
        consumer.stop().await;
    }
    assert_depth(broker, counts, Some(StageName::Crop), (0, 0, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("queues.sqlite"), Access::Write).unwrap();
    suite(&Embedded::open(database, 100).await.unwrap(), Counts::Exact).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq() {
    let server = server::shared().await;
    // Only the management API reports unacknowledged messages.
    let settings = RabbitMqSettings::new(&server.url()).unwrap().with_management(&server.management_url()).unwrap();
    suite(&RabbitMq::new(settings.with_prefix("conformance").unwrap()).unwrap(), Counts::Lag).await;
}

#[tokio::test]
async fn embedded_redelivers_the_messages_of_a_killed_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queues.sqlite");
    let open = async || Embedded::open(Database::open(&path, Access::Write).unwrap(), 100).await.unwrap();
    let killed = open().await;
    for id in ["a", "b"] {
        killed.publish(&message(id, StageName::Crop)).await.unwrap();
    }
    let mut consumer = killed.consume(StageName::Crop, 1).await.unwrap();
    // Forgotten, not dropped: a killed process runs no destructor.
    std::mem::forget(take(&mut consumer).await);
    std::mem::forget(consumer);
    let restarted = open().await;
    let mut consumer = restarted.consume(StageName::Crop, 5).await.unwrap();
    let (a, b) = (take(&mut consumer).await, take(&mut consumer).await);
    assert_eq!((read(&a).photo.candidate.photo_id.as_str(), a.redelivered), ("a", true));
    assert_eq!((read(&b).photo.candidate.photo_id.as_str(), b.redelivered), ("b", false));
    a.ack().await;
    b.ack().await;
}

#[tokio::test]
async fn embedded_queues_between_stages_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("queues.sqlite"), Access::Write).unwrap();
    let broker = Embedded::open(database, 2).await.unwrap();
    for i in 0..9 {
        broker.publish(&message(&format!("f{i}"), StageName::Fetch)).await.unwrap();
    }
    broker.publish(&message("a", StageName::Crop)).await.unwrap();
    broker.publish(&message("b", StageName::Crop)).await.unwrap();
    broker.publish_after(&message("retried", StageName::Crop), Duration::ZERO).await.unwrap();
    let third = message("c", StageName::Crop);
    let mut third = std::pin::pin!(broker.publish(&third));
    assert!(futures::poll!(&mut third).is_pending());
    broker.check().await.unwrap();
    assert!(futures::poll!(&mut third).is_pending(), "there is no room");
    let mut consumer = broker.consume(StageName::Crop, 2).await.unwrap();
    take(&mut consumer).await.ack().await;
    take(&mut consumer).await.ack().await;
    let (published, _) = tokio::join!(tokio::time::timeout(PATIENCE, third), take(&mut consumer));
    published.expect("the publisher was not notified of the room").unwrap();
}

/// At a shutdown the consumers stop first. Publishers to their queues must not wait for room.
#[tokio::test]
async fn a_stopped_consumer_releases_the_publishers_of_an_embedded_queue() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("queues.sqlite"), Access::Write).unwrap();
    let broker = Embedded::open(database, 1).await.unwrap();
    let mut consumer = broker.consume(StageName::Crop, 1).await.unwrap();
    broker.publish(&message("a", StageName::Crop)).await.unwrap();
    let second = message("b", StageName::Crop);
    let mut second = std::pin::pin!(broker.publish(&second));
    assert!(futures::poll!(&mut second).is_pending());
    broker.check().await.unwrap();
    assert!(futures::poll!(&mut second).is_pending(), "there is no room");
    let (published, ()) = tokio::join!(tokio::time::timeout(PATIENCE, second), consumer.stop());
    published.expect("the publisher still waits for room").unwrap();
    let mut consumer = broker.consume(StageName::Crop, 2).await.unwrap();
    take(&mut consumer).await.ack().await;
    take(&mut consumer).await.ack().await;
}
