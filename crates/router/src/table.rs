//! Every binding of a virtual host, once.
//!
//! A binding is found by its identity through a hash index, and by its source and by its destination through
//! two linked lists that run through the slots themselves, so that removing it from all three takes constant
//! time and 16 bytes.

use std::hash::{BuildHasher, Hash};

use hashbrown::HashTable;
use slab::Slab;
use warren_types::{FieldTable, ShortString};

use crate::arguments::{hash_arguments, same_arguments};
use crate::targets::{End, Target};
use crate::{Binding, RandomState, to_index};

const NONE: u32 = u32::MAX;

/// All bindings but the implicit ones of the default exchange.
#[derive(Debug, Default)]
pub(crate) struct BindingTable {
    slots: Slab<Slot>,
    by_identity: HashTable<u32>,
    hasher: RandomState,
    /// For each exchange, by index: the bindings from it.
    from: Vec<List>,
    /// For each queue and each exchange, by index: the bindings to it.
    to_queue: Vec<List>,
    to_exchange: Vec<List>,
}

/// A binding, with its ends resolved to indices.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) binding: Binding,
    pub(crate) source: u32,
    pub(crate) target: Target,
    same_source: Links,
    same_target: Links,
}

#[derive(Debug, Clone, Copy)]
struct Links {
    previous: u32,
    next: u32,
}

#[derive(Debug, Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

/// Which of the two lists that a slot is in.
#[derive(Debug, Clone, Copy)]
enum Side {
    Source(u32),
    Target(Target),
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

/// The identity of a binding whose ends are known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) source: u32,
    pub(crate) target: Target,
    pub(crate) routing_key: &'a ShortString,
    pub(crate) arguments: &'a FieldTable,
}

impl Slot {
    fn identity(&self) -> Identity<'_> {
        let Binding { routing_key, arguments, .. } = &self.binding;
        Identity { source: self.source, target: self.target, routing_key, arguments }
    }

    fn links(&mut self, side: Side) -> &mut Links {
        match side {
            Side::Source(_) => &mut self.same_source,
            Side::Target(_) => &mut self.same_target,
        }
    }
}

impl Identity<'_> {
    fn hash(&self, hasher: &RandomState) -> u64 {
        let mut state = hasher.build_hasher();
        (self.source, self.target, self.routing_key).hash(&mut state);
        if !self.arguments.is_empty() {
            hash_arguments(self.arguments, &mut state);
        }
        std::hash::Hasher::finish(&state)
    }

    fn is_of(&self, slot: &Slot) -> bool {
        self.source == slot.source
            && self.target == slot.target
            && *self.routing_key == slot.binding.routing_key
            && same_arguments(self.arguments, &slot.binding.arguments)
    }
}

impl BindingTable {
    pub(crate) fn get(&self, id: u32) -> &Slot {
        &self.slots[id as usize]
    }

    pub(crate) fn find(&self, identity: Identity<'_>) -> Option<u32> {
        let hash = identity.hash(&self.hasher);
        self.by_identity.find(hash, |&id| identity.is_of(&self.slots[id as usize])).copied()
    }

    /// Adds a binding that is known not to be there yet.
    pub(crate) fn insert(&mut self, binding: Binding, source: u32, target: Target) -> u32 {
        let unlinked = Links { previous: NONE, next: NONE };
        let slot = Slot { binding, source, target, same_source: unlinked, same_target: unlinked };
        let hash = slot.identity().hash(&self.hasher);
        let id = to_index(self.slots.insert(slot));
        let Self { slots, by_identity, hasher, .. } = self;
        by_identity.insert_unique(hash, id, |&id| slots[id as usize].identity().hash(hasher));
        self.link(id, Side::Source(source));
        self.link(id, Side::Target(target));
        id
    }

    pub(crate) fn remove(&mut self, id: u32) -> Slot {
        let slot = &self.slots[id as usize];
        let (source, target) = (slot.source, slot.target);
        let hash = slot.identity().hash(&self.hasher);
        if let Ok(entry) = self.by_identity.find_entry(hash, |&other| other == id) {
            entry.remove();
        }
        self.unlink(id, Side::Source(source));
        self.unlink(id, Side::Target(target));
        self.slots.remove(id as usize)
    }

