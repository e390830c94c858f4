//! Short ways to build a router and to ask it.
#![allow(dead_code, reason = "each test file uses some of these")]

use warren_router::{Binding, Bound, Declared, Destination, ExchangeDefinition, ExchangeKind, Router};
use warren_types::{FieldTable, QueueId, QueueRef, ShortString};

pub fn queue_ref(id: u64) -> QueueRef {
    QueueRef { id: QueueId(id), shard: 0, slot: 0 }
}

pub fn exchange(name: &'static str, kind: ExchangeKind) -> ExchangeDefinition {
    let name = ShortString::from(name);
    ExchangeDefinition {
        name,
        kind,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: FieldTable::new(),
    }
}

pub fn declare(router: &mut Router, name: &'static str, kind: ExchangeKind) {
    assert_eq!(router.declare_exchange(exchange(name, kind)), Ok(Declared::New));
}

/// Adds a queue whose id is the number after the first letter of its name, or 0.
pub fn queue(router: &mut Router, name: &'static str) {
    router.add_queue(&ShortString::from(name), queue_ref(name[1..].parse().unwrap_or(0)));
}

pub fn to_queue(name: &'static str) -> Destination {
    Destination::Queue(ShortString::from(name))
}

pub fn to_exchange(name: &'static str) -> Destination {
    Destination::Exchange(ShortString::from(name))
}

pub fn binding(source: &'static str, destination: Destination, key: &'static str) -> Binding {
    let (source, routing_key) = (ShortString::from(source), ShortString::from(key));
    Binding { source, destination, routing_key, arguments: FieldTable::new() }
}

pub fn bind(router: &mut Router, source: &'static str, destination: Destination, key: &'static str) {
    assert_eq!(router.bind(binding(source, destination, key)), Ok(Bound::New));
}

/// Ids of the queues that a message without headers goes to, in order.
pub fn route(router: &Router, exchange: &str, key: &str) -> Vec<u64> {
    route_keys(router, exchange, &[key.as_bytes()])
}

pub fn route_keys(router: &Router, exchange: &str, keys: &[&[u8]]) -> Vec<u64> {
    let mut out = Vec::new();
    router.route(exchange.as_bytes(), keys, &FieldTable::new, &mut out).expect("the exchange exists");
    let mut ids: Vec<_> = out.iter().map(|queue| queue.id.0).collect();
    ids.sort_unstable();
    ids
}
