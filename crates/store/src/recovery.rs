//! What the log says at the start.
//!
//! Segments are read from the first that counts to the last. A record that is not whole is the torn end of what was
//! being written when the power went, unless something proves that it had been durable: a later segment, or a later
//! group that says so. The torn end is cut off; a damaged record inside stops the queues whose messages it had, and
//! nothing else.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use warren_types::{Message, QueueId};

use crate::account::{Account, Audit, DEFINITIONS, Finding, Stretch};
use crate::disk::Disk;
use crate::extents::Extent;
use crate::index::{NewEntry, QueueIndex};
use crate::journal::{Change, Lsn};
use crate::record::{self, AllUpTo, Kind, Range, Record, Target};
use crate::segment::{FileKind, HEADER_LEN, HeaderError, Segment, check_header};
use crate::store::OpenError;

/// A queue's stored messages as they were found.
#[derive(Debug)]
pub struct RecoveredQueue {
    /// Where they are.
    pub index: QueueIndex,
    /// The number for the next message.
    pub next_seq: u64,
    /// Messages below this number may have been delivered.
    pub redelivered_below: u64,
    /// Why the queue must not be used, if something of it was damaged.
    pub damage: Option<String>,
}

impl RecoveredQueue {
    pub(crate) fn new(queue: QueueId) -> Self {
        Self { index: QueueIndex::new(queue), next_seq: 0, redelivered_below: 0, damage: None }
    }
}

/// What was found on disk.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The metadata table.
    pub metadata: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Queues with stored messages, whether or not the metadata still has them.
    pub queues: HashMap<QueueId, RecoveredQueue>,
    /// What an operator should know, in sentences.
    pub report: Vec<String>,
    /// Whether the node had stopped in order.
    pub clean: bool,
}

impl Recovered {
    pub(crate) fn queue(&mut self, queue: QueueId) -> &mut RecoveredQueue {
        self.queues.entry(queue).or_insert_with(|| RecoveredQueue::new(queue))
    }

    pub(crate) fn add_extent(&mut self, queue: QueueId, priority: u8, extent: Extent) {
        let found = self.queue(queue);
        found.next_seq = found.next_seq.max(extent.last + 1);
        found.index.level(priority).extents.push_back(extent);
    }

    /// Queues that must not be used, and why.
    pub(crate) fn damaged(&self) -> Vec<(QueueId, String)> {
        self.queues.iter().filter_map(|(queue, found)| Some((*queue, found.damage.clone()?))).collect()
    }

    fn take(&mut self, finding: &Finding) {
        match finding {
            Finding::Short { queue, records, holes } => {
                self.damage(*queue, &format!("{records} of its records cannot be read: {holes}"));
            }
            Finding::Unknown { holes } => self.report.push(format!(
                "which queues had messages there cannot be told, as the counts that would tell are damaged or were \
                 not written yet: {holes}"
            )),
        }
    }

    pub(crate) fn damage(&mut self, queue: QueueId, damage: &str) {
        self.queue(queue).damage.get_or_insert_with(|| damage.to_owned());
    }
}

/// Calls for each step of a long replay: segments read, segments in all.
pub type Progress<'a> = &'a dyn Fn(usize, usize);

/// The log as it was found.
pub(crate) struct Replayed {
    pub segments: BTreeMap<u32, Arc<Segment>>,
    /// Changes of the metadata table, which may not have them.
    pub changes: Vec<Change>,
    /// What is to be told of the end.
    pub account: Account,
}

