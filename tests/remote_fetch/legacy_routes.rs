//! Servers that do not know the federation route.

use mediary::federation::{FetchError, FetchResult};
use mediary::types::BodyError;

use crate::common::fake::{Received, respond, respond_with};
use crate::common::origin::{TlsStream, close};
use crate::world::*;

const UNKNOWN: &str = r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized"}"#;

fn is_signed(request: &Received) -> bool {
    request.header("authorization").is_some()
}

/// The answer to everything but the legacy route of a version.
fn knows_only(version: &str, request: &Received, stream: &mut TlsStream) -> Option<bool> {
    let is_known = request.target().starts_with(&format!("/_matrix/media/{version}/"));
    (!is_known).then(|| respond(stream, 404, UNKNOWN))
}

/// FM-C-03, FM-C-04, FM-C-05, FLD-08, FLD-09
#[test]
fn an_older_server_is_asked_without_a_signature_for_what_it_has_itself() {
    in_a_world(async |world| {
        let origin = world.origin_that_may(|request, stream| knows_only("v3", request, stream));
        origin.keep("abc", "image/png", Some("a.png"), b"media");
        let media = world.fetch(&origin).await.unwrap();
        assert_eq!(media.content_type.as_str(), "image/png");
        assert_eq!(media.filename.as_ref().unwrap().as_str(), "a.png");
        assert_eq!((media.size, media.at_most), (Some(5), None));
        assert_eq!(read(media.body).await.unwrap(), b"media");
        let [first, second] = &origin.received()[..] else { panic!("two requests") };
        assert!(is_signed(first) && !is_signed(second));
        let target = format!(
            "/_matrix/media/v3/download/{}/abc?allow_remote=false&timeout_ms=20000&allow_redirect=true",
            origin.server_name()
        );
        assert_eq!(second.target(), target);
    });
}

/// FLD-08
#[test]
fn older_servers_have_many_words_for_a_route_that_they_do_not_know() {
    let large = "x".repeat(100_000);
    for (status, body) in [
        (404, UNKNOWN),
        (405, UNKNOWN),
        (400, UNKNOWN),
        (404, ""),
        (404, "404 page not found"),
        (405, "<html>"),
        (404, &large),
    ] {
        in_a_world(async |world| {
            let body = body.to_owned();
            let origin = world.origin_that_may(move |request, stream| {
                is_signed(request).then(|| respond_with(stream, status, &[], body.as_bytes()))
            });
            origin.keep("abc", "a/b", None, b"media");
            assert_eq!(world.whole(&origin).await, b"media", "{status}");
        });
    }
}

/// FLD-09
#[test]
fn a_server_that_does_not_know_v3_is_asked_by_r0() {
    in_a_world(async |world| {
        let origin = world.origin(|request, stream| {
            knows_only("r0", request, stream)
                .unwrap_or_else(|| respond_with(stream, 200, &[("Content-Type", "a/b")], b"media"))
        });
        assert_eq!(world.whole(&origin).await, b"media");
        let versions = ["/_matrix/federation/v1/", "/_matrix/media/v3/", "/_matrix/media/r0/"];
        let received = origin.received();
        assert_eq!(received.len(), 3);
        for (request, version) in received.iter().zip(versions) {
            assert!(request.target().starts_with(version), "{}", request.target());
        }
    });
}

/// FLD-08, FLD-09
#[test]
fn a_server_that_knows_no_route_for_media_has_none() {
    in_a_world(async |world| {
        let origin = world.origin(|_, stream| respond_with(stream, 404, &[], b"<html>"));
        assert_eq!(world.refusal(&origin).await, FetchError::NotFound);
        assert_eq!(origin.received().len(), 3);
    });
}

/// FE-13
#[test]
fn what_the_legacy_route_refuses_is_refused() {
    for (status, errcode, result) in [
        (404, "M_NOT_FOUND", FetchResult::NotFound),
        (504, "M_NOT_YET_UPLOADED", FetchResult::NotYetUploaded),
        (502, "M_TOO_LARGE", FetchResult::TooLarge),
        (401, "M_MISSING_TOKEN", FetchResult::Misbehaved),
        (403, "M_FORBIDDEN", FetchResult::Misbehaved),
        (500, "M_UNKNOWN", FetchResult::ServerError),
        (302, "M_UNKNOWN", FetchResult::Misbehaved),
    ] {
        in_a_world(async |world| {
            let origin = world.origin(move |request, stream| {
                knows_only("v3", request, stream).unwrap_or_else(|| {
                    respond(stream, status, &format!(r#"{{"errcode":"{errcode}","error":""}}"#))
                })
            });
            assert_eq!(world.refusal(&origin).await.result(), result, "{status} {errcode}");
            assert_eq!(origin.received().len(), 2);
        });
    }
}

/// FM-C-05, SS-11
#[test]
fn a_legacy_route_may_lead_elsewhere() {
    in_a_world(async |world| {
        let store =
            world.origin_with(&[("Content-Type", "image/png"), ("ETag", "\"a\"")], b"media");
        for status in [307, 308] {
            let url = format!("https://{}/place", store.server_name());
            let origin = world.origin(move |request, stream| {
                knows_only("v3", request, stream)
                    .unwrap_or_else(|| respond_with(stream, status, &[("Location", &url)], b""))
            });
            let media = world.fetch(&origin).await.unwrap();
            assert_eq!(media.content_type.as_str(), "image/png");
            assert_eq!(read(media.body).await.unwrap(), b"media");
        }
        assert!(store.received().iter().all(|request| !is_signed(request)));
        for location in ["https://10.0.0.1/x", "http://127.0.0.1:9000/x", "/relative", ""] {
            let origin = world.origin(move |request, stream| {
                knows_only("v3", request, stream)
                    .unwrap_or_else(|| respond_with(stream, 307, &[("Location", location)], b""))
            });
            let refusal = world.refusal(&origin).await;
            let is_expected =
                matches!(refusal, FetchError::Location(_) | FetchError::Misbehaved(_));
            assert!(is_expected, "{location}: {refusal}");
        }
    });
}

/// FE-11
#[test]
fn a_legacy_answer_is_held_to_its_length() {
    for (framing, is_taken) in [
        ("Content-Length: 2000", true),
        ("Transfer-Encoding: chunked", true),
        ("Connection: close", false),
        ("Content-Length: 5\r\nContent-Encoding: gzip", false),
    ] {
        in_a_world(async |world| {
            let origin = world.origin(move |request, stream| {
                knows_only("v3", request, stream).unwrap_or_else(|| {
                    begin(stream, &format!("200 OK\r\n{framing}"), b"5\r\nmedia\r\n");
                    close(stream)
                })
            });
            if is_taken {
                assert!(matches!(world.break_off(&origin).await, BodyError::Gone), "{framing}");
            } else {
                let refusal = world.refusal(&origin).await;
                assert_eq!(refusal.result(), FetchResult::Misbehaved, "{framing}");
            }
        });
    }
}

/// FE-11
#[test]
fn a_legacy_answer_that_is_too_large_is_refused_by_its_length() {
    in_a_world(async |world| {
        let origin = world.origin(move |request, stream| {
            knows_only("v3", request, stream).unwrap_or_else(|| {
                begin(stream, "200 OK\r\nContent-Length: 1048577", b"");
                false
            })
        });
        assert_eq!(world.refusal(&origin).await, FetchError::TooLarge { limit: OPTIONS.max_size });
    });
}
