//! Topic exchanges against a matcher that is too simple to be wrong.
//!
//! The input is a list of operations on few queues and keys of few words, so that bindings share prefixes, are
//! bound twice, and go again.

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use warren_router::{Binding, Destination, Router};
use warren_types::{FieldTable, QueueId, QueueRef, ShortString};

const WORDS: [&str; 8] = ["a", "b", "*", "#", "", "ab", "*#", "c"];
const WORDS_MAX: usize = 7;
const QUEUES: u8 = 6;
const EXCHANGE: &[u8] = b"amq.topic";

fuzz_target!(|data: &[u8]| {
    let mut input = data.iter().copied();
    let mut router = Router::new();
    let mut bindings: BTreeSet<(u8, Vec<u8>)> = BTreeSet::new();
    let mut queues = [false; QUEUES as usize];
    while let Some(operation) = input.next() {
        let queue = operation % QUEUES;
        match operation / QUEUES % 8 {
            0..=2 => {
                let pattern = key(&mut input);
                if !queues[usize::from(queue)] {
                    queues[usize::from(queue)] = true;
                    router.add_queue(&name(queue), reference(queue));
                }
                router.bind(binding(queue, &pattern)).expect("both ends exist");
                bindings.insert((queue, pattern));
            }
            3 => {
                let pattern = key(&mut input);
                router.unbind(&binding(queue, &pattern)).expect("not the default exchange");
                bindings.remove(&(queue, pattern));
            }
            4 => {
                router.remove_queue(name(queue).as_bytes());
                queues[usize::from(queue)] = false;
                bindings.retain(|(bound, _)| *bound != queue);
            }
            _ => {
                let keys: Vec<Vec<u8>> = (0..=queue % 2).map(|_| key(&mut input)).collect();
                check(&router, &bindings, &keys);
            }
        }
    }
    assert_eq!(router.bindings().count(), bindings.len());
});

fn check(router: &Router, bindings: &BTreeSet<(u8, Vec<u8>)>, keys: &[Vec<u8>]) {
    let slices: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let mut found = Vec::new();
    router.route(EXCHANGE, &slices, &FieldTable::new, &mut found).expect("the exchange exists");
    let mut found: Vec<u64> = found.iter().map(|queue| queue.id.0).collect();
    found.sort_unstable();
    let expected: BTreeSet<u64> = bindings
        .iter()
        .filter(|(_, pattern)| keys.iter().any(|key| matches(&words(pattern), &words(key))))
        .map(|(queue, _)| u64::from(*queue))
        .collect();
    assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
}

/// `*` is one word, `#` any number of them.
fn matches(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, _) => key.is_empty(),
        (Some((&b"#", rest)), None) => matches(rest, key),
        (Some((&b"#", rest)), Some((_, key_rest))) => matches(rest, key) || matches(pattern, key_rest),
        (Some(_), None) => false,
        (Some((word, rest)), Some((key_word, key_rest))) => {
            (*word == b"*" || word == key_word) && matches(rest, key_rest)
        }
    }
}

fn words(key: &[u8]) -> Vec<&[u8]> {
    if key.is_empty() { Vec::new() } else { key.split(|byte| *byte == b'.').collect() }
}

/// A byte says how many words, then each takes one.
fn key(input: &mut impl Iterator<Item = u8>) -> Vec<u8> {
    let count = usize::from(input.next().unwrap_or(0)) % (WORDS_MAX + 1);
    let words: Vec<&str> =
        (0..count).map(|_| WORDS[usize::from(input.next().unwrap_or(0)) % WORDS.len()]).collect();
    words.join(".").into_bytes()
}

fn name(queue: u8) -> ShortString {
    ShortString::truncated(format!("q{queue}").as_bytes())
}

fn reference(queue: u8) -> QueueRef {
    QueueRef { id: QueueId(queue.into()), shard: 0, slot: queue.into() }
}

fn binding(queue: u8, pattern: &[u8]) -> Binding {
    Binding {
        source: ShortString::truncated(EXCHANGE),
        destination: Destination::Queue(name(queue)),
        routing_key: ShortString::truncated(pattern),
        arguments: FieldTable::new(),
    }
}
