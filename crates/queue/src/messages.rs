//! The messages of a queue that are ready: by priority, and among equals those that came back before those
//! never delivered, and of these the resident before those that only the store has.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use warren_types::Message;

use crate::command::{Expiration, Forgotten};
use crate::due::{Due, Item};
use crate::groups::{Bucket, NO_BUCKET};

/// The time of messages that do not expire.
pub(crate) const NEVER: u64 = u64::MAX;

/// A message in its place.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Place in the queue: rises with every message accepted.
    pub seq: u64,
    /// When it came, in milliseconds of the queue's clock.
    pub at: u64,
    /// When it expires by itself, whatever the queue's own limit, in milliseconds of the queue's clock, or [`NEVER`].
    pub expires_at: u64,
    /// Bytes of its body.
    pub body_len: u32,
    /// Its priority, at most the queue's highest.
    pub priority: u8,
    /// The bucket of its group, if the queue has groups.
    pub bucket: Bucket,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// How often its delivery failed.
    pub failed: u16,
    /// How often it was delivered since the broker was started.
    pub acquired: u16,
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

/// How far the stored messages of a priority were looked through for those that expire by themselves.
#[derive(Debug, Clone, Copy)]
struct Scan {
    /// The last message that was looked at.
    after: Option<u64>,
    /// Messages from this number on came after the restart: it is known of them.
    below: u64,
    asked: bool,
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
    /// What was taken out from the middle leaves a hole, which is an entry without its message. There is none at the
    /// front.
    fresh: VecDeque<Entry>,
    holes: usize,
    /// Memory of `fresh`, in bytes.
    fresh_memory: usize,
    returned: BTreeMap<u64, Entry>,
    paged: Paged,
    /// The last message that was ever in `fresh`: what is paged out comes after it.
    resident_up_to: Option<u64>,
    loading: Loading,
    /// Messages of `returned`, or that are to be buried, were asked for.
    fetching: bool,
    /// After a restart, until it is known which of the paged messages expire.
    scan: Option<Scan>,
}

impl Level {
    /// Fewest places kept allocated once a burst is over.
    const CAPACITY_KEPT: usize = 64;

    fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.returned.is_empty() && self.paged.messages == 0
    }

    /// Whether nothing is known of it that could still be of use.
    fn is_idle(&self) -> bool {
        self.is_empty() && self.loading == Loading::No && !self.fetching && self.scan.is_none()
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
        if self.holes > 0 {
            self.close_holes();
        }
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

    /// Takes a message out wherever it is, if it is ready; one that is paged out comes without its contents, if it is
    /// there.
    fn take_out(&mut self, item: &Item, is_there: impl FnOnce() -> bool) -> Option<Entry> {
        if let Some(entry) = self.returned.remove(&item.seq) {
            return Some(entry);
        }
        if let Ok(index) = self.fresh.binary_search_by_key(&item.seq, |entry| entry.seq) {
            let place = &mut self.fresh[index];
            let message = place.message.take()?;
            let entry = Entry { message: Some(message), ..place.clone() };
            self.fresh_memory -= entry.memory();
            self.holes += 1;
            self.close_holes();
            return Some(entry);
        }
        if !self.is_paged_out(item.seq) || !is_there() {
            return None;
        }
        self.paged.messages -= 1;
        self.paged.bytes = self.paged.bytes.saturating_sub(u64::from(item.body_len));
        let Item { at, seq, priority, persistent, body_len } = *item;
        Some(Entry {
            seq,
            at,
            expires_at: at,
            body_len,
            priority,
            bucket: NO_BUCKET,
            redelivered: false,
            failed: 0,
            acquired: 0,
            stored: true,
            persistent,
            message: None,
        })
    }

    /// Lets no hole be at the front, nor holes be most of it.
    fn close_holes(&mut self) {
        while self.fresh.front().is_some_and(|entry| entry.message.is_none()) {
            self.fresh.pop_front();
            self.holes -= 1;
        }
        if self.holes > Self::CAPACITY_KEPT.max(self.fresh.len() / 2) {
            self.fresh.retain(|entry| entry.message.is_some());
            self.holes = 0;
        }
    }

    fn is_paged_out(&self, seq: u64) -> bool {
        self.paged.messages > 0 && self.resident_up_to.is_none_or(|last| seq > last)
    }

    /// Whether a message may still be ready.
    fn may_have(&self, seq: u64) -> bool {
        self.returned.contains_key(&seq)
            || self.fresh.front().is_some_and(|first| first.seq <= seq)
            || self.is_paged_out(seq)
    }
}

