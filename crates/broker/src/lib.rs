//! The broker: virtual hosts, users, shards, and the sessions that connections talk through.
//!
//! Who owns what, and in which order locks are taken:
//! - which virtual hosts and users there are, and what users may do where, stands behind one read-write lock, which
//!   connections read when they open. It is taken before those of virtual hosts;
//! - a `Vhost`'s tables (exchanges, bindings, names of queues) stand behind one read-write lock. Sessions
//!   read them while they decode and write them in control methods; a shard writes them when a queue goes;
//! - a queue belongs to one shard, a task that owns it as a plain value; sessions and shards exchange batches
//!   through `Mailbox`es;
//! - what is durable of all this is recorded in the journal under the lock that makes it visible, and no client is told
//!   before the journal has it on stable storage;
//! - no lock is held across an await, and a mailbox's lock is always the last one taken.
//!
//! Mailboxes have no length limit of their own. They are bounded by who may write: a session stops publishing
//! when too many of its bytes are unprocessed ([`session::BrokerSession::must_wait`]), waits for the reply of each
//! call, and settles at most what it was given; a shard delivers at most what consumers have credit for.

mod admin;
mod alarm;
mod auth;
mod broker;
mod caller;
mod changes;
mod clock;
mod connections;
mod dead_letter;
mod dedup;
mod delayed;
mod delivery_counts;
mod direct_reply;
mod directory;
mod equivalence;
mod events;
mod firehose;
mod health;
mod history;
mod listing;
mod log_exchange;
mod mailbox;
mod messages;
mod metadata;
mod names;
mod place;
mod policy;
mod ports;
mod queue_arguments;
mod queue_type;
mod reconfigure;
mod reroute;
mod restore;
mod routes;
mod session;
mod shard;
mod stored_bytes;
mod system_exchange;
mod topology;
mod vhost;

#[cfg(test)]
mod dedup_test;
#[cfg(test)]
mod durability_test;
#[cfg(test)]
mod exchange_kinds_test;
#[cfg(test)]
mod permissions_test;

pub use admin::{AdminError, Credentials, Grant, Recorded};
pub use auth::{Hashing, PasswordHash, Permissions, Tag, User};
pub use broker::{Broker, Settings};
pub use caller::CallError;
pub use connections::{ChannelInfo, ConnectionInfo, ConsumerInfo};
pub use health::Health;
pub use listing::{PAGE_LEN, QueueCounts, QueueInfo, QueueListing};
pub use log_exchange::LogExchange;
pub use messages::{Handled, MessageId, MessageListing, ReadyMessage, Selection, Target};
pub use metadata::RestoreError;
pub use policy::{ApplyTo, EffectivePolicies, Parameter, Policy, PolicyError, PolicyKind};
pub use queue_type::QueueType;
pub use reconfigure::ReconfigureError;
pub use session::BrokerSession;
