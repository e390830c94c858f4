//! The metadata table's file.

use std::io;
use std::sync::Arc;

use redb::StorageBackend;

use crate::DiskFile;

/// A file of a [`Disk`](crate::Disk), as redb keeps a database in it.
///
/// There are no locks: whoever has the directory has the file.
///
/// redb takes a file whose creation was interrupted for a foreign one. So a new database belongs under another name
/// until it is complete.
#[derive(Debug)]
pub struct Backend(Arc<dyn DiskFile>);

impl Backend {
    /// A database in `file`; redb fills an empty one.
    #[must_use]
    pub fn new(file: Arc<dyn DiskFile>) -> Self {
        Self(file)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
