//! `warren store`: looking at a stopped broker's data.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use warren_store::{FileSystem, Inspection};

use crate::data_dir::DataDir;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum StoreCommand {
    /// Verify every checksum of a stopped broker's data directory.
    ///
    /// Reads everything and changes nothing. Ends with 0 if nothing is damaged, else with 1.
    Check {
        /// The data directory.
        dir: PathBuf,
    },
    /// Print what a stopped broker's data directory holds, record by record.
    ///
    /// Bodies of messages are not printed, only their lengths. The format is explained in
    /// docs/design/storage-format.md.
    Dump {
        /// The data directory.
        dir: PathBuf,
    },
}

pub(crate) fn run(command: &StoreCommand) -> ExitCode {
    let result = match command {
        StoreCommand::Check { dir } => check(dir),
        StoreCommand::Dump { dir } => dump(dir).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("warren: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The store in a data directory that no broker uses; the lock is held until the end.
fn open(dir: &Path) -> anyhow::Result<(DataDir, FileSystem)> {
    let data_dir = DataDir::open_existing(dir)?;
    let path = data_dir.store_path();
    let disk = FileSystem::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok((data_dir, disk))
}

fn check(dir: &Path) -> anyhow::Result<bool> {
    let (_data_dir, disk) = open(dir)?;
    let found = warren_store::check(&disk).with_context(|| format!("cannot check {}", dir.display()))?;
    let mut out = io::stdout().lock();
    report(&found, &mut out).context("cannot write to standard output")?;
    Ok(found.damage.is_empty())
}

fn report(found: &Inspection, out: &mut impl Write) -> io::Result<()> {
    let stop =
        if found.clean { "the broker was stopped in order" } else { "the broker was not stopped in order" };
    writeln!(out, "{} log segments, {} compact files; {stop}", found.log_segments, found.compact_files)?;
    writeln!(
        out,
        "{} definitions; {} messages with {} bytes of bodies in {} queues",
        found.definitions, found.messages.messages, found.messages.bytes, found.queues
    )?;
    for note in &found.notes {
        writeln!(out, "note: {note}")?;
    }
    for damage in &found.damage {
        writeln!(out, "DAMAGED: {damage}")?;
    }
    match found.damage.len() {
        0 => writeln!(out, "ok: every checksum is right"),
        count => writeln!(
            out,
            "{count} places are damaged: restore the directory from a backup, or start the \
                                broker, which stops the queues concerned and serves the others"
        ),
    }
}

fn dump(dir: &Path) -> anyhow::Result<()> {
    let (_data_dir, disk) = open(dir)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let dumped = warren_store::dump(&disk, &mut |line| writeln!(out, "{line}"));
    match dumped.map_err(anyhow::Error::from).and_then(|()| Ok(out.flush()?)) {
        // Nobody reads any more, as with `| head`.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => result.with_context(|| format!("cannot dump {}", dir.display())),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
