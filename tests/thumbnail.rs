//! Thumbnails: sizes, formats, limits and how often they are made (checklist section 9, threats
//! IM-01 to IM-14).

mod common;

use std::io::Cursor;
use std::sync::Barrier;
use std::thread;

use common::http::Answer;
use common::{Client, Mediary, Settings, Synapse};
use image::codecs::gif::{GifDecoder, GifEncoder};
use image::{
    AnimationDecoder, DynamicImage, Frame, GenericImageView, ImageFormat, Rgb, RgbImage, Rgba,
    RgbaImage,
};

/// How often a thumbnail was made since the start.
const MADE: &str = "mediary_thumbnail_duration_seconds_count";

/// The colours of the quarters of [`quarters`]: top left, top right, bottom left, bottom right.
const COLOURS: [[u8; 3]; 4] = [[230, 20, 20], [20, 230, 20], [20, 20, 230], [230, 230, 20]];

/// A picture whose quarters differ, so that turning and cutting can be seen.
fn quarters(width: u32, height: u32) -> DynamicImage {
    let colour = |x, y| usize::from(x >= width / 2) + 2 * usize::from(y >= height / 2);
    RgbImage::from_fn(width, height, |x, y| Rgb(COLOURS[colour(x, y)])).into()
}

/// Returns which of the colours the quarters of a picture have.
fn quarters_of(image: &DynamicImage) -> [usize; 4] {
    let image = image.to_rgb8();
    [(1, 1), (3, 1), (1, 3), (3, 3)].map(|(x, y)| {
        let pixel = image.get_pixel(image.width() * x / 4, image.height() * y / 4).0;
        let is_near = |colour: &[u8; 3]| colour.iter().zip(pixel).all(|(a, b)| a.abs_diff(b) < 50);
        COLOURS.iter().position(is_near).unwrap_or_else(|| panic!("{pixel:?} is no colour of ours"))
    })
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("samples can be encoded");
    bytes.into_inner()
}

fn png(width: u32, height: u32) -> Vec<u8> {
    encoded(&quarters(width, height), ImageFormat::Png)
}

fn jpeg_with_orientation(image: &DynamicImage, orientation: u8) -> Vec<u8> {
    let mut bytes = encoded(image, ImageFormat::Jpeg);
    let mut block = b"\xff\xe1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01".to_vec();
    block.extend([1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0]);
    bytes.splice(2..2, block);
    bytes
}

fn gif(width: u32, height: u32, frames: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let frame = Frame::new(quarters(width, height).into_rgba8());
    let frames = std::iter::repeat_n(frame, frames);
    GifEncoder::new(&mut bytes).encode_frames(frames).expect("samples can be encoded");
    bytes
}

/// A PNG that says it is this large and has next to no pixels.
fn png_that_claims(width: u32, height: u32) -> Vec<u8> {
    let chunk = |name: &[u8; 4], body: &[u8]| {
        let length = u32::try_from(body.len()).expect("a short chunk").to_be_bytes();
        let checked = [name, body].concat();
        [&length, &checked[..], &crc32fast::hash(&checked).to_be_bytes()].concat()
    };
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let data = chunk(b"IDAT", &[0x78, 0x9c, 3, 0, 0, 0, 0, 1]);
    [b"\x89PNG\r\n\x1a\n", &chunk(b"IHDR", &header)[..], &data, &chunk(b"IEND", b"")].concat()
}

fn target(media: &str, query: &str) -> String {
    format!("/_matrix/client/v1/media/thumbnail/{media}?{query}")
}

fn thumbnail(client: &Client, media: &str, query: &str) -> Answer {
    let answer = client.get(&target(media, query));
    assert_eq!((answer.status, answer.complete), (200, true), "{query}: {}", answer.text());
    answer
}

