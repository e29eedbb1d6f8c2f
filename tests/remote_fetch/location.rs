//! Media that is elsewhere: the second part says where.

use std::sync::atomic::{AtomicUsize, Ordering};

use mediary::egress::EgressError;
use mediary::federation::{FetchError, FetchResult};
use mediary::types::BodyError;

use crate::common::fake::respond_with;
use crate::common::origin::close;
use crate::world::*;

/// FM-C-06, FM-S-05, FM-S-06, SS-11
#[test]
fn media_is_fetched_from_where_its_server_says_and_is_what_is_said_there() {
    in_a_world(async |world| {
        let fields = &[
            ("Content-Type", "image/webp"),
            ("Content-Disposition", "attachment; filename=there.webp"),
        ];
        let store = world.origin_with(fields, b"media");
        let head = format!(
            "Content-Type: text/html\r\nContent-Disposition: inline; filename=here\r\n\
             Location: https://{}/a/b?sig=x%2Fy\r\n",
            store.server_name()
        );
        let origin = world.origin(move |_, stream| respond_parts(stream, &head, b"ignored"));
        let media = world.fetch(&origin).await.unwrap();
        assert_eq!(media.content_type.as_str(), "image/webp");
        assert_eq!(media.filename.as_ref().unwrap().as_str(), "there.webp");
        assert_eq!(media.size, Some(5));
        assert_eq!(read(media.body).await.unwrap(), b"media");
        let [request] = &store.received()[..] else { panic!("one request") };
        assert_eq!(request.target(), "/a/b?sig=x%2Fy");
        assert_eq!(request.header("authorization"), None);
    });
}

/// FM-C-07
#[test]
fn the_place_is_not_remembered() {
    in_a_world(async |world| {
        let store = world.origin_with(&[], b"media");
        let (asked, place) = (AtomicUsize::new(0), store.server_name());
        let origin = world.origin(move |_, stream| {
            let number = asked.fetch_add(1, Ordering::SeqCst);
            respond_parts(stream, &format!("Location: https://{place}/{number}\r\n"), b"")
        });
        let fetcher = world.fetcher();
        for _ in 0..2 {
            read(fetch(&fetcher, &origin).await.unwrap().body).await.unwrap();
        }
        let targets: Vec<_> = store.received().iter().map(|request| request.target()).collect();
        assert_eq!(targets, ["/0", "/1"]);
        assert_eq!(origin.received().len(), 2);
    });
}

/// FM-C-08, SS-11
#[test]
fn a_place_inside_is_not_contacted() {
    in_a_world(async |world| {
        world.dns.set_addresses("inside.example", &["192.168.1.1", "fd00::1"]);
        for url in [
            "https://10.0.0.1/x",
            "https://169.254.169.254:8443/latest",
            "https://[::1]:8443/x",
            "https://[::ffff:10.0.0.1]/x",
            "https://2130706434.example.invalid/x",
            "https://inside.example:8443/x",
            "https://167772161/x",
        ] {
            let origin = world.origin_leading_to(url);
            let refusal = world.refusal(&origin).await;
            let expected = match url.contains("invalid") {
                true => FetchResult::Unreachable,
                false => FetchResult::Forbidden,
            };
            assert_eq!(refusal.result(), expected, "{url}: {refusal}");
        }
    });
}

/// SS-11
#[test]
fn only_secure_urls_are_followed() {
    in_a_world(async |world| {
        let store = world.origin_with(&[], b"media");
        let place = store.server_name();
        for url in [
            format!("http://{place}/x"),
            format!("ftp://{place}/x"),
            "file:///etc/passwd".to_owned(),
            "data:text/plain,x".to_owned(),
            format!("https://user:word@{place}/x"),
            "https://127.0.0.1:22/x".to_owned(),
        ] {
            let origin = world.origin_leading_to(&url);
            let refusal = world.refusal(&origin).await;
            assert!(
                matches!(refusal, FetchError::Location(EgressError::Url(..))),
                "{url}: {refusal}"
            );
        }
        for url in [format!("//{place}/x"), "/x".to_owned(), String::new(), "https://".to_owned()] {
            let refusal = world.refusal(&world.origin_leading_to(&url)).await;
            assert_eq!(refusal.result(), FetchResult::Misbehaved, "{url}");
        }
        assert_eq!(store.connections(), 0);
    });
}

