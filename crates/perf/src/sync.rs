//! `warren perf sync`: what confirms cost without a broker.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
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

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let path = options.dir.join(format!("warren-perf-sync-{}", std::process::id()));
    let measured = File::create_new(&path)
        .and_then(|file| measure(&file, options))
        .with_context(|| format!("cannot write {}", path.display()));
    // Nothing is left, whatever happened.
    let _there = std::fs::remove_file(&path);
    measured?.print(options.json)
}

fn measure(file: &File, options: &Options) -> std::io::Result<Report> {
    file.write_all_at(&vec![0; FILE_LEN], 0)?;
    file.sync_all()?;
    let len = (options.size * options.group as usize).min(FILE_LEN);
    let (bytes, mut at, mut syncs, mut latencies) = (vec![b's'; len], 0, 0, histogram());
    let start = Instant::now();
    let limit = Duration::from_secs_f64(options.duration);
    while start.elapsed() < limit {
        let begun = Instant::now();
        file.write_all_at(&bytes, at as u64)?;
        file.sync_data()?;
        latencies.saturating_record(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1));
        syncs += 1;
        at = if at + 2 * len > FILE_LEN { 0 } else { at + len };
    }
    let mut report = Report::default();
    report.rate("synced", syncs, start.elapsed());
    report.rate("confirmed", syncs * options.group, start.elapsed());
    report.latency("confirm", &latencies);
    Ok(report)
}
