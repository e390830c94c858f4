//! The broker as it was stored, rebuilt at the start.

use std::sync::Arc;

use warren_queue::Settings;
use warren_router::BindError;
use warren_store::Journal;

use crate::auth::Resource;
use crate::changes::Changes;
use crate::clock::{Clock, Reading};
use crate::dedup::RecoveredKeys;
use crate::directory::Directory;
use crate::metadata::{RestoreError, Row, StoredQueue};
use crate::policy::Rule;
use crate::queue_arguments;
use crate::shard::{QueueIds, ShardHandle};
use crate::system_exchange::SystemExchange;
use crate::vhost::{QueueDefinition, Tables, Vhost, gate_of, gate_settings};

/// Each start numbers queues from a multiple of this: ids of transient queues and of deleted ones are not known any
/// more, and must not be used again while something of them may still be stored.
const IDS_PER_START: u64 = 1 << 40;

/// What came of what was stored.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    pub directory: Directory,
    /// The keys of messages that queues had.
    pub keys: RecoveredKeys,
    /// How often the broker was started before.
    starts: u64,
    /// What the clocks showed last.
    clocks: Option<Reading>,
    /// Above the ids of all queues.
    queue_id_min: u64,
}

/// Rebuilds everything; queues wait in the mailboxes of their shards. The changes are the repairs that it needed.
///
/// # Errors
/// If something that was stored makes no sense.
pub(crate) fn restore(
    mut stored: Vec<(Vec<u8>, Vec<u8>)>,
    journal: &Arc<dyn Journal>,
    shards: &[Arc<ShardHandle>],
    system_exchanges: Vec<Arc<SystemExchange>>,
) -> Result<(Restored, Changes), RestoreError> {
    // The order of tags is one in which everything comes behind what it needs.
    stored.sort_unstable();
    // But queues start as policies have them.
    let (first, rest): (Vec<_>, Vec<_>) =
        stored.into_iter().partition(|(key, _)| Row::is_needed_for_queues(key));
    let directory = Directory { system_exchanges, ..Directory::default() };
    let mut restored = Restored { directory, ..Restored::default() };
    let mut context = Context { journal, shards, changes: Changes::default() };
    for (key, value) in first.into_iter().chain(rest) {
        let row = Row::decode(&key, &value)?;
        restored.add(&row, &mut context).map_err(|reason| RestoreError::new(row.label(), reason))?;
    }
    for vhost in restored.directory.vhosts.values() {
        vhost.change(|tables, _| {
            let names: Vec<_> = tables.router.exchanges().map(|exchange| exchange.name.clone()).collect();
            for name in names {
                tables.apply_to_exchange(name.as_bytes());
            }
        });
    }
    restored.drop_orphan_keys(&mut context.changes);
    Ok((restored, context.changes))
}

impl Restored {
    /// Begins a new life of the broker; returns the ids for its queues, and its clock.
    pub(crate) fn begin(&self, changes: &mut Changes) -> (QueueIds, Clock) {
        let (clock, jump) = Clock::start(self.clocks.as_ref());
        if let Some(jump) = jump {
            tracing::warn!("{jump}");
        }
        changes.put(&Row::Clocks(clock.read()));
        let starts = self.starts + 1;
        changes.put(&Row::Starts(starts));
        (QueueIds::starting_at(self.queue_id_min.max(starts * IDS_PER_START)), clock)
    }

    /// Forgets the keys of queues that are gone: the broker stopped before their last rows were removed.
    fn drop_orphan_keys(&mut self, changes: &mut Changes) {
        if self.keys.is_empty() {
            return;
        }
        let known = self.directory.queue_ids();
        self.keys.retain(|queue, keys| {
            let is_known = known.contains(queue);
            if !is_known {
                keys.iter().for_each(|key| changes.remove(&Row::DedupKey { queue: *queue, key: *key }));
            }
            is_known
        });
    }