fn decoded(answer: &Answer) -> DynamicImage {
    let image = image::load_from_memory(&answer.body).expect("thumbnails can be decoded");
    let magic: &[u8] = match answer.header("content-type") {
        Some("image/png") => b"\x89PNG",
        Some("image/jpeg") => b"\xff\xd8\xff",
        Some("image/gif") => b"GIF8",
        Some("image/webp") => b"RIFF",
        other => panic!("{other:?} is no type of a thumbnail"),
    };
    assert!(answer.body.starts_with(magic), "the type is not what the bytes are");
    image
}

/// A Synapse, Mediary in front of it, and a client with a user's token.
fn start() -> (Synapse, Mediary, Client) {
    start_with("")
}

fn start_with(settings: &str) -> (Synapse, Mediary, Client) {
    let synapse = Synapse::get();
    let mediary = Settings::new(&synapse.url).with(settings).start();
    let client = mediary.client_of(&synapse.user());
    (synapse, mediary, client)
}

/// CS-TH-03, CS-TH-04, CS-TH-05, CS-TH-07, FLD-12
#[test]
fn scale_covers_the_request_and_never_enlarges() {
    let (_synapse, _mediary, client) = start();
    for (width, height) in [(1200, 900), (900, 1200), (1000, 250), (300, 200), (33, 700)] {
        let media = client.upload("image/png", None, &png(width, height));
        for (asked_width, asked_height) in
            [(1, 1), (32, 32), (200, 300), (320, 240), (640, 480), (641, 1), (2000, 2000)]
        {
            let query = format!("width={asked_width}&height={asked_height}&method=scale");
            let image = decoded(&thumbnail(&client, &media, &query));
            let what = format!("{width}x{height} for {query} is {:?}", image.dimensions());
            assert!(image.width() >= asked_width.min(width), "{what}");
            assert!(image.height() >= asked_height.min(height), "{what}");
            assert!(image.width() <= width && image.height() <= height, "{what}");
            let skew = f64::from(image.width()) * f64::from(height) / f64::from(width)
                - f64::from(image.height());
            assert!(skew.abs() <= 1.0, "{what}");
            assert_eq!(quarters_of(&image), [0, 1, 2, 3], "{what}");
        }
    }
}

/// CS-TH-03, CS-TH-04, CS-TH-05, CS-TH-08
#[test]
fn crop_has_the_exact_aspect_and_never_enlarges() {
    let (_synapse, _mediary, client) = start();
    for (width, height) in [(1200, 900), (900, 1200), (400, 400)] {
        let media = client.upload("image/png", None, &png(width, height));
        for (asked_width, asked_height) in
            [(1, 1), (32, 32), (33, 33), (96, 96), (100, 50), (30, 90), (300, 300)]
        {
            let query = format!("width={asked_width}&height={asked_height}&method=crop");
            let image = decoded(&thumbnail(&client, &media, &query));
            let what = format!("{width}x{height} for {query} is {:?}", image.dimensions());
            assert!(image.width() >= asked_width && image.height() >= asked_height, "{what}");
            assert!(image.width() <= width && image.height() <= height, "{what}");
            assert_eq!(image.width() * asked_height, image.height() * asked_width, "{what}");
            assert_eq!(quarters_of(&image), [0, 1, 2, 3], "{what}");
        }
    }
}

/// CS-TH-09
#[test]
fn the_sizes_that_every_server_has_are_exact() {
    let (_synapse, _mediary, client) = start();
    let media = client.upload("image/png", None, &png(1600, 1200));
    for (query, size) in [
        ("width=32&height=32&method=crop", (32, 32)),
        ("width=96&height=96&method=crop", (96, 96)),
        ("width=320&height=240&method=scale", (320, 240)),
        ("width=640&height=480&method=scale", (640, 480)),
        ("width=800&height=600&method=scale", (800, 600)),
    ] {
        assert_eq!(decoded(&thumbnail(&client, &media, query)).dimensions(), size, "{query}");
    }
}

