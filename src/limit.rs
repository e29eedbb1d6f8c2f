//! How often, and how much, somebody may ask: the generic cell rate algorithm, a leaky bucket that is
//! one moment for each user or address.
//!
//! What is remembered of somebody is when their burst will be whole again. Whoever has not asked for
//! so long is as good as new and is forgotten.

mod places;
mod table;
mod traffic;

use std::fmt;
use std::hash::Hash;
use std::time::{Duration, Instant};

use table::Table;

pub use places::{Place, Places};
pub use traffic::{Rates, Tab, Traffic};

/// How many users or addresses one limit remembers, at about two hundred bytes each.
const CAPACITY: usize = 100_000;

/// The longest time for one place; a rate of nearly nothing is this.
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// A limit was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} exceeded")]
pub struct Exceeded {
    /// Which limit.
    pub limit: Limit,
    /// When the next request will be let in.
    pub retry_after: Duration,
}

/// The limits on how often and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// On the requests of a user.
    UserRequests,
    /// On the bytes of a user.
    UserBytes,
    /// On the requests from an address.
    AddressRequests,
    /// On the bytes from and to an address.
    AddressBytes,
    /// On the media ids that a user creates (CS-CRE-05).
    Creations,
    /// On the requests of another server.
    ServerRequests,
    /// On how many of them are answered at once.
    ServerConcurrency,
}

impl Limit {
    /// Returns its name among the kinds of refusals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserRequests => "user_requests",
            Self::UserBytes => "user_bytes",
            Self::AddressRequests => "address_requests",
            Self::AddressBytes => "address_bytes",
            Self::Creations => "create",
            Self::ServerRequests => "server_requests",
            Self::ServerConcurrency => "server_concurrency",
        }
    }

    /// Makes the refusal of whoever has met this limit.
    pub fn exceeded(self, retry_after: Duration) -> Exceeded {
        Exceeded { limit: self, retry_after }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UserRequests => "the user's rate of requests is",
            Self::UserBytes => "the user's rate of bytes is",
            Self::AddressRequests => "the address's rate of requests is",
            Self::AddressBytes => "the address's rate of bytes is",
            Self::Creations => "the user's rate of new media ids is",
            Self::ServerRequests => "the server's rate of requests is",
            Self::ServerConcurrency => "the server's number of requests at once is",
        })
    }
}

/// A time in parts of a nanosecond, 2^32 of them, so that many small costs add up to what one large one
/// comes to. Nothing that is configured comes near its largest.
type Ticks = u128;

const TICKS_PER_NANO: u32 = u32::BITS;

fn ticks(duration: Duration) -> Ticks {
    duration.as_nanos() << TICKS_PER_NANO
}

/// Rounds up: whoever waits so long has waited long enough.
fn duration(ticks: Ticks) -> Duration {
    let nanos = ticks.div_ceil(1 << TICKS_PER_NANO);
    Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX))
}

/// A limit on how often each of many may do something, or on how much.
///
/// Memory is bounded: of very many, those that asked least recently are forgotten, and begin with a
/// full burst the next time.
pub struct RateLimit<K> {
    /// When somebody's burst will be whole again, as time since `origin`.
    whole_at: Table<K>,
    origin: Instant,
    /// The time for one place.
    interval: Ticks,
    /// The time for all places of a burst.
    burst: Ticks,
}

impl<K: Hash + Eq + Clone> RateLimit<K> {
    /// Makes a limit that gives each `burst` places at once and `per_second` places a second in the
    /// long run.
    ///
    /// A burst of 0 counts as 1, and a rate that is no positive number as one place a day.
    pub fn new(per_second: f64, burst: u64) -> Self {
        Self::remembering(CAPACITY, per_second, burst)
    }

    fn remembering(keys: usize, per_second: f64, burst: u64) -> Self {
        // Rounded up, so that never more are let in than the rate says.
        let nanos = 1e9 / per_second.max(0.0);
        let interval = (nanos * 2_f64.powi(TICKS_PER_NANO as i32)).ceil() as Ticks;
        let interval = interval.clamp(1, ticks(MAX_INTERVAL));
        let burst = interval.saturating_mul(burst.max(1).into());
        Self { whole_at: Table::new(keys), origin: Instant::now(), interval, burst }
    }

