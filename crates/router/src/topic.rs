//! The topic exchange: words of the routing key match a pattern (`rabbit_exchange_type_topic`).
//!
//! In a pattern, `*` stands for one word and `#` for any number of words, zero included. The patterns are
//! kept as a trie over their words, in a normal form: in a run of wildcards the `*` come first and one `#`
//! stands for all, so `#.*.#` becomes `*.#`, which matches the same keys.
//!
//! Matching runs through the key once with the set of all trie nodes that some prefix leads to. A node is
//! entered from its parent only, so the set has no duplicates; a `#` node, once entered, stays in the set for
//! the rest of the key, and is entered once. Hence the bound: **each trie node is looked at once per word of
//! the key at most**, whatever the patterns; there is no backtracking. A key of `w` words against patterns
//! without `#` looks at no more than one node for each pattern prefix that equals the key's so far, and
//! usually at `w` nodes, however many bindings there are.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use slab::Slab;
use smallvec::SmallVec;
use warren_types::ShortString;

use crate::small_set::SmallSet;
use crate::targets::{Target, Targets};
use crate::words::{WordPool, words};
use crate::{RandomState, to_index};

const ROOT: u32 = 0;
/// No child: the root is nobody's child.
const NONE: u32 = 0;

/// A trie of patterns.
#[derive(Debug)]
pub(crate) struct Topic {
    nodes: Slab<Node>,
    /// Children by parent and word, of all nodes together: a node takes five bytes here instead of a map of
    /// its own.
    children: HashTable<u32>,
    hasher: RandomState,
    words: WordPool,
}

#[derive(Debug)]
struct Node {
    parent: u32,
    label: Label,
    /// Child for `*`.
    star: u32,
    /// Child for `#`.
    hash: u32,
    /// Number of children for words.
    literals: u32,
    /// Where patterns that end here lead.
    targets: Targets,
}

/// The edge that leads to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Word(u32),
    Star,
    Hash,
    Root,
}

/// One step of a pattern in normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A word, as a range of the pattern.
    Word {
        start: usize,
        len: usize,
    },
    Star,
    Hash,
}

/// The normal form of a pattern.
fn steps(pattern: &[u8]) -> SmallVec<[Step; 16]> {
    let mut steps = SmallVec::new();
    let (mut start, mut hash) = (0, false);
    for word in words(pattern) {
        match word {
            b"*" => steps.push(Step::Star),
            b"#" => hash = true,
            _ => {
                if std::mem::take(&mut hash) {
                    steps.push(Step::Hash);
                }
                steps.push(Step::Word { start, len: word.len() });
            }
        }
        start += word.len() + 1;
    }
    if hash {
        steps.push(Step::Hash);
    }
    steps
}

impl Node {
    fn new(parent: u32, label: Label) -> Self {
        Self { parent, label, star: NONE, hash: NONE, literals: 0, targets: Targets::Empty }
    }

    fn has_children(&self) -> bool {
        self.literals > 0 || self.star != NONE || self.hash != NONE
    }
}

impl Default for Topic {
    fn default() -> Self {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node::new(NONE, Label::Root));
        debug_assert_eq!(to_index(root), ROOT);
        Self { nodes, children: HashTable::new(), hasher: RandomState::default(), words: WordPool::default() }
    }
}

impl Topic {
    pub(crate) fn bind(&mut self, pattern: &ShortString, target: Target) {
        let mut node = ROOT;
        for step in steps(pattern.as_bytes()) {
            node = match self.step(node, step, pattern) {
                Some(child) => child,
                None => self.grow(node, step, pattern),
            };
        }
        self.node_mut(node).targets.add(target);
    }

    pub(crate) fn unbind(&mut self, pattern: &ShortString, target: Target) {
        let mut node = ROOT;
        for step in steps(pattern.as_bytes()) {
            let Some(child) = self.step(node, step, pattern) else { return };
            node = child;
        }
        self.node_mut(node).targets.remove(target);
        self.prune(node);
    }

