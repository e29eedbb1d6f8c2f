//! JPEG, decoded by libjpeg-turbo at the smallest scale that is large enough.
//!
//! The inverse transform gives a picture of a half, a quarter or an eighth of the size for less work than
//! the whole. Most photographs are kept as they are stored, a plane of luma and two of chroma, so that no
//! pixel is converted to red, green and blue and back.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};

use image::{DynamicImage, GrayImage, RgbImage, RgbaImage};
use turbojpeg::{
    Colorspace, DecompressHeader, Decompressor, Image, PixelFormat, ScalingFactor, Subsamp,
    YuvImage,
};

use super::image_rs::ImageSource;
use super::jpeg_header::{JpegHeader, most_coefficient_bytes};
use super::{Header, Pixels, Source};
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::format::Format;
use crate::thumbnail::limits::Limits;
use crate::types::ThumbnailSize;

/// The most scans of a progressive picture; encoders make about ten (threats IM-05).
const MAX_SCANS: u32 = 100;

/// The scales in eighths, smallest first. The others are computed without vector instructions.
const SCALES: [u32; 4] = [1, 2, 4, 8];

/// The pixels of a JPEG.
#[derive(Debug)]
pub(in crate::thumbnail) struct JpegPixels {
    /// What they are.
    pub(in crate::thumbnail) channels: JpegChannels,
    /// The scale that they were decoded at, in eighths. The sides are rounded up from it, so the picture
    /// ends in the last pixel, not necessarily behind it.
    pub(in crate::thumbnail) eighths: u32,
}

/// What a JPEG is made of.
#[derive(Debug)]
pub(in crate::thumbnail) enum JpegChannels {
    /// Luma alone, or red, green and blue.
    Image(DynamicImage),
    /// Luma and chroma in planes of their own.
    Planes(Planes),
    /// How much of the paper each ink (cyan, magenta, yellow, black) leaves white: 255 is no ink.
    Inks(RgbaImage),
}

/// A plane of luma and two of chroma, of full range (JFIF 1.02).
#[derive(Debug)]
pub(in crate::thumbnail) struct Planes {
    /// The planes, one behind the other without gaps.
    samples: Vec<u8>,
    /// The size of one plane of chroma.
    chroma: ThumbnailSize,
    /// How many samples of luma there are for one of chroma, across and down.
    subsampling: ThumbnailSize,
}

impl Planes {
    /// Returns how many samples of luma there are for one of chroma, across and down.
    pub(in crate::thumbnail) fn subsampling(&self) -> ThumbnailSize {
        self.subsampling
    }

    /// Returns the sizes of the planes: luma, blue, red. That of luma is filled up to whole samples of chroma.
    pub(in crate::thumbnail) fn sizes(&self) -> [ThumbnailSize; 3] {
        let luma = ThumbnailSize {
            width: self.chroma.width * self.subsampling.width,
            height: self.chroma.height * self.subsampling.height,
        };
        [luma, self.chroma, self.chroma]
    }

    /// Returns the samples of the planes, row by row: luma, blue, red.
    pub(in crate::thumbnail) fn samples(&self) -> [&[u8]; 3] {
        let [luma, blue, _] = self.sizes().map(area);
        let (luma, rest) = self.samples.split_at(luma);
        let (blue, red) = rest.split_at(blue);
        [luma, blue, red]
    }
}

/// A JPEG whose header has been read.
struct JpegSource {
    file: Vec<u8>,
    limits: Limits,
    header: Header,
    profile: Option<Vec<u8>>,
    by_adobe: bool,
    first_scan: usize,
    decompressor: Decompressor,
    stored: DecompressHeader,
}

/// Reads the whole file; its header decides whether anything of it is decoded.
///
/// What libjpeg-turbo takes for damaged is left to the decoder of the `image` crate, which is slower and
/// shows more of it: of a file that was cut off in the middle, for example, the upper half.
///
/// # Errors
///
/// As [`super::open`].
pub(super) fn open(
    reader: BufReader<File>,
    length: u64,
    limits: &Limits,
) -> Result<Box<dyn Source>, ThumbnailError> {
    check("file", length, limits.max_jpeg_bytes())?;
    let mut file = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    // A file that grows meanwhile is read as far as it was long.
    reader.take(length).read_to_end(&mut file)?;
    match JpegSource::open(&file, limits) {
        Ok(opened) => Ok(Box::new(JpegSource { file, limits: *limits, ..opened })),
        Err(ThumbnailError::Damaged(_)) => Ok(Box::new(open_damaged(file, limits)?)),
        Err(error) => Err(error),
    }
}

