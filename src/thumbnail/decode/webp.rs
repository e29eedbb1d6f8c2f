//! What has to be known about a WebP file before its decoder may see it.
//!
//! The decoder believes two claims of a file that may be lies, and sets memory aside for both: the
//! length of the EXIF chunk (up to 4 GiB), and the size of the coded frame, which can differ from the
//! size of the picture. This walk over the chunks checks the second and reads the orientation itself.

use std::io::{self, BufRead, ErrorKind, Read, Seek};

use image::metadata::Orientation;

use crate::types::ThumbnailSize;

/// What a walk over the chunks has found.
#[derive(Debug, PartialEq)]
pub(super) struct Survey {
    /// How the picture is to be turned.
    pub(super) orientation: Orientation,
    /// The largest coded frame among those that a decoder of the first picture may read.
    pub(super) largest_frame: Option<ThumbnailSize>,
}

/// The longest EXIF block that is looked at; real ones hold a small preview at most.
const MAX_EXIF_BYTES: u64 = 64 * 1024;

/// The header of the file, before the first chunk.
const START_LENGTH: usize = 12;

/// The fields of an animation frame before its own chunks.
const FRAME_FIELDS_LENGTH: i64 = 16;

struct Chunk {
    name: [u8; 4],
    length: u32,
    /// Where the next one starts.
    end: u64,
}

/// Walks over the chunks of a WebP file from its first byte.
///
/// # Errors
///
/// When the file cannot be read. A file that ends early is no error.
pub(super) fn survey(reader: &mut (impl BufRead + Seek)) -> io::Result<Survey> {
    let mut found = Survey { orientation: Orientation::NoTransforms, largest_frame: None };
    match walk(reader, &mut found) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(found),
        outcome => outcome.map(|()| found),
    }
}

fn walk(reader: &mut (impl BufRead + Seek), found: &mut Survey) -> io::Result<()> {
    reader.read_exact(&mut [0; START_LENGTH])?;
    let mut seen_exif = false;
    let mut seen_animation_frame = false;
    loop {
        let chunk = read_header(reader)?;
        match &chunk.name {
            b"EXIF" if !seen_exif => {
                seen_exif = true;
                found.orientation = read_orientation(reader, chunk.length)?;
            }
            b"VP8 " => found.note_frame(reader)?,
            b"ANMF" if !seen_animation_frame => {
                seen_animation_frame = true;
                note_animation_frame(reader, found)?;
            }
            _ => (),
        }
        seek_to(reader, chunk.end)?;
    }
}

/// Looks into the first frame of an animation: a picture, or its transparency and then the picture.
fn note_animation_frame(reader: &mut (impl BufRead + Seek), found: &mut Survey) -> io::Result<()> {
    reader.seek_relative(FRAME_FIELDS_LENGTH)?;
    let first = read_header(reader)?;
    match &first.name {
        b"VP8 " => found.note_frame(reader),
        b"ALPH" => {
            seek_to(reader, first.end)?;
            // The decoder takes what follows for the picture, whatever its name.
            read_header(reader)?;
            found.note_frame(reader)
        }
        _ => Ok(()),
    }
}

impl Survey {
    /// Notes the size of a lossy frame, which follows its tag and start code (RFC 6386, section 9.1).
    fn note_frame(&mut self, reader: &mut impl BufRead) -> io::Result<()> {
        const SIDE_BITS: u16 = 0x3fff;
        let mut header = [0; 10];
        reader.read_exact(&mut header)?;
        let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & SIDE_BITS);
        let [.., w0, w1, h0, h1] = header;
        let known = self.largest_frame.unwrap_or(ThumbnailSize { width: 0, height: 0 });
        self.largest_frame = Some(ThumbnailSize {
            width: known.width.max(side(w0, w1)),
            height: known.height.max(side(h0, h1)),
        });
        Ok(())
    }
}

fn read_orientation(reader: &mut impl BufRead, length: u32) -> io::Result<Orientation> {
    let mut block = Vec::new();
    reader.take(u64::from(length).min(MAX_EXIF_BYTES)).read_to_end(&mut block)?;
    // Some writers put the prefix here that belongs into JPEG files only.
    let block = block.strip_prefix(b"Exif\0\0").unwrap_or(&block);
    Ok(Orientation::from_exif_chunk(block).unwrap_or(Orientation::NoTransforms))
}

fn read_header(reader: &mut (impl BufRead + Seek)) -> io::Result<Chunk> {
    let mut header = [0; 8];
    reader.read_exact(&mut header)?;
    let [name @ .., l0, l1, l2, l3] = header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    // Chunks start at even positions.
    let end = reader.stream_position()? + u64::from(length) + u64::from(length % 2);
    Ok(Chunk { name, length, end })
}

/// Moves to a position that is most often still inside the reader's buffer, which `seek` would drop.
fn seek_to(reader: &mut impl Seek, position: u64) -> io::Result<()> {
    let here = reader.stream_position()?;
    reader.seek_relative(position.saturating_sub(here).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thumbnail::samples::{exif, riff_chunk as chunk};
    use std::io::Cursor;

    fn frame(width: u16, height: u16) -> Vec<u8> {
        let mut body = b"\0\0\0\x9d\x01\x2a".to_vec();
        body.extend(width.to_le_bytes());
        body.extend(height.to_le_bytes());
        body
    }

    fn survey_of(chunks: &[Vec<u8>]) -> Survey {
        let bytes = [b"RIFF\0\0\0\0WEBP".to_vec(), chunks.concat()].concat();
        survey(&mut Cursor::new(bytes)).expect("memory can be read")
    }

    #[test]
    fn orientation_is_read_with_and_without_the_prefix_of_jpeg() {
        let plain = survey_of(&[chunk(b"VP8X", &[0; 10]), chunk(b"EXIF", &exif(6))]);
        assert_eq!(plain.orientation, Orientation::Rotate90);
        let prefixed = [b"Exif\0\0".to_vec(), exif(8)].concat();
        let prefixed = survey_of(&[chunk(b"XMP ", b"odd"), chunk(b"EXIF", &prefixed)]);
        assert_eq!(prefixed.orientation, Orientation::Rotate270);
    }

    #[test]
    fn the_size_of_a_coded_frame_is_found_wherever_it_hides() {
        let fields = [0; 16];
        let lossy = chunk(b"VP8 ", &frame(300, 200));
        let plain = survey_of(&[chunk(b"VP8X", &[0; 10]), lossy.clone()]);
        let in_animation = survey_of(&[chunk(b"ANMF", &[&fields[..], &lossy].concat())]);
        let behind_alpha =
            [&fields[..], &chunk(b"ALPH", &[1, 2, 3]), &chunk(b"what", &frame(300, 200))];
        let behind_alpha = survey_of(&[chunk(b"ANMF", &behind_alpha.concat())]);
        let expected = Some(ThumbnailSize { width: 300, height: 200 });
        assert_eq!(plain.largest_frame, expected);
        assert_eq!(in_animation.largest_frame, expected);
        assert_eq!(behind_alpha.largest_frame, expected);
    }

    #[test]
    fn claims_beyond_the_file_cost_nothing() {
        let mut lie = chunk(b"EXIF", &exif(6));
        lie[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(survey_of(&[lie.clone()]).orientation, Orientation::Rotate90);
        lie[..4].copy_from_slice(b"ICCP");
        let found = survey_of(&[lie, chunk(b"VP8 ", &frame(9, 9))]);
        assert_eq!(found.largest_frame, None);
    }
}
