//! Each frame of an animation as its thumbnail shows it.

use fast_image_resize::{ResizeOptions, Resizer};
use image::metadata::Orientation;
use image::{DynamicImage, RgbaImage};

use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::layout::Area;
use crate::types::ThumbnailSize;

/// Cuts, resizes and turns one frame after another in the same way.
pub(super) struct Shrinker {
    resizer: Resizer,
    crop: Area,
    to: ThumbnailSize,
    orientation: Orientation,
}

impl Shrinker {
    /// From a plan for the source as it is stored, before turning.
    pub(super) fn new(crop: Area, to: ThumbnailSize, orientation: Orientation) -> Self {
        Self { resizer: Resizer::new(), crop, to, orientation }
    }

    /// Returns the size after turning.
    pub(super) fn shown_size(&self) -> ThumbnailSize {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        let ThumbnailSize { width, height } = self.to;
        match self.orientation {
            Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH => {
                ThumbnailSize { width: height, height: width }
            }
            _ => self.to,
        }
    }

    /// Returns a frame of the source as it is shown.
    ///
    /// # Errors
    ///
    /// `Damaged` if the frame is smaller than what is to be cut from it.
    pub(super) fn shrink(&mut self, frame: RgbaImage) -> Result<RgbaImage, ThumbnailError> {
        // Counting in transparency takes a copy of the whole frame: not for one that has none.
        let is_opaque = frame.as_raw().chunks_exact(4).all(|pixel| pixel[3] == u8::MAX);
        let Area { left, top, width, height } = self.crop;
        let [left, top, width, height] = [left, top, width, height].map(f64::from);
        let options = ResizeOptions::new().crop(left, top, width, height).use_alpha(!is_opaque);
        let mut small = DynamicImage::new_rgba8(self.to.width, self.to.height);
        self.resizer
            .resize(&DynamicImage::from(frame), &mut small, &options)
            .map_err(|error| ThumbnailError::Damaged(error.to_string()))?;
        small.apply_orientation(self.orientation);
        Ok(small.into_rgba8())
    }
}
