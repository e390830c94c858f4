//! What was recorded is what there is, whenever the broker stops.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use warren_router::Destination;
use warren_store::{Change, Lsn, Options, Store};
use warren_testkit::{MemoryJournal, SimDisk};
use warren_types::session::{
    Bind, BindTarget, Event, ExchangeDeclare, Outcome, Peer, QueueDeclare, Reply, Session,
};
use warren_types::{AmqpError, ChannelId, FieldTable, FieldValue, QueueId, ShortString};

use crate::directory::Directory;
use crate::metadata::Row;
use crate::restore;
use crate::shard::ShardHandle;
use crate::vhost::Vhost;
use crate::{
    AdminError, ApplyTo, Broker, BrokerSession, Credentials, Parameter, Permissions, Policy, PolicyKind,
    RestoreError, Settings, Tag,
};

const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) fn peer() -> Peer {
    let [client, server] = [1, 2].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    Peer { client, server }
}

const CHANNEL: ChannelId = ChannelId { number: 1, incarnation: 0 };

type Table = Vec<(Vec<u8>, Vec<u8>)>;

pub(crate) fn all() -> Permissions {
    Permissions::new(".*", ".*", ".*").expect("they are regular")
}

fn start(journal: &Arc<MemoryJournal>, stored: Table) -> Result<Arc<Broker>, RestoreError> {
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
    let options = Options { by_hand: true, ..Options::default() };
    let on_failure = Box::new(|failure: &str| panic!("{failure}"));
    let opened = Store::open(Arc::new(SimDisk::new(1)), options, on_failure, &|_, _| {});
    let (store, mut recovered) = opened.expect("the disk is empty");
    recovered.metadata = stored.into_iter().collect();
    Broker::start_with_journal(settings, Arc::clone(journal) as _, store, recovered)
}

pub(crate) fn first_start() -> (Arc<MemoryJournal>, Arc<Broker>) {
    let journal = Arc::new(MemoryJournal::durable());
    let broker = start(&journal, Vec::new()).expect("nothing is stored");
    (journal, broker)
}

/// A broker that goes on from a table, and its journal.
fn restart(stored: Table) -> (Arc<MemoryJournal>, Arc<Broker>) {
    let journal = Arc::new(MemoryJournal::durable());
    let broker = start(&journal, stored).expect("what is stored makes sense");
    (journal, broker)
}

/// The journal's table without what every start and stop changes.
fn table(journal: &MemoryJournal) -> Table {
    without_life(journal.table(usize::MAX))
}

fn without_life(mut table: Table) -> Table {
    table.retain(|(key, value)| !matches!(Row::decode(key, value), Ok(Row::Starts(_) | Row::Clocks(_))));
    table
}

fn vhost(broker: &Broker, name: &str) -> Arc<Vhost> {
    Arc::clone(&broker.directory().vhosts[name])
}

/// The rows that the broker's state should have; all of it, or what is durable.
fn rows(broker: &Broker, durable_only: bool) -> Table {
    rows_of(&broker.directory(), durable_only)
}

fn rows_of(directory: &Directory, durable_only: bool) -> Table {
    let mut rows: Vec<Row> = Vec::new();
    rows.extend(directory.users.values().map(|user| Row::User((**user).clone())));
    for ((vhost, user), permissions) in &directory.permissions {
        let (vhost, permissions) = (Arc::from(&**vhost), (**permissions).clone());
        rows.push(Row::Permissions { vhost, user: user.clone(), permissions });
    }
    for vhost in directory.vhosts.values() {
        rows.push(Row::Vhost(Arc::clone(&vhost.name)));
        let tables = vhost.read();
        let own = tables
            .router
            .exchanges()
            .filter(|exchange| !exchange.name.is_empty() && !exchange.name.as_bytes().starts_with(b"amq."));
        let own = own.filter(|exchange| exchange.durable || !durable_only);
        rows.extend(own.map(|exchange| vhost.exchange_row(exchange)));
        let queues = tables.queues.iter().filter(|(_, queue)| queue.durable || !durable_only);
        rows.extend(queues.map(|(name, queue)| vhost.queue_row(name, queue)));
        let bindings = tables.router.bindings();
        let bindings = bindings.filter(|binding| !durable_only || tables.is_durable(binding));
        rows.extend(bindings.map(|binding| vhost.binding_row(binding)));
        rows.extend(tables.policies.iter().map(|rule| vhost.policy_row(rule.kind, &rule.policy)));
        rows.extend(tables.parameters.values().map(|parameter| vhost.parameter_row(parameter)));
    }
    let pair = |change: Change| (change.key, change.value.expect("it puts"));
    let mut table: Table = rows.iter().map(|row| pair(row.put())).collect();
    table.sort();
    table
}

