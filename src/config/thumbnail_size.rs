//! The grammar of the ladder of thumbnail sizes: `WIDTHxHEIGHT METHOD`.

use crate::types::{ThumbnailMethod, ThumbnailSize};

/// The longest side of a thumbnail. More is no thumbnail, and costs a decoder's worth of memory.
const MAX_SIDE: u32 = 4096;

/// A text that is no thumbnail size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a thumbnail size; write sides from 1 to {MAX_SIDE} and a method, as in \
     \"320x240 scale\" or \"96x96 crop\""
)]
pub struct InvalidThumbnailSize(String);

/// Reads one rung of the ladder.
///
/// # Errors
///
/// If the text is not two sides and a method, each side within its bounds.
pub fn parse_thumbnail_size(
    text: &str,
) -> Result<(ThumbnailSize, ThumbnailMethod), InvalidThumbnailSize> {
    parse(text).ok_or_else(|| InvalidThumbnailSize(text.to_owned()))
}

fn parse(text: &str) -> Option<(ThumbnailSize, ThumbnailMethod)> {
    let (sides, method) = text.split_once(' ')?;
    let (width, height) = sides.split_once('x')?;
    let method = [ThumbnailMethod::Crop, ThumbnailMethod::Scale]
        .into_iter()
        .find(|known| known.as_str() == method)?;
    Some((ThumbnailSize { width: parse_side(width)?, height: parse_side(height)? }, method))
}

fn parse_side(text: &str) -> Option<u32> {
    let all_digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|side| all_digits && (1..=MAX_SIDE).contains(side))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sides_and_method_are_read() {
        assert_eq!(
            parse_thumbnail_size("320x240 scale"),
            Ok((ThumbnailSize { width: 320, height: 240 }, ThumbnailMethod::Scale))
        );
        assert_eq!(
            parse_thumbnail_size("1x4096 crop"),
            Ok((ThumbnailSize { width: 1, height: 4096 }, ThumbnailMethod::Crop))
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "320x240",
            "320x240 ",
            "320x240 Scale",
            "320x240 fit",
            "320x240  scale",
            " 320x240 scale",
            "320 x 240 scale",
            "320X240 scale",
            "320x240x1 scale",
            "0x240 scale",
            "320x0 scale",
            "4097x1 scale",
            "-1x240 scale",
            "+1x240 scale",
            "99999999999x1 scale",
            "x scale",
        ] {
            assert!(parse_thumbnail_size(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn sizes_survive_printing(width in 1..=MAX_SIDE, height in 1..=MAX_SIDE, crop: bool) {
            let method = if crop { ThumbnailMethod::Crop } else { ThumbnailMethod::Scale };
            let size = ThumbnailSize { width, height };
            let text = format!("{size} {}", method.as_str());
            prop_assert_eq!(parse_thumbnail_size(&text), Ok((size, method)));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,30}") {
            let _ = parse_thumbnail_size(&text);
        }
    }
}
