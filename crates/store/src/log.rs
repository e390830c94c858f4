//! The log of the node: whoever has records appends them to a buffer, and one thread writes and syncs.
//!
//! The thread takes what has come, writes it, syncs if anybody waits for that, wakes those who do, and starts over:
//! the next group is what arrived during the last sync. Nothing waits for a timer.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use crate::account::Account;
use crate::disk::Disk;
use crate::journal::{Change, Journal, Lsn};
use crate::record::HEAD_LEN;
use crate::records::Records;
use crate::segment::{FileKind, HEADER_LEN, Segment};

/// Called when something is durable.
pub type Wake = Box<dyn FnOnce() + Send>;

/// How long what nobody waits for may stay unsynced.
const IDLE_SYNC: Duration = Duration::from_millis(200);

/// How long a group whose records nobody else tells of may be the last. Meanwhile nothing else was written.
const IDLE_TELL: Duration = Duration::from_secs(1);

/// Zeros that are written ahead of small groups, in bytes. A sync of what made a file longer writes the file's inode as
/// well, and takes half as long again.
const AHEAD_LEN: u32 = 256 * 1024;

/// Longest group that zeros are written ahead of, in bytes. Longer ones gain little by them, and would write twice as
/// much.
const AHEAD_GROUP_LEN_MAX: u64 = 16 * 1024;

/// Bytes that may wait to be written before those who append must wait too.
const PENDING_MAX: usize = 8 * 1024 * 1024;

/// Length of the record that starts a group and tells nothing, in bytes.
const BATCH_LEN: usize = HEAD_LEN;

/// A group of records for one segment.
#[derive(Debug)]
struct Chunk {
    start: Lsn,
    records: Records,
}

#[derive(Default)]
struct State {
    pending: Vec<Chunk>,
    pending_len: usize,
    /// Where the next record goes.
    end: Lsn,
    on_durable: Vec<(Lsn, Wake)>,
    /// Changes of the metadata table that are not in the table itself.
    changes: Vec<Change>,
    account: Account,
    stopping: bool,
    failed: bool,
}

impl State {
    /// Starts a group, which tells of earlier ones if there is enough to tell, or if it must.
    fn start_group(&mut self, must_tell: bool) {
        let mut group = Records::default();
        match must_tell || self.account.is_due(self.end) {
            true => group.batch(&self.account.tell(self.end)),
            false => group.batch(&[]),
        }
        let (start, len) = (self.end, group.len());
        self.pending.push(Chunk { start, records: group });
        self.pending_len += len;
        self.end = Lsn(start.0 + len as u64);
    }

    /// Tells what there is to tell, as after this nothing may follow for long.
    fn tell(&mut self) {
        if self.account.has_news() && !self.failed {
            self.start_group(true);
        }
    }

    fn take_work(&mut self, idle: bool) -> Work {
        if idle {
            self.tell();
        }
        self.pending_len = 0;
        Work { chunks: std::mem::take(&mut self.pending), end: self.end, stop: false, idle }
    }
}

/// The log.
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    segment_len: u32,
    state: Mutex<State>,
    /// Something was appended.
    work: Condvar,
    /// Something was written, or the log failed.
    progress: Condvar,
    written: AtomicU64,
    durable: AtomicU64,
    segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    on_failure: Box<dyn Fn(&io::Error) + Send + Sync>,
    /// Called when a segment is full.
    on_roll: Box<dyn Fn() + Send + Sync>,
    /// Set if there is no thread that writes: then those who wait do.
    by_hand: Option<Mutex<Writer>>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("durable", &self.durable_to()).finish_non_exhaustive()
    }
}

/// What a [`Log`] calls.
pub(crate) struct Hooks {
    pub on_failure: Box<dyn Fn(&io::Error) + Send + Sync>,
    pub on_roll: Box<dyn Fn() + Send + Sync>,
}