/// A connection on channel 1.
struct Client(BrokerSession);

impl Client {
    fn open(broker: &Arc<Broker>, vhost: &str) -> Self {
        let mut session = broker.session(peer());
        session.login(b"guest", b"guest").expect("the user is there");
        session.open(vhost.as_bytes()).expect("the virtual host is there");
        Self(session)
    }

    fn exchange(&mut self, name: &'static str, durable: bool, auto_delete: bool) -> Result<(), AmqpError> {
        let (name, kind) = (ShortString::from(name), ShortString::from("headers"));
        let (passive, internal, arguments) = (false, false, FieldTable::new());
        self.0.exchange_declare(ExchangeDeclare {
            name,
            kind,
            passive,
            durable,
            auto_delete,
            internal,
            arguments,
        })
    }

    async fn queue(&mut self, name: &'static str, durable: bool, exclusive: bool) -> Result<(), AmqpError> {
        let declare = declaration(name, durable, exclusive);
        match self.0.queue_declare(CHANNEL, declare)? {
            Outcome::Done(_) => Ok(()),
            Outcome::Pending => self.reply().await.map(drop),
        }
    }

    async fn delete_queue(&mut self, name: &'static str) -> Result<(), AmqpError> {
        match self.0.queue_delete(CHANNEL, name.as_bytes(), false, false)? {
            Outcome::Done(_) => Ok(()),
            Outcome::Pending => self.reply().await.map(drop),
        }
    }

    async fn reply(&mut self) -> Result<Reply, AmqpError> {
        loop {
            if let Event::Reply(_, reply) = self.event().await {
                return reply;
            }
        }
    }

    async fn event(&mut self) -> Event {
        self.0.flush();
        let mut events = Vec::new();
        loop {
            self.0.take_events(&mut events);
            if let Some(event) = events.pop() {
                assert!(events.is_empty(), "one at a time");
                return event;
            }
            tokio::time::timeout(PATIENCE, self.0.wait()).await.expect("there is an event in time");
        }
    }
}

fn declaration(name: &'static str, durable: bool, exclusive: bool) -> QueueDeclare {
    let (name, arguments) = (ShortString::from(name), FieldTable::new());
    QueueDeclare { name, passive: false, durable, exclusive, auto_delete: false, arguments }
}

fn to_queue(source: &'static str, name: &'static str, argument: Option<u8>) -> Bind {
    let arguments = argument.map(|value| ("a".into(), FieldValue::U8(value))).into_iter().collect();
    let (source, destination, routing_key) = (source.into(), name.into(), "k".into());
    Bind { source, target: BindTarget::Queue, destination, routing_key, arguments: FieldTable(arguments) }
}

fn to_exchange(source: &'static str, name: &'static str) -> Bind {
    Bind { target: BindTarget::Exchange, ..to_queue(source, name, None) }
}

// ---- random operations -------------------------------------------------------------------------------------

const EXCHANGES: [&str; 4] = ["e0", "e1", "e2", "amq.topic"];
const QUEUES: [&str; 3] = ["q0", "q1", "q2"];

