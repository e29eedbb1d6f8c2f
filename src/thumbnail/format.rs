//! What a file is, judged by its first bytes and by nothing else (threats IM-06).

mod isobmff;
mod svg;

/// What thumbnails can be made of; whatever else a file may be, no decoder sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    /// With APNG, which begins alike.
    Png,
    Gif,
    WebP,
    Avif,
    /// HEIC and its relatives.
    Heif,
    JpegXl,
    /// Without BigTIFF.
    Tiff,
    Bmp,
    /// Icons, not cursors.
    Ico,
    Qoi,
    Svg,
    Video(Video),
    Audio(Audio),
}

/// The containers of videos that a frame is taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Video {
    /// MP4, `QuickTime`, 3GPP.
    Mp4,
    /// Matroska and `WebM`.
    Matroska,
}

/// The kinds of audio files that a cover is taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audio {
    Mp3,
    Flac,
    Ogg,
    /// MPEG-4 audio: M4A and M4B.
    M4a,
}

impl Format {
    /// How many bytes at the start of a file are looked at, at most: more of them change no verdict.
    pub(super) const LOOKED_AT: usize = 4096;

    /// Returns the format that a file's first bytes belong to; `start` is [`LOOKED_AT`](Self::LOOKED_AT)
    /// of them, or the whole file.
    pub(super) fn detect(start: &[u8]) -> Option<Self> {
        let start = &start[..start.len().min(Self::LOOKED_AT)];
        Self::by_signature(start)
            .or_else(|| isobmff::detect(start))
            .or_else(|| Self::by_fields(start))
            .or_else(|| svg::is_svg(start).then_some(Self::Svg))
    }

    /// Those whose first bytes are no accident.
    fn by_signature(start: &[u8]) -> Option<Self> {
        const SIGNATURES: [(&[u8], Format); 12] = [
            (b"\xff\xd8\xff", Format::Jpeg),
            (b"\x89PNG\r\n\x1a\n", Format::Png),
            (b"GIF87a", Format::Gif),
            (b"GIF89a", Format::Gif),
            (b"\xff\x0a", Format::JpegXl),
            (b"\0\0\0\x0cJXL \r\n\x87\n", Format::JpegXl),
            (b"II*\0", Format::Tiff),
            (b"MM\0*", Format::Tiff),
            (b"fLaC", Format::Audio(Audio::Flac)),
            (b"OggS\0", Format::Audio(Audio::Ogg)),
            (b"ID3\x03", Format::Audio(Audio::Mp3)),
            (b"ID3\x04", Format::Audio(Audio::Mp3)),
        ];
        let known = SIGNATURES.into_iter().find(|(signature, _)| start.starts_with(signature));
        let is_webp = start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WEBP");
        known.map(|(_, format)| format).or(is_webp.then_some(Self::WebP))
    }

    /// Those whose first bytes say too little alone: the fields behind them have to make sense, too.
    fn by_fields(start: &[u8]) -> Option<Self> {
        if is_bmp(start) {
            Some(Self::Bmp)
        } else if is_ico(start) {
            Some(Self::Ico)
        } else if is_qoi(start) {
            Some(Self::Qoi)
        } else if is_matroska(start) {
            Some(Self::Video(Video::Matroska))
        } else if is_mpeg_audio(start) {
            Some(Self::Audio(Audio::Mp3))
        } else {
            None
        }
    }

    /// Returns whether a file of this format may be sent as a thumbnail as it is: the others are of
    /// types that thumbnails must not have (CS-HDR-07), and are always made anew.
    pub(super) fn may_be_sent(self) -> bool {
        matches!(self, Self::Jpeg | Self::Png | Self::Gif | Self::WebP)
    }

    /// Returns the media type of such a file.
    pub(super) fn content_type(self, animated: bool) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png if animated => "image/apng",
            Self::Png => "image/png",
            Self::Gif => "image/gif",
            Self::WebP => "image/webp",
            Self::Avif => "image/avif",
            Self::Heif => "image/heif",
            Self::JpegXl => "image/jxl",
            Self::Tiff => "image/tiff",
            Self::Bmp => "image/bmp",
            Self::Ico => "image/vnd.microsoft.icon",
            Self::Qoi => "image/qoi",
            Self::Svg => "image/svg+xml",
            Self::Video(Video::Mp4) => "video/mp4",
            Self::Video(Video::Matroska) => "video/x-matroska",
            Self::Audio(Audio::Mp3) => "audio/mpeg",
            Self::Audio(Audio::Flac) => "audio/flac",
            Self::Audio(Audio::Ogg) => "audio/ogg",
            Self::Audio(Audio::M4a) => "audio/mp4",
        }
    }
}

/// Whether a file begins like one that thumbnails are made of. Says nothing of the rest, nor whether
/// the program is installed that some kinds (video, HEIC) need.
pub fn is_supported(start: &[u8]) -> bool {
    Format::detect(start).is_some()
}

/// The file header, then an information header of one of the known lengths.
fn is_bmp(start: &[u8]) -> bool {
    const HEADER_LENGTHS: [u32; 6] = [12, 40, 52, 56, 108, 124];
    start.starts_with(b"BM")
        && u32_le(start, 14).is_some_and(|length| HEADER_LENGTHS.contains(&length))
}

/// A directory with at least one entry, whose picture lies behind the directory.
fn is_ico(start: &[u8]) -> bool {
    const HEADER_LENGTH: u32 = 6;
    const ENTRY_LENGTH: u32 = 16;
    let Some(&[0, 0, 1, 0, low, high]) = start.first_chunk() else { return false };
    let entries = u32::from(u16::from_le_bytes([low, high]));
    let directory_end = HEADER_LENGTH + ENTRY_LENGTH * entries;
    entries > 0 && u32_le(start, 18).is_some_and(|offset| offset >= directory_end)
}