/// CS-TH-02, FLD-13
#[test]
fn the_method_is_scale_unless_it_is_named() {
    let (_synapse, _mediary, client) = start();
    let media = client.upload("image/png", None, &png(1000, 500));
    let body = |query: &str| thumbnail(&client, &media, query).body;
    let unnamed = body("width=96&height=96");
    assert_eq!(unnamed, body("width=96&height=96&method=scale"));
    // The two are kept apart, whichever was made first (threats IM-13).
    let crop = body("width=96&height=96&method=crop");
    assert_ne!(unnamed, crop);
    assert_eq!(body("width=96&height=96"), unnamed);
    assert_eq!(body("width=96&height=96&method=crop"), crop);
}

/// CS-TH-05, CS-TH-06
#[test]
fn what_is_not_larger_than_asked_comes_as_it_is() {
    let (_synapse, _mediary, client) = start();
    for (format, content_type) in [
        (ImageFormat::Png, "image/png"),
        (ImageFormat::Jpeg, "image/jpeg"),
        (ImageFormat::Gif, "image/gif"),
        (ImageFormat::WebP, "image/webp"),
    ] {
        let source = encoded(&quarters(96, 40), format);
        let media = client.upload(content_type, Some("name"), &source);
        for query in [
            "width=96&height=40",
            "width=800&height=600",
            "width=96&height=96&method=crop",
            "width=4294967296&height=99999999999999999999",
        ] {
            let answer = thumbnail(&client, &media, query);
            assert!(answer.body == source, "{content_type} {query}");
            assert_eq!(answer.header("content-type"), Some(content_type), "{query}");
        }
    }
}

#[test]
fn pictures_are_turned_as_their_exif_says() {
    let (_synapse, _mediary, client) = start();
    let source = quarters(1000, 500);
    for (orientation, shown, size) in [
        (1, [0, 1, 2, 3], (480, 240)),
        (2, [1, 0, 3, 2], (480, 240)),
        (3, [3, 2, 1, 0], (480, 240)),
        (4, [2, 3, 0, 1], (480, 240)),
        (5, [0, 2, 1, 3], (320, 640)),
        (6, [2, 0, 3, 1], (320, 640)),
        (7, [3, 1, 2, 0], (320, 640)),
        (8, [1, 3, 0, 2], (320, 640)),
    ] {
        let source = jpeg_with_orientation(&source, orientation);
        let media = client.upload("image/jpeg", None, &source);
        let answer = thumbnail(&client, &media, "width=320&height=240&method=scale");
        let image = decoded(&answer);
        assert_eq!((quarters_of(&image), image.dimensions()), (shown, size), "{orientation}");
        assert!(!answer.body.windows(4).any(|bytes| bytes == b"Exif"), "metadata was copied");
        let crop = decoded(&thumbnail(&client, &media, "width=100&height=50&method=crop"));
        assert_eq!((quarters_of(&crop), crop.dimensions()), (shown, (100, 50)), "{orientation}");
    }
}

#[test]
fn any_number_of_sizes_makes_a_handful_of_thumbnails() {
    let (_synapse, mediary, client) = start();
    let media = client.upload("image/png", None, &png(2000, 1500));
    let mut bodies = std::collections::HashSet::new();
    for side in (1..=10_000).step_by(199) {
        for query in [
            format!("width={side}&height=1"),
            format!("width=1&height={side}"),
            format!("width={side}&height={side}&method=crop"),
        ] {
            bodies.insert(thumbnail(&client, &media, &query).body);
        }
    }
    assert!(bodies.len() <= 12, "{} different thumbnails", bodies.len());
    assert!(mediary.metric(MADE) <= 20.0, "{} were made", mediary.metric(MADE));
}

#[test]
fn any_number_of_shapes_keeps_a_bounded_number_of_thumbnails() {
    let (_synapse, mediary, client) = start();
    let media = client.upload("image/png", None, &png(120, 120));
    for width in 1..=100 {
        let answer = thumbnail(&client, &media, &format!("width={width}&height=101&method=crop"));
        assert_eq!(decoded(&answer).dimensions(), (width, 101));
    }
    let kept = mediary.blobs().len();
    assert!(kept <= 1 + 64, "{kept} files");
}

