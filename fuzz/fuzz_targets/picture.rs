//! Pictures, and what thumbnails are made of it: the whole road, under small limits.
//!
//! The environment variable `ROAD` holds the search on files that begin like one format, so that it does
//! not leave for one that is easier; without it every file is tried.
#![no_main]

use std::cell::RefCell;
use std::fs::File;
use std::io::{Cursor, Seek, Write};
use std::sync::LazyLock;

use image::codecs::gif::GifDecoder;
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, Frames, GenericImageView, ImageResult};
use libfuzzer_sys::{Corpus, fuzz_target};
use mediary::thumbnail::{Job, Limits, Rendered, ThumbnailError, is_supported, render};
use mediary::types::ThumbnailMethod::{Crop, Scale};
use mediary::types::{
    MovingEncoding, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec,
};

fuzz_target!(|input: &[u8]| -> Corpus {
    if !ROAD.as_ref().is_none_or(|begins| begins(input)) {
        return Corpus::Reject;
    }
    let choices = choices(input);
    let mut specs = vec![
        spec(16, 16, Crop, false),
        spec(40, 30, Scale, true),
        // Most inputs are smaller: they come back as they are.
        spec(600, 600, Scale, true),
    ];
    if choices & 1 != 0 {
        specs.iter_mut().for_each(|spec| spec.encoding = ThumbnailEncoding::WebP);
    }
    let moving = if choices & 2 != 0 { MovingEncoding::Gif } else { MovingEncoding::WebP };
    let limits = Limits { max_pixels: 200_000, max_frames: 20, max_animation_pixels: 400_000 };
    let job = Job { specs, limits, moving, is_extracted: choices & 4 != 0 };
    match render(file(input), &job) {
        Ok(made) => {
            assert!(is_supported(input));
            assert_eq!(made.len(), job.specs.len());
            made.iter().for_each(what_is_made_can_be_read);
            for (made, spec) in made.iter().zip(&job.specs) {
                assert!(spec.animated || !moves(made, input), "nobody asked for motion");
                assert!(!job.is_extracted || matches!(made, Rendered::Encoded { .. }));
            }
        }
        Err(error @ (ThumbnailError::Panicked(_) | ThumbnailError::Io(_))) => panic!("{error:?}"),
        Err(_) => {}
    }
    Corpus::Keep
});

fn spec(width: u32, height: u32, method: ThumbnailMethod, animated: bool) -> ThumbnailSpec {
    let size = ThumbnailSize { width, height };
    ThumbnailSpec { size, method, animated, encoding: ThumbnailEncoding::Universal }
}

/// Returns what is asked of an input: the same each time, and any of it for inputs of every kind.
fn choices(input: &[u8]) -> u8 {
    // FNV-1a, of which the upper bits are mixed best.
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 56) as u8
}

/// Whether a thumbnail has more than one frame (CS-TH-15).
fn moves(made: &Rendered, input: &[u8]) -> bool {
    let (bytes, content_type) = match made {
        Rendered::Original { content_type } => (input, *content_type),
        Rendered::Encoded { bytes, content_type, .. } => (&bytes[..], *content_type),
    };
    let at_least_two = |frames: ImageResult<Frames>| {
        frames.is_ok_and(|frames| frames.take(2).filter(Result::is_ok).count() > 1)
    };
    let bytes = Cursor::new(bytes);
    match content_type {
        "image/apng" => true,
        "image/gif" => at_least_two(GifDecoder::new(bytes).map(GifDecoder::into_frames)),
        "image/webp" => WebPDecoder::new(bytes).is_ok_and(|webp| webp.has_animation()),
        _ => false,
    }
}

/// CS-HDR-07
const TYPES: [&str; 5] = ["image/jpeg", "image/png", "image/apng", "image/gif", "image/webp"];

fn what_is_made_can_be_read(made: &Rendered) {
    match made {
        Rendered::Original { content_type } => assert!(TYPES.contains(content_type)),
        Rendered::Encoded { bytes, content_type, size } => {
            assert!(TYPES.contains(content_type));
            let image = image::load_from_memory(bytes).expect("thumbnails can be decoded");
            assert_eq!(image.dimensions(), (size.width, size.height));
        }
    }
}

type Begins = fn(&[u8]) -> bool;

static ROAD: LazyLock<Option<Begins>> = LazyLock::new(|| {
    // The font for texts, beside it.
    mediary::thumbnail::prepare();
    let road = std::env::var("ROAD").ok()?;
    Some(match road.as_str() {
        "jpeg" => |input| input.starts_with(b"\xff\xd8\xff"),
        "png" => |input| input.starts_with(b"\x89PNG"),
        "gif" => |input| input.starts_with(b"GIF8"),
        "webp" => |input| input.get(8..12) == Some(b"WEBP"),
        "avif" => |input| input.get(4..8) == Some(b"ftyp"),
        "jxl" => |input| input.starts_with(b"\xff\x0a") || input.get(4..8) == Some(b"JXL "),
        "tiff" => |input| input.starts_with(b"II") || input.starts_with(b"MM"),
        "bmp" => |input| input.starts_with(b"BM"),
        "ico" => |input| input.starts_with(b"\0\0\x01\0"),
        "qoi" => |input| input.starts_with(b"qoif"),
        "svg" => |input| input.starts_with(b"<"),
        "cover" => |input| {
            [&b"ID3"[..], b"fLaC", b"OggS", b"\xff\xfb"]
                .iter()
                .any(|start| input.starts_with(start))
                || input.get(4..8) == Some(b"ftyp")
        },
        "any" => |_| true,
        road => panic!("no such road: {road}"),
    })
});

/// Returns a file with the given bytes; it is the same one every time.
fn file(bytes: &[u8]) -> File {
    thread_local! {
        static FILE: RefCell<File> = RefCell::new(unnamed());
    }
    FILE.with_borrow_mut(|file| {
        file.rewind().and_then(|()| file.set_len(0)).expect("a file");
        file.write_all(bytes).expect("room for an input");
        file.try_clone().expect("one more descriptor")
    })
}

fn unnamed() -> File {
    let path = std::env::temp_dir().join(format!("mediary-fuzz-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path);
    std::fs::remove_file(&path).expect("it was made just now");
    file.expect("a temporary file")
}
