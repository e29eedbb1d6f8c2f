//! How often each user may do something: the generic cell rate algorithm, a leaky bucket that is one
//! moment for each user.
//!
//! What is remembered of a user is when their burst will be whole again. Whoever has not asked for
//! so long is as good as new and is forgotten.

use std::time::{Duration, Instant};

use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::types::UserId;

/// How many users are remembered, at about two hundred bytes each.
const CAPACITY: u64 = 100_000;

/// The longest time between two places; a rate of nearly nothing is this.
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a user is remembered, at least and at most: less is finer than the cache's clock, and
/// more than it can count.
const SHORTEST_MEMORY: Duration = Duration::from_secs(1);
const LONGEST_MEMORY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A limit on how often each user may do something.
///
/// Memory is bounded: of very many users, those that asked least recently are forgotten, and begin
/// with a full burst the next time.
pub struct RateLimit {
    /// When the burst of a user will be whole again, as time since `origin`.
    whole_at: Cache<UserId, Duration>,
    origin: Instant,
    /// The time between two places.
    interval: Duration,
    /// How far ahead `whole_at` may lie for one more place.
    tolerance: Duration,
}

impl RateLimit {
    /// Makes a limit that lets each user in `burst` times at once and `per_second` times a second in
    /// the long run.
    ///
    /// A burst of 0 counts as 1, and a rate that is no positive number as one place a day.
    pub fn new(per_second: f64, burst: u32) -> Self {
        Self::remembering(CAPACITY, per_second, burst)
    }

    fn remembering(users: u64, per_second: f64, burst: u32) -> Self {
        // Rounded up, so that never more are let in than the rate says.
        let nanos = (1e9 / per_second.max(0.0)).ceil() as u64;
        let interval = Duration::from_nanos(nanos).min(MAX_INTERVAL);
        let tolerance = interval.saturating_mul(burst.max(1) - 1);
        // By then the burst is whole, so that nothing is lost with the memory of it.
        let memory = tolerance.saturating_add(interval).clamp(SHORTEST_MEMORY, LONGEST_MEMORY);
        let whole_at = Cache::builder()
            .max_capacity(users)
            // The default policy would rather not remember newcomers, who could then ask for ever.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(memory)
            .build();
        Self { whole_at, origin: Instant::now(), interval, tolerance }
    }

    /// Takes one of a user's places. Of concurrent calls each is counted.
    ///
    /// # Errors
    ///
    /// How long until there is a place, if there is none; asking does not make it longer.
    pub fn take(&self, user: &UserId, now: Instant) -> Result<(), Duration> {
        let now = now.saturating_duration_since(self.origin);
        let mut outcome = Ok(());
        self.whole_at.entry_by_ref(user).and_compute_with(|entry| {
            let whole_at = entry.map_or(now, |entry| entry.into_value().max(now));
            match (whole_at - now).checked_sub(self.tolerance) {
                None | Some(Duration::ZERO) => Op::Put(whole_at.saturating_add(self.interval)),
                Some(wait) => {
                    outcome = Err(wait);
                    Op::Nop
                }
            }
        });
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use proptest::prelude::*;

    fn user(name: &str) -> UserId {
        format!("@{name}:example.org").parse().unwrap()
    }

    #[test]
    fn a_burst_is_let_in_and_then_one_for_each_interval() {
        let limit = RateLimit::new(10.0, 3);
        let (alice, start) = (user("alice"), Instant::now());
        for _ in 0..3 {
            limit.take(&alice, start).unwrap();
        }
        let interval = Duration::from_millis(100);
        assert_eq!(limit.take(&alice, start), Err(interval));
        let soon = start + Duration::from_millis(30);
        assert_eq!(limit.take(&alice, soon), Err(Duration::from_millis(70)));
        limit.take(&alice, start + interval).unwrap();
        assert_eq!(limit.take(&alice, start + interval), Err(interval));
        let later = start + Duration::from_secs(60);
        for _ in 0..3 {
            limit.take(&alice, later).unwrap();
        }
        limit.take(&alice, later).unwrap_err();
    }

    #[test]
    fn users_do_not_share_their_places() {
        let limit = RateLimit::new(1.0, 1);
        let now = Instant::now();
        limit.take(&user("alice"), now).unwrap();
        limit.take(&user("alice"), now).unwrap_err();
        limit.take(&user("bob"), now).unwrap();
    }

    #[test]
    fn concurrent_requests_are_each_counted() {
        let limit = RateLimit::new(0.001, 100);
        let (alice, now, admitted) = (user("alice"), Instant::now(), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        if limit.take(&alice, now).is_ok() {
                            admitted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 100);
    }

    #[test]
    fn of_too_many_users_those_that_asked_least_recently_are_forgotten() {
        let limit = RateLimit::remembering(10, 0.001, 1);
        let now = Instant::now();
        for number in 0..1000 {
            limit.take(&user(&number.to_string()), now).unwrap();
            limit.whole_at.run_pending_tasks();
        }
        assert!(limit.whole_at.entry_count() <= 10);
        limit.take(&user("999"), now).unwrap_err();
        limit.take(&user("0"), now).unwrap();
    }

    #[test]
    fn rates_and_bursts_beyond_sense_do_not_panic() {
        let now = Instant::now();
        for per_second in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 1e300] {
            for burst in [0, 1, u32::MAX] {
                let limit = RateLimit::new(per_second, burst);
                limit.take(&user("alice"), now).unwrap();
                let _ = limit.take(&user("alice"), now);
            }
        }
        let limit = RateLimit::new(0.0, 0);
        limit.take(&user("alice"), now).unwrap();
        assert!(limit.take(&user("alice"), now).unwrap_err() <= MAX_INTERVAL);
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_rate_are_let_in(
            per_second in 0.1_f64..1000.0,
            burst in 1_u32..20,
            pauses in proptest::collection::vec(0_u64..2000, 1..200),
        ) {
            let limit = RateLimit::new(per_second, burst);
            let (alice, start) = (user("alice"), Instant::now());
            let mut elapsed = Duration::ZERO;
            let mut admitted = 0;
            for pause in pauses {
                elapsed += Duration::from_millis(pause) / 10;
                if limit.take(&alice, start + elapsed).is_ok() {
                    admitted += 1;
                }
                let allowed = f64::from(burst) + per_second * elapsed.as_secs_f64();
                prop_assert!(f64::from(admitted) <= allowed + 1e-6, "{admitted} > {allowed}");
            }
        }

        #[test]
        fn who_waits_as_long_as_told_is_let_in_and_a_moment_earlier_is_not(
            per_second in 0.1_f64..1000.0,
            burst in 1_u32..20,
            asks in 0_usize..60,
            impatience_nanos in 1_u64..1_000_000,
        ) {
            let limit = RateLimit::new(per_second, burst);
            let (alice, start) = (user("alice"), Instant::now());
            for _ in 0..asks {
                let _ = limit.take(&alice, start);
            }
            if let Err(wait) = limit.take(&alice, start) {
                prop_assert!(wait > Duration::ZERO && asks >= burst as usize);
                let early = wait.saturating_sub(Duration::from_nanos(impatience_nanos));
                let left = limit.take(&alice, start + early).unwrap_err();
                prop_assert_eq!(left, wait - early);
                prop_assert_eq!(limit.take(&alice, start + wait), Ok(()));
            } else {
                prop_assert!(asks < burst as usize);
            }
        }
    }
}
