//! SIGTERM and SIGINT: clients are told, and the process ends whatever they do.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use warren_amqp091_codec::{Dialect, Method};

use crate::broker::{Broker, PATIENCE, poll};
use crate::client::{Client, Frame};
use crate::witness::{consume_all, messages};

/// Longest time from the signal to the end of the process.
const END_MAX: Duration = Duration::from_secs(5);

/// The process ends as if all was well, in time.
#[track_caller]
fn assert_ends(broker: &mut Broker, since: Instant) {
    let status = broker.ended(END_MAX.saturating_sub(since.elapsed()));
    assert_eq!(status.code(), Some(0), "{status}: {}", broker.log());
    eprintln!("ended after {:?}", since.elapsed());
}

#[track_caller]
fn assert_forced(frame: &Frame) {
    let Method::ConnectionClose { reply_code, reply_text, .. } = frame.method() else {
        panic!("connection.close was expected: {frame:?}");
    };
    let text = String::from_utf8_lossy(reply_text);
    assert_eq!(reply_code, 320);
    assert_eq!(text, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'");
}

#[test]
fn clients_are_told_at_sigterm_and_sigint() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut broker = Broker::start();
        let mut idle = Client::open(broker.address());
        let mut consuming = Client::with_channel(broker.address());
        consuming.declare(1, "queue");
        consuming.consume(1, "queue", false);
        let since = Instant::now();
        broker.signal(signal);
        for client in [&mut idle, &mut consuming] {
            assert_forced(&client.receiver.method("connection.close"));
            client.send(0, &Method::ConnectionCloseOk {});
            client.receiver.end();
        }
        assert_ends(&mut broker, since);
        assert!(since.elapsed() < Duration::from_secs(2), "polite clients cost no patience");
    }
}

#[test]
fn without_clients_it_ends_at_once() {
    let mut broker = Broker::start();
    let since = Instant::now();
    broker.signal(Signal::TERM);
    assert_ends(&mut broker, since);
    assert!(since.elapsed() < Duration::from_secs(2), "there was nobody to wait for");
}

#[test]
fn a_client_that_never_answers_does_not_stop_it() {
    let mut broker = Broker::start();
    let mut mute = Client::open(broker.address());
    let since = Instant::now();
    broker.signal(Signal::TERM);
    assert_forced(&mute.receiver.method("connection.close"));
    assert_ends(&mut broker, since);
}

#[test]
fn clients_within_the_handshake_do_not_stop_it() {
    let mut broker = Broker::start();
    let silent = Client::connect(broker.address());
    let mut greeted = Client::connect(broker.address());
    greeted.write(&Dialect::HEADER_091);
    greeted.receiver.method("connection.start");
    let since = Instant::now();
    broker.signal(Signal::TERM);
    assert_ends(&mut broker, since);
    drop(silent);
}

#[test]
fn a_client_that_never_reads_does_not_stop_it() {
    let mut broker = Broker::start();
    let mut client = Client::with_channel(broker.address());
    let queues: Vec<String> = (0..20).map(|number| format!("queue-{number}")).collect();
    for queue in &queues {
        client.declare(1, queue);
    }
    let mut publisher = Client::with_channel(broker.address());
    for queue in &queues {
        publisher.write(&messages(queue, 1000, 1000));
    }
    publisher.close();
    // More than its socket takes comes to it: every consumer has a window of half a megabyte.
    client.write(&consume_all(&queues, true));
    let mut other = Client::with_channel(broker.address());
    let (mut left, mut same) = (0, 0);
    let full = poll(PATIENCE, || {
        let now = queues.iter().map(|queue| other.declare(1, queue)).sum();
        same = if now == left { same + 1 } else { 0 };
        left = now;
        same > 20
    });
    assert!(full && (1..20_000).contains(&left), "{left} messages are left");
    other.close();
    let since = Instant::now();
    broker.signal(Signal::TERM);
    assert_ends(&mut broker, since);
}

#[test]
fn no_new_connections_during_shutdown() {
    let mut broker = Broker::start();
    let mut mute = Client::open(broker.address());
    broker.signal(Signal::TERM);
    assert_forced(&mute.receiver.method("connection.close"));
    assert!(std::net::TcpStream::connect(broker.address()).is_err(), "nobody listens any more");
    mute.send(0, &Method::ConnectionCloseOk {});
    assert_eq!(broker.ended(END_MAX).code(), Some(0));
}
