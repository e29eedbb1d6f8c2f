//! Asks `mediary thumbnail` for all thumbnails of a file, and decodes what it writes.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::codecs::gif::GifDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{
    AnimationDecoder, DynamicImage, Frame, ImageDecoder, ImageFormat, ImageReader, Limits,
};

use crate::sheet::{Picture, Row};

/// What is asked for, and what stands above it on the sheet.
const STILLS: [(&str, &[&str]); 4] = [
    ("32 crop", &["--size", "32x32", "--method", "crop"]),
    ("96 crop", &["--size", "96x96", "--method", "crop"]),
    ("96 crop webp", &["--size", "96x96", "--method", "crop", "--webp"]),
    ("320 scale", &["--size", "320x240"]),
];

/// The most pixels of a source that is shown beside its thumbnails.
const MAX_SOURCE_SIDE: u32 = 12_000;

/// Makes thumbnails with a program.
pub struct Maker {
    mediary: PathBuf,
    out: PathBuf,
}

impl Maker {
    /// Takes the program, and where it may write.
    pub fn new(mediary: PathBuf, out: PathBuf) -> Self {
        Self { mediary, out }
    }

    /// Returns the row of a file; `None` if no thumbnail can be made of it.
    pub fn row(&self, file: &Path) -> Option<Row> {
        let mut pictures = vec![Picture { label: "source".to_owned(), image: source(file) }];
        let mut title = file.file_name()?.to_string_lossy().into_owned();
        for (label, arguments) in STILLS {
            let said = self.make(file, arguments)?;
            let image = still(&self.out);
            if pictures.len() == 1 {
                title = format!("{title}: {}", line(&said, "source"));
            }
            pictures.push(Picture {
                label: format!("{label}: {}", line(&said, "thumbnail").replace("image/", "")),
                image,
            });
        }
        if title.contains("moving") {
            let moving = ["--size", "96x96", "--method", "crop", "--animated"];
            let said = self.make(file, &moving)?;
            let frames = frames(&self.out);
            let places = [("first", 0), ("middle", frames.len() / 2)];
            for (label, place) in places {
                let label = format!(
                    "{label} of {}: {}",
                    frames.len(),
                    line(&said, "thumbnail").replace("image/", "")
                );
                pictures.push(Picture { label, image: frames.get(place).cloned() });
            }
        }
        Some(Row { title, pictures })
    }

    /// Makes one thumbnail and returns what the program says of it.
    fn make(&self, file: &Path, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new(&self.mediary);
        command.arg("thumbnail").arg(file).args(arguments).arg("--out").arg(&self.out);
        let output = command.output().expect("the program can be started");
        let is_made = output.status.success();
        is_made.then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Returns what the program says behind a word.
fn line<'a>(said: &'a str, word: &str) -> &'a str {
    said.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_default().trim()
}

fn still(file: &Path) -> Option<DynamicImage> {
    ImageReader::open(file).ok()?.with_guessed_format().ok()?.decode().ok()
}

/// Decodes a source by other means than Mediary, as far as there are any, and turns it as it says.
fn source(file: &Path) -> Option<DynamicImage> {
    let mut reader = ImageReader::open(file).ok()?.with_guessed_format().ok()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SOURCE_SIDE);
    limits.max_image_height = Some(MAX_SOURCE_SIDE);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().ok()?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).ok()?;
    image.apply_orientation(orientation);
    Some(image)
}

/// Decodes all frames; one that stands still is one.
fn frames(file: &Path) -> Vec<DynamicImage> {
    let decoded = || -> Option<Vec<Frame>> {
        let format = ImageReader::open(file).ok()?.with_guessed_format().ok()?.format()?;
        let reader = BufReader::new(File::open(file).ok()?);
        let frames = match format {
            ImageFormat::Gif => GifDecoder::new(reader).ok()?.into_frames(),
            ImageFormat::WebP => WebPDecoder::new(reader).ok()?.into_frames(),
            _ => return None,
        };
        frames.collect_frames().ok().filter(|frames| !frames.is_empty())
    };
    match decoded() {
        Some(frames) => frames.into_iter().map(|frame| frame.into_buffer().into()).collect(),
        None => still(file).into_iter().collect(),
    }
}
