//! Where the stored messages of one queue are. The index belongs to the queue's shard: nothing here locks or waits.
//!
//! The youngest messages are in the log, and the index has an entry for each. Older ones have been moved to extents,
//! runs of records in a compact file, of which the index has only the borders and what is gone from them: a few bits for
//! each message at most. The log is bounded, so the index is too, whatever the backlog.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use warren_types::QueueId;

use crate::checkpoint::{Install, Relocated, Snapshot};
use crate::extents::{Extent, ExtentKey};
use crate::journal::Lsn;
use crate::load::{Load, LoadedMessages, Reached, ReadCursor, RecordAt, Source};
use crate::log::Log;
use crate::marks::Learned;
use crate::segment::Segment;

/// A compact file, and how much of it is alive.
#[derive(Debug)]
pub(crate) struct CompactFile {
    pub segment: Arc<Segment>,
    /// Length of the file, in bytes.
    pub len: AtomicU64,
    /// Bytes of the records that are not gone.
    pub live_len: AtomicU64,
}

impl CompactFile {
    pub(crate) fn shrink(&self, bytes: u64) {
        // What extents report is rounded; less than nothing would be very much.
        let _previous = self
            .live_len
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |live| Some(live.saturating_sub(bytes)));
    }
}

/// Messages and the bytes of their bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

impl Count {
    pub(crate) fn add(&mut self, body_len: u64) {
        self.messages += 1;
        self.bytes += body_len;
    }
}

/// A message in the log: 24 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogEntry {
    /// The number in the upper 56 bits, flags in the lower 8.
    seq_and_flags: u64,
    /// The record that has the body.
    pub at: Lsn,
    /// Length of that record.
    pub len: u32,
    pub body_len: u32,
}

const PERSISTENT: u64 = 1;
const GONE: u64 = 2;
/// Gone before the entry's move to a compact file began: it is not among what is moved.
const LEFT_BEHIND: u64 = 4;

impl LogEntry {
    pub(crate) fn seq(&self) -> u64 {
        self.seq_and_flags >> 8
    }

    pub(crate) fn is_persistent(&self) -> bool {
        self.seq_and_flags & PERSISTENT != 0
    }

    fn is_gone(&self) -> bool {
        self.seq_and_flags & GONE != 0
    }

    pub(crate) fn record(&self) -> RecordAt {
        let (seq, persistent) = (self.seq(), self.is_persistent());
        RecordAt { seq, at: self.at, len: self.len, persistent }
    }
}

/// A message to be noted in an index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewEntry {
    pub seq: u64,
    pub at: Lsn,
    pub len: u32,
    pub body_len: u32,
    pub persistent: bool,
}

/// The messages of one priority.
#[derive(Debug, Default)]
pub(crate) struct Level {
    pub priority: u8,
    /// In the order of the queue, all before what is in the log.
    pub extents: VecDeque<Extent>,
    pub log: VecDeque<LogEntry>,
    /// Entries at the front of `log` that are being moved to a compact file.
    moving: usize,
    /// Where reading came to.
    cursor: Option<Reached>,
}

/// Where the stored messages of a queue are.
#[derive(Debug)]
pub struct QueueIndex {
    queue: QueueId,
    /// By rising priority; in most queues there is one.
    levels: Vec<Level>,
    /// Extents that are gone since the last checkpoint.
    removed: Vec<ExtentKey>,
}

impl QueueIndex {
    /// An empty index.
    #[must_use]
    pub fn new(queue: QueueId) -> Self {
        Self { queue, levels: Vec::new(), removed: Vec::new() }
    }

    /// The queue it belongs to.
    #[must_use]
    pub fn queue(&self) -> QueueId {
        self.queue
    }

