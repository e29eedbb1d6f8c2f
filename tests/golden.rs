//! Thumbnails of every format and method, held against pictures made without us: a full decode by
//! another decoder and another implementation of Lanczos, compared by structural similarity.
//!
//! Formats that nothing else here decodes are held against small stored pictures in `tests/golden`.
//! `MEDIARY_UPDATE=1` writes those anew, to be looked at before they are committed.

mod common;

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::PathBuf;

use common::ssim::{Likeness, compare};
use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageFormat, RgbImage, Rgba, RgbaImage};
use mediary::thumbnail::{Job, Limits, Rendered, render};
use mediary::types::{
    MovingEncoding, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec,
};

/// What encoders at our quality leave of a picture with fine structure is above this, and what is
/// blurred, shifted by a pixel or cut elsewhere is below: both are shown here.
const ENOUGH: f64 = 0.98;

/// Steps of 255 by which colours and brightness may be off; exchanged channels are off by dozens.
const COLOUR_ENOUGH: f64 = 2.5;

const SOURCE: (u32, u32) = (640, 480);

/// Fine structure, edges, smooth colours; with a transparent part if that is wanted.
fn scene(width: u32, height: u32, has_alpha: bool) -> DynamicImage {
    let picture = RgbaImage::from_fn(width, height, |x, y| {
        let (u, v) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
        let wave = (40.0 * u * u + 9.0 * v).sin() * 0.5 + (25.0 * v * v - 7.0 * u).cos() * 0.5;
        let is_block = (9.0 * u) as u32 % 3 == 1 && (7.0 * v) as u32 % 2 == 1;
        let shade = 120.0 + 90.0 * wave;
        let [red, green, blue] = if is_block {
            [230.0 - shade / 4.0, 60.0, 40.0 + 150.0 * v]
        } else {
            [shade, shade * (0.5 + u / 2.0), 255.0 - shade * (1.0 - v / 2.0)]
        };
        let alpha = if has_alpha && u + v > 1.2 { (255.0 * (1.0 - v)) as u8 } else { 255 };
        Rgba([red as u8, green as u8, blue as u8, alpha])
    });
    if has_alpha { picture.into() } else { DynamicImage::from(picture).into_rgb8().into() }
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    match format {
        ImageFormat::Jpeg => {
            let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95);
            image.write_with_encoder(encoder)
        }
        format => image.write_to(&mut bytes, format),
    }
    .expect("samples can be encoded");
    bytes.into_inner()
}

/// What a thumbnail is asked to be, and the part of the source that it then shows.
#[derive(Debug, Clone, Copy)]
struct Asked {
    method: ThumbnailMethod,
    size: (u32, u32),
    encoding: ThumbnailEncoding,
}

fn all_asked() -> impl Iterator<Item = Asked> {
    use ThumbnailMethod::{Crop, Scale};
    let encoding = ThumbnailEncoding::Universal;
    let sizes = [(Crop, (96, 96)), (Crop, (160, 40)), (Scale, (240, 180))];
    sizes.into_iter().map(move |(method, size)| Asked { method, size, encoding })
}

/// Returns the same in each encoding.
fn in_all_encodings(asked: Asked) -> [Asked; 2] {
    [ThumbnailEncoding::Universal, ThumbnailEncoding::WebP]
        .map(|encoding| Asked { encoding, ..asked })
}

fn thumbnail(source: &[u8], asked: Asked) -> DynamicImage {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(source).expect("room for a sample");
    let bytes = rendered(file, asked);
    image::load_from_memory(&bytes).expect("thumbnails can be decoded")
}

fn rendered(file: File, asked: Asked) -> Vec<u8> {
    let size = ThumbnailSize { width: asked.size.0, height: asked.size.1 };
    let (method, encoding) = (asked.method, asked.encoding);
    let spec = ThumbnailSpec { size, method, animated: false, encoding };
    let job = Job {
        specs: vec![spec],
        limits: Limits::default(),
        moving: MovingEncoding::default(),
        is_extracted: false,
    };
    let made = render(file, &job).unwrap_or_else(|error| panic!("{asked:?}: {error}"));
    match made.into_iter().next() {
        Some(Rendered::Encoded { bytes, .. }) => bytes,
        other => panic!("{asked:?} was not made: {other:?}"),
    }
}

/// Makes the thumbnail of a decoded source with nothing of ours: the middle of the asked shape, or all
/// of it, by the Lanczos of the `image` crate, with transparency counted in.
fn reference(source: &DynamicImage, asked: Asked) -> DynamicImage {
    reference_of_part(source, asked, 0)
}

