use super::*;
use crate::thumbnail::samples::{self, QUARTERS, encoded, quarters};
use image::codecs::ico::{IcoEncoder, IcoFrame};
use image::{ExtendedColorType, GenericImageView, ImageFormat};
use proptest::prelude::*;

macro_rules! testdata {
    ($name:literal) => {
        include_bytes!(concat!("../testdata/", $name)).as_slice()
    };
}

const FULL: ThumbnailSize = ThumbnailSize { width: 80, height: 40 };

fn opened(bytes: &[u8], limits: &Limits) -> Result<Box<dyn Source>, ThumbnailError> {
    open(samples::file(bytes), limits)
}

/// Returns a picture as it is shown.
fn shown(bytes: &[u8]) -> DynamicImage {
    let source = opened(bytes, &Limits::default()).expect("the header can be read");
    let &Header { size, orientation, .. } = source.header();
    match source.decode(size) {
        Ok(Pixels::Image(mut image)) => {
            assert_eq!(image.dimensions(), (size.width, size.height));
            image.apply_orientation(orientation);
            image
        }
        other => panic!("not decoded: {other:?}"),
    }
}

/// What coding with losses may change.
const TOLERANCE: u8 = 12;

/// What the samples made in code differ by from place to place.
const ROUGHNESS: u8 = 15;

/// Which of the four colours are in the quarters of a picture, as far as they may be off.
fn quarters_within(tolerance: u8, image: &DynamicImage) -> [usize; 4] {
    let (width, height) = image.dimensions();
    [(1, 1), (3, 1), (1, 3), (3, 3)].map(|(x, y)| {
        let pixel = image.to_rgb8().get_pixel(width * x / 4, height * y / 4).0;
        let is_near = |color: &[u8; 3]| {
            color.iter().zip(pixel).all(|(one, other)| one.abs_diff(other) <= tolerance)
        };
        QUARTERS.iter().position(is_near).unwrap_or_else(|| panic!("{pixel:?} is none of them"))
    })
}

/// The same for a picture made in code.
fn quarters_of(image: &DynamicImage) -> [usize; 4] {
    quarters_within(TOLERANCE + ROUGHNESS, image)
}

/// A picture of each format that is decoded here, all of the four quarters.
fn all_quarters() -> Vec<(&'static str, Vec<u8>)> {
    let picture = quarters(80, 40);
    vec![
        ("TIFF", encoded(&picture, ImageFormat::Tiff)),
        ("BMP", encoded(&picture, ImageFormat::Bmp)),
        ("QOI", encoded(&picture, ImageFormat::Qoi)),
        ("icon", encoded(&picture, ImageFormat::Ico)),
        ("AVIF 4:2:0", testdata!("quarters-420-8.avif").to_vec()),
        ("AVIF 4:2:2", testdata!("quarters-422-10.avif").to_vec()),
        ("AVIF 4:4:4", testdata!("quarters-444-12-limited.avif").to_vec()),
        ("lossless AVIF", testdata!("quarters-lossless.avif").to_vec()),
        ("JPEG XL", testdata!("quarters.jxl").to_vec()),
        ("lossless JPEG XL", testdata!("quarters-lossless-16.jxl").to_vec()),
        ("FLAC", samples::flac(&encoded(&picture, ImageFormat::Png))),
        ("MP3", samples::mp3(&encoded(&picture, ImageFormat::Png))),
        ("M4A", samples::m4a(&encoded(&picture, ImageFormat::Png))),
    ]
}

#[test]
fn every_format_shows_its_quarters() {
    for (name, bytes) in all_quarters() {
        eprintln!("{name}");
        let image = shown(&bytes);
        assert_eq!(image.dimensions(), (80, 40), "{name}");
        let is_stored = name.contains("AVIF") || name.contains("JPEG XL");
        let tolerance = if is_stored { TOLERANCE } else { TOLERANCE + ROUGHNESS };
        assert_eq!(quarters_within(tolerance, &image), [0, 1, 2, 3], "{name}");
    }
    assert_eq!(quarters_within(TOLERANCE, &shown(testdata!("grid.avif"))), [0, 1, 2, 3]);
}

/// CS-LIM-02, CS-LIM-06
#[test]
fn pixels_are_counted_before_they_are_decoded() {
    let limits = Limits { max_pixels: 80 * 40 - 1, ..Limits::default() };
    for (name, bytes) in all_quarters() {
        let over = opened(&bytes, &limits).err();
        assert!(matches!(over, Some(ThumbnailError::TooLarge(_))), "{name}: {over:?}");
    }
}

#[test]
fn pictures_of_three_channels_may_have_nearly_all_pixels() {
    let picture = quarters(1999, 1000);
    let limits = Limits { max_pixels: 2_000_000, ..Limits::default() };
    for (name, bytes) in [
        ("one strip", samples::tiff(&picture.to_rgb8(), 1)),
        ("TIFF", encoded(&picture, ImageFormat::Tiff)),
        ("BMP", encoded(&picture, ImageFormat::Bmp)),
        ("PNG", encoded(&picture, ImageFormat::Png)),
    ] {
        let source = opened(&bytes, &limits).expect("its header is fine");
        let size = source.header().size;
        assert!(source.decode(size).is_ok(), "{name}");
    }
}

