//! What is decoded at a reduced scale and kept in planes looks the same as if it were not.

use image::{GrayImage, Luma, Rgb, RgbImage};
use moxcms::ColorProfile;
use turbojpeg::{Colorspace, Compressor, Image, PixelFormat, Subsamp};

use super::*;
use crate::thumbnail::samples::jpeg_with;

const SUBSAMPLINGS: [Subsamp; 6] = [
    Subsamp::None,
    Subsamp::Sub2x1,
    Subsamp::Sub2x2,
    Subsamp::Sub1x2,
    Subsamp::Sub4x1,
    Subsamp::Sub1x4,
];

fn compressor(subsampling: Subsamp) -> Compressor {
    let mut compressor = Compressor::new().expect("memory");
    compressor.set_quality(95).expect("a quality");
    compressor.set_subsamp(subsampling).expect("a subsampling");
    compressor
}

fn compressed(compressor: &mut Compressor, image: &DynamicImage, format: PixelFormat) -> Vec<u8> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let pitch = width * format.size();
    let image = Image { pixels: image.as_bytes(), width, pitch, height, format };
    compressor.compress_to_vec(image).expect("samples can be encoded")
}

fn subsampled(image: &DynamicImage, subsampling: Subsamp) -> Vec<u8> {
    compressed(&mut compressor(subsampling), image, PixelFormat::RGB)
}

fn progressive(image: &DynamicImage, subsampling: Subsamp) -> Vec<u8> {
    let mut compressor = compressor(subsampling);
    compressor.set_progressive(true).expect("a way to write");
    compressed(&mut compressor, image, PixelFormat::RGB)
}

/// Without black; the bytes say how much white each ink leaves, as Adobe writes them.
fn of_inks(image: &DynamicImage, space: Colorspace) -> Vec<u8> {
    let mut compressor = compressor(Subsamp::None);
    compressor.set_colorspace(space).expect("a space");
    compressed(&mut compressor, &image.to_rgba8().into(), PixelFormat::CMYK)
}

fn with_profile(jpeg: Vec<u8>, profile: &[u8]) -> Vec<u8> {
    jpeg_with(jpeg, 0xe2, &[b"ICC_PROFILE\0\x01\x01", profile].concat())
}

#[test]
fn every_kind_of_jpeg_keeps_its_colours() {
    let image = quarters(800, 400);
    let mut rgb = compressor(Subsamp::None);
    rgb.set_colorspace(Colorspace::RGB).expect("a space");
    let mut sources: Vec<(String, Vec<u8>)> = vec![
        ("RGB".to_owned(), compressed(&mut rgb, &image, PixelFormat::RGB)),
        ("CMYK".to_owned(), of_inks(&image, Colorspace::CMYK)),
        ("YCCK".to_owned(), of_inks(&image, Colorspace::YCCK)),
    ];
    for subsampling in SUBSAMPLINGS {
        sources.push((format!("{subsampling:?}"), subsampled(&image, subsampling)));
        sources.push((format!("progressive {subsampling:?}"), progressive(&image, subsampling)));
    }
    for (what, source) in sources {
        for asked in [spec(40, 20, Scale), spec(33, 61, Crop), spec(301, 150, Scale)] {
            let (content_type, made) = made_anew(&source, &asked);
            assert_eq!((content_type, made.color()), ("image/jpeg", ColorType::Rgb8), "{what}");
            assert_eq!(quarters_of(&made), [0, 1, 2, 3], "{what} {asked:?}");
            let webp = ThumbnailSpec { encoding: ThumbnailEncoding::WebP, ..asked };
            let (content_type, made) = made_anew(&source, &webp);
            assert_eq!(content_type, "image/webp");
            assert_eq!(quarters_of(&made), [0, 1, 2, 3], "{what} {webp:?}");
        }
    }
}