/// Opens what libjpeg-turbo takes for damaged by the other decoder.
///
/// That one holds coefficients, too, and counts none of them: either our own walk has, and both decoders
/// speak of the same size, or as many as there can be have to be within the limits.
fn open_damaged(file: Vec<u8>, limits: &Limits) -> Result<ImageSource, ThumbnailError> {
    let walked = JpegHeader::parse(&file).ok();
    let again = ImageSource::open_jpeg(Cursor::new(file), limits)?;
    let size = again.header().size;
    let coefficient_bytes = match walked {
        Some(walked) if walked.size == size => walked.coefficient_bytes,
        _ => most_coefficient_bytes(size),
    };
    check("coefficients", coefficient_bytes, limits.max_decoding_bytes())?;
    Ok(again)
}

impl JpegSource {
    /// Reads the header of a file, without keeping that.
    fn open(file: &[u8], limits: &Limits) -> Result<Self, ThumbnailError> {
        let JpegHeader { size, orientation, profile, by_adobe, coefficient_bytes, first_scan } =
            JpegHeader::parse(file)?;
        limits.check(size)?;
        check("coefficients", coefficient_bytes, limits.max_decoding_bytes())?;
        let mut decompressor = Decompressor::new().map_err(failed)?;
        decompressor.set_scan_limit(MAX_SCANS).map_err(failed)?;
        let stored = decompressor.read_header(file).map_err(failed)?;
        // The limits were checked for the size that the walk has found.
        if size_of(&stored)? != size {
            return Err(damaged("two sizes"));
        }
        let header = Header { format: Format::Jpeg, size, animated: false, orientation };
        let (file, limits) = (Vec::new(), *limits);
        Ok(Self { file, limits, header, profile, by_adobe, first_scan, decompressor, stored })
    }

    /// Decodes at the scale that has been set, into the channels that the file holds.
    fn channels(&mut self, scaled: &DecompressHeader) -> Result<JpegChannels, ThumbnailError> {
        match (scaled.colorspace, scaled.subsamp) {
            (Colorspace::YCbCr, Subsamp::Unknown) | (Colorspace::RGB, _) => {
                let image = self.interleaved(scaled, PixelFormat::RGB, RgbImage::from_raw)?;
                Ok(JpegChannels::Image(image.into()))
            }
            (Colorspace::YCbCr, _) => Ok(JpegChannels::Planes(self.planes(scaled)?)),
            (Colorspace::Gray, _) => {
                let image = self.interleaved(scaled, PixelFormat::GRAY, GrayImage::from_raw)?;
                Ok(JpegChannels::Image(image.into()))
            }
            (Colorspace::CMYK | Colorspace::YCCK, _) => {
                let mut inks = self.interleaved(scaled, PixelFormat::CMYK, RgbaImage::from_raw)?;
                // Adobe writes them the other way around, and everybody who writes the marker does, too.
                if !self.by_adobe {
                    inks.iter_mut().for_each(|ink| *ink = !*ink);
                }
                Ok(JpegChannels::Inks(inks))
            }
        }
    }

    /// Decodes into one buffer and makes an image of it.
    fn interleaved<T>(
        &mut self,
        scaled: &DecompressHeader,
        format: PixelFormat,
        image: impl FnOnce(u32, u32, Vec<u8>) -> Option<T>,
    ) -> Result<T, ThumbnailError> {
        let size = size_of(scaled)?;
        let (width, height) = (scaled.width, scaled.height);
        let pitch = width * format.size();
        let mut pixels = vec![0; pitch * height];
        let output = Image { pixels: &mut pixels[..], width, pitch, height, format };
        let outcome = self.decompressor.decompress(&self.file, output);
        forgive(outcome, self.scans())?;
        image(size.width, size.height, pixels).ok_or_else(|| damaged("a size that changes"))
    }

    /// Returns the file from its first scan on: what is before may hold whole pictures, with their ends.
    fn scans(&self) -> &[u8] {
        self.file.get(self.first_scan..).unwrap_or_default()
    }

    fn planes(&mut self, scaled: &DecompressHeader) -> Result<Planes, ThumbnailError> {
        let size = size_of(scaled)?;
        let DecompressHeader { width, height, subsamp, .. } = *scaled;
        let length = turbojpeg::yuv_pixels_len(width, 1, height, subsamp).map_err(failed)?;
        let mut samples = vec![0; length];
        let output = YuvImage { pixels: &mut samples[..], width, align: 1, height, subsamp };
        let outcome = self.decompressor.decompress_to_yuv(&self.file, output);
        forgive(outcome, self.scans())?;
        let (across, down) = match subsamp {
            Subsamp::Sub2x1 => (2, 1),
            Subsamp::Sub2x2 => (2, 2),
            Subsamp::Sub1x2 => (1, 2),
            Subsamp::Sub4x1 => (4, 1),
            Subsamp::Sub1x4 => (1, 4),
            _ => (1, 1),
        };
        let subsampling = ThumbnailSize { width: across, height: down };
        let chroma = ThumbnailSize {
            width: size.width.div_ceil(across),
            height: size.height.div_ceil(down),
        };
        let planes = Planes { samples, chroma, subsampling };
        let counted: usize = planes.sizes().map(area).iter().sum();
        if counted == length { Ok(planes) } else { Err(damaged("planes of another size")) }
    }
}