    /// Calls `found` for the destinations of every pattern that matches, for each pattern once.
    pub(crate) fn matching<'a>(&'a self, key: &[u8], mut found: impl FnMut(&'a Targets)) {
        let mut here: SmallVec<[u32; 16]> = SmallVec::new();
        let mut next: SmallVec<[u32; 16]> = SmallVec::new();
        let mut hashes = SmallSet::default();
        here.push(ROOT);
        self.enter_hash(ROOT, &mut hashes, &mut found);
        for word in words(key) {
            if here.is_empty() && hashes.as_slice().is_empty() {
                return;
            }
            let word = self.words.find(word);
            next.clear();
            for &id in here.iter().chain(hashes.as_slice()) {
                let node = self.node(id);
                if node.literals > 0
                    && let Some(child) = word.and_then(|word| self.child(id, word))
                {
                    next.push(child);
                }
                if node.star != NONE {
                    next.push(node.star);
                }
            }
            for &id in &next {
                self.enter_hash(id, &mut hashes, &mut found);
            }
            std::mem::swap(&mut here, &mut next);
        }
        for id in here {
            let targets = &self.node(id).targets;
            if !targets.is_empty() {
                found(targets);
            }
        }
    }

    /// Enters the `#` child of `id`, if it has one that was not entered before. Its own patterns match
    /// whatever words are left, so they are found at once.
    fn enter_hash<'a>(&'a self, id: u32, hashes: &mut SmallSet, found: &mut impl FnMut(&'a Targets)) {
        let hash = self.node(id).hash;
        if hash == NONE {
            return;
        }
        let node = self.node(hash);
        // A pattern like `a.b.#` needs no place in the set: nothing follows its `#`, and nothing but a `#`
        // further up could lead here a second time.
        if (node.has_children() || !hashes.as_slice().is_empty()) && !hashes.insert(hash) {
            return;
        }
        if !node.targets.is_empty() {
            found(&node.targets);
        }
    }

    fn node(&self, id: u32) -> &Node {
        &self.nodes[id as usize]
    }

    fn node_mut(&mut self, id: u32) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    fn child_hash(hasher: &RandomState, parent: u32, word: u32) -> u64 {
        hasher.hash_one((u64::from(parent) << 32) | u64::from(word))
    }

    /// The child of `parent` for a word.
    fn child(&self, parent: u32, word: u32) -> Option<u32> {
        let hash = Self::child_hash(&self.hasher, parent, word);
        let is_it = |&id: &u32| {
            let node = self.node(id);
            node.parent == parent && node.label == Label::Word(word)
        };
        self.children.find(hash, is_it).copied()
    }

    fn step(&self, from: u32, step: Step, pattern: &ShortString) -> Option<u32> {
        let wildcard = |child: u32| Some(child).filter(|&child| child != NONE);
        match step {
            Step::Star => wildcard(self.node(from).star),
            Step::Hash => wildcard(self.node(from).hash),
            Step::Word { start, len } => {
                let word = self.words.find(&pattern.as_bytes()[start..start + len])?;
                self.child(from, word)
            }
        }
    }

    fn grow(&mut self, from: u32, step: Step, pattern: &ShortString) -> u32 {
        let label = match step {
            Step::Star => Label::Star,
            Step::Hash => Label::Hash,
            Step::Word { start, len } => Label::Word(self.words.acquire(pattern, start, len)),
        };
        let id = to_index(self.nodes.insert(Node::new(from, label)));
        match label {
            Label::Star => self.node_mut(from).star = id,
            Label::Hash => self.node_mut(from).hash = id,
            Label::Word(word) => {
                self.node_mut(from).literals += 1;
                let Self { nodes, children, hasher, .. } = self;
                let rehash = |&id: &u32| match nodes[id as usize] {
                    Node { parent, label: Label::Word(word), .. } => Self::child_hash(hasher, parent, word),
                    _ => unreachable!("only children for words are in the table"),
                };
                children.insert_unique(Self::child_hash(hasher, from, word), id, rehash);
            }
            Label::Root => unreachable!("the root is made with the trie"),
        }
        id
    }

