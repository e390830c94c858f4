//! Power cuts at any call: what was durable is there, what was forgotten durably is not, nothing else appears.
//!
//! `WARREN_SEEDS=first..last` runs other seeds than those of every test run.

mod model;
mod node;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use model::{Fate, Model, QUEUES};
use node::{DEAD_ALLOWED, Node};
use warren_store::{Change, Disk, Recovered, Stored, Turn};
use warren_testkit::SimDisk;
use warren_types::{Message, MessageParts, QueueId};

/// Lives of one store on one disk, each ended by a fault.
const LIVES: usize = 4;

/// Turns of a life, if the power holds that long.
const TURNS: u64 = 60;

fn seeds() -> std::ops::Range<u64> {
    let Ok(range) = std::env::var("WARREN_SEEDS") else { return 0..2000 };
    let (first, last) = range.split_once("..").expect("WARREN_SEEDS=first..last");
    first.parse().expect("a number")..last.parse().expect("a number")
}

fn message(model: &mut Model, persistent: bool) -> Message {
    let len = match model.random(20) {
        0 => 20_000 + model.random(5000),
        1..4 => model.random(3000),
        _ => model.random(60),
    };
    let body: Vec<u8> = (0..len).map(|at| (at * 7 + model.random(3)) as u8).collect();
    let parts = MessageParts { exchange: b"x", routing_key: b"key", persistent, ..MessageParts::default() };
    Message::new(&parts, &body)
}

/// A turn of the shard in which messages go and none come.
fn forget(node: &mut Node, model: &mut Model) {
    let mut turn = Turn::default();
    for (queue, priority, seq, persistent, body_len) in model.forget_some() {
        turn.forget(node.index(queue), priority, seq, persistent, body_len);
    }
    model.appended(turn.append(&node.store, |_, _| {}));
    node.store.write();
}

/// One turn of the shard: publishes, forgets, changes; then perhaps a wait, a write, a checkpoint.
fn turn(node: &mut Node, model: &mut Model) {
    let mut turn = Turn::default();
    let store = Arc::clone(&node.store);
    for _ in 0..model.random(6) {
        let persistent = model.random(5) > 0;
        let message = message(model, persistent);
        let priority = model.random(2) as u8;
        for queue in model.some_queues() {
            let seq = model.publish(queue, priority, &message, persistent);
            let new = Stored { slot: 0, seq, priority, at: 5, persistent, message: &message, shared: None };
            turn.store(&store, node.index(queue), new);
        }
    }
    for (queue, priority, seq, persistent, body_len) in model.forget_some() {
        turn.forget(node.index(queue), priority, seq, persistent, body_len);
    }
    if model.has_purges && model.random(40) == 0 {
        let (queue, priority, last, except) = model.forget_all();
        turn.forget_all(node.index(queue), priority, last, &except);
    }
    if model.random(10) == 0 {
        let (key, value) = model.change();
        let lsn = store.journal().change(vec![Change { key, value }]);
        model.changed(lsn);
    }
    let indexes = &mut node.indexes;
    let end = turn.append(&store, |_, placed| indexes.values_mut().for_each(|index| placed.note(index)));
    model.appended(end);
    if model.random(3) == 0 {
        store.write();
    }
    if let Some(end) = end.filter(|_| model.random(3) == 0) {
        store.when_durable(end, Box::new(|| {}));
        store.write();
    }
    if model.random(12) == 0 && !node.has_failed() {
        let keep = model.random(4) as usize;
        node.checkpoint(keep);
    }
    model.durable(|lsn| store.is_durable(lsn));
}

/// Chosen messages, in rising order, with something happening between the reads and the index hearing of them.
fn fetch(
    node: &mut Node,
    queue: QueueId,
    priority: u8,
    seqs: &[u64],
    happens: impl FnOnce(&mut Node),
) -> Vec<(u64, Message)> {
    let loads = node.store.plan_fetch(&node.indexes[&queue], priority, seqs);
    let read = |load| node.store.load_now(load).expect("nothing is damaged");
    let found: Vec<_> = loads.iter().map(read).collect();
    happens(node);
    found.iter().for_each(|loaded| node.index(queue).loaded(priority, loaded));
    let messages = found.into_iter().flat_map(|loaded| loaded.messages);
    messages.map(|stored| (stored.seq, stored.message)).collect()
}

