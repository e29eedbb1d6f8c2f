//! From an untrusted file to pixels, under limits: one file for each family of formats, one trait for all.

mod avif;
mod cover;
pub(super) mod gif;
mod ico;
mod id3;
mod image_rs;
mod jpeg;
mod jpeg_header;
mod jxl;
mod svg;
mod webp;
mod webp_still;

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};

use image::DynamicImage;
use image::metadata::Orientation;

use super::error::ThumbnailError;
use super::format::Format;
use super::limits::Limits;
use crate::types::ThumbnailSize;
use avif::AvifSource;
use cover::CoverSource;
use image_rs::ImageSource;
use jxl::JxlSource;
use svg::SvgSource;
use webp_still::WebPSource;

pub(super) use jpeg::{JpegChannels, JpegPixels, Planes};
pub(super) use webp_still::WebPPixels;

/// What the header of a picture says; no pixel has been decoded yet.
#[derive(Debug)]
pub(super) struct Header {
    /// What its first bytes say that it is.
    pub(super) format: Format,
    /// The size as it is stored, before turning.
    pub(super) size: ThumbnailSize,
    /// Whether it moves; in doubt it does.
    pub(super) animated: bool,
    /// How it has to be turned after decoding.
    pub(super) orientation: Orientation,
}

/// The pixels of one picture, not turned yet and in the colours of its own profile.
#[derive(Debug)]
pub(super) enum Pixels {
    /// In a layout that the `image` crate knows; the whole picture, evenly reduced or not.
    Image(DynamicImage),
    /// As a JPEG holds them, at a known part of their size.
    Jpeg(JpegPixels),
    /// As libwebp gives them.
    WebP(WebPPixels),
}

/// A picture whose header has been read and found to be within the limits.
pub(super) trait Source {
    /// Returns what the header says.
    fn header(&self) -> &Header;

    /// Returns the embedded ICC profile; whether it makes sense is for the reader to find out.
    fn color_profile(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// Decodes the picture, or the first one of an animation.
    ///
    /// The result may be smaller than the header says, the whole picture evenly reduced, as long as it
    /// is nowhere smaller than `at_least` (which is in stored orientation, too). Who cannot reduce while
    /// decoding gives the full size.
    ///
    /// # Errors
    ///
    /// `Damaged`, `TooLarge`, `Unsupported` or `Io`.
    fn decode(self: Box<Self>, at_least: ThumbnailSize) -> Result<Pixels, ThumbnailError>;
}

/// Reads the header of a picture, from the start of the file.
///
/// # Errors
///
/// `Unsupported` for everything that is not on the list of formats, `TooLarge` if its pixels are
/// too many, `Damaged` if the header makes no sense, `Io` if the file cannot be read.
pub(super) fn open(mut file: File, limits: &Limits) -> Result<Box<dyn Source>, ThumbnailError> {
    // By its end: `stat` is not for a worker, whose system calls name no files.
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    // Large enough that one read holds everything before the pixels in nearly every picture.
    let mut reader = BufReader::with_capacity(32 * 1024, file);
    match detect(&mut reader)? {
        Format::Audio(kind) => Ok(Box::new(CoverSource::open(reader, kind, limits)?)),
        format => open_picture(reader, format, length, limits),
    }
}

/// Reads the header of a picture of a known format, whose reader is at its start.
fn open_picture(
    mut reader: BufReader<File>,
    format: Format,
    length: u64,
    limits: &Limits,
) -> Result<Box<dyn Source>, ThumbnailError> {
    Ok(match format {
        Format::Jpeg => jpeg::open(reader, length, limits)?,
        Format::Png => Box::new(ImageSource::open_png(reader, limits)?),
        Format::Gif => Box::new(ImageSource::open_gif(reader, limits)?),
        Format::WebP => Box::new(WebPSource::open(reader, length, limits)?),
        Format::Avif => Box::new(AvifSource::open(reader, length, limits)?),
        Format::JpegXl => Box::new(JxlSource::open(reader, length, limits)?),
        Format::Tiff => Box::new(ImageSource::open_tiff(reader, limits)?),
        Format::Bmp => Box::new(ImageSource::open_bmp(reader, limits)?),
        Format::Ico => Box::new(ico::open(&mut reader, limits)?),
        Format::Qoi => Box::new(ImageSource::open_qoi(reader, limits)?),
        Format::Svg => Box::new(SvgSource::open(reader, limits)?),
        Format::Heif | Format::Video(_) | Format::Audio(_) => {
            return Err(ThumbnailError::Unsupported);
        }
    })
}

/// Does once what decoders need and a confined process cannot do: loads the font for drawings. Without
/// it everything works, but drawings have no texts.
pub fn prepare() {
    svg::load_fallback_font();
}

/// Tells the format by the first bytes, and leaves the reader at its start.
fn detect(reader: &mut BufReader<File>) -> Result<Format, ThumbnailError> {
    // A regular file: the first read fills the buffer, or comes to its end.
    let start = reader.fill_buf()?;
    Format::detect(start).ok_or(ThumbnailError::Unsupported)
}

#[cfg(test)]
mod tests;
