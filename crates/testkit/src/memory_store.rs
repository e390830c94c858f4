use std::collections::BTreeMap;

use warren_queue::{Command, Forgotten, RestoredLevel};
use warren_types::{Message, StoredMessage};

/// What a queue has stored, in memory, and what it has asked for.
#[derive(Debug, Default, Clone)]
pub struct MemoryStore {
    messages: BTreeMap<(u8, u64), StoredMessage>,
    asked: Vec<Asked>,
}

#[derive(Debug, Clone)]
enum Asked {
    Load { priority: u8, after: Option<u64>, bytes: usize },
    Fetch { priority: u8, seqs: Vec<u64> },
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

        fn room(&self) -> bool {
            true
        }
    };
}