/// CS-TH-01, CS-TH-11
#[test]
fn parameters_that_make_no_sense_are_400() {
    let (_synapse, mediary, client) = start();
    let media = client.upload("image/png", None, &png(10, 10));
    for (query, errcode) in [
        ("", "M_MISSING_PARAM"),
        ("width=1", "M_MISSING_PARAM"),
        ("height=1", "M_MISSING_PARAM"),
        ("width=0&height=1", "M_UNKNOWN"),
        ("width=1&height=0", "M_UNKNOWN"),
        ("width=-1&height=1", "M_UNKNOWN"),
        ("width=%2B1&height=1", "M_UNKNOWN"),
        ("width=1.5&height=1", "M_UNKNOWN"),
        ("width=1e9&height=1", "M_UNKNOWN"),
        ("width=NaN&height=1", "M_UNKNOWN"),
        ("width=&height=1", "M_UNKNOWN"),
        ("width=x&width=1&height=1", "M_UNKNOWN"),
        ("width=1&height=1&method=xyz", "M_UNKNOWN"),
        ("width=1&height=1&method=", "M_UNKNOWN"),
        ("width=1&height=1&animated=maybe", "M_UNKNOWN"),
    ] {
        let answer = client.get(&target(&media, query));
        assert_eq!((answer.status, answer.errcode().as_str()), (400, errcode), "{query}");
        answer.assert_error(400, errcode);
        // So it is on the legacy route, where nothing is looked up for it.
        let legacy = target(&media, query).replace("client/v1/media", "media/v3");
        mediary.client().get(&legacy).assert_error(400, errcode);
        // Whoever bears no token is not told what is wrong with the rest.
        mediary.client().get(&target(&media, query)).assert_error(401, "M_MISSING_TOKEN");
    }
    assert_eq!(mediary.metric(MADE), 0.0);
    // Of a repeated parameter the first counts, and a size beyond any number is only a large one.
    for query in ["width=1&height=1&width=x&height=-1", "width=99999999999999999999&height=1"] {
        assert_eq!(decoded(&thumbnail(&client, &media, query)).dimensions(), (10, 10), "{query}");
    }
}

/// CS-TH-12, FLD-14
#[test]
fn what_is_no_picture_has_no_thumbnail() {
    let (_synapse, _mediary, client) = start();
    for body in [
        &b"hello"[..],
        b"",
        b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script/></svg>",
        b"%!PS-Adobe-3.0\n",
        b"BM",
        b"II*\0",
        b"#EXTM3U\n",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"\xff\xd8\xff\xe0",
        &png(100, 100)[..60],
    ] {
        // The claimed type opens no door.
        let media = client.upload("image/png", None, body);
        let query = target(&media, "width=32&height=32");
        client.get(&query).assert_error(400, "M_UNKNOWN");
        assert!(client.download(&media).body == body);
    }
}

/// CS-HDR-06
#[test]
fn the_claimed_type_says_nothing() {
    let (_synapse, _mediary, client) = start();
    for claimed in ["text/plain", "text/html", "image/gif", "application/octet-stream"] {
        let media = client.upload(claimed, Some("a.html"), &png(400, 400));
        for query in ["width=96&height=96&method=crop", "width=800&height=600"] {
            let answer = thumbnail(&client, &media, query);
            decoded(&answer);
            let disposition = answer.header("content-disposition").expect("a disposition");
            assert!(disposition.starts_with("inline; filename=thumbnail."), "{disposition}");
        }
    }
}

