//! `mediary thumbnail`: one thumbnail, made as the server makes it, and what it says of it.

use std::fs;
use std::io::Cursor;
use std::path::PathBuf;
use std::process::{Command, Output};

use image::codecs::gif::GifEncoder;
use image::{DynamicImage, Frame, GenericImageView, ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;

/// A directory with files, in which the command runs.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn with(self, name: &str, body: &[u8]) -> Self {
        fs::write(self.path(name), body).expect("it can be written");
        self
    }

    fn run(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_mediary"))
            .arg("thumbnail")
            .args(arguments.split_whitespace())
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .output()
            .expect("the binary can be started")
    }

    /// Returns what it says when all is well.
    fn good(&self, arguments: &str) -> String {
        let Output { status, stdout, stderr } = self.run(arguments);
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        assert!(status.success(), "{arguments}: {stderr}");
        String::from_utf8(stdout).expect("text")
    }

    /// Returns what it says when it makes nothing.
    fn refused(&self, arguments: &str) -> String {
        let Output { status, stderr, .. } = self.run(arguments);
        assert!(!status.success(), "{arguments}");
        String::from_utf8(stderr).expect("text")
    }

    fn picture(&self, name: &str) -> (ImageFormat, (u32, u32)) {
        let bytes = fs::read(self.path(name)).expect("it was written");
        let format = image::guess_format(&bytes).expect("a known format");
        let image = image::load_from_memory(&bytes).expect("it can be decoded");
        (format, image.dimensions())
    }
}

fn encoded(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let image = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 9]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut bytes, format).expect("samples can be encoded");
    bytes.into_inner()
}

fn gif(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let picture = RgbImage::from_fn(width, height, |x, _| Rgb([x as u8, 0, 0]));
    let frame = Frame::new(DynamicImage::from(picture).into_rgba8());
    let frames = [frame.clone(), frame];
    GifEncoder::new(&mut bytes).encode_frames(frames).expect("samples can be encoded");
    bytes
}

#[test]
fn a_thumbnail_is_made_and_described() {
    let place = Place::new().with("photo", &encoded(1000, 750, ImageFormat::Jpeg));
    let said = place.good("photo --out small.jpg");
    for line in [
        "source     image/jpeg, 1000x750, ",
        "asked      320x240 scale\n",
        "thumbnail  image/jpeg, 320x240, ",
        "made in    ",
        "written    small.jpg\n",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
    assert_eq!(place.picture("small.jpg"), (ImageFormat::Jpeg, (320, 240)));
}

#[test]
fn method_size_and_encoding_are_as_asked() {
    let place = Place::new().with("a.png", &encoded(500, 400, ImageFormat::Png));
    place.good("a.png --size 96x96 --method crop --webp -o small");
    assert_eq!(place.picture("small"), (ImageFormat::WebP, (96, 96)));
}

#[test]
fn sizes_are_those_of_the_settings() {
    let place = Place::new()
        .with("a.jpg", &encoded(500, 400, ImageFormat::Jpeg))
        .with("exact.toml", b"[thumbnails]\nmode = \"exact\"")
        .with("low.toml", b"[thumbnails]\nmax_pixels = 199_999");
    let said = place.good("a.jpg --size 50x40 -o small");
    assert!(said.contains("asked      50x40 scale, which thumbnails.sizes makes 320x240 scale\n"));
    assert_eq!(place.picture("small").1, (320, 256));
    place.good("a.jpg --size 50x40 -o small --config exact.toml");
    assert_eq!(place.picture("small").1, (50, 40));
    let refused = place.refused("a.jpg --config low.toml");
    assert!(refused.contains("no thumbnail of a.jpg: the picture is too large"), "{refused}");
    assert!(refused.contains("[thumbnails]"), "{refused}");
}

#[test]
fn a_small_original_comes_as_it_is_and_moves_only_if_it_may() {
    let source = gif(40, 20);
    let place = Place::new().with("a.gif", &source);
    let said = place.good("a.gif --animated -o moving");
    assert!(said.contains("source     image/gif, 40x20, moving, "), "{said}");
    assert!(said.contains("thumbnail  image/gif, 40x20, moving, "), "{said}");
    assert!(said.contains(", the original itself\n"), "{said}");
    assert!(fs::read(place.path("moving")).expect("it was written") == source);
    let said = place.good("a.gif -o still");
    let thumbnail = said.lines().find(|line| line.starts_with("thumbnail")).expect("its line");
    assert!(!thumbnail.contains("moving"), "{said}");
    assert!(fs::read(place.path("still")).expect("it was written") != source);
}

#[test]
fn nothing_is_written_unless_that_is_wanted_and_never_over_the_source() {
    let source = encoded(500, 400, ImageFormat::Jpeg);
    let place = Place::new().with("a.jpg", &source);
    place.good("a.jpg");
    assert_eq!(fs::read_dir(place.0.path()).expect("our own").count(), 1);
    let refused = place.refused("a.jpg --out ./a.jpg");
    assert!(refused.contains("is the source itself"), "{refused}");
    assert!(fs::read(place.path("a.jpg")).expect("it is there") == source);
    let refused = place.refused("a.jpg --out missing/a.jpg");
    assert!(refused.contains("cannot write missing/a.jpg"), "{refused}");
}

#[test]
fn what_has_no_thumbnail_is_refused_with_the_reason() {
    let damaged = &encoded(300, 300, ImageFormat::Png)[..200];
    let place = Place::new().with("text.png", b"hello").with("half.png", damaged);
    for (arguments, reason) in [
        ("text.png", "no thumbnail of text.png: a thumbnail cannot be made of this kind of file"),
        ("half.png", "no thumbnail of half.png: the picture is damaged"),
        ("missing.png", "cannot read missing.png"),
        (".", ". is no file"),
        ("text.png --config missing.toml", "missing.toml"),
        ("text.png --size 0x1", "write width, x and height"),
        ("text.png --size 9999x1", "write width, x and height"),
        ("text.png --method fit", "write scale or crop"),
    ] {
        let said = place.refused(arguments);
        assert!(said.contains(reason), "{arguments}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn its_help_shows_how_it_is_used() {
    let said = Place::new().good("--help");
    for words in ["--size <WIDTHxHEIGHT>", "--animated", "[default: 320x240]", "Examples:"] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
}
