//! The frames of a thumbnail on their way to the encoder.

use image::RgbaImage;

use super::delay::LONGEST_MILLIS;
use crate::thumbnail::error::ThumbnailError;

/// A frame in its place: what it replaces, and what follows.
pub(super) struct Moment<'a> {
    /// The frame before, unless this is the first.
    pub(super) before: Option<&'a RgbaImage>,
    /// What is shown; differs from the one before.
    pub(super) now: &'a RgbaImage,
    /// The frame after, unless this is the last.
    pub(super) after: Option<&'a RgbaImage>,
    /// For how long it is shown, 11 to [`LONGEST_MILLIS`].
    pub(super) millis: u32,
}

/// Writes an animation frame by frame.
pub(super) trait Encoder {
    /// Writes the next frame. All must be as large as the first.
    ///
    /// # Errors
    ///
    /// `Damaged` if the library cannot write it.
    fn add(&mut self, moment: &Moment<'_>) -> Result<(), ThumbnailError>;

    /// Returns the file.
    ///
    /// # Errors
    ///
    /// `Damaged` if it cannot be put together.
    fn finish(self: Box<Self>) -> Result<Vec<u8>, ThumbnailError>;
}

/// Takes frames in, makes one of those that look the same, and hands each on with its neighbours.
pub(super) struct Strip {
    encoder: Box<dyn Encoder>,
    before: Option<RgbaImage>,
    /// The latest frame, and for how long it is shown so far.
    now: Option<(RgbaImage, u32)>,
}

impl Strip {
    pub(super) fn new(encoder: Box<dyn Encoder>) -> Self {
        Self { encoder, before: None, now: None }
    }

    /// Takes the next frame in. All must be as large as the first.
    ///
    /// # Errors
    ///
    /// As [`Encoder::add`].
    pub(super) fn push(&mut self, frame: RgbaImage, millis: u32) -> Result<(), ThumbnailError> {
        if let Some((now, shown)) = &mut self.now
            && *now == frame
        {
            *shown = shown.saturating_add(millis).min(LONGEST_MILLIS);
            return Ok(());
        }
        self.hand_on(Some(&frame))?;
        self.now = Some((frame, millis));
        Ok(())
    }

    /// Returns the file, or `None` if it would show a single frame.
    ///
    /// # Errors
    ///
    /// As [`Encoder::finish`].
    pub(super) fn finish(mut self) -> Result<Option<Vec<u8>>, ThumbnailError> {
        if self.before.is_none() {
            return Ok(None);
        }
        self.hand_on(None)?;
        self.encoder.finish().map(Some)
    }

    fn hand_on(&mut self, after: Option<&RgbaImage>) -> Result<(), ThumbnailError> {
        let Some((now, millis)) = self.now.take() else { return Ok(()) };
        let before = self.before.as_ref();
        self.encoder.add(&Moment { before, now: &now, after, millis })?;
        if after.is_some() {
            self.before = Some(now);
        }
        Ok(())
    }
}