    fn add(&mut self, row: &Row, context: &mut Context<'_>) -> Result<(), String> {
        let directory = &mut self.directory;
        match row {
            Row::Starts(starts) => self.starts = *starts,
            Row::Clocks(reading) => self.clocks = Some(reading.clone()),
            Row::Vhost(name) => {
                let vhost = Vhost::new(name, Arc::clone(context.journal))
                    .with_system_exchanges(&directory.system_exchanges);
                directory.vhosts.insert(name.to_string(), Arc::new(vhost));
            }
            Row::User(user) => {
                directory.users.insert(user.name.clone(), Arc::new(user.clone()));
            }
            Row::Permissions { vhost, user, permissions } => {
                if !directory.users.contains_key(user) {
                    return Err("there is no such user".to_owned());
                }
                let permissions = Arc::new(permissions.clone());
                directory.permissions.insert((vhost.to_string(), user.clone()), permissions);
            }
            Row::Queue { queue, .. } => self.queue_id_min = self.queue_id_min.max(queue.id.0 + 1),
            Row::DedupKey { queue, key } => self.keys.entry(*queue).or_default().push(*key),
            Row::Exchange { .. } | Row::Binding { .. } | Row::Policy { .. } | Row::Parameter { .. } => {}
        }
        let Some(vhost) = row.vhost() else { return Ok(()) };
        let vhost = directory.vhosts.get(&**vhost).ok_or("there is no such virtual host")?;
        let (added, _) = vhost
            .change(|tables, _| add_to_vhost(row, vhost, tables, context))
            .ok_or("its virtual host is deleted")?;
        added
    }
}

/// What restoring a row needs beside what was restored before.
struct Context<'a> {
    journal: &'a Arc<dyn Journal>,
    shards: &'a [Arc<ShardHandle>],
    /// The repairs.
    changes: Changes,
}

fn add_to_vhost(
    row: &Row,
    vhost: &Arc<Vhost>,
    tables: &mut Tables,
    context: &mut Context<'_>,
) -> Result<(), String> {
    match row {
        Row::Exchange { exchange, .. } => {
            tables.router.declare_exchange(exchange.clone()).map_err(|difference| difference.to_string())?;
        }
        Row::Queue { queue, .. } => match gate_of(&queue.name, &queue.arguments) {
            None => add_queue(queue, vhost, tables, context.shards)?,
            Some(exchange) => match tables.router.exchange(exchange.as_bytes()).cloned() {
                Some(exchange) => {
                    let settings = gate_settings(vhost, &exchange).map_err(|error| error.explanation)?;
                    drop(vhost.add_gate(tables, context.shards, queue.id, &exchange, settings))
                }
                // The exchange was deleted, and the broker stopped before its queue was.
                None => context.changes.remove(row),
            },
        },
        Row::Binding { binding, .. } => match tables.router.bind(binding.clone()) {
            Ok(_) => {}
            Err(error @ (BindError::NoSource | BindError::NoDestination)) => {
                tracing::warn!("the {} is dropped: {error}", row.label());
                context.changes.remove(row);
            }
            Err(error) => return Err(error.to_string()),
        },
        Row::Policy { kind, policy, .. } => {
            tables.policies.set(Rule::restored(*kind, policy.clone()));
        }
        Row::Parameter { parameter, .. } => {
            let key = (parameter.component.clone(), parameter.name.clone());
            tables.parameters.insert(key, parameter.clone());
        }
        Row::Starts(_)
        | Row::Clocks(_)
        | Row::Vhost(_)
        | Row::User(_)
        | Row::Permissions { .. }
        | Row::DedupKey { .. } => {}
    }
    Ok(())
}

fn add_queue(
    queue: &StoredQueue,
    vhost: &Arc<Vhost>,
    tables: &mut Tables,
    shards: &[Arc<ShardHandle>],
) -> Result<(), String> {
    let StoredQueue { name, id, auto_delete, state, arguments } = queue.clone();
    let label = Resource::Queue(name.as_bytes()).label(&vhost.name);
    let settings = queue_arguments::parse(&arguments, &label).map_err(|error| error.explanation)?;
    let settings = Settings { paused: state.paused, ..settings };
    let definition =
        QueueDefinition { id, name, durable: true, auto_delete, owner: None, arguments, settings, state };
    vhost.add_queue(tables, shards, definition);
    Ok(())
}
