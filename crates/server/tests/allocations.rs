//! How often memory is allocated on the way of a message through the connection machine and the session.
//!
//! Allocations are counted on the thread of the test alone: what shards do on theirs is not in the figures.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::{AllocationInfo, measure};
use tokio::runtime::Runtime;
use warren_amqp091::{Connection, Interceptors, Limits, Phase, ServerIdentity};
use warren_amqp091_codec::{Dialect, Method, frame};
use warren_broker::{Broker, BrokerSession, Permissions, Settings};
use warren_store::{Options as StoreOptions, Store};
use warren_testkit::SimDisk;
use warren_types::FieldTable;
use warren_types::session::{Event, Peer};

/// Longest wait for the shards.
const PATIENCE: Duration = Duration::from_secs(20);

/// Property flags and list: content type, delivery mode 2, as most publishers send them.
const PERSISTENT_TEXT: &[u8] = b"\x90\x00\x0atext/plain\x02";

/// A connection as its task sees it, without the socket.
struct Client {
    runtime: Runtime,
    machine: Connection,
    session: BrokerSession,
    events: Vec<Event>,
    now: Instant,
}

impl Client {
    /// An open connection with channel 1, on a broker of its own.
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let settings = Settings {
            default_queue_type: None,
            consumer_timeout: None,
            shards: 1,
            memory_limit: 1 << 40,
            disk_free_limit: 0,
            default_vhost: "/".to_owned(),
            default_user: "guest".to_owned(),
            default_password: "guest".to_owned(),
            default_permissions: Permissions::new(".*", ".*", ".*").expect("they are regular"),
            loopback_users: Vec::new(),
            anonymous_user: None,
            node: "rabbit@here".to_owned(),
            event_exchange: None,
            log_exchange: false,
        };
        let broker = {
            let _inside = runtime.enter();
            let disk = Arc::new(SimDisk::new(1));
            let on_failure = Box::new(|failure: &str| panic!("{failure}"));
            let opened = Store::open(disk, StoreOptions::default(), on_failure, &|_, _| {});
            let (store, recovered) = opened.expect("the disk is empty");
            Broker::start(settings, store, recovered).expect("nothing is stored")
        };
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
        let [client, server] = [1, 2].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let session = broker.session(Peer { client, server });
        let machine = Connection::new(limits, Arc::new(identity), now);
        let mut client = Self { runtime, machine, session, events: Vec::new(), now };
        client.log_in();
        client
    }

    fn log_in(&mut self) {
        self.input(&Dialect::HEADER_091);
        self.method(
            0,
            &Method::ConnectionStartOk {
                client_properties: FieldTable::new(),
                mechanism: b"PLAIN",
                response: b"\0guest\0guest",
                locale: b"en_US",
            },
        );
        self.method(0, &Method::ConnectionTuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 });
        self.method(0, &Method::ConnectionOpen { virtual_host: b"/", capabilities: b"", insist: false });
        self.method(1, &Method::ChannelOpen { out_of_band: b"" });
        assert_eq!(self.machine.phase(), Phase::Running);
    }

    /// Gives input to the machine, which must use all of it at once.
    fn input(&mut self, bytes: &[u8]) {
        let used = self.machine.on_bytes(self.now, bytes, &mut self.session);
        assert_eq!(used, bytes.len());
        self.machine.flush();
        self.session.flush();
    }

    fn method(&mut self, channel: u16, method: &Method<'_>) {
        let mut bytes = Vec::new();
        frame::put_method(&mut bytes, Dialect::Amqp091, channel, method);
        self.input(&bytes);
        self.write();
    }

    /// Declares a queue and binds it to `amq.fanout`.
    fn queue(&mut self, name: &str) {
        let queue = name.as_bytes();
        self.method(
            1,
            &Method::QueueDeclare {
                ticket: 0,
                queue,
                passive: false,
                durable: true,
                exclusive: false,
                auto_delete: false,
                nowait: false,
                arguments: FieldTable::new(),
            },
        );
        for exchange in [&b"amq.fanout"[..], b"amq.headers", b"amq.topic"] {
            self.method(
                1,
                &Method::QueueBind {
                    ticket: 0,
                    queue,
                    exchange,
                    routing_key: b"#",
                    nowait: false,
                    arguments: FieldTable::new(),
                },
            );
        }
    }

    /// Waits for news from the broker.
    fn wait(&mut self) {
        let wait = async { tokio::time::timeout(PATIENCE, self.session.wait()).await };
        self.runtime.block_on(wait).expect("there is news in time");
    }

    /// Takes what has come from the broker; returns how many messages that were.
    fn take_events(&mut self) -> u64 {
        let mut deliveries = 0;
        self.session.take_events(&mut self.events);
        for event in self.events.drain(..) {
            deliveries += u64::from(matches!(event, Event::Deliver(_)));
            if let Some(event) = self.session.filter(event) {
                self.machine.on_event(self.now, event, &mut self.session);
            }
        }
        self.machine.flush();
        self.session.flush();
        deliveries
    }

    /// The socket takes everything at once.
    fn write(&mut self) {
        let len = self.machine.output().len();
        self.machine.on_written(self.now, len);
        self.session.written();
        self.session.flush();
    }

    /// Waits until everything that was published is processed, so that no turn of a shard stands between.
    fn settle(&mut self) {
        let start = Instant::now();
        while self.session.must_wait() {
            assert!(start.elapsed() < PATIENCE, "the shard does not keep up");
            self.wait();
        }
        self.take_events();
        self.write();
    }
}

