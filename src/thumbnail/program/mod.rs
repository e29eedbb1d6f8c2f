//! Pictures out of videos and HEIC files, by programs that are installed beside Mediary or are not.
//!
//! Such a source takes two steps: the program makes an ordinary picture of it, and a worker makes
//! thumbnails of that. Both are locked in. The program is started by a process of the same binary that
//! locks itself in first and then becomes the program: it reads the source by its descriptor, writes into
//! memory by another, and has neither network, files, nor other programs.

mod deadline;
mod find;
mod inside;
mod names;
mod tool;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Signal, getpid};

use super::error::ThumbnailError;
use super::format::Format;
use super::limits::Limits;
use crate::config::{SandboxMode, ThumbnailsConfig};
use deadline::Streams;
use find::Found;
use names::Names;
use tool::Tool;

use inside::NOT_BECOME;

pub use inside::{ProgramCommand, run as run_program};

/// What the libraries of these programs take, beside what decoding does.
const LIBRARY_BYTES: u64 = 512 * 1024 * 1024;

/// The largest picture that a program may make: 16 megapixels, uncompressed, and its header.
const MAX_STILL_BYTES: u64 = 4096 * 4096 * 4 + 65_536;

/// The programs that take pictures out of what Mediary does not decode itself.
#[derive(Debug)]
pub struct Programs {
    /// The program with the subcommand that locks itself in: mostly this one.
    own: PathBuf,
    memory_bytes: u64,
    /// Whether a program is only started where it is wholly locked in; by landlock it always has to be.
    wholly: bool,
    ffmpeg: Found,
    heif: Found,
}

impl Programs {
    /// Returns no programs at all.
    pub fn none() -> Self {
        Self {
            own: PathBuf::new(),
            memory_bytes: 0,
            wholly: true,
            ffmpeg: Found::Unwanted,
            heif: Found::Unwanted,
        }
    }

    /// Looks for the programs that the configuration names, and has each say its version, locked in as it
    /// will be later. Takes some tens of milliseconds and blocks its thread.
    ///
    /// `own` is the program of Mediary itself, mostly by the path that
    /// [`ProcessSettings::own_program`](super::ProcessSettings::own_program) gives.
    pub fn find(config: &ThumbnailsConfig, own: PathBuf) -> Self {
        let mut programs = Self {
            own,
            memory_bytes: config.worker_memory.as_u64().saturating_add(LIBRARY_BYTES),
            wholly: config.sandbox == SandboxMode::Require,
            ..Self::none()
        };
        programs.ffmpeg = find::find(Tool::Ffmpeg, &config.ffmpeg, &programs);
        programs.heif = find::find(Tool::HeifConvert, &config.heif, &programs);
        if matches!(programs.heif, Found::Ready { .. })
            && let Err(error) = Names::new()
        {
            programs.heif = Found::Broken(format!("no temporary directory: {error}"));
        }
        programs
    }

    /// Says in a sentence each what there is and what is missing.
    pub fn report(&self) -> Vec<String> {
        vec![self.ffmpeg.sentence(Tool::Ffmpeg), self.heif.sentence(Tool::HeifConvert)]
    }

    /// Makes a picture of a source that takes a program, in a file in memory. Returns `None` for all other
    /// sources, and for those whose program is not there. Blocks its thread.
    ///
    /// What comes out is made by a program that has seen a stranger's file: it is to be decoded with as
    /// little trust as that file itself.
    ///
    /// # Errors
    ///
    /// `TimedOut` at the deadline, or `Unavailable` if it hardly had the CPU until then, was killed by somebody
    /// else, or could not be locked in; `Damaged` if the program makes nothing of the source; `TooLarge` or
    /// `Crashed` if it dies of it; `Io` if it cannot be started.
    pub fn extract(
        &self,
        source: &File,
        limits: &Limits,
        deadline: Instant,
    ) -> Result<Option<File>, ThumbnailError> {
        let mut start = [0; Format::LOOKED_AT];
        let length = read_start(source, &mut start)?;
        let Some((tool, format)) = Format::detect(&start[..length])
            .and_then(|format| Some((Tool::needed_for(format)?, format)))
        else {
            return Ok(None);
        };
        let Found::Ready { path, .. } = self.found(tool) else { return Ok(None) };
        // Made for each, since nobody clears up what is left behind, and what is old may be cleared away.
        let names = Names::new_for(tool)?;
        let Some(arguments) = tool.arguments(format, limits, names.as_ref()) else {
            return Ok(None);
        };
        let still = memfd("still")?;
        let streams = Streams {
            source: source.try_clone()?,
            result: still.try_clone()?,
            complaints: Stdio::null(),
        };
        let status = self.start(path, arguments, streams, deadline)?;
        match cause(tool, status) {
            Some(error) => {
                if matches!(error, ThumbnailError::Unavailable) {
                    tracing::warn!(%tool, %status, "a program was not started, or killed from outside");
                }
                Err(error)
            }
            None if still.metadata()?.len() == 0 => {
                Err(ThumbnailError::Damaged(format!("{tool} finds no picture in it")))
            }
            None => Ok(Some(still)),
        }
    }

