//! What a queue does with messages that it had before (features.md E8): what their publishers hear, and which keys are
//! stored. The first byte of a body is its key.

use warren_queue::{
    Command, DeadLetterTarget, DeathReason, Dedup, Effects, Forgotten, Getter, NewConsumer, Overflow,
    Publish, Queue, QueueOptions, Settings,
};
use warren_testkit::MemoryStore;
use warren_types::session::{Delivery, Reply, Tracking};
use warren_types::{
    AmqpError, ChannelId, ConnectionId, ConsumerId, Message, MessageParts, QueueId, QueueRef,
};

const CONNECTION: ConnectionId = ConnectionId { slot: 1, generation: 1 };
const CHANNEL: ChannelId = ChannelId { number: 1, incarnation: 1 };

#[derive(Default)]
struct Seen {
    store: MemoryStore,
    effects: Vec<&'static str>,
}

impl Effects for Seen {
    fn deliver(&mut self, _: ConnectionId, _: Delivery) {
        self.effects.push("delivered");
    }

    fn reply(&mut self, _: ConnectionId, _: ChannelId, reply: Result<Reply, AmqpError>) {
        match reply.expect("everything in this file is allowed") {
            Reply::Got(Some(_)) => self.effects.push("got"),
            Reply::Got(None) => self.effects.push("empty"),
            _ => {}
        }
    }

    fn accepted(&mut self, _: ConnectionId, _: ChannelId, _: u64, durable: bool) {
        self.effects.push(if durable { "ack when durable" } else { "ack" });
    }

    fn refused(&mut self, _: ConnectionId, _: ChannelId, _: u64) {
        self.effects.push("nack");
    }

    fn dead_letter(&mut self, _: Message, _: DeathReason, _: &DeadLetterTarget, _: Option<Forgotten>) {
        unreachable!("there is no place for dead letters");
    }

    fn immediate(&mut self, _: ConnectionId, _: ChannelId, _: u64, taken: bool) {
        self.effects.push(if taken { "taken" } else { "returned" });
    }

    fn consumer_cancelled(&mut self, _: ConnectionId, _: ChannelId, _: ConsumerId) {}

    fn consumer_timed_out(&mut self, _: ConnectionId, _: ChannelId, _: ConsumerId, _: u64) {}

    fn deleted(&mut self) {}

    warren_testkit::store_effects!();
}

struct Script {
    queue: Queue,
    seen: Seen,
    now: u64,
}

fn dropping(size: usize, ttl_ms: Option<u64>) -> Settings {
    let dedup = Dedup { header: "id".into(), size, ttl_ms };
    Settings { dedup: Some(Box::new(dedup)), ..Settings::default() }
}

impl Script {
    fn new(settings: Settings, durable: bool) -> Self {
        let queue = QueueRef { id: QueueId(1), shard: 0, slot: 0 };
        let (name, vhost) = ("q".into(), "/".into());
        let options = QueueOptions { queue, name, vhost, durable, auto_delete: false, settings };
        Self { queue: Queue::new(options, 0), seen: Seen::default(), now: 0 }
    }

    fn apply(&mut self, command: Command) -> Vec<&'static str> {
        self.queue.apply(self.now, command, &mut self.seen);
        std::mem::take(&mut self.seen.effects)
    }

    fn publish_as(&mut self, body: &str, persistent: bool, tracking: Tracking) -> Vec<&'static str> {
        let parts = MessageParts { properties: &[0, 0], persistent, ..MessageParts::default() };
        let message = Message::new(&parts, body.as_bytes());
        self.apply(Command::Publish(Publish { connection: CONNECTION, channel: CHANNEL, tracking, message }))
    }

    fn publish(&mut self, body: &str) -> Vec<&'static str> {
        self.publish_as(body, true, Tracking::Confirm(1))
    }

    fn take(&mut self) -> Vec<&'static str> {
        self.apply(Command::Get(Getter { connection: CONNECTION, channel: CHANNEL, no_ack: true }))
    }

    fn keys(&self) -> String {
        let mut keys: Vec<_> = self.seen.store.keys().collect();
        keys.sort_by_key(|key| key.number);
        let mut stored: Vec<u128> = self.queue.stored_keys().collect();
        stored.sort_unstable();
        assert!(self.seen.store.keys().map(|key| key.hash).eq(stored), "the queue knows what is stored");
        keys.iter().map(|key| char::from(key.hash as u8)).collect()
    }
}

