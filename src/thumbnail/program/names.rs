//! A name with the right ending for a result that is written into memory.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process;

use super::tool::Tool;

/// Where a program finds its standard output.
const OUTPUT: &str = "/proc/self/fd/1";

/// What `heif-convert` calls the first picture of a file with several.
const FIRST: &str = "picture-1.jpg";

/// A directory of our own with links that lead to whatever is the standard output of who follows them: for a
/// program that goes by the ending of a file's name. Removed when it is dropped.
#[derive(Debug)]
pub(super) struct Names {
    directory: PathBuf,
    jpeg: PathBuf,
}

impl Names {
    /// Makes the links in a new directory below that for temporary files.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be written.
    pub(super) fn new() -> io::Result<Self> {
        let directory = new_directory(&std::env::temp_dir())?;
        let names = Self { jpeg: directory.join("picture.jpg"), directory };
        symlink(OUTPUT, &names.jpeg)?;
        symlink(OUTPUT, names.directory.join(FIRST))?;
        Ok(names)
    }

    /// Makes the links for a program that needs some.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub(super) fn new_for(tool: Tool) -> io::Result<Option<Self>> {
        match tool {
            Tool::Ffmpeg => Ok(None),
            Tool::HeifConvert => Self::new().map(Some),
        }
    }

    /// Returns the path of a JPEG file.
    pub(super) fn jpeg(&self) -> &Path {
        &self.jpeg
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // What is left behind is two links that lead nowhere.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Makes a directory that nobody else can write, by a name that is not taken.
fn new_directory(parent: &Path) -> io::Result<PathBuf> {
    const TRIES: u32 = 1000;
    for number in 0..TRIES {
        let path = parent.join(format!("mediary-{}-{number}", process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => return outcome.map(|()| path),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_the_output_and_go_with_their_owner() {
        let (names, others) = (Names::new().unwrap(), Names::new().unwrap());
        assert_ne!(names.directory, others.directory);
        for link in [names.jpeg(), &names.directory.join(FIRST)] {
            assert_eq!(fs::read_link(link).unwrap(), Path::new(OUTPUT));
        }
        let directory = names.directory.clone();
        drop(names);
        assert!(!directory.exists());
    }
}
