//! A virtual host: its exchanges, bindings, and the names of its queues.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sha2::{Digest, Sha256};
use warren_queue::{Command, DeadLetterTarget, QueueKind, QueueOptions, Settings};
use warren_router::{Binding, Declared, Destination, ExchangeDefinition, Gate, Removed, Router};
use warren_store::{Journal, Lsn};
use warren_types::{AmqpError, ConnectionId, FieldTable, FieldValue, QueueId, QueueRef, ShortString};

use crate::auth::Resource;
use crate::changes::Changes;
use crate::metadata::{QueueState, Row, StoredQueue};
use crate::policy::{EffectivePolicy, Parameter, Policies, Policy, PolicyKind, Target};
use crate::queue_arguments;
use crate::queue_type::QueueType;
use crate::shard::{NewQueue, ShardCommand, ShardHandle};
use crate::system_exchange::SystemExchange;

/// Names that only the server may create.
pub(crate) const RESERVED_PREFIX: &[u8] = b"amq.";

/// What the virtual host knows of a queue; the queue itself lives on its shard.
#[derive(Debug, Clone)]
pub(crate) struct QueueEntry {
    pub queue: QueueRef,
    pub durable: bool,
    pub auto_delete: bool,
    /// The connection that it belongs to, if it is exclusive.
    pub owner: Option<ConnectionId>,
    pub kind: QueueKind,
    pub arguments: FieldTable,
    pub state: QueueState,
    /// The policies that apply to it.
    pub policy: Option<Arc<EffectivePolicy>>,
}

impl QueueEntry {
    /// The type that it was declared with.
    pub(crate) fn queue_type(&self) -> QueueType {
        queue_type(&self.arguments)
    }

    /// How policies see it; not at all if it is no client's.
    pub(crate) fn target(&self) -> Option<Target> {
        target(self.kind, &self.arguments)
    }

    /// What is asked of it by its arguments, these policies and operators.
    pub(crate) fn settings(&self, policy: Option<&EffectivePolicy>) -> Settings {
        let own =
            queue_arguments::parse(&self.arguments, "").expect("they were checked when it was declared");
        let own = Settings { paused: self.state.paused, ..own };
        match policy {
            Some(policy) => policy.settings(own, &self.arguments),
            None => own,
        }
    }
}

fn queue_type(arguments: &FieldTable) -> QueueType {
    let name = arguments.get("x-queue-type").and_then(FieldValue::as_long_string);
    name.and_then(QueueType::parse).unwrap_or_default()
}

fn target(kind: QueueKind, arguments: &FieldTable) -> Option<Target> {
    (kind != QueueKind::Gate).then(|| Target::Queue(queue_type(arguments)))
}

/// A queue that is to be.
#[derive(Debug)]
pub(crate) struct QueueDefinition {
    pub id: QueueId,
    pub name: ShortString,
    pub durable: bool,
    pub auto_delete: bool,
    pub owner: Option<ConnectionId>,
    pub arguments: FieldTable,
    /// What the arguments ask for.
    pub settings: Settings,
    pub state: QueueState,
}

/// The queue of an exchange that holds messages back.
#[derive(Debug)]
struct GateQueue {
    queue: QueueRef,
    shard: Arc<ShardHandle>,
}

/// What names stand for.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub router: Router,
    pub queues: HashMap<ShortString, QueueEntry, RandomState>,
    pub policies: Policies,
    /// By component and name.
    pub parameters: BTreeMap<(String, String), Parameter>,
    /// The queues of exchanges that hold messages back, by the names of the exchanges.
    gates: BTreeMap<ShortString, GateQueue>,
    /// Up to where the journal has the changes of these tables.
    recorded: Lsn,
    /// The virtual host is gone: whoever still knows it can change it no more.
    deleted: bool,
}

impl Tables {
    /// The queue where an exchange holds messages back, if it does.
    pub(crate) fn gate_queue(&self, exchange: &[u8]) -> Option<ShortString> {
        self.gates.get_key_value(exchange).map(|(exchange, _)| gate_name(exchange))
    }

