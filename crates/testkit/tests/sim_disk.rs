//! What the simulated disk keeps, loses and counts.

#![allow(clippy::unwrap_used, reason = "these are tests throughout")]

use std::collections::{BTreeSet, HashSet};
use std::io::ErrorKind;
use std::sync::Arc;

use proptest::prelude::*;
use warren_store::{Disk, DiskFile};
use warren_testkit::SimDisk;

const SECTOR: usize = 512;

/// Enough for everything that can happen in a small case to happen.
const SEEDS: u64 = 500;

fn content(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(name).ok()?;
    let mut content = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut content, 0).unwrap();
    Some(content)
}

/// What a file can be after a power cut.
fn fates(disk: &SimDisk, name: &str) -> HashSet<Option<Vec<u8>>> {
    (0..SEEDS).map(|seed| content(&disk.power_cut(seed), name)).collect()
}

/// The sets of names that can be left after a power cut.
fn name_fates(disk: &SimDisk) -> BTreeSet<Vec<String>> {
    (0..SEEDS).map(|seed| disk.power_cut(seed).list().unwrap()).collect()
}

/// A disk with a durable file `a`.
fn disk_with(content: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new(1);
    let file = disk.create("a").unwrap();
    disk.sync_names().unwrap();
    file.write_all_at(content, 0).unwrap();
    file.sync().unwrap();
    (disk, file)
}

fn all(contents: &[&[u8]]) -> HashSet<Option<Vec<u8>>> {
    contents.iter().map(|content| Some(content.to_vec())).collect()
}

#[test]
fn readers_see_what_is_not_durable() {
    let disk = SimDisk::new(1);
    let file = disk.create("a").unwrap();
    file.write_all_at(b"world", 6).unwrap();
    file.write_all_at(b"hello", 0).unwrap();
    assert_eq!(content(&disk, "a").unwrap(), b"hello\0world");
    file.set_len(2).unwrap();
    file.set_len(4).unwrap();
    assert_eq!(content(&disk, "a").unwrap(), b"he\0\0");
    assert_eq!(file.read_exact_at(&mut [0; 2], 3).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    disk.rename("a", "b").unwrap();
    assert_eq!(disk.list().unwrap(), ["b"]);
    assert_eq!(disk.open("a").unwrap_err().kind(), ErrorKind::NotFound);
    disk.remove("b").unwrap();
    assert!(disk.list().unwrap().is_empty());
    disk.sync_names().unwrap();
    disk.sync_names().unwrap();
    assert_eq!(file.len().unwrap(), 4);
}

#[test]
fn what_was_synced_stays() {
    let (disk, file) = disk_with(b"old");
    file.write_all_at(b"new", 1).unwrap();
    file.sync().unwrap();
    assert_eq!(fates(&disk, "a"), all(&[b"onew"]));
}

#[test]
fn what_was_not_synced_may_be_lost() {
    let (disk, file) = disk_with(b"old");
    file.write_all_at(b"new", 0).unwrap();
    assert!(fates(&disk, "a").is_superset(&all(&[b"old", b"new"])));
    file.sync().unwrap();
    file.set_len(1).unwrap();
    assert_eq!(fates(&disk, "a"), all(&[b"new", b"n"]));
}

#[test]
fn a_file_may_grow_without_its_bytes() {
    let (disk, file) = disk_with(b"old");
    file.write_all_at(b"!", SECTOR as u64).unwrap();
    let mut grown = b"old".to_vec();
    grown.resize(SECTOR + 1, 0);
    let mut written = grown.clone();
    written[SECTOR] = b'!';
    let fates = fates(&disk, "a");
    assert!(fates.is_superset(&all(&[b"old", &grown, &written])), "{fates:?}");
}

#[test]
fn sectors_are_written_in_any_order() {
    let (disk, file) = disk_with(&[b'-'; 3 * SECTOR]);
    file.write_all_at(&[b'1'; 2 * SECTOR], SECTOR as u64 / 2).unwrap();
    file.write_all_at(&[b'2'; SECTOR], 2 * SECTOR as u64).unwrap();
    let seen: BTreeSet<Vec<u8>> = fates(&disk, "a")
        .into_iter()
        .map(|content| {
            content.unwrap().chunks(SECTOR).map(|sector| sector[SECTOR / 2 - 1 + SECTOR / 4]).collect()
        })
        .collect();
    for first in *b"-1" {
        for second in *b"-1" {
            for third in *b"-2" {
                assert!(seen.contains(&vec![first, second, third]), "{first} {second} {third}");
            }
        }
    }
}

#[test]
fn the_last_sector_may_be_torn() {
    let (disk, file) = disk_with(&[b'-'; SECTOR]);
    file.write_all_at(&[b'1'; SECTOR], 0).unwrap();
    let torn =
        fates(&disk, "a").into_iter().flatten().filter(|content| content.contains(&b'-')).filter(|content| {
            let kept = content.iter().take_while(|byte| **byte == b'1').count();
            kept > 0 && content[kept..].iter().all(|byte| *byte == b'-')
        });
    assert!(torn.count() > 3);
}

#[test]
fn names_are_durable_in_the_order_of_their_changes() {
    let (disk, _file) = disk_with(b"a");
    let b = disk.create("b").unwrap();
    b.write_all_at(b"b", 0).unwrap();
    b.sync().unwrap();
    disk.rename("b", "a").unwrap();
    disk.create("c").unwrap();
    let fates = name_fates(&disk);
    let expected: [&[&str]; 3] = [&["a"], &["a", "b"], &["a", "c"]];
    assert_eq!(fates, expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect()).into());
    assert_eq!(self::fates(&disk, "a"), all(&[b"a", b"b"]));
    disk.sync_names().unwrap();
    assert_eq!(self::fates(&disk, "a"), all(&[b"b"]));
}

