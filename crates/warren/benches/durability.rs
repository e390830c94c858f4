//! What durability costs: `cargo bench -p warren --bench durability [-- MESSAGES]`.
//!
//! Prints confirmed publishes a second beside the disk's own syncs a second, the bytes that a fan-out writes, and what a
//! backlog of so many messages (a million unless told otherwise) takes in memory, on disk, at a restart and to drain.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "../tests/server/broker.rs"]
#[allow(dead_code)]
mod broker;
#[path = "../tests/server/client.rs"]
#[allow(dead_code)]
mod client;

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use warren_amqp091_codec::{Dialect, Method, OwnedProperties, frame};
use warren_types::FieldTable;

use broker::{Broker, PATIENCE};
use client::{Client, put_method};

/// How long each rate is measured.
const SPAN: Duration = Duration::from_secs(3);

fn start(data: &Path) -> Broker {
    Broker::launch("", |command, _| {
        command.args(["--bind", "127.0.0.1", "--amqp-port", "0", "--data-dir"]).arg(data);
    })
}

/// A connection in confirm mode.
fn connect(address: SocketAddr) -> Client {
    let mut client = Client::with_channel(address);
    client.call(1, &Method::ConfirmSelect { nowait: false }, "confirm.select-ok");
    client
}

fn declare(client: &mut Client, queue: &str) {
    let declare = Method::QueueDeclare {
        ticket: 0,
        queue: queue.as_bytes(),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: FieldTable::new(),
    };
    client.call(1, &declare, "queue.declare-ok");
}

fn put_message(out: &mut Vec<u8>, exchange: &str, key: &str, body: &[u8]) {
    let (exchange, routing_key) = (exchange.as_bytes(), key.as_bytes());
    let publish =
        Method::BasicPublish { ticket: 0, exchange, routing_key, mandatory: false, immediate: false };
    put_method(out, 1, &publish);
    let mut properties = Vec::new();
    OwnedProperties { delivery_mode: Some(2), ..OwnedProperties::default() }
        .encode(Dialect::Amqp091, &mut properties);
    frame::put_content_header(out, 1, body.len() as u64, &properties);
    for piece in body.chunks(131_072 - frame::OVERHEAD) {
        frame::put_body_head(out, 1, piece.len() as u32);
        out.extend_from_slice(piece);
        out.push(frame::END);
    }
}

/// Waits for a confirm; returns up to which publish they have come, which is in order with one queue.
fn confirmed(client: &mut Client) -> u64 {
    let answer = client.receiver.next();
    let Method::BasicAck { delivery_tag, .. } = answer.method() else { panic!("{:?}", answer.method()) };
    delivery_tag
}

/// Syncs a second of the disk itself, 4 KiB appended before each.
fn disk_syncs(directory: &Path) -> f64 {
    let file = std::fs::File::create(directory.join("probe")).unwrap();
    let (start, mut count) = (Instant::now(), 0_u64);
    while start.elapsed() < SPAN {
        file.write_all_at(&[7; 4096], count * 4096).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// What one publisher sends.
#[derive(Clone, Copy)]
struct Load {
    publishers: usize,
    size: usize,
    /// Most unconfirmed messages of a publisher.
    window: u64,
}

/// Publishes until `stop`; counts confirms.
fn publish(address: SocketAddr, queue: &str, load: Load, stop: &AtomicBool, confirms: &AtomicU64) {
    let mut client = connect(address);
    declare(&mut client, queue);
    let (body, mut bytes) = (vec![7; load.size], Vec::new());
    let (mut sent, mut known) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        while sent - known < load.window && bytes.len() < 1 << 20 {
            put_message(&mut bytes, "", queue, &body);
            sent += 1;
        }
        client.socket.write_all(&bytes).unwrap();
        bytes.clear();
        let now = confirmed(&mut client);
        confirms.fetch_add(now - known, Ordering::Relaxed);
        known = now;
    }
}

fn confirm_rate(data: &Path, load: Load) -> f64 {
    let broker = start(data);
    let (stop, confirms) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for publisher in 0..load.publishers {
            let (address, stop, confirms) = (broker.address(), &stop, &confirms);
            scope.spawn(move || publish(address, &format!("q{publisher}"), load, stop, confirms));
        }
        std::thread::sleep(Duration::from_millis(500));
        let (start, before) = (Instant::now(), confirms.load(Ordering::Relaxed));
        std::thread::sleep(SPAN);
        let count = confirms.load(Ordering::Relaxed) - before;
        stop.store(true, Ordering::Relaxed);
        count as f64 / start.elapsed().as_secs_f64()
    })
}

