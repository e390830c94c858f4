//! Damage inside the log: the queues that lost something are known, and no other is touched.

mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use node::Node;
use warren_store::{Change, Disk, OpenError, Stored, Turn};
use warren_testkit::SimDisk;
use warren_types::{Message, MessageParts, QueueId};

const QUEUES: [QueueId; 5] = [QueueId(1), QueueId(2), QueueId(3), QueueId(4), QueueId(900)];

const TURNS: u64 = 500;

/// The header of a segment, in bytes.
const HEADER_LEN: u64 = 64;

/// More than the last group takes, in bytes: what is damaged there is a torn end.
const LAST_GROUP_LEN: u64 = 600;

/// Lengths of what is damaged, in bytes.
const LENS: [u64; 5] = [1, 1, 24, 512, 4096];

type Files = BTreeMap<String, Vec<u8>>;

/// Numbers of the messages of a queue.
type Content = BTreeMap<QueueId, BTreeSet<u64>>;

/// The next of a sequence that looks random, below `bound`.
fn random(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % bound
}

fn files(disk: &SimDisk) -> Files {
    let read = |name: String| {
        let file = disk.open(&name).expect("it is listed");
        let mut bytes = vec![0; file.len().expect("the disk works") as usize];
        file.read_exact_at(&mut bytes, 0).expect("it is so long");
        (name, bytes)
    };
    disk.list().expect("the disk works").into_iter().map(read).collect()
}

fn disk_with(files: &Files) -> SimDisk {
    let disk = SimDisk::new(0);
    for (name, bytes) in files {
        disk.create(name).and_then(|file| file.write_all_at(bytes, 0)).expect("the disk works");
    }
    disk
}

/// A log of several segments, of a store that was stopped in order, and what is in it.
fn filled(seed: u64) -> (Files, Content) {
    let (disk, mut state) = (SimDisk::new(seed), seed);
    let (mut node, _) = Node::open(&disk, QUEUES).expect("the disk is new");
    let store = Arc::clone(&node.store);
    let mut content = Content::new();
    for seq in 0..TURNS {
        let mut turn = Turn::default();
        let body = vec![seq as u8; random(&mut state, 300) as usize];
        let parts = MessageParts { routing_key: b"key", persistent: true, ..MessageParts::default() };
        let message = Message::new(&parts, &body);
        let fan_out = 1 + random(&mut state, 3) as usize;
        let first = random(&mut state, 3) as usize;
        for queue in QUEUES.iter().skip(first).take(fan_out) {
            let message = &message;
            let new = Stored { slot: 0, seq, priority: 0, at: 1, persistent: true, message, shared: None };
            turn.store(&store, node.index(*queue), new);
            content.entry(*queue).or_default().insert(seq);
        }
        if random(&mut state, 3) == 0 {
            let queue = QUEUES[random(&mut state, 5) as usize];
            if let Some(seq) = content.entry(queue).or_default().pop_first() {
                turn.forget(node.index(queue), 0, seq, true, 0);
            }
        }
        if random(&mut state, 100) == 0 {
            store.journal().change(vec![Change { key: vec![seq as u8], value: Some(body) }]);
        }
        let indexes = &mut node.indexes;
        let end = turn.append(&store, |_, placed| indexes.values_mut().for_each(|index| placed.note(index)));
        if let Some(end) = end.filter(|_| random(&mut state, 3) == 0) {
            store.when_durable(end, Box::new(|| {}));
            store.write();
        }
    }
    let mut turn = Turn::default();
    turn.stop(&[]);
    store.stop(&mut turn).expect("the disk works");
    (files(&disk), content)
}

/// The queues that are not as they were, by what can be read of them.
fn hurt(node: &mut Node, content: &Content) -> BTreeSet<QueueId> {
    let mut hurt = BTreeSet::new();
    let stopped = node.damage.clone();
    for queue in QUEUES.into_iter().filter(|queue| !stopped.contains_key(queue)) {
        let found: BTreeSet<u64> = node.read(queue, 0).into_iter().map(|(seq, ..)| seq).collect();
        if Some(&found) != content.get(&queue) {
            hurt.insert(queue);
        }
    }
    hurt
}