#[test]
fn syncing_a_file_does_not_keep_its_name() {
    let disk = SimDisk::new(1);
    let file = disk.create("a").unwrap();
    file.write_all_at(b"a", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(fates(&disk, "a"), HashSet::from([None, Some(b"a".to_vec())]));
    disk.sync_names().unwrap();
    assert_eq!(fates(&disk, "a"), all(&[b"a"]));
}

#[test]
fn a_removed_file_may_come_back() {
    let (disk, _file) = disk_with(b"a");
    disk.remove("a").unwrap();
    assert_eq!(fates(&disk, "a"), HashSet::from([None, Some(b"a".to_vec())]));
    disk.sync_names().unwrap();
    assert_eq!(fates(&disk, "a"), HashSet::from([None]));
}

#[test]
fn creating_a_file_again_empties_it() {
    let (disk, _file) = disk_with(b"a");
    disk.create("a").unwrap();
    assert_eq!(content(&disk, "a").unwrap(), b"");
    assert_eq!(fates(&disk, "a"), all(&[b"", b"a"]));
}

#[test]
fn a_kill_loses_nothing_and_makes_nothing_durable() {
    let (disk, file) = disk_with(b"old");
    file.write_all_at(b"new", 0).unwrap();
    disk.create("b").unwrap();
    let killed = disk.kill();
    file.write_all_at(b"late", 0).unwrap();
    assert_eq!(killed.list().unwrap(), ["a", "b"]);
    assert_eq!(content(&killed, "a").unwrap(), b"new");
    assert!(fates(&killed, "a").contains(&Some(b"old".to_vec())));
    assert_eq!(name_fates(&killed).len(), 2);
    killed.open("a").unwrap().sync().unwrap();
    assert_eq!(fates(&killed, "a"), all(&[b"new"]));
}

#[test]
fn a_cut_depends_on_its_seed_only() {
    let (disk, file) = disk_with(b"");
    file.write_all_at(&[1; 100 * SECTOR], 0).unwrap();
    let cut = |seed| content(&disk.power_cut(seed), "a");
    for seed in 0..SEEDS {
        assert_eq!(cut(seed), cut(seed));
    }
}

#[test]
fn the_power_fails_at_every_call() {
    let work = |disk: &SimDisk| -> std::io::Result<()> {
        let file = disk.create("a")?;
        file.write_all_at(b"12345", 0)?;
        file.set_len(4)?;
        file.sync()?;
        disk.rename("a", "b")?;
        disk.sync_names()?;
        disk.remove("b")
    };
    const CALLS: u64 = 7;
    for calls in 0..=CALLS {
        let disk = SimDisk::new(calls);
        disk.fail_after(calls);
        assert_eq!(work(&disk).is_ok(), calls == CALLS);
        assert_eq!(disk.has_power(), calls == CALLS);
        assert_eq!(disk.calls(), CALLS.min(calls + 1));
        assert_eq!(disk.list().is_ok(), calls == CALLS);
        assert!(disk.create("c").is_err(), "the call after the last");
        assert!(work(&disk.power_cut(1)).is_ok());
    }
}

#[test]
fn the_call_during_which_the_power_fails_may_be_done() {
    let written: BTreeSet<usize> = (0..SEEDS)
        .map(|seed| {
            let disk = SimDisk::new(seed);
            let file = disk.create("a").unwrap();
            disk.fail_after(0);
            file.write_all_at(b"123", 0).unwrap_err();
            content(&disk.kill(), "a").unwrap().len()
        })
        .collect();
    assert_eq!(written, BTreeSet::from([0, 1, 2, 3]));
    let created: BTreeSet<usize> = (0..SEEDS)
        .map(|seed| {
            let disk = SimDisk::new(seed);
            disk.fail_after(0);
            disk.create("a").unwrap_err();
            disk.kill().list().unwrap().len()
        })
        .collect();
    assert_eq!(created, BTreeSet::from([0, 1]));
}

#[test]
fn one_call_fails_and_later_ones_work() {
    let (disk, file) = disk_with(b"old");
    disk.fail_call(1, ErrorKind::StorageFull);
    file.write_all_at(b"new", 0).unwrap();
    assert_eq!(disk.rename("a", "b").unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.list().unwrap(), ["a"]);
    disk.rename("a", "b").unwrap();
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        disk.fail_call(0, kind);
        assert_eq!(file.write_all_at(b"more", 3).unwrap_err().kind(), kind);
        assert!(b"newmore".starts_with(&content(&disk, "b").unwrap()));
        file.write_all_at(b"more", 3).unwrap();
        assert_eq!(content(&disk, "b").unwrap(), b"newmore");
        file.set_len(3).unwrap();
    }
}

