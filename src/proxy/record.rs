//! What is remembered of a request for the metrics and the log.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, StatusCode};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};
use prometheus::IntGauge;

use super::forwarded;
use crate::config::TrustedProxies;
use crate::connection::Peer;
use crate::error::ApiError;
use crate::metrics::Metrics;

/// How much of a path and of an error is logged.
const MAX_PATH: usize = 512;
const MAX_ERROR: usize = 512;

/// One request's record.
pub(super) struct Record {
    begun: Instant,
    /// One of [`crate::metrics::ROUTES`].
    pub(super) route: &'static str,
    /// The status that was sent or is being sent.
    pub(super) status: Option<StatusCode>,
    error: Option<String>,
    is_ours: bool,
    _in_flight: InFlight,
}

/// Counts a request as in flight for as long as it lives, however it ends.
struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Record {
    pub(super) fn begin(metrics: &Arc<Metrics>) -> Self {
        metrics.in_flight.inc();
        Self {
            begun: Instant::now(),
            route: "refused",
            status: None,
            error: None,
            is_ours: false,
            _in_flight: InFlight(metrics.in_flight.clone()),
        }
    }

    /// Notes why the client got an error.
    pub(super) fn failure(&mut self, error: &ApiError) {
        self.is_ours |= error.is_ours();
        self.error.get_or_insert_with(|| error.to_string());
    }

    /// Notes that the exchange ended before its end.
    pub(super) fn broke_off(&mut self, error: &Error) {
        self.error.get_or_insert_with(|| describe(error));
    }

    /// Counts the request and writes its line.
    pub(super) fn finish(
        &mut self,
        session: &Session,
        metrics: &Metrics,
        trusted: &TrustedProxies,
        log: bool,
    ) {
        let duration = self.begun.elapsed();
        let sent = session.body_bytes_sent() as u64;
        let received = session.body_bytes_read() as u64;
        metrics.request(self.route, self.status, duration, received, sent);
        if !log && !self.is_ours {
            return;
        }
        let head = session.req_header();
        let peer = Peer::of(session.client_addr());
        let client = forwarded::client(&head.headers, peer, trusted);
        let client = client.map_or(Peer::Local, Peer::Address).to_string();
        let status = self.status.map_or(0, |status| status.as_u16());
        let duration_ms = duration.as_secs_f64() * 1000.0;
        let path = path(head);
        let method = method(head);
        let error = self.error.as_deref().map(|error| escape(error, MAX_ERROR));
        let route = self.route;
        macro_rules! line {
            ($level:ident, $message:literal) => {
                tracing::$level!(
                    route,
                    method,
                    path,
                    status,
                    duration_ms,
                    received_bytes = received,
                    sent_bytes = sent,
                    client,
                    error,
                    $message
                )
            };
        }
        if self.is_ours {
            line!(warn, "request failed");
        } else {
            line!(info, "request");
        }
    }
}

/// Says what broke. Pingora quotes a head that it cannot read, tokens and all, so of those only the
/// kind is told (threats LO-01).
fn describe(error: &Error) -> String {
    match error.root_etype() {
        kind @ ErrorType::InvalidHTTPHeader => {
            format!("{} {}", error.esource().as_str(), kind.as_str())
        }
        _ => error.to_string(),
    }
}

/// Returns a request's method for the log. One that nobody knows may be anything, a token that
/// slipped into the wrong place too.
fn method(head: &RequestHeader) -> &str {
    match head.method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::DELETE
        | Method::PATCH
        | Method::OPTIONS => head.method.as_str(),
        _ => "unknown",
    }
}

/// Returns a text for the log: on one line and of bounded length (threats LO-02).
fn escape(text: &str, max_characters: usize) -> String {
    text.chars().take(max_characters).flat_map(char::escape_default).collect()
}

/// Returns a request's path for the log: without the query, which may hold a token, on one line
/// (threats LO-01, LO-02).
///
/// It ends at a question mark or equals sign that is encoded as well: a client that has written its
/// query wrongly has its token behind one.
pub(super) fn path(head: &RequestHeader) -> String {
    loggable_path(head.raw_path())
}

fn loggable_path(target: &[u8]) -> String {
    let longest = target.len().min(MAX_PATH);
    let end = (0..longest).find(|&at| begins_query(&target[at..])).unwrap_or(longest);
    target[..end].escape_ascii().to_string()
}

fn begins_query(rest: &[u8]) -> bool {
    matches!(rest, [b'?' | b'=', ..] | [b'%', b'3', b'f' | b'F' | b'd' | b'D', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_logged_up_to_anything_that_may_be_a_token() {
        for (target, logged) in [
            ("/a/b", "/a/b"),
            ("/a?access_token=x", "/a"),
            ("/a%3faccess_token=x", "/a"),
            ("/a%3Faccess_token%3Dx", "/a"),
            ("/a&access_token%3dx", "/a&access_token"),
            ("/a%", "/a%"),
            ("/a%3", "/a%3"),
            ("/a%2f%3a", "/a%2f%3a"),
            ("/a&access%5ftoken=x=y", "/a&access%5ftoken"),
            ("/a#access_token=x?b", "/a#access_token"),
            ("/a\u{e9}\n", "/a\\xc3\\xa9\\n"),
        ] {
            assert_eq!(loggable_path(target.as_bytes()), logged, "{target}");
        }
        assert_eq!(loggable_path(&[b'a'; 9999]).len(), MAX_PATH);
    }
}
