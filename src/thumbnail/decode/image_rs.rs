//! The formats that the `image` crate decodes as a whole.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::ico::IcoDecoder;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::qoi::QoiDecoder;
use image::codecs::tiff::TiffDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder};

use super::{Header, Pixels, Source, gif, webp};
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::format::Format;
use crate::thumbnail::limits::Limits;
use crate::types::ThumbnailSize;

/// A picture of one of these formats.
pub(super) struct ImageSource {
    decoder: Box<dyn ImageDecoder>,
    header: Header,
}

impl ImageSource {
    /// Opens a JPEG that the faster decoder takes for damaged.
    pub(super) fn open_jpeg(
        file: Cursor<Vec<u8>>,
        limits: &Limits,
    ) -> Result<Self, ThumbnailError> {
        let mut decoder = JpegDecoder::new(file)?;
        let orientation = decoder.orientation()?;
        Self::new(decoder, Format::Jpeg, limits, false, orientation)
    }

    pub(super) fn open_png(
        reader: BufReader<File>,
        limits: &Limits,
    ) -> Result<Self, ThumbnailError> {
        let mut decoder = PngDecoder::with_limits(reader, limits.for_png_header())?;
        let animated = decoder.is_apng()?;
        let orientation = decoder.orientation()?;
        Self::new(decoder, Format::Png, limits, animated, orientation)
    }

    pub(super) fn open_gif(
        mut reader: BufReader<File>,
        limits: &Limits,
    ) -> Result<Self, ThumbnailError> {
        let animated = gif::is_animated(&mut reader)?;
        reader.rewind()?;
        let decoder = GifDecoder::new(reader)?;
        Self::new(decoder, Format::Gif, limits, animated, Orientation::NoTransforms)
    }

    pub(super) fn open_webp(
        mut reader: impl BufRead + Seek + 'static,
        limits: &Limits,
    ) -> Result<Self, ThumbnailError> {
        let webp::Survey { orientation, largest_frame } = webp::survey(&mut reader)?;
        reader.rewind()?;
        let decoder = WebPDecoder::new(reader)?;
        let (width, height) = decoder.dimensions();
        if largest_frame.is_some_and(|frame| frame.width > width || frame.height > height) {
            return Err(ThumbnailError::Damaged("a frame larger than the picture".to_owned()));
        }
        let animated = decoder.has_animation();
        Self::new(decoder, Format::WebP, limits, animated, orientation)
    }

    pub(super) fn open_tiff(
        reader: BufReader<File>,
        limits: &Limits,
    ) -> Result<Self, ThumbnailError> {
        let mut decoder = TiffDecoder::new(reader)?;
        let orientation = decoder.orientation()?;
        Self::new(decoder, Format::Tiff, limits, false, orientation)
    }

    pub(super) fn open_bmp(
        reader: BufReader<File>,
        limits: &Limits,
    ) -> Result<Self, ThumbnailError> {
        Self::new(BmpDecoder::new(reader)?, Format::Bmp, limits, false, Orientation::NoTransforms)
    }

    pub(super) fn open_qoi(
        reader: BufReader<File>,
        limits: &Limits,
    ) -> Result<Self, ThumbnailError> {
        Self::new(QoiDecoder::new(reader)?, Format::Qoi, limits, false, Orientation::NoTransforms)
    }

    /// Opens an icon that has one picture, which is not a PNG.
    pub(super) fn open_icon(
        icon: Cursor<Vec<u8>>,
        limits: &Limits,
    ) -> Result<Self, ThumbnailError> {
        Self::new(IcoDecoder::new(icon)?, Format::Ico, limits, false, Orientation::NoTransforms)
    }

    /// Opens a PNG that is part of an icon.
    pub(super) fn open_png_in_icon(
        png: Cursor<Vec<u8>>,
        limits: &Limits,
    ) -> Result<Self, ThumbnailError> {
        let decoder = PngDecoder::with_limits(png, limits.for_png_header())?;
        Self::new(decoder, Format::Ico, limits, false, Orientation::NoTransforms)
    }

    fn new(
        decoder: impl ImageDecoder + 'static,
        format: Format,
        limits: &Limits,
        animated: bool,
        orientation: Orientation,
    ) -> Result<Self, ThumbnailError> {
        let mut decoder: Box<dyn ImageDecoder> = Box::new(decoder);
        let size = stored_size(&decoder);
        limits.check(size)?;
        let mut budget = limits.for_decoding();
        let of_pixels = decoder.total_bytes();
        budget.clone().reserve(of_pixels)?;
        if format == Format::Tiff {
            // It takes the pixels off by itself; what is left is for the longest strip as it is stored.
            budget.max_alloc = budget.max_alloc.map(|bytes| bytes.saturating_add(of_pixels));
        }
        decoder.set_limits(budget)?;
        Ok(Self { decoder, header: Header { format, size, animated, orientation } })
    }
}

impl Source for ImageSource {
    fn header(&self) -> &Header {
        &self.header
    }

    fn color_profile(&mut self) -> Option<Vec<u8>> {
        self.decoder.icc_profile().ok().flatten()
    }

    fn decode(self: Box<Self>, _: ThumbnailSize) -> Result<Pixels, ThumbnailError> {
        // Numbers with a fraction, of some TIFF files, are more than anybody needs to resize.
        Ok(Pixels::Image(match DynamicImage::from_decoder(self.decoder)? {
            DynamicImage::ImageRgb32F(image) => DynamicImage::from(image).into_rgb8().into(),
            DynamicImage::ImageRgba32F(image) => DynamicImage::from(image).into_rgba8().into(),
            image => image,
        }))
    }
}

fn stored_size(decoder: &impl ImageDecoder) -> ThumbnailSize {
    let (width, height) = decoder.dimensions();
    ThumbnailSize { width, height }
}