    /// Takes one place. Of concurrent calls each is counted.
    ///
    /// # Errors
    ///
    /// How long until there is a place, if there is none; asking does not make it longer.
    pub fn take(&self, key: &K, now: Instant) -> Result<(), Duration> {
        self.spend_within(key, 1, self.burst - self.interval, now)
    }

    /// Looks whether somebody has taken more places than there are.
    ///
    /// # Errors
    ///
    /// How long that lasts.
    pub fn check(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let now = self.since_origin(now);
        let whole_at = self.whole_at.get(key, now).unwrap_or(now);
        let debt = (whole_at - now).saturating_sub(self.burst);
        if debt == 0 { Ok(()) } else { Err(duration(debt)) }
    }

    /// Takes any number of places, more than there are too, unless that was done already and is not
    /// made up for: otherwise nobody could ever do what takes more than a burst. Of concurrent calls
    /// each is counted.
    ///
    /// # Errors
    ///
    /// How long until it is made up for; asking does not make it longer.
    pub fn spend(&self, key: &K, places: u64, now: Instant) -> Result<(), Duration> {
        self.spend_within(key, places, self.burst, now)
    }

    /// Takes any number of places, whatever was taken before: what they stand for has happened.
    pub fn charge(&self, key: &K, places: u64, now: Instant) {
        let _ = self.spend_within(key, places, Ticks::MAX, now);
    }

    /// Gives places back that were taken for nothing.
    pub fn give_back(&self, key: &K, places: u64, now: Instant) {
        let cost = self.interval.saturating_mul(places.into());
        let now = self.since_origin(now);
        // Nobody has more than a whole burst: what does not lie ahead is none.
        self.whole_at.update(key, now, |whole_at| {
            (whole_at.map(|whole_at| whole_at.saturating_sub(cost)), ())
        });
    }

    /// Takes places if the burst will be whole again within `tolerance`.
    fn spend_within(
        &self,
        key: &K,
        places: u64,
        tolerance: Ticks,
        now: Instant,
    ) -> Result<(), Duration> {
        let now = self.since_origin(now);
        let cost = self.interval.saturating_mul(places.into());
        self.whole_at.update(key, now, |whole_at| {
            let ahead = whole_at.unwrap_or(now) - now;
            match ahead.checked_sub(tolerance) {
                None | Some(0) => (Some((now + ahead).saturating_add(cost)), Ok(())),
                Some(wait) => (whole_at, Err(duration(wait))),
            }
        })
    }

    fn since_origin(&self, now: Instant) -> Ticks {
        ticks(now.saturating_duration_since(self.origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use proptest::prelude::*;

    use crate::types::UserId;

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
        }
        assert!(limit.whole_at.len() <= 10);
        limit.take(&user("999"), now).unwrap_err();
        limit.take(&user("0"), now).unwrap();
    }

    #[test]
    fn rates_and_bursts_beyond_sense_do_not_panic() {
        let now = Instant::now();
        for per_second in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 1e300] {
            for burst in [0, 1, u64::MAX] {
                let limit = RateLimit::new(per_second, burst);
                limit.take(&user("alice"), now).unwrap();
                let _ = limit.take(&user("alice"), now);
                for places in [0, 1, u64::MAX] {
                    let _ = limit.spend(&user("bob"), places, now);
                    limit.charge(&user("bob"), places, now);
                    let _ = limit.check(&user("bob"), now);
                    limit.give_back(&user("bob"), places, now);
                }
            }
        }
        let limit = RateLimit::new(0.0, 0);
        limit.take(&user("alice"), now).unwrap();
        assert!(limit.take(&user("alice"), now).unwrap_err() <= MAX_INTERVAL);
    }

