//! Whether a GIF moves, told from its block structure without decoding a pixel.

use std::io::{self, BufRead, ErrorKind, Seek};

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
    match has_second_frame(reader) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        outcome => outcome,
    }
}

fn has_second_frame(reader: &mut (impl BufRead + Seek)) -> io::Result<bool> {
    const EXTENSION: u8 = 0x21;
    const IMAGE: u8 = 0x2c;
    const TRAILER: u8 = 0x3b;

    let [.., flags, _, _] = read_bytes::<13>(reader)?;
    skip_color_table(reader, flags)?;
    let mut seen_a_frame = false;
    loop {
        match read_bytes(reader)? {
            [EXTENSION] => {
                let [_label] = read_bytes(reader)?;
            }
            [IMAGE] if seen_a_frame => return Ok(true),
            [IMAGE] => {
                seen_a_frame = true;
                let [.., flags] = read_bytes::<9>(reader)?;
                skip_color_table(reader, flags)?;
                let [_code_size] = read_bytes(reader)?;
            }
            [TRAILER] => return Ok(false),
            _ => return Ok(true),
        }
        skip_sub_blocks(reader)?;
    }
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
