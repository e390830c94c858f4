//! Batches from many writers to one reader.

use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::Notify;

/// A mailbox: writers append whole batches under one short lock, the reader takes everything at once and is
/// woken only when the mailbox was empty.
///
/// tokio's channels hand over item by item; here two vectors change places, whatever their length.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    items: Mutex<Vec<T>>,
    wake: Notify,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { items: Mutex::new(Vec::new()), wake: Notify::new() }
    }
}

impl<T> Mailbox<T> {
    /// Largest buffer kept for the next batch, in items.
    const CAPACITY_KEPT: usize = 4096;

    /// Appends all of `batch`, leaving it empty.
    pub(crate) fn append(&self, batch: &mut Vec<T>) {
        if batch.is_empty() {
            return;
        }
        let was_empty = {
            let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
            let was_empty = items.is_empty();
            items.append(batch);
            was_empty
        };
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Appends one item.
    pub(crate) fn push(&self, item: T) {
        self.append(&mut vec![item]);
    }

    /// Takes everything there is into `batch`, which must be empty.
    pub(crate) fn take(&self, batch: &mut Vec<T>) {
        debug_assert!(batch.is_empty());
        if batch.capacity() > Self::CAPACITY_KEPT {
            *batch = Vec::new();
        }
        std::mem::swap(&mut *self.items.lock().unwrap_or_else(PoisonError::into_inner), batch);
    }

    /// Wakes the reader though nothing may have come.
    pub(crate) fn nudge(&self) {
        self.wake.notify_one();
    }

    /// Waits until something may have come.
    pub(crate) async fn wait(&self) {
        self.wake.notified().await;
    }
}
