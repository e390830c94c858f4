//! Exchanges as callers see them, and their equivalence.

use std::fmt;

use warren_types::{FieldTable, FieldValue, ShortString, erlang};

use crate::arguments::equal_terms;

/// The argument of exchange.declare that names the alternate exchange.
pub const ALTERNATE_EXCHANGE: &str = "alternate-exchange";

/// How an exchange chooses destinations (0-9-1 section 3.1.3).
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
}

impl ExchangeKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Direct, Self::Fanout, Self::Topic, Self::Headers];

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
    /// Arguments; the router knows [`ALTERNATE_EXCHANGE`].
    pub arguments: FieldTable,
}

impl ExchangeDefinition {
    /// Name of the alternate exchange, if the arguments have one that could be a name.
    #[must_use]
    pub fn alternate_exchange(&self) -> Option<ShortString> {
        let name = self.arguments.get(ALTERNATE_EXCHANGE)?.as_long_string()?;
        ShortString::new(name).ok()
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
