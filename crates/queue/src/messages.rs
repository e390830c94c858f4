//! The messages of a queue that are ready: those never delivered, in order, and those that came back.

use std::collections::{BTreeMap, VecDeque};

use warren_types::Message;

/// A message in its place.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Place in the queue: rises with every message accepted.
    pub position: u64,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// The message.
    pub message: Message,
}

/// Ready messages by place.
///
/// What was delivered once stood before everything that never was, so returned messages always come first and
/// need no merging with the rest.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    fresh: VecDeque<Entry>,
    returned: BTreeMap<u64, Entry>,
}

impl Ready {
    /// Fewest places kept allocated once a burst is over.
    const CAPACITY_KEPT: usize = 64;

    pub(crate) fn len(&self) -> usize {
        self.fresh.len() + self.returned.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.returned.is_empty()
    }

    /// Appends a message.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.fresh.push_back(entry);
    }

    /// Puts a delivered message back in its place.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        debug_assert!(self.fresh.front().is_none_or(|fresh| entry.position < fresh.position));
        self.returned.insert(entry.position, entry);
    }

    /// Takes the first message.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        if let Some((_, entry)) = self.returned.pop_first() {
            return Some(entry);
        }
        let entry = self.fresh.pop_front()?;
        if self.fresh.capacity() > 4 * self.fresh.len().max(Self::CAPACITY_KEPT) {
            self.fresh.shrink_to(2 * self.fresh.len().max(Self::CAPACITY_KEPT));
        }
        Some(entry)
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
