//! What an operator may decide of thumbnails: exact sizes, how many are kept, WebP for those who read it,
//! and thumbnails that are there before anybody asks.

mod common;

use std::io::Cursor;

use common::fake::SERVER_NAME;
use common::federation::{THUMBNAIL, id, parts};
use common::http::Answer;
use common::samples::png;
use common::{Authority, Client, FakeHomeserver, Mediary, Origin, Settings, wait_until};
use image::{GenericImageView, ImageFormat, ImageReader, Rgba, RgbaImage};

/// How often a thumbnail was made for somebody who asked, since the start.
const MADE: &str = "mediary_thumbnail_duration_seconds_count";

const NOT_KEPT: &str = "mediary_thumbnails_not_kept_total";

fn start(settings: &str) -> (FakeHomeserver, Mediary, Client) {
    let homeserver = FakeHomeserver::start();
    let mediary = Settings::new(&homeserver.url).with(&format!("[thumbnails]\n{settings}")).start();
    let client = mediary.alice();
    (homeserver, mediary, client)
}

fn target(media: &str, query: &str) -> String {
    format!("/_matrix/client/v1/media/thumbnail/{media}?{query}")
}

fn accepting(client: &Client, media: &str, query: &str, accept: &str) -> Answer {
    let answer = client.get_with(&target(media, query), &[("Accept", accept)]);
    assert_eq!((answer.status, answer.complete), (200, true), "{query}: {}", answer.text());
    answer
}

fn thumbnail(client: &Client, media: &str, query: &str) -> Answer {
    accepting(client, media, query, "*/*")
}

fn size(body: &[u8]) -> (u32, u32) {
    image::load_from_memory(body).expect("thumbnails can be decoded").dimensions()
}

fn ahead(mediary: &Mediary, result: &str) -> f64 {
    mediary.metric(&format!("mediary_thumbnails_ahead_total{{result=\"{result}\"}}"))
}

/// CS-TH-03, CS-TH-04, CS-TH-05, CS-TH-06, CS-TH-08
#[test]
fn exact_sizes_are_made_as_they_are_asked_for() {
    let (_homeserver, mediary, client) = start("mode = \"exact\"");
    let source = png(400, 300);
    let media = client.upload("image/png", None, &source);
    for (query, made) in [
        ("width=40&height=30", (40, 30)),
        ("width=41&height=1", (41, 31)),
        ("width=1&height=1", (1, 1)),
        ("width=100&height=100", (133, 100)),
        ("width=33&height=33&method=crop", (33, 33)),
        ("width=70&height=10&method=crop", (70, 10)),
        ("width=160&height=120", (160, 120)),
        // Where the source ends, so does the size.
        ("width=400&height=1&method=crop", (400, 1)),
        ("width=600&height=600&method=crop", (400, 300)),
        ("width=4096&height=4096", (400, 300)),
        ("width=5000&height=99999999999", (400, 300)),
    ] {
        assert_eq!(size(&thumbnail(&client, &media, query).body), made, "{query}");
    }
    assert!(thumbnail(&client, &media, "width=401&height=301").body == source);
    let made = mediary.metric(MADE);
    thumbnail(&client, &media, "width=41&height=1");
    assert_eq!(mediary.metric(MADE), made, "what was made is kept");
}

#[test]
fn past_the_most_variants_thumbnails_are_made_anew_and_not_kept() {
    let (_homeserver, mediary, client) = start("mode = \"exact\"\nmax_variants = 3");
    let media = client.upload("image/png", None, &png(120, 120));
    for width in 1..=8 {
        let answer = thumbnail(&client, &media, &format!("width={width}&height=9&method=crop"));
        assert_eq!(size(&answer.body), (width, 9));
    }
    assert_eq!(mediary.blobs().len(), 1 + 3);
    assert_eq!((mediary.metric(MADE), mediary.metric(NOT_KEPT)), (8.0, 5.0));
    for (width, made) in [(1, 8.0), (3, 8.0), (4, 9.0), (4, 10.0)] {
        thumbnail(&client, &media, &format!("width={width}&height=9&method=crop"));
        assert_eq!(mediary.metric(MADE), made, "{width}");
    }
    assert_eq!(mediary.blobs().len(), 1 + 3);
    assert!(mediary.unfinished().is_empty());
}

