//! Time that the connection machine takes for a message: from bytes to a session that does nothing, and from
//! events to bytes. Each has had a batch before, so that its buffers are as long as they get.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use warren_amqp091::{Connection, Interceptors, Limits, Phase, ServerIdentity};
use warren_amqp091_codec::{Dialect, Method, frame};
use warren_types::session::{
    Bind, Consume, Delivery, DeliveryRange, Event, ExchangeDeclare, LoginRefused, Outcome, QueueDeclare,
    QueueDeclared, Reply, Route, RouteGeneration, RouteRequest, Session, Settle, Tracking,
};
use warren_types::{
    AmqpError, ChannelId, ChannelLimit, ConsumerId, DeliveryId, FieldTable, Message, MessageParts, QueueId,
    QueueRef, ShortString,
};

/// Messages in a batch: one read of a busy connection.
const BATCH: u64 = 1000;

/// Lengths of bodies.
const BODIES: [usize; 2] = [16, 1024];

/// Property flags and list: content type, delivery mode 2.
const PROPERTIES: &[u8] = b"\x90\x00\x0atext/plain\x02";

const QUEUE: QueueRef = QueueRef { id: QueueId(7), shard: 0, slot: 0 };
const CHANNEL: ChannelId = ChannelId { number: 1, incarnation: 1 };

/// A broker that agrees to everything and does nothing.
struct Null {
    queues: Arc<[QueueRef]>,
    submitted: u64,
    delivered: usize,
    settled: u64,
}

impl Session for Null {
    fn system_time_ms(&self) -> u64 {
        0
    }

    fn login(&mut self, _: &[u8], _: &[u8]) -> Result<(), LoginRefused> {
        Ok(())
    }

    fn offers_anonymous(&self) -> bool {
        false
    }

    fn login_anonymous(&mut self) -> Result<(), LoginRefused> {
        Ok(())
    }

    fn open(&mut self, _: &[u8]) -> Result<(), AmqpError> {
        Ok(())
    }

    fn update_secret(&mut self, _: &[u8]) -> Result<(), AmqpError> {
        Ok(())
    }

    fn exchange_declare(&mut self, _: ExchangeDeclare) -> Result<(), AmqpError> {
        Ok(())
    }

    fn exchange_delete(&mut self, _: &[u8], _: bool) -> Result<(), AmqpError> {
        Ok(())
    }

    fn bind(&mut self, _: Bind) -> Result<(), AmqpError> {
        Ok(())
    }

    fn unbind(&mut self, _: Bind) -> Result<(), AmqpError> {
        Ok(())
    }

    fn queue_declare(&mut self, _: ChannelId, _: QueueDeclare) -> Result<Outcome<QueueDeclared>, AmqpError> {
        Ok(Outcome::Pending)
    }

    fn queue_delete(&mut self, _: ChannelId, _: &[u8], _: bool, _: bool) -> Result<Outcome<u32>, AmqpError> {
        Ok(Outcome::Pending)
    }

    fn queue_purge(&mut self, _: ChannelId, _: &[u8]) -> Result<(), AmqpError> {
        Ok(())
    }

    fn get(&mut self, _: ChannelId, _: &[u8], _: bool) -> Result<(), AmqpError> {
        Ok(())
    }

    fn consume(&mut self, _: ChannelId, _: Consume) -> Result<QueueRef, AmqpError> {
        Ok(QUEUE)
    }

    fn cancel(&mut self, _: ChannelId, _: QueueRef, _: ConsumerId) {}

    fn recheck(&mut self, _: QueueRef, _: &[u8], _: ConsumerId) {}
    fn limit(&mut self, _: QueueRef, _: ConsumerId, _: Arc<ChannelLimit>) {}
    fn resume(&mut self, _: QueueRef, _: ConsumerId) {}

    fn start_direct_replies(&mut self, _: ChannelId) -> ShortString {
        ShortString::truncated(b"address")
    }

    fn stop_direct_replies(&mut self, _: &[u8]) {}

    fn is_direct_reply_alive(&self, _: &[u8]) -> bool {
        false
    }

    fn route(&mut self, _: &RouteRequest<'_>) -> Result<(Route, Option<RouteGeneration>), AmqpError> {
        Ok((Route::Queues(Arc::clone(&self.queues)), Some(RouteGeneration(0))))
    }

    fn is_current(&self, _: RouteGeneration) -> bool {
        true
    }

    fn submit(&mut self, _: ChannelId, _: &Route, message: Message, _: Tracking) {
        self.submitted += 1;
        black_box(message);
    }

    fn settle(&mut self, _: ChannelId, _: QueueRef, range: DeliveryRange, _: Settle) {
        self.settled += range.last.0 - range.first.0 + 1;
    }

    fn generate_name(&mut self, prefix: &str) -> ShortString {
        ShortString::truncated(prefix.as_bytes())
    }

    fn delivered(&mut self, _: ChannelId, _: QueueRef, _: ConsumerId, bytes: usize) {
        self.delivered += bytes;
    }

    fn channel_closed(&mut self, _: ChannelId) {}

    fn close(&mut self) -> usize {
        0
    }
}

/// A connection without a socket.
struct Client {
    machine: Connection,
    session: Null,
    now: Instant,
}