/// As [`reference`], with the part that is shown moved to the right by some pixels of the source.
#[expect(clippy::disallowed_methods, reason = "another implementation than ours")]
fn reference_of_part(source: &DynamicImage, asked: Asked, moved: u32) -> DynamicImage {
    let (width, height) = (f64::from(source.width()), f64::from(source.height()));
    let (asked_width, asked_height) = (f64::from(asked.size.0), f64::from(asked.size.1));
    let scale = (width / asked_width).min(height / asked_height);
    let part = match asked.method {
        ThumbnailMethod::Scale => source.clone(),
        ThumbnailMethod::Crop => {
            let (part_width, part_height) = (asked_width * scale, asked_height * scale);
            let (left, top) = ((width - part_width) / 2.0, (height - part_height) / 2.0);
            let [left, top, part_width, part_height] =
                [left, top, part_width, part_height].map(|side| side.round() as u32);
            source.crop_imm(left, top, part_width, part_height)
        }
    };
    let mut pixels = part.to_rgba32f();
    if moved > 0 {
        let other = pixels.clone();
        let last = pixels.width() - 1;
        for (x, y, pixel) in pixels.enumerate_pixels_mut() {
            *pixel = *other.get_pixel((x + moved).min(last), y);
        }
    }
    for pixel in pixels.pixels_mut() {
        let [red, green, blue, alpha] = pixel.0;
        pixel.0 = [red * alpha, green * alpha, blue * alpha, alpha];
    }
    let mut small = imageops::resize(&pixels, asked.size.0, asked.size.1, FilterType::Lanczos3);
    for pixel in small.pixels_mut() {
        let [red, green, blue, alpha] = pixel.0;
        let share = if alpha > 0.0 { 1.0 / alpha } else { 0.0 };
        pixel.0 = [red * share, green * share, blue * share, alpha];
    }
    DynamicImage::from(small).into_rgba8().into()
}

#[track_caller]
fn assert_alike(made: &DynamicImage, reference: &DynamicImage, what: &str) {
    let likeness = compare(made, reference);
    assert!(is_alike(likeness), "{what}: {likeness:?}");
}

fn is_alike(likeness: Likeness) -> bool {
    likeness.luma >= ENOUGH && likeness.alpha >= ENOUGH && likeness.colour <= COLOUR_ENOUGH
}

/// CS-TH-04, CS-TH-07, CS-TH-08, CS-TH-10
#[test]
fn every_format_and_method_is_as_another_implementation_makes_it() {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Qoi, Tiff, WebP};
    for (format, has_alpha) in [
        (Jpeg, false),
        (Png, false),
        (Png, true),
        (Gif, false),
        (WebP, false),
        (WebP, true),
        (Bmp, false),
        (Qoi, false),
        (Qoi, true),
        (Tiff, false),
        (Tiff, true),
    ] {
        let source = encoded(&scene(SOURCE.0, SOURCE.1, has_alpha), format);
        let decoded = image::load_from_memory_with_format(&source, format).expect("our sample");
        for asked in all_asked() {
            let reference = reference(&decoded, asked);
            for asked in in_all_encodings(asked) {
                let what = format!("{format:?}, with alpha {has_alpha}, {asked:?}");
                assert_alike(&thumbnail(&source, asked), &reference, &what);
            }
        }
    }
}

#[test]
fn an_icon_is_as_another_implementation_makes_it() {
    let source = encoded(&scene(256, 256, true), ImageFormat::Ico);
    let decoded = image::load_from_memory(&source).expect("our sample");
    let asked = Asked {
        method: ThumbnailMethod::Crop,
        size: (96, 96),
        encoding: ThumbnailEncoding::Universal,
    };
    assert_alike(&thumbnail(&source, asked), &reference(&decoded, asked), "an icon");
}

#[test]
fn all_turns_of_a_camera_give_the_same_thumbnail() {
    let upright = scene(SOURCE.0, SOURCE.1, false);
    let references: Vec<_> = all_asked().map(|asked| (asked, reference(&upright, asked))).collect();
    for (orientation, stored) in [
        (1, upright.clone()),
        (2, upright.fliph()),
        (3, upright.rotate180()),
        (4, upright.flipv()),
        (5, upright.rotate90().fliph()),
        (6, upright.rotate270()),
        (7, upright.rotate270().fliph()),
        (8, upright.rotate90()),
    ] {
        let mut source = encoded(&stored, ImageFormat::Jpeg);
        let mut block = b"\xff\xe1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01".to_vec();
        block.extend([1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0]);
        source.splice(2..2, block);
        for (asked, reference) in &references {
            let what = format!("orientation {orientation}, {asked:?}");
            assert_alike(&thumbnail(&source, *asked), reference, &what);
        }
    }
}

