//! Reading messages back.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use warren_types::{Message, StoredMessage};

use crate::journal::Lsn;
use crate::log::Log;
use crate::marks::{Learned, Marks};
use crate::record::{HEAD_LEN, Kind, Record, lengths};
use crate::segment::Segment;

/// Most bytes read at once, unless one record is longer.
const READ_MAX: usize = 256 * 1024;

/// Largest hole between two records that is read along rather than skipped, in bytes.
const GAP_MAX: u64 = 4096;

/// A body shares the buffer it was read into only if it is at least this part of it.
const SHARED_PART: usize = 2;

/// Why messages cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// What stands there is not what was written.
    #[error("{file} is damaged at byte {offset}")]
    Damaged {
        /// The file.
        file: String,
        /// Where the damaged record starts.
        offset: u64,
    },
    /// The system cannot read.
    #[error("cannot read {file}: {error}")]
    Io {
        /// The file.
        file: String,
        /// What the system says.
        error: io::Error,
    },
    /// The messages have moved: ask again.
    #[error("the messages have moved")]
    Moved,
}

/// A record to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordAt {
    pub seq: u64,
    pub at: Lsn,
    pub len: u32,
    pub persistent: bool,
}

impl RecordAt {
    pub(crate) fn end(&self) -> Lsn {
        Lsn(self.at.0 + u64::from(self.len))
    }
}

/// Where to read.
#[derive(Debug)]
pub(crate) enum Source {
    /// Some bytes of an extent from `offset` on, of which the messages below `from` are not of interest.
    Extent {
        segment: Arc<Segment>,
        offset: u64,
        end: u64,
        from: u64,
        last: u64,
        bytes: usize,
    },
    /// Chosen messages of an extent, in rising order.
    Chosen {
        segment: Arc<Segment>,
        offset: u64,
        len: u64,
        first: u64,
        marks: Option<Arc<Marks>>,
        wanted: Vec<u64>,
    },
    Log {
        records: Vec<RecordAt>,
        segments: Vec<Arc<Segment>>,
        end: Lsn,
    },
}

/// Messages to be read.
#[derive(Debug)]
pub struct Load(pub(crate) Source);

/// Where in a compact file reading came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reached {
    /// The file.
    pub file: u32,
    /// The last number read.
    pub last: u64,
    /// The offset behind its record.
    pub offset: u64,
}

/// What was read.
#[derive(Debug, Default)]
pub struct LoadedMessages {
    /// In the order of the queue. Some may be gone meanwhile.
    pub messages: Vec<StoredMessage>,
    /// Where in an extent that was, unless it was read to its end.
    pub(crate) reached: Option<Reached>,
    /// What is known now of extents that were read for chosen messages.
    pub(crate) learned: Vec<Learned>,
    /// The last number that was looked at, whether or not there was a message to return.
    pub last: Option<u64>,
}

/// Where reading came to, for somebody who reads beside the queue.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadCursor(pub(crate) Option<Reached>);

impl ReadCursor {
    /// Nothing was read.
    pub const START: Self = Self(None);
}

impl LoadedMessages {
    /// Where to go on reading.
    #[must_use]
    pub fn cursor(&self) -> ReadCursor {
        ReadCursor(self.reached)
    }

    /// Adds what was read next.
    pub(crate) fn append(&mut self, mut next: Self) {
        self.messages.append(&mut next.messages);
        self.reached = next.reached;
        self.learned.append(&mut next.learned);
        self.last = self.last.max(next.last);
    }
}

