//! The kinds of exchange beyond the specification's: features.md E1 to E5.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{bind, binding, declare, exchange, queue_ref, route, route_keys, to_exchange, to_queue};
use proptest::collection::vec;
use proptest::prelude::*;
use warren_router::{
    ALTERNATE_EXCHANGE, BindError, Binding, Bound, Declared, Destination, ExchangeDefinition, ExchangeKind,
    InvalidArgument, Router,
};
use warren_types::session::{HashProperty, RoutingContent};
use warren_types::{FieldTable, FieldValue, Message, MessageParts, ShortString};

fn name(text: &str) -> ShortString {
    ShortString::new(text.as_bytes()).expect("names in this file are short")
}

/// Adds the queue `q<id>`.
fn add_queue(router: &mut Router, id: u64) {
    router.add_queue(&name(&format!("q{id}")), queue_ref(id));
}

fn to(id: u64, key: &str) -> Binding {
    Binding {
        source: name("e"),
        destination: Destination::Queue(name(&format!("q{id}"))),
        routing_key: name(key),
        arguments: FieldTable::new(),
    }
}

fn with(name: &'static str, kind: ExchangeKind, arguments: &[(&str, &str)]) -> ExchangeDefinition {
    let mut definition = exchange(name, kind);
    for (name, value) in arguments {
        definition.arguments.insert(name, FieldValue::string(value));
    }
    definition
}

/// A router with the exchange `e`, bound to queues with these ids and binding keys.
fn router(kind: ExchangeKind, bindings: &[(u64, &str)]) -> Router {
    let mut router = Router::new();
    declare(&mut router, "e", kind);
    for (id, key) in bindings {
        add_queue(&mut router, *id);
        assert_eq!(router.bind(to(*id, key)), Ok(Bound::New));
    }
    router
}

/// The one queue of each of many keys.
fn placement(router: &Router) -> Vec<u64> {
    (0..20_000)
        .map(|number| match route(router, "e", &format!("key-{number}"))[..] {
            [queue] => queue,
            ref queues => panic!("{queues:?}"),
        })
        .collect()
}

fn counts(placement: &[u64]) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    placement.iter().for_each(|queue| *counts.entry(*queue).or_default() += 1);
    counts
}

struct Content {
    headers: FieldTable,
    properties: Vec<(HashProperty, FieldValue)>,
}

impl RoutingContent for Content {
    fn headers(&self) -> FieldTable {
        self.headers.clone()
    }

    fn property(&self, property: HashProperty) -> Option<FieldValue> {
        self.properties.iter().find(|(known, _)| *known == property).map(|(_, value)| value.clone())
    }
}

fn headers(entries: &[(&str, FieldValue)]) -> Content {
    let mut headers = FieldTable::new();
    entries.iter().for_each(|(name, value)| headers.insert(name, value.clone()));
    Content { headers, properties: Vec::new() }
}

fn route_content(router: &Router, exchange: &str, key: &str, content: &Content) -> Vec<u64> {
    let mut out = Vec::new();
    router.route(exchange.as_bytes(), &[key.as_bytes()], content, &mut out).expect("the exchange exists");
    let mut ids: Vec<_> = out.iter().map(|queue| queue.id.0).collect();
    ids.sort_unstable();
    ids
}

// ---- consistent hash -------------------------------------------------------------------------------------

#[test]
fn e1_each_queue_gets_the_share_of_its_weight() {
    let router = router(ExchangeKind::ConsistentHash, &[(1, "1"), (2, "1"), (3, "2"), (4, "6"), (5, "10")]);
    let counts = counts(&placement(&router));
    for (queue, weight) in [(1, 1), (2, 1), (3, 2), (4, 6), (5, 10)] {
        let expected = weight * 1000;
        let found = counts[&queue];
        assert!(found.abs_diff(expected) < 100 + expected / 20, "queue {queue}: {found} of {expected}");
    }
}

