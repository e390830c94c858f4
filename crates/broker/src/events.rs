//! The event exchange (features.md E6): what happens in the broker, told with the names of `rabbitmq_event_exchange`.
//!
//! An event has an empty body; what is to know stands in its headers. RabbitMQ makes these of Erlang terms, and so the shapes
//! here are those of `rabbit_exchange_type_event:fmt/2`: a resource becomes its name and its virtual host, the arguments of a
//! queue an array of terms as Erlang prints them, and the headers stand in the reverse order of RabbitMQ's properties.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use warren_amqp091_codec::OwnedProperties;
use warren_router::{Binding, Destination, ExchangeDefinition, Removed};
use warren_types::{ChannelId, ConnectionId, FieldTable, FieldValue, ShortString, erlang};

use crate::auth::{Permissions, Tag};
use crate::policy::{Parameter, Policy, PolicyKind};
use crate::ports::Alarm;
use crate::queue_type::QueueType;
use crate::system_exchange::{SystemExchange, own_message, system_time_ms};
use crate::vhost::QueueEntry;

/// The exchange's name.
pub(crate) const EVENT_EXCHANGE: &str = "amq.rabbitmq.event";

/// Who does what no user asked for (`?INTERNAL_USER`).
pub(crate) const INTERNAL_USER: &str = "rmq-internal";

/// Who does what is asked of the broker from outside of all connections, as RabbitMQ's command line tools call themselves.
pub(crate) const OPERATOR: &str = "rmq-cli";

/// Tells whoever has bound a queue to the event exchange.
#[derive(Debug)]
pub(crate) struct Events {
    exchange: Option<Arc<SystemExchange>>,
    node: Arc<str>,
}

/// The details of an event, in RabbitMQ's order.
#[derive(Debug, Default)]
pub(crate) struct Details(Vec<(ShortString, FieldValue)>);

impl Details {
    pub(crate) fn value(mut self, name: &'static str, value: FieldValue) -> Self {
        self.0.push((name.into(), value));
        self
    }

    pub(crate) fn text(self, name: &'static str, text: impl AsRef<[u8]>) -> Self {
        self.value(name, FieldValue::LongString(text.as_ref().to_vec()))
    }

    pub(crate) fn flag(self, name: &'static str, flag: bool) -> Self {
        self.value(name, FieldValue::Bool(flag))
    }

    pub(crate) fn number(self, name: &'static str, number: impl Into<i64>) -> Self {
        self.value(name, FieldValue::I64(number.into()))
    }

    /// A queue or an exchange: its name and its virtual host.
    pub(crate) fn resource(self, name: &'static str, vhost: &str, resource: &[u8]) -> Self {
        // Everything is turned round in the end.
        self.text("vhost", vhost).text(name, resource)
    }

    /// A table as Erlang has it: a list of triples, of which RabbitMQ makes an array of texts.
    pub(crate) fn table(self, name: &'static str, table: &FieldTable) -> Self {
        let triple = |(name, value): &(ShortString, FieldValue)| {
            let (name, kind) = (erlang::binary(name.as_bytes()), value.type_name());
            FieldValue::string(&format!("{{{name},{kind},{}}}", erlang::term(value)))
        };
        self.value(name, FieldValue::Array(table.0.iter().map(triple).collect()))
    }

    /// An address as Erlang has it: a tuple of numbers.
    pub(crate) fn address(self, name: &'static str, address: IpAddr) -> Self {
        let numbers: Vec<String> = match address {
            IpAddr::V4(v4) => v4.octets().iter().map(u8::to_string).collect(),
            IpAddr::V6(v6) => v6.segments().iter().map(u16::to_string).collect(),
        };
        self.text(name, format!("{{{}}}", numbers.join(",")))
    }

    pub(crate) fn user(self, name: impl AsRef<[u8]>) -> Self {
        self.text("user_who_performed_action", name)
    }

    fn texts<'a>(self, name: &'static str, texts: impl Iterator<Item = &'a str>) -> Self {
        self.value(name, FieldValue::Array(texts.map(FieldValue::string).collect()))
    }

    /// A JSON value: objects become tables, arrays arrays.
    fn json(self, name: &'static str, text: &str) -> Self {
        let value = serde_json::from_str(text).unwrap_or_else(|_| serde_json::Value::from(text));
        self.value(name, field_value(&value))
    }

    fn into_headers(mut self, now_ms: u64) -> FieldTable {
        self.0.reverse();
        self.0.push(("timestamp_in_ms".into(), FieldValue::I64(now_ms as i64)));
        FieldTable(self.0)
    }
}

