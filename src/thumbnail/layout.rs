//! Which part of a source is shown, and how large: arithmetic only.

use crate::types::{ThumbnailMethod, ThumbnailSize, ThumbnailSpec};

/// A rectangle inside a source, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// The pixels to the left of it.
    pub left: u32,
    /// The pixels above it.
    pub top: u32,
    /// Its own width, at least one.
    pub width: u32,
    /// Its own height, at least one.
    pub height: u32,
}

/// How a source becomes a thumbnail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As it is: there is nothing to make smaller (CS-TH-06).
    Original,
    /// A part of it, brought to a size that is nowhere larger than that part (CS-TH-05).
    Resize {
        /// The part that is shown; lies inside the source.
        crop: Area,
        /// The size that it is shown at; both sides are at least one.
        to: ThumbnailSize,
    },
}

impl Area {
    /// Returns the whole of a source.
    pub(super) fn whole(source: ThumbnailSize) -> Self {
        Self { left: 0, top: 0, width: source.width, height: source.height }
    }

    /// Returns the middle of a source; the sides must not be larger than the source's.
    fn centred(source: ThumbnailSize, width: u32, height: u32) -> Self {
        let left = source.width.saturating_sub(width) / 2;
        let top = source.height.saturating_sub(height) / 2;
        Self { left, top, width, height }
    }

    fn size(self) -> ThumbnailSize {
        ThumbnailSize { width: self.width, height: self.height }
    }
}

impl Layout {
    /// Returns the same layout for a source whose rows and columns have changed places.
    pub(super) fn transposed(self) -> Self {
        match self {
            Self::Original => Self::Original,
            Self::Resize { crop: Area { left, top, width, height }, to } => Self::Resize {
                crop: Area { left: top, top: left, width: height, height: width },
                to: ThumbnailSize { width: to.height, height: to.width },
            },
        }
    }
}

/// Returns how a source of the given size becomes the asked thumbnail.
///
/// `scale` keeps the aspect ratio and fills the asked box from outside: both sides are at least as
/// large as asked (CS-TH-07, FLD-12). A source that cannot fill it is shown as it is (CS-TH-06).
///
/// `crop` shows the middle of the source in the asked aspect ratio (CS-TH-08). A source that is
/// smaller on one side is cut to the aspect and keeps its scale; one that is smaller on both is shown
/// as it is.
pub fn layout(spec: &ThumbnailSpec, source: ThumbnailSize) -> Layout {
    match spec.method {
        ThumbnailMethod::Scale => scale(spec.size, source),
        ThumbnailMethod::Crop => crop(spec.size, source),
    }
}

fn scale(asked: ThumbnailSize, source: ThumbnailSize) -> Layout {
    if source.width <= asked.width || source.height <= asked.height {
        return Layout::Original;
    }
    let to = if is_wider(asked, source) {
        let height = proportion(source.height, asked.width, source.width);
        ThumbnailSize { width: asked.width.max(1), height }
    } else {
        let width = proportion(source.width, asked.height, source.height);
        ThumbnailSize { width, height: asked.height.max(1) }
    };
    Layout::Resize { crop: Area::whole(source), to }
}

fn crop(asked: ThumbnailSize, source: ThumbnailSize) -> Layout {
    if source.width <= asked.width && source.height <= asked.height {
        return Layout::Original;
    }
    let crop = if is_wider(asked, source) {
        let height = proportion(asked.height, source.width, asked.width).min(source.height);
        Area::centred(source, source.width, height)
    } else {
        let width = proportion(asked.width, source.height, asked.height).min(source.width);
        Area::centred(source, width, source.height)
    };
    let large_enough = crop.width >= asked.width && crop.height >= asked.height;
    Layout::Resize { crop, to: if large_enough { asked } else { crop.size() } }
}

/// Whether one size is wider in shape than the other.
fn is_wider(one: ThumbnailSize, other: ThumbnailSize) -> bool {
    u64::from(one.width) * u64::from(other.height) > u64::from(other.width) * u64::from(one.height)
}

