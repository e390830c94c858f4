//! The way of a message over exchanges.

mod common;

use std::cell::Cell;
use std::time::{Duration, Instant};

use common::{bind, binding, declare, exchange, queue, queue_ref, route, route_keys, to_exchange, to_queue};
use warren_router::{ALTERNATE_EXCHANGE, Declared, Destination, ExchangeKind, Router};
use warren_types::{FieldTable, FieldValue, ShortString};

fn with_alternate(router: &mut Router, name: &'static str, kind: ExchangeKind, alternate: &str) {
    let mut definition = exchange(name, kind);
    definition.arguments.insert(ALTERNATE_EXCHANGE, FieldValue::string(alternate));
    assert_eq!(router.declare_exchange(definition), Ok(Declared::New));
}

#[test]
fn the_default_exchange_leads_to_the_queue_with_the_name_of_the_key() {
    let mut router = Router::new();
    queue(&mut router, "q1");
    queue(&mut router, "q2");
    assert_eq!(route(&router, "", "q1"), [1]);
    assert_eq!(route(&router, "", "q3"), []);
    assert_eq!(route_keys(&router, "", &[b"q1", b"q2", b"q1"]), [1, 2]);
    router.remove_queue(b"q1");
    assert_eq!(route(&router, "", "q1"), []);
}

#[test]
fn a_missing_exchange_is_told_from_an_unroutable_message() {
    let router = Router::new();
    let mut out = vec![queue_ref(9)];
    assert_eq!(router.route(b"missing", &[b"k"], &FieldTable::new, &mut out), None);
    let routed = router.route(b"amq.direct", &[b"k"], &FieldTable::new, &mut out).unwrap();
    assert!(routed.cacheable);
    assert_eq!(out, [queue_ref(9)]);
}

#[test]
fn what_was_in_the_result_before_stays() {
    let mut router = Router::new();
    queue(&mut router, "q1");
    let mut out = vec![queue_ref(1)];
    router.route(b"", &[b"q1", b"q1"], &FieldTable::new, &mut out).unwrap();
    assert_eq!(out, [queue_ref(1), queue_ref(1)]);
}

#[test]
fn direct_and_fanout() {
    let mut router = Router::new();
    for name in ["q1", "q2"] {
        queue(&mut router, name);
        bind(&mut router, "amq.direct", to_queue(name), "k");
        bind(&mut router, "amq.direct", to_queue(name), name);
        bind(&mut router, "amq.fanout", to_queue(name), "k");
        bind(&mut router, "amq.fanout", to_queue(name), "l");
    }
    assert_eq!(route(&router, "amq.direct", "k"), [1, 2]);
    assert_eq!(route(&router, "amq.direct", "q1"), [1]);
    assert_eq!(route(&router, "amq.direct", "K"), []);
    assert_eq!(route_keys(&router, "amq.direct", &[b"q1", b"x", b"k"]), [1, 2]);
    assert_eq!(route(&router, "amq.fanout", "whatever"), [1, 2]);
    router.unbind(&binding("amq.fanout", to_queue("q1"), "k")).unwrap();
    assert_eq!(route(&router, "amq.fanout", "k"), [1, 2]);
    router.unbind(&binding("amq.fanout", to_queue("q1"), "l")).unwrap();
    assert_eq!(route(&router, "amq.fanout", "k"), [2]);
}

#[test]
fn topic_patterns() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("", &[""], &["a", "."]),
        ("a", &["a"], &["", "a.", "A", "*"]),
        ("a.b", &["a.b"], &["a", "a.b.c", "ab"]),
        ("*", &["a", "*", "#"], &["", "a.b", "."]),
        ("#", &["", "a", "a.b", ".", "#"], &[]),
        ("*.", &["a.", "."], &["a", "a.b"]),
        ("a.*", &["a.b", "a."], &["a", "a.b.c"]),
        ("a.#", &["a", "a.", "a.b", "a.b.c"], &["", "b", "b.a"]),
        ("#.a", &["a", ".a", "b.a", "a.a.a"], &["", "a.b"]),
        ("#.a.#", &["a", "b.a", "a.b", "b.a.b"], &["", "b.b"]),
        ("*.#", &["a", "a.b", "."], &[""]),
        ("#.*", &["a", "a.b", "."], &[""]),
        ("#.#", &["", "a", "a.b"], &[]),
        ("#.*.#.*", &["a.b", "a.b.c"], &["", "a"]),
        ("a.#.b.*.#.c", &["a.b.x.c", "a.x.b.b.x.y.c"], &["a.b.c", "a.b.x"]),
        ("a**.#b", &["a**.#b"], &["axx.b"]),
        ("a..b", &["a..b"], &["a.b", "a.x.b"]),
    ];
    for (pattern, matching, others) in cases {
        let mut router = Router::new();
        queue(&mut router, "q1");
        bind(&mut router, "amq.topic", to_queue("q1"), pattern);
        for key in *matching {
            assert_eq!(route(&router, "amq.topic", key), [1], "{pattern} should match {key}");
        }
        for key in *others {
            assert_eq!(route(&router, "amq.topic", key), [], "{pattern} should not match {key}");
        }
    }
}

