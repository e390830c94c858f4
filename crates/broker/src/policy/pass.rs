//! Bringing the queues and exchanges of a virtual host in line with a policy that was set or cleared.

use std::sync::Arc;

use warren_queue::Command;
use warren_types::ShortString;

use super::{Change, EffectivePolicy};
use crate::events::Events;
use crate::queue_type::QueueType;
use crate::shard::{ShardCommand, ShardHandle};
use crate::vhost::{QueueEntry, Tables, Vhost};

/// Queues and exchanges of a page: how many are looked at before others have their turn at the virtual host.
const PAGE_LEN: usize = 1000;

/// A queue to which other policies apply.
type Changed<'a> = (&'a ShortString, QueueType);

/// What is left to bring in line. Whatever is declared meanwhile has the new policies anyway.
#[derive(Debug)]
pub(crate) struct Pass {
    vhost: Arc<Vhost>,
    shards: Vec<Arc<ShardHandle>>,
    events: Arc<Events>,
    change: Change,
    exchanges: std::vec::IntoIter<ShortString>,
    queues: std::vec::IntoIter<ShortString>,
}

impl Pass {
    pub(crate) fn new(
        vhost: Arc<Vhost>,
        shards: &[Arc<ShardHandle>],
        events: &Arc<Events>,
        change: Change,
    ) -> Self {
        let (exchanges, queues): (Vec<_>, Vec<_>) = {
            let tables = vhost.read();
            let exchanges = tables.router.exchanges().map(|exchange| exchange.name.clone());
            (exchanges.collect(), tables.queues.keys().cloned().collect())
        };
        Self {
            vhost,
            shards: shards.to_vec(),
            events: Arc::clone(events),
            change,
            exchanges: exchanges.into_iter(),
            queues: queues.into_iter(),
        }
    }

    /// Goes over a page. Returns whether there is more.
    pub(crate) fn page(&mut self) -> bool {
        let exchanges: Vec<_> = self.exchanges.by_ref().take(PAGE_LEN).collect();
        let queues: Vec<_> = self.queues.by_ref().take(PAGE_LEN - exchanges.len()).collect();
        if !exchanges.is_empty() {
            // Routes depend on it, which are looked up anew.
            self.vhost.change(|tables, _| {
                for name in &exchanges {
                    tables.apply_to_exchange(name.as_bytes());
                }
            });
        }
        if !queues.is_empty() {
            let changed = self.vhost.adjust(|tables| self.adjust(tables, &queues));
            match changed.flatten() {
                Some(changed) => self.tell(&changed),
                None => self.queues = Vec::new().into_iter(),
            }
        }
        !(self.exchanges.as_slice().is_empty() && self.queues.as_slice().is_empty())
    }

    /// Returns the queues to which other policies apply now; nothing if a later change sees to them all.
    fn adjust<'a>(&self, tables: &mut Tables, names: &'a [ShortString]) -> Option<Vec<Changed<'a>>> {
        if tables.policies.is_superseded(&self.change) {
            return None;
        }
        let Tables { queues, policies, .. } = tables;
        let mut commands: Vec<Vec<ShardCommand>> = self.shards.iter().map(|_| Vec::new()).collect();
        let mut changed = Vec::new();
        for name in names {
            let Some(entry) = queues.get_mut(name) else { continue };
            let Some(target) = entry.target() else { continue };
            let before = entry.policy.as_ref();
            let Some(now) = policies.reapply(&self.change, before, (target, name.as_bytes())) else {
                continue;
            };
            commands[usize::from(entry.queue.shard)].extend(configure(entry, now.as_deref()));
            entry.policy = now;
            changed.push((name, entry.queue_type()));
        }
        // Under the lock, so that no later change overtakes this one on its way to the queue.
        for (shard, commands) in self.shards.iter().zip(&mut commands) {
            shard.mailbox.append(commands);
        }
        Some(changed)
    }

    fn tell(&self, changed: &[Changed<'_>]) {
        for queue in changed {
            self.events.queue_policy(&self.vhost.name, *queue, self.change.policy());
        }
    }
}

/// Nothing if the queue does what the policies ask for already.
fn configure(entry: &QueueEntry, policy: Option<&EffectivePolicy>) -> Option<ShardCommand> {
    let settings = entry.settings(policy);
    if settings == entry.settings(entry.policy.as_deref()) {
        return None;
    }
    Some(ShardCommand::Apply(entry.queue, Command::Configure(Box::new(settings))))
}