    /// Priorities that have messages, and how many.
    pub fn counts(&self) -> impl Iterator<Item = (u8, Count)> + '_ {
        self.levels
            .iter()
            .map(|level| (level.priority, level.count()))
            .filter(|(_, count)| count.messages > 0)
    }

    pub(crate) fn level(&mut self, priority: u8) -> &mut Level {
        let index = match self.levels.binary_search_by_key(&priority, |level| level.priority) {
            Ok(index) => index,
            Err(index) => {
                self.levels.insert(index, Level { priority, ..Level::default() });
                index
            }
        };
        &mut self.levels[index]
    }

    fn find(&self, priority: u8) -> Option<&Level> {
        self.levels.iter().find(|level| level.priority == priority)
    }

    /// Notes where the record of a message is, once it is known.
    pub(crate) fn placed(&mut self, priority: u8, seq: u64, at: Lsn, len: u32) {
        let level = self.level(priority);
        if let Some(index) = level.find_in_log(seq) {
            let entry = &mut level.log[index];
            (entry.at, entry.len) = (at, len);
        }
    }

    pub(crate) fn stored(&mut self, priority: u8, new: NewEntry) {
        let flags = if new.persistent { PERSISTENT } else { 0 };
        self.level(priority).log.push_back(LogEntry {
            seq_and_flags: new.seq << 8 | flags,
            at: new.at,
            len: new.len,
            body_len: new.body_len,
        });
    }

    /// A message is gone.
    pub fn forget(&mut self, priority: u8, seq: u64, body_len: u64) {
        let Self { queue, levels, removed } = self;
        if let Some(level) = levels.iter_mut().find(|level| level.priority == priority) {
            level.forget(seq, body_len);
            level.drop_empty_extents(*queue, removed);
        }
    }

    /// All messages of a priority up to `last` are gone, except for some, in rising order.
    pub fn forget_all(&mut self, priority: u8, last: u64, except: &[u64]) {
        let Self { queue, levels, removed } = self;
        if let Some(level) = levels.iter_mut().find(|level| level.priority == priority) {
            level.forget_all(last, except);
            level.drop_empty_extents(*queue, removed);
        }
    }

    /// What to read to get the messages of a priority that follow `after`, about `bytes` of them; none if there are no
    /// more.
    pub(crate) fn load(&self, log: &Log, priority: u8, after: Option<u64>, bytes: usize) -> Option<Load> {
        let level = self.find(priority)?;
        level.load(log, after, bytes, level.cursor)
    }

    /// The same for somebody who keeps to himself where reading came to.
    pub(crate) fn load_beside(
        &self,
        log: &Log,
        priority: u8,
        after: Option<u64>,
        bytes: usize,
        cursor: ReadCursor,
    ) -> Option<Load> {
        self.find(priority)?.load(log, after, bytes, cursor.0)
    }

    /// What to read to get these messages, in rising order; what is in different places takes several reads.
    pub(crate) fn fetch(&self, log: &Log, priority: u8, seqs: &[u64]) -> Vec<Load> {
        self.find(priority).map(|level| level.fetch(log, seqs)).unwrap_or_default()
    }

    /// Notes up to where was read, so that the next read goes on there, and where messages were found.
    pub fn loaded(&mut self, priority: u8, loaded: &LoadedMessages) {
        for learned in &loaded.learned {
            self.level(priority).learn(learned);
        }
        if loaded.reached.is_some() {
            self.level(priority).cursor = loaded.reached;
        }
    }

    /// Whether the message is there.
    #[must_use]
    pub fn has(&self, priority: u8, seq: u64) -> bool {
        self.find(priority).is_some_and(|level| level.has(seq))
    }

    /// Adds to `snapshot` what a checkpoint must know. Messages in the log before `up_to` begin their move.
    pub fn snapshot(&mut self, up_to: Lsn, relocate: Option<u32>, snapshot: &mut Snapshot) {
        for level in &mut self.levels {
            level.drop_all_empty_extents(self.queue, &mut self.removed);
            level.begin_move(self.queue, up_to, snapshot);
            for extent in &mut level.extents {
                let key = ExtentKey { queue: self.queue, priority: level.priority, first: extent.first };
                *snapshot.live.entry(extent.file.segment.number).or_default() += extent.live_len();
                if std::mem::take(&mut extent.dirty) {
                    snapshot.dirty.push((key, extent.row()));
                }
                if relocate == Some(extent.file.segment.number) {
                    snapshot.relocate.push((key, extent.clone()));
                }
            }
        }
        snapshot.gone.extents.append(&mut self.removed);
    }

    /// Ends the move that a snapshot began.
    pub fn install(&mut self, install: &Install) {
        let queue = self.queue;
        let Self { levels, removed, .. } = self;
        for level in levels {
            level.end_move(install.extents_of(queue, level.priority));
            for relocated in install.relocated_of(queue, level.priority) {
                level.relocate(relocated);
            }
            level.drop_empty_extents(queue, removed);
        }
    }

    /// Keys of all extents, of a queue that is gone.
    pub fn into_removed(mut self) -> Vec<ExtentKey> {
        for level in &self.levels {
            for extent in &level.extents {
                level.drop_extent(self.queue, extent, &mut self.removed);
            }
        }
        self.removed
    }
}