#[test]
fn e1_only_what_a_binding_wins_or_loses_moves() {
    let mut router = router(ExchangeKind::ConsistentHash, &[(1, "2"), (2, "3"), (3, "5")]);
    let before = placement(&router);
    add_queue(&mut router, 4);
    router.bind(to(4, "5")).unwrap();
    let more = placement(&router);
    for (old, new) in before.iter().zip(&more) {
        assert!(old == new || *new == 4);
    }
    assert!(counts(&more)[&4] > 5000);
    // Back as it was.
    router.unbind(&to(4, "5")).unwrap();
    assert_eq!(placement(&router), before);
    // One that was not the last to come goes.
    router.remove_queue(b"q1");
    let less = placement(&router);
    for (old, new) in before.iter().zip(&less) {
        assert!(old == new || *old == 1);
    }
    // A greater weight wins keys and loses none.
    router.unbind(&to(2, "3")).unwrap();
    router.bind(to(2, "9")).unwrap();
    for (old, new) in less.iter().zip(&placement(&router)) {
        assert!(old == new || *new == 2);
    }
}

#[test]
fn e1_placement_is_fixed_for_ever() {
    // As another implementation computed them: should one change, keys would move to other queues with an update.
    let router = router(ExchangeKind::ConsistentHash, &[(1, "1"), (2, "1"), (3, "2"), (4, "4")]);
    let found: Vec<_> = ["", "a", "b", "c", "orders.1", "orders.2", "user-17"]
        .map(|key| route(&router, "e", key)[0])
        .to_vec();
    assert_eq!(found, [2, 4, 3, 3, 4, 1, 3]);
}

#[test]
fn e1_a_queue_bound_again_counts_once_with_the_least_weight() {
    let mut router = router(ExchangeKind::ConsistentHash, &[(1, "5"), (2, "5")]);
    let before = placement(&router);
    router.bind(to(1, "50")).unwrap();
    router.bind(to(1, "500")).unwrap();
    assert_eq!(placement(&router), before);
    router.unbind(&to(1, "5")).unwrap();
    assert!(counts(&placement(&router))[&1] > 17_000);
    router.unbind(&to(1, "500")).unwrap();
    router.unbind(&to(1, "50")).unwrap();
    assert_eq!(counts(&placement(&router)).len(), 1);
    router.unbind(&to(2, "5")).unwrap();
    assert_eq!(route(&router, "e", "k"), []);
}

