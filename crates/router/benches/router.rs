//! Time to route one message, by kind of exchange and number of bindings.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use warren_router::{Binding, Destination, Router};
use warren_types::{FieldTable, FieldValue, QueueId, QueueRef, ShortString};

/// Queues that the bindings are spread over.
const QUEUES: u64 = 1000;

fn name(text: &str) -> ShortString {
    ShortString::new(text.as_bytes()).expect("names in this file are short")
}

fn router() -> Router {
    let mut router = Router::new();
    for id in 0..QUEUES {
        let slot = u32::try_from(id).expect("there are few queues");
        router.add_queue(&name(&format!("queue-{id}")), QueueRef { id: QueueId(id), shard: 0, slot });
    }
    router
}

fn bind(router: &mut Router, exchange: &str, number: u64, key: &str, arguments: FieldTable) {
    let destination = Destination::Queue(name(&format!("queue-{}", number % QUEUES)));
    let binding = Binding { source: name(exchange), destination, routing_key: name(key), arguments };
    router.bind(binding).expect("both ends exist");
}

/// Keys such as `stock.12.usd.71`, all different.
fn key(number: u64) -> String {
    format!("stock.{}.usd.{}", number % 100, number / 100)
}

/// The pattern for one key: every fourth with a `*`, every eighth with a `#` at its end.
fn pattern(number: u64) -> String {
    match number % 8 {
        1 | 5 => format!("*.{}.usd.{}", number % 100, number / 100),
        2 => format!("stock.{}.usd.{}.#", number % 100, number / 100),
        _ => key(number),
    }
}

fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    label: String,
    router: &Router,
    exchange: &str,
    keys: &[String],
) {
    let headers = || {
        let mut table = FieldTable::new();
        table.insert("format", FieldValue::string("pdf"));
        table.insert("number", FieldValue::I32(7));
        table
    };
    let (mut out, mut at) = (Vec::new(), 0);
    router.route(exchange.as_bytes(), &[keys[0].as_bytes()], &headers, &mut out);
    assert!(!out.is_empty());
    group.bench_function(label, |bencher| {
        bencher.iter(|| {
            out.clear();
            at = (at + 1) % keys.len();
            router.route(exchange.as_bytes(), &[black_box(keys[at].as_bytes())], &headers, &mut out);
            black_box(&out);
        });
    });
}

fn by_key(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    let default = router();
    let names: Vec<_> = (0..QUEUES).map(|id| format!("queue-{id}")).collect();
    measure(&mut group, "default/1000".to_owned(), &default, "", &names);
    for (exchange, kind, counts) in
        [("amq.direct", "direct", &[1, 100_000][..]), ("amq.topic", "topic", &[1, 1000, 100_000])]
    {
        for &count in counts {
            let mut router = router();
            for number in 0..count {
                let key = if kind == "topic" { pattern(number) } else { key(number) };
                bind(&mut router, exchange, number, &key, FieldTable::new());
            }
            // Few keys, as most publishers have, and all keys, which measures the cache of the processor.
            let keys: Vec<_> = (0..count).step_by(count as usize / 16 + 1).map(key).collect();
            measure(&mut group, format!("{kind}/{count}/few"), &router, exchange, &keys);
            let keys: Vec<_> = (0..count).map(|n| key(n * 7919 % count)).collect();
            measure(&mut group, format!("{kind}/{count}/all"), &router, exchange, &keys);
        }
    }
}

fn without_key(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for count in [1, 10, 1000] {
        let mut router = router();
        (0..count).for_each(|number| bind(&mut router, "amq.fanout", number, "", FieldTable::new()));
        measure(&mut group, format!("fanout/{count}"), &router, "amq.fanout", &[String::new()]);
    }
    let mut router = router();
    for number in 0..100 {
        let mut arguments = FieldTable::new();
        arguments.insert("x-match", FieldValue::string("all"));
        arguments.insert("format", FieldValue::string("pdf"));
        arguments.insert("number", FieldValue::I32(number));
        bind(&mut router, "amq.headers", number.unsigned_abs().into(), "", arguments);
    }
    measure(&mut group, "headers/100".to_owned(), &router, "amq.headers", &[String::new()]);
}

fn change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change");
    let mut router = router();
    (0..100_000)
        .for_each(|number| bind(&mut router, "amq.topic", number, &pattern(number), FieldTable::new()));
    let destination = Destination::Queue(name("queue-7"));
    let binding = Binding {
        source: name("amq.topic"),
        destination,
        routing_key: name("a.*.new.#"),
        arguments: FieldTable::new(),
    };
    group.bench_function("bind and unbind/100000", |bencher| {
        bencher.iter(|| {
            router.bind(black_box(binding.clone())).expect("both ends exist");
            router.unbind(black_box(&binding)).expect("it is not the default exchange")
        });
    });
}

criterion_group!(benches, by_key, without_key, change);
criterion_main!(benches);
