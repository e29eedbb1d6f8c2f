//! Answers of the federation route, good and bad.

use std::sync::Mutex;
use std::sync::mpsc;

use mediary::federation::{FetchError, FetchOptions, FetchResult};
use mediary::types::{BodyError, BodyReader};

use crate::common::fake::{respond, respond_with};
use crate::common::noise;
use crate::common::origin::{close, stall};
use crate::world::*;

/// FM-C-01, FM-C-02
#[test]
fn the_server_that_made_the_media_is_asked_first_and_with_our_signature() {
    in_a_world(async |world| {
        let origin = world.origin_that_may(|_, _| None);
        let body = noise(300_000, 1);
        origin.keep("abc", "image/png", Some("a.png"), &body);
        let media = world.fetch(&origin).await.unwrap();
        assert_eq!(media.content_type.as_str(), "image/png");
        assert_eq!(media.filename.as_ref().unwrap().as_str(), "a.png");
        let at_most = media.at_most.unwrap();
        assert!(media.size.is_none() && (300_000..300_100).contains(&at_most), "{at_most}");
        assert!(read(media.body).await.unwrap() == body);

        let [request] = &origin.received()[..] else { panic!("one request") };
        let target = "/_matrix/federation/v1/media/download/abc?timeout_ms=20000";
        assert_eq!((request.method.as_str(), &*request.target()), ("GET", target));
        let signed = our_key().authorization(US, &origin.server_name(), "GET", target);
        assert_eq!(request.header("authorization"), Some(&*signed));
        assert_eq!(request.header("accept-encoding"), Some("identity"));
    });
}

/// FLD-01, FLD-02, FLD-03, FLD-07, FM-C-10
#[test]
fn every_known_form_of_an_answer_is_read() {
    let json = "Content-Type: application/json\r\n\r\n{}\r\n--b\r\nContent-Type: a/b\r\n\r\nmedia";
    let proper = format!("\r\n--b\r\n{json}\r\n--b--\r\n");
    let dendrite = format!("--b\r\n{json}\r\n--b--\r\n");
    let ruma = format!("\r\n--b\r\n{json}\r\n--b");
    let lines = "\n--b\ncontent-type :application/json\n\n{\"later\": [1]}\n--b\n\
                 content-type:  a/b \n\nmedia\r\n--b--";
    for (content_type, body) in [
        ("multipart/mixed; boundary=b", proper.as_str()),
        ("multipart/mixed; boundary=b", &dendrite),
        ("multipart/mixed; boundary=b", &ruma),
        ("multipart/mixed; boundary=b", lines),
        ("Multipart/Mixed;charset=utf-8;BOUNDARY=\"b\"; x=y", &proper),
    ] {
        in_a_world(async |world| {
            let (content_type, body) = (content_type.to_owned(), body.to_owned());
            let origin = world.origin(move |_, stream| {
                respond_with(stream, 200, &[("Content-Type", &content_type)], body.as_bytes())
            });
            let media = world.fetch(&origin).await.unwrap();
            assert_eq!(media.content_type.as_str(), "a/b");
            assert_eq!(read(media.body).await.unwrap(), b"media");
        });
    }
}

/// FLD-06, FM-S-07
#[test]
fn what_is_not_in_two_parts_is_never_taken_for_media() {
    in_a_world(async |world| {
        let image = world.origin_with(&[("Content-Type", "image/png")], b"\x89PNG");
        let refusal = world.refusal(&image).await;
        let words = "the answer is not understood: it is image/png and not multipart/mixed";
        assert_eq!(refusal.to_string(), words);
        assert_eq!(refusal.result(), FetchResult::Misbehaved);

        let untyped = world.origin_with(&[], b"\x89PNG");
        assert!(world.refusal(&untyped).await.to_string().contains("octet-stream"));

        let elsewhere = world.origin_with(&[], b"");
        let url = format!("https://{}/x", elsewhere.server_name());
        for status in [301, 302, 303, 304, 307, 308, 204, 206] {
            let url = url.clone();
            let origin = world.origin(move |_, stream| {
                let fields = [("Location", &*url), ("Content-Type", "multipart/mixed; boundary=b")];
                respond_with(stream, status, &fields, b"")
            });
            let refusal = world.refusal(&origin).await;
            assert_eq!(refusal.result(), FetchResult::Misbehaved, "{status}");
            assert_eq!(origin.received().len(), 1);
        }
        assert_eq!(elsewhere.connections(), 0);
    });
}

