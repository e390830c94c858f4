//! A well-behaved client that must not notice what others do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use warren_amqp091_codec::Method;

use crate::client::{Client, consume, declare, publish, put_method, put_publish};

/// What the witness does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Publishes, awaits the confirm and the delivery, acknowledges.
    Publishes,
    /// Asks for a queue and fetches from it: what must go on even while publishers are blocked.
    Asks,
}

/// How it went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Testimony {
    pub rounds: u64,
    pub slowest: Duration,
}

/// A client at work in a thread of its own.
#[derive(Debug)]
pub(crate) struct Witness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Testimony>,
}

/// A round that takes longer means that the broker did not serve the witness.
const ROUND_MAX: Duration = Duration::from_secs(5);

impl Witness {
    pub(crate) fn start(address: SocketAddr, habit: Habit) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut client = Client::with_channel(address);
        let name = format!("witness-{habit:?}");
        client.declare(1, &name);
        if habit == Habit::Publishes {
            client.call(1, &Method::ConfirmSelect { nowait: false }, "confirm.select-ok");
            client.consume(1, &name, false);
        }
        let thread = std::thread::spawn(move || {
            let mut testimony = Testimony { rounds: 0, slowest: Duration::ZERO };
            while !stopped.load(Ordering::Relaxed) || testimony.rounds == 0 {
                let start = Instant::now();
                match habit {
                    Habit::Publishes => publish_round(&mut client, &name),
                    Habit::Asks => ask_round(&mut client, &name),
                }
                testimony.rounds += 1;
                testimony.slowest = testimony.slowest.max(start.elapsed());
                assert!(testimony.slowest < ROUND_MAX, "the witness had to wait: {testimony:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
            client.close();
            testimony
        });
        Self { stop, thread }
    }

    /// Ends its work; it must have been served well all the time.
    pub(crate) fn finish(self) -> Testimony {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the witness was served")
    }
}

fn publish_round(client: &mut Client, queue: &str) {
    client.publish(1, queue, b"round");
    // Confirm and delivery may come in either order.
    let mut delivered = None;
    let mut confirmed = false;
    while delivered.is_none() || !confirmed {
        let frame = client.receiver.next();
        match frame.method() {
            Method::BasicAck { .. } => confirmed = true,
            Method::BasicDeliver { delivery_tag, .. } => {
                assert_eq!(client.receiver.body(), b"round");
                delivered = Some(delivery_tag);
            }
            other => panic!("nothing else is due: {other:?}"),
        }
    }
    if let Some(delivery_tag) = delivered {
        client.send(1, &Method::BasicAck { delivery_tag, multiple: false });
    }
}

fn ask_round(client: &mut Client, queue: &str) {
    client.call(1, &declare(queue, true), "queue.declare-ok");
    assert_eq!(client.get(1, queue), None);
}

/// The bytes of a consumer on every one of `queues`, all on channel 1.
pub(crate) fn consume_all(queues: &[String], no_ack: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for queue in queues {
        put_method(&mut bytes, 1, &consume(queue, no_ack));
    }
    bytes
}

/// The bytes of `count` messages of `len` bytes for a queue.
pub(crate) fn messages(queue: &str, count: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..count {
        put_publish(&mut bytes, 1, &publish(queue), &crate::client::numbered(number, len));
    }
    bytes
}
