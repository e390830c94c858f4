//! What survives: a stop, a kill, a kill again and again under load.
//!
//! `WARREN_CRASH_CYCLES` says how often the broker is killed (6 unless told otherwise), `WARREN_CRASH_SEED` when.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use warren_amqp091_codec::{ContentHeader, Dialect, Method, OwnedProperties, frame};
use warren_types::FieldTable;

use crate::broker::{Broker, PATIENCE, poll, run, warren};
use crate::client::{Client, Frame, Receiver, number_of, numbered, put_method};

/// A broker whose directory outlives it.
fn start(data: &Path) -> Broker {
    Broker::launch("", |command, _| {
        command.args(["--bind", "127.0.0.1", "--amqp-port", "0", "--data-dir"]).arg(data);
    })
}

fn declare(client: &mut Client, queue: &str, durable: bool) -> u32 {
    let declare = Method::QueueDeclare {
        ticket: 0,
        queue: queue.as_bytes(),
        passive: false,
        durable,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: FieldTable::new(),
    };
    let answer = client.call(1, &declare, "queue.declare-ok");
    let Method::QueueDeclareOk { message_count, .. } = answer.method() else { unreachable!() };
    message_count
}

fn declare_exchange(client: &mut Client, exchange: &str, kind: &str) {
    let declare = Method::ExchangeDeclare {
        ticket: 0,
        exchange: exchange.as_bytes(),
        kind: kind.as_bytes(),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments: FieldTable::new(),
    };
    client.call(1, &declare, "exchange.declare-ok");
}

fn bind(client: &mut Client, queue: &str, exchange: &str) {
    let bind = Method::QueueBind {
        ticket: 0,
        queue: queue.as_bytes(),
        exchange: exchange.as_bytes(),
        routing_key: b"",
        nowait: false,
        arguments: FieldTable::new(),
    };
    client.call(1, &bind, "queue.bind-ok");
}

/// Properties of a message that survives a restart, or does not.
fn properties(persistent: bool) -> Vec<u8> {
    let mut encoded = Vec::new();
    let mode = Some(if persistent { 2 } else { 1 });
    let headers = Some(FieldTable::new());
    OwnedProperties { delivery_mode: mode, headers, ..OwnedProperties::default() }
        .encode(Dialect::Amqp091, &mut encoded);
    encoded
}

fn put_message(out: &mut Vec<u8>, exchange: &str, key: &str, persistent: bool, body: &[u8]) {
    let (exchange, routing_key) = (exchange.as_bytes(), key.as_bytes());
    put_method(
        out,
        1,
        &Method::BasicPublish { ticket: 0, exchange, routing_key, mandatory: false, immediate: false },
    );
    frame::put_content_header(out, 1, body.len() as u64, &properties(persistent));
    for piece in body.chunks(131_072 - frame::OVERHEAD) {
        frame::put_body_head(out, 1, u32::try_from(piece.len()).expect("it is a piece"));
        out.extend_from_slice(piece);
        out.push(frame::END);
    }
}

/// What is left in a queue, all of it acknowledged: numbers in order, and whether each was redelivered.
fn drain(client: &mut Client, queue: &str) -> Vec<(u64, bool)> {
    let mut found = Vec::new();
    loop {
        client.send(1, &Method::BasicGet { ticket: 0, queue: queue.as_bytes(), no_ack: false });
        let answer = client.receiver.next();
        match answer.method() {
            Method::BasicGetEmpty { .. } => return found,
            Method::BasicGetOk { redelivered, delivery_tag, .. } => {
                found.push((number_of(&client.receiver.body()), redelivered));
                client.send(1, &Method::BasicAck { delivery_tag, multiple: false });
            }
            other => panic!("a message or none was expected: {other:?}"),
        }
    }
}

fn is_there(broker: &Broker, queue: &str) -> bool {
    let mut client = Client::with_channel(broker.address());
    client.send(1, &crate::client::declare(queue, true));
    client.receiver.next().method().name() == "queue.declare-ok"
}

