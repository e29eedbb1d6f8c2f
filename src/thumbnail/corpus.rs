//! Thumbnails of a collection of malformed, odd and ordinary pictures, if it is at hand.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::GenericImageView;

use super::layout::Area;
use super::{Job, Layout, Limits, Rendered, ThumbnailError, decode, layout, prepare, render};
use crate::types::ThumbnailMethod::{Crop, Scale};
use crate::types::{
    MovingEncoding, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec,
};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/corpus/images");

/// Far above what any file takes, even unoptimised: only what hangs or explodes is over it.
const LONGEST: Duration = Duration::from_secs(20);

/// CS-HDR-07
const TYPES: [&str; 5] = ["image/jpeg", "image/png", "image/apng", "image/gif", "image/webp"];

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
        Ok(Rendered::Original { content_type }) => {
            assert!(TYPES.contains(content_type), "{path:?}: {content_type}");
            let is_allowed = |(layout, shown): &(Layout, ThumbnailSize)| match layout {
                Layout::Original => true,
                // It has fewer bytes than its thumbnail, shows the same, and is small.
                Layout::Resize { crop, .. } => {
                    *crop == Area::whole(*shown)
                        && u64::from(shown.width) * u64::from(shown.height) <= 1 << 20
                }
            };
            assert!(layouts(path, spec).iter().any(is_allowed), "{path:?}");
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
    let ThumbnailSize { width, height } = stored_size(path).expect("a picture");
    [(width, height), (height, width)].map(|(width, height)| {
        let shown = ThumbnailSize { width, height };
        (layout(spec, shown), shown)
    })
}

fn stored_size(path: &Path) -> Result<ThumbnailSize, ThumbnailError> {
    let file = File::open(path).expect("the corpus can be read");
    decode::open(file, &Limits::default()).map(|source| source.header().size)
}

#[test]
fn no_picture_of_the_corpus_panics_or_hangs() {
    if is_absent() {
        return;
    }
    prepare();
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
            eprintln!("{taken:?} {}: {}", path.display(), outcome_text(&outcome));
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
        eprintln!("{file}: {:?} {}", start.elapsed(), outcome_text(&outcome));
    }
}

fn size_of(outcome: &Result<Rendered, ThumbnailError>) -> Option<(u32, u32)> {
    match outcome {
        Ok(Rendered::Encoded { size, .. }) => Some((size.width, size.height)),
        _ => None,
    }
}

fn outcome_text(outcome: &Result<Rendered, ThumbnailError>) -> String {
    match outcome {
        Ok(Rendered::Original { content_type }) => format!("the original, {content_type}"),
        Ok(Rendered::Encoded { size, content_type, .. }) => format!("{size}, {content_type}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn pictures_known_to_be_good_are_shown_at_their_size() {
    if is_absent() {
        return;
    }
    let table = fs::read_to_string(Path::new(CORPUS).join("BASELINE.tsv")).expect("a table");
    let mut odd = Vec::new();
    for line in table.lines().skip(1) {
        let [file, outcome, ..] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("not a row: {line}");
        };
        let Some(size) = outcome.strip_prefix("OK ") else { continue };
        let path = Path::new(CORPUS).join(file);
        let made = thumbnail(&path, &spec(96, 96, Crop));
        let stored = stored_size(&path).map(|size| size.to_string());
        if matches!(stored, Err(ThumbnailError::TooLarge(_))) {
            assert_eq!(size, "16000x16000", "{file}: the only one above the limit");
        } else if made.is_err() || stored.as_deref().ok() != Some(size) {
            odd.push(format!("{file}: {size}, but {stored:?}, {}", outcome_text(&made)));
        }
    }
    assert!(odd.is_empty(), "{odd:#?}");
}

/// What is shown of formats that the table of the corpus does not speak of, at which stored size, and
/// what is refused.
const OTHER_FORMATS: [(&str, Option<(u32, u32)>); 41] = [
    ("image-ok/bmp_v5_with_icc.ico", Some((127, 64))),
    ("image-ok/png_rgb8.ico", Some((32, 32))),
    ("libavif/abc_color_irot_alpha_irot.avif", Some((512, 256))),
    ("libavif/abc_color_irot_alpha_NOirot.avif", Some((512, 256))),
    ("libavif/clap_irot_imir_non_essential.avif", Some((12, 34))),
    ("libavif/color_grid_alpha_grid_gainmap_nogrid.avif", Some((512, 600))),
    ("libavif/color_grid_alpha_nogrid.avif", Some((80, 80))),
    ("libavif/color_grid_gainmap_different_grid.avif", Some((512, 600))),
    ("libavif/colors-animated-12bpc-keyframes-0-2-3.avif", Some((64, 64))),
    ("libavif/colors-animated-8bpc-depth-exif-xmp.avif", Some((150, 150))),
    ("libavif/colors_hdr_p3.avif", Some((200, 200))),
    ("libavif/colors_hdr_rec2020.avif", Some((200, 200))),
    ("libavif/colors_sdr_srgb.avif", Some((200, 200))),
    ("libavif/colors_wcg_hdr_rec2020.avif", Some((200, 200))),
    ("libavif/kodim23_yuv420_8bpc.avif", Some((768, 512))),
    ("libavif/paris_icc_exif_xmp.avif", Some((403, 302))),
    ("libavif/sofa_grid1x5_420.avif", Some((1024, 770))),
    ("libavif/sofa_grid1x5_420_reversed_dimg_order.avif", Some((1024, 770))),
    ("pillow/badbitssize.bmp", Some((127, 64))),
    ("pillow/exif.avif", Some((512, 512))),
    ("pillow/hopper.avif", Some((128, 128))),
    ("pillow/hopper.iccprofile.tif", Some((128, 128))),
    ("pillow/hopper_rle8_row_overflow.bmp", Some((128, 128))),
    ("pillow/pal8rletrns.bmp", Some((127, 64))),
    ("pillow/rot1mir1.avif", Some((427, 640))),
    ("pillow/rot2mir0.avif", Some((640, 427))),
    ("pillow/xmp_tags_orientation.avif", Some((326, 268))),
    ("afl-bmp-edges-only/17090c2cbb280f95.bmp", None),
    ("afl-bmp-edges-only/fe871e4d3c0c7d47.bmp", None),
    ("crafted/avif-ispe-65535sq-no-data.avif", None),
    ("crafted/svg-script.svg", None),
    ("crafted/svg-xxe-file.svg", None),
    ("image-bad/Bad_badbitcount.bmp", None),
    ("image-bad/Bad_height.bmp", None),
    ("image-bad/oom-ff076e7064c13ec1f8e2c5bbbfb7a77a08db2361.ico", None),
    ("pillow/badheadersize.bmp", None),
    ("pillow/badplanes.bmp", None),
    ("pillow/crash-0c7e0e8e11ce787078f00b5b0ca409a167f070e0.tif", None),
    ("pillow/crash-4f085cc12ece8cde18758d42608bed6a2a2cfb1c.tif", None),
    ("pillow/oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif", None),
    ("resvg-svg/structure-svg--elements-via-ENTITY-reference-1.svg", None),
];

#[test]
fn pictures_of_other_formats_are_shown_or_refused_as_known() {
    if is_absent() {
        return;
    }
    for (file, expected) in OTHER_FORMATS {
        let path = Path::new(CORPUS).join(file);
        let size = stored_size(&path).ok().map(|size| (size.width, size.height));
        let made = thumbnail(&path, &spec(16, 16, Scale));
        assert_eq!(size.filter(|_| made.is_ok()), expected, "{file}: {}", outcome_text(&made));
    }
}