impl Log {
    /// A log whose next segment is `first`, after the given ones.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        segment_len: u32,
        segments: BTreeMap<u32, Arc<Segment>>,
        next: u32,
        hooks: Hooks,
        by_hand: bool,
    ) -> Self {
        let start = Lsn::new(next, HEADER_LEN as u32);
        Self {
            disk,
            segment_len,
            state: Mutex::new(State { end: start, ..State::default() }),
            work: Condvar::new(),
            progress: Condvar::new(),
            written: AtomicU64::new(start.0),
            durable: AtomicU64::new(start.0),
            segments: RwLock::new(segments),
            on_failure: hooks.on_failure,
            on_roll: hooks.on_roll,
            by_hand: by_hand.then(Mutex::default),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends all records, which stay together in one segment, and empties the batch. Returns where the first of them
    /// is and where the last ends.
    pub(crate) fn append(&self, records: &mut Records) -> (Lsn, Lsn) {
        let mut state = self.lock();
        self.append_locked(&mut state, records)
    }

    fn append_locked(&self, state: &mut State, records: &mut Records) -> (Lsn, Lsn) {
        if records.is_empty() || state.failed {
            records.clear();
            return (state.end, state.end);
        }
        let len = records.len();
        let room = u64::from(state.end.offset()) + (len + BATCH_LEN) as u64 <= u64::from(self.segment_len);
        if !room && state.end.offset() as usize > HEADER_LEN {
            state.end = Lsn::new(state.end.segment() + 1, HEADER_LEN as u32);
        }
        let was_empty = state.pending.is_empty();
        let same = state.pending.last().is_some_and(|chunk| chunk.start.segment() == state.end.segment());
        if !same {
            state.start_group(false);
        }
        let base = state.end;
        state.account.take(&mut records.tally);
        let chunk = state.pending.last_mut().expect("one was pushed if there was none");
        chunk.records.append(records);
        state.end = Lsn(base.0 + len as u64);
        state.pending_len += len;
        if was_empty {
            self.work.notify_one();
        }
        (base, state.end)
    }

    /// Whether so much waits to be written that one should wait before appending more.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().pending_len > PENDING_MAX
    }

    /// Waits until everything before `lsn` has been handed to the system.
    ///
    /// # Errors
    /// If the log has failed.
    pub(crate) fn wait_written(&self, lsn: Lsn) -> io::Result<()> {
        if self.written_to() < lsn {
            self.write_by_hand();
        }
        self.wait_until(|| self.written_to() >= lsn)
    }

    /// Waits until everything before `lsn` is on stable storage.
    ///
    /// # Errors
    /// If the log has failed.
    pub(crate) fn wait_durable(&self, lsn: Lsn) -> io::Result<()> {
        if self.durable_to() < lsn {
            // Whoever writes syncs when somebody waits.
            self.when_durable(lsn, Box::new(|| {}));
            self.write_by_hand();
        }
        self.wait_until(|| self.durable_to() >= lsn)
    }

    fn wait_until(&self, is_reached: impl Fn() -> bool) -> io::Result<()> {
        let mut state = self.lock();
        while !is_reached() {
            if state.failed {
                return Err(io::Error::other("the log has failed"));
            }
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    pub(crate) fn written_to(&self) -> Lsn {
        Lsn(self.written.load(Ordering::Acquire))
    }

    pub(crate) fn durable_to(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// Where the next record goes.
    pub(crate) fn end(&self) -> Lsn {
        self.lock().end
    }

    /// Takes the changes of the metadata table that were recorded so far, and where the last of them ends.
    pub(crate) fn take_changes(&self) -> (Vec<Change>, Lsn) {
        let mut state = self.lock();
        (std::mem::take(&mut state.changes), state.end)
    }

    pub(crate) fn changes_len(&self) -> usize {
        self.lock().changes.len()
    }

    pub(crate) fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// The numbers of the segments there are, oldest first.
    pub(crate) fn segment_numbers(&self) -> Vec<u32> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    /// Length of all segments, in bytes, as if each were full.
    pub(crate) fn len(&self) -> u64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner).len();
        segments as u64 * u64::from(self.segment_len)
    }

    /// Notes changes that the log has and the table does not, and what is to be told of the log's end.
    pub(crate) fn resume(&self, changes: Vec<Change>, account: Account) {
        let mut state = self.lock();
        (state.changes, state.account) = (changes, account);
    }

    /// Gives up the segments before `first` and removes their files, or puts them aside for inspection.
    pub(crate) fn remove_before(&self, first: u32, is_damaged: bool) -> io::Result<()> {
        let old = {
            let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
            let kept = segments.split_off(&first);
            std::mem::replace(&mut *segments, kept)
        };
        for number in old.keys() {
            let name = FileKind::Log.name(*number);
            match is_damaged {
                true => self.disk.rename(&name, &format!("damaged-{name}"))?,
                false => self.disk.remove(&name)?,
            }
        }
        Ok(())
    }

    /// Waits until everything is durable, and lets the thread end.
    pub(crate) fn stop(&self) -> io::Result<()> {
        self.wait_durable(self.end())?;
        // Told afterwards, so that it says that all the rest is durable.
        self.lock().tell();
        let durable = self.wait_durable(self.end());
        self.lock().stopping = true;
        self.work.notify_one();
        durable
    }

    /// Writes until [`Log::stop`], or until the disk fails.
    pub(crate) fn run(&self) {
        if let Err(error) = Writer::default().run(self) {
            self.fail(&error);
        }
    }

    /// Writes and syncs what has come, if there is no thread for that.
    pub(crate) fn write_by_hand(&self) {
        let Some(writer) = &self.by_hand else { return };
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        let work = {
            let mut state = self.lock();
            if state.failed {
                return;
            }
            state.take_work(false)
        };
        if let Err(error) = writer.write_group(self, work) {
            self.fail(&error);
        }
    }

    fn fail(&self, error: &io::Error) {
        self.lock().failed = true;
        self.progress.notify_all();
        (self.on_failure)(error);
    }

    fn is_awaited(&self, end: Lsn) -> bool {
        self.lock().on_durable.iter().any(|(lsn, _)| *lsn <= end)
    }

    fn release(&self) {
        let durable = self.durable_to();
        let mut ready = Vec::new();
        {
            let mut state = self.lock();
            take_up_to(&mut state.on_durable, durable, &mut ready);
        }
        self.progress.notify_all();
        ready.into_iter().for_each(|wake| wake());
    }
}

fn take_up_to(waiting: &mut Vec<(Lsn, Wake)>, lsn: Lsn, ready: &mut Vec<Wake>) {
    if waiting.iter().all(|(at, _)| *at <= lsn) {
        ready.extend(waiting.drain(..).map(|(_, wake)| wake));
        return;
    }
    let (due, rest) = std::mem::take(waiting).into_iter().partition(|(at, _)| *at <= lsn);
    *waiting = rest;
    let due: Vec<(Lsn, Wake)> = due;
    ready.extend(due.into_iter().map(|(_, wake)| wake));
}

/// The state of whoever writes.
#[derive(Default)]
struct Writer {
    current: Option<Current>,
    /// Something was written and not synced.
    dirty: bool,
}

/// The segment that is being written.
struct Current {
    segment: Arc<Segment>,
    /// Where the next group goes.
    end: u64,
    /// Where the zeros end that were written ahead.
    zeros_end: u64,
}

impl Current {
    /// Writes zeros behind a group that came to where they end.
    fn write_ahead(&mut self, group_len: u64, segment_len: u32) -> io::Result<()> {
        if self.end <= self.zeros_end || group_len > AHEAD_GROUP_LEN_MAX {
            return Ok(());
        }
        let zeros_end = (self.end + u64::from(AHEAD_LEN)).min(u64::from(segment_len));
        if zeros_end > self.end {
            self.segment.file.write_all_at(&vec![0; (zeros_end - self.end) as usize], self.end)?;
            self.zeros_end = zeros_end;
        }
        Ok(())
    }
}

/// What the thread is to do next.
struct Work {
    chunks: Vec<Chunk>,
    end: Lsn,
    /// Nobody appends any more.
    stop: bool,
    /// Nothing has come for a while.
    idle: bool,
}

impl Writer {
    fn run(&mut self, log: &Log) -> io::Result<()> {
        loop {
            let work = self.wait(log);
            if work.stop {
                return Ok(());
            }
            self.write_group(log, work)?;
        }
    }

    /// Writes what has come, syncs if anybody waits for that, and wakes those who waited.
    fn write_group(&mut self, log: &Log, work: Work) -> io::Result<()> {
        for chunk in work.chunks {
            self.write(log, chunk)?;
        }
        log.written.store(work.end.0, Ordering::Release);
        if self.dirty && (work.idle || log.is_awaited(work.end)) {
            self.sync()?;
        }
        if !self.dirty {
            log.durable.store(work.end.0, Ordering::Release);
        }
        log.release();
        Ok(())
    }

    /// Waits until there is something to write or to sync.
    fn wait(&self, log: &Log) -> Work {
        let mut state = log.lock();
        let mut idle = false;
        while state.pending.is_empty() && !idle {
            if state.stopping {
                return Work { chunks: Vec::new(), end: state.end, stop: true, idle };
            }
            if self.dirty && !state.on_durable.is_empty() {
                break;
            }
            if self.dirty || (state.on_durable.is_empty() && state.account.has_news()) {
                let waited = log.work.wait_timeout(state, if self.dirty { IDLE_SYNC } else { IDLE_TELL });
                let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                state = guard;
                idle = timeout.timed_out();
            } else if state.on_durable.is_empty() {
                state = log.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                break;
            }
        }
        state.take_work(idle)
    }

    fn write(&mut self, log: &Log, mut chunk: Chunk) -> io::Result<()> {
        let number = chunk.start.segment();
        if self.current.as_ref().is_none_or(|current| current.segment.number != number) {
            self.roll(log, number)?;
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        chunk.records.set_durable(log.durable_to());
        chunk.records.seal(number);
        let mut offset = u64::from(chunk.start.offset());
        for piece in chunk.records.pieces().filter(|piece| !piece.is_empty()) {
            current.segment.file.write_all_at(piece, offset)?;
            offset += piece.len() as u64;
        }
        current.end = offset;
        current.write_ahead(chunk.records.len() as u64, log.segment_len)?;
        self.dirty = true;
        Ok(())
    }

    /// Ends the current segment, for good and durably, and starts another.
    fn roll(&mut self, log: &Log, number: u32) -> io::Result<()> {
        let prev_len = match &self.current {
            Some(Current { segment, end, .. }) => {
                segment.file.sync()?;
                u32::try_from(*end).map_err(io::Error::other)?
            }
            None => 0,
        };
        let segment = Arc::new(Segment::create(&*log.disk, FileKind::Log, number, prev_len)?);
        let first = self.current.is_none();
        log.segments.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&segment));
        let end = HEADER_LEN as u64;
        self.current = Some(Current { segment, end, zeros_end: end });
        if !first {
            (log.on_roll)();
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(current) = &self.current {
            current.segment.file.sync()?;
        }
        self.dirty = false;
        Ok(())
    }
}

impl Journal for Log {
    fn change(&self, changes: Vec<Change>) -> Lsn {
        let mut records = Records::default();
        records.change(&changes);
        let mut state = self.lock();
        let (_, end) = self.append_locked(&mut state, &mut records);
        state.changes.extend(changes);
        end
    }

    fn is_durable(&self, lsn: Lsn) -> bool {
        self.durable_to() >= lsn
    }

    fn when_durable(&self, lsn: Lsn, wake: Wake) {
        {
            let mut state = self.lock();
            if self.durable_to() < lsn {
                state.on_durable.push((lsn, wake));
                self.work.notify_one();
                return;
            }
        }
        wake();
    }
}
