//! What a JPEG file says before its first scan, read by a walk over its marker segments.
//!
//! The decoder is told nothing of the limits and reads neither EXIF nor ICC, so this looks first. What is
//! found here is believed only where it makes a refusal, a turn or a colour; the decoder checks the rest.

use image::metadata::Orientation;

use crate::thumbnail::error::ThumbnailError;
use crate::types::ThumbnailSize;

/// What stands before the first scan.
#[derive(Debug)]
pub(super) struct JpegHeader {
    /// The size as it is stored.
    pub(super) size: ThumbnailSize,
    /// How the picture is to be turned.
    pub(super) orientation: Orientation,
    /// The ICC profile, put together from its parts.
    pub(super) profile: Option<Vec<u8>>,
    /// Whether Adobe's marker is there, which turns the inks of a CMYK picture around.
    pub(super) by_adobe: bool,
    /// The memory for the coefficients of the whole picture, if it comes in more than one scan.
    pub(super) coefficient_bytes: u64,
    /// Where the first scan begins, in bytes from the start of the file.
    pub(super) first_scan: usize,
}

/// The fields of a frame header that matter here (ITU T.81, B.2.2).
struct Frame {
    size: ThumbnailSize,
    components: usize,
    is_progressive: bool,
    coefficient_bytes: u64,
}

/// The longest profile that is put together; those of printing presses reach 2 MiB.
const MAX_PROFILE_BYTES: usize = 4 * 1024 * 1024;

impl JpegHeader {
    /// Reads a file from its first byte to its first scan.
    ///
    /// # Errors
    ///
    /// `Damaged` if it ends before a scan, or a segment makes no sense.
    pub(super) fn parse(file: &[u8]) -> Result<Self, ThumbnailError> {
        let mut orientation = None;
        let mut profile = ProfileParts::default();
        let mut by_adobe = false;
        let mut frame: Option<Frame> = None;
        let mut segments = Segments { rest: file.get(2..).unwrap_or_default() };
        loop {
            let (marker, body) = segments.next()?;
            match marker {
                0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                    let another = frame.replace(Frame::parse(marker, body)?);
                    // Which of two counts is for each decoder to say, so none can be checked.
                    if another.is_some() {
                        return Err(damaged("two frames"));
                    }
                }
                0xda => {
                    let frame = frame.ok_or_else(|| damaged("a scan before its frame"))?;
                    return Ok(Self {
                        size: frame.size,
                        orientation: orientation.unwrap_or(Orientation::NoTransforms),
                        profile: profile.assemble(),
                        by_adobe,
                        coefficient_bytes: frame.held_coefficients(body),
                        first_scan: file.len() - segments.rest.len(),
                    });
                }
                0xe1 if orientation.is_none() => {
                    let exif = body.strip_prefix(b"Exif\0\0");
                    orientation = exif.and_then(Orientation::from_exif_chunk);
                }
                0xe2 => profile.note(body),
                0xee => by_adobe |= body.starts_with(b"Adobe"),
                _ => (),
            }
        }
    }
}

impl Frame {
    fn parse(marker: u8, body: &[u8]) -> Result<Self, ThumbnailError> {
        let [_precision, h1, h0, w1, w0, components, samplings @ ..] = body else {
            return Err(damaged("a frame header that is too short"));
        };
        let [height, width] = [[*h1, *h0], [*w1, *w0]].map(u16::from_be_bytes).map(u32::from);
        let components = usize::from(*components);
        if width == 0 || height == 0 || components == 0 || samplings.len() < 3 * components {
            return Err(damaged("a frame without size or components"));
        }
        let factors = samplings.chunks_exact(3).take(components).map(|component| component[1]);
        let size = ThumbnailSize { width, height };
        let coefficient_bytes = coefficient_bytes(size, factors);
        let is_progressive = matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce);
        Ok(Self { size, components, is_progressive, coefficient_bytes })
    }

    /// Returns what has to be held if the first scan is not the only one.
    fn held_coefficients(&self, first_scan: &[u8]) -> u64 {
        let in_first_scan = first_scan.first().copied().map_or(0, usize::from);
        let is_only_one = !self.is_progressive && in_first_scan >= self.components;
        if is_only_one { 0 } else { self.coefficient_bytes }
    }
}

