//! JPEG XL, bare or in its container; of an animation the first picture.

use std::fs::File;
use std::io::BufReader;

use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer, Pixel};
use jxl::api::{
    AlphaMode, Event, ExtraChannel, JxlBasicInfo, JxlColorType, JxlDataFormat, JxlDecoder,
    JxlDecoderOptions, JxlOutputBuffer, JxlPixelFormat,
};

use super::{Header, Pixels, Source};
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::format::Format;
use crate::thumbnail::limits::Limits;
use crate::types::ThumbnailSize;

/// The most channels that a pixel may have: colours, transparency, and a few that are not shown.
const MAX_CHANNELS: u64 = 8;

/// A picture whose header has been read.
pub(super) struct JxlSource {
    decoder: JxlDecoder,
    reader: BufReader<File>,
    layout: JxlColorType,
    profile: Option<Vec<u8>>,
    header: Header,
}

impl JxlSource {
    pub(super) fn open(
        mut reader: BufReader<File>,
        length: u64,
        limits: &Limits,
    ) -> Result<Self, ThumbnailError> {
        limits.check_coded_bytes(length)?;
        let mut options = JxlDecoderOptions::default();
        let max_samples = limits.max_pixels.saturating_mul(MAX_CHANNELS);
        options.sample_limit = Some(usize::try_from(max_samples).unwrap_or(usize::MAX));
        options.alpha_mode = AlphaMode::Unpremultiplied;
        let mut decoder = JxlDecoder::new(options);
        expect(decoder.process(&mut reader, None, None), &[Event::BasicInfo])?;
        let damaged = || ThumbnailError::Damaged("a header that says nothing".to_owned());
        let info = decoder.basic_info().ok_or_else(damaged)?.clone();
        let size = size_of(&info)?;
        limits.check(size)?;
        let colors = decoder.current_pixel_format().ok_or_else(damaged)?.color_type;
        let profile = decoder.output_color_profile().ok_or_else(damaged)?;
        if profile.is_cmyk() {
            return Err(ThumbnailError::Unsupported);
        }
        let profile = profile.try_as_icc().map(|profile| profile.into_owned());
        let layout = layout(&info, colors.is_grayscale());
        decoder.set_pixel_format(pixel_format(&info, layout)).map_err(refused)?;
        // The decoder turns by itself.
        let orientation = Orientation::NoTransforms;
        let header = Header { format: Format::JpegXl, size, animated: false, orientation };
        Ok(Self { decoder, reader, layout, profile, header })
    }

    /// Decodes the first frame, eight bits for each channel.
    fn decode_as<P>(mut self) -> Result<ImageBuffer<P, Vec<u8>>, ThumbnailError>
    where
        P: Pixel<Subpixel = u8>,
    {
        let ThumbnailSize { width, height } = self.header.size;
        let mut image = ImageBuffer::<P, Vec<u8>>::new(width, height);
        let row_length = width as usize * usize::from(P::CHANNEL_COUNT);
        let buffer = JxlOutputBuffer::new(&mut image, height as usize, row_length);
        let buffers = &mut [buffer];
        let mut begun = false;
        loop {
            let event = self.decoder.process(&mut self.reader, Some(&mut buffers[..]), None);
            match event.map_err(refused)? {
                Event::FrameHeader if !begun => begun = true,
                Event::FrameComplete { .. } => break,
                event => return Err(unexpected(event)),
            }
        }
        Ok(image)
    }
}

impl Source for JxlSource {
    fn header(&self) -> &Header {
        &self.header
    }

    fn color_profile(&mut self) -> Option<Vec<u8>> {
        self.profile.take()
    }

    fn decode(self: Box<Self>, _: ThumbnailSize) -> Result<Pixels, ThumbnailError> {
        Ok(Pixels::Image(match self.layout {
            JxlColorType::Grayscale => DynamicImage::ImageLuma8(self.decode_as()?),
            JxlColorType::GrayscaleAlpha => DynamicImage::ImageLumaA8(self.decode_as()?),
            JxlColorType::Rgb => DynamicImage::ImageRgb8(self.decode_as()?),
            JxlColorType::Rgba => DynamicImage::ImageRgba8(self.decode_as()?),
            _ => return Err(ThumbnailError::Unsupported),
        }))
    }
}

fn size_of(info: &JxlBasicInfo) -> Result<ThumbnailSize, ThumbnailError> {
    let too_large = |_| ThumbnailError::TooLarge("a side without end".to_owned());
    Ok(ThumbnailSize {
        width: u32::try_from(info.size.0).map_err(too_large)?,
        height: u32::try_from(info.size.1).map_err(too_large)?,
    })
}

fn layout(info: &JxlBasicInfo, is_gray: bool) -> JxlColorType {
    let has_alpha =
        info.extra_channels.iter().any(|channel| channel.ec_type == ExtraChannel::Alpha);
    match (is_gray, has_alpha) {
        (true, false) => JxlColorType::Grayscale,
        (true, true) => JxlColorType::GrayscaleAlpha,
        (false, false) => JxlColorType::Rgb,
        (false, true) => JxlColorType::Rgba,
    }
}

/// Eight bits for all, and no channels but those that are shown.
fn pixel_format(info: &JxlBasicInfo, color_type: JxlColorType) -> JxlPixelFormat {
    JxlPixelFormat {
        color_type,
        color_data_format: Some(JxlDataFormat::U8 { bit_depth: 8 }),
        extra_channel_format: vec![None; info.extra_channels.len()],
    }
}

fn expect(event: jxl::error::Result<Event>, expected: &[Event]) -> Result<(), ThumbnailError> {
    let event = event.map_err(refused)?;
    if expected.contains(&event) { Ok(()) } else { Err(unexpected(event)) }
}

fn unexpected(event: Event) -> ThumbnailError {
    ThumbnailError::Damaged(match event {
        Event::NeedMoreInput { .. } => "the file ends too early".to_owned(),
        event => format!("unexpected: {event:?}"),
    })
}

fn refused(error: jxl::error::Error) -> ThumbnailError {
    use jxl::error::Error;
    match error {
        Error::ImageSizeTooLarge(..) | Error::ImageDimensionTooLarge(_) | Error::OutOfMemory(_) => {
            ThumbnailError::TooLarge(error.to_string())
        }
        Error::IOError(error) => image::ImageError::IoError(error).into(),
        error => ThumbnailError::Damaged(error.to_string()),
    }
}