/// A JSON value as `rabbit_exchange_type_event:fmt/1` shows the term that RabbitMQ makes of it.
fn field_value(value: &serde_json::Value) -> FieldValue {
    use serde_json::Value;
    match value {
        Value::Null => FieldValue::string("null"),
        Value::Bool(flag) => FieldValue::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => FieldValue::I64(integer),
            None => FieldValue::F32(number.as_f64().unwrap_or_default() as f32),
        },
        Value::String(text) => FieldValue::string(text),
        Value::Array(values) => FieldValue::Array(values.iter().map(field_value).collect()),
        // An empty list of pairs is an empty list.
        Value::Object(fields) if fields.is_empty() => FieldValue::Array(Vec::new()),
        Value::Object(fields) => {
            let field = |(name, value)| (ShortString::truncated(String::as_bytes(name)), field_value(value));
            FieldValue::Table(FieldTable(fields.iter().rev().map(field).collect()))
        }
    }
}

/// A name for a connection or channel that is unique for the life of the node, in the form of Erlang's process ids.
pub(crate) fn pid(node: &str, connection: ConnectionId, channel: ChannelId) -> String {
    format!("<{node}.{}.{}.{}>", connection.generation, connection.slot, channel.incarnation)
}

/// Both ends of a connection, as RabbitMQ names it.
pub(crate) fn connection_name(client: SocketAddr, server: SocketAddr) -> String {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    format!("{} -> {}", plain(client), plain(server))
}

impl Events {
    pub(crate) fn new(exchange: Option<Arc<SystemExchange>>, node: Arc<str>) -> Self {
        Self { exchange, node }
    }

    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// Whether anybody hears them now.
    pub(crate) fn are_wanted(&self) -> bool {
        self.exchange.as_ref().is_some_and(|exchange| exchange.is_bound())
    }

    /// Tells of an event, if anybody hears it.
    pub(crate) fn tell(&self, key: &'static str, details: impl FnOnce(Details) -> Details) {
        let Some(exchange) = self.exchange.as_ref().filter(|exchange| exchange.is_bound()) else { return };
        let now_ms = system_time_ms();
        let properties = OwnedProperties {
            delivery_mode: Some(2),
            headers: Some(details(Details::default()).into_headers(now_ms)),
            timestamp: Some(now_ms / 1000),
            ..OwnedProperties::default()
        };
        let name = exchange.name().as_bytes();
        exchange.post(own_message(name, key.as_bytes(), &properties).message(b""));
    }

    // ---- exchanges, queues, bindings -------------------------------------------------------------------------

    pub(crate) fn exchange_created(
        &self,
        vhost: &str,
        (exchange, policy): (&ExchangeDefinition, Option<&str>),
        user: &str,
    ) {
        self.tell("exchange.created", |details| {
            details
                .resource("name", vhost, exchange.name.as_bytes())
                .text("type", exchange.kind.name())
                .flag("durable", exchange.durable)
                .flag("auto_delete", exchange.auto_delete)
                .flag("internal", exchange.internal)
                .table("arguments", &exchange.arguments)
                .text("policy", policy.unwrap_or_default())
                .user(user)
        });
    }

    pub(crate) fn binding_created(&self, vhost: &str, binding: &Binding, user: &str) {
        self.tell("binding.created", |details| of_binding(details, vhost, binding).user(user));
    }

    /// Exchanges and bindings are gone.
    pub(crate) fn removed(&self, vhost: &str, removed: &Removed, user: &str) {
        for exchange in &removed.exchanges {
            self.exchange_deleted(vhost, &exchange.name, user);
        }
        for binding in &removed.bindings {
            self.tell("binding.deleted", |details| of_binding(details, vhost, binding).user(user));
        }
    }

    fn exchange_deleted(&self, vhost: &str, name: &ShortString, user: &str) {
        self.tell("exchange.deleted", |details| details.resource("name", vhost, name.as_bytes()).user(user));
    }

