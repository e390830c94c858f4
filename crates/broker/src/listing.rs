//! What there is: queues, exchanges, bindings, connections, as operators see them.
//!
//! Names and definitions are in the virtual hosts' tables; how many messages a queue has only its shard knows. It is
//! asked for a page of queues at a time, so that no listing keeps a shard from its work.

use std::sync::Arc;

use tokio::sync::oneshot;
use warren_router::{Binding, ExchangeDefinition};
use warren_types::{ConnectionId, ConsumerId, FieldTable, FieldValue, QueueRef, ShortString};

use crate::admin::AdminError;
use crate::broker::Broker;
use crate::policy::EffectivePolicies;
use crate::shard::{Inspect, ShardCommand};
use crate::vhost::{QueueEntry, Vhost};

/// Queues of a page: what is asked of the shards, and kept in memory, at a time.
pub const PAGE_LEN: usize = 1000;

/// A queue.
#[derive(Debug, Clone)]
pub struct QueueInfo {
    /// Its name.
    pub name: ShortString,
    /// It survives a restart.
    pub durable: bool,
    /// It goes with its last consumer.
    pub auto_delete: bool,
    /// The connection that it belongs to, if it is exclusive.
    pub owner: Option<ConnectionId>,
    /// What it was declared with.
    pub arguments: FieldTable,
    /// Where it lives.
    pub queue: QueueRef,
    /// The policies that apply to it.
    pub policies: EffectivePolicies,
    /// What its shard says of it.
    pub counts: QueueCounts,
}

impl QueueInfo {
    /// The queue's type, by RabbitMQ's name.
    #[must_use]
    pub fn kind(&self) -> String {
        let kind = self.arguments.get("x-queue-type").and_then(FieldValue::as_long_string);
        kind.map_or_else(|| "classic".to_owned(), |kind| String::from_utf8_lossy(kind).into_owned())
    }
}

/// What a queue's shard knows of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages that wait to be delivered.
    pub ready: usize,
    /// Messages that were delivered and are not settled.
    pub unacked: usize,
    /// Consumers.
    pub consumers: usize,
    /// Memory that its messages take, in bytes.
    pub memory: usize,
    /// What is stored of it cannot be read, so it does nothing any more.
    pub stopped: bool,
    /// Nobody gets messages until an operator resumes it.
    pub paused: bool,
    /// The consumer that gets all messages, if the queue has a single active consumer and anybody consumes.
    pub single_active: Option<(ConnectionId, ConsumerId)>,
}

/// The queues of a virtual host, in the order of their names, a page at a time.
#[derive(Debug)]
pub struct QueueListing {
    vhost: Arc<Vhost>,
    names: std::vec::IntoIter<ShortString>,
}

impl Broker {
    /// The queues of a virtual host.
    ///
    /// # Errors
    /// If there is no such virtual host.
    pub fn list_queues(&self, vhost: &str) -> Result<QueueListing, AdminError> {
        let vhost = self.find_vhost(vhost)?;
        let mut names: Vec<ShortString> = vhost.read().queues.keys().cloned().collect();
        names.sort_unstable();
        Ok(QueueListing { vhost, names: names.into_iter() })
    }

    /// The exchanges of a virtual host, in the order of their names.
    ///
    /// # Errors
    /// If there is no such virtual host.
    pub fn list_exchanges(&self, vhost: &str) -> Result<Vec<ExchangeDefinition>, AdminError> {
        let vhost = self.find_vhost(vhost)?;
        let mut exchanges: Vec<_> = vhost.read().router.exchanges().cloned().collect();
        exchanges.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(exchanges)
    }

    /// The bindings of a virtual host, without those that every queue has to the default exchange.
    ///
    /// # Errors
    /// If there is no such virtual host.
    pub fn list_bindings(&self, vhost: &str) -> Result<Vec<Binding>, AdminError> {
        let vhost = self.find_vhost(vhost)?;
        let mut bindings: Vec<_> = vhost.read().router.bindings().cloned().collect();
        bindings.sort_by(|a, b| {
            let key = |binding: &Binding| (binding.source.clone(), binding.destination.name().clone());
            key(a).cmp(&key(b)).then_with(|| a.routing_key.cmp(&b.routing_key))
        });
        Ok(bindings)
    }
}

impl QueueListing {
    /// How many queues are left at most.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is nothing left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.len() == 0
    }

    /// The names of the next page alone.
    #[must_use]
    pub fn next_names(&mut self) -> Vec<ShortString> {
        self.names.by_ref().take(PAGE_LEN).collect()
    }

    /// The next page; queues that are gone meanwhile are left out. Nothing when there are no more.
    pub async fn next_page(&mut self, broker: &Broker) -> Option<Vec<QueueInfo>> {
        if self.is_empty() {
            return None;
        }
        let names = self.next_names();
        let mut queues: Vec<QueueInfo> = {
            let tables = self.vhost.read();
            let entry = |name: ShortString| {
                let entry = tables.queues.get(&name)?;
                Some(QueueInfo::new(name, entry))
            };
            names.into_iter().filter_map(entry).collect()
        };
        let counts = broker.count(queues.iter().map(|queue| queue.queue)).await;
        let mut counts = counts.into_iter();
        queues.retain_mut(|queue| match counts.next().flatten() {
            Some(counts) => {
                queue.counts = counts;
                true
            }
            None => false,
        });
        Some(queues)
    }
}

impl QueueInfo {
    fn new(name: ShortString, entry: &QueueEntry) -> Self {
        Self {
            name,
            durable: entry.durable,
            auto_delete: entry.auto_delete,
            owner: entry.owner,
            arguments: entry.arguments.clone(),
            queue: entry.queue,
            policies: EffectivePolicies::from(entry.policy.as_deref()),
            counts: QueueCounts::default(),
        }
    }
}

impl Broker {
    /// Asks the shards for the counts of these queues, all shards at once; none for a queue that is gone.
    pub(crate) async fn count(&self, queues: impl Iterator<Item = QueueRef>) -> Vec<Option<QueueCounts>> {
        let mut of_shard: Vec<(Vec<usize>, Vec<QueueRef>)> = vec![Default::default(); self.shards.len()];
        let mut len = 0;
        for (at, queue) in queues.enumerate() {
            let (places, refs) = &mut of_shard[usize::from(queue.shard)];
            places.push(at);
            refs.push(queue);
            len = at + 1;
        }
        let asked = of_shard.into_iter().zip(&self.shards).filter(|((_, refs), _)| !refs.is_empty());
        let asked: Vec<_> = asked
            .map(|((places, queues), shard)| {
                let (answer, answers) = oneshot::channel();
                shard.mailbox.push(ShardCommand::Inspect(Box::new(Inspect { queues, answer })));
                (places, answers)
            })
            .collect();
        let mut counts = vec![None; len];
        for (places, answers) in asked {
            // A shard ends only with the process.
            for (at, count) in places.into_iter().zip(answers.await.unwrap_or_default()) {
                counts[at] = count;
            }
        }
        counts
    }
}