/// Three or four channels, one of two colour spaces.
fn is_qoi(start: &[u8]) -> bool {
    start.starts_with(b"qoif") && matches!(start.get(12..14), Some([3 | 4, 0 | 1]))
}

/// An EBML header that says that its content is one of the two (RFC 8794, section 11.2).
fn is_matroska(start: &[u8]) -> bool {
    /// Where the type of the document is found, at the latest.
    const HEADER_LENGTH: usize = 128;
    let header = &start[..start.len().min(HEADER_LENGTH)];
    let says = |doc_type: &[u8]| header.windows(doc_type.len()).any(|part| part == doc_type);
    header.starts_with(b"\x1a\x45\xdf\xa3")
        && (says(b"\x42\x82\x84webm") || says(b"\x42\x82\x88matroska"))
}

/// A frame header of layer III without reserved values.
fn is_mpeg_audio(start: &[u8]) -> bool {
    let Some(&[sync, kind, rates]) = start.first_chunk() else { return false };
    let (version, layer) = (kind >> 3 & 0b11, kind >> 1 & 0b11);
    let (bit_rate, sample_rate) = (rates >> 4, rates >> 2 & 0b11);
    sync == 0xff
        && kind >> 5 == 0b111
        && version != 0b01
        && layer == 0b01
        && !matches!(bit_rate, 0 | 0b1111)
        && sample_rate != 0b11
}

fn u32_le(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|four| u32::from_le_bytes(*four))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn icon(kind: u8, entries: u16, offset: u32) -> Vec<u8> {
        let mut bytes = vec![0, 0, kind, 0];
        bytes.extend(entries.to_le_bytes());
        bytes.extend([32, 32, 0, 0, 1, 0, 32, 0, 99, 0, 0, 0]);
        bytes.extend(offset.to_le_bytes());
        bytes
    }

    #[test]
    fn nothing_else_is_known() {
        let cursor = icon(2, 1, 22);
        let no_icon = icon(1, 0, 22);
        let inside_the_directory = icon(1, 2, 22);
        for other in [
            &b""[..],
            b"BM",
            b"BM\0\0\0\0\0\0\0\0\0\0\0\0\x29\0\0\0",
            b"II+\0\x08\0\0\0",
            b"\0\0\x01\0",
            &cursor,
            &no_icon,
            &inside_the_directory,
            b"%!PS",
            b"8BPS",
            b"#EXTM3U",
            b"GIF88a",
            b"RIFF\0\0\0\0WAVE",
            b"RIFF\0\0\0\0",
            b" \x89PNG\r\n\x1a\n",
            b"qoif\0\0\0\x01\0\0\0\x01\x05\0",
            b"\x1a\x45\xdf\xa3\x93\x42\x82\x88whatever",
            b"\xff\xf1\x50\x80",
            b"\xff\xff\xff\xff",
            b"ID3\x07",
            b"\x1f\x8b\x08",
        ] {
            assert_eq!(Format::detect(other), None, "{other:?}");
        }
    }

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        let bmp = [&b"BM"[..], &[0; 12], &[40, 0, 0, 0]].concat();
        for (start, format) in [
            (&b"\xff\xd8\xff\xe0"[..], Format::Jpeg),
            (b"\x89PNG\r\n\x1a\n", Format::Png),
            (b"GIF89a", Format::Gif),
            (b"RIFF\0\0\0\0WEBP", Format::WebP),
            (b"\xff\x0a\xfa", Format::JpegXl),
            (b"\0\0\0\x0cJXL \r\n\x87\n", Format::JpegXl),
            (b"II*\0\x08\0\0\0", Format::Tiff),
            (b"MM\0*\0\0\0\x08", Format::Tiff),
            (&bmp, Format::Bmp),
            (&icon(1, 1, 22), Format::Ico),
            (b"qoif\0\0\0\x01\0\0\0\x01\x04\0", Format::Qoi),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Format::Svg),
            (b"\0\0\0\x14ftypavif\0\0\0\0mif1", Format::Avif),
            (b"\x1a\x45\xdf\xa3\x93\x42\x82\x84webm", Format::Video(Video::Matroska)),
            (b"\xff\xfb\x90\x64", Format::Audio(Audio::Mp3)),
            (b"ID3\x04", Format::Audio(Audio::Mp3)),
            (b"fLaC\0\0\0\x22", Format::Audio(Audio::Flac)),
            (b"OggS\0\x02", Format::Audio(Audio::Ogg)),
        ] {
            assert_eq!(Format::detect(start), Some(format), "{start:?}");
        }
    }

    /// CS-HDR-07
    #[test]
    fn only_what_thumbnails_may_be_is_sent_as_it_is() {
        let allowed = ["image/jpeg", "image/png", "image/apng", "image/gif", "image/webp"];
        for format in [
            Format::Jpeg,
            Format::Png,
            Format::Gif,
            Format::WebP,
            Format::Avif,
            Format::Heif,
            Format::JpegXl,
            Format::Tiff,
            Format::Bmp,
            Format::Ico,
            Format::Qoi,
            Format::Svg,
            Format::Video(Video::Mp4),
            Format::Video(Video::Matroska),
            Format::Audio(Audio::M4a),
        ] {
            let types = [format.content_type(false), format.content_type(true)];
            let is_allowed = types.iter().all(|content_type| allowed.contains(content_type));
            assert_eq!(format.may_be_sent(), is_allowed, "{format:?}");
        }
    }

    proptest! {
        #[test]
        fn detection_never_panics(start in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Format::detect(&start);
        }
    }
}
