//! Policies (features.md Q1, Q2) as clients see them.

use std::time::{Duration, Instant};

use warren_amqp091_codec::{Method, OwnedProperties};
use warren_broker::{ApplyTo, EffectivePolicies, Policy, PolicyKind, Recorded};
use warren_types::{FieldTable, FieldValue};

use crate::client::{Client, Message};
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

impl Served {
    fn done(&self, recorded: Recorded) {
        self.runtime.block_on(recorded.durable());
    }

    /// Sets a policy with the priority 0.
    fn set(&self, kind: PolicyKind, name: &str, pattern: &str, definition: &str) {
        self.set_with(kind, name, (pattern, 0), definition);
    }

    fn set_with(&self, kind: PolicyKind, name: &str, (pattern, priority): (&str, i64), definition: &str) {
        let policy = Policy {
            name: name.to_owned(),
            pattern: pattern.to_owned(),
            apply_to: ApplyTo::All,
            priority,
            definition: definition.to_owned(),
        };
        self.done(self.broker.set_policy("/", kind, policy).expect("it is valid"));
    }

    fn clear(&self, kind: PolicyKind, name: &str) {
        self.done(self.broker.clear_policy("/", kind, name).expect("it is there"));
    }

    fn of_queue(&self, queue: &str) -> EffectivePolicies {
        self.broker.policies_of_queue("/", queue).expect("the queue is there")
    }
}

use PolicyKind::{Operator, User};

fn effective(policy: Option<&str>, operator_policy: Option<&str>, definition: &str) -> EffectivePolicies {
    EffectivePolicies {
        policy: policy.map(str::to_owned),
        operator_policy: operator_policy.map(str::to_owned),
        definition: Some(definition.to_owned()),
    }
}