    /// Has an exchange use the alternate exchange that policies give it, if they do.
    pub(crate) fn apply_to_exchange(&mut self, name: &[u8]) {
        // Policies match the default exchange, but it has no use for another one (`rabbit_exchange:route/3`).
        if !name.is_empty() {
            let policy = self.policies.apply(Target::Exchange, name);
            let alternate = policy.and_then(|policy| policy.alternate_exchange().cloned());
            self.router.set_alternate(name, alternate);
        }
    }

    /// The policies that apply to an exchange.
    pub(crate) fn policy_of_exchange(&self, name: &[u8]) -> Option<EffectivePolicy> {
        self.policies.look_up(Target::Exchange, name)
    }

    /// What an answer must wait for that tells of a thing in these tables.
    pub(crate) fn recorded_if(&self, is_durable: bool) -> Lsn {
        if is_durable { self.recorded } else { Lsn::default() }
    }

    /// Whether the binding survives a restart: if both of its ends do.
    pub(crate) fn is_durable(&self, binding: &Binding) -> bool {
        self.was_durable(binding, &BTreeMap::new())
    }

    /// The same for a binding that went together with exchanges, of which it is given whether they were durable.
    fn was_durable(&self, binding: &Binding, gone: &BTreeMap<&ShortString, bool>) -> bool {
        let exchange = |name: &ShortString| match gone.get(name) {
            Some(was_durable) => *was_durable,
            None => self.router.exchange(name.as_bytes()).is_some_and(|exchange| exchange.durable),
        };
        exchange(&binding.source)
            && match &binding.destination {
                Destination::Exchange(name) => exchange(name),
                Destination::Queue(name) => self.queues.get(name).is_some_and(|queue| queue.durable),
            }
    }
}

/// One virtual host.
#[derive(Debug)]
pub(crate) struct Vhost {
    pub name: Arc<str>,
    tables: RwLock<Tables>,
    /// Rises whenever routes may have changed, or who may use them.
    generation: AtomicU64,
    /// Rises whenever what somebody may do here has changed.
    permissions_version: AtomicU64,
    /// What is published and delivered is copied to the firehose.
    traced: AtomicBool,
    /// Exchanges that the broker publishes to.
    system_exchanges: Vec<Arc<SystemExchange>>,
    journal: Arc<dyn Journal>,
}

impl Vhost {
    pub(crate) fn new(name: &str, journal: Arc<dyn Journal>) -> Self {
        Self {
            name: Arc::from(name),
            tables: RwLock::default(),
            generation: AtomicU64::new(0),
            permissions_version: AtomicU64::new(0),
            traced: AtomicBool::new(false),
            system_exchanges: Vec::new(),
            journal,
        }
    }

    /// The virtual host with those of the exchanges that are to be in it.
    pub(crate) fn with_system_exchanges(mut self, exchanges: &[Arc<SystemExchange>]) -> Self {
        for exchange in exchanges.iter().filter(|exchange| exchange.vhost() == &*self.name) {
            let declared = self.write().router.declare_exchange(exchange.definition());
            debug_assert_eq!(declared, Ok(Declared::New), "nobody else may use such names");
            self.system_exchanges.push(Arc::clone(exchange));
        }
        self
    }

    /// Whether what is published and delivered is copied to the firehose.
    pub(crate) fn is_traced(&self) -> bool {
        self.traced.load(Ordering::Relaxed)
    }

    /// Copies what is published and delivered to the firehose from now on, or no more. Returns whether it did before.
    pub(crate) fn set_traced(&self, traced: bool) -> bool {
        let before = self.traced.swap(traced, Ordering::Relaxed);
        // Whoever repeats publishes without asking for a route asks again.
        self.generation.fetch_add(1, Ordering::Release);
        before
    }

