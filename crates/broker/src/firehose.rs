//! The firehose (features.md R5): copies of what is published and delivered in a virtual host, for who must find out what
//! happens there.

use warren_amqp091_codec::{OwnedProperties, Properties};
use warren_types::{FieldTable, FieldValue, Message, ShortString};

use crate::system_exchange::own_message;

/// The exchange that every virtual host has for it.
pub(crate) const TRACE_EXCHANGE: &[u8] = b"amq.rabbitmq.trace";

/// Where a message is seen.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seen<'a> {
    /// On its way in: the routing keys, and the names of the queues that it goes to.
    Published { routing_keys: &'a [&'a [u8]], queues: &'a [ShortString] },
    /// On its way out of this queue.
    Delivered { queue: &'a [u8], redelivered: bool },
}

/// Who publishes or gets the message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client<'a> {
    pub node: &'a str,
    pub vhost: &'a str,
    pub connection: &'a str,
    pub channel: u16,
    pub user: &'a str,
}

impl Seen<'_> {
    /// The routing key of the copy.
    pub(crate) fn key(&self, message: &Message) -> Vec<u8> {
        let key = match self {
            Self::Published { .. } => [b"publish.", message.exchange()].concat(),
            Self::Delivered { queue, .. } => [b"deliver.", *queue].concat(),
        };
        key[..key.len().min(ShortString::LEN_MAX)].to_vec()
    }
}

/// The copy of a message, with what is to know of it (`rabbit_trace:trace/5`).
pub(crate) fn copy(seen: &Seen<'_>, key: &[u8], message: &Message, client: &Client<'_>) -> Message {
    let properties = Properties::parse(message.properties()).map(|all| all.to_owned()).unwrap_or_default();
    let text = |text: &[u8]| FieldValue::LongString(text.to_vec());
    let routing_keys = match seen {
        Seen::Published { routing_keys, .. } => routing_keys.iter().map(|key| text(key)).collect(),
        Seen::Delivered { .. } => {
            let mut keys = vec![text(message.routing_key())];
            if let Some(FieldValue::Array(copies)) = properties.headers.as_ref().and_then(|all| all.get("CC"))
            {
                keys.extend(copies.iter().cloned());
            }
            keys
        }
    };
    let mut headers = FieldTable::new();
    headers.insert("exchange_name", text(message.exchange()));
    headers.insert("routing_keys", FieldValue::Array(routing_keys));
    headers.insert("properties", FieldValue::Table(table(properties)));
    headers.insert("node", FieldValue::string(client.node));
    if let Seen::Delivered { redelivered, .. } = seen {
        headers.insert("redelivered", FieldValue::I32((*redelivered).into()));
    }
    headers.insert("vhost", FieldValue::string(client.vhost));
    headers.insert("connection", FieldValue::string(client.connection));
    headers.insert("channel", FieldValue::I32(client.channel.into()));
    headers.insert("user", FieldValue::string(client.user));
    if let Seen::Published { queues, .. } = seen {
        let queues = queues.iter().map(|queue| text(queue.as_bytes())).collect();
        headers.insert("routed_queues", FieldValue::Array(queues));
    }
    let properties = OwnedProperties { headers: Some(headers), ..OwnedProperties::default() };
    let mut head = own_message(TRACE_EXCHANGE, key, &properties);
    match message.large_body() {
        Some(body) => head.message_with(body.clone()),
        None => head.message(message.small_body()),
    }
}

/// The properties that a message has, the last one first (`rabbit_trace:msg_to_table/3`).
fn table(properties: OwnedProperties) -> FieldTable {
    let text = |value: Option<Vec<u8>>| value.map(FieldValue::LongString);
    // Times are cut to 32 bits, as the type that RabbitMQ gives all integers here does.
    let number = |value: Option<u64>| value.map(|value| FieldValue::I32(value as i32));
    let all = [
        ("cluster_id", text(properties.cluster_id)),
        ("app_id", text(properties.app_id)),
        ("user_id", text(properties.user_id)),
        ("type", text(properties.type_)),
        ("timestamp", number(properties.timestamp)),
        ("message_id", text(properties.message_id)),
        ("expiration", text(properties.expiration)),
        ("reply_to", text(properties.reply_to)),
        ("correlation_id", text(properties.correlation_id)),
        ("priority", number(properties.priority.map(Into::into))),
        ("delivery_mode", number(properties.delivery_mode.map(Into::into))),
        ("headers", properties.headers.map(FieldValue::Table)),
        ("content_encoding", text(properties.content_encoding)),
        ("content_type", text(properties.content_type)),
    ];
    FieldTable(all.into_iter().filter_map(|(name, value)| Some((name.into(), value?))).collect())
}

