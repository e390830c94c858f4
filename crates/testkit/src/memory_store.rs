use std::collections::BTreeMap;

use warren_queue::{Command, Expiration, Forgotten, RestoredLevel, StoredKey};
use warren_types::{Message, StoredMessage};

/// What a queue has stored, in memory, and what it has asked for.
#[derive(Debug, Default, Clone)]
pub struct MemoryStore {
    messages: BTreeMap<(u8, u64), StoredMessage>,
    keys: BTreeMap<u128, StoredKey>,
    asked: Vec<Asked>,
}

#[derive(Debug, Clone)]
enum Asked {
    Load { priority: u8, after: Option<u64>, bytes: usize },
    Fetch { priority: u8, seqs: Vec<u64> },
    Scan { priority: u8, after: Option<u64> },
}

impl MemoryStore {
    /// As [`warren_queue::Effects::store`].
    ///
    /// # Panics
    /// If the message is stored already.
    pub fn store(&mut self, seq: u64, priority: u8, at: u64, message: &Message, persistent: bool) {
        let stored = StoredMessage { seq, at, persistent, message: message.clone() };
        let before = self.messages.insert((priority, seq), stored);
        assert!(before.is_none(), "message {seq} is stored twice");
    }

    /// As [`warren_queue::Effects::forget`].
    ///
    /// # Panics
    /// If the message is not stored, or differs from what is forgotten.
    pub fn forget(&mut self, gone: Forgotten) {
        let stored = self.messages.remove(&(gone.priority, gone.seq));
        let stored = stored.unwrap_or_else(|| panic!("message {} is not stored", gone.seq));
        assert_eq!(stored.persistent, gone.persistent);
        assert_eq!(stored.message.body_len(), gone.body_len as usize);
    }

    /// As [`warren_queue::Effects::remember`].
    pub fn remember(&mut self, key: StoredKey) {
        self.keys.insert(key.hash, key);
    }

    /// As [`warren_queue::Effects::forget_key`].
    ///
    /// # Panics
    /// If the key is not stored.
    pub fn forget_key(&mut self, hash: u128) {
        self.keys.remove(&hash).unwrap_or_else(|| panic!("key {hash} is not stored"));
    }

    /// The keys that are stored.
    pub fn keys(&self) -> impl Iterator<Item = StoredKey> + '_ {
        self.keys.values().copied()
    }

    /// As [`warren_queue::Effects::forget_all`].
    pub fn forget_all(&mut self, priority: u8, last: u64, except: &[u64]) {
        self.messages.retain(|(level, seq), _| *level != priority || *seq > last || except.contains(seq));
    }

    /// As [`warren_queue::Effects::load`].
    pub fn load(&mut self, priority: u8, after: Option<u64>, bytes: usize) {
        self.asked.push(Asked::Load { priority, after, bytes });
    }

    /// As [`warren_queue::Effects::fetch`].
    pub fn fetch(&mut self, priority: u8, seqs: &[u64]) {
        self.asked.push(Asked::Fetch { priority, seqs: seqs.to_vec() });
    }

    /// As [`warren_queue::Effects::scan`]; some messages at a time, whatever their length.
    pub fn scan(&mut self, priority: u8, after: Option<u64>) {
        self.asked.push(Asked::Scan { priority, after });
    }

    /// As [`warren_queue::Effects::is_stored`].
    #[must_use]
    pub fn has(&self, priority: u8, seq: u64) -> bool {
        self.messages.contains_key(&(priority, seq))
    }

    /// The answer to what was asked first, if anything was.
    pub fn answer(&mut self) -> Option<Command> {
        if self.asked.is_empty() {
            return None;
        }
        Some(match self.asked.remove(0) {
            Asked::Load { priority, after, bytes } => {
                let first = after.map_or(0, |after| after + 1);
                let mut read = 0;
                let following = self.messages.range((priority, first)..=(priority, u64::MAX));
                let messages: Vec<_> = (following.map(|(_, stored)| stored.clone()))
                    .take_while(|stored| {
                        let before = read;
                        read += stored.message.memory();
                        before < bytes
                    })
                    .collect();
                Command::Loaded { priority, end: messages.is_empty(), messages }
            }
            Asked::Fetch { priority, seqs } => {
                let found = seqs.iter().filter_map(|seq| self.messages.get(&(priority, *seq)).cloned());
                Command::Fetched { priority, messages: found.collect(), asked: seqs }
            }
            Asked::Scan { priority, after } => {
                const AT_A_TIME: usize = 10;
                let first = after.map_or(0, |after| after + 1);
                let following = self.messages.range((priority, first)..=(priority, u64::MAX));
                let seen: Vec<_> = following.map(|(_, stored)| stored).take(AT_A_TIME).collect();
                let expirations = seen
                    .iter()
                    .filter_map(|stored| Some(Expiration::after(stored.message.expiration_ms()?, stored)))
                    .collect();
                Command::Scanned { priority, expirations, last: seen.last().map(|stored| stored.seq) }
            }
        })
    }

    /// Everything that is stored, by priority and number.
    pub fn messages(&self) -> impl Iterator<Item = (u8, &StoredMessage)> {
        self.messages.iter().map(|((priority, _), stored)| (*priority, stored))
    }

    /// Forgets what does not survive a restart, and what was asked for; returns what a queue is restored from.
    pub fn restart(&mut self) -> Vec<RestoredLevel> {
        self.asked.clear();
        self.messages.retain(|_, stored| stored.persistent);
        let mut levels: BTreeMap<u8, RestoredLevel> = BTreeMap::new();
        for ((priority, _), stored) in &self.messages {
            let empty = RestoredLevel { priority: *priority, messages: 0, bytes: 0 };
            let level = levels.entry(*priority).or_insert(empty);
            level.messages += 1;
            level.bytes += stored.message.body_len() as u64;
        }
        levels.into_values().collect()
    }
}

