//! Whether somebody whose bytes we wait for is fast enough.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket of time that empties while we wait for a sender, be that a client or another server, and
/// fills with the bytes that it moves.
///
/// Only waiting counts: a body that nobody reads at the moment, because its receiver is slow, costs
/// its sender nothing. One that never falls below the rate keeps its bucket full; one that is
/// silent has emptied it after `full`, and one at half the rate after twice that.
#[derive(Debug)]
pub struct Pace {
    full: Duration,
    /// Bytes a second.
    min_rate: u64,
    credit: Duration,
    waiting_since: Option<Instant>,
}

impl Pace {
    /// Makes a full bucket. With a rate of zero a single byte fills it.
    pub fn new(full: Duration, min_rate: u64) -> Self {
        Self { full, min_rate, credit: full, waiting_since: None }
    }

    /// Notes that we wait for the sender, and returns when it will have been too slow.
    pub fn waits(&mut self, now: Instant) -> Instant {
        *self.waiting_since.get_or_insert(now) + self.credit
    }

    /// Whether we wait for the sender.
    pub fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// Notes that the sender has moved some bytes.
    pub fn moved(&mut self, bytes: u64, now: impl FnOnce() -> Instant) {
        let Some(since) = self.waiting_since.take() else {
            // Nobody waited, so nothing was spent; most calls end here.
            if self.credit < self.full {
                self.earn(bytes);
            }
            return;
        };
        self.credit = self.credit.saturating_sub(now().saturating_duration_since(since));
        self.earn(bytes);
    }

    fn earn(&mut self, bytes: u64) {
        let earned = if self.min_rate == 0 {
            if bytes > 0 { self.full } else { Duration::ZERO }
        } else {
            Duration::from_nanos(
                bytes.saturating_mul(1_000_000_000).checked_div(self.min_rate).unwrap_or(u64::MAX),
            )
        };
        self.credit = self.credit.saturating_add(earned).min(self.full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FULL: Duration = Duration::from_secs(60);

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn a_silent_client_is_too_slow_after_the_whole_credit() {
        let start = Instant::now();
        let mut pace = Pace::new(FULL, 1000);
        assert_eq!(pace.waits(start), start + FULL);
        assert_eq!(pace.waits(start + seconds(59)), start + FULL, "waiting on changes nothing");
    }

    #[test]
    fn bytes_buy_time_at_the_rate_and_never_more_than_the_whole() {
        let start = Instant::now();
        let mut pace = Pace::new(FULL, 1000);
        pace.waits(start);
        pace.moved(10_000, || start + seconds(40));
        assert_eq!(pace.waits(start + seconds(40)), start + seconds(40 + 30));
        pace.moved(1_000_000, || start + seconds(50));
        assert_eq!(pace.waits(start + seconds(50)), start + seconds(50) + FULL);
    }

    #[test]
    fn time_in_which_nobody_waits_costs_nothing() {
        let start = Instant::now();
        let mut pace = Pace::new(FULL, 1000);
        pace.moved(1, || unreachable!("nobody waited"));
        assert_eq!(pace.waits(start + seconds(5000)), start + seconds(5000) + FULL);
    }

    #[test]
    fn without_a_rate_only_silence_counts() {
        let start = Instant::now();
        let mut pace = Pace::new(FULL, 0);
        for step in 1..1000 {
            assert!(pace.waits(start + seconds(50 * (step - 1))) > start + seconds(50 * step));
            pace.moved(1, || start + seconds(50 * step));
        }
    }

    proptest! {
        /// A client that moves at the rate or faster is never too slow, however it divides its
        /// bytes; one that stays below is in the end.
        #[test]
        fn only_those_below_the_rate_are_too_slow(
            rate in 1_u64..100_000,
            pauses in proptest::collection::vec(1_u64..30_000, 1..100),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut fast = Pace::new(FULL, rate);
            let mut slow = Pace::new(FULL, rate);
            let mut slow_until = None;
            for millis in pauses.iter().cycle().take(3000) {
                let deadlines = (fast.waits(now), slow.waits(now));
                now += Duration::from_millis(*millis);
                prop_assert!(deadlines.0 > now);
                if deadlines.1 <= now {
                    slow_until.get_or_insert(now);
                }
                let due = (rate * millis).div_ceil(1000);
                fast.moved(due, || now);
                slow.moved(rate * millis / 1000 / 2, || now);
            }
            let enough = now.duration_since(start) > 2 * FULL + seconds(60);
            prop_assert!(!enough || slow_until.is_some());
        }
    }
}
