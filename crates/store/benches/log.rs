//! Time that the store takes for a message: into the log, with a sync for all of a turn, and forgotten again.

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use warren_store::{FileSystem, Options, QueueIndex, Store, Stored, Turn};
use warren_types::{Message, MessageParts, QueueId};

/// Messages in a turn.
const TURN: u64 = 1000;

/// A turn that takes messages, is synced, and another that forgets them.
fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(TURN));
    // Nothing moves the log's old segments away.
    group
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .sample_size(20);
    for len in [16, 1024] {
        let options = Options { by_hand: true, ..Options::default() };
        let directory = tempfile::tempdir().expect("a directory");
        let disk = Arc::new(FileSystem::open(directory.path()).expect("the directory is there"));
        let opened = Store::open(disk, options, Box::new(|_| {}), &|_, _| {});
        let (store, _) = opened.expect("the disk works");
        let (mut index, mut turn, mut next) = (QueueIndex::new(QueueId(1)), Turn::default(), 0);
        let parts = MessageParts { routing_key: b"queue", persistent: true, ..MessageParts::default() };
        let message = Message::new(&parts, &vec![7; len]);
        group.bench_function(format!("{len} B"), |bencher| {
            let mut batch = || {
                for seq in next..next + TURN {
                    let message = &message;
                    let stored = Stored {
                        slot: 0,
                        seq,
                        priority: 0,
                        at: seq,
                        persistent: true,
                        message,
                        shared: None,
                    };
                    turn.store(&store, &mut index, stored);
                }
                let end = turn.append(&store, |_, placed| placed.note(&mut index)).expect("it is not empty");
                store.when_durable(end, Box::new(|| {}));
                store.write();
                (next..next + TURN).for_each(|seq| turn.forget(&mut index, 0, seq, true, len as u64));
                next += TURN;
                turn.append(&store, |_, placed| placed.note(&mut index))
            };
            // Then all buffers are as long as they get.
            batch();
            bencher.iter(batch);
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