/// FE-10
#[test]
fn broken_parts_are_refused() {
    const PARTS: &str = "multipart/mixed; boundary=b";
    let long = format!("--b\r\nA: {}\r\n\r\n", "x".repeat(1024 * 1024));
    for (content_type, body) in [
        ("multipart/mixed", "--b\r\n\r\n{}\r\n--b\r\n\r\nx\r\n--b--"),
        (PARTS, ""),
        (PARTS, "--b\r\n\r\n{}\r\n--b--\r\n"),
        (PARTS, "--b\r\n\r\n<html>\r\n--b\r\n\r\nx\r\n--b--"),
        (PARTS, "--b\r\n{}\r\n--b\r\nx\r\n--b--"),
        (PARTS, "--b\r\n\r\n{}\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\neA==\r\n--b--"),
        (PARTS, &long),
    ] {
        in_a_world(async |world| {
            let (content_type, body) = (content_type.to_owned(), body.to_owned());
            let origin = world.origin(move |_, stream| {
                respond_with(stream, 200, &[("Content-Type", &content_type)], body.as_bytes())
            });
            assert_eq!(world.refusal(&origin).await.result(), FetchResult::Misbehaved);
        });
    }
}

/// FE-10
#[test]
fn parts_that_turn_out_broken_behind_the_media_are_no_whole_media() {
    const HEAD: &str = "--b\r\n\r\n{}\r\n--b\r\nContent-Type: a/b\r\n\r\nmedia";
    for end in ["", "\r\n--b--b", "\r\n--b\r\n\r\nthird\r\n--b--", "\r\n--bb", "\n--b--"] {
        in_a_world(async |world| {
            let body = format!("{HEAD}{end}");
            let origin = world.origin(move |_, stream| {
                let fields = [("Content-Type", "multipart/mixed; boundary=b")];
                respond_with(stream, 200, &fields, body.as_bytes())
            });
            let broken = end != "\r\n--b--b";
            let outcome = read(world.fetch(&origin).await.unwrap().body).await;
            assert_eq!(outcome.is_err(), broken, "{end:?}: an epilogue does no harm");
        });
    }
}

/// FE-12
#[test]
fn media_may_be_empty() {
    in_a_world(async |world| {
        let origin = world.origin_that_may(|_, _| None);
        origin.keep("abc", "image/png", None, b"");
        assert_eq!(world.whole(&origin).await, b"");
    });
}

/// FE-16, FM-C-09
#[test]
fn labels_never_cost_anybody_the_file() {
    in_a_world(async |world| {
        for (head, content_type, name) in [
            ("", "application/octet-stream", None),
            ("Content-Type: nonsense\r\n", "application/octet-stream", None),
            ("Content-Type: text/html\r\nContent-Disposition: inline\r\n", "text/html", None),
            ("Content-Disposition: \u{1};;=\r\n", "application/octet-stream", None),
            (
                "Content-Disposition: attachment; filename=\"../\u{7}é.txt\"\r\n",
                "application/octet-stream",
                Some("..é.txt"),
            ),
        ] {
            let origin = world.origin(move |_, stream| respond_parts(stream, head, b"media"));
            let media = world.fetch(&origin).await.unwrap();
            assert_eq!(media.content_type.as_str(), content_type, "{head:?}");
            assert_eq!(media.filename.as_ref().map(|name| name.as_str()), name, "{head:?}");
            assert_eq!(read(media.body).await.unwrap(), b"media");
        }
    });
}