/// A small original takes no room as a thumbnail of itself, but a row for each size.
#[test]
fn sizes_beyond_the_source_are_variants_too() {
    let (_homeserver, mediary, client) = start("mode = \"exact\"\nmax_variants = 3");
    let source = png(10, 10);
    let media = client.upload("image/png", None, &source);
    for width in 11..=20 {
        let answer = thumbnail(&client, &media, &format!("width={width}&height=50"));
        assert!(answer.body == source, "{width}");
        assert_eq!(answer.header("content-type"), Some("image/png"));
    }
    assert_eq!((mediary.metric(MADE), mediary.metric(NOT_KEPT)), (10.0, 7.0));
    assert_eq!(mediary.blobs().len(), 1);
}

fn half_transparent(width: u32, height: u32) -> Vec<u8> {
    let pixel = |x: u32, y: u32| Rgba([x as u8, y as u8, 9, if x < width / 2 { 255 } else { 60 }]);
    let mut bytes = Cursor::new(Vec::new());
    let picture = RgbaImage::from_fn(width, height, pixel);
    picture.write_to(&mut bytes, ImageFormat::Png).expect("samples can be encoded");
    bytes.into_inner()
}

#[test]
fn who_names_webp_gets_it_and_nobody_else_does() {
    let (_homeserver, mediary, client) = start("webp = true");
    let query = "width=96&height=96&method=crop";
    for (source, universal) in
        [(png(300, 200), "image/jpeg"), (half_transparent(300, 200), "image/png")]
    {
        let media = client.upload("image/png", None, &source);
        let made = mediary.metric(MADE);
        for _ in 0..2 {
            for (accept, content_type) in [
                ("image/avif,image/webp,image/*;q=0.8,*/*;q=0.5", "image/webp"),
                ("*/*", universal),
                ("image/webp;q=0,*/*", universal),
                ("image/webp", "image/webp"),
                ("nonsense;;=,", universal),
            ] {
                let answer = accepting(&client, &media, query, accept);
                assert_eq!(answer.header("content-type"), Some(content_type), "{accept}");
                let reader = ImageReader::new(Cursor::new(&answer.body)).with_guessed_format();
                let format = reader.expect("no disk is read").format().expect("a picture");
                assert_eq!(format.to_mime_type(), content_type, "{accept}");
                assert_eq!(size(&answer.body), (96, 96), "{accept}");
                let kind = content_type.strip_prefix("image/").expect("a picture");
                let disposition = format!("inline; filename=thumbnail.{kind}");
                assert_eq!(answer.header("content-disposition"), Some(disposition.as_str()));
            }
        }
        assert_eq!(mediary.metric(MADE), made + 2.0, "each encoding is made once");
    }
}

/// Caches must not give one client what was made for another (RFC 9110, section 12.5.5).
#[test]
fn what_may_differ_by_accept_says_so_to_caches() {
    let query = "width=96&height=96&method=crop";
    for (settings, is_negotiated) in [("webp = true", true), ("", false)] {
        let (_homeserver, mediary, client) = start(settings);
        let media = client.upload("image/png", None, &png(300, 200));
        let small = client.upload("image/png", None, &png(8, 8));
        let vary = |answer: &Answer| {
            let fields =
                answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("vary"));
            let mut names: Vec<_> = fields
                .flat_map(|(_, value)| value.split(','))
                .map(|name| name.trim().to_owned())
                .collect();
            names.sort();
            names
        };
        let expected: &[&str] =
            if is_negotiated { &["Accept", "Authorization"] } else { &["Authorization"] };
        for accept in ["image/webp", "*/*", "image/png"] {
            let answer = accepting(&client, &media, query, accept);
            assert_eq!(vary(&answer), expected, "{settings} {accept}");
            let path = target(&media, query);
            let etag = answer.header("etag").expect("a tag").to_owned();
            let headers = [("Accept", accept), ("If-None-Match", &etag)];
            let again = client.get_with(&path, &headers);
            assert_eq!((again.status, vary(&again)), (304, vary(&answer)), "{settings} {accept}");
            assert_eq!(vary(&accepting(&client, &small, query, accept)), expected);
        }
        let tag = |accept| {
            accepting(&client, &media, query, accept).header("etag").expect("a tag").to_owned()
        };
        assert_eq!(tag("image/webp") != tag("*/*"), is_negotiated, "{settings}");
        // What a client holds in one encoding is no answer to a request for the other.
        if is_negotiated {
            let headers = [("Accept", "image/webp"), ("If-None-Match", &*tag("*/*"))];
            assert_eq!(client.get_with(&target(&media, query), &headers).status, 200);
        }
        assert_eq!(vary(&client.download(&media)), ["Authorization"], "{settings}");
        drop(mediary);
    }
}