#[test]
fn what_ends_early_is_refused() {
    for (name, bytes) in all_quarters() {
        // Of a picture without its end some decoders show what there is; of a header there is nothing.
        let half = if name == "MP3" { bytes.len() / 4 } else { bytes.len() / 2 };
        for length in [20, half] {
            let source = opened(&bytes[..length], &Limits::default());
            let outcome = source.and_then(|source| source.decode(FULL));
            let is_refusal =
                matches!(outcome, Err(ThumbnailError::Damaged(_) | ThumbnailError::Unsupported));
            let is_lenient = length == half && matches!(name, "JPEG XL" | "AVIF 4:2:0" | "QOI");
            assert!(is_refusal || is_lenient, "{name}, {length} bytes");
        }
    }
}

/// What a file says of its own bytes is no failure of the disk.
#[test]
fn places_beyond_the_file_are_damage() {
    let picture = testdata!("quarters-420-8.avif");
    let at = picture.windows(4).position(|name| name == b"iloc").expect("it has places");
    // Behind version and sizes: offsets of eight bytes, which then are nonsense.
    let mut far = picture.to_vec();
    far[at + 8] = 0x80;
    let mut long = picture.to_vec();
    let meta = picture.windows(4).position(|name| name == b"meta").expect("it has items");
    long[meta - 4..meta].copy_from_slice(&1_u32.to_be_bytes());
    for odd in [far, long] {
        let outcome = opened(&odd, &Limits::default()).and_then(|source| source.decode(FULL));
        assert!(matches!(outcome, Err(ThumbnailError::Damaged(_))), "{outcome:?}");
    }
}

#[test]
fn transparency_is_kept() {
    for bytes in [testdata!("alpha.avif"), testdata!("alpha.jxl")] {
        let image = shown(bytes);
        assert!(image.color().has_alpha());
        let image = image.into_rgba8();
        assert_eq!(image.get_pixel(10, 20).0[3], 0);
        let [red, green, blue, alpha] = image.get_pixel(70, 20).0;
        assert!(red > 240 && green < 12 && blue < 12, "{red} {green} {blue}");
        assert_eq!(alpha, 255);
    }
}

#[test]
fn grays_stay_gray() {
    for bytes in [testdata!("gray.avif"), testdata!("gray.jxl")] {
        let image = shown(bytes);
        assert!(!image.color().has_color());
        for (x, y, pixel) in image.into_luma8().enumerate_pixels() {
            assert!(u32::from(pixel.0[0]).abs_diff(x * 255 / 79) < 12, "{x} {y} {pixel:?}");
        }
    }
}

#[test]
fn turned_pictures_are_upright() {
    // Turned to the left, and then upside down by mirroring.
    let upright = quarters(80, 40).rotate270().flipv();
    let turned = shown(testdata!("turned.avif"));
    assert_eq!(turned.dimensions(), upright.dimensions());
    assert_eq!(quarters_within(TOLERANCE, &turned), quarters_of(&upright));
    for (orientation, image) in
        [(6, quarters(80, 40).rotate270()), (3, quarters(80, 40).rotate180())]
    {
        let turned = shown(&samples::tiff(&image.into_rgb8(), orientation));
        assert_eq!((turned.dimensions(), quarters_of(&turned)), ((80, 40), [0, 1, 2, 3]));
    }
}

#[test]
fn the_largest_picture_of_an_icon_is_taken() {
    let frame = |image: DynamicImage| {
        let (width, height) = image.dimensions();
        IcoFrame::as_png(&image.into_rgba8(), width, height, ExtendedColorType::Rgba8)
            .expect("samples can be encoded")
    };
    let black = DynamicImage::new_rgba8(16, 16);
    let frames = [frame(black.clone()), frame(quarters(80, 40)), frame(black)];
    let mut icon = Vec::new();
    IcoEncoder::new(&mut icon).encode_images(&frames).expect("samples can be encoded");
    assert_eq!(quarters_of(&shown(&icon)), [0, 1, 2, 3]);
}

#[test]
fn audio_without_a_cover_is_unsupported_and_so_are_covers_that_are_no_pictures() {
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>";
    let within = samples::flac(&encoded(&quarters(8, 8), ImageFormat::Png));
    for audio in [&b"\xff\xfb\x90\x64"[..], &samples::flac(svg), &samples::mp3(&within)] {
        let refused = opened(audio, &Limits::default()).err();
        let is_refusal =
            matches!(refused, Some(ThumbnailError::Unsupported | ThumbnailError::Damaged(_)));
        assert!(is_refusal, "{refused:?}");
    }
    let cover = samples::flac(&encoded(&quarters(8, 8), ImageFormat::Png));
    let source = opened(&cover, &Limits::default()).expect("there is a cover");
    assert!(!source.header().format.may_be_sent());
}

fn any_sample() -> impl Strategy<Value = Vec<u8>> {
    let mut samples: Vec<_> = all_quarters().into_iter().map(|(_, bytes)| bytes).collect();
    samples.extend(
        [
            testdata!("grid.avif"),
            testdata!("alpha.avif"),
            testdata!("gray.avif"),
            testdata!("turned.avif"),
            testdata!("alpha.jxl"),
            testdata!("gray.jxl"),
        ]
        .map(<[u8]>::to_vec),
    );
    samples.push(samples::tiff(&quarters(24, 16).into_rgb8(), 6));
    proptest::sample::select(samples)
}

proptest! {
    /// CS-LIM-06
    #[test]
    fn damage_gives_pixels_within_the_limit_or_an_error(
        bytes in samples::damaged(any_sample()),
    ) {
        let limits = Limits { max_pixels: 1_000_000, ..Limits::default() };
        if let Ok(source) = opened(&bytes, &limits) {
            let size = source.header().size;
            prop_assert!(limits.check(size).is_ok());
            if let Ok(Pixels::Image(image)) = source.decode(FULL) {
                prop_assert!(image.width() <= size.width && image.height() <= size.height);
            }
        }
    }
}
