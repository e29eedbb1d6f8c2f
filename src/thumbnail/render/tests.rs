//! The promises of a thumbnail, kept for every format.

mod jpeg;

use image::{ColorType, DynamicImage, GenericImageView, ImageFormat};
use proptest::prelude::*;

use super::*;
use crate::thumbnail::limits::Limits;
use crate::thumbnail::samples::{self, QUARTERS, encoded, file, quarters};
use crate::types::MovingEncoding;
use crate::types::ThumbnailMethod::{self, Crop, Scale};
use crate::types::ThumbnailSize;

fn spec(width: u32, height: u32, method: ThumbnailMethod) -> ThumbnailSpec {
    ThumbnailSpec {
        size: ThumbnailSize { width, height },
        method,
        animated: false,
        encoding: ThumbnailEncoding::Universal,
    }
}

fn rendered(bytes: &[u8], spec: &ThumbnailSpec) -> Result<Rendered, ThumbnailError> {
    rendered_under(Limits::default(), bytes, spec)
}

fn rendered_under(
    limits: Limits,
    bytes: &[u8],
    spec: &ThumbnailSpec,
) -> Result<Rendered, ThumbnailError> {
    let job =
        Job { specs: vec![*spec], limits, moving: MovingEncoding::default(), is_extracted: false };
    render(file(bytes), &job).map(|mut made| made.remove(0))
}

/// Returns the type and the decoded picture of a thumbnail that has been made anew.
fn made_anew(bytes: &[u8], spec: &ThumbnailSpec) -> (&'static str, DynamicImage) {
    match rendered(bytes, spec) {
        Ok(Rendered::Encoded { bytes, content_type, size }) => {
            let image = image::load_from_memory(&bytes).expect("thumbnails can be decoded");
            assert_eq!((size.width, size.height), image.dimensions());
            (content_type, image)
        }
        other => panic!("not made anew: {other:?}"),
    }
}

fn original(bytes: &[u8], spec: &ThumbnailSpec) -> &'static str {
    match rendered(bytes, spec) {
        Ok(Rendered::Original { content_type }) => content_type,
        other => panic!("not the original: {other:?}"),
    }
}

/// Which of the four colours are in the quarters of a picture.
fn quarters_of(image: &DynamicImage) -> [usize; 4] {
    let (width, height) = image.dimensions();
    [(1, 1), (3, 1), (1, 3), (3, 3)].map(|(x, y)| {
        let pixel = image.to_rgb8().get_pixel(width * x / 4, height * y / 4).0;
        let is_near =
            |color: &[u8; 3]| color.iter().zip(pixel).all(|(one, other)| one.abs_diff(other) < 40);
        QUARTERS.iter().position(is_near).expect("one of the four colours")
    })
}

/// CS-TH-10
#[test]
fn every_format_and_method_gives_the_planned_size() {
    use ImageFormat::{Gif, Jpeg, Png, WebP};
    for format in [Jpeg, Png, Gif, WebP] {
        let source = encoded(&quarters(400, 200), format);
        for (asked, size) in [
            (spec(96, 96, Crop), (96, 96)),
            (spec(100, 25, Crop), (100, 25)),
            (spec(80, 60, Scale), (120, 60)),
            (spec(80, 10, Scale), (80, 40)),
            (spec(300, 300, Crop), (200, 200)),
        ] {
            let (content_type, image) = made_anew(&source, &asked);
            assert_eq!((content_type, image.dimensions()), ("image/jpeg", size), "{format:?}");
            assert_eq!(quarters_of(&image), [0, 1, 2, 3], "{format:?} {asked:?}");
        }
    }
}

/// CS-TH-06
#[test]
fn what_is_not_larger_than_asked_is_the_original() {
    for (format, content_type) in [
        (ImageFormat::Jpeg, "image/jpeg"),
        (ImageFormat::Png, "image/png"),
        (ImageFormat::Gif, "image/gif"),
        (ImageFormat::WebP, "image/webp"),
    ] {
        let source = encoded(&quarters(96, 40), format);
        assert_eq!(original(&source, &spec(96, 96, Crop)), content_type);
        assert_eq!(original(&source, &spec(320, 240, Scale)), content_type);
    }
}

