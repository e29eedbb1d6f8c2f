//! One coded picture of AV1, decoded on this very thread.

use re_rav1d::{Decoder, Error, Picture, Settings};

use super::boxes::damaged;
use crate::thumbnail::error::ThumbnailError;

/// How often the decoder may say "try again"; a still picture takes one or two rounds.
const MAX_ROUNDS: u32 = 64;

/// Decodes the first picture of a coded item.
///
/// # Errors
///
/// `Damaged`, or `TooLarge` if the picture or the memory for it is over `max_pixels`.
pub(super) fn decode(data: Vec<u8>, max_pixels: u32) -> Result<Picture, ThumbnailError> {
    let mut settings = Settings::new();
    // No thread beside this one: a confined process must not start any.
    settings.set_n_threads(1);
    settings.set_max_frame_delay(1);
    settings.set_frame_size_limit(max_pixels);
    // Of several layers the last one alone.
    settings.set_all_layers(false);
    let mut decoder = Decoder::with_settings(&settings).map_err(refused)?;
    let mut is_pending = is_pending(decoder.send_data(data, None, None, None))?;
    for _ in 0..MAX_ROUNDS {
        match decoder.get_picture() {
            Ok(picture) => return Ok(picture),
            Err(Error::Again) if is_pending => {
                is_pending = self::is_pending(decoder.send_pending_data())?;
            }
            Err(Error::Again) => return Err(damaged("there is no picture in it")),
            Err(error) => return Err(refused(error)),
        }
    }
    Err(damaged("the decoder comes to no end"))
}

/// Whether the decoder has left data for later.
fn is_pending(outcome: Result<(), Error>) -> Result<bool, ThumbnailError> {
    match outcome {
        Ok(()) => Ok(false),
        Err(Error::Again) => Ok(true),
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: Error) -> ThumbnailError {
    match error {
        Error::NotEnoughMemory => ThumbnailError::TooLarge(error.to_string()),
        Error::UnsupportedBitstream => ThumbnailError::Unsupported,
        error => ThumbnailError::Damaged(error.to_string()),
    }
}
