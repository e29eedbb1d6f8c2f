//! Bodies that break off and go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mediary::types::BodyError;

use crate::common::fake::{Received, respond};
use crate::common::origin::{TlsStream, stall};
use crate::common::{Origin, noise};
use crate::world::*;

const SIZE: usize = 100_000;

/// How a store of media behaves.
#[derive(Clone, Copy)]
struct Manners {
    /// Fields beside the length of the first answer.
    fields: &'static str,
    /// How many bytes of the body come before each break.
    breaks_after: usize,
    /// How it answers a request for the rest from here on.
    rest: fn(usize) -> String,
}

const GOOD: Manners = Manners {
    fields: "ETag: \"a\"\r\nContent-Type: image/png",
    breaks_after: 40_000,
    rest: |from| format!("206 Partial\r\nETag: \"a\"\r\nContent-Range: bytes {from}-99999/{SIZE}"),
};

/// Answers as a store does that breaks off again and again.
fn answer(manners: Manners, request: &Received, stream: &mut TlsStream) -> bool {
    let body = noise(SIZE, 3);
    let from = request.header("range").map(|range| {
        let from = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
        from.expect("a range to the end").parse::<usize>().expect("a position")
    });
    let (head, rest) = match from {
        None => (format!("200 OK\r\n{}", manners.fields), &body[..]),
        Some(from) => ((manners.rest)(from), &body[from..]),
    };
    let sent = rest.len().min(manners.breaks_after);
    begin(stream, &format!("{head}\r\nContent-Length: {}", rest.len()), &rest[..sent]);
    sent == rest.len()
}

/// A store with these manners, and a server that leads to it.
fn store(world: &World, manners: Manners) -> (Origin, Origin) {
    let store = world.origin(move |request, stream| answer(manners, request, stream));
    let origin = world.origin_leading_to(&format!("https://{}/x?y", store.server_name()));
    (store, origin)
}

fn ranges(store: &Origin) -> Vec<Option<String>> {
    let range = |request: &Received| request.header("range").map(str::to_owned);
    store.received().iter().map(range).collect()
}

#[test]
fn a_rest_that_is_longer_than_it_says_is_not_taken() {
    in_a_world(async |world| {
        let rest = |from| {
            let last = from + 9;
            format!("206 Partial\r\nETag: \"a\"\r\nContent-Range: bytes {from}-{last}/{SIZE}")
        };
        let (store, origin) = store(&world, Manners { rest, ..GOOD });
        let failure = world.break_off(&origin).await;
        assert!(matches!(failure, BodyError::Malformed(_)), "{failure}");
        assert_eq!(store.received().len(), 2);
    });
}

#[test]
fn a_body_goes_on_where_it_broke_off() {
    const BY_TIME: &str = "Last-Modified: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
                           Date: Sat, 21 Nov 2026 13:00:00 GMT\r\nAccept-Ranges: bytes";
    for (fields, validator) in [
        (GOOD.fields, "\"a\""),
        ("ETag: \"a\"\r\nAccept-Ranges: bytes", "\"a\""),
        (BY_TIME, "Sat, 21 Nov 2026 12:00:00 GMT"),
    ] {
        in_a_world(async |world| {
            let rest = |from| format!("206 Partial\r\nContent-Range: bytes {from}-99999/{SIZE}");
            let (store, origin) = store(&world, Manners { fields, rest, ..GOOD });
            assert!(world.whole(&origin).await == noise(SIZE, 3));
            let expected = [None, Some("bytes=40000-".to_owned()), Some("bytes=80000-".to_owned())];
            assert_eq!(ranges(&store), expected);
            for request in &store.received()[1..] {
                assert_eq!(request.target(), "/x?y");
                assert_eq!(request.header("if-range"), Some(validator));
                assert_eq!(request.header("authorization"), None);
            }
            assert_eq!(origin.received().len(), 1, "the place is asked again, not the server");
        });
    }
}

