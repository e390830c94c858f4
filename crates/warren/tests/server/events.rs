//! Exchanges that the broker publishes to, and what it adds to messages.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use warren_amqp091_codec::{Dialect, Method, OwnedProperties, frame};
use warren_types::{FieldTable, FieldValue};

use crate::broker::{Broker, PATIENCE, poll};
use crate::client::{Client, Message, declare, publish, put_method, start_ok};

const EVENTS: &str = "amq.rabbitmq.event";
const LOG: &str = "amq.rabbitmq.log";

/// A connection that consumes everything from an exchange.
fn listen(address: SocketAddr, exchange: &str) -> Client {
    let mut client = Client::with_channel(address);
    client.declare(1, "heard");
    client.bind(1, "heard", exchange, "#");
    client.consume(1, "heard", true);
    client
}

/// The next message with this key; others before it are dropped.
fn next(client: &mut Client, key: &str) -> Message {
    loop {
        let message = client.receiver.message();
        if message.routing_key == key.as_bytes() {
            return message;
        }
    }
}

fn text(message: &Message, header: &str) -> String {
    let headers = message.properties.headers.as_ref().expect("it has headers");
    let value = headers.get(header).unwrap_or_else(|| panic!("no '{header}' in {headers:?}"));
    String::from_utf8_lossy(value.as_long_string().expect("it is text")).into_owned()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
}

fn bad_login(address: SocketAddr) {
    let mut client = Client::connect(address);
    client.write(&Dialect::HEADER_091);
    client.receiver.method("connection.start");
    client.send(0, &start_ok(b"\0guest\0wrong"));
    client.receiver.method("connection.close");
}

#[test]
fn e6_the_life_of_a_connection() {
    let broker = Broker::with_config("event_exchange.enabled = true\n");
    let mut listener = listen(broker.address(), EVENTS);
    let mut client = Client::with_channel(broker.address());
    let name = format!("{} -> {}", client.socket.local_addr().expect("it is open"), broker.address());

    let event = next(&mut listener, "user.authentication.success");
    assert_eq!((&*text(&event, "name"), &*text(&event, "connection_name")), ("guest", &*name));
    let created = next(&mut listener, "connection.created");
    assert_eq!((&*text(&created, "name"), &*text(&created, "vhost")), (&*name, "/"));
    assert_eq!(text(&created, "protocol"), "{0,9,1}");
    assert_eq!(created.body, b"");
    assert_eq!(created.properties.delivery_mode, Some(2));
    let seconds = created.properties.timestamp.expect("it tells when");
    assert!((now_s() - 100..=now_s()).contains(&seconds));
    let headers = created.properties.headers.as_ref().expect("it has headers");
    let Some(FieldValue::I64(ms)) = headers.get("timestamp_in_ms") else { panic!("{headers:?}") };
    assert_eq!(*ms as u64 / 1000, seconds);
    let channel = next(&mut listener, "channel.created");
    assert_eq!(text(&channel, "name"), format!("{name} (1)"));
    assert_eq!(text(&channel, "connection"), text(&created, "pid"));

    client.declare(1, "q");
    assert_eq!(text(&next(&mut listener, "queue.created"), "name"), "q");
    client.consume(1, "q", false);
    let consumer = next(&mut listener, "consumer.created");
    assert_eq!((&*text(&consumer, "queue"), text(&consumer, "channel")), ("q", text(&channel, "pid")));
    // Lost, not closed: everything that was open is told of.
    drop(client);
    let gone = next(&mut listener, "consumer.deleted");
    assert_eq!(text(&gone, "consumer_tag"), text(&consumer, "consumer_tag"));
    // And once only: the next event is another one.
    let closed = listener.receiver.message();
    assert_eq!(closed.routing_key, b"channel.closed");
    assert_eq!(text(&closed, "pid"), text(&channel, "pid"));
    assert_eq!(text(&next(&mut listener, "connection.closed"), "pid"), text(&created, "pid"));
}

#[test]
fn e6_exchanges_bindings_queues_and_refused_logins() {
    let broker = Broker::with_config("event_exchange.enabled = true\n");
    let mut listener = listen(broker.address(), EVENTS);
    let mut client = Client::with_channel(broker.address());
    client.declare(1, "q");
    assert_eq!(text(&next(&mut listener, "queue.created"), "user_who_performed_action"), "guest");
    client.bind(1, "q", "amq.direct", "k");
    let bound = next(&mut listener, "binding.created");
    assert_eq!((&*text(&bound, "source_name"), &*text(&bound, "destination_name")), ("amq.direct", "q"));
    assert_eq!((&*text(&bound, "routing_key"), &*text(&bound, "destination_kind")), ("k", "queue"));
    // Neither of them changes anything the second time.
    client.declare(1, "q");
    client.bind(1, "q", "amq.direct", "k");
    client.call(
        1,
        &Method::QueueDelete { ticket: 0, queue: b"q", if_unused: false, if_empty: false, nowait: false },
        "queue.delete-ok",
    );
    let unbound = listener.receiver.message();
    assert_eq!(unbound.routing_key, b"binding.deleted");
    assert_eq!(text(&unbound, "user_who_performed_action"), "rmq-internal");
    let deleted = listener.receiver.message();
    assert_eq!(deleted.routing_key, b"queue.deleted");
    assert_eq!(text(&deleted, "user_who_performed_action"), "guest");
    bad_login(broker.address());
    let refused = next(&mut listener, "user.authentication.failure");
    assert_eq!(text(&refused, "error"), "user 'guest' - invalid credentials");
}

