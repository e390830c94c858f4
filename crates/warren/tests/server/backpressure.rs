//! Consumers that do not read, and publishers that must wait for them.

use std::io::Write;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use warren_amqp091_codec::{Method, frame};

use crate::broker::{Broker, PATIENCE, poll};
use crate::client::{Client, Receiver, number_of, numbered, publish, put_publish};
use crate::witness::{Habit, Witness, consume_all, messages};

const MIB: u64 = 1 << 20;

/// The length of a body, and how many there are: 200 MB together.
const LEN: usize = 10_000;
const COUNT: u64 = 20_000;

/// Memory that the broker may have while all of them wait.
const MEMORY_MAX: u64 = 120 * MIB;

/// Publishes all messages in a thread; what the broker says is left to the receiver.
fn publish_all(broker: &Broker) -> JoinHandle<Receiver> {
    let client = Client::with_channel(broker.address());
    let (mut socket, receiver) = (client.socket, client.receiver);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        for number in 0..COUNT {
            put_publish(&mut bytes, 1, &publish("queue"), &numbered(number, LEN));
            if bytes.len() > 1 << 20 || number + 1 == COUNT {
                socket.write_all(&bytes).expect("the broker reads in the end");
                bytes.clear();
            }
        }
        receiver
    })
}

/// Takes and acknowledges messages until the last one; returns the number of the first one, and how many were
/// redelivered.
fn drain(broker: &Broker) -> (u64, u64) {
    let mut client = Client::with_channel(broker.address());
    client.consume(1, "queue", false);
    let (mut first, mut next, mut redelivered_count) = (None, 0, 0);
    while next < COUNT {
        let (delivery_tag, redelivered, body) = client.receiver.delivery();
        let number = number_of(&body);
        assert_eq!(body.len(), LEN);
        if first.is_none() {
            (first, next) = (Some(number), number);
        }
        assert_eq!(number, next, "each one once, in order");
        next += 1;
        redelivered_count += u64::from(redelivered);
        if next % 50 == 0 || next == COUNT {
            client.send(1, &Method::BasicAck { delivery_tag, multiple: true });
        }
    }
    assert_eq!(client.declare(1, "queue"), 0, "nothing else was there");
    client.close();
    (first.unwrap_or_default(), redelivered_count)
}

fn stuck_consumer(no_ack: bool) {
    let broker = Broker::start();
    let mut stuck = Client::with_channel(broker.address());
    stuck.declare(1, "queue");
    stuck.consume(1, "queue", no_ack);
    let witness = Witness::start(broker.address(), Habit::Asks);
    publish_all(&broker).join().expect("everything was sent");

    let mut other = Client::with_channel(broker.address());
    let mut ready = 0;
    assert!(poll(PATIENCE, || {
        let before = std::mem::replace(&mut ready, other.declare(1, "queue"));
        before == ready && u64::from(ready) > COUNT / 2
    }));
    // There is unread data, so this breaks the connection.
    drop(stuck);
    let (first, redelivered) = drain(&broker);
    eprintln!("{ready} ready, {} MiB at most; first {first}, {redelivered} back", broker.peak_memory() / MIB);
    if no_ack {
        // What was on its way to a consumer that needs no acknowledgement is lost with it: its window, and what
        // the kernel's buffers hold.
        assert!(first * LEN as u64 <= 16 * MIB, "{first} messages were lost");
        assert_eq!(redelivered, 0);
    } else {
        assert_eq!(first, 0, "nothing is lost");
        assert!(redelivered > 0, "the first ones came back");
    }
    eprintln!("{:?}", witness.finish());
    assert!(broker.peak_memory() < MEMORY_MAX, "{} MiB resident", broker.peak_memory() / MIB);
    other.close();
}

#[test]
fn what_a_stuck_consumer_without_acknowledgements_leaves_goes_to_disk() {
    stuck_consumer(true);
}

#[test]
fn what_a_stuck_consumer_with_acknowledgements_leaves_goes_to_disk() {
    stuck_consumer(false);
}

#[test]
fn a_slow_reader_that_sends_heartbeats_stays_connected() {
    const QUEUES: usize = 40;
    const MESSAGES: u64 = 700;
    let broker = Broker::start();
    let queues: Vec<String> = (0..QUEUES).map(|number| format!("queue-{number}")).collect();
    let mut publisher = Client::with_channel(broker.address());
    for queue in &queues {
        publisher.declare(1, queue);
        publisher.write(&messages(queue, MESSAGES, 1000));
    }
    publisher.close();
    let mut slow = Client::open_with_heartbeat(broker.address(), 1);
    slow.open_channel(1);
    slow.write(&consume_all(&queues, true));
    // Two heartbeat intervals of silence would end it, but it is not silent; it only does not read.
    let mut heartbeat = Vec::new();
    frame::put_heartbeat(&mut heartbeat);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        slow.write(&heartbeat);
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut answers = 0;
    let mut delivered = 0;
    while answers < QUEUES || delivered < QUEUES as u64 * MESSAGES {
        let frame = slow.receiver.next();
        match frame.method() {
            Method::BasicConsumeOk { .. } => answers += 1,
            Method::BasicDeliver { .. } => {
                number_of(&slow.receiver.body());
                delivered += 1;
            }
            other => panic!("nothing else is due: {other:?}"),
        }
        // It must not become silent while it reads.
        if delivered % 1000 == 0 {
            slow.write(&heartbeat);
        }
    }
}

/// Disk space that tests beside this one may take meanwhile, in bytes.
const DISK_MARGIN: u64 = 3 << 30;

#[test]
fn a_full_disk_blocks_publishers_until_there_is_room() {
    let filler = tempfile::NamedTempFile::new().expect("a file");
    let disk = rustix::fs::fstatvfs(&filler).expect("a disk");
    let free = disk.f_bavail * disk.f_frsize;
    let limit = free - DISK_MARGIN;
    let broker = Broker::with_config(&format!("disk_free_limit.absolute = {limit}\n"));
    let mut publisher = Client::with_channel(broker.address());
    publisher.declare(1, "queue");
    publisher.publish(1, "queue", b"first");
    let (mode, len) = (rustix::fs::FallocateFlags::empty(), 2 * DISK_MARGIN);
    rustix::fs::fallocate(&filler, mode, 0, len).expect("there is room for the filler");

    assert!(poll(PATIENCE, || broker.log().contains("low on disk")), "the alarm is raised");
    let mut chunk = Vec::new();
    put_publish(&mut chunk, 1, &publish("queue"), &numbered(0, LEN));
    let sent = publisher.flood(&chunk, 200_000_000, Duration::from_millis(500));
    assert!(sent < 100_000_000, "the publisher was blocked after {sent} bytes");
    let blocked = publisher.receiver.method("connection.blocked");
    assert_eq!(blocked.method(), Method::ConnectionBlocked { reason: b"low on disk" });
    // Consumers go on.
    let mut other = Client::with_channel(broker.address());
    assert_eq!(other.get(1, "queue").as_deref(), Some(&b"first"[..]));

    drop(filler);
    publisher.receiver.method("connection.unblocked");
    let open = broker.open_files();
    drop(publisher);
    assert!(poll(PATIENCE, || broker.open_files() < open), "its file is closed");
    // A half message at the end is no message: all others are there as long as the queue is.
    while other.get(1, "queue").is_some() {}
    other.publish(1, "queue", b"fresh");
    assert_eq!(other.get(1, "queue").as_deref(), Some(&b"fresh"[..]), "publishers go on");
    other.close();
}