#[test]
fn a_queue_gets_one_copy_however_many_patterns_match() {
    let mut router = Router::new();
    queue(&mut router, "q1");
    for pattern in ["#", "a.#", "*.b", "a.b", "#.b", "#.#", "*.#.b"] {
        bind(&mut router, "amq.topic", to_queue("q1"), pattern);
    }
    assert_eq!(route_keys(&router, "amq.topic", &[b"a.b", b"a.b", b"b"]), [1]);
}

#[test]
fn headers_decide_and_are_asked_for_once() {
    let mut router = Router::new();
    queue(&mut router, "q1");
    queue(&mut router, "q2");
    for (name, source) in [("q1", "amq.match"), ("q2", "amq.headers")] {
        let mut binding = binding(source, to_queue(name), "");
        binding.arguments.insert("h", FieldValue::string("yes"));
        router.bind(binding).unwrap();
    }
    bind(&mut router, "amq.fanout", to_exchange("amq.match"), "");
    bind(&mut router, "amq.fanout", to_exchange("amq.headers"), "");
    let (calls, mut out) = (Cell::new(0), Vec::new());
    let headers = || {
        calls.set(calls.get() + 1);
        let mut headers = FieldTable::new();
        headers.insert("h", FieldValue::string("yes"));
        headers
    };
    let routed = router.route(b"amq.fanout", &[b""], &headers, &mut out).unwrap();
    assert!(!routed.cacheable);
    assert_eq!((calls.get(), out.len()), (1, 2));
    assert_eq!(route(&router, "amq.match", ""), []);
}

#[test]
fn exchanges_in_a_circle_are_visited_once() {
    let mut router = Router::new();
    for (name, queue_name) in [("e1", "q1"), ("e2", "q2"), ("e3", "q3")] {
        declare(&mut router, name, ExchangeKind::Fanout);
        queue(&mut router, queue_name);
        bind(&mut router, name, to_queue(queue_name), "");
        bind(&mut router, name, to_queue("q1"), "again");
    }
    for (source, destination) in [("e1", "e2"), ("e2", "e3"), ("e3", "e1"), ("e1", "e1")] {
        bind(&mut router, source, to_exchange(destination), "");
    }
    for name in ["e1", "e2", "e3"] {
        assert_eq!(route(&router, name, ""), [1, 2, 3]);
    }
}

#[test]
fn keys_are_kept_on_the_way() {
    let mut router = Router::new();
    queue(&mut router, "q1");
    bind(&mut router, "amq.topic", to_exchange("amq.direct"), "a.#");
    bind(&mut router, "amq.direct", to_queue("q1"), "a.b");
    assert_eq!(route(&router, "amq.topic", "a.b"), [1]);
    assert_eq!(route(&router, "amq.topic", "a.c"), []);
}

#[test]
fn an_alternate_exchange_gets_what_matches_nothing() {
    let mut router = Router::new();
    with_alternate(&mut router, "e", ExchangeKind::Direct, "ae");
    with_alternate(&mut router, "ae", ExchangeKind::Direct, "last");
    queue(&mut router, "q1");
    queue(&mut router, "q2");
    queue(&mut router, "q3");
    bind(&mut router, "e", to_queue("q1"), "1");
    bind(&mut router, "ae", to_queue("q2"), "2");
    assert_eq!(route(&router, "e", "1"), [1]);
    assert_eq!(route(&router, "e", "2"), [2]);
    assert_eq!(route_keys(&router, "e", &[b"1", b"2"]), [1], "one key that matches is enough");
    assert_eq!(route(&router, "e", "3"), [], "the last one is missing");
    declare(&mut router, "last", ExchangeKind::Fanout);
    bind(&mut router, "last", to_queue("q3"), "");
    assert_eq!(route(&router, "e", "3"), [3]);
}