/// Reads the log from segment `first` on into `recovered`.
pub(crate) fn replay(
    disk: &dyn Disk,
    first: u32,
    read_only: bool,
    recovered: &mut Recovered,
    progress: Progress<'_>,
) -> Result<Replayed, OpenError> {
    let mut numbers: Vec<u32> = disk.list()?.iter().filter_map(|name| FileKind::Log.number(name)).collect();
    numbers.sort_unstable();
    let old = numbers.partition_point(|number| *number < first);
    for number in numbers.drain(..old).filter(|_| !read_only) {
        disk.remove(&FileKind::Log.name(number))?;
    }
    let audit = Audit::new(Lsn::new(numbers.first().copied().unwrap_or(first.max(1)), HEADER_LEN as u32));
    let (changes, shared) = (Vec::new(), HashMap::new());
    let mut replay = Replay { recovered, changes, shared, first, audit, stopped: None };
    let mut segments = BTreeMap::new();
    for (index, number) in numbers.iter().copied().enumerate() {
        if index > 0 && numbers[index - 1] + 1 != number {
            let (missing, found) = (FileKind::Log.name(numbers[index - 1] + 1), FileKind::Log.name(number));
            return Err(OpenError::Missing(format!("{missing} is missing though there is {found}")));
        }
        let segment = Segment::open(disk, FileKind::Log, number)?;
        let next =
            numbers.get(index + 1).map(|next| Segment::open(disk, FileKind::Log, *next)).transpose()?;
        if replay.segment(disk, &segment, next.as_ref(), read_only)? {
            // The last may have been replaced.
            segments.insert(number, Arc::new(Segment::open(disk, FileKind::Log, number)?));
        } else if !read_only {
            disk.remove(&FileKind::Log.name(number))?;
        }
        progress(index + 1, numbers.len());
    }
    if !read_only {
        disk.sync_names()?;
    }
    let Replay { changes, stopped, audit, .. } = replay;
    let (account, finding) = audit.end();
    finding.iter().for_each(|finding| recovered.take(finding));
    recovered.finish(stopped);
    Ok(Replayed { segments, changes, account })
}

impl Recovered {
    /// After a stop in order it is known what was delivered; otherwise everything may have been.
    fn finish(&mut self, stopped: Option<HashMap<QueueId, u64>>) {
        self.clean = stopped.is_some();
        for (queue, found) in &mut self.queues {
            found.redelivered_below = match &stopped {
                Some(undelivered) => undelivered.get(queue).copied().unwrap_or(0),
                None => found.next_seq,
            };
        }
    }
}

/// The state of a replay.
struct Replay<'a> {
    recovered: &'a mut Recovered,
    changes: Vec<Change>,
    /// Bodies that references may point to: length of the record, and of the message's body.
    shared: HashMap<Lsn, (u32, u32)>,
    first: u32,
    audit: Audit,
    /// Set by a [`Kind::Stop`] that nothing follows.
    stopped: Option<HashMap<QueueId, u64>>,
}

