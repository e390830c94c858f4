//! The table: metadata, extents, and where the log starts, in one embedded database that changes in transactions.

use std::collections::BTreeSet;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use warren_types::QueueId;

use crate::backend::Backend;
use crate::disk::DiskFile;
use crate::extents::{ExtentKey, ExtentRow};
use crate::journal::Change;
use crate::record::u32_at;

/// The file of the table.
pub(crate) const FILE: &str = "table.redb";

const METADATA: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("metadata");
const EXTENTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("extents");
const STATE: TableDefinition<'_, &str, u32> = TableDefinition::new("state");

/// Why queues must not be used.
const DAMAGE: TableDefinition<'_, u64, &str> = TableDefinition::new("damage");

/// Memory that the database keeps of its file, in bytes.
const CACHE_LEN: usize = 4 * 1024 * 1024;

/// The first segment of the log that counts.
const FIRST_SEGMENT: &str = "first_segment";

/// The number of the next compact file.
const NEXT_FILE: &str = "next_file";

/// Why the table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The database says so.
    #[error("the table {FILE} cannot be used: {0}")]
    Database(redb::Error),
    /// It is not what was written, or makes no sense.
    #[error("the table {FILE} is damaged: restore the directory from a backup ({0})")]
    Damaged(String),
}

macro_rules! from_redb {
    ($($error:ident),+) => {
        $(impl From<redb::$error> for self::TableError {
            fn from(error: redb::$error) -> Self {
                match error.into() {
                    redb::Error::Corrupted(damage) => Self::Damaged(damage),
                    error => Self::Database(error),
                }
            }
        })+
    };
}
from_redb!(DatabaseError, TransactionError, StorageError, CommitError, TableError, SetDurabilityError);

/// The open table.
#[derive(Debug)]
pub(crate) struct Table {
    database: Database,
}

/// What the table holds at the start.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub metadata: Vec<(Vec<u8>, Vec<u8>)>,
    pub extents: Vec<(ExtentKey, ExtentRow)>,
    /// Queues that must not be used, and why.
    pub damage: Vec<(QueueId, String)>,
    pub first_segment: u32,
    pub next_file: u32,
}

/// Where an extent stands.
#[derive(Debug)]
pub(crate) struct Place {
    pub file: u32,
    pub offset: u64,
    pub len: u64,
    pub records: u64,
}

/// Changes of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Update {
    pub changes: Vec<Change>,
    pub rows: Vec<(ExtentKey, ExtentRow)>,
    pub removed: Vec<ExtentKey>,
    /// Extents that stand elsewhere now.
    pub moved: Vec<(ExtentKey, Place)>,
    /// Queues that must not be used, and why.
    pub damaged: Vec<(QueueId, String)>,
    /// Queues among those that are gone.
    pub mended: Vec<QueueId>,
    pub first_segment: u32,
    pub next_file: u32,
}

impl Table {
    pub(crate) fn open(file: Arc<dyn DiskFile>) -> Result<Self, TableError> {
        let database = Database::builder()
            .set_cache_size(CACHE_LEN)
            // What another program, or the disk, has changed is found now, and by name.
            .set_check_integrity_on_open(true)
            .create_with_backend(Backend::new(file))?;
        let table = Self { database };
        let (first_segment, next_file) = (table.state(FIRST_SEGMENT)?, table.state(NEXT_FILE)?);
        table.update(Update { first_segment, next_file, ..Update::default() })?;
        Ok(table)
    }

    fn state(&self, key: &str) -> Result<u32, TableError> {
        let transaction = self.database.begin_read()?;
        match transaction.open_table(STATE) {
            Ok(table) => Ok(table.get(key)?.map_or(0, |value| value.value())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Everything in it.
    pub(crate) fn contents(&self) -> Result<Contents, TableError> {
        let transaction = self.database.begin_read()?;
        let mut contents = Contents {
            first_segment: self.state(FIRST_SEGMENT)?,
            next_file: self.state(NEXT_FILE)?,
            ..Contents::default()
        };
        for row in transaction.open_table(METADATA)?.iter()? {
            let (key, value) = row?;
            contents.metadata.push((key.value().to_vec(), value.value().to_vec()));
        }
        for row in transaction.open_table(EXTENTS)?.iter()? {
            let (key, value) = row?;
            let decoded = ExtentKey::decode(key.value()).zip(ExtentRow::decode(value.value()));
            contents.extents.push(decoded.ok_or_else(|| {
                TableError::Damaged(format!("the extent {:02x?} makes no sense", key.value()))
            })?);
        }
        for row in transaction.open_table(DAMAGE)?.iter()? {
            let (queue, damage) = row?;
            contents.damage.push((QueueId(queue.value()), damage.value().to_owned()));
        }
        Ok(contents)
    }

    /// The compact files that some extent is in.
    pub(crate) fn files(&self) -> Result<BTreeSet<u32>, TableError> {
        let transaction = self.database.begin_read()?;
        let mut files = BTreeSet::new();
        for row in transaction.open_table(EXTENTS)?.iter()? {
            files.insert(u32_at(row?.1.value(), 0));
        }
        Ok(files)
    }

    /// Makes all changes, durably, or none.
    pub(crate) fn update(&self, update: Update) -> Result<(), TableError> {
        let mut transaction = self.database.begin_write()?;
        // Opening after a crash must not take time in proportion to the table.
        transaction.set_quick_repair(true);
        {
            let mut metadata = transaction.open_table(METADATA)?;
            for Change { key, value } in update.changes {
                match value {
                    Some(value) => metadata.insert(&key[..], &value[..])?,
                    None => metadata.remove(&key[..])?,
                };
            }
            let mut extents = transaction.open_table(EXTENTS)?;
            for key in update.removed {
                extents.remove(&key.encode()[..])?;
            }
            for (key, row) in update.rows {
                extents.insert(&key.encode()[..], &row.encode()[..])?;
            }
            for (key, Place { file, offset, len, records }) in update.moved {
                let old = extents.get(&key.encode()[..])?.and_then(|row| ExtentRow::decode(row.value()));
                if let Some(row) = old {
                    let row = ExtentRow { file, offset, len, records, ..row };
                    extents.insert(&key.encode()[..], &row.encode()[..])?;
                }
            }
            let mut damage = transaction.open_table(DAMAGE)?;
            for (queue, why) in update.damaged {
                damage.insert(queue.0, &why[..])?;
            }
            for queue in update.mended {
                damage.remove(queue.0)?;
            }
            let mut state = transaction.open_table(STATE)?;
            state.insert(FIRST_SEGMENT, update.first_segment)?;
            state.insert(NEXT_FILE, update.next_file)?;
        }
        transaction.commit()?;
        Ok(())
    }
}