/// Compares everything that can be read with the model while the store runs.
fn check_running(node: &mut Node, model: &Model) {
    for queue in QUEUES {
        for priority in 0..2 {
            let found: Vec<u64> = node.read(queue, priority).into_iter().map(|(seq, ..)| seq).collect();
            assert_eq!(found, model.live(queue, priority), "queue {queue:?}, priority {priority}");
            // The first time everything is read; from then on the index knows where to look.
            for step in [7, 3, 1, 5] {
                let chosen: Vec<u64> = found.iter().copied().step_by(step).collect();
                let fetched = fetch(node, queue, priority, &chosen, |_| ());
                assert!(fetched.iter().map(|(seq, _)| *seq).eq(chosen), "every {step} of queue {queue:?}");
                for (seq, message) in fetched {
                    let known = model.message(queue, priority, seq).expect("it is there");
                    assert_eq!(known.0.stored(), message.stored(), "message {seq} of {queue:?}");
                }
            }
        }
    }
}

fn check_recovered(node: &mut Node, recovered: &Recovered, model: &mut Model) {
    assert_eq!(node.damage, BTreeMap::new());
    for queue in QUEUES {
        for priority in 0..2 {
            let found = node.read(queue, priority);
            let counted = node.indexes[&queue].counts().find(|(level, _)| *level == priority);
            let counted = counted.map_or(0, |(_, count)| count.messages);
            assert_eq!(counted, found.len() as u64, "the count of queue {queue:?}, priority {priority}");
            assert!(found.is_sorted_by_key(|(seq, ..)| *seq), "order of queue {queue:?}");
            for (seq, message, persistent) in &found {
                assert!(persistent, "a transient message survived");
                let known = model.message(queue, priority, *seq).expect("nothing appears from nowhere");
                assert_eq!(known.0.stored(), message.stored(), "message {seq} of {queue:?}");
                assert_ne!(known.1, Fate::Forgotten, "message {seq} of {queue:?} came back");
            }
            let found: Vec<u64> = found.into_iter().map(|(seq, ..)| seq).collect();
            for seq in model.certain(queue, priority) {
                assert!(found.contains(&seq), "message {seq} of {queue:?}, priority {priority} is lost");
            }
            model.resume(queue, priority, &found);
        }
    }
    assert!(model.explains(&recovered.metadata), "definitions: {:?}", recovered.metadata);
    model.resume_metadata(&recovered.metadata);
}

fn run(seed: u64) {
    let mut model = Model::new(seed);
    let mut disk = SimDisk::new(seed);
    for life in 0..LIVES {
        match model.random(4) {
            0 => {}
            1 => disk.fail_call(model.random(80), io::ErrorKind::StorageFull),
            2 => disk.fail_call(model.random(80), io::ErrorKind::Other),
            _ => disk.fail_after(model.random(300)),
        }
        if let Ok((mut node, recovered)) = Node::open(&disk, QUEUES) {
            if life > 0 {
                check_recovered(&mut node, &recovered, &mut model);
            }
            for at in 0..TURNS {
                if node.has_failed() {
                    break;
                }
                turn(&mut node, &mut model);
                node.store.write();
                if at % 20 == 19 && !node.has_failed() {
                    check_running(&mut node, &model);
                }
            }
            model.durable(|lsn| node.store.is_durable(lsn));
        }
        disk = if model.random(5) == 0 && disk.has_power() {
            disk.kill()
        } else {
            disk.power_cut(seed + life as u64)
        };
    }
    let (mut node, recovered) = Node::open(&disk, QUEUES).expect("a disk with power opens");
    check_recovered(&mut node, &recovered, &mut model);
}

