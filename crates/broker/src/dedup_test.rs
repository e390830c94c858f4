//! Duplicates and power cuts (features.md E8): no key is on disk without its message, and no confirmed message without
//! its key.
//!
//! `WARREN_SEEDS=first..last` runs other seeds than those of every test run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use warren_amqp091_codec::{Dialect, OwnedProperties, Properties};
use warren_store::{Disk, Options, Recovered, Store};
use warren_testkit::SimDisk;
use warren_types::session::{
    Bind, BindTarget, Event, ExchangeDeclare, Outcome, QueueDeclare, Reply, RouteRequest, Session, Tracking,
};
use warren_types::{AmqpError, ChannelId, FieldTable, FieldValue, Message, MessageParts, ShortString};

use crate::durability_test::{all, peer};
use crate::metadata::Row;
use crate::{Broker, BrokerSession, Settings};

const CHANNEL: ChannelId = ChannelId { number: 1, incarnation: 0 };

/// How often everybody may act before it is taken that nobody wants to any more.
const ROUNDS: usize = 60;

const PATIENCE: Duration = Duration::from_secs(20);

/// How long nothing comes from an exchange that has handed on all that it had.
const PAUSE: Duration = Duration::from_millis(50);

/// Who writes what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    /// The test, so that it can tell what is durable. Nothing is read.
    ByHand,
    /// Threads, as in a broker that runs.
    Threads,
}

fn arguments(of: &[(&str, FieldValue)]) -> FieldTable {
    let mut table = FieldTable::new();
    of.iter().for_each(|(name, value)| table.insert(name, value.clone()));
    table
}

fn on(size: i32) -> FieldTable {
    arguments(&[
        ("x-message-deduplication", FieldValue::Bool(true)),
        ("x-cache-size", FieldValue::I32(size)),
        ("x-deduplication-header", FieldValue::string("id")),
    ])
}

fn open(disk: &SimDisk, writes: Writes) -> (Arc<Store>, Recovered) {
    let options = Options { by_hand: writes == Writes::ByHand, ..Options::default() };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    // Failures are what these tests are about: nothing is durable any more.
    Store::open(disk, options, Box::new(|_| ()), &|_, _| {}).expect("what is on the disk is whole")
}

/// The keys that a disk has, by their queues.
fn stored_keys(disk: &SimDisk) -> BTreeMap<u64, usize> {
    let mut keys = BTreeMap::new();
    for (key, value) in open(&disk.kill(), Writes::ByHand).1.metadata {
        if let Ok(Row::DedupKey { queue, .. }) = Row::decode(&key, &value) {
            *keys.entry(queue.0).or_default() += 1;
        }
    }
    keys
}

/// A broker on a disk, a connection, and what it was told.
struct Life {
    _broker: Arc<Broker>,
    store: Arc<Store>,
    session: BrokerSession,
    confirmed: BTreeSet<u64>,
    replies: Vec<Result<Reply, AmqpError>>,
}

impl Life {
    fn begin(disk: &SimDisk, writes: Writes) -> Self {
        let settings = Settings {
            shards: 2,
            memory_limit: 1 << 40,
            disk_free_limit: 0,
            default_queue_type: None,
            consumer_timeout: None,
            default_vhost: "/".to_owned(),
            default_user: "guest".to_owned(),
            default_password: "guest".to_owned(),
            default_permissions: all(),
            loopback_users: Vec::new(),
            anonymous_user: None,
            node: "rabbit@here".to_owned(),
            event_exchange: None,
            log_exchange: false,
        };
        let (store, recovered) = open(disk, writes);
        let broker =
            Broker::start(settings, Arc::clone(&store), recovered).expect("what is stored makes sense");
        let mut session = broker.session(peer());
        session.login(b"guest", b"guest").expect("the user is there");
        session.open(b"/").expect("the virtual host is there");
        Self { _broker: broker, store, session, confirmed: BTreeSet::new(), replies: Vec::new() }
    }

    /// Lets everybody act who wants to, and, if `writes`, the disk.
    async fn settle(&mut self, writes: bool) {
        self.session.flush();
        for _ in 0..ROUNDS {
            tokio::task::yield_now().await;
            if writes {
                self.store.write();
            }
            self.take_events();
        }
    }

