//! `warren perf sync`: what confirms cost without a broker.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use crate::load::histogram;
use crate::report::Report;

/// Bytes that are there before they are written again: a sync need not tell that the file has grown.
const FILE_LEN: usize = 16 * 1024 * 1024;

#[derive(Debug, Args)]
pub struct Options {
    /// A directory on the disk to measure. The file in it is removed.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// Messages that a sync confirms.
    #[arg(long, value_name = "N", default_value_t = 1)]
    group: u64,

    /// Bytes that are written for each of them.
    #[arg(long, short = 's', default_value_t = 256)]
    size: usize,

    /// Seconds to measure.
    #[arg(long, short = 'z', default_value_t = 10.0)]
    duration: f64,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// A file that has its length, and that goes with its process, having no name any more.
#[derive(Debug)]
pub(crate) struct SyncedFile(File);

impl SyncedFile {
    pub(crate) fn create(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(format!("warren-perf-sync-{}", std::process::id()));
        let create = || {
            let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            file.write_all_at(&vec![0; FILE_LEN], 0)?;
            file.sync_all()?;
            std::io::Result::Ok(Self(file))
        };
        create().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes and syncs; returns where to write next.
    pub(crate) fn write(&self, bytes: &[u8], at: usize) -> std::io::Result<usize> {
        self.0.write_all_at(bytes, at as u64)?;
        self.0.sync_data()?;
        Ok(if at + 2 * bytes.len() > FILE_LEN { 0 } else { at + bytes.len() })
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let file = SyncedFile::create(&options.dir)?;
    let len = (options.size * options.group as usize).min(FILE_LEN);
    let (bytes, mut at, mut syncs, mut latencies) = (vec![b's'; len], 0, 0, histogram());
    let start = Instant::now();
    let limit = Duration::from_secs_f64(options.duration);
    while start.elapsed() < limit {
        let begun = Instant::now();
        at = file.write(&bytes, at)?;
        latencies.saturating_record(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1));
        syncs += 1;
    }
    let mut report = Report::default();
    report.rate("synced", syncs, start.elapsed());
    report.rate("confirmed", syncs * options.group, start.elapsed());
    report.latency("confirm", &latencies);
    report.print(options.json)
}
