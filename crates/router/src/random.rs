//! Exchanges that leave it to chance (`rabbit_exchange_type_random`, `rabbit_exchange_type_local_random`): each
//! message goes to the destination of one binding, and each binding is as likely.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::targets::Target;
use crate::{Binding, Destination};
use crate::{HashMap, InvalidArgument, RandomState, to_index};

/// The destinations, one entry for each binding.
#[derive(Debug)]
pub(crate) struct Random {
    entries: Vec<(u32, Target)>,
    /// Where in the list a binding is.
    positions: HashMap<u32, u32>,
    /// State of the generator (splitmix64): whoever routes takes the next number.
    state: AtomicU64,
}

impl Default for Random {
    fn default() -> Self {
        let seed = RandomState::default().hash_one(0_u64);
        Self { entries: Vec::new(), positions: HashMap::default(), state: AtomicU64::new(seed) }
    }
}

impl Random {
    pub(crate) fn bind(&mut self, binding: u32, target: Target) {
        self.positions.insert(binding, to_index(self.entries.len()));
        self.entries.push((binding, target));
    }

    pub(crate) fn unbind(&mut self, binding: u32) {
        let Some(position) = self.positions.remove(&binding) else { return };
        self.entries.swap_remove(position as usize);
        if let Some((moved, _)) = self.entries.get(position as usize) {
            self.positions.insert(*moved, position);
        }
    }

    /// Some destination; none if there are no bindings.
    pub(crate) fn destination(&self) -> Option<Target> {
        let count = self.entries.len() as u128;
        // The high half of the product is a number below `count`, and all are as likely.
        let position = (u128::from(self.next()) * count) >> 64;
        self.entries.get(usize::try_from(position).ok()?).map(|(_, target)| *target)
    }

    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut number = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    #[cfg(test)]
    pub(crate) fn check(&self, count: &mut dyn FnMut(Target, u32)) {
        assert_eq!(self.entries.len(), self.positions.len());
        for (position, (binding, target)) in self.entries.iter().enumerate() {
            assert_eq!(self.positions.get(binding), Some(&to_index(position)));
            count(*target, 1);
        }
    }
}

/// What a local random exchange asks of its bindings: no key, and a queue, as all of ours are local classic ones.
pub(crate) fn check_local(binding: &Binding) -> Result<(), InvalidArgument> {
    if !binding.routing_key.is_empty() {
        return Err(InvalidArgument::KeyNotEmpty(binding.routing_key.as_bytes().to_vec()));
    }
    match binding.destination {
        Destination::Queue(_) => Ok(()),
        Destination::Exchange(_) => Err(InvalidArgument::NotAQueue),
    }
}
