//! Small pictures for tests, made in code.

use std::fs::File;
use std::io::{Cursor, Write};

use image::codecs::gif::GifEncoder;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, Frame, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;
use proptest::sample::Index;

/// The colour of a quarter of [`quarters`]: top left, top right, bottom left, bottom right.
pub(super) const QUARTERS: [[u8; 3]; 4] =
    [[230, 20, 20], [20, 230, 20], [20, 20, 230], [230, 230, 20]];

/// Returns a picture whose quarters differ, so that turning and cutting can be seen.
///
/// Rough as a photograph is: a flat one would take fewer bytes than its own thumbnail.
pub(super) fn quarters(width: u32, height: u32) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, y| {
        let right = usize::from(x >= width / 2);
        let bottom = usize::from(y >= height / 2);
        Rgb(QUARTERS[right + 2 * bottom].map(|channel| channel + roughness(x, y)))
    })
    .into()
}

/// Returns the same small number for the same place, without a pattern.
fn roughness(x: u32, y: u32) -> u8 {
    let mixed = x.wrapping_mul(0x9e37_79b9) ^ y.wrapping_mul(0x85eb_ca6b);
    (mixed.wrapping_mul(0xc2b2_ae35) >> 28) as u8
}

/// Returns what a camera would have stored for the same scene in each position, and the number that says so.
pub(super) fn as_stored_by_a_camera(upright: &DynamicImage) -> [(u8, DynamicImage); 8] {
    [
        (1, upright.clone()),
        (2, upright.fliph()),
        (3, upright.rotate180()),
        (4, upright.flipv()),
        (5, upright.rotate90().fliph()),
        (6, upright.rotate270()),
        (7, upright.rotate270().fliph()),
        (8, upright.rotate90()),
    ]
}

/// Returns files with a few other bytes, some of them cut off.
pub(super) fn damaged(whole: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damage = proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    (whole, damage, proptest::option::of(any::<Index>())).prop_map(|(mut bytes, damage, end)| {
        for (index, byte) in damage {
            *index.get_mut(&mut bytes) = byte;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    })
}

/// Returns a picture that is half transparent and invisibly green, half opaque and red.
pub(super) fn half_transparent(width: u32, height: u32) -> DynamicImage {
    RgbaImage::from_fn(width, height, |x, y| {
        let rough = roughness(x, y);
        if x < width / 2 { Rgba([rough, 255, 0, 0]) } else { Rgba([255 - rough, 0, rough, 255]) }
    })
    .into()
}

pub(super) fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    match format {
        // Good enough that flat colours survive.
        ImageFormat::Jpeg => {
            image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 95))
        }
        _ => image.write_to(&mut bytes, format),
    }
    .expect("samples can be encoded");
    bytes.into_inner()
}

/// Returns a file with the given bytes, at its end as after writing.
pub(super) fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("room for a sample");
    file
}

pub(super) fn gif(width: u32, height: u32, frames: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    let frame = Frame::new(quarters(width, height).into_rgba8());
    encoder.encode_frames(std::iter::repeat_n(frame, frames)).expect("samples can be encoded");
    drop(encoder);
    bytes
}

/// Returns a GIF with one more block before its frames.
pub(super) fn gif_with(mut gif: Vec<u8>, block: &[u8]) -> Vec<u8> {
    let flags = gif[10];
    let table_length = if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 0x07) + 1) };
    let start = 13 + table_length;
    gif.splice(start..start, block.iter().copied());
    gif
}

/// Returns a PNG that calls itself an animation.
pub(super) fn animated_png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encoded(&quarters(width, height), ImageFormat::Png);
    let control = png_chunk(b"acTL", &[0, 0, 0, 1, 0, 0, 0, 0]);
    bytes.splice(PNG_HEADER_LENGTH..PNG_HEADER_LENGTH, control);
    bytes
}

/// Returns a PNG with one more chunk before its pixels.
pub(super) fn png_with(image: &DynamicImage, name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = encoded(image, ImageFormat::Png);
    bytes.splice(PNG_HEADER_LENGTH..PNG_HEADER_LENGTH, png_chunk(name, body));
    bytes
}

/// The signature and the IHDR chunk.
pub(super) const PNG_HEADER_LENGTH: usize = 8 + 12 + 13;

pub(super) fn png_chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut chunk = (body.len() as u32).to_be_bytes().to_vec();
    chunk.extend(name);
    chunk.extend(body);
    let crc = crc32(&chunk[4..]);
    chunk.extend(crc.to_be_bytes());
    chunk
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

/// Returns a lossless WebP that calls itself an animation.
pub(super) fn animated_webp(width: u32, height: u32) -> Vec<u8> {
    const ANIMATION_FLAG: u8 = 0x02;
    let still = encoded(&quarters(width, height), ImageFormat::WebP);
    let picture = &still[12..];
    let side = |pixels: u32| (pixels - 1).to_le_bytes()[..3].to_vec();
    let sides = [side(width), side(height)].concat();
    let fields = [&[0; 6][..], &sides, &[100, 0, 0, 0]].concat();
    let extended = [&[ANIMATION_FLAG, 0, 0, 0][..], &sides].concat();
    let chunks = [
        riff_chunk(b"VP8X", &extended),
        riff_chunk(b"ANIM", &[0; 6]),
        riff_chunk(b"ANMF", &[&fields, picture].concat()),
        riff_chunk(b"ANMF", &[&fields, picture].concat()),
    ];
    riff_chunk(b"RIFF", &[b"WEBP".to_vec(), chunks.concat()].concat())
}

