//! A decoded picture, and the small ones that are made of it.

use fast_image_resize::images::Image;
use fast_image_resize::{MulDiv, PixelType};
use image::metadata::Orientation::{self, NoTransforms};
use image::{ColorType, DynamicImage, GrayImage, Luma, RgbaImage};

use super::color::{self, ToSrgb};
use super::resize::{Part, resize, resize_packed, resize_plane};
use crate::thumbnail::decode::{JpegChannels, JpegPixels, Pixels, Planes, WebPPixels};
use crate::thumbnail::encode::{Encodable, is_opaque, is_opaque_in};
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::layout::Area;
use crate::types::ThumbnailSize;

/// A decoded picture, from which thumbnails are made; not turned yet, in its own colours.
pub(super) struct Picture {
    channels: Channels,
    /// How long its sides are, as parts of those that are stored.
    scale: (f64, f64),
}

enum Channels {
    /// Eight bits a channel.
    Image(DynamicImage),
    /// The same, with the colours multiplied by the alpha channel.
    Premultiplied(DynamicImage),
    Planes(Planes),
    Inks(DynamicImage),
    /// Three bytes, or four that may have been multiplied, a pixel.
    Packed {
        pixels: WebPPixels,
        is_premultiplied: bool,
    },
}

impl Picture {
    /// Takes what a decoder has given for a picture that is stored in the given size.
    pub(super) fn new(pixels: Pixels, stored: ThumbnailSize) -> Result<Self, ThumbnailError> {
        match pixels {
            Pixels::Image(image) => {
                let across = f64::from(image.width()) / f64::from(stored.width.max(1));
                let down = f64::from(image.height()) / f64::from(stored.height.max(1));
                Ok(Self { channels: Channels::of_image(image)?, scale: (across, down) })
            }
            Pixels::WebP(pixels) => {
                Ok(Self { channels: Channels::of_packed(pixels)?, scale: (1.0, 1.0) })
            }
            Pixels::Jpeg(JpegPixels { channels, eighths }) => {
                let scale = f64::from(eighths) / 8.0;
                let channels = match channels {
                    JpegChannels::Image(image) => Channels::of_image(image)?,
                    JpegChannels::Planes(planes) => Channels::Planes(planes),
                    JpegChannels::Inks(inks) => Channels::Inks(inks.into()),
                };
                Ok(Self { channels, scale: (scale, scale) })
            }
        }
    }

    /// Makes a small picture of a part of it; both are in stored orientation.
    ///
    /// Luma and chroma are kept apart if that is wanted and possible, also when it is turned afterwards.
    pub(super) fn thumbnail(
        &self,
        crop: Area,
        to: ThumbnailSize,
        orientation: Orientation,
        wants_planes: bool,
    ) -> Result<Small, ThumbnailError> {
        let part = Part::scaled(crop, self.scale);
        Ok(match &self.channels {
            Channels::Image(image) => resize(image, part, to)?.into(),
            Channels::Premultiplied(image) => {
                let mut small = resize(image, part, to)?;
                MulDiv::new().divide_alpha_inplace(&mut small).map_err(impossible)?;
                small.into()
            }
            Channels::Packed { pixels, is_premultiplied } => {
                let mut small = resize_packed(pixels, part, to)?;
                if *is_premultiplied {
                    MulDiv::new().divide_alpha_inplace(&mut small).map_err(impossible)?;
                }
                small.into()
            }
            Channels::Inks(inks) => Small::Inks(resize(inks, part, to)?.into_rgba8()),
            // One sample of chroma for four of luma, as JPEG is written.
            Channels::Planes(planes) if wants_planes && has_even_sides(to) => {
                let chroma = ThumbnailSize { width: to.width / 2, height: to.height / 2 };
                let small = self.resize_planes(planes, crop, [to, chroma, chroma])?;
                Small::Encodable(Encodable::Planes(small))
            }
            // The last samples of an odd side stand for one more pixel than there is, and would stand for
            // others after turning.
            Channels::Planes(planes) if wants_planes && orientation == NoTransforms => {
                let [luma, blue, red] = self.resize_planes(planes, crop, [to; 3])?;
                Small::Encodable(Encodable::Planes([luma, halved(&blue), halved(&red)]))
            }
            Channels::Planes(planes) => {
                let small = self.resize_planes(planes, crop, [to; 3])?;
                DynamicImage::from(color::rgb_of_planes(&small)).into()
            }
        })
    }