    /// Waits for events until there are those that `are_all` looks for.
    async fn wait_until(&mut self, are_all: impl Fn(&Self) -> bool) {
        self.session.flush();
        self.take_events();
        let end = Instant::now() + PATIENCE;
        while !are_all(self) {
            assert!(Instant::now() < end, "there is an event in time");
            self.store.write();
            // Either way it is looked again, and written what has come meanwhile.
            let _elapsed = tokio::time::timeout(Duration::from_millis(5), self.session.wait()).await;
            self.take_events();
        }
    }

    fn take_events(&mut self) {
        let mut events = Vec::new();
        self.session.take_events(&mut events);
        for event in events {
            match event {
                Event::Settled { first, last, accepted: true, .. } => self.confirmed.extend(first..=last),
                Event::Reply(_, reply) => self.replies.push(reply),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn queue(&mut self, name: &'static str, arguments: FieldTable) -> Result<(), AmqpError> {
        let (passive, durable, exclusive, auto_delete) = (false, true, false, false);
        let name = ShortString::from(name);
        let declare = QueueDeclare { name, passive, durable, exclusive, auto_delete, arguments };
        let outcome = self.session.queue_declare(CHANNEL, declare)?;
        self.answer(outcome).await.map(drop)
    }

    async fn answer<T>(&mut self, outcome: Outcome<T>) -> Result<(), AmqpError> {
        match outcome {
            Outcome::Done(_) => return Ok(()),
            Outcome::Pending => self.wait_until(|life| !life.replies.is_empty()).await,
        }
        self.replies.pop().expect("there is an answer").map(drop)
    }

    async fn exchange(
        &mut self,
        name: &'static str,
        kind: &'static str,
        arguments: FieldTable,
    ) -> Result<(), AmqpError> {
        let (passive, durable, auto_delete, internal) = (false, true, false, false);
        let (name, kind) = (ShortString::from(name), ShortString::from(kind));
        let declare = ExchangeDeclare { name, kind, passive, durable, auto_delete, internal, arguments };
        self.session.exchange_declare(declare)
    }

    fn bind(&mut self, source: &'static str, queue: &'static str) {
        let arguments = FieldTable::new();
        let (source, destination, routing_key) = (source.into(), queue.into(), "".into());
        let bind = Bind { source, target: BindTarget::Queue, destination, routing_key, arguments };
        self.session.bind(bind).expect("both are there");
    }

    /// Publishes a persistent message with a key, which is also its body.
    fn publish(&mut self, exchange: &str, key: u64, tracking: Tracking) {
        let routing_key: &[u8] = if exchange.is_empty() { b"q" } else { b"" };
        let headers = Some(arguments(&[("id", FieldValue::I64(key as i64))]));
        let mut encoded = Vec::new();
        OwnedProperties { headers, ..OwnedProperties::default() }.encode(Dialect::Amqp091, &mut encoded);
        let properties = Properties::parse(&encoded).expect("they were just written");
        let exchange = exchange.as_bytes();
        let (user_id, expiration) = (None, None);
        let content = &properties;
        let request = RouteRequest { exchange, routing_key, extra_keys: &[], content, user_id, expiration };
        let (route, _) = self.session.route(&request).expect("the exchange is there");
        let parts = MessageParts {
            exchange,
            routing_key,
            properties: &encoded,
            persistent: true,
            ..MessageParts::default()
        };
        let message = Message::new(&parts, key.to_string().as_bytes());
        self.session.submit(CHANNEL, &route, message, tracking);
        self.session.flush();
    }

    /// The keys of the messages in the queue, which are then gone.
    async fn drain(&mut self) -> Vec<u64> {
        let mut keys = Vec::new();
        while let Some(key) = self.get().await {
            keys.push(key);
        }
        keys
    }

    /// Drains until nothing comes any more and what was looked for is there, or the patience is over.
    async fn drain_on(&mut self, keys: &mut Vec<u64>, are_all: impl Fn(&[u64]) -> bool) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            tokio::time::sleep(PAUSE).await;
            let more = self.drain().await;
            if more.is_empty() && are_all(keys) {
                return;
            }
            keys.extend(more);
        }
    }

    async fn get(&mut self) -> Option<u64> {
        self.session.get(CHANNEL, b"q", true).expect("the queue is there");
        self.wait_until(|life| !life.replies.is_empty()).await;
        match self.replies.pop() {
            Some(Ok(Reply::Got(got))) => {
                got.map(|got| String::from_utf8_lossy(got.message.body()).parse().expect("a key"))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(future)
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(range) = std::env::var("WARREN_SEEDS") else { return 0..60 };
    let (first, last) = range.split_once("..").expect("WARREN_SEEDS=first..last");
    first.parse().expect("a number")..last.parse().expect("a number")
}

const LIVES: u64 = 3;
const KEYS_OF_A_LIFE: u64 = 24;

/// Publishes keys to a disk whose power fails on the way, and looks at what is left of them.
async fn cut(seed: u64, exchange: &'static str) {
    let mut disk = SimDisk::new(seed);
    {
        let mut life = Life::begin(&disk, Writes::ByHand);
        let (of_queue, of_exchange) =
            if exchange.is_empty() { (on(1000), FieldTable::new()) } else { (FieldTable::new(), on(1000)) };
        life.queue("q", of_queue).await.expect("it is new");
        life.exchange("e", "fanout", of_exchange).await.expect("it is new");
        life.bind("e", "q");
        life.settle(true).await;
    }
    for number in 0..LIVES {
        let keys = number * KEYS_OF_A_LIFE..(number + 1) * KEYS_OF_A_LIFE;
        let mut life = Life::begin(&disk, Writes::ByHand);
        disk.fail_after(3 + (seed * 7 + number * 11) % 60);
        for key in keys.clone() {
            life.publish(exchange, key, Tracking::Confirm(key));
            // Some come in one turn, some are only written together.
            if (key + seed).is_multiple_of(3) {
                life.settle(!(key + seed).is_multiple_of(2)).await;
            }
        }
        life.settle(true).await;
        let confirmed = std::mem::take(&mut life.confirmed);
        drop(life);
        disk = disk.power_cut(seed + number);

        let mut life = Life::begin(&disk, Writes::Threads);
        let mut left = life.drain().await;
        if !exchange.is_empty() {
            life.drain_on(&mut left, |left| confirmed.iter().all(|key| left.contains(key))).await;
        }
        for key in keys.clone() {
            life.publish(exchange, key, Tracking::Confirm(key));
        }
        // Duplicates are confirmed as well.
        life.wait_until(|life| life.confirmed.len() as u64 == KEYS_OF_A_LIFE).await;
        let mut again = life.drain().await;
        if !exchange.is_empty() {
            let is_there = |again: &[u64], key| left.contains(&key) || again.contains(&key);
            life.drain_on(&mut again, |again| keys.clone().all(|key| is_there(again, key))).await;
        }
        for key in keys {
            let count = |found: &[u64]| found.iter().filter(|found| **found == key).count();
            let (left, again) = (count(&left), count(&again));
            let seen = format!("seed {seed}: message {key} is there {left} times, and then {again} times");
            if confirmed.contains(&key) {
                assert!(left >= 1 && again == 0, "{seen}, though it was confirmed");
            } else {
                assert!(left + again >= 1, "{seen}");
            }
            // An exchange may hand on again what it has handed on when the power fails.
            assert!(!exchange.is_empty() || left <= 1, "{seen}");
            assert!(again <= 1, "{seen}");
        }
        drop(life);
        disk = disk.kill();
    }
}

#[test]
fn e8_a_power_cut_parts_no_key_of_a_queue_from_its_message() {
    seeds().for_each(|seed| block_on(cut(seed, "")));
}

#[test]
fn e8_a_power_cut_parts_no_key_of_an_exchange_from_its_message() {
    seeds().step_by(3).for_each(|seed| block_on(cut(seed, "e")));
}

#[test]
fn e8_a_duplicate_is_not_confirmed_before_the_first_message_is_durable() {
    block_on(async {
        let mut life = Life::begin(&SimDisk::new(1), Writes::ByHand);
        life.queue("q", on(10)).await.expect("it is new");
        life.publish("", 7, Tracking::None);
        life.settle(false).await;
        life.publish("", 7, Tracking::Confirm(1));
        life.settle(false).await;
        assert_eq!(life.confirmed, BTreeSet::new());
        life.settle(true).await;
        assert_eq!(life.confirmed, BTreeSet::from([1]));
        assert_eq!(life.drain().await, [7]);
    });
}

#[test]
fn e8_no_more_keys_are_stored_than_are_remembered() {
    let disk = SimDisk::new(1);
    block_on(async {
        let mut life = Life::begin(&disk, Writes::ByHand);
        life.queue("q", on(3)).await.expect("it is new");
        for key in 0..20 {
            life.publish("", key, Tracking::None);
            if key % 3 == 0 {
                life.settle(true).await;
            }
        }
        life.settle(true).await;
        assert_eq!(life.drain().await, (0..20).collect::<Vec<_>>());
    });
    assert_eq!(stored_keys(&disk).into_values().collect::<Vec<_>>(), [3]);
    block_on(async {
        let mut life = Life::begin(&disk, Writes::ByHand);
        for key in [19, 18, 17, 16] {
            life.publish("", key, Tracking::None);
        }
        life.settle(true).await;
        assert_eq!(life.drain().await, [16]);
        for key in [17, 18, 19] {
            life.publish("", key, Tracking::None);
        }
        life.settle(true).await;
        // The oldest has left for the new one, then the next for that.
        assert_eq!(life.drain().await, [17, 18, 19]);
    });
    assert_eq!(stored_keys(&disk).into_values().collect::<Vec<_>>(), [3]);
}

#[test]
fn e8_keys_go_with_their_queue() {
    let disk = SimDisk::new(1);
    block_on(async {
        let mut life = Life::begin(&disk, Writes::ByHand);
        life.queue("q", on(100)).await.expect("it is new");
        life.exchange("e", "fanout", on(100)).await.expect("it is new");
        life.bind("e", "q");
        for key in 0..5 {
            life.publish("", key, Tracking::None);
            life.publish("e", 10 + key, Tracking::None);
        }
        life.settle(true).await;
        assert_eq!(stored_keys(&disk).into_values().collect::<BTreeSet<_>>(), BTreeSet::from([5, 10]));
        life.session.exchange_delete(b"e", false).expect("it is there");
        life.settle(true).await;
        assert_eq!(stored_keys(&disk).into_values().collect::<Vec<_>>(), [10]);
        let outcome = life.session.queue_delete(CHANNEL, b"q", false, false).expect("it is there");
        life.answer(outcome).await.expect("it is there");
    });
    assert_eq!(stored_keys(&disk), BTreeMap::new());
}

#[test]
fn e8_keys_of_queues_that_are_gone_are_removed_at_the_start() {
    let disk = SimDisk::new(1);
    block_on(async {
        let mut life = Life::begin(&disk, Writes::ByHand);
        life.settle(true).await;
        let key = warren_queue::StoredKey { hash: 1, number: 2, expires_at: u64::MAX };
        let row = Row::DedupKey { queue: warren_types::QueueId(77), key };
        let _at = life.store.journal().change(vec![row.put()]);
        life.settle(true).await;
    });
    assert_eq!(stored_keys(&disk), BTreeMap::from([(77, 1)]));
    block_on(async { Life::begin(&disk, Writes::ByHand).settle(true).await });
    assert_eq!(stored_keys(&disk), BTreeMap::new());
}

#[test]
fn e8_what_does_not_fit_is_refused() {
    block_on(async {
        let mut life = Life::begin(&SimDisk::new(1), Writes::ByHand);
        for (name, value, reason) in [
            ("x-message-deduplication", FieldValue::I32(1), "{unacceptable_type,signedint}"),
            ("x-cache-size", FieldValue::I32(0), "{value_zero,0}"),
            ("x-cache-size", FieldValue::I32(-1), "{value_negative,-1}"),
            ("x-cache-size", FieldValue::I32(1_000_001), "{max_value_exceeded,1000001}"),
            ("x-cache-size", FieldValue::string("9"), "\"expected integer, got longstr\""),
            ("x-cache-ttl", FieldValue::I32(-1), "{value_negative,-1}"),
            ("x-deduplication-header", FieldValue::I32(1), "{unacceptable_type,signedint}"),
            ("x-deduplication-header", FieldValue::string(""), "\"expected the name of a header\""),
        ] {
            let refused = life.queue("q", arguments(&[(name, value.clone())])).await.expect_err(reason);
            let expected = |of: &str| {
                format!("PRECONDITION_FAILED - invalid arg '{name}' for {of} in vhost '/': {reason}")
            };
            assert_eq!(refused.reply_text(), expected("queue 'q'"));
            let refused = life.exchange("e", "fanout", arguments(&[(name, value)])).await.expect_err(reason);
            assert_eq!(refused.reply_text(), expected("exchange 'e'"));
        }
        life.queue("q", on(3)).await.expect("it is new");
        let refused = life.queue("q", on(4)).await.expect_err("it differs");
        let expected = "PRECONDITION_FAILED - inequivalent arg 'x-cache-size' for queue 'q' in vhost '/': received '4' \
                        but current is '3'";
        assert_eq!(refused.reply_text(), expected);
        // What is refused has left nothing.
        life.exchange("e", "topic", FieldTable::new()).await.expect("it is new");
    });
}