/// Decoded by libavif 0.11 (`avifdec -d 8`) and libjxl 0.7 (`djxl --bits_per_sample=8`).
#[test]
fn avif_and_jpeg_xl_are_as_their_own_libraries_decode_them() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut compared = 0;
    for entry in fs::read_dir(root.join("tests/golden/decoded")).expect("the pictures") {
        let decoded = entry.expect("a picture").path();
        let name = decoded.file_stem().and_then(|name| name.to_str()).expect("a name");
        let source = fs::read(root.join("src/thumbnail/testdata").join(name)).expect("the source");
        let decoded = image::open(&decoded).expect("a picture");
        let asked = Asked {
            method: ThumbnailMethod::Scale,
            size: (decoded.width() / 2, decoded.height() / 2),
            encoding: ThumbnailEncoding::Universal,
        };
        assert_alike(&thumbnail(&source, asked), &reference(&decoded, asked), name);
        compared += 1;
    }
    assert_eq!(compared, 10);
}

/// If this fails, nothing above says anything.
#[test]
fn what_is_wrong_with_a_picture_is_seen() {
    let source = scene(SOURCE.0, SOURCE.1, true);
    for asked in all_asked() {
        let right = reference(&source, asked);
        assert!(is_alike(compare(&right, &right)));
        let swapped = |image: &DynamicImage| {
            let mut image = image.to_rgba8();
            image.pixels_mut().for_each(|pixel| pixel.0.swap(0, 2));
            DynamicImage::from(image)
        };
        let opaque = DynamicImage::from(right.to_rgb8());
        let brighter = right.brighten(12);
        let mut cut = right.to_rgba8();
        let (width, height) = (cut.width(), cut.height());
        imageops::replace(&mut cut, &RgbaImage::new(width / 3, height / 3), 0, 0);
        // By one pixel of the thumbnail.
        let columns = source.width().div_ceil(asked.size.0);
        let shift = columns.min(source.height().div_ceil(asked.size.1));
        for (what, wrong) in [
            ("shifted", reference_of_part(&source, asked, shift)),
            ("turned", right.fliph()),
            ("on its head", right.flipv()),
            ("exchanged colours", swapped(&right)),
            ("no transparency", opaque),
            ("blurred", right.blur(2.5)),
            ("too bright", brighter),
            ("a hole", cut.into()),
            ("another picture", RgbImage::new(asked.size.0, asked.size.1).into()),
        ] {
            let likeness = compare(&wrong, &right);
            assert!(!is_alike(likeness), "{what} passes for {asked:?}: {likeness:?}");
        }
    }
}

/// A drawing with fills, strokes, curves and a gradient, but no text: fonts differ by machine.
const DRAWING: &[u8] = br##"<svg xmlns="http://www.w3.org/2000/svg" width="640" height="480">
<defs><linearGradient id="g"><stop offset="0" stop-color="#fd3"/><stop offset="1" stop-color="#36c"/>
</linearGradient></defs><rect x="20" y="20" width="600" height="440" rx="50" fill="url(#g)"/>
<circle cx="420" cy="200" r="110" fill="#c33" fill-opacity="0.7"/>
<path d="M60 420 C 160 60 300 460 580 90" fill="none" stroke="#111" stroke-width="14"/></svg>"##;

/// What only we decode, and what has been looked at.
#[test]
fn formats_without_another_decoder_are_as_they_were_when_they_were_looked_at() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, source) in [("drawing", DRAWING.to_vec())] {
        for (method, size) in
            [(ThumbnailMethod::Crop, (96, 96)), (ThumbnailMethod::Scale, (160, 120))]
        {
            let asked = Asked { method, size, encoding: ThumbnailEncoding::Universal };
            let made = thumbnail(&source, asked);
            let golden = folder.join(format!("{name}-{}.png", method.as_str()));
            if std::env::var_os("MEDIARY_UPDATE").is_some() {
                made.save(&golden).expect("the golden picture can be written");
            }
            let bytes = fs::read(&golden).expect("there is one; MEDIARY_UPDATE=1 writes it");
            let expected = image::load_from_memory(&bytes).expect("a picture");
            assert_alike(&made, &expected, name);
        }
    }
}
