//! Exchanges beyond the specification's four, as a connection sees them: features.md E1 to E5.

use std::sync::Arc;
use std::time::Duration;

use warren_amqp091_codec::{Dialect, OwnedProperties, Properties};
use warren_store::{Options, Store};
use warren_testkit::{MemoryJournal, SimDisk};
use warren_types::session::{
    Bind, BindTarget, Event, ExchangeDeclare, QueueDeclare, Reply, Route, RouteRequest, Session, Tracking,
};
use warren_types::{AmqpError, ChannelId, FieldTable, FieldValue, Message, MessageParts, ShortString};

use crate::durability_test::peer;
use crate::{Broker, BrokerSession, Permissions, Settings};

const PATIENCE: Duration = Duration::from_secs(20);
const CHANNEL: ChannelId = ChannelId { number: 1, incarnation: 0 };

fn start(stored: Vec<(Vec<u8>, Vec<u8>)>) -> (Arc<MemoryJournal>, Arc<Broker>) {
    let journal = Arc::new(MemoryJournal::durable());
    let settings = Settings {
        shards: 2,
        memory_limit: 1 << 40,
        disk_free_limit: 0,
        default_vhost: "/".to_owned(),
        default_user: "guest".to_owned(),
        default_password: "guest".to_owned(),
        default_permissions: Permissions::new(".*", ".*", ".*").expect("they are regular"),
        loopback_users: Vec::new(),
        anonymous_user: None,
        default_queue_type: None,
        consumer_timeout: None,
        node: "rabbit@here".to_owned(),
        event_exchange: None,
        log_exchange: false,
    };
    let options = Options { by_hand: true, ..Options::default() };
    let on_failure = Box::new(|failure: &str| panic!("{failure}"));
    let opened = Store::open(Arc::new(SimDisk::new(1)), options, on_failure, &|_, _| {});
    let (store, mut recovered) = opened.expect("the disk is empty");
    recovered.metadata = stored.into_iter().collect();
    let broker = Broker::start_with_journal(settings, Arc::clone(&journal) as _, store, recovered);
    (journal, broker.expect("what is stored makes sense"))
}

/// A connection on channel 1.
struct Client(BrokerSession);

impl Client {
    fn open(broker: &Arc<Broker>) -> Self {
        let mut session = broker.session(peer());
        session.login(b"guest", b"guest").expect("the user is there");
        session.open(b"/").expect("the virtual host is there");
        Self(session)
    }

    fn exchange(&mut self, name: &'static str, kind: &'static str) {
        self.declare(name, kind, FieldTable::new()).expect("it is new");
    }

    fn declare(
        &mut self,
        name: &'static str,
        kind: &'static str,
        arguments: FieldTable,
    ) -> Result<(), AmqpError> {
        let (name, kind) = (ShortString::from(name), ShortString::from(kind));
        let (passive, durable, auto_delete, internal) = (false, true, false, false);
        let declare = ExchangeDeclare { name, kind, passive, durable, auto_delete, internal, arguments };
        self.0.exchange_declare(declare)
    }

    fn queue(&mut self, name: &'static str) {
        let (name, arguments) = (ShortString::from(name), FieldTable::new());
        let declare = QueueDeclare {
            name,
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments,
        };
        self.0.queue_declare(CHANNEL, declare).expect("it is new");
    }

    fn bind(
        &mut self,
        source: &'static str,
        queue: &'static str,
        key: &'static str,
    ) -> Result<(), AmqpError> {
        let arguments = FieldTable::new();
        let (source, destination, routing_key) = (source.into(), queue.into(), key.into());
        self.0.bind(Bind { source, target: BindTarget::Queue, destination, routing_key, arguments })
    }

    fn bind_exchange(&mut self, source: &'static str, destination: &'static str, key: &'static str) {
        let arguments = FieldTable::new();
        let (source, destination, routing_key) = (source.into(), destination.into(), key.into());
        let bind = Bind { source, target: BindTarget::Exchange, destination, routing_key, arguments };
        self.0.bind(bind).expect("both are there");
    }

