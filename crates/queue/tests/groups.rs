//! Message groups against what they promise, with consumers that come, go, and acknowledge as they like.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use warren_queue::{
    Command, DeadLetterTarget, DeathReason, Effects, Forgotten, NewConsumer, Publish, Queue, QueueOptions,
    Settings,
};
use warren_testkit::MemoryStore;
use warren_types::session::{Delivery, DeliveryRange, Reply, Settle, Tracking};
use warren_types::{
    AmqpError, ChannelId, ConnectionId, ConsumerId, DeliveryId, Message, MessageParts, QueueId, QueueRef,
};

const CONNECTION: ConnectionId = ConnectionId { slot: 1, generation: 1 };
const CHANNEL: ChannelId = ChannelId { number: 1, incarnation: 1 };

#[derive(Debug, Clone, Copy)]
enum Step {
    Publish { group: u8, len: usize },
    Consume { prefetch: u32 },
    Cancel { nth: usize },
    Ack { nth: usize },
    Requeue { nth: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![5 => 1..40_usize, 1 => Just(60_000)];
    prop_oneof![
        6 => (0..6_u8, len).prop_map(|(group, len)| Step::Publish { group, len }),
        1 => (1..4_u32).prop_map(|prefetch| Step::Consume { prefetch }),
        1 => any::<usize>().prop_map(|nth| Step::Cancel { nth }),
        6 => any::<usize>().prop_map(|nth| Step::Ack { nth }),
        1 => any::<usize>().prop_map(|nth| Step::Requeue { nth }),
    ]
}

#[derive(Default)]
struct Seen {
    store: MemoryStore,
    delivered: Vec<Delivery>,
}

impl Effects for Seen {
    fn deliver(&mut self, _: ConnectionId, delivery: Delivery) {
        self.delivered.push(delivery);
    }

    fn reply(&mut self, _: ConnectionId, _: ChannelId, _: Result<Reply, AmqpError>) {}

    fn accepted(&mut self, _: ConnectionId, _: ChannelId, _: u64, _: bool) {}

    fn refused(&mut self, _: ConnectionId, _: ChannelId, _: u64) {}

    fn dead_letter(&mut self, _: Message, _: DeathReason, _: &DeadLetterTarget, _: Option<Forgotten>) {}

    fn immediate(&mut self, _: ConnectionId, _: ChannelId, _: u64, _: bool) {}

    fn consumer_cancelled(&mut self, _: ConnectionId, _: ChannelId, _: ConsumerId) {}

    fn consumer_timed_out(&mut self, _: ConnectionId, _: ChannelId, _: ConsumerId, _: u64) {}

    fn deleted(&mut self) {}

    warren_testkit::store_effects!();
}

/// A body that tells the group and the place in it.
fn body(group: u8, number: u32, len: usize) -> Vec<u8> {
    let mut body = vec![group];
    body.extend_from_slice(&number.to_be_bytes());
    body.resize(body.len() + len, b'.');
    body
}

fn read(body: &[u8]) -> (u8, u32) {
    (body[0], u32::from_be_bytes(body[1..5].try_into().expect("four bytes")))
}

struct Run {
    queue: Queue,
    seen: Seen,
    published: BTreeMap<u8, u32>,
    /// By delivery: the consumer, the group and the number.
    unacked: BTreeMap<u64, (u32, u8, u32)>,
    done: BTreeSet<(u8, u32)>,
    prefetches: BTreeMap<u32, u32>,
    next_consumer: u32,
}

impl Run {
    fn new() -> Self {
        let queue = QueueRef { id: QueueId(1), shard: 0, slot: 0 };
        let settings = Settings { group_header: Some("group".into()), ..Settings::default() };
        let (name, vhost) = ("q".into(), "/".into());
        let options = QueueOptions { queue, name, vhost, durable: true, auto_delete: false, settings };
        Self {
            queue: Queue::new(options, 0),
            seen: Seen::default(),
            published: BTreeMap::new(),
            unacked: BTreeMap::new(),
            done: BTreeSet::new(),
            prefetches: BTreeMap::new(),
            next_consumer: 0,
        }
    }