#[test]
fn inks_without_the_marker_of_adobe_are_the_other_way_around() {
    let mut inverted = quarters(80, 40).to_rgba8();
    inverted.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(|channel| !channel));
    let mut source = of_inks(&inverted.into(), Colorspace::CMYK);
    let marker = source.windows(5).position(|window| window == b"Adobe").expect("the marker");
    source.drain(marker - 4..marker + 12);
    assert_eq!(quarters_of(&made_anew(&source, &spec(20, 10, Scale)).1), [0, 1, 2, 3]);
}

#[test]
fn gray_stays_gray() {
    let gray: DynamicImage = quarters(400, 200).into_luma8().into();
    let source = compressed(&mut compressor(Subsamp::Gray), &gray, PixelFormat::GRAY);
    let (_, made) = made_anew(&source, &spec(40, 20, Scale));
    assert_eq!((made.color(), made.dimensions()), (ColorType::L8, (40, 20)));
}

#[test]
fn all_orientations_are_right_at_a_reduced_scale_and_odd_sizes() {
    let upright = quarters(643, 321);
    for (orientation, image) in samples::as_stored_by_a_camera(&upright) {
        let exif = [b"Exif\0\0".to_vec(), samples::exif(orientation)].concat();
        let source = jpeg_with(subsampled(&image, Subsamp::Sub2x2), 0xe1, &exif);
        for asked in [spec(33, 17, Crop), spec(17, 33, Crop), spec(64, 1, Scale)] {
            let (_, made) = made_anew(&source, &asked);
            assert_eq!(quarters_of(&made), [0, 1, 2, 3], "{orientation} {asked:?}");
        }
    }
}

#[test]
fn the_smallest_and_narrowest_pictures_have_thumbnails() {
    for (width, height) in [(2, 2), (3, 300), (300, 3), (17, 9), (33, 127), (129, 65)] {
        for subsampling in SUBSAMPLINGS {
            let source = subsampled(&quarters(width, height), subsampling);
            for asked in [spec(1, 1, Crop), spec(1, 1, Scale), spec(2, 1, Crop), spec(1, 2, Crop)] {
                let made = rendered(&source, &asked).expect("a thumbnail");
                let Rendered::Encoded { bytes, size, .. } = made else { continue };
                let image = image::load_from_memory(&bytes).expect("thumbnails can be decoded");
                assert_eq!(image.dimensions(), (size.width, size.height));
            }
        }
    }
}

/// A gray picture that is black to the left of an edge and white from there on.
fn edge(width: u32, height: u32, at: u32) -> DynamicImage {
    GrayImage::from_fn(width, height, |x, _| Luma([if x < at { 0 } else { 255 }])).into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Whatever scale it is decoded at, whichever part is shown.
    #[test]
    fn an_edge_is_where_it_should_be_to_a_fraction_of_a_pixel(
        width in 300_u32..1200, part in 0.35_f64..0.65, asked in 16_u32..200, crop: bool, color: bool,
    ) {
        let (height, at) = (width * 2 / 3, (f64::from(width) * part) as u32);
        let image = edge(width, height, at);
        let (image, format, subsampling) = if color {
            (image.into_rgb8().into(), PixelFormat::RGB, Subsamp::Sub2x2)
        } else {
            (image, PixelFormat::GRAY, Subsamp::Gray)
        };
        let source = compressed(&mut compressor(subsampling), &image, format);
        let spec = if crop { spec(asked, asked, Crop) } else { spec(asked, 1, Scale) };
        // Flat pictures have few bytes: what is wanted here is what would be made.
        let Ok(Rendered::Encoded { bytes, size, .. }) = rendered(&source, &spec) else {
            return Ok(());
        };
        let made = image::load_from_memory(&bytes).expect("a picture").into_luma8();
        let shown = if crop { height.min(width) } else { width };
        let scale = f64::from(size.width) / f64::from(shown);
        let expected = (f64::from(at) - f64::from((width - shown) / 2)) * scale;
        let row = made.rows().nth(made.height() as usize / 2).expect("a row");
        let found: f64 = row.map(|pixel| 1.0 - f64::from(pixel.0[0]) / 255.0).sum();
        prop_assert!((found - expected).abs() < 0.35, "{found} instead of {expected} of {size}");
    }
}

