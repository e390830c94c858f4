//! The keys of messages that a queue had lately: a message whose key is among them is a duplicate.
//!
//! Keys are hashes of 128 bits in the order in which they came, in one list through a vector, and are found through a
//! table of places in that vector: about 50 bytes a key, whatever the length of what it was made from. A key leaves when
//! as many newer ones have come as are to be remembered, or when its time is over: at the old end of the list at once,
//! elsewhere when it is asked for or its turn comes.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Place;
use std::hash::BuildHasher;

/// The time of keys that do not expire.
const NEVER: u64 = u64::MAX;

/// No entry.
const NONE: u32 = u32::MAX;

/// What tells a message from others, where duplicates are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupKey {
    /// A hash of the value of its header, the same for ever.
    pub hash: u128,
    /// How long it is remembered, in milliseconds, if the message says so.
    pub ttl_ms: Option<u64>,
}

/// A key that is remembered beyond a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredKey {
    /// The hash.
    pub hash: u128,
    /// Rises from key to key of a queue.
    pub number: u64,
    /// When it is forgotten, in milliseconds of the queue's clock; `u64::MAX` stands for never.
    pub expires_at: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The hash in two halves, which need no padding.
    hash: [u64; 2],
    expires_at: u64,
    older: u32,
    newer: u32,
    is_stored: bool,
}

/// The keys of a queue.
#[derive(Debug)]
pub(crate) struct DedupCache {
    size: usize,
    hasher: RandomState,
    /// Places in `entries`.
    places: HashTable<u32>,
    entries: Vec<Entry>,
    /// The ends of the list.
    oldest: u32,
    newest: u32,
    /// Entries of no key, one after the other by `newer`.
    free: u32,
    next_number: u64,
}

fn halves(hash: u128) -> [u64; 2] {
    [(hash >> 64) as u64, hash as u64]
}

