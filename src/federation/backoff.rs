//! How long nothing is tried again after failures.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

/// Returns how long nothing is tried after so many failures in a row: `first` after the first of them,
/// twice as long after each that follows, and never longer than `most`.
pub(super) fn doubled(first: Duration, failures: u32, most: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    first.saturating_mul(1 << doublings).min(most)
}

/// Spreads what would otherwise happen to many at the same moment, in a way that nobody outside can
/// tell.
#[derive(Clone)]
pub(super) struct Jitter(RandomState);

impl Jitter {
    pub(super) fn new() -> Self {
        Self(RandomState::new())
    }

    /// Returns a number from 0 up to 1, for one subject always the same.
    pub(super) fn of(&self, subject: impl Hash) -> f64 {
        const STEPS: u32 = 1024;
        let step = self.0.hash_one(subject) % u64::from(STEPS);
        u32::try_from(step).map_or(0.0, |step| f64::from(step) / f64::from(STEPS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_failure_doubles_the_time_up_to_the_most() {
        let after = |failures| doubled(3 * SECOND, failures, 40 * SECOND).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 5, 6, u32::MAX].map(after), [3, 3, 6, 12, 24, 40, 40, 40]);
    }

    proptest! {
        #[test]
        fn no_number_of_failures_overflows(first: u64, failures: u32, most: u64) {
            let most = Duration::from_millis(most);
            prop_assert!(doubled(Duration::from_millis(first), failures, most) <= most);
        }

        #[test]
        fn a_subject_keeps_its_place_between_nought_and_one(subject: String) {
            let jitter = Jitter::new();
            prop_assert!((0.0..1.0).contains(&jitter.of(&subject)));
            prop_assert_eq!(jitter.of(&subject), jitter.of(&subject));
        }
    }
}
