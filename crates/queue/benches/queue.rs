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

    fn consumer_timed_out(&mut self, _: ConnectionId, _: ChannelId, _: ConsumerId, _: u64) {}

    fn deleted(&mut self) {}

    warren_testkit::store_effects!();
}

fn queue() -> Queue {
    queue_with(Settings::default())
}

fn queue_with(settings: Settings) -> Queue {
    let options = QueueOptions {
        queue: QueueRef { id: QueueId(0), shard: 0, slot: 0 },
        name: ShortString::new(b"queue").expect("it is short"),
        vhost: Arc::from("/"),
        durable: false,
        auto_delete: false,
        settings,
    };
    Queue::new(options, 0)
}

fn message() -> Message {
    message_with(0, None)
}

fn message_with(priority: u8, expiration_ms: Option<u64>) -> Message {
    let (routing_key, properties) = (b"queue", &[0x10, 0, 2]);
    let parts = MessageParts { routing_key, properties, priority, expiration_ms, ..MessageParts::default() };
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
                timeout_ms: None,
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

/// Messages of a backlog.
const BACKLOG: u64 = 100_000;

/// A queue with a backlog, most of it in the store.
fn filled(max_priority: u8, expiration_ms: impl Fn(u64) -> Option<u64>) -> (Queue, Counts) {
    let (mut queue, mut effects) =
        (queue_with(Settings { max_priority, ..Settings::default() }), Counts::default());
    for number in 0..BACKLOG {
        let priority = (number % (u64::from(max_priority) + 1)) as u8;
        let message = message_with(priority, expiration_ms(number));
        queue.apply(0, publish(&message, number), &mut effects);
    }
    (queue, effects)
}

/// Applies a command, and what the store answers.
fn apply(queue: &mut Queue, effects: &mut Counts, now: u64, command: Command) {
    queue.apply(now, command, effects);
    while let Some(answer) = effects.store.answer() {
        queue.apply(now, answer, effects);
    }
}

fn drain((queue, effects): &mut (Queue, Counts)) -> u64 {
    let getter = Getter { connection: PUBLISHER, channel: CHANNEL, no_ack: true };
    while queue.ready_len() > 0 {
        apply(queue, effects, 0, Command::Get(getter));
    }
    effects.replies
}

fn backlog(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("backlog");
    group.throughput(Throughput::Elements(BACKLOG));
    group.sample_size(10);
    let plain = |_| None;
    group.bench_function("push", |bencher| bencher.iter_with_large_drop(|| filled(0, plain)));
    for (name, max_priority) in [("get", 0), ("get, 256 priorities", 255)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(|| filled(max_priority, plain), drain, BatchSize::LargeInput);
        });
    }
    // In no order, over three months.
    let any_time = |number: u64| Some(1 + number * 7_919 % 100_003 * 77_760);
    group.bench_function("push, expiring", |bencher| bencher.iter_with_large_drop(|| filled(0, any_time)));
    group.bench_function("expire", |bencher| {
        let expire = |(queue, effects): &mut (Queue, Counts)| {
            while let Some(deadline) = queue.deadline() {
                apply(queue, effects, deadline, Command::Tick);
            }
            assert_eq!(queue.ready_len(), 0);
        };
        bencher.iter_batched_ref(|| filled(0, any_time), expire, BatchSize::LargeInput);
    });
    group.bench_function("purge", |bencher| {
        let purge = |(queue, effects): &mut (Queue, Counts)| {
            apply(queue, effects, 0, Command::Purge { connection: PUBLISHER, channel: CHANNEL });
        };
        bencher.iter_batched_ref(|| filled(0, plain), purge, BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, turns, backlog);
criterion_main!(benches);