/// CS-TH-13, CS-LIM-02, CS-LIM-06
#[test]
fn a_pixel_flood_is_refused_from_its_header_and_can_be_downloaded() {
    let (_synapse, mediary, client) = start();
    let mut claims_too_much = gif(1, 1, 1);
    claims_too_much[6..10].fill(0xff);
    for source in [png_that_claims(65_535, 65_535), png_that_claims(7_072, 7_072), claims_too_much]
    {
        let media = client.upload("image/png", None, &source);
        client.get(&target(&media, "width=32&height=32")).assert_error(413, "M_TOO_LARGE");
        assert!(client.download(&media).body == source);
    }
    let peak = mediary.peak_memory();
    assert!(peak < 256 * 1024, "{peak} KiB were in use");
}

#[test]
fn the_pixel_limit_is_a_setting() {
    let (_synapse, _mediary, client) = start_with("[thumbnails]\nmax_pixels = 10_000");
    let fits = client.upload("image/png", None, &png(100, 100));
    let does_not = client.upload("image/png", None, &png(101, 100));
    let query = "width=32&height=32&method=crop";
    assert_eq!(decoded(&thumbnail(&client, &fits, query)).dimensions(), (32, 32));
    client.get(&target(&does_not, query)).assert_error(413, "M_TOO_LARGE");
}

/// CS-HDR-07, CS-TH-10
#[test]
fn transparent_pictures_become_png_and_opaque_ones_jpeg() {
    let (_synapse, _mediary, client) = start();
    let with_alpha = |alpha: u8| {
        let pixel =
            |x: u32, _| if x < 200 { Rgba([255, 0, 0, 255]) } else { Rgba([0, 0, 0, alpha]) };
        encoded(&RgbaImage::from_fn(400, 400, pixel).into(), ImageFormat::Png)
    };
    // Flat, it would take fewer bytes than its thumbnail.
    let rough = RgbaImage::from_fn(400, 400, |x, y| {
        Rgba([(x * x + y * 7) as u8, (x * y) as u8, (y * y + x * 5) as u8, 255])
    });
    for (source, content_type) in [
        (encoded(&rough.into(), ImageFormat::WebP), "image/jpeg"),
        (with_alpha(0), "image/png"),
        (with_alpha(254), "image/png"),
        (with_alpha(255), "image/jpeg"),
        (png(400, 400), "image/jpeg"),
    ] {
        let media = client.upload("image/png", None, &source);
        let answer = thumbnail(&client, &media, "width=96&height=96&method=crop");
        assert_eq!(answer.header("content-type"), Some(content_type));
        let image = decoded(&answer);
        assert_eq!(image.color().has_alpha(), content_type == "image/png");
    }
}

/// A PNG with a second frame, which browsers play (the APNG specification).
fn apng(width: u32, height: u32) -> Vec<u8> {
    const HEADER: usize = 8 + 12 + 13;
    let still = png(width, height);
    let chunk = |name: &[u8; 4], body: &[u8]| {
        let checked = [name, body].concat();
        let length = u32::try_from(body.len()).expect("a short chunk").to_be_bytes();
        [&length, &checked[..], &crc32fast::hash(&checked).to_be_bytes()].concat()
    };
    let frame = |number: u32| {
        let sides = [width.to_be_bytes(), height.to_be_bytes()].concat();
        let fields = [&number.to_be_bytes()[..], &sides, &[0; 8], &[0, 1, 0, 1, 0, 0]].concat();
        chunk(b"fcTL", &fields)
    };
    let second = [&2_u32.to_be_bytes()[..], &[0x78, 0x9c, 3, 0, 0, 0, 0, 1]].concat();
    let before = [chunk(b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]), frame(0)].concat();
    let after = [frame(1), chunk(b"fdAT", &second), chunk(b"IEND", b"")].concat();
    let pixels = &still[HEADER..still.len() - 12];
    [&still[..HEADER], &before, pixels, &after].concat()
}

