//! Bodies as files: the only place where a path is made, and only from a content hash.
//!
//! A blob is `blobs/ab/cd/` and the 64 digits of its hash. It comes into being whole, by a rename
//! out of `tmp`, and is never written to afterwards.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::OpenError;
use super::root::{Root, create_directory, create_private, sync_directory};
use crate::types::ContentHash;

/// How the names of unfinished bodies end.
const UNFINISHED: &str = "part";

/// The directories of blobs, of bodies that are still arriving, and of those found corrupt.
#[derive(Debug)]
pub(super) struct Blobs {
    published: PathBuf,
    tmp: PathBuf,
    corrupt: PathBuf,
    next_temp: AtomicU64,
    /// The directories, by the first two bytes of a hash, whose own entries are known to survive a
    /// power cut. That one exists does not tell: another upload may have made it just now, or a
    /// process that died before it could sync it.
    durable_homes: Mutex<HashSet<[u8; 2]>>,
}

impl Blobs {
    /// Opens the directories, makes those that are missing and removes what a crash left in `tmp`.
    pub(super) fn open(root: &Root) -> Result<Self, OpenError> {
        let blobs = Self {
            published: root.directory("blobs")?,
            tmp: root.directory("tmp")?,
            corrupt: root.directory("corrupt")?,
            next_temp: AtomicU64::new(0),
            durable_homes: Mutex::default(),
        };
        blobs.clear_tmp().map_err(OpenError::io(&blobs.tmp))?;
        blobs.try_renames().map_err(|error| match error.kind() {
            ErrorKind::CrossesDevices => OpenError::SplitFileSystem(root.path().to_owned()),
            _ => OpenError::io(root.path())(error),
        })?;
        Ok(blobs)
    }

    /// Removes unfinished bodies, and nothing that has another kind of name: the directory may have
    /// been somebody else's before a mistyped path made it ours.
    fn clear_tmp(&self) -> io::Result<()> {
        let mut leftovers = 0_u64;
        for path in entries(&self.tmp)? {
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(path)?;
                leftovers += 1;
            }
        }
        if leftovers > 0 {
            tracing::info!(leftovers, "removed unfinished bodies that an earlier process left");
        }
        Ok(())
    }

    /// Takes the ways that every blob may go; device numbers would not tell of bind mounts.
    fn try_renames(&self) -> io::Result<()> {
        let [start, middle, end] =
            [&self.tmp, &self.published, &self.corrupt].map(|d| d.join("probe"));
        create_private(&start)?;
        let renamed = fs::rename(&start, &middle).and_then(|()| fs::rename(&middle, &end));
        for path in [&start, &middle, &end] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        renamed
    }

    /// Returns whether there has never been a blob.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        Ok(fs::read_dir(&self.published)?.next().is_none())
    }

    /// Makes a new file for a body that begins to arrive.
    pub(super) fn create_temp(&self) -> io::Result<(TempFile, File)> {
        let number = self.next_temp.fetch_add(1, Ordering::Relaxed);
        let path = self.tmp.join(format!("{number}.{UNFINISHED}"));
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((TempFile { path, renamed: false }, file))
    }

    /// Gives a finished and synced body its name; it survives a power cut once this returns.
    ///
    /// A blob that is there already is replaced: the fresh bytes are known to be right.
    pub(super) fn publish(&self, temp: TempFile, content_hash: &ContentHash) -> io::Result<()> {
        let [first, second, ..] = *content_hash.as_bytes();
        let outer = self.published.join(format!("{first:02x}"));
        let home = outer.join(format!("{second:02x}"));
        let is_durable = self.durable_homes().contains(&[first, second]);
        if !is_durable {
            ensure_directory(&outer)?;
            ensure_directory(&home)?;
        }
        temp.rename(&self.path(content_hash))?;
        // After the rename, so that one commit of the file system's journal serves all three.
        sync_directory(&home)?;
        if !is_durable {
            sync_directory(&outer)?;
            sync_directory(&self.published)?;
            self.durable_homes().insert([first, second]);
        }
        Ok(())
    }

    fn durable_homes(&self) -> MutexGuard<'_, HashSet<[u8; 2]>> {
        self.durable_homes.lock().expect("nothing panics while the set is locked")
    }

    /// Opens a blob for reading.
    pub(super) fn open_blob(&self, content_hash: &ContentHash) -> io::Result<File> {
        File::open(self.path(content_hash))
    }

    /// Returns whether a blob's name still leads to the file that was opened before; `None` stands
    /// for one that was not there.
    pub(super) fn is_still(
        &self,
        content_hash: &ContentHash,
        before: Option<&File>,
    ) -> io::Result<bool> {
        let now = match fs::metadata(self.path(content_hash)) {
            Ok(metadata) => Some((metadata.dev(), metadata.ino())),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let before = before.map(File::metadata).transpose()?;
        Ok(now == before.map(|metadata| (metadata.dev(), metadata.ino())))
    }

    /// Moves a blob out of the way, for somebody to look at.
    pub(super) fn set_aside(&self, content_hash: &ContentHash) -> io::Result<()> {
        fs::rename(self.path(content_hash), self.corrupt.join(content_hash.to_string()))
    }

    /// Removes a blob and returns how many bytes it had.
    pub(super) fn remove(&self, content_hash: &ContentHash) -> io::Result<u64> {
        let path = self.path(content_hash);
        let size = fs::metadata(&path)?.len();
        fs::remove_file(path)?;
        Ok(size)
    }

    /// Returns the blobs whose hash begins with a byte; files with any other name are not ours to
    /// touch.
    pub(super) fn list(&self, first: u8) -> io::Result<Vec<ContentHash>> {
        let mut found = Vec::new();
        for home in entries(&self.published.join(format!("{first:02x}")))? {
            for path in entries(&home)? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                found.extend(name.parse().ok().filter(|hash| self.path(hash) == path));
            }
        }
        Ok(found)
    }

    fn path(&self, content_hash: &ContentHash) -> PathBuf {
        let digits = content_hash.to_string();
        [&digits[..2], &digits[2..4], &digits].iter().fold(self.published.clone(), |p, s| p.join(s))
    }
}

