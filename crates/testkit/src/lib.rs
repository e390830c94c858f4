//! What several crates' tests share. Never shipped, and nothing that ships depends on it.
//!
//! [`FakeSession`] is a broker for one connection in one thread: real router, real queues, no clock and no
//! tasks. The same calls lead to the same events in the same order, so a dialogue can be compared byte by byte.
//!
//! [`MemoryJournal`] is a journal in memory, durable as far as a test says.
//!
//! [`MemoryStore`] is what a queue has stored, in memory.
//!
//! [`SimDisk`] is a disk in memory that loses its power when a test says so, and with it what was not synced.

mod journal;
mod memory_store;
mod session;
mod sim_disk;

pub use journal::MemoryJournal;
pub use memory_store::MemoryStore;
pub use session::FakeSession;
pub use sim_disk::SimDisk;
