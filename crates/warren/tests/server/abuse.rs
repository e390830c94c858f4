//! Clients that do what no client should: others are served all the same, and memory stays bounded.
//!
//! The bounds are far above what a release build needs and far below what it would take if anything were kept
//! for as long as a client likes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use warren_amqp091_codec::{Dialect, Method, frame};

use crate::broker::{Broker, PATIENCE, poll};
use crate::client::{Client, NO_PROPERTIES, get, is_timeout, number_of, publish, put_method, put_publish};
use crate::witness::{Habit, Witness, messages};

const MIB: u64 = 1 << 20;

/// Asserts a bound on the most memory that the broker ever had, and tells how much that was.
#[track_caller]
fn assert_memory(broker: &Broker, bound: u64) {
    let peak = broker.peak_memory();
    eprintln!("at most {} MiB resident, bound {} MiB", peak / MIB, bound / MIB);
    assert!(peak < bound, "{} MiB resident", peak / MIB);
}

/// Allows this process as many files as the system lets it; returns how many.
fn raise_file_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may be raised to the hard one");
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Reads until the broker ends the connection; false if it does not.
fn is_ended(mut socket: &TcpStream) -> bool {
    socket.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    loop {
        match socket.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return !is_timeout(&error),
        }
    }
}

#[test]
fn half_open_connections_end_at_the_handshake_timeout() {
    /// Files that this process and the broker need for all else, tests beside this one included.
    const FILES_RESERVED: u64 = 1000;
    const WANTED: u64 = 10_000;
    const WANTED_MIN: usize = 2_000;
    const TIMEOUT: Duration = Duration::from_secs(6);
    let count = WANTED.min(raise_file_limit().saturating_sub(FILES_RESERVED)) as usize;
    assert!(count >= WANTED_MIN, "the limit of open files is too low for this test");
    let broker = Broker::with_config(&format!("handshake_timeout = {}\n", TIMEOUT.as_millis()));
    let before = broker.memory();
    let witness = Witness::start(broker.address(), Habit::Publishes);
    let start = Instant::now();
    let sockets: Vec<TcpStream> = (0..count)
        .map(|number| {
            let mut socket = TcpStream::connect(broker.address()).expect("the broker listens");
            if number % 2 == 0 {
                socket.write_all(&Dialect::HEADER_091).expect("the broker reads");
            }
            socket
        })
        .collect();
    let connected = start.elapsed();
    let mut most = 0;
    poll(TIMEOUT.saturating_sub(connected), || {
        most = most.max(broker.open_files());
        most > count
    });
    println!("{count} half-open connections in {connected:?}, {most} files open at once in the broker");
    println!("{} KiB for each", (broker.peak_memory() - before) / 1024 / count as u64);
    assert!(most >= WANTED_MIN, "{most} files open");
    assert!(sockets.iter().all(is_ended), "the broker closes them");
    println!("all closed after {:?}", start.elapsed());
    assert!(start.elapsed() >= TIMEOUT, "they had their time");
    assert!(poll(PATIENCE, || broker.open_files() < 100), "{} files are still open", broker.open_files());
    println!("{:?}", witness.finish());
    assert_memory(&broker, 150 * MIB);
}

/// Bytes without a meaning, the same in every run (xorshift64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn garbage_ends_only_the_connection_it_came_on() {
    let broker = Broker::start();
    let witness = Witness::start(broker.address(), Habit::Publishes);
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    let sockets: Vec<TcpStream> = (0..500)
        .map(|number| {
            let (mut socket, garbage) = match number % 4 {
                0 => (TcpStream::connect(broker.address()).expect("the broker listens"), noise.bytes(1000)),
                1 => {
                    let client = Client::connect(broker.address());
                    (client.socket, [&Dialect::HEADER_091[..], &noise.bytes(1000)].concat())
                }
                2 => (Client::with_channel(broker.address()).socket, noise.bytes(1000)),
                _ => (Client::with_channel(broker.address()).socket, frames_of_noise(&mut noise)),
            };
            // The broker may hang up before it has read everything.
            let _lost = socket.write_all(&garbage).and_then(|()| socket.shutdown(Shutdown::Write));
            socket
        })
        .collect();
    assert!(sockets.iter().all(is_ended), "the broker closes them");
    println!("{:?}", witness.finish());
    assert_memory(&broker, 100 * MIB);
}