fn ensure_directory(path: &Path) -> io::Result<()> {
    match create_directory(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Lists a directory; one that is not there, or is none, has no entries.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// An unfinished file, removed when this is dropped.
#[derive(Debug)]
pub(super) struct TempFile {
    path: PathBuf,
    renamed: bool,
}

impl TempFile {
    fn rename(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.renamed
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove an unfinished body");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    const HASH: ContentHash = ContentHash([0xab; 32]);

    fn blobs() -> (TempDir, Blobs) {
        let directory = TempDir::new().unwrap();
        let blobs = Blobs::open(&Root::open(directory.path()).unwrap()).unwrap();
        (directory, blobs)
    }

    fn publish(blobs: &Blobs, content_hash: ContentHash, body: &[u8]) {
        let (temp, mut file) = blobs.create_temp().unwrap();
        file.write_all(body).unwrap();
        blobs.publish(temp, &content_hash).unwrap();
    }

    #[test]
    fn a_blob_lies_under_its_hash_and_is_private() {
        let (directory, blobs) = blobs();
        publish(&blobs, HASH, b"body");
        let path = directory.path().join("blobs/ab/ab").join("ab".repeat(32));
        assert_eq!(fs::read(&path).unwrap(), b"body");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn fresh_bytes_replace_a_blob_that_is_there() {
        let (_directory, blobs) = blobs();
        publish(&blobs, HASH, b"rotten");
        let before = blobs.open_blob(&HASH).unwrap();
        assert!(blobs.is_still(&HASH, Some(&before)).unwrap());
        publish(&blobs, HASH, b"fresh");
        assert!(!blobs.is_still(&HASH, Some(&before)).unwrap());
        assert_eq!(io::read_to_string(blobs.open_blob(&HASH).unwrap()).unwrap(), "fresh");
    }

    #[test]
    fn a_temp_file_is_removed_when_it_is_dropped() {
        let (directory, blobs) = blobs();
        let (temp, _file) = blobs.create_temp().unwrap();
        assert_eq!(fs::read_dir(directory.path().join("tmp")).unwrap().count(), 1);
        drop(temp);
        assert_eq!(fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn unfinished_bodies_are_removed_at_open_and_nothing_else() {
        let directory = TempDir::new().unwrap();
        let tmp = directory.path().join("tmp");
        fs::create_dir(&tmp).unwrap();
        for name in ["0.part", "17.part", "letter.txt"] {
            fs::write(tmp.join(name), "half").unwrap();
        }
        Blobs::open(&Root::open(directory.path()).unwrap()).unwrap();
        assert_eq!(entries(&tmp).unwrap(), [tmp.join("letter.txt")]);
    }

    #[test]
    fn only_files_named_as_blobs_in_their_place_are_listed() {
        let (directory, blobs) = blobs();
        publish(&blobs, HASH, b"body");
        let home = directory.path().join("blobs/ab/ab");
        fs::write(home.join("notes.txt"), "").unwrap();
        fs::write(home.join("cd".repeat(32)), "").unwrap();
        fs::write(directory.path().join("blobs/ab/stray"), "").unwrap();
        assert_eq!(blobs.list(0xab).unwrap(), [HASH]);
        assert_eq!(blobs.list(0xac).unwrap(), []);
    }

    #[test]
    fn directories_on_two_file_systems_are_refused() {
        let directory = TempDir::new().unwrap();
        let elsewhere = TempDir::new_in("/dev/shm").unwrap();
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        if device(directory.path()) == device(elsewhere.path()) {
            return; // This machine has one file system for both.
        }
        symlink(elsewhere.path(), directory.path().join("tmp")).unwrap();
        let refused = Blobs::open(&Root::open(directory.path()).unwrap()).unwrap_err();
        assert!(matches!(refused, OpenError::SplitFileSystem(_)), "{refused}");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}
