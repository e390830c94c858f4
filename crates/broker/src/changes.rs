//! What an operation records, and what its answer must wait for.

use warren_store::{Change, Journal, Lsn};

use crate::metadata::Row;

/// The durable changes of one operation: recorded together, under the lock that makes them visible, so that the
/// journal has them in the order in which they can be seen.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    changes: Vec<Change>,
    relies_on_earlier: bool,
}

impl Changes {
    pub(crate) fn put(&mut self, row: &Row) {
        self.changes.push(row.put());
    }

    pub(crate) fn remove(&mut self, row: &Row) {
        self.changes.push(row.remove());
    }

    /// The operation changes nothing, since another one did it before: its answer must wait for that one to be
    /// durable.
    pub(crate) fn rely_on_earlier(&mut self) {
        self.relies_on_earlier = true;
    }

    /// Records the changes. `last` is up to where everything was recorded under the same lock. Returns what an
    /// answer must wait for; the first of all places is always durable.
    pub(crate) fn record(self, journal: &dyn Journal, last: &mut Lsn) -> Lsn {
        if !self.changes.is_empty() {
            *last = journal.change(self.changes);
        } else if !self.relies_on_earlier {
            return Lsn::default();
        }
        *last
    }
}
