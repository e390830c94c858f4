//! The store as a shard uses it, on one thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use warren_store::{Disk, Install, Lsn, OpenError, Options, QueueIndex, Recovered, Shards, Snapshot, Store};
use warren_testkit::SimDisk;
use warren_types::{Message, QueueId};

/// So little that compact files are copied in most lives.
pub const DEAD_ALLOWED: u64 = 8 * 1024;

fn options() -> Options {
    Options {
        segment_len: 8 * 1024,
        log_len_max: 32 * 1024,
        bytes_per_second: 0,
        dead_allowed: DEAD_ALLOWED,
        by_hand: true,
    }
}

/// A store and the indexes of its queues.
pub struct Node {
    pub store: Arc<Store>,
    pub indexes: BTreeMap<QueueId, QueueIndex>,
    /// The queues that must not be used, and why.
    pub damage: BTreeMap<QueueId, String>,
    failed: Arc<AtomicBool>,
}

impl Node {
    pub fn open<const N: usize>(
        disk: &SimDisk,
        queues: [QueueId; N],
    ) -> Result<(Self, Recovered), OpenError> {
        let failed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&failed);
        let on_failure = Box::new(move |_: &str| flag.store(true, Ordering::SeqCst));
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let (store, mut recovered) = Store::open(disk, options(), on_failure, &|_, _| {})?;
        let mut damage = BTreeMap::new();
        let indexes = queues.map(|queue| match recovered.queues.remove(&queue) {
            Some(found) => {
                damage.extend(found.damage.map(|why| (queue, why)));
                (queue, found.index)
            }
            None => (queue, QueueIndex::new(queue)),
        });
        Ok((Self { store, indexes: BTreeMap::from(indexes), damage, failed }, recovered))
    }

    pub fn index(&mut self, queue: QueueId) -> &mut QueueIndex {
        self.indexes.get_mut(&queue).expect("all queues have an index")
    }

    /// Moves everything from the log but so many segments; whether that works.
    pub fn checkpoint(&mut self, keep_segments: usize) -> bool {
        let shards = Indexes(RefCell::new(&mut self.indexes));
        let works = self.store.checkpoint(keep_segments, &shards).is_ok();
        self.failed.fetch_or(!works, Ordering::SeqCst);
        works
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Everything a queue has of a priority, read in small steps.
    pub fn read(&mut self, queue: QueueId, priority: u8) -> Vec<(u64, Message, bool)> {
        self.read_during(queue, priority, |_| ())
    }

    /// The same, with something happening between a read and the index hearing of it.
    pub fn read_during(
        &mut self,
        queue: QueueId,
        priority: u8,
        mut happens: impl FnMut(&mut Self),
    ) -> Vec<(u64, Message, bool)> {
        let mut all = Vec::new();
        let mut after = None;
        while let Some(load) = self.store.plan(&self.indexes[&queue], priority, after, 3000) {
            let loaded = self.store.load_now(&load).expect("nothing is damaged");
            happens(self);
            self.index(queue).loaded(priority, &loaded);
            after = loaded.last.max(after);
            let index = &self.indexes[&queue];
            let live = loaded.messages.into_iter().filter(|message| index.has(priority, message.seq));
            all.extend(live.map(|message| (message.seq, message.message, message.persistent)));
        }
        all
    }
}

/// All indexes, in the hands of a checkpoint.
struct Indexes<'a>(RefCell<&'a mut BTreeMap<QueueId, QueueIndex>>);

impl Shards for Indexes<'_> {
    fn snapshot(&self, up_to: Lsn, relocate: Option<u32>) -> Option<Vec<Snapshot>> {
        let mut snapshot = Snapshot::default();
        self.0.borrow_mut().values_mut().for_each(|index| index.snapshot(up_to, relocate, &mut snapshot));
        Some(vec![snapshot])
    }

    fn install(&self, install: Arc<Install>) {
        assert!(install.damaged.is_empty());
        self.0.borrow_mut().values_mut().for_each(|index| index.install(&install));
    }
}