fn whole([high, low]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

impl DedupCache {
    /// Remembers so many keys at most.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            // Places are numbers of 32 bits.
            size: size.clamp(1, NONE as usize),
            hasher: RandomState::default(),
            places: HashTable::new(),
            entries: Vec::new(),
            oldest: NONE,
            newest: NONE,
            free: NONE,
            next_number: 0,
        }
    }

    /// Whether the key is remembered.
    pub(crate) fn contains(&self, now: u64, hash: u128) -> bool {
        let hash = halves(hash);
        let found =
            self.places.find(self.hasher.hash_one(hash), |at| self.entries[*at as usize].hash == hash);
        found.is_some_and(|at| self.entries[*at as usize].expires_at > now)
    }

    /// Remembers a key that is not among those remembered. `gone` is told the stored keys that leave for it.
    pub(crate) fn insert(
        &mut self,
        now: u64,
        key: DedupKey,
        ttl_ms: Option<u64>,
        is_stored: bool,
        mut gone: impl FnMut(u128),
    ) -> StoredKey {
        let ttl = key.ttl_ms.or(ttl_ms);
        let expires_at = ttl.map_or(NEVER, |ttl| now.saturating_add(ttl));
        let stored = StoredKey { hash: key.hash, number: self.next_number, expires_at };
        self.push(now, stored, is_stored, &mut gone);
        stored
    }

    /// Takes back the keys that were stored. `gone` is told those that are remembered no more.
    pub(crate) fn restore(&mut self, now: u64, mut keys: Vec<StoredKey>, mut gone: impl FnMut(u128)) {
        keys.sort_unstable_by_key(|key| key.number);
        let (expired, live): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.expires_at <= now);
        expired.iter().for_each(|key| gone(key.hash));
        self.entries.reserve(live.len().min(self.size));
        for key in live {
            self.push(now, key, true, &mut gone);
        }
    }

    /// Remembers so many keys at most from now on. `gone` is told the stored keys that leave for that.
    pub(crate) fn resize(&mut self, now: u64, size: usize, mut gone: impl FnMut(u128)) {
        let new = Self::new(size);
        if new.size == self.size {
            return;
        }
        let before = std::mem::replace(self, Self { next_number: self.next_number, ..new });
        let mut next = before.oldest;
        while let Some(entry) = before.entries.get(next as usize) {
            next = entry.newer;
            let (hash, expires_at) = (whole(entry.hash), entry.expires_at);
            if expires_at > now {
                self.push(now, StoredKey { hash, number: 0, expires_at }, entry.is_stored, &mut gone);
            } else if entry.is_stored {
                gone(hash);
            }
        }
    }

    fn push(&mut self, now: u64, key: StoredKey, is_stored: bool, gone: &mut impl FnMut(u128)) {
        // Its time was over, or it would not come again; and its row is written anew, if it still has one.
        if self.take(key.hash).is_some_and(|was_stored| was_stored && !is_stored) {
            gone(key.hash);
        }
        while let Some(oldest) = self.entries.get(self.oldest as usize)
            && (oldest.expires_at <= now || self.places.len() >= self.size)
        {
            let hash = whole(oldest.hash);
            if self.take(hash) == Some(true) {
                gone(hash);
            }
        }
        self.next_number = self.next_number.max(key.number + 1);
        let hash = halves(key.hash);
        let entry = Entry { hash, expires_at: key.expires_at, older: self.newest, newer: NONE, is_stored };
        let at = match self.entries.get_mut(self.free as usize) {
            Some(free) => {
                let at = std::mem::replace(&mut self.free, free.newer);
                *free = entry;
                at
            }
            None => {
                let len = self.entries.len();
                if len == self.entries.capacity() {
                    // Twice as many, as far as they can be needed.
                    self.entries.reserve_exact(len.max(4).min(self.size.saturating_sub(len)));
                }
                self.entries.push(entry);
                // There are at most `size` entries.
                (self.entries.len() - 1) as u32
            }
        };
        match self.entries.get_mut(self.newest as usize) {
            Some(newest) => newest.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.places
            .insert_unique(hasher.hash_one(hash), at, |at| hasher.hash_one(entries[*at as usize].hash));
    }

    /// Takes a key out; returns whether it was stored.
    fn take(&mut self, hash: u128) -> Option<bool> {
        let hash = halves(hash);
        let (entries, hasher) = (&self.entries, &self.hasher);
        let is_it = |at: &u32| entries[*at as usize].hash == hash;
        let rehash = |at: &u32| hasher.hash_one(entries[*at as usize].hash);
        let at = match self.places.entry(hasher.hash_one(hash), is_it, rehash) {
            Place::Occupied(found) => found.remove().0,
            Place::Vacant(_) => return None,
        };
        let Entry { older, newer, is_stored, .. } = self.entries[at as usize];
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        self.entries[at as usize].newer = std::mem::replace(&mut self.free, at);
        Some(is_stored)
    }

    /// The stored keys.
    pub(crate) fn stored(&self) -> impl Iterator<Item = u128> + '_ {
        let entries = self.places.iter().map(|at| &self.entries[*at as usize]);
        entries.filter(|entry| entry.is_stored).map(|entry| whole(entry.hash))
    }

    /// Memory that it takes, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.places.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn key(hash: u128) -> DedupKey {
        DedupKey { hash, ttl_ms: None }
    }

    /// Publishes keys at times with the lives that they are given; tells which are duplicates.
    fn duplicates(size: usize, ttl_ms: Option<u64>, published: &[(u64, u128, Option<u64>)]) -> Vec<bool> {
        let mut cache = DedupCache::new(size);
        let publish = |&(now, hash, own_ms): &(u64, u128, Option<u64>)| {
            let is_duplicate = cache.contains(now, hash);
            if !is_duplicate {
                cache.insert(now, DedupKey { hash, ttl_ms: own_ms }, ttl_ms, false, |_| ());
            }
            is_duplicate
        };
        published.iter().map(publish).collect()
    }

    #[test]
    fn e8_what_is_a_duplicate() {
        let (new, again) = (false, true);
        for (size, ttl, published, expected) in [
            (9, None, &[(0, 1, None), (0, 1, None), (u64::MAX - 1, 1, None)][..], &[new, again, again][..]),
            // The oldest key leaves, and what is a duplicate makes no key younger.
            (
                2,
                None,
                &[(0, 1, None), (0, 2, None), (0, 1, None), (0, 3, None), (0, 2, None), (0, 1, None)][..],
                &[new, new, again, new, again, new],
            ),
            (1, None, &[(0, 1, None), (0, 2, None), (0, 1, None)], &[new; 3]),
            (
                9,
                Some(10),
                &[(0, 1, None), (9, 1, None), (10, 1, None), (19, 1, None)],
                &[new, again, new, again],
            ),
            // A message's own time is that of its key, be it longer or shorter.
            (9, Some(10), &[(0, 1, Some(20)), (19, 1, None), (20, 1, None)], &[new, again, new]),
            (9, Some(10), &[(0, 1, Some(5)), (4, 1, None), (5, 1, None)], &[new, again, new]),
            (9, None, &[(0, 1, Some(5)), (5, 1, None), (99, 1, None)], &[new, new, again]),
            (9, Some(0), &[(0, 1, None), (0, 1, None)], &[new; 2]),
            (9, Some(u64::MAX), &[(7, 1, None), (8, 1, None)], &[new, again]),
            // A key whose time was over is as young as a new one.
            (
                2,
                None,
                &[(0, 1, Some(5)), (0, 2, None), (5, 1, None), (5, 3, None), (5, 1, None), (5, 2, None)],
                &[new, new, new, new, again, new],
            ),
        ] {
            assert_eq!(duplicates(size, ttl, published), expected, "{published:?}");
        }
    }

    #[test]
    fn e8_stored_keys_that_leave_are_told() {
        let mut cache = DedupCache::new(2);
        let mut insert = |now, hash, ttl_ms, is_stored| {
            let mut gone = Vec::new();
            cache.insert(now, DedupKey { hash, ttl_ms }, None, is_stored, |key| gone.push(key));
            gone
        };
        assert_eq!(insert(0, 1, Some(5), true), []);
        assert_eq!(insert(0, 2, None, false), []);
        // Stored anew, and no more.
        assert_eq!(insert(5, 1, Some(5), true), []);
        assert_eq!(insert(10, 1, None, false), [1]);
        assert_eq!(insert(10, 3, None, true), [], "the one that leaves was not stored");
        assert_eq!(insert(10, 4, None, true), []);
        assert_eq!(insert(10, 5, None, true), [3]);
    }

    #[test]
    fn e8_restored_keys_leave_in_the_order_in_which_they_came() {
        let stored = |hash, number, expires_at| StoredKey { hash, number, expires_at };
        let keys = vec![stored(1, 7, NEVER), stored(2, 5, NEVER), stored(3, 9, 10), stored(4, 6, NEVER)];
        let mut cache = DedupCache::new(2);
        let mut gone = Vec::new();
        cache.restore(10, keys, |key| gone.push(key));
        assert_eq!(gone, [3, 2]);
        let mut left = Vec::new();
        let next = cache.insert(10, key(5), None, true, |key| left.push(key));
        assert_eq!((next.number, left), (8, vec![4]));
        let mut all: Vec<_> = cache.stored().collect();
        all.sort_unstable();
        assert_eq!(all, [1, 5]);
    }

    #[test]
    fn e8_a_key_takes_about_50_bytes() {
        let mut cache = DedupCache::new(100_000);
        for hash in 0..1_000_000 {
            cache.insert(0, key(hash), None, true, |_| ());
        }
        assert_eq!(cache.places.len(), 100_000);
        let each = cache.memory() / 100_000;
        assert!((40..=64).contains(&each), "{each} bytes");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Publish { hash: u128, ttl: Option<u64>, is_stored: bool },
        Resize(usize),
        Wait(u64),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..12_u128, proptest::option::of(0..20_u64), any::<bool>())
                .prop_map(|(hash, ttl, is_stored)| Step::Publish { hash, ttl, is_stored }),
            2 => (0..10_u64).prop_map(Step::Wait),
            1 => (1..6_usize).prop_map(Step::Resize),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        /// The model is a list: a key is remembered unless it has expired, or `size` others have come behind it.
        #[test]
        fn e8_keys_are_those_of_a_list(mut size in 1..6_usize, steps in proptest::collection::vec(step(), 1..80)) {
            let mut now = 0;
            let mut cache = DedupCache::new(size);
            let mut model: VecDeque<(u128, u64, bool)> = VecDeque::new();
            let mut disk = std::collections::BTreeMap::new();
            for step in steps {
                match step {
                    Step::Publish { hash, ttl, is_stored } => {
                        let expected = model.iter().any(|(known, at, _)| *known == hash && *at > now);
                        prop_assert_eq!(cache.contains(now, hash), expected);
                        if expected {
                            continue;
                        }
                        let key = DedupKey { hash, ttl_ms: ttl };
                        let mut gone = Vec::new();
                        let new = cache.insert(now, key, Some(7), is_stored, |key| gone.push(key));
                        for key in gone {
                            prop_assert!(disk.remove(&key).is_some(), "a key leaves that is not stored");
                        }
                        if is_stored {
                            disk.insert(hash, new);
                        }
                        model.retain(|(known, ..)| *known != hash);
                        while model.front().is_some_and(|(_, at, _)| *at <= now) || model.len() >= size {
                            model.pop_front();
                        }
                        model.push_back((hash, now + ttl.unwrap_or(7), is_stored));
                    }
                    Step::Wait(ms) => now += ms,
                    Step::Resize(new) => {
                        let mut gone = Vec::new();
                        cache.resize(now, new, |key| gone.push(key));
                        for key in gone {
                            prop_assert!(disk.remove(&key).is_some(), "a key leaves that is not stored");
                        }
                        if new != size {
                            model.retain(|(_, at, _)| *at > now);
                            model.drain(..model.len().saturating_sub(new));
                        }
                        size = new;
                    }
                    Step::Restart => {
                        cache = DedupCache::new(size);
                        let mut gone = Vec::new();
                        cache.restore(now, disk.values().copied().collect(), |key| gone.push(key));
                        for key in gone {
                            prop_assert!(disk.remove(&key).is_some());
                        }
                        model.retain(|(_, at, is_stored)| *is_stored && *at > now);
                    }
                }
                prop_assert!(cache.entries.len() <= size);
                let stored: std::collections::BTreeSet<_> = cache.stored().collect();
                let on_disk: std::collections::BTreeSet<_> = disk.keys().copied().collect();
                prop_assert_eq!(stored, on_disk);
                for hash in 0..12 {
                    let expected = model.iter().any(|(known, at, _)| *known == hash && *at > now);
                    prop_assert_eq!(cache.contains(now, hash), expected);
                }
            }
        }
    }
}
