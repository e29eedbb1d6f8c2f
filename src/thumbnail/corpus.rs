//! Thumbnails of a collection of malformed, odd and ordinary pictures, if it is at hand.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::{GenericImageView, ImageReader};

use super::{Job, Layout, Limits, Rendered, ThumbnailError, layout, render};
use crate::types::ThumbnailMethod::{Crop, Scale};
use crate::types::{
    MovingEncoding, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec,
};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/corpus/images");

/// Far above what any file takes, even unoptimised: only what hangs or explodes is over it.
const LONGEST: Duration = Duration::from_secs(20);

fn spec(width: u32, height: u32, method: ThumbnailMethod) -> ThumbnailSpec {
    ThumbnailSpec {
        size: ThumbnailSize { width, height },
        method,
        animated: false,
        encoding: ThumbnailEncoding::Universal,
    }
}

fn thumbnail(path: &Path, spec: &ThumbnailSpec) -> Result<Rendered, ThumbnailError> {
    let source = File::open(path).expect("the corpus can be read");
    let job = Job {
        specs: vec![*spec],
        limits: Limits::default(),
        moving: MovingEncoding::default(),
        is_extracted: false,
    };
    render(source, &job).map(|mut made| made.remove(0))
}

/// Returns all files below a folder, or nothing if the corpus is not here.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Prints that a test says nothing, if the corpus is not here.
fn is_absent() -> bool {
    let absent = !Path::new(CORPUS).is_dir();
    if absent {
        eprintln!("SKIPPED: there is no corpus of pictures at {CORPUS}");
    }
    absent
}

fn check(path: &Path, spec: &ThumbnailSpec, outcome: &Result<Rendered, ThumbnailError>) {
    match outcome {
        Ok(Rendered::Original { .. }) => {
            // Or it has fewer bytes than its thumbnail, and is small.
            let is_small = fs::metadata(path).is_ok_and(|file| file.len() < 64 * 1024);
            assert!(is_small || layouts(path, spec)[0].0 == Layout::Original, "{path:?}");
        }
        Ok(Rendered::Encoded { bytes, content_type, size }) => {
            let image = image::load_from_memory(bytes).expect("thumbnails can be decoded");
            assert_eq!(image.dimensions(), (size.width, size.height), "{path:?}");
            let magic =
                if *content_type == "image/png" { &b"\x89PNG"[..] } else { b"\xff\xd8\xff" };
            assert!(bytes.starts_with(magic), "{path:?}");
            let is_planned = |(layout, shown): &(Layout, ThumbnailSize)| match layout {
                Layout::Original => size == shown,
                Layout::Resize { to, .. } => size == to,
            };
            assert!(layouts(path, spec).iter().any(is_planned), "{path:?}: {size}");
        }
        Err(ThumbnailError::Unsupported | ThumbnailError::Damaged(_)) => (),
        Err(ThumbnailError::TooLarge(_)) => (),
        Err(error) => panic!("{path:?}: {error:?}"),
    }
}

/// Returns the layout for the stored size and for that size turned, each with the size.
fn layouts(path: &Path, spec: &ThumbnailSpec) -> [(Layout, ThumbnailSize); 2] {
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format);
    let dimensions = reader.map(ImageReader::into_dimensions);
    let (width, height) = dimensions.expect("the corpus can be read").expect("a picture");
    [(width, height), (height, width)].map(|(width, height)| {
        let shown = ThumbnailSize { width, height };
        (layout(spec, shown), shown)
    })
}

#[test]
fn no_picture_of_the_corpus_panics_or_hangs() {
    if is_absent() {
        return;
    }
    let mut slowest = (Duration::ZERO, PathBuf::new());
    let mut made = 0;
    for path in files(Path::new(CORPUS)) {
        for spec in [spec(96, 96, Crop), spec(320, 240, Scale)] {
            let start = Instant::now();
            let outcome = thumbnail(&path, &spec);
            let taken = start.elapsed();
            assert!(taken < LONGEST, "{path:?} took {taken:?}");
            check(&path, &spec, &outcome);
            made += usize::from(outcome.is_ok());
            slowest = slowest.max((taken, path.clone()));
        }
    }
    eprintln!("{made} thumbnails; slowest: {:?} for {}", slowest.0, slowest.1.display());
    assert!(made > 0, "the corpus holds good pictures, too");
}

#[test]
fn crafted_pictures_do_what_is_expected_of_them() {
    if is_absent() {
        return;
    }
    let folder = Path::new(CORPUS).join("crafted");
    let table = fs::read_to_string(folder.join("EXPECT.tsv")).expect("the table is text");
    for line in table.lines().skip(1) {
        let [file, _, _, expected, ..] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("not a row: {line}");
        };
        let start = Instant::now();
        let outcome = thumbnail(&folder.join(file), &spec(16, 16, Scale));
        let is_refused = outcome.is_err();
        if expected.contains("thumbnail 24x40") {
            assert_eq!(size_of(&outcome), Some((16, 27)), "{file}");
        } else if expected.contains("thumbnail 20x40") {
            assert_eq!(size_of(&outcome), Some((16, 32)), "{file}");
        } else if expected.starts_with("valid thumbnail") {
            assert!(!is_refused, "{file}: {outcome:?}");
        } else if ["no thumbnail", "decode error", "never rendered", "not decoded", "attachment"]
            .iter()
            .any(|refusal| expected.starts_with(refusal))
        {
            assert!(is_refused, "{file}: {outcome:?}");
        } else {
            assert!(expected.starts_with("either"), "an expectation nobody checks: {expected}");
        }
        if expected.contains("M_TOO_LARGE") {
            // From the header alone (threats IM-01): no time to decode anything.
            assert!(start.elapsed() < Duration::from_millis(250), "{file}: {outcome:?}");
        }
        eprintln!("{file}: {:?} {:?}", start.elapsed(), outcome.map(|made| size_text(&made)));
    }
}

fn size_of(outcome: &Result<Rendered, ThumbnailError>) -> Option<(u32, u32)> {
    match outcome {
        Ok(Rendered::Encoded { size, .. }) => Some((size.width, size.height)),
        _ => None,
    }
}

fn size_text(made: &Rendered) -> String {
    match made {
        Rendered::Original { content_type } => format!("the original, {content_type}"),
        Rendered::Encoded { size, content_type, .. } => format!("{size}, {content_type}"),
    }
}