impl Client {
    /// An open connection with channel 1.
    fn open() -> Self {
        let now = Instant::now();
        let limits = Limits {
            frame_max: 131_072,
            channel_max: 2047,
            heartbeat_s: 60,
            message_len_max: 16 << 20,
            handshake_timeout: Duration::from_secs(10),
            interceptors: Interceptors::default(),
        };
        let [product, version, cluster_name, platform, copyright, information] =
            std::array::from_fn(|_| String::new());
        let identity = ServerIdentity { product, version, cluster_name, platform, copyright, information };
        let machine = Connection::new(limits, Arc::new(identity), now);
        let session = Null { queues: Arc::from([QUEUE]), submitted: 0, delivered: 0, settled: 0 };
        let mut client = Self { machine, session, now };
        client.input(&Dialect::HEADER_091);
        client.method(
            0,
            &Method::ConnectionStartOk {
                client_properties: FieldTable::new(),
                mechanism: b"PLAIN",
                response: b"\0guest\0guest",
                locale: b"en_US",
            },
        );
        client.method(0, &Method::ConnectionTuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 });
        client.method(0, &Method::ConnectionOpen { virtual_host: b"/", capabilities: b"", insist: false });
        client.method(1, &Method::ChannelOpen { out_of_band: b"" });
        assert_eq!(client.machine.phase(), Phase::Running);
        client
    }

    fn input(&mut self, bytes: &[u8]) {
        let used = self.machine.on_bytes(self.now, bytes, &mut self.session);
        assert_eq!(used, bytes.len());
        self.machine.flush();
    }

    fn method(&mut self, channel: u16, method: &Method<'_>) {
        let mut bytes = Vec::new();
        frame::put_method(&mut bytes, Dialect::Amqp091, channel, method);
        self.input(&bytes);
        self.write();
    }

    fn event(&mut self, event: Event) {
        self.machine.on_event(self.now, event, &mut self.session);
    }

    /// The socket takes everything; returns how much that was.
    fn write(&mut self) -> usize {
        let len = self.machine.output().len();
        self.machine.on_written(self.now, len);
        len
    }

    fn consume(&mut self, no_ack: bool) {
        let consume = Method::BasicConsume {
            ticket: 0,
            queue: b"queue",
            consumer_tag: b"consumer",
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: false,
            arguments: FieldTable::new(),
        };
        self.method(1, &consume);
        self.event(Event::Reply(CHANNEL, Ok(Reply::Consuming)));
        self.write();
    }
}

fn publishes(len: usize) -> Vec<u8> {
    let body = vec![7; len];
    let publish = Method::BasicPublish {
        ticket: 0,
        exchange: b"",
        routing_key: b"queue",
        mandatory: false,
        immediate: false,
    };
    let mut bytes = Vec::new();
    for _ in 0..BATCH {
        frame::put_method(&mut bytes, Dialect::Amqp091, 1, &publish);
        frame::put_content_header(&mut bytes, 1, body.len() as u64, PROPERTIES);
        frame::put_body_head(&mut bytes, 1, u32::try_from(len).expect("bodies are small"));
        bytes.extend_from_slice(&body);
        bytes.push(frame::END);
    }
    bytes
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    group.throughput(Throughput::Elements(BATCH));
    for len in BODIES {
        let bytes = publishes(len);
        let mut client = Client::open();
        group.bench_function(format!("{len} B"), |bencher| {
            client.input(&bytes);
            bencher.iter(|| client.input(&bytes));
            assert!(client.session.submitted >= BATCH);
        });
        // With confirms, the broker's answer to the whole batch included.
        let mut client = Client::open();
        client.method(1, &Method::ConfirmSelect { nowait: false });
        let mut last = 0;
        group.bench_function(format!("{len} B, confirms"), |bencher| {
            let mut batch = || {
                client.input(&bytes);
                let first = last + 1;
                last += BATCH;
                client.event(Event::Settled { channel: CHANNEL, first, last, accepted: true });
                client.machine.flush();
                client.write()
            };
            batch();
            bencher.iter(batch);
        });
    }
    group.finish();
}

fn delivery(message: &Message, id: u64) -> Event {
    Event::Deliver(Delivery {
        channel: CHANNEL,
        consumer: ConsumerId(1),
        queue: QUEUE,
        id: DeliveryId(id),
        redelivered: false,
        limited: false,
        message: message.clone(),
    })
}

fn deliver(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deliver");
    group.throughput(Throughput::Elements(BATCH));
    for len in BODIES {
        let parts = MessageParts { routing_key: b"queue", properties: PROPERTIES, ..MessageParts::default() };
        let message = Message::new(&parts, &vec![7; len]);
        let mut client = Client::open();
        client.consume(true);
        group.bench_function(format!("{len} B, no-ack"), |bencher| {
            let mut batch = || {
                for id in 0..BATCH {
                    client.event(delivery(&message, id));
                }
                client.write()
            };
            batch();
            bencher.iter(batch);
            assert!(client.session.delivered > 0);
        });
        // With one acknowledgement for the batch, so that nothing piles up.
        let mut client = Client::open();
        client.consume(false);
        let (mut next, mut ack) = (0, Vec::new());
        group.bench_function(format!("{len} B, acknowledged"), |bencher| {
            let mut batch = || {
                for _ in 0..BATCH {
                    client.event(delivery(&message, next));
                    next += 1;
                }
                ack.clear();
                let method = Method::BasicAck { delivery_tag: next, multiple: true };
                frame::put_method(&mut ack, Dialect::Amqp091, 1, &method);
                client.input(&ack);
                client.write()
            };
            batch();
            bencher.iter(batch);
            assert!(client.session.settled >= BATCH);
        });
    }
    group.finish();
}

criterion_group!(benches, publish, deliver);
criterion_main!(benches);
