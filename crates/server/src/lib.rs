//! Listeners and connection tasks: the only crate with sockets.
//!
//! One task serves one connection: it reads, runs the connection machine, writes, and exchanges batches with the
//! shards through its session. It is the only place that waits for a client.

mod connection;
mod listener;

pub use listener::{Server, ServerError};
pub use warren_amqp091::{Existing, Interceptors, Limits, ServerIdentity};
