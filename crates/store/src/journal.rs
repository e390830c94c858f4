//! How durable objects that are no messages reach the log.

use std::fmt::Debug;

/// A place in the log: everything appended before it is durable once it is.
///
/// The upper half is the number of the segment, the lower half the offset in it, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// A change of the metadata table: exchanges, queues, bindings, users and so on, as keys and values whose meaning
/// is the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is changed.
    pub key: Vec<u8>,
    /// Its new value; none removes the key.
    pub value: Option<Vec<u8>>,
}

/// Where changes are recorded.
pub trait Journal: Send + Sync + Debug {
    /// Records changes that belong together: after a crash either all of them or none are there. Changes take effect
    /// in the order of the calls, and before every message that is appended later. Returns at once; the changes are
    /// durable once [`Journal::is_durable`] says so of the returned place.
    fn change(&self, changes: Vec<Change>) -> Lsn;

    /// Whether everything before `lsn` is on stable storage.
    fn is_durable(&self, lsn: Lsn) -> bool;

    /// Calls `wake`, from any thread and perhaps at once, when everything before `lsn` is on stable storage. If the
    /// disk fails it is never called.
    fn when_durable(&self, lsn: Lsn, wake: Box<dyn FnOnce() + Send>);
}
