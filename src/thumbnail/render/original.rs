//! When the source itself is the best thumbnail.

use image::metadata::Orientation;

use crate::thumbnail::decode::Header;
use crate::thumbnail::format::Format;
use crate::thumbnail::job::Rendered;
use crate::thumbnail::layout::Area;
use crate::types::{ThumbnailSize, ThumbnailSpec};

/// What has to be known of a source to send it as a thumbnail of itself.
#[derive(Debug)]
pub(super) struct Original {
    format: Format,
    animated: bool,
    /// Its size as it is stored.
    pub(super) size: ThumbnailSize,
    /// How it has to be turned.
    pub(super) orientation: Orientation,
    /// How long its file is.
    pub(super) bytes: u64,
    /// Whether it is only a part of what was uploaded.
    is_extracted: bool,
}

impl Original {
    /// The most pixels of a source that is sent because its thumbnail would have more bytes. A few bytes can
    /// hold a huge flat picture, and whoever shows a list of thumbnails decodes all of them.
    const MOST_PIXELS: u64 = 1 << 20;

    pub(super) fn new(header: &Header, bytes: u64, is_extracted: bool) -> Self {
        let Header { format, size, animated, orientation, .. } = *header;
        // The program that took it out has turned it, and may have copied the note that says so.
        let orientation = if is_extracted { Orientation::NoTransforms } else { orientation };
        Self { format, animated, size, orientation, bytes, is_extracted }
    }

    /// Returns what it is if it moves.
    pub(super) fn moving_format(&self) -> Option<Format> {
        self.animated.then_some(self.format)
    }

    /// Whether a thumbnail may be of its kind, and may move if it does (CS-HDR-07, CS-TH-15).
    pub(super) fn may_be_sent(&self, spec: &ThumbnailSpec) -> bool {
        !self.is_extracted && self.format.may_be_sent() && (!self.animated || spec.animated)
    }

    /// Whether everything that shows it shows it upright: not everything turns other formats than JPEG.
    pub(super) fn is_shown_upright(&self) -> bool {
        self.orientation == Orientation::NoTransforms || self.format == Format::Jpeg
    }

    pub(super) fn rendered(&self) -> Rendered {
        Rendered::Original { content_type: self.format.content_type(self.animated) }
    }

    /// Returns what is to be sent: it, or what was made of it.
    pub(super) fn or_better(&self, made: Rendered, crop: Area, spec: &ThumbnailSpec) -> Rendered {
        if self.is_better_than(&made, crop, spec) { self.rendered() } else { made }
    }

    /// Whether to send it although it is larger than asked: it shows the same part and has fewer bytes.
    ///
    /// One that has to be turned is not sent: not everything that shows PNG and WebP turns them.
    fn is_better_than(&self, made: &Rendered, crop: Area, spec: &ThumbnailSpec) -> bool {
        let Rendered::Encoded { bytes, .. } = made else { return false };
        let pixels = u64::from(self.size.width) * u64::from(self.size.height);
        self.bytes <= bytes.len() as u64
            && pixels <= Self::MOST_PIXELS
            && crop == Area::whole(self.size)
            && self.orientation == Orientation::NoTransforms
            && self.may_be_sent(spec)
    }
}
