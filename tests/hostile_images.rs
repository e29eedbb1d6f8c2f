//! A collection of malformed, odd and ordinary pictures, all of it through the running process:
//! stored, served and thumbnailed or refused, and the process as well as before (threats IM-01 to
//! IM-08).

mod common;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use common::fake::TOKEN;
use common::http::Answer;
use common::{Client, FakeHomeserver, Mediary, Settings, files_below, wait_until};
use image::{DynamicImage, GenericImageView};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/corpus/images");

/// The sizes of thumbnails that are made unless the configuration says otherwise.
const LADDER: [(u32, u32); 5] = [(32, 32), (96, 96), (320, 240), (640, 480), (800, 600)];

/// How much memory the process may have had at its peak, in KiB. The pictures that are decoded at once
/// have at most `thumbnails.max_pixels` each.
const MAX_PEAK: u64 = 512 * 1024;

/// The same where everything that takes more is to be refused.
const MAX_CRAFTED_PEAK: u64 = 256 * 1024;

/// How many more files may be open afterwards: those of connections to the database that are kept. A leak
/// would leave thousands.
const MAX_KEPT_OPEN: usize = 50;

/// Returns all pictures of the corpus; none, with a word, if it is not here.
fn corpus() -> Vec<PathBuf> {
    let is_text = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "tsv" || extension == "md")
    };
    let mut pictures = files_below(Path::new(CORPUS));
    pictures.retain(|path| !is_text(path));
    pictures.sort();
    if pictures.is_empty() {
        eprintln!("SKIPPED: there is no corpus of pictures at {CORPUS}");
    }
    pictures
}

/// Returns the pictures that others decode without a word, but for one that has too many pixels here.
fn known_to_be_good() -> HashSet<PathBuf> {
    let table = fs::read_to_string(Path::new(CORPUS).join("BASELINE.tsv")).expect("a table");
    let is_good = |line: &&str| line.split('\t').nth(1).is_some_and(|said| said.starts_with("OK"));
    let file = |line: &str| line.split('\t').next().map(|file| Path::new(CORPUS).join(file));
    table
        .lines()
        .filter(is_good)
        .filter(|line| !line.ends_with("16000x16000\t"))
        .filter_map(file)
        .collect()
}

/// What an uploader would call a file, and whether a browser may show it.
fn claimed_type(path: &Path) -> (&'static str, &'static str) {
    match path.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "png" => ("image/png", "inline"),
        "jpg" | "jpeg" => ("image/jpeg", "inline"),
        "gif" => ("image/gif", "inline"),
        "webp" => ("image/webp", "inline"),
        "avif" => ("image/avif", "inline"),
        "bmp" => ("image/bmp", "attachment"),
        "svg" => ("image/svg+xml", "attachment"),
        "tif" => ("image/tiff", "attachment"),
        "ico" => ("image/x-icon", "attachment"),
        "html" => ("text/html", "attachment"),
        _ => ("application/octet-stream", "attachment"),
    }
}

fn target(media: &str, query: &str) -> String {
    format!("/_matrix/client/v1/media/thumbnail/{media}?{query}")
}

fn assert_downloads_as_uploaded(client: &Client, path: &Path, media: &str, bytes: &[u8]) {
    let answer = client.download(media);
    let (content_type, disposition) = claimed_type(path);
    assert_eq!((answer.status, answer.complete), (200, true), "{path:?}");
    assert!(answer.body == bytes, "{path:?} came back different");
    assert_eq!(answer.header("content-type"), Some(content_type), "{path:?}");
    assert_eq!(answer.header("content-disposition"), Some(disposition), "{path:?}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path:?}");
    let policy = answer.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("sandbox; default-src 'none';"), "{path:?}");
}

/// Returns the thumbnail, or nothing if there is none and the client is told why.
fn valid_or_refused(path: &Path, query: &str, answer: &Answer) -> Option<DynamicImage> {
    match answer.status {
        200 => {
            let content_type = answer.header("content-type").expect("a type");
            let is_known = ["png", "apng", "jpeg", "gif", "webp"]
                .iter()
                .any(|kind| content_type == format!("image/{kind}"));
            assert!(is_known && answer.complete, "{path:?} {query}: {content_type}");
            let image = image::load_from_memory(&answer.body);
            return Some(image.unwrap_or_else(|error| panic!("{path:?} {query}: {error}")));
        }
        400 => answer.assert_error(400, "M_UNKNOWN"),
        413 => answer.assert_error(413, "M_TOO_LARGE"),
        status => panic!("{path:?} {query}: {status} {}", answer.text()),
    }
    None
}

/// Asks for a thumbnail of every size by both methods, one of them moving, every other time the other;
/// returns how many there are. Of what has neither a small nor a large one no more is asked for.
fn ask_for_all(client: &Client, path: &Path, media: &str, crop_moves: bool) -> usize {
    let ask = |(width, height): (u32, u32), is_crop: bool| {
        let method = if is_crop { "crop" } else { "scale" };
        let animated = is_crop == crop_moves;
        let query = format!("width={width}&height={height}&method={method}&animated={animated}");
        valid_or_refused(path, &query, &client.get(&target(media, &query))).is_some()
    };
    let [small, middle @ .., large] = LADDER;
    if !ask(small, true) && !ask(large, false) {
        return 0;
    }
    let rest = middle.into_iter().flat_map(|size| [(size, true), (size, false)]);
    let rest = rest.chain([(small, false), (large, true)]);
    rest.filter(|(size, is_crop)| ask(*size, *is_crop)).count()
}

