//! What a worker answers, and what of it is believed: it may have been taken over by a picture, so
//! nothing is taken from it but values of closed lists, and bytes within bounds.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::job::{Job, Rendered};
use crate::types::ThumbnailSize;

/// The most thumbnails that one job makes, so that a job and its answer fit into a packet.
pub const MAX_SPECS: usize = 32;

/// The most bytes that all thumbnails of a job may come to. Still ones of the largest sizes take a
/// few MiB, moving ones some more.
pub(in crate::thumbnail) const MAX_BODY_BYTES: u64 = 64 * 1024 * 1024;

/// The longest text of a failure, in characters; it is for the log.
const MAX_TEXT: usize = 200;

/// Whether a file begins as one of its type does.
type Begins = fn(&[u8]) -> bool;

/// What thumbnails may be (CS-HDR-07), and how such files begin.
const TYPES: [(&str, Begins); 5] = [
    ("image/jpeg", |body| body.starts_with(b"\xff\xd8\xff")),
    ("image/png", |body| body.starts_with(b"\x89PNG\r\n\x1a\n")),
    ("image/apng", |body| body.starts_with(b"\x89PNG\r\n\x1a\n")),
    ("image/gif", |body| body.starts_with(b"GIF8")),
    ("image/webp", |body| body.starts_with(b"RIFF") && body.get(8..12) == Some(b"WEBP")),
];

/// What a worker says of a job. The bodies lie one behind the other in the file that came with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::thumbnail) struct Answer {
    /// What came of it.
    outcome: Result<Vec<Made>, Failure>,
    /// What the worker has used so far.
    pub(in crate::thumbnail) used: Used,
}

/// What a worker has used; it only harms itself if that is not true.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::thumbnail) struct Used {
    /// CPU time over its whole life.
    pub(in crate::thumbnail) cpu: Duration,
    /// Memory that it holds at the moment beside the program itself, in bytes.
    pub(in crate::thumbnail) memory_bytes: u64,
    /// Addresses that it has taken since it was locked in, which its limit counts, in bytes.
    pub(in crate::thumbnail) grown_bytes: u64,
}

/// One thumbnail, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Made {
    Original { content_type: String },
    Encoded { content_type: String, size: ThumbnailSize, bytes: u64 },
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Failure {
    Unsupported,
    Damaged(String),
    TooLarge(String),
    OutOfMemory,
    Io(String),
    Panicked(String),
}

/// A worker said what no worker of ours says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in crate::thumbnail) struct Disbelief(&'static str);

impl Answer {
    /// Writes the bodies of thumbnails to `body` and returns what is to be said of them.
    pub(super) fn new(
        rendered: Result<Vec<Rendered>, ThumbnailError>,
        body: &mut File,
        used: Used,
    ) -> Self {
        let written = rendered.and_then(|rendered| write(&rendered, body));
        Self { outcome: written.map_err(Failure::from), used }
    }

    /// Reads an answer out of a packet.
    ///
    /// # Errors
    ///
    /// The packet is none.
    pub(in crate::thumbnail) fn parse(packet: &[u8]) -> Result<Self, Disbelief> {
        serde_json::from_slice(packet).map_err(|_| Disbelief("its answer is none"))
    }

    /// Holds the answer against what was asked, and reads the bodies. Whatever happens to the file
    /// meanwhile, no more than [`MAX_BODY_BYTES`] are read.
    ///
    /// # Errors
    ///
    /// The answer is not one to that job.
    pub(in crate::thumbnail) fn believe(
        self,
        job: &Job,
        body: &File,
    ) -> Result<Result<Vec<Rendered>, ThumbnailError>, Disbelief> {
        let made = match self.outcome {
            Ok(made) => made,
            Err(failure) => return Ok(Err(failure.into())),
        };
        if made.len() != job.specs.len() {
            return Err(Disbelief("it made another number of thumbnails"));
        }
        let written = body.metadata().map_err(|_| Disbelief("its results cannot be read"))?.len();
        let mut left = written.min(MAX_BODY_BYTES);
        let mut at = 0;
        let mut believe_one = |made| match made {
            // It would be the whole of what the picture was taken out of, by another name.
            Made::Original { .. } if job.is_extracted => {
                Err(Disbelief("it takes a part for the whole"))
            }
            Made::Original { content_type } => {
                let (content_type, _) = known_type(&content_type)?;
                Ok(Rendered::Original { content_type })
            }
            Made::Encoded { content_type, size, bytes } => {
                check_size(size, job)?;
                left = left.checked_sub(bytes).ok_or(Disbelief("its results are too long"))?;
                let bytes = read(body, at, bytes)?;
                at += bytes.len() as u64;
                let (content_type, begins) = known_type(&content_type)?;
                if !begins(&bytes) {
                    return Err(Disbelief("a thumbnail is not what it is called"));
                }
                Ok(Rendered::Encoded { bytes, content_type, size })
            }
        };
        made.into_iter().map(&mut believe_one).collect::<Result<_, _>>().map(Ok)
    }
}

