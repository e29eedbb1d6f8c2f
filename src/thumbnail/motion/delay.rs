//! For how long frames are shown.

use image::Delay;

/// The longest time that one frame of a WebP can be shown, and so of any of ours: 24 bits.
pub(super) const LONGEST_MILLIS: u32 = 0xff_ffff;

/// What browsers take for "as fast as possible", which they do not do.
const TOO_SHORT_MILLIS: u64 = 10;

/// What browsers make of it.
const INSTEAD_MILLIS: u32 = 100;

/// Returns for how many milliseconds browsers show a frame, at least 11.
///
/// All large ones agree that up to 10 ms mean 100 ms, whatever the format.
pub(super) fn shown_millis(delay: Delay) -> u32 {
    let (numerator, denominator) = delay.numer_denom_ms();
    let denominator = u64::from(denominator.max(1));
    let millis = (u64::from(numerator) + denominator / 2) / denominator;
    if millis <= TOO_SHORT_MILLIS {
        return INSTEAD_MILLIS;
    }
    u32::try_from(millis).unwrap_or(u32::MAX).min(LONGEST_MILLIS)
}

/// Brings milliseconds to the hundredths of a second that GIF has, and what is lost by rounding to the next
/// frame.
#[derive(Debug, Default)]
pub(super) struct Centiseconds {
    owed_millis: i64,
}

impl Centiseconds {
    /// One would be shown as ten.
    const SHORTEST: i64 = 2;

    /// What one frame leaves to those after it, at most: enough for rounding, not for a standstill.
    const MOST_OWED_MILLIS: i64 = 100;

    /// Returns for how many hundredths of a second the next frame is to be shown.
    pub(super) fn next(&mut self, millis: u32) -> u16 {
        let wanted = i64::from(millis) + self.owed_millis;
        let shown = ((wanted + 5) / 10).clamp(Self::SHORTEST, u16::MAX.into());
        let most = Self::MOST_OWED_MILLIS;
        self.owed_millis = (wanted - shown * 10).clamp(-most, most);
        u16::try_from(shown).expect("clamped to this type")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(numerator: u32, denominator: u32) -> u32 {
        shown_millis(Delay::from_numer_denom_ms(numerator, denominator))
    }

    #[test]
    fn what_browsers_call_too_short_is_a_tenth_of_a_second() {
        for millis in [0, 1, 10] {
            assert_eq!(shown(millis, 1), 100);
        }
        assert_eq!(shown(11, 1), 11);
        assert_eq!(shown(20, 1), 20);
        assert_eq!(shown(1000, 30), 33);
        assert_eq!(shown(u32::MAX, 1), LONGEST_MILLIS);
    }

    proptest! {
        #[test]
        fn every_fraction_is_a_time_that_every_format_can_express(
            numerator: u32, denominator in 1..=u32::MAX,
        ) {
            prop_assert!((11..=LONGEST_MILLIS).contains(&shown(numerator, denominator)));
        }

        #[test]
        fn rounding_to_hundredths_does_not_add_up(
            delays in proptest::collection::vec(20_u32..5_000, 1..200),
        ) {
            let mut hundredths = Centiseconds::default();
            let total: i64 = delays.iter().map(|&delay| i64::from(hundredths.next(delay))).sum();
            let wanted: i64 = delays.iter().map(|&delay| i64::from(delay)).sum();
            prop_assert!((total * 10 - wanted).abs() <= 10, "{total} for {wanted}");
        }

        #[test]
        fn no_hundredth_is_shown_as_a_tenth(delays in proptest::collection::vec(any::<u32>(), 1..50)) {
            let mut hundredths = Centiseconds::default();
            for delay in delays {
                prop_assert!(hundredths.next(delay) >= 2);
            }
        }
    }
}