    pub(crate) fn first_from(&self, source: u32) -> Option<u32> {
        self.from.get(source as usize).map(|list| list.first).filter(|&id| id != NONE)
    }

    pub(crate) fn first_to(&self, target: Target) -> Option<u32> {
        self.list_to(target).map(|list| list.first).filter(|&id| id != NONE)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().map(|(_, slot)| slot)
    }

    /// Bindings from an exchange, in the order in which they were made.
    pub(crate) fn from(&self, source: u32) -> impl Iterator<Item = &Slot> {
        self.follow(self.first_from(source), |slot| slot.same_source.next)
    }

    /// Bindings to a queue or exchange, in the order in which they were made.
    pub(crate) fn to(&self, target: Target) -> impl Iterator<Item = &Slot> {
        self.follow(self.first_to(target), |slot| slot.same_target.next)
    }

    fn follow(&self, first: Option<u32>, next: fn(&Slot) -> u32) -> impl Iterator<Item = &Slot> {
        let get = |id: u32| self.slots.get(id as usize);
        std::iter::successors(first.and_then(get), move |slot| get(next(slot)))
    }

    fn list_to(&self, target: Target) -> Option<&List> {
        match target.end() {
            End::Queue(index) => self.to_queue.get(index as usize),
            End::Exchange(index) => self.to_exchange.get(index as usize),
        }
    }

    fn list_mut(&mut self, side: Side) -> &mut List {
        let (lists, index) = match side {
            Side::Source(index) => (&mut self.from, index),
            Side::Target(target) => match target.end() {
                End::Queue(index) => (&mut self.to_queue, index),
                End::Exchange(index) => (&mut self.to_exchange, index),
            },
        };
        let index = index as usize;
        if index >= lists.len() {
            lists.resize(index + 1, List::default());
        }
        &mut lists[index]
    }

    fn link(&mut self, id: u32, side: Side) {
        let list = self.list_mut(side);
        let previous = list.last;
        list.last = id;
        if previous == NONE {
            list.first = id;
        } else {
            self.slots[previous as usize].links(side).next = id;
        }
        *self.slots[id as usize].links(side) = Links { previous, next: NONE };
    }

    fn unlink(&mut self, id: u32, side: Side) {
        let Links { previous, next } = *self.slots[id as usize].links(side);
        if previous == NONE {
            self.list_mut(side).first = next;
        } else {
            self.slots[previous as usize].links(side).next = next;
        }
        if next == NONE {
            self.list_mut(side).last = previous;
        } else {
            self.slots[next as usize].links(side).previous = previous;
        }
    }

    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert_eq!(self.by_identity.len(), self.slots.len());
        for (id, slot) in &self.slots {
            assert_eq!(self.find(slot.identity()), Some(to_index(id)));
            assert!(slot.binding.arguments.0.is_sorted_by(|a, b| a.0 <= b.0));
        }
        let lists = |lists: &[List], links: fn(&Slot) -> Links, belongs: &dyn Fn(&Slot, usize) -> bool| {
            let mut count = 0;
            for (index, list) in lists.iter().enumerate() {
                let (mut previous, mut id) = (NONE, list.first);
                while id != NONE {
                    let slot = &self.slots[id as usize];
                    assert!(belongs(slot, index));
                    assert_eq!(links(slot).previous, previous);
                    count += 1;
                    (previous, id) = (id, links(slot).next);
                }
                assert_eq!(list.last, previous);
            }
            count
        };
        let from = lists(&self.from, |slot| slot.same_source, &|slot, index| slot.source as usize == index);
        let ends = |slot: &Slot, end: End| slot.target.end() == end;
        let to_queue = lists(&self.to_queue, |slot| slot.same_target, &|slot, index| {
            ends(slot, End::Queue(to_index(index)))
        });
        let to_exchange = lists(&self.to_exchange, |slot| slot.same_target, &|slot, index| {
            ends(slot, End::Exchange(to_index(index)))
        });
        assert_eq!((from, to_queue + to_exchange), (self.slots.len(), self.slots.len()));
    }
}