#[test]
fn e1_weights_are_checked() {
    let mut router = router(ExchangeKind::ConsistentHash, &[]);
    add_queue(&mut router, 1);
    let cases = [
        ("0", "The binding key must be greater than 0"),
        ("-7", "The binding key must be greater than 0"),
        ("10001", "The binding key must not exceed 10000"),
        ("heavy", "The binding key must be an integer: <<\"heavy\">>"),
        ("", "The binding key must be an integer: <<>>"),
    ];
    for (key, text) in cases {
        match router.bind(to(1, key)) {
            Err(BindError::InvalidArgument(error)) => assert_eq!(error.to_string(), text),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(router.bindings().count(), 0);
}

#[test]
fn e1_headers_and_properties_are_hashed_instead_of_the_key() {
    let mut router = Router::new();
    router.declare_exchange(with("h", ExchangeKind::ConsistentHash, &[("hash-header", "user")])).unwrap();
    router.declare_exchange(with("o", ExchangeKind::ConsistentHash, &[("x-hash-on", "user")])).unwrap();
    let properties = [
        ("correlation_id", HashProperty::CorrelationId),
        ("message_id", HashProperty::MessageId),
        ("timestamp", HashProperty::Timestamp),
    ];
    for (name, _) in properties {
        let arguments = [("hash-property", name)];
        router.declare_exchange(with(name, ExchangeKind::ConsistentHash, &arguments)).unwrap();
    }
    for id in 1..=8 {
        add_queue(&mut router, id);
        for source in ["h", "o", "correlation_id", "message_id", "timestamp"] {
            let binding = Binding { source: name(source), ..to(id, "1") };
            router.bind(binding).unwrap();
        }
    }
    let by_header = |exchange: &str, key: &str, user: FieldValue| {
        route_content(&router, exchange, key, &headers(&[("user", user)]))
    };
    let mut used = BTreeSet::new();
    for number in 0..200 {
        let user = FieldValue::string(&format!("u{number}"));
        let found = by_header("h", "a", user.clone());
        assert_eq!(found.len(), 1);
        assert_eq!(found, by_header("h", "b", user.clone()));
        assert_eq!(found, by_header("o", "", user));
        used.extend(found);
        let integer = by_header("h", "a", FieldValue::I32(number));
        assert_eq!(integer, by_header("h", "a", FieldValue::I64(number.into())));
    }
    assert_eq!(used.len(), 8);
    // All that lack the header go to one queue, whatever their keys.
    let without: BTreeSet<_> =
        (0..50).map(|n| route_content(&router, "h", &n.to_string(), &headers(&[]))).collect();
    assert_eq!(without.len(), 1);
    for (name, property) in properties {
        let mut used = BTreeSet::new();
        for number in 0..200 {
            let value = match property {
                HashProperty::Timestamp => FieldValue::Timestamp(number),
                _ => FieldValue::string(&number.to_string()),
            };
            let content = Content { headers: FieldTable::new(), properties: vec![(property, value)] };
            let found = route_content(&router, name, "a", &content);
            assert_eq!(found, route_content(&router, name, "b", &content));
            used.extend(found);
        }
        assert_eq!(used.len(), 8, "{name}");
    }
}

#[test]
fn e1_only_routes_by_key_may_be_remembered() {
    let mut router = Router::new();
    router.declare_exchange(with("k", ExchangeKind::ConsistentHash, &[])).unwrap();
    router.declare_exchange(with("h", ExchangeKind::ConsistentHash, &[("hash-header", "h")])).unwrap();
    router
        .declare_exchange(with("p", ExchangeKind::ConsistentHash, &[("hash-property", "message_id")]))
        .unwrap();
    for kind in ["x-modulus-hash", "x-random", "x-local-random", "x-recent-history", "x-jms-topic"] {
        let definition = ExchangeDefinition {
            name: name(kind),
            ..exchange("", ExchangeKind::parse(kind.as_bytes()).unwrap())
        };
        router.declare_exchange(definition).unwrap();
    }
    for (name, cacheable) in [
        ("k", true),
        ("x-modulus-hash", true),
        ("h", false),
        ("p", false),
        ("x-random", false),
        ("x-local-random", false),
        ("x-recent-history", false),
        ("x-jms-topic", false),
    ] {
        let routed = router.route(name.as_bytes(), &[b"k"], &FieldTable::new, &mut Vec::new()).unwrap();
        assert_eq!(routed.cacheable, cacheable, "{name}");
    }
}

#[test]
fn e1_an_exchange_can_be_the_one_destination() {
    let mut router = router(ExchangeKind::ConsistentHash, &[]);
    declare(&mut router, "f", ExchangeKind::Fanout);
    for id in 1..=2 {
        add_queue(&mut router, id);
        router.bind(Binding { source: name("f"), ..to(id, "") }).unwrap();
    }
    bind(&mut router, "e", to_exchange("f"), "1");
    assert_eq!(route(&router, "e", "k"), [1, 2]);
    // The first key decides alone.
    assert_eq!(route_keys(&router, "e", &[b"k", b"l", b"m"]), [1, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What is left of bindings says where keys go, and neither their order nor what was there before.
    #[test]
    fn e1_e2_history_does_not_count(
        steps in vec((1..8_u64, 1..4_u16, any::<bool>()), 1..40),
        hash in any::<bool>(),
    ) {
        let kind = if hash { ExchangeKind::ConsistentHash } else { ExchangeKind::ModulusHash };
        let mut router = router(kind, &[]);
        let mut left = BTreeSet::new();
        for (queue, weight, adds) in steps {
            add_queue(&mut router, queue);
            let binding = to(queue, &weight.to_string());
            if adds {
                router.bind(binding).unwrap();
                left.insert((queue, weight));
            } else {
                router.unbind(&binding).unwrap();
                left.remove(&(queue, weight));
            }
        }
        let mut again = Router::new();
        declare(&mut again, "e", kind);
        for (queue, weight) in left.iter().rev() {
            add_queue(&mut again, *queue);
            again.bind(to(*queue, &weight.to_string())).unwrap();
        }
        for key in 0..50 {
            let found = route(&router, "e", &key.to_string());
            prop_assert_eq!(found.len(), usize::from(!left.is_empty()));
            prop_assert_eq!(found, route(&again, "e", &key.to_string()));
        }
    }
}

// ---- modulus hash ----------------------------------------------------------------------------------------

#[test]
fn e2_bindings_share_the_keys_evenly() {
    let mut router = router(ExchangeKind::ModulusHash, &[(1, ""), (2, ""), (3, ""), (4, "")]);
    let before = placement(&router);
    for (queue, count) in counts(&before) {
        assert!(count.abs_diff(5000) < 300, "queue {queue}: {count}");
    }
    assert_eq!(before[..12], [4, 3, 1, 1, 4, 3, 4, 2, 2, 3, 4, 4]);
    // A second binding of a queue is one more share.
    router.bind(to(1, "again")).unwrap();
    let counts = counts(&placement(&router));
    assert!(counts[&1].abs_diff(8000) < 300, "{counts:?}");
    router.unbind(&to(1, "again")).unwrap();
    assert_eq!(placement(&router), before);
    (1..=4).for_each(|id| drop(router.unbind(&to(id, "")).unwrap()));
    assert_eq!(route(&router, "e", "k"), []);
}

// ---- chance ----------------------------------------------------------------------------------------------

#[test]
fn e3_each_binding_is_as_likely() {
    let mut router = router(ExchangeKind::Random, &[(1, ""), (2, "x"), (3, "y")]);
    router.bind(to(3, "z")).unwrap();
    let counts = counts(&placement(&router));
    for (queue, share) in [(1, 5000), (2, 5000), (3, 10_000)] {
        assert!(counts[&queue].abs_diff(share) < 400, "{counts:?}");
    }
    // The same key is not bound to one queue.
    let of_one_key: BTreeSet<_> = (0..100).flat_map(|_| route(&router, "e", "k")).collect();
    assert_eq!(of_one_key.len(), 3);
    (1..=2).for_each(|id| drop(router.remove_queue(format!("q{id}").as_bytes())));
    assert_eq!(route(&router, "e", "k"), [3]);
    router.remove_queue(b"q3");
    assert_eq!(route(&router, "e", "k"), []);
}

#[test]
fn e3_a_local_random_exchange_takes_queues_without_keys_only() {
    let mut router = router(ExchangeKind::LocalRandom, &[(1, ""), (2, "")]);
    declare(&mut router, "f", ExchangeKind::Fanout);
    let error = |binding: Binding, router: &mut Router| match router.bind(binding) {
        Err(BindError::InvalidArgument(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(error(to(1, "k"), &mut router), "Non empty binding 'k' key not permitted");
    assert_eq!(error(binding("e", to_exchange("f"), ""), &mut router), "Destination not found");
    let counts = counts(&placement(&router));
    assert!(counts[&1].abs_diff(10_000) < 500, "{counts:?}");
    // What is published with a key goes nowhere else.
    assert_eq!(counts.len(), 2);
    let empty = with("l", ExchangeKind::LocalRandom, &[(ALTERNATE_EXCHANGE, "f")]);
    router.declare_exchange(empty).unwrap();
    bind(&mut router, "f", to_queue("q1"), "");
    assert_eq!(route(&router, "l", ""), [1]);
}

// ---- recent history --------------------------------------------------------------------------------------

#[test]
fn e4_routing_names_the_histories_it_met() {
    let mut router = Router::new();
    for name in ["e", "h"] {
        declare(&mut router, name, ExchangeKind::RecentHistory);
    }
    declare(&mut router, "f", ExchangeKind::Fanout);
    bind(&mut router, "f", to_exchange("h"), "");
    bind(&mut router, "f", to_exchange("e"), "");
    add_queue(&mut router, 1);
    router.bind(to(1, "any")).unwrap();
    let history = |name: &str| router.history(name.as_bytes()).unwrap();
    let mut out = Vec::new();
    let routed = router.route(b"f", &[b"k"], &FieldTable::new, &mut out).unwrap();
    assert_eq!(out, [queue_ref(1)]);
    assert_eq!(routed.histories.len(), 2);
    assert!(routed.histories.contains(history("e")) && routed.histories.contains(history("h")));
    for (value, stored) in [
        (FieldValue::Bool(true), false),
        (FieldValue::Bool(false), true),
        (FieldValue::string("true"), true),
        (FieldValue::I32(1), true),
    ] {
        let content = headers(&[("x-recent-history-no-store", value)]);
        let routed = router.route(b"e", &[b"k"], &content, &mut Vec::new()).unwrap();
        assert_eq!(!routed.histories.is_empty(), stored);
    }
    assert_eq!(router.history(b"f"), None);
    assert_eq!(router.history(b"missing"), None);
}

#[test]
fn e4_the_length_is_that_of_the_arguments() {
    let mut router = Router::new();
    for (name, length) in [("d", None), ("l", Some(3))] {
        let mut definition = exchange(name, ExchangeKind::RecentHistory);
        if let Some(length) = length {
            definition.arguments.insert("x-recent-history-length", FieldValue::I32(length));
        }
        assert_eq!(definition.check_arguments(), Ok(()));
        router.declare_exchange(definition).unwrap();
        let history = router.history(name.as_bytes()).unwrap();
        for _ in 0..100 {
            history.record(Message::new(&MessageParts::default(), b""));
        }
        assert_eq!(history.messages().len(), length.map_or(20, |length| length as usize));
    }
    // It goes with the exchange.
    router.delete_exchange(b"l", false).unwrap();
    declare(&mut router, "l", ExchangeKind::RecentHistory);
    assert!(router.history(b"l").unwrap().messages().is_empty());
}

// ---- JMS topic -------------------------------------------------------------------------------------------

fn selecting(id: u64, key: &str, selector: &str) -> Binding {
    let mut binding = to(id, key);
    binding.arguments.insert("rjms_erlang_selector", FieldValue::string(selector));
    binding
}

#[test]
fn e5_selectors_choose_by_headers() {
    let mut router = router(ExchangeKind::JmsTopic, &[]);
    (1..=3).for_each(|id| add_queue(&mut router, id));
    router.bind(selecting(1, "a", "{'=',{'ident',<<\"colour\">>},<<\"blue\">>}.")).unwrap();
    router.bind(selecting(2, "b", "{'>',{'ident',<<\"weight\">>},10}.")).unwrap();
    router.bind(selecting(3, "a", "{'not',{'=',{'ident',<<\"colour\">>},<<\"blue\">>}}.")).unwrap();
    let blue = ("colour", FieldValue::string("blue"));
    let red = ("colour", FieldValue::string("red"));
    let heavy = ("weight", FieldValue::I16(11));
    for (content, expected) in [
        (vec![], &[][..]),
        (vec![blue.clone()], &[1]),
        (vec![red.clone()], &[3]),
        (vec![heavy.clone()], &[2]),
        (vec![blue, heavy.clone()], &[1, 2]),
        (vec![red, heavy], &[2, 3]),
    ] {
        // Routing keys say nothing.
        for key in ["a", "z"] {
            assert_eq!(route_content(&router, "e", key, &headers(&content)), expected);
        }
    }
    // Two bindings to one queue that differ in their selectors stand and go for themselves.
    router.bind(selecting(1, "a", "true.")).unwrap();
    assert_eq!(route(&router, "e", ""), [1]);
    router.unbind(&selecting(1, "a", "true.")).unwrap();
    assert_eq!(route(&router, "e", ""), []);
}

#[test]
fn e5_what_is_no_selector_is_refused() {
    let mut router = router(ExchangeKind::JmsTopic, &[]);
    add_queue(&mut router, 1);
    for (binding, text) in [
        (to(1, ""), "cannot parse selector 'error' binding destination 'q1' to exchange 'e'"),
        (selecting(1, "", "{'and'"), "invalid JMS selector: expected_comma_or_closing_brace"),
    ] {
        match router.bind(binding) {
            Err(BindError::InvalidArgument(error)) => assert_eq!(error.to_string(), text),
            other => panic!("{other:?}"),
        }
    }
    let mut integer = to(1, "");
    integer.arguments.insert("rjms_erlang_selector", FieldValue::I32(1));
    let refused = router.bind(integer);
    assert!(matches!(refused, Err(BindError::InvalidArgument(InvalidArgument::NoSelector { .. }))));
    assert_eq!(router.bindings().count(), 0);
}

// ---- alternate exchanges by policy -----------------------------------------------------------------------

#[test]
fn m34_a_policy_gives_an_alternate_exchange_where_arguments_do_not() {
    let mut router = Router::new();
    for id in 1..=2 {
        add_queue(&mut router, id);
    }
    for (exchange, queue) in [("a", "q1"), ("b", "q2")] {
        declare(&mut router, exchange, ExchangeKind::Fanout);
        bind(&mut router, exchange, to_queue(queue), "");
    }
    declare(&mut router, "plain", ExchangeKind::Direct);
    let own = with("own", ExchangeKind::Direct, &[(ALTERNATE_EXCHANGE, "a")]);
    assert_eq!(router.declare_exchange(own.clone()), Ok(Declared::New));
    assert!(router.set_alternate(b"plain", Some(name("b"))));
    assert!(router.set_alternate(b"own", Some(name("b"))));
    assert!(router.set_alternate(b"amq.direct", Some(name("b"))));
    assert!(!router.set_alternate(b"missing", Some(name("b"))));
    assert_eq!(route(&router, "plain", "k"), [2]);
    assert_eq!(route(&router, "amq.direct", "k"), [2]);
    assert_eq!(route(&router, "own", "k"), [1], "arguments win");
    assert_eq!(router.alternate(b"plain"), Some(&name("b")));
    assert_eq!(router.alternate(b"own"), Some(&name("a")));
    // It is no part of the definition: declaring again is equivalent.
    assert_eq!(router.declare_exchange(exchange("plain", ExchangeKind::Direct)), Ok(Declared::Existing));
    assert_eq!(router.declare_exchange(own), Ok(Declared::Existing));
    assert_eq!(router.exchange(b"plain").unwrap().alternate_exchange(), None);
    // Other policy, missing exchange, no policy.
    router.set_alternate(b"plain", Some(name("a")));
    assert_eq!(route(&router, "plain", "k"), [1]);
    router.set_alternate(b"plain", Some(name("missing")));
    assert_eq!(route(&router, "plain", "k"), []);
    router.set_alternate(b"plain", None);
    router.set_alternate(b"own", None);
    assert_eq!(route(&router, "plain", "k"), []);
    assert_eq!(route(&router, "own", "k"), [1]);
    assert_eq!(router.alternate(b"plain"), None);
}
