//! From the planes of a video codec to eight bits of red, green and blue.

use image::{GrayImage, RgbImage};
use re_rav1d::pixel::YUVRange;
use re_rav1d::{Picture, PixelLayout, PlanarImageComponent, Plane};

use super::boxes::{Property, damaged};
use crate::thumbnail::error::ThumbnailError;

/// How samples become colours, by the code points of ITU-T H.273.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ColorCode {
    pub(super) primaries: u16,
    pub(super) transfer: u16,
    pub(super) matrix: u16,
    /// What the container says; without it the coded picture is asked.
    pub(super) is_full_range: Option<bool>,
}

impl ColorCode {
    /// Returns what the properties of an item say, or else the default of MIAF: sRGB by way of BT.601.
    pub(super) fn of(properties: &[Property]) -> Self {
        let said = properties.iter().find_map(|property| match *property {
            Property::Nclx { primaries, transfer, matrix, is_full_range } => {
                Some(Self { primaries, transfer, matrix, is_full_range: Some(is_full_range) })
            }
            _ => None,
        });
        said.unwrap_or(Self { primaries: 1, transfer: 13, matrix: 6, is_full_range: None })
    }

    fn is_full_range(self, picture: &Picture) -> bool {
        self.is_full_range.unwrap_or_else(|| picture.color_range() == YUVRange::Full)
    }
}

/// Fixed-point numbers with this many bits behind the point.
const FRACTION: u32 = 16;

/// What a sample counts for in each channel, for samples of one depth.
struct Weights {
    luma_offset: i32,
    chroma_offset: i32,
    luma: i32,
    /// By channel: red, green, blue; each of the first and the second chroma plane.
    chroma: [[i32; 2]; 3],
}

impl Weights {
    fn new(depth: usize, is_full_range: bool, matrix: u16) -> Result<Self, ThumbnailError> {
        let depth = u32::try_from(depth).ok().filter(|depth| (8..=12).contains(depth));
        let depth = depth.ok_or(ThumbnailError::Unsupported)?;
        let one_of_eight_bits = 1 << (depth - 8);
        let (luma_offset, luma_range, chroma_range) = if is_full_range {
            let most = (1 << depth) - 1;
            (0, most, most)
        } else {
            (16 * one_of_eight_bits, 219 * one_of_eight_bits, 224 * one_of_eight_bits)
        };
        let fixed = |factor: f64, range: i32| {
            (factor * 255.0 / f64::from(range) * f64::from(1 << FRACTION)).round() as i32
        };
        Ok(Self {
            luma_offset,
            chroma_offset: 1 << (depth - 1),
            luma: fixed(1.0, luma_range),
            chroma: chroma_factors(matrix)?.map(|two| two.map(|one| fixed(one, chroma_range))),
        })
    }

    fn luma(&self, sample: i32) -> i32 {
        (sample - self.luma_offset) * self.luma
    }

    fn rgb(&self, [luma, first, second]: [i32; 3]) -> [u8; 3] {
        let luma = self.luma(luma);
        let (first, second) = (first - self.chroma_offset, second - self.chroma_offset);
        self.chroma
            .map(|[of_first, of_second]| to_byte(luma + of_first * first + of_second * second))
    }
}

fn to_byte(fixed: i32) -> u8 {
    const HALF: i32 = 1 << (FRACTION - 1);
    ((fixed + HALF) >> FRACTION).clamp(0, 255) as u8
}

/// What the two chroma planes add to red, green and blue (ITU-T H.273, table 4).
fn chroma_factors(matrix: u16) -> Result<[[f64; 2]; 3], ThumbnailError> {
    const YCGCO: u16 = 8;
    let (red, blue) = match matrix {
        1 => (0.2126, 0.0722),
        2 | 5 | 6 => (0.299, 0.114),
        4 => (0.30, 0.11),
        7 => (0.212, 0.087),
        9 | 10 => (0.2627, 0.0593),
        YCGCO => return Ok([[-1.0, 1.0], [1.0, 0.0], [-1.0, -1.0]]),
        _ => return Err(ThumbnailError::Unsupported),
    };
    let green = 1.0 - red - blue;
    let (of_red, of_blue) = (2.0 * (1.0 - red), 2.0 * (1.0 - blue));
    Ok([[0.0, of_red], [-blue * of_blue / green, -red * of_red / green], [of_blue, 0.0]])
}

/// Returns the colours of a picture.
///
/// # Errors
///
/// `Unsupported` for a matrix that is not known.
pub(super) fn to_rgb(picture: &Picture, code: ColorCode) -> Result<RgbImage, ThumbnailError> {
    const IDENTITY: u16 = 0;
    let is_full_range = code.is_full_range(picture);
    let layout = picture.pixel_layout();
    let is_identity = code.matrix == IDENTITY && layout == PixelLayout::I444;
    let matrix = if is_identity || layout == PixelLayout::I400 { 6 } else { code.matrix };
    let weights = Weights::new(picture.bit_depth(), is_full_range, matrix)?;
    let planes = Planes::of(picture);
    let mut rgb = RgbImage::new(picture.width(), picture.height());
    if rgb.is_empty() {
        return Err(damaged("a picture without pixels"));
    }
    for (y, pixels) in rgb.rows_mut().enumerate() {
        let row = planes.row(y);
        for (x, pixel) in pixels.enumerate() {
            let samples = row.at(x);
            pixel.0 = if is_identity {
                let [green, blue, red] = samples.map(|sample| to_byte(weights.luma(sample)));
                [red, green, blue]
            } else {
                weights.rgb(samples)
            };
        }
    }
    Ok(rgb)
}

