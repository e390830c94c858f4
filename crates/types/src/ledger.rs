use std::collections::VecDeque;

/// Entries under rising keys that are mostly taken out in the order in which they went in: unacked
/// deliveries of a queue or channel, unconfirmed publishes.
///
/// Taking from the front and a key without gaps before it cost O(1), any other key a binary search. Holes
/// are closed once they are more than half of the entries, so the memory used is proportional to what is in
/// the ledger, however long the oldest entry stays.
#[derive(Debug, Clone)]
pub struct Ledger<T> {
    entries: VecDeque<(u64, Option<T>)>,
    len: usize,
}

impl<T> Default for Ledger<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), len: 0 }
    }
}

impl<T> Ledger<T> {
    /// Fewest slots for which holes are closed.
    const COMPACT_SLOTS_MIN: usize = 64;

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// If `key` is not above every key added while the ledger has not been empty since.
    pub fn push(&mut self, key: u64, value: T) {
        assert!(self.entries.back().is_none_or(|(last, _)| *last < key), "ledger keys must rise");
        self.entries.push_back((key, Some(value)));
        self.len += 1;
    }

    /// The lowest key.
    #[must_use]
    pub fn first_key(&self) -> Option<u64> {
        // Holes never stay at the front.
        self.entries.front().map(|(key, _)| *key)
    }

    /// The entry with this key.
    #[must_use]
    pub fn get(&self, key: u64) -> Option<&T> {
        self.entries[self.slot(key)?].1.as_ref()
    }

    /// The entry with this key, to change.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let slot = self.slot(key)?;
        self.entries[slot].1.as_mut()
    }

    /// Takes the entry with this key out.
    pub fn take(&mut self, key: u64) -> Option<T> {
        let slot = self.slot(key)?;
        let value = self.entries[slot].1.take()?;
        self.len -= 1;
        if slot == 0 {
            self.drop_leading_holes();
        } else if self.entries.len() > Self::COMPACT_SLOTS_MIN.max(2 * self.len) {
            self.entries.retain(|(_, value)| value.is_some());
        }
        Some(value)
    }

    /// Takes the entry with the lowest key out, if that key is at most `key_max`.
    pub fn take_first_up_to(&mut self, key_max: u64) -> Option<(u64, T)> {
        let (key, _) = self.entries.front()?;
        if *key > key_max {
            return None;
        }
        let (key, value) = self.entries.pop_front()?;
        self.len -= 1;
        self.drop_leading_holes();
        value.map(|value| (key, value))
    }

    /// Keys and entries in rising order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.entries.iter().filter_map(|(key, value)| Some((*key, value.as_ref()?)))
    }

    /// Takes all entries out, in rising order.
    pub fn drain(&mut self) -> impl Iterator<Item = (u64, T)> + '_ {
        self.len = 0;
        self.entries.drain(..).filter_map(|(key, value)| Some((key, value?)))
    }

    /// Gives back the memory beyond what the entries need, if there is much of it.
    pub fn shrink(&mut self) {
        if self.entries.capacity() > Self::COMPACT_SLOTS_MIN.max(4 * self.entries.len()) {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }

    fn slot(&self, key: u64) -> Option<usize> {
        let first = self.first_key()?;
        let guess = usize::try_from(key.checked_sub(first)?).ok()?;
        match self.entries.get(guess) {
            Some((found, _)) if *found == key => Some(guess),
            _ => self.entries.binary_search_by_key(&key, |(key, _)| *key).ok(),
        }
    }

    fn drop_leading_holes(&mut self) {
        while matches!(self.entries.front(), Some((_, None))) {
            self.entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(keys: impl IntoIterator<Item = u64>) -> Ledger<u64> {
        let mut ledger = Ledger::default();
        keys.into_iter().for_each(|key| ledger.push(key, key * 10));
        ledger
    }

    #[test]
    fn takes_any_key_once() {
        let mut ledger = ledger([3, 4, 7, 9]);
        assert_eq!(ledger.take(7), Some(70));
        assert_eq!(ledger.take(7), None);
        assert_eq!(ledger.take(5), None);
        assert_eq!(ledger.take(3), Some(30));
        assert_eq!(ledger.first_key(), Some(4));
        assert_eq!(ledger.len(), 2);
    }

    #[test]
    fn first_key_skips_holes() {
        let mut ledger = ledger([1, 2, 3]);
        ledger.take(2);
        ledger.take(1);
        assert_eq!(ledger.first_key(), Some(3));
        assert_eq!(ledger.take_first_up_to(2), None);
        assert_eq!(ledger.take_first_up_to(3), Some((3, 30)));
        assert!(ledger.is_empty());
    }

    #[test]
    fn one_old_entry_does_not_hold_memory() {
        let mut ledger = ledger([0]);
        for key in 1..100_000 {
            ledger.push(key, key);
            assert_eq!(ledger.take(key), Some(key));
        }
        assert_eq!(ledger.len(), 1);
        assert!(ledger.entries.len() <= 2 * Ledger::<u64>::COMPACT_SLOTS_MIN);
        assert_eq!(ledger.take(0), Some(0));
    }
}
