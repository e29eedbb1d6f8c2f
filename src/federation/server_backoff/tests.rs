use super::*;
use crate::types::poll_once;
use std::pin::pin;

const SECOND: Duration = Duration::from_secs(1);

fn server(name: &str) -> ServerName {
    name.parse().unwrap()
}

fn id(number: usize) -> MediaId {
    format!("media{number}").parse().unwrap()
}

fn one() -> ServerName {
    server("one.example")
}

/// Returns how long a server is left alone.
fn left(backoff: &ServerBackoff, server: &ServerName, now: Instant) -> Duration {
    match backoff.check(server, now) {
        Ok(()) => Duration::ZERO,
        Err(FetchError::BackedOff { retry_after }) => retry_after,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn each_failure_doubles_the_time_in_which_a_server_is_left_alone() {
    let backoff = ServerBackoff::new(1);
    let mut now = Instant::now();
    assert_eq!(left(&backoff, &one(), now), Duration::ZERO);
    for round in 0..40 {
        backoff.failed(&one(), Failure::Silent, now);
        let most = FIRST_DELAY.saturating_mul(1 << round.min(20)).min(MAX_DELAY);
        let delay = left(&backoff, &one(), now);
        assert!(delay >= most * 3 / 4 && delay <= most, "round {round}: {delay:?} of {most:?}");
        assert_eq!(left(&backoff, &server("other.example"), now), Duration::ZERO);
        now += delay;
        assert_eq!(left(&backoff, &one(), now), Duration::ZERO);
    }
}

#[test]
fn the_failures_of_a_crowd_are_one() {
    let backoff = ServerBackoff::new(1);
    let now = Instant::now();
    for _ in 0..1000 {
        backoff.failed(&one(), Failure::Silent, now);
    }
    assert!(left(&backoff, &one(), now) <= FIRST_DELAY);
}

#[test]
fn a_success_makes_up_for_all_failures() {
    let backoff = ServerBackoff::new(1);
    let mut now = Instant::now();
    for _ in 0..10 {
        backoff.failed(&one(), Failure::Silent, now);
        now += left(&backoff, &one(), now);
    }
    backoff.answered(&one(), now);
    backoff.failed(&one(), Failure::Silent, now);
    assert!(left(&backoff, &one(), now) <= FIRST_DELAY);
}

#[test]
fn failures_of_long_ago_do_not_count() {
    let backoff = ServerBackoff::new(1);
    let mut now = Instant::now();
    for _ in 0..10 {
        backoff.failed(&one(), Failure::Silent, now);
        now += left(&backoff, &one(), now);
    }
    now += MEMORY + SECOND;
    backoff.failed(&one(), Failure::Silent, now);
    assert!(left(&backoff, &one(), now) <= FIRST_DELAY);
}

#[test]
fn a_server_that_answers_with_failures_is_not_left_alone_for_long() {
    let backoff = ServerBackoff::new(1);
    let mut now = Instant::now();
    for number in 0..30 {
        backoff.failed(&one(), Failure::Erring(&id(number)), now);
        let delay = left(&backoff, &one(), now);
        assert_eq!(delay > Duration::ZERO, number >= 2, "{number}");
        assert!(delay <= MAX_DELAY_OF_ERRORS, "{delay:?}");
        now += delay;
    }
    backoff.failed(&one(), Failure::Erring(&id(0)), now);
    assert!(left(&backoff, &one(), now) > Duration::ZERO, "it still fails for all");
}

/// FE-15
#[test]
fn media_that_a_server_fails_for_is_nothing_against_its_other_media() {
    let backoff = ServerBackoff::new(1);
    let now = Instant::now();
    for _ in 0..100 {
        backoff.failed(&one(), Failure::Erring(&id(0)), now);
        backoff.failed(&one(), Failure::Erring(&id(1)), now);
    }
    assert_eq!(left(&backoff, &one(), now), Duration::ZERO);
    backoff.answered(&one(), now);
    backoff.failed(&one(), Failure::Erring(&id(2)), now);
    assert_eq!(left(&backoff, &one(), now), Duration::ZERO, "a good answer was between");
}

/// FE-15
#[test]
fn what_a_server_asks_for_is_obeyed_up_to_a_bound() {
    let backoff = ServerBackoff::new(1);
    let now = Instant::now();
    backoff.has_asked(&one(), 30 * SECOND, now);
    assert_eq!(left(&backoff, &one(), now), 30 * SECOND);
    backoff.answered(&one(), now + SECOND);
    assert_eq!(left(&backoff, &one(), now + SECOND), 29 * SECOND, "an answer to another question");
    backoff.has_asked(&one(), SECOND, now);
    assert_eq!(left(&backoff, &one(), now), 30 * SECOND);
    backoff.has_asked(&one(), Duration::from_secs(u64::MAX), now);
    assert_eq!(left(&backoff, &one(), now), MAX_DELAY);
    backoff.answered(&one(), now + MAX_DELAY);
    assert_eq!(left(&backoff, &one(), now + MAX_DELAY), Duration::ZERO);
}

#[test]
fn other_spellings_are_no_other_servers() {
    let backoff = ServerBackoff::new(1);
    let now = Instant::now();
    for (failed, asked) in [
        ("ONE.example", "one.EXAMPLE."),
        ("[2001:db8:0::1]:443", "[2001:DB8::1]:443"),
        ("[::ffff:192.0.2.1]", "192.0.2.1"),
    ] {
        backoff.failed(&server(failed), Failure::Silent, now);
        assert!(left(&backoff, &server(asked), now) > Duration::ZERO, "{asked}");
    }
    assert_eq!(left(&backoff, &server("[2001:db8::1]"), now), Duration::ZERO);
}

/// FE-08
#[test]
fn however_many_servers_fail_the_table_has_a_bound() {
    let backoff = ServerBackoff::new(1);
    let now = Instant::now();
    for number in 0..50_000 {
        backoff.failed(&server(&format!("s{number}.example")), Failure::Silent, now);
    }
    let table = backoff.table();
    assert!(table.young.len() <= GENERATION && table.old.len() <= GENERATION);
    drop(table);
    assert!(left(&backoff, &server("s49999.example"), now) > Duration::ZERO);
    assert_eq!(left(&backoff, &server("s0.example"), now), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_waits_for_a_place_of_its_server_but_not_for_ever() {
    let backoff = ServerBackoff::new(1);
    let far = Instant::now() + 1000 * SECOND;
    let place = backoff.enter(&one(), far).await.unwrap();
    let _other = backoff.enter(&server("other.example"), far).await.unwrap();
    let begun = Instant::now();
    assert_eq!(backoff.enter(&one(), far).await.err(), Some(FetchError::TooMany));
    assert_eq!(begun.elapsed(), PLACE_PATIENCE);
    let soon = Instant::now() + SECOND;
    assert_eq!(backoff.enter(&one(), soon).await.err(), Some(FetchError::TooMany));
    assert_eq!(begun.elapsed(), PLACE_PATIENCE + SECOND);
    let same = server("ONE.example");
    let mut waiting = pin!(backoff.enter(&same, far));
    assert!(poll_once(&mut waiting).await.is_pending());
    drop(place);
    assert!(waiting.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_a_place_hears_that_the_server_has_failed() {
    let backoff = ServerBackoff::new(1);
    let far = Instant::now() + 1000 * SECOND;
    let one = one();
    let place = backoff.enter(&one, far).await.unwrap();
    let mut waiting = pin!(backoff.enter(&one, far));
    assert!(poll_once(&mut waiting).await.is_pending());
    backoff.failed(&one, Failure::Silent, Instant::now());
    drop(place);
    assert!(matches!(waiting.await.err(), Some(FetchError::BackedOff { .. })));
}