/// SS-11
#[test]
fn a_place_may_lead_on_a_little_way_and_never_inside() {
    in_a_world(async |world| {
        let store = world.origin(|request, stream| {
            let hops: u32 = request.target()[1..].parse().unwrap();
            let next = match hops {
                0 => return respond_with(stream, 200, &[], b"media"),
                10 => "https://10.0.0.1/x".to_owned(),
                11 => "http://127.0.0.1:9000/0".to_owned(),
                12 => "/12".to_owned(),
                hops => format!("/{}", hops - 1),
            };
            respond_with(stream, 302, &[("Location", &next)], b"")
        });
        let leading =
            |hops: u32| world.origin_leading_to(&format!("https://{}/{hops}", store.server_name()));
        for hops in 0..=2 {
            assert_eq!(world.whole(&leading(hops)).await, b"media");
        }
        for (hops, result) in [
            (3, FetchResult::Misbehaved),
            (10, FetchResult::Forbidden),
            (11, FetchResult::Misbehaved),
            (12, FetchResult::Misbehaved),
        ] {
            assert_eq!(world.refusal(&leading(hops)).await.result(), result, "{hops}");
        }
        assert!(store.received().iter().all(|r| r.header("authorization").is_none()));
    });
}

#[test]
fn a_place_that_has_no_media_is_told() {
    for (head, result) in [
        ("404 Gone\r\nContent-Length: 5", FetchResult::Misbehaved),
        ("206 Part\r\nContent-Length: 5", FetchResult::Misbehaved),
        ("200 OK", FetchResult::Misbehaved),
        ("200 OK\r\nContent-Length: 5\r\nContent-Encoding: gzip", FetchResult::Misbehaved),
        ("200 OK\r\nContent-Length: 99999999", FetchResult::TooLarge),
    ] {
        in_a_world(async |world| {
            let store = world.origin(move |_, stream| {
                begin(stream, head, b"media");
                close(stream)
            });
            let origin = world.origin_leading_to(&format!("https://{}/", store.server_name()));
            assert_eq!(world.refusal(&origin).await.result(), result, "{head}");
        });
    }
}

/// FE-11
#[test]
fn what_a_place_sends_is_cut_at_the_limit() {
    in_a_world(async |world| {
        let store = world.origin(|_, stream| {
            begin(stream, "200 OK\r\nTransfer-Encoding: chunked", b"");
            let chunk = [b"4000\r\n", &[b'x'; 0x4000][..], b"\r\n"].concat();
            while std::io::Write::write_all(stream, &chunk).is_ok() {}
            false
        });
        let origin = world.origin_leading_to(&format!("https://{}/", store.server_name()));
        let cut = world.break_off(&origin).await;
        assert!(matches!(cut, BodyError::TooLarge { limit } if limit == OPTIONS.max_size), "{cut}");
    });
}

#[test]
fn a_part_that_should_be_empty_is_not_read_without_end() {
    in_a_world(async |world| {
        let store = world.origin_with(&[], b"media");
        let head = format!("Location: https://{}/\r\n", store.server_name());
        let origin = world.origin(move |_, stream| respond_parts(stream, &head, &[0; 500_000]));
        assert_eq!(world.whole(&origin).await, b"media");
    });
}

#[test]
fn what_is_wrong_at_the_place_is_nothing_against_the_server() {
    in_a_world(async |world| {
        let origin = world.origin_leading_to("https://10.0.0.1/x");
        let fetcher = world.fetcher();
        for _ in 0..3 {
            let refusal = fetch(&fetcher, &origin).await.err().unwrap();
            assert!(matches!(refusal, FetchError::Location(_)), "{refusal}");
        }
        assert_eq!(origin.received().len(), 3);
    });
}
