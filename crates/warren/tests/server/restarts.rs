//! What a broker knows of messages beside what clients see, after it was killed.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use warren_amqp091_codec::{Method, OwnedProperties};
use warren_types::{FieldTable, FieldValue};

use crate::broker::{Broker, PATIENCE, poll};
use crate::client::Client;

const PERSISTENT: u8 = 2;

fn start(data: &Path) -> Broker {
    Broker::launch("", |command, _| {
        command.args(["--bind", "127.0.0.1", "--amqp-port", "0", "--data-dir"]).arg(data);
    })
}

/// The same directory with another broker, after the first was killed.
fn killed(mut broker: Broker, data: &Path) -> Broker {
    broker.signal(Signal::KILL);
    broker.ended(PATIENCE);
    start(data)
}

fn table(entries: &[(&'static str, FieldValue)]) -> FieldTable {
    FieldTable(entries.iter().map(|(name, value)| ((*name).into(), value.clone())).collect())
}

fn declare(client: &mut Client, queue: &str, arguments: FieldTable) {
    let declare = Method::QueueDeclare {
        ticket: 0,
        queue: queue.as_bytes(),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments,
    };
    client.call(1, &declare, "queue.declare-ok");
}

fn with_headers(headers: FieldTable) -> OwnedProperties {
    OwnedProperties { delivery_mode: Some(PERSISTENT), headers: Some(headers), ..OwnedProperties::default() }
}

/// A client in confirm mode.
fn publisher(broker: &Broker) -> Client {
    let mut client = Client::with_channel(broker.address());
    client.call(1, &Method::ConfirmSelect { nowait: false }, "confirm.select-ok");
    client
}

fn publish(client: &mut Client, exchange: &str, key: &str, headers: FieldTable, body: &[u8]) {
    client.publish_with(1, exchange, key, &with_headers(headers), body);
    client.receiver.method("basic.ack");
}

#[test]
fn e7_delayed_messages_come_when_they_are_due_though_the_broker_was_killed() {
    let parent = tempfile::tempdir().expect("a directory");
    let data = parent.path().join("data");
    let broker = start(&data);
    let mut client = publisher(&broker);
    let declare_exchange = Method::ExchangeDeclare {
        ticket: 0,
        exchange: b"late",
        kind: b"x-delayed-message",
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments: table(&[("x-delayed-type", FieldValue::string("direct"))]),
    };
    client.call(1, &declare_exchange, "exchange.declare-ok");
    declare(&mut client, "q", FieldTable::new());
    client.bind(1, "q", "late", "hidden");
    let began = Instant::now();
    let hidden = || ("BCC", FieldValue::Array(vec![FieldValue::string("hidden")]));
    for (body, delay) in [("last", 3000), ("soon", 1), ("middle", 2500)] {
        let headers = table(&[("x-delay", FieldValue::I32(delay)), hidden()]);
        publish(&mut client, "late", "k", headers, body.as_bytes());
    }
    let broker = killed(broker, &data);
    let mut client = Client::with_channel(broker.address());
    client.consume(1, "q", true);
    for (body, delay) in [("soon", 1), ("middle", 2500), ("last", 3000)] {
        let message = client.receiver.message();
        assert_eq!(String::from_utf8_lossy(&message.body), body);
        assert!(began.elapsed() >= Duration::from_millis(delay), "{body} came too early");
    }
}

/// The reasons of the deaths of the first message in a queue, and how often each happened.
fn deaths(client: &mut Client, queue: &str) -> Vec<(String, i64)> {
    client.consume(1, queue, true);
    let headers = client.receiver.message().properties.headers.expect("a dead letter has headers");
    let Some(FieldValue::Array(deaths)) = headers.get("x-death") else { panic!("no record of deaths") };
    let one = |death: &FieldValue| {
        let FieldValue::Table(death) = death else { panic!("{death:?}") };
        let reason = death.get("reason").and_then(FieldValue::as_long_string).expect("there is a reason");
        let count = death.get("count").and_then(FieldValue::as_integer).expect("there is a count");
        (String::from_utf8_lossy(reason).into_owned(), count)
    };
    deaths.iter().map(one).collect()
}

#[test]
fn m33_the_record_of_deaths_survives_a_kill() {
    let parent = tempfile::tempdir().expect("a directory");
    let data = parent.path().join("data");
    let broker = start(&data);
    let mut client = publisher(&broker);
    let to = |queue: &str| {
        table(&[
            ("x-dead-letter-exchange", FieldValue::string("")),
            ("x-dead-letter-routing-key", FieldValue::string(queue)),
        ])
    };
    declare(&mut client, "end", FieldTable::new());
    declare(&mut client, "again", to("end"));
    let mut limited = to("again");
    limited.insert("x-max-length", FieldValue::I32(0));
    declare(&mut client, "full", limited);
    // What a client writes of deaths is not believed, before or after.
    let forged = table(&[("x-death", FieldValue::Array(vec![FieldValue::Bool(true)]))]);
    publish(&mut client, "", "full", forged, b"x");
    let reject = |client: &mut Client, queue: &str| {
        let mut found = None;
        assert!(poll(PATIENCE, || {
            client.send(1, &Method::BasicGet { ticket: 0, queue: queue.as_bytes(), no_ack: false });
            if let Method::BasicGetOk { delivery_tag, .. } = client.receiver.next().method() {
                found = Some(delivery_tag);
            }
            found.is_some()
        }));
        client.receiver.body();
        let delivery_tag = found.unwrap_or_default();
        client.send(1, &Method::BasicReject { delivery_tag, requeue: false });
    };
    let broker = killed(broker, &data);
    let mut client = publisher(&broker);
    reject(&mut client, "again");
    let is_dead = || {
        let answer = client.call(1, &crate::client::declare("end", true), "queue.declare-ok");
        matches!(answer.method(), Method::QueueDeclareOk { message_count: 1, .. })
    };
    assert!(poll(PATIENCE, is_dead));
    // What is confirmed is on disk, and so is what came before it.
    publish(&mut client, "", "end", FieldTable::new(), b"behind");
    let broker = killed(broker, &data);
    let mut client = Client::with_channel(broker.address());
    assert_eq!(deaths(&mut client, "end"), [("rejected".to_owned(), 1), ("maxlen".to_owned(), 1)]);
}
