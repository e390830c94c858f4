//! Time that the store takes for a message, without a disk: into the log, and forgotten again.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use warren_store::{Disk, DiskFile, Options, QueueIndex, Store, Stored, Turn};
use warren_types::{Message, MessageParts, QueueId};

/// Messages in a turn.
const TURN: u64 = 1000;

/// A disk that keeps the table, which is read again, and drops everything else.
#[derive(Debug, Default, Clone)]
struct Nowhere(Arc<Mutex<BTreeMap<String, Arc<File>>>>);

#[derive(Debug)]
struct File {
    is_kept: bool,
    bytes: Mutex<Vec<u8>>,
}

impl Nowhere {
    fn files(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<File>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for Nowhere {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.files().get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(file)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = Arc::new(File { is_kept: name.starts_with("table"), bytes: Mutex::default() });
        self.files().insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.files().remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.files().insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl File {
    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskFile for File {
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
        if !self.is_kept {
            return Ok(());
        }
        let mut bytes = self.bytes();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let len = bytes.len().max(start + written.len());
        bytes.resize(len, 0);
        bytes[start..start + written.len()].copy_from_slice(written);
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

/// A turn that takes messages, is synced, and another that forgets them.
fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(TURN));
    for len in [16, 1024] {
        let options = Options { by_hand: true, ..Options::default() };
        let opened = Store::open(Arc::new(Nowhere::default()), options, Box::new(|_| {}), &|_, _| {});
        let (store, _) = opened.expect("nothing fails");
        let (mut index, mut turn, mut next) = (QueueIndex::new(QueueId(1)), Turn::default(), 0);
        let parts = MessageParts { routing_key: b"queue", persistent: true, ..MessageParts::default() };
        let message = Message::new(parts, &vec![7; len], &mut Vec::new());
        group.bench_function(format!("{len} B"), |bencher| {
            bencher.iter(|| {
                for seq in next..next + TURN {
                    let message = &message;
                    let stored = Stored {
                        slot: 0,
                        seq,
                        priority: 0,
                        at: seq,
                        persistent: true,
                        message,
                        shared: None,
                    };
                    turn.store(&store, &mut index, stored);
                }
                let end = turn.append(&store, |_, placed| placed.note(&mut index)).expect("it is not empty");
                store.when_durable(end, Box::new(|| {}));
                store.write();
                (next..next + TURN).for_each(|seq| turn.forget(&mut index, 0, seq, true, len as u64));
                next += TURN;
                turn.append(&store, |_, placed| placed.note(&mut index))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
