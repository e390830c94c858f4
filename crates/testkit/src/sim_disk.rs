//! A disk in memory whose power can be cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use warren_store::{Disk, DiskFile};

/// What a disk writes as a whole, almost always, in bytes.
const SECTOR: usize = 512;

/// The size of a disk until it is set, in bytes: more than any test fills.
const CAPACITY: u64 = 1 << 40;

/// One in so many cuts tears the last sector.
const TEARS: u64 = 8;

/// A disk in memory that promises as little as a real one.
///
/// Readers see everything that was written. What survives [`SimDisk::power_cut`] is what was synced, and an
/// arbitrary part of the rest: sectors of 512 bytes in any order, each as it was at some time; lengths with or
/// without the bytes they cover; names in the order of their changes. A file's name and its content are durable
/// independently of each other.
///
/// Calls that change something are numbered: creations, renames, removals, [`Disk::sync_names`], writes,
/// changes of length and [`DiskFile::sync`]. [`SimDisk::fail_after`] and [`SimDisk::fail_call`] choose among them.
///
/// Clones are the same disk. Its choices depend on nothing but its seed and the calls.
#[derive(Clone)]
pub struct SimDisk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    on_sync: Mutex<Option<SyncHook>>,
}

type SyncHook = Arc<dyn Fn(u64) + Send + Sync>;

/// The number of a file, whatever its name is.
type FileId = u64;

type Names = BTreeMap<String, FileId>;

#[derive(Clone)]
struct State {
    files: BTreeMap<FileId, Content>,
    next_file: FileId,
    /// As everybody sees them.
    names: Names,
    durable_names: Names,
    /// Changes that are not durable, the oldest first.
    name_changes: Vec<NameChange>,
    capacity: u64,
    rng: Rng,
    counters: Counters,
    faults: Faults,
}

/// A file has another name from now on, or none.
#[derive(Clone)]
struct NameChange {
    file: FileId,
    name: Option<String>,
}

#[derive(Clone, Default)]
struct Counters {
    calls: u64,
    syncs: u64,
    bytes_written: u64,
}

/// Keyed by how many calls come before.
#[derive(Clone, Default)]
struct Faults {
    power_off: Option<u64>,
    failures: BTreeMap<u64, io::ErrorKind>,
    off: bool,
}

/// How a call ends.
#[derive(Clone, Copy)]
enum Fate {
    Works,
    Fails(io::ErrorKind),
    PowerFails,
}