/// A lossless WebP with two frames.
fn animated_webp(width: u32, height: u32) -> Vec<u8> {
    let chunk = |name: &[u8; 4], body: &[u8]| {
        let length = u32::try_from(body.len()).expect("a short chunk").to_le_bytes();
        [&name[..], &length, body, if body.len() % 2 == 1 { &[0] } else { &[] }].concat()
    };
    let still = encoded(&quarters(width, height), ImageFormat::WebP);
    let sides = [width, height].map(|side| (side - 1).to_le_bytes()[..3].to_vec()).concat();
    let fields = [&[0; 6][..], &sides, &[100, 0, 0, 0]].concat();
    let frame = chunk(b"ANMF", &[&fields, &still[12..]].concat());
    let header = chunk(b"VP8X", &[&[2, 0, 0, 0][..], &sides].concat());
    let chunks = [header, chunk(b"ANIM", &[0; 6]), frame.clone(), frame].concat();
    chunk(b"RIFF", &[b"WEBP", &chunks[..]].concat())
}

/// Whether a browser that is given these bytes would play them.
fn moves(bytes: &[u8]) -> bool {
    let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    let frames_of_a_gif = || {
        let decoder = GifDecoder::new(Cursor::new(bytes)).expect("a GIF");
        decoder.into_frames().count()
    };
    holds(b"acTL") || holds(b"ANIM") || (bytes.starts_with(b"GIF") && frames_of_a_gif() > 1)
}

/// CS-TH-06, CS-TH-14, CS-TH-15, CS-TH-16, CS-TH-17, CS-TH-18, CS-TH-19
#[test]
fn a_small_animation_moves_only_when_that_is_asked_for() {
    let (_synapse, _mediary, client) = start();
    for (claimed, content_type, source) in [
        ("image/gif", "image/gif", gif(40, 20, 3)),
        ("image/png", "image/apng", apng(40, 20)),
        ("image/apng", "image/apng", apng(40, 20)),
        ("image/webp", "image/webp", animated_webp(40, 20)),
        // What it is called opens no door.
        ("image/jpeg", "image/gif", gif(40, 20, 2)),
    ] {
        assert!(moves(&source), "{claimed}");
        let media = client.upload(claimed, None, &source);
        for size in ["width=96&height=96", "width=40&height=20", "width=96&height=96&method=crop"] {
            for animated in ["", "&animated=false", "&animated=false&animated=true"] {
                let query = format!("{size}{animated}");
                let answer = thumbnail(&client, &media, &query);
                assert!(!moves(&answer.body), "{claimed} {query}");
                assert_eq!(decoded(&answer).dimensions(), (40, 20), "{claimed} {query}");
            }
            for name in ["animated", "org.matrix.msc2705.animated"] {
                let answer = thumbnail(&client, &media, &format!("{size}&{name}=true"));
                assert!(answer.body == source, "{claimed} {name}");
                assert_eq!(answer.header("content-type"), Some(content_type), "{claimed}");
            }
        }
        for animated in ["", "&animated=false"] {
            let answer = thumbnail(&client, &media, &format!("width=16&height=8{animated}"));
            assert!(!moves(&answer.body), "{claimed} {animated}");
        }
    }
    // What cannot move is treated as if it was not asked to.
    let media = client.upload("image/png", None, &png(40, 20));
    let answer = thumbnail(&client, &media, "width=96&height=96&animated=true");
    assert!(answer.body == png(40, 20) && answer.header("content-type") == Some("image/png"));
}