/// Where a message stands that is not paged out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Among those that came back.
    Returned(u64),
    /// Behind them.
    Fresh(u64),
}

/// A set of priorities.
#[derive(Debug, Default, Clone, Copy)]
struct Priorities([u64; 4]);

impl Priorities {
    fn insert(&mut self, priority: u8) {
        self.0[usize::from(priority / 64)] |= 1 << (priority % 64);
    }

    fn iter(mut self) -> impl Iterator<Item = u8> {
        std::iter::from_fn(move || {
            let word = self.0.iter().position(|word| *word != 0)?;
            let bit = self.0[word].trailing_zeros();
            self.0[word] &= self.0[word] - 1;
            Some(word as u8 * 64 + bit as u8)
        })
    }
}

/// What a level wants of the store.
#[derive(Debug)]
pub(crate) enum Request {
    /// Paged messages after a number, about so many bytes.
    Load { priority: u8, after: Option<u64>, bytes: usize },
    /// Returned messages, in rising order.
    Fetch { priority: u8, seqs: Vec<u64> },
    /// When the paged messages after a number expire, about so many bytes of them.
    Scan { priority: u8, after: Option<u64>, bytes: usize },
}

/// Whether somebody waits for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Nothing,
    /// The next ones.
    Next,
    /// Others than those that are resident.
    Others,
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
    /// Priorities that may have something to ask for.
    changed: Priorities,
    /// Those that expire by themselves, and some that are not ready any more.
    due: Due,
    now: u64,
}

impl Ready {
    /// Below so much resident memory of a level, paged messages are loaded while somebody wants them, in bytes.
    const LOW: usize = 128 * 1024;

    /// The same while those that are resident are for nobody who could take one, in bytes.
    const LOW_OTHERS: usize = 16 * Self::LOW;

    /// How much is loaded or fetched at a time while somebody wants messages, in bytes.
    const LOAD: usize = 256 * 1024;

    /// The same while memory is short, in bytes.
    const LOAD_SHORT: usize = 32 * 1024;

    /// How much is loaded if nobody wants messages, in bytes: the first must be resident, since it may expire.
    const LOAD_IDLE: usize = 4 * 1024;

    /// Most messages that are fetched at a time: those that are due stand anywhere, and what lies between is read over.
    const FETCH_MAX: usize = 512;

    /// How much is looked through at a time for messages that expire, in bytes.
    const SCAN: usize = 1024 * 1024;

    /// Messages that are known to expire and may be gone, beyond twice those that are ready.
    const STALE_MAX: usize = 4096;

