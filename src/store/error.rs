//! What can go wrong, by what the caller can do about it.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::MediaRecord;
use crate::types::{ContentHash, UnixMillis};

/// Why the store did not do what it was asked.
///
/// It can be cloned, so that all who wait for one piece of work hear of its failure.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// There is no room for more; reading still works.
    #[error("the disk is full")]
    Full,
    /// Another process holds the database; worth another try later.
    #[error("the database is locked by another process")]
    Busy,
    /// The bytes on disk are not those that were stored.
    #[error("blob {content_hash} does not match its checksums")]
    Corrupt {
        /// The blob that must not be served.
        content_hash: ContentHash,
    },
    /// A record names a blob that is not there.
    #[error("blob {content_hash} is missing")]
    Missing {
        /// The blob that is not there.
        content_hash: ContentHash,
    },
    /// The media has a record, which stays as it is.
    #[error("{} is stored already", .0.mxc)]
    AlreadyExists(Box<MediaRecord>),
    /// The user has reserved as many media ids as allowed; nothing is wrong with the store.
    #[error("the user has reserved as many media ids as are allowed")]
    TooManyReserved {
        /// When the first of them expires, or the moment of asking if none is allowed at all.
        earliest_expiry: UnixMillis,
    },
    /// As many thumbnails of the content are kept as allowed; nothing is wrong with the store.
    #[error("as many thumbnails of this content are kept as are allowed")]
    TooManyVariants,
    /// A write was given up halfway, so that nobody knows what of it is in the file.
    #[error("a write to the staged body was given up halfway")]
    Torn,
    /// The store is being closed.
    #[error("the store is closing")]
    Stopped,
    /// The file system failed.
    #[error("cannot {action}: {error}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the system answered.
        error: Arc<io::Error>,
    },
    /// The database failed, in its own words.
    #[error("the database failed: {0}")]
    Database(Arc<str>),
}

impl StoreError {
    /// Says what was being done when the file system failed.
    pub(super) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { action, error: Arc::new(error) },
        }
    }
}

/// Why a store cannot be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The path names something else.
    #[error("{} is not a directory; name a directory as the storage path", .0.display())]
    NotADirectory(PathBuf),
    /// Every local user could plant or remove media.
    #[error("{} can be written by everybody; take that away with `chmod o-w` and look what is in it", .0.display())]
    WorldWritable(PathBuf),
    /// The process lacks the permission, or the file system is mounted read-only.
    #[error(
        "{} cannot be written; give it to the user that Mediary runs as and check that its file \
         system is not mounted read-only ({error})",
        .path.display()
    )]
    NotWritable {
        /// What cannot be written.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// There is no room for the few files that a store begins with.
    #[error("{} cannot be opened: its disk is full; make room first", .0.display())]
    Full(PathBuf),
    /// A finished body could not be moved into its place in one step.
    #[error(
        "tmp, blobs and corrupt in {} lie on different file systems; put all three on one, or the \
         whole storage path on the larger disk",
        .0.display()
    )]
    SplitFileSystem(PathBuf),
    /// Another process has this store open.
    #[error("{} is in use by another Mediary; stop it, or give each its own storage path", .0.display())]
    InUse(PathBuf),
    /// There are blobs that only a lost database could name.
    #[error(
        "{} is missing or empty, but there are blobs beside it; restore the database from a backup, \
         or move the blobs directory away to begin with an empty store",
        .0.display()
    )]
    MissingDatabase(PathBuf),
    /// The database file is broken.
    #[error(
        "{} is damaged ({detail}); restore it from a backup, or repair it with `sqlite3 .recover`",
        .path.display()
    )]
    DamagedDatabase {
        /// The database file.
        path: PathBuf,
        /// The first fault that was found.
        detail: String,
    },
    /// The database was written by a later release.
    #[error(
        "{} has schema version {found}, this Mediary knows versions up to {known}; run the newer \
         Mediary again, or restore the backup made before it",
        .path.display()
    )]
    NewerDatabase {
        /// The database file.
        path: PathBuf,
        /// The version that the file has.
        found: i64,
        /// The newest version that is known here.
        known: usize,
    },
    /// The database cannot be opened or migrated for another reason.
    #[error("{} cannot be opened: {detail}", .path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// The reason in the database's own words.
        detail: String,
    },
    /// The file system failed.
    #[error("{} cannot be opened: {error}", .path.display())]
    Io {
        /// What was being opened.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
}

impl OpenError {
    /// Says which path the file system failed at.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { path, error }
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full(path),
            _ => Self::Io { path, error },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_used_up_quota_are_full() {
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let error = StoreError::io("write")(io::Error::from(kind));
            assert!(matches!(error, StoreError::Full), "{error}");
            let error = OpenError::io(Path::new("media"))(io::Error::from(kind));
            assert!(matches!(error, OpenError::Full(_)), "{error}");
        }
    }

    #[test]
    fn a_read_only_file_system_is_not_writable() {
        for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
            let error = OpenError::io(Path::new("media"))(io::Error::from(kind));
            assert!(matches!(error, OpenError::NotWritable { .. }), "{error}");
        }
    }
}