impl Level {
    /// Fewest entries kept allocated once a burst is over.
    const CAPACITY_KEPT: usize = 64;

    fn count(&self) -> Count {
        let mut count = Count::default();
        for extent in &self.extents {
            let extent = extent.count();
            count.messages += extent.messages;
            count.bytes += extent.bytes;
        }
        self.log
            .iter()
            .filter(|entry| !entry.is_gone())
            .for_each(|entry| count.add(u64::from(entry.body_len)));
        count
    }

    pub(crate) fn last_seq(&self) -> Option<u64> {
        self.log.back().map(LogEntry::seq).or_else(|| self.extents.back().map(|extent| extent.last))
    }

    fn find_in_log(&self, seq: u64) -> Option<usize> {
        let first = self.log.front()?.seq();
        let guess = usize::try_from(seq.checked_sub(first)?).ok()?;
        if self.log.get(guess).is_some_and(|entry| entry.seq() == seq) {
            return Some(guess);
        }
        self.log.binary_search_by_key(&seq, LogEntry::seq).ok()
    }

    fn find_extent(&self, seq: u64) -> Option<usize> {
        let index = self.extents.partition_point(|extent| extent.last < seq);
        self.extents.get(index).filter(|extent| extent.first <= seq).map(|_| index)
    }

    fn has(&self, seq: u64) -> bool {
        match self.find_in_log(seq) {
            Some(index) => !self.log[index].is_gone(),
            None => self.find_extent(seq).is_some_and(|index| self.extents[index].has(seq)),
        }
    }

    fn forget(&mut self, seq: u64, body_len: u64) {
        if let Some(index) = self.find_in_log(seq) {
            self.log[index].seq_and_flags |= GONE;
            self.drop_leading();
        } else if let Some(index) = self.find_extent(seq) {
            self.extents[index].forget(seq, body_len);
        }
    }

    fn forget_all(&mut self, last: u64, except: &[u64]) {
        for extent in self.extents.iter_mut().take_while(|extent| extent.first <= last) {
            extent.forget_all(last, except);
        }
        for entry in self.log.iter_mut().take_while(|entry| entry.seq() <= last) {
            if except.binary_search(&entry.seq()).is_err() {
                entry.seq_and_flags |= GONE;
            }
        }
        self.drop_leading();
    }

    fn drop_leading(&mut self) {
        if self.moving > 0 {
            return;
        }
        while self.log.front().is_some_and(LogEntry::is_gone) {
            self.log.pop_front();
        }
        if self.log.capacity() > 4 * self.log.len().max(Self::CAPACITY_KEPT) {
            self.log.shrink_to(2 * self.log.len().max(Self::CAPACITY_KEPT));
        }
    }

    fn drop_empty_extents(&mut self, queue: QueueId, removed: &mut Vec<ExtentKey>) {
        while let Some(extent) = self.extents.pop_front_if(|extent| extent.is_empty()) {
            self.drop_extent(queue, &extent, removed);
        }
        // Others that empty go when they come to the front, or at the next checkpoint.
    }

    /// Behind a message that stays for long, extents come and go; each keeps its file as long as it is there.
    fn drop_all_empty_extents(&mut self, queue: QueueId, removed: &mut Vec<ExtentKey>) {
        if !self.extents.iter().any(Extent::is_empty) {
            return;
        }
        let (empty, kept) = std::mem::take(&mut self.extents).into_iter().partition(Extent::is_empty);
        self.extents = kept;
        let empty: VecDeque<Extent> = empty;
        empty.iter().for_each(|extent| self.drop_extent(queue, extent, removed));
    }

    /// An extent is gone, with what is still in it.
    fn drop_extent(&self, queue: QueueId, extent: &Extent, removed: &mut Vec<ExtentKey>) {
        extent.file.shrink(extent.live_len());
        removed.push(ExtentKey { queue, priority: self.priority, first: extent.first });
    }

    fn load(&self, log: &Log, after: Option<u64>, bytes: usize, cursor: Option<Reached>) -> Option<Load> {
        let from = after.map_or(0, |after| after + 1);
        self.read_extent(from, bytes, cursor).or_else(|| self.read_log(log, from, bytes)).map(Load)
    }

