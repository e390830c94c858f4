//! Heartbeats over real sockets and real time.

use std::time::{Duration, Instant};

use warren_amqp091_codec::frame;

use crate::broker::Broker;
use crate::client::Client;

/// What the broker's timer fires for comes at half seconds: its own heartbeats, and the end of a silent client.
const TIMER_INTERVAL: Duration = Duration::from_millis(500);

/// Writes heartbeats around the next times at which the timer fires, so that the connection is busy when it does, and
/// then nothing more.
fn write_when_the_timer_fires(client: &mut Client, opened: Instant) {
    const TIMES: u32 = 3;
    const LEAD: Duration = Duration::from_millis(2);
    const WRITES: u32 = 8;
    let mut heartbeat = Vec::new();
    frame::put_heartbeat(&mut heartbeat);
    for time in 1..=TIMES {
        let next = opened + TIMER_INTERVAL * time - LEAD;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        for _ in 0..WRITES {
            client.write(&heartbeat);
            std::thread::sleep(LEAD / 4);
        }
    }
}

#[test]
fn a_silent_client_is_noticed_whatever_it_said_when_the_timer_fired() {
    const CLIENTS: u32 = 16;
    let broker = Broker::start();
    let address = broker.address();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(move || {
                let mut client = Client::open_with_heartbeat(address, 1);
                write_when_the_timer_fires(&mut client, Instant::now());
                client.receiver.end();
            });
        }
    });
}