/// Chroma is kept for pairs of pixels, and an odd side has one pixel that has no other.
#[test]
fn an_edge_between_colours_is_where_it_should_be_at_odd_sizes() {
    const LEFT: [u8; 3] = [200, 60, 60];
    const RIGHT: [u8; 3] = [60, 106, 200];
    let picture = RgbImage::from_fn(1500, 900, |x, _| Rgb(if x < 1100 { LEFT } else { RIGHT }));
    let picture = DynamicImage::from(picture);
    for (orientation, stored) in
        [(1, picture.clone()), (2, picture.fliph()), (6, picture.rotate270())]
    {
        let exif = [b"Exif\0\0".to_vec(), samples::exif(orientation)].concat();
        let source = jpeg_with(subsampled(&stored, Subsamp::Sub2x2), 0xe1, &exif);
        for side in [21, 33, 95, 96, 181] {
            let made = made_anew(&source, &spec(side, side, Crop)).1.into_rgb8();
            let row = made.rows().nth(side as usize / 2).expect("a row");
            let levels: Vec<f64> =
                row.map(|pixel| f64::from(pixel.0[0]) - f64::from(pixel.0[2])).collect();
            // As they have come out, far from the edge.
            let (left, right) = (levels[0], levels[levels.len() - 1]);
            let found: f64 = levels.iter().map(|level| (level - right) / (left - right)).sum();
            let expected = (1100.0 - 300.0) / 900.0 * f64::from(side);
            assert!(
                (found - expected).abs() < 0.3,
                "{found}, not {expected}: {orientation} {side}"
            );
        }
    }
}

#[test]
fn an_embedded_profile_decides_the_colours() {
    // What such a profile calls red is green, and the other way around.
    let mut swapped = ColorProfile::new_srgb();
    std::mem::swap(&mut swapped.red_colorant, &mut swapped.green_colorant);
    let profile = swapped.encode().expect("a profile");
    for subsampling in [Subsamp::None, Subsamp::Sub2x2] {
        let source = with_profile(subsampled(&quarters(400, 200), subsampling), &profile);
        let (_, made) = made_anew(&source, &spec(40, 20, Scale));
        assert_eq!(quarters_of(&made), [1, 0, 2, 3]);
    }
    let mut png = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut png);
    image::ImageEncoder::set_icc_profile(&mut encoder, profile).expect("PNG has profiles");
    quarters(400, 200).write_with_encoder(encoder).expect("a picture");
    assert_eq!(quarters_of(&made_anew(&png, &spec(40, 20, Scale)).1), [1, 0, 2, 3]);
}

#[test]
fn wide_colours_become_those_of_srgb() {
    let p3 = ColorProfile::new_display_p3().encode().expect("a profile");
    // sRGB (200, 60, 60), as Display P3 writes it.
    let image = RgbImage::from_pixel(160, 160, Rgb([186, 71, 65]));
    let noise = quarters(160, 160);
    let mut image = DynamicImage::from(image);
    image::imageops::replace(&mut image, &noise, 80, 0);
    let source = with_profile(subsampled(&image, Subsamp::None), &p3);
    let (_, made) = made_anew(&source, &spec(40, 40, Scale));
    let [red, green, blue] = made.to_rgb8().get_pixel(10, 20).0;
    assert!(
        red.abs_diff(200) < 5 && green.abs_diff(60) < 5 && blue.abs_diff(60) < 5,
        "{red} {green} {blue}"
    );
}

#[test]
fn a_broken_profile_is_ignored() {
    let srgb = ColorProfile::new_srgb().encode().expect("a profile");
    for profile in [&b"nonsense"[..], &srgb[..srgb.len() / 2], &srgb] {
        let source = with_profile(subsampled(&quarters(400, 200), Subsamp::Sub2x2), profile);
        assert_eq!(quarters_of(&made_anew(&source, &spec(40, 20, Scale)).1), [0, 1, 2, 3]);
    }
}