/// Returns a lossless WebP with an EXIF chunk.
pub(super) fn webp_with_orientation(image: &DynamicImage, orientation: u8) -> Vec<u8> {
    const EXIF_FLAG: u8 = 0x08;
    let still = encoded(image, ImageFormat::WebP);
    let side = |pixels: u32| (pixels - 1).to_le_bytes()[..3].to_vec();
    let sides = [side(image.width()), side(image.height())].concat();
    let extended = [&[EXIF_FLAG, 0, 0, 0][..], &sides].concat();
    let chunks = [
        riff_chunk(b"VP8X", &extended),
        still[12..].to_vec(),
        riff_chunk(b"EXIF", &exif(orientation)),
    ];
    riff_chunk(b"RIFF", &[b"WEBP".to_vec(), chunks.concat()].concat())
}

/// Returns a RIFF chunk, filled up to an even length.
pub(super) fn riff_chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut chunk = name.to_vec();
    chunk.extend((body.len() as u32).to_le_bytes());
    chunk.extend(body);
    chunk.resize(chunk.len().next_multiple_of(2), 0);
    chunk
}

/// Returns an EXIF block that says nothing but the orientation.
pub(super) fn exif(orientation: u8) -> Vec<u8> {
    let mut block = b"MM\0\x2a\0\0\0\x08\0\x01".to_vec();
    block.extend([1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0]);
    block
}

/// Returns a JPEG with an EXIF block behind its first marker.
pub(super) fn jpeg_with_orientation(image: &DynamicImage, orientation: u8) -> Vec<u8> {
    let exif = [b"Exif\0\0".to_vec(), exif(orientation)].concat();
    jpeg_with(encoded(image, ImageFormat::Jpeg), 0xe1, &exif)
}

/// Returns a JPEG with one more segment behind its first marker.
pub(super) fn jpeg_with(mut jpeg: Vec<u8>, marker: u8, body: &[u8]) -> Vec<u8> {
    let mut segment = vec![0xff, marker];
    segment.extend((body.len() as u16 + 2).to_be_bytes());
    segment.extend(body);
    jpeg.splice(2..2, segment);
    jpeg
}

/// Returns an uncompressed TIFF that says how it is to be turned.
pub(super) fn tiff(image: &RgbImage, orientation: u16) -> Vec<u8> {
    const HEADER_LENGTH: u32 = 8;
    let (width, height) = image.dimensions();
    let strip_length = 3 * width * height;
    let [short, long] = [3_u16, 4];
    let mut directory = Vec::new();
    let fields = [
        (256, long, 1, width),
        (257, long, 1, height),
        (258, short, 3, HEADER_LENGTH + strip_length),
        (259, short, 1, 1),
        (262, short, 1, 2),
        (273, long, 1, HEADER_LENGTH),
        (274, short, 1, u32::from(orientation)),
        (277, short, 1, 3),
        (278, long, 1, height),
        (279, long, 1, strip_length),
    ];
    directory.extend((fields.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in fields {
        directory.extend(u16::to_le_bytes(tag));
        directory.extend(kind.to_le_bytes());
        directory.extend(u32::to_le_bytes(count));
        directory.extend(value.to_le_bytes());
    }
    directory.extend([0; 4]);
    let bits_per_sample = [8, 0, 8, 0, 8, 0];
    let start = HEADER_LENGTH + strip_length + bits_per_sample.len() as u32;
    [&b"II*\0"[..], &start.to_le_bytes(), image, &bits_per_sample, &directory].concat()
}

/// Returns a FLAC without sound that has nothing but a cover.
pub(super) fn flac(cover: &[u8]) -> Vec<u8> {
    const LAST: u8 = 0x80;
    let block = |kind: u8, body: &[u8]| {
        let [_, length @ ..] = (body.len() as u32).to_be_bytes();
        [&[kind][..], &length, body].concat()
    };
    let cover = flac_picture(cover);
    [b"fLaC".to_vec(), block(0, &[0; 34]), block(6 | LAST, &cover)].concat()
}

fn flac_picture(cover: &[u8]) -> Vec<u8> {
    const FRONT_COVER: u32 = 3;
    let text = |text: &[u8]| [&(text.len() as u32).to_be_bytes()[..], text].concat();
    [&FRONT_COVER.to_be_bytes()[..], &text(b"image/png"), &text(b""), &[0; 16], &text(cover)]
        .concat()
}

/// Returns an ID3 tag with a cover, and the header of one frame of sound.
pub(super) fn mp3(cover: &[u8]) -> Vec<u8> {
    let picture = [&b"\0image/png\0\x03\0"[..], cover].concat();
    let length = (picture.len() as u32).to_be_bytes();
    let frame = [&b"APIC"[..], &length, &[0; 2], &picture].concat();
    // Seven bits in each byte.
    let length = [21, 14, 7, 0].map(|shift| (frame.len() >> shift) as u8 & 0x7f);
    [&b"ID3\x03\0\0"[..], &length, &frame, b"\xff\xfb\x90\x64", &[0; 413]].concat()
}

/// Returns an M4A that has nothing but a cover.
pub(super) fn m4a(cover: &[u8]) -> Vec<u8> {
    let boxed = |name: &[u8; 4], body: &[u8]| {
        [&(8 + body.len() as u32).to_be_bytes()[..], name, body].concat()
    };
    let data = boxed(b"data", &[&[0, 0, 0, 14, 0, 0, 0, 0][..], cover].concat());
    let list = boxed(b"ilst", &boxed(b"covr", &data));
    let handler = boxed(b"hdlr", &[&[0; 8][..], b"mdirappl", &[0; 9]].concat());
    let meta = boxed(b"meta", &[&[0; 4][..], &handler, &list].concat());
    let movie = boxed(b"moov", &boxed(b"udta", &meta));
    [boxed(b"ftyp", b"M4A \0\0\0\0M4A isom"), movie].concat()
}
