//! What a file says of itself before any of its pixels is decoded, for people.

use std::fs::File;
use std::io::{Read, Seek};

use super::decode;
use super::error::ThumbnailError;
use super::format::Format;
use super::limits::Limits;
use super::render::guarded;
use crate::types::ThumbnailSize;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspected {
    /// Its type by its first bytes, whatever it is called.
    pub content_type: &'static str,
    /// What its header says; `None` for what another program decodes, and for audio, whose cover may lie
    /// anywhere within.
    pub header: Option<InspectedHeader>,
}

/// What the header of a picture says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectedHeader {
    /// The size as it is stored, before it is turned as the file may say.
    pub size: ThumbnailSize,
    /// Whether it moves; in doubt it does.
    pub moves: bool,
}

/// Reads the first bytes and the header of a file, from its start. Done in this process: not for what
/// strangers have just sent.
///
/// # Errors
///
/// `Unsupported` for what no thumbnail is made of, `TooLarge`, `Damaged` or `Io` by what is wrong with
/// the header, `Panicked` if a decoder did.
pub fn inspect(mut file: File, limits: &Limits) -> Result<Inspected, ThumbnailError> {
    let mut start = Vec::new();
    file.rewind()?;
    (&mut file).take(Format::LOOKED_AT as u64).read_to_end(&mut start)?;
    let format = Format::detect(&start).ok_or(ThumbnailError::Unsupported)?;
    let header = guarded(|| {
        if let Format::Audio(_) = format {
            return Err(ThumbnailError::Unsupported);
        }
        let source = decode::open(file, limits)?;
        let header = source.header();
        Ok(InspectedHeader { size: header.size, moves: header.animated })
    });
    match header {
        Ok(header) => {
            let content_type = format.content_type(header.moves);
            Ok(Inspected { content_type, header: Some(header) })
        }
        Err(ThumbnailError::Unsupported) => {
            Ok(Inspected { content_type: format.content_type(false), header: None })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thumbnail::samples::{self, encoded, file, quarters};
    use image::ImageFormat;

    fn inspected(bytes: &[u8]) -> Result<Inspected, ThumbnailError> {
        inspect(file(bytes), &Limits::default())
    }

    #[test]
    fn type_size_and_motion_are_told() {
        for (bytes, content_type, moves) in [
            (encoded(&quarters(40, 20), ImageFormat::Jpeg), "image/jpeg", false),
            (encoded(&quarters(40, 20), ImageFormat::Png), "image/png", false),
            (samples::gif(40, 20, 2), "image/gif", true),
            (samples::animated_png(40, 20), "image/apng", true),
            (samples::animated_webp(40, 20), "image/webp", true),
        ] {
            let size = ThumbnailSize { width: 40, height: 20 };
            let header = Some(InspectedHeader { size, moves });
            assert_eq!(inspected(&bytes).unwrap(), Inspected { content_type, header });
        }
    }

    #[test]
    fn no_cover_is_looked_for() {
        let audio = samples::flac(&encoded(&quarters(40, 20), ImageFormat::Png));
        let found = Inspected { content_type: "audio/flac", header: None };
        assert_eq!(inspected(&audio).unwrap(), found);
    }

    #[test]
    fn what_is_no_picture_and_what_is_too_large_is_an_error() {
        for bytes in [&b""[..], b"hello", b"\0\0\0\0"] {
            assert!(matches!(inspected(bytes), Err(ThumbnailError::Unsupported)));
        }
        let small = Limits { max_pixels: 799, ..Limits::default() };
        let refused = inspect(file(&encoded(&quarters(40, 20), ImageFormat::Png)), &small);
        assert!(matches!(refused, Err(ThumbnailError::TooLarge(_))), "{refused:?}");
    }
}
