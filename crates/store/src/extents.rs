//! Extents: runs of records of one level of a queue in a compact file.

use std::sync::Arc;

use roaring::RoaringBitmap;
use warren_types::QueueId;

use crate::checkpoint::Relocated;
use crate::index::{CompactFile, Count};
use crate::marks::{Learned, Marks};
use crate::record::{u32_at, u64_at};

/// Longest extent, in bytes, unless one message alone is longer: bounds what is read to find one message for the first
/// time.
pub(crate) const EXTENT_LEN_MAX: u64 = 8 * 1024 * 1024;

/// Most numbers that an extent spans.
pub(crate) const EXTENT_SPAN_MAX: u64 = u32::MAX as u64;

/// What tells an extent from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtentKey {
    pub(crate) queue: QueueId,
    pub(crate) priority: u8,
    /// Number of its first message.
    pub(crate) first: u64,
}

impl ExtentKey {
    pub(crate) fn encode(self) -> [u8; 17] {
        let mut bytes = [0; 17];
        bytes[..8].copy_from_slice(&self.queue.0.to_be_bytes());
        bytes[8] = self.priority;
        bytes[9..].copy_from_slice(&self.first.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 17] = bytes.try_into().ok()?;
        let u64_be = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Some(Self { queue: QueueId(u64_be(0)), priority: bytes[8], first: u64_be(9) })
    }
}

/// An extent as the table has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExtentRow {
    pub file: u32,
    pub offset: u64,
    pub len: u64,
    pub last: u64,
    /// How many records it has, of what is there and what is not.
    pub records: u64,
    /// Bytes of the bodies of what is there.
    pub body_bytes: u64,
    pub gone: RoaringBitmap,
}

impl ExtentRow {
    const HEAD_LEN: usize = 44;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::HEAD_LEN + self.gone.serialized_size());
        bytes.extend_from_slice(&self.file.to_le_bytes());
        for value in [self.offset, self.len, self.last, self.records, self.body_bytes] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        self.gone.serialize_into(&mut bytes).expect("a vector takes everything");
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, gone) = bytes.split_at_checked(Self::HEAD_LEN)?;
        Some(Self {
            file: u32_at(head, 0),
            offset: u64_at(head, 4),
            len: u64_at(head, 12),
            last: u64_at(head, 20),
            records: u64_at(head, 28),
            body_bytes: u64_at(head, 36),
            gone: RoaringBitmap::deserialize_from(gone).ok()?,
        })
    }
}

/// A run of records in a compact file: messages of one level of a queue, in order.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub file: Arc<CompactFile>,
    pub offset: u64,
    /// In bytes.
    pub len: u64,
    pub first: u64,
    pub last: u64,
    /// How many records it has.
    records: u64,
    /// Bytes of these records that are not bodies.
    heads_len: u64,
    /// Bytes of the bodies of what is there.
    body_bytes: u64,
    /// Distances to `first` of what is not there: gone, or never in the extent.
    gone: RoaringBitmap,
    /// How many messages are there: counting `gone` takes long where numbers are far apart, as with many priorities.
    live: u64,
    /// Distances of what does not survive a restart, and the bytes of the bodies of it.
    transient: RoaringBitmap,
    transient_bytes: u64,
    /// Where some of its records start, once that was of interest.
    pub marks: Option<Arc<Marks>>,
    /// The table does not have it as it is.
    pub dirty: bool,
}

impl Extent {
    /// An extent to which [`Extent::push`] adds messages.
    pub(crate) fn new(file: Arc<CompactFile>, offset: u64, first: u64) -> Self {
        Self {
            file,
            offset,
            len: 0,
            first,
            last: first,
            records: 0,
            heads_len: 0,
            body_bytes: 0,
            gone: RoaringBitmap::new(),
            live: 0,
            transient: RoaringBitmap::new(),
            transient_bytes: 0,
            marks: None,
            dirty: false,
        }
    }

    pub(crate) fn from_row(key: ExtentKey, row: ExtentRow, file: Arc<CompactFile>) -> Self {
        let mut extent = Self {
            offset: row.offset,
            len: row.len,
            last: row.last,
            records: row.records,
            body_bytes: row.body_bytes,
            gone: row.gone,
            ..Self::new(file, row.offset, key.first)
        };
        extent.live = extent.count_live();
        // The row does not tell how long the bodies were that are gone: as long as the others, on average.
        let bodies = u128::from(extent.body_bytes) * u128::from(extent.records)
            / u128::from(extent.count().messages.max(1));
        extent.heads_len = extent.len.saturating_sub(u64::try_from(bodies).unwrap_or(u64::MAX));
        extent
    }

