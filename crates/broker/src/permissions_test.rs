//! What needs which permission, and permissions that change under open connections.

use std::sync::Arc;

use warren_types::session::{ExchangeDeclare, QueueDeclare, RouteGeneration, RouteRequest, Session};
use warren_types::{AmqpError, ChannelId, FieldTable, FieldValue, ReplyCode};

use crate::durability_test::{all, first_start, peer};
use crate::{Broker, BrokerSession, Credentials, Permissions};

const CHANNEL: ChannelId = ChannelId { number: 1, incarnation: 0 };

fn only(configure: &str, write: &str, read: &str) -> Permissions {
    Permissions::new(configure, write, read).expect("they are regular")
}

/// A broker with the virtual hosts `/` and `a`, and a connection of the user `u` to `/`.
fn broker_and_session() -> (Arc<Broker>, BrokerSession) {
    let (_journal, broker) = first_start();
    let changes = [
        broker.create_vhost("a"),
        broker.put_user("u", Credentials::Password(b"secret"), Vec::new()),
        broker.set_permissions("u", "/", all()),
    ];
    assert!(changes.iter().all(Result::is_ok), "{changes:?}");
    let mut session = broker.session(peer());
    session.login(b"u", b"secret").expect("the user is there");
    session.open(b"/").expect("the user may enter");
    (broker, session)
}

fn publish(session: &mut BrokerSession) -> Result<Option<RouteGeneration>, AmqpError> {
    let request = RouteRequest {
        exchange: b"amq.direct",
        routing_key: b"k",
        extra_keys: &[],
        content: &FieldTable::new,
        user_id: None,
        expiration: None,
    };
    session.route(&request).map(|(_, generation)| generation)
}

fn exchange(name: &'static str) -> ExchangeDeclare {
    ExchangeDeclare {
        name: name.into(),
        kind: "direct".into(),
        passive: false,
        durable: false,
        auto_delete: false,
        internal: false,
        arguments: FieldTable::new(),
    }
}

fn queue(name: &'static str) -> QueueDeclare {
    QueueDeclare {
        name: name.into(),
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        arguments: FieldTable::new(),
    }
}

/// What of `configure write read` is allowed.
fn allowed(session: &mut BrokerSession) -> String {
    let outcomes = [
        ("configure", session.exchange_declare(exchange("e"))),
        ("write", publish(session).map(drop)),
        ("read", session.get(CHANNEL, b"q", true)),
    ];
    let name_if_allowed = |(name, outcome): (&'static str, Result<(), AmqpError>)| match outcome {
        Ok(()) => Some(name),
        Err(error) => {
            assert_eq!(error.code, ReplyCode::ACCESS_REFUSED, "{error}");
            None
        }
    };
    outcomes.into_iter().filter_map(name_if_allowed).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a4_permissions_apply_to_open_connections() {
    let (broker, mut session) = broker_and_session();
    session.queue_declare(CHANNEL, queue("q")).expect("it is new");
    assert_eq!(allowed(&mut session), "configure write read");
    let mut set = |permissions: Option<Permissions>| {
        let changed = match permissions {
            Some(permissions) => broker.set_permissions("u", "/", permissions),
            None => broker.clear_permissions("u", "/"),
        };
        let _stored_in_memory = changed.expect("the user and the virtual host are there");
        allowed(&mut session)
    };
    assert_eq!(set(Some(only("", ".*", ".*"))), "write read");
    assert_eq!(set(Some(only(".*", "", ".*"))), "configure read");
    assert_eq!(set(Some(only(".*", ".*", ""))), "configure write");
    assert_eq!(set(None), "");
    assert_eq!(set(None), "");
    assert_eq!(set(Some(all())), "configure write read");
}

#[tokio::test]
async fn a4_known_routes_are_forgotten_with_permissions() {
    let (broker, mut session) = broker_and_session();
    let generation = publish(&mut session).expect("it is allowed").expect("the route may be kept");
    assert!(session.is_current(generation));
    let elsewhere = broker.set_permissions("u", "a", all());
    assert!(
        elsewhere.is_ok() && session.is_current(generation),
        "another virtual host is none of its business"
    );
    let here = broker.set_permissions("u", "/", only(".*", "", ".*"));
    assert!(here.is_ok() && !session.is_current(generation));
    let refused = publish(&mut session).expect_err("it is not allowed any more");
    assert_eq!(
        refused.explanation,
        "write access to exchange 'amq.direct' in vhost '/' refused for user 'u'"
    );
}

#[tokio::test]
async fn a2_passive_declares_need_any_permission() {
    let (broker, mut session) = broker_and_session();
    for name in ["configure", "write", "read", "none"] {
        session.exchange_declare(exchange(name)).expect("it is new");
        session.queue_declare(CHANNEL, queue(name)).expect("it is new");
    }
    let changed = broker.set_permissions("u", "/", only("^configure$", "^write$", "^read$"));
    assert!(changed.is_ok());
    let mut declare = |name: &'static str| {
        let queue = session.queue_declare(CHANNEL, QueueDeclare { passive: true, ..queue(name) }).map(drop);
        let exchange = session.exchange_declare(ExchangeDeclare { passive: true, ..exchange(name) });
        [queue, exchange].map(|outcome| outcome.map_err(|error| error.explanation))
    };
    for name in ["configure", "write", "read"] {
        assert_eq!(declare(name), [Ok(()), Ok(())], "{name}");
    }
    // What is not there is not told to those who may not know.
    for name in ["none", "missing"] {
        let refusal =
            |kind| Err(format!("configure access to {kind} '{name}' in vhost '/' refused for user 'u'"));
        assert_eq!(declare(name), [refusal("queue"), refusal("exchange")]);
    }
}

#[tokio::test]
async fn a2_an_alternate_exchange_is_checked_only_for_new_exchanges() {
    let (broker, mut session) = broker_and_session();
    let with_alternate = |name: &'static str| {
        let arguments = [("alternate-exchange".into(), FieldValue::string("other"))];
        ExchangeDeclare { arguments: FieldTable(arguments.into()), ..exchange(name) }
    };
    session.exchange_declare(with_alternate("old")).expect("it is new");
    let changed = broker.set_permissions("u", "/", only(".*", "^$", ".*"));
    assert!(changed.is_ok());
    session.exchange_declare(with_alternate("old")).expect("it is there as it is asked for");
    let refused =
        session.exchange_declare(with_alternate("new")).expect_err("the other may not be written to");
    assert_eq!(refused.explanation, "write access to exchange 'other' in vhost '/' refused for user 'u'");
    let reserved = session.exchange_declare(with_alternate("amq.new")).expect_err("the name is reserved");
    assert_eq!(reserved.explanation, "exchange name 'amq.new' contains reserved prefix 'amq.*'");
}
