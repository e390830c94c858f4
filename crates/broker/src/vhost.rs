//! A virtual host: its exchanges, bindings, and the names of its queues.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use warren_queue::{QueueOptions, Settings};
use warren_router::{Binding, Destination, ExchangeDefinition, Removed, Router};
use warren_store::{Journal, Lsn};
use warren_types::{ConnectionId, FieldTable, QueueId, QueueRef, ShortString};

use crate::changes::Changes;
use crate::metadata::{Row, StoredQueue};
use crate::policy::{Parameter, Policy, PolicyKind};
use crate::shard::{NewQueue, ShardCommand, ShardHandle};

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
    pub arguments: FieldTable,
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
}

/// What names stand for.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub router: Router,
    pub queues: HashMap<ShortString, QueueEntry, RandomState>,
    pub policies: BTreeMap<(PolicyKind, String), Policy>,
    /// By component and name.
    pub parameters: BTreeMap<(String, String), Parameter>,
    /// Up to where the journal has the changes of these tables.
    recorded: Lsn,
    /// The virtual host is gone: whoever still knows it can change it no more.
    deleted: bool,
}

impl Tables {
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
    /// Rises whenever routes may have changed.
    generation: AtomicU64,
    journal: Arc<dyn Journal>,
}

impl Vhost {
    pub(crate) fn new(name: &str, journal: Arc<dyn Journal>) -> Self {
        Self { name: Arc::from(name), tables: RwLock::default(), generation: AtomicU64::new(0), journal }
    }

    /// Routes found before the generation changed may be wrong.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
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
        self.generation.fetch_add(1, Ordering::Release);
        Some((result, lsn))
    }

    /// Puts a queue on a shard and makes its name known, in this order: its creation is in the shard's mailbox
    /// before anyone can find it.
    pub(crate) fn add_queue(
        self: &Arc<Self>,
        tables: &mut Tables,
        shards: &[Arc<ShardHandle>],
        queue: QueueDefinition,
    ) -> QueueRef {
        let QueueDefinition { id, name, durable, auto_delete, owner, arguments, settings } = queue;
        let shard = (id.0 % shards.len() as u64) as u16;
        let handle = &shards[usize::from(shard)];
        let queue = QueueRef { id, shard, slot: handle.reserve_slot() };
        let vhost = Arc::clone(&self.name);
        let options = QueueOptions { queue, name: name.clone(), vhost, durable, auto_delete, settings };
        let new = NewQueue { options, vhost: Arc::clone(self) };
        handle.mailbox.push(ShardCommand::Create(Box::new(new)));
        tables.router.add_queue(&name, queue);
        tables.queues.insert(name, QueueEntry { queue, durable, auto_delete, owner, arguments });
        queue
    }

    /// Forgets a queue that its shard has deleted, with its bindings. Returns what must be durable before anyone is
    /// told, if anything was recorded.
    pub(crate) fn remove_queue(&self, name: &ShortString, queue: QueueRef) -> Option<Lsn> {
        let ((), lsn) = self.change(|tables, changes| {
            if tables.queues.get(name).is_none_or(|entry| entry.queue != queue) {
                return;
            }
            let removed = tables.router.remove_queue(name.as_bytes());
            self.record_removed(tables, &removed, changes);
            if let Some(entry) = tables.queues.remove(name)
                && entry.durable
            {
                changes.remove(&self.queue_row(name, &entry));
            }
        })?;
        (lsn > Lsn::default()).then_some(lsn)
    }

    /// Records that exchanges and bindings are gone, as far as they were durable. The queues that bindings led to
    /// must still be in the tables.
    pub(crate) fn record_removed(&self, tables: &Tables, removed: &Removed, changes: &mut Changes) {
        let gone = removed.exchanges.iter().map(|exchange| (&exchange.name, exchange.durable)).collect();
        for binding in removed.bindings.iter().filter(|binding| tables.was_durable(binding, &gone)) {
            changes.remove(&self.binding_row(binding));
        }
        for exchange in removed.exchanges.iter().filter(|exchange| is_stored(exchange)) {
            changes.remove(&self.exchange_row(exchange));
        }
    }

    /// Empties the virtual host for ever. Returns the queues that are still on their shards.
    pub(crate) fn delete(&self, changes: &mut Changes) -> Vec<QueueRef> {
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
        for ((kind, _), policy) in &tables.policies {
            changes.remove(&self.policy_row(*kind, policy));
        }
        for parameter in tables.parameters.values() {
            changes.remove(&self.parameter_row(parameter));
        }
        changes.remove(&Row::Vhost(Arc::clone(&self.name)));
        let queues = tables.queues.values().map(|entry| entry.queue).collect();
        *tables = Tables { deleted: true, ..Tables::default() };
        self.generation.fetch_add(1, Ordering::Release);
        queues
    }

    pub(crate) fn exchange_row(&self, exchange: &ExchangeDefinition) -> Row {
        Row::Exchange { vhost: Arc::clone(&self.name), exchange: exchange.clone() }
    }

    pub(crate) fn queue_row(&self, name: &ShortString, entry: &QueueEntry) -> Row {
        let QueueEntry { queue, auto_delete, arguments, .. } = entry.clone();
        let queue = StoredQueue { name: name.clone(), id: queue.id, auto_delete, arguments };
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