    fn watch_bindings(&self, tables: &Tables) {
        for exchange in &self.system_exchanges {
            let first = tables.router.bindings_from(exchange.name().as_bytes()).next();
            exchange.set_bound(first.is_some());
        }
    }

    /// Routes found before the generation changed may be wrong.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Permissions looked up before the version changed may be wrong.
    pub(crate) fn permissions_version(&self) -> u64 {
        self.permissions_version.load(Ordering::Acquire)
    }

    /// To be called after permissions here were changed. Routes that were found say that they may be used, so they are
    /// looked up anew, after the permissions.
    pub(crate) fn permissions_changed(&self) {
        self.permissions_version.fetch_add(1, Ordering::Release);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Reads. A thread that panicked while it held the lock took the process with it or only read.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what names and routes depend on, and records it. Returns also what an answer must wait for; nothing
    /// if the virtual host is deleted.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Tables, &mut Changes) -> T) -> Option<(T, Lsn)> {
        let mut tables = self.write();
        if tables.deleted {
            return None;
        }
        let mut changes = Changes::default();
        let result = change(&mut tables, &mut changes);
        let lsn = changes.record(&*self.journal, &mut tables.recorded);
        self.watch_bindings(&tables);
        self.generation.fetch_add(1, Ordering::Release);
        Some((result, lsn))
    }

    /// Changes what neither names nor routes depend on, and what needs no record; nothing if the virtual host is
    /// deleted.
    pub(crate) fn adjust<T>(&self, adjust: impl FnOnce(&mut Tables) -> T) -> Option<T> {
        let mut tables = self.write();
        (!tables.deleted).then(|| adjust(&mut tables))
    }

    /// Puts a queue on a shard and makes its name known, in this order: its creation is in the shard's mailbox
    /// before anyone can find it.
    pub(crate) fn add_queue(
        self: &Arc<Self>,
        tables: &mut Tables,
        shards: &[Arc<ShardHandle>],
        queue: QueueDefinition,
    ) -> QueueRef {
        let QueueDefinition { id, name, durable, auto_delete, owner, arguments, settings, state } = queue;
        let kind = settings.kind;
        let is_gate = kind == QueueKind::Gate;
        let target = target(kind, &arguments);
        let policy = target.and_then(|target| tables.policies.apply(target, name.as_bytes()));
        let settings = match &policy {
            Some(policy) => policy.settings(settings, &arguments),
            None => settings,
        };
        let shard = (id.0 % shards.len() as u64) as u16;
        let handle = &shards[usize::from(shard)];
        let queue = QueueRef { id, shard, slot: handle.reserve_slot() };
        let vhost = Arc::clone(&self.name);
        let options = QueueOptions { queue, name: name.clone(), vhost, durable, auto_delete, settings };
        let has_expirations = state.has_expirations || is_gate;
        let new = NewQueue { options, vhost: Arc::clone(self), has_expirations };
        handle.mailbox.push(ShardCommand::Create(Box::new(new)));
        if !is_gate {
            tables.router.add_queue(&name, queue);
        }
        let entry = QueueEntry { queue, durable, auto_delete, owner, kind, arguments, state, policy };
        tables.queues.insert(name, entry);
        queue
    }

    /// Gives an exchange the queue where it holds messages back, with its [`gate_settings`].
    pub(crate) fn add_gate(
        self: &Arc<Self>,
        tables: &mut Tables,
        shards: &[Arc<ShardHandle>],
        id: QueueId,
        exchange: &ExchangeDefinition,
        settings: Settings,
    ) -> (ShortString, QueueRef) {
        let name = gate_name(&exchange.name);
        let definition = QueueDefinition {
            id,
            name: name.clone(),
            durable: exchange.durable,
            auto_delete: false,
            // Nobody else may use it.
            owner: Some(ConnectionId::NONE),
            arguments: gate_arguments(&exchange.name),
            settings,
            state: QueueState::default(),
        };
        let queue = self.add_queue(tables, shards, definition);
        let shard = Arc::clone(&shards[usize::from(queue.shard)]);
        tables.gates.insert(exchange.name.clone(), GateQueue { queue, shard });
        let gate = Gate { queue, delays: exchange.delays(), deduplicates: exchange.deduplicates() };
        tables.router.set_gate(exchange.name.as_bytes(), Some(gate));
        (name, queue)
    }

