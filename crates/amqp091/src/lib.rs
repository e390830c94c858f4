//! AMQP 0-9-1 (and 0-9 and 0-8) as a state machine without I/O: bytes and events in, bytes and calls of a
//! [`warren_types::session::Session`] out.
//!
//! [`Connection`] owns the dialogue on channel 0 and the channels; a `Channel` owns what a client
//! did on it: consumers, unacked deliveries, confirms, transactions. Sockets, timers and queues are elsewhere.
//!
//! Invariants:
//! 1. input is processed in order, and not at all while a call waits for its reply;
//! 2. nothing is sent behind `connection.close`, and nothing but `channel.close-ok` on a channel behind its
//!    `channel.close`;
//! 3. memory held for a client is bounded by the negotiated limits, however it behaves.

mod acknowledge;
mod channel;
mod confirms;
mod connection;
mod content;
mod endings;
mod handshake;
mod input;
mod interceptors;
mod output;
mod properties;
mod publish;
mod repeat;
mod shared;
mod transaction;

pub use connection::{Connection, Phase};
pub use handshake::{Limits, ServerIdentity};
pub use interceptors::{Existing, Interceptors};
pub use output::Output;