/// Returns the first plane alone, for transparency and for pictures without colours.
///
/// # Errors
///
/// `Unsupported` for a depth that is not known.
pub(super) fn to_luma(picture: &Picture, code: ColorCode) -> Result<GrayImage, ThumbnailError> {
    let weights = Weights::new(picture.bit_depth(), code.is_full_range(picture), 6)?;
    let planes = Planes::of(picture);
    let mut luma = GrayImage::new(picture.width(), picture.height());
    if luma.is_empty() {
        return Err(damaged("a picture without pixels"));
    }
    for (y, pixels) in luma.rows_mut().enumerate() {
        let row = planes.row(y);
        for (x, pixel) in pixels.enumerate() {
            pixel.0 = [to_byte(weights.luma(row.luma(x)))];
        }
    }
    Ok(luma)
}

/// All planes of a picture, and how much smaller those of chroma are.
struct Planes {
    luma: (Plane, usize),
    chroma: Option<([Plane; 2], usize)>,
    /// By how many bits coordinates are shifted, across and down.
    shifts: (u32, u32),
    depth: usize,
}

impl Planes {
    fn of(picture: &Picture) -> Self {
        use PlanarImageComponent::{U, V, Y};
        let layout = picture.pixel_layout();
        let chroma = || (([U, V].map(|which| picture.plane(which))), picture.stride(U) as usize);
        Self {
            luma: (picture.plane(Y), picture.stride(Y) as usize),
            chroma: (layout != PixelLayout::I400).then(chroma),
            shifts: match layout {
                PixelLayout::I420 => (1, 1),
                PixelLayout::I422 => (1, 0),
                PixelLayout::I444 | PixelLayout::I400 => (0, 0),
            },
            depth: picture.bit_depth(),
        }
    }

    fn row(&self, y: usize) -> Row<'_> {
        let (luma, stride) = &self.luma;
        let (across, down) = self.shifts;
        let chroma = self
            .chroma
            .as_ref()
            .map(|(planes, stride)| planes.each_ref().map(|plane| &plane[(y >> down) * stride..]));
        Row { luma: &luma[y * stride..], chroma, across, depth: self.depth }
    }
}

/// The samples of a row of pixels.
struct Row<'p> {
    luma: &'p [u8],
    chroma: Option<[&'p [u8]; 2]>,
    across: u32,
    depth: usize,
}

impl Row<'_> {
    fn at(&self, x: usize) -> [i32; 3] {
        let luma = self.luma(x);
        let Some(chroma) = self.chroma else {
            // There is none: it would be in the middle.
            let middle = 1 << (self.depth - 1);
            return [luma, middle, middle];
        };
        let [first, second] = chroma.map(|row| self.sample(row, x >> self.across));
        [luma, first, second]
    }

    fn luma(&self, x: usize) -> i32 {
        self.sample(self.luma, x)
    }

    fn sample(&self, row: &[u8], x: usize) -> i32 {
        if self.depth > 8 {
            i32::from(u16::from_ne_bytes([row[2 * x], row[2 * x + 1]]))
        } else {
            i32::from(row[x])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn black_white_and_gray_are_the_same_by_every_matrix_and_depth() {
        for matrix in [1, 2, 4, 5, 6, 7, 8, 9] {
            for depth in [8, 10, 12] {
                let full = Weights::new(depth, true, matrix).expect("it is known");
                let middle = 1 << (depth - 1);
                assert_eq!(full.rgb([0, middle, middle]), [0; 3]);
                assert_eq!(full.rgb([(1 << depth) - 1, middle, middle]), [255; 3]);
                let limited = Weights::new(depth, false, matrix).expect("it is known");
                assert_eq!(limited.rgb([16 << (depth - 8), middle, middle]), [0; 3]);
                assert_eq!(limited.rgb([235 << (depth - 8), middle, middle]), [255; 3]);
                assert_eq!(limited.rgb([0, middle, middle]), [0; 3]);
            }
        }
    }

    #[test]
    fn pure_red_is_red() {
        // BT.601, limited range: what 255, 0, 0 is in YCbCr.
        let weights = Weights::new(8, false, 6).expect("it is known");
        let [red, green, blue] = weights.rgb([81, 90, 240]);
        assert!(red > 252 && green < 3 && blue < 3, "{red} {green} {blue}");
    }

    #[test]
    fn unknown_matrices_and_depths_are_unsupported() {
        assert!(Weights::new(8, true, 14).is_err());
        assert!(Weights::new(16, true, 1).is_err());
        assert!(Weights::new(0, true, 1).is_err());
    }

    #[test]
    fn the_largest_samples_do_not_overflow() {
        for matrix in [1, 2, 4, 7, 8, 9] {
            for depth in [8, 10, 12] {
                let weights = Weights::new(depth, false, matrix).expect("it is known");
                for samples in [[u16::MAX; 3], [0; 3], [0, u16::MAX, 0], [u16::MAX, 0, u16::MAX]] {
                    let _ = weights.rgb(samples.map(|sample| i32::from(sample >> (16 - depth))));
                }
            }
        }
    }
}
