//! Moving thumbnails, read back.

mod written;

use std::io::Cursor;
use std::time::{Duration, Instant};

use image::codecs::gif::{GifDecoder, GifEncoder};
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, Delay, Frame, GenericImageView, ImageFormat, Rgba, RgbaImage};

use super::survey::Plays;
use super::{gif as gif_out, webp as webp_out};
use crate::thumbnail::decode::{self, gif};
use crate::thumbnail::limits::Limits;
use crate::thumbnail::samples::{self, encoded, file, riff_chunk};
use crate::thumbnail::{Job, Rendered, ThumbnailError, render};
use crate::types::ThumbnailMethod::{Crop, Scale};
use crate::types::{
    MovingEncoding, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec,
};

const RED: [u8; 3] = [200, 20, 20];
const GREEN: [u8; 3] = [20, 200, 20];
const BLUE: [u8; 3] = [20, 20, 200];
const YELLOW: [u8; 3] = [200, 200, 20];

const ENCODINGS: [MovingEncoding; 2] = [MovingEncoding::WebP, MovingEncoding::Gif];

/// An animation as it is shown: each picture with its milliseconds.
type Film = Vec<(RgbaImage, u32)>;

/// A picture of one colour that is still large in bytes, so that a thumbnail of it is smaller.
fn coloured(width: u32, height: u32, [red, green, blue]: [u8; 3]) -> RgbaImage {
    let mut state = 1_u32;
    RgbaImage::from_fn(width, height, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (state >> 28) as u8;
        Rgba([red + noise, green + noise, blue + noise, 255])
    })
}

fn film(colours: &[([u8; 3], u32)]) -> Film {
    colours.iter().map(|&(colour, millis)| (coloured(120, 90, colour), millis)).collect()
}

fn gif_of(film: &Film) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 30);
    for (picture, millis) in film {
        let delay = Delay::from_numer_denom_ms(*millis, 1);
        let frame = Frame::from_parts(picture.clone(), 0, 0, delay);
        encoder.encode_frame(frame).expect("samples can be encoded");
    }
    drop(encoder);
    bytes
}

fn apng_of(film: &Film, plays: u32) -> Vec<u8> {
    let still = |picture: &RgbaImage| encoded(&picture.clone().into(), ImageFormat::Png);
    let first = still(&film[0].0);
    let mut bytes = first[..samples::PNG_HEADER_LENGTH].to_vec();
    let counts = [film.len() as u32, plays].map(u32::to_be_bytes).concat();
    bytes.extend(samples::png_chunk(b"acTL", &counts));
    let mut sequence = 0_u32;
    let mut next = || (sequence, sequence += 1).0.to_be_bytes();
    for (index, (picture, millis)) in film.iter().enumerate() {
        let (width, height) = picture.dimensions();
        let sides = [width, height, 0, 0].map(u32::to_be_bytes).concat();
        let delay = [*millis as u16, 1000].map(u16::to_be_bytes).concat();
        let control = [&next()[..], &sides, &delay, &[0, 0]].concat();
        bytes.extend(samples::png_chunk(b"fcTL", &control));
        for data in png_data(&still(picture)) {
            bytes.extend(match index {
                0 => samples::png_chunk(b"IDAT", data),
                _ => samples::png_chunk(b"fdAT", &[&next()[..], data].concat()),
            });
        }
    }
    bytes.extend(samples::png_chunk(b"IEND", b""));
    bytes
}

fn png_data(png: &[u8]) -> Vec<&[u8]> {
    let mut rest = &png[8..];
    let mut found = Vec::new();
    while let Some((head, body)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes(*head.first_chunk().unwrap()) as usize;
        if &head[4..] == b"IDAT" {
            found.push(&body[..length]);
        }
        rest = &body[length + 4..];
    }
    found
}

fn webp_of(film: &Film, plays: u16, orientation: u8) -> Vec<u8> {
    let side = |pixels: u32| (pixels - 1).to_le_bytes()[..3].to_vec();
    let (width, height) = film[0].0.dimensions();
    let sides = [side(width), side(height)].concat();
    let mut chunks = riff_chunk(b"VP8X", &[&[0x1a, 0, 0, 0][..], &sides].concat());
    chunks.extend(riff_chunk(b"ANIM", &[&[0; 4][..], &plays.to_le_bytes()].concat()));
    for (picture, millis) in film {
        let still = encoded(&picture.clone().into(), ImageFormat::WebP);
        let fields = [&[0; 6][..], &sides, &millis.to_le_bytes()[..3], &[2]].concat();
        chunks.extend(riff_chunk(b"ANMF", &[&fields, &still[12..]].concat()));
    }
    chunks.extend(riff_chunk(b"EXIF", &samples::exif(orientation)));
    riff_chunk(b"RIFF", &[b"WEBP".to_vec(), chunks].concat())
}

