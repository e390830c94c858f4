//! A real directory.

use std::fs::{DirBuilder, File, OpenOptions, read_dir, remove_file, rename};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Disk, DiskFile};

/// What is stored is for the broker's own user only.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// A directory of the operating system's file system.
#[derive(Debug)]
pub struct FileSystem {
    path: PathBuf,
    /// Open for as long as the disk is used: it is what makes names durable.
    directory: File,
}

impl FileSystem {
    /// Opens the directory. If it is missing it is created, durably, with the directories it is in.
    ///
    /// # Errors
    /// If it cannot be created or read, or is no directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        create_directory(path)?;
        let directory = File::open(path)?;
        Ok(Self { path: path.to_owned(), directory })
    }

    fn open_file(&self, name: &str, options: &mut OpenOptions) -> io::Result<Arc<dyn DiskFile>> {
        let file = options.read(true).write(true).open(self.locate(name)?)?;
        Ok(Arc::new(OpenFile(file)))
    }

    /// The path of a file. A name that leads anywhere else is refused.
    fn locate(&self, name: &str) -> io::Result<PathBuf> {
        if matches!(name, "" | "." | "..") || name.contains('/') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("'{name}' is no file name")));
        }
        Ok(self.path.join(name))
    }
}

/// Creates what is missing of the path. The entry in its parent is made durable too: without it, a power cut would
/// take everything inside along.
fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_directory(parent)?;
    DirBuilder::new().mode(DIRECTORY_MODE).create(path)?;
    File::open(parent)?.sync_all()
}

impl Disk for FileSystem {
    /// Leaves out directories, and names that are not UTF-8: the store has written neither.
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_file(name, &mut OpenOptions::new())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_file(name, OpenOptions::new().create(true).truncate(true).mode(FILE_MODE))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        rename(self.locate(from)?, self.locate(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        remove_file(self.locate(name)?)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::fstatvfs(&self.directory)?;
        // What is set aside for the administrator does not count.
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

#[derive(Debug)]
struct OpenFile(File);

impl DiskFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    /// Leaves out times; the length is flushed when it changed.
    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn disk() -> (tempfile::TempDir, FileSystem) {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileSystem::open(&directory.path().join("deep/store")).unwrap();
        (directory, disk)
    }

    fn content(file: &dyn DiskFile) -> Vec<u8> {
        let mut content = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut content, 0).unwrap();
        content
    }

    fn names(disk: &FileSystem) -> Vec<String> {
        let mut names = disk.list().unwrap();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_written_at_any_offset() {
        let (_directory, disk) = disk();
        let file = disk.create("a").unwrap();
        assert!(file.is_empty().unwrap());
        file.write_all_at(b"world", 6).unwrap();
        file.write_all_at(b"hello", 0).unwrap();
        file.sync().unwrap();
        assert_eq!(content(&*file), b"hello\0world");
        file.set_len(3).unwrap();
        file.set_len(5).unwrap();
        assert_eq!(content(&*disk.open("a").unwrap()), b"hel\0\0");
        let error = file.read_exact_at(&mut [0; 3], 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn names_can_be_changed() {
        let (_directory, disk) = disk();
        let file = disk.create("a").unwrap();
        file.write_all_at(b"a", 0).unwrap();
        disk.create("b").unwrap();
        assert_eq!(names(&disk), ["a", "b"]);
        disk.rename("a", "b").unwrap();
        disk.sync_names().unwrap();
        assert_eq!(names(&disk), ["b"]);
        assert_eq!(content(&*disk.open("b").unwrap()), b"a");
        assert!(disk.create("b").unwrap().is_empty().unwrap());
        disk.remove("b").unwrap();
        assert!(names(&disk).is_empty());
        file.write_all_at(b"still", 0).unwrap();
        assert_eq!(content(&*file), b"still");
    }

    #[test]
    fn a_missing_file_is_not_found() {
        let (_directory, disk) = disk();
        for error in [
            disk.open("a").map(drop).unwrap_err(),
            disk.remove("a").unwrap_err(),
            disk.rename("a", "b").unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let (_directory, disk) = disk();
        disk.create("a").unwrap();
        for name in ["", ".", "..", "/a", "../a", "a/b"] {
            for result in [
                disk.open(name).map(drop),
                disk.create(name).map(drop),
                disk.remove(name),
                disk.rename(name, "b"),
                disk.rename("a", name),
            ] {
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
            }
        }
        assert_eq!(names(&disk), ["a"]);
    }

    #[test]
    fn only_the_owner_reads_it() {
        let (_directory, disk) = disk();
        disk.create("a").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&disk.path), 0o700);
        assert_eq!(mode(&disk.path.join("a")), 0o600);
    }

    #[test]
    fn directories_are_not_listed() {
        let (_directory, disk) = disk();
        std::fs::create_dir(disk.path.join("lost+found")).unwrap();
        assert!(names(&disk).is_empty());
    }

    #[test]
    fn the_same_directory_opens_again() {
        let (_directory, disk) = disk();
        disk.create("a").unwrap();
        let again = FileSystem::open(&disk.path).unwrap();
        assert_eq!(names(&again), ["a"]);
        assert!(again.free_bytes().unwrap() > 0);
        assert!(FileSystem::open(&disk.path.join("a")).is_err());
    }
}
