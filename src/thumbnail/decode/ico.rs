//! Icons: the largest of their pictures.

use std::io::{BufRead, Cursor, Read, Seek, SeekFrom};

use image::ImageError;

use super::image_rs::ImageSource;
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::limits::Limits;

const HEADER_LENGTH: usize = 6;
const ENTRY_LENGTH: usize = 16;

/// How many pictures are looked at; real icons have about ten.
const MAX_ENTRIES: u16 = 256;

/// The most bytes of one picture: 256 pixels square, uncompressed, and a little.
const MAX_PICTURE_BYTES: u64 = 1024 * 1024;

/// Opens the largest picture of an icon, of those the one with the most colours.
///
/// # Errors
///
/// As all decoders.
pub(super) fn open(
    reader: &mut (impl BufRead + Seek),
    limits: &Limits,
) -> Result<ImageSource, ThumbnailError> {
    let mut header = [0; HEADER_LENGTH];
    reader.read_exact(&mut header).map_err(ImageError::IoError)?;
    let [.., low, high] = header;
    let mut best: Option<Entry> = None;
    for _ in 0..u16::from_le_bytes([low, high]).min(MAX_ENTRIES) {
        let mut entry = [0; ENTRY_LENGTH];
        reader.read_exact(&mut entry).map_err(ImageError::IoError)?;
        let entry = Entry(entry);
        if u64::from(entry.length()) > MAX_PICTURE_BYTES {
            continue;
        }
        if best.as_ref().is_none_or(|best| entry.score() > best.score()) {
            best = Some(entry);
        }
    }
    let best =
        best.ok_or_else(|| ThumbnailError::Damaged("an icon of nothing that can be".to_owned()))?;
    reader.seek(SeekFrom::Start(best.offset().into()))?;
    let mut picture = Vec::new();
    reader.take(best.length().into()).read_to_end(&mut picture)?;
    if picture.starts_with(b"\x89PNG") {
        ImageSource::open_png_in_icon(Cursor::new(picture), limits)
    } else {
        ImageSource::open_icon(Cursor::new(best.alone(&picture)), limits)
    }
}

/// A line of the directory.
struct Entry([u8; ENTRY_LENGTH]);

impl Entry {
    /// The size counts first, then the depth of colours.
    fn score(&self) -> (u32, u16) {
        let side = |byte: u8| if byte == 0 { 256 } else { u32::from(byte) };
        let [width, height, _, _, _, _, low, high, ..] = self.0;
        (side(width) * side(height), u16::from_le_bytes([low, high]))
    }

    fn length(&self) -> u32 {
        let [.., l0, l1, l2, l3, _, _, _, _] = self.0;
        u32::from_le_bytes([l0, l1, l2, l3])
    }

    fn offset(&self) -> u32 {
        let [.., o0, o1, o2, o3] = self.0;
        u32::from_le_bytes([o0, o1, o2, o3])
    }

    /// Returns an icon that has nothing but this picture.
    fn alone(&self, picture: &[u8]) -> Vec<u8> {
        const OFFSET: u32 = (HEADER_LENGTH + ENTRY_LENGTH) as u32;
        let [entry @ .., _, _, _, _] = self.0;
        [&[0, 0, 1, 0, 1, 0], &entry[..], &OFFSET.to_le_bytes(), picture].concat()
    }
}
