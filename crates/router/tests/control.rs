//! Declaring, deleting, binding and unbinding.

mod common;

use common::{bind, binding, declare, exchange, queue, queue_ref, to_exchange, to_queue};
use warren_router::{
    ALTERNATE_EXCHANGE, BindError, Bound, Declared, DeleteExchangeError, ExchangeKind, InvalidArgument,
    Router, UnbindError,
};
use warren_types::{FieldTable, FieldValue, ShortString};

#[test]
fn a_virtual_host_starts_with_the_exchanges_of_the_specification() {
    let router = Router::new();
    let mut found: Vec<_> = router
        .exchanges()
        .map(|e| (e.name.to_string(), e.kind.name(), e.durable, e.auto_delete, e.internal))
        .collect();
    found.sort_unstable();
    let expected = [
        ("", "direct", false),
        ("amq.direct", "direct", false),
        ("amq.fanout", "fanout", false),
        ("amq.headers", "headers", false),
        ("amq.match", "headers", false),
        ("amq.rabbitmq.trace", "topic", true),
        ("amq.topic", "topic", false),
    ];
    let expected = expected.map(|(name, kind, internal)| (name.to_owned(), kind, true, false, internal));
    assert_eq!(found, expected);
}

#[test]
fn declaring_again_checks_equivalence() {
    let mut router = Router::new();
    assert_eq!(router.declare_exchange(exchange("e", ExchangeKind::Topic)), Ok(Declared::New));
    assert_eq!(router.declare_exchange(exchange("e", ExchangeKind::Topic)), Ok(Declared::Existing));
    let error = router.declare_exchange(exchange("e", ExchangeKind::Fanout)).unwrap_err();
    assert_eq!(error.argument, "type");
    assert_eq!(router.exchange(b"e").map(|e| e.kind), Some(ExchangeKind::Topic));
}

#[test]
fn the_default_exchange_stays_as_it_is() {
    let mut router = Router::new();
    queue(&mut router, "q");
    assert!(router.declare_exchange(exchange("", ExchangeKind::Fanout)).is_err());
    assert_eq!(router.delete_exchange(b"", false), Err(DeleteExchangeError::DefaultExchange));
    for binding in [binding("", to_queue("q"), "k"), binding("amq.topic", to_exchange(""), "k")] {
        assert_eq!(router.bind(binding.clone()), Err(BindError::DefaultExchange));
        assert_eq!(router.unbind(&binding), Err(UnbindError::DefaultExchange));
    }
}

#[test]
fn both_ends_of_a_binding_must_exist() {
    let mut router = Router::new();
    queue(&mut router, "q");
    let cases = [
        (binding("missing", to_queue("q"), ""), BindError::NoSource),
        (binding("missing", to_queue("missing"), ""), BindError::NoSource),
        (binding("amq.topic", to_queue("missing"), ""), BindError::NoDestination),
        (binding("amq.topic", to_exchange("q"), ""), BindError::NoDestination),
    ];
    for (binding, error) in cases {
        assert_eq!(router.bind(binding.clone()), Err(error));
        assert_eq!(router.unbind(&binding), Ok(Default::default()));
    }
}

#[test]
fn only_headers_exchanges_mind_the_match_rule() {
    let mut router = Router::new();
    queue(&mut router, "q");
    let mut bad = binding("amq.match", to_queue("q"), "");
    bad.arguments.insert("x-match", FieldValue::string("none"));
    let error = InvalidArgument::MatchValue(b"none".to_vec());
    assert_eq!(router.bind(bad.clone()), Err(BindError::InvalidArgument(error)));
    bad.source = ShortString::from("amq.topic");
    assert_eq!(router.bind(bad), Ok(Bound::New));
}

#[test]
fn all_four_fields_are_the_identity_of_a_binding() {
    let mut router = Router::new();
    queue(&mut router, "q");
    declare(&mut router, "q", ExchangeKind::Fanout);
    let mut with_arguments = binding("amq.topic", to_queue("q"), "k");
    with_arguments.arguments.insert("b", FieldValue::I32(1));
    with_arguments.arguments.insert("a", FieldValue::I32(1));
    let mut same = with_arguments.clone();
    same.arguments.0.reverse();
    let mut other_type = with_arguments.clone();
    other_type.arguments.0[0].1 = FieldValue::I64(1);
    let different = [
        binding("amq.topic", to_queue("q"), "k"),
        binding("amq.direct", to_queue("q"), "k"),
        binding("amq.topic", to_exchange("q"), "k"),
        binding("amq.topic", to_queue("q"), "K"),
        with_arguments,
        other_type,
    ];
    for binding in &different {
        assert_eq!(router.bind(binding.clone()), Ok(Bound::New));
        assert_eq!(router.bind(binding.clone()), Ok(Bound::Existing));
    }
    assert_eq!(router.bind(same.clone()), Ok(Bound::Existing));
    assert_eq!(router.bindings().count(), different.len());
    assert_eq!(router.unbind(&same).unwrap().bindings, [same]);
    assert_eq!(router.bindings().count(), different.len() - 1);
}

