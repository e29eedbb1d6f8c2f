//! What is asked of a worker, and what comes back: values only, the same in this process and in another.

use serde::{Deserialize, Serialize};

use super::limits::Limits;
use crate::types::{MovingEncoding, ThumbnailSize, ThumbnailSpec};

/// Thumbnails to make of one source: it is decoded once for all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What to make, at least one.
    pub specs: Vec<ThumbnailSpec>,
    /// What the source may cost.
    pub limits: Limits,
    /// What moving thumbnails are encoded as.
    pub moving: MovingEncoding,
    /// Whether the source is a picture that a program has taken out of what was uploaded, and has turned.
    /// Such a source is never itself the answer.
    pub is_extracted: bool,
}

/// What is to be sent as a thumbnail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rendered {
    /// The source itself, byte for byte (CS-TH-06). It has been decoded once, so it is a picture.
    Original {
        /// What it really is, whatever its uploader called it (CS-HDR-07).
        content_type: &'static str,
    },
    /// A picture made anew, without any metadata of the source.
    Encoded {
        /// The file.
        bytes: Vec<u8>,
        /// Its type, of the list that thumbnails may have (CS-HDR-07).
        content_type: &'static str,
        /// Its size in pixels.
        size: ThumbnailSize,
    },
}