#[test]
fn a_second_sync_does_not_repair_the_first() {
    let (disk, file) = disk_with(b"old");
    file.write_all_at(b"new", 0).unwrap();
    disk.fail_call(0, ErrorKind::Other);
    file.sync().unwrap_err();
    file.write_all_at(b"!", 4).unwrap();
    file.sync().unwrap();
    assert_eq!(content(&disk, "a").unwrap(), b"new\0!");
    assert_eq!(fates(&disk, "a"), all(&[b"old\0!"]));

    disk.rename("a", "b").unwrap();
    disk.fail_call(0, ErrorKind::Other);
    disk.sync_names().unwrap_err();
    disk.sync_names().unwrap();
    assert_eq!(disk.list().unwrap(), ["b"]);
    assert_eq!(name_fates(&disk), BTreeSet::from([vec!["a".to_owned()]]));
}

#[test]
fn what_is_written_during_a_sync_is_not_part_of_it() {
    let (disk, file) = disk_with(b"old");
    file.write_all_at(b"new", 0).unwrap();
    let late = file.clone();
    disk.on_sync(move |number| {
        assert_eq!(number, 2);
        late.write_all_at(b"late", 0).unwrap();
    });
    file.sync().unwrap();
    assert_eq!(content(&disk, "a").unwrap(), b"late");
    let fates = fates(&disk, "a");
    assert!(fates.is_superset(&all(&[b"new", b"late"])));
    assert!(!fates.contains(&Some(b"old".to_vec())));
}