fn write(rendered: &[Rendered], body: &mut File) -> Result<Vec<Made>, ThumbnailError> {
    let lengths = rendered.iter().map(|one| match one {
        Rendered::Original { .. } => 0,
        Rendered::Encoded { bytes, .. } => bytes.len() as u64,
    });
    let length: u64 = lengths.sum();
    if length > MAX_BODY_BYTES {
        return Err(ThumbnailError::TooLarge(format!("the thumbnails are {length} bytes")));
    }
    let mut write_one = |one: &Rendered| match one {
        Rendered::Original { content_type } => {
            Ok(Made::Original { content_type: (*content_type).to_owned() })
        }
        Rendered::Encoded { bytes, content_type, size } => {
            body.write_all(bytes)?;
            let content_type = (*content_type).to_owned();
            Ok(Made::Encoded { content_type, size: *size, bytes: bytes.len() as u64 })
        }
    };
    rendered.iter().map(&mut write_one).collect()
}

fn known_type(name: &str) -> Result<(&'static str, Begins), Disbelief> {
    let known = TYPES.into_iter().find(|(known, _)| *known == name);
    known.ok_or(Disbelief("a thumbnail has a type that thumbnails do not have"))
}

fn check_size(size: ThumbnailSize, job: &Job) -> Result<(), Disbelief> {
    let pixels = u64::from(size.width) * u64::from(size.height);
    if pixels == 0 || pixels > job.limits.max_pixels {
        return Err(Disbelief("a thumbnail has a size that no thumbnail has"));
    }
    Ok(())
}

/// `length` is at most [`MAX_BODY_BYTES`].
fn read(body: &File, at: u64, length: u64) -> Result<Vec<u8>, Disbelief> {
    let short = || Disbelief("its results are shorter than they were");
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| short())?];
    body.read_exact_at(&mut bytes, at).map_err(|_| short())?;
    Ok(bytes)
}

impl From<ThumbnailError> for Failure {
    fn from(error: ThumbnailError) -> Self {
        /// What calls say where a limit on memory is reached.
        const ENOMEM: i32 = 12;
        match error {
            ThumbnailError::Unsupported => Self::Unsupported,
            ThumbnailError::Damaged(text) => Self::Damaged(cleaned(&text)),
            ThumbnailError::TooLarge(text) => Self::TooLarge(cleaned(&text)),
            ThumbnailError::Io(error) if error.raw_os_error() == Some(ENOMEM) => Self::OutOfMemory,
            ThumbnailError::Io(error) => Self::Io(cleaned(&error.to_string())),
            ThumbnailError::Panicked(text) => Self::Panicked(cleaned(&text)),
            ThumbnailError::OutOfMemory => Self::OutOfMemory,
            // Said by the proxy alone.
            error @ (ThumbnailError::Busy
            | ThumbnailError::Unavailable
            | ThumbnailError::TimedOut
            | ThumbnailError::Crashed(_)) => Self::Panicked(error.to_string()),
        }
    }
}

impl From<Failure> for ThumbnailError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unsupported => Self::Unsupported,
            Failure::Damaged(text) => Self::Damaged(cleaned(&text)),
            Failure::TooLarge(text) => Self::TooLarge(cleaned(&text)),
            Failure::OutOfMemory => Self::OutOfMemory,
            Failure::Io(text) => Self::Io(io::Error::other(cleaned(&text))),
            Failure::Panicked(text) => Self::Panicked(cleaned(&text)),
        }
    }
}

/// A picture's words in our log: short, and in one line.
fn cleaned(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().take(MAX_TEXT).map(safe).collect()
}

#[cfg(test)]
mod tests;