/// CS-TH-14, CS-TH-15, CS-TH-16, CS-TH-17, CS-TH-18
#[test]
fn a_thumbnail_of_a_large_animation_moves_only_when_that_is_asked_for() {
    let frames = [quarters(400, 400), quarters(400, 400).fliph(), quarters(400, 400).flipv()];
    let mut source = Vec::new();
    let frames = frames.map(|image| Frame::new(image.into_rgba8()));
    GifEncoder::new(&mut source).encode_frames(frames).expect("samples can be encoded");
    for (setting, moving) in [("", "image/webp"), ("moving = \"gif\"", "image/gif")] {
        let (_synapse, _mediary, client) = start_with(&format!("[thumbnails]\n{setting}"));
        let media = client.upload("image/gif", None, &source);
        for (animated, content_type) in
            [("", "image/jpeg"), ("&animated=false", "image/jpeg"), ("&animated=true", moving)]
        {
            let query = format!("width=96&height=96&method=crop{animated}");
            let answer = thumbnail(&client, &media, &query);
            assert_eq!(answer.header("content-type"), Some(content_type), "{setting} {animated}");
            assert_eq!(moves(&answer.body), content_type == moving, "{setting} {animated}");
            let first = decoded(&answer);
            assert_eq!(first.dimensions(), (96, 96), "{setting} {animated}");
            assert_eq!(quarters_of(&first), [0, 1, 2, 3], "{setting} {animated}");
        }
        // What cannot move is as if that was not asked for.
        let still = client.upload("image/png", None, &png(400, 400));
        let answer = thumbnail(&client, &still, "width=96&height=96&method=crop&animated=true");
        assert_eq!(answer.header("content-type"), Some("image/jpeg"), "{setting}");
    }
}

/// CS-TH-06, CS-HDR-07
#[test]
fn what_is_small_but_no_type_of_a_thumbnail_is_made_anew() {
    let (_synapse, _mediary, client) = start();
    for format in [ImageFormat::Bmp, ImageFormat::Qoi, ImageFormat::Tiff] {
        let source = encoded(&quarters(40, 20), format);
        let media = client.upload(format.to_mime_type(), None, &source);
        for query in ["width=96&height=96&method=crop", "width=800&height=600"] {
            let answer = thumbnail(&client, &media, query);
            assert_eq!(answer.header("content-type"), Some("image/jpeg"), "{format:?}");
            assert_eq!(decoded(&answer).dimensions(), (40, 20), "{format:?}");
            assert_eq!(quarters_of(&decoded(&answer)), [0, 1, 2, 3], "{format:?}");
        }
    }
}