    fn resize_planes(
        &self,
        planes: &Planes,
        crop: Area,
        to: [ThumbnailSize; 3],
    ) -> Result<[GrayImage; 3], ThumbnailError> {
        let (across, down) = self.scale;
        let of_chroma = (
            across / f64::from(planes.subsampling().width),
            down / f64::from(planes.subsampling().height),
        );
        let ([luma, blue, red], sizes) = (planes.samples(), planes.sizes());
        let [of_luma, of_chroma] = [self.scale, of_chroma].map(|scale| Part::scaled(crop, scale));
        Ok([
            resize_plane(luma, sizes[0], of_luma, to[0])?,
            resize_plane(blue, sizes[1], of_chroma, to[1])?,
            resize_plane(red, sizes[2], of_chroma, to[2])?,
        ])
    }
}

impl Channels {
    /// Brings an image to eight bits, and counts in its transparency: invisible colours must not show.
    fn of_image(image: DynamicImage) -> Result<Self, ThumbnailError> {
        let mut image = with_eight_bits(image);
        if is_opaque(&image) {
            return Ok(Self::Image(image));
        }
        MulDiv::new().multiply_alpha_inplace(&mut image).map_err(impossible)?;
        Ok(Self::Premultiplied(image))
    }

    /// The same for pixels in memory of a decoder's.
    fn of_packed(mut pixels: WebPPixels) -> Result<Self, ThumbnailError> {
        let is_premultiplied = pixels.has_alpha() && !is_opaque_in(pixels.bytes(), 4);
        if is_premultiplied {
            let ThumbnailSize { width, height } = pixels.size();
            let view = Image::from_slice_u8(width, height, pixels.bytes_mut(), PixelType::U8x4);
            let mut view = view.map_err(impossible)?;
            MulDiv::new().multiply_alpha_inplace(&mut view).map_err(impossible)?;
        }
        Ok(Self::Packed { pixels, is_premultiplied })
    }
}

/// More bits would be rounded away after the resize; before it that costs less and the mean of many
/// pixels is the same.
fn with_eight_bits(image: DynamicImage) -> DynamicImage {
    match image.color() {
        ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8 => image,
        ColorType::L16 => image.into_luma8().into(),
        ColorType::La16 => image.into_luma_alpha8().into(),
        color if color.has_alpha() => image.into_rgba8().into(),
        _ => image.into_rgb8().into(),
    }
}

fn has_even_sides(size: ThumbnailSize) -> bool {
    size.width.is_multiple_of(2) && size.height.is_multiple_of(2)
}

/// Returns the mean of each four samples; beyond the end the last one is repeated.
fn halved(plane: &GrayImage) -> GrayImage {
    let (width, height) = plane.dimensions();
    GrayImage::from_fn(width.div_ceil(2), height.div_ceil(2), |x, y| {
        let (right, bottom) = ((2 * x + 1).min(width - 1), (2 * y + 1).min(height - 1));
        let four = [(2 * x, 2 * y), (right, 2 * y), (2 * x, bottom), (right, bottom)];
        let sum: u16 = four.iter().map(|&(x, y)| u16::from(plane.get_pixel(x, y).0[0])).sum();
        Luma([((sum + 2) / 4) as u8])
    })
}

/// A picture of its final size, still in its own colours.
pub(super) enum Small {
    /// In colours that are already those of the thumbnail, or three channels of another profile.
    Encodable(Encodable),
    /// How much white each ink leaves.
    Inks(RgbaImage),
}

impl Small {
    /// Converts its colours, if there is a conversion and it fits.
    pub(super) fn into_srgb(self, to_srgb: Option<&ToSrgb>) -> Encodable {
        match (self, to_srgb) {
            (Self::Encodable(Encodable::Image(image)), Some(to_srgb)) => {
                Encodable::Image(to_srgb.convert(image))
            }
            (Self::Encodable(unchanged), _) => unchanged,
            (Self::Inks(inks), to_srgb) => {
                let converted = to_srgb.and_then(|to_srgb| to_srgb.convert_inks(&inks));
                Encodable::Image(converted.unwrap_or_else(|| color::rgb_of_inks(&inks)).into())
            }
        }
    }
}

impl From<DynamicImage> for Small {
    fn from(image: DynamicImage) -> Self {
        Self::Encodable(Encodable::Image(image))
    }
}

fn impossible(error: impl ToString) -> ThumbnailError {
    ThumbnailError::Damaged(error.to_string())
}
