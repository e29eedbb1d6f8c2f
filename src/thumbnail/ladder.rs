//! Which sizes thumbnails are made in: a short ladder, so that a stranger who asks for every size
//! from 1 to 10,000 gets a handful of files made (threats IM-11); or each as it is asked for.

use std::fmt;
use std::str::FromStr;

use crate::types::{ThumbnailEncoding, ThumbnailMethod, ThumbnailSize, ThumbnailSpec};

/// One size on the ladder, for one method. Both sides are at least one pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rung {
    size: ThumbnailSize,
    method: ThumbnailMethod,
}

/// A text that is not a size and a method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a thumbnail size: write width, x, height and a method, such as `320x240 scale`"
)]
pub struct InvalidRung(String);

impl FromStr for Rung {
    type Err = InvalidRung;

    /// Reads `<width>x<height> <method>`, with both sides from 1 and `crop` or `scale` as the method.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| InvalidRung(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Rung> {
    let (size, method) = text.trim().split_once(char::is_whitespace)?;
    let (width, height) = size.split_once('x')?;
    let method = match method.trim_start() {
        "scale" => ThumbnailMethod::Scale,
        "crop" => ThumbnailMethod::Crop,
        _ => return None,
    };
    let size = ThumbnailSize { width: parse_side(width)?, height: parse_side(height)? };
    Some(Rung { size, method })
}

fn parse_side(text: &str) -> Option<u32> {
    let all_digits = text.bytes().all(|b| b.is_ascii_digit());
    let side = if all_digits { text.parse().ok()? } else { 0 };
    (side > 0).then_some(side)
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.size, self.method.as_str())
    }
}

/// The sizes that thumbnails are made in.
///
/// The default ladder holds the sizes that every server should have (CS-TH-09).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder {
    rungs: Vec<Rung>,
    is_exact: bool,
}

impl Default for Ladder {
    fn default() -> Self {
        use ThumbnailMethod::{Crop, Scale};
        let rung = |width, height, method| Rung { size: ThumbnailSize { width, height }, method };
        Self::new([
            rung(32, 32, Crop),
            rung(96, 96, Crop),
            rung(320, 240, Scale),
            rung(640, 480, Scale),
            rung(800, 600, Scale),
        ])
    }
}

impl Ladder {
    /// Where a method begins that has no rung of its own.
    const FOOT: ThumbnailSize = ThumbnailSize { width: 32, height: 32 };

    /// The longest side of a size that is made as it is asked for.
    const LONGEST_EXACT_SIDE: u32 = 4096;

    /// Makes a ladder of the given rungs, in any order.
    ///
    /// A method without a rung is served all the same, by doubling from a small square.
    pub fn new(rungs: impl IntoIterator<Item = Rung>) -> Self {
        Self { rungs: rungs.into_iter().collect(), is_exact: false }
    }

    /// Makes every size as it is asked for, up to a longest side of 4096 pixels, the longest that a rung
    /// may have. What is larger than that is no thumbnail any more and climbs the ladder.
    ///
    /// There are millions of such sizes: **their number has to be bounded by the caller**, per content.
    pub fn exact(self) -> Self {
        Self { is_exact: true, ..self }
    }

    /// Returns the thumbnails of the ladder itself, none of which moves.
    pub fn stills(
        &self,
        encoding: ThumbnailEncoding,
    ) -> impl Iterator<Item = ThumbnailSpec> + use<'_> {
        let spec = move |rung: &Rung| ThumbnailSpec {
            size: rung.size,
            method: rung.method,
            animated: false,
            encoding,
        };
        self.rungs.iter().map(spec)
    }

    /// Returns the thumbnail to make for a request: never smaller than asked (CS-TH-03, CS-TH-04).
    ///
    /// It is the smallest rung of the method that covers the request; above the ladder it is the
    /// largest rung doubled until it does. So a method has few sizes, whatever is asked.
    ///
    /// A crop keeps its aspect ratio exactly (CS-TH-08) and is therefore looked up among the rungs of
    /// that aspect only. Squares always find one. Another aspect that is not on the ladder keeps its
    /// own size: **the number of those has to be bounded by the caller**, per content. So it is with all
    /// sizes of a ladder that is [exact](Self::exact).
    pub fn snap(
        &self,
        requested: ThumbnailSize,
        method: ThumbnailMethod,
        animated: bool,
    ) -> ThumbnailSpec {
        let is_kept =
            self.is_exact && requested.width.max(requested.height) <= Self::LONGEST_EXACT_SIDE;
        let size = match method {
            _ if is_kept => requested,
            ThumbnailMethod::Scale => self.snap_scale(requested),
            ThumbnailMethod::Crop => self.snap_crop(requested),
        };
        ThumbnailSpec { size, method, animated, encoding: ThumbnailEncoding::Universal }
    }

    fn snap_scale(&self, requested: ThumbnailSize) -> ThumbnailSize {
        climb(self.sizes(ThumbnailMethod::Scale), requested)
            .unwrap_or_else(|| double_until_covering(Self::FOOT, requested))
    }

    fn snap_crop(&self, requested: ThumbnailSize) -> ThumbnailSize {
        let is_square = requested.width == requested.height;
        let same_aspect =
            self.sizes(ThumbnailMethod::Crop).filter(|size| have_same_aspect(*size, requested));
        climb(same_aspect, requested)
            .or_else(|| is_square.then(|| double_until_covering(Self::FOOT, requested)))
            // Doubling bends an aspect where it meets the end of the numbers.
            .filter(|size| have_same_aspect(*size, requested))
            .unwrap_or(requested)
    }

    fn sizes(&self, method: ThumbnailMethod) -> impl Iterator<Item = ThumbnailSize> + Clone {
        self.rungs.iter().filter(move |rung| rung.method == method).map(|rung| rung.size)
    }
}

