//! What a shard is asked.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use slab::Slab;
use tokio::sync::oneshot;
use warren_queue::{Command, Forgotten, Publish, QueueOptions};
use warren_store::{Gone, Install, LoadError, LoadedMessages, Lsn, SharedBody, Snapshot};
use warren_types::{ChannelId, ConnectionId, QueueId, QueueRef, ShortString};

use crate::connections::UnackedByChannel;
use crate::listing::QueueCounts;
use crate::mailbox::Mailbox;
use crate::ports::Port;
use crate::vhost::Vhost;

use super::browse::{Browse, Moving, Read, Take};

/// What sessions ask of a shard, and what shards and the store tell each other.
#[derive(Debug)]
pub(crate) enum ShardCommand {
    /// Make the connection known; always the first that a connection sends.
    Attach(ConnectionId, Arc<Port>),
    /// The connection sends nothing any more.
    Detach(ConnectionId),
    /// Add a queue.
    Create(Box<NewQueue>),
    /// A command for a queue that may be gone; then it is settled as far as anyone waits for it.
    Apply(QueueRef, Command),
    /// A message whose body several shards store, but only one writes.
    Share(QueueRef, Box<(Publish, Arc<SharedBody>)>),
    /// A dead letter from another queue, and what keeps it in that queue.
    DeadLetter(QueueRef, Box<(Publish, Option<Arc<Buried>>)>),
    /// A dead letter has arrived wherever it goes.
    Forget(QueueRef, Forgotten),
    /// Messages were read from the store.
    Loaded(QueueRef, Box<Loaded>),
    /// A command whose reply somebody waits for.
    Call(Box<Call>),
    /// A channel, or the whole connection, is gone.
    Gone(ConnectionId, Option<ChannelId>),
    /// The store does something with all queues.
    Store(StoreCommand),
    /// Somebody wants to know how queues are.
    Inspect(Box<Inspect>),
    /// An operator wants to see messages.
    Browse(Box<Browse>),
    /// Messages were read that an operator wants to see.
    Browsed(Box<Read>),
    /// An operator takes messages out.
    Take(Box<Take>),
    /// Somebody wants to know how many unacked messages channels have.
    CountUnacked(oneshot::Sender<UnackedByChannel>),
}

/// Asks how these queues are; none is answered for one that is gone.
#[derive(Debug)]
pub(crate) struct Inspect {
    pub queues: Vec<QueueRef>,
    pub answer: oneshot::Sender<Vec<Option<QueueCounts>>>,
}

/// What the store does with all queues of a shard.
#[derive(Debug)]
pub(crate) enum StoreCommand {
    /// Tell what a checkpoint must know.
    Snapshot { up_to: Lsn, relocate: Option<u32>, answer: Sender<Snapshot> },
    /// Learn what a checkpoint did.
    Install(Arc<Install>, Sender<()>),
    /// Something is gone of which no shard has an index.
    Gone(Gone),
    /// Nothing follows: tell from which message on queues were never read.
    Stop(Sender<Vec<(QueueId, u64)>>),
}

#[derive(Debug)]
pub(crate) struct NewQueue {
    pub options: QueueOptions,
    pub vhost: Arc<Vhost>,
    /// Messages in its store may expire by themselves.
    pub has_expirations: bool,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub queue: QueueRef,
    pub connection: ConnectionId,
    pub channel: ChannelId,
    /// For the answer if there is no such queue any more.
    pub name: ShortString,
    pub vhost: Arc<Vhost>,
    pub command: Command,
}

/// Messages that were asked for.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub priority: u8,
    pub asked: Asked,
    pub result: Result<LoadedMessages, LoadError>,
}

/// Which messages were asked for.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    /// Those that follow, about so many bytes of them.
    Next { after: Option<u64>, bytes: usize },
    /// When those expire that follow, about so many bytes of them.
    Expirations { after: Option<u64>, bytes: usize },
    /// These, in rising order.
    These(Vec<u64>),
}

/// A stored message that goes elsewhere: it stays in its queue's store until all its new queues have it in theirs, so
/// that a crash may double but not lose it.
#[derive(Debug)]
pub(crate) struct Buried {
    pub shard: Arc<ShardHandle>,
    pub queue: QueueRef,
    pub leaving: Leaving,
}

/// How a message leaves its queue.
#[derive(Debug)]
pub(crate) enum Leaving {
    /// As a dead letter, whether or not anybody takes it.
    DeadLetter(Forgotten),
    /// Because an operator wants it, unless nobody takes it.
    Moving(Moving),
}

impl Drop for Buried {
    fn drop(&mut self) {
        let told = match &self.leaving {
            Leaving::DeadLetter(gone) => Some(ShardCommand::Forget(self.queue, *gone)),
            Leaving::Moving(moving) => moving.end().map(|command| ShardCommand::Apply(self.queue, command)),
        };
        if let Some(told) = told {
            self.shard.mailbox.push(told);
        }
    }
}

/// How sessions reach a shard.
#[derive(Debug)]
pub(crate) struct ShardHandle {
    pub mailbox: Mailbox<ShardCommand>,
    /// Which slots of the shard's table are taken.
    slots: Mutex<Slab<()>>,
}

impl ShardHandle {
    pub(crate) fn new() -> Self {
        Self { mailbox: Mailbox::default(), slots: Mutex::new(Slab::new()) }
    }

    /// Takes a free slot.
    pub(crate) fn reserve_slot(&self) -> u32 {
        let slot = self.slots.lock().unwrap_or_else(PoisonError::into_inner).insert(());
        u32::try_from(slot).expect("four billion queues do not fit into memory")
    }

    pub(super) fn free_slot(&self, slot: u32) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(slot as usize);
    }
}
