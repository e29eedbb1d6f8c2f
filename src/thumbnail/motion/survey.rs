//! What an animation says of itself, read without decoding a pixel.

use std::io::{self, BufRead, BufReader, ErrorKind, Seek};

use super::Film;
use super::frames::PICTURES_HELD;
use super::positioned::Positioned;
use crate::thumbnail::decode::gif::{self, GifSurvey};
use crate::thumbnail::format::Format;
use crate::thumbnail::limits::Limits;
use crate::types::ThumbnailSize;

/// How many frames there are and how often they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Survey {
    /// How many frames can be counted on; counting ends at one more than is allowed.
    pub(super) frames: u32,
    /// How often all of them are shown.
    pub(super) plays: Plays,
}

/// How often an animation is shown from its first to its last frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plays {
    /// Without end.
    Forever,
    /// So many times, at least once.
    Times(u32),
}

impl Survey {
    const STANDS_STILL: Self = Self { frames: 1, plays: Plays::Forever };

    /// Reads what a file says, for as far as it makes sense.
    ///
    /// # Errors
    ///
    /// When the file cannot be read. A file that ends early is no error.
    pub(super) fn of(film: &Film<'_>, limits: &Limits) -> io::Result<Self> {
        let mut reader = BufReader::new(Positioned::new(film));
        let most = limits.max_frames.saturating_add(1);
        match film.format {
            Format::Gif => gif::survey(&mut reader, most).map(Self::of_gif),
            Format::Png => of_png(&mut reader),
            Format::WebP => of_webp(&mut reader, most),
            _ => Ok(Self::STANDS_STILL),
        }
    }

    /// Whether it moves, and all its frames together are no more than allowed (threats IM-03).
    ///
    /// Those that are in memory at once may take no more than a still picture: else there would be none
    /// where there could be that.
    pub(super) fn moves_within(&self, canvas: ThumbnailSize, limits: &Limits) -> bool {
        const BYTES_PER_PIXEL: u64 = 4;
        let pixels = u64::from(canvas.width) * u64::from(canvas.height);
        let all = pixels.saturating_mul(self.frames.into());
        // One more, that is being made smaller.
        let held = pixels.saturating_mul(BYTES_PER_PIXEL * (PICTURES_HELD + 1));
        (2..=limits.max_frames).contains(&self.frames)
            && all <= limits.max_animation_pixels
            && held <= limits.max_decoding_bytes()
    }

    /// The number in a GIF says how often it is shown once more; without one it is shown once.
    fn of_gif(found: GifSurvey) -> Self {
        let plays = match found.repeats {
            None => Plays::Times(1),
            Some(0) => Plays::Forever,
            Some(again) => Plays::Times(u32::from(again) + 1),
        };
        Self { frames: found.frames, plays }
    }
}

impl Plays {
    /// From the number in an APNG or a WebP, where 0 stands for no end.
    fn counted(times: u32) -> Self {
        if times == 0 { Self::Forever } else { Self::Times(times) }
    }
}

/// Looks for the chunk that announces an animation; its count is a claim that the decoder ends at.
fn of_png(reader: &mut (impl BufRead + Seek)) -> io::Result<Survey> {
    match find_png_animation(reader) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Survey::STANDS_STILL),
        outcome => outcome,
    }
}

fn find_png_animation(reader: &mut (impl BufRead + Seek)) -> io::Result<Survey> {
    const CHECKSUM_LENGTH: i64 = 4;
    read::<8>(reader)?;
    loop {
        let [l0, l1, l2, l3, name @ ..] = read::<8>(reader)?;
        match &name {
            b"acTL" => {
                let [f0, f1, f2, f3, p0, p1, p2, p3] = read::<8>(reader)?;
                let frames = u32::from_be_bytes([f0, f1, f2, f3]);
                let plays = Plays::counted(u32::from_be_bytes([p0, p1, p2, p3]));
                return Ok(Survey { frames, plays });
            }
            b"IDAT" => return Ok(Survey::STANDS_STILL),
            _ => {
                let length = u32::from_be_bytes([l0, l1, l2, l3]);
                reader.seek_relative(i64::from(length) + CHECKSUM_LENGTH)?;
            }
        }
    }
}

/// Counts the frames up to the first one whose picture is not as large as the frame says: the decoder would
/// set memory aside for what the picture claims.
fn of_webp(reader: &mut (impl BufRead + Seek), most: u32) -> io::Result<Survey> {
    let mut found = Survey { frames: 0, plays: Plays::Forever };
    match count_webp_frames(reader, most, &mut found) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(found),
        outcome => outcome.map(|()| found),
    }
}

fn count_webp_frames(
    reader: &mut (impl BufRead + Seek),
    most: u32,
    found: &mut Survey,
) -> io::Result<()> {
    read::<12>(reader)?;
    while found.frames < most {
        let chunk = Chunk::read(reader)?;
        match &chunk.name {
            b"ANIM" => {
                let [.., p0, p1] = read::<6>(reader)?;
                found.plays = Plays::counted(u16::from_le_bytes([p0, p1]).into());
            }
            b"ANMF" if is_honest_frame(reader)? => found.frames += 1,
            b"ANMF" => return Ok(()),
            _ => (),
        }
        chunk.skip(reader)?;
    }
    Ok(())
}