#[test]
fn a_coding_that_nobody_asked_for_is_refused() {
    in_a_world(async |world| {
        let origin = world.origin(|_, stream| {
            let fields =
                [("Content-Type", "multipart/mixed; boundary=b"), ("Content-Encoding", "br")];
            respond_with(stream, 200, &fields, b"--b")
        });
        assert_eq!(world.refusal(&origin).await.result(), FetchResult::Misbehaved);
    });
}

/// FM-S-08, FE-13
#[test]
fn a_refusal_is_final_whatever_the_legacy_routes_would_say() {
    for (status, errcode, result) in [
        (404, "M_NOT_FOUND", FetchResult::NotFound),
        (400, "M_UNKNOWN", FetchResult::NotFound),
        (504, "M_NOT_YET_UPLOADED", FetchResult::NotYetUploaded),
        (502, "M_TOO_LARGE", FetchResult::TooLarge),
        (413, "M_TOO_LARGE", FetchResult::TooLarge),
        (401, "M_UNAUTHORIZED", FetchResult::Refused),
        (401, "M_UNRECOGNIZED", FetchResult::Refused),
        (403, "M_FORBIDDEN", FetchResult::Refused),
        (500, "M_UNKNOWN", FetchResult::ServerError),
        (502, "M_UNRECOGNIZED", FetchResult::ServerError),
        (429, "M_LIMIT_EXCEEDED", FetchResult::BackedOff),
    ] {
        in_a_world(async |world| {
            let origin = world.origin(move |_, stream| {
                respond(stream, status, &format!(r#"{{"errcode":"{errcode}","error":""}}"#))
            });
            assert_eq!(world.refusal(&origin).await.result(), result, "{status} {errcode}");
            assert_eq!(origin.received().len(), 1, "{status} {errcode}");
        });
    }
}

#[test]
fn whose_signature_is_not_believed_is_told_in_words() {
    in_a_world(async |world| {
        let origin = world.origin(|_, stream| {
            respond(stream, 401, r#"{"errcode":"M_UNAUTHORIZED","error":"<b>secret</b>"}"#)
        });
        let refusal = world.refusal(&origin).await;
        assert_eq!(
            refusal.to_string(),
            "the server does not believe our signature or does not serve us: 401 M_UNAUTHORIZED"
        );
    });
}

/// FE-13
#[test]
fn a_server_that_says_nothing_is_not_asked_by_the_legacy_routes() {
    in_a_world(async |world| {
        let origin = world.origin(|_, stream| stall(stream));
        let limits = mediary::federation::TransferLimits {
            timeout: std::time::Duration::from_millis(300),
            ..LIMITS
        };
        let options = FetchOptions { wait: std::time::Duration::ZERO, ..OPTIONS };
        let fetcher = world.fetcher_within(limits);
        let refusal = fetch_named(&fetcher, &origin.server_name(), options).await.err().unwrap();
        assert_eq!(refusal.result(), FetchResult::TimedOut, "{refusal}");
        assert_eq!(origin.received().len(), 1);
    });
}

#[test]
fn the_first_byte_does_not_wait_for_the_last() {
    in_a_world(async |world| {
        let (go_on, may_go_on) = mpsc::channel();
        let may_go_on = Mutex::new(may_go_on);
        let origin = world.origin(move |_, stream| {
            let whole = parts("Content-Type: a/b\r\n", b"first and last");
            let middle = whole.len() - 20;
            let head = format!(
                "200 OK\r\nContent-Type: multipart/mixed; boundary=ofTwoParts\r\nContent-Length: {}",
                whole.len()
            );
            begin(stream, &head, &whole[..middle]);
            let _ = may_go_on.lock().unwrap().recv();
            std::io::Write::write_all(stream, &whole[middle..]).is_ok()
        });
        let mut body = world.fetch(&origin).await.unwrap().body;
        let first = body.next().await.unwrap().unwrap();
        assert!(first.starts_with(b"first"));
        go_on.send(()).unwrap();
        let rest = read(body).await.unwrap();
        assert_eq!([&first[..], &rest].concat(), b"first and last");
    });
}

/// FE-11
#[test]
fn what_is_announced_as_too_large_is_refused_and_what_turns_out_so_is_cut() {
    in_a_world(async |world| {
        let origin = world.origin_that_may(|_, _| None);
        origin.keep("abc", "a/b", None, &[0; 50_000]);
        let with = async |max_size| {
            let options = FetchOptions { max_size, ..OPTIONS };
            fetch_named(&world.fetcher(), &origin.server_name(), options).await
        };
        let refusal = with(40_000).await.err().unwrap();
        assert_eq!(refusal, FetchError::TooLarge { limit: 40_000 });
        let barely = with(49_999).await.unwrap();
        assert_eq!(barely.at_most, Some(49_999));
        let cut = read(barely.body).await.unwrap_err();
        assert!(matches!(cut, BodyError::TooLarge { limit: 49_999 }), "{cut}");
        assert_eq!(read(with(50_000).await.unwrap().body).await.unwrap().len(), 50_000);
    });
}

/// FE-11
#[test]
fn an_endless_answer_is_cut_at_the_limit() {
    in_a_world(async |world| {
        let origin = world.origin(|_, stream| {
            let head =
                "200 OK\r\nContent-Type: multipart/mixed; boundary=b\r\nTransfer-Encoding: chunked";
            let first = "--b\r\n\r\n{}\r\n--b\r\nContent-Type: a/b\r\n\r\n";
            begin(stream, head, format!("{:x}\r\n{first}\r\n", first.len()).as_bytes());
            let chunk = [b"4000\r\n", &[b'x'; 0x4000][..], b"\r\n"].concat();
            while std::io::Write::write_all(stream, &chunk).is_ok() {}
            false
        });
        let media = world.fetch(&origin).await.unwrap();
        assert_eq!((media.size, media.at_most), (None, None));
        let cut = read(media.body).await.unwrap_err();
        assert!(matches!(cut, BodyError::TooLarge { limit } if limit == OPTIONS.max_size), "{cut}");
    });
}

/// FE-11, FM-S-15
#[test]
fn an_answer_that_breaks_off_is_an_error_and_not_asked_for_again() {
    let whole = parts("Content-Type: a/b\r\n", &[b'x'; 1000]);
    let content_type =
        "200 OK\r\nContent-Type: multipart/mixed; boundary=ofTwoParts\r\nETag: \"a\"";
    for framing in ["Content-Length: 5000", "Transfer-Encoding: chunked", "Connection: close"] {
        for keeps_order in [false, true] {
            in_a_world(async |world| {
                let body = match framing {
                    "Transfer-Encoding: chunked" => [b"400\r\n", &whole[..0x400], b"\r\n"].concat(),
                    "Connection: close" => whole[..1100].to_vec(),
                    _ => whole.clone(),
                };
                let head = format!("{content_type}\r\n{framing}");
                let origin = world.origin(move |_, stream| {
                    begin(stream, &head, &body);
                    keeps_order && close(stream)
                });
                let broken = world.break_off(&origin).await;
                let is_expected = matches!(broken, BodyError::Gone | BodyError::Malformed(_));
                assert!(is_expected, "{framing}: {broken}");
                assert_eq!(origin.received().len(), 1);
            });
        }
    }
}

#[test]
fn an_answer_without_a_length_is_whole_by_its_last_boundary() {
    in_a_world(async |world| {
        let origin = world.origin(|_, stream| {
            let head = "200 OK\r\nContent-Type: multipart/mixed; boundary=ofTwoParts";
            begin(stream, head, &parts("Content-Type: a/b\r\n", b"media"));
            close(stream)
        });
        assert_eq!(world.whole(&origin).await, b"media");
    });
}