#[test]
fn what_is_durable_survives_a_stop_and_nothing_else() {
    let parent = tempfile::tempdir().expect("a directory");
    let data = parent.path().join("data");
    let mut broker = start(&data);
    let mut client = Client::with_channel(broker.address());
    declare_exchange(&mut client, "letters", "fanout");
    for queue in ["first", "second"] {
        declare(&mut client, queue, true);
        bind(&mut client, queue, "letters");
    }
    declare(&mut client, "transient", false);
    client.call(1, &Method::ConfirmSelect { nowait: false }, "confirm.select-ok");
    let mut bytes = Vec::new();
    for number in 0..40 {
        put_message(&mut bytes, "letters", "", number % 4 != 3, &numbered(number, 200));
    }
    client.write(&bytes);
    confirmed(&mut client.receiver, 40);
    // Three are delivered and not acknowledged, one of them does not survive.
    for _ in 0..3 {
        client.call(1, &Method::BasicGet { ticket: 0, queue: b"first", no_ack: false }, "basic.get-ok");
        client.receiver.body();
    }
    client.close();
    broker.signal(Signal::TERM);
    assert!(broker.ended(PATIENCE).success());

    let checked = run(warren().args(["store", "check"]).arg(&data));
    assert!(checked.status.success(), "{}{}", checked.stdout, checked.stderr);
    assert!(checked.stdout.contains("stopped in order"), "{}", checked.stdout);
    assert!(checked.stdout.contains("60 messages"), "{}", checked.stdout);
    let dumped = run(warren().args(["store", "dump"]).arg(&data));
    assert!(dumped.status.success() && dumped.stdout.contains("Stop queue="), "{}", dumped.stdout);

    let broker = start(&data);
    let mut client = Client::with_channel(broker.address());
    let survivors: Vec<u64> = (0..40).filter(|number| number % 4 != 3).collect();
    let expected = |delivered: u64| survivors.iter().map(|n| (*n, *n < delivered)).collect::<Vec<_>>();
    assert_eq!(drain(&mut client, "first"), expected(3));
    assert_eq!(drain(&mut client, "second"), expected(0));
    // The bindings are there too.
    let mut bytes = Vec::new();
    put_message(&mut bytes, "letters", "", true, &numbered(99, 10));
    client.write(&bytes);
    assert_eq!(drain(&mut client, "second"), [(99, false)]);
    assert!(!is_there(&broker, "transient"));
    assert!(is_there(&broker, "first"));
}

/// Waits for the confirms of everything up to a number.
fn confirmed(receiver: &mut Receiver, last: u64) {
    let mut left: BTreeSet<u64> = (1..=last).collect();
    while !left.is_empty() {
        let answer = receiver.method("basic.ack");
        let Method::BasicAck { delivery_tag, multiple } = answer.method() else { unreachable!() };
        left.retain(|tag| *tag != delivery_tag && !(multiple && *tag <= delivery_tag));
    }
}

#[test]
fn a_queue_with_a_damaged_message_stops_and_the_others_go_on() {
    a_damaged_queue_stops(50);
}

/// Where the record does not even tell any more whose it was.
#[test]
fn a_queue_with_an_unreadable_record_stops_and_the_others_go_on() {
    a_damaged_queue_stops(-20);
}

/// Damages one byte, this far from the start of a message's body.
fn a_damaged_queue_stops(distance: isize) {
    let parent = tempfile::tempdir().expect("a directory");
    let data = parent.path().join("data");
    let mut broker = start(&data);
    let mut client = Client::with_channel(broker.address());
    client.call(1, &Method::ConfirmSelect { nowait: false }, "confirm.select-ok");
    // One after the other: the queues may be on different shards, and a damaged record at the very end looks like one that
    // was being written.
    for (number, queue) in [(7, "hurt"), (8, "sound")] {
        declare(&mut client, queue, true);
        let mut bytes = Vec::new();
        put_message(&mut bytes, "", queue, true, &numbered(number, 5000));
        client.write(&bytes);
        let answer = client.receiver.method("basic.ack");
        assert_eq!(answer.method(), Method::BasicAck { delivery_tag: number - 6, multiple: false });
    }
    broker.signal(Signal::KILL);
    broker.ended(PATIENCE);
    drop(broker);
    // Another start ends this segment, so that what it has is known to have been durable.
    drop(start(&data));
    let log = data.join("store/log-0000000001");
    let mut content = std::fs::read(&log).expect("the log is there");
    let body = content.windows(100).position(|window| window == [7; 100]).expect("the message is there");
    content[body.wrapping_add_signed(distance)] ^= 1;
    std::fs::write(&log, content).expect("the log can be written");

    let checked = run(warren().args(["store", "check"]).arg(&data));
    assert!(!checked.status.success() && checked.stdout.contains("DAMAGED"), "{}", checked.stdout);
    let broker = start(&data);
    assert!(poll(PATIENCE, || broker.log().contains("the queue is stopped")), "{}", broker.log());
    let mut client = Client::with_channel(broker.address());
    assert_eq!(client.get(1, "sound").map(|body| number_of(&body)), Some(8));
    client.send(1, &crate::client::get("hurt"));
    let answer = client.receiver.method("channel.close");
    let Method::ChannelClose { reply_code, reply_text, .. } = answer.method() else { unreachable!() };
    assert_eq!(reply_code, 404);
    assert_eq!(reply_text, b"NOT_FOUND - queue 'hurt' in vhost '/' process is stopped by supervisor");
}