impl Replay<'_> {
    /// Reads a segment; whether it is one at all.
    fn segment(
        &mut self,
        disk: &dyn Disk,
        segment: &Segment,
        next: Option<&Segment>,
        read_only: bool,
    ) -> Result<bool, OpenError> {
        let name = FileKind::Log.name(segment.number);
        let bytes = segment.read_all()?;
        match check_header(FileKind::Log, segment.number, &bytes) {
            Ok(_) => {}
            Err(HeaderError::Newer(format)) => return Err(OpenError::Newer { file: name, format }),
            Err(HeaderError::Torn) if next.is_none() => {
                self.recovered
                    .report
                    .push(format!("{name} was being created when the node stopped: dropped"));
                return Ok(false);
            }
            Err(HeaderError::Torn) => self.recovered.report.push(format!("the header of {name} is damaged")),
        }
        // A segment that was followed by another is as long as that one says, or was cut where it ends.
        let told = next.and_then(|next| {
            let header = next.read(0, HEADER_LEN).ok()?;
            check_header(FileKind::Log, next.number, &header).ok().filter(|len| *len > 0)
        });
        let end = told.map_or(bytes.len(), |len| len as usize);
        let mut cut_short = None;
        if bytes.len() < end {
            let lost = format!("{name} is damaged: it ends at byte {} and was {end} bytes long", bytes.len());
            self.recovered.report.push(lost.clone());
            cut_short = Some(lost);
        }
        let bytes = &bytes[..end.min(bytes.len())];
        let cut = self.records(segment.number, bytes, next.is_some())?;
        cut_short.into_iter().for_each(|hole| self.audit.hole(hole));
        if let Some(at) = cut.filter(|at| bytes[*at..].iter().any(|byte| *byte != 0)) {
            let torn = bytes.len() - at;
            self.recovered.report.push(format!(
                "{name} ends in {torn} bytes that were being written when the node stopped: cut at byte {at}"
            ));
        }
        if next.is_none() && !read_only {
            write_anew(disk, &name, &bytes[..cut.unwrap_or(bytes.len())])?;
        }
        Ok(true)
    }

    /// Takes all records; returns where a torn end begins.
    fn records(&mut self, number: u32, bytes: &[u8], is_followed: bool) -> Result<Option<usize>, OpenError> {
        let mut at = HEADER_LEN;
        while at < bytes.len() {
            let lsn = Lsn::new(number, at as u32);
            let found = Record::parse(number, &bytes[at..]);
            match found {
                Some(record) if record.body_is_whole => {
                    self.record(&record, lsn)?;
                    at += record.len;
                }
                _ if !is_followed && !was_durable(number, bytes, at, lsn) => return Ok(Some(at)),
                Some(record) => {
                    self.damaged(&record, lsn)?;
                    at += record.len;
                }
                None => {
                    let name = FileKind::Log.name(number);
                    let next = next_record(number, bytes, at + 1).unwrap_or(bytes.len());
                    let hole = format!("bytes {at} to {next} of {name}");
                    self.recovered
                        .report
                        .push(format!("{name} is damaged: bytes {at} to {next} cannot be read"));
                    self.audit.hole(hole);
                    at = next;
                }
            }
        }
        Ok(None)
    }

    fn record(&mut self, record: &Record<'_>, lsn: Lsn) -> Result<(), OpenError> {
        let senseless =
            || OpenError::Senseless { file: FileKind::Log.name(lsn.segment()), offset: lsn.offset() };
        if record.kind != Kind::Batch {
            self.stopped = None;
        }
        record.targets().for_each(|target| self.audit.saw(target.queue));
        match record.kind {
            Kind::Batch => {
                for finding in self.audit.told(Stretch::decode_all(record.body), lsn) {
                    match finding {
                        Finding::Short { queue: DEFINITIONS, holes, .. } => {
                            return Err(OpenError::LostDefinitions(holes));
                        }
                        finding => self.recovered.take(&finding),
                    }
                }
            }
            Kind::Message => {
                let body_len = Message::stored_body_len(record.body).ok_or_else(senseless)? as u32;
                if record.persistent {
                    let place = Place { at: lsn, len: record.len as u32, body_len };
                    record.targets().for_each(|target| self.put(target, place));
                }
            }
            Kind::Shared => {
                let body_len = Message::stored_body_len(record.body).ok_or_else(senseless)?;
                self.shared.insert(lsn, (record.len as u32, body_len as u32));
            }
            Kind::Reference => self.reference(record, lsn).ok_or_else(senseless)?,
            Kind::Forget => Range::decode_all(record.body).for_each(|range| self.forget(&range)),
            Kind::ForgetAll => {
                let AllUpTo { last, except } = AllUpTo::decode(record.body).ok_or_else(senseless)?;
                self.audit.saw(last.queue);
                self.recovered.queue(last.queue).index.forget_all(last.priority, last.seq, &except);
            }
            Kind::Change => {
                let changes = record::decode_changes(record.body).ok_or_else(senseless)?;
                self.audit.saw(DEFINITIONS);
                for Change { key, value } in &changes {
                    match value {
                        Some(value) => self.recovered.metadata.insert(key.clone(), value.clone()),
                        None => self.recovered.metadata.remove(key),
                    };
                }
                self.changes.extend(changes);
            }
            Kind::Stop => self.stopped = Some(record::decode_undelivered(record.body).collect()),
        }
        Ok(())
    }

    fn reference(&mut self, record: &Record<'_>, lsn: Lsn) -> Option<()> {
        let at = record::decode_reference(record.body)?;
        let Some((len, body_len)) = self.shared.get(&at).copied() else {
            // The body has moved to a compact file, and so has everything that referred to it.
            if at.segment() >= self.first {
                let damage =
                    format!("a message whose body was at {} is lost", FileKind::Log.name(at.segment()));
                record.targets().for_each(|target| self.recovered.damage(target.queue, &damage));
            }
            debug_assert!(at < lsn);
            return Some(());
        };
        if record.persistent {
            record.targets().for_each(|target| self.put(target, Place { at, len, body_len }));
        }
        Some(())
    }

    fn put(&mut self, target: Target, place: Place) {
        let found = self.recovered.queue(target.queue);
        found.next_seq = found.next_seq.max(target.seq + 1);
        let level = found.index.level(target.priority);
        // What has moved to an extent is there already.
        if level.last_seq().is_none_or(|last| last < target.seq) {
            let Place { at, len, body_len } = place;
            found
                .index
                .stored(target.priority, NewEntry { seq: target.seq, at, len, body_len, persistent: true });
        }
    }

    fn forget(&mut self, range: &Range) {
        self.audit.saw(range.queue);
        let found = self.recovered.queue(range.queue);
        found.next_seq = found.next_seq.max(range.first + u64::from(range.count));
        let body_len = range.body_bytes / u64::from(range.count.max(1));
        for seq in range.first..range.first + u64::from(range.count) {
            found.index.forget(range.priority, seq, body_len);
        }
    }

    /// A record inside the log whose body is not what was written.
    fn damaged(&mut self, record: &Record<'_>, lsn: Lsn) -> Result<(), OpenError> {
        let (file, offset) = (FileKind::Log.name(lsn.segment()), lsn.offset());
        if record.kind == Kind::Change {
            return Err(OpenError::Senseless { file, offset });
        }
        let damage = format!("{file} is damaged at byte {offset}");
        for target in record.targets() {
            self.recovered.damage(target.queue, &damage);
            self.audit.saw(target.queue);
        }
        if matches!(record.kind, Kind::Forget | Kind::ForgetAll) {
            self.audit.hole(format!("byte {offset} of {file}"));
        }
        self.recovered.report.push(damage);
        Ok(())
    }
}

