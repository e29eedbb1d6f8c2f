//! `[thumbnails]`: which thumbnails are made, of what, and at what cost.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::sections::or_number_of_cores;
use super::value;
use super::words::{SandboxMode, SizesMode};
use crate::types::MovingEncoding;

/// `[thumbnails]`: which thumbnails are made, of what, and at what cost.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct ThumbnailsConfig {
    /// The largest picture that is decoded.
    #[serde(deserialize_with = "value::count")]
    pub max_pixels: u64,
    /// The most frames that a moving thumbnail is made of.
    #[serde(deserialize_with = "value::count")]
    pub max_frames: u32,
    /// The most pixels of all frames of a moving picture together.
    #[serde(deserialize_with = "value::count")]
    pub max_animation_pixels: u64,
    /// How long one source may take to decode, resize and encode.
    #[serde(deserialize_with = "value::duration")]
    pub timeout: Duration,
    /// The ladder of sizes, each for [`parse_thumbnail_size`](super::parse_thumbnail_size).
    pub sizes: Vec<String>,
    /// Whether any other size is brought to the ladder or made as it was asked.
    #[serde(deserialize_with = "value::text")]
    pub mode: SizesMode,
    /// The most thumbnails of one content that are kept.
    #[serde(deserialize_with = "value::count")]
    pub max_variants: u64,
    /// Whether all sizes of the ladder are made when something is uploaded.
    pub on_upload: bool,
    /// What moving thumbnails are encoded as.
    #[serde(deserialize_with = "value::text")]
    pub moving: MovingEncoding,
    /// Whether still ones are WebP for clients that say that they read it.
    pub webp: bool,
    /// The program that takes a picture out of a video; empty for none.
    pub ffmpeg: PathBuf,
    /// The program that decodes HEIC; empty for none.
    pub heif: PathBuf,
    /// How many are made at once; 0 is one for each core.
    #[serde(deserialize_with = "value::count")]
    pub concurrency: usize,
    /// How many requests may wait for their turn.
    #[serde(deserialize_with = "value::count")]
    pub queue: usize,
    /// How much memory a worker process may take.
    #[serde(deserialize_with = "value::size")]
    pub worker_memory: ByteSize,
    /// After how many jobs a worker process is replaced by a fresh one.
    #[serde(deserialize_with = "value::count")]
    pub worker_jobs: u64,
    /// What happens where the kernel cannot lock workers in.
    #[serde(deserialize_with = "value::text")]
    pub sandbox: SandboxMode,
}

impl ThumbnailsConfig {
    /// Returns how many thumbnails are made at once.
    pub fn workers(&self) -> usize {
        or_number_of_cores(self.concurrency)
    }
}

impl Default for ThumbnailsConfig {
    fn default() -> Self {
        let sizes = ["32x32 crop", "96x96 crop", "320x240 scale", "640x480 scale", "800x600 scale"];
        Self {
            max_pixels: 50_000_000,
            max_frames: 500,
            max_animation_pixels: 100_000_000,
            timeout: Duration::from_secs(20),
            sizes: sizes.map(str::to_owned).to_vec(),
            mode: SizesMode::Ladder,
            max_variants: 64,
            on_upload: false,
            moving: MovingEncoding::WebP,
            webp: false,
            ffmpeg: PathBuf::from("ffmpeg"),
            heif: PathBuf::from("heif-convert"),
            concurrency: 0,
            queue: 64,
            worker_memory: ByteSize::mib(512),
            worker_jobs: 100,
            sandbox: SandboxMode::Prefer,
        }
    }
}