fn spec(width: u32, height: u32, method: ThumbnailMethod) -> ThumbnailSpec {
    let size = ThumbnailSize { width, height };
    ThumbnailSpec { size, method, animated: true, encoding: ThumbnailEncoding::Universal }
}

fn made_under(
    limits: Limits,
    source: &[u8],
    spec: &ThumbnailSpec,
    moving: MovingEncoding,
) -> Result<Rendered, ThumbnailError> {
    let job = Job { specs: vec![*spec], limits, moving, is_extracted: false };
    render(file(source), &job).map(|mut made| made.remove(0))
}

/// Makes a thumbnail that has to move, and reads it back.
fn moving(source: &[u8], spec: &ThumbnailSpec, moving: MovingEncoding) -> Film {
    match made_under(Limits::default(), source, spec, moving).expect("a thumbnail") {
        Rendered::Encoded { bytes, content_type, size } => {
            let film = read(&bytes, content_type);
            assert!(film.iter().all(|(it, _)| it.dimensions() == (size.width, size.height)));
            film
        }
        original => panic!("{original:?}"),
    }
}

/// Asserts that a thumbnail stands still.
fn assert_still(made: &Result<Rendered, ThumbnailError>, size: (u32, u32)) {
    match made {
        Ok(Rendered::Encoded { bytes, content_type, .. }) => {
            assert!(["image/jpeg", "image/png"].contains(content_type), "{content_type}");
            let picture = image::load_from_memory(bytes).expect("thumbnails can be decoded");
            assert_eq!(picture.dimensions(), size);
        }
        other => panic!("{other:?}"),
    }
}

fn read(bytes: &[u8], content_type: &str) -> Film {
    let reader = Cursor::new(bytes);
    let frames = match content_type {
        "image/webp" => WebPDecoder::new(reader).expect("a WebP").into_frames(),
        "image/gif" => GifDecoder::new(reader).expect("a GIF").into_frames(),
        other => panic!("{other} does not move"),
    };
    let shown = |frame: Frame| {
        let (numerator, denominator) = frame.delay().numer_denom_ms();
        (frame.into_buffer(), numerator / denominator)
    };
    frames.map(|frame| shown(frame.expect("a whole frame"))).collect()
}

fn millis(film: &Film) -> Vec<u32> {
    film.iter().map(|(_, millis)| *millis).collect()
}

fn assert_colours(film: &Film, expected: &[[u8; 3]]) {
    assert_eq!(film.len(), expected.len());
    for (index, ((picture, _), colour)) in film.iter().zip(expected).enumerate() {
        for pixel in picture.pixels() {
            let off = pixel.0.iter().zip(colour).map(|(is, should)| is.abs_diff(*should)).max();
            assert!(off <= Some(24), "frame {index}: {pixel:?} instead of {colour:?}");
            assert_eq!(pixel.0[3], 255);
        }
    }
}

/// CS-TH-14, CS-TH-17, CS-TH-18
#[test]
fn every_source_gives_every_encoding() {
    let film = film(&[(RED, 50), (GREEN, 70), (BLUE, 200), (RED, 1000)]);
    for source in [gif_of(&film), apng_of(&film, 0), webp_of(&film, 0, 1)] {
        for encoding in ENCODINGS {
            let made = moving(&source, &spec(20, 15, Scale), encoding);
            assert_colours(&made, &[RED, GREEN, BLUE, RED]);
            assert_eq!(millis(&made), [50, 70, 200, 1000]);
            assert_eq!(made[0].0.dimensions(), (20, 15));
            let made = moving(&source, &spec(16, 16, Crop), encoding);
            assert_colours(&made, &[RED, GREEN, BLUE, RED]);
            assert_eq!(made[0].0.dimensions(), (16, 16));
        }
    }
}

