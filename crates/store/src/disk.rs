//! The disk as the store sees it: one directory of flat files.
//!
//! Everything the store does to files goes through these traits, so that tests can cut the power at any call.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// A directory.
///
/// A file that was created, renamed or removed is certain to be so after a power cut only once
/// [`Disk::sync_names`] has returned.
pub trait Disk: Send + Sync + Debug {
    /// The names of all files, in no particular order.
    ///
    /// # Errors
    /// If the directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading and writing; it must exist.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it does not, or as the system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates an empty file, or empties the one of this name.
    ///
    /// # Errors
    /// As the system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, replacing the file that has it.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; open handles keep its contents.
    ///
    /// # Errors
    /// As the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// As the system says; then nothing is known about them.
    fn sync_names(&self) -> io::Result<()>;

    /// Bytes that can still be written.
    ///
    /// # Errors
    /// As the system says.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file. Calls may come from several threads.
pub trait DiskFile: Send + Sync + Debug {
    /// Length in bytes.
    ///
    /// # Errors
    /// As the system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As the system says.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before, or as the system says.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; the file grows as needed, with zeros before `offset`.
    ///
    /// # Errors
    /// As the system says; then any part of the bytes may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, or lengthens it with zeros.
    ///
    /// # Errors
    /// As the system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes everything that was written, and the length, durable.
    ///
    /// # Errors
    /// As the system says. What was written since the last success may be lost, and a second attempt that
    /// succeeds would not change that: never try again.
    fn sync(&self) -> io::Result<()>;
}
