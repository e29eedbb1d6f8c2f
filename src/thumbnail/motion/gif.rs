//! Animated GIF: each frame with a palette of its own, and only where it differs from the one before.

use gif::{DisposalMethod, Encoder as Writer, EncodingError, Frame, Repeat};
use image::RgbaImage;

use super::change::{changed, cut, whole};
use super::delay::Centiseconds;
use super::palette::Palette;
use super::strip::{Encoder, Moment};
use super::survey::Plays;
use crate::thumbnail::error::ThumbnailError;
use crate::types::ThumbnailSize;

/// From here on a pixel is shown; the format has no degrees.
const OPAQUE_FROM: u8 = 128;

/// The colour that is not drawn; it comes after all others.
const MOST_COLOURS: usize = 255;

/// Writes animated GIF.
pub(super) struct GifEncoder {
    writer: Writer<Vec<u8>>,
    hundredths: Centiseconds,
    /// Whether the frame before has been wiped away, so that nothing of it is left to keep.
    is_blank: bool,
}

impl GifEncoder {
    /// Starts a file, if the format can express the size.
    pub(super) fn new(size: ThumbnailSize, plays: Plays) -> Option<Self> {
        let width = u16::try_from(size.width).ok()?;
        let height = u16::try_from(size.height).ok()?;
        let mut writer = Writer::new(Vec::new(), width, height, &[]).ok()?;
        match plays {
            Plays::Forever => writer.set_repeat(Repeat::Infinite).ok()?,
            Plays::Times(0 | 1) => (),
            Plays::Times(times) => {
                let again = u16::try_from(times - 1).unwrap_or(u16::MAX);
                writer.set_repeat(Repeat::Finite(again)).ok()?;
            }
        }
        Some(Self { writer, hundredths: Centiseconds::default(), is_blank: true })
    }
}

impl Encoder for GifEncoder {
    fn add(&mut self, moment: &Moment<'_>) -> Result<(), ThumbnailError> {
        // A pixel can be drawn over but not taken away, other than with the whole frame.
        let must_go = moment.after.is_some_and(|after| uncovers(moment.now, after));
        let kept = moment.before.filter(|_| !self.is_blank && !must_go);
        let drawn = kept.and_then(|before| changed(before, moment.now));
        // Where a frame is wiped away, so is all that was kept below it.
        let drawn = drawn.unwrap_or_else(|| whole(moment.now));
        let (palette, indices) = indexed(
            cut(moment.now, drawn).flat_map(|row| row.chunks_exact(4)),
            kept.map(|before| cut(before, drawn).flat_map(|row| row.chunks_exact(4))),
        );
        let side = |pixels: u32| u16::try_from(pixels).expect("no larger than the whole");
        let frame = Frame {
            delay: self.hundredths.next(moment.millis),
            dispose: if must_go { DisposalMethod::Background } else { DisposalMethod::Keep },
            transparent: Some(palette.transparent),
            left: side(drawn.left),
            top: side(drawn.top),
            width: side(drawn.width),
            height: side(drawn.height),
            palette: Some(palette.colours),
            buffer: indices.into(),
            ..Frame::default()
        };
        self.is_blank = must_go;
        self.writer.write_frame(&frame).map_err(damaged)
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, ThumbnailError> {
        self.writer.into_inner().map_err(|error| ThumbnailError::Damaged(error.to_string()))
    }
}

/// The colours of a frame as the file has them.
struct Colours {
    colours: Vec<u8>,
    transparent: u8,
}

/// Brings pixels to a palette; those that are transparent, or the same as before, are not drawn.
fn indexed<'a>(
    now: impl Iterator<Item = &'a [u8]>,
    before: Option<impl Iterator<Item = &'a [u8]>>,
) -> (Colours, Vec<u8>) {
    let mut before = before.into_iter().flatten();
    let drawn: Vec<Option<[u8; 3]>> = now
        .map(|pixel| match pixel {
            _ if before.next() == Some(pixel) => None,
            &[red, green, blue, alpha] if alpha >= OPAQUE_FROM => Some([red, green, blue]),
            _ => None,
        })
        .collect();
    let palette = Palette::of(drawn.iter().flatten().copied(), MOST_COLOURS);
    let transparent = u8::try_from(palette.colours().len()).expect("no more than allowed");
    let index = |colour: &Option<[u8; 3]>| colour.map_or(transparent, |it| palette.index_of(it));
    let indices = drawn.iter().map(index).collect();
    let mut colours = palette.colours().concat();
    colours.extend([0; 3]);
    (Colours { colours, transparent }, indices)
}

/// Whether something that is seen now is not seen afterwards.
fn uncovers(now: &RgbaImage, after: &RgbaImage) -> bool {
    let is_seen = |pixel: &[u8]| pixel[3] >= OPAQUE_FROM;
    let mut pixels = now.as_raw().chunks_exact(4).zip(after.as_raw().chunks_exact(4));
    pixels.any(|(now, after)| is_seen(now) && !is_seen(after))
}

fn damaged(error: EncodingError) -> ThumbnailError {
    ThumbnailError::Damaged(error.to_string())
}