/// Returns `side * numerator / denominator`, rounded to the nearest and at least one.
fn proportion(side: u32, numerator: u32, denominator: u32) -> u32 {
    let denominator = u64::from(denominator.max(1));
    // The largest product and half the largest divisor together still fit 64 bits.
    let rounded = (u64::from(side) * u64::from(numerator) + denominator / 2) / denominator;
    u32::try_from(rounded).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ThumbnailMethod::{Crop, Scale};
    use proptest::prelude::*;

    fn size(width: u32, height: u32) -> ThumbnailSize {
        ThumbnailSize { width, height }
    }

    fn plan(asked: (u32, u32), method: ThumbnailMethod, source: (u32, u32)) -> Layout {
        let spec = ThumbnailSpec {
            size: size(asked.0, asked.1),
            method,
            animated: false,
            encoding: crate::types::ThumbnailEncoding::Universal,
        };
        layout(&spec, size(source.0, source.1))
    }

    fn resized(crop: [u32; 4], to: (u32, u32)) -> Layout {
        let [left, top, width, height] = crop;
        Layout::Resize { crop: Area { left, top, width, height }, to: size(to.0, to.1) }
    }

    /// CS-TH-04, FLD-12
    #[test]
    fn scale_fills_the_box_from_outside() {
        assert_eq!(plan((320, 240), Scale, (4000, 3000)), resized([0, 0, 4000, 3000], (320, 240)));
        assert_eq!(plan((320, 240), Scale, (3000, 4000)), resized([0, 0, 3000, 4000], (320, 427)));
        assert_eq!(plan((320, 240), Scale, (8000, 1000)), resized([0, 0, 8000, 1000], (1920, 240)));
    }

    /// CS-TH-05
    #[test]
    fn scale_never_enlarges() {
        for source in [(320, 240), (100, 5000), (5000, 240), (1, 1), (60_000, 1)] {
            assert_eq!(plan((320, 240), Scale, source), Layout::Original, "{source:?}");
        }
    }

    #[test]
    fn crop_takes_the_middle() {
        assert_eq!(plan((96, 96), Crop, (300, 200)), resized([50, 0, 200, 200], (96, 96)));
        assert_eq!(plan((96, 96), Crop, (200, 300)), resized([0, 50, 200, 200], (96, 96)));
        assert_eq!(plan((200, 100), Crop, (400, 400)), resized([0, 100, 400, 200], (200, 100)));
    }

    #[test]
    fn crop_of_a_source_that_is_small_on_one_side_keeps_its_scale() {
        assert_eq!(plan((96, 96), Crop, (300, 50)), resized([125, 0, 50, 50], (50, 50)));
        assert_eq!(plan((96, 96), Crop, (60_000, 1)), resized([29_999, 0, 1, 1], (1, 1)));
        assert_eq!(plan((96, 96), Crop, (96, 96)), Layout::Original);
        assert_eq!(plan((96, 96), Crop, (40, 24)), Layout::Original);
    }

    #[test]
    fn impossible_sizes_do_no_harm() {
        for method in [Scale, Crop] {
            for asked in [(0, 0), (0, 5), (1, u32::MAX), (u32::MAX, u32::MAX)] {
                for source in [(0, 0), (0, 9), (1, 1), (1, u32::MAX), (u32::MAX, u32::MAX)] {
                    plan(asked, method, source);
                }
            }
        }
    }

    fn any_side() -> impl Strategy<Value = u32> {
        prop_oneof![1_u32..20, 1_u32..3000, 1..=u32::MAX, Just(u32::MAX)]
    }

    fn any_method() -> impl Strategy<Value = ThumbnailMethod> {
        prop_oneof![Just(Scale), Just(Crop)]
    }

    /// By how much a size is off an aspect ratio, in pixels of its own shorter error.
    fn pixels_off(to: ThumbnailSize, aspect: ThumbnailSize) -> f64 {
        let ratio = f64::from(aspect.width) / f64::from(aspect.height);
        let by_width = (f64::from(to.width) - f64::from(to.height) * ratio).abs();
        let by_height = (f64::from(to.height) - f64::from(to.width) / ratio).abs();
        by_width.min(by_height)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// CS-TH-04, CS-TH-05
        #[test]
        fn a_layout_lies_inside_the_source_and_is_as_large_as_asked(
            asked in (any_side(), any_side()), method in any_method(), source in (any_side(), any_side()),
        ) {
            let (asked_size, source_size) = (size(asked.0, asked.1), size(source.0, source.1));
            match plan(asked, method, source) {
                Layout::Original => {
                    prop_assert!(source.0 <= asked.0 || source.1 <= asked.1);
                }
                Layout::Resize { crop, to } => {
                    prop_assert!(crop.width >= 1 && crop.height >= 1 && to.width >= 1 && to.height >= 1);
                    prop_assert!(u64::from(crop.left) + u64::from(crop.width) <= u64::from(source.0));
                    prop_assert!(u64::from(crop.top) + u64::from(crop.height) <= u64::from(source.1));
                    // Never upscaled (CS-TH-05).
                    prop_assert!(to.width <= crop.width && to.height <= crop.height);
                    // As large as asked, or at the source's own scale (CS-TH-04).
                    let covers = to.width >= asked.0 && to.height >= asked.1;
                    prop_assert!(covers || to == crop.size());
                    prop_assert!(covers || source.0 <= asked.0 || source.1 <= asked.1);
                    let aspect = if method == Crop { asked_size } else { source_size };
                    prop_assert!(pixels_off(to, aspect) <= 1.0, "{to} for {aspect}");
                    prop_assert!(method == Crop || crop == Area::whole(source_size));
                }
            }
        }

        #[test]
        fn a_turned_source_gets_the_turned_layout(
            asked in (any_side(), any_side()), method in any_method(), source in (any_side(), any_side()),
        ) {
            let turned = plan((asked.1, asked.0), method, (source.1, source.0));
            prop_assert_eq!(turned.transposed(), plan(asked, method, source));
        }
    }
}