#[test]
fn e6_the_exchange_is_internal_and_only_there_if_configured() {
    let passive = |exchange: &'static str| Method::ExchangeDeclare {
        ticket: 0,
        exchange: exchange.as_bytes(),
        kind: b"topic",
        passive: true,
        durable: true,
        auto_delete: false,
        internal: true,
        nowait: false,
        arguments: FieldTable::new(),
    };
    let broker = Broker::start();
    for exchange in [EVENTS, LOG] {
        let mut client = Client::with_channel(broker.address());
        let frame = client.call(1, &passive(exchange), "channel.close");
        let Method::ChannelClose { reply_code, .. } = frame.method() else { unreachable!() };
        assert_eq!(reply_code, 404);
    }
    let broker = Broker::with_config("event_exchange.enabled = true\nlog.exchange = true\n");
    for exchange in [EVENTS, LOG] {
        let mut client = Client::with_channel(broker.address());
        client.call(1, &passive(exchange), "exchange.declare-ok");
        client.publish_with(1, exchange, "k", &OwnedProperties::default(), b"");
        let frame = client.receiver.method("channel.close");
        let Method::ChannelClose { reply_code, reply_text, .. } = frame.method() else { unreachable!() };
        assert_eq!(reply_code, 403);
        let text = format!("ACCESS_REFUSED - cannot publish to internal exchange '{exchange}' in vhost '/'");
        assert_eq!(String::from_utf8_lossy(reply_text), text);
    }
}

#[test]
fn e6_bindings_survive_a_restart() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let start = |config: &str| {
        Broker::launch(config, |command, _| {
            command.args(["--bind", "127.0.0.1", "--amqp-port", "0"]);
            command.env("WARREN_DATA_DIR", directory.path());
        })
    };
    let stop = |mut broker: Broker| {
        broker.signal(Signal::TERM);
        assert!(broker.ended(PATIENCE).success());
    };
    let on = "event_exchange.enabled = true\n";
    let broker = start(on);
    let mut client = Client::with_channel(broker.address());
    client.declare(1, "heard");
    client.bind(1, "heard", EVENTS, "user.authentication.success");
    stop(broker);
    let broker = start(on);
    let mut client = Client::with_channel(broker.address());
    assert!(poll(PATIENCE, || client.get(1, "heard").is_some()), "the new connection was told of");
    stop(broker);
    // Without the exchange the binding is dropped, and that is said.
    let broker = start("");
    assert!(broker.log().contains("is dropped"), "{}", broker.log());
    stop(broker);
    let broker = start(on);
    let mut client = Client::with_channel(broker.address());
    let mut listener = listen(broker.address(), EVENTS);
    next(&mut listener, "binding.created");
    assert!(client.get(1, "heard").is_none(), "it is gone");
}

#[test]
fn cfg6_what_is_logged_is_published_by_level() {
    let broker = Broker::with_config("log.exchange = true\nlog.exchange.level = error\n");
    let mut listener = listen(broker.address(), LOG);
    bad_login(broker.address());
    let line = listener.receiver.message();
    assert_eq!(line.routing_key, b"error");
    let body = String::from_utf8_lossy(&line.body);
    assert!(body.contains(" [error] login refused: user 'guest' - invalid credentials"), "{body}");
    assert_eq!(line.properties.content_type.as_deref(), Some(&b"text/plain"[..]));
    assert!(text(&line, "node").starts_with("rabbit@"));
    // The warning that follows stays on the console.
    assert!(poll(PATIENCE, || broker.log().contains("connection closed")), "{}", broker.log());
    bad_login(broker.address());
    assert_eq!(listener.receiver.message().routing_key, b"error");
}

#[test]
fn r6_messages_are_stamped_also_when_they_repeat() {
    let broker = Broker::with_config(
        "message_interceptors.incoming.set_header_timestamp.overwrite = false\n\
         message_interceptors.incoming.set_header_routing_node.overwrite = true\n",
    );
    let mut client = Client::with_channel(broker.address());
    client.declare(1, "q");
    client.consume(1, "q", true);
    let stamp = |message: &Message| {
        let headers = message.properties.headers.clone().expect("it has headers");
        let Some(FieldValue::I64(ms)) = headers.get("timestamp_in_ms") else { panic!("{headers:?}") };
        assert!(text(message, "x-routed-by").starts_with("rabbit@"));
        *ms
    };
    let mut stamps = Vec::new();
    for body in [b"1", b"2", b"3"] {
        client.publish(1, "q", body);
        let message = client.receiver.message();
        assert_eq!(message.body, body);
        let ms = stamp(&message);
        assert_eq!(message.properties.timestamp, Some(ms as u64 / 1000));
        stamps.push(ms);
        // Else they would be stamped alike even if the second one were a copy of the first.
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(stamps.is_sorted() && stamps[0] < stamps[2], "{stamps:?}");
    // What the publisher has given is kept or not, as configured.
    let mut headers = FieldTable::new();
    headers.insert("timestamp_in_ms", FieldValue::I64(7));
    headers.insert("x-routed-by", FieldValue::string("elsewhere"));
    let given = OwnedProperties { headers: Some(headers), timestamp: Some(8), ..OwnedProperties::default() };
    client.publish_with(1, "", "q", &given, b"4");
    let message = client.receiver.message();
    assert_eq!(stamp(&message), 7);
    assert_eq!(message.properties.timestamp, Some(8));
    // A queue that comes later gets them too: nothing was remembered that is wrong now.
    let mut bytes = Vec::new();
    put_method(&mut bytes, 1, &publish("later"));
    frame::put_content_header(&mut bytes, 1, 0, &[0, 0]);
    client.write(&bytes);
    client.call(1, &declare("later", false), "queue.declare-ok");
    client.write(&bytes);
    assert!(poll(PATIENCE, || client.declare(1, "later") == 1));
}
