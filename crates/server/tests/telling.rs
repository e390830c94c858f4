//! The firehose (features.md R5) and what administration makes the event exchange tell (E6), as a client sees them. What
//! is expected of the firehose is what RabbitMQ 3.10 sends for the same dialogue.

use warren_amqp091_codec::{Method, OwnedProperties};
use warren_broker::{AdminError, ApplyTo, Credentials, Parameter, Permissions, Policy, PolicyKind, Tag};
use warren_types::{FieldTable, FieldValue};

use crate::client::{Client, Message, put_publish};
use crate::served::{Served, all};

/// What the client needs to know of the broker.
mod broker {
    pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
}

#[allow(dead_code)]
mod served;

// The client of the tests of the binary; not all of it is needed here.
#[allow(dead_code)]
#[path = "../../warren/tests/server/client.rs"]
mod client;

const FIREHOSE: &str = "amq.rabbitmq.trace";

impl Served {
    fn trace(&self, traced: bool) {
        self.broker.set_tracing("/", traced).expect("there is such a virtual host");
    }

    /// A connection that consumes what the firehose has for a binding key.
    fn watch(&self, key: &str) -> Client {
        let mut client = Client::with_channel(self.address);
        client.declare(1, "watched");
        client.bind(1, "watched", FIREHOSE, key);
        client.consume(1, "watched", true);
        client
    }
}

