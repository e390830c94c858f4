//! What redb keeps when the power is cut.

#![allow(clippy::unwrap_used, reason = "these are tests throughout")]

use std::collections::BTreeMap;
use std::io::ErrorKind;

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use warren_store::{Backend, Disk};
use warren_testkit::SimDisk;

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("table");

/// How often the power is cut at each call.
const CUTS: u64 = 3;

type Error = Box<dyn std::error::Error>;
type Model = BTreeMap<u64, Vec<u8>>;

fn open(disk: &SimDisk) -> Result<Database, Error> {
    Ok(Builder::new().set_cache_size(1 << 20).create_with_backend(Backend::new(disk.open("table")?))?)
}

/// A disk with an empty database, all of it durable.
fn new_disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create("table").unwrap();
    disk.sync_names().unwrap();
    drop(open(&disk).unwrap());
    disk.power_cut(seed)
}

/// What a transaction sets and removes: small and large values, growth and holes.
fn changes(transaction: u64) -> (Vec<(u64, Vec<u8>)>, Option<u64>) {
    let value = |len: u64| vec![transaction as u8; len as usize];
    let set =
        vec![(transaction, value(transaction % 7 * 150)), (transaction / 2, value(30)), (1000, value(8))];
    (set, (transaction % 3 == 2).then_some(transaction / 4))
}

fn commit(database: &Database, transaction: u64, quick_repair: bool) -> Result<(), Error> {
    let mut write = database.begin_write()?;
    write.set_quick_repair(quick_repair);
    {
        let mut table = write.open_table(TABLE)?;
        let (set, remove) = changes(transaction);
        for (key, value) in set {
            table.insert(key, value.as_slice())?;
        }
        if let Some(key) = remove {
            table.remove(key)?;
        }
    }
    Ok(write.commit()?)
}

fn model(transactions: u64) -> Model {
    let mut model = Model::new();
    for transaction in 0..transactions {
        let (set, remove) = changes(transaction);
        model.extend(set);
        remove.map(|key| model.remove(&key));
    }
    model
}

fn read(database: &Database) -> Result<Model, Error> {
    let read = database.begin_read()?;
    let table = match read.open_table(TABLE) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Model::new()),
        Err(error) => return Err(error.into()),
    };
    table
        .iter()?
        .map(|entry| entry.map(|(key, value)| (key.value(), value.value().to_vec())))
        .collect::<Result<_, _>>()
        .map_err(Error::from)
}

/// Commits until an error, and tells how many commits succeeded.
fn work(disk: &SimDisk, transactions: u64, quick_repair: bool) -> u64 {
    let Ok(database) = open(disk) else { return 0 };
    (0..transactions).take_while(|transaction| commit(&database, *transaction, quick_repair).is_ok()).count()
        as u64
}

/// What is left holds every commit that succeeded, and at most the one after, whole; and it can be written.
fn check(disk: &SimDisk, committed: u64, context: &str) {
    let database = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let left = read(&database).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(left == model(committed) || left == model(committed + 1), "{context}: after {committed} commits");
    commit(&database, committed + 1, true).unwrap_or_else(|error| panic!("{context}: {error}"));
}

/// Cuts the power during one call after the other until the work gets done without.
fn cut_at_every_call(transactions: u64, seed: u64) {
    for quick_repair in [false, true] {
        for call in 0.. {
            let disk = new_disk(seed);
            disk.fail_after(call);
            let committed = work(&disk, transactions, quick_repair);
            let context = format!("seed {seed}, call {call}, quick repair {quick_repair}");
            for cut in 0..CUTS {
                check_again_and_again(&disk.power_cut(seed + call * CUTS + cut), committed, &context);
            }
            if disk.has_power() {
                break;
            }
        }
    }
}

/// Opens it with several cuts during the repair, before it is left in peace.
fn check_again_and_again(disk: &SimDisk, committed: u64, context: &str) {
    let mut disk = disk.clone();
    for calls in [1, 4, 9] {
        disk.fail_after(calls);
        let _ = open(&disk).and_then(|database| read(&database));
        disk = disk.power_cut(calls);
    }
    check(&disk, committed, context);
}

#[test]
fn a_power_cut_keeps_what_was_committed() {
    cut_at_every_call(12, 1);
}

#[test]
#[ignore = "takes six minutes when optimised, and far longer when not"]
fn a_power_cut_keeps_all_of_many_commits() {
    for seed in 0..5 {
        cut_at_every_call(200, seed);
    }
}

/// Why a database is built under another name first.
#[test]
fn an_unfinished_database_is_empty_or_refused() {
    let mut refused = 0;
    for call in 0..20 {
        let disk = SimDisk::new(call);
        disk.create("table").unwrap();
        disk.sync_names().unwrap();
        disk.fail_after(call);
        let _ = open(&disk);
        for seed in 0..10 {
            match open(&disk.power_cut(seed)) {
                Ok(database) => assert_eq!(read(&database).unwrap(), Model::new()),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 0);
}

/// A commit that failed may be there or not, but after a failed sync no other one is acknowledged: what that sync
/// lost would be missing under it.
#[test]
fn nothing_is_committed_after_a_failed_call() {
    for quick_repair in [false, true] {
        for call in 0.. {
            let disk = new_disk(call);
            let database = open(&disk).unwrap();
            disk.fail_call(call, ErrorKind::Other);
            let results: Vec<bool> =
                (0..12).map(|transaction| commit(&database, transaction, quick_repair).is_ok()).collect();
            let committed = results.iter().take_while(|ok| **ok).count();
            let context = format!("call {call}, quick repair {quick_repair}, {results:?}");
            assert!(!results[committed..].contains(&true), "{context}");
            drop(database);
            for seed in 0..10 {
                check(&disk.power_cut(seed), committed as u64, &context);
            }
            if committed == results.len() {
                break;
            }
        }
    }
}
