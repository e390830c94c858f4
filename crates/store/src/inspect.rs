//! Looking at the store of a stopped node without changing anything.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use warren_types::Message;

use crate::account::Stretch;
use crate::disk::{Disk, DiskFile};
use crate::index::Count;
use crate::load::ExtentReader;
use crate::record::{self, AllUpTo, Kind, Range, Record};
use crate::recovery::{self, Recovered};
use crate::segment::{FileKind, HEADER_LEN, Segment, check_header};
use crate::store::{OpenError, open_extents};
use crate::table::{self, Contents, Table};

/// What a store holds, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Segments of the log.
    pub log_segments: usize,
    /// Compact files.
    pub compact_files: usize,
    /// Definitions.
    pub definitions: usize,
    /// Queues with messages.
    pub queues: usize,
    /// Messages in them that survive a restart.
    pub messages: Count,
    /// Whether the node had stopped in order.
    pub clean: bool,
    /// What a start would report: torn ends are no damage.
    pub notes: Vec<String>,
    /// What is damaged.
    pub damage: Vec<String>,
}

/// Reads everything and checks every checksum.
///
/// # Errors
/// If it cannot be read at all, or a later version wrote it.
pub fn check(disk: &dyn Disk) -> Result<Inspection, OpenError> {
    let contents = contents(disk)?;
    let first = contents.first_segment;
    let mut inspection = Inspection::default();
    let mut recovered = Recovered::default();
    let extents = contents.extents.clone();
    let files = open_extents(disk, contents, &mut recovered, true)?;
    for (key, row) in extents {
        let Some(file) = files.get(&row.file) else { continue };
        let mut reader = ExtentReader::new(Arc::clone(&file.segment), row.offset, row.offset + row.len);
        let mut records = 0;
        let result = loop {
            match reader.next() {
                Ok(Some(_)) => records += 1,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        match result {
            Err(error) => inspection.damage.push(format!("queue {}: {error}", key.queue.0)),
            Ok(()) if records != row.records => inspection.damage.push(format!(
                "queue {}: {} has {records} records at byte {} instead of {}",
                key.queue.0,
                FileKind::Compact.name(row.file),
                row.offset,
                row.records
            )),
            Ok(()) => {}
        }
    }
    let replayed = recovery::replay(disk, first, true, &mut recovered, &|_, _| {})?;
    inspection.log_segments = replayed.segments.len();
    inspection.compact_files = files.len();
    inspection.definitions = recovered.metadata.len();
    inspection.clean = recovered.clean;
    for (queue, found) in &recovered.queues {
        let mut all = Count::default();
        for (_, count) in found.index.counts() {
            all.messages += count.messages;
            all.bytes += count.bytes;
        }
        if all.messages > 0 {
            inspection.queues += 1;
            inspection.messages.messages += all.messages;
            inspection.messages.bytes += all.bytes;
        }
        inspection.damage.extend(found.damage.as_ref().map(|damage| format!("queue {}: {damage}", queue.0)));
    }
    let (damage, notes) = recovered.report.into_iter().partition(|line| line.contains("damaged"));
    inspection.notes = notes;
    inspection.damage.extend::<Vec<String>>(damage);
    Ok(inspection)
}

/// Prints everything, record by record: each line goes to `print`.
///
/// # Errors
/// If something cannot be read, or `print` fails.
pub fn dump(disk: &dyn Disk, print: &mut dyn FnMut(&str) -> io::Result<()>) -> Result<(), OpenError> {
    let contents = contents(disk)?;
    print(&format!("table first_segment={} next_file={}", contents.first_segment, contents.next_file))?;
    for (key, value) in &contents.metadata {
        print(&format!("  definition {} = {} bytes", printable(key), value.len()))?;
    }
    for (queue, damage) in &contents.damage {
        print(&format!("  damaged queue={}: {damage}", queue.0))?;
    }
    for (key, row) in &contents.extents {
        print(&format!(
            "  extent queue={} priority={} first={} last={} file={} offset={} len={} records={} gone={}",
            key.queue.0,
            key.priority,
            key.first,
            row.last,
            FileKind::Compact.name(row.file),
            row.offset,
            row.len,
            row.records,
            row.gone.len()
        ))?;
    }
    let names = disk.list()?;
    for kind in [FileKind::Compact, FileKind::Log] {
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| kind.number(name)).collect();
        numbers.sort_unstable();
        for number in numbers {
            dump_file(&Segment::open(disk, kind, number)?, print)?;
        }
    }
    Ok(())
}

fn dump_file(segment: &Segment, print: &mut dyn FnMut(&str) -> io::Result<()>) -> Result<(), OpenError> {
    let bytes = segment.read_all()?;
    let header = match check_header(segment.kind, segment.number, &bytes) {
        Ok(prev_len) => format!("previous_len={prev_len}"),
        Err(error) => format!("header {error:?}"),
    };
    print(&format!("{} len={} {header}", segment.kind.name(segment.number), bytes.len()))?;
    let mut at = HEADER_LEN;
    while at < bytes.len() {
        let Some(record) = Record::parse(segment.number, &bytes[at..]) else {
            let what = match bytes[at..].iter().all(|byte| *byte == 0) {
                true => "zeros",
                false => "no record",
            };
            print(&format!("  {at} {what}: {} bytes to the end of the file", bytes.len() - at))?;
            break;
        };
        print(&format!("  {at} {}", describe(&record)))?;
        at += record.len;
    }
    Ok(())
}

fn describe(record: &Record<'_>) -> String {
    if !record.body_is_whole {
        return format!("{:?} len={} DAMAGED", record.kind, record.len);
    }
    let place = |value: u64| format!("{}:{}", FileKind::Log.name((value >> 32) as u32), value as u32);
    let targets = || -> String {
        let each =
            record.targets().map(|t| format!(" queue={} priority={} seq={}", t.queue.0, t.priority, t.seq));
        each.collect()
    };
    let persistence = if record.persistent { "persistent" } else { "transient" };
    match record.kind {
        Kind::Batch => {
            let counts = Stretch::decode_all(record.body).into_iter().map(|stretch| {
                let each = stretch.counts.iter().map(|(queue, records)| format!(" {}:{records}", queue.0));
                format!(" from={} records{}", place(stretch.from.0), each.collect::<String>())
            });
            format!("Batch durable={}{}", place(record.value), counts.collect::<String>())
        }
        Kind::Message | Kind::Shared => {
            let body_len = Message::stored_body_len(record.body).unwrap_or_default();
            format!("{:?} {persistence} at={} body={body_len}{}", record.kind, record.value, targets())
        }
        Kind::Reference => {
            let body = record::decode_reference(record.body).map(|lsn| place(lsn.0)).unwrap_or_default();
            format!("Reference {persistence} at={} to={body}{}", record.value, targets())
        }
        Kind::Forget => {
            let ranges = Range::decode_all(record.body).map(|range| {
                let last = range.first + u64::from(range.count) - 1;
                format!(" queue={} priority={} seq={}..={last}", range.queue.0, range.priority, range.first)
            });
            format!("Forget{}", ranges.collect::<String>())
        }
        Kind::ForgetAll => match AllUpTo::decode(record.body) {
            Some(AllUpTo { last, except }) => format!(
                "ForgetAll queue={} priority={} seq=..={} except={}",
                last.queue.0,
                last.priority,
                last.seq,
                except.len()
            ),
            None => "ForgetAll DAMAGED".to_owned(),
        },
        Kind::Change => {
            let changes = record::decode_changes(record.body).unwrap_or_default();
            let changes = changes.iter().map(|change| match &change.value {
                // Values hold password hashes.
                Some(value) => format!(" {} = {} bytes", printable(&change.key), value.len()),
                None => format!(" {} removed", printable(&change.key)),
            });
            format!("Change{}", changes.collect::<String>())
        }
        Kind::Stop => {
            let queues = record::decode_undelivered(record.body);
            let queues = queues.map(|(queue, seq)| format!(" queue={} undelivered_from={seq}", queue.0));
            format!("Stop{}", queues.collect::<String>())
        }
    }
}

fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The table's contents, from a copy in memory: opening a database may change it.
fn contents(disk: &dyn Disk) -> Result<Contents, OpenError> {
    let file = disk.open(table::FILE)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Table::open(Arc::new(MemoryFile(Mutex::new(bytes))))?.contents()?)
}

#[derive(Debug)]
struct MemoryFile(Mutex<Vec<u8>>);

impl MemoryFile {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.bytes();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let found = bytes.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_all_at(&self, written: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.bytes();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start + written.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(written);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes().resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