    /// Records that messages in the store of a queue may expire by themselves.
    pub(crate) fn note_expirations(&self, name: &ShortString, queue: QueueRef) {
        self.change_state(name, queue, |state| state.has_expirations = true);
    }

    /// Changes what is recorded of a queue. Returns what must be durable before anyone is told; none if there is no
    /// such queue any more.
    pub(crate) fn change_state(
        &self,
        name: &ShortString,
        queue: QueueRef,
        change: impl FnOnce(&mut QueueState),
    ) -> Option<Lsn> {
        let (found, lsn) = self.change(|tables, changes| {
            let entry = tables.queues.get_mut(name).filter(|entry| entry.queue == queue)?;
            change(&mut entry.state);
            if entry.durable {
                changes.put(&self.queue_row(name, entry));
            }
            Some(())
        })?;
        found.map(|()| lsn)
    }

    /// Forgets a queue that its shard has deleted, with its bindings. Returns what must be durable before anyone is
    /// told, if anything was recorded, and what went with the queue.
    pub(crate) fn remove_queue(&self, name: &ShortString, queue: QueueRef) -> (Option<Lsn>, Option<Removed>) {
        let changed = self.change(|tables, changes| {
            if tables.queues.get(name).is_none_or(|entry| entry.queue != queue) {
                return None;
            }
            let removed = tables.router.remove_queue(name.as_bytes());
            self.record_removed(tables, &removed, changes);
            if let Some(entry) = tables.queues.remove(name)
                && entry.durable
            {
                changes.remove(&self.queue_row(name, &entry));
            }
            Some(removed)
        });
        let Some((removed, lsn)) = changed else { return (None, None) };
        ((lsn > Lsn::default()).then_some(lsn), removed)
    }

    /// Records that exchanges and bindings are gone, as far as they were durable. The queues that bindings led to
    /// must still be in the tables.
    pub(crate) fn record_removed(&self, tables: &mut Tables, removed: &Removed, changes: &mut Changes) {
        for exchange in &removed.exchanges {
            if let Some(GateQueue { queue, shard }) = tables.gates.remove(&exchange.name) {
                let delete = Command::Delete { asked_by: None, if_unused: false, if_empty: false };
                shard.mailbox.push(ShardCommand::Apply(queue, delete));
            }
        }
        let gone = removed.exchanges.iter().map(|exchange| (&exchange.name, exchange.durable)).collect();
        for binding in removed.bindings.iter().filter(|binding| tables.was_durable(binding, &gone)) {
            changes.remove(&self.binding_row(binding));
        }
        for exchange in removed.exchanges.iter().filter(|exchange| is_stored(exchange)) {
            changes.remove(&self.exchange_row(exchange));
        }
    }

    /// Empties the virtual host for ever. Returns the queues that are still on their shards, with their names, and what
    /// else went.
    pub(crate) fn delete(&self, changes: &mut Changes) -> (Vec<(ShortString, QueueRef)>, Removed) {
        let mut tables = self.write();
        for binding in tables.router.bindings().filter(|binding| tables.is_durable(binding)) {
            changes.remove(&self.binding_row(binding));
        }
        for exchange in tables.router.exchanges().filter(|exchange| is_stored(exchange)) {
            changes.remove(&self.exchange_row(exchange));
        }
        for (name, queue) in tables.queues.iter().filter(|(_, queue)| queue.durable) {
            changes.remove(&self.queue_row(name, queue));
        }
        for rule in tables.policies.iter() {
            changes.remove(&self.policy_row(rule.kind, &rule.policy));
        }
        for parameter in tables.parameters.values() {
            changes.remove(&self.parameter_row(parameter));
        }
        changes.remove(&Row::Vhost(Arc::clone(&self.name)));
        let queues = tables.queues.iter().map(|(name, entry)| (name.clone(), entry.queue)).collect();
        let removed = Removed {
            bindings: tables.router.bindings().cloned().collect(),
            exchanges: tables.router.exchanges().cloned().collect(),
        };
        *tables = Tables { deleted: true, ..Tables::default() };
        self.watch_bindings(&tables);
        self.generation.fetch_add(1, Ordering::Release);
        (queues, removed)
    }