    /// Returns whether a format takes no program, or one that is there.
    pub(super) fn serve(&self, format: Format) -> bool {
        let is_ready = |tool| matches!(self.found(tool), Found::Ready { .. });
        Tool::needed_for(format).is_none_or(is_ready)
    }

    fn found(&self, tool: Tool) -> &Found {
        match tool {
            Tool::Ffmpeg => &self.ffmpeg,
            Tool::HeifConvert => &self.heif,
        }
    }

    /// Runs a program to its end, or to the deadline.
    fn start(
        &self,
        program: &Path,
        arguments: Vec<String>,
        streams: Streams,
        deadline: Instant,
    ) -> Result<ExitStatus, ThumbnailError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let command = ProgramCommand {
            memory: self.memory_bytes,
            // Of several threads, each of which may be busy for as long.
            cpu: left.saturating_mul(2).max(Duration::from_secs(1)).as_secs(),
            file_bytes: MAX_STILL_BYTES,
            wholly: self.wholly,
            parent: getpid().as_raw_nonzero().get(),
            program: program.to_owned(),
            arguments,
        };
        deadline::run(&self.own, &command, streams, deadline)
    }
}

/// What the way in which a program ended says of the source; one that ended by itself may have made a picture.
fn cause(tool: Tool, status: ExitStatus) -> Option<ThumbnailError> {
    if status.code() == Some(NOT_BECOME.into()) {
        return Some(ThumbnailError::Unavailable);
    }
    let signal = status.signal()?;
    let is = |known: Signal| signal == known.as_raw();
    Some(if [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP].into_iter().any(is) {
        ThumbnailError::Unavailable
    } else if is(Signal::XCPU) {
        ThumbnailError::TimedOut
    } else if is(Signal::XFSZ) {
        ThumbnailError::TooLarge(format!("{tool} makes more than {MAX_STILL_BYTES} bytes of it"))
    } else {
        ThumbnailError::Crashed(format!("{tool}: {status}"))
    })
}

fn memfd(name: &str) -> io::Result<File> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

/// Reads as much of the start of a file as there is room for, and returns how much that is.
fn read_start(file: &File, start: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < start.len() {
        match file.read_at(&mut start[length..], length as u64)? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thumbnail::samples;

    fn ended_by(signal: Signal) -> Option<ThumbnailError> {
        cause(Tool::Ffmpeg, ExitStatus::from_raw(signal.as_raw()))
    }

    #[test]
    fn how_a_program_dies_says_why() {
        assert!(matches!(ended_by(Signal::XCPU), Some(ThumbnailError::TimedOut)));
        assert!(matches!(ended_by(Signal::XFSZ), Some(ThumbnailError::TooLarge(_))));
        for signal in [Signal::KILL, Signal::TERM] {
            let error = ended_by(signal);
            assert!(matches!(error, Some(ThumbnailError::Unavailable)), "{signal:?}");
        }
        let not_become = ExitStatus::from_raw(i32::from(NOT_BECOME) << 8);
        assert!(matches!(cause(Tool::Ffmpeg, not_become), Some(ThumbnailError::Unavailable)));
        for signal in [Signal::SEGV, Signal::SYS, Signal::ABORT] {
            assert!(matches!(ended_by(signal), Some(ThumbnailError::Crashed(_))), "{signal:?}");
        }
        assert!(cause(Tool::Ffmpeg, ExitStatus::from_raw(1 << 8)).is_none());
    }

    #[test]
    fn nothing_is_started_for_pictures_nor_without_programs() {
        let soon = Instant::now() + Duration::from_secs(1);
        let video = b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2\0\0\0\x08moov";
        for source in [&samples::gif(5, 4, 2)[..], b"", b"#EXTM3U\n", video] {
            let source = samples::file(source);
            let extracted = Programs::none().extract(&source, &Limits::default(), soon);
            assert!(matches!(extracted, Ok(None)), "{extracted:?}");
        }
    }
}