impl Load {
    /// Reads.
    ///
    /// # Errors
    /// If the disk or what it holds is damaged.
    pub(crate) fn run(&self, log: &Log) -> Result<LoadedMessages, LoadError> {
        match &self.0 {
            Source::Extent { segment, offset, end, from, last, bytes } => {
                let reader = ExtentReader::new(Arc::clone(segment), *offset, *end);
                read_extent(reader, *from, *last, *bytes)
            }
            Source::Chosen { segment, offset, len, first, marks: Some(marks), wanted } => {
                let distances = wanted.iter().map(|seq| seq - first);
                let mut loaded = LoadedMessages::default();
                for stretch in marks.stretches(distances, *len) {
                    let (start, end) = (offset + stretch.start, offset + stretch.end);
                    let reader = ExtentReader::new(Arc::clone(segment), start, end);
                    read_chosen(reader, wanted, &mut loaded, |_, _| ())?;
                }
                loaded.last = wanted.last().copied();
                Ok(loaded)
            }
            Source::Chosen { segment, offset, len, first, marks: None, wanted } => {
                let reader = ExtentReader::new(Arc::clone(segment), *offset, offset + len);
                let mut loaded = LoadedMessages { last: wanted.last().copied(), ..Default::default() };
                let mut marks = Marks::default();
                read_chosen(reader, wanted, &mut loaded, |seq, at| marks.note(seq - first, at - offset))?;
                marks.shrink();
                let (file, offset, marks) = (segment.number, *offset, Arc::new(marks));
                loaded.learned.push(Learned { first: *first, file, offset, marks });
                Ok(loaded)
            }
            Source::Log { records, segments, end } => {
                log.wait_written(*end)
                    .map_err(|error| LoadError::Io { file: "the log".to_owned(), error })?;
                let mut loaded = LoadedMessages::default();
                read_records(log, records, segments, |record, at, buffer| {
                    let message = message_of(&record, buffer, at)?;
                    let (seq, persistent) = (at.seq, at.persistent);
                    loaded.messages.push(StoredMessage { seq, at: record.value, persistent, message });
                    Ok(())
                })?;
                loaded.last = records.last().map(|record| record.seq);
                Ok(loaded)
            }
        }
    }
}

/// Reads the messages from `from` on, until `bytes` were read or the extent ends with the number `last`.
fn read_extent(
    mut reader: ExtentReader,
    from: u64,
    last: u64,
    bytes: usize,
) -> Result<LoadedMessages, LoadError> {
    let mut loaded = LoadedMessages::default();
    let start = reader.offset;
    let segment = Arc::clone(&reader.segment);
    while let Some((record, buffer, offset)) = reader.next()? {
        let end = offset + record.len as u64;
        let Some(target) = record.targets().next() else { continue };
        let seq = target.seq;
        if seq >= from {
            let stored = stored_message(seq, &record, buffer);
            loaded.messages.push(stored.ok_or_else(|| damaged(&segment, offset))?);
        }
        loaded.last = Some(seq);
        loaded.reached = Some(Reached { file: segment.number, last: seq, offset: end });
        if end - start >= bytes as u64 {
            return Ok(loaded);
        }
    }
    loaded.last = Some(last);
    loaded.reached = None;
    Ok(loaded)
}

/// Reads to the end, but returns only the messages that are `wanted`, in rising order; `note` hears of every message and
/// where its record starts.
fn read_chosen(
    mut reader: ExtentReader,
    wanted: &[u64],
    loaded: &mut LoadedMessages,
    mut note: impl FnMut(u64, u64),
) -> Result<(), LoadError> {
    let segment = Arc::clone(&reader.segment);
    while let Some((record, buffer, offset)) = reader.next()? {
        let Some(target) = record.targets().next() else { continue };
        note(target.seq, offset);
        if wanted.binary_search(&target.seq).is_ok() {
            let stored = stored_message(target.seq, &record, buffer);
            loaded.messages.push(stored.ok_or_else(|| damaged(&segment, offset))?);
        }
    }
    Ok(())
}

/// The message in a record of an extent; none if it is damaged.
fn stored_message(seq: u64, record: &Record<'_>, buffer: &Bytes) -> Option<StoredMessage> {
    let message = read_message(record, buffer)?;
    Some(StoredMessage { seq, at: record.value, persistent: record.persistent, message })
}

pub(crate) fn damaged(segment: &Segment, offset: u64) -> LoadError {
    LoadError::Damaged { file: segment.kind.name(segment.number), offset }
}

fn io_error(segment: &Segment, error: io::Error) -> LoadError {
    LoadError::Io { file: segment.kind.name(segment.number), error }
}

/// The message in a record that stands in `buffer`.
fn read_message(record: &Record<'_>, buffer: &Bytes) -> Option<Message> {
    if !record.body_is_whole {
        return None;
    }
    let body = match record.body.len() * SHARED_PART >= buffer.len() {
        true => buffer.slice_ref(record.body),
        false => Bytes::copy_from_slice(record.body),
    };
    Message::from_stored(&body)
}

