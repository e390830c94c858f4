//! The messages of a queue that are ready: by priority, and among equals those that came back before those
//! never delivered, and of these the resident before those that only the store has.

use std::collections::{BTreeMap, VecDeque};

use warren_types::Message;

use crate::command::Forgotten;

/// The time of messages that do not expire.
pub(crate) const NEVER: u64 = u64::MAX;

/// A message in its place.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Place in the queue: rises with every message accepted.
    pub seq: u64,
    /// When it came, in milliseconds of the queue's clock.
    pub at: u64,
    /// When it expires, in milliseconds of the queue's clock, or [`NEVER`].
    pub expires_at: u64,
    /// Bytes of its body.
    pub body_len: u32,
    /// Its priority, at most the queue's highest.
    pub priority: u8,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// Whether the store has it.
    pub stored: bool,
    /// Whether it survives a restart.
    pub persistent: bool,
    /// The message; none while only the store has it.
    pub message: Option<Message>,
}

impl Entry {
    /// What an entry takes in memory without its message, in bytes.
    const OVERHEAD: usize = 64;

    /// Bytes of memory, by estimate.
    pub(crate) fn memory(&self) -> usize {
        self.message.as_ref().map_or(Self::OVERHEAD, Message::memory)
    }

    pub(crate) fn forgotten(&self) -> Forgotten {
        let Self { seq, priority, persistent, body_len, .. } = *self;
        Forgotten { seq, priority, persistent, body_len }
    }
}

/// Messages that only the store has, behind all that are resident.
#[derive(Debug, Default, Clone, Copy)]
struct Paged {
    messages: u64,
    bytes: u64,
}

/// Whether paged messages were asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Loading {
    #[default]
    No,
    Asked,
    /// They were, and dropped since: that there are no more says nothing of what was paged out later.
    Outdated,
}

/// Messages of one priority.
///
/// What was delivered once stood before everything that never was, so returned messages always come first and
/// need no merging with the rest.
#[derive(Debug, Default)]
struct Level {
    fresh: VecDeque<Entry>,
    /// Memory of `fresh`, in bytes.
    fresh_memory: usize,
    returned: BTreeMap<u64, Entry>,
    paged: Paged,
    /// The last message that was ever in `fresh`: what is paged out comes after it.
    resident_up_to: Option<u64>,
    loading: Loading,
    /// Messages of `returned`, or that are to be buried, were asked for.
    fetching: bool,
}

impl Level {
    /// Fewest places kept allocated once a burst is over.
    const CAPACITY_KEPT: usize = 64;

    fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.returned.is_empty() && self.paged.messages == 0
    }

    /// Whether nothing is known of it that could still be of use.
    fn is_idle(&self) -> bool {
        self.is_empty() && self.loading == Loading::No && !self.fetching
    }

    /// The first message, if it is resident.
    fn first(&self) -> Option<&Entry> {
        let first = self.returned.first_key_value().map(|(_, entry)| entry).or_else(|| self.fresh.front());
        first.filter(|entry| entry.message.is_some())
    }

    /// Takes the first message, if it is resident.
    fn pop(&mut self) -> Option<Entry> {
        self.first()?;
        if let Some((_, entry)) = self.returned.pop_first() {
            return Some(entry);
        }
        let entry = self.fresh.pop_front()?;
        self.fresh_memory -= entry.memory();
        if self.fresh.capacity() > 4 * self.fresh.len().max(Self::CAPACITY_KEPT) {
            self.fresh.shrink_to(2 * self.fresh.len().max(Self::CAPACITY_KEPT));
        }
        Some(entry)
    }

    fn push(&mut self, entry: Entry) {
        self.resident_up_to = Some(entry.seq);
        self.fresh_memory += entry.memory();
        self.fresh.push_back(entry);
    }
}

/// What a level wants of the store.
#[derive(Debug)]
pub(crate) enum Request {
    /// Paged messages after a number, about so many bytes.
    Load { priority: u8, after: Option<u64>, bytes: usize },
    /// Returned messages, in rising order.
    Fetch { priority: u8, seqs: Vec<u64> },
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
    /// Memory of what is resident, in bytes.
    memory: usize,
    /// Messages that were counted in one by one and may expire: while there are none, nobody looks for them.
    expiring: usize,
}

impl Ready {
    /// Below so much resident memory of a level, paged messages are loaded while somebody wants them, in bytes.
    const LOW: usize = 128 * 1024;

    /// How much is loaded or fetched at a time while somebody wants messages, in bytes.
    const LOAD: usize = 256 * 1024;

    /// The same while memory is short, in bytes.
    const LOAD_SHORT: usize = 32 * 1024;

    /// How much is loaded if nobody wants messages, in bytes: the first must be resident, since it may expire.
    const LOAD_IDLE: usize = 4 * 1024;

    /// Most messages that are fetched at a time.
    const FETCH_MAX: usize = 64;

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