/// The bytes of messages; each has another routing key if `distinct_keys`.
fn publishes(count: usize, exchange: &str, distinct_keys: bool, properties: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..count {
        let key = if distinct_keys { format!("key-{number}") } else { "queue".to_owned() };
        let publish = Method::BasicPublish {
            ticket: 0,
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
            mandatory: false,
            immediate: false,
        };
        frame::put_method(&mut bytes, Dialect::Amqp091, 1, &publish);
        frame::put_content_header(&mut bytes, 1, body.len() as u64, properties);
        for piece in body.chunks(131_072 - frame::OVERHEAD) {
            frame::put_body_head(&mut bytes, 1, u32::try_from(piece.len()).expect("it is a piece"));
            bytes.extend_from_slice(piece);
            bytes.push(frame::END);
        }
    }
    bytes
}

/// Allocations per message.
fn per_message(info: AllocationInfo, count: u64) -> f64 {
    info.count_total as f64 / count as f64
}

/// Allocations per message when `count` messages come in one buffer, after a batch that warms up.
fn publishing(client: &mut Client, count: usize, make: impl Fn(usize) -> Vec<u8>) -> f64 {
    let bytes = make(count);
    client.input(&bytes);
    client.settle();
    let info = measure(|| client.input(&bytes));
    client.settle();
    per_message(info, count as u64)
}

#[test]
fn a_publish_allocates_its_message_and_nothing_else() {
    for (name, exchange, properties, confirm) in [
        ("default exchange", "", &[0, 0][..], false),
        ("default exchange, persistent", "", PERSISTENT_TEXT, false),
        ("default exchange, confirms", "", PERSISTENT_TEXT, true),
        ("topic exchange", "amq.topic", PERSISTENT_TEXT, false),
    ] {
        let mut client = Client::open();
        client.queue("queue");
        if confirm {
            client.method(1, &Method::ConfirmSelect { nowait: false });
        }
        for len in [16, 1024] {
            let make = |count| publishes(count, exchange, false, properties, &vec![7; len]);
            let small = publishing(&mut client, 1000, make);
            let large = publishing(&mut client, 10_000, make);
            println!("{name}, {len} bytes: {small:.4} in batches of 1,000, {large:.4} in batches of 10,000");
            assert!(large <= 1.1, "{name}, {len} bytes: {large} allocations per message");
            assert!(large <= small + 0.01, "{name}, {len} bytes: it grows with the batch");
        }
    }
}

#[test]
fn a_message_for_many_queues_is_allocated_once() {
    let mut client = Client::open();
    for number in 0..10 {
        client.queue(&format!("queue-{number}"));
    }
    let make = |count| publishes(count, "amq.fanout", false, PERSISTENT_TEXT, &[7; 16]);
    let each = publishing(&mut client, 10_000, make);
    println!("to ten queues: {each:.4}");
    assert!(each <= 1.1, "{each} allocations per message");
}

#[test]
fn an_unroutable_message_allocates_nothing() {
    let mut client = Client::open();
    let make = |count| publishes(count, "", false, PERSISTENT_TEXT, &[7; 16]);
    let each = publishing(&mut client, 10_000, make);
    println!("unroutable: {each:.4}");
    assert!(each <= 0.1, "{each} allocations per message");
}

#[test]
fn costlier_ways_to_publish_stay_within_bounds() {
    for (name, exchange, distinct_keys, len, bound) in [
        // The body, what shares it, and the rest of the message.
        ("large bodies", "", false, 10_000, 4.1),
        // The list of queues is found anew for each.
        ("headers exchange", "amq.headers", false, 16, 2.1),
        // And remembered.
        ("a key of its own for each", "amq.topic", true, 16, 3.1),
    ] {
        let mut client = Client::open();
        client.queue("queue");
        let make = |count| publishes(count, exchange, distinct_keys, PERSISTENT_TEXT, &vec![7; len]);
        let each = publishing(&mut client, 5000, make);
        println!("{name}: {each:.4}");
        assert!(each <= bound, "{name}: {each} allocations per message");
    }
}

#[test]
fn deliveries_allocate_nothing_of_their_own() {
    const COUNT: u64 = 10_000;
    for no_ack in [true, false] {
        let mut client = Client::open();
        client.queue("queue");
        let bytes = publishes(COUNT as usize, "", false, PERSISTENT_TEXT, &[7; 16]);
        client.input(&bytes);
        client.settle();
        client.method(
            1,
            &Method::BasicConsume {
                ticket: 0,
                queue: b"queue",
                consumer_tag: b"tag",
                no_local: false,
                no_ack,
                exclusive: false,
                nowait: false,
                arguments: FieldTable::new(),
            },
        );
        let (mut delivered, mut batches, mut total) = (0, 0, AllocationInfo::default());
        while delivered < COUNT {
            client.wait();
            let mut count = 0;
            total += measure(|| count = client.take_events());
            total += measure(|| client.write());
            delivered += count;
            batches += 1;
        }
        let each = per_message(total, COUNT);
        println!("deliveries, no-ack {no_ack}: {each:.4} each, in {batches} batches");
        assert!(each <= 0.1, "{each} allocations per delivery");
        if !no_ack {
            let mut ack = Vec::new();
            for delivery_tag in 1..=COUNT {
                let method = Method::BasicAck { delivery_tag, multiple: false };
                frame::put_method(&mut ack, Dialect::Amqp091, 1, &method);
            }
            let each = per_message(measure(|| client.input(&ack)), COUNT);
            println!("acknowledgements one by one: {each:.4} each");
            assert!(each <= 0.1, "{each} allocations per acknowledgement");
        }
    }
}