/// Clients that come when all files are taken wait in the system's queue; the store still gets the files it needs.
#[test]
fn clients_beyond_the_limit_of_open_files_wait_and_the_store_goes_on() {
    const FILES: usize = 128;
    const CLIENTS: usize = 200;
    const LEN: usize = 1 << 20;
    /// More than two segments of the log take.
    const MESSAGES: u64 = 40;
    let broker = Broker::launch("", |command, _| {
        let mut limited = std::process::Command::new("prlimit");
        limited.arg(format!("--nofile={FILES}")).arg(command.get_program()).args(command.get_args());
        limited.args(["--bind", "127.0.0.1", "--amqp-port", "0"]);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        *command = limited;
    });
    let mut publisher = Client::with_channel(broker.address());
    declare(&mut publisher, "queue", true);
    publisher.call(1, &Method::ConfirmSelect { nowait: false }, "confirm.select-ok");
    let mut waiting: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(broker.address())).collect();
    assert!(poll(PATIENCE, || broker.log().contains("no more connections fit the limit of open files")));
    let mut bytes = Vec::new();
    for number in 1..=MESSAGES {
        put_message(&mut bytes, "", "queue", true, &numbered(number, LEN));
        publisher.write(&bytes);
        bytes.clear();
    }
    confirmed(&mut publisher.receiver, MESSAGES);
    assert_eq!(declare(&mut publisher, "queue", true), MESSAGES as u32);
    // The last one to come is served when others have left.
    let last = waiting.pop().expect("they were connected");
    drop(waiting);
    last.handshake(0).close();
    publisher.close();
}

/// What earlier versions have left opens, and is what they left: `tests/golden` is never written again.
#[test]
fn directories_of_earlier_versions_open() {
    for (name, delivered) in [("format-1-clean", 3), ("format-1-killed", 10)] {
        let parent = tempfile::tempdir().expect("a directory");
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        for file in ["WARREN", "store/table.redb", "store/log-0000000001"] {
            let to = parent.path().join("data").join(file);
            std::fs::create_dir_all(to.parent().expect("it is in a directory")).expect("there is room");
            std::fs::copy(golden.join(file), to).expect("there is room");
        }
        let broker = start(&parent.path().join("data"));
        let mut client = Client::with_channel(broker.address());
        for (queue, numbers) in
            [("plain", &[2, 3, 5, 6, 7, 8, 9][..]), ("ranked", &[2, 5, 8, 1, 7, 0, 3, 6, 9][..])]
        {
            for number in numbers {
                let get = Method::BasicGet { ticket: 0, queue: queue.as_bytes(), no_ack: true };
                let answer = client.call(1, &get, "basic.get-ok");
                let Method::BasicGetOk { redelivered, routing_key, exchange, .. } = answer.method() else {
                    unreachable!()
                };
                assert_eq!((exchange, routing_key), (&b"letters"[..], format!("a.{number}").as_bytes()));
                let expected = *number < delivered && (queue == "plain" || delivered == 10);
                assert_eq!(redelivered, expected, "{name}: message {number} of {queue}");
                let times = if *number == 9 { 10_000 } else { 1 };
                assert_eq!(client.receiver.body(), format!("{number} ").repeat(times).into_bytes());
            }
            assert!(client.get(1, queue).is_none(), "{name}: nothing else is in {queue}");
        }
        assert!(!is_there(&broker, "gone"));
    }
}

// ---- killed under load -----------------------------------------------------------------------------------

const QUEUES: [&str; 5] = ["direct-0", "direct-1", "fan-0", "fan-1", "fan-2"];

/// What is known of the messages of a queue, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It was sent: it may be there.
    Sent,
    /// It was confirmed: it must be there.
    Confirmed,
    /// It was acknowledged in this life of the broker: it may come back.
    Acked,
}

#[derive(Default)]
struct Books {
    queues: BTreeMap<&'static str, BTreeMap<u64, Fate>>,
    wrong: Vec<String>,
}

struct Load {
    address: SocketAddr,
    books: Mutex<Books>,
    stop: AtomicBool,
    next: AtomicU64,
    confirmed: AtomicU64,
    consumed: AtomicU64,
}