    pub(crate) fn queue_created(&self, vhost: &str, name: &ShortString, queue: &QueueEntry, user: &str) {
        self.tell("queue.created", |details| {
            let owner = queue.owner.map(|owner| pid(&self.node, owner, ChannelId::CONNECTION));
            details
                .resource("name", vhost, name.as_bytes())
                .flag("durable", queue.durable)
                .flag("auto_delete", queue.auto_delete)
                .table("arguments", &queue.arguments)
                .text("owner_pid", owner.as_deref().unwrap_or_default())
                .flag("exclusive", queue.owner.is_some())
                .user(user)
                .text("leader", &*self.node)
                .texts("members", [&*self.node].into_iter())
                .text("type", CLASSIC)
        });
    }

    pub(crate) fn queue_deleted(&self, vhost: &str, name: &ShortString, user: &str) {
        self.tell("queue.deleted", |details| {
            details.resource("name", vhost, name.as_bytes()).text("type", CLASSIC).user(user)
        });
    }

    /// Other policies apply to a queue, since this one was set; or, if it is none, since one was cleared.
    pub(crate) fn queue_policy(
        &self,
        vhost: &str,
        (name, queue_type): (&ShortString, QueueType),
        policy: Option<&Policy>,
    ) {
        let key = if policy.is_some() { "queue.policy.updated" } else { "queue.policy.cleared" };
        self.tell(key, |details| {
            let details = details
                .resource("name", vhost, name.as_bytes())
                .text("vhost", vhost)
                .text("type", queue_type.module())
                .user(OPERATOR);
            match policy {
                Some(policy) => of_policy(details, policy),
                None => details,
            }
        });
    }

    // ---- virtual hosts, users, policies ----------------------------------------------------------------------

    pub(crate) fn vhost_created(&self, name: &str, exchanges: &[ExchangeDefinition]) {
        for exchange in exchanges {
            self.exchange_created(name, (exchange, None), OPERATOR);
        }
        self.tell("vhost.created", |details| {
            details
                .text("name", name)
                .flag("tracing", false)
                .user(OPERATOR)
                .text("description", "")
                .texts("tags", [].into_iter())
        });
    }

    pub(crate) fn vhost_deleted(&self, name: &str) {
        self.tell("vhost.deleted", |details| details.text("name", name).user(OPERATOR));
    }

    /// One of the events of a user that have no more than its name.
    pub(crate) fn user(&self, key: &'static str, name: &str) {
        self.tell(key, |details| details.text("name", name).user(OPERATOR));
    }

    pub(crate) fn user_tags_set(&self, name: &str, tags: &[Tag]) {
        self.tell("user.tags.set", |details| {
            details.text("name", name).texts("tags", tags.iter().map(Tag::name)).user(OPERATOR)
        });
    }

    pub(crate) fn permission_created(&self, vhost: &str, user: &str, permissions: &Permissions) {
        let [configure, write, read] = permissions.patterns();
        self.tell("permission.created", |details| {
            details
                .text("user", user)
                .text("vhost", vhost)
                .text("configure", configure)
                .text("write", write)
                .text("read", read)
                .user(OPERATOR)
        });
    }

    pub(crate) fn permission_deleted(&self, vhost: &str, user: &str) {
        self.tell("permission.deleted", |details| {
            details.text("user", user).text("vhost", vhost).user(OPERATOR)
        });
    }

    pub(crate) fn policy_set(&self, vhost: &str, policy: &Policy) {
        self.tell("policy.set", |details| {
            let details = details.text("name", &policy.name).text("vhost", vhost).user(OPERATOR);
            of_policy(details, policy)
        });
    }

    pub(crate) fn policy_cleared(&self, vhost: &str, kind: PolicyKind, name: &str) {
        let key = match kind {
            PolicyKind::User => "policy.cleared",
            PolicyKind::Operator => "operator.policy.cleared",
        };
        self.tell(key, |details| details.text("name", name).text("vhost", vhost).user(OPERATOR));
    }

    pub(crate) fn parameter_set(&self, vhost: &str, parameter: &Parameter) {
        self.tell("parameter.set", |details| {
            of_parameter(details, vhost, &parameter.component, &parameter.name)
                .json("value", &parameter.value)
                .user(OPERATOR)
        });
    }

    pub(crate) fn parameter_cleared(&self, vhost: &str, component: &str, name: &str) {
        self.tell("parameter.cleared", |details| {
            of_parameter(details, vhost, component, name).user(OPERATOR)
        });
    }

