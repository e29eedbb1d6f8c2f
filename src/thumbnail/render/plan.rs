//! What is made of a source for one spec, in the orientation in which the source is stored.

use image::metadata::Orientation;

use super::original::Original;
use crate::thumbnail::layout::{Area, Layout, layout};
use crate::types::{ThumbnailSize, ThumbnailSpec};

/// What is made for one spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// The source is sent.
    Original,
    /// A part of it is made anew.
    Resize {
        /// The part, of the source as it is stored.
        crop: Area,
        /// The size that it gets, before it is turned.
        to: ThumbnailSize,
    },
}

/// Plans one thumbnail.
pub(super) fn plan(spec: &ThumbnailSpec, source: &Original) -> Plan {
    match layout_as_stored(spec, source.size, source.orientation) {
        Layout::Original if source.may_be_sent(spec) && source.is_shown_upright() => Plan::Original,
        Layout::Original => Plan::Resize { crop: Area::whole(source.size), to: source.size },
        Layout::Resize { crop, to } => Plan::Resize { crop, to },
    }
}

/// Plans for the picture as it is shown and returns the plan for the picture as it is stored.
///
/// Areas lie in the middle, so mirroring and turning by half leave them where they are.
fn layout_as_stored(
    spec: &ThumbnailSpec,
    stored: ThumbnailSize,
    orientation: Orientation,
) -> Layout {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    if matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH) {
        let shown = ThumbnailSize { width: stored.height, height: stored.width };
        layout(spec, shown).transposed()
    } else {
        layout(spec, stored)
    }
}

/// Returns the size that a source has to be decoded at, so that no thumbnail loses by it.
///
/// That is twice the size of the thumbnail or the full one: measured against a resize of the full
/// picture, half of that is seen to be softer, and more than that gains nothing.
pub(super) fn decoded_size<'a>(
    plans: impl Iterator<Item = &'a Plan>,
    stored: ThumbnailSize,
) -> ThumbnailSize {
    let mut size = ThumbnailSize { width: 1, height: 1 };
    for plan in plans {
        if let Plan::Resize { crop, to } = plan {
            size.width = size.width.max(twice(to.width, stored.width, crop.width));
            size.height = size.height.max(twice(to.height, stored.height, crop.height));
        }
    }
    size
}

/// Returns how long a side has to be so that its part is twice as long as asked, but not longer than it is.
fn twice(asked: u32, stored: u32, part: u32) -> u32 {
    let needed = (2 * u64::from(asked) * u64::from(stored)).div_ceil(u64::from(part.max(1)));
    u32::try_from(needed).unwrap_or(u32::MAX).min(stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_part_that_is_shown_is_decoded_at_twice_the_size_or_in_full(
            stored in 1_u32..=70_000, part in 1_u32..=70_000, asked in 1_u32..=70_000,
        ) {
            let (part, asked) = (part.min(stored), asked.min(part).min(stored));
            let decoded = twice(asked, stored, part);
            prop_assert!(decoded <= stored);
            let part_decoded = f64::from(part) * f64::from(decoded) / f64::from(stored);
            prop_assert!(decoded == stored || part_decoded >= 2.0 * f64::from(asked) - 1e-6);
        }
    }

    #[test]
    fn the_largest_thumbnail_decides() {
        let stored = ThumbnailSize { width: 4000, height: 3000 };
        let to = |width, height| Plan::Resize {
            crop: Area::whole(stored),
            to: ThumbnailSize { width, height },
        };
        let square = Area { left: 500, top: 0, width: 3000, height: 3000 };
        let crop = Plan::Resize { crop: square, to: ThumbnailSize { width: 96, height: 96 } };
        let decoded = |plans: &[Plan]| {
            let size = decoded_size(plans.iter(), stored);
            (size.width, size.height)
        };
        assert_eq!(decoded(&[Plan::Original]), (1, 1));
        assert_eq!(decoded(&[crop]), (256, 192));
        assert_eq!(decoded(&[crop, to(320, 240)]), (640, 480));
        assert_eq!(decoded(&[to(320, 240), to(2100, 1575), Plan::Original]), (4000, 3000));
    }
}
