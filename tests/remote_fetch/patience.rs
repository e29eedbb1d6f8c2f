//! Servers that are slow, dead, or ask to be left alone, and how much is asked of one at once.

use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use mediary::federation::{
    FetchError, FetchOptions, FetchResult, RemoteFetcher, RemoteMedia, TransferLimits,
};
use mediary::types::{BodyError, BodyReader, Mxc};

use crate::common::Origin;
use crate::common::fake::{respond, respond_with};
use crate::common::origin::{drip, multipart};
use crate::world::*;

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Fetches media of a server by its id.
async fn fetch_id(
    fetcher: &RemoteFetcher,
    origin: &Origin,
    media_id: &str,
) -> Result<RemoteMedia, FetchError> {
    let us = US.parse().expect("a name");
    let mxc = format!("mxc://{}/{media_id}", origin.server_name());
    let mxc: Mxc = mxc.parse().expect("a URI");
    let place = fetcher.enter(&mxc.server_name).await?;
    fetcher.fetch(place, &us, &mxc, OPTIONS).await
}

/// FE-08
#[test]
fn a_body_that_drips_is_given_up() {
    in_a_world(async |world| {
        let origin = world.origin(|_, stream| {
            let body = multipart("a/b", None, &[b'x'; 10_000]);
            let head = "200 OK\r\nContent-Type: multipart/mixed; boundary=ofTwoParts\r\n\
                        Content-Length: 20000";
            begin(stream, head, &body[..200]);
            drip(stream, &body[200..], millis(10))
        });
        let limits = TransferLimits { min_rate: 10_000, slow_timeout: millis(500), ..LIMITS };
        let media = fetch(&world.fetcher_within(limits), &origin).await.unwrap();
        assert!(matches!(read(media.body).await, Err(BodyError::TimedOut)));
    });
}

#[test]
fn a_slow_reader_is_nothing_against_the_server() {
    in_a_world(async |world| {
        let origin = world.origin_that_may(|_, _| None);
        origin.keep("abc", "a/b", None, &[b'x'; 1_000_000]);
        let limits = TransferLimits { min_rate: 1_000, slow_timeout: millis(1000), ..LIMITS };
        let mut body = fetch(&world.fetcher_within(limits), &origin).await.unwrap().body;
        let first = body.next().await.unwrap().unwrap();
        tokio::time::sleep(millis(2500)).await;
        assert_eq!(first.len() + read(body).await.unwrap().len(), 1_000_000);
    });
}

/// FE-08
#[test]
fn the_head_of_an_answer_has_a_deadline_and_so_have_the_heads_of_its_parts() {
    in_a_world(async |world| {
        let first = world.origin(|_, stream| {
            let head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1000));
            drip(stream, head.as_bytes(), millis(50))
        });
        let second = world.origin(|_, stream| {
            let head =
                "200 OK\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Length: 9000";
            begin(stream, head, b"--b\r\n");
            drip(stream, &[b'H'; 1000], millis(50))
        });
        let third = world.origin(|_, stream| {
            begin(stream, "404 No\r\nContent-Length: 9000", b"{");
            drip(stream, &[b' '; 1000], millis(50))
        });
        let limits = TransferLimits { timeout: millis(400), ..LIMITS };
        let options = FetchOptions { wait: millis(100), ..OPTIONS };
        for origin in [first, second, third] {
            let begun = std::time::Instant::now();
            let fetcher = world.fetcher_within(limits);
            let refusal =
                fetch_named(&fetcher, &origin.server_name(), options).await.err().unwrap();
            assert_eq!(refusal.result(), FetchResult::TimedOut, "{refusal}");
            assert!(begun.elapsed() < millis(5000));
            assert_eq!(origin.received().len(), 1);
        }
    });
}