/// CS-LIM-06, CS-HDR-07, IM-01, IM-02, IM-03, IM-04, IM-05, IM-08
#[test]
fn the_whole_corpus_is_stored_served_and_thumbnailed_or_refused() {
    let pictures = corpus();
    if pictures.is_empty() {
        return;
    }
    let good = known_to_be_good();
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.client().with_token(TOKEN);
    client.upload("text/plain", None, b"the connections that are kept are open now");
    let open_before = mediary.open_files();
    let (next, made) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = pictures.get(number) else { break };
            let bytes = fs::read(path).expect("the corpus can be read");
            let media = client.upload(claimed_type(path).0, None, &bytes);
            assert_downloads_as_uploaded(&client, path, &media, &bytes);
            let begun = Instant::now();
            let thumbnails = ask_for_all(&client, path, &media, number % 2 == 0);
            eprintln!("{:?} for {thumbnails} thumbnails of {}", begun.elapsed(), path.display());
            assert!(thumbnails > 0 || !good.contains(path), "{path:?} is a good picture");
            made.fetch_add(thumbnails, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(work);
        }
    });
    assert!(made.into_inner() > 0, "the corpus holds good pictures, too");
    assert_eq!(mediary.admin_client().get("/health").status, 200);
    // The removal of unfinished files is left to a thread of its own.
    wait_until("no temporary file is left", || mediary.unfinished().is_empty());
    wait_until("what was opened is closed", || mediary.open_files() <= open_before + MAX_KEPT_OPEN);
    let peak = mediary.peak_memory();
    assert!(peak < MAX_PEAK, "{peak} KiB were in use");
    let log = mediary.whole_log();
    assert!(!log.contains("panicked"), "{log}");
}

/// IM-01, IM-02, IM-03, IM-04, IM-05, IM-06, IM-07, IM-12
#[test]
fn crafted_pictures_do_what_is_expected_of_them() {
    let folder = Path::new(CORPUS).join("crafted");
    let Ok(table) = fs::read_to_string(folder.join("EXPECT.tsv")) else {
        eprintln!("SKIPPED: there is no corpus of pictures at {}", folder.display());
        return;
    };
    let fake = FakeHomeserver::start();
    let mediary = Settings::new(&fake.url).with("[thumbnails]\nsizes = [\"16x16 scale\"]").start();
    let client = mediary.client().with_token(TOKEN);
    let query = "width=16&height=16";
    for line in table.lines().skip(1) {
        let [file, _, _, expected, ..] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("not a row: {line}");
        };
        let path = folder.join(file);
        let bytes = fs::read(&path).expect("the corpus can be read");
        let media = client.upload(claimed_type(&path).0, None, &bytes);
        assert_downloads_as_uploaded(&client, &path, &media, &bytes);
        let answer = client.get(&target(&media, query));
        let image = valid_or_refused(&path, query, &answer);
        let size = image.as_ref().map(DynamicImage::dimensions);
        if expected.contains("thumbnail 24x40") {
            assert_eq!(size, Some((16, 27)), "{file}");
        } else if expected.contains("thumbnail 20x40") {
            assert_eq!(size, Some((16, 32)), "{file}");
        } else if expected.starts_with("valid thumbnail") {
            assert!(image.is_some(), "{file}");
            if expected.contains("metadata not copied") {
                let made_anew = client.get(&target(&media, "width=3&height=2&method=crop"));
                assert_eq!(made_anew.status, 200, "{file}");
                assert!(answer.text().contains("<script") && !made_anew.text().contains("<script"));
            }
        } else if ["no thumbnail", "decode error", "never rendered", "not decoded", "attachment"]
            .iter()
            .any(|refusal| expected.starts_with(refusal))
        {
            assert!(image.is_none(), "{file}: {}", answer.status);
        } else {
            assert!(expected.starts_with("either"), "an expectation nobody checks: {expected}");
        }
    }
    // The floods were refused from their headers: decoded, one of them takes more.
    let peak = mediary.peak_memory();
    assert!(peak < MAX_CRAFTED_PEAK, "{peak} KiB were in use");
    // Nothing that a picture names was asked for.
    assert!(fake.passed_on().is_empty());
}

/// IM-13, CS-TH-14
#[test]
fn thumbnails_of_one_size_never_take_each_others_place() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.client().with_token(TOKEN);
    // Small enough to come back moving when that is asked for.
    let frame =
        |shade| image::Frame::new(image::RgbaImage::from_pixel(60, 30, image::Rgba([shade; 4])));
    let mut moving = Vec::new();
    image::codecs::gif::GifEncoder::new(&mut moving)
        .encode_frames([frame(255), frame(0)])
        .expect("samples can be encoded");
    let media = client.upload("image/gif", None, &moving);
    let ways =
        ["method=crop", "method=scale", "method=crop&animated=true", "method=scale&animated=true"];
    let ask = |way: &str| {
        let answer = client.get(&target(&media, &format!("width=32&height=32&{way}")));
        let image = valid_or_refused(Path::new("moving.gif"), way, &answer).expect("a thumbnail");
        let content_type = answer.header("content-type").map(str::to_owned);
        (image.dimensions(), content_type, answer.body)
    };
    let first = ways.map(ask);
    assert_eq!((first[0].0, first[1].0), ((30, 30), (60, 30)));
    for _ in 0..2 {
        for (way, first) in ways.iter().zip(&first).rev() {
            assert!(ask(way) == *first, "{way} is another thumbnail now");
        }
    }
}