impl Load {
    fn note(&self, queues: &[&'static str], number: u64, fate: Fate) {
        let mut books = self.books.lock().expect("nobody panics with the books");
        for queue in queues {
            books.queues.entry(queue).or_default().insert(number, fate);
        }
    }

    /// Publishes with confirms until the broker is gone.
    fn publish(&self, publisher: u64, exchange: &str, key: &str, queues: &[&'static str]) -> Option<()> {
        const WINDOW: usize = 100;
        let mut client = Client::with_channel(self.address);
        client.call(1, &Method::ConfirmSelect { nowait: false }, "confirm.select-ok");
        let mut open: BTreeMap<u64, u64> = BTreeMap::new();
        let mut tag = 0;
        loop {
            let mut bytes = Vec::new();
            while open.len() < WINDOW && !self.stop.load(Ordering::Relaxed) {
                let number = publisher << 48 | self.next.fetch_add(1, Ordering::Relaxed);
                let len = if number.is_multiple_of(97) { 300_000 } else { (number * 7919 % 4000) as usize };
                self.note(queues, number, Fate::Sent);
                put_message(&mut bytes, exchange, key, true, &numbered(number, len));
                tag += 1;
                open.insert(tag, number);
            }
            client.socket.write_all(&bytes).ok()?;
            let answer = next(&mut client.receiver)?;
            let Method::BasicAck { delivery_tag, multiple } = answer.method() else {
                self.wrong(format!("no confirm but {:?}", answer.method()));
                return None;
            };
            let first = if multiple { 0 } else { delivery_tag };
            let settled: Vec<u64> = open.range(first..=delivery_tag).map(|(tag, _)| *tag).collect();
            for number in settled.iter().filter_map(|tag| open.remove(tag)) {
                self.confirm(queues, number);
            }
        }
    }

    /// Publishes to two queues in transactions until the broker is gone.
    fn transact(&self, publisher: u64) -> Option<()> {
        let mut client = Client::with_channel(self.address);
        client.call(1, &Method::TxSelect {}, "tx.select-ok");
        while !self.stop.load(Ordering::Relaxed) {
            let mut bytes = Vec::new();
            let numbers: Vec<u64> =
                (0..6).map(|_| publisher << 48 | self.next.fetch_add(1, Ordering::Relaxed)).collect();
            for (number, queue) in numbers.iter().zip(QUEUES[..2].iter().cycle()) {
                self.note(&[queue], *number, Fate::Sent);
                put_message(&mut bytes, "", queue, true, &numbered(*number, 100));
            }
            put_method(&mut bytes, 1, &Method::TxCommit {});
            client.socket.write_all(&bytes).ok()?;
            next(&mut client.receiver)?;
            for (number, queue) in numbers.iter().zip(QUEUES[..2].iter().cycle()) {
                self.confirm(&[queue], *number);
            }
        }
        Some(())
    }

    /// Somebody may have taken it before its confirm came.
    fn confirm(&self, queues: &[&'static str], number: u64) {
        let mut books = self.books.lock().expect("nobody panics with the books");
        for queue in queues {
            if let Some(fate @ Fate::Sent) = books.queues.entry(queue).or_default().get_mut(&number) {
                *fate = Fate::Confirmed;
            }
        }
        self.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes messages and acknowledges most of them until the broker is gone.
    fn consume(&self, queue: &'static str) -> Option<()> {
        let mut client = Client::with_channel(self.address);
        client.call(
            1,
            &Method::BasicQos { prefetch_size: 0, prefetch_count: 60, global: false },
            "basic.qos-ok",
        );
        client.consume(1, queue, false);
        let mut taken = Vec::new();
        loop {
            let (tag, number) = delivery(&mut client.receiver)?;
            self.consumed.fetch_add(1, Ordering::Relaxed);
            taken.push(number);
            if taken.len() == 20 {
                for number in taken.drain(..) {
                    self.note(&[queue], number, Fate::Acked);
                }
                let mut bytes = Vec::new();
                put_method(&mut bytes, 1, &Method::BasicAck { delivery_tag: tag, multiple: true });
                client.socket.write_all(&bytes).ok()?;
            }
        }
    }

    fn wrong(&self, what: String) {
        self.books.lock().expect("nobody panics with the books").wrong.push(what);
    }

    /// Everything there is, against the books; afterwards nothing is there and the books are empty.
    fn verify(&self, broker: &Broker, cycle: u64) {
        let mut client = Client::with_channel(broker.address());
        let mut books = self.books.lock().expect("nobody panics with the books");
        assert_eq!(books.wrong, Vec::<String>::new());
        for queue in QUEUES {
            let known = books.queues.remove(queue).unwrap_or_default();
            let found: Vec<u64> = drain(&mut client, queue).into_iter().map(|(number, _)| number).collect();
            let there: BTreeSet<u64> = found.iter().copied().collect();
            assert_eq!(there.len(), found.len(), "cycle {cycle}: {queue} has something twice");
            let strange: Vec<_> = there.iter().filter(|number| !known.contains_key(number)).take(5).collect();
            assert!(
                strange.is_empty(),
                "cycle {cycle}: {queue} has what was never sent or came back: {strange:?}"
            );
            let must = known.iter().filter(|(_, fate)| **fate == Fate::Confirmed).map(|(number, _)| number);
            let missing: Vec<_> = must.filter(|number| !there.contains(number)).take(5).collect();
            assert!(missing.is_empty(), "cycle {cycle}: {queue} lost {missing:?}");
            for publisher in 0..8 {
                let own = found.iter().filter(|number| **number >> 48 == publisher);
                assert!(
                    own.is_sorted(),
                    "cycle {cycle}: {queue} mixed up the messages of publisher {publisher}"
                );
            }
        }
    }
}

fn next(receiver: &mut Receiver) -> Option<Frame> {
    receiver.frame().ok().flatten()
}

fn delivery(receiver: &mut Receiver) -> Option<(u64, u64)> {
    let deliver = next(receiver)?;
    let Method::BasicDeliver { delivery_tag, .. } = deliver.method() else { return None };
    let header = next(receiver)?;
    let size = ContentHeader::parse(&header.payload).expect("the broker sends whole headers").body_size;
    let mut body = Vec::new();
    while (body.len() as u64) < size {
        body.extend_from_slice(&next(receiver)?.payload);
    }
    Some((delivery_tag, number_of(&body)))
}

/// A life of the broker under load, ended by a kill.
fn life(broker: &mut Broker, load: &Arc<Load>, milliseconds: u64) {
    let run = |work: fn(&Load) -> Option<()>| {
        let load = Arc::clone(load);
        std::thread::spawn(move || {
            let _until_the_end = work(&load);
        })
    };
    let threads = [
        run(|load| load.publish(1, "", QUEUES[0], &QUEUES[..1])),
        run(|load| load.publish(2, "", QUEUES[1], &QUEUES[1..2])),
        run(|load| load.publish(3, "fan", "", &QUEUES[2..])),
        run(|load| load.transact(4)),
        run(|load| load.consume(QUEUES[0])),
        run(|load| load.consume(QUEUES[3])),
    ];
    std::thread::sleep(Duration::from_millis(milliseconds));
    broker.signal(Signal::KILL);
    broker.ended(PATIENCE);
    for thread in threads {
        // One that was connecting when the broker went has panicked, and has nothing in the books.
        let _ended = thread.join();
    }
}

#[test]
fn nothing_confirmed_is_lost_however_often_the_broker_is_killed() {
    let number = |name: &str, default| match std::env::var(name) {
        Ok(value) => value.parse().expect("a number"),
        Err(_) => default,
    };
    let cycles: u64 = number("WARREN_CRASH_CYCLES", 6);
    let seed: u64 = number("WARREN_CRASH_SEED", 1);
    eprintln!("seed {seed}, {cycles} cycles");
    let parent = tempfile::tempdir().expect("a directory");
    let data = parent.path().join("data");
    let mut broker = start(&data);
    let mut client = Client::with_channel(broker.address());
    declare_exchange(&mut client, "fan", "fanout");
    for queue in QUEUES {
        assert_eq!(declare(&mut client, queue, true), 0);
    }
    QUEUES[2..].iter().for_each(|queue| bind(&mut client, queue, "fan"));
    client.close();
    let (mut books, mut next) = (Books::default(), 0);
    for cycle in 0..cycles {
        let load = Arc::new(Load {
            address: broker.address(),
            books: Mutex::new(std::mem::take(&mut books)),
            stop: AtomicBool::new(false),
            next: AtomicU64::new(next),
            confirmed: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
        });
        let pause =
            200 + (seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(cycle * 7919) >> 7) % 900;
        life(&mut broker, &load, pause);
        drop(broker);
        broker = start(&data);
        let (confirmed, consumed) = (&load.confirmed, &load.consumed);
        eprintln!(
            "cycle {cycle}: killed after {pause} ms, {confirmed:?} confirmed, {consumed:?} consumed, ready after {:?}",
            broker.ready.after
        );
        assert!(confirmed.load(Ordering::Relaxed) > 0, "the load did something");
        if cycle % 2 == 1 || cycle + 1 == cycles {
            load.verify(&broker, cycle);
        }
        next = load.next.load(Ordering::Relaxed);
        books = std::mem::take(&mut *load.books.lock().expect("nobody panics with the books"));
    }
}
