//! The store as a whole: opening, threads, stopping.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::checkpoint::{CheckpointError, Checkpoints, Shards};
use crate::disk::Disk;
use crate::extents::Extent;
use crate::index::{CompactFile, QueueIndex};
use crate::journal::{Journal, Lsn};
use crate::load::{Load, LoadError, LoadedMessages, ReadCursor};
use crate::log::{Hooks, Log, Wake};
use crate::recovery::{self, Progress, Recovered, Replayed};
use crate::segment::{FileKind, HeaderError, Segment, check_header};
use crate::table::{self, Contents, Table, TableError, Update};
use crate::turn::Turn;

/// How the store behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Length of a segment of the log, in bytes.
    pub segment_len: u32,
    /// Length of the log from which on its oldest half moves to compact files, in bytes.
    pub log_len_max: u64,
    /// Most bytes a second that are moved in the background; 0 for no limit.
    pub bytes_per_second: u64,
    /// Compact files are at most twice as long as what is alive in them and this many bytes; beyond that, the one
    /// with the largest dead part is copied at the next checkpoint.
    pub dead_allowed: u64,
    /// Start no threads: whoever waits does the work, and [`Store::write`] and [`Store::checkpoint`] the rest. For
    /// tests that must do the same every time.
    pub by_hand: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_len: 16 * 1024 * 1024,
            log_len_max: 64 * 1024 * 1024,
            bytes_per_second: 400 * 1024 * 1024,
            dead_allowed: 64 * 1024 * 1024,
            by_hand: false,
        }
    }
}

/// Changes of the metadata table that may wait for a checkpoint.
const CHANGES_MAX: usize = 100_000;

/// How long a compact file that is worth copying, or dead, may wait for that.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How often it is looked whether there is one.
const LOOK_INTERVAL_IDLE: Duration = Duration::from_secs(10);

/// A log this many times as long as it should be makes those who append wait.
const OVERLONG: u64 = 4;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system says so.
    #[error("the disk cannot be used: {0}")]
    Io(#[from] io::Error),
    /// A later version wrote it.
    #[error(
        "{file} has format {format}, this version knows {}; use the version that wrote it",
        crate::segment::FORMAT
    )]
    Newer {
        /// The file.
        file: String,
        /// Its format.
        format: u32,
    },
    /// A file is not there.
    #[error("{0}: restore it, or move the whole directory away to start anew")]
    Missing(String),
    /// Definitions cannot be read.
    #[error("{file} is damaged at byte {offset}, where definitions stand: restore it from a backup")]
    Senseless {
        /// The file.
        file: String,
        /// Where.
        offset: u32,
    },
    /// Definitions are missing.
    #[error("{0} cannot be read, and definitions stood there: restore the directory from a backup")]
    LostDefinitions(String),
    /// The table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// What a failure of the disk is told to. The store does nothing any more; the process should end.
pub type OnFailure = Box<dyn Fn(&str) + Send + Sync>;

/// The store of a node.
#[derive(Debug)]
pub struct Store {
    log: Arc<Log>,
    options: Options,
    loader: Mutex<Option<Sender<LoadJob>>>,
    checkpoint: Sender<Signal>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    checkpoints: Mutex<Option<(Checkpoints, Receiver<Signal>)>>,
    on_failure: FailureHook,
}

#[derive(Clone)]
struct FailureHook(Arc<OnFailure>);

impl std::fmt::Debug for FailureHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FailureHook")
    }
}

type LoadAnswer = Box<dyn FnOnce(Result<LoadedMessages, LoadError>) + Send>;

struct LoadJob {
    loads: Vec<Load>,
    answer: LoadAnswer,
}

#[derive(Debug, PartialEq, Eq)]
enum Signal {
    Look,
    Stop,
}

