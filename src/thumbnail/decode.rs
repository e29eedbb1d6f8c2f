//! From an untrusted file to pixels, under limits.

use std::fs::File;
use std::io::{BufReader, Read, Seek};

use image::codecs::gif::GifDecoder;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder};

use super::error::ThumbnailError;
use super::format::Format;
use super::limits::Limits;
use super::{gif, webp};
use crate::types::ThumbnailSize;

/// A picture whose header has been read and found to be within the limits; no pixel has.
pub(super) struct Source {
    decoder: Box<dyn ImageDecoder>,
    budget: image::Limits,
    /// What its first bytes say that it is.
    pub(super) format: Format,
    /// Whether it moves; in doubt it does.
    pub(super) animated: bool,
    /// How it has to be turned after decoding.
    pub(super) orientation: Orientation,
}

impl Source {
    /// Reads the header of a picture, from the start of the file.
    ///
    /// # Errors
    ///
    /// `Unsupported` for everything that is not on the list of formats, `TooLarge` if its pixels are
    /// too many, `Damaged` if the header makes no sense, `Io` if the file cannot be read.
    pub(super) fn open(mut file: File, limits: &Limits) -> Result<Self, ThumbnailError> {
        file.rewind()?;
        let length = file.metadata()?.len();
        // Large enough that one read holds everything before the pixels in nearly every picture.
        let mut reader = BufReader::with_capacity(32 * 1024, file);
        let format = detect(&mut reader)?;
        let mut source = match format {
            Format::Jpeg => Self::open_jpeg(reader, length, limits)?,
            Format::Png => Self::open_png(reader, limits)?,
            Format::Gif => Self::open_gif(reader, limits)?,
            Format::WebP => Self::open_webp(reader, limits)?,
        };
        limits.check(stored_size(&source.decoder))?;
        source.budget.reserve(source.decoder.total_bytes())?;
        source.decoder.set_limits(source.budget.clone())?;
        Ok(source)
    }

    fn open_jpeg(
        reader: BufReader<File>,
        length: u64,
        limits: &Limits,
    ) -> Result<Self, ThumbnailError> {
        // The decoder holds the whole file in memory.
        if length > limits.max_jpeg_bytes() {
            let limit = limits.max_jpeg_bytes();
            return Err(ThumbnailError::TooLarge(format!("{length} bytes, allowed are {limit}")));
        }
        let mut decoder = JpegDecoder::new(reader)?;
        let orientation = decoder.orientation()?;
        Ok(Self::new(decoder, Format::Jpeg, limits, false, orientation))
    }

    fn open_png(reader: BufReader<File>, limits: &Limits) -> Result<Self, ThumbnailError> {
        let mut decoder = PngDecoder::with_limits(reader, limits.for_png_header())?;
        let animated = decoder.is_apng()?;
        let orientation = decoder.orientation()?;
        Ok(Self::new(decoder, Format::Png, limits, animated, orientation))
    }

    fn open_gif(mut reader: BufReader<File>, limits: &Limits) -> Result<Self, ThumbnailError> {
        let animated = gif::is_animated(&mut reader)?;
        reader.rewind()?;
        let decoder = GifDecoder::new(reader)?;
        Ok(Self::new(decoder, Format::Gif, limits, animated, Orientation::NoTransforms))
    }

    fn open_webp(mut reader: BufReader<File>, limits: &Limits) -> Result<Self, ThumbnailError> {
        let webp::Survey { orientation, largest_frame } = webp::survey(&mut reader)?;
        reader.rewind()?;
        let decoder = WebPDecoder::new(reader)?;
        let (width, height) = decoder.dimensions();
        if largest_frame.is_some_and(|frame| frame.width > width || frame.height > height) {
            return Err(ThumbnailError::Damaged("a frame larger than the picture".to_owned()));
        }
        let animated = decoder.has_animation();
        Ok(Self::new(decoder, Format::WebP, limits, animated, orientation))
    }

    fn new(
        decoder: impl ImageDecoder + 'static,
        format: Format,
        limits: &Limits,
        animated: bool,
        orientation: Orientation,
    ) -> Self {
        let budget = limits.for_decoding();
        Self { decoder: Box::new(decoder), budget, format, animated, orientation }
    }

    /// Returns the size as it is stored, before turning.
    pub(super) fn stored_size(&self) -> ThumbnailSize {
        stored_size(&self.decoder)
    }

    /// Decodes the picture, or the first one of an animation; not turned yet.
    ///
    /// # Errors
    ///
    /// `Damaged`, `TooLarge`, `Unsupported` or `Io`, as for [`open`](Self::open).
    pub(super) fn decode(self) -> Result<DynamicImage, ThumbnailError> {
        Ok(DynamicImage::from_decoder(self.decoder)?)
    }
}

fn detect(reader: &mut BufReader<File>) -> Result<Format, ThumbnailError> {
    let mut start = Vec::with_capacity(Format::MAGIC_LENGTH);
    reader.by_ref().take(Format::MAGIC_LENGTH as u64).read_to_end(&mut start)?;
    reader.rewind()?;
    Format::detect(&start).ok_or(ThumbnailError::Unsupported)
}

fn stored_size(decoder: &impl ImageDecoder) -> ThumbnailSize {
    let (width, height) = decoder.dimensions();
    ThumbnailSize { width, height }
}