    /// Removes `id` if no pattern ends at it or below it, and then the same of its parent, and so on up.
    fn prune(&mut self, mut id: u32) {
        while id != ROOT && self.node(id).targets.is_empty() && !self.node(id).has_children() {
            let Node { parent, label, .. } = self.nodes[id as usize];
            match label {
                Label::Star => self.node_mut(parent).star = NONE,
                Label::Hash => self.node_mut(parent).hash = NONE,
                Label::Word(word) => {
                    self.node_mut(parent).literals -= 1;
                    let hash = Self::child_hash(&self.hasher, parent, word);
                    if let Ok(entry) = self.children.find_entry(hash, |&other| other == id) {
                        entry.remove();
                    }
                    self.words.release(word);
                }
                Label::Root => unreachable!("the root is not pruned"),
            }
            self.nodes.remove(id as usize);
            id = parent;
        }
    }

    #[cfg(test)]
    pub(crate) fn check(&self, count: &mut dyn FnMut(&Targets)) {
        let mut users = hashbrown::HashMap::with_hasher(RandomState::default());
        let mut children = 0;
        for (id, node) in &self.nodes {
            let id = to_index(id);
            assert!(id == ROOT || !node.targets.is_empty() || node.has_children());
            count(&node.targets);
            match node.label {
                Label::Root => assert_eq!(id, ROOT),
                Label::Star => assert_eq!(self.node(node.parent).star, id),
                Label::Hash => {
                    assert_eq!(self.node(node.parent).hash, id);
                    assert_eq!((node.star, node.hash), (NONE, NONE));
                }
                Label::Word(word) => {
                    assert_eq!(self.child(node.parent, word), Some(id));
                    *users.entry(word).or_insert(0) += 1;
                    children += 1;
                }
            }
        }
        assert_eq!(children, self.children.len());
        assert_eq!(children, self.nodes.iter().map(|(_, node)| node.literals as usize).sum::<usize>());
        self.words.check(&users);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_have_a_normal_form() {
        let cases =
            [("#.#", "#"), ("#.*", "*.#"), ("#.*.#.*.a.*.#", "*.*.#.a.*.#"), ("*.a.#", "*.a.#"), ("", "")];
        for (pattern, normal) in cases {
            let text = |pattern: &'static str| {
                let step = |step: &Step| match *step {
                    Step::Word { start, len } => &pattern[start..start + len],
                    Step::Star => "*",
                    Step::Hash => "#",
                };
                steps(pattern.as_bytes()).iter().map(step).collect::<Vec<_>>().join(".")
            };
            assert_eq!(text(pattern), normal);
        }
    }

    #[test]
    fn each_pattern_is_found_once() {
        let mut topic = Topic::default();
        let patterns = ["#", "#.a.#", "#.a.#.a.#", "#.a.#.a", "a.#", "*.#.a.#", "a.a.a"];
        for (index, pattern) in (0..).zip(patterns) {
            topic.bind(&ShortString::from(pattern), Target::queue(index));
        }
        let mut found = Vec::new();
        topic.matching(b"a.a.a", |targets| found.extend(targets.as_slice().iter().map(|one| one.target)));
        found.sort_unstable();
        assert_eq!(found, (0..7).map(Target::queue).collect::<Vec<_>>());
    }

    #[test]
    fn an_empty_trie_is_left_behind() {
        let mut topic = Topic::default();
        let patterns = ["a.b.c", "a.b", "a.*.#", "", "#.a"].map(ShortString::from);
        for pattern in &patterns {
            topic.bind(pattern, Target::queue(1));
        }
        topic.unbind(&ShortString::from("a.x"), Target::queue(1));
        for pattern in &patterns {
            topic.check(&mut |_| {});
            topic.unbind(pattern, Target::queue(1));
        }
        assert_eq!(topic.nodes.len(), 1);
        topic.check(&mut |_| {});
    }
}