impl Source for JpegSource {
    fn header(&self) -> &Header {
        &self.header
    }

    fn color_profile(&mut self) -> Option<Vec<u8>> {
        self.profile.take()
    }

    fn decode(mut self: Box<Self>, at_least: ThumbnailSize) -> Result<Pixels, ThumbnailError> {
        // Lossless pictures have no transform that could give less.
        let eighths = if self.stored.is_lossless { 8 } else { scale(self.header.size, at_least) };
        let factor = ScalingFactor::new(eighths as usize, 8);
        self.decompressor.set_scaling_factor(factor).map_err(failed)?;
        let scaled = self.stored.scaled(factor);
        match self.channels(&scaled) {
            Ok(channels) => Ok(Pixels::Jpeg(JpegPixels { channels, eighths })),
            Err(ThumbnailError::Damaged(_)) => {
                // Its memory goes before the other decoder takes its own.
                let Self { file, limits, .. } = *self;
                Box::new(open_damaged(file, &limits)?).decode(at_least)
            }
            Err(error) => Err(error),
        }
    }
}

/// Returns the smallest scale, in eighths, that leaves both sides as long as asked; the full one if none does.
fn scale(stored: ThumbnailSize, at_least: ThumbnailSize) -> u32 {
    let is_enough = |eighths: &u32| {
        // Not rounded up: the last pixel may be there only in part.
        let leaves =
            |side: u32, least| u64::from(side) * u64::from(*eighths) >= 8 * u64::from(least);
        leaves(stored.width, at_least.width) && leaves(stored.height, at_least.height)
    };
    SCALES.into_iter().find(is_enough).unwrap_or(8)
}

fn size_of(header: &DecompressHeader) -> Result<ThumbnailSize, ThumbnailError> {
    let side = |pixels: usize| u32::try_from(pixels).map_err(|_| damaged("an endless side"));
    Ok(ThumbnailSize { width: side(header.width)?, height: side(header.height)? })
}

/// Returns the pixels of a size.
fn area(size: ThumbnailSize) -> usize {
    size.width as usize * size.height as usize
}

/// Lets pass what the decoder warns of if the picture is there from its start to its end.
///
/// It decodes on after a warning, and fails then as after an error; the text alone tells the two apart,
/// and only the first warning is kept. Cameras and messengers write many files with a few bytes too many.
/// One whose end marker is missing was cut off, which is for the other decoder to judge.
fn forgive(outcome: turbojpeg::Result<()>, scans: &[u8]) -> Result<(), ThumbnailError> {
    const WARNINGS: [&str; 4] = [
        "Corrupt JPEG data: ",
        "Inconsistent progression sequence",
        "Unknown Adobe color transform",
        "Warning: ",
    ];
    const END_OF_IMAGE: &[u8] = b"\xff\xd9";
    match outcome {
        Err(turbojpeg::Error::TurboJpegError(text))
            if WARNINGS.iter().any(|warning| text.starts_with(warning))
                && memchr::memmem::rfind(scans, END_OF_IMAGE).is_some() =>
        {
            Ok(())
        }
        outcome => outcome.map_err(failed),
    }
}

/// Tells what is too much from what is damaged: the former is not tried again. The decoder has numbers for
/// neither, only texts.
fn failed(error: turbojpeg::Error) -> ThumbnailError {
    const TOO_MUCH: [&str; 3] = [
        "Progressive JPEG image has more than ",
        "Insufficient memory",
        "Memory allocation failure",
    ];
    match error {
        turbojpeg::Error::TurboJpegError(text)
            if TOO_MUCH.iter().any(|beginning| text.contains(beginning)) =>
        {
            ThumbnailError::TooLarge(text)
        }
        turbojpeg::Error::Null => ThumbnailError::TooLarge(error.to_string()),
        error => damaged(&error.to_string()),
    }
}

fn damaged(what: &str) -> ThumbnailError {
    ThumbnailError::Damaged(what.to_owned())
}

fn check(what: &str, bytes: u64, limit: u64) -> Result<(), ThumbnailError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(ThumbnailError::TooLarge(format!("{what} of {bytes} bytes, allowed are {limit}")))
}