#[test]
fn a_full_disk_takes_what_fits() {
    let (disk, file) = disk_with(b"1234");
    disk.set_capacity(10);
    assert_eq!(disk.free_bytes().unwrap(), 6);
    let other = disk.create("b").unwrap();
    assert_eq!(other.write_all_at(b"12345678", 0).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(content(&disk, "b").unwrap(), b"123456");
    assert_eq!(disk.free_bytes().unwrap(), 0);
    file.write_all_at(b"over", 0).unwrap();
    assert_eq!(file.set_len(5).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_all_at(b"x", u64::MAX).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.remove("b").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 6);
    assert_eq!(disk.power_cut(1).kill().free_bytes().unwrap() % 6, 0);
}

#[test]
fn calls_are_counted() {
    let (disk, file) = disk_with(b"12345");
    assert_eq!((disk.calls(), disk.syncs(), disk.bytes_written()), (4, 1, 5));
    disk.list().unwrap();
    disk.open("a").unwrap().len().unwrap();
    file.sync().unwrap();
    assert_eq!((disk.calls(), disk.syncs(), disk.bytes_written()), (5, 2, 5));
    let next = disk.kill();
    assert_eq!((next.calls(), next.syncs(), next.bytes_written()), (0, 0, 0));
    assert_eq!(format!("{disk:?}"), "SimDisk { files: 1, calls: 5, .. }");
}

#[derive(Debug, Clone)]
enum Step {
    Write { offset: usize, len: usize },
    SetLen(usize),
    Sync,
}

fn step(with_lengths: bool) -> impl Strategy<Value = Step> {
    let write = || (0..4 * SECTOR, 1..2 * SECTOR).prop_map(|(offset, len)| Step::Write { offset, len });
    let set_len = (0..5 * SECTOR).prop_map(Step::SetLen);
    let rare = if with_lengths { set_len.boxed() } else { write().boxed() };
    prop_oneof![6 => write(), 2 => rare, 1 => Just(Step::Sync)]
}

/// What the file was like at the last sync and after every change since.
fn history(file: &dyn DiskFile, disk: &SimDisk, steps: &[Step]) -> Vec<Vec<u8>> {
    let mut history = vec![Vec::new()];
    for (number, step) in steps.iter().enumerate() {
        match *step {
            Step::Write { offset, len } => {
                file.write_all_at(&vec![number as u8 + 1; len], offset as u64).unwrap();
            }
            Step::SetLen(len) => file.set_len(len as u64).unwrap(),
            Step::Sync => {
                file.sync().unwrap();
                history.clear();
            }
        }
        history.push(content(disk, "a").unwrap());
    }
    history
}

fn sector(content: &[u8], number: usize) -> Vec<u8> {
    let mut sector: Vec<u8> = content.iter().skip(number * SECTOR).take(SECTOR).copied().collect();
    sector.resize(SECTOR, 0);
    sector
}

/// Whether the sector begins like one of its past selves and ends like another.
fn is_torn(sector: &[u8], past: &[Vec<u8>]) -> bool {
    let longest = |same: &dyn Fn(&Vec<u8>) -> usize| past.iter().map(same).max().unwrap_or(0);
    let equal = |(left, right): &(&u8, &u8)| left == right;
    let head = longest(&|old| sector.iter().zip(old).take_while(equal).count());
    let tail = longest(&|old| sector.iter().rev().zip(old.iter().rev()).take_while(equal).count());
    head + tail >= SECTOR
}

proptest! {
    #[test]
    fn every_sector_is_as_it_once_was(
        steps in prop::collection::vec(step(false), 0..12),
        seed: u64,
    ) {
        let (disk, file) = disk_with(b"");
        let history = history(&*file, &disk, &steps);
        let left = content(&disk.power_cut(seed), "a").unwrap();
        prop_assert!(left.len() >= history[0].len() && left.len() <= history[history.len() - 1].len());
        let mut torn = 0;
        for number in 0..left.len().div_ceil(SECTOR) {
            let past: Vec<Vec<u8>> = history.iter().map(|content| sector(content, number)).collect();
            let now = sector(&left, number);
            if !past.contains(&now) {
                torn += 1;
                prop_assert!(is_torn(&now, &past), "sector {number}");
            }
        }
        prop_assert!(torn <= 1);
    }

    #[test]
    fn every_byte_is_as_it_once_was_or_zero(
        steps in prop::collection::vec(step(true), 0..12),
        seed: u64,
    ) {
        let (disk, file) = disk_with(b"");
        let history = history(&*file, &disk, &steps);
        let left = content(&disk.power_cut(seed), "a").unwrap();
        for (offset, byte) in left.iter().enumerate() {
            let known = *byte == 0 || history.iter().any(|content| content.get(offset) == Some(byte));
            prop_assert!(known, "byte {offset}");
        }
    }
}