/// Returns the most memory that the coefficients of a picture of this size may take, whatever its header
/// says: four components, each in full detail.
pub(super) fn most_coefficient_bytes(size: ThumbnailSize) -> u64 {
    coefficient_bytes(size, [0x44; 4].into_iter())
}

/// Returns the memory for all coefficients, two bytes each, in whole units of blocks (ITU T.81, A.2).
fn coefficient_bytes(size: ThumbnailSize, factors: impl Iterator<Item = u8> + Clone) -> u64 {
    const BYTES_PER_BLOCK: u64 = 8 * 8 * 2;
    let factors = factors.map(|factor| (u64::from(factor >> 4), u64::from(factor & 15)));
    let across = factors.clone().map(|factor| factor.0).max().unwrap_or(1).max(1);
    let down = factors.clone().map(|factor| factor.1).max().unwrap_or(1).max(1);
    let blocks_per_unit: u64 = factors.map(|(across, down)| across * down).sum();
    let units =
        u64::from(size.width).div_ceil(8 * across) * u64::from(size.height).div_ceil(8 * down);
    units.saturating_mul(blocks_per_unit * BYTES_PER_BLOCK)
}

/// The marker segments of a file, without what stands between them.
struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Segments<'a> {
    /// Returns the next marker that has a body, and the body.
    fn next(&mut self) -> Result<(u8, &'a [u8]), ThumbnailError> {
        loop {
            let marker = self.next_marker().ok_or_else(|| damaged("no scan"))?;
            match marker {
                // Without a body: padding, restarts and the start.
                0x00 | 0x01 | 0xd0..=0xd8 => continue,
                0xd9 => return Err(damaged("the end before a scan")),
                _ => (),
            }
            let [l1, l0, rest @ ..] = self.rest else {
                return Err(damaged("a segment without length"));
            };
            let length = usize::from(u16::from_be_bytes([*l1, *l0])).checked_sub(2);
            let length =
                length.ok_or_else(|| damaged("a segment shorter than its length field"))?;
            let (body, rest) = rest.split_at_checked(length).ok_or_else(|| damaged("no scan"))?;
            self.rest = rest;
            return Ok((marker, body));
        }
    }

    /// Returns the byte behind the next run of 0xFF.
    fn next_marker(&mut self) -> Option<u8> {
        let start = memchr::memchr(0xff, self.rest)?;
        let rest = &self.rest[start..];
        let end = rest.iter().position(|byte| *byte != 0xff)?;
        self.rest = &rest[end + 1..];
        Some(rest[end])
    }
}

/// The parts of a profile, which is spread over segments of 64 KiB (ICC.1, B.4).
#[derive(Default)]
struct ProfileParts<'a> {
    /// Number and body, in the order of the file.
    parts: Vec<(u8, &'a [u8])>,
    /// How many there should be.
    count: u8,
}

impl<'a> ProfileParts<'a> {
    fn note(&mut self, body: &'a [u8]) {
        if let Some([number, count, part @ ..]) = body.strip_prefix(b"ICC_PROFILE\0")
            && self.parts.len() < usize::from(u8::MAX)
        {
            self.parts.push((*number, part));
            self.count = *count;
        }
    }

    /// Returns the whole, if each part is there once.
    fn assemble(mut self) -> Option<Vec<u8>> {
        self.parts.sort_by_key(|part| part.0);
        let is_complete = self.parts.len() == usize::from(self.count)
            && self.parts.iter().zip(1..).all(|(part, number)| usize::from(part.0) == number);
        let length: usize = self.parts.iter().map(|part| part.1.len()).sum();
        let usable = is_complete && (1..=MAX_PROFILE_BYTES).contains(&length);
        usable.then(|| self.parts.into_iter().flat_map(|part| part.1).copied().collect())
    }
}