/// FE-15
#[test]
fn a_server_that_asks_for_patience_is_left_alone_within_reason() {
    in_a_world(async |world| {
        for (fields, body, least, most) in [
            (&[("Retry-After", "31536000")][..], "{}", 3500, 3600),
            (&[], r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":60000}"#, 55, 60),
        ] {
            let origin =
                world.origin(move |_, stream| respond_with(stream, 429, fields, body.as_bytes()));
            let fetcher = world.fetcher();
            let first = fetch(&fetcher, &origin).await.err().unwrap();
            assert_eq!(first.result(), FetchResult::BackedOff);
            for _ in 0..100 {
                let FetchError::BackedOff { retry_after } =
                    fetch(&fetcher, &origin).await.err().unwrap()
                else {
                    panic!("left alone")
                };
                assert!((least..=most).contains(&retry_after.as_secs()), "{retry_after:?}");
            }
            assert_eq!(origin.received().len(), 1);
        }
    });
}

/// FE-15
#[test]
fn one_bad_id_does_not_mark_the_server() {
    in_a_world(async |world| {
        let origin = world.origin_that_may(|request, stream| {
            let is_bad = request.target().contains("/abc");
            is_bad.then(|| respond(stream, 404, r#"{"errcode":"M_NOT_FOUND","error":""}"#))
        });
        origin.keep("good", "a/b", None, b"media");
        let fetcher = world.fetcher();
        for _ in 0..5 {
            assert_eq!(fetch(&fetcher, &origin).await.err(), Some(FetchError::NotFound));
        }
        let media = fetch_id(&fetcher, &origin, "good").await.unwrap();
        assert_eq!(read(media.body).await.unwrap(), b"media");
    });
}

#[test]
fn a_server_that_fails_is_left_alone_for_a_moment_and_each_kind_is_told() {
    in_a_world(async |world| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dead = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        drop(listener);
        world.dns.set_addresses("inside.example", &["10.0.0.1"]);
        world.dns.set_addresses("other.example", &["127.0.0.1"]);
        let other = world.origin(|_, _| false);
        let tls = format!("other.example:{}", other.port());
        let fetcher = world.fetcher();
        for (name, result) in [
            (dead.as_str(), FetchResult::Unreachable),
            ("nowhere.example:8448", FetchResult::Discovery),
            ("inside.example:8448", FetchResult::Forbidden),
            ("10.0.0.1", FetchResult::Forbidden),
            (&tls, FetchResult::Tls),
        ] {
            let refusal = fetch_named(&fetcher, name, OPTIONS).await.err().unwrap();
            assert_eq!(refusal.result(), result, "{name}: {refusal}");
            let again = fetch_named(&fetcher, name, OPTIONS).await.err().unwrap();
            assert_eq!(again.result(), FetchResult::BackedOff, "{name}: {again}");
        }
        assert_eq!(other.received().len(), 0, "nothing is sent to somebody else (XM-11)");
        assert_eq!(other.connections(), 1);
    });
}

/// FE-15
#[test]
fn a_server_that_fails_for_several_media_is_left_alone_for_a_moment_and_not_for_one() {
    in_a_world(async |world| {
        let origin = world.origin(|_, stream| respond(stream, 503, "{}"));
        let fetcher = world.fetcher();
        for (media_id, result) in [
            ("one", FetchResult::ServerError),
            ("one", FetchResult::ServerError),
            ("two", FetchResult::ServerError),
            ("one", FetchResult::ServerError),
            ("three", FetchResult::ServerError),
            ("one", FetchResult::BackedOff),
            ("four", FetchResult::BackedOff),
        ] {
            let refusal = fetch_id(&fetcher, &origin, media_id).await.err().unwrap();
            assert_eq!(refusal.result(), result, "{media_id}");
        }
        assert_eq!(origin.received().len(), 5);
    });
}

#[test]
fn fetches_of_one_server_are_bounded_and_do_not_hold_up_others() {
    in_a_world(async |world| {
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let may_go_on = Mutex::new(may_go_on);
        let slow = world.origin(move |_, stream| {
            let whole = multipart("a/b", None, b"media");
            let head = format!(
                "200 OK\r\nContent-Type: multipart/mixed; boundary=ofTwoParts\r\nContent-Length: {}",
                whole.len()
            );
            begin(stream, &head, &whole[..whole.len() - 10]);
            let _ = may_go_on.lock().unwrap().recv();
            std::io::Write::write_all(stream, &whole[whole.len() - 10..]).is_ok()
        });
        let other = world.origin_that_may(|_, _| None);
        other.keep("abc", "a/b", None, b"media");
        let limits = TransferLimits { max_per_server: 2, timeout: millis(1500), ..LIMITS };
        let fetcher = world.fetcher_within(limits);
        let options = FetchOptions { wait: Duration::ZERO, ..OPTIONS };
        let slowly = async || fetch_named(&fetcher, &slow.server_name(), options).await;

        let (one, two) = (slowly().await.unwrap(), slowly().await.unwrap());
        assert_eq!(slowly().await.err(), Some(FetchError::TooMany));
        assert_eq!(slow.received().len(), 2);
        assert!(fetch(&fetcher, &other).await.is_ok());
        drop(one);
        let three = slowly().await.unwrap();

        // A body that was read to its end holds its place no longer, though nobody has dropped it.
        let mut body = two.body;
        for _ in 0..3 {
            go_on.send(()).unwrap();
        }
        while body.next().await.unwrap().is_some() {}
        assert!(slowly().await.is_ok());
        drop((body, three));
    });
}
