//! What queues of Warren do and those of RabbitMQ do not, as clients see it.

use std::time::Duration;

use warren_amqp091_codec::{Method, OwnedProperties};
use warren_types::{FieldTable, FieldValue};

use crate::broker::{Broker, PATIENCE, poll};
use crate::client::Client;
use crate::ctl::printed;

fn declare(client: &mut Client, queue: &str, exclusive: bool, arguments: &[(&str, FieldValue)]) {
    let mut table = FieldTable::new();
    arguments.iter().for_each(|(name, value)| table.insert(name, value.clone()));
    let declare = Method::QueueDeclare {
        ticket: 0,
        queue: queue.as_bytes(),
        passive: false,
        durable: !exclusive,
        exclusive,
        auto_delete: false,
        nowait: false,
        arguments: table,
    };
    client.call(1, &declare, "queue.declare-ok");
}

fn with_header(name: &str, value: FieldValue) -> OwnedProperties {
    let mut headers = FieldTable::new();
    headers.insert(name, value);
    OwnedProperties { headers: Some(headers), ..OwnedProperties::default() }
}

/// A consumer that takes a message at a time.
fn worker(broker: &Broker) -> Client {
    let mut client = Client::with_channel(broker.address());
    let qos = Method::BasicQos { prefetch_size: 0, prefetch_count: 1, global: false };
    client.call(1, &qos, "basic.qos-ok");
    client.consume(1, "q", false);
    client
}

fn acknowledge(client: &mut Client, delivery_tag: u64) {
    client.send(1, &Method::BasicAck { delivery_tag, multiple: false });
}

#[test]
fn b_messages_of_a_group_go_to_one_worker_in_order() {
    let broker = Broker::start();
    let mut client = Client::with_channel(broker.address());
    declare(&mut client, "q", false, &[("x-message-group-header", FieldValue::string("customer"))]);
    let mut first = worker(&broker);
    let mut publish = |customer: &str, body: &[u8]| {
        client.publish_with(1, "", "q", &with_header("customer", FieldValue::string(customer)), body);
    };
    publish("anna", b"a1");
    assert_eq!(first.receiver.delivery().2, b"a1");
    let mut second = worker(&broker);
    publish("anna", b"a2");
    publish("bert", b"b1");
    // The other worker is idle, and passes by what belongs to the first one's customer.
    assert_eq!(second.receiver.delivery().2, b"b1");
    acknowledge(&mut first, 1);
    assert_eq!(first.receiver.delivery().2, b"a2");
    // What the first has not done goes to the second when the first goes.
    publish("anna", b"a3");
    acknowledge(&mut second, 1);
    drop(first);
    let (tag, redelivered, body) = second.receiver.delivery();
    assert_eq!((redelivered, body), (true, b"a2".to_vec()));
    acknowledge(&mut second, tag);
    assert_eq!(second.receiver.delivery().2, b"a3");
}

#[test]
fn b_groups_and_what_would_break_their_order_exclude_each_other() {
    let broker = Broker::start();
    let mut client = Client::with_channel(broker.address());
    let mut arguments = FieldTable::new();
    arguments.insert("x-message-group-header", FieldValue::string("customer"));
    arguments.insert("x-max-priority", FieldValue::I32(5));
    let declare = Method::QueueDeclare {
        ticket: 0,
        queue: b"q",
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments,
    };
    client.send(1, &declare);
    let frame = client.receiver.method("channel.close");
    let Method::ChannelClose { reply_code, reply_text, .. } = frame.method() else { unreachable!() };
    assert_eq!(reply_code, 406);
    let text = String::from_utf8_lossy(reply_text);
    assert!(text.contains("groups are handled in order, which 'x-max-priority' would change"), "{text}");
}

#[test]
fn b_an_exclusive_queue_leaves_its_messages_as_dead_letters() {
    let broker = Broker::start();
    let mut heir = Client::with_channel(broker.address());
    declare(&mut heir, "heir", false, &[]);
    let mut client = Client::with_channel(broker.address());
    let arguments = [
        ("x-dead-letter-exchange", FieldValue::string("")),
        ("x-dead-letter-routing-key", FieldValue::string("heir")),
        ("x-dead-letter-on-delete", FieldValue::Bool(true)),
    ];
    declare(&mut client, "mine", true, &arguments);
    // More than a queue keeps in memory; one of them is delivered and not acknowledged.
    let body = vec![7; 40_000];
    for _ in 0..100 {
        client.publish(1, "mine", &body);
    }
    assert!(poll(PATIENCE, || client.declare_again("mine") == 100));
    client.call(1, &Method::BasicGet { ticket: 0, queue: b"mine", no_ack: false }, "basic.get-ok");
    client.receiver.body();
    drop(client);
    assert!(poll(PATIENCE, || heir.declare_again("heir") == 100));
    heir.consume(1, "heir", true);
    let message = heir.receiver.message();
    let headers = message.properties.headers.expect("a dead letter has headers");
    assert_eq!(headers.get("x-first-death-reason"), Some(&FieldValue::string("queue_deleted")));
}

/// Takes a message of a queue with these arguments and does not acknowledge it; whether it is taken back in time.
fn is_taken_back(broker: &Broker, queue: &str, arguments: &[(&str, FieldValue)], in_time: Duration) -> bool {
    let mut client = Client::with_channel(broker.address());
    declare(&mut client, queue, false, arguments);
    client.consume(1, queue, false);
    client.publish(1, queue, b"x");
    client.receiver.delivery();
    let mut other = Client::with_channel(broker.address());
    // Once it is back, somebody else gets it.
    if !poll(in_time, || other.get(1, queue).is_some()) {
        return false;
    }
    let cancelled = client.receiver.method("basic.cancel");
    assert!(matches!(cancelled.method(), Method::BasicCancel { nowait: true, .. }));
    true
}

#[test]
fn m41_the_configured_consumer_timeout_is_for_queues_without_one() {
    // Of a timeout of 200 ms.
    const LONG: Duration = Duration::from_secs(1);
    let quorum = ("x-queue-type", FieldValue::string("quorum"));
    let patient = ("x-consumer-timeout", FieldValue::I32(3_600_000));
    let limited = ("x-max-length", FieldValue::I32(10));
    let broker = Broker::with_config("consumer_timeout = 200\n");
    assert!(is_taken_back(&broker, "plain", &[], PATIENCE));
    assert!(is_taken_back(&broker, "quorum", &[quorum], PATIENCE));
    assert!(!is_taken_back(&broker, "patient", &[patient], LONG));
    // What changes a queue's arguments leaves it.
    printed(&broker, &["set_queue_arguments", "plain", r#"{"x-max-length": 10}"#]);
    assert!(is_taken_back(&broker, "plain", &[limited], PATIENCE));
    let unset = Broker::start();
    assert!(!is_taken_back(&unset, "plain", &[], LONG));
}
