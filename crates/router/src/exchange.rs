//! Exchanges as callers see them, and their equivalence.

use std::fmt;

use warren_types::{FieldTable, FieldValue, ShortString, erlang};

use crate::arguments::equal_terms;
use crate::consistent_hash::HashOn;
use crate::recent_history;

/// The argument of exchange.declare that names the alternate exchange.
pub const ALTERNATE_EXCHANGE: &str = "alternate-exchange";

/// The argument of a delayed exchange that names the kind it routes as.
pub const DELAYED_TYPE: &str = "x-delayed-type";

/// The argument that lets an exchange of any kind delay messages (LavinMQ's).
pub const DELAYED_EXCHANGE: &str = "x-delayed-exchange";

/// The argument that lets an exchange of any kind drop messages that it had before.
pub const DEDUPLICATION: &str = "x-message-deduplication";

/// How an exchange chooses destinations (0-9-1 section 3.1.3, and RabbitMQ's plugins).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// Routing key equals binding key (`rabbit_exchange_type_direct`).
    Direct,
    /// Everything goes everywhere (`rabbit_exchange_type_fanout`).
    Fanout,
    /// Words of the routing key match a pattern (`rabbit_exchange_type_topic`).
    Topic,
    /// Headers match the arguments of the binding (`rabbit_exchange_type_headers`).
    Headers,
    /// The hash of the routing key, a header or a property has one destination, and binding keys are weights
    /// (`rabbit_exchange_type_consistent_hash`).
    ConsistentHash,
    /// The hash of the routing keys has one destination (`rabbit_exchange_type_modulus_hash`).
    ModulusHash,
    /// One binding by chance (`rabbit_exchange_type_random`).
    Random,
    /// One queue of this node by chance (`rabbit_exchange_type_local_random`).
    LocalRandom,
    /// Everything goes everywhere, and the last messages also to queues that are bound later
    /// (`rabbit_exchange_type_recent_history`).
    RecentHistory,
    /// Headers fulfil the condition in the arguments of the binding (`rabbit_jms_topic_exchange`).
    JmsTopic,
    /// Messages may be delayed, and are then routed as the kind in the argument `x-delayed-type` does
    /// (`rabbit_exchange_type_delayed_message`).
    DelayedMessage,
}

impl ExchangeKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Direct,
        Self::Fanout,
        Self::Topic,
        Self::Headers,
        Self::ConsistentHash,
        Self::ModulusHash,
        Self::Random,
        Self::LocalRandom,
        Self::RecentHistory,
        Self::JmsTopic,
        Self::DelayedMessage,
    ];

    /// The kind with this name in exchange.declare.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().as_bytes() == name)
    }

    /// The name in exchange.declare.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::ConsistentHash => "x-consistent-hash",
            Self::ModulusHash => "x-modulus-hash",
            Self::Random => "x-random",
            Self::LocalRandom => "x-local-random",
            Self::RecentHistory => "x-recent-history",
            Self::JmsTopic => "x-jms-topic",
            Self::DelayedMessage => "x-delayed-message",
        }
    }
}

impl fmt::Display for ExchangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Everything that was said of an exchange when it was declared.
#[derive(Debug, Clone, PartialEq)]
pub struct ExchangeDefinition {
    /// Its name.
    pub name: ShortString,
    /// How it chooses destinations.
    pub kind: ExchangeKind,
    /// Whether it survives a restart.
    pub durable: bool,
    /// Whether it goes when the last binding from it is removed.
    pub auto_delete: bool,
    /// Whether clients are refused to publish to it. The router does not look at this.
    pub internal: bool,
    /// Arguments; the router knows [`ALTERNATE_EXCHANGE`] and those of the kind.
    pub arguments: FieldTable,
}

impl ExchangeDefinition {
    /// Name of the alternate exchange, if the arguments have one that could be a name.
    #[must_use]
    pub fn alternate_exchange(&self) -> Option<ShortString> {
        let name = self.arguments.get(ALTERNATE_EXCHANGE)?.as_long_string()?;
        ShortString::new(name).ok()
    }

    /// The kind that says where messages go: its own, or that of a delayed exchange.
    #[must_use]
    pub fn routing_kind(&self) -> Option<ExchangeKind> {
        match self.kind {
            ExchangeKind::DelayedMessage => {
                let name = self.arguments.get(DELAYED_TYPE)?.as_long_string()?;
                ExchangeKind::parse(name).filter(|kind| *kind != ExchangeKind::DelayedMessage)
            }
            kind => Some(kind),
        }
    }

