//! What an operator may decide of thumbnails: exact sizes, how many are kept, WebP for those who read it,
//! and thumbnails that are there before anybody asks.

mod common;

use std::fs;
use std::io::{Cursor, ErrorKind};

use common::fake::SERVER_NAME;
use common::federation::{THUMBNAIL, id, parts};
use common::http::Answer;
use common::samples::png;
use common::workers::{signal, workers};
use common::{Authority, Client, FakeHomeserver, Mediary, Origin, Settings, wait_until};
use image::{GenericImageView, ImageFormat, ImageReader, Rgba, RgbaImage};
use rustix::process::Signal;

/// How often a thumbnail was made for somebody who asked, since the start.
const MADE: &str = "mediary_thumbnail_duration_seconds_count";

/// How many jobs workers have been given.
const JOBS: &str = "mediary_thumbnail_jobs_total";

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

#[test]
fn a_ladder_of_more_sizes_than_one_job_holds_is_made_ahead_whole() {
    let sizes: Vec<_> = (1..=33).map(|side| format!("\"{side}x{side} crop\"")).collect();
    let sizes = sizes.join(", ");
    let (_homeserver, mediary, client) = start(&format!("on_upload = true\nsizes = [{sizes}]"));
    let media = client.upload("image/png", None, &png(200, 100));
    wait_until("all are made", || ahead(&mediary, "made") == 33.0);
    for side in 1..=33 {
        let answer = thumbnail(&client, &media, &format!("width={side}&height={side}&method=crop"));
        assert_eq!(size(&answer.body), (side, side));
    }
    assert_eq!((ahead(&mediary, "failed"), mediary.metric(MADE)), (0.0, 0.0));
}

/// CS-TH-09; who asks for odd sizes takes the place of no other.
#[test]
fn the_sizes_of_the_ladder_are_kept_whatever_strangers_ask_for() {
    let (_homeserver, mediary, client) = start("max_variants = 2");
    let media = client.upload("image/png", None, &png(400, 300));
    for width in 1..=5 {
        thumbnail(&client, &media, &format!("width={width}&height=9&method=crop"));
    }
    assert_eq!((mediary.metric(MADE), mediary.metric(NOT_KEPT)), (5.0, 3.0));
    for query in
        ["width=32&height=32&method=crop", "width=96&height=96&method=crop", "width=320&height=240"]
    {
        let made = mediary.metric(MADE);
        for _ in 0..2 {
            thumbnail(&client, &media, query);
            assert_eq!(mediary.metric(MADE), made + 1.0, "{query}");
        }
    }
    // They take no place of an odd one either.
    assert_eq!(mediary.metric(NOT_KEPT), 3.0);
    thumbnail(&client, &media, "width=1&height=9&method=crop");
    assert_eq!(mediary.metric(MADE), 8.0);
}

#[test]
fn on_a_full_disk_thumbnails_are_made_and_not_kept() {
    let homeserver = FakeHomeserver::start();
    let settings = Settings::new(&homeserver.url).with("[storage]\nmin_free = '0 B'");
    let mediary = settings.on_disk(8).start();
    let client = mediary.alice();
    let large = client.upload("image/png", None, &png(400, 300));
    let small = client.upload("image/png", None, &png(10, 10));
    let filler = mediary.mounted_store().join("filler");
    let full = fs::write(&filler, vec![1; 16 << 20]).expect_err("the disk is smaller");
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    let query = "width=96&height=96&method=crop";
    let made = thumbnail(&client, &large, query);
    assert_eq!(size(&made.body), (96, 96));
    let tag = made.header("etag").expect("a tag").to_owned();
    mediary.wait_for_log("a thumbnail is not kept");
    assert!(mediary.metric(NOT_KEPT) >= 1.0);
    // A small picture is its own thumbnail, and no room for the record of it may be left.
    assert!(thumbnail(&client, &small, "width=320&height=240").body == png(10, 10));
    // Once there is room, they are kept under the same tag.
    fs::remove_file(filler).expect("the filler goes");
    let counted = mediary.metric(NOT_KEPT);
    assert_eq!(thumbnail(&client, &large, query).header("etag"), Some(&*tag));
    let made = mediary.metric(MADE);
    assert_eq!(thumbnail(&client, &large, query).header("etag"), Some(&*tag));
    assert_eq!((mediary.metric(MADE), mediary.metric(NOT_KEPT)), (made, counted));
}

#[test]
fn uploads_do_not_wait_for_their_thumbnails() {
    // Longer than the test may take: it is no worker that hangs, but one that is slow.
    let settings = "on_upload = true\nconcurrency = 1\ntimeout = \"10m\"\nsizes = [\"32x32 crop\"]";
    let (_homeserver, mut mediary, client) = start(settings);
    wait_until("the worker is there", || workers(mediary.pid()).len() == 1);
    let [worker] = workers(mediary.pid())[..] else { panic!("there is not one worker") };
    signal(worker, Signal::STOP);
    let source = png(400, 300);
    let uploaded: Vec<_> = (0..4_u8)
        .map(|number| {
            let body = [&source[..], &[number]].concat();
            let media = client.upload("image/png", None, &body);
            assert!(client.download(&media).body == body);
            media
        })
        .collect();
    wait_until("the first is given to the worker", || mediary.metric(JOBS) == 1.0);
    assert_eq!((ahead(&mediary, "made"), ahead(&mediary, "dropped")), (0.0, 0.0));
    signal(worker, Signal::CONT);
    wait_until("all are made", || ahead(&mediary, "made") == 4.0);
    for media in &uploaded {
        thumbnail(&client, media, "width=32&height=32&method=crop");
    }
    assert_eq!(mediary.metric(MADE), 0.0);
    // What is not made yet does not keep the process from ending in good order.
    let workers = workers(mediary.pid());
    workers.iter().for_each(|worker| signal(*worker, Signal::STOP));
    client.upload("image/png", None, &png(401, 300));
    mediary.terminate();
    assert_eq!(mediary.wait().code(), Some(0));
}