#[test]
fn a_match_that_leads_nowhere_is_still_a_match() {
    let mut router = Router::new();
    with_alternate(&mut router, "e", ExchangeKind::Fanout, "amq.fanout");
    queue(&mut router, "q1");
    bind(&mut router, "amq.fanout", to_queue("q1"), "");
    assert_eq!(route(&router, "e", "k"), [1]);
    bind(&mut router, "e", to_exchange("amq.direct"), "");
    assert_eq!(route(&router, "e", "k"), []);
}

#[test]
fn an_exchange_on_the_way_has_its_own_alternate() {
    let mut router = Router::new();
    with_alternate(&mut router, "e", ExchangeKind::Direct, "amq.fanout");
    queue(&mut router, "q1");
    queue(&mut router, "q2");
    bind(&mut router, "amq.topic", to_exchange("e"), "#");
    bind(&mut router, "amq.topic", to_queue("q2"), "#");
    bind(&mut router, "amq.fanout", to_queue("q1"), "");
    assert_eq!(route(&router, "amq.topic", "k"), [1, 2]);
}

#[test]
fn alternates_in_a_circle_end() {
    let mut router = Router::new();
    with_alternate(&mut router, "e", ExchangeKind::Direct, "f");
    with_alternate(&mut router, "f", ExchangeKind::Direct, "e");
    with_alternate(&mut router, "own", ExchangeKind::Direct, "own");
    assert_eq!(route(&router, "e", "k"), []);
    assert_eq!(route(&router, "own", "k"), []);
}

#[test]
fn the_default_exchange_leads_nowhere_as_an_alternate() {
    let mut router = Router::new();
    with_alternate(&mut router, "e", ExchangeKind::Direct, "");
    queue(&mut router, "q1");
    assert_eq!(route(&router, "e", "q1"), []);
}

#[test]
fn many_exchanges_and_queues_at_once() {
    let mut router = Router::new();
    for id in 0..1000 {
        let name = ShortString::truncated(format!("n{id}").as_bytes());
        router.add_queue(&name, queue_ref(id));
        let mut definition = exchange("", ExchangeKind::Fanout);
        definition.name = name.clone();
        router.declare_exchange(definition).unwrap();
        for source in
            [ShortString::from("amq.fanout"), ShortString::truncated(format!("n{}", id / 2).as_bytes())]
        {
            let mut binding = binding("", Destination::Exchange(name.clone()), "");
            binding.source = source.clone();
            router.bind(binding.clone()).unwrap();
            binding.destination = Destination::Queue(name.clone());
            router.bind(binding).unwrap();
        }
    }
    assert_eq!(route(&router, "amq.fanout", ""), (0..1000).collect::<Vec<_>>());
}

/// Patterns that make a matcher with backtracking walk for ages.
#[test]
fn patterns_with_many_hashes_stay_fast() {
    let mut router = Router::new();
    queue(&mut router, "q1");
    queue(&mut router, "q2");
    let long = |word: &str, count: usize| vec![word; count].join(".");
    let mut bind = |pattern: String, name: &'static str| {
        let mut binding = binding("amq.topic", to_queue(name), "");
        binding.routing_key = ShortString::new(pattern.as_bytes()).unwrap();
        router.bind(binding).unwrap();
    };
    bind("#.#.#.#.a".to_owned(), "q1");
    bind(format!("{}.b", long("#", 120)), "q1");
    bind(format!("{}.b", long("#.a", 60)), "q1");
    bind(format!("{}.b", long("#.*", 60)), "q1");
    for count in 1..60 {
        bind(format!("{}.#.b.#", long("#.a.*", count.min(40))), "q1");
        bind(format!("{}.#.{}.c", long("*", count), long("a", count)), "q1");
    }
    bind(format!("{}.#", long("#.a", 60)), "q2");
    let key = long("a", 127);
    let started = Instant::now();
    for _ in 0..5 {
        assert_eq!(route(&router, "amq.topic", &key), [1, 2]);
        assert_eq!(route(&router, "amq.topic", &format!("{}.c", &key[2..])), [1, 2]);
    }
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
}