/// CS-TH-15, CS-TH-16
#[test]
fn what_was_not_asked_to_move_stands_still() {
    let film = film(&[(RED, 50), (GREEN, 70)]);
    for source in [gif_of(&film), apng_of(&film, 0), webp_of(&film, 0, 1)] {
        let still = ThumbnailSpec { animated: false, ..spec(20, 15, Scale) };
        for encoding in ENCODINGS {
            assert_still(&made_under(Limits::default(), &source, &still, encoding), (20, 15));
        }
    }
}

#[test]
fn the_first_frame_is_the_still_thumbnail() {
    let film = film(&[(YELLOW, 50), (GREEN, 70)]);
    let source = webp_of(&film, 0, 1);
    let still = ThumbnailSpec { animated: false, ..spec(20, 15, Scale) };
    let job = Job {
        specs: vec![still, spec(20, 15, Scale)],
        limits: Limits::default(),
        moving: MovingEncoding::WebP,
        is_extracted: false,
    };
    let made = render(file(&source), &job).expect("two thumbnails");
    let [Rendered::Encoded { bytes: still, .. }, Rendered::Encoded { bytes: moving, .. }] =
        &made[..]
    else {
        panic!("{made:?}")
    };
    let still = image::load_from_memory(still).expect("thumbnails can be decoded").into_rgba8();
    let moving = read(moving, "image/webp");
    for (one, other) in still.pixels().zip(moving[0].0.pixels()) {
        assert!(one.0.iter().zip(other.0).all(|(a, b)| a.abs_diff(b) <= 24), "{one:?} {other:?}");
    }
}

#[test]
fn a_delay_that_browsers_do_not_obey_becomes_theirs() {
    let film = film(&[(RED, 0), (GREEN, 10), (BLUE, 20)]);
    for source in [gif_of(&film), apng_of(&film, 0), webp_of(&film, 0, 1)] {
        for encoding in ENCODINGS {
            let made = moving(&source, &spec(20, 15, Scale), encoding);
            assert_eq!(millis(&made), [100, 100, 20], "{encoding:?}");
        }
    }
}

#[test]
fn frames_that_look_the_same_become_one() {
    let film = film(&[(RED, 50), (RED, 60), (GREEN, 70), (GREEN, 0), (RED, 40)]);
    for encoding in ENCODINGS {
        let made = moving(&webp_of(&film, 0, 1), &spec(20, 15, Scale), encoding);
        assert_colours(&made, &[RED, GREEN, RED]);
        assert_eq!(millis(&made), [110, 170, 40]);
    }
}

#[test]
fn what_never_changes_stands_still() {
    let film = film(&[(RED, 50), (RED, 60), (RED, 70)]);
    for source in
        [gif_of(&film), apng_of(&film, 0), webp_of(&film, 0, 1), gif_of(&film[..1].to_vec())]
    {
        for encoding in ENCODINGS {
            let made = made_under(Limits::default(), &source, &spec(20, 15, Scale), encoding);
            assert_still(&made, (20, 15));
        }
    }
}

#[test]
fn it_is_shown_as_often_as_the_source() {
    let film = film(&[(RED, 50), (GREEN, 70)]);
    let once_more = |again: Option<u16>| {
        let mut gif = gif_of(&film);
        if let Some(again) = again {
            let [low, high] = again.to_le_bytes();
            let block = [b"\x21\xff\x0bNETSCAPE2.0\x03\x01", &[low, high, 0][..]].concat();
            gif = samples::gif_with(gif, &block);
        }
        gif
    };
    let sources = [
        (once_more(None), 1),
        (once_more(Some(0)), 0),
        (once_more(Some(4)), 5),
        (once_more(Some(u16::MAX)), u16::MAX),
        (apng_of(&film, 0), 0),
        (apng_of(&film, 1), 1),
        (apng_of(&film, 7), 7),
        (webp_of(&film, 0, 1), 0),
        (webp_of(&film, 1, 1), 1),
        (webp_of(&film, 7, 1), 7),
    ];
    for (source, plays) in sources {
        let asked = spec(20, 15, Scale);
        let made = |encoding| match made_under(Limits::default(), &source, &asked, encoding) {
            Ok(Rendered::Encoded { bytes, .. }) => bytes,
            other => panic!("{other:?}"),
        };
        let webp = made(MovingEncoding::WebP);
        let at = webp.windows(4).position(|name| name == b"ANIM").expect("an animation");
        assert_eq!(u16::from_le_bytes([webp[at + 12], webp[at + 13]]), plays);
        let survey = gif::survey(&mut Cursor::new(made(MovingEncoding::Gif)), 9).expect("a GIF");
        let again = match plays {
            1 => None,
            0 => Some(0),
            // One in the source that WebP cannot express, and GIF can.
            u16::MAX => Some(u16::MAX),
            plays => Some(plays - 1),
        };
        assert_eq!(survey.repeats, again);
    }
}