    /// Why a delayed exchange does not say as what it routes.
    fn delayed_type_error(&self) -> InvalidExchange {
        match self.arguments.get(DELAYED_TYPE).and_then(FieldValue::as_long_string) {
            None => InvalidExchange::DelayedType,
            Some(name) if ExchangeKind::parse(name).is_some() => InvalidExchange::DelayedTwice,
            Some(name) => InvalidExchange::UnknownDelayedType(name.to_vec()),
        }
    }

    /// Whether it delays the messages that ask for it.
    #[must_use]
    pub fn delays(&self) -> bool {
        let asked = || self.arguments.get(DELAYED_EXCHANGE) == Some(&FieldValue::Bool(true));
        self.kind == ExchangeKind::DelayedMessage || asked()
    }

    /// Whether it drops messages that it had before.
    #[must_use]
    pub fn deduplicates(&self) -> bool {
        self.arguments.get(DEDUPLICATION) == Some(&FieldValue::Bool(true))
    }

    /// Checks the arguments that its kind has a meaning for, as RabbitMQ does before it creates an exchange (the
    /// `validate/1` of its types). The router takes arguments that do not pass for missing.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_arguments(&self) -> Result<(), InvalidExchange> {
        match self.routing_kind().ok_or_else(|| self.delayed_type_error())? {
            ExchangeKind::ConsistentHash => HashOn::from_arguments(&self.arguments).map(drop),
            ExchangeKind::RecentHistory => recent_history::length(&self.arguments).map(drop),
            _ => Ok(()),
        }
    }

    /// Whether declaring `requested` again means this exchange (`rabbit_exchange:assert_equivalence/6`): the
    /// name is not looked at, and of the arguments only the alternate exchange.
    ///
    /// # Errors
    /// The first difference, in RabbitMQ's order of checks.
    pub fn check_equivalence(&self, requested: &Self) -> Result<(), Inequivalent> {
        if self.kind != requested.kind {
            let (received, current) = (ArgumentValue::Kind(requested.kind), ArgumentValue::Kind(self.kind));
            return Err(Inequivalent { argument: "type", received, current });
        }
        let flags = [
            ("durable", requested.durable, self.durable),
            ("auto_delete", requested.auto_delete, self.auto_delete),
            ("internal", requested.internal, self.internal),
        ];
        if let Some((argument, received, current)) = flags.into_iter().find(|(_, a, b)| a != b) {
            let (received, current) = (ArgumentValue::Bool(received), ArgumentValue::Bool(current));
            return Err(Inequivalent { argument, received, current });
        }
        let (received, current) =
            (requested.arguments.get(ALTERNATE_EXCHANGE), self.arguments.get(ALTERNATE_EXCHANGE));
        let same = match (received, current) {
            (Some(received), Some(current)) => equal_terms(received, current),
            (received, current) => received.is_none() && current.is_none(),
        };
        if same {
            return Ok(());
        }
        let value = |value: Option<&FieldValue>| {
            value.map_or(ArgumentValue::Absent, |v| ArgumentValue::Field(v.clone()))
        };
        Err(Inequivalent { argument: ALTERNATE_EXCHANGE, received: value(received), current: value(current) })
    }
}

/// An argument of an exchange that its kind refuses; `Display` gives RabbitMQ's explanation, where it has one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidExchange {
    /// `hash-property` names a property that cannot be hashed.
    #[error("Unsupported property: {}", String::from_utf8_lossy(.0))]
    Property(Vec<u8>),
    /// There is both a header and a property to hash.
    #[error("hash-header and hash-property are mutually exclusive")]
    HeaderAndProperty,
    /// `x-algorithm` (LavinMQ's) names none that is known.
    #[error("Unsupported algorithm: {}", String::from_utf8_lossy(.0))]
    Algorithm(Vec<u8>),
    /// The argument is no long string. RabbitMQ fails with an internal error.
    #[error(
        "Invalid {argument} field type {} (value {}); expected longstr", .value.type_name(), erlang::term(.value)
    )]
    Type {
        /// Its name.
        argument: &'static str,
        /// Its value.
        value: FieldValue,
    },
    /// A delayed exchange names no kind that it routes as.
    #[error("Invalid argument, 'x-delayed-type' must be an existing exchange type")]
    DelayedType,
    /// A delayed exchange names a kind that there is not.
    #[error("unknown exchange type '{}'", String::from_utf8_lossy(.0))]
    UnknownDelayedType(Vec<u8>),
    /// A delayed exchange would route as a delayed exchange.
    #[error("Invalid argument, 'x-delayed-message' can't be used for 'x-delayed-type'")]
    DelayedTwice,
    /// `x-recent-history-length` is no signed integer above 0.
    #[error("Invalid argument {}, 'x-recent-history-length' must be a positive integer", erlang::term(.0))]
    HistoryLength(FieldValue),
}