    /// What follows happens at `now` milliseconds.
    pub(crate) fn set_time(&mut self, now: u64) {
        self.now = now;
    }

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
        self.note_expiration(&entry);
        self.count(&entry);
        self.level(entry.priority).push(entry);
    }

    /// Appends a message that was paged out, so that it is known when it expires unless it was not looked at yet.
    fn take_in(&mut self, entry: Entry) {
        if self.level(entry.priority).scan.is_some() {
            self.note_expiration(&entry);
        }
        self.count(&entry);
        self.level(entry.priority).push(entry);
    }

    /// Notes a message that was handed out without ever being ready: what is read of the store must not bring it again.
    pub(crate) fn pass(&mut self, entry: &Entry) {
        if let Some(level) = self.level_mut(entry.priority) {
            level.resident_up_to = Some(entry.seq);
        }
    }

    /// Appends a message that only the store has.
    pub(crate) fn page_out(&mut self, entry: &Entry) {
        let level = self.level(entry.priority);
        if level.paged.messages == 0 {
            // What came before is resident, delivered or gone.
            level.resident_up_to = entry.seq.checked_sub(1);
        }
        self.note_expiration(entry);
        self.restore(entry.priority, 1, u64::from(entry.body_len));
    }

    /// Has the messages of a priority that were restored, `below` a number, looked through for those that expire.
    pub(crate) fn scan(&mut self, priority: u8, below: u64) {
        self.level(priority).scan = Some(Scan { after: None, below, asked: false });
    }

    /// Takes in what a scan found; `last` is the last message that was looked at, none if there are no more.
    pub(crate) fn scanned(&mut self, priority: u8, expirations: &[Expiration], last: Option<u64>) {
        let level = self.level(priority);
        // The scan ends if everything was dropped meanwhile.
        let Some(Scan { below, .. }) = level.scan else { return };
        level.scan =
            last.is_some_and(|last| last < below).then_some(Scan { after: last, below, asked: false });
        for found in expirations.iter().filter(|found| found.seq < below) {
            if self.level(priority).is_paged_out(found.seq) {
                let Expiration { seq, at, persistent, body_len } = *found;
                self.due.insert(self.now, Item { at, seq, priority, persistent, body_len });
            }
        }
        self.drop_idle(priority);
    }

    fn note_expiration(&mut self, entry: &Entry) {
        if entry.expires_at != NEVER {
            let Entry { seq, expires_at: at, body_len, priority, persistent, .. } = *entry;
            self.due.insert(self.now, Item { at, seq, priority, persistent, body_len });
        }
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
        self.note_expiration(&entry);
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
            self.take_in(entry);
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

    /// What should be asked of the store; `room` says whether there is memory for many messages.
    pub(crate) fn requests(&mut self, wanted: Wanted, room: bool, requests: &mut Vec<Request>) {
        let idle = (1, Self::LOAD_IDLE);
        let most = match (wanted, room) {
            (Wanted::Others, true) => (Self::LOW_OTHERS, Self::LOAD),
            (Wanted::Next, true) => (Self::LOW, Self::LOAD),
            (Wanted::Next | Wanted::Others, false) => (Self::LOAD_SHORT, Self::LOAD_SHORT),
            (Wanted::Nothing, _) => idle,
        };
        let first = self.first_level().map_or(0, |(priority, _)| priority);
        self.changed.insert(first);
        for priority in std::mem::take(&mut self.changed).iter() {
            let level = if priority == 0 { Some(&mut self.base) } else { self.higher.get_mut(&priority) };
            let Some(level) = level else { continue };
            // Only what is next is wanted; of the rest the first must be there, since it may expire.
            let (low, bytes) = if priority == first { most } else { idle };
            if level.paged.messages > 0 && level.loading == Loading::No && level.fresh_memory < low {
                level.loading = Loading::Asked;
                requests.push(Request::Load { priority, after: level.resident_up_to, bytes });
            }
            if let Some(Scan { after, asked: asked @ false, .. }) = &mut level.scan {
                *asked = true;
                requests.push(Request::Scan { priority, after: *after, bytes: Self::SCAN });
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

    /// Whether there is surely nothing to ask for; most queues have all they need.
    pub(crate) fn is_resident(&self) -> bool {
        let base = &self.base;
        self.higher.is_empty() && base.paged.messages == 0 && base.returned.is_empty() && base.scan.is_none()
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

    /// Takes a message whose own expiration has come, wherever it stands. One that is paged out comes without its
    /// contents; `is_there` tells by priority and number whether such a one has not left meanwhile.
    pub(crate) fn pop_due(&mut self, is_there: impl Fn(u8, u64) -> bool) -> Option<Entry> {
        while let Some(item) = self.due.pop(self.now) {
            if let Some(entry) = self.take_out(&item, || is_there(item.priority, item.seq)) {
                return Some(entry);
            }
        }
        if self.due.len() > 2 * self.len + Self::STALE_MAX {
            self.forget_stale();
        }
        None
    }

    /// The first message of priority 0 behind a place, resident or not, without those that are paged out; and its place.
    pub(crate) fn next_behind(&self, place: Option<Place>) -> Option<(Place, &Entry)> {
        let level = &self.base;
        let (after_returned, after_fresh) = match place {
            None => (Bound::Unbounded, 0),
            Some(Place::Returned(seq)) => (Bound::Excluded(seq), 0),
            Some(Place::Fresh(seq)) => (Bound::Excluded(u64::MAX), seq + 1),
        };
        if let Some((seq, entry)) = level.returned.range((after_returned, Bound::Unbounded)).next() {
            return Some((Place::Returned(*seq), entry));
        }
        let from = level.fresh.partition_point(|entry| entry.seq < after_fresh);
        let entry = level.fresh.range(from..).find(|entry| entry.message.is_some())?;
        Some((Place::Fresh(entry.seq), entry))
    }

    /// Takes a resident message of priority 0 out, wherever it stands.
    pub(crate) fn take(&mut self, place: Place) -> Option<Entry> {
        let (Place::Returned(seq) | Place::Fresh(seq)) = place;
        // What the rest says is of no use for messages that are not paged out.
        self.take_out(&Item { at: NEVER, seq, priority: 0, persistent: false, body_len: 0 }, || true)
    }

    /// Takes a message out that was looked at, if it is ready. What is paged out comes without its contents.
    pub(crate) fn take_chosen(&mut self, item: &Item, is_there: impl FnOnce() -> bool) -> Option<Entry> {
        self.take_out(item, is_there)
    }

    /// Puts a message back to where it stood, though it was not delivered.
    pub(crate) fn put_in_place(&mut self, entry: Entry) {
        self.note_expiration(&entry);
        let level = self.level(entry.priority);
        if entry.stored && level.is_paged_out(entry.seq) {
            self.restore(entry.priority, 1, u64::from(entry.body_len));
            return;
        }
        level.resident_up_to = level.resident_up_to.max(Some(entry.seq));
        if level.fresh.front().is_none_or(|first| first.seq > entry.seq) {
            self.count(&entry);
            self.level(entry.priority).returned.insert(entry.seq, entry);
            return;
        }
        let memory = entry.memory();
        self.count(&entry);
        let level = self.level(entry.priority);
        level.fresh_memory += memory;
        match level.fresh.binary_search_by_key(&entry.seq, |other| other.seq) {
            Ok(hole) => {
                level.fresh[hole] = entry;
                level.holes -= 1;
            }
            Err(index) => level.fresh.insert(index, entry),
        }
    }

    /// The highest priority that has messages, of those up to one.
    pub(crate) fn priority_up_to(&self, most: u8) -> Option<u8> {
        let higher = self.higher.range(..=most).rev().map(|(priority, level)| (*priority, level));
        let mut levels = higher.chain(std::iter::once((0, &self.base)));
        levels.find(|(_, level)| !level.is_empty()).map(|(priority, _)| priority)
    }

    /// The messages of a priority behind a number that are not paged out, in the order of their numbers.
    pub(crate) fn behind(&self, priority: u8, after: Option<u64>) -> impl Iterator<Item = &Entry> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let level = self.find(priority);
        let returned =
            level.into_iter().flat_map(move |level| level.returned.range((from, Bound::Unbounded)));
        let mut returned = returned.map(|(_, entry)| entry).peekable();
        let fresh = level.into_iter().flat_map(move |level| {
            let first = level.fresh.partition_point(|entry| after.is_some_and(|after| entry.seq <= after));
            level.fresh.range(first..).filter(|entry| entry.message.is_some())
        });
        let mut fresh = fresh.peekable();
        std::iter::from_fn(move || match (returned.peek(), fresh.peek()) {
            (Some(one), Some(other)) if other.seq < one.seq => fresh.next(),
            (Some(_), _) => returned.next(),
            (None, _) => fresh.next(),
        })
    }

    /// Behind which number messages of a priority are paged out, if any are.
    pub(crate) fn paged_behind(&self, priority: u8) -> Option<Option<u64>> {
        let level = self.find(priority).filter(|level| level.paged.messages > 0)?;
        Some(level.resident_up_to)
    }

    /// Whether a message of this number would be paged out, if there is one.
    pub(crate) fn is_paged_out(&self, priority: u8, seq: u64) -> bool {
        self.find(priority).is_some_and(|level| level.is_paged_out(seq))
    }

    /// A message that is not paged out, if it is ready.
    pub(crate) fn get(&self, priority: u8, seq: u64) -> Option<&Entry> {
        let level = self.find(priority)?;
        let fresh = || {
            let index = level.fresh.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
            level.fresh.get(index).filter(|entry| entry.message.is_some())
        };
        level.returned.get(&seq).or_else(fresh)
    }

    /// Takes the message of a number out, if it is ready; `is_there` tells of one that would be paged out.
    fn take_out(&mut self, item: &Item, is_there: impl FnOnce() -> bool) -> Option<Entry> {
        let level = self.level_mut(item.priority)?;
        let was_paged = level.is_paged_out(item.seq);
        let entry = level.take_out(item, is_there)?;
        self.drop_idle(item.priority);
        self.len -= 1;
        self.body_bytes = self.body_bytes.saturating_sub(u64::from(entry.body_len));
        if !was_paged {
            self.memory -= entry.memory();
        }
        Some(entry)
    }

    /// Most messages are gone before they expire, and nobody tells.
    fn forget_stale(&mut self) {
        let (base, higher) = (&self.base, &self.higher);
        let may_have = |item: &Item| match item.priority {
            0 => base.may_have(item.seq),
            priority => higher.get(&priority).is_some_and(|level| level.may_have(item.seq)),
        };
        self.due.retain(self.now, may_have);
    }

    /// Whether there are messages that expire by themselves.
    pub(crate) fn may_expire(&self) -> bool {
        self.due.len() > 0
    }

    /// When the next message expires by itself.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.due.next()
    }

    /// Takes a message that came at `up_to` or before, if one stands first among those of its priority.
    pub(crate) fn pop_older(&mut self, up_to: u64) -> Option<Entry> {
        let is_older = |level: &Level| level.first().is_some_and(|entry| entry.at <= up_to);
        if is_older(&self.base) {
            return self.pop_of(0);
        }
        let priority =
            self.higher.iter().find(|(_, level)| is_older(level)).map(|(priority, _)| *priority)?;
        self.pop_of(priority)
    }

    /// When the oldest came of those that stand first among those of their priority.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let levels = std::iter::once(&self.base).chain(self.higher.values());
        levels.filter_map(|level| level.first().map(|entry| entry.at)).min()
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
        self.due = Due::default();
        (self.len, self.body_bytes, self.memory) = (0, 0, 0);
    }

    fn pop_of(&mut self, priority: u8) -> Option<Entry> {
        let entry = self.level_mut(priority)?.pop()?;
        self.drop_idle(priority);
        self.len -= 1;
        self.body_bytes -= u64::from(entry.body_len);
        self.memory -= entry.memory();
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

    /// A level that is there, which is about to change.
    fn level_mut(&mut self, priority: u8) -> Option<&mut Level> {
        self.changed.insert(priority);
        if priority == 0 { Some(&mut self.base) } else { self.higher.get_mut(&priority) }
    }

    fn level(&mut self, priority: u8) -> &mut Level {
        self.changed.insert(priority);
        if priority == 0 { &mut self.base } else { self.higher.entry(priority).or_default() }
    }

    fn count(&mut self, entry: &Entry) {
        self.len += 1;
        self.body_bytes += u64::from(entry.body_len);
        self.memory += entry.memory();
    }
}