/// One byte or many, anywhere in the table: what it says is what was written, or it is refused.
#[test]
fn a_damaged_table_is_refused() {
    let (mut refused, mut untouched) = (0, 0);
    for seed in 0..4 {
        let (files_before, content) = filled(seed);
        let disk = disk_with(&files_before);
        let (mut node, recovered) = Node::open(&disk, QUEUES).expect("nothing is damaged");
        assert!(node.checkpoint(0) && !recovered.metadata.is_empty());
        let before = files(&disk);
        let mut state = seed;
        for len in LENS.repeat(6) {
            let mut damaged = before.clone();
            let table = damaged.get_mut("table.redb").expect("there is one");
            let at = random(&mut state, table.len() as u64 - len) as usize;
            table[at..at + len as usize].iter_mut().for_each(|byte| *byte ^= 0x5a);
            match Node::open(&disk_with(&damaged), QUEUES) {
                Ok((mut node, found)) => {
                    untouched += 1;
                    assert_eq!(
                        hurt(&mut node, &content),
                        BTreeSet::new(),
                        "seed {seed}, {len} bytes at {at}"
                    );
                    assert_eq!((node.damage.len(), &found.metadata), (0, &recovered.metadata));
                }
                Err(OpenError::Table(_)) => refused += 1,
                Err(error) => panic!("seed {seed}, {len} bytes at {at}: {error}"),
            }
        }
    }
    assert!(refused > 5 && untouched > 5, "{refused}, {untouched}");
}

#[test]
fn queues_that_lost_something_are_stopped_and_no_others() {
    let (mut refused, mut stopped, mut untouched) = (0, 0, 0);
    for seed in 0..20 {
        let (files, content) = filled(seed);
        let logs: Vec<&String> = files.keys().filter(|name| name.starts_with("log-")).collect();
        assert!(logs.len() > 3, "{logs:?}");
        let mut state = seed;
        for len in LENS.repeat(4) {
            let name = logs[random(&mut state, logs.len() as u64) as usize];
            let mut damaged = files.clone();
            let bytes = damaged.get_mut(name).expect("it is there");
            let tail = if Some(&name) == logs.last() { LAST_GROUP_LEN } else { 0 };
            // Behind the last record there may be zeros, which nobody misses.
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
            let room = end.saturating_sub(HEADER_LEN + len + tail);
            if room == 0 {
                continue;
            }
            let at = (HEADER_LEN + random(&mut state, room)) as usize;
            bytes[at..at + len as usize].iter_mut().for_each(|byte| *byte ^= 0x5a);
            let told = format!("seed {seed}: {len} bytes at {at} of {name}");

            let disk = disk_with(&damaged);
            let (mut node, recovered) = match Node::open(&disk, QUEUES) {
                Ok(opened) => opened,
                Err(OpenError::LostDefinitions(_) | OpenError::Senseless { .. }) => {
                    refused += 1;
                    continue;
                }
                Err(error) => panic!("{told}: {error}"),
            };
            assert_eq!(hurt(&mut node, &content), BTreeSet::new(), "{told}: {:?}", recovered.report);
            assert!(!recovered.report.is_empty(), "{told} is not reported");
            let unknown = recovered.report.iter().find(|line| line.contains("cannot be told"));
            assert_eq!(unknown, None, "{told}");
            if len == 1 {
                // One record, which has at most three queues.
                assert!(node.damage.len() <= 3, "{told}: {:?}", node.damage);
            }
            match node.damage.len() {
                0 => untouched += 1,
                _ => stopped += 1,
            }

            // What showed the damage goes with the segment; the queues stay stopped.
            assert!(node.checkpoint(0) && !node.has_failed(), "{told}");
            let (mut again, _) = Node::open(&disk.kill(), QUEUES).expect("the disk works");
            assert_eq!(again.damage, node.damage, "{told}");
            assert_eq!(hurt(&mut again, &content), BTreeSet::new(), "{told}");
        }
    }
    assert!(refused > 5 && stopped > 100 && untouched > 5, "{refused}, {stopped}, {untouched}");
}