impl Store {
    /// Opens what is on the disk and starts writing. [`Store::start_checkpoints`] must follow.
    ///
    /// # Errors
    /// If the disk fails, or what it holds is newer than this program, or so damaged that definitions are lost.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        on_failure: OnFailure,
        progress: Progress<'_>,
    ) -> Result<(Arc<Self>, Recovered), OpenError> {
        let (table, contents) = open_table(&*disk)?;
        let (first, next_file) = (contents.first_segment, contents.next_file);
        let mut recovered = Recovered::default();
        let files = open_extents(&*disk, contents, &mut recovered, false)?;
        let next_file = files.keys().next_back().map_or(next_file, |last| next_file.max(last + 1));
        let Replayed { segments, changes, account } =
            recovery::replay(&*disk, first, false, &mut recovered, progress)?;
        // What shows the damage may be gone the next time.
        table.update(Update {
            damaged: recovered.damaged(),
            first_segment: first,
            next_file,
            ..Update::default()
        })?;
        let next = segments.keys().next_back().map_or(first.max(1), |last| last + 1);
        let (signal, signals) = mpsc::channel();
        let hook = FailureHook(Arc::new(on_failure));
        let (roll, failure) = (signal.clone(), hook.clone());
        let hooks = Hooks {
            on_failure: Box::new(move |error| (failure.0)(&format!("the log cannot be written: {error}"))),
            // Nobody listens any more when the store is being stopped.
            on_roll: Box::new(move || drop(roll.send(Signal::Look))),
        };
        let log = Log::new(Arc::clone(&disk), options.segment_len, segments, next, hooks, options.by_hand);
        log.resume(changes, account);
        let log = Arc::new(log);
        let Options { bytes_per_second, dead_allowed, .. } = options;
        let files = Mutex::new(files);
        let checkpoints = Checkpoints {
            disk,
            log: Arc::clone(&log),
            table,
            files,
            next_file,
            bytes_per_second,
            dead_allowed,
        };
        let (loader, jobs) = mpsc::channel();
        let store = Arc::new(Self {
            log,
            options,
            loader: Mutex::new(Some(loader)),
            checkpoint: signal,
            threads: Mutex::new(Vec::new()),
            checkpoints: Mutex::new(Some((checkpoints, signals))),
            on_failure: hook,
        });
        if !store.options.by_hand {
            let log = Arc::clone(&store.log);
            store.spawn("warren-log", move || log.run())?;
            let log = Arc::clone(&store.log);
            store.spawn("warren-loader", move || run_loads(&log, &jobs))?;
        }
        Ok((store, recovered))
    }

    /// Writes what was appended, and syncs if somebody waits for that, where no thread does.
    pub fn write(&self) {
        self.log.write_by_hand();
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let handle = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
        Ok(())
    }

    /// Starts the thread that moves old messages, with the owners of the indexes.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn start_checkpoints(&self, shards: impl Shards + Send + 'static) -> io::Result<()> {
        let taken = self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((checkpoints, signals)) = taken else { return Ok(()) };
        let (hook, options) = (self.on_failure.clone(), self.options.clone());
        self.spawn("warren-checkpoint", move || {
            if let Err(error) = run_checkpoints(checkpoints, &signals, &options, &shards) {
                (hook.0)(&format!("a checkpoint failed: {error}"));
            }
        })
    }

    /// One checkpoint on the caller's thread, where no thread was started for that; so many segments stay.
    ///
    /// # Errors
    /// If it fails.
    pub fn checkpoint(&self, keep_segments: usize, shards: &dyn Shards) -> Result<(), CheckpointError> {
        let mut guard = self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((checkpoints, _)) = &mut *guard else { return Ok(()) };
        let numbers = checkpoints.log.segment_numbers();
        let Some(first) = numbers.get(numbers.len().saturating_sub(keep_segments)).or(numbers.last()) else {
            return Ok(());
        };
        checkpoints.run(*first, shards)
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// The log as the place for changes of definitions.
    #[must_use]
    pub fn journal(&self) -> Arc<dyn Journal> {
        Arc::<Log>::clone(&self.log) as Arc<dyn Journal>
    }

    /// Bytes that can still be written to the disk.
    ///
    /// # Errors
    /// As the system says.
    pub fn free_bytes(&self) -> io::Result<u64> {
        self.log.free_bytes()
    }

    /// Whether so much waits for the disk that nothing more should be appended for now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.log.is_full()
            || self.log.len() > OVERLONG * self.options.log_len_max + 4 * u64::from(self.options.segment_len)
    }

    /// Calls `wake` once everything before `lsn` is durable.
    pub fn when_durable(&self, lsn: Lsn, wake: Wake) {
        self.log.when_durable(lsn, wake);
    }

    /// Whether everything before `lsn` is durable.
    #[must_use]
    pub fn is_durable(&self, lsn: Lsn) -> bool {
        self.log.is_durable(lsn)
    }

    /// What to read for the messages of a priority after a number, about `bytes` of them; none if there are no more.
    #[must_use]
    pub fn plan(&self, index: &QueueIndex, priority: u8, after: Option<u64>, bytes: usize) -> Option<Load> {
        index.load(&self.log, priority, after, bytes)
    }

    /// As [`Store::plan`], for somebody who reads beside the queue and keeps to himself where he came to.
    #[must_use]
    pub fn plan_beside(
        &self,
        index: &QueueIndex,
        priority: u8,
        after: Option<u64>,
        bytes: usize,
        cursor: ReadCursor,
    ) -> Option<Load> {
        index.load_beside(&self.log, priority, after, bytes, cursor)
    }

    /// What to read for these messages, in rising order.
    #[must_use]
    pub fn plan_fetch(&self, index: &QueueIndex, priority: u8, seqs: &[u64]) -> Vec<Load> {
        index.fetch(&self.log, priority, seqs)
    }

    /// Reads on another thread, which calls `answer` with everything that was read.
    pub fn load(
        &self,
        loads: Vec<Load>,
        answer: impl FnOnce(Result<LoadedMessages, LoadError>) + Send + 'static,
    ) {
        let loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loader) = &*loader {
            // Without a loader the node is stopping, and nobody waits for messages.
            drop(loader.send(LoadJob { loads, answer: Box::new(answer) }));
        }
    }

    /// Reads on the caller's thread.
    ///
    /// # Errors
    /// If the messages cannot be read.
    pub fn load_now(&self, load: &Load) -> Result<LoadedMessages, LoadError> {
        load.run(&self.log)
    }

    /// Appends the last records, makes everything durable and ends the threads.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn stop(&self, turn: &mut Turn) -> io::Result<()> {
        drop(self.checkpoint.send(Signal::Stop));
        *self.loader.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let (writers, others): (Vec<_>, Vec<_>) =
            threads.into_iter().partition(|thread| thread.thread().name() == Some("warren-log"));
        others.into_iter().for_each(|thread| drop(thread.join()));
        turn.append(self, |_, _| {});
        let stopped = self.log.stop();
        writers.into_iter().for_each(|thread| drop(thread.join()));
        stopped
    }
}

