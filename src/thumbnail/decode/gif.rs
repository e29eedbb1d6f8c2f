//! Whether and how a GIF moves, told from its block structure without decoding a pixel.

use std::io::{self, BufRead, ErrorKind, Seek};

/// What the block structure says of an animation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::thumbnail) struct GifSurvey {
    /// How many frames begin before the end, or before what is not understood.
    pub(in crate::thumbnail) frames: u32,
    /// How often they are shown again, if the file says so; 0 is for ever.
    pub(in crate::thumbnail) repeats: Option<u16>,
    /// Whether something was met that is not understood.
    is_odd: bool,
}

/// Returns whether a GIF has more than one frame, reading from its first byte to the second frame.
///
/// A structure that is not understood counts as moving: then the picture is made anew, which is
/// always allowed, where a wrong "no" would show a moving picture to somebody who asked for a still
/// one (CS-TH-15).
///
/// # Errors
///
/// When the file cannot be read. A file that ends early is no error.
pub(super) fn is_animated(reader: &mut (impl BufRead + Seek)) -> io::Result<bool> {
    survey(reader, 2).map(|found| found.frames > 1 || found.is_odd)
}

/// Counts frames up to `most`, reading from the first byte, and looks how often they are repeated.
///
/// # Errors
///
/// When the file cannot be read. A file that ends early is no error.
pub(in crate::thumbnail) fn survey(
    reader: &mut (impl BufRead + Seek),
    most: u32,
) -> io::Result<GifSurvey> {
    let mut found = GifSurvey::default();
    match walk(reader, most, &mut found) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(found),
        outcome => outcome.map(|()| found),
    }
}

fn walk(reader: &mut (impl BufRead + Seek), most: u32, found: &mut GifSurvey) -> io::Result<()> {
    const EXTENSION: u8 = 0x21;
    const IMAGE: u8 = 0x2c;
    const TRAILER: u8 = 0x3b;
    const APPLICATION: u8 = 0xff;

    let [.., flags, _, _] = read_bytes::<13>(reader)?;
    skip_color_table(reader, flags)?;
    while found.frames < most {
        match read_bytes(reader)? {
            [EXTENSION] => {
                let [label] = read_bytes(reader)?;
                if label == APPLICATION {
                    note_repeats(reader, found)?;
                }
            }
            [IMAGE] => {
                found.frames += 1;
                let [.., flags] = read_bytes::<9>(reader)?;
                skip_color_table(reader, flags)?;
                let [_code_size] = read_bytes(reader)?;
            }
            [TRAILER] => return Ok(()),
            _ => {
                found.is_odd = true;
                return Ok(());
            }
        }
        skip_sub_blocks(reader)?;
    }
    Ok(())
}

/// Reads the name of an application, and a number if it is the one that all programs know.
fn note_repeats(reader: &mut (impl BufRead + Seek), found: &mut GifSurvey) -> io::Result<()> {
    let [length] = read_bytes(reader)?;
    if length != 11 {
        // An empty one was the end already; there is nothing to skip but that same end.
        return reader.seek_relative(if length == 0 { -1 } else { length.into() });
    }
    let name = read_bytes::<11>(reader)?;
    if [b"NETSCAPE2.0", b"ANIMEXTS1.0"].contains(&&name)
        && let [3] = peek(reader)?
        && let [_, 1, low, high] = read_bytes(reader)?
    {
        found.repeats = Some(u16::from_le_bytes([low, high]));
    }
    Ok(())
}

/// Returns the next byte without taking it.
fn peek(reader: &mut (impl BufRead + Seek)) -> io::Result<[u8; 1]> {
    let byte = read_bytes(reader)?;
    reader.seek_relative(-1)?;
    Ok(byte)
}

fn read_bytes<const N: usize>(reader: &mut impl BufRead) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Skips a colour table, whose presence and size are in the flags of the block before it.
fn skip_color_table(reader: &mut impl Seek, flags: u8) -> io::Result<()> {
    if flags & 0x80 == 0 {
        return Ok(());
    }
    reader.seek_relative(3 << ((flags & 0x07) + 1))
}

fn skip_sub_blocks(reader: &mut (impl BufRead + Seek)) -> io::Result<()> {
    loop {
        match read_bytes(reader)? {
            [0] => return Ok(()),
            [length] => reader.seek_relative(length.into())?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thumbnail::samples;
    use std::io::Cursor;

    fn moves(bytes: &[u8]) -> bool {
        is_animated(&mut Cursor::new(bytes)).expect("memory can be read")
    }

    #[test]
    fn a_second_frame_makes_it_move() {
        assert!(!moves(&samples::gif(5, 4, 1)));
        assert!(moves(&samples::gif(5, 4, 2)));
        assert!(moves(&samples::gif(5, 4, 9)));
    }

    fn repeats(again: Option<u16>) -> Option<u16> {
        let mut bytes = samples::gif(5, 4, 2);
        if let Some(again) = again {
            let [low, high] = again.to_le_bytes();
            let block = [b"\x21\xff\x0bNETSCAPE2.0\x03\x01", &[low, high, 0][..]].concat();
            bytes = samples::gif_with(bytes, &block);
        }
        survey(&mut Cursor::new(bytes), 9).expect("memory can be read").repeats
    }

    #[test]
    fn repeats_are_what_the_file_says() {
        for said in [None, Some(0), Some(1), Some(u16::MAX)] {
            assert_eq!(repeats(said), said);
        }
    }

    #[test]
    fn odd_applications_do_not_confuse_the_count() {
        let blocks: [&[u8]; 5] = [
            b"\x21\xff\0",
            b"\x21\xff\x02ab\0",
            b"\x21\xff\x0bNETSCAPE2.0\0",
            b"\x21\xff\x0bNETSCAPE2.0\x01\x01\0",
            b"\x21\xff\x0bNETSCAPE2.0\x03\x02\x05\x05\0",
        ];
        for block in blocks {
            let bytes = samples::gif_with(samples::gif(5, 4, 3), block);
            let found = survey(&mut Cursor::new(bytes), 9).expect("memory can be read");
            assert_eq!(found, GifSurvey { frames: 3, ..GifSurvey::default() }, "{block:?}");
        }
    }

    #[test]
    fn what_ends_before_the_second_frame_stands_still() {
        let two_frames = samples::gif(5, 4, 2);
        assert!(!moves(&two_frames[..40]));
        assert!(!moves(b"GIF89a"));
    }

    #[test]
    fn what_is_not_understood_moves() {
        let mut odd = samples::gif(5, 4, 1);
        let trailer = odd.len() - 1;
        odd[trailer] = 0x77;
        assert!(moves(&odd));
    }
}
