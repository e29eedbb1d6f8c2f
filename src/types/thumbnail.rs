//! What a thumbnail is asked to be.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How an image is brought to the asked size (CS-TH-02).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ThumbnailMethod {
    /// The whole picture, its aspect ratio kept (CS-TH-07).
    Scale,
    /// The asked aspect ratio, cut out of the middle (CS-TH-08).
    Crop,
}

impl ThumbnailMethod {
    /// Returns the word that the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scale => "scale",
            Self::Crop => "crop",
        }
    }
}

/// A box in pixels; both sides are at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ThumbnailSize {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

/// Which encodings whoever asks can read.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum ThumbnailEncoding {
    /// Those that everybody reads: JPEG for what is opaque, PNG for what is not.
    #[default]
    Universal,
    /// WebP as well, for still pictures, because the request says so (`Accept`, RFC 9110 section 12.5.1).
    WebP,
}

/// What a thumbnail that moves is encoded as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MovingEncoding {
    /// Smaller and of more colours (CS-TH-17).
    #[default]
    WebP,
    /// Read by everything, and quicker to make.
    Gif,
}

/// A thumbnail as it is made and stored: what a request's size becomes on the ladder of sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ThumbnailSpec {
    /// The box to fill.
    pub size: ThumbnailSize,
    /// How to fill it.
    pub method: ThumbnailMethod,
    /// Whether a moving source may give a moving thumbnail (CS-TH-14 to CS-TH-16).
    pub animated: bool,
    /// What a still thumbnail may be encoded as.
    pub encoding: ThumbnailEncoding,
}

impl fmt::Display for ThumbnailSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}
