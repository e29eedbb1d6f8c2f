//! From wide and bright colours to sRGB, for pictures that name theirs by code points.

use image::RgbImage;

use super::color::ColorCode;

/// The code points of ITU-T H.273 that matter here.
mod code {
    pub(super) const BT2020: u16 = 9;
    pub(super) const DCI_P3: u16 = 11;
    pub(super) const DISPLAY_P3: u16 = 12;
    pub(super) const LINEAR: u16 = 8;
    pub(super) const PQ: u16 = 16;
    pub(super) const HLG: u16 = 18;
}

/// How bright the white of a page is, in candela per square metre (ITU-R BT.2408).
const REFERENCE_WHITE: f32 = 203.0;

/// How bright the brightest white of a hybrid log-gamma picture is meant to be.
const HLG_PEAK: f32 = 1000.0;

type Matrix = [[f32; 3]; 3];

const FROM_BT2020: Matrix =
    [[1.6605, -0.5876, -0.0729], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1188]];
const FROM_DISPLAY_P3: Matrix =
    [[1.2249, -0.2249, 0.0], [-0.0420, 1.0420, 0.0], [-0.0196, -0.0786, 1.0982]];
const UNCHANGED: Matrix = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

/// Converts a picture to sRGB. What is near enough already stays as it is.
///
/// What is brighter than the white of a page, in pictures that go beyond it, is compressed into the last
/// part of the range.
pub(super) fn to_srgb(rgb: &mut RgbImage, code: ColorCode) {
    let matrix = match code.primaries {
        code::BT2020 => FROM_BT2020,
        code::DCI_P3 | code::DISPLAY_P3 => FROM_DISPLAY_P3,
        _ => UNCHANGED,
    };
    let decode: fn(f32) -> f32 = match code.transfer {
        code::PQ => pq_to_linear,
        code::HLG => hlg_to_linear,
        code::LINEAR => |value| value,
        // The curves of television are near enough to that of sRGB.
        _ if matrix == UNCHANGED => return,
        _ => srgb_to_linear,
    };
    let is_bright = matches!(code.transfer, code::PQ | code::HLG);
    let limit: fn(f32) -> f32 = if is_bright { compress } else { |value| value.clamp(0.0, 1.0) };
    let linear: [f32; 256] = std::array::from_fn(|value| decode(value as f32 / 255.0));
    let encoded: [u8; STEPS + 1] = std::array::from_fn(|step| {
        (linear_to_srgb(step as f32 / STEPS as f32) * 255.0).round() as u8
    });
    for pixel in rgb.pixels_mut() {
        let [red, green, blue] = pixel.0.map(|value| linear[usize::from(value)]);
        pixel.0 = matrix.map(|[of_red, of_green, of_blue]| {
            let value = limit(of_red * red + of_green * green + of_blue * blue);
            encoded[(value * STEPS as f32).round() as usize]
        });
    }
}

/// Fine enough that every step of eight bits of sRGB is reached.
const STEPS: usize = 4096;

/// Brings what is above zero below one; nothing is changed up to a knee.
fn compress(value: f32) -> f32 {
    const KNEE: f32 = 0.7;
    if value <= KNEE {
        return value.max(0.0);
    }
    let room = 1.0 - KNEE;
    KNEE + room * (1.0 - (-(value - KNEE) / room).exp())
}

/// SMPTE ST 2084, relative to the reference white.
fn pq_to_linear(value: f32) -> f32 {
    const M1: f32 = 0.159_301_76;
    const M2: f32 = 78.84375;
    const C1: f32 = 0.835_937_5;
    const C2: f32 = 18.851_563;
    const C3: f32 = 18.6875;
    const PEAK: f32 = 10_000.0;
    let root = value.powf(1.0 / M2);
    ((root - C1).max(0.0) / (C2 - C3 * root)).powf(1.0 / M1) * PEAK / REFERENCE_WHITE
}

/// ITU-R BT.2100, relative to the reference white, with the gamma of a usual screen.
fn hlg_to_linear(value: f32) -> f32 {
    const A: f32 = 0.178_832_77;
    const B: f32 = 0.284_668_92;
    const C: f32 = 0.559_910_7;
    const SYSTEM_GAMMA: f32 = 1.2;
    let scene =
        if value <= 0.5 { value * value / 3.0 } else { (((value - C) / A).exp() + B) / 12.0 };
    scene.powf(SYSTEM_GAMMA) * HLG_PEAK / REFERENCE_WHITE
}

/// IEC 61966-2-1.
fn srgb_to_linear(value: f32) -> f32 {
    if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}

fn linear_to_srgb(value: f32) -> f32 {
    if value <= 0.003_130_8 { value * 12.92 } else { 1.055 * value.powf(1.0 / 2.4) - 0.055 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn converted(primaries: u16, transfer: u16, pixel: [u8; 3]) -> [u8; 3] {
        let mut image = RgbImage::from_pixel(1, 1, Rgb(pixel));
        to_srgb(&mut image, ColorCode { primaries, transfer, ..ColorCode::of(&[]) });
        image.get_pixel(0, 0).0
    }

    #[test]
    fn srgb_is_not_touched() {
        assert_eq!(converted(1, 13, [1, 128, 255]), [1, 128, 255]);
        assert_eq!(converted(2, 2, [1, 128, 255]), [1, 128, 255]);
    }

    #[test]
    fn grays_stay_gray_and_in_order() {
        for primaries in [1, 9, 12] {
            for transfer in [1, 8, 13, 16, 18] {
                let mut last = 0;
                for value in 0..=255 {
                    let [red, green, blue] = converted(primaries, transfer, [value; 3]);
                    assert!(red.abs_diff(green) <= 1 && green.abs_diff(blue) <= 1);
                    assert!(green >= last, "{primaries} {transfer} {value}");
                    last = green;
                }
                assert_eq!(converted(primaries, transfer, [0; 3]), [0; 3]);
                assert!(last > 230, "{primaries} {transfer}: the brightest is {last}");
            }
        }
    }

    #[test]
    fn white_that_is_the_brightest_stays_white() {
        for (primaries, transfer) in [(9, 1), (9, 14), (11, 17), (12, 13), (12, 8), (1, 8)] {
            let white = converted(primaries, transfer, [255; 3]);
            assert_eq!(white, [255; 3], "{primaries} {transfer}");
        }
    }

    #[test]
    fn the_white_of_a_page_stays_bright() {
        // Where the standards put it: 58 % of PQ, 75 % of HLG.
        for (transfer, white) in [(16, 148), (18, 191)] {
            let [red, ..] = converted(9, transfer, [white; 3]);
            assert!((220..=250).contains(&red), "{transfer}: {red}");
        }
    }

    #[test]
    fn a_color_within_both_gamuts_is_found_again() {
        // Display P3 for 200, 100, 50 in sRGB.
        let [red, green, blue] = converted(12, 13, [187, 105, 61]);
        let is_near = |one: u8, other: u8| one.abs_diff(other) <= 4;
        assert!(
            is_near(red, 200) && is_near(green, 100) && is_near(blue, 50),
            "{red} {green} {blue}"
        );
    }
}