/// CS-TH-14, CS-TH-15, CS-TH-16, CS-TH-18, CS-TH-19
#[test]
fn a_small_moving_picture_moves_only_if_asked() {
    let moving = [
        (samples::gif(40, 20, 2), "image/gif"),
        (samples::animated_png(40, 20), "image/apng"),
        (samples::animated_webp(40, 20), "image/webp"),
    ];
    for (source, content_type) in moving {
        let still = spec(96, 96, Crop);
        let (_, image) = made_anew(&source, &still);
        assert_eq!((image.dimensions(), quarters_of(&image)), ((40, 20), [0, 1, 2, 3]));
        let moving = ThumbnailSpec { animated: true, ..still };
        assert_eq!(original(&source, &moving), content_type);
        let smaller = ThumbnailSpec { animated: true, ..spec(10, 10, Scale) };
        assert_eq!(made_anew(&source, &smaller).1.dimensions(), (20, 10));
    }
}

#[test]
fn all_orientations_are_applied_after_the_plan() {
    let upright = quarters(80, 40);
    for (orientation, image) in samples::as_stored_by_a_camera(&upright) {
        let sources = [
            samples::jpeg_with_orientation(&image, orientation),
            samples::webp_with_orientation(&image, orientation),
            samples::png_with(&image, b"eXIf", &samples::exif(orientation)),
        ];
        for source in sources {
            let (_, scaled) = made_anew(&source, &spec(20, 20, Scale));
            assert_eq!(scaled.dimensions(), (40, 20), "{orientation}");
            assert_eq!(quarters_of(&scaled), [0, 1, 2, 3], "{orientation}");
            let (_, cropped) = made_anew(&source, &spec(20, 30, Crop));
            assert_eq!(cropped.dimensions(), (20, 30), "{orientation}");
            assert_eq!(quarters_of(&cropped), [0, 1, 2, 3], "{orientation}");
        }
    }
}

#[test]
fn transparency_makes_a_png_and_hidden_colours_stay_hidden() {
    let source = encoded(&samples::half_transparent(64, 64), ImageFormat::Png);
    let (content_type, image) = made_anew(&source, &spec(9, 9, Crop));
    assert_eq!(content_type, "image/png");
    for (_, _, pixel) in image.pixels() {
        assert!(pixel.0[3] == 0 || pixel.0[1] < 8, "the hidden green shows: {pixel:?}");
    }
    let opaque = DynamicImage::from(quarters(64, 64).into_rgba8());
    let source = encoded(&opaque, ImageFormat::Png);
    assert_eq!(made_anew(&source, &spec(9, 9, Crop)).0, "image/jpeg");
}

#[test]
fn sixteen_bits_and_grays_become_eight_bits() {
    let picture = quarters(64, 32);
    let alpha = samples::half_transparent(64, 32);
    for (image, color) in [
        (picture.to_luma8().into(), ColorType::L8),
        (picture.to_luma16().into(), ColorType::L8),
        (picture.to_rgb16().into(), ColorType::Rgb8),
        (DynamicImage::from(picture.to_rgba16()), ColorType::Rgb8),
        (alpha.to_rgba16().into(), ColorType::Rgba8),
        (alpha.to_luma_alpha8().into(), ColorType::La8),
        (alpha.to_luma_alpha16().into(), ColorType::La8),
    ] {
        let source = encoded(&image, ImageFormat::Png);
        let (_, thumbnail) = made_anew(&source, &spec(16, 8, Scale));
        assert_eq!(thumbnail.color(), color, "{:?}", image.color());
    }
}

#[test]
fn extreme_shapes_keep_a_pixel_on_each_side() {
    for (width, height) in [(20_000, 1), (1, 20_000)] {
        let source = encoded(&quarters(width, height), ImageFormat::Png);
        assert_eq!(made_anew(&source, &spec(96, 96, Crop)).1.dimensions(), (1, 1));
        assert_eq!(original(&source, &spec(320, 240, Scale)), "image/png");
    }
}

