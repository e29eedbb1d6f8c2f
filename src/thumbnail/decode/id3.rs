//! The cover in the ID3 tag that an MP3 begins with (<https://id3.org/id3v2.3.0>, `id3v2.4.0-structure`).
//!
//! Read here rather than by a library, since frames may be compressed without a limit and chapters may hold
//! chapters without end: both are passed over.

use std::io::Read;

/// The most bytes of a tag that are read; what is behind them is not looked at.
const MAX_TAG_BYTES: u64 = 17 * 1024 * 1024;

const HEADER_LENGTH: usize = 10;

/// How a picture is marked that is the front cover.
const FRONT_COVER: u8 = 3;

/// Returns the front cover of a tag, or whatever picture comes first in it.
///
/// # Errors
///
/// When the file cannot be read. What is no tag, or ends early, has no cover.
pub(super) fn cover(reader: &mut impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut header = Vec::new();
    reader.take(HEADER_LENGTH as u64).read_to_end(&mut header)?;
    let [b'I', b'D', b'3', version @ 3..=4, _, flags, size @ ..] = &header[..] else {
        return Ok(None);
    };
    let Some(length) = size.first_chunk().and_then(|size| synchsafe(*size)) else {
        return Ok(None);
    };
    let mut body = Vec::new();
    reader.take(u64::from(length).min(MAX_TAG_BYTES)).read_to_end(&mut body)?;
    Ok(Tag { version: *version, flags: *flags }.cover(body))
}

struct Tag {
    version: u8,
    flags: u8,
}

/// A frame as it is stored.
struct Frame<'t> {
    name: [u8; 4],
    flags: u8,
    body: &'t [u8],
}

impl Tag {
    fn cover(&self, mut body: Vec<u8>) -> Option<Vec<u8>> {
        const UNSYNCHRONISED: u8 = 0x80;
        // Newer tags say so of each frame.
        if self.version == 3 && self.flags & UNSYNCHRONISED != 0 {
            body = synchronised(&body);
        }
        let mut rest = self.behind_extended_header(&body)?;
        let mut first = None;
        while let Some((frame, behind)) = self.next_frame(rest) {
            rest = behind;
            if &frame.name != b"APIC" {
                continue;
            }
            let Some(picture) = self.content(&frame).and_then(picture) else { continue };
            if picture.0 == FRONT_COVER {
                return Some(picture.1);
            }
            first.get_or_insert(picture.1);
        }
        first
    }

    fn behind_extended_header<'t>(&self, body: &'t [u8]) -> Option<&'t [u8]> {
        const EXTENDED: u8 = 0x40;
        if self.flags & EXTENDED == 0 {
            return Some(body);
        }
        let size = *body.first_chunk()?;
        // Only the newer one counts its own field.
        let length = match self.version {
            3 => u32::from_be_bytes(size).checked_add(4)?,
            _ => synchsafe(size)?,
        };
        body.get(length as usize..)
    }

    /// Returns a frame and what is behind it; nothing at the padding, or where the tag was cut off.
    fn next_frame<'t>(&self, rest: &'t [u8]) -> Option<(Frame<'t>, &'t [u8])> {
        let ([n0, n1, n2, n3, size @ .., _, flags], body) =
            rest.split_first_chunk::<HEADER_LENGTH>()?;
        let name = [*n0, *n1, *n2, *n3];
        let plain = u32::from_be_bytes(*size) as usize;
        let length = match synchsafe(*size).map(|size| size as usize) {
            // Well-known programs have written plain numbers into newer tags, too.
            Some(length) if self.version > 3 && is_end_or_frame(body.get(length..)) => length,
            _ => plain,
        };
        let (body, rest) = body.split_at_checked(length)?;
        is_name(&name).then_some((Frame { name, flags: *flags, body }, rest))
    }

    /// Returns what is in a frame, unless it is compressed or encrypted.
    fn content<'t>(&self, frame: &Frame<'t>) -> Option<std::borrow::Cow<'t, [u8]>> {
        // (compressed or encrypted, in a group, unsynchronised, with another length before it)
        let (closed, grouped, unsynchronised, with_length) =
            if self.version == 3 { (0xc0, 0x20, 0, 0) } else { (0x0c, 0x40, 0x02, 0x01) };
        let has = |flag: u8| frame.flags & flag != 0;
        if has(closed) {
            return None;
        }
        let before = usize::from(has(grouped)) + if has(with_length) { 4 } else { 0 };
        let body = frame.body.get(before..)?;
        Some(if has(unsynchronised) { synchronised(body).into() } else { body.into() })
    }
}

/// Returns the kind and the file of an attached picture: behind its type and its description.
fn picture(content: std::borrow::Cow<'_, [u8]>) -> Option<(u8, Vec<u8>)> {
    let (&encoding, rest) = content.split_first()?;
    let type_end = rest.iter().position(|byte| *byte == 0)?;
    let (&kind, rest) = rest.get(type_end + 1..)?.split_first()?;
    let is_wide = matches!(encoding, 1 | 2);
    let file = if is_wide {
        let end = rest.chunks_exact(2).position(|unit| unit == [0, 0])?;
        rest.get(2 * end + 2..)?
    } else {
        let end = rest.iter().position(|byte| *byte == 0)?;
        rest.get(end + 1..)?
    };
    Some((kind, file.to_vec()))
}