fn run_loads(log: &Log, jobs: &Receiver<LoadJob>) {
    while let Ok(LoadJob { loads, answer }) = jobs.recv() {
        let mut all = LoadedMessages::default();
        let read = loads.iter().try_for_each(|load| {
            all.append(load.run(log)?);
            Ok(())
        });
        answer(read.map(|()| all));
    }
}

fn run_checkpoints(
    mut checkpoints: Checkpoints,
    signals: &Receiver<Signal>,
    options: &Options,
    shards: &dyn Shards,
) -> Result<(), CheckpointError> {
    loop {
        let signal = if checkpoints.log.len() > options.log_len_max {
            signals.recv_timeout(Duration::ZERO)
        } else if checkpoints.is_worthwhile() {
            signals.recv_timeout(LOOK_INTERVAL)
        } else if checkpoints.has_files() {
            // What is in them may be consumed without anything being written that would fill a segment.
            signals.recv_timeout(LOOK_INTERVAL_IDLE)
        } else {
            // Nothing happens in a store that is not used, so there is nothing to look at.
            signals.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match signal {
            Ok(Signal::Look) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let numbers = checkpoints.log.segment_numbers();
        let kept = (options.log_len_max / 2 / u64::from(options.segment_len)).max(1) as usize;
        let is_long = checkpoints.log.len() > options.log_len_max;
        let first = match is_long {
            true => numbers.len().saturating_sub(kept),
            false => 0,
        };
        let is_needed = is_long || checkpoints.log.changes_len() > CHANGES_MAX || checkpoints.is_worthwhile();
        if let Some(first) = numbers.get(first)
            && is_needed
        {
            checkpoints.run(*first, shards)?;
        }
    }
}

fn open_table(disk: &dyn Disk) -> Result<(Table, Contents), OpenError> {
    let names = disk.list()?;
    for name in names.iter().filter(|name| name.ends_with(recovery::TEMPORARY)) {
        disk.remove(name)?;
    }
    if names.iter().any(|name| name == table::FILE) {
        let file = disk.open(table::FILE)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        recovery::write_anew(disk, table::FILE, &bytes)?;
    } else {
        // A table whose creation was interrupted could not be opened: it gets its name when it is complete.
        let temporary = format!("{}{}", table::FILE, recovery::TEMPORARY);
        drop(Table::open(disk.create(&temporary)?)?);
        disk.rename(&temporary, table::FILE)?;
        disk.sync_names()?;
    }
    let table = Table::open(disk.open(table::FILE)?)?;
    let contents = table.contents()?;
    Ok((table, contents))
}

/// Opens the compact files that extents are in, and removes the others.
pub(crate) fn open_extents(
    disk: &dyn Disk,
    contents: Contents,
    recovered: &mut Recovered,
    read_only: bool,
) -> Result<BTreeMap<u32, Arc<CompactFile>>, OpenError> {
    recovered.metadata = contents.metadata.into_iter().collect();
    contents.damage.iter().for_each(|(queue, damage)| recovered.damage(*queue, damage));
    let mut files: BTreeMap<u32, Result<Arc<CompactFile>, String>> = BTreeMap::new();
    for (key, row) in contents.extents {
        let file = match files.get(&row.file) {
            Some(file) => file.clone(),
            None => {
                let opened = open_compact(disk, row.file)?;
                files.insert(row.file, opened.clone());
                opened
            }
        };
        match file {
            Ok(file) => {
                let extent = Extent::from_row(key, row, file);
                extent.file.live_len.fetch_add(extent.live_len(), Ordering::Relaxed);
                recovered.add_extent(key.queue, key.priority, extent);
            }
            Err(damage) => recovered.damage(key.queue, &damage),
        }
    }
    for number in disk.list()?.iter().filter_map(|name| FileKind::Compact.number(name)) {
        if !files.contains_key(&number) && !read_only {
            disk.remove(&FileKind::Compact.name(number))?;
        }
    }
    Ok(files.into_iter().filter_map(|(number, file)| Some((number, file.ok()?))).collect())
}

/// Opens a compact file; the inner error says what is wrong with it.
fn open_compact(disk: &dyn Disk, number: u32) -> Result<Result<Arc<CompactFile>, String>, OpenError> {
    let name = FileKind::Compact.name(number);
    let segment = match Segment::open(disk, FileKind::Compact, number) {
        Ok(segment) => segment,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Err(format!("{name} is missing")));
        }
        Err(error) => return Err(error.into()),
    };
    let header = segment.read(0, crate::segment::HEADER_LEN)?;
    match check_header(FileKind::Compact, number, &header) {
        Ok(_) => {}
        Err(HeaderError::Newer(format)) => return Err(OpenError::Newer { file: name, format }),
        Err(HeaderError::Torn) => return Ok(Err(format!("the header of {name} is damaged"))),
    }
    let len = AtomicU64::new(segment.file.len()?);
    let segment = Arc::new(segment);
    Ok(Ok(Arc::new(CompactFile { segment, len, live_len: AtomicU64::new(0) })))
}