    /// Publishes a message whose body is its routing key.
    fn publish(&mut self, exchange: &str, key: &str, headers: &[(&str, FieldValue)]) -> Route {
        let mut table = FieldTable::new();
        headers.iter().for_each(|(name, value)| table.insert(name, value.clone()));
        let mut encoded = Vec::new();
        OwnedProperties { headers: Some(table), ..OwnedProperties::default() }
            .encode(Dialect::Amqp091, &mut encoded);
        let properties = Properties::parse(&encoded).expect("they were just written");
        let request = RouteRequest {
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
            extra_keys: &[],
            content: &properties,
            user_id: None,
            expiration: None,
        };
        let (route, generation) = self.0.route(&request).expect("the exchange is there");
        assert!(
            generation.is_none() || !matches!(route, Route::Recorded(_)),
            "each message is to be recorded"
        );
        let parts = MessageParts {
            exchange: exchange.as_bytes(),
            routing_key: key.as_bytes(),
            properties: &encoded,
            ..MessageParts::default()
        };
        self.0.submit(CHANNEL, &route, Message::new(&parts, key.as_bytes()), Tracking::None);
        self.0.flush();
        route
    }

    /// The bodies of all messages of a queue.
    async fn drain(&mut self, queue: &str) -> Vec<String> {
        let mut bodies = Vec::new();
        loop {
            self.0.get(CHANNEL, queue.as_bytes(), true).expect("the queue is there");
            match self.reply().await {
                Ok(Reply::Got(Some(got))) => {
                    bodies.push(String::from_utf8_lossy(got.message.body()).into_owned())
                }
                Ok(Reply::Got(None)) => return bodies,
                other => panic!("{other:?}"),
            }
        }
    }

    async fn reply(&mut self) -> Result<Reply, AmqpError> {
        self.0.flush();
        let mut events = Vec::new();
        loop {
            self.0.take_events(&mut events);
            for event in events.drain(..) {
                if let Event::Reply(_, reply) = event {
                    return reply;
                }
            }
            tokio::time::timeout(PATIENCE, self.0.wait()).await.expect("there is an event in time");
        }
    }
}

fn length(value: i32) -> FieldTable {
    FieldTable(vec![("x-recent-history-length".into(), FieldValue::I32(value))])
}

#[tokio::test]
async fn e4_a_new_binding_first_receives_the_last_messages() {
    let (_, broker) = start(Vec::new());
    let mut client = Client::open(&broker);
    client.declare("e", "x-recent-history", length(3)).expect("it is new");
    for key in ["1", "2", "3", "4"] {
        assert!(client.publish("e", key, &[]).is_empty());
    }
    client.publish("e", "secret", &[("x-recent-history-no-store", FieldValue::Bool(true))]);
    client.queue("q");
    client.bind("e", "q", "").expect("both are there");
    assert_eq!(client.drain("q").await, ["2", "3", "4"]);
    // The same binding again is not a new one; another one of the same queue is.
    client.bind("e", "q", "").expect("both are there");
    assert_eq!(client.drain("q").await, [""; 0]);
    assert_eq!(client.publish("e", "5", &[]).len(), 1);
    client.publish("e", "hidden", &[("x-recent-history-no-store", FieldValue::Bool(true))]);
    assert_eq!(client.drain("q").await, ["5", "hidden"]);
    client.bind("e", "q", "other").expect("both are there");
    assert_eq!(client.drain("q").await, ["3", "4", "5"]);
}

#[tokio::test]
async fn e4_a_bound_exchange_routes_the_last_messages_on() {
    let (_, broker) = start(Vec::new());
    let mut client = Client::open(&broker);
    client.exchange("e", "x-recent-history");
    client.exchange("next", "x-recent-history");
    client.exchange("d", "direct");
    for key in ["a", "b", "a"] {
        client.publish("e", key, &[]);
    }
    let copies = FieldValue::Array(vec![FieldValue::string("b")]);
    client.publish("e", "c", &[("CC", copies)]);
    client.queue("q");
    client.bind("d", "q", "b").expect("both are there");
    client.bind_exchange("e", "d", "");
    assert_eq!(client.drain("q").await, ["b", "c"]);
    // The next exchange with a history has them from now on.
    client.bind_exchange("e", "next", "");
    client.queue("late");
    client.bind("next", "late", "").expect("both are there");
    assert_eq!(client.drain("late").await, ["a", "b", "a", "c"]);
}

#[tokio::test]
async fn e4_the_history_goes_with_its_exchange_and_with_a_stop() {
    let (journal, broker) = start(Vec::new());
    let mut client = Client::open(&broker);
    client.exchange("e", "x-recent-history");
    client.publish("e", "1", &[]);
    client.0.exchange_delete(b"e", false).expect("it is there");
    client.exchange("e", "x-recent-history");
    client.queue("q");
    client.bind("e", "q", "").expect("both are there");
    assert_eq!(client.drain("q").await, [""; 0]);
    client.publish("e", "2", &[]);
    let (_, broker) = start(journal.table(usize::MAX));
    let mut client = Client::open(&broker);
    client.queue("late");
    client.bind("e", "late", "").expect("both are there");
    assert_eq!(client.drain("late").await, [""; 0]);
}

