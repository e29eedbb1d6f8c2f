//! The store's directory: checked, locked against a second process, and private.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use super::OpenError;

/// A directory that this process alone uses until the value is dropped.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    _lock: File,
}

impl Root {
    /// Takes a directory; makes it if it is missing, but not its parents, which a mistyped path
    /// would lack.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        open_directory(path)?;
        let lock = path.join("lock");
        let file = create_private(&lock).map_err(OpenError::io(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(OpenError::Io { path: lock, error }),
        }
    }

    /// Returns the directory's own path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a directory inside, which is made if it is missing.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf, OpenError> {
        let path = self.path.join(name);
        open_directory(&path)?;
        Ok(path)
    }

    /// Makes the names of what lies directly in the directory survive a power cut.
    pub(super) fn sync(&self) -> Result<(), OpenError> {
        sync_directory(&self.path).map_err(OpenError::io(&self.path))
    }

    /// Returns the path of the file that holds some space back.
    pub(super) fn reserve(&self) -> PathBuf {
        self.path.join("reserve")
    }

    /// Returns how many bytes of the file system are free for a process without privileges.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let file_system = statvfs(&self.path)?;
        Ok(file_system.f_bavail.saturating_mul(file_system.f_frsize))
    }

    /// Returns the path of the database file, which may not be there.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("mediary.db")
    }
}

/// Makes sure of a directory that not everybody can write to.
fn open_directory(path: &Path) -> Result<(), OpenError> {
    match create_directory(path) {
        Ok(()) => sync_directory(&parent(path)).map_err(OpenError::io(path))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(OpenError::io(path)(error)),
    }
    let metadata = fs::metadata(path).map_err(OpenError::io(path))?;
    if !metadata.is_dir() {
        return Err(OpenError::NotADirectory(path.to_owned()));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(OpenError::WorldWritable(path.to_owned()));
    }
    Ok(())
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes a directory for this user alone.
pub(super) fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Opens a file for writing, which is made for this user alone if it is missing.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Makes the entries of a directory survive a power cut.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_made_belongs_to_this_user_alone() {
        let parent = TempDir::new().unwrap();
        let root = Root::open(&parent.path().join("media")).unwrap();
        assert_eq!(mode(root.path()), 0o700);
        assert_eq!(mode(&root.directory("blobs").unwrap()), 0o700);
        assert_eq!(mode(&root.path().join("lock")), 0o600);
    }

    #[test]
    fn a_second_user_of_the_directory_is_refused_until_the_first_is_gone() {
        let directory = TempDir::new().unwrap();
        let first = Root::open(directory.path()).unwrap();
        let refused = Root::open(directory.path()).unwrap_err();
        assert!(matches!(refused, OpenError::InUse(_)), "{refused}");
        drop(first);
        Root::open(directory.path()).unwrap();
    }

    #[test]
    fn a_directory_that_everybody_can_write_is_refused() {
        let directory = TempDir::new().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let refused = Root::open(directory.path()).unwrap_err();
        assert!(matches!(refused, OpenError::WorldWritable(_)), "{refused}");
    }

    #[test]
    fn a_file_is_not_a_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = Root::open(file.path()).unwrap_err();
        assert!(matches!(refused, OpenError::NotADirectory(_)), "{refused}");
    }

    #[test]
    fn a_missing_parent_is_not_made() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("mistyped/media");
        assert!(matches!(Root::open(&path), Err(OpenError::Io { .. })));
        assert!(!directory.path().join("mistyped").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_refused() {
        let refused = Root::open(Path::new("/sys")).unwrap_err();
        assert!(matches!(refused, OpenError::NotWritable { .. }), "{refused}");
    }
}
