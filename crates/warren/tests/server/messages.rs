//! Single messages, as operators see and handle them with `warren ctl`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use warren_amqp091_codec::{Method, OwnedProperties};
use warren_types::{FieldTable, FieldValue};

use crate::broker::{Broker, warren};
use crate::client::Client;
use crate::ctl::{declare, failed, has_messages, printed};

fn properties(priority: Option<u8>, headers: &[(&str, FieldValue)]) -> OwnedProperties {
    let mut table = FieldTable::new();
    headers.iter().for_each(|(name, value)| table.insert(name, value.clone()));
    OwnedProperties {
        delivery_mode: Some(2),
        priority,
        headers: (!headers.is_empty()).then_some(table),
        ..OwnedProperties::default()
    }
}

/// What is seen of a queue.
fn seen(broker: &Broker, queue: &str) -> String {
    printed(broker, &["-s", "browse_queue", queue, "id", "body"])
}

fn rows(broker: &Broker, arguments: &[&str]) -> Value {
    let text = printed(broker, &[&["--formatter", "json"], arguments].concat());
    serde_json::from_str(&text).expect("it is JSON")
}

#[test]
fn b_messages_are_browsed_deleted_copied_and_moved() {
    let broker = Broker::start();
    let mut client = Client::with_channel(broker.address());
    declare(&mut client, "q", &[("x-max-priority", FieldValue::I32(5))]);
    declare(&mut client, "other", &[]);
    let reject = ("x-overflow", FieldValue::string("reject-publish"));
    declare(&mut client, "full", &[("x-max-length", FieldValue::I32(1)), reject]);
    let headers = [("n", FieldValue::I32(1))];
    for (priority, body) in [(None, "m0"), (None, "m1"), (None, "m2"), (None, "m3"), (Some(5), "m4")] {
        client.publish_with(1, "", "q", &properties(priority, &headers), body.as_bytes());
    }
    assert!(has_messages(&broker, "q", 5));

    assert_eq!(seen(&broker, "q"), "5-4\tm4\n0\tm0\n1\tm1\n2\tm2\n3\tm3\n");
    let page = ["-s", "browse_queue", "q", "--count", "2", "--after", "5-4", "id"];
    assert_eq!(printed(&broker, &page), "0\n1\n");
    let all = rows(&broker, &["browse_queue", "q", "--count", "1"]);
    let first = &all[0];
    assert!(first["age"].as_i64().is_some_and(|age| (0..600_000).contains(&age)), "{first}");
    let expected = json!({"delivery_mode": 2, "priority": 5, "headers": {"n": 1}});
    assert_eq!(first["properties"], expected);
    assert_eq!((&first["redelivered"], &first["size"]), (&json!(false), &json!(2)));
    assert_eq!((&first["routing_key"], &first["exchange"]), (&json!("q"), &json!("")));
    for (formatter, line) in [
        ("csv", "\"5-4\",\"m4\""),
        ("json_stream", "{\"body\":\"m4\",\"id\":\"5-4\"}"),
        ("erlang", "[[{id,<<\"5-4\">>},{body,<<\"m4\">>}],"),
        ("pretty_table", "│ 5-4 │ m4   │"),
        ("table", "5-4\tm4"),
    ] {
        let text = printed(&broker, &["--formatter", formatter, "browse_queue", "q", "id", "body"]);
        assert!(text.lines().any(|found| found == line), "{formatter}: {text}");
    }

    let result = "done\tnot_ready\tunroutable\trefused\n";
    assert_eq!(
        printed(&broker, &["delete_messages", "q", "1"]),
        format!("Deleting messages of queue 'q' in vhost '/' ...\n{result}1\t0\t0\t0\n")
    );
    let (code, error) = failed(&broker, &["delete_messages", "q", "1", "0"]);
    assert_eq!((code, error.as_str()), (69, "Error:\nnot ready in the queue: 1\n"));
    assert_eq!(seen(&broker, "q"), "5-4\tm4\n2\tm2\n3\tm3\n");

    let copy = ["-s", "copy_messages", "q", "2", "--to-queue", "other"];
    assert_eq!(printed(&broker, &copy), "1\t0\t0\t0\n");
    let (code, error) = failed(
        &broker,
        &["copy_messages", "q", "--first", "2", "--to-exchange", "amq.topic", "--routing-key", "k"],
    );
    let stay = "Error:\nstay where they are: 2 (2 go nowhere from here, 0 were refused)\n";
    assert_eq!((code, error.as_str()), (69, stay));
    client.bind(1, "other", "amq.topic", "k.#");
    let to_exchange = ["--to-exchange", "amq.topic", "--routing-key", "k.l"];
    let moved = printed(&broker, &[&["-s", "move_messages", "q", "5-4"][..], &to_exchange].concat());
    assert_eq!(moved, "1\t0\t0\t0\n");
    let shown = printed(&broker, &["-s", "browse_queue", "other", "body", "exchange", "routing_key"]);
    assert_eq!(shown, "m2\t\tother\nm4\tamq.topic\tk.l\n");

    for body in ["m5", "m6"] {
        client.publish_with(1, "", "q", &properties(None, &[]), body.as_bytes());
    }
    assert!(has_messages(&broker, "q", 4));
    let (code, error) = failed(&broker, &["move_messages", "q", "2", "5", "--to-queue", "full"]);
    let stay = "Error:\nstay where they are: 1 (0 go nowhere from here, 1 were refused)\n";
    assert_eq!((code, error.as_str()), (69, stay));
    assert_eq!(
        (seen(&broker, "full").as_str(), seen(&broker, "q").as_str()),
        ("0\tm2\n", "3\tm3\n5\tm5\n6\tm6\n")
    );
    for body in ["m3", "m5", "m6"] {
        assert_eq!(client.get(1, "q").as_deref(), Some(body.as_bytes()), "what was refused is where it was");
    }
    assert_eq!(client.get(1, "q"), None);

    for wrong in [
        &["browse_queue", "nowhere"][..],
        &["delete_messages", "q"],
        &["move_messages", "q", "1"],
        &["move_messages", "q", "1", "--to-exchange", "amq.topic"],
        &["move_messages", "q", "1", "--to-queue", "nowhere"],
        &["browse_queue", "q", "no_such_column"],
    ] {
        assert_eq!(failed(&broker, wrong).0, 64, "{wrong:?}");
    }
    assert_eq!(failed(&broker, &["delete_messages", "q", "one"]).0, 69);
}