#[test]
fn frames_are_turned_like_stills() {
    let mut quarters = samples::quarters(120, 90).into_rgba8();
    for (noisy, pixel) in coloured(120, 90, [0; 3]).pixels().zip(quarters.pixels_mut()) {
        let [red, green, blue, _] = noisy.0;
        for (channel, noise) in pixel.0.iter_mut().zip([red, green, blue]) {
            *channel = channel.saturating_add(noise);
        }
    }
    let film = vec![(quarters, 50), (coloured(120, 90, RED), 50)];
    for orientation in 1..=8 {
        let source = webp_of(&film, 0, orientation);
        let still = ThumbnailSpec { animated: false, ..spec(18, 18, Scale) };
        let made = made_under(Limits::default(), &source, &still, MovingEncoding::WebP);
        let Ok(Rendered::Encoded { bytes, .. }) = made else { panic!("{made:?}") };
        let still = image::load_from_memory(&bytes).expect("thumbnails can be decoded");
        let made = moving(&source, &spec(18, 18, Scale), MovingEncoding::WebP);
        assert_eq!(still.dimensions(), made[0].0.dimensions(), "{orientation}");
        let (width, height) = still.dimensions();
        for (x, y) in [(3, 3), (width - 4, 3), (3, height - 4), (width - 4, height - 4)] {
            let (one, other) = (still.get_pixel(x, y), made[0].0.get_pixel(x, y));
            let is_near = one.0.iter().zip(other.0).all(|(a, b)| a.abs_diff(b) <= 30);
            assert!(is_near, "{orientation}: {one:?} {other:?}");
        }
    }
}

/// Threats IM-03
#[test]
fn too_many_frames_or_pixels_stand_still() {
    let film = film(&[(RED, 50), (GREEN, 70), (BLUE, 200)]);
    let frames = Limits { max_frames: 2, ..Limits::default() };
    let pixels = Limits { max_animation_pixels: 3 * 120 * 90 - 1, ..Limits::default() };
    for source in [gif_of(&film), apng_of(&film, 0), webp_of(&film, 0, 1)] {
        for limits in [frames, pixels] {
            let made = made_under(limits, &source, &spec(20, 15, Scale), MovingEncoding::WebP);
            assert_still(&made, (20, 15));
        }
    }
}