#[test]
fn bindings_are_listed_by_either_end_oldest_first() {
    let mut router = Router::new();
    queue(&mut router, "q");
    queue(&mut router, "r");
    for (key, name) in [("1", "q"), ("2", "r"), ("3", "q")] {
        bind(&mut router, "amq.topic", to_queue(name), key);
    }
    bind(&mut router, "amq.direct", to_queue("q"), "4");
    let keys = |bindings: Vec<&warren_router::Binding>| {
        bindings.iter().map(|binding| binding.routing_key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys(router.bindings_from(b"amq.topic").collect()), ["1", "2", "3"]);
    assert_eq!(keys(router.bindings_to(&to_queue("q")).collect()), ["1", "3", "4"]);
    assert_eq!(router.bindings_from(b"missing").count(), 0);
    assert_eq!(router.bindings_to(&to_exchange("q")).count(), 0);
}

#[test]
fn an_exchange_in_use_is_the_source_of_a_binding() {
    let mut router = Router::new();
    declare(&mut router, "a", ExchangeKind::Fanout);
    declare(&mut router, "b", ExchangeKind::Fanout);
    bind(&mut router, "a", to_exchange("b"), "");
    assert_eq!(router.delete_exchange(b"a", true), Err(DeleteExchangeError::InUse));
    let removed = router.delete_exchange(b"b", true).unwrap();
    assert_eq!(removed.bindings, [binding("a", to_exchange("b"), "")]);
    assert_eq!(router.delete_exchange(b"b", true), Err(DeleteExchangeError::NotFound));
    assert_eq!(router.delete_exchange(b"a", true).map(|removed| removed.is_empty()), Ok(true));
}

#[test]
fn auto_delete_goes_up_the_chain_in_order() {
    let mut router = Router::new();
    for name in ["a", "b", "c"] {
        let mut definition = exchange(name, ExchangeKind::Fanout);
        definition.auto_delete = name != "a";
        router.declare_exchange(definition).unwrap();
    }
    queue(&mut router, "q");
    bind(&mut router, "a", to_exchange("b"), "");
    bind(&mut router, "b", to_exchange("c"), "");
    bind(&mut router, "c", to_queue("q"), "");
    let removed = router.remove_queue(b"q");
    let expected = [
        binding("c", to_queue("q"), ""),
        binding("b", to_exchange("c"), ""),
        binding("a", to_exchange("b"), ""),
    ];
    assert_eq!(removed.bindings, expected);
    assert_eq!(removed.exchanges.iter().map(|e| e.name.to_string()).collect::<Vec<_>>(), ["c", "b"]);
    assert!(router.exchange(b"a").is_some());
}

#[test]
fn auto_delete_needs_a_binding_to_lose() {
    let mut router = Router::new();
    let mut definition = exchange("e", ExchangeKind::Direct);
    definition.auto_delete = true;
    router.declare_exchange(definition).unwrap();
    queue(&mut router, "q");
    assert!(router.unbind(&binding("e", to_queue("q"), "k")).unwrap().is_empty());
    assert!(router.remove_queue(b"q").is_empty());
    assert!(router.exchange(b"e").is_some());
    queue(&mut router, "q");
    bind(&mut router, "e", to_queue("q"), "k");
    bind(&mut router, "e", to_queue("q"), "l");
    assert_eq!(router.unbind(&binding("e", to_queue("q"), "k")).unwrap().exchanges, []);
    assert_eq!(router.unbind(&binding("e", to_queue("q"), "l")).unwrap().exchanges.len(), 1);
}

#[test]
fn an_exchange_bound_to_itself_can_go() {
    let mut router = Router::new();
    let mut definition = exchange("e", ExchangeKind::Fanout);
    definition.auto_delete = true;
    router.declare_exchange(definition).unwrap();
    bind(&mut router, "e", to_exchange("e"), "");
    assert_eq!(router.delete_exchange(b"e", false).unwrap().exchanges, []);
    assert_eq!(router.bindings().count(), 0);
}

#[test]
fn a_queue_that_comes_back_has_no_bindings_but_a_replaced_one_keeps_them() {
    let mut router = Router::new();
    queue(&mut router, "q");
    bind(&mut router, "amq.topic", to_queue("q"), "k");
    router.add_queue(&ShortString::from("q"), queue_ref(77));
    assert_eq!(router.queue(b"q"), Some(queue_ref(77)));
    assert_eq!(common::route(&router, "amq.topic", "k"), [77]);
    assert_eq!(router.remove_queue(b"q").bindings.len(), 1);
    assert_eq!(router.queue(b"q"), None);
    queue(&mut router, "q");
    assert!(common::route(&router, "amq.topic", "k").is_empty());
}

#[test]
fn an_alternate_exchange_must_be_a_long_string_to_count() {
    let mut definition = exchange("e", ExchangeKind::Fanout);
    assert_eq!(definition.alternate_exchange(), None);
    definition.arguments.insert(ALTERNATE_EXCHANGE, FieldValue::string("ae"));
    assert_eq!(definition.alternate_exchange(), Some(ShortString::from("ae")));
    definition.arguments = FieldTable::new();
    definition.arguments.insert(ALTERNATE_EXCHANGE, FieldValue::I32(1));
    assert_eq!(definition.alternate_exchange(), None);
    definition.arguments = FieldTable::new();
    definition.arguments.insert(ALTERNATE_EXCHANGE, FieldValue::LongString(vec![b'a'; 256]));
    assert_eq!(definition.alternate_exchange(), None);
}
