//! Reading messages back.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use warren_types::{Message, StoredMessage};

use crate::journal::Lsn;
use crate::log::Log;
use crate::record::{Kind, Record};
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
    Extent { segment: Arc<Segment>, offset: u64, end: u64, last: u64, bytes: usize },
    Log { records: Vec<RecordAt>, segments: Vec<Arc<Segment>>, end: Lsn },
}

/// Messages to be read.
#[derive(Debug)]
pub struct Load {
    /// The lowest number of interest.
    pub(crate) from: u64,
    /// Only these, in rising order.
    pub(crate) wanted: Option<Vec<u64>>,
    pub(crate) source: Source,
}

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
        self.last = self.last.max(next.last);
    }
}

impl Load {
    /// Reads.
    ///
    /// # Errors
    /// If the disk or what it holds is damaged.
    pub(crate) fn run(&self, log: &Log) -> Result<LoadedMessages, LoadError> {
        match &self.source {
            Source::Extent { segment, offset, end, last, bytes } => {
                let reader = ExtentReader::new(Arc::clone(segment), *offset, *end);
                self.run_extent(reader, *last, *bytes)
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

    fn run_extent(
        &self,
        mut reader: ExtentReader,
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
            let is_wanted = seq >= self.from
                && self.wanted.as_ref().is_none_or(|wanted| wanted.binary_search(&seq).is_ok());
            if is_wanted {
                let message = read_message(&record, buffer).ok_or_else(|| damaged(&segment, offset))?;
                let (at, persistent) = (record.value, record.persistent);
                loaded.messages.push(StoredMessage { seq, at, persistent, message });
            }
            loaded.last = Some(seq);
            loaded.reached = Some(Reached { file: segment.number, last: seq, offset: end });
            let wanted_last = self.wanted.as_ref().and_then(|wanted| wanted.last());
            if end - start >= bytes as u64 || wanted_last.is_some_and(|wanted| *wanted <= seq) {
                return Ok(loaded);
            }
        }
        loaded.last = Some(last);
        loaded.reached = None;
        Ok(loaded)
    }
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
        let mut want = READ_MAX;
        loop {
            let at = usize::try_from(self.offset - self.buffer_at).unwrap_or(usize::MAX);
            let there = self.buffer.get(at..).unwrap_or(&[]);
            match Record::parse(self.segment.number, there) {
                Some(record) if record.len <= there.len() => break,
                Some(record) => want = record.len,
                None if there.len() >= want.min((self.end - self.offset) as usize) => {
                    return Err(damaged(&self.segment, self.offset));
                }
                None => {}
            }
            let len = want.min(usize::try_from(self.end - self.offset).unwrap_or(usize::MAX));
            if there.len() >= len {
                return Err(damaged(&self.segment, self.offset));
            }
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