/// FM-S-12
#[test]
fn other_servers_get_what_everybody_reads() {
    let homeserver = FakeHomeserver::start();
    let authority = Authority::new();
    let origin = Origin::start(&authority);
    let settings = Settings::new(&homeserver.url).with_signing_key(&authority, &[]);
    let mediary = settings.with("[thumbnails]\nwebp = true").start();
    let media = mediary.alice().upload("image/png", None, &png(300, 200));
    let path = format!("{THUMBNAIL}/{}?width=96&height=96&method=crop", id(&media));
    let authorization = origin.authorization(SERVER_NAME, "GET", &path);
    let headers = [("Authorization", &*authorization), ("Accept", "image/webp")];
    let answer = mediary.client().get_with(&path, &headers);
    assert!(parts(&answer).body.starts_with(b"\xff\xd8\xff"), "it is no JPEG");
    assert_eq!(answer.header("vary"), None);
}

#[test]
fn what_is_uploaded_has_its_thumbnails_before_anybody_asks() {
    let settings = "on_upload = true\nsizes = [\"32x32 crop\", \"320x240 scale\", \"9x9 scale\"]";
    let (_homeserver, mediary, client) = start(settings);
    let uploaded = client.upload("image/png", None, &png(700, 500));
    wait_until("all are made", || ahead(&mediary, "made") == 3.0);
    let created = client.create().media();
    client.put(&created, "image/png", &png(800, 500)).assert_stored();
    wait_until("all are made of the other", || ahead(&mediary, "made") == 6.0);
    // What is no picture, or looks like one, hinders nothing that comes after it.
    client.upload("image/png", None, b"no picture");
    client.upload("image/png", None, &png(1000, 1000)[..2000]);
    // One is smaller than the largest size, and is a thumbnail of itself.
    let small = client.upload("image/png", None, &png(50, 40));
    wait_until("all are made of the last", || ahead(&mediary, "made") == 9.0);
    assert_eq!((ahead(&mediary, "failed"), ahead(&mediary, "dropped")), (1.0, 0.0));
    for (media, large, crop) in [
        (&uploaded, (336, 240), (32, 32)),
        (&created, (384, 240), (32, 32)),
        (&small, (50, 40), (32, 32)),
    ] {
        assert_eq!(size(&thumbnail(&client, media, "width=320&height=240").body), large);
        assert_eq!(size(&thumbnail(&client, media, "width=30&height=30&method=crop").body), crop);
    }
    assert_eq!(mediary.metric(MADE), 0.0);
    // The same again has them already.
    client.upload("image/png", None, &png(700, 500));
    let last = client.upload("image/png", None, &png(701, 500));
    wait_until("those of the next are made", || ahead(&mediary, "made") == 12.0);
    thumbnail(&client, &last, "width=9&height=9");
    assert_eq!(mediary.metric(MADE), 0.0);
}

#[test]
fn both_encodings_are_made_ahead_where_both_may_be_asked_for() {
    let (_homeserver, mediary, client) =
        start("on_upload = true\nwebp = true\nsizes = [\"32x32 crop\"]");
    let media = client.upload("image/png", None, &png(700, 500));
    wait_until("both are made", || ahead(&mediary, "made") == 2.0);
    let query = "width=32&height=32&method=crop";
    assert_ne!(
        accepting(&client, &media, query, "image/webp").body,
        thumbnail(&client, &media, query).body
    );
    assert_eq!(mediary.metric(MADE), 0.0);
}

#[test]
fn nothing_is_made_ahead_unless_that_is_wanted() {
    let (_homeserver, mediary, client) = start("");
    let media = client.upload("image/png", None, &png(700, 500));
    thumbnail(&client, &media, "width=32&height=32&method=crop");
    assert_eq!(mediary.metric(MADE), 1.0);
    assert_eq!(ahead(&mediary, "made"), 0.0);
    assert_eq!(mediary.blobs().len(), 2);
}

/// Where no thumbnail can be made at all, uploads are kept as ever.
#[test]
fn uploads_do_not_wait_for_their_thumbnails() {
    let (_homeserver, mut mediary, client) = start("on_upload = true\nqueue = 0\nconcurrency = 1");
    let source = png(2000, 1500);
    for number in 0..20_u8 {
        let body = [&source[..], &[number]].concat();
        let media = client.upload("image/png", None, &body);
        assert!(client.download(&media).body == body);
    }
    // What is not made yet does not keep the process from ending in good order.
    mediary.terminate();
    assert_eq!(mediary.wait().code(), Some(0));
}