/// Outcome of [`Router::declare_exchange`](crate::Router::declare_exchange).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// The exchange was created.
    New,
    /// An equivalent exchange was already there; nothing changed.
    Existing,
}

/// An exchange of the same name exists and differs.
///
/// `Display` gives the end of RabbitMQ's text, `received 'false' but current is 'true'`, which follows on
/// `inequivalent arg '<argument>' for exchange '<name>' in vhost '<vhost>': `.
#[derive(Debug, Clone, PartialEq)]
pub struct Inequivalent {
    /// `type`, `durable`, `auto_delete`, `internal` or `alternate-exchange`.
    pub argument: &'static str,
    /// The value in the request.
    pub received: ArgumentValue,
    /// The value of the exchange that exists.
    pub current: ArgumentValue,
}

/// One side of an [`Inequivalent`].
#[derive(Debug, Clone, PartialEq)]
pub enum ArgumentValue {
    /// A kind of exchange.
    Kind(ExchangeKind),
    /// A flag.
    Bool(bool),
    /// An argument from the table.
    Field(FieldValue),
    /// The argument is not in the table.
    Absent,
}

impl std::error::Error for Inequivalent {}

impl fmt::Display for Inequivalent {
    /// As `rabbit_misc:equivalence_fail/4`: an argument is shown with its type only if the other side has
    /// none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed = [&self.received, &self.current].contains(&&ArgumentValue::Absent);
        let (received, current) = (self.received.text(typed), self.current.text(typed));
        write!(f, "received {received} but current is {current}")
    }
}

impl ArgumentValue {
    fn text(&self, typed: bool) -> String {
        match self {
            Self::Kind(kind) => format!("'{kind}'"),
            Self::Bool(value) => format!("'{value}'"),
            Self::Field(value) => erlang::argument(Some(value), !typed),
            Self::Absent => erlang::argument(None, !typed),
        }
    }
}

/// Why an exchange was not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeleteExchangeError {
    /// The default exchange is always there.
    #[error("operation not permitted on the default exchange")]
    DefaultExchange,
    /// There is no such exchange.
    #[error("the exchange does not exist")]
    NotFound,
    /// It is the source of a binding, and was to be deleted only if unused.
    #[error("the exchange is in use")]
    InUse,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(arguments: &[(&str, FieldValue)]) -> ExchangeDefinition {
        let mut table = FieldTable::new();
        for (name, value) in arguments {
            table.insert(name, value.clone());
        }
        ExchangeDefinition {
            name: ShortString::from("e"),
            kind: ExchangeKind::Topic,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: table,
        }
    }

    #[test]
    fn kinds_have_their_wire_names() {
        for kind in ExchangeKind::ALL {
            assert_eq!(ExchangeKind::parse(kind.name().as_bytes()), Some(kind));
        }
        assert_eq!(ExchangeKind::parse(b"Topic"), None);
        assert_eq!(ExchangeKind::parse(b""), None);
    }

    #[test]
    fn differences_read_as_in_rabbitmq() {
        let current = definition(&[(ALTERNATE_EXCHANGE, FieldValue::string("ae"))]);
        let check = |requested: &ExchangeDefinition| {
            let error = current.check_equivalence(requested).unwrap_err();
            format!("{}: {error}", error.argument)
        };
        let mut other = current.clone();
        other.kind = ExchangeKind::Fanout;
        other.durable = false;
        assert_eq!(check(&other), "type: received 'fanout' but current is 'topic'");
        other.kind = ExchangeKind::Topic;
        assert_eq!(check(&other), "durable: received 'false' but current is 'true'");
        other.durable = true;
        other.auto_delete = true;
        other.internal = true;
        assert_eq!(check(&other), "auto_delete: received 'true' but current is 'false'");
        other.auto_delete = false;
        assert_eq!(check(&other), "internal: received 'true' but current is 'false'");
        assert_eq!(
            check(&definition(&[])),
            "alternate-exchange: received none but current is the value 'ae' of type 'longstr'"
        );
        assert_eq!(
            check(&definition(&[(ALTERNATE_EXCHANGE, FieldValue::string("be"))])),
            "alternate-exchange: received 'be' but current is 'ae'"
        );
    }

    #[test]
    fn other_arguments_make_no_difference() {
        let current = definition(&[("x", FieldValue::I8(1))]);
        assert_eq!(current.check_equivalence(&definition(&[("x", FieldValue::I8(2))])), Ok(()));
    }
}