    /// What does not survive a restart is not there for whoever reads the row.
    pub(crate) fn row(&self) -> ExtentRow {
        ExtentRow {
            file: self.file.segment.number,
            offset: self.offset,
            len: self.len,
            last: self.last,
            records: self.records,
            body_bytes: self.body_bytes.saturating_sub(self.transient_bytes),
            gone: &self.gone | &self.transient,
        }
    }

    /// Adds a message whose record ends at `end`, above all others.
    pub(crate) fn push(&mut self, seq: u64, persistent: bool, body_len: u64, end: u64) {
        let distance = self.distance(seq);
        if seq > self.last {
            self.gone.insert_range(self.distance(self.last) + 1..distance);
        }
        self.last = seq;
        let len = std::mem::replace(&mut self.len, end - self.offset);
        self.heads_len += (self.len - len).saturating_sub(body_len);
        self.records += 1;
        self.live += 1;
        self.body_bytes += body_len;
        if !persistent {
            self.transient.insert(distance);
            self.transient_bytes += body_len;
        }
    }

    /// Whether the next message needs another extent.
    pub(crate) fn is_full(&self, next: u64) -> bool {
        self.len >= EXTENT_LEN_MAX || next - self.first > EXTENT_SPAN_MAX
    }

    pub(crate) fn count(&self) -> Count {
        Count { messages: self.live, bytes: if self.live == 0 { 0 } else { self.body_bytes } }
    }

    fn count_live(&self) -> u64 {
        self.last - self.first + 1 - self.gone.len()
    }

    /// Bytes of the records that are there: the bodies, and for the rest the average of all.
    pub(crate) fn live_len(&self) -> u64 {
        let live = self.count();
        live.bytes + self.heads_len * live.messages / self.records.max(1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count().messages == 0
    }

    fn distance(&self, seq: u64) -> u32 {
        u32::try_from(seq - self.first).expect("extents are split before they span more")
    }

    pub(crate) fn has(&self, seq: u64) -> bool {
        !self.gone.contains(self.distance(seq))
    }

    pub(crate) fn forget(&mut self, seq: u64, body_len: u64) {
        let (distance, live_len) = (self.distance(seq), self.live_len());
        if !self.gone.insert(distance) {
            return;
        }
        self.live -= 1;
        self.body_bytes = self.body_bytes.saturating_sub(body_len);
        if self.transient.contains(distance) {
            self.transient_bytes = self.transient_bytes.saturating_sub(body_len);
        } else {
            self.dirty = true;
        }
        self.file.shrink(live_len.saturating_sub(self.live_len()));
    }

    /// Everything up to `last` is gone but for some numbers, in rising order.
    pub(crate) fn forget_all(&mut self, last: u64, except: &[u64]) {
        let (live, live_len) = (self.count(), self.live_len());
        let kept: Vec<u32> = (except.iter().copied())
            .filter(|seq| (self.first..=self.last).contains(seq) && self.has(*seq))
            .map(|seq| self.distance(seq))
            .collect();
        self.gone.insert_range(0..=self.distance(last.min(self.last)));
        kept.iter().for_each(|distance| {
            self.gone.remove(*distance);
        });
        self.live = self.count_live();
        // Which bytes went is not known here: the average of all did.
        self.body_bytes = self.body_bytes / live.messages.max(1) * self.live;
        self.transient_bytes = self.transient_bytes.min(self.body_bytes);
        self.file.shrink(live_len.saturating_sub(self.live_len()));
        self.dirty = true;
    }

    /// Keeps what somebody learned who read it, unless it was copied to another file meanwhile.
    pub(crate) fn learn(&mut self, learned: &Learned) {
        if (learned.file, learned.offset) == (self.file.segment.number, self.offset) {
            self.marks = Some(Arc::clone(&learned.marks));
        }
    }

    /// It was copied to another file, without what was gone.
    pub(crate) fn relocate(&mut self, to: &Relocated) {
        self.marks = None;
        self.file = Arc::clone(&to.file);
        self.offset = to.offset;
        self.len = to.len;
        self.records = to.records;
        self.heads_len = to.len.saturating_sub(to.body_bytes);
        self.file.shrink(to.len.saturating_sub(self.live_len()));
        self.dirty = true;
    }
}