/// Writes again what was read from a file that another process left behind.
///
/// It may be in the system's memory only, even if a sync succeeds now: one that failed before that process ended has
/// marked it as written. From now on somebody relies on it, so it is written anew, under a name written anew.
pub(crate) fn write_anew(disk: &dyn Disk, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = format!("{name}{TEMPORARY}");
    let file = disk.create(&temporary)?;
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&temporary, name)?;
    disk.sync_names()
}

/// The end of the names of files that are not finished.
pub(crate) const TEMPORARY: &str = ".new";

#[derive(Clone, Copy)]
struct Place {
    at: Lsn,
    len: u32,
    body_len: u32,
}

/// Where the next record starts, from `from` on, if there is one with a whole head.
fn next_record(number: u32, bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len()).find(|at| Record::parse(number, &bytes[*at..]).is_some())
}

/// Whether a later group says that the log was durable beyond `lsn` when it was written.
fn was_durable(number: u32, bytes: &[u8], at: usize, lsn: Lsn) -> bool {
    let mut from = at + 1;
    while let Some(found) = next_record(number, bytes, from) {
        let Some(record) = Record::parse(number, &bytes[found..]) else { return false };
        if record.kind == Kind::Batch && record.value > lsn.0 {
            return true;
        }
        from = if record.body_is_whole { found + record.len } else { found + 1 };
    }
    false
}
