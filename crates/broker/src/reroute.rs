//! Messages that are in the broker already and are routed once more.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use warren_amqp091_codec::{Dialect, OwnedProperties, Properties};
use warren_router::Routed;
use warren_types::session::RoutingContent;
use warren_types::{
    FieldTable, FieldValue, Marks, Message, MessageHead, MessageParts, QueueRef, ShortString,
};

use crate::vhost::Tables;

/// Keys that fall together wait for each other, no more.
const HASHER: FixedState = FixedState::with_seed(0);

/// Adds the queues that a message goes to if it comes to the exchange now. None if there is no such exchange, or the
/// message's properties cannot be read.
pub(crate) fn route(
    tables: &Tables,
    exchange: &[u8],
    message: &Message,
    queues: &mut Vec<QueueRef>,
) -> Option<()> {
    find(message, |keys, properties| tables.router.route(exchange, keys, properties, queues))
}

/// The same for a message that the exchange has held back.
pub(crate) fn route_behind_gate(
    tables: &Tables,
    exchange: &[u8],
    message: &Message,
    queues: &mut Vec<QueueRef>,
) -> Option<()> {
    find(message, |keys, properties| tables.router.route_behind_gate(exchange, keys, properties, queues))
}

fn find(message: &Message, route: impl FnOnce(&[&[u8]], &Properties<'_>) -> Option<Routed>) -> Option<()> {
    let properties = Properties::parse(message.properties()).ok()?;
    let keys = routing_keys(message, &RoutingContent::headers(&properties));
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).chain(message.each_blind_key()).collect();
    let routed = route(&keys, &properties)?;
    routed.histories.iter().for_each(|history| history.record(message.clone()));
    Some(())
}

/// The routing key and those in the header `CC`, unless they were for an earlier publish. Not those of `BCC`.
pub(crate) fn routing_keys(message: &Message, headers: &FieldTable) -> Vec<Vec<u8>> {
    let mut keys = vec![message.routing_key().to_vec()];
    if !message.marks().key_only
        && let Some(FieldValue::Array(copies)) = headers.get("CC")
    {
        keys.extend(copies.iter().filter_map(|key| key.as_long_string().map(<[u8]>::to_vec)));
    }
    keys
}

/// A hash of a message's value of a header, if it has one. It may be another after a restart.
pub(crate) fn header_hash(message: &Message, header: &ShortString) -> Option<u64> {
    let properties = Properties::parse(message.properties()).ok()?;
    let headers = RoutingContent::headers(&properties);
    let value = headers.get(&String::from_utf8_lossy(header.as_bytes()))?;
    // Numbers are the same whatever their width.
    Some(match (value.as_integer(), value.as_long_string()) {
        (Some(number), _) => HASHER.hash_one(number),
        (None, Some(text)) => HASHER.hash_one(text),
        (None, None) => HASHER.hash_one(format!("{value:?}")),
    })
}

/// The same message with other properties, and another time to live, in milliseconds.
pub(crate) fn with_properties(
    message: &Message,
    properties: &OwnedProperties,
    expiration_ms: Option<u64>,
) -> Message {
    let (exchange, routing_key) = (message.exchange(), message.routing_key());
    let (marks, blind_keys) = (message.marks(), message.blind_keys());
    let sent = Sent { exchange, routing_key, expiration_ms, marks, blind_keys };
    rewritten(message, properties, &sent)
}

/// How a message is published again.
pub(crate) struct Sent<'a> {
    pub exchange: &'a [u8],
    pub routing_key: &'a [u8],
    pub expiration_ms: Option<u64>,
    pub marks: Marks,
    pub blind_keys: &'a [u8],
}

/// The same body in a message that is published again.
pub(crate) fn rewritten(message: &Message, properties: &OwnedProperties, sent: &Sent<'_>) -> Message {
    let mut encoded = Vec::new();
    properties.encode(Dialect::Amqp091, &mut encoded);
    let parts = MessageParts {
        exchange: sent.exchange,
        routing_key: sent.routing_key,
        properties: &encoded,
        persistent: message.is_persistent(),
        priority: message.priority(),
        expiration_ms: sent.expiration_ms,
        marks: sent.marks,
        blind_keys: sent.blind_keys,
    };
    match message.large_body() {
        Some(body) => MessageHead::of(&parts).message_with(body.clone()),
        None => Message::new(&parts, message.small_body()),
    }
}
