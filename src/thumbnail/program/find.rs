//! Which programs are there.

use std::env;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};

use super::deadline::Streams;
use super::inside::NOT_BECOME;
use super::tool::Tool;
use super::{Programs, memfd};
use crate::thumbnail::error::ThumbnailError;

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of what it says is read.
const MOST_SAID: usize = 512;

/// What was found of a program.
#[derive(Debug)]
pub(super) enum Found {
    /// The configuration wants none.
    Unwanted,
    /// It is not installed.
    Missing,
    /// It is there and does not work, for this reason.
    Broken(String),
    /// It is there and has said its version.
    Ready { path: PathBuf, version: String },
}

impl Found {
    /// Says what that means for thumbnails.
    pub(super) fn sentence(&self, tool: Tool) -> String {
        let serves = tool.serves();
        match self {
            Self::Unwanted => format!("{serves} have no thumbnails, as configured"),
            Self::Missing => format!("{serves} have no thumbnails: {}", tool.advice()),
            Self::Broken(reason) => format!("{serves} have no thumbnails: {reason}"),
            Self::Ready { path, version } => {
                format!("{serves} by {tool} {version} at {}", path.display())
            }
        }
    }
}

/// Looks for a program where the configuration says, and tries it.
pub(super) fn find(tool: Tool, wanted: &Path, programs: &Programs) -> Found {
    if wanted.as_os_str().is_empty() {
        return Found::Unwanted;
    }
    let Some(path) = located(wanted) else { return Found::Missing };
    match version(tool, &path, programs) {
        Ok(version) => Found::Ready { path, version },
        Err(reason) => Found::Broken(format!("{} does not work: {reason}", path.display())),
    }
}

/// Returns where a program is: by its path, or by its name along PATH.
fn located(wanted: &Path) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if wanted.components().count() > 1 || wanted.is_absolute() {
        return Some(wanted.to_owned()).filter(is_program);
    }
    let path = env::var_os("PATH")?;
    let mut places = env::split_paths(&path).filter(|directory| directory.is_absolute());
    places.find_map(|directory| Some(directory.join(wanted)).filter(is_program))
}

fn version(tool: Tool, path: &Path, programs: &Programs) -> Result<String, String> {
    let said = said(tool, path, programs).map_err(|error| match error {
        ThumbnailError::Io(error) => error.to_string(),
        error => error.to_string(),
    })?;
    let version = tool.version(&said).map(str::to_owned);
    version.ok_or_else(|| format!("it does not say that it is {tool}"))
}

fn said(tool: Tool, path: &Path, programs: &Programs) -> Result<String, ThumbnailError> {
    let (nothing, output) = (memfd("nothing")?, memfd("version")?);
    let deadline = Instant::now() + PATIENCE;
    let complaints = output.try_clone()?.into();
    let streams = Streams { source: nothing, result: output.try_clone()?, complaints };
    let status = programs.start(path, tool.version_arguments(), streams, deadline)?;
    let mut said = [0; MOST_SAID];
    let length = output.read_at(&mut said, 0)?;
    let said = String::from_utf8_lossy(&said[..length]).into_owned();
    if status.code() == Some(NOT_BECOME.into()) {
        return Err(io::Error::other(said.trim_end().to_owned()).into());
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name_and_by_path() {
        let found = located(Path::new("sh")).expect("a shell");
        assert!(found.is_absolute());
        assert_eq!(located(&found), Some(found));
        for nowhere in ["no-such-program", "/no/such/program", "/", "/etc/passwd", "."] {
            assert_eq!(located(Path::new(nowhere)), None, "{nowhere}");
        }
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let missing = Found::Missing.sentence(Tool::Ffmpeg);
        assert_eq!(missing, "videos have no thumbnails: install ffmpeg, or set thumbnails.ffmpeg");
        let ready =
            Found::Ready { path: PathBuf::from("/usr/bin/ffmpeg"), version: "5.1.9".into() };
        assert_eq!(ready.sentence(Tool::Ffmpeg), "videos by ffmpeg 5.1.9 at /usr/bin/ffmpeg");
    }
}