#[test]
fn b_what_is_paged_out_is_handled_like_the_rest() {
    let broker = Broker::start();
    let mut client = Client::with_channel(broker.address());
    declare(&mut client, "q", &[]);
    declare(&mut client, "other", &[]);
    for number in 0..3000 {
        let mut body = format!("m{number}-").into_bytes();
        body.resize(1000, b'.');
        client.publish(1, "q", &body);
    }
    assert!(has_messages(&broker, "q", 3000));
    let ids = |queue: &str| -> Vec<String> {
        let text = printed(&broker, &["-s", "browse_queue", queue, "--count", "5000", "body"]);
        text.lines().map(|line| line.split('-').next().unwrap_or_default().to_owned()).collect()
    };
    let expected: Vec<String> = (0..3000).map(|number| format!("m{number}")).collect();
    assert!(ids("q") == expected);
    assert_eq!(printed(&broker, &["-s", "delete_messages", "q", "2999", "2500", "3"]), "3\t0\t0\t0\n");
    assert_eq!(
        printed(&broker, &["-s", "move_messages", "q", "--first", "2700", "--to-queue", "other"]),
        "2700\t0\t0\t0\n"
    );
    let kept: Vec<String> =
        expected.iter().filter(|id| !["m2999", "m2500", "m3"].contains(&&***id)).cloned().collect();
    assert!(ids("other") == kept[..2700]);
    assert!(ids("q") == kept[2700..]);
    // Into the queue itself: everything once, and no circle.
    let around = ["-s", "move_messages", "q", "--first", "100000", "--to-queue", "q"];
    assert_eq!(printed(&broker, &around), "297\t0\t0\t0\n");
    assert!(ids("q") == kept[2700..]);
    assert!(client.get(1, "q").is_some_and(|body| body.starts_with(kept[2700].as_bytes())));
}

#[test]
fn b_dead_letters_go_back_to_where_they_died() {
    let broker = Broker::start();
    let mut client = Client::with_channel(broker.address());
    let dead = ("x-dead-letter-routing-key", FieldValue::string("dead"));
    declare(&mut client, "work", &[("x-dead-letter-exchange", FieldValue::string("")), dead]);
    declare(&mut client, "dead", &[]);
    client.bind(1, "work", "amq.topic", "a.#");
    for body in ["one", "two"] {
        client.publish_with(
            1,
            "amq.topic",
            "a.b",
            &properties(None, &[("own", FieldValue::I32(1))]),
            body.as_bytes(),
        );
    }
    client.publish(1, "dead", b"stray");
    assert!(has_messages(&broker, "work", 2));
    for _ in 0..2 {
        client.send(1, &Method::BasicGet { ticket: 0, queue: b"work", no_ack: false });
        let frame = client.receiver.method("basic.get-ok");
        let Method::BasicGetOk { delivery_tag, .. } = frame.method() else { unreachable!() };
        client.receiver.body();
        client.send(1, &Method::BasicReject { delivery_tag, requeue: false });
    }
    assert!(has_messages(&broker, "dead", 3));
    let (code, error) = failed(&broker, &["redrive_queue", "dead"]);
    let stay = "Error:\nstay where they are: 1 (1 go nowhere from here, 0 were refused)\n";
    assert_eq!((code, error.as_str()), (69, stay));
    assert_eq!(printed(&broker, &["-s", "browse_queue", "dead", "body"]), "stray\n");
    let columns = ["body", "exchange", "routing_key", "properties"];
    let back = rows(&broker, &[&["browse_queue", "work"], &columns[..]].concat());
    let expected = |body: &str| {
        let properties = json!({"delivery_mode": 2, "headers": {"own": 1}});
        json!({"body": body, "exchange": "amq.topic", "routing_key": "a.b", "properties": properties})
    };
    assert_eq!(back, json!([expected("one"), expected("two")]));
}