fn declare_with(client: &mut Client, queue: &str, arguments: &[(&'static str, FieldValue)]) {
    let mut table = FieldTable::new();
    for (name, value) in arguments {
        table.insert(name, value.clone());
    }
    let declare = Method::QueueDeclare {
        ticket: 0,
        queue: queue.as_bytes(),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: table,
    };
    client.call(1, &declare, "queue.declare-ok");
}

fn declare_exchange(client: &mut Client, exchange: &str) {
    let declare = Method::ExchangeDeclare {
        ticket: 0,
        exchange: exchange.as_bytes(),
        kind: b"fanout",
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments: FieldTable::new(),
    };
    client.call(1, &declare, "exchange.declare-ok");
}

/// How many messages a queue has, once it has what was published so far.
fn ready(client: &mut Client, queue: &str) -> u32 {
    let frame = client.call(1, &client::declare(queue, true), "queue.declare-ok");
    let Method::QueueDeclareOk { message_count, .. } = frame.method() else { unreachable!() };
    message_count
}

/// Publishes bodies `0`, `1` and so on; returns how many messages the queue has then.
fn fill(client: &mut Client, queue: &str, count: u8) -> u32 {
    for body in 0..count {
        client.publish(1, queue, &[b'0' + body]);
    }
    ready(client, queue)
}

fn drain(client: &mut Client, queue: &str) -> String {
    let mut bodies = String::new();
    while let Some(body) = client.get(1, queue) {
        bodies.push_str(&String::from_utf8_lossy(&body));
    }
    bodies
}

/// Asks until the answer is the expected one: what a timer does takes its time.
fn eventually<T: PartialEq + std::fmt::Debug>(expected: &T, mut ask: impl FnMut() -> T) {
    let end = Instant::now() + broker::PATIENCE;
    loop {
        let answer = ask();
        if answer == *expected {
            return;
        }
        assert!(Instant::now() < end, "{answer:?} instead of {expected:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn q1_policies_change_queues_at_once_and_are_taken_back() {
    let served = Served::start();
    let mut client = Client::with_channel(served.address);
    client.declare(1, "orders");
    client.declare(1, "other");
    assert_eq!((fill(&mut client, "orders", 5), fill(&mut client, "other", 5)), (5, 5));
    served.set(User, "short", "^or", r#"{"max-length":2}"#);
    assert_eq!((ready(&mut client, "orders"), ready(&mut client, "other")), (2, 5));
    assert_eq!(drain(&mut client, "orders"), "34", "the oldest went");
    assert_eq!(fill(&mut client, "orders", 5), 2);

    // Changed, and then to apply to something else.
    served.set(User, "short", "^or", r#"{"max-length":4}"#);
    assert_eq!(fill(&mut client, "orders", 5), 4);
    served.set(User, "short", "^ot", r#"{"max-length":1}"#);
    assert_eq!((fill(&mut client, "orders", 5), ready(&mut client, "other")), (9, 1));
    assert_eq!(served.of_queue("orders"), EffectivePolicies::default());

    served.clear(User, "short");
    assert_eq!(fill(&mut client, "other", 5), 6);
    assert_eq!(served.of_queue("other"), EffectivePolicies::default());
}

#[test]
fn q1_queues_declared_later_have_them_too() {
    let served = Served::start();
    served.set(User, "all", "", r#"{"max-length":3}"#);
    served.set_with(User, "a", ("^a", 1), r#"{"max-length":1}"#);
    served.set(Operator, "bound", "b$", r#"{"max-length":2}"#);
    let mut client = Client::with_channel(served.address);
    for (queue, length) in [("q", 3), ("a", 1), ("ab", 1), ("b", 2)] {
        client.declare(1, queue);
        assert_eq!(fill(&mut client, queue, 5), length, "{queue}");
    }
    assert_eq!(served.of_queue("q"), effective(Some("all"), None, r#"{"max-length":3}"#));
    assert_eq!(served.of_queue("ab"), effective(Some("a"), Some("bound"), r#"{"max-length":1}"#));
    assert_eq!(served.of_queue("b"), effective(Some("all"), Some("bound"), r#"{"max-length":2}"#));
    // The next one in rank takes over.
    served.clear(User, "a");
    assert_eq!(served.of_queue("ab"), effective(Some("all"), Some("bound"), r#"{"max-length":2}"#));
    assert_eq!(fill(&mut client, "ab", 5), 2);
}

#[test]
fn q1_a_policy_that_a_type_of_queue_does_not_know_passes_it_by() {
    let served = Served::start();
    let mut client = Client::with_channel(served.address);
    declare_with(&mut client, "classic", &[]);
    declare_with(&mut client, "quorum", &[("x-queue-type", FieldValue::string("quorum"))]);
    served.set(User, "limit", "", r#"{"delivery-limit":1,"max-length":3}"#);
    assert_eq!(served.of_queue("classic"), EffectivePolicies::default());
    assert_eq!(
        served.of_queue("quorum"),
        effective(Some("limit"), None, r#"{"delivery-limit":1,"max-length":3}"#)
    );
    assert_eq!(fill(&mut client, "classic", 5), 5);

    // The second time that it comes back is one too many.
    client.publish(1, "quorum", b"0");
    for tag in 1..=2 {
        let get = Method::BasicGet { ticket: 0, queue: b"quorum", no_ack: false };
        client.call(1, &get, "basic.get-ok");
        client.receiver.body();
        client.send(1, &Method::BasicReject { delivery_tag: tag, requeue: true });
    }
    assert_eq!(client.get(1, "quorum"), None);
}

#[test]
fn q2_limits_are_the_lower_ones_and_other_arguments_win() {
    let served = Served::start();
    let mut client = Client::with_channel(served.address);
    let with = |length: i32, overflow| {
        [("x-max-length", FieldValue::I32(length)), ("x-overflow", FieldValue::string(overflow))]
    };
    declare_with(&mut client, "low", &with(1, "drop-head"));
    declare_with(&mut client, "high", &with(9, "drop-head"));
    declare_with(&mut client, "plain", &[]);
    served.set(User, "p", "", r#"{"max-length":3,"overflow":"reject-publish"}"#);
    for (queue, left) in [("low", "4"), ("high", "234"), ("plain", "012")] {
        fill(&mut client, queue, 5);
        assert_eq!(drain(&mut client, queue), left, "{queue}");
    }
    // What operators say of overflow wins against the policy, but not against the argument.
    served.set(Operator, "o", "", r#"{"overflow":"drop-head"}"#);
    for (queue, left) in [("high", "234"), ("plain", "234")] {
        fill(&mut client, queue, 5);
        assert_eq!(drain(&mut client, queue), left, "{queue}");
    }
}

#[test]
fn q2_refused_publishes_are_told() {
    let served = Served::start();
    let mut client = Client::with_channel(served.address);
    client.declare(1, "q");
    client.call(1, &Method::ConfirmSelect { nowait: false }, "confirm.select-ok");
    served.set(User, "p", "", r#"{"max-length":1,"overflow":"reject-publish"}"#);
    client.publish(1, "q", b"0");
    client.receiver.method("basic.ack");
    client.publish(1, "q", b"1");
    client.receiver.method("basic.nack");
    served.clear(User, "p");
    client.publish(1, "q", b"2");
    client.receiver.method("basic.ack");
    assert_eq!(drain(&mut client, "q"), "02");
}

#[test]
fn q1_dead_letters_go_where_the_policy_says() {
    let served = Served::start();
    let mut client = Client::with_channel(served.address);
    client.declare(1, "work");
    client.declare(1, "dead");
    let reject = |client: &mut Client| {
        client.publish(1, "work", b"0");
        ready(client, "work");
        client.call(1, &Method::BasicGet { ticket: 0, queue: b"work", no_ack: false }, "basic.get-ok");
        client.receiver.body();
        client.send(1, &Method::BasicNack { delivery_tag: 0, multiple: true, requeue: false });
    };
    served.set(User, "dlx", "^work$", r#"{"dead-letter-exchange":"","dead-letter-routing-key":"dead"}"#);
    reject(&mut client);
    eventually(&Some(b"0".to_vec()), || client.get(1, "dead"));

    // What comes while there is a time to live dies of it.
    let definition = r#"{"dead-letter-exchange":"","dead-letter-routing-key":"dead","message-ttl":30}"#;
    served.set(User, "dlx", "^work$", definition);
    client.publish(1, "work", b"1");
    eventually(&Some(b"1".to_vec()), || client.get(1, "dead"));

    served.clear(User, "dlx");
    reject(&mut client);
    assert_eq!(ready(&mut client, "work"), 0);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(client.get(1, "dead"), None);
}

#[test]
fn q1_queues_that_nobody_uses_expire() {
    let served = Served::start();
    let mut client = Client::with_channel(served.address);
    client.declare(1, "temporary");
    client.declare(1, "other");
    served.set(Operator, "expire", "^temp", r#"{"expires":100}"#);
    eventually(&false, || served.broker.policies_of_queue("/", "temporary").is_ok());
    assert_eq!(ready(&mut client, "other"), 0);
}

#[test]
fn m34_a_policy_gives_an_alternate_exchange() {
    let served = Served::start();
    let mut client = Client::with_channel(served.address);
    let publish = |client: &mut Client, exchange: &str, body: &[u8]| {
        client.publish_with(1, exchange, "k", &OwnedProperties::default(), body);
    };
    declare_exchange(&mut client, "e");
    declare_exchange(&mut client, "unroutable");
    client.declare(1, "lost");
    client.bind(1, "lost", "unroutable", "");
    publish(&mut client, "e", b"0");
    assert_eq!(ready(&mut client, "lost"), 0);
    served.set(User, "ae", "^(e|amq.direct|late|)$", r#"{"alternate-exchange":"unroutable"}"#);
    publish(&mut client, "e", b"1");
    publish(&mut client, "amq.direct", b"2");
    publish(&mut client, "", b"not from the default exchange");
    declare_exchange(&mut client, "late");
    publish(&mut client, "late", b"3");
    assert_eq!(ready(&mut client, "lost"), 3);
    assert_eq!(drain(&mut client, "lost"), "123");
    let of_exchange = |name| served.broker.policies_of_exchange("/", name).expect("it is there");
    assert_eq!(of_exchange("late"), effective(Some("ae"), None, r#"{"alternate-exchange":"unroutable"}"#));
    assert_eq!(of_exchange("unroutable"), EffectivePolicies::default());
    served.clear(User, "ae");
    publish(&mut client, "e", b"4");
    publish(&mut client, "late", b"5");
    assert_eq!(ready(&mut client, "lost"), 0);
}

#[test]
fn q1_policies_hold_after_a_power_cut() {
    let served = Served::start();
    let mut client = Client::with_channel(served.address);
    client.declare(1, "q");
    client.declare(1, "lost");
    declare_exchange(&mut client, "e");
    declare_exchange(&mut client, "unroutable");
    client.bind(1, "lost", "unroutable", "");
    served.set(User, "gone", "", r#"{"max-length":1}"#);
    served.clear(User, "gone");
    served.set(User, "p", "^q$", r#"{"max-length":3}"#);
    served.set(User, "ae", "^(e|amq.fanout)$", r#"{"alternate-exchange":"unroutable"}"#);
    served.set(Operator, "o", "q", r#"{"max-length":2,"overflow":"reject-publish"}"#);
    let before = served.of_queue("q");
    let definition = r#"{"max-length":2,"overflow":"reject-publish"}"#;
    assert_eq!(before, effective(Some("p"), Some("o"), definition));

    let served = served.after_power_cut();
    assert_eq!(served.of_queue("q"), before);
    let mut client = Client::with_channel(served.address);
    assert_eq!(fill(&mut client, "q", 5), 2);
    assert_eq!(drain(&mut client, "q"), "01");
    client.publish_with(1, "e", "k", &OwnedProperties::default(), b"0");
    client.publish_with(1, "amq.fanout", "k", &OwnedProperties::default(), b"1");
    assert_eq!(ready(&mut client, "lost"), 2);
    served.clear(Operator, "o");
    assert_eq!(fill(&mut client, "q", 5), 3);
}

/// The key of an event with its headers, without who and when.
fn event(message: &Message) -> (String, Vec<(String, FieldValue)>) {
    let headers = message.properties.headers.clone().expect("an event has headers").0;
    let headers = headers.into_iter().map(|(name, value)| (name.to_string(), value));
    let headers =
        headers.filter(|(name, _)| !matches!(&**name, "timestamp_in_ms" | "user_who_performed_action"));
    (String::from_utf8_lossy(&message.routing_key).into_owned(), headers.collect())
}

#[test]
fn e6_changed_queues_are_told_of() {
    let served = Served::start();
    served.done(served.broker.set_permissions("guest", "events", all()).expect("it is right"));
    let mut listener = Client::with_channel_in(served.address, "events");
    listener.declare(1, "heard");
    listener.bind(1, "heard", "amq.rabbitmq.event", "queue.policy.*");
    listener.consume(1, "heard", true);
    let mut client = Client::with_channel(served.address);
    client.declare(1, "q");
    client.declare(1, "other");
    served.set(User, "p", "^q", r#"{"max-length":3}"#);
    // Nothing changes, so nobody is told.
    served.set(User, "p", "^q", r#"{"max-length":3}"#);
    served.clear(User, "p");

    let text = FieldValue::string;
    let field = |name: &str, value| (name.to_owned(), value);
    let queue = [
        field("type", text("rabbit_classic_queue")),
        field("vhost", text("/")),
        field("name", text("q")),
        field("vhost", text("/")),
    ];
    let mut definition = FieldTable::new();
    definition.insert("max-length", FieldValue::I64(3));
    let policy = [
        field("apply-to", text("all")),
        field("priority", FieldValue::I64(0)),
        field("definition", FieldValue::Table(definition)),
        field("pattern", text("^q")),
    ];
    let updated = ("queue.policy.updated".to_owned(), [&policy[..], &queue].concat());
    assert_eq!(event(&listener.receiver.message()), updated);
    assert_eq!(event(&listener.receiver.message()), ("queue.policy.cleared".to_owned(), queue.to_vec()));
}

#[test]
fn q1_many_queues_are_changed_a_page_at_a_time() {
    const QUEUES: usize = 2500;
    let served = Served::start();
    let mut client = Client::with_channel(served.address);
    let name = |number: usize| format!("q{number}");
    let mut bytes = Vec::new();
    for number in 0..QUEUES {
        let name = name(number);
        let Method::QueueDeclare {
            ticket, queue, passive, durable, exclusive, auto_delete, arguments, ..
        } = client::declare(&name, false)
        else {
            unreachable!()
        };
        let nowait = true;
        let declare = Method::QueueDeclare {
            ticket,
            queue,
            passive,
            durable,
            exclusive,
            auto_delete,
            nowait,
            arguments,
        };
        client::put_method(&mut bytes, 1, &declare);
    }
    client.write(&bytes);
    ready(&mut client, &name(QUEUES - 1));

    let policy = |length: u32| Policy {
        name: "p".to_owned(),
        pattern: "^q".to_owned(),
        apply_to: ApplyTo::Queues,
        priority: 0,
        definition: format!(r#"{{"max-length":{length}}}"#),
    };
    // Changes that come while one before them is still under way.
    let mut recorded = Vec::new();
    for length in [1, 2] {
        recorded.push(served.broker.set_policy("/", User, policy(length)));
        recorded.push(served.broker.clear_policy("/", User, "p"));
        recorded.push(served.broker.set_policy("/", Operator, policy(9 + length)));
    }
    recorded.push(served.broker.set_policy("/", User, policy(3)));
    for recorded in recorded {
        served.done(recorded.expect("it is valid"));
    }
    let expected = effective(Some("p"), Some("p"), r#"{"max-length":3}"#);
    for number in 0..QUEUES {
        assert_eq!(served.of_queue(&name(number)), expected, "{number}");
    }
    for number in (0..QUEUES).step_by(250) {
        assert_eq!(fill(&mut client, &name(number), 5), 3);
    }
    // The virtual host may go under its feet.
    let recorded = served.broker.set_policy("/", User, policy(4)).expect("it is valid");
    let deleted = served.broker.delete_vhost("/").expect("it is there");
    served.done(recorded);
    served.done(deleted);
}