/// Returns the smallest size that covers the request, or the largest one doubled until it does.
fn climb(
    sizes: impl Iterator<Item = ThumbnailSize> + Clone,
    requested: ThumbnailSize,
) -> Option<ThumbnailSize> {
    let smallest = sizes.clone().filter(|size| covers(*size, requested)).min_by_key(pixels);
    let largest = || sizes.max_by_key(pixels);
    smallest.or_else(|| largest().map(|size| double_until_covering(size, requested)))
}

/// Doubles both sides until they cover the request: at most 32 times, as every side fits 32 bits.
fn double_until_covering(mut size: ThumbnailSize, requested: ThumbnailSize) -> ThumbnailSize {
    while !covers(size, requested) {
        size.width = size.width.saturating_mul(2).max(1);
        size.height = size.height.saturating_mul(2).max(1);
    }
    size
}

fn covers(size: ThumbnailSize, requested: ThumbnailSize) -> bool {
    size.width >= requested.width && size.height >= requested.height
}

fn pixels(size: &ThumbnailSize) -> u64 {
    u64::from(size.width) * u64::from(size.height)
}

fn have_same_aspect(one: ThumbnailSize, other: ThumbnailSize) -> bool {
    u64::from(one.width) * u64::from(other.height) == u64::from(other.width) * u64::from(one.height)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ThumbnailMethod::{Crop, Scale};
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn size(width: u32, height: u32) -> ThumbnailSize {
        ThumbnailSize { width, height }
    }

    fn snap(width: u32, height: u32, method: ThumbnailMethod) -> String {
        Ladder::default().snap(size(width, height), method, false).size.to_string()
    }

    fn ladder(rungs: &[&str]) -> Ladder {
        Ladder::new(rungs.iter().map(|text| text.parse().expect("a rung")))
    }

    #[test]
    fn scale_requests_get_the_smallest_rung_that_covers_them() {
        assert_eq!(snap(1, 1, Scale), "320x240");
        assert_eq!(snap(320, 240, Scale), "320x240");
        assert_eq!(snap(240, 320, Scale), "640x480");
        assert_eq!(snap(640, 481, Scale), "800x600");
    }

    #[test]
    fn above_the_ladder_the_largest_rung_is_doubled() {
        assert_eq!(snap(801, 1, Scale), "1600x1200");
        assert_eq!(snap(1, 1201, Scale), "3200x2400");
        assert_eq!(snap(97, 97, Crop), "192x192");
        assert_eq!(snap(1000, 1000, Crop), "1536x1536");
    }

    #[test]
    fn square_crops_climb_and_other_crops_keep_their_size() {
        assert_eq!(snap(20, 20, Crop), "32x32");
        assert_eq!(snap(33, 33, Crop), "96x96");
        assert_eq!(snap(30, 20, Crop), "30x20");
    }

    #[test]
    fn crops_find_rungs_of_their_own_aspect() {
        let ladder = ladder(&["96x96 crop", "160x90 crop"]);
        let snap = |width, height| ladder.snap(size(width, height), Crop, false).size;
        assert_eq!(snap(16, 9), size(160, 90));
        assert_eq!(snap(320, 180), size(320, 180));
        assert_eq!(snap(336, 189), size(640, 360));
        assert_eq!(snap(17, 9), size(17, 9));
    }

    #[test]
    fn the_largest_requests_are_safe() {
        let largest = "4294967295x4294967295";
        assert_eq!(snap(u32::MAX, u32::MAX, Scale), largest);
        assert_eq!(snap(u32::MAX, u32::MAX, Crop), largest);
        assert_eq!(snap(u32::MAX, 1, Crop), "4294967295x1");
        let wide = ladder(&["3x2 crop"]);
        let asked = size(u32::MAX, 2_863_311_530);
        assert_eq!(wide.snap(asked, Crop, false).size, asked);
    }

    #[test]
    fn an_exact_ladder_keeps_every_size_but_the_very_large() {
        let exact = Ladder::default().exact();
        for (asked, scaled, cropped) in [
            ((1, 1), (1, 1), (1, 1)),
            ((321, 5), (321, 5), (321, 5)),
            ((4096, 4096), (4096, 4096), (4096, 4096)),
            ((4097, 1), (6400, 4800), (4097, 1)),
            ((4097, 4097), (6400, 4800), (6144, 6144)),
            ((u32::MAX, u32::MAX), (u32::MAX, u32::MAX), (u32::MAX, u32::MAX)),
        ] {
            for (method, made) in [(Scale, scaled), (Crop, cropped)] {
                let spec = exact.snap(size(asked.0, asked.1), method, true);
                assert_eq!(spec.size, size(made.0, made.1), "{asked:?} {method:?}");
            }
        }
    }

    #[test]
    fn the_stills_of_a_ladder_are_what_its_own_sizes_snap_to() {
        for ladder in [Ladder::default(), Ladder::default().exact()] {
            let stills: Vec<_> = ladder.stills(ThumbnailEncoding::Universal).collect();
            assert_eq!(stills.len(), 5);
            for still in stills {
                assert_eq!(ladder.snap(still.size, still.method, false), still);
            }
            let webp = ladder.stills(ThumbnailEncoding::WebP);
            assert!(webp.into_iter().all(|still| still.encoding == ThumbnailEncoding::WebP));
        }
    }

    #[test]
    fn an_empty_ladder_serves_everybody() {
        let empty = Ladder::new([]);
        assert_eq!(empty.snap(size(100, 50), Scale, false).size, size(128, 128));
        assert_eq!(empty.snap(size(100, 100), Crop, false).size, size(128, 128));
        assert_eq!(empty.snap(size(100, 50), Crop, false).size, size(100, 50));
    }

    /// CS-TH-09
    #[test]
    fn the_default_ladder_is_what_the_specification_lists() {
        let listed =
            ["32x32 crop", "96x96 crop", "320x240 scale", "640x480 scale", "800x600 scale"];
        assert_eq!(Ladder::default(), ladder(&listed));
        let printed: Vec<_> = Ladder::default().rungs.iter().map(Rung::to_string).collect();
        assert_eq!(printed, listed);
    }

    #[test]
    fn what_is_not_a_rung_is_refused_with_an_example() {
        for text in
            ["", "320x240", "320x240 fit", "0x5 crop", "5x0 crop", "x5 crop", "+5x5 crop", "5 crop"]
        {
            let error = text.parse::<Rung>().expect_err(text);
            assert!(error.to_string().contains("`320x240 scale`"), "{error}");
        }
        assert!("99999999999x1 crop".parse::<Rung>().is_err());
        assert!("1x1 crop crop".parse::<Rung>().is_err());
    }

    fn any_size() -> impl Strategy<Value = ThumbnailSize> {
        let side = || prop_oneof![1_u32..3000, 1..=u32::MAX, Just(u32::MAX)];
        (side(), side()).prop_map(|(width, height)| size(width, height))
    }

    fn any_method() -> impl Strategy<Value = ThumbnailMethod> {
        prop_oneof![Just(Scale), Just(Crop)]
    }

    fn any_rung() -> impl Strategy<Value = Rung> {
        (any_size(), any_method()).prop_map(|(size, method)| Rung { size, method })
    }

    fn any_ladder() -> impl Strategy<Value = Ladder> {
        prop_oneof![
            Just(Ladder::default()),
            proptest::collection::vec(any_rung(), 0..6).prop_map(Ladder::new)
        ]
    }

    fn any_ladder_or_exact() -> impl Strategy<Value = Ladder> {
        (any_ladder(), any::<bool>()).prop_map(|(ladder, is_exact)| Ladder { is_exact, ..ladder })
    }

    proptest! {
        #[test]
        fn printing_and_parsing_a_rung_gives_the_same(rung in any_rung()) {
            prop_assert_eq!(rung.to_string().parse::<Rung>(), Ok(rung));
        }

        /// CS-TH-03, CS-TH-04
        #[test]
        fn snapping_covers_the_request_and_is_stable(
            ladder in any_ladder_or_exact(), asked in any_size(), method in any_method(),
            animated: bool,
        ) {
            let spec = ladder.snap(asked, method, animated);
            prop_assert!(covers(spec.size, asked));
            prop_assert_eq!((spec.method, spec.animated), (method, animated));
            prop_assert_eq!(ladder.snap(spec.size, method, animated), spec);
        }

        /// CS-TH-08
        #[test]
        fn crops_keep_their_aspect(ladder in any_ladder_or_exact(), asked in any_size()) {
            prop_assert!(have_same_aspect(ladder.snap(asked, Crop, false).size, asked));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,30}|[0-9]{0,12}x[0-9]{0,12} (crop|scale)") {
            let _ = text.parse::<Rung>();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn strangers_get_few_distinct_sizes(
            ladder in any_ladder(), asked in proptest::collection::vec(any_size(), 500)
        ) {
            let scales = asked.iter().map(|size| ladder.snap(*size, Scale, false));
            let squares = asked.iter().map(|s| ladder.snap(size(s.width, s.width), Crop, false));
            let most = ladder.rungs.len() + 33;
            prop_assert!(scales.collect::<HashSet<_>>().len() <= most);
            prop_assert!(squares.collect::<HashSet<_>>().len() <= most);
        }
    }
}
