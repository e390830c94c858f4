//! The words that every other crate speaks: ids, names, field tables, messages, reply codes, and the
//! vocabulary of operations and events between a protocol and the broker.
//!
//! Nothing here does I/O, reads a clock or knows a wire format.

mod channel_limit;
mod error;
mod field_table;
mod history;
mod ids;
mod ledger;
mod message;
mod short_string;

pub mod erlang;
pub mod session;

pub use channel_limit::ChannelLimit;
pub use error::{AmqpError, ReplyCode, Scope};
pub use field_table::{FieldTable, FieldValue};
pub use history::History;
pub use ids::{ChannelId, ConnectionId, ConsumerId, DeliveryId, QueueId, QueueRef};
pub use ledger::Ledger;
pub use message::{Marks, Message, MessageHead, MessageParts, StoredMessage, put_blind_key};
pub use short_string::{ShortString, TooLong};