#[test]
fn b_delayed_messages_are_listed_and_cancelled() {
    let broker = Broker::start();
    let mut client = Client::with_channel(broker.address());
    let mut arguments = FieldTable::new();
    arguments.insert("x-delayed-type", FieldValue::string("fanout"));
    let exchange = Method::ExchangeDeclare {
        ticket: 0,
        exchange: b"later",
        kind: b"x-delayed-message",
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments,
    };
    client.call(1, &exchange, "exchange.declare-ok");
    client.declare(1, "q");
    client.bind(1, "q", "later", "");
    for (delay, body) in [(3_600_000, "hour"), (7_200_000, "two hours"), (60_000, "minute")] {
        client.publish_with(
            1,
            "later",
            "k",
            &properties(None, &[("x-delay", FieldValue::I32(delay))]),
            body.as_bytes(),
        );
    }
    client.declare_again("q");
    let listed = rows(&broker, &["list_delayed", "later", "id", "body", "expires"]);
    let bodies: Vec<&Value> =
        listed.as_array().expect("they are rows").iter().map(|row| &row["body"]).collect();
    assert_eq!(bodies, ["hour", "two hours", "minute"]);
    let expires = listed[0]["expires"].as_i64().expect("it is a number");
    assert!((3_000_000..=3_600_000).contains(&expires), "{expires}");
    let id = listed[1]["id"].as_str().expect("it is text");
    assert_eq!(printed(&broker, &["-s", "cancel_delayed", "later", id]), "1\t0\t0\t0\n");
    assert_eq!(printed(&broker, &["-s", "list_delayed", "later", "body"]), "hour\nminute\n");
    let (code, error) = failed(&broker, &["list_delayed", "amq.topic"]);
    assert_eq!(code, 69);
    assert!(error.contains("does not hold messages back"), "{error}");
}

/// A broker whose directory outlives it.
fn start(data: &Path) -> Broker {
    Broker::launch("", |command, _| {
        command.args(["--bind", "127.0.0.1", "--amqp-port", "0", "--data-dir"]).arg(data);
    })
}

#[test]
fn b_a_kill_loses_no_message_that_is_moved() {
    const MESSAGES: usize = 2000;
    let data = tempfile::tempdir().expect("there is room");
    let mut broker = start(data.path());
    let mut client = Client::with_channel(broker.address());
    client.declare(1, "q0");
    client.declare(1, "q1");
    for number in 0..MESSAGES {
        let mut body = format!("{number} ").into_bytes();
        body.resize(if number % 2 == 0 { 20 } else { 2000 }, b'.');
        client.publish_with(1, "", "q0", &properties(None, &[]), &body);
    }
    assert!(has_messages(&broker, "q0", MESSAGES as u32));
    for cycle in 0..6u64 {
        let (from, to) = if cycle % 2 == 0 { ("q0", "q1") } else { ("q1", "q0") };
        let mut moving =
            (warren().args(["ctl", "move_messages", from, "--first", "100000", "--to-queue", to]))
                .env("WARREN_DATA_DIR", data.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the program can be started");
        std::thread::sleep(Duration::from_millis(20 + 30 * cycle));
        broker.signal(Signal::KILL);
        drop(broker);
        let _ended = moving.wait().expect("it is our process");
        broker = start(data.path());
        let mut places: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        let texts = ["q0", "q1"]
            .map(|queue| printed(&broker, &["-s", "browse_queue", queue, "--count", "100000", "body"]));
        for (queue, text) in ["q0", "q1"].into_iter().zip(&texts) {
            for line in text.lines() {
                let number = line.split(' ').next().and_then(|number| number.parse().ok());
                places.entry(number.expect("bodies begin with their number")).or_default().push(queue);
            }
        }
        assert_eq!(places.len(), MESSAGES, "cycle {cycle}: messages are lost");
    }
}