#[test]
fn e8_a_duplicate_is_dropped_and_confirmed() {
    let mut script = Script::new(dropping(10, None), true);
    assert_eq!(script.publish("a1"), ["ack when durable"]);
    assert_eq!(script.publish("a2"), ["ack when durable"]);
    assert_eq!(script.publish_as("a3", true, Tracking::None), [""; 0]);
    // Though it survives no restart itself, the first one does.
    assert_eq!(script.publish_as("a4", false, Tracking::Confirm(1)), ["ack when durable"]);
    // Without a key.
    assert_eq!(script.publish(""), ["ack when durable"]);
    assert_eq!(script.publish(""), ["ack when durable"]);
    assert_eq!(script.queue.ready_len(), 3);
    // What is consumed stays known, and what is purged as well.
    assert_eq!(script.take(), ["got"]);
    assert_eq!(script.publish("a5"), ["ack when durable"]);
    script.apply(Command::Purge { connection: CONNECTION, channel: CHANNEL });
    assert_eq!(script.publish("a6"), ["ack when durable"]);
    assert_eq!(script.take(), ["empty"]);
    assert_eq!(script.keys(), "a");
}

#[test]
fn e8_keys_are_stored_as_their_messages_are() {
    let mut script = Script::new(dropping(2, None), true);
    assert_eq!(script.publish_as("a", false, Tracking::Confirm(1)), ["ack"]);
    assert_eq!(script.keys(), "");
    script.publish("b");
    assert_eq!(script.keys(), "b");
    script.publish("c");
    script.publish("d");
    assert_eq!(script.keys(), "cd");

    let mut transient = Script::new(dropping(2, None), false);
    assert_eq!(transient.publish("a"), ["ack"]);
    assert_eq!(transient.publish("a"), ["ack"]);
    assert_eq!(transient.keys(), "");
    assert_eq!(transient.queue.ready_len(), 1);
}

#[test]
fn e8_only_what_the_queue_takes_is_remembered() {
    let settings = Settings { max_length: Some(1), overflow: Overflow::RejectPublish, ..dropping(9, None) };
    let mut script = Script::new(settings, true);
    script.publish("a");
    assert_eq!(script.publish("b"), ["nack"]);
    // There is no place for another one, but this one needs none.
    assert_eq!(script.publish("a"), ["ack when durable"]);
    script.take();
    assert_eq!(script.publish("b"), ["ack when durable"]);
    assert_eq!(script.keys(), "ab");
    script.take();
    assert_eq!(script.publish_as("c", true, Tracking::Immediate(1)), ["returned"]);
    assert_eq!(script.keys(), "ab");
    assert_eq!(script.publish_as("a", true, Tracking::Immediate(1)), ["taken"]);
}

#[test]
fn e8_what_a_consumer_takes_without_acknowledging_is_remembered() {
    let mut script = Script::new(dropping(9, None), true);
    script.apply(Command::Consume(Box::new(NewConsumer {
        connection: CONNECTION,
        channel: CHANNEL,
        consumer: ConsumerId(1),
        no_ack: true,
        exclusive: false,
        prefetch: 0,
        limit: None,
        priority: 0,
        timeout_ms: None,
    })));
    assert_eq!(script.publish("a"), ["ack when durable", "delivered"]);
    assert_eq!(script.seen.store.messages().count(), 0);
    assert_eq!(script.keys(), "a");
    assert_eq!(script.publish("a"), ["ack when durable"]);
}

#[test]
fn e8_settings_that_change_are_in_force_at_once() {
    let mut script = Script::new(dropping(9, None), true);
    ["a", "b", "c", "d"].iter().for_each(|body| drop(script.publish(body)));
    script.apply(Command::Configure(Box::new(dropping(2, Some(10)))));
    assert_eq!(script.keys(), "cd");
    script.publish("e");
    assert_eq!(script.keys(), "de");
    script.apply(Command::Configure(Box::new(dropping(3, Some(10)))));
    script.publish("f");
    assert_eq!(script.keys(), "def");
    script.now = 10;
    assert_eq!(script.queue.ready_len(), 6);
    script.publish("e");
    script.publish("d");
    assert_eq!(script.queue.ready_len(), 7, "one is known for ever, the other was for a time");
}

#[test]
fn e8_restored_keys_are_known_again() {
    let mut first = Script::new(dropping(9, None), true);
    ["a", "b", "c"].iter().for_each(|body| drop(first.publish(body)));
    let mut script = Script::new(dropping(2, None), true);
    script.seen.store = first.seen.store.clone();
    for hash in script.queue.restore_keys(first.seen.store.keys().collect()) {
        script.seen.store.forget_key(hash);
    }
    assert_eq!(script.keys(), "bc");
    script.publish("b");
    script.publish("c");
    assert_eq!(script.queue.ready_len(), 0);

    let mut other = Script::new(Settings::default(), true);
    assert_eq!(other.queue.restore_keys(first.seen.store.keys().collect()).len(), 3);
}