#[test]
fn what_jpeg_cannot_express_becomes_png() {
    let long = DynamicImage::from(quarters(66_000, 2).into_luma8());
    let source = encoded(&long, ImageFormat::Png);
    let (content_type, image) = made_anew(&source, &spec(66_000, 1, Crop));
    assert_eq!((content_type, image.dimensions()), ("image/png", (66_000, 1)));
}

#[test]
fn metadata_is_not_copied() {
    let secret = b"Comment\0<script>home address</script>";
    let source = samples::png_with(&quarters(64, 64), b"tEXt", secret);
    let Ok(Rendered::Encoded { bytes, .. }) = rendered(&source, &spec(9, 9, Crop)) else {
        panic!("a thumbnail")
    };
    assert!(!bytes.windows(8).any(|window| window == b"<script>"));
}

/// CS-LIM-02, CS-LIM-06
#[test]
fn pixels_are_counted_before_they_are_decoded() {
    let limits = Limits { max_pixels: 100, ..Limits::default() };
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP] {
        let exact = rendered_under(limits, &encoded(&quarters(10, 10), format), &spec(5, 5, Crop));
        assert!(exact.is_ok(), "{format:?} {exact:?}");
        // Cut off behind the header: an attempt to decode would say "damaged".
        let mut over = encoded(&quarters(101, 1), format);
        over.truncate(over.len() - 14);
        let over = rendered_under(limits, &over, &spec(5, 5, Crop));
        assert!(matches!(over, Err(ThumbnailError::TooLarge(_))), "{format:?} {over:?}");
    }
}

#[test]
fn other_files_are_unsupported_and_broken_ones_damaged() {
    let asked = spec(9, 9, Crop);
    for other in [&b""[..], b"hello", b"<html><svg/></html>", b"BM\0\0"] {
        assert!(matches!(rendered(other, &asked), Err(ThumbnailError::Unsupported)));
    }
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP] {
        let source = encoded(&quarters(40, 40), format);
        let broken = rendered(&source[..20], &asked);
        assert!(matches!(broken, Err(ThumbnailError::Damaged(_))), "{format:?} {broken:?}");
    }
}

#[test]
fn a_picture_that_does_not_decode_is_not_passed_off_as_an_original() {
    let source = encoded(&quarters(40, 40), ImageFormat::Png);
    let broken = rendered(&source[..source.len() - 30], &spec(96, 96, Crop));
    assert!(matches!(broken, Err(ThumbnailError::Damaged(_))), "{broken:?}");
}

#[test]
fn a_webp_frame_that_lies_about_its_size_is_damaged() {
    let frame = b"\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f0123456789";
    let chunks = [samples::riff_chunk(b"VP8X", &[0; 10]), samples::riff_chunk(b"VP8 ", frame)];
    let body = [b"WEBP".to_vec(), chunks.concat()].concat();
    let lie = rendered(&samples::riff_chunk(b"RIFF", &body), &spec(9, 9, Crop));
    assert!(matches!(lie, Err(ThumbnailError::Damaged(_))), "{lie:?}");
}

fn any_sample() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(encoded(&quarters(24, 16), ImageFormat::Jpeg)),
        Just(samples::jpeg_with_orientation(&quarters(24, 16), 6)),
        Just(encoded(&samples::half_transparent(24, 16), ImageFormat::Png)),
        Just(samples::animated_png(24, 16)),
        Just(samples::gif(24, 16, 2)),
        Just(samples::animated_webp(24, 16)),
        Just(samples::webp_with_orientation(&quarters(24, 16), 5)),
    ]
}

proptest! {
    /// CS-LIM-06
    #[test]
    fn damage_gives_a_picture_or_an_error_but_no_panic(
        bytes in samples::damaged(any_sample()),
    ) {
        let limits = Limits { max_pixels: 1_000_000, ..Limits::default() };
        let outcome = rendered_under(limits, &bytes, &spec(8, 8, Crop));
        prop_assert!(!matches!(outcome, Err(ThumbnailError::Panicked(_))), "{:?}", outcome);
    }
}