    fn apply(&mut self, command: Command) {
        self.queue.apply(0, command, &mut self.seen);
        while let Some(answer) = self.seen.store.answer() {
            self.queue.apply(0, answer, &mut self.seen);
        }
        for delivery in std::mem::take(&mut self.seen.delivered) {
            let (group, number) = read(delivery.message.body());
            let memory = delivery.message.memory();
            let others: BTreeSet<u32> = (self.unacked.values())
                .filter(|(_, other, _)| *other == group)
                .map(|(consumer, _, _)| *consumer)
                .collect();
            assert!(
                others.iter().all(|consumer| *consumer == delivery.consumer.0),
                "group {group} is with two consumers"
            );
            // All that came before it is done or at the same consumer.
            let before = (0..number).all(|earlier| {
                self.done.contains(&(group, earlier))
                    || self.unacked.values().any(|(_, g, n)| (*g, *n) == (group, earlier))
            });
            assert!(before, "message {number} of group {group} passes another");
            self.unacked.insert(delivery.id.0, (delivery.consumer.0, group, number));
            let consumer = delivery.consumer;
            self.queue.apply(
                0,
                Command::Credit { connection: CONNECTION, consumer, bytes: memory },
                &mut self.seen,
            );
        }
        if !self.seen.delivered.is_empty() {
            self.apply(Command::Tick);
        }
    }

    fn settle(&mut self, nth: usize, settle: Settle) {
        let Some(id) = self.unacked.keys().nth(nth % self.unacked.len().max(1)).copied() else { return };
        let (_, group, number) = self.unacked.remove(&id).expect("it was just found");
        if matches!(settle, Settle::Ack) {
            self.done.insert((group, number));
        }
        let range = DeliveryRange { first: DeliveryId(id), last: DeliveryId(id) };
        self.apply(Command::Settle { connection: CONNECTION, channel: CHANNEL, range, settle });
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish { group, len } => {
                let next = self.published.entry(group).or_default();
                let body = body(group, *next, len);
                *next += 1;
                let parts = MessageParts { properties: &[0, 0], persistent: true, ..MessageParts::default() };
                let message = Message::new(&parts, &body);
                let (connection, channel, tracking) = (CONNECTION, CHANNEL, Tracking::None);
                self.apply(Command::Publish(Publish { connection, channel, tracking, message }));
            }
            Step::Consume { prefetch } => {
                let consumer = ConsumerId(self.next_consumer);
                self.prefetches.insert(self.next_consumer, prefetch);
                self.next_consumer += 1;
                self.apply(Command::Consume(Box::new(NewConsumer {
                    connection: CONNECTION,
                    channel: CHANNEL,
                    consumer,
                    no_ack: false,
                    exclusive: false,
                    prefetch,
                    limit: None,
                    priority: 0,
                    timeout_ms: None,
                })));
            }
            Step::Cancel { nth } => {
                let Some(consumer) = self.prefetches.keys().nth(nth % self.prefetches.len().max(1)).copied()
                else {
                    return;
                };
                self.prefetches.remove(&consumer);
                let (connection, channel) = (CONNECTION, CHANNEL);
                self.apply(Command::Cancel { connection, channel, consumer: ConsumerId(consumer) });
            }
            Step::Ack { nth } => self.settle(nth, Settle::Ack),
            Step::Requeue { nth } => {
                // What is given back may be handed out again behind later messages that are out already: only the last
                // of its group keeps the order.
                let last = |id: &u64| {
                    let (_, group, number) = self.unacked[id];
                    !self.unacked.values().any(|(_, g, n)| *g == group && *n > number)
                };
                let ids: Vec<u64> = self.unacked.keys().copied().filter(last).collect();
                if let Some(id) = ids.get(nth % ids.len().max(1)) {
                    let place = self.unacked.keys().position(|other| other == id).expect("it is there");
                    self.settle(place, Settle::Requeue { failed: false });
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn b_groups_keep_their_order_and_nothing_is_stuck(steps in prop::collection::vec(step(), 1..300)) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
        }
        // Whoever comes now gets all the rest, once everything is acknowledged.
        run.step(Step::Consume { prefetch: 3 });
        while !run.unacked.is_empty() {
            run.step(Step::Ack { nth: 0 });
        }
        let published: usize = run.published.values().map(|count| *count as usize).sum();
        prop_assert_eq!(run.done.len(), published);
        prop_assert_eq!(run.queue.ready_len(), 0);
    }
}
