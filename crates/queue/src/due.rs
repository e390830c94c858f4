//! When messages are due: a few bytes for each of them, however many there are and however far off that is.
//!
//! A wheel of slots, coarse for what is far off and fine for what is near. What stands in a slot is packed, since most
//! of it only waits; when a slot's time comes, it is spread over finer ones, and from the finest it goes to a sorted set.
//! So a message is touched at most six times, and at most some hundreds of slots exist.

use std::collections::{BTreeMap, BTreeSet};

/// Widths of slots, as powers of two of milliseconds: a second, a minute, an hour, three days, half a year. A slot of one
/// width takes what is due within 64 of them.
const WIDTHS: [u32; 5] = [10, 16, 22, 28, 34];

/// How many slots of one width follow each other, as a power of two.
const SLOTS: u32 = 6;

/// A message that is due at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Item {
    /// When, in milliseconds.
    pub at: u64,
    /// Its number in the queue.
    pub seq: u64,
    /// Its priority.
    pub priority: u8,
    /// Whether it survives a restart.
    pub persistent: bool,
    /// Bytes of its body.
    pub body_len: u32,
}

/// Where a slot starts, in milliseconds, its width, and the priority of what stands in it.
type SlotKey = (u64, u8, u8);

#[derive(Debug, Default)]
struct Slot {
    packed: Vec<u8>,
    last_seq: u64,
}

/// Messages by the time at which they are due.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// Those of the second that has begun.
    near: BTreeSet<Item>,
    far: BTreeMap<SlotKey, Slot>,
    len: usize,
}

impl Due {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a message; it is `now`.
    pub(crate) fn insert(&mut self, now: u64, item: Item) {
        self.len += 1;
        self.place(now, item);
    }

    /// When [`Due::pop`] is to be called, at the latest.
    pub(crate) fn next(&self) -> Option<u64> {
        let near = self.near.first().map(|item| item.at);
        let far = self.far.first_key_value().map(|((start, ..), _)| *start);
        [near, far].into_iter().flatten().min()
    }

    /// Takes the message that is due first, if it is at `now`.
    pub(crate) fn pop(&mut self, now: u64) -> Option<Item> {
        while let Some(slot) = self.far.first_entry()
            && slot.key().0 <= now
        {
            let (key, slot) = slot.remove_entry();
            for item in slot.items(key) {
                self.place(now, item);
            }
        }
        if self.near.first()?.at > now {
            return None;
        }
        self.len -= 1;
        self.near.pop_first()
    }

    /// Forgets all messages but these; it is `now`.
    pub(crate) fn retain(&mut self, now: u64, mut keep: impl FnMut(&Item) -> bool) {
        let before = std::mem::take(self);
        let far = before.far.iter().flat_map(|(key, slot)| slot.items(*key));
        for item in before.near.iter().copied().chain(far).filter(|item| keep(item)) {
            self.insert(now, item);
        }
    }

    fn place(&mut self, now: u64, item: Item) {
        let wait = item.at.saturating_sub(now);
        let level = WIDTHS.iter().position(|width| wait >> (width + SLOTS) == 0).unwrap_or(WIDTHS.len() - 1);
        let start = item.at >> WIDTHS[level] << WIDTHS[level];
        if start <= now {
            self.near.insert(item);
            return;
        }
        self.far.entry((start, level as u8, item.priority)).or_default().push(start, &item);
    }
}

impl Slot {
    fn push(&mut self, start: u64, item: &Item) {
        // Numbers mostly rise by little.
        let step = item.seq.wrapping_sub(self.last_seq) as i64;
        put(&mut self.packed, ((step << 1) ^ (step >> 63)) as u64);
        put(&mut self.packed, item.at - start);
        put(&mut self.packed, u64::from(item.body_len) << 1 | u64::from(item.persistent));
        self.last_seq = item.seq;
    }

    fn items(&self, (start, _, priority): SlotKey) -> impl Iterator<Item = Item> + '_ {
        let mut rest = &self.packed[..];
        let mut seq = 0u64;
        std::iter::from_fn(move || {
            let step = take(&mut rest)?;
            seq = seq.wrapping_add((step >> 1) ^ (step & 1).wrapping_neg());
            let at = start + take(&mut rest)?;
            let last = take(&mut rest)?;
            Some(Item { at, seq, priority, persistent: last & 1 == 1, body_len: (last >> 1) as u32 })
        })
    }
}

/// Appends a number in groups of seven bits, the lowest first.
fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(at: u64, seq: u64) -> Item {
        Item {
            at,
            seq,
            priority: (seq % 3) as u8,
            persistent: seq.is_multiple_of(2),
            body_len: seq as u32 % 300,
        }
    }

    proptest! {
        #[test]
        fn all_come_out_on_time_and_in_order(
            waits in prop::collection::vec((0u32..40, any::<u64>(), any::<u64>()), 1..200),
            steps in prop::collection::vec((0u32..38, any::<u64>()), 1..50),
        ) {
            let (mut due, mut model) = (Due::default(), BTreeSet::new());
            let mut now = 1_700_000_000_000;
            let mut waits = waits.into_iter();
            for (bits, step) in steps {
                for (bits, wait, seq) in waits.by_ref().take(7) {
                    let item = item(now + wait % (1 << bits), seq);
                    if model.insert(item) {
                        due.insert(now, item);
                    }
                }
                now += step % (1 << bits);
                prop_assert!(due.next() <= model.first().map(|item| item.at) && due.next().is_none() == model.is_empty());
                while let Some(found) = due.pop(now) {
                    prop_assert_eq!(Some(found), model.pop_first());
                }
                prop_assert!(model.first().is_none_or(|item| item.at > now));
                prop_assert_eq!(due.len(), model.len());
                if now.is_multiple_of(5) {
                    due.retain(now, |item| item.seq.is_multiple_of(2));
                    model.retain(|item| item.seq.is_multiple_of(2));
                }
            }
        }
    }

    #[test]
    fn a_million_far_off_take_a_few_bytes_each() {
        let mut due = Due::default();
        let now = 1_700_000_000_000;
        for seq in 0..1_000_000u64 {
            // Some within a minute, some in months.
            let wait = (seq * 7919 % 1000) << (seq % 25);
            due.insert(now, Item { body_len: 100, ..item(now + wait, seq) });
        }
        let bytes: usize = due.far.values().map(|slot| slot.packed.capacity()).sum();
        assert!(due.far.len() < 1000, "{} slots", due.far.len());
        assert!(bytes < 16_000_000, "{bytes} bytes");
    }
}
