//! The queue machine: what a queue holds, and who gets it next.
//!
//! A queue is a value. [`Queue::apply`] takes a command and reports what follows through [`Effects`]; it reads no
//! clock, does no I/O and holds no handles, so that a log of commands replays to the same state.
//!
//! ```text
//!              publish                 take (get, consumer)            ack, reject
//!  (nowhere) ----------> ready  ------------------------------> unacked -----------> (gone)
//!                          ^  \                                   /
//!                          |   `--- no-ack consumer, purge, delete ---> (gone)
//!                          `----------------------------------'
//!                            requeue, refuse, channel or connection gone
//! ```
//!
//! Invariants, checked by the model test:
//! 1. every message accepted is in exactly one of ready, unacked, gone;
//! 2. ready messages are in the order in which they were published, returned ones at their original place;
//! 3. no consumer holds more unacked messages than its prefetch;
//! 4. while a message is ready, no consumer could take it.
//!
//! A queue may drop messages that it had lately: [`Settings::dedup`]. Their keys are stored right behind them.
//!
//! Time is a number of milliseconds that comes with each command and never falls. Messages expire on time wherever they
//! stand, where RabbitMQ's wait until they are at the head (features.md M31).

mod command;
mod consumers;
mod dedup;
mod due;
mod groups;
mod messages;
mod queue;
mod settings;

pub use command::{Browsed, Command, Effects, Expiration, Fate, Forgotten, Getter, NewConsumer, Publish};
pub use consumers::CONSUMER_WINDOW;
pub use dedup::{DedupKey, StoredKey};
pub use queue::{Queue, QueueOptions, RESIDENT_MAX, Restored, RestoredLevel};
pub use settings::{DeadLetterTarget, DeathReason, Dedup, Overflow, QueueKind, Retry, RetryOf, Settings};
