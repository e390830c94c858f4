//! Time that the queue machine takes for a message: through to consumers, and into a backlog and out of it.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use warren_queue::{
    Command, DeadLetterTarget, DeathReason, Effects, Getter, NewConsumer, Publish, Queue, QueueOptions,
    Settings,
};
use warren_types::session::{Delivery, DeliveryRange, Reply, Settle, Tracking};
use warren_types::{
    AmqpError, ChannelId, ConnectionId, ConsumerId, DeliveryId, Message, MessageParts, QueueId, QueueRef,
    ShortString,
};

const PUBLISHER: ConnectionId = ConnectionId { slot: 0, generation: 0 };
const CHANNEL: ChannelId = ChannelId { number: 1, incarnation: 1 };

/// Messages in a turn.
const TURN: u64 = 1000;

/// What comes out of a queue, counted.
#[derive(Default)]
struct Counts {
    store: warren_testkit::MemoryStore,
    deliveries: Vec<(ConnectionId, Delivery)>,
    accepted: u64,
    replies: u64,
}

impl Effects for Counts {
    fn deliver(&mut self, connection: ConnectionId, delivery: Delivery) {
        self.deliveries.push((connection, delivery));
    }

    fn reply(&mut self, _: ConnectionId, _: ChannelId, reply: Result<Reply, AmqpError>) {
        self.replies += 1;
        black_box(reply).expect("everything in this file is allowed");
    }

    fn accepted(&mut self, _: ConnectionId, _: ChannelId, number: u64, _: bool) {
        self.accepted = number;
    }

    fn refused(&mut self, _: ConnectionId, _: ChannelId, _: u64) {}

    fn dead_letter(
        &mut self,
        _: Message,
        _: DeathReason,
        _: &DeadLetterTarget,
        _: Option<warren_queue::Forgotten>,
    ) {
    }

    fn immediate(&mut self, _: ConnectionId, _: ChannelId, _: u64, _: bool) {}

    fn consumer_cancelled(&mut self, _: ConnectionId, _: ChannelId, _: ConsumerId) {}

    fn deleted(&mut self) {}

    warren_testkit::store_effects!();
}

fn queue() -> Queue {
    let options = QueueOptions {
        queue: QueueRef { id: QueueId(0), shard: 0, slot: 0 },
        name: ShortString::new(b"queue").expect("it is short"),
        vhost: Arc::from("/"),
        durable: false,
        auto_delete: false,
        settings: Settings::default(),
    };
    Queue::new(options, 0)
}

fn message() -> Message {
    let parts = MessageParts { routing_key: b"queue", properties: &[0x10, 0, 2], ..MessageParts::default() };
    Message::new(&parts, &[7; 16])
}

fn publish(message: &Message, number: u64) -> Command {
    let tracking = Tracking::Confirm(number);
    Command::Publish(Publish { connection: PUBLISHER, channel: CHANNEL, tracking, message: message.clone() })
}

fn consumer(number: u32) -> ConnectionId {
    ConnectionId { slot: 1 + number, generation: 1 }
}

/// Everything that a message passes: publish, deliver, credit and acknowledgement of ranges.
fn turn(queue: &mut Queue, message: &Message, effects: &mut Counts) {
    for number in 0..TURN {
        queue.apply(0, publish(message, number), effects);
    }
    assert_eq!(effects.deliveries.len() as u64, TURN);
    let bytes = message.memory();
    // Each consumer's client acknowledges what it got with as few ranges as the ids allow.
    let mut open: Option<(ConnectionId, ConsumerId, DeliveryRange)> = None;
    let mut settles = Vec::new();
    for (connection, delivery) in effects.deliveries.drain(..) {
        match &mut open {
            Some((same, _, range)) if *same == connection && range.last.0 + 1 == delivery.id.0 => {
                range.last = delivery.id;
            }
            _ => {
                let range = DeliveryRange { first: delivery.id, last: delivery.id };
                settles.extend(open.replace((connection, delivery.consumer, range)));
            }
        }
    }
    settles.extend(open);
    for (connection, consumer, range) in settles {
        let DeliveryRange { first: DeliveryId(first), last: DeliveryId(last) } = range;
        let bytes = bytes * (last - first + 1) as usize;
        queue.apply(0, Command::Credit { connection, consumer, bytes }, effects);
        let settle = Command::Settle { connection, channel: CHANNEL, range, settle: Settle::Ack };
        queue.apply(0, settle, effects);
    }
    assert_eq!(queue.unacked_len() + queue.ready_len(), 0);
}

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn");
    group.throughput(Throughput::Elements(TURN));
    for consumers in [1, 10] {
        let (mut queue, mut effects, message) = (queue(), Counts::default(), message());
        for number in 0..consumers {
            let new = NewConsumer {
                connection: consumer(number),
                channel: CHANNEL,
                consumer: ConsumerId(1),
                no_ack: false,
                exclusive: false,
                prefetch: 0,
                limit: None,
                priority: 0,
            };
            queue.apply(0, Command::Consume(Box::new(new)), &mut effects);
        }
        group.bench_function(format!("{consumers} consumers"), |bencher| {
            // Then all lists are as long as they get.
            turn(&mut queue, &message, &mut effects);
            bencher.iter(|| turn(&mut queue, &message, &mut effects));
        });
    }
    group.finish();
}

fn backlog(criterion: &mut Criterion) {
    const LEN: u64 = 100_000;
    let message = message();
    let filled = || {
        let (mut queue, mut effects) = (queue(), Counts::default());
        for number in 0..LEN {
            queue.apply(0, publish(&message, number), &mut effects);
        }
        queue
    };
    let mut group = criterion.benchmark_group("backlog");
    group.throughput(Throughput::Elements(LEN));
    group.bench_function("push", |bencher| bencher.iter_with_large_drop(filled));
    group.bench_function("get", |bencher| {
        let getter = Getter { connection: PUBLISHER, channel: CHANNEL, no_ack: true };
        let drain = |queue: &mut Queue| {
            let mut effects = Counts::default();
            while queue.ready_len() > 0 {
                queue.apply(0, Command::Get(getter), &mut effects);
            }
            effects.replies
        };
        bencher.iter_batched_ref(filled, drain, BatchSize::LargeInput);
    });
    group.bench_function("purge", |bencher| {
        let purge = |queue: &mut Queue| {
            let purge = Command::Purge { connection: PUBLISHER, channel: CHANNEL };
            queue.apply(0, purge, &mut Counts::default());
        };
        bencher.iter_batched_ref(filled, purge, BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, turns, backlog);
criterion_main!(benches);
