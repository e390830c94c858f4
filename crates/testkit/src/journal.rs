use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use warren_store::{Change, Journal, Lsn};

/// A journal in memory that keeps every call and is durable as far as the test says.
pub struct MemoryJournal(Mutex<State>);

struct State {
    calls: Vec<Vec<Change>>,
    durable: Lsn,
    waiting: Vec<(Lsn, Box<dyn FnOnce() + Send>)>,
}

impl MemoryJournal {
    /// Everything is durable at once.
    #[must_use]
    pub fn durable() -> Self {
        Self::durable_up_to(Lsn(u64::MAX))
    }

    /// Nothing is durable before [`MemoryJournal::release`].
    #[must_use]
    pub fn held() -> Self {
        Self::durable_up_to(Lsn::default())
    }

    fn durable_up_to(durable: Lsn) -> Self {
        Self(Mutex::new(State { calls: Vec::new(), durable, waiting: Vec::new() }))
    }

    /// Makes everything durable that was recorded so far, and wakes who waits for it.
    pub fn release(&self) {
        let mut state = self.state();
        state.durable = state.durable.max(state.last());
        let durable = state.durable;
        let (ready, waiting) = state.waiting.drain(..).partition(|(lsn, _)| *lsn <= durable);
        state.waiting = waiting;
        drop(state);
        for (_, wake) in ready {
            wake();
        }
    }

    /// The changes of each call.
    #[must_use]
    pub fn calls(&self) -> Vec<Vec<Change>> {
        self.state().calls.clone()
    }

    /// The table that the first `calls` calls lead to.
    #[must_use]
    pub fn table(&self, calls: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut table = BTreeMap::new();
        for Change { key, value } in self.state().calls.iter().take(calls).flatten().cloned() {
            match value {
                Some(value) => table.insert(key, value),
                None => table.remove(&key),
            };
        }
        table.into_iter().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn last(&self) -> Lsn {
        Lsn(self.calls.len() as u64)
    }
}

impl fmt::Debug for MemoryJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("MemoryJournal")
            .field("calls", &state.calls.len())
            .field("durable", &state.durable)
            .finish_non_exhaustive()
    }
}

impl Journal for MemoryJournal {
    fn change(&self, changes: Vec<Change>) -> Lsn {
        let mut state = self.state();
        state.calls.push(changes);
        state.last()
    }

    fn is_durable(&self, lsn: Lsn) -> bool {
        lsn <= self.state().durable
    }

    fn when_durable(&self, lsn: Lsn, wake: Box<dyn FnOnce() + Send>) {
        let mut state = self.state();
        if lsn > state.durable {
            state.waiting.push((lsn, wake));
            return;
        }
        drop(state);
        wake();
    }
}