#[derive(Debug, Clone)]
enum Operation {
    DeclareExchange { name: usize, durable: bool, auto_delete: bool },
    DeleteExchange(usize),
    DeclareQueue { name: usize, durable: bool, exclusive: bool },
    DeleteQueue(usize),
    Bind { source: usize, queue: usize, argument: Option<u8> },
    BindExchange { source: usize, destination: usize },
    Unbind { source: usize, queue: usize, argument: Option<u8> },
    UnbindExchange { source: usize, destination: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    let (exchange, queue) = (0..EXCHANGES.len(), 0..QUEUES.len());
    let argument = || proptest::option::of(0..2_u8);
    let pair = (exchange.clone(), exchange.clone());
    let binding = (exchange.clone(), queue.clone());
    prop_oneof![
        3 => (exchange.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(name, durable, auto_delete)| Operation::DeclareExchange { name, durable, auto_delete }),
        1 => exchange.prop_map(Operation::DeleteExchange),
        3 => (queue.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(name, durable, exclusive)| Operation::DeclareQueue { name, durable, exclusive }),
        1 => queue.prop_map(Operation::DeleteQueue),
        4 => (binding.clone(), argument())
            .prop_map(|((source, queue), argument)| Operation::Bind { source, queue, argument }),
        2 => pair.clone().prop_map(|(source, destination)| Operation::BindExchange { source, destination }),
        1 => (binding, argument())
            .prop_map(|((source, queue), argument)| Operation::Unbind { source, queue, argument }),
        1 => pair.prop_map(|(source, destination)| Operation::UnbindExchange { source, destination }),
    ]
}

/// What is refused changes nothing, which is checked like everything else.
async fn perform(client: &mut Client, operation: &Operation) {
    let _refused = match *operation {
        Operation::DeclareExchange { name, durable, auto_delete } => {
            client.exchange(EXCHANGES[name], durable, auto_delete)
        }
        Operation::DeleteExchange(name) => client.0.exchange_delete(EXCHANGES[name].as_bytes(), false),
        Operation::DeclareQueue { name, durable, exclusive } => {
            client.queue(QUEUES[name], durable, exclusive).await
        }
        Operation::DeleteQueue(name) => client.delete_queue(QUEUES[name]).await,
        Operation::Bind { source, queue, argument } => {
            client.0.bind(to_queue(EXCHANGES[source], QUEUES[queue], argument))
        }
        Operation::BindExchange { source, destination } => {
            client.0.bind(to_exchange(EXCHANGES[source], EXCHANGES[destination]))
        }
        Operation::Unbind { source, queue, argument } => {
            client.0.unbind(to_queue(EXCHANGES[source], QUEUES[queue], argument))
        }
        Operation::UnbindExchange { source, destination } => {
            client.0.unbind(to_exchange(EXCHANGES[source], EXCHANGES[destination]))
        }
    };
}

async fn run(operations: Vec<Operation>) {
    let (journal, broker) = first_start();
    let mut client = Client::open(&broker, "/");
    for operation in &operations {
        let before = journal.calls().len();
        perform(&mut client, operation).await;
        assert_eq!(table(&journal), rows(&broker, true), "after {operation:?}");
        let calls = &journal.calls()[before..];
        assert!(calls.len() <= 1, "{operation:?} is recorded at once: {calls:?}");
        assert!(calls.iter().all(|changes| !changes.is_empty()), "{operation:?} records nothing");
        let known = journal.table(before);
        let is_needed =
            |change: &Change| known.iter().any(|(key, _)| *key == change.key) == change.value.is_none();
        assert!(calls.iter().flatten().all(is_needed), "{operation:?} records what is so already: {calls:?}");
    }
    for calls in 1..=journal.calls().len() {
        let stored = journal.table(calls);
        let again = Arc::new(MemoryJournal::durable());
        let shards = [Arc::new(ShardHandle::new())];
        let restored = restore::restore(stored.clone(), &(Arc::clone(&again) as _), &shards, Vec::new());
        let (restored, repairs) = restored.expect("what is stored makes sense");
        assert_eq!(rows_of(&restored.directory, false), without_life(stored));
        repairs.record(&*again, &mut Lsn::default());
        assert_eq!(again.calls().len(), 0, "nothing had to be repaired");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_recorded_is_what_there_is(operations in proptest::collection::vec(operation(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(run(operations));
    }
}

// ---- single cases ------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_cascade_is_recorded_as_a_whole() {
    let (journal, broker) = first_start();
    let mut client = Client::open(&broker, "/");
    client.exchange("e0", true, true).expect("it is new");
    client.exchange("e1", true, true).expect("it is new");
    client.queue("q0", true, false).await.expect("it is new");
    client.0.bind(to_exchange("e0", "e1")).expect("both are there");
    client.0.bind(to_queue("e1", "q0", None)).expect("both are there");
    client.queue("q1", false, false).await.expect("it is new");
    client.0.bind(to_queue("amq.topic", "q1", None)).expect("both are there");
    let before = journal.calls().len();
    client.delete_queue("q1").await.expect("it is there");
    assert_eq!(journal.calls().len(), before, "nothing durable was deleted");
    client.delete_queue("q0").await.expect("it is there");
    assert_eq!(journal.calls().len(), before + 1);
    assert_eq!(journal.calls()[before].len(), 5, "the queue, two bindings, two exchanges");
    assert_eq!(table(&journal).len(), 3, "the defaults are left");
}

#[tokio::test]
async fn queues_keep_their_ids_and_new_ones_get_higher_ones() {
    let (journal, broker) = first_start();
    let id = |broker: &Broker, name: &[u8]| vhost(broker, "/").read().queues[name].queue.id;
    let mut client = Client::open(&broker, "/");
    client.queue("q0", true, false).await.expect("it is new");
    client.queue("q1", true, false).await.expect("it is new");
    let (first, deleted) = (id(&broker, b"q0"), id(&broker, b"q1"));
    client.delete_queue("q1").await.expect("it is there");
    let (_, broker) = restart(journal.table(usize::MAX));
    assert_eq!(id(&broker, b"q0"), first);
    let mut client = Client::open(&broker, "/");
    client.queue("q0", true, false).await.expect("its shard has it");
    client.queue("q1", true, false).await.expect("it is new");
    let QueueId(new) = id(&broker, b"q1");
    assert!(new > first.0 && new > deleted.0);
}

#[tokio::test]
async fn defaults_are_created_once() {
    let (journal, broker) = first_start();
    assert_eq!(broker.vhosts(), ["/"]);
    assert_eq!(broker.users()[0].tags, [Tag::Administrator]);
    let _recorded = broker.delete_user("guest").expect("it is there");
    assert_eq!(broker.grants(), []);
    let (_, broker) = restart(journal.table(usize::MAX));
    assert_eq!(broker.vhosts(), ["/"]);
    assert_eq!(broker.users(), []);
}

#[tokio::test]
async fn a_dangling_binding_is_dropped_for_good() {
    let (journal, broker) = first_start();
    let mut client = Client::open(&broker, "/");
    client.exchange("e0", true, false).expect("it is new");
    client.queue("q0", true, false).await.expect("it is new");
    client.0.bind(to_queue("e0", "q0", Some(1))).expect("both are there");
    let binding = vhost(&broker, "/").read().router.bindings_to(&Destination::Queue("q0".into())).count();
    assert_eq!(binding, 1);
    let mut stored = journal.table(usize::MAX);
    stored.retain(|(key, _)| !key.starts_with(b"\x05"));
    let (journal, broker) = restart(stored);
    assert_eq!(vhost(&broker, "/").read().router.bindings().count(), 0);
    assert_eq!(journal.calls()[0].iter().filter(|change| change.value.is_none()).count(), 1);
}

#[tokio::test]
async fn what_makes_no_sense_is_named() {
    let (journal, broker) = first_start();
    Client::open(&broker, "/").queue("q0", true, false).await.expect("it is new");
    let stored = table(&journal);
    let refused = |stored: Table| {
        start(&Arc::new(MemoryJournal::durable()), stored).expect_err("it makes no sense").to_string()
    };
    let mut damaged = stored.clone();
    damaged.last_mut().expect("there is a queue").1.pop();
    assert_eq!(refused(damaged), "cannot restore the queue 'q0' in vhost '/': it ends early");
    let orphan: Table = stored.iter().filter(|(key, _)| !key.starts_with(b"\x01")).cloned().collect();
    assert_eq!(
        refused(orphan),
        "cannot restore the permissions of user 'guest' in vhost '/': there is no such virtual host"
    );
    let mut entry = vhost(&broker, "/").read().queues[&b"q0"[..]].clone();
    entry.arguments.insert("x-message-ttl", FieldValue::I32(-1));
    let row = vhost(&broker, "/").queue_row(&"q0".into(), &entry).put();
    let mut unfit = stored;
    unfit.pop();
    unfit.push((row.key, row.value.expect("it puts")));
    assert_eq!(
        refused(unfit),
        "cannot restore the queue 'q0' in vhost '/': invalid arg 'x-message-ttl' for queue 'q0' in vhost '/': \
         {value_negative,-1}"
    );
}

// ---- waiting for the journal -------------------------------------------------------------------------------

#[tokio::test]
async fn nothing_is_written_before_it_is_durable() {
    let journal = Arc::new(MemoryJournal::held());
    let broker = start(&journal, Vec::new()).expect("nothing is stored");
    let mut client = Client::open(&broker, "/");
    client.queue("q0", false, false).await.expect("it is new");
    client.exchange("e0", false, false).expect("it is new");
    client.0.bind(to_queue("e0", "q0", None)).expect("both are there");
    client.0.flush();
    assert!(client.0.may_write(), "nothing of it is durable");
    client.exchange("e1", true, false).expect("it is new");
    client.0.flush();
    assert!(!client.0.may_write());
    journal.release();
    tokio::time::timeout(PATIENCE, client.0.wait()).await.expect("it is woken");
    assert!(client.0.may_write());
    client.delete_queue("q0").await.expect("it is there");
    assert!(client.0.may_write());
}

#[tokio::test]
async fn what_others_have_done_is_waited_for() {
    let journal = Arc::new(MemoryJournal::held());
    let broker = start(&journal, Vec::new()).expect("nothing is stored");
    let mut first = Client::open(&broker, "/");
    first.exchange("e0", true, false).expect("it is new");
    first.queue("q0", true, false).await.expect("it is new");
    first.0.bind(to_queue("e0", "q0", None)).expect("both are there");
    let passive = QueueDeclare { passive: true, ..declaration("q0", true, false) };
    type Asks = Box<dyn Fn(&mut Client) -> Result<(), AmqpError>>;
    let asks: [Asks; 7] = [
        Box::new(|client| client.exchange("e0", true, false)),
        Box::new(|client| client.0.queue_declare(CHANNEL, declaration("q0", true, false)).map(drop)),
        Box::new(move |client| client.0.queue_declare(CHANNEL, passive.clone()).map(drop)),
        Box::new(|client| client.0.bind(to_queue("e0", "q0", None))),
        Box::new(|client| client.0.unbind(to_queue("e0", "q0", Some(1)))),
        Box::new(|client| client.0.exchange_delete(b"e1", false)),
        Box::new(|client| client.0.queue_delete(CHANNEL, b"q1", false, false).map(drop)),
    ];
    for ask in &asks {
        let mut other = Client::open(&broker, "/");
        ask(&mut other).expect("it is as asked");
        assert!(!other.0.may_write());
    }
    journal.release();
    for ask in &asks {
        let mut other = Client::open(&broker, "/");
        ask(&mut other).expect("it is as asked");
        assert!(other.0.may_write());
    }
}

#[tokio::test]
async fn a_removed_queue_tells_what_its_reply_must_wait_for() {
    let (journal, broker) = first_start();
    let mut client = Client::open(&broker, "/");
    client.queue("q0", true, false).await.expect("it is new");
    client.queue("q1", true, true).await.expect("it is new");
    let vhost = vhost(&broker, "/");
    let queue = |name: &[u8]| vhost.read().queues[name].queue;
    let (durable, exclusive) = (queue(b"q0"), queue(b"q1"));
    assert_eq!(vhost.remove_queue(&"q1".into(), exclusive).0, None);
    let (recorded, _) = vhost.remove_queue(&"q0".into(), durable);
    assert_eq!(recorded, Some(Lsn(journal.calls().len() as u64)));
    assert_eq!(vhost.remove_queue(&"q0".into(), durable).0, None);
}

#[tokio::test]
async fn administration_can_be_awaited() {
    let journal = Arc::new(MemoryJournal::held());
    let broker = start(&journal, Vec::new()).expect("nothing is stored");
    let durable = broker.create_vhost("a").expect("it is new").durable();
    tokio::pin!(durable);
    let early = tokio::time::timeout(Duration::from_millis(1), &mut durable).await;
    assert!(early.is_err(), "it is not durable yet");
    journal.release();
    tokio::time::timeout(PATIENCE, durable).await.expect("it is durable now");
}

// ---- administration ----------------------------------------------------------------------------------------

fn policy(pattern: &str) -> Policy {
    let (name, pattern, definition) = ("p".to_owned(), pattern.to_owned(), "{\"expires\":60000}".to_owned());
    Policy { name, pattern, apply_to: ApplyTo::All, priority: 7, definition }
}

fn parameter() -> Parameter {
    Parameter { component: "c".to_owned(), name: "n".to_owned(), value: "[1]".to_owned() }
}

/// A virtual host `a` with something of every kind.
async fn furnish(broker: &Arc<Broker>) -> Result<Client, AdminError> {
    let recorded = [
        broker.create_vhost("a")?,
        broker.put_user("u", Credentials::Password(b"secret"), vec![Tag::Other("t".into())])?,
        broker.set_permissions("u", "a", Permissions::new("", "", "r").expect("they are regular"))?,
        broker.set_permissions("guest", "a", all())?,
        broker.set_policy("a", PolicyKind::User, policy("^u"))?,
        broker.set_policy("a", PolicyKind::Operator, policy("^o"))?,
        broker.set_parameter("a", parameter())?,
    ];
    assert!(recorded.iter().is_sorted_by_key(|recorded| recorded.lsn()));
    let mut client = Client::open(broker, "a");
    client.exchange("e0", true, false).expect("it is new");
    client.queue("q0", true, false).await.expect("it is new");
    client.queue("q1", false, false).await.expect("it is new");
    client.0.bind(to_queue("e0", "q0", Some(1))).expect("both are there");
    client.0.bind(to_queue("e0", "q1", None)).expect("both are there");
    Ok(client)
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let (journal, broker) = first_start();
    let _client = furnish(&broker).await.expect("all is valid");
    let (_, restored) = restart(journal.table(usize::MAX));
    assert_eq!(rows(&restored, false), rows(&broker, true));
    assert_eq!(restored.users(), broker.users());
    assert_eq!(restored.grants(), broker.grants());
    assert_eq!(restored.policies("a", PolicyKind::User), Ok(vec![policy("^u")]));
    assert_eq!(restored.policies("a", PolicyKind::Operator), Ok(vec![policy("^o")]));
    assert_eq!(restored.parameters("a"), Ok(vec![parameter()]));
    let mut session = restored.session(peer());
    assert!(session.login(b"u", b"secret").is_ok());
}

#[tokio::test]
async fn a_deleted_virtual_host_leaves_nothing() {
    let (journal, broker) = first_start();
    let before = table(&journal);
    let mut client = furnish(&broker).await.expect("all is valid");
    let old = vhost(&broker, "a");
    let queue = old.read().queues[&b"q0"[..]].queue;
    let _recorded = broker.delete_vhost("a").expect("it is there");
    assert_eq!(table(&journal).len(), before.len() + 1, "only the user is left");
    assert_eq!(table(&journal), rows(&broker, true));
    match client.event().await {
        Event::Close(error) => {
            assert_eq!(error.reply_text(), "CONNECTION_FORCED - vhost 'a' is deleted");
        }
        other => panic!("{other:?}"),
    }
    let calls = journal.calls().len();
    let refused = client.exchange("e9", true, false).expect_err("the virtual host is deleted");
    assert_eq!(refused.reply_text(), "NOT_ALLOWED - vhost a not found");
    assert_eq!(old.remove_queue(&"q0".into(), queue).0, None);
    assert_eq!(journal.calls().len(), calls);
    let _recorded = broker.create_vhost("a").expect("the name is free");
    assert!(broker.grants().iter().all(|grant| grant.vhost == "/"));
}

#[tokio::test]
async fn a_deleted_user_is_gone_with_its_connections() {
    let (journal, broker) = first_start();
    let mut client = furnish(&broker).await.expect("all is valid");
    let _recorded = broker.delete_user("guest").expect("it is there");
    assert!(matches!(client.event().await, Event::Close(_)));
    assert_eq!(table(&journal), rows(&broker, true));
    assert!(broker.grants().iter().all(|grant| grant.user == "u"));
}

#[tokio::test]
async fn settings_can_be_changed_and_cleared() {
    let (journal, broker) = first_start();
    let _client = furnish(&broker).await.expect("all is valid");
    let changes = [
        broker.change_password("u", Credentials::None),
        broker.clear_permissions("u", "a"),
        broker.clear_permissions("u", "a"),
        broker.set_policy("a", PolicyKind::User, policy("^changed")),
        broker.clear_policy("a", PolicyKind::Operator, "p"),
        broker.clear_parameter("a", "c", "n"),
        broker.create_vhost("a"),
    ];
    assert!(changes.iter().all(Result::is_ok), "{changes:?}");
    assert_eq!(table(&journal), rows(&broker, true));
    assert_eq!(broker.policies("a", PolicyKind::User), Ok(vec![policy("^changed")]));
    assert_eq!(broker.policies("a", PolicyKind::Operator), Ok(vec![]));
    let mut session = broker.session(peer());
    assert!(session.login(b"u", b"secret").is_err());
}

#[tokio::test]
async fn refused_changes_change_nothing() {
    let (journal, broker) = first_start();
    let calls = journal.calls().len();
    let long = "n".repeat(256);
    let refused =
        |result: Result<crate::Recorded, AdminError>| result.expect_err("it is refused").to_string();
    assert_eq!(refused(broker.delete_vhost("a")), "vhost 'a' does not exist");
    assert_eq!(refused(broker.delete_user("u")), "user 'u' does not exist");
    assert_eq!(refused(broker.set_permissions("u", "a", all())), "user 'u' does not exist");
    assert_eq!(refused(broker.set_permissions("guest", "a", all())), "vhost 'a' does not exist");
    assert_eq!(refused(broker.set_parameter("a", parameter())), "vhost 'a' does not exist");
    assert_eq!(refused(broker.clear_policy("/", PolicyKind::User, "p")), "policy 'p' does not exist");
    assert_eq!(refused(broker.clear_parameter("/", "c", "n")), "parameter 'n' does not exist");
    assert_eq!(
        refused(broker.set_policy("/", PolicyKind::User, policy("("))),
        "Validation failed\n\npattern should be regular expression but is invalid: {\"unclosed group\",0}\n"
    );
    assert_eq!(
        refused(broker.create_vhost(&long)),
        "a name of 256 bytes is too long: at most 255 are possible"
    );
    assert_eq!(journal.calls().len(), calls);
}