    /// Memory of what is resident, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// Whether messages of this priority are paged out, so that those behind them must be too.
    pub(crate) fn is_paged(&self, priority: u8) -> bool {
        self.find(priority).is_some_and(|level| level.paged.messages > 0)
    }

    /// Appends a resident message.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.count(&entry);
        self.level(entry.priority).push(entry);
    }

    /// Notes a message that was handed out without ever being ready: what is read of the store must not bring it again.
    pub(crate) fn pass(&mut self, entry: &Entry) {
        let level =
            if entry.priority == 0 { Some(&mut self.base) } else { self.higher.get_mut(&entry.priority) };
        if let Some(level) = level {
            level.resident_up_to = Some(entry.seq);
        }
    }

    /// Appends a message that only the store has.
    pub(crate) fn page_out(&mut self, priority: u8, seq: u64, body_len: u32) {
        let level = self.level(priority);
        if level.paged.messages == 0 {
            // What came before is resident, delivered or gone.
            level.resident_up_to = seq.checked_sub(1);
        }
        self.restore(priority, 1, u64::from(body_len));
    }

    /// Appends messages that only the store has.
    pub(crate) fn restore(&mut self, priority: u8, messages: u64, bytes: u64) {
        self.len += messages as usize;
        self.body_bytes += bytes;
        let paged = &mut self.level(priority).paged;
        paged.messages += messages;
        paged.bytes += bytes;
    }

    /// Puts a delivered message back in its place.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        self.count(&entry);
        self.level(entry.priority).returned.insert(entry.seq, entry);
    }

    /// Takes in the paged messages that follow the resident ones; `end` says that there are no more.
    pub(crate) fn loaded(&mut self, priority: u8, entries: Vec<Entry>, end: bool) {
        let level = self.level(priority);
        let is_outdated = std::mem::take(&mut level.loading) == Loading::Outdated;
        let mut paged = std::mem::take(&mut level.paged);
        self.len -= paged.messages as usize;
        self.body_bytes -= paged.bytes;
        for entry in entries {
            if self.level(priority).resident_up_to.is_some_and(|last| last >= entry.seq) {
                continue;
            }
            paged.messages = paged.messages.saturating_sub(1);
            paged.bytes = paged.bytes.saturating_sub(u64::from(entry.body_len));
            self.push(entry);
        }
        // What the store has is there and what it does not have is not, whatever was counted.
        let is_end = (end && !is_outdated) || paged.messages == 0;
        if !is_end {
            self.restore(priority, paged.messages, paged.bytes);
        }
        self.drop_idle(priority);
    }

    /// Takes in a returned message; none if the store does not have it any more.
    pub(crate) fn fetched(&mut self, priority: u8, seq: u64, message: Option<Message>) {
        let Some(entry) = self.level(priority).returned.get_mut(&seq) else { return };
        if entry.message.is_some() {
            return;
        }
        let before = entry.memory();
        match message {
            Some(message) => {
                entry.message = Some(message);
                let after = entry.memory();
                self.memory += after - before;
            }
            None => {
                let body_len = u64::from(entry.body_len);
                self.expiring -= usize::from(entry.expires_at != NEVER);
                self.level(priority).returned.remove(&seq);
                self.len -= 1;
                self.body_bytes -= body_len;
                self.memory -= before;
            }
        }
    }

    pub(crate) fn fetch_ended(&mut self, priority: u8) {
        self.level(priority).fetching = false;
        self.drop_idle(priority);
    }

    /// Notes that messages of a priority were asked for, unless some were already.
    pub(crate) fn begin_fetch(&mut self, priority: u8) -> bool {
        !std::mem::replace(&mut self.level(priority).fetching, true)
    }

    /// What should be asked of the store; `wanted` says whether somebody waits for messages, and `room` whether there
    /// is memory for many.
    pub(crate) fn requests(&mut self, wanted: bool, room: bool, requests: &mut Vec<Request>) {
        let (low, bytes) = match (wanted, room) {
            (true, true) => (Self::LOW, Self::LOAD),
            (true, false) => (Self::LOAD_SHORT, Self::LOAD_SHORT),
            (false, _) => (1, Self::LOAD_IDLE),
        };
        let levels =
            std::iter::once((0, &mut self.base)).chain(self.higher.iter_mut().map(|(p, level)| (*p, level)));
        for (priority, level) in levels {
            if level.paged.messages > 0 && level.loading == Loading::No && level.fresh_memory < low {
                level.loading = Loading::Asked;
                requests.push(Request::Load { priority, after: level.resident_up_to, bytes });
            }
            let is_away = level.returned.first_key_value().is_some_and(|(_, entry)| entry.message.is_none());
            if is_away && !level.fetching {
                level.fetching = true;
                let away = level.returned.values().filter(|entry| entry.message.is_none());
                requests.push(Request::Fetch { priority, seqs: Self::batch(away) });
            }
        }
    }

    /// Numbers of the first messages, as many as are fetched at a time; at least one if there is any.
    pub(crate) fn batch<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<u64> {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let before = bytes;
            bytes += entry.body_len as usize;
            before < Self::LOAD
        };
        entries.take_while(fits).take(Self::FETCH_MAX).map(|entry| entry.seq).collect()
    }

    /// Whether the first message of every priority is resident and nothing is paged out.
    pub(crate) fn is_resident(&self) -> bool {
        if self.higher.is_empty() && self.base.paged.messages == 0 && self.base.returned.is_empty() {
            return true;
        }
        let is_resident = |level: &Level| {
            level.paged.messages == 0
                && level.returned.first_key_value().is_none_or(|(_, entry)| entry.message.is_some())
        };
        is_resident(&self.base) && self.higher.values().all(is_resident)
    }

    /// Memory of the message that is next to be delivered, in bytes, if it is resident.
    pub(crate) fn next_memory(&self) -> Option<usize> {
        self.first_level().and_then(|(_, level)| level.first()).map(Entry::memory)
    }

    /// The highest priority that has messages.
    fn first_level(&self) -> Option<(u8, &Level)> {
        if self.higher.is_empty() {
            return (!self.base.is_empty()).then_some((0, &self.base));
        }
        let higher = self.higher.iter().rev().map(|(priority, level)| (*priority, level));
        higher.chain(std::iter::once((0, &self.base))).find(|(_, level)| !level.is_empty())
    }

    /// Takes the message that is next to be delivered, if it is resident.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        let (priority, _) = self.first_level()?;
        self.pop_of(priority)
    }

    /// Takes the message that gives way first, if it is resident: the oldest of the lowest priority.
    pub(crate) fn pop_lowest(&mut self) -> Option<Entry> {
        if !self.base.is_empty() {
            return self.pop_of(0);
        }
        let priority =
            self.higher.iter().find(|(_, level)| !level.is_empty()).map(|(priority, _)| *priority)?;
        self.pop_of(priority)
    }

    /// Takes a message that has expired at `now`, if one stands first among those of its priority.
    pub(crate) fn pop_expired(&mut self, now: u64) -> Option<Entry> {
        if self.expiring == 0 {
            return None;
        }
        let is_due = |level: &Level| level.first().is_some_and(|entry| entry.expires_at <= now);
        if is_due(&self.base) {
            return self.pop_of(0);
        }
        let priority = self.higher.iter().find(|(_, level)| is_due(level)).map(|(priority, _)| *priority)?;
        self.pop_of(priority)
    }

    /// When the next message expires that stands first among those of its priority.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        if self.expiring == 0 {
            return None;
        }
        std::iter::once(&self.base)
            .chain(self.higher.values())
            .filter_map(|level| level.first().map(|entry| entry.expires_at))
            .filter(|at| *at != NEVER)
            .min()
    }

    /// Priorities of which the store has ready messages.
    pub(crate) fn stored_priorities(&self) -> Vec<u8> {
        let levels = std::iter::once((0, &self.base)).chain(self.higher.iter().map(|(p, level)| (*p, level)));
        let is_stored = |level: &Level| {
            level.paged.messages > 0
                || level.fresh.iter().chain(level.returned.values()).any(|entry| entry.stored)
        };
        levels.filter(|(_, level)| is_stored(level)).map(|(priority, _)| priority).collect()
    }

    /// Drops everything; `last` is the highest number that was given.
    pub(crate) fn clear(&mut self, last: Option<u64>) {
        let levels = std::iter::once(&mut self.base).chain(self.higher.values_mut());
        for level in levels {
            let fetching = level.fetching;
            let loading = if level.loading == Loading::No { Loading::No } else { Loading::Outdated };
            *level = Level { loading, fetching, resident_up_to: last, ..Level::default() };
        }
        self.higher.retain(|_, level| !level.is_idle());
        (self.len, self.body_bytes, self.memory, self.expiring) = (0, 0, 0, 0);
    }

    fn pop_of(&mut self, priority: u8) -> Option<Entry> {
        let level = if priority == 0 { &mut self.base } else { self.higher.get_mut(&priority)? };
        let entry = level.pop()?;
        self.drop_idle(priority);
        self.len -= 1;
        self.body_bytes -= u64::from(entry.body_len);
        self.memory -= entry.memory();
        self.expiring -= usize::from(entry.expires_at != NEVER);
        Some(entry)
    }

    fn drop_idle(&mut self, priority: u8) {
        if priority > 0 && self.higher.get(&priority).is_some_and(Level::is_idle) {
            self.higher.remove(&priority);
        }
    }

    fn find(&self, priority: u8) -> Option<&Level> {
        if priority == 0 { Some(&self.base) } else { self.higher.get(&priority) }
    }

    fn level(&mut self, priority: u8) -> &mut Level {
        if priority == 0 { &mut self.base } else { self.higher.entry(priority).or_default() }
    }

    fn count(&mut self, entry: &Entry) {
        self.len += 1;
        self.body_bytes += u64::from(entry.body_len);
        self.memory += entry.memory();
        self.expiring += usize::from(entry.expires_at != NEVER);
    }
}