/// Takes out the zeros that keep a tag from looking like sound.
fn synchronised(bytes: &[u8]) -> Vec<u8> {
    let mut before = 0;
    let is_kept = |byte: &u8| !(std::mem::replace(&mut before, *byte) == 0xff && *byte == 0);
    bytes.iter().copied().filter(is_kept).collect()
}

/// Reads a number of seven bits a byte.
fn synchsafe(bytes: [u8; 4]) -> Option<u32> {
    let is_safe = bytes.iter().all(|byte| *byte < 0x80);
    is_safe.then(|| bytes.iter().fold(0, |number, byte| number << 7 | u32::from(*byte)))
}

fn is_name(name: &[u8; 4]) -> bool {
    name.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// Whether a frame that ends here makes sense.
fn is_end_or_frame(rest: Option<&[u8]>) -> bool {
    rest.is_some_and(|rest| match rest.first_chunk() {
        Some(name) => is_name(name) || *name == [0; 4],
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn safe(length: usize) -> [u8; 4] {
        [21, 14, 7, 0].map(|shift| (length >> shift) as u8 & 0x7f)
    }

    fn tag(version: u8, flags: u8, body: &[u8]) -> Vec<u8> {
        [&[b'I', b'D', b'3', version, 0, flags][..], &safe(body.len()), body].concat()
    }

    fn frame(version: u8, name: &[u8; 4], flags: u8, body: &[u8]) -> Vec<u8> {
        let size = if version == 3 { (body.len() as u32).to_be_bytes() } else { safe(body.len()) };
        [&name[..], &size, &[0, flags], body].concat()
    }

    fn attached(kind: u8, file: &[u8]) -> Vec<u8> {
        [b"\0image/png\0", &[kind][..], b"back\0", file].concat()
    }

    fn cover_of(tag: &[u8]) -> Option<Vec<u8>> {
        cover(&mut &tag[..]).expect("bytes can be read")
    }

    #[test]
    fn the_front_cover_is_preferred_and_others_are_taken() {
        for version in [3, 4] {
            let other = frame(version, b"APIC", 0, &attached(4, &[7; 200]));
            let front = frame(version, b"APIC", 0, &attached(FRONT_COVER, &[9; 300]));
            let title = frame(version, b"TIT2", 0, b"\0song");
            let both = tag(version, 0, &[title, other.clone(), front, vec![0; 20]].concat());
            assert_eq!(cover_of(&both), Some(vec![9; 300]));
            assert_eq!(cover_of(&tag(version, 0, &other)), Some(vec![7; 200]));
        }
    }

    #[test]
    fn what_is_within_chapters_compressed_or_encrypted_is_passed_over() {
        for (version, flags) in [(3, 0x80), (3, 0x40), (4, 0x08), (4, 0x04)] {
            let closed = frame(version, b"APIC", flags, &attached(FRONT_COVER, b"file"));
            assert_eq!(cover_of(&tag(version, 0, &closed)), None, "{version} {flags}");
        }
        let mut nested = frame(4, b"APIC", 0, &attached(FRONT_COVER, b"file"));
        for _ in 0..10_000 {
            nested = frame(4, b"CHAP", 0, &[b"\0", &[0; 16][..], &nested].concat());
        }
        assert_eq!(cover_of(&tag(4, 0, &nested)), None);
    }

    #[test]
    fn wide_descriptions_stuffing_groups_and_plain_sizes_are_understood() {
        let wide = [&b"\x01image/png\0\x03\xff\xfeb\0\0\0"[..], b"file"].concat();
        assert_eq!(
            cover_of(&tag(3, 0, &frame(3, b"APIC", 0, &wide))).as_deref(),
            Some(&b"file"[..])
        );
        let stuffed = attached(FRONT_COVER, b"\xff\0\xd8");
        let whole = Some(&b"\xff\xd8"[..]);
        let length = attached(FRONT_COVER, b"\xff\xd8").len();
        let header = [&b"APIC"[..], &(length as u32).to_be_bytes(), &[0, 0]].concat();
        assert_eq!(cover_of(&tag(3, 0x80, &[header, stuffed.clone()].concat())).as_deref(), whole);
        assert_eq!(cover_of(&tag(4, 0, &frame(4, b"APIC", 2, &stuffed))).as_deref(), whole);
        let grouped = [b"\x01", &attached(FRONT_COVER, b"file")[..]].concat();
        assert!(cover_of(&tag(3, 0, &frame(3, b"APIC", 0x20, &grouped))).is_some());
        let plain = [frame(3, b"APIC", 0, &attached(FRONT_COVER, &[1; 300])), vec![0; 20]].concat();
        assert_eq!(cover_of(&tag(4, 0, &plain)), Some(vec![1; 300]));
        let extended = [&6_u32.to_be_bytes()[..], &[0; 6], &plain].concat();
        assert_eq!(cover_of(&tag(3, 0x40, &extended)), Some(vec![1; 300]));
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_cover_within_them_or_none(
            version in 3_u8..=4, flags: u8, body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let whole = tag(version, flags, &[b"APIC", &body[..]].concat());
            prop_assert!(cover_of(&whole).is_none_or(|cover| cover.len() < whole.len()));
        }
    }
}