fn damaged(what: &str) -> ThumbnailError {
    ThumbnailError::Damaged(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(marker: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len() + 2).expect("short").to_be_bytes();
        [&[0xff, marker], &length[..], body].concat()
    }

    /// A frame header of 40x24 pixels with the given sampling factors.
    fn frame(marker: u8, factors: &[u8]) -> Vec<u8> {
        let mut body = vec![8, 0, 24, 0, 40, factors.len() as u8];
        for factor in factors {
            body.extend([1, *factor, 0]);
        }
        segment(marker, &body)
    }

    fn parse(segments: &[Vec<u8>]) -> Result<JpegHeader, ThumbnailError> {
        JpegHeader::parse(&[b"\xff\xd8".to_vec(), segments.concat()].concat())
    }

    #[test]
    fn what_is_no_header_is_damaged() {
        let scan = segment(0xda, &[1]);
        for broken in [
            &[][..],
            &[vec![0xff, 0xe1, 0, 0]],
            &[vec![0xff, 0xe1, 0]],
            &[vec![0xff, 0xe1, 0, 9, 1]],
            std::slice::from_ref(&scan),
            &[frame(0xc0, &[0x11])],
            &[frame(0xc0, &[]), scan.clone()],
            &[segment(0xc0, &[8, 0, 0, 0, 40, 1, 1, 0x11, 0]), scan.clone()],
            &[segment(0xc0, &[8, 0, 24, 0, 0, 1, 1, 0x11, 0]), scan.clone()],
            &[segment(0xc0, &[8, 0, 24]), scan.clone()],
            &[vec![0xff, 0xd9], frame(0xc0, &[0x11]), scan.clone()],
            &[frame(0xc0, &[0x11]), frame(0xc2, &[0x11]), scan.clone()],
        ] {
            let outcome = parse(broken);
            assert!(matches!(outcome, Err(ThumbnailError::Damaged(_))), "{broken:?} {outcome:?}");
        }
    }

    #[test]
    fn only_pictures_of_several_scans_hold_coefficients() {
        let of = |marker, factors: &[u8], in_first_scan| {
            let scan = segment(0xda, &[in_first_scan]);
            parse(&[frame(marker, factors), scan]).expect("a header").coefficient_bytes
        };
        assert_eq!(of(0xc0, &[0x22, 0x11, 0x11], 3), 0);
        // Three units across and two down, each of four blocks of luma and two of chroma.
        assert_eq!(of(0xc0, &[0x22, 0x11, 0x11], 1), 6 * 6 * 128);
        assert_eq!(of(0xc2, &[0x22, 0x11, 0x11], 3), 6 * 6 * 128);
        assert_eq!(of(0xc2, &[0x11], 1), 15 * 128);
    }

    #[test]
    fn a_profile_needs_all_its_parts() {
        let part = |number, count, text: &[u8]| {
            segment(0xe2, &[b"ICC_PROFILE\0", &[number, count][..], text].concat())
        };
        let profile_of = |parts: &[Vec<u8>]| {
            let rest = [frame(0xc0, &[0x11]), segment(0xda, &[1])];
            parse(&[parts, &rest].concat()).expect("a header").profile
        };
        let mixed = [part(2, 2, b"file"), segment(0xe2, b"MPF\0"), part(1, 2, b"pro")];
        assert_eq!(profile_of(&mixed).as_deref(), Some(&b"profile"[..]));
        assert_eq!(profile_of(&[part(1, 2, b"pro")]), None);
        assert_eq!(profile_of(&[part(1, 2, b"pro"), part(1, 2, b"pro")]), None);
        assert_eq!(profile_of(&[part(0, 1, b"pro")]), None);
        assert_eq!(profile_of(&[]), None);
    }

    #[test]
    fn fill_bytes_and_rubbish_between_segments_are_skipped() {
        let found = parse(&[
            b"rubbish\xff\xff\xff".to_vec(),
            segment(0xee, b"Adobe\0")[1..].to_vec(),
            vec![0xff, 0x00, 0xff, 0xd3],
            frame(0xc1, &[0x11]),
            segment(0xda, &[1]),
        ]);
        let found = found.expect("a header");
        assert!(found.by_adobe);
        assert_eq!((found.size.width, found.size.height), (40, 24));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_damaged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let outcome = JpegHeader::parse(&bytes);
            prop_assert!(!matches!(outcome, Err(ref error) if !matches!(error, ThumbnailError::Damaged(_))));
        }

        #[test]
        fn any_sizes_and_factors_are_counted_without_overflow(
            width: u16, height: u16, factors in proptest::collection::vec(any::<u8>(), 0..255),
        ) {
            let size = ThumbnailSize { width: width.into(), height: height.into() };
            let bytes = coefficient_bytes(size, factors.iter().copied());
            prop_assert!(bytes.is_multiple_of(128));
        }
    }
}
