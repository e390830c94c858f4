//! Checkpoints: what is alive in the oldest segments of the log moves to a compact file, the table learns what has
//! changed, and the segments go. In the same way a compact file that is mostly dead is copied to a new one.
//!
//! The order is what makes it safe: the compact file is durable before the table names it; the log is durable up to
//! where the shards were asked before the table forgets anything; the table has committed before a file goes.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use warren_types::{Message, QueueId};

use crate::disk::Disk;
use crate::extents::{Extent, ExtentKey, ExtentRow};
use crate::index::{CompactFile, LogEntry};
use crate::journal::Lsn;
use crate::load::{ExtentReader, LoadError, RecordAt, read_records};
use crate::log::Log;
use crate::record::{HEAD_LEN, Head, Kind, TARGET_LEN, Target, encode_target, seal};
use crate::segment::{FileKind, HEADER_LEN, Segment};
use crate::table::{Place, Table, TableError, Update};

/// What the indexes of a shard tell at a checkpoint.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// For each level of a queue the messages that move to a compact file, in order.
    pub(crate) moving: Vec<(QueueId, u8, Vec<LogEntry>)>,
    /// Extents that differ from what the table has.
    pub(crate) dirty: Vec<(ExtentKey, ExtentRow)>,
    /// What is gone.
    pub(crate) gone: Gone,
    /// The extents in the file that is to be copied.
    pub(crate) relocate: Vec<(ExtentKey, Extent)>,
    /// For each compact file the bytes of it that are alive.
    pub(crate) live: BTreeMap<u32, u64>,
}

impl Snapshot {
    /// A snapshot of indexes that are still to be asked.
    #[must_use]
    pub fn new(gone: Gone) -> Self {
        Self { gone, ..Self::default() }
    }
}

/// What the table need not keep any more.
#[derive(Debug, Default)]
pub struct Gone {
    /// Extents.
    pub extents: Vec<ExtentKey>,
    /// Queues that were damaged.
    pub damaged: Vec<QueueId>,
}

/// An extent that was copied to another file.
#[derive(Debug)]
pub(crate) struct Relocated {
    pub key: ExtentKey,
    pub file: Arc<CompactFile>,
    pub offset: u64,
    pub len: u64,
    /// How many records were copied.
    pub records: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
}

impl Relocated {
    fn place(&self) -> Place {
        let Self { offset, len, records, .. } = *self;
        Place { file: self.file.segment.number, offset, len, records }
    }
}

/// What the indexes learn at the end of a checkpoint.
#[derive(Debug, Default)]
pub struct Install {
    extents: BTreeMap<(QueueId, u8), Vec<Extent>>,
    relocated: BTreeMap<(QueueId, u8), Vec<Relocated>>,
    /// Queues with messages that could not be read, and why.
    pub damaged: Vec<(QueueId, String)>,
}

impl Install {
    pub(crate) fn extents_of(&self, queue: QueueId, priority: u8) -> &[Extent] {
        self.extents.get(&(queue, priority)).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn relocated_of(&self, queue: QueueId, priority: u8) -> &[Relocated] {
        self.relocated.get(&(queue, priority)).map_or(&[], Vec::as_slice)
    }

    /// Keys of what was written for queues that are not there any more, given those that are.
    pub fn orphans(&self, is_there: impl Fn(QueueId) -> bool) -> Vec<ExtentKey> {
        let key = |queue: QueueId, priority: u8, first: u64| ExtentKey { queue, priority, first };
        let extents = self.extents.iter().filter(|((queue, _), _)| !is_there(*queue));
        let extents = extents.flat_map(|((queue, priority), extents)| {
            extents.iter().map(|extent| key(*queue, *priority, extent.first))
        });
        let relocated = self.relocated.iter().filter(|((queue, _), _)| !is_there(*queue));
        extents.chain(relocated.flat_map(|(_, relocated)| relocated.iter().map(|it| it.key))).collect()
    }
}

/// The owners of the indexes, as checkpoints see them.
pub trait Shards {
    /// Asks every index for a snapshot; see [`QueueIndex::snapshot`](crate::QueueIndex::snapshot). None if the indexes are
    /// not in use any more.
    fn snapshot(&self, up_to: Lsn, relocate: Option<u32>) -> Option<Vec<Snapshot>>;