    #[test]
    fn whoever_has_spent_more_than_there_was_waits_until_it_is_made_up_for() {
        let limit = RateLimit::new(100.0, 1000);
        let (alice, start) = (user("alice"), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        limit.spend(&alice, 1000, start).unwrap();
        limit.check(&alice, start).unwrap();
        limit.spend(&alice, 500, start).unwrap();
        assert_eq!(limit.check(&alice, start), Err(Duration::from_secs(5)));
        assert_eq!(limit.spend(&alice, 1, at(2)), Err(Duration::from_secs(3)));
        limit.charge(&alice, 100, at(2));
        assert_eq!(limit.check(&alice, at(2)), Err(Duration::from_secs(4)));
        limit.check(&alice, at(6)).unwrap();
        limit.spend(&alice, 1, at(6)).unwrap();
        limit.spend(&alice, 1, at(6)).unwrap_err();
    }

    #[test]
    fn what_is_given_back_was_never_taken_but_nobody_gets_more_than_a_burst() {
        let limit = RateLimit::new(1.0, 10);
        let (alice, now) = (user("alice"), Instant::now());
        limit.spend(&alice, 1_000_000, now).unwrap();
        limit.check(&alice, now).unwrap_err();
        limit.give_back(&alice, 1_000_000, now);
        limit.give_back(&alice, 5, now);
        for _ in 0..10 {
            limit.take(&alice, now).unwrap();
        }
        limit.take(&alice, now).unwrap_err();
        limit.give_back(&alice, 1, now);
        limit.take(&alice, now).unwrap();
        limit.take(&alice, now).unwrap_err();
    }

    #[test]
    fn a_debt_is_remembered_for_as_long_as_it_lasts() {
        let limit = RateLimit::remembering(10, 1.0, 10);
        let (alice, start) = (user("alice"), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        limit.charge(&alice, 1_000_010, start);
        for number in 0..1000 {
            // Each of these needs no memory when the next one comes.
            limit.take(&user(&number.to_string()), at(number)).unwrap();
        }
        assert_eq!(limit.check(&alice, at(1000)), Err(Duration::from_secs(999_000)));
        limit.check(&alice, at(1_000_000)).unwrap();
    }

    #[test]
    fn fast_rates_of_bytes_are_kept_to_the_byte() {
        // Ten gigabytes a second are a tenth of a nanosecond for each.
        let limit = RateLimit::new(1e10, 1000);
        let (alice, start) = (user("alice"), Instant::now());
        for _ in 0..1000 {
            limit.charge(&alice, 1_000_000, start);
        }
        let wait = limit.check(&alice, start).unwrap_err();
        let expected = Duration::from_secs_f64((1e9 - 1000.0) / 1e10);
        assert!(wait.abs_diff(expected) < Duration::from_micros(1), "{wait:?}");
    }

    proptest! {
        #[test]
        fn what_is_spent_is_the_burst_the_rate_and_one_excess(
            per_second in 1.0_f64..1e6,
            burst in 1_u64..1_000_000,
            steps in proptest::collection::vec((0_u64..3000, 0_u64..100_000), 1..200),
        ) {
            let limit = RateLimit::new(per_second, burst);
            let (alice, start) = (user("alice"), Instant::now());
            let (mut elapsed, mut spent, mut last) = (Duration::ZERO, 0, 0);
            for (pause, places) in steps {
                elapsed += Duration::from_millis(pause) / 10;
                if limit.spend(&alice, places, start + elapsed).is_ok() {
                    spent += places;
                    last = places;
                }
                let allowed = burst as f64 + per_second * elapsed.as_secs_f64() + last as f64;
                prop_assert!(spent as f64 <= allowed + 1e-3, "{spent} > {allowed}");
            }
        }

        #[test]
        fn never_more_than_the_burst_and_the_rate_are_let_in(
            per_second in 0.1_f64..1000.0,
            burst in 1_u32..20,
            pauses in proptest::collection::vec(0_u64..2000, 1..200),
        ) {
            let limit = RateLimit::new(per_second, burst.into());
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
            let limit = RateLimit::new(per_second, burst.into());
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