#[test]
fn twenty_who_ask_at_once_wait_for_one_thumbnail() {
    let (_synapse, mediary, client) = start();
    let media = client.upload("image/png", None, &png(3000, 2000));
    let together = Barrier::new(20);
    let bodies: Vec<_> = thread::scope(|scope| {
        let ask = || {
            together.wait();
            thumbnail(&client, &media, "width=640&height=480").body
        };
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert_eq!(mediary.metric(MADE), 1.0);
}

#[test]
fn what_was_refused_once_is_not_decoded_again() {
    let (_synapse, mediary, client) = start();
    let media = client.upload("image/png", None, &png(1000, 1000)[..2000]);
    for _ in 0..5 {
        client.get(&target(&media, "width=32&height=32")).assert_error(400, "M_UNKNOWN");
    }
    assert_eq!(mediary.metric(MADE), 1.0);
    assert_eq!(mediary.metric("mediary_thumbnail_failures_total"), 1.0);
}

#[test]
fn the_second_request_is_served_from_memory() {
    let (_synapse, mediary, client) = start();
    let media = client.upload("image/png", None, &png(1000, 1000));
    let first = thumbnail(&client, &media, "width=96&height=96&method=crop");
    let from_memory = "mediary_media_reads_total{source=\"memory\"}";
    let before = mediary.metric(from_memory);
    let second = thumbnail(&client, &media, "width=96&height=96&method=crop");
    assert!(first.body == second.body);
    assert_eq!(mediary.metric(from_memory), before + 1.0);
    assert_eq!(mediary.metric(MADE), 1.0);
}

#[test]
fn thumbnails_survive_a_restart() {
    let synapse = Synapse::get();
    let user = synapse.user();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&user);
    let media = client.upload("image/png", None, &png(1000, 1000));
    let queries = ["width=96&height=96&method=crop", "width=2000&height=2000"];
    let before = queries.map(|query| thumbnail(&client, &media, query).body);
    let mediary = mediary.kill_and_restart();
    let client = mediary.client_of(&user);
    let after = queries.map(|query| thumbnail(&client, &media, query).body);
    assert!(before == after);
    assert_eq!(mediary.metric(MADE), 0.0);
}

/// CS-HDR-06, CS-HDR-07, CS-HDR-08, CS-HDR-09
#[test]
fn a_thumbnail_has_every_header_and_a_name_of_its_own() {
    let (_synapse, _mediary, client) = start();
    let media = client.upload("image/png", Some("private%20name.png"), &png(400, 400));
    let path = target(&media, "width=96&height=96&method=crop");
    let answer = client.get(&path);
    let length = answer.body.len().to_string();
    for (name, value) in [
        ("content-type", "image/jpeg"),
        ("content-disposition", "inline; filename=thumbnail.jpeg"),
        ("content-length", length.as_str()),
        ("cache-control", "private, max-age=31536000, immutable"),
        ("cross-origin-resource-policy", "cross-origin"),
        ("x-content-type-options", "nosniff"),
        ("access-control-allow-origin", "*"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let policy = answer.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("sandbox; default-src 'none'; script-src 'none';"));
    let head = client.request("HEAD", &path, &[], b"");
    for name in ["content-type", "content-length", "etag", "content-disposition"] {
        assert_eq!(head.header(name), answer.header(name), "{name}");
    }
}

#[test]
fn who_has_the_thumbnail_gets_304_and_parts_can_be_asked_for() {
    let (_synapse, mediary, client) = start();
    let media = client.upload("image/png", None, &png(400, 400));
    let path = target(&media, "width=96&height=96&method=crop");
    let answer = client.get(&path);
    let etag = answer.header("etag").expect("a tag");
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag} is not a strong tag");
    let again = client.get_with(&path, &[("If-None-Match", etag)]);
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(client.get_with(&path, &[("If-None-Match", "\"other\"")]).status, 200);
    let part = client.get_with(&path, &[("Range", "bytes=5-14")]);
    assert_eq!((part.status, &part.body[..]), (206, &answer.body[5..15]));
    let stranger = mediary.client().get_with(&path, &[("If-None-Match", etag)]);
    stranger.assert_error(401, "M_MISSING_TOKEN");
}

/// CS-FRZ-01, CS-FRZ-03, CS-TH-20, CS-PATH-02
#[test]
fn legacy_thumbnails_follow_the_freeze() {
    let legacy = |media: &str| {
        ["v3", "r0", "v1"].map(|version| {
            format!("/_matrix/media/{version}/thumbnail/{media}?width=32&height=32&method=crop")
        })
    };
    for (mode, status) in [("frozen", 404), ("open", 200), ("off", 404)] {
        let (_synapse, mediary, client) = start_with(&format!("[legacy]\nmode = \"{mode}\""));
        let media = client.upload("image/png", None, &png(400, 400));
        // Made already, so that it only remains to be shown.
        let made = thumbnail(&client, &media, "width=32&height=32&method=crop");
        for target in legacy(&media) {
            let answer = mediary.client().get(&target);
            assert_eq!(answer.status, status, "{mode} {target}");
            if status == 200 {
                assert!(answer.body == made.body);
            } else {
                answer.assert_error(404, "M_NOT_FOUND");
            }
        }
    }
}

/// CS-PATH-07
#[test]
fn the_unstable_prefix_serves_thumbnails() {
    let (_synapse, _mediary, client) = start();
    let media = client.upload("image/png", None, &png(400, 400));
    let query = "width=32&height=32&method=crop";
    let unstable = "/_matrix/client/unstable/org.matrix.msc3916/media/thumbnail";
    let answer = client.get(&format!("{unstable}/{media}?{query}"));
    assert!(answer.body == thumbnail(&client, &media, query).body);
}

#[test]
fn unknown_media_has_no_thumbnail() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    let media = format!("{}/nothing", synapse.server_name);
    client.get(&target(&media, "width=32&height=32")).assert_error(404, "M_NOT_FOUND");
}
