//! The broker: virtual hosts, users, shards, and the sessions that connections talk through.
//!
//! Who owns what, and in which order locks are taken:
//! - a `Vhost`'s tables (exchanges, bindings, names of queues) stand behind one read-write lock. Sessions
//!   read them while they decode and write them in control methods; a shard writes them when a queue goes;
//! - a queue belongs to one shard, a task that owns it as a plain value; sessions and shards exchange batches
//!   through `Mailbox`es;
//! - no lock is held across an await, and a mailbox's lock is always the last one taken.
//!
//! Mailboxes have no length limit of their own. They are bounded by who may write: a session stops publishing
//! when too many of its bytes are unprocessed ([`session::BrokerSession::must_wait`]), waits for the reply of each
//! call, and settles at most what it was given; a shard delivers at most what consumers have credit for.

mod alarm;
mod auth;
mod broker;
mod clock;
mod dead_letter;
mod direct_reply;
mod equivalence;
mod mailbox;
mod names;
mod place;
mod ports;
mod queue_arguments;
mod routes;
mod session;
mod shard;
mod topology;
mod vhost;

pub use auth::{Permissions, Tag};
pub use broker::{Broker, Settings};
pub use session::BrokerSession;
