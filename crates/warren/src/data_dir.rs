//! The data directory: one broker's own place, recognisable and locked.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The file that tells a data directory from any other: its content is the version of the layout.
const MARKER: &str = "WARREN";

/// The layout that this program writes.
const LAYOUT: &str = "1";

/// The file that the running broker holds locked.
const LOCK: &str = "lock";

/// The directory for messages and definitions.
const STORE: &str = "store";

/// A data directory in use. Other brokers are kept out until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Takes possession of the directory, creating it if it does not exist.
    ///
    /// # Errors
    /// If it belongs to something else, to a newer version, or to a broker that is running.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        fs::create_dir_all(path).with_context(|| format!("cannot create the data directory {shown}"))?;
        let path = path.canonicalize().with_context(|| format!("cannot use the data directory {shown}"))?;
        check_layout(&path)?;
        let lock_path = path.join(LOCK);
        let lock =
            File::create(&lock_path).with_context(|| format!("cannot write {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "the data directory {shown} is in use by another broker; stop it or choose another --data-dir"
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", lock_path.display()));
            }
        }
        let marker = path.join(MARKER);
        if !marker.exists() {
            File::create(&marker)
                .and_then(|mut file| {
                    writeln!(file, "{LAYOUT}")?;
                    file.sync_all()
                })
                .with_context(|| format!("cannot write {}", marker.display()))?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// Takes possession of a directory that a broker has used.
    ///
    /// # Errors
    /// If no broker has, or as [`DataDir::open`].
    pub(crate) fn open_existing(path: &Path) -> anyhow::Result<Self> {
        if !path.join(MARKER).exists() {
            bail!("{} is not a data directory of Warren", path.display());
        }
        Self::open(path)
    }

    /// Where messages and definitions are.
    pub(crate) fn store_path(&self) -> PathBuf {
        self.path.join(STORE)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn check_layout(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    match fs::read_to_string(path.join(MARKER)) {
        Ok(layout) if layout.trim() == LAYOUT => Ok(()),
        Ok(layout) => bail!(
            "the data directory {shown} has layout '{}', this version knows {LAYOUT}; use the version that wrote it",
            layout.trim()
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut entries =
                fs::read_dir(path).with_context(|| format!("cannot read the data directory {shown}"))?;
            if entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != LOCK)) {
                bail!(
                    "the directory {shown} is not empty and not a data directory of Warren; \
                     choose another --data-dir"
                );
            }
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("cannot read the data directory {shown}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        DataDir::open(path).map_or_else(|error| format!("{error:#}"), |_| "none".to_owned())
    }

    #[test]
    fn a_new_directory_is_taken_and_kept() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("new/data");
        let open = DataDir::open(&path).expect("it is free");
        assert!(refusal(&path).contains("in use by another broker"), "{}", refusal(&path));
        drop(open);
        DataDir::open(&path).expect("it is free again");
    }

    #[test]
    fn foreign_and_newer_directories_are_refused() {
        let parent = tempfile::tempdir().expect("a directory");
        fs::write(parent.path().join("letter.txt"), "dear").expect("it can be written");
        assert!(refusal(parent.path()).contains("not a data directory of Warren"));
        fs::write(parent.path().join(MARKER), "99\n").expect("it can be written");
        assert!(refusal(parent.path()).contains("has layout '99'"));
    }
}
