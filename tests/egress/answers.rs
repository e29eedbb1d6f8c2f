//! What is taken of an answer, and for how long it is waited for.

use std::io::Write;
use std::time::Instant as Clock;

use mediary::types::{BodyError, BodyReader};

use super::*;

/// Answers with these bytes and closes.
async fn answer(bytes: &'static [u8]) -> Result<Response, EgressError> {
    let world = World::new();
    let site = world.site(&["a.example"], move |_, stream| {
        let _ = stream.write_all(bytes);
        Some(false)
    });
    let response = get(&world.egress(&[LOOPBACK]), &site.endpoint("a.example")).await;
    // Its connections end with it, and the body is still to come.
    std::mem::forget(site);
    response
}

/// Answers with a head and then with the same bytes for ever.
fn endless(world: &World, head: &'static str, more: &'static [u8]) -> Site {
    world.site(&["a.example"], move |_, stream| {
        let _ = stream.write_all(head.as_bytes());
        while stream.write_all(more).is_ok() {}
        Some(false)
    })
}

#[tokio::test]
async fn a_body_is_delimited_by_its_length_or_its_chunks() {
    for (head, delimited, length) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..], true, Some(5)),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            true,
            None,
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", false, None),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", false, None),
    ] {
        let response = answer(head).await.unwrap();
        assert_eq!(response.is_delimited(), delimited);
        assert_eq!(response.content_length(), length);
        assert_eq!(whole(response).await, "hello");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_whole_and_stays_so() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nfive\r\n",
    ] {
        let mut body = answer(bytes).await.unwrap().body;
        let failure = loop {
            match body.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it looks whole: {}", bytes.escape_ascii()),
                Err(failure) => break failure,
            }
        };
        assert!(matches!(failure, BodyError::Gone | BodyError::Malformed(_)), "{failure}");
        assert!(body.next().await.is_err());
        let failure = refusal(answer(bytes).await.unwrap().whole(LIMIT, soon()).await);
        assert!(matches!(failure, EgressError::Misbehaved(_)), "{failure}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_as_soon_as_that_is_known() {
    let world = World::new();
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let site = endless(&world, head, b"5\r\nhello\r\n");
        let response = get(&world.egress(&[LOOPBACK]), &site.endpoint("a.example")).await.unwrap();
        let failure = refusal(response.whole(100, soon()).await);
        assert_eq!(failure, EgressError::TooLarge { limit: 100 });
    }
    let exact = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
    assert_eq!(exact.whole(5, soon()).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_coding_that_was_not_asked_for_is_visible() {
    let response =
        answer(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n").await;
    let response = response.unwrap();
    assert_eq!(response.field(&http::header::CONTENT_ENCODING), Some(&b"gzip"[..]));
}

#[tokio::test]
async fn interim_answers_are_skipped_but_not_for_ever() {
    let response = answer(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
          HTTP/1.1 204 No Content\r\n\r\n",
    );
    assert_eq!(response.await.unwrap().status, 204);
    let world = World::new();
    let site = endless(&world, "", b"HTTP/1.1 103 Early Hints\r\n\r\n");
    let failure = refusal(get(&world.egress(&[LOOPBACK]), &site.endpoint("a.example")).await);
    assert!(matches!(failure, EgressError::Misbehaved(_)), "{failure}");
    let failure = refusal(answer(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await);
    assert!(matches!(failure, EgressError::Misbehaved(_)), "{failure}");
}

#[tokio::test]
async fn what_is_no_answer_is_refused() {
    for bytes in [
        &b"hello\r\n\r\n"[..],
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    ] {
        match answer(bytes).await {
            Err(EgressError::Misbehaved(_)) => {}
            Err(other) => panic!("{}: {other}", bytes.escape_ascii()),
            Ok(response) => panic!("{}: {:?}", bytes.escape_ascii(), response.headers),
        }
    }
}

#[tokio::test]
async fn a_head_without_end_is_not_kept() {
    let world = World::new();
    for more in
        [&b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"[..], b"X", b"X: y\r\n"]
    {
        let site = endless(&world, "HTTP/1.1 200 OK\r\n", more);
        let failure = refusal(get(&world.egress(&[LOOPBACK]), &site.endpoint("a.example")).await);
        assert!(matches!(failure, EgressError::Misbehaved(_)), "{failure}");
    }
}

#[tokio::test]
async fn a_head_that_is_large_is_refused() {
    for (fields, length, taken) in [(100, 100, true), (250, 1000, false), (300, 1, false)] {
        let world = World::new();
        let site = world.site(&["a.example"], move |_, stream| {
            let field = |n| format!("X-{n}: {}\r\n", "x".repeat(length));
            let fields: String = (0..fields).map(field).collect();
            let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            Some(false)
        });
        match get(&world.egress(&[LOOPBACK]), &site.endpoint("a.example")).await {
            Ok(_) => assert!(taken, "{fields} of {length}"),
            Err(EgressError::Misbehaved(_)) => assert!(!taken, "{fields} of {length}"),
            Err(other) => panic!("{other}"),
        }
    }
}

/// SS-12
#[tokio::test]
async fn nobody_is_waited_for_beyond_the_deadline() {
    let world = World::new();
    let silent = world.site(&["silent.example"], |_, stream| {
        let _ = std::io::copy(stream, &mut std::io::sink());
        Some(false)
    });
    let slow = world.site(&["slow.example"], |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(false)
    });
    let egress = world.egress(&[LOOPBACK]);
    for (site, name) in [(&silent, "silent.example"), (&slow, "slow.example")] {
        let begun = Clock::now();
        let deadline = after(Duration::from_millis(300));
        let outcome = egress.get(&site.endpoint(name), "/", &[], deadline).await;
        assert_eq!(refusal(outcome), EgressError::TimedOut("the answer"), "{name}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_written_is_nothing_against_the_other_side() {
    let world = World::new();
    let site = world.friendly(&["a.example"]);
    let egress = world.egress(&[LOOPBACK]);
    let endpoint = site.endpoint("a.example");
    let strange = Endpoint { authority: "a.example\r\nX: y".into(), ..endpoint.clone() };
    for (endpoint, target) in [
        (&endpoint, ""),
        (&endpoint, "https://b.example/"),
        (&endpoint, "*"),
        (&endpoint, "/a b"),
        (&strange, "/"),
    ] {
        let failure = refusal(egress.get(endpoint, target, &[], soon()).await);
        assert!(matches!(failure, EgressError::Unsendable(_)), "{target}: {failure}");
    }
    assert_eq!(site.backend.connections(), 0);
}

/// SS-12
#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let world = World::new();
    let site = world.site(&["a.example"], |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        let _ = std::io::copy(stream, &mut std::io::sink());
        Some(false)
    });
    let egress = world.egress(&[LOOPBACK]);
    let response = get(&egress, &site.endpoint("a.example")).await.unwrap();
    let outcome = response.whole(LIMIT, after(Duration::from_millis(100))).await;
    assert_eq!(refusal(outcome), EgressError::TimedOut("the body"));
}
