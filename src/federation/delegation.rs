//! What is remembered of a host's well-known file, and when it is asked for again (DISC-06, FLD-28).

use std::time::Duration;

use tokio::time::Instant;

use super::well_known::failure_lifetime;
use crate::types::ServerName;

/// How long after its end a valid file makes failures count as passing (FLD-28).
const REMEMBERED_AS_VALID: Duration = Duration::from_secs(2 * 60 * 60);

/// How long a valid file is held on to whose host fails for the moment, before it is asked again.
const RETRY: Duration = Duration::from_secs(2 * 60);

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// A valid file, and how long it is good.
    Valid(ServerName, Duration),
    /// There is none, or it is not valid.
    None,
    /// It could not be told: no connection, no answer, an error of the server.
    Failed,
}

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delegation {
    /// Whom the file names; `None` if there is no valid file.
    pub(super) to: Option<ServerName>,
    asked_at: Instant,
    ask_again_at: Instant,
    good_until: Instant,
    had_valid_until: Option<Instant>,
    failures: u32,
}

impl Delegation {
    /// Adds what came of asking to what was known before. `jitter`, from 0 to 1, spreads the moments at
    /// which files are asked for again over half of the last fifth of their lifetimes.
    pub(super) fn after(previous: Option<&Self>, asked: Asked, now: Instant, jitter: f64) -> Self {
        match asked {
            Asked::Valid(server, lifetime) => Self {
                to: Some(server),
                asked_at: now,
                ask_again_at: now + lifetime.mul_f64(0.8 + 0.1 * jitter),
                good_until: now + lifetime,
                had_valid_until: Some(now + lifetime + REMEMBERED_AS_VALID),
                failures: 0,
            },
            Asked::None | Asked::Failed => {
                let is_good = |known: &&Self| known.to.is_some() && now < known.good_until;
                match previous.filter(is_good) {
                    Some(known) if asked == Asked::Failed => known.held(now),
                    _ => Self::missing(previous, now),
                }
            }
        }
    }

    /// Holds on to what is still good.
    fn held(&self, now: Instant) -> Self {
        let ask_again_at = (now + RETRY).min(self.good_until);
        Self { asked_at: now, ask_again_at, ..self.clone() }
    }

    fn missing(previous: Option<&Self>, now: Instant) -> Self {
        let failures = previous.map_or(0, |known| known.failures).saturating_add(1);
        let had_valid_until = previous.and_then(|known| known.had_valid_until);
        let had_valid = had_valid_until.is_some_and(|until| now < until);
        let good_until = now + failure_lifetime(failures, had_valid);
        let to = None;
        Self { to, asked_at: now, ask_again_at: good_until, good_until, had_valid_until, failures }
    }

    /// Whether it is time to ask again. `is_suspect` says that where it led to there was nobody: a valid
    /// file is then asked for at once, but not more often than each `pause`. That there is none keeps
    /// its time, which begins short.
    pub(super) fn is_due(&self, now: Instant, is_suspect: bool, pause: Duration) -> bool {
        now >= self.ask_again_at
            || (is_suspect && self.to.is_some() && now >= self.asked_at + pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const PAUSE: Duration = Duration::from_secs(10);

    fn valid(minutes: u32) -> Asked {
        Asked::Valid("m.example".parse().unwrap(), MINUTE * minutes)
    }

    fn is_due(known: &Delegation, now: Instant) -> bool {
        known.is_due(now, false, PAUSE)
    }

    /// FLD-28
    #[test]
    fn a_file_is_asked_for_again_in_the_last_fifth_of_its_life() {
        let now = Instant::now();
        for (jitter, minutes) in [(0.0, 80), (0.5, 85), (1.0, 90)] {
            let known = Delegation::after(None, valid(100), now, jitter);
            let at = now + MINUTE * minutes;
            assert!(!is_due(&known, at - PAUSE) && is_due(&known, at + PAUSE), "{jitter}");
        }
    }

    /// FLD-28
    #[test]
    fn a_good_file_outlives_a_host_that_fails_and_no_longer() {
        let now = Instant::now();
        let known = Delegation::after(None, valid(100), now, 0.0);
        let later = now + MINUTE * 90;
        let held = Delegation::after(Some(&known), Asked::Failed, later, 0.0);
        assert_eq!(held.to, known.to);
        assert!(!is_due(&held, later + MINUTE) && is_due(&held, later + MINUTE * 2));
        let end = now + MINUTE * 100;
        let gone = Delegation::after(Some(&held), Asked::Failed, end, 0.0);
        assert_eq!(gone.to, None);
    }

    /// DISC-05
    #[test]
    fn a_file_that_is_taken_away_is_gone_at_once() {
        let now = Instant::now();
        let known = Delegation::after(None, valid(100), now, 0.0);
        let gone = Delegation::after(Some(&known), Asked::None, now + MINUTE, 0.0);
        assert_eq!(gone.to, None);
    }

    /// FLD-28
    #[test]
    fn failures_are_short_for_two_hours_after_a_valid_file() {
        let now = Instant::now();
        let mut known = Delegation::after(None, valid(10), now, 0.0);
        for minutes in [10, 60, 129] {
            let now = now + MINUTE * minutes;
            known = Delegation::after(Some(&known), Asked::Failed, now, 0.0);
            assert!(!is_due(&known, now + MINUTE) && is_due(&known, now + MINUTE * 2));
        }
        let now = now + MINUTE * 131;
        known = Delegation::after(Some(&known), Asked::Failed, now, 0.0);
        assert!(!is_due(&known, now + MINUTE * 7), "four failures in a row");
    }

    /// DISC-06
    #[test]
    fn failures_in_a_row_are_remembered_longer_and_a_success_ends_the_row() {
        let mut now = Instant::now();
        let mut known = None;
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            let next = Delegation::after(known.as_ref(), Asked::None, now, 0.0);
            now += MINUTE * minutes;
            assert!(!is_due(&next, now - PAUSE) && is_due(&next, now), "{minutes}");
            known = Some(next);
        }
        let known = Delegation::after(known.as_ref(), valid(10), now, 0.0);
        assert_eq!(known.failures, 0);
    }

    #[test]
    fn a_file_that_leads_to_nobody_is_asked_for_after_a_pause_and_none_is_not() {
        let now = Instant::now();
        let known = Delegation::after(None, valid(100), now, 0.0);
        assert!(
            !known.is_due(now + PAUSE / 2, true, PAUSE) && known.is_due(now + PAUSE, true, PAUSE)
        );
        let none = Delegation::after(None, Asked::None, now, 0.0);
        assert!(!none.is_due(now + PAUSE, true, PAUSE));
    }
}