#[test]
fn a_picture_that_was_cut_off_shows_what_there_is_of_it() {
    let asked = spec(40, 20, Scale);
    let whole = subsampled(&quarters(400, 200), Subsamp::Sub2x2);
    for source in [&whole, &progressive(&quarters(400, 200), Subsamp::Sub2x2)] {
        let made = made_anew(&source[..source.len() - 2], &asked).1;
        assert_eq!(quarters_of(&made), [0, 1, 2, 3]);
    }
    let upper = made_anew(&whole[..whole.len() * 3 / 4], &asked).1.crop_imm(0, 0, 40, 10);
    assert_eq!(quarters_of(&upper), [0, 1, 0, 1]);
    let header = rendered(&whole[..40], &asked);
    assert!(matches!(header, Err(ThumbnailError::Damaged(_))), "{header:?}");
}

/// What a camera has put into the header is a whole picture, end and all.
#[test]
fn the_end_of_a_picture_within_the_header_is_not_the_end_of_the_picture() {
    let asked = spec(40, 20, Scale);
    let whole = subsampled(&quarters(400, 200), Subsamp::Sub2x2);
    let cut = &whole[..whole.len() * 3 / 4];
    let source = jpeg_with(cut.to_vec(), 0xe1, b"\xff\xd8\xff\xd9");
    assert_eq!(made_anew(&source, &asked), made_anew(cut, &asked));
}

#[test]
fn what_cannot_be_counted_has_to_fit_at_its_most() {
    let limits = Limits { max_pixels: 1_000_000, ..Limits::default() };
    let odd = |side| {
        let whole = subsampled(&DynamicImage::new_rgb8(side, side), Subsamp::None);
        let frame = memchr::memmem::find(&whole, b"\xff\xc0").expect("a frame");
        let (before, rest) = whole.split_at(frame);
        let progressive = [b"\xff\xc2", &rest[2..19]].concat();
        rendered_under(limits, &[before, &progressive, rest].concat(), &spec(9, 9, Crop))
    };
    let (small, large) = (odd(64), odd(1000));
    assert!(!matches!(small, Err(ThumbnailError::TooLarge(_))), "{small:?}");
    assert!(
        matches!(large, Err(ThumbnailError::TooLarge(_) | ThumbnailError::Damaged(_))),
        "{large:?}"
    );
}

#[test]
fn bytes_too_many_are_passed_over() {
    for source in [
        subsampled(&quarters(400, 200), Subsamp::Sub2x2),
        progressive(&quarters(400, 200), Subsamp::Sub2x2),
    ] {
        let mut longer = source.clone();
        longer.splice(source.len() - 2..source.len() - 2, [0; 9]);
        longer.extend(b"and more behind the end");
        assert_eq!(quarters_of(&made_anew(&longer, &spec(40, 20, Scale)).1), [0, 1, 2, 3]);
    }
}

/// Threats IM-05
#[test]
fn endless_scans_are_refused() {
    let mut source = progressive(&quarters(64, 64), Subsamp::None);
    let last_scan = memchr::memmem::rfind(&source, b"\xff\xda").expect("a scan");
    let end = source.len() - 2;
    let scan = source[last_scan..end].to_vec();
    source.splice(end..end, scan.repeat(1000));
    let outcome = rendered(&source, &spec(9, 9, Crop));
    // Not tried again by the other decoder, which has no such limit.
    assert!(matches!(outcome, Err(ThumbnailError::TooLarge(_))), "{outcome:?}");
}

/// CS-LIM-06
#[test]
fn a_picture_of_many_scans_has_a_limit_of_memory() {
    let limits = Limits { max_pixels: 1_000_000, ..Limits::default() };
    let image = DynamicImage::new_rgb8(1000, 1000);
    let asked = spec(9, 9, Crop);
    let large = rendered_under(limits, &progressive(&image, Subsamp::None), &asked);
    assert!(matches!(large, Err(ThumbnailError::TooLarge(_))), "{large:?}");
    for source in [progressive(&image, Subsamp::Sub2x2), subsampled(&image, Subsamp::None)] {
        let outcome = rendered_under(limits, &source, &asked);
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}
