//! The cover that an audio file carries along, a picture like any other.

use std::fs::File;
use std::io::{BufReader, Seek, Write};

use lofty::config::{GlobalOptions, ParseOptions, ParsingMode, apply_global_options};
use lofty::file::{FileType, TaggedFileExt};
use lofty::picture::PictureType;
use lofty::probe::Probe;
use lofty::tag::Tag;

use super::{Header, Pixels, Source, id3, open_picture};
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::format::{Audio, Format};
use crate::thumbnail::limits::Limits;
use crate::types::ThumbnailSize;

/// The most bytes of one field; covers are photographs.
const MAX_FIELD_BYTES: usize = 16 * 1024 * 1024;

/// The picture of a cover, as part of its audio file.
pub(super) struct CoverSource {
    picture: Box<dyn Source>,
    header: Header,
}

impl CoverSource {
    /// Opens the front cover, or whatever picture comes first.
    ///
    /// # Errors
    ///
    /// `Unsupported` if there is none or it is no picture that is stored as pixels; else as the picture.
    pub(super) fn open(
        reader: BufReader<File>,
        kind: Audio,
        limits: &Limits,
    ) -> Result<Self, ThumbnailError> {
        let cover = cover_of(reader, kind)?.ok_or(ThumbnailError::Unsupported)?;
        let format = Format::detect(&cover).filter(|format| is_stored_as_pixels(*format));
        let format = format.ok_or(ThumbnailError::Unsupported)?;
        let mut file = anonymous_file()?;
        file.write_all(&cover)?;
        file.rewind()?;
        let picture = open_picture(BufReader::new(file), format, cover.len() as u64, limits)?;
        let &Header { size, orientation, .. } = picture.header();
        // The cover is not what the file is: it is never sent as it is, and it does not move.
        let header = Header { format: Format::Audio(kind), size, animated: false, orientation };
        Ok(Self { picture, header })
    }
}

impl Source for CoverSource {
    fn header(&self) -> &Header {
        &self.header
    }

    fn color_profile(&mut self) -> Option<Vec<u8>> {
        self.picture.color_profile()
    }

    fn decode(self: Box<Self>, at_least: ThumbnailSize) -> Result<Pixels, ThumbnailError> {
        self.picture.decode(at_least)
    }
}

/// No drawings, no videos, and no audio within audio.
fn is_stored_as_pixels(format: Format) -> bool {
    match format {
        Format::Jpeg
        | Format::Png
        | Format::Gif
        | Format::WebP
        | Format::Avif
        | Format::JpegXl
        | Format::Tiff
        | Format::Bmp
        | Format::Qoi => true,
        Format::Ico | Format::Heif | Format::Svg | Format::Video(_) | Format::Audio(_) => false,
    }
}

fn cover_of(mut reader: BufReader<File>, kind: Audio) -> Result<Option<Vec<u8>>, ThumbnailError> {
    // Vorbis, Opus and Speex alike lie in pages of Ogg.
    let kind = match kind {
        Audio::Mp3 => return Ok(id3::cover(&mut reader)?),
        Audio::Flac => Some(FileType::Flac),
        Audio::M4a => Some(FileType::Mp4),
        Audio::Ogg => None,
    };
    apply_global_options(
        GlobalOptions::new()
            .allocation_limit(MAX_FIELD_BYTES)
            .use_custom_resolvers(false)
            .preserve_format_specific_items(false),
    );
    let options = ParseOptions::new().read_properties(false).parsing_mode(ParsingMode::Relaxed);
    let probe = match kind {
        Some(kind) => Probe::with_file_type(reader, kind),
        None => Probe::new(reader).guess_file_type()?,
    };
    let file = probe.options(options).read();
    let file = file.map_err(|error| ThumbnailError::Damaged(error.to_string()))?;
    let pictures = || file.tags().iter().flat_map(Tag::pictures);
    let front = pictures().find(|picture| picture.pic_type() == PictureType::CoverFront);
    Ok(front.or_else(|| pictures().next()).map(|picture| picture.data().to_vec()))
}

/// Returns a file in memory: a confined process has no other place.
fn anonymous_file() -> Result<File, ThumbnailError> {
    use rustix::fs::{MemfdFlags, memfd_create};
    let file = memfd_create("cover", MemfdFlags::CLOEXEC).map_err(std::io::Error::from)?;
    Ok(file.into())
}
