//! Delayed messages (features.md E7): each waits in a queue of its exchange, and is routed when it is due.

use warren_amqp091_codec::{OwnedProperties, Properties};
use warren_router as router;
use warren_types::session::RoutingContent;
use warren_types::{FieldTable, FieldValue, Message, QueueRef};

use crate::reroute::{self, with_properties};
use crate::vhost::Vhost;

/// How long a message waits, in milliseconds.
pub(crate) fn delay_ms(message: &Message) -> u64 {
    let properties = Properties::parse(message.properties()).ok();
    properties.and_then(|properties| router::delay_ms(&RoutingContent::headers(&properties))).unwrap_or(0)
}

/// The message of a delayed exchange that is due, and the queues it goes to. Its own expiration begins to count now,
/// and its header turns negative, as clients of RabbitMQ's plugin know it.
pub(crate) fn route_due(
    message: &Message,
    exchange: &[u8],
    vhost: &Vhost,
) -> Option<(Message, Vec<QueueRef>)> {
    let properties = Properties::parse(message.properties()).ok()?;
    let mut owned: OwnedProperties = properties.to_owned();
    negate_delay(owned.headers.get_or_insert_default());
    let message = with_properties(message, &owned, message.expiration_ms());
    let mut queues = Vec::new();
    reroute::route_behind_gate(&vhost.read(), exchange, &message, &mut queues)?;
    Some((message, queues))
}

fn negate_delay(headers: &mut FieldTable) {
    for (_, value) in headers.0.iter_mut().filter(|(name, _)| *name == *router::DELAY) {
        if let Some(delay) = value.as_integer().filter(|delay| *delay > 0) {
            *value = FieldValue::I64(-delay);
        }
    }
}