#[test]
fn a_panic_becomes_an_error() {
    let outcome = guarded(|| -> Result<(), _> { panic!("a decoder's bug") });
    match outcome {
        Err(ThumbnailError::Panicked(message)) => assert_eq!(message, "a decoder's bug"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_small_source_whose_thumbnail_has_more_bytes_is_the_original() {
    let flat = DynamicImage::new_rgb8;
    let source = |width, height| encoded(&flat(width, height), ImageFormat::WebP);
    assert_eq!(original(&source(64, 48), &spec(40, 30, Scale)), "image/webp");
    assert_eq!(original(&source(64, 64), &spec(40, 40, Crop)), "image/webp");
    // Another part of it, more than everybody should have to decode, one that would have to be turned.
    assert_eq!(made_anew(&source(64, 48), &spec(40, 40, Crop)).1.dimensions(), (40, 40));
    assert_eq!(made_anew(&source(1200, 1000), &spec(12, 10, Scale)).1.dimensions(), (12, 10));
    let turned = samples::webp_with_orientation(&flat(40, 30), 6);
    assert_eq!(made_anew(&turned, &spec(3, 4, Scale)).1.dimensions(), (3, 4));
}

#[test]
fn a_small_source_is_made_anew_if_it_has_to_be_turned_and_is_no_jpeg() {
    let asked = spec(100, 100, Scale);
    let picture = quarters(40, 20);
    let stored = picture.rotate270();
    let (_, turned) = made_anew(&samples::webp_with_orientation(&stored, 6), &asked);
    assert_eq!((turned.dimensions(), quarters_of(&turned)), ((40, 20), [0, 1, 2, 3]));
    assert_eq!(original(&samples::jpeg_with_orientation(&stored, 6), &asked), "image/jpeg");
    assert_eq!(original(&samples::webp_with_orientation(&picture, 1), &asked), "image/webp");
}

/// CS-TH-15
#[test]
fn a_small_moving_source_is_not_the_original_for_its_bytes_alone() {
    let source = samples::gif(8, 4, 2);
    assert_eq!(made_anew(&source, &spec(2, 2, Scale)).1.dimensions(), (4, 2));
}

#[test]
fn one_job_makes_what_its_specs_make_alone() {
    let specs = [spec(40, 30, Scale), spec(32, 32, Crop), spec(800, 600, Scale), spec(96, 9, Crop)];
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let source = encoded(&quarters(640, 480), format);
        let moving = MovingEncoding::default();
        let job =
            Job { specs: specs.to_vec(), limits: Limits::default(), moving, is_extracted: false };
        let together = render(file(&source), &job).expect("thumbnails");
        for (made, spec) in together.iter().zip(&specs) {
            let alone = rendered(&source, spec).expect("a thumbnail");
            match (made, &alone) {
                (Rendered::Encoded { bytes, size, .. }, Rendered::Encoded { size: other, .. }) => {
                    assert_eq!(size, other);
                    let image = image::load_from_memory(bytes).expect("a picture");
                    assert_eq!(quarters_of(&image), [0, 1, 2, 3], "{spec:?}");
                }
                _ => assert_eq!(made, &alone),
            }
        }
        assert_eq!(together.len(), specs.len());
    }
}

#[test]
fn webp_is_written_only_where_it_is_asked_for() {
    let asked = ThumbnailSpec { encoding: ThumbnailEncoding::WebP, ..spec(40, 20, Scale) };
    let alpha = encoded(&samples::half_transparent(80, 40), ImageFormat::Png);
    for source in [
        encoded(&quarters(80, 40), ImageFormat::Jpeg),
        encoded(&quarters(80, 40).into_luma8().into(), ImageFormat::Png),
        alpha.clone(),
    ] {
        let (content_type, image) = made_anew(&source, &asked);
        assert_eq!((content_type, image.dimensions()), ("image/webp", (40, 20)));
    }
    assert!(made_anew(&alpha, &asked).1.color().has_alpha());
    let long = encoded(&quarters(20_000, 2), ImageFormat::Png);
    let long_asked = ThumbnailSpec { encoding: ThumbnailEncoding::WebP, ..spec(20_000, 1, Crop) };
    assert_eq!(made_anew(&long, &long_asked).0, "image/jpeg");
}