#[cfg(test)]
mod tests {
    use warren_amqp091_codec::Dialect;
    use warren_types::MessageParts;

    use super::*;

    const CLIENT: Client<'_> =
        Client { node: "rabbit@here", vhost: "/", connection: "a -> b", channel: 3, user: "guest" };

    fn message(properties: &OwnedProperties, body: &[u8]) -> Message {
        let mut encoded = Vec::new();
        properties.encode(Dialect::Amqp091, &mut encoded);
        let parts = MessageParts {
            exchange: b"x",
            routing_key: b"key",
            properties: &encoded,
            ..MessageParts::default()
        };
        Message::new(&parts, body)
    }

    fn headers(message: &Message) -> Vec<(String, FieldValue)> {
        let properties = Properties::parse(message.properties()).expect("they were just written");
        let headers = properties.headers().expect("a copy has headers").0;
        headers.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    fn field(name: &str, value: FieldValue) -> (String, FieldValue) {
        (name.to_owned(), value)
    }

    fn array(texts: &[&str]) -> FieldValue {
        FieldValue::Array(texts.iter().map(|text| FieldValue::string(text)).collect())
    }

    #[test]
    fn r5_the_copy_of_a_publish() {
        let properties = OwnedProperties {
            content_type: Some(b"text/plain".to_vec()),
            delivery_mode: Some(2),
            timestamp: Some(1_700_000_000),
            ..OwnedProperties::default()
        };
        let body = vec![7; 10_000];
        let message = message(&properties, &body);
        let (routing_keys, queues) = ([&b"key"[..], b"cc"], ["q".into()]);
        let seen = Seen::Published { routing_keys: &routing_keys, queues: &queues };
        let key = seen.key(&message);
        assert_eq!(key, b"publish.x");
        let copy = copy(&seen, &key, &message, &CLIENT);
        assert_eq!(copy.exchange(), TRACE_EXCHANGE);
        assert_eq!(copy.routing_key(), b"publish.x");
        assert_eq!(copy.body(), body);
        assert!(!copy.is_persistent());
        let mut shown = FieldTable::new();
        shown.insert("timestamp", FieldValue::I32(1_700_000_000));
        shown.insert("delivery_mode", FieldValue::I32(2));
        shown.insert("content_type", FieldValue::string("text/plain"));
        assert_eq!(
            headers(&copy),
            [
                field("exchange_name", FieldValue::string("x")),
                field("routing_keys", array(&["key", "cc"])),
                field("properties", FieldValue::Table(shown)),
                field("node", FieldValue::string("rabbit@here")),
                field("vhost", FieldValue::string("/")),
                field("connection", FieldValue::string("a -> b")),
                field("channel", FieldValue::I32(3)),
                field("user", FieldValue::string("guest")),
                field("routed_queues", array(&["q"])),
            ]
        );
    }

    #[test]
    fn r5_the_copy_of_a_delivery() {
        let mut given = FieldTable::new();
        given.insert("CC", array(&["cc"]));
        let properties = OwnedProperties { headers: Some(given.clone()), ..OwnedProperties::default() };
        let message = message(&properties, b"body");
        let seen = Seen::Delivered { queue: b"q", redelivered: true };
        let key = seen.key(&message);
        assert_eq!(key, b"deliver.q");
        let copy = copy(&seen, &key, &message, &CLIENT);
        assert_eq!(copy.body(), b"body");
        let mut shown = FieldTable::new();
        shown.insert("headers", FieldValue::Table(given));
        assert_eq!(
            headers(&copy),
            [
                field("exchange_name", FieldValue::string("x")),
                field("routing_keys", array(&["key", "cc"])),
                field("properties", FieldValue::Table(shown)),
                field("node", FieldValue::string("rabbit@here")),
                field("redelivered", FieldValue::I32(1)),
                field("vhost", FieldValue::string("/")),
                field("connection", FieldValue::string("a -> b")),
                field("channel", FieldValue::I32(3)),
                field("user", FieldValue::string("guest")),
            ]
        );
    }

    #[test]
    fn r5_long_names_make_no_key_that_is_too_long() {
        let seen = Seen::Delivered { queue: &[b'q'; 255], redelivered: false };
        assert_eq!(seen.key(&message(&OwnedProperties::default(), b"")).len(), 255);
    }
}
