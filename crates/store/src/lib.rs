//! The durable store of one node: a log that everything is appended to and synced in groups, compact files for what
//! stays longer than the log, and a table with definitions and with what is in the compact files.

mod account;
mod backend;
mod checkpoint;
mod disk;
mod extents;
mod file_system;
mod index;
mod inspect;
mod journal;
mod load;
mod log;
mod marks;
mod record;
mod records;
mod recovery;
mod segment;
mod store;
mod table;
mod turn;

pub use backend::Backend;
pub use checkpoint::{CheckpointError, Gone, Install, Shards, Snapshot};
pub use disk::{Disk, DiskFile};
pub use extents::ExtentKey;
pub use file_system::FileSystem;
pub use index::{Count, QueueIndex};
pub use inspect::{Inspection, check, dump};
pub use journal::{Change, Journal, Lsn};
pub use load::{Load, LoadError, LoadedMessages, ReadCursor};
pub use log::Wake;
pub use recovery::{Progress, Recovered, RecoveredQueue};
pub use store::{OnFailure, OpenError, Options, Store};
pub use table::TableError;
pub use turn::{PlacedMessage, SharedBody, Stored, Turn};
