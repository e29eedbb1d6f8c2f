//! Animated WebP: each frame a picture of its own by libwebp, put together here (RFC 9649).
//!
//! libwebp's own animation encoder tries every frame in several ways, keeps all of them in memory, and
//! cannot be told how long the last one is shown.

use image::RgbaImage;

use super::change::{changed, cut, whole};
use super::strip::{Encoder, Moment};
use super::survey::Plays;
use crate::thumbnail::error::ThumbnailError;
use crate::thumbnail::layout::Area;
use crate::types::ThumbnailSize;

/// The longest side that a lossy picture can have.
const LONGEST_SIDE: u32 = 16_383;

/// Artefacts are hard to see from here on, the more so in what moves.
const QUALITY: f32 = 75.0;

/// Of 0 to 6: the last one before time doubles for a few percent of the bytes.
const METHOD: i32 = 2;

const ANIMATION_FLAG: u8 = 0x02;
const ALPHA_FLAG: u8 = 0x10;

/// Replace what the rectangle showed before, transparency included, and leave it standing.
const REPLACE_AND_KEEP: u8 = 0x02;

/// Writes animated WebP.
pub(super) struct WebPEncoder {
    size: ThumbnailSize,
    plays: Plays,
    settings: webp::WebPConfig,
    has_alpha: bool,
    /// The frames' chunks.
    frames: Vec<u8>,
}

impl WebPEncoder {
    /// Starts a file, if the format can express the size.
    pub(super) fn new(size: ThumbnailSize, plays: Plays) -> Option<Self> {
        let mut settings = webp::WebPConfig::new().ok()?;
        settings.quality = QUALITY;
        settings.method = METHOD;
        let fits = size.width.max(size.height) <= LONGEST_SIDE;
        fits.then_some(Self { size, plays, settings, has_alpha: false, frames: Vec::new() })
    }

    /// Returns the chunks of a rectangle: its transparency, if it has any, and its picture.
    fn encode(&mut self, frame: &RgbaImage, area: Area) -> Result<Vec<u8>, ThumbnailError> {
        let pixels = cut(frame, area).collect::<Vec<_>>().concat();
        self.has_alpha |= pixels.chunks_exact(4).any(|pixel| pixel[3] != u8::MAX);
        let encoder = webp::Encoder::from_rgba(&pixels, area.width, area.height);
        let still = encoder
            .encode_advanced(&self.settings)
            .map_err(|error| ThumbnailError::Damaged(format!("libwebp: {error:?}")))?;
        Ok(picture_chunks(&still))
    }
}

impl Encoder for WebPEncoder {
    fn add(&mut self, moment: &Moment<'_>) -> Result<(), ThumbnailError> {
        let area = moment.before.and_then(|before| changed(before, moment.now));
        let area = area.map_or_else(|| whole(moment.now), from_even_place);
        let picture = self.encode(moment.now, area)?;
        let mut frame = Vec::with_capacity(16 + picture.len());
        for number in [area.left / 2, area.top / 2, area.width - 1, area.height - 1, moment.millis]
        {
            frame.extend(&number.to_le_bytes()[..3]);
        }
        frame.push(REPLACE_AND_KEEP);
        frame.extend(picture);
        push_chunk(&mut self.frames, b"ANMF", &frame);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, ThumbnailError> {
        let flags = ANIMATION_FLAG | if self.has_alpha { ALPHA_FLAG } else { 0 };
        let mut extended = vec![flags, 0, 0, 0];
        for side in [self.size.width, self.size.height] {
            extended.extend(&(side - 1).to_le_bytes()[..3]);
        }
        let plays = match self.plays {
            Plays::Forever => 0,
            Plays::Times(times) => u16::try_from(times).unwrap_or(u16::MAX),
        };
        // A colour for the background, which is never seen, comes first.
        let animation = [&[0; 4][..], &plays.to_le_bytes()].concat();
        let mut body = b"WEBP".to_vec();
        push_chunk(&mut body, b"VP8X", &extended);
        push_chunk(&mut body, b"ANIM", &animation);
        body.extend(self.frames);
        let mut file = Vec::with_capacity(8 + body.len());
        push_chunk(&mut file, b"RIFF", &body);
        Ok(file)
    }
}

/// Frames start at even places only.
fn from_even_place(area: Area) -> Area {
    let (left, top) = (area.left & !1, area.top & !1);
    let width = area.left + area.width - left;
    Area { left, top, width, height: area.top + area.height - top }
}

/// Takes the picture out of the file that the library made of it.
fn picture_chunks(still: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    let mut rest = still.get(12..).unwrap_or_default();
    while let Some((&[a, b, c, d, l0, l1, l2, l3], body)) = rest.split_first_chunk() {
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let Some(content) = body.get(..length) else { break };
        let name = [a, b, c, d];
        if [b"ALPH", b"VP8 ", b"VP8L"].contains(&&name) {
            push_chunk(&mut found, &name, content);
        }
        rest = body.get(length.next_multiple_of(2)..).unwrap_or_default();
    }
    found
}

/// Writes a chunk, filled up to an even length.
fn push_chunk(file: &mut Vec<u8>, name: &[u8; 4], content: &[u8]) {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    file.extend(name);
    file.extend(length.to_le_bytes());
    file.extend(content);
    if content.len() % 2 == 1 {
        file.push(0);
    }
}