fn headers(message: &Message) -> Vec<(String, FieldValue)> {
    let headers = message.properties.headers.clone().expect("a copy has headers").0;
    headers.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn field(name: &str, value: FieldValue) -> (String, FieldValue) {
    (name.to_owned(), value)
}

fn text(text: &str) -> FieldValue {
    FieldValue::string(text)
}

fn array(texts: &[&str]) -> FieldValue {
    FieldValue::Array(texts.iter().map(|text| FieldValue::string(text)).collect())
}

fn next(watcher: &mut Client, key: &str, body: &[u8]) -> Message {
    let copy = watcher.receiver.message();
    let shown = String::from_utf8_lossy(&copy.routing_key).into_owned();
    assert_eq!((&*shown, &*copy.body), (key, body));
    copy
}

fn queues(copy: &Message) -> FieldValue {
    let headers = copy.properties.headers.as_ref().expect("a copy has headers");
    headers.get("routed_queues").expect("it was published").clone()
}

#[test]
fn r5_what_is_published_and_delivered() {
    let served = Served::start();
    let mut watcher = served.watch("#");
    let mut client = Client::with_channel(served.address);
    let name = format!("{} -> {}", client.socket.local_addr().expect("it is open"), served.address);
    client.declare(1, "q");
    client.bind(1, "q", "amq.direct", "k");
    served.trace(true);
    let mut given = FieldTable::new();
    given.insert("CC", array(&["c1"]));
    given.insert("BCC", array(&["b1"]));
    let properties = OwnedProperties {
        headers: Some(given),
        content_type: Some(b"text/plain".to_vec()),
        delivery_mode: Some(2),
        timestamp: Some(1_700_000_000),
        ..OwnedProperties::default()
    };
    client.publish_with(1, "amq.direct", "k", &properties, b"body");

    let mut kept = FieldTable::new();
    kept.insert("CC", array(&["c1"]));
    let mut shown = FieldTable::new();
    shown.insert("timestamp", FieldValue::I32(1_700_000_000));
    shown.insert("delivery_mode", FieldValue::I32(2));
    shown.insert("headers", FieldValue::Table(kept));
    shown.insert("content_type", text("text/plain"));
    let published = next(&mut watcher, "publish.amq.direct", b"body");
    assert_eq!(published.properties.delivery_mode, None);
    assert_eq!(
        headers(&published),
        [
            field("exchange_name", text("amq.direct")),
            field("routing_keys", array(&["k", "c1", "b1"])),
            field("properties", FieldValue::Table(shown.clone())),
            field("node", text("rabbit@here")),
            field("vhost", text("/")),
            field("connection", text(&name)),
            field("channel", FieldValue::I32(1)),
            field("user", text("guest")),
            field("routed_queues", array(&["q"])),
        ]
    );
    // Got, given back, delivered again.
    let get = Method::BasicGet { ticket: 0, queue: b"q", no_ack: false };
    client.call(1, &get, "basic.get-ok");
    client.receiver.body();
    client.send(1, &Method::BasicNack { delivery_tag: 1, multiple: false, requeue: true });
    client.consume(1, "q", true);
    client.receiver.delivery();
    for redelivered in [0, 1] {
        assert_eq!(
            headers(&next(&mut watcher, "deliver.q", b"body")),
            [
                field("exchange_name", text("amq.direct")),
                field("routing_keys", array(&["k", "c1"])),
                field("properties", FieldValue::Table(shown.clone())),
                field("node", text("rabbit@here")),
                field("redelivered", FieldValue::I32(redelivered)),
                field("vhost", text("/")),
                field("connection", text(&name)),
                field("channel", FieldValue::I32(1)),
                field("user", text("guest")),
            ]
        );
    }
}

#[test]
fn r5_unroutable_messages_transactions_and_large_bodies() {
    let served = Served::start();
    let mut watcher = served.watch("publish.#");
    let mut client = Client::with_channel(served.address);
    client.declare(1, "q");
    served.trace(true);
    client.publish(1, "nowhere", b"unroutable");
    // The default exchange leads to every queue that could be.
    assert_eq!(queues(&next(&mut watcher, "publish.", b"unroutable")), array(&["nowhere"]));
    client.publish_with(1, "amq.fanout", "k", &OwnedProperties::default(), b"unbound");
    assert_eq!(queues(&next(&mut watcher, "publish.amq.fanout", b"unbound")), array(&[]));
    let large = vec![7; 100_000];
    client.publish(1, "q", &large);
    assert_eq!(queues(&next(&mut watcher, "publish.", &large)), array(&["q"]));
    // What is rolled back was published all the same.
    client.call(1, &Method::TxSelect {}, "tx.select-ok");
    client.publish(1, "q", b"held");
    client.call(1, &Method::TxRollback {}, "tx.rollback-ok");
    next(&mut watcher, "publish.", b"held");
}

#[test]
fn r5_it_begins_and_ends_between_two_messages_that_repeat() {
    let served = Served::start();
    let mut watcher = served.watch("#");
    let mut client = Client::with_channel(served.address);
    client.declare(1, "q");
    client.consume(1, "q", true);
    let mut send = |body: &[u8]| {
        client.publish(1, "q", body);
        assert_eq!(client.receiver.delivery().2, body);
    };
    for round in [b'a', b'b'] {
        assert_eq!(served.broker.tracing("/"), Ok(false));
        send(&[round, b'0']);
        send(&[round, b'1']);
        served.trace(true);
        assert_eq!(served.broker.tracing("/"), Ok(true));
        send(&[round, b'2']);
        send(&[round, b'3']);
        served.trace(false);
        send(&[round, b'4']);
        for number in [b'2', b'3'] {
            let body = [round, number];
            next(&mut watcher, "publish.", &body);
            next(&mut watcher, "deliver.q", &body);
        }
    }
    let missing = AdminError::NotFound { kind: "vhost", name: "other".to_owned() };
    assert_eq!(served.broker.set_tracing("other", true), Err(missing));
}

#[test]
fn r5_a_flood_is_copied_whole_and_the_broker_goes_on() {
    const MESSAGES: usize = 5000;
    let served = Served::start();
    let mut watcher = served.watch("publish.#");
    let mut client = Client::with_channel(served.address);
    client.declare(1, "q");
    served.trace(true);
    let mut bytes = Vec::new();
    for number in 0..MESSAGES {
        put_publish(&mut bytes, 1, &client::publish("q"), &client::numbered(number as u64, 1000));
    }
    client.write(&bytes);
    for number in 0..MESSAGES {
        assert_eq!(client::number_of(&watcher.receiver.message().body), number as u64);
    }
    assert_eq!(client.declare(1, "q"), MESSAGES as u32);
}

/// Declares an exchange that keeps messages, and binds it.
fn declare_history(client: &mut Client, exchange: &str, source: Option<&str>) {
    let declare = Method::ExchangeDeclare {
        ticket: 0,
        exchange: exchange.as_bytes(),
        kind: b"x-recent-history",
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments: FieldTable::new(),
    };
    client.call(1, &declare, "exchange.declare-ok");
    let Some(source) = source else { return };
    let bind = Method::ExchangeBind {
        ticket: 0,
        destination: exchange.as_bytes(),
        source: source.as_bytes(),
        routing_key: b"#",
        nowait: false,
        arguments: FieldTable::new(),
    };
    client.call(1, &bind, "exchange.bind-ok");
}

/// The next message of a queue that is bound now to an exchange that keeps messages.
fn kept(client: &mut Client, exchange: &str, queue: &str) -> Message {
    client.declare(1, queue);
    client.bind(1, queue, exchange, "");
    client.consume(1, queue, true);
    client.receiver.message()
}

#[test]
fn e4_r5_messages_are_kept_while_they_are_traced_and_so_are_their_copies() {
    let served = Served::start();
    let mut watcher = served.watch("publish.#");
    let mut client = Client::with_channel(served.address);
    declare_history(&mut client, "recent", None);
    declare_history(&mut client, "copies", Some(FIREHOSE));
    served.trace(true);
    let properties = OwnedProperties::default();
    client.publish_with(1, "recent", "k", &properties, b"first");
    assert_eq!(queues(&next(&mut watcher, "publish.recent", b"first")), array(&[]));
    assert_eq!(kept(&mut client, "recent", "q").body, b"first");
    client.publish_with(1, "recent", "k", &properties, b"second");
    assert_eq!(queues(&next(&mut watcher, "publish.recent", b"second")), array(&["q"]));
    assert_eq!(client.receiver.message().body, b"second");
    let copy = kept(&mut client, "copies", "late");
    assert_eq!((&copy.routing_key[..], &copy.body[..]), (&b"publish.recent"[..], &b"first"[..]));
}

#[test]
fn e4_e6_events_are_kept() {
    let served = Served::start();
    let _told = served.broker.set_permissions("guest", "events", all()).expect("it is right");
    let mut client = Client::with_channel_in(served.address, "events");
    client.declare(1, "heard");
    client.bind(1, "heard", "amq.rabbitmq.event", "vhost.created");
    client.consume(1, "heard", true);
    declare_history(&mut client, "recent", Some("amq.rabbitmq.event"));
    let _told = served.broker.create_vhost("v").expect("it is right");
    let (key, headers) = event(&client.receiver.message());
    assert_eq!(key, "vhost.created");
    let mut late = Client::with_channel_in(served.address, "events");
    let mut message = kept(&mut late, "recent", "q");
    while message.routing_key != b"vhost.created" {
        message = late.receiver.message();
    }
    assert_eq!(event(&message), (key, headers));
}

/// The key of an event, and its headers but for the time.
fn event(message: &Message) -> (String, Vec<(String, FieldValue)>) {
    let mut headers = headers(message);
    assert_eq!(headers.pop().map(|(name, _)| name).as_deref(), Some("timestamp_in_ms"));
    (String::from_utf8_lossy(&message.routing_key).into_owned(), headers)
}

fn who() -> (String, FieldValue) {
    field("user_who_performed_action", text("rmq-cli"))
}

#[test]
fn e6_what_operators_do() {
    let served = Served::start();
    let broker = &served.broker;
    // The virtual host of the event exchange was created for it.
    assert_eq!(broker.vhosts(), ["/", "events"]);
    let some = Permissions::new(".*", "w", "").expect("they are regular");
    let _told = broker.set_permissions("guest", "events", all());
    let mut listener = Client::with_channel_in(served.address, "events");
    listener.declare(1, "heard");
    for key in ["vhost.*", "user.*", "user.tags.*", "user.password.*", "permission.*", "policy.*"] {
        listener.bind(1, "heard", "amq.rabbitmq.event", key);
    }
    listener.bind(1, "heard", "amq.rabbitmq.event", "parameter.*");
    listener.consume(1, "heard", true);
    let mut next = |key: &str, wanted: &[(String, FieldValue)]| {
        let (got, headers) = event(&listener.receiver.message());
        assert_eq!((&*got, &headers[..]), (key, wanted));
    };
    let change = |result: Result<warren_broker::Recorded, AdminError>| drop(result.expect("it is right"));
    let named = |name: &str| [who(), field("name", text(name))];

    change(broker.create_vhost("v"));
    let described = [field("tags", array(&[])), field("description", text("")), who()];
    let [a, b, c] = described;
    next("vhost.created", &[a, b, c, field("tracing", FieldValue::Bool(false)), field("name", text("v"))]);
    change(broker.create_vhost("v"));

    change(broker.put_user("u", Credentials::Password(b"p"), vec![Tag::Impersonator]));
    next("user.created", &named("u"));
    let tags = field("tags", array(&["impersonator"]));
    next("user.tags.set", &[who(), tags, field("name", text("u"))]);
    change(broker.change_password("u", Credentials::Password(b"q")));
    next("user.password.changed", &named("u"));
    change(broker.change_password("u", Credentials::None));
    next("user.password.cleared", &named("u"));

    change(broker.set_permissions("u", "v", some));
    let place = [field("vhost", text("v")), field("user", text("u"))];
    let patterns = [("read", ""), ("write", "w"), ("configure", ".*")];
    let patterns = patterns.map(|(name, pattern)| field(name, text(pattern)));
    next("permission.created", &[&[who()][..], &patterns, &place].concat());
    change(broker.clear_permissions("u", "v"));
    next("permission.deleted", &[&[who()][..], &place].concat());

    let (name, pattern) = ("p".to_owned(), "^q".to_owned());
    let definition = "{\"max-length\":10}".to_owned();
    let policy = Policy { name, pattern, apply_to: ApplyTo::Queues, priority: 1, definition };
    change(broker.set_policy("v", PolicyKind::User, policy));
    let mut definition = FieldTable::new();
    definition.insert("max-length", FieldValue::I64(10));
    let place = [field("vhost", text("v")), field("name", text("p"))];
    let settings = [
        field("apply-to", text("queues")),
        field("priority", FieldValue::I64(1)),
        field("definition", FieldValue::Table(definition)),
        field("pattern", text("^q")),
        who(),
    ];
    next("policy.set", &[&settings[..], &place].concat());
    change(broker.clear_policy("v", PolicyKind::User, "p"));
    next("policy.cleared", &[&[who()][..], &place].concat());

    let [component, name] = ["c", "n"].map(str::to_owned);
    change(broker.set_parameter("v", Parameter { component, name, value: "true".to_owned() }));
    let place = [field("name", text("n")), field("component", text("c")), field("vhost", text("v"))];
    let set = [who(), field("value", FieldValue::Bool(true))];
    next("parameter.set", &[&set[..], &place].concat());
    change(broker.clear_parameter("v", "c", "n"));
    next("parameter.cleared", &[&[who()][..], &place].concat());

    change(broker.delete_user("u"));
    next("user.deleted", &named("u"));
    change(broker.delete_vhost("v"));
    next("vhost.deleted", &named("v"));
}

#[test]
fn e6_the_memory_alarm() {
    let served = Served::with(|settings| settings.memory_limit = 1);
    let _told = served.broker.set_permissions("guest", "events", all());
    let mut listener = Client::with_channel_in(served.address, "events");
    listener.declare(1, "heard");
    listener.bind(1, "heard", "amq.rabbitmq.event", "alarm.*");
    listener.consume(1, "heard", true);
    let mut client = Client::with_channel(served.address);
    client.declare(1, "q");
    client.publish(1, "q", b"more than a byte");
    let told = vec![field("node", text("rabbit@here")), field("source", text("memory"))];
    assert_eq!(event(&listener.receiver.message()), ("alarm.set".to_owned(), told));
}

#[test]
fn m17_an_impersonator_may_name_another_user() {
    let served = Served::start();
    for (name, tags) in [("plain", Vec::new()), ("other", vec![Tag::Impersonator])] {
        let _told = served.broker.put_user(name, Credentials::Password(b"p"), tags).expect("it is right");
        let _told = served.broker.set_permissions(name, "/", all()).expect("it is right");
    }
    let properties = OwnedProperties { user_id: Some(b"guest".to_vec()), ..OwnedProperties::default() };
    let mut client = Client::with_channel_as(served.address, b"\0other\0p");
    client.declare(1, "q");
    client.consume(1, "q", true);
    client.publish_with(1, "", "q", &properties, b"body");
    assert_eq!(client.receiver.message().properties.user_id.as_deref(), Some(&b"guest"[..]));
    let mut client = Client::with_channel_as(served.address, b"\0plain\0p");
    client.publish_with(1, "", "q", &properties, b"body");
    let frame = client.receiver.method("channel.close");
    let Method::ChannelClose { reply_code, reply_text, .. } = frame.method() else { unreachable!() };
    assert_eq!(reply_code, 406);
    assert_eq!(
        String::from_utf8_lossy(reply_text),
        "PRECONDITION_FAILED - user_id property set to 'guest' but authenticated user was 'plain'"
    );
}

#[test]
fn m21_consumers_end_that_may_not_read_when_the_secret_is_updated() {
    let served = Served::start();
    let mut client = Client::with_channel(served.address);
    for queue in ["mine", "theirs"] {
        client.declare(1, queue);
        client.consume(1, queue, true);
    }
    let only_mine = Permissions::new(".*", ".*", "^mine$").expect("they are regular");
    let _told = served.broker.set_permissions("guest", "/", only_mine).expect("the user is there");
    let update = Method::ConnectionUpdateSecret { new_secret: b"guest", reason: b"it was old" };
    client.call(0, &update, "connection.update-secret-ok");
    let frame = client.receiver.method("basic.cancel");
    assert!(matches!(frame.method(), Method::BasicCancel { nowait: true, .. }), "{:?}", frame.method());
    client.publish(1, "theirs", b"kept");
    client.publish(1, "mine", b"taken");
    assert_eq!(client.receiver.delivery().2, b"taken");
    let _told = served.broker.set_permissions("guest", "/", all()).expect("the user is there");
    assert_eq!(client.get(1, "theirs").as_deref(), Some(&b"kept"[..]));
}