#[tokio::test]
async fn e1_keys_stay_with_their_queues_across_restarts() {
    let (journal, broker) = start(Vec::new());
    let mut client = Client::open(&broker);
    let header = FieldTable(vec![("hash-header".into(), FieldValue::string("user"))]);
    client.exchange("k", "x-consistent-hash");
    client.declare("h", "x-consistent-hash", header).expect("it is new");
    client.exchange("m", "x-modulus-hash");
    for queue in ["q3", "q1", "q2"] {
        client.queue(queue);
        for exchange in ["k", "h", "m"] {
            client.bind(exchange, queue, "7").expect("both are there");
        }
    }
    client.bind("k", "q1", "3").expect("both are there");
    let names = |broker: &Arc<Broker>, client: &mut Client| -> Vec<String> {
        let vhost = Arc::clone(&broker.directory().vhosts["/"]);
        let mut names = Vec::new();
        for number in 0..60 {
            let key = number.to_string();
            for exchange in ["k", "h", "m"] {
                let Route::Queues(queues) =
                    client.publish(exchange, &key, &[("user", FieldValue::string(&key))])
                else {
                    panic!("nothing is recorded here");
                };
                let [queue] = queues[..] else { panic!("{queues:?}") };
                let tables = vhost.read();
                let entry = tables.queues.iter().find(|(_, entry)| entry.queue == queue);
                names.push(entry.expect("it is there").0.to_string());
            }
        }
        names
    };
    let before = names(&broker, &mut client);
    let (_, broker) = start(journal.table(usize::MAX));
    let mut client = Client::open(&broker);
    assert_eq!(names(&broker, &mut client), before);
}

#[tokio::test]
async fn e1_e3_e4_refusals_read_as_in_rabbitmq() {
    let (_, broker) = start(Vec::new());
    let mut client = Client::open(&broker);
    let text = |result: Result<(), AmqpError>| {
        let error = result.expect_err("it is refused");
        assert_eq!(error.code.0, 406);
        error.explanation
    };
    let table = |entries: &[(&'static str, &str)]| {
        FieldTable(entries.iter().map(|(name, value)| ((*name).into(), FieldValue::string(value))).collect())
    };
    let property = table(&[("hash-property", "app_id")]);
    assert_eq!(text(client.declare("e", "x-consistent-hash", property)), "Unsupported property: app_id");
    let both = table(&[("hash-property", "message_id"), ("hash-header", "h")]);
    assert_eq!(
        text(client.declare("e", "x-consistent-hash", both)),
        "hash-header and hash-property are mutually exclusive"
    );
    assert_eq!(
        text(client.declare("e", "x-recent-history", length(0))),
        "Invalid argument 0, 'x-recent-history-length' must be a positive integer"
    );
    assert_eq!(
        text(client.declare("e", "x-surprise", FieldTable::new())),
        "unknown exchange type 'x-surprise'"
    );
    client.exchange("e", "x-consistent-hash");
    client.exchange("l", "x-local-random");
    client.queue("q");
    assert_eq!(text(client.bind("e", "q", "0")), "The binding key must be greater than 0");
    assert_eq!(text(client.bind("e", "q", "x")), "The binding key must be an integer: <<\"x\">>");
    assert_eq!(text(client.bind("l", "q", "x")), "Non empty binding 'x' key not permitted");
    // What exists is compared, not checked: arguments of the kind do not count.
    client
        .declare("e", "x-consistent-hash", table(&[("hash-property", "app_id")]))
        .expect("it is equivalent");
    assert_eq!(
        text(client.declare("e", "x-modulus-hash", FieldTable::new())),
        "inequivalent arg 'type' for exchange 'e' in vhost '/': received 'x-modulus-hash' but current is \
         'x-consistent-hash'"
    );
}

#[tokio::test]
async fn e4_a_message_that_nobody_gets_is_recorded() {
    let (_, broker) = start(Vec::new());
    let mut client = Client::open(&broker);
    client.exchange("e", "x-recent-history");
    client.exchange("f", "fanout");
    client.bind_exchange("f", "e", "");
    let route = client.publish("f", "1", &[]);
    assert!(
        route.is_empty() && !route.leads_nowhere(),
        "it is returned if mandatory, and recorded all the same"
    );
    client.queue("q");
    client.bind("e", "q", "").expect("both are there");
    assert_eq!(client.drain("q").await, ["1"]);
}