    // ---- the node --------------------------------------------------------------------------------------------

    pub(crate) fn alarm(&self, alarm: Alarm, raised: bool) {
        let source = match alarm {
            Alarm::Memory => "memory",
            Alarm::Disk => "disk",
        };
        let key = if raised { "alarm.set" } else { "alarm.cleared" };
        self.tell(key, |details| details.text("source", source).text("node", &*self.node));
    }
}

/// The module of classic queues: events name types of queues so.
const CLASSIC: &str = "rabbit_classic_queue";

fn of_binding(details: Details, vhost: &str, binding: &Binding) -> Details {
    let kind = match &binding.destination {
        Destination::Queue(_) => "queue",
        Destination::Exchange(_) => "exchange",
    };
    details
        .text("source_name", binding.source.as_bytes())
        .text("source_kind", "exchange")
        .text("destination_name", binding.destination.name().as_bytes())
        .text("destination_kind", kind)
        .text("routing_key", binding.routing_key.as_bytes())
        .table("arguments", &binding.arguments)
        .text("vhost", vhost)
}

fn of_policy(details: Details, policy: &Policy) -> Details {
    details
        .text("pattern", &policy.pattern)
        .json("definition", &policy.definition)
        .number("priority", policy.priority)
        .text("apply-to", policy.apply_to.name())
}

fn of_parameter(details: Details, vhost: &str, component: &str, name: &str) -> Details {
    details.text("vhost", vhost).text("component", component).text("name", name)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn headers(details: Details) -> Vec<(String, FieldValue)> {
        let headers = details.into_headers(5).0;
        headers.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    fn text(name: &str, text: &str) -> (String, FieldValue) {
        (name.to_owned(), FieldValue::string(text))
    }

    #[test]
    fn e6_details_stand_in_reverse_and_the_time_behind_them() {
        let details = Details::default().resource("name", "v", b"q").flag("durable", true).number("n", 7);
        assert_eq!(
            headers(details),
            [
                ("n".to_owned(), FieldValue::I64(7)),
                ("durable".to_owned(), FieldValue::Bool(true)),
                text("name", "q"),
                text("vhost", "v"),
                ("timestamp_in_ms".to_owned(), FieldValue::I64(5)),
            ]
        );
    }

    #[test]
    fn e6_tables_are_arrays_of_terms() {
        let mut table = FieldTable::new();
        table.insert("x-max-length", FieldValue::I32(5));
        table.insert("x-overflow", FieldValue::string("drop-head"));
        let shown = headers(Details::default().table("arguments", &table)).remove(0).1;
        let FieldValue::Array(shown) = shown else { panic!("{shown:?} is no array") };
        assert_eq!(
            shown,
            [
                FieldValue::string("{<<\"x-max-length\">>,signedint,5}"),
                FieldValue::string("{<<\"x-overflow\">>,longstr,<<\"drop-head\">>}"),
            ]
        );
    }

    #[test]
    fn e6_json_becomes_fields() {
        let shown = |json| headers(Details::default().json("value", json)).remove(0).1;
        assert_eq!(shown("5"), FieldValue::I64(5));
        assert_eq!(shown("0.5"), FieldValue::F32(0.5));
        assert_eq!(shown("\"text\""), FieldValue::string("text"));
        assert_eq!(shown("[true]"), FieldValue::Array(vec![FieldValue::Bool(true)]));
        assert_eq!(shown("{}"), FieldValue::Array(Vec::new()));
        let mut table = FieldTable::new();
        table.insert("a", FieldValue::I64(1));
        assert_eq!(shown("{\"a\":1}"), FieldValue::Table(table));
        assert_eq!(shown("no json"), FieldValue::string("no json"));
    }

    #[test]
    fn e6_connections_and_their_addresses() {
        let client = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 1));
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, 5672));
        assert_eq!(connection_name(client, server), "127.0.0.1:1 -> 127.0.0.1:5672");
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 2));
        assert_eq!(connection_name(v6, v6), "[::1]:2 -> [::1]:2");
        let shown = |address| headers(Details::default().address("host", address)).remove(0);
        assert_eq!(shown(server.ip()), text("host", "{127,0,0,1}"));
        assert_eq!(shown(v6.ip()), text("host", "{0,0,0,0,0,0,0,1}"));
    }
}
