//! Bindings as callers see them, and what comes of adding and removing them.

use std::hash::{Hash, Hasher};

use warren_types::{FieldTable, FieldValue, ShortString, erlang};

use crate::ExchangeDefinition;
use crate::arguments::{hash_arguments, same_arguments};

/// Where a binding leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The queue of this name.
    Queue(ShortString),
    /// The exchange of this name (exchange-to-exchange binding, a RabbitMQ extension).
    Exchange(ShortString),
}

impl Destination {
    /// The name, whatever it names.
    #[must_use]
    pub fn name(&self) -> &ShortString {
        match self {
            Self::Queue(name) | Self::Exchange(name) => name,
        }
    }
}

/// A rule by which an exchange passes messages on.
///
/// All four fields are its identity, arguments being compared with types but without regard to their order
/// (`rabbit_binding:sort_args/1`). Bindings that come out of a router have their arguments sorted by name.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The exchange that messages come from.
    pub source: ShortString,
    /// The queue or exchange that they go to.
    pub destination: Destination,
    /// The routing key, the pattern if the source is a topic exchange, or the weight if it is a consistent hash
    /// exchange.
    pub routing_key: ShortString,
    /// Arguments; only headers and JMS topic exchanges give them a meaning.
    pub arguments: FieldTable,
}

impl PartialEq for Binding {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
            && self.destination == other.destination
            && self.routing_key == other.routing_key
            && same_arguments(&self.arguments, &other.arguments)
    }
}

impl Eq for Binding {}

impl Hash for Binding {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
        self.destination.hash(state);
        self.routing_key.hash(state);
        hash_arguments(&self.arguments, state);
    }
}

/// Outcome of [`Router::bind`](crate::Router::bind).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The binding was added.
    New,
    /// The same binding was already there; nothing changed.
    Existing,
}

/// Why a binding was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BindError {
    /// The default exchange is bound to every queue by its name and to nothing else.
    #[error("operation not permitted on the default exchange")]
    DefaultExchange,
    /// There is no exchange with the name of the source.
    #[error("the source of the binding does not exist")]
    NoSource,
    /// There is no queue or exchange with the name of the destination.
    #[error("the destination of the binding does not exist")]
    NoDestination,
    /// The source's kind has no use for such arguments.
    #[error(transparent)]
    InvalidArgument(#[from] InvalidArgument),
}

/// Why a binding could not be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnbindError {
    /// The bindings of the default exchange come and go with the queues.
    #[error("operation not permitted on the default exchange")]
    DefaultExchange,
}

/// What of a binding the source's kind refuses: an argument or the key (its `validate_binding/2` in RabbitMQ); `Display`
/// gives RabbitMQ's explanation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidArgument {
    /// `x-match` is a long string, but none of the four known.
    #[error("Invalid x-match field value {}; expected all, any, all-with-x, or any-with-x", erlang::binary(.0))]
    MatchValue(Vec<u8>),
    /// `x-match` is no long string.
    #[error("Invalid x-match field type {} (value {}); expected longstr", .0.type_name(), erlang::term(.0))]
    MatchType(FieldValue),
    /// The binding key, a weight, is no integer.
    #[error("The binding key must be an integer: {}", erlang::binary(.0))]
    WeightNotInteger(Vec<u8>),
    /// The weight is below 1.
    #[error("The binding key must be greater than 0")]
    WeightTooSmall,
    /// The weight is above 10,000.
    #[error("The binding key must not exceed 10000")]
    WeightTooGreat,
    /// There is a binding key where none may be.
    #[error("Non empty binding '{}' key not permitted", String::from_utf8_lossy(.0))]
    KeyNotEmpty(Vec<u8>),
    /// The destination is an exchange where only queues may be.
    #[error("Destination not found")]
    NotAQueue,
    /// A selector is no term, or has words that selectors do not have.
    #[error("invalid JMS selector: {0}")]
    Selector(String),
    /// A pattern in a selector is none.
    #[error("invalid JMS selector pattern: {0}")]
    SelectorPattern(String),
    /// There is no selector where there must be one.
    #[error(
        "cannot parse selector 'error' binding destination '{}' to exchange '{}'",
        String::from_utf8_lossy(.destination), String::from_utf8_lossy(.source_exchange)
    )]
    NoSelector {
        /// Name of the destination.
        destination: Vec<u8>,
        /// Name of the source.
        source_exchange: Vec<u8>,
    },
}

/// What was removed by one call, in order of removal.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Removed {
    /// All bindings that went, those of auto-deleted exchanges included.
    pub bindings: Vec<Binding>,
    /// Exchanges that were deleted because they lost their last outgoing binding and had auto-delete set. An
    /// exchange that the caller asked to delete is not among them.
    pub exchanges: Vec<ExchangeDefinition>,
}

impl Removed {
    /// Whether nothing was removed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty() && self.exchanges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_in_rabbitmq() {
        let value = InvalidArgument::MatchValue(b"some".to_vec());
        assert_eq!(
            value.to_string(),
            "Invalid x-match field value <<\"some\">>; expected all, any, all-with-x, or any-with-x"
        );
        let kind = InvalidArgument::MatchType(FieldValue::I32(1));
        assert_eq!(kind.to_string(), "Invalid x-match field type signedint (value 1); expected longstr");
    }
}