fn message_of(record: &Record<'_>, buffer: &Bytes, at: &RecordAt) -> Result<Message, LoadError> {
    let file = || crate::segment::FileKind::Log.name(at.at.segment());
    let offset = u64::from(at.at.offset());
    read_message(record, buffer).ok_or_else(|| LoadError::Damaged { file: file(), offset })
}

/// Reads records of the log, neighbours at once, and gives each to `take` with the buffer it stands in.
pub(crate) fn read_records(
    log: &Log,
    records: &[RecordAt],
    segments: &[Arc<Segment>],
    mut take: impl FnMut(Record<'_>, &RecordAt, &Bytes) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    let mut rest = records;
    while let Some(first) = rest.first() {
        let start = first.at;
        let mut end = start.0 + u64::from(first.len);
        let mut count = 1;
        while let Some(next) = rest.get(count)
            && next.at.0 >= start.0
            && next.at.segment() == start.segment()
            && next.at.0 <= end + GAP_MAX
            && next.at.0 + u64::from(next.len) - start.0 <= READ_MAX as u64
        {
            end = end.max(next.at.0 + u64::from(next.len));
            count += 1;
        }
        let number = start.segment();
        let known = segments.iter().find(|segment| segment.number == number).cloned();
        // The segment of a record that was not written yet when it was asked for is known to the log by now.
        let segment = known.or_else(|| log.segment(number)).ok_or(LoadError::Moved)?;
        let bytes = segment
            .read(u64::from(start.offset()), (end - start.0) as usize)
            .map_err(|error| io_error(&segment, error))?;
        let buffer = Bytes::from(bytes);
        for record in &rest[..count] {
            let at = (record.at.0 - start.0) as usize;
            let parsed = buffer.get(at..).and_then(|bytes| Record::parse(number, bytes));
            let parsed = parsed.filter(|parsed| parsed.body_is_whole && is_message(parsed.kind));
            let parsed = parsed.ok_or_else(|| damaged(&segment, u64::from(record.at.offset())))?;
            take(parsed, record, &buffer)?;
        }
        rest = &rest[count..];
    }
    Ok(())
}

/// The length that a record's head tells, before anything is checked.
fn record_len(head: &[u8]) -> usize {
    let (head_len, body_len) = lengths(head);
    head_len + body_len
}

fn is_message(kind: Kind) -> bool {
    matches!(kind, Kind::Message | Kind::Shared)
}

/// Reads an extent record by record.
pub(crate) struct ExtentReader {
    pub segment: Arc<Segment>,
    /// Where the next record starts.
    pub offset: u64,
    end: u64,
    buffer: Bytes,
    /// Where the buffer starts.
    buffer_at: u64,
}

impl ExtentReader {
    pub(crate) fn new(segment: Arc<Segment>, offset: u64, end: u64) -> Self {
        Self { segment, offset, end, buffer: Bytes::new(), buffer_at: offset }
    }

    /// The next record, the buffer it stands in, and where in the file it starts; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(Record<'_>, &Bytes, u64)>, LoadError> {
        if self.offset >= self.end {
            return Ok(None);
        }
        let rest = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        loop {
            let at = usize::try_from(self.offset - self.buffer_at).unwrap_or(usize::MAX);
            let there = self.buffer.get(at..).unwrap_or(&[]);
            let needed = if there.len() < HEAD_LEN { HEAD_LEN } else { record_len(there) };
            if needed > rest {
                return Err(damaged(&self.segment, self.offset));
            }
            if there.len() >= needed {
                break;
            }
            let len = needed.max(READ_MAX).min(rest);
            let bytes =
                self.segment.read(self.offset, len).map_err(|error| io_error(&self.segment, error))?;
            if bytes.len() < len {
                return Err(damaged(&self.segment, self.offset));
            }
            self.buffer = Bytes::from(bytes);
            self.buffer_at = self.offset;
        }
        let start = self.offset;
        let at = (start - self.buffer_at) as usize;
        let record = Record::parse(self.segment.number, &self.buffer[at..]);
        let record =
            record.filter(|record| record.body_is_whole).ok_or_else(|| damaged(&self.segment, start))?;
        self.offset += record.len as u64;
        Ok(Some((record, &self.buffer, start)))
    }
}