/// Threats IM-03
#[test]
fn a_flood_of_frames_is_counted_not_decoded() {
    let mut gif = samples::gif(40, 30, 2);
    let trailer = gif.pop().expect("a trailer");
    // Frames that no decoder would get through: they are not decoded.
    for _ in 0..200_000 {
        gif.extend(b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x01\xff\0");
    }
    gif.push(trailer);
    let start = Instant::now();
    let made = made_under(Limits::default(), &gif, &spec(20, 15, Scale), MovingEncoding::WebP);
    assert_still(&made, (20, 15));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn damage_ends_the_animation_before_it() {
    let film = film(&[(RED, 50), (GREEN, 70), (BLUE, 200), (YELLOW, 300)]);
    for source in [gif_of(&film), apng_of(&film, 0)] {
        let frame = source.len() / 4;
        assert_damaged(&source[..frame * 2 - frame / 2], &source[..frame * 3 - frame / 2]);
    }
    // Decoders of WebP read no file that has been cut off.
    let webp = webp_of(&film, 0, 1);
    let pictures = webp.windows(4).enumerate().filter(|(_, name)| name == b"VP8L");
    let [second, third] = [1, 2].map(|index| {
        let (place, _) = pictures.clone().nth(index).expect("four frames");
        let mut damaged = webp.clone();
        damaged[place..place + 4].copy_from_slice(b"ouch");
        damaged
    });
    assert_damaged(&second, &third);
}

/// One is damaged in its second frame, red before, the other in its third, with green between.
fn assert_damaged(second: &[u8], third: &[u8]) {
    for encoding in ENCODINGS {
        assert_colours(&moving(third, &spec(20, 15, Scale), encoding), &[RED, GREEN]);
        let made = made_under(Limits::default(), second, &spec(20, 15, Scale), encoding);
        assert_still(&made, (20, 15));
    }
}

#[test]
fn what_would_be_no_smaller_is_the_original() {
    let source = samples::gif(24, 20, 1);
    let mut tiny = source[..source.len() - 1].to_vec();
    // One pixel changes.
    tiny.extend(b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0\x3b");
    for encoding in ENCODINGS {
        match made_under(Limits::default(), &tiny, &spec(23, 19, Scale), encoding) {
            Ok(Rendered::Original { content_type }) => assert_eq!(content_type, "image/gif"),
            Ok(Rendered::Encoded { bytes, .. }) => assert!(bytes.len() < tiny.len()),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_shape_that_moves_over_nothing_leaves_nothing_behind() {
    let film: Film = (0..4_u32)
        .map(|step| {
            let mut picture = coloured(120, 90, GREEN);
            for (x, _, pixel) in picture.enumerate_pixels_mut() {
                if x / 30 != step {
                    *pixel = Rgba([0; 4]);
                }
            }
            (picture, 50)
        })
        .collect();
    for source in [gif_transparent(&film), apng_of(&film, 0), webp_of(&film, 0, 1)] {
        for encoding in ENCODINGS {
            let made = moving(&source, &spec(40, 30, Scale), encoding);
            assert_eq!(made.len(), 4);
            for (step, (picture, _)) in made.iter().enumerate() {
                for column in 0..4_u32 {
                    let alpha = picture.get_pixel(column * 10 + 5, 15).0[3];
                    let expected = if column == step as u32 { 255 } else { 0 };
                    assert_eq!(alpha, expected, "{encoding:?} {step} {column}");
                }
            }
        }
    }
}

/// A GIF whose frames are each taken away before the next one.
fn gif_transparent(film: &Film) -> Vec<u8> {
    let (width, height) = film[0].0.dimensions();
    let mut writer = ::gif::Encoder::new(Vec::new(), width as u16, height as u16, &[]).unwrap();
    for (picture, millis) in film {
        let mut pixels = picture.clone().into_raw();
        let frame = ::gif::Frame::from_rgba_speed(width as u16, height as u16, &mut pixels, 30);
        let delay = (*millis / 10) as u16;
        let dispose = ::gif::DisposalMethod::Background;
        writer.write_frame(&::gif::Frame { delay, dispose, ..frame }).unwrap();
    }
    writer.into_inner().unwrap()
}

#[test]
fn sizes_that_an_encoding_cannot_express_stand_still() {
    let long = ThumbnailSize { width: 70_000, height: 1 };
    assert!(webp_out::WebPEncoder::new(long, Plays::Forever).is_none());
    assert!(gif_out::GifEncoder::new(long, Plays::Forever).is_none());
    let edge = ThumbnailSize { width: 16_383, height: 1 };
    assert!(webp_out::WebPEncoder::new(edge, Plays::Forever).is_some());
}

#[test]
fn a_moving_source_is_read_by_position() {
    let film = film(&[(RED, 50), (GREEN, 70)]);
    let source = file(&gif_of(&film));
    let limits = Limits::default();
    let opened = decode::open(source.try_clone().unwrap(), &limits).expect("a picture");
    let job = Job {
        specs: vec![spec(20, 15, Scale)],
        limits,
        moving: MovingEncoding::WebP,
        is_extracted: false,
    };
    let whole = crate::thumbnail::Area::whole(opened.header().size);
    let to = ThumbnailSize { width: 20, height: 15 };
    let header = opened.header();
    let film = super::Film {
        file: &source,
        length: source.metadata().unwrap().len(),
        format: header.format,
        canvas: header.size,
        orientation: header.orientation,
    };
    let made = super::render(&film, (whole, to), |frame| frame, &job).expect("readable");
    assert!(made.is_some());
    // The other reader goes on where it was.
    let pixels = opened.decode(to).expect("a picture");
    let decode::Pixels::Image(image) = pixels else { panic!("{pixels:?}") };
    assert_eq!(image.dimensions(), (120, 90));
}
