//! Messages that a queue or an exchange had before are dropped, also if the broker was killed in between (features.md
//! E8).

use std::collections::BTreeSet;
use std::path::Path;

use rustix::process::Signal;
use warren_amqp091_codec::{Method, OwnedProperties};
use warren_types::{FieldTable, FieldValue};

use crate::broker::{Broker, PATIENCE, poll};
use crate::client::Client;

/// A broker whose directory outlives it.
fn start(data: &Path) -> Broker {
    Broker::launch("", |command, _| {
        command.args(["--bind", "127.0.0.1", "--amqp-port", "0", "--data-dir"]).arg(data);
    })
}

fn table(entries: &[(&str, FieldValue)]) -> FieldTable {
    let mut table = FieldTable::new();
    entries.iter().for_each(|(name, value)| table.insert(name, value.clone()));
    table
}

fn declare(client: &mut Client, queue: &str, arguments: FieldTable) {
    let queue = queue.as_bytes();
    let (passive, durable, exclusive, auto_delete, nowait) = (false, true, false, false, false);
    let declare = Method::QueueDeclare {
        ticket: 0,
        queue,
        passive,
        durable,
        exclusive,
        auto_delete,
        nowait,
        arguments,
    };
    client.call(1, &declare, "queue.declare-ok");
}

fn declare_exchange(client: &mut Client, exchange: &str, arguments: FieldTable) {
    let declare = Method::ExchangeDeclare {
        ticket: 0,
        exchange: exchange.as_bytes(),
        kind: b"fanout",
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments,
    };
    client.call(1, &declare, "exchange.declare-ok");
}

fn properties(headers: FieldTable) -> OwnedProperties {
    OwnedProperties { delivery_mode: Some(2), headers: Some(headers), ..OwnedProperties::default() }
}

/// Publishes a persistent message whose header has its body as its value, and waits for its confirm.
fn publish(client: &mut Client, exchange: &str, key: &str, header: &str, body: &str) {
    let properties = properties(table(&[(header, FieldValue::string(body))]));
    client.publish_with(1, exchange, key, &properties, body.as_bytes());
    client.receiver.method("basic.ack");
}

fn drain(client: &mut Client, queue: &str) -> Vec<String> {
    let bodies = std::iter::from_fn(|| client.get(1, queue));
    bodies.map(|body| String::from_utf8_lossy(&body).into_owned()).collect()
}

/// Waits for a message of a queue.
fn next(client: &mut Client, queue: &str) -> String {
    let mut found = None;
    poll(PATIENCE, || {
        found = client.get(1, queue);
        found.is_some()
    });
    String::from_utf8_lossy(&found.expect("a message comes in time")).into_owned()
}

fn confirming(broker: &Broker) -> Client {
    let mut client = Client::with_channel(broker.address());
    client.call(1, &Method::ConfirmSelect { nowait: false }, "confirm.select-ok");
    client
}

#[test]
fn e8_a_queue_drops_what_it_had_before_it_was_killed() {
    const HEADER: &str = "x-deduplication-header";
    let parent = tempfile::tempdir().expect("a directory");
    let data = parent.path().join("data");
    let mut broker = start(&data);
    let mut client = confirming(&broker);
    declare(&mut client, "q", table(&[("x-message-deduplication", FieldValue::Bool(true))]));
    for body in ["a", "b", "a", "c", "b"] {
        publish(&mut client, "", "q", HEADER, body);
    }
    // Those without the header are never the same, and neither are those that are forgotten at once.
    for _ in 0..2 {
        publish(&mut client, "", "q", "other", "x");
        let headers = [(HEADER, FieldValue::string("y")), ("x-cache-ttl", FieldValue::I32(0))];
        client.publish_with(1, "", "q", &properties(table(&headers)), b"y");
        client.receiver.method("basic.ack");
    }
    // What is consumed stays known.
    assert_eq!(client.get(1, "q"), Some(b"a".to_vec()));
    broker.signal(Signal::KILL);
    broker.ended(PATIENCE);

    let broker = start(&data);
    let mut client = confirming(&broker);
    let mut left = drain(&mut client, "q");
    // The kill may have come before it was written that the first was consumed.
    left.retain(|body| body != "a");
    assert_eq!(left, ["b", "c", "x", "y", "x", "y"]);
    for body in ["a", "b", "c", "d", "d"] {
        publish(&mut client, "", "q", HEADER, body);
    }
    assert_eq!(drain(&mut client, "q"), ["d"]);
}

#[test]
fn e8_an_exchange_drops_what_it_had_before_it_was_killed() {
    let parent = tempfile::tempdir().expect("a directory");
    let data = parent.path().join("data");
    let mut broker = start(&data);
    let mut client = confirming(&broker);
    let arguments = [
        ("x-message-deduplication", FieldValue::Bool(true)),
        ("x-deduplication-header", FieldValue::string("id")),
        ("x-cache-size", FieldValue::I32(50)),
        ("x-cache-ttl", FieldValue::I32(3_600_000)),
    ];
    declare_exchange(&mut client, "e", table(&arguments));
    for queue in ["r", "s"] {
        declare(&mut client, queue, FieldTable::new());
        client.bind(1, queue, "e", "");
    }
    for body in ["a", "b", "a", "b"] {
        publish(&mut client, "e", "", "id", body);
    }
    for queue in ["r", "s"] {
        assert_eq!([next(&mut client, queue), next(&mut client, queue)], ["a", "b"]);
    }
    // Its confirm comes behind what the exchange has done with the others.
    publish(&mut client, "e", "", "id", "c");
    broker.signal(Signal::KILL);
    broker.ended(PATIENCE);

    let broker = start(&data);
    let mut client = confirming(&broker);
    for body in ["a", "b", "c", "d"] {
        publish(&mut client, "e", "", "id", body);
    }
    for queue in ["r", "s"] {
        let mut found = BTreeSet::new();
        while found.len() < 2 {
            found.insert(next(&mut client, queue));
        }
        found.extend(drain(&mut client, queue));
        assert_eq!(found, BTreeSet::from(["c".to_owned(), "d".to_owned()]), "{queue}");
    }
}
