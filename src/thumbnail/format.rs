//! What a picture is, judged by its first bytes and by nothing else (threats IM-06).

/// The formats that are decoded; whatever else a file may be, no decoder sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    Gif,
    WebP,
}

impl Format {
    /// Returns the format that a file's first bytes belong to.
    pub(super) fn detect(start: &[u8]) -> Option<Self> {
        if start.starts_with(b"\xff\xd8\xff") {
            Some(Self::Jpeg)
        } else if start.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if start.starts_with(b"GIF87a") || start.starts_with(b"GIF89a") {
            Some(Self::Gif)
        } else if start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WEBP") {
            Some(Self::WebP)
        } else {
            None
        }
    }

    /// Returns the media type of such a picture; all of them may be thumbnails (CS-HDR-07).
    pub(super) fn content_type(self, animated: bool) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png if animated => "image/apng",
            Self::Png => "image/png",
            Self::Gif => "image/gif",
            Self::WebP => "image/webp",
        }
    }
}

/// Whether a file begins like a picture that thumbnails are made of. Says nothing of the rest.
pub fn is_picture(start: &[u8]) -> bool {
    Format::detect(start).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_four_formats_are_known() {
        assert_eq!(Format::detect(b"\xff\xd8\xff\xe0"), Some(Format::Jpeg));
        assert_eq!(Format::detect(b"\x89PNG\r\n\x1a\n"), Some(Format::Png));
        assert_eq!(Format::detect(b"GIF89a"), Some(Format::Gif));
        assert_eq!(Format::detect(b"RIFF\0\0\0\0WEBP"), Some(Format::WebP));
        for other in [
            &b""[..],
            b"BM",
            b"II*\0",
            b"MM\0*",
            b"\0\0\x01\0",
            b"<svg",
            b"%!PS",
            b"8BPS",
            b"#EXTM3U",
            b"GIF88a",
            b"RIFF\0\0\0\0WAVE",
            b"RIFF\0\0\0\0",
            b" \x89PNG\r\n\x1a\n",
            b"\0\0\0\x20ftypavif",
        ] {
            assert_eq!(Format::detect(other), None, "{other:?}");
        }
    }
}