/// The content of a file.
#[derive(Clone, Default)]
struct Content {
    /// As everybody sees it.
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Changes that are not durable, the oldest first.
    changes: VecDeque<Change>,
    /// How many changes came before those.
    settled: u64,
    /// Shared with the open handles, so that it tells whether there are any.
    handles: Arc<()>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(State::new(Rng(seed)))
    }

    /// What the next process finds after this one was killed: everything that was written, as durable as it was.
    ///
    /// The new disk has no faults and counts from zero. This one stays as it is, for whoever still writes to it.
    #[must_use]
    pub fn kill(&self) -> Self {
        let state = self.state().clone();
        Self::with(State { counters: Counters::default(), faults: Faults::default(), ..state })
    }

    /// What is found after a power cut at this moment; each seed finds something else.
    ///
    /// The new disk has no faults and counts from zero, and all it holds is durable. This one stays as it is, so it
    /// can be cut again with other seeds.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        let mut rng = Rng(seed);
        let state = self.state();
        let mut names = state.durable_names.clone();
        for change in state.name_changes.iter().take(rng.prefix(state.name_changes.len())) {
            change.apply(&mut names);
        }
        let cut = |file: &FileId| (*file, Content::durable(state.files[file].cut(&mut rng)));
        let files = names.values().map(cut).collect();
        Self::with(State {
            files,
            next_file: state.next_file,
            names: names.clone(),
            durable_names: names,
            capacity: state.capacity,
            ..State::new(rng)
        })
    }

    /// Switches the power off during the call after `calls` more: that call may be done, or done in part, and it
    /// and every other call from then on fail, also those that only read.
    pub fn fail_after(&self, calls: u64) {
        let mut state = self.state();
        state.faults.power_off = Some(state.counters.calls + calls);
    }

    /// Lets one call fail, the one after `calls` more. It changes nothing, except that a write may be done in part.
    ///
    /// If it is a sync, of a file or of names, what it should have made durable never will be, although everybody
    /// sees it until the power is cut: a system may well drop what it could not write.
    pub fn fail_call(&self, calls: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        let call = state.counters.calls + calls;
        state.faults.failures.insert(call, kind);
    }

    /// Calls `hook` in every [`DiskFile::sync`], with its number from 1 on. Other calls go on meanwhile; what they
    /// write is not part of that sync.
    pub fn on_sync(&self, hook: impl Fn(u64) + Send + Sync + 'static) {
        *lock(&self.0.on_sync) = Some(Arc::new(hook));
    }

    /// Sets how many bytes the files with names can have together. What goes beyond fails with
    /// [`io::ErrorKind::StorageFull`]; of a write, as much as fits is done.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Whether the power is still on.
    #[must_use]
    pub fn has_power(&self) -> bool {
        !self.state().faults.off
    }

    /// How many calls were made that change something, with those that failed while the power was on.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().counters.calls
    }

    /// How often files were synced, with or without success.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().counters.syncs
    }

    /// Bytes that were written to files.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.state().counters.bytes_written
    }

    fn with(state: State) -> Self {
        Self(Arc::new(Shared { state: Mutex::new(state), on_sync: Mutex::new(None) }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    fn handle(&self, state: &State, file: FileId) -> Arc<dyn DiskFile> {
        Arc::new(OpenFile { disk: self.clone(), file, _open: state.files[&file].handles.clone() })
    }

    /// A change to the name of the file that is called `name`.
    fn change_name(&self, name: &str, to: Option<&str>) -> io::Result<()> {
        to.map_or(Ok(()), check_name)?;
        let mut state = self.state();
        let fate = state.begin()?;
        let file = state.find(name)?;
        state.set_name(fate, file, to);
        fate.result()
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("SimDisk")
            .field("files", &state.names.len())
            .field("calls", &state.counters.calls)
            .finish_non_exhaustive()
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.check_power()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        state.check_power()?;
        let file = state.find(name)?;
        Ok(self.handle(&state, file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        let mut state = self.state();
        let fate = state.begin()?;
        let file = match state.find(name) {
            Ok(file) => {
                state.set_len(fate, file, 0);
                file
            }
            Err(_) => state.new_file(fate, name),
        };
        fate.result()?;
        Ok(self.handle(&state, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change_name(from, Some(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change_name(name, None)
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        let fate = state.begin()?;
        match fate {
            Fate::Works => state.settle_names(),
            Fate::Fails(_) => state.name_changes.clear(),
            Fate::PowerFails => {}
        }
        state.forget_removed();
        fate.result()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        state.check_power()?;
        Ok(state.free())
    }
}

struct OpenFile {
    disk: SimDisk,
    file: FileId,
    _open: Arc<()>,
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl DiskFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.check_power()?;
        Ok(state.files[&self.file].seen.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        state.check_power()?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        let bytes = state.files[&self.file].seen.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let fate = state.begin()?;
        let wanted = match fate {
            Fate::Works => bytes.len(),
            Fate::Fails(_) | Fate::PowerFails => state.rng.up_to(bytes.len()),
        };
        let done = wanted.min(state.room(self.file, offset));
        state.write(self.file, &bytes[..done], offset);
        fate.result()?;
        if done < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let fate = state.begin()?;
        let held = state.files[&self.file].seen.len() as u64;
        if len.saturating_sub(held) > state.free() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.set_len(fate, self.file, len as usize);
        fate.result()
    }

    fn sync(&self) -> io::Result<()> {
        let (fate, number, last) = self.disk.state().begin_sync(self.file)?;
        let hook = lock(&self.disk.0.on_sync).clone();
        if let Some(hook) = hook {
            hook(number);
        }
        let mut state = self.disk.state();
        // It may have gone off meanwhile; then any part of the changes may have been made durable.
        state.check_power()?;
        state.file(self.file).settle(last, matches!(fate, Fate::Works));
        fate.result()
    }
}

impl State {
    fn new(rng: Rng) -> Self {
        Self {
            files: BTreeMap::new(),
            next_file: 0,
            names: Names::new(),
            durable_names: Names::new(),
            name_changes: Vec::new(),
            capacity: CAPACITY,
            rng,
            counters: Counters::default(),
            faults: Faults::default(),
        }
    }

    /// Counts a call and tells what becomes of it.
    fn begin(&mut self) -> io::Result<Fate> {
        self.check_power()?;
        let call = self.counters.calls;
        self.counters.calls += 1;
        if self.faults.power_off == Some(call) {
            self.faults.off = true;
            return Ok(Fate::PowerFails);
        }
        Ok(self.faults.failures.remove(&call).map_or(Fate::Works, Fate::Fails))
    }

    /// Also gives the number of the sync, and of the last change that is part of it.
    fn begin_sync(&mut self, file: FileId) -> io::Result<(Fate, u64, u64)> {
        let fate = self.begin()?;
        self.counters.syncs += 1;
        Ok((fate, self.counters.syncs, self.files[&file].last_change()))
    }

    fn check_power(&self) -> io::Result<()> {
        if self.faults.off { Err(power_is_off()) } else { Ok(()) }
    }

    /// Whether a call that is done as a whole or not at all is done.
    fn is_done(&mut self, fate: Fate) -> bool {
        match fate {
            Fate::Works => true,
            Fate::Fails(_) => false,
            Fate::PowerFails => self.rng.up_to(1) == 1,
        }
    }

    fn find(&self, name: &str) -> io::Result<FileId> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&mut self, file: FileId) -> &mut Content {
        self.files.get_mut(&file).expect("a file with a handle or a name is kept")
    }

    fn new_file(&mut self, fate: Fate, name: &str) -> FileId {
        let file = self.next_file;
        self.next_file += 1;
        self.files.insert(file, Content::default());
        self.set_name(fate, file, Some(name));
        file
    }

    fn set_name(&mut self, fate: Fate, file: FileId, name: Option<&str>) {
        if self.is_done(fate) {
            let change = NameChange { file, name: name.map(str::to_owned) };
            change.apply(&mut self.names);
            self.name_changes.push(change);
        }
    }

    fn settle_names(&mut self) {
        for change in self.name_changes.drain(..) {
            change.apply(&mut self.durable_names);
        }
    }

    /// Drops the content of files that nobody can reach any more.
    fn forget_removed(&mut self) {
        let changed = self.name_changes.iter().map(|change| &change.file);
        let named: BTreeSet<_> =
            self.names.values().chain(self.durable_names.values()).chain(changed).collect();
        self.files.retain(|file, content| named.contains(file) || Arc::strong_count(&content.handles) > 1);
    }

    fn write(&mut self, file: FileId, bytes: &[u8], offset: u64) {
        if !bytes.is_empty() {
            self.counters.bytes_written += bytes.len() as u64;
            self.file(file).change(Change::Write { offset: offset as usize, bytes: bytes.to_vec() });
        }
    }

    fn set_len(&mut self, fate: Fate, file: FileId, len: usize) {
        if self.is_done(fate) {
            self.file(file).change(Change::SetLen(len));
        }
    }

    /// Bytes that can still be written.
    fn free(&self) -> u64 {
        let used: usize = self.names.values().map(|file| self.files[file].seen.len()).sum();
        self.capacity.saturating_sub(used as u64)
    }

    /// Bytes that can be written to a file from `offset` on.
    fn room(&self, file: FileId, offset: u64) -> usize {
        let end = (self.files[&file].seen.len() as u64).saturating_add(self.free());
        end.saturating_sub(offset) as usize
    }
}

impl NameChange {
    /// A file has one name, and a name belongs to one file.
    fn apply(&self, names: &mut Names) {
        names.retain(|_, file| *file != self.file);
        if let Some(name) = &self.name {
            names.insert(name.clone(), self.file);
        }
    }
}

impl Fate {
    fn result(self) -> io::Result<()> {
        match self {
            Self::Works => Ok(()),
            Self::Fails(kind) => Err(kind.into()),
            Self::PowerFails => Err(power_is_off()),
        }
    }
}

impl Content {
    fn durable(bytes: Vec<u8>) -> Self {
        Self { seen: bytes.clone(), durable: bytes, ..Self::default() }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.changes.push_back(change);
    }

    fn last_change(&self) -> u64 {
        self.settled + self.changes.len() as u64
    }

    /// Decides about the changes up to a number: they are durable, or never will be.
    fn settle(&mut self, last: u64, durable: bool) {
        while self.settled < last
            && let Some(change) = self.changes.pop_front()
        {
            self.settled += 1;
            if durable {
                change.apply(&mut self.durable);
            }
        }
    }

    /// What a power cut leaves: of the changes that are not durable all, none, the first ones, or any.
    fn cut(&self, rng: &mut Rng) -> Vec<u8> {
        if rng.below(2) == 0 {
            return self.scattered(rng);
        }
        let mut disk = self.durable.clone();
        for change in self.changes.iter().take(rng.prefix(self.changes.len())) {
            change.apply(&mut disk);
        }
        disk
    }

    /// What is left if the system wrote whatever it liked to, as the file was changed.
    fn scattered(&self, rng: &mut Rng) -> Vec<u8> {
        let mut seen = self.durable.clone();
        let mut disk = seen.clone();
        let diligence = rng.up_to(100);
        for (number, change) in self.changes.iter().enumerate() {
            change.apply(&mut seen);
            let writes = |rng: &mut Rng| rng.up_to(99) < diligence;
            match change {
                Change::SetLen(len) if writes(rng) => disk.resize(*len, 0),
                Change::SetLen(_) => {}
                Change::Write { offset, bytes } => {
                    if writes(rng) {
                        disk.resize(seen.len(), 0);
                    }
                    let end = offset + bytes.len();
                    let tear = number + 1 == self.changes.len() && rng.below(TEARS) == 0;
                    for start in (offset - offset % SECTOR..end).step_by(SECTOR) {
                        let torn = tear && start + SECTOR >= end;
                        let len = if torn { rng.up_to(end - start) } else { SECTOR };
                        if writes(rng) {
                            write_out(&seen, &mut disk, start, len);
                        }
                    }
                }
            }
        }
        disk
    }
}

/// Copies what is seen of a sector to the disk.
fn write_out(seen: &[u8], disk: &mut Vec<u8>, start: usize, len: usize) {
    let end = seen.len().min(start + len);
    write(disk, start, &seen[start..end]);
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => write(content, *offset, bytes),
            Self::SetLen(len) => content.resize(*len, 0),
        }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

fn check_name(name: &str) -> io::Result<()> {
    if name.is_empty() || name.contains('/') { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

/// A test that panics in one thread should not make others fail in other ways.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Splitmix64.
#[derive(Clone)]
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn up_to(&mut self, last: usize) -> usize {
        self.below(last as u64 + 1) as usize
    }

    /// How many of the first things are kept: none, all or any number, each as likely.
    fn prefix(&mut self, len: usize) -> usize {
        match self.below(3) {
            0 => 0,
            1 => len,
            _ => self.up_to(len),
        }
    }
}