    /// Has every index learn what was installed; see [`QueueIndex::install`](crate::QueueIndex::install).
    fn install(&self, install: Arc<Install>);
}

/// Why a checkpoint failed. What is on disk is as if it had not been tried.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A message could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file could not be written.
    #[error("cannot write a compact file: {0}")]
    Io(#[from] io::Error),
    /// The table could not be changed.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// What checkpoints keep from one to the next.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    pub disk: Arc<dyn Disk>,
    pub log: Arc<Log>,
    pub table: Table,
    /// All compact files.
    pub files: Mutex<BTreeMap<u32, Arc<CompactFile>>>,
    pub next_file: u32,
    /// Most bytes a second that are written.
    pub bytes_per_second: u64,
    /// Disk space that dead records may take whatever lives, in bytes.
    pub dead_allowed: u64,
}

/// Bytes written between two looks at the clock.
const THROTTLE_STEP: u64 = 1024 * 1024;

impl Checkpoints {
    /// Moves what is alive before segment `first_kept`, and copies a compact file that is mostly dead if there is one.
    pub(crate) fn run(&mut self, first_kept: u32, shards: &dyn Shards) -> Result<(), CheckpointError> {
        let relocate = self.mostly_dead();
        let up_to = Lsn::new(first_kept, 0);
        let Some(snapshots) = shards.snapshot(up_to, relocate) else { return Ok(()) };
        // What the shards have told includes what they have appended: it may be acted upon once that is durable.
        let (changes, asked) = self.log.take_changes();
        let mut update = Update { changes, first_segment: first_kept, ..Update::default() };
        let mut install = Install::default();
        self.correct(&snapshots);
        let file = self.write(&snapshots, &mut install)?;
        self.log.wait_durable(asked)?;
        for snapshot in snapshots {
            update.removed.extend(snapshot.gone.extents);
            update.mended.extend(snapshot.gone.damaged);
            update.rows.extend(snapshot.dirty);
        }
        let extents = install.extents.iter().flat_map(|((queue, priority), extents)| {
            extents.iter().map(|extent| {
                (ExtentKey { queue: *queue, priority: *priority, first: extent.first }, extent.row())
            })
        });
        update.rows.extend(extents);
        let moved = install.relocated.values().flatten();
        update.moved = moved.map(|it| (it.key, it.place())).collect();
        update.next_file = self.next_file;
        update.damaged.clone_from(&install.damaged);
        self.table.update(update)?;
        if let Some(file) = file {
            self.files().insert(file.segment.number, file);
        }
        let is_damaged = !install.damaged.is_empty();
        shards.install(Arc::new(install));
        self.log.remove_before(first_kept, is_damaged)?;
        self.remove_dead_files()?;
        Ok(())
    }

    pub(crate) fn files(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Arc<CompactFile>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file that is worth copying most, if dead records take more than is allowed.
    fn mostly_dead(&self) -> Option<u32> {
        let files = self.files();
        let live = |file: &CompactFile| file.live_len.load(Ordering::Relaxed);
        let len = |file: &CompactFile| file.len.load(Ordering::Relaxed);
        let (all, alive) = files.values().fold((0, 0), |(all, alive), f| (all + len(f), alive + live(f)));
        if all <= 2 * alive + self.dead_allowed {
            return None;
        }
        files
            .values()
            .filter(|file| live(file) > 0)
            .min_by_key(|file| live(file) * 1000 / len(file).max(1))
            .map(|file| file.segment.number)
    }

    /// Takes over what the indexes have counted. The files' own counts miss what was dropped while it moved.
    fn correct(&self, snapshots: &[Snapshot]) {
        for (number, file) in self.files().iter() {
            let live = snapshots.iter().filter_map(|snapshot| snapshot.live.get(number)).sum();
            file.live_len.store(live, Ordering::Relaxed);
        }
    }

    /// Whether there are compact files.
    pub(crate) fn has_files(&self) -> bool {
        !self.files().is_empty()
    }

    /// Whether copying would win something back.
    pub(crate) fn is_worthwhile(&self) -> bool {
        self.mostly_dead().is_some() || self.files().values().any(|f| f.live_len.load(Ordering::Relaxed) == 0)
    }

    /// Removes the files that no extent is in any more.
    fn remove_dead_files(&self) -> io::Result<()> {
        let mut files = self.files();
        let named = self.table.files().map_err(io::Error::other)?;
        let dead: Vec<u32> = files.keys().copied().filter(|number| !named.contains(number)).collect();
        for number in dead {
            self.disk.remove(&FileKind::Compact.name(number))?;
            files.remove(&number);
        }
        Ok(())
    }

    fn write(
        &mut self,
        snapshots: &[Snapshot],
        install: &mut Install,
    ) -> Result<Option<Arc<CompactFile>>, CheckpointError> {
        if snapshots.iter().all(|snapshot| snapshot.moving.is_empty() && snapshot.relocate.is_empty()) {
            return Ok(None);
        }
        let number = self.next_file;
        self.next_file += 1;
        let segment = Arc::new(Segment::create(&*self.disk, FileKind::Compact, number, 0)?);
        let mut writer = CompactWriter {
            file: Arc::new(CompactFile { segment, len: AtomicU64::new(0), live_len: AtomicU64::new(0) }),
            buffer: Vec::new(),
            offset: HEADER_LEN as u64,
            throttle: Throttle::new(self.bytes_per_second),
        };
        let mut extents = Vec::new();
        for snapshot in snapshots {
            for (queue, priority, entries) in &snapshot.moving {
                match writer.write_level(&self.log, *queue, *priority, entries) {
                    Ok(written) => extents.push(((*queue, *priority), written)),
                    Err(CheckpointError::Load(damage)) => install.damaged.push((*queue, damage.to_string())),
                    Err(error) => return Err(error),
                }
            }
        }
        let mut copies = Vec::new();
        for (key, extent) in snapshots.iter().flat_map(|snapshot| &snapshot.relocate) {
            match writer.copy_extent(*key, extent) {
                Ok(copy) => copies.push(copy),
                Err(CheckpointError::Load(damage)) => install.damaged.push((key.queue, damage.to_string())),
                Err(error) => return Err(error),
            }
        }
        let file = writer.finish()?;
        install.extents.extend(extents);
        for copy in copies {
            install.relocated.entry((copy.key.queue, copy.key.priority)).or_default().push(copy);
        }
        Ok(Some(file))
    }
}

/// Writes a compact file from the start to the end.
struct CompactWriter {
    file: Arc<CompactFile>,
    buffer: Vec<u8>,
    /// Where the buffer goes.
    offset: u64,
    throttle: Throttle,
}

impl CompactWriter {
    const BUFFER_LEN: usize = 1024 * 1024;

