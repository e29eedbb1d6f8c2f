//! Colours as thumbnails have them: red, green and blue of sRGB, without a profile.

use std::cell::RefCell;
use std::sync::Arc;

use image::{ColorType, DynamicImage, GrayAlphaImage, GrayImage, Rgb, RgbImage, RgbaImage};
use moxcms::{ColorProfile, DataColorSpace, Layout, Transform8BitExecutor, TransformOptions};

/// The conversion from an embedded ICC profile to sRGB.
///
/// It is applied to the small picture: the mean of colours is hardly another one before than after it.
pub(super) struct ToSrgb {
    profile: ColorProfile,
    /// The conversions that have been needed: an animation needs the same for each frame.
    transforms: RefCell<Vec<Known>>,
}

/// From which layout to which, and how; nothing if the profile does not allow it.
type Known = (Layout, Layout, Option<Arc<Transform8BitExecutor>>);

impl ToSrgb {
    /// Reads a profile. Returns nothing if it is broken, of another kind than pictures have, or sRGB itself.
    pub(super) fn parse(profile: &[u8]) -> Option<Self> {
        let profile = ColorProfile::new_from_slice(profile).ok()?;
        let to_srgb = Self { profile, transforms: RefCell::default() };
        match to_srgb.profile.color_space {
            DataColorSpace::Rgb => (!to_srgb.changes_nothing()?).then_some(to_srgb),
            DataColorSpace::Gray | DataColorSpace::Cmyk => Some(to_srgb),
            _ => None,
        }
    }

    /// Whether all colours of a coarse grid stay what they are; nothing if the profile cannot be used.
    ///
    /// Most profiles in photographs are sRGB, written down in many ways.
    fn changes_nothing(&self) -> Option<bool> {
        const STEPS: u8 = 5;
        /// What an exact copy differs by after its tables have been rounded.
        const TOLERANCE: u8 = 1;
        let level = |step: u32| u8::try_from(step).unwrap_or(0) * (u8::MAX / STEPS);
        let side = u32::from(STEPS) + 1;
        let grid =
            RgbImage::from_fn(side * side, side, |x, y| Rgb([x / side, x % side, y].map(level)));
        let converted = self.transformed(grid.as_raw(), Layout::Rgb, Layout::Rgb)?;
        let differs = |(one, other): (&u8, &u8)| one.abs_diff(*other) > TOLERANCE;
        Some(!grid.as_raw().iter().zip(&converted).any(differs))
    }

    /// Converts a picture. One that the profile does not fit stays as it is.
    pub(super) fn convert(&self, image: DynamicImage) -> DynamicImage {
        self.converted(&image).unwrap_or(image)
    }

    fn converted(&self, image: &DynamicImage) -> Option<DynamicImage> {
        let (width, height) = (image.width(), image.height());
        match (image.color(), self.profile.color_space) {
            (ColorType::Rgb8, DataColorSpace::Rgb) => {
                let pixels = self.transformed(image.as_bytes(), Layout::Rgb, Layout::Rgb)?;
                Some(RgbImage::from_raw(width, height, pixels)?.into())
            }
            (ColorType::Rgba8, DataColorSpace::Rgb) => {
                let pixels = self.transformed(image.as_bytes(), Layout::Rgba, Layout::Rgba)?;
                Some(RgbaImage::from_raw(width, height, pixels)?.into())
            }
            (ColorType::L8, DataColorSpace::Gray) => {
                let pixels = self.transformed(image.as_bytes(), Layout::Gray, Layout::Rgb)?;
                let luma = pixels.into_iter().step_by(3).collect();
                Some(GrayImage::from_raw(width, height, luma)?.into())
            }
            (ColorType::La8, DataColorSpace::Gray) => {
                let pixels = self.transformed(image.as_bytes(), Layout::GrayAlpha, Layout::Rgba)?;
                let luma = pixels.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[3]]).collect();
                Some(GrayAlphaImage::from_raw(width, height, luma)?.into())
            }
            _ => None,
        }
    }

    /// Converts a picture of inks, given how much white each leaves.
    pub(super) fn convert_inks(&self, inks: &RgbaImage) -> Option<RgbImage> {
        if self.profile.color_space != DataColorSpace::Cmyk {
            return None;
        }
        let amounts: Vec<u8> = inks.as_raw().iter().map(|white| !white).collect();
        let pixels = self.transformed(&amounts, Layout::Rgba, Layout::Rgb)?;
        RgbImage::from_raw(inks.width(), inks.height(), pixels)
    }

    fn transformed(&self, pixels: &[u8], from: Layout, to: Layout) -> Option<Vec<u8>> {
        let transform = self.transform(from, to)?;
        let mut converted = vec![0; pixels.len() / from.channels() * to.channels()];
        transform.transform(pixels, &mut converted).ok()?;
        Some(converted)
    }

    /// Returns the conversion between two layouts; nothing if the profile does not allow it.
    fn transform(&self, from: Layout, to: Layout) -> Option<Arc<Transform8BitExecutor>> {
        let mut transforms = self.transforms.borrow_mut();
        if let Some((.., known)) = transforms.iter().find(|known| (known.0, known.1) == (from, to))
        {
            return known.clone();
        }
        let srgb = ColorProfile::new_srgb();
        let options = TransformOptions::default();
        let made = self.profile.create_transform_8bit(from, &srgb, to, options).ok();
        transforms.push((from, to, made.clone()));
        made
    }
}

/// Converts inks without a profile, given how much white each leaves: black darkens what the others leave.
pub(super) fn rgb_of_inks(inks: &RgbaImage) -> RgbImage {
    let mut rgb = RgbImage::new(inks.width(), inks.height());
    for (ink, pixel) in inks.pixels().zip(rgb.pixels_mut()) {
        let [cyan, magenta, yellow, black] = ink.0.map(u16::from);
        let left = |ink: u16| ((ink * black + 127) / 255) as u8;
        *pixel = Rgb([left(cyan), left(magenta), left(yellow)]);
    }
    rgb
}

/// Converts planes of luma, blue and red of one size (JFIF 1.02, page 3).
pub(super) fn rgb_of_planes([luma, blue, red]: &[GrayImage; 3]) -> RgbImage {
    let mut rgb = RgbImage::new(luma.width(), luma.height());
    let planes = luma.as_raw().iter().zip(blue.as_raw()).zip(red.as_raw());
    for (((luma, blue), red), pixel) in planes.zip(rgb.pixels_mut()) {
        *pixel = Rgb(rgb_of(*luma, *blue, *red));
    }
    rgb
}

fn rgb_of(luma: u8, blue: u8, red: u8) -> [u8; 3] {
    /// Fixed point: the factors are of 65,536ths, rounded.
    const ONE: i32 = 1 << 16;
    const RED: i32 = 91_881;
    const GREEN_BY_BLUE: i32 = 22_554;
    const GREEN_BY_RED: i32 = 46_802;
    const BLUE: i32 = 116_130;
    let luma = i32::from(luma) * ONE + ONE / 2;
    let (blue, red) = (i32::from(blue) - 128, i32::from(red) - 128);
    let sums =
        [luma + RED * red, luma - GREEN_BY_BLUE * blue - GREEN_BY_RED * red, luma + BLUE * blue];
    sums.map(|sum| (sum / ONE).clamp(0, 255) as u8)
}
