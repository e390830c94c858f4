//! The messages of a queue that are ready: by priority, and among equals those that came back before those
//! never delivered.

use std::collections::{BTreeMap, VecDeque};

use warren_types::Message;

/// The time of messages that do not expire.
pub(crate) const NEVER: u64 = u64::MAX;

/// A message in its place.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Place in the queue: rises with every message accepted.
    pub position: u64,
    /// When it expires, in milliseconds of the queue's clock, or [`NEVER`].
    pub expires_at: u64,
    /// Its priority, at most the queue's highest.
    pub priority: u8,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// The message.
    pub message: Message,
}

/// Messages of one priority.
///
/// What was delivered once stood before everything that never was, so returned messages always come first and
/// need no merging with the rest.
#[derive(Debug, Default)]
struct Level {
    fresh: VecDeque<Entry>,
    returned: BTreeMap<u64, Entry>,
}

impl Level {
    /// Fewest places kept allocated once a burst is over.
    const CAPACITY_KEPT: usize = 64;

    fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.returned.is_empty()
    }

    fn first(&self) -> Option<&Entry> {
        self.returned.first_key_value().map(|(_, entry)| entry).or_else(|| self.fresh.front())
    }

    fn pop(&mut self) -> Option<Entry> {
        if let Some((_, entry)) = self.returned.pop_first() {
            return Some(entry);
        }
        let entry = self.fresh.pop_front()?;
        if self.fresh.capacity() > 4 * self.fresh.len().max(Self::CAPACITY_KEPT) {
            self.fresh.shrink_to(2 * self.fresh.len().max(Self::CAPACITY_KEPT));
        }
        Some(entry)
    }
}

/// All ready messages. A priority costs nothing unless there are messages of it.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// Priority 0: in most queues there is no other.
    base: Level,
    /// Higher priorities that have messages.
    higher: BTreeMap<u8, Level>,
    len: usize,
    body_bytes: u64,
}

impl Ready {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all bodies.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Appends a message.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.count(&entry);
        self.level(entry.priority).fresh.push_back(entry);
    }

    /// Puts a delivered message back in its place.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        self.count(&entry);
        self.level(entry.priority).returned.insert(entry.position, entry);
    }

    /// Takes the message that is next to be delivered.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        match self.higher.keys().next_back().copied() {
            Some(priority) => self.pop_of(priority),
            None => self.pop_of(0),
        }
    }

    /// Takes the message that gives way first: the oldest of the lowest priority.
    pub(crate) fn pop_lowest(&mut self) -> Option<Entry> {
        if !self.base.is_empty() {
            return self.pop_of(0);
        }
        let priority = self.higher.keys().next().copied()?;
        self.pop_of(priority)
    }

    /// Takes a message that has expired at `now`, if one stands first among those of its priority.
    pub(crate) fn pop_expired(&mut self, now: u64) -> Option<Entry> {
        let is_due = |level: &Level| level.first().is_some_and(|entry| entry.expires_at <= now);
        if is_due(&self.base) {
            return self.pop_of(0);
        }
        let priority = self.higher.iter().find(|(_, level)| is_due(level)).map(|(priority, _)| *priority)?;
        self.pop_of(priority)
    }

    /// When the next message expires that stands first among those of its priority.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        std::iter::once(&self.base)
            .chain(self.higher.values())
            .filter_map(|level| level.first().map(|entry| entry.expires_at))
            .filter(|at| *at != NEVER)
            .min()
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn pop_of(&mut self, priority: u8) -> Option<Entry> {
        let level = if priority == 0 { &mut self.base } else { self.higher.get_mut(&priority)? };
        let entry = level.pop()?;
        if priority > 0 && level.is_empty() {
            self.higher.remove(&priority);
        }
        self.len -= 1;
        self.body_bytes -= entry.message.body_len() as u64;
        Some(entry)
    }

    fn level(&mut self, priority: u8) -> &mut Level {
        if priority == 0 { &mut self.base } else { self.higher.entry(priority).or_default() }
    }

    fn count(&mut self, entry: &Entry) {
        self.len += 1;
        self.body_bytes += entry.message.body_len() as u64;
    }
}
