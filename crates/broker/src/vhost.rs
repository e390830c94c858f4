//! A virtual host: its exchanges, bindings, and the names of its queues.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use warren_router::Router;
use warren_types::{ConnectionId, FieldTable, QueueRef, ShortString};

/// What the virtual host knows of a queue; the queue itself lives on its shard.
#[derive(Debug, Clone)]
pub(crate) struct QueueEntry {
    pub queue: QueueRef,
    pub durable: bool,
    pub auto_delete: bool,
    /// The connection that it belongs to, if it is exclusive.
    pub owner: Option<ConnectionId>,
    pub arguments: FieldTable,
}

/// What names stand for.
#[derive(Debug)]
pub(crate) struct Tables {
    pub router: Router,
    pub queues: HashMap<ShortString, QueueEntry, RandomState>,
}

/// One virtual host.
#[derive(Debug)]
pub(crate) struct Vhost {
    pub name: Arc<str>,
    tables: RwLock<Tables>,
    /// Rises whenever routes may have changed.
    generation: AtomicU64,
}

impl Vhost {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            tables: RwLock::new(Tables { router: Router::new(), queues: HashMap::default() }),
            generation: AtomicU64::new(0),
        }
    }

    /// Routes found before the generation changed may be wrong.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Reads. A thread that panicked while it held the lock took the process with it or only read.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what routes depend on.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Tables) -> T) -> T {
        let mut tables: RwLockWriteGuard<'_, Tables> =
            self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut tables);
        self.generation.fetch_add(1, Ordering::Release);
        result
    }

    /// Forgets a queue that its shard has deleted, with its bindings.
    pub(crate) fn remove_queue(&self, name: &ShortString, queue: QueueRef) {
        self.change(|tables| {
            if tables.queues.get(name).is_some_and(|entry| entry.queue == queue) {
                tables.queues.remove(name);
                tables.router.remove_queue(name.as_bytes());
            }
        });
    }
}
