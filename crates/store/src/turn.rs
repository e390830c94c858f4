//! What a shard appends in one turn.

use std::sync::{Mutex, PoisonError};

use warren_types::{Message, QueueId};

use crate::index::{NewEntry, QueueIndex};
use crate::journal::Lsn;
use crate::record::{AllUpTo, Range, TARGETS_MAX, Target};
use crate::records::{Placed, Records};
use crate::store::Store;

/// A message for queues of several shards: its body is written by the first shard that stores it.
#[derive(Debug, Default)]
pub struct SharedBody(Mutex<Option<(Lsn, u32)>>);

/// A message that one queue stores.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// The queue's place in the shard, given back when the record's place is known.
    pub slot: u32,
    /// The message's number.
    pub seq: u64,
    /// Its priority.
    pub priority: u8,
    /// When it was put into the queue, in milliseconds.
    pub at: u64,
    /// Whether it survives a restart.
    pub persistent: bool,
    /// The message.
    pub message: &'a Message,
    /// If other shards store it too.
    pub shared: Option<&'a SharedBody>,
}

/// A message whose targets are being collected: queues that get it one after the other share one record.
#[derive(Debug)]
struct Open {
    message: Message,
    at: u64,
    persistent: bool,
    shared: Option<(Lsn, u32)>,
    targets: Vec<Target>,
    slots: Vec<u32>,
}

/// Records of one turn.
#[derive(Debug, Default)]
pub struct Turn {
    records: Records,
    open: Option<Open>,
    placed: Vec<(u32, Target, Placed)>,
    forgotten: Vec<Range>,
    /// Spare lists for the next message.
    spare: (Vec<Target>, Vec<u32>),
}

impl Turn {
    /// Stores a message of the queue that `index` belongs to.
    pub fn store(&mut self, store: &Store, index: &mut QueueIndex, new: Stored<'_>) {
        let Stored { slot, seq, priority, at, persistent, message, shared } = new;
        let target = Target { queue: index.queue(), priority, seq };
        let same = self.open.as_ref().is_some_and(|open| {
            open.message.is_same(message)
                && open.persistent == persistent
                && open.at == at
                && open.targets.len() < TARGETS_MAX
        });
        if !same {
            self.close();
            let shared = shared.map(|shared| store.shared_body(shared, at, message));
            let (targets, slots) = std::mem::take(&mut self.spare);
            self.open = Some(Open { message: message.clone(), at, persistent, shared, targets, slots });
        }
        let body_len = message.body_len() as u32;
        let mut entry = NewEntry { seq, at: Lsn(0), len: 0, body_len, persistent };
        if let Some(open) = &mut self.open {
            open.targets.push(target);
            open.slots.push(slot);
            if let Some((lsn, len)) = open.shared {
                (entry.at, entry.len) = (lsn, len);
            }
        }
        index.stored(priority, entry);
    }

    /// A stored message of the queue that `index` belongs to is gone.
    pub fn forget(
        &mut self,
        index: &mut QueueIndex,
        priority: u8,
        seq: u64,
        persistent: bool,
        body_len: u64,
    ) {
        index.forget(priority, seq, body_len);
        // What does not survive a restart needs no record of its end.
        if !persistent {
            return;
        }
        let queue = index.queue();
        if let Some(last) = self.forgotten.last_mut()
            && last.queue == queue
            && last.priority == priority
            && last.first + u64::from(last.count) == seq
        {
            last.count += 1;
            last.body_bytes += body_len;
            return;
        }
        self.forgotten.push(Range { queue, priority, first: seq, count: 1, body_bytes: body_len });
    }

    /// All stored messages of a priority up to `last` are gone, except for some, in rising order.
    pub fn forget_all(&mut self, index: &mut QueueIndex, priority: u8, last: u64, except: &[u64]) {
        index.forget_all(priority, last, except);
        self.close();
        let last = Target { queue: index.queue(), priority, seq: last };
        self.records.forget_all(&AllUpTo { last, except: except.to_vec() });
    }

    /// The queues that were never read from which message on, as the last thing a shard tells.
    pub fn stop(&mut self, undelivered: &[(QueueId, u64)]) {
        self.close();
        self.records.stop(undelivered);
    }

    /// Appends everything and returns where it ends; none if there was nothing. `place` is told for each message where
    /// its record is.
    pub fn append(&mut self, store: &Store, mut place: impl FnMut(u32, PlacedMessage)) -> Option<Lsn> {
        self.close();
        if !self.forgotten.is_empty() {
            self.records.forget(&self.forgotten);
            self.forgotten.clear();
        }
        if self.records.is_empty() {
            return None;
        }
        let (base, end) = store.log().append(&mut self.records);
        for (slot, target, placed) in self.placed.drain(..) {
            place(slot, PlacedMessage { target, at: placed.at(base), len: placed.len });
        }
        Some(end)
    }

    /// Ends the record of the last message.
    fn close(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        match open.shared {
            Some((body, _)) => {
                self.records.reference(open.persistent, open.at, &open.targets, body);
            }
            None => {
                let placed = self.records.message(open.persistent, open.at, &open.targets, &open.message);
                let targets = open.slots.iter().zip(&open.targets);
                self.placed.extend(targets.map(|(slot, target)| (*slot, *target, placed)));
            }
        }
        open.targets.clear();
        open.slots.clear();
        self.spare = (open.targets, open.slots);
    }
}

/// Where a message's record is.
#[derive(Debug, Clone, Copy)]
pub struct PlacedMessage {
    target: Target,
    at: Lsn,
    len: u32,
}

impl PlacedMessage {
    /// Notes it in the index of the message's queue.
    pub fn note(self, index: &mut QueueIndex) {
        if index.queue() == self.target.queue {
            index.placed(self.target.priority, self.target.seq, self.at, self.len);
        }
    }
}

impl Store {
    fn shared_body(&self, shared: &SharedBody, at: u64, message: &Message) -> (Lsn, u32) {
        let mut body = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        *body.get_or_insert_with(|| {
            let mut records = Records::default();
            let placed = records.shared(at, message);
            let (base, _) = self.log().append(&mut records);
            (placed.at(base), placed.len)
        })
    }
}