/// The methods of [`warren_queue::Effects`] that concern the store, for a type that has a [`MemoryStore`] in the field
/// `store`.
#[macro_export]
macro_rules! store_effects {
    () => {
        fn store(
            &mut self,
            seq: u64,
            priority: u8,
            at: u64,
            message: &warren_types::Message,
            persistent: bool,
        ) {
            self.store.store(seq, priority, at, message, persistent);
        }

        fn forget(&mut self, gone: warren_queue::Forgotten) {
            self.store.forget(gone);
        }

        fn forget_all(&mut self, priority: u8, last: u64, except: &[u64]) {
            self.store.forget_all(priority, last, except);
        }

        fn load(&mut self, priority: u8, after: Option<u64>, bytes: usize) {
            self.store.load(priority, after, bytes);
        }

        fn fetch(&mut self, priority: u8, seqs: &[u64]) {
            self.store.fetch(priority, seqs);
        }

        fn scan(&mut self, priority: u8, after: Option<u64>, _: usize) {
            self.store.scan(priority, after);
        }

        fn is_stored(&self, priority: u8, seq: u64) -> bool {
            self.store.has(priority, seq)
        }

        fn taken(&mut self, _: u64) {}

        fn room(&self) -> bool {
            true
        }

        fn release(&mut self, _: warren_types::Message, _: Option<warren_queue::Forgotten>) {
            unreachable!("only the queues of delayed exchanges release messages");
        }

        fn group(&self, message: &warren_types::Message, _: &warren_types::ShortString) -> Option<u64> {
            message.body().first().map(|key| u64::from(*key))
        }

        fn dedup_key(
            &self,
            message: &warren_types::Message,
            _: &warren_types::ShortString,
        ) -> Option<warren_queue::DedupKey> {
            let hash = u128::from(*message.body().first()?);
            Some(warren_queue::DedupKey { hash, ttl_ms: None })
        }

        fn remember(&mut self, key: warren_queue::StoredKey) {
            self.store.remember(key);
        }

        fn forget_key(&mut self, hash: u128) {
            self.store.forget_key(hash);
        }

        fn await_keys(&mut self) {}

        fn delay_ms(&self, message: &warren_types::Message) -> u64 {
            message.expiration_ms().unwrap_or(0)
        }

        fn with_counts(&self, message: &warren_types::Message, _: u32, _: u32) -> warren_types::Message {
            message.clone()
        }
    };
}