fn disk_bytes(data: &Path) -> u64 {
    let files = std::fs::read_dir(data.join("store")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

fn fill(broker: &Broker, messages: u64, size: usize) {
    let mut client = connect(broker.address());
    declare(&mut client, "backlog");
    let (body, mut bytes) = (vec![7; size], Vec::new());
    let (begun, mut sent, mut known) = (Instant::now(), 0, 0);
    while known < messages {
        while sent < messages && sent - known < 20_000 && bytes.len() < 1 << 19 {
            put_message(&mut bytes, "", "backlog", &body);
            sent += 1;
        }
        client.socket.write_all(&bytes).unwrap();
        bytes.clear();
        known = confirmed(&mut client);
    }
    let rate = messages as f64 / begun.elapsed().as_secs_f64();
    println!("{messages} messages of {size} B: {rate:.0} confirmed a second");
}

fn drain(broker: &Broker, messages: u64) {
    let mut client = connect(broker.address());
    let qos = Method::BasicQos { prefetch_size: 0, prefetch_count: 5000, global: false };
    client.call(1, &qos, "basic.qos-ok");
    client.consume(1, "backlog", false);
    let begun = Instant::now();
    for number in 1..=messages {
        let (delivery_tag, ..) = client.receiver.delivery();
        if number % 1000 == 0 || number == messages {
            client.send(1, &Method::BasicAck { delivery_tag, multiple: true });
        }
    }
    println!("drained {:.0} a second", messages as f64 / begun.elapsed().as_secs_f64());
}

fn backlog(data: &Path, messages: u64, size: usize) {
    let mut broker = start(data);
    fill(&broker, messages, size);
    std::thread::sleep(Duration::from_secs(3));
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "{:.1} MB resident, {:.1} at most; {:.1} B on disk a message",
        megabytes(broker.memory()),
        megabytes(broker.peak_memory()),
        disk_bytes(data) as f64 / messages as f64
    );
    broker.signal(Signal::KILL);
    broker.ended(PATIENCE);
    drop(broker);
    let broker = start(data);
    println!("killed and started again: ready after {:?}", broker.ready.after);
    drain(&broker, messages);
    println!("{:.1} MB resident at most since the start", megabytes(broker.peak_memory()));
}

/// Bytes written for one publish of 1 KiB to so many queues.
fn fan_out(data: &Path, queues: usize) -> f64 {
    const MESSAGES: u64 = 1000;
    let broker = start(data);
    let mut client = connect(broker.address());
    for queue in 0..queues {
        let name = format!("fan-{queue}");
        declare(&mut client, &name);
        let bind = Method::QueueBind {
            ticket: 0,
            queue: name.as_bytes(),
            exchange: b"amq.fanout",
            routing_key: b"",
            nowait: false,
            arguments: FieldTable::new(),
        };
        client.call(1, &bind, "queue.bind-ok");
    }
    let (before, mut bytes) = (disk_bytes(data), Vec::new());
    (0..MESSAGES).for_each(|_| put_message(&mut bytes, "amq.fanout", "", &[7; 1024]));
    client.socket.write_all(&bytes).unwrap();
    let mut known = std::collections::BTreeSet::new();
    while known.len() < MESSAGES as usize {
        let answer = client.receiver.next();
        let Method::BasicAck { delivery_tag, multiple } = answer.method() else { panic!("no confirm") };
        known.extend(if multiple { 1 } else { delivery_tag }..=delivery_tag);
    }
    (disk_bytes(data) - before) as f64 / MESSAGES as f64
}

fn main() {
    let messages = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(1_000_000);
    let parent = tempfile::tempdir().unwrap();
    let processors = std::thread::available_parallelism().unwrap();
    println!(
        "{processors} processors; the disk alone: {:.0} syncs of 4 KiB a second",
        disk_syncs(parent.path())
    );
    for (publishers, window) in [(1, 1), (10, 1), (100, 1), (1, 1000), (10, 1000)] {
        for size in [16, 1024, 65_536] {
            // As many bytes may be unconfirmed as a busy client would allow.
            let window = if size > 10_000 { window.min(16) } else { window };
            let data = parent.path().join(format!("confirms-{publishers}-{size}-{window}"));
            let rate = confirm_rate(&data, Load { publishers, size, window });
            let megabytes = rate * size as f64 / 1e6;
            println!(
                "{publishers} publishers of {size} B, {window} unconfirmed each: {rate:.0} confirmed a second, \
                 {megabytes:.1} MB/s"
            );
            std::fs::remove_dir_all(&data).unwrap();
        }
    }
    for queues in [1, 10, 100] {
        let data = parent.path().join(format!("fan-out-{queues}"));
        println!("1 KiB to {queues} queues: {:.0} B written a publish", fan_out(&data, queues));
    }
    backlog(&parent.path().join("backlog"), messages, 16);
}
