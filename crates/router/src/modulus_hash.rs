//! The modulus hash exchange (`rabbit_exchange_type_modulus_hash`): the routing keys are hashed, and the remainder
//! says which of the bindings is taken, in the order of their destinations' names.
//!
//! While bindings stay, so do the queues of keys, also across restarts; a binding more or less moves most of them.

use warren_types::ShortString;

use crate::Destination;
use crate::stable_hash;
use crate::targets::{End, Target};

/// The destinations, one entry for each binding, in the order of kind and name.
#[derive(Debug, Default)]
pub(crate) struct ModulusHash {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// Exchanges come first, as `exchange` does before `queue`.
    is_queue: bool,
    name: ShortString,
    target: Target,
}

impl Entry {
    fn new(destination: &Destination, target: Target) -> Self {
        let is_queue = matches!(target.end(), End::Queue(_));
        Self { is_queue, name: destination.name().clone(), target }
    }
}

impl ModulusHash {
    pub(crate) fn bind(&mut self, destination: &Destination, target: Target) {
        let entry = Entry::new(destination, target);
        let position = self.entries.partition_point(|other| *other < entry);
        self.entries.insert(position, entry);
    }

    pub(crate) fn unbind(&mut self, destination: &Destination, target: Target) {
        if let Ok(position) = self.entries.binary_search(&Entry::new(destination, target)) {
            self.entries.remove(position);
        }
    }

    /// The destination for these routing keys; none if there are no bindings.
    pub(crate) fn destination(&self, keys: &[&[u8]]) -> Option<Target> {
        let hash = match keys {
            [key] => stable_hash::bytes(key),
            keys => keys.iter().fold(0, |hash, key| stable_hash::combined(hash, stable_hash::bytes(key))),
        };
        let count = self.entries.len() as u64;
        let position = hash.checked_rem(count)?;
        self.entries.get(usize::try_from(position).ok()?).map(|entry| entry.target)
    }

    #[cfg(test)]
    pub(crate) fn check(&self, count: &mut dyn FnMut(Target, u32)) {
        assert!(self.entries.is_sorted());
        self.entries.iter().for_each(|entry| count(entry.target, 1));
    }
}