    const RECORDS_AT_ONCE: usize = 4096;

    fn position(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    fn write_level(
        &mut self,
        log: &Log,
        queue: QueueId,
        priority: u8,
        entries: &[LogEntry],
    ) -> Result<Vec<Extent>, CheckpointError> {
        let mut extents: Vec<Extent> = Vec::new();
        for entries in entries.chunks(Self::RECORDS_AT_ONCE) {
            let records: Vec<RecordAt> = entries.iter().map(LogEntry::record).collect();
            let mut entries = entries.iter();
            let mut failed = None;
            log.wait_written(records.iter().map(RecordAt::end).max().unwrap_or_default())?;
            read_records(log, &records, &[], |record, at, _: &Bytes| {
                let Some(entry) = entries.next() else { return Ok(()) };
                let start = self.position();
                let target = Target { queue, priority, seq: at.seq };
                if let Err(error) = self.put(target, at.persistent, record.value, record.body) {
                    failed.get_or_insert(error);
                }
                if extents.last().is_none_or(|extent| extent.is_full(at.seq)) {
                    extents.push(Extent::new(Arc::clone(&self.file), start, at.seq));
                }
                if let Some(extent) = extents.last_mut() {
                    extent.push(at.seq, at.persistent, u64::from(entry.body_len), self.position());
                }
                Ok(())
            })?;
            if let Some(error) = failed {
                return Err(error.into());
            }
        }
        Ok(extents)
    }

    /// Copies what is alive.
    fn copy_extent(&mut self, key: ExtentKey, extent: &Extent) -> Result<Relocated, CheckpointError> {
        let (offset, mut records, mut body_bytes) = (self.position(), 0, 0);
        let mut reader =
            ExtentReader::new(Arc::clone(&extent.file.segment), extent.offset, extent.offset + extent.len);
        while let Some((record, _, _)) = reader.next()? {
            let Some(target) = record.targets().next() else { continue };
            if extent.has(target.seq) {
                self.put(target, record.persistent, record.value, record.body)?;
                records += 1;
                body_bytes += Message::stored_body_len(record.body).unwrap_or_default() as u64;
            }
        }
        let (file, len) = (Arc::clone(&self.file), self.position() - offset);
        Ok(Relocated { key, file, offset, len, records, body_bytes })
    }

    fn put(&mut self, target: Target, persistent: bool, value: u64, body: &[u8]) -> io::Result<()> {
        let start = self.buffer.len();
        let head = Head { kind: Kind::Message, persistent, targets: 1, body_len: body.len(), value };
        head.encode(&mut self.buffer);
        encode_target(target, &mut self.buffer);
        seal(self.file.segment.number, &mut self.buffer[start..start + HEAD_LEN + TARGET_LEN], body, &[]);
        self.buffer.extend_from_slice(body);
        if self.buffer.len() >= Self::BUFFER_LEN { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.segment.file.write_all_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.throttle.wrote(self.buffer.len() as u64);
        self.buffer.clear();
        self.buffer.shrink_to(Self::BUFFER_LEN);
        Ok(())
    }

    /// Makes everything durable.
    fn finish(mut self) -> io::Result<Arc<CompactFile>> {
        self.flush()?;
        self.file.segment.file.sync()?;
        self.file.len.store(self.offset, Ordering::Relaxed);
        self.file.live_len.store(self.offset - HEADER_LEN as u64, Ordering::Relaxed);
        Ok(self.file)
    }
}

/// Keeps background writes from crowding out the log.
struct Throttle {
    bytes_per_second: u64,
    since_pause: u64,
}

impl Throttle {
    fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, since_pause: 0 }
    }

    fn wrote(&mut self, bytes: u64) {
        self.since_pause += bytes;
        if self.since_pause >= THROTTLE_STEP && self.bytes_per_second > 0 {
            let pause = self.since_pause as f64 / self.bytes_per_second as f64;
            std::thread::sleep(Duration::from_secs_f64(pause));
            self.since_pause = 0;
        }
    }
}
