//! The programs that are known, and what each is told.

use std::fmt;
use std::path::Path;

use super::names::Names;
use crate::thumbnail::format::{Format, Video};
use crate::thumbnail::limits::Limits;

/// A program that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    /// Takes a picture out of a video.
    Ffmpeg,
    /// Decodes HEIC; newer versions of it are called `heif-dec`.
    HeifConvert,
}

/// The source, which is standard input, by a name: so it can be sought in.
const SOURCE: &str = "/proc/self/fd/0";

/// What videos are encoded as; ffmpeg knows some hundred others that nobody would miss.
const CODECS: &str = "h264,hevc,vp8,vp9,libdav1d,libaom-av1,av1,mpeg4,h263,mjpeg,mpeg2video,theora,prores,\
                      libvpx,libvpx-vp9,png";

/// First to square pixels, then down to a size that is beyond all thumbnails; then the most typical of
/// some pictures, which is seldom the black one that many videos begin with.
const FILTERS: &str = "scale=iw*sar:ih,\
                       scale='min(4096,iw)':'min(4096,ih)':force_original_aspect_ratio=decrease,\
                       thumbnail=3";

/// Hardly any loss: what is made of it is made smaller, and encoded once more.
const QUALITY: &str = "95";

impl Tool {
    /// Returns the program that a format takes, if it takes one.
    pub(super) fn needed_for(format: Format) -> Option<Self> {
        match format {
            Format::Video(_) => Some(Self::Ffmpeg),
            Format::Heif => Some(Self::HeifConvert),
            _ => None,
        }
    }

    /// What has no thumbnails without it.
    pub(super) fn serves(self) -> &'static str {
        match self {
            Self::Ffmpeg => "videos",
            Self::HeifConvert => "HEIC pictures",
        }
    }

    /// Where it comes from, in words, and the setting that names it.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Ffmpeg => "install ffmpeg, or set thumbnails.ffmpeg",
            Self::HeifConvert => {
                "install heif-convert (Debian: libheif-examples), or set thumbnails.heif"
            }
        }
    }

    /// Returns what it is told for a source on standard input and a result on standard output; `None` if it
    /// needs a name for the result and there is none.
    pub(super) fn arguments(
        self,
        format: Format,
        limits: &Limits,
        names: Option<&Names>,
    ) -> Option<Vec<String>> {
        match self {
            Self::Ffmpeg => Some(ffmpeg(format, limits)),
            Self::HeifConvert => names.map(|names| heif_convert(names.jpeg())),
        }
    }

    /// Returns what makes it say its version, on standard output or standard error.
    pub(super) fn version_arguments(self) -> Vec<String> {
        match self {
            Self::Ffmpeg => vec!["-version".to_owned()],
            // Ends as if it had failed, in some versions, but says its own first.
            Self::HeifConvert => vec!["--help".to_owned()],
        }
    }

    /// Finds the version in what it says: digits and dots, or nothing if it is another program.
    pub(super) fn version(self, said: &str) -> Option<&str> {
        let before = match self {
            Self::Ffmpeg => "ffmpeg version ",
            Self::HeifConvert => "libheif version: ",
        };
        // Libraries may have had their say before.
        let (_, after) = said.lines().find_map(|line| line.split_once(before))?;
        let word = after.split(' ').next()?;
        let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
        // A build of the latest sources has a hash in place of a number.
        let is_named =
            |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        match &word[..end] {
            "" => (!word.is_empty() && word.len() < 80 && is_named(word)).then_some(word),
            version => Some(version),
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ffmpeg => "ffmpeg",
            Self::HeifConvert => "heif-convert",
        })
    }
}

/// One frame as BMP, which costs nothing to write. The container is the one that the first bytes show: no
/// file gets to be read as a playlist, nor to name other files (`drefs` are off unless asked for).
fn ffmpeg(format: Format, limits: &Limits) -> Vec<String> {
    let container = match format {
        Format::Video(Video::Matroska) => "matroska",
        _ => "mov",
    };
    let max_pixels = limits.max_pixels.min(i32::MAX.unsigned_abs().into()).to_string();
    let reading = [
        ["-max_pixels", &max_pixels],
        ["-protocol_whitelist", "file"],
        ["-codec_whitelist", CODECS],
        ["-skip_frame", "nokey"],
        ["-threads", "1"],
        ["-f", container],
        ["-i", SOURCE],
    ];
    let writing = [
        ["-vf", FILTERS],
        ["-frames:v", "1"],
        ["-threads", "1"],
        ["-pix_fmt", "bgr24"],
        ["-c:v", "bmp"],
        ["-f", "image2pipe"],
    ];
    let quiet = ["-nostdin", "-hide_banner", "-loglevel", "quiet", "-filter_threads", "1"];
    let alone = ["-an", "-sn", "-dn"];
    let all = quiet.into_iter().chain(reading.into_iter().flatten());
    let all = all.chain(alone).chain(writing.into_iter().flatten()).chain(["pipe:1"]);
    all.map(str::to_owned).collect()
}

/// JPEG, since its PNG takes seconds to write.
fn heif_convert(result: &Path) -> Vec<String> {
    let result = result.to_string_lossy().into_owned();
    vec!["--quiet".to_owned(), "-q".to_owned(), QUALITY.to_owned(), SOURCE.to_owned(), result]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let ffmpeg = |said| Tool::Ffmpeg.version(said);
        assert_eq!(ffmpeg("ffmpeg version 5.1.9-0+deb12u1 Copyright (c) 2000"), Some("5.1.9"));
        assert_eq!(ffmpeg("Warning: a library\nffmpeg version 6.1 Copyright"), Some("6.1"));
        assert_eq!(ffmpeg("ffmpeg version n7.1 Copyright\nmore"), Some("n7.1"));
        assert_eq!(ffmpeg("ffmpeg version N-118-g1a2b3c Copyright"), Some("N-118-g1a2b3c"));
        assert_eq!(ffmpeg("ffmpeg version "), None);
        assert_eq!(ffmpeg("ffmpeg version \u{1b}[31m"), None);
        assert_eq!(ffmpeg("usage: sleep NUMBER"), None);
        assert_eq!(ffmpeg(""), None);
        let heif = |said| Tool::HeifConvert.version(said);
        assert_eq!(heif(" heif-convert  libheif version: 1.15.1\n----"), Some("1.15.1"));
        assert_eq!(heif("heif-dec  libheif version: 1.19.8\n"), Some("1.19.8"));
    }

    #[test]
    fn the_container_is_forced_and_nothing_but_the_source_is_named() {
        for (video, container) in [(Video::Mp4, "mov"), (Video::Matroska, "matroska")] {
            let told = ffmpeg(Format::Video(video), &Limits::default());
            let value_of = |name: &str| {
                let at = told.iter().position(|word| word == name).expect("it is said");
                told[at + 1].as_str()
            };
            let input = told.iter().position(|word| word == "-i").expect("it is said");
            let forced = told.iter().position(|word| word == "-f").expect("it is said");
            assert!(forced < input);
            assert_eq!(value_of("-f"), container);
            assert_eq!(value_of("-i"), SOURCE);
            assert_eq!(value_of("-protocol_whitelist"), "file");
            assert_eq!(told.last().map(String::as_str), Some("pipe:1"));
        }
    }

    #[test]
    fn limits_are_passed_on_as_far_as_they_can_be_expressed() {
        let limits = Limits { max_pixels: u64::MAX, ..Limits::default() };
        let told = ffmpeg(Format::Video(Video::Mp4), &limits);
        assert!(told.contains(&i32::MAX.to_string()));
    }
}