    pub(crate) fn exchange_row(&self, exchange: &ExchangeDefinition) -> Row {
        Row::Exchange { vhost: Arc::clone(&self.name), exchange: exchange.clone() }
    }

    pub(crate) fn queue_row(&self, name: &ShortString, entry: &QueueEntry) -> Row {
        let QueueEntry { queue, auto_delete, arguments, state, .. } = entry.clone();
        let queue = StoredQueue { name: name.clone(), id: queue.id, auto_delete, state, arguments };
        Row::Queue { vhost: Arc::clone(&self.name), queue }
    }

    pub(crate) fn binding_row(&self, binding: &Binding) -> Row {
        Row::Binding { vhost: Arc::clone(&self.name), binding: binding.clone() }
    }

    pub(crate) fn policy_row(&self, kind: PolicyKind, policy: &Policy) -> Row {
        Row::Policy { vhost: Arc::clone(&self.name), kind, policy: policy.clone() }
    }

    pub(crate) fn parameter_row(&self, parameter: &Parameter) -> Row {
        Row::Parameter { vhost: Arc::clone(&self.name), parameter: parameter.clone() }
    }
}

/// Whether an exchange is stored: those that every virtual host has come back by themselves.
fn is_stored(exchange: &ExchangeDefinition) -> bool {
    exchange.durable && !exchange.name.is_empty() && !exchange.name.as_bytes().starts_with(RESERVED_PREFIX)
}

/// The argument of the queue where an exchange holds messages back: the exchange's name.
const GATE_OF: &str = "x-warren-exchange";

fn gate_arguments(exchange: &ShortString) -> FieldTable {
    let mut arguments = FieldTable::new();
    arguments.insert(GATE_OF, FieldValue::LongString(exchange.as_bytes().to_vec()));
    arguments
}

/// What the queue where an exchange holds messages back is asked for.
///
/// # Errors
/// 406 if the exchange has an argument that does not fit.
pub(crate) fn gate_settings(vhost: &Vhost, exchange: &ExchangeDefinition) -> Result<Settings, AmqpError> {
    let label = Resource::Exchange(exchange.name.as_bytes()).label(&vhost.name);
    Ok(Settings {
        kind: QueueKind::Gate,
        dead_letter: Some(DeadLetterTarget { exchange: exchange.name.clone(), routing_key: None }),
        dedup: queue_arguments::parse_dedup(&exchange.arguments, &label)?,
        ..Settings::default()
    })
}

/// The exchange whose messages a queue holds back, as [`Vhost::add_gate`] has noted it.
pub(crate) fn gate_of(name: &ShortString, arguments: &FieldTable) -> Option<ShortString> {
    // Only the server makes queues of such names.
    let exchange = arguments.get(GATE_OF).filter(|_| name.as_bytes().starts_with(RESERVED_PREFIX))?;
    ShortString::new(exchange.as_long_string()?).ok()
}

/// The name of the queue where an exchange holds messages back.
fn gate_name(exchange: &ShortString) -> ShortString {
    let whole = [b"amq.delayed.", exchange.as_bytes()].concat();
    ShortString::new(&whole).unwrap_or_else(|_| {
        let digest = Sha256::digest(exchange.as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        ShortString::truncated(format!("amq.delayed.{hex}").as_bytes())
    })
}
