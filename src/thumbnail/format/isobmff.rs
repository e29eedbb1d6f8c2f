//! Files of the ISO base media file format: pictures, videos and audio, told apart by their brands.

use super::{Audio, Format, Video};

/// Each brand and what such a file is (ISO/IEC 14496-12, MP4 registration authority).
const BRANDS: [(&[u8; 4], Format); 44] = [
    (b"avif", Format::Avif),
    (b"avis", Format::Avif),
    (b"heic", Format::Heif),
    (b"heix", Format::Heif),
    (b"heim", Format::Heif),
    (b"heis", Format::Heif),
    (b"hevc", Format::Heif),
    (b"hevx", Format::Heif),
    (b"mif1", Format::Heif),
    (b"msf1", Format::Heif),
    (b"M4A ", Format::Audio(Audio::M4a)),
    (b"M4B ", Format::Audio(Audio::M4a)),
    (b"isom", Format::Video(Video::Mp4)),
    (b"iso2", Format::Video(Video::Mp4)),
    (b"iso3", Format::Video(Video::Mp4)),
    (b"iso4", Format::Video(Video::Mp4)),
    (b"iso5", Format::Video(Video::Mp4)),
    (b"iso6", Format::Video(Video::Mp4)),
    (b"iso7", Format::Video(Video::Mp4)),
    (b"iso8", Format::Video(Video::Mp4)),
    (b"iso9", Format::Video(Video::Mp4)),
    (b"mp41", Format::Video(Video::Mp4)),
    (b"mp42", Format::Video(Video::Mp4)),
    (b"avc1", Format::Video(Video::Mp4)),
    (b"hvc1", Format::Video(Video::Mp4)),
    (b"av01", Format::Video(Video::Mp4)),
    (b"qt  ", Format::Video(Video::Mp4)),
    (b"M4V ", Format::Video(Video::Mp4)),
    (b"M4VH", Format::Video(Video::Mp4)),
    (b"M4VP", Format::Video(Video::Mp4)),
    (b"MSNV", Format::Video(Video::Mp4)),
    (b"XAVC", Format::Video(Video::Mp4)),
    (b"f4v ", Format::Video(Video::Mp4)),
    (b"dash", Format::Video(Video::Mp4)),
    (b"cmfc", Format::Video(Video::Mp4)),
    (b"cmf2", Format::Video(Video::Mp4)),
    (b"3gp4", Format::Video(Video::Mp4)),
    (b"3gp5", Format::Video(Video::Mp4)),
    (b"3gp6", Format::Video(Video::Mp4)),
    (b"3gp7", Format::Video(Video::Mp4)),
    (b"3gp8", Format::Video(Video::Mp4)),
    (b"3gp9", Format::Video(Video::Mp4)),
    (b"3g2a", Format::Video(Video::Mp4)),
    (b"3g2b", Format::Video(Video::Mp4)),
];

/// Brands that say how a file is laid out rather than what is in it.
const STRUCTURAL: [&[u8; 4]; 2] = [b"mif1", b"msf1"];

/// Tells the format by the major brand, or by the first known compatible one where that is unknown.
///
/// Of a file of pictures whose major brand leaves open how they are coded, AVIF is believed first.
pub(super) fn detect(start: &[u8]) -> Option<Format> {
    let mut brands = brands(start)?;
    let major = brands.next()?;
    let known = |brand: &[u8; 4]| {
        BRANDS.iter().find(|(known, _)| *known == brand).map(|(_, format)| *format)
    };
    if !STRUCTURAL.contains(&&major) {
        return known(&major).or_else(|| brands.find_map(|brand| known(&brand)));
    }
    let is_avif = brands.any(|brand| known(&brand) == Some(Format::Avif));
    Some(if is_avif { Format::Avif } else { Format::Heif })
}

/// Returns the major brand and then the compatible ones, as far as they are in `start`.
fn brands(start: &[u8]) -> Option<impl Iterator<Item = [u8; 4]>> {
    /// Length, name, major brand and its version.
    const FIXED_LENGTH: usize = 16;
    let length = usize::try_from(u32::from_be_bytes(*start.first_chunk()?)).ok()?;
    if start.get(4..8)? != b"ftyp" || length < FIXED_LENGTH || length % 4 != 0 {
        return None;
    }
    let major = *start.get(8..)?.first_chunk()?;
    let compatible = start.get(FIXED_LENGTH..length.min(start.len())).unwrap_or_default();
    let compatible = compatible.chunks_exact(4).filter_map(|brand| brand.try_into().ok());
    Some(std::iter::once(major).chain(compatible.collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ftyp(major: &[u8; 4], compatible: &[&[u8; 4]]) -> Vec<u8> {
        let length = 16 + 4 * compatible.len() as u32;
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(b"ftyp");
        bytes.extend(major);
        bytes.extend([0; 4]);
        bytes.extend(compatible.iter().copied().flatten());
        bytes
    }

    #[test]
    fn unknown_brands_are_nothing() {
        assert_eq!(detect(&ftyp(b"crx ", &[b"nope"])), None);
        assert_eq!(detect(&ftyp(b"jp2 ", &[])), None);
    }

    #[test]
    fn lengths_that_make_no_sense_are_nothing() {
        for length in [0_u32, 1, 8, 12, 17] {
            let mut bytes = ftyp(b"avif", &[b"mif1"]);
            bytes[..4].copy_from_slice(&length.to_be_bytes());
            assert_eq!(detect(&bytes), None, "{length}");
        }
        let mut endless = ftyp(b"avif", &[]);
        endless[..4].copy_from_slice(&0xffff_fffc_u32.to_be_bytes());
        assert_eq!(detect(&endless), Some(Format::Avif));
    }

    #[test]
    fn the_major_brand_goes_first() {
        assert_eq!(detect(&ftyp(b"avis", &[b"isom", b"msf1"])), Some(Format::Avif));
        assert_eq!(detect(&ftyp(b"heic", &[b"mif1", b"avif"])), Some(Format::Heif));
        assert_eq!(detect(&ftyp(b"qt  ", &[])), Some(Format::Video(Video::Mp4)));
        assert_eq!(detect(&ftyp(b"M4A ", &[b"isom"])), Some(Format::Audio(Audio::M4a)));
        assert_eq!(detect(&ftyp(b"what", &[b"M4A ", b"isom"])), Some(Format::Audio(Audio::M4a)));
    }

    #[test]
    fn pictures_whose_coding_is_left_open_are_told_by_the_others() {
        assert_eq!(detect(&ftyp(b"mif1", &[b"miaf", b"avif"])), Some(Format::Avif));
        assert_eq!(detect(&ftyp(b"msf1", &[b"msf1", b"avis"])), Some(Format::Avif));
        assert_eq!(detect(&ftyp(b"mif1", &[b"heic"])), Some(Format::Heif));
        assert_eq!(detect(&ftyp(b"mif1", &[])), Some(Format::Heif));
    }
}