    fn read_extent(&self, from: u64, bytes: usize, cursor: Option<Reached>) -> Option<Source> {
        let index = self.extents.partition_point(|extent| extent.last < from);
        let extent = self.extents.range(index..).find(|extent| !extent.is_empty())?;
        let start = match cursor {
            // What was read before the extent was copied to another file says nothing of that.
            Some(Reached { file, last, offset })
                if file == extent.file.segment.number
                    && last < from
                    && (extent.first..=extent.last).contains(&last) =>
            {
                offset
            }
            _ => extent.offset,
        };
        Some(Source::Extent {
            segment: Arc::clone(&extent.file.segment),
            offset: start,
            end: extent.offset + extent.len,
            from,
            last: extent.last,
            bytes,
        })
    }

    fn read_log(&self, log: &Log, from: u64, bytes: usize) -> Option<Source> {
        let index = self.log.partition_point(|entry| entry.seq() < from);
        let mut records = Records::new(log);
        for entry in self.log.range(index..).filter(|entry| !entry.is_gone()) {
            records.push(entry);
            if records.bytes >= bytes {
                break;
            }
        }
        records.into_source()
    }

    fn fetch(&self, log: &Log, seqs: &[u64]) -> Vec<Load> {
        let mut records = Records::new(log);
        let mut by_extent: Vec<(usize, Vec<u64>)> = Vec::new();
        for seq in seqs {
            if let Some(index) = self.find_in_log(*seq) {
                records.push(&self.log[index]);
            } else if let Some(index) = self.find_extent(*seq) {
                match by_extent.last_mut() {
                    Some((last, wanted)) if *last == index => wanted.push(*seq),
                    _ => by_extent.push((index, vec![*seq])),
                }
            }
        }
        let mut loads = Vec::new();
        for (index, wanted) in by_extent {
            let Extent { file, offset, len, first, marks, .. } = &self.extents[index];
            loads.push(Load(Source::Chosen {
                segment: Arc::clone(&file.segment),
                offset: *offset,
                len: *len,
                first: *first,
                marks: marks.clone(),
                wanted,
            }));
        }
        loads.extend(records.into_source().map(Load));
        loads
    }

    fn learn(&mut self, learned: &Learned) {
        if let Some(index) = self.find_extent(learned.first)
            && self.extents[index].first == learned.first
        {
            self.extents[index].learn(learned);
        }
    }

    /// Everything up to the last entry whose body is before `up_to` moves, so that what moved is always a beginning of
    /// the level.
    fn begin_move(&mut self, queue: QueueId, up_to: Lsn, snapshot: &mut Snapshot) {
        debug_assert_eq!(self.moving, 0, "one move at a time");
        let Some(last) = self.log.iter().rposition(|entry| entry.at < up_to) else { return };
        self.moving = last + 1;
        let mut entries = Vec::new();
        for entry in self.log.range_mut(..self.moving) {
            if entry.is_gone() {
                entry.seq_and_flags |= LEFT_BEHIND;
            } else {
                entries.push(*entry);
            }
        }
        if !entries.is_empty() {
            snapshot.moving.push((queue, self.priority, entries));
        }
    }

    fn end_move(&mut self, extents: &[Extent]) {
        self.extents.extend(extents.iter().cloned());
        let moved: Vec<LogEntry> = self.log.drain(..std::mem::take(&mut self.moving)).collect();
        for entry in moved {
            if entry.is_gone() && entry.seq_and_flags & LEFT_BEHIND == 0 {
                self.forget(entry.seq(), u64::from(entry.body_len));
            }
        }
        self.drop_leading();
        // What has moved will not come back.
        self.log.shrink_to(self.log.len() + self.log.len() / 4);
    }

    fn relocate(&mut self, relocated: &Relocated) {
        if let Some(index) = self.find_extent(relocated.key.first)
            && self.extents[index].first == relocated.key.first
        {
            self.extents[index].relocate(relocated);
        }
    }
}

/// Records to be read, with the segments that have them.
struct Records<'a> {
    log: &'a Log,
    records: Vec<RecordAt>,
    segments: Vec<Arc<Segment>>,
    bytes: usize,
    end: Lsn,
}

impl<'a> Records<'a> {
    fn new(log: &'a Log) -> Self {
        Self { log, records: Vec::new(), segments: Vec::new(), bytes: 0, end: Lsn::default() }
    }

    fn push(&mut self, entry: &LogEntry) {
        self.bytes += entry.len as usize;
        self.end = self.end.max(entry.record().end());
        let number = entry.at.segment();
        if !self.segments.iter().any(|segment| segment.number == number) {
            self.segments.extend(self.log.segment(number));
        }
        self.records.push(entry.record());
    }

    fn into_source(self) -> Option<Source> {
        (!self.records.is_empty()).then_some(Source::Log {
            records: self.records,
            segments: self.segments,
            end: self.end,
        })
    }
}
