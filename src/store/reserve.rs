//! A little room on the disk, held back for the one thing that must be possible when it is full.
//!
//! To evict is to write: which records are gone stands in the database's log before a file is removed.
//! Without room for those few pages a full disk would stay full.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, fallocate};

use super::root::create_private;

/// How much is held back: enough for the log of a small eviction many times over.
const SIZE: u64 = 1024 * 1024;

/// A file of no use but for the space it takes.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    is_held: AtomicBool,
}

impl Reserve {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, is_held: AtomicBool::new(false) }
    }

    /// Takes the space unless it is held already. If there is none, or the file system cannot set space
    /// apart, that is no failure: only the help in need is missing.
    pub(super) fn hold(&self) {
        if self.is_held.load(Ordering::Relaxed) {
            return;
        }
        match self.allocate() {
            Ok(()) => self.is_held.store(true, Ordering::Relaxed),
            Err(error) => {
                tracing::debug!(%error, "no space is held back for evictions on a full disk");
                // Half of it helps nobody.
                let _ = fs::remove_file(&self.path);
            }
        }
    }

    /// Gives the space back to the disk; returns whether there was any.
    pub(super) fn release(&self) -> bool {
        self.is_held.swap(false, Ordering::Relaxed) && fs::remove_file(&self.path).is_ok()
    }

    fn allocate(&self) -> io::Result<()> {
        let file = create_private(&self.path)?;
        Ok(fallocate(&file, FallocateFlags::empty(), 0, SIZE)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use tempfile::TempDir;

    #[test]
    fn space_is_held_until_it_is_released_and_then_again() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("reserve");
        let reserve = Reserve::new(path.clone());
        for _ in 0..2 {
            reserve.hold();
            reserve.hold();
            let Ok(metadata) = fs::metadata(&path) else {
                return; // This file system sets no space apart.
            };
            assert!(metadata.blocks() * 512 >= SIZE);
            assert!(reserve.release());
            assert!(!reserve.release());
            assert!(!path.exists());
        }
    }

    #[test]
    fn what_cannot_be_held_is_no_failure() {
        let reserve = Reserve::new("/nowhere/reserve".into());
        reserve.hold();
        assert!(!reserve.release());
    }
}
