//! The words of routing keys, and a pool that holds each word of the binding keys once.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use slab::Slab;
use warren_types::ShortString;

use crate::{RandomState, to_index};

/// Splits a key at its dots. Empty words count, but the empty key has no words at all
/// (`rabbit_db_topic_exchange:split_topic_key_binary/1`).
pub(crate) fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = if key.is_empty() { None } else { Some(key.split(|&byte| byte == b'.')) };
    words.into_iter().flatten()
}

/// Words with numbers, counted by users.
///
/// A word is kept as a part of the binding key it first came in, which exists anyway: no copy, no allocation.
#[derive(Debug, Default)]
pub(crate) struct WordPool {
    slots: Slab<Word>,
    by_text: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Word {
    key: ShortString,
    start: u8,
    len: u8,
    users: u32,
}

impl Word {
    fn text(&self) -> &[u8] {
        let start = usize::from(self.start);
        &self.key.as_bytes()[start..start + usize::from(self.len)]
    }
}

impl WordPool {
    /// The number of a word, if anything uses it.
    pub(crate) fn find(&self, text: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        self.by_text.find(hash, |&id| self.slots[id as usize].text() == text).copied()
    }

    /// The number of the word at `start` in `key`, which is used from now on.
    pub(crate) fn acquire(&mut self, key: &ShortString, start: usize, len: usize) -> u32 {
        let text = &key.as_bytes()[start..start + len];
        if let Some(id) = self.find(text) {
            self.slots[id as usize].users += 1;
            return id;
        }
        let position = |at: usize| u8::try_from(at).expect("a short string is at most 255 bytes long");
        let word = Word { key: key.clone(), start: position(start), len: position(len), users: 1 };
        let id = to_index(self.slots.insert(word));
        let Self { slots, by_text, hasher } = self;
        by_text.insert_unique(hasher.hash_one(text), id, |&id| hasher.hash_one(slots[id as usize].text()));
        id
    }

    /// Ends one use of a word.
    pub(crate) fn release(&mut self, id: u32) {
        let word = &mut self.slots[id as usize];
        word.users -= 1;
        if word.users > 0 {
            return;
        }
        let hash = self.hasher.hash_one(word.text());
        if let Ok(entry) = self.by_text.find_entry(hash, |&other| other == id) {
            entry.remove();
        }
        self.slots.remove(id as usize);
    }

    /// Words and their counts of users, by number.
    #[cfg(test)]
    pub(crate) fn check(&self, users: &hashbrown::HashMap<u32, u32, RandomState>) {
        assert_eq!(self.by_text.len(), self.slots.len());
        assert_eq!(users.len(), self.slots.len());
        for (id, word) in &self.slots {
            assert_eq!(self.find(word.text()), Some(to_index(id)));
            assert_eq!(users.get(&to_index(id)), Some(&word.users));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_words_count_but_an_empty_key_has_none() {
        let cases: [(&[u8], &[&[u8]]); 4] =
            [(b"", &[]), (b".", &[b"", b""]), (b"a", &[b"a"]), (b"a..b", &[b"a", b"", b"b"])];
        for (key, expected) in cases {
            assert_eq!(words(key).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn words_go_with_their_last_user() {
        let mut pool = WordPool::default();
        let key = ShortString::from("stock.nyse.stock");
        let id = pool.acquire(&key, 0, 5);
        assert_eq!(pool.acquire(&key, 11, 5), id);
        pool.release(id);
        assert_eq!(pool.find(b"stock"), Some(id));
        pool.release(id);
        assert_eq!(pool.find(b"stock"), None);
    }
}