/// Whether a lossy picture in a frame has the size of the frame (RFC 6386, section 9.1).
fn is_honest_frame(reader: &mut (impl BufRead + Seek)) -> io::Result<bool> {
    const SIDE_BITS: u16 = 0x3fff;
    let [_, _, _, _, _, _, w0, w1, w2, h0, h1, h2, ..] = read::<16>(reader)?;
    let side = |low, middle, high| u32::from_le_bytes([low, middle, high, 0]) + 1;
    let mut picture = Chunk::read(reader)?;
    if &picture.name == b"ALPH" {
        picture.skip(reader)?;
        // The decoder takes what follows for the picture, whatever its name.
        picture = Chunk { name: *b"VP8 ", ..Chunk::read(reader)? };
    }
    if &picture.name != b"VP8 " {
        return Ok(true);
    }
    let [.., x0, x1, y0, y1] = read::<10>(reader)?;
    let coded = |low, high| u32::from(u16::from_le_bytes([low, high]) & SIDE_BITS);
    Ok((coded(x0, x1), coded(y0, y1)) == (side(w0, w1, w2), side(h0, h1, h2)))
}

/// A chunk of a RIFF file.
struct Chunk {
    name: [u8; 4],
    /// Where the next one starts: at an even place.
    end: u64,
}

impl Chunk {
    fn read(reader: &mut (impl BufRead + Seek)) -> io::Result<Self> {
        let [name @ .., l0, l1, l2, l3] = read::<8>(reader)?;
        let length = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        Ok(Self { name, end: reader.stream_position()? + length + length % 2 })
    }

    /// Moves to a place that is most often still inside the reader's buffer, which `seek` would drop.
    fn skip(&self, reader: &mut impl Seek) -> io::Result<()> {
        let here = reader.stream_position()?;
        reader.seek_relative(self.end.saturating_sub(here).cast_signed())
    }
}

fn read<const N: usize>(reader: &mut impl BufRead) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thumbnail::samples;
    use image::metadata::Orientation;

    fn survey(bytes: &[u8], format: Format) -> Survey {
        survey_under(bytes, format, &Limits::default())
    }

    fn survey_under(bytes: &[u8], format: Format, limits: &Limits) -> Survey {
        let film = Film {
            file: &samples::file(bytes),
            length: bytes.len() as u64,
            format,
            canvas: ThumbnailSize { width: 5, height: 4 },
            orientation: Orientation::NoTransforms,
        };
        Survey::of(&film, limits).expect("a file can be read")
    }

    #[test]
    fn a_webp_frame_that_lies_about_its_size_ends_the_count() {
        let animated = samples::animated_webp(6, 4);
        assert_eq!(survey(&animated, Format::WebP).frames, 2);
        let lie = [&[0; 6][..], &[5, 0, 0, 3, 0, 0], &[100, 0, 0, 0]].concat();
        let picture = samples::riff_chunk(b"VP8 ", b"\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f0123456789");
        let body =
            [&animated[8..], &samples::riff_chunk(b"ANMF", &[lie, picture].concat())].concat();
        assert_eq!(survey(&samples::riff_chunk(b"RIFF", &body), Format::WebP).frames, 2);
    }

    #[test]
    fn counting_ends_one_past_the_limit() {
        let limits = Limits { max_frames: 3, ..Limits::default() };
        let survey = survey_under(&samples::gif(5, 4, 40), Format::Gif, &limits);
        assert_eq!(survey.frames, 4);
        assert!(!survey.moves_within(ThumbnailSize { width: 5, height: 4 }, &limits));
    }

    #[test]
    fn frames_and_pixels_up_to_the_limit_are_allowed() {
        let limits = Limits { max_frames: 3, max_animation_pixels: 60, ..Limits::default() };
        let canvas = ThumbnailSize { width: 5, height: 4 };
        let moves =
            |frames, canvas| Survey { frames, plays: Plays::Forever }.moves_within(canvas, &limits);
        assert!(!moves(0, canvas));
        assert!(!moves(1, canvas));
        assert!(moves(2, canvas));
        assert!(moves(3, canvas));
        assert!(!moves(4, canvas));
        assert!(!moves(3, ThumbnailSize { width: 7, height: 3 }));
        let endless = ThumbnailSize { width: u32::MAX, height: u32::MAX };
        assert!(!moves(3, endless));
    }

    #[test]
    fn frames_that_do_not_fit_into_memory_together_stand_still() {
        let limits = Limits { max_pixels: 1_000_000, ..Limits::default() };
        let survey = Survey { frames: 2, plays: Plays::Forever };
        let moves = |width| survey.moves_within(ThumbnailSize { width, height: 500 }, &limits);
        assert!(moves(500));
        assert!(!moves(1000));
    }

    #[test]
    fn what_ends_early_stands_still() {
        for length in [0, 4, 12, 30, 40] {
            let png = samples::animated_png(5, 4);
            assert_eq!(survey(&png[..length], Format::Png), Survey::STANDS_STILL, "{length}");
            let webp = samples::animated_webp(5, 4);
            assert!(survey(&webp[..length], Format::WebP).frames < 2, "{length}");
            let gif = samples::gif(5, 4, 3);
            assert!(survey(&gif[..length.min(30)], Format::Gif).frames < 2, "{length}");
        }
    }
}