/// Well-formed frames with payloads that mean nothing.
fn frames_of_noise(noise: &mut Noise) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..20 {
        let payload_len = noise.next() % 64;
        let payload = noise.bytes(payload_len as usize);
        bytes.extend_from_slice(&[1 + (noise.next() % 3) as u8, 0, (noise.next() % 3) as u8]);
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&payload);
        bytes.push(frame::END);
    }
    bytes
}

#[test]
fn returns_that_nobody_reads_stop_their_publisher() {
    const SENT_MAX: usize = 256 << 20;
    for len in [0, 1000, 100_000] {
        let broker = Broker::start();
        let witness = Witness::start(broker.address(), Habit::Publishes);
        let mut client = Client::with_channel(broker.address());
        let mandatory = Method::BasicPublish {
            ticket: 0,
            exchange: b"",
            routing_key: b"nowhere",
            mandatory: true,
            immediate: false,
        };
        let mut chunk = Vec::new();
        while chunk.len() < 1 << 20 {
            put_publish(&mut chunk, 1, &mandatory, &vec![7; len]);
        }
        let sent = client.flood(&chunk, SENT_MAX, Duration::from_millis(500));
        println!("bodies of {len}: it took {} MiB", sent >> 20);
        assert!(sent < 64 << 20, "the broker took {sent} bytes and more");
        // What it took it returns, once it can.
        client.receiver.method("basic.return");
        assert_eq!(client.receiver.body().len(), len);
        println!("{:?}", witness.finish());
        assert_memory(&broker, 100 * MIB);
    }
}

#[test]
fn announced_bodies_cost_nothing_until_they_come() {
    const CHANNELS: u16 = 2000;
    const ANNOUNCED: u64 = 16 << 20;
    let broker = Broker::start();
    let witness = Witness::start(broker.address(), Habit::Publishes);
    let mut client = Client::open(broker.address());
    for number in 1..=CHANNELS {
        client.open_channel(number);
    }
    let before = broker.memory();
    let mut bytes = Vec::new();
    for number in 1..=CHANNELS {
        put_method(&mut bytes, number, &publish("queue"));
        frame::put_content_header(&mut bytes, number, ANNOUNCED, NO_PROPERTIES);
        frame::put_body_head(&mut bytes, number, 1);
        bytes.extend_from_slice(&[7, frame::END]);
    }
    client.write(&bytes);
    // The answer tells that all of it was read.
    client.open_channel(CHANNELS + 1);
    println!("{} KiB for each", broker.memory().saturating_sub(before) / 1024 / u64::from(CHANNELS));
    println!("{:?}", witness.finish());
    assert_memory(&broker, 100 * MIB);
    client.close();
}

#[test]
fn pipelined_requests_are_answered_in_order_as_they_are_read() {
    const REQUESTS: u64 = 100_000;
    const MESSAGES: u64 = 20_000;
    const LEN: usize = 1000;
    let broker = Broker::start();
    let mut other = Client::with_channel(broker.address());
    other.declare(1, "queue");
    other.write(&messages("queue", MESSAGES, LEN));
    assert!(poll(PATIENCE, || u64::from(other.declare(1, "queue")) == MESSAGES));
    let witness = Witness::start(broker.address(), Habit::Publishes);
    let client = Client::with_channel(broker.address());
    let (mut socket, mut receiver) = (client.socket, client.receiver);
    let mut bytes = Vec::new();
    for _ in 0..REQUESTS {
        put_method(&mut bytes, 1, &get("queue"));
    }
    let writer = std::thread::spawn(move || socket.write_all(&bytes));
    // It stops when the answers that nobody reads fill the buffers.
    let (mut left, mut same) = (0, 0);
    let stops = poll(PATIENCE, || {
        let now = other.declare(1, "queue");
        same = if now == left { same + 1 } else { 0 };
        left = now;
        same > 20
    });
    assert!(stops && left > 0, "{left} messages are left");
    println!("{left} messages were left when it stopped");
    for number in 0..MESSAGES {
        let frame = receiver.method("basic.get-ok");
        let Method::BasicGetOk { delivery_tag, message_count, .. } = frame.method() else { unreachable!() };
        assert_eq!((delivery_tag, u64::from(message_count)), (number + 1, MESSAGES - number - 1));
        assert_eq!(number_of(&receiver.body()), number);
    }
    for _ in MESSAGES..REQUESTS {
        receiver.method("basic.get-empty");
    }
    writer.join().expect("it does not panic").expect("the broker reads");
    println!("{:?}", witness.finish());
    assert_memory(&broker, 150 * MIB);
}