#[test]
fn a_body_of_a_legacy_route_goes_on_where_it_broke_off() {
    in_a_world(async |world| {
        let origin = world.origin(|request, stream| {
            if request.target().starts_with("/_matrix/federation/") {
                return respond(stream, 404, r#"{"errcode":"M_UNRECOGNIZED","error":""}"#);
            }
            answer(GOOD, request, stream)
        });
        assert!(world.whole(&origin).await == noise(SIZE, 3));
        let received = origin.received_for("/_matrix/media/v3/");
        assert_eq!(received.len(), 3);
        assert!(received.iter().all(|request| request.header("authorization").is_none()));
    });
}

#[test]
fn a_body_that_has_become_another_does_not_go_on() {
    const ANOTHER: [fn(usize) -> String; 6] = [
        |_| "200 OK\r\nETag: \"a\"".to_owned(),
        |_| "416 No\r\nContent-Range: bytes */100000".to_owned(),
        |_| "206 Partial\r\nETag: \"a\"".to_owned(),
        |from| format!("206 Partial\r\nETag: \"b\"\r\nContent-Range: bytes {from}-99999/{SIZE}"),
        |from| format!("206 Partial\r\nContent-Range: bytes {}-99999/{SIZE}", from + 1),
        |from| format!("206 Partial\r\nContent-Range: bytes {from}-100000/100001"),
    ];
    for (number, rest) in ANOTHER.into_iter().enumerate() {
        in_a_world(async |world| {
            let (store, origin) = store(&world, Manners { rest, ..GOOD });
            assert!(matches!(world.break_off(&origin).await, BodyError::Gone), "{number}");
            assert_eq!(store.received().len(), 2, "{number}");
        });
    }
}

#[test]
fn a_body_that_cannot_be_told_from_another_does_not_go_on() {
    for fields in ["Accept-Ranges: bytes", "ETag: W/\"a\"", "ETag: \"a\"\r\nAccept-Ranges: none"] {
        in_a_world(async |world| {
            let (store, origin) = store(&world, Manners { fields, ..GOOD });
            assert!(matches!(world.break_off(&origin).await, BodyError::Gone), "{fields}");
            assert_eq!(store.received().len(), 1, "{fields}");
        });
    }
}

#[test]
fn a_body_goes_on_three_times_at_most() {
    in_a_world(async |world| {
        let (store, origin) = store(&world, Manners { breaks_after: 20_000, ..GOOD });
        assert!(matches!(world.break_off(&origin).await, BodyError::Gone));
        assert_eq!(store.received().len(), 4);
    });
}

#[test]
fn a_server_that_starts_again_is_given_a_moment() {
    in_a_world(async |world| {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let store = world.origin(move |request, stream| {
            // The second request meets a server that goes away.
            counted.fetch_add(1, Ordering::SeqCst) != 1 && answer(GOOD, request, stream)
        });
        let origin = world.origin_leading_to(&format!("https://{}/", store.server_name()));
        assert!(world.whole(&origin).await == noise(SIZE, 3));
        assert_eq!(asked.load(Ordering::SeqCst), 4);
    });
}

#[test]
fn a_body_that_stalls_does_not_go_on() {
    in_a_world(async |world| {
        let store = world.origin(|_, stream| {
            begin(stream, "200 OK\r\nETag: \"a\"\r\nContent-Length: 100", b"x");
            stall(stream)
        });
        let origin = world.origin_leading_to(&format!("https://{}/", store.server_name()));
        let limits = mediary::federation::TransferLimits {
            slow_timeout: std::time::Duration::from_millis(300),
            ..LIMITS
        };
        let media = fetch(&world.fetcher_within(limits), &origin).await.unwrap();
        assert!(matches!(read(media.body).await, Err(BodyError::TimedOut)));
        assert_eq!(store.received().len(), 1);
    });
}
