//! The files that hold records: segments of the log, and compact files. Both start with the same header.

use std::io;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::journal::Lsn;
use crate::record::u32_at;

/// Bytes of the header of a file.
pub(crate) const HEADER_LEN: usize = 64;

/// The version of the format that this program writes.
pub(crate) const FORMAT: u32 = 1;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Log,
    Compact,
}

impl FileKind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Log => b"WRNLOG\r\n",
            Self::Compact => b"WRNCMP\r\n",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Log => "log-",
            Self::Compact => "compact-",
        }
    }

    /// The name of the file of this number.
    pub(crate) fn name(self, number: u32) -> String {
        format!("{}{number:010}", self.prefix())
    }

    /// The number in a name, if it is the name of such a file.
    pub(crate) fn number(self, name: &str) -> Option<u32> {
        name.strip_prefix(self.prefix())?.parse().ok().filter(|number| self.name(*number) == name)
    }
}

/// An open file of records; the handle stays good when the name is gone.
#[derive(Debug)]
pub(crate) struct Segment {
    pub kind: FileKind,
    pub number: u32,
    pub file: Arc<dyn DiskFile>,
}

/// Why a header is not to be read further.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// There is no whole header: the file was being created.
    Torn,
    /// A later version wrote it.
    Newer(u32),
}

impl Segment {
    /// Creates the file; `prev_len` is the length of the segment before it.
    pub(crate) fn create(disk: &dyn Disk, kind: FileKind, number: u32, prev_len: u32) -> io::Result<Self> {
        let file = disk.create(&kind.name(number))?;
        file.write_all_at(&header(kind, number, prev_len), 0)?;
        disk.sync_names()?;
        Ok(Self { kind, number, file })
    }

    pub(crate) fn open(disk: &dyn Disk, kind: FileKind, number: u32) -> io::Result<Self> {
        Ok(Self { kind, number, file: disk.open(&kind.name(number))? })
    }

    /// Reads `len` bytes from `offset` on, or as many as there are.
    pub(crate) fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        match self.file.read_exact_at(&mut bytes, offset) {
            // Almost always they are there; to ask first would double the calls of small reads.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let there = self.file.len()?.saturating_sub(offset);
                bytes.truncate(usize::try_from(there).unwrap_or(usize::MAX));
                self.file.read_exact_at(&mut bytes, offset)?;
                Ok(bytes)
            }
            read => read.map(|()| bytes),
        }
    }

    /// Reads the whole file.
    pub(crate) fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.file.len()?).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// Layout: 0 magic, 8 format u32, 12 number u32, 16 length of the segment before u32, 20 zeros, 60 crc32c u32.
fn header(kind: FileKind, number: u32, prev_len: u32) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(kind.magic());
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[12..16].copy_from_slice(&number.to_le_bytes());
    bytes[16..20].copy_from_slice(&prev_len.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks a header; returns the length of the segment before.
pub(crate) fn check_header(kind: FileKind, number: u32, bytes: &[u8]) -> Result<u32, HeaderError> {
    let Some(bytes) = bytes.get(..HEADER_LEN) else { return Err(HeaderError::Torn) };
    if crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60)
        || &bytes[..8] != kind.magic()
        || u32_at(bytes, 12) != number
    {
        return Err(HeaderError::Torn);
    }
    match u32_at(bytes, 8) {
        FORMAT => Ok(u32_at(bytes, 16)),
        newer => Err(HeaderError::Newer(newer)),
    }
}

impl Lsn {
    pub(crate) fn new(segment: u32, offset: u32) -> Self {
        Self(u64::from(segment) << 32 | u64::from(offset))
    }

    pub(crate) fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn offset(self) -> u32 {
        self.0 as u32
    }
}
