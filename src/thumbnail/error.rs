//! Why a thumbnail could not be made.

use std::io;

use image::ImageError;

/// Why there is no thumbnail; the variants are what a caller can act on.
#[derive(Debug, thiserror::Error)]
pub enum ThumbnailError {
    /// The file is of no format that is read, or uses a part of one that is not (CS-TH-12).
    #[error("a thumbnail cannot be made of this kind of file")]
    Unsupported,
    /// The file says that it is a picture and is not a whole one (CS-TH-12).
    #[error("the picture is damaged: {0}")]
    Damaged(String),
    /// Showing the picture would take more pixels or memory than allowed (CS-TH-13).
    #[error("the picture is too large: {0}")]
    TooLarge(String),
    /// As many thumbnails as allowed are being made and waited for; a later try may succeed.
    #[error("too many thumbnails are being made")]
    Busy,
    /// There is no worker, or what it did was cut off by others and says nothing of the picture; a later
    /// try may succeed.
    #[error("no thumbnail can be made now")]
    Unavailable,
    /// It took longer than one picture may take.
    #[error("the picture takes too long")]
    TimedOut,
    /// It took more memory than a worker has.
    #[error("the picture takes too much memory")]
    OutOfMemory,
    /// The worker died of it, or was taken over.
    #[error("the worker was lost: {0}")]
    Crashed(String),
    /// The file could not be read: the disk's fault, not the picture's.
    #[error("the picture could not be read")]
    Io(#[from] io::Error),
    /// A decoder gave up in a way that it should not have.
    #[error("the decoder panicked: {0}")]
    Panicked(String),
}

impl ThumbnailError {
    /// Returns the same once more, for another who waits for the same.
    pub(super) fn repeated(&self) -> Self {
        match self {
            Self::Unsupported => Self::Unsupported,
            Self::Damaged(text) => Self::Damaged(text.clone()),
            Self::TooLarge(text) => Self::TooLarge(text.clone()),
            Self::Busy => Self::Busy,
            Self::Unavailable => Self::Unavailable,
            Self::TimedOut => Self::TimedOut,
            Self::OutOfMemory => Self::OutOfMemory,
            Self::Crashed(text) => Self::Crashed(text.clone()),
            Self::Io(error) => Self::Io(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            }),
            Self::Panicked(text) => Self::Panicked(text.clone()),
        }
    }
}

impl From<ImageError> for ThumbnailError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Limits(error) => Self::TooLarge(error.to_string()),
            ImageError::Unsupported(_) => Self::Unsupported,
            ImageError::IoError(error) if !is_about_content(&error) => Self::Io(error),
            ImageError::IoError(error) => Self::Damaged(error.to_string()),
            ImageError::Decoding(error) => Self::Damaged(error.to_string()),
            ImageError::Encoding(error) => Self::Damaged(error.to_string()),
            ImageError::Parameter(error) => Self::Damaged(error.to_string()),
        }
    }
}

/// Whether an error is one that decoders invent for bad bytes, rather than one of the disk.
fn is_about_content(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof)
        && error.raw_os_error().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(error: io::Error) -> ThumbnailError {
        ImageError::IoError(error).into()
    }

    #[test]
    fn the_end_of_the_bytes_is_damage_and_a_failing_disk_is_not() {
        let ended = converted(io::ErrorKind::UnexpectedEof.into());
        assert!(matches!(ended, ThumbnailError::Damaged(_)), "{ended:?}");
        let eio = converted(io::Error::from_raw_os_error(5));
        assert!(matches!(eio, ThumbnailError::Io(_)), "{eio:?}");
    }
}