#[test]
fn what_is_durable_survives_power_cuts() {
    for seed in seeds() {
        let result = std::panic::catch_unwind(|| run(seed));
        if let Err(panic) = result {
            eprintln!("seed {seed}: run it alone with WARREN_SEEDS={seed}..{}", seed + 1);
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn compact_files_are_at_most_twice_as_long_as_what_lives_in_them_and_a_constant() {
    /// More than a record and its place among others take on top of the message.
    const RECORD_OVERHEAD: u64 = 64;
    const FILES_MAX: usize = 200;
    let (mut largest, mut copied) = (0, 0);
    for seed in 0..20 {
        let (disk, mut model) = (SimDisk::new(seed), Model::new(seed));
        // What a purge spares is taken to be as long as the average.
        model.has_purges = false;
        let (mut node, _) = Node::open(&disk, QUEUES).expect("the disk is new");
        for round in 0..40 {
            for _ in 0..30 {
                turn(&mut node, &mut model);
            }
            for _ in 0..if round % 4 == 3 { 300 } else { 0 } {
                forget(&mut node, &mut model);
            }
            // Everything goes from the log to compact files; then each checkpoint copies one at most.
            assert!(node.checkpoint(0));
            let compact = || -> u64 {
                let names = disk.list().expect("the disk works").into_iter();
                let names = names.filter(|name| name.starts_with("compact-"));
                names.map(|name| disk.open(&name).and_then(|file| file.len()).expect("the disk works")).sum()
            };
            let live = model.live_len(RECORD_OVERHEAD);
            let bound = 2 * live + DEAD_ALLOWED;
            let before = compact();
            for _ in 0..FILES_MAX {
                if compact() <= bound {
                    break;
                }
                assert!(node.checkpoint(0));
                copied += 1;
            }
            assert!(compact() <= bound, "seed {seed}, round {round}: {} bytes, {live} alive", compact());
            largest = largest.max(before);
        }
        check_running(&mut node, &model);
    }
    assert!(copied > 0 && largest > 4 * DEAD_ALLOWED, "{copied} copied, at most {largest} bytes");
}

const MOVED: u64 = 40;

/// A store with messages in a compact file, most of them gone, so that the next checkpoint copies the rest to another
/// file; the queue that has the rest, and what that is.
fn about_to_move(disk: &SimDisk) -> (Node, QueueId, Vec<u64>) {
    const BODY: usize = 1000;
    let [dead, read, ..] = QUEUES;
    let (mut node, _) = Node::open(disk, QUEUES).expect("the disk is new");
    let store = Arc::clone(&node.store);
    let message = Message::new(&MessageParts { persistent: true, ..MessageParts::default() }, &[7; BODY]);
    let mut turn = Turn::default();
    for queue in [dead, read] {
        for seq in 0..MOVED {
            let stored = Stored {
                slot: 0,
                seq,
                priority: 0,
                at: 0,
                persistent: true,
                message: &message,
                shared: None,
            };
            turn.store(&store, node.index(queue), stored);
            // What one queue has after the other has a record of its own.
            turn.append(&store, |_, placed| placed.note(node.index(queue)));
        }
    }
    store.write();
    assert!(node.checkpoint(0));
    let mut forget = |node: &mut Node, queue, seqs: std::ops::Range<u64>| {
        for seq in seqs {
            turn.forget(node.index(queue), 0, seq, true, BODY as u64);
        }
        turn.append(&store, |_, _| {});
        store.write();
    };
    forget(&mut node, dead, 0..MOVED);
    forget(&mut node, read, 5..MOVED - 10);
    (node, read, (0..5).chain(MOVED - 10..MOVED).collect())
}

/// A checkpoint, of which the messages are in another file.
fn moves(disk: &SimDisk, node: &mut Node) {
    let files = || disk.list().expect("the disk works");
    let before = files();
    assert!(node.checkpoint(0));
    assert_ne!(files(), before, "the messages have moved");
}

/// Where reading came to in a file says nothing of the file to which the rest is copied meanwhile.
#[test]
fn nothing_is_skipped_when_messages_move_while_they_are_read() {
    let disk = SimDisk::new(1);
    let (mut node, queue, rest) = about_to_move(&disk);
    let mut moved = false;
    let found = node.read_during(queue, 0, |node| {
        if !std::mem::replace(&mut moved, true) {
            moves(&disk, node);
        }
    });
    assert_eq!(found.into_iter().map(|(seq, ..)| seq).collect::<Vec<u64>>(), rest);
}

/// Nor does where chosen messages were found.
#[test]
fn chosen_messages_are_found_after_they_have_moved() {
    let disk = SimDisk::new(1);
    let (mut node, queue, rest) = about_to_move(&disk);
    let mut fetched = |seqs: &[u64], happens: &dyn Fn(&mut Node)| -> Vec<u64> {
        fetch(&mut node, queue, 0, seqs, happens).into_iter().map(|(seq, _)| seq).collect()
    };
    assert_eq!(fetched(&rest[3..7], &|node| moves(&disk, node)), rest[3..7]);
    for _ in 0..2 {
        for at in 0..rest.len() {
            assert_eq!(fetched(&rest[at..=at], &|_| ()), rest[at..=at]);
        }
    }
}
