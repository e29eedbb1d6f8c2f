//! The admin listener: `/metrics`, `/health`, `/ready`. Never on the public listeners (threats
//! LO-04).

use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;

use crate::homeserver::Homeserver;
use crate::metrics::Metrics;
use crate::store::Store;

/// Answers operators and their tools.
pub(super) struct Admin {
    metrics: Arc<Metrics>,
    homeserver: Homeserver,
    store: Store,
}

impl Admin {
    pub(super) fn new(metrics: Arc<Metrics>, homeserver: Homeserver, store: Store) -> Self {
        Self { metrics, homeserver, store }
    }

    /// Ready: the server name is known and the store answers. A homeserver that is down for a while
    /// does not take Mediary out of service, since what is kept is still served to known tokens.
    fn readiness(&self) -> (StatusCode, &'static str) {
        if self.store.setting(super::SERVER_NAME_SETTING).is_err() {
            return (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n");
        }
        match self.homeserver.name() {
            Ok(_) => (StatusCode::OK, "ready\n"),
            Err(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the homeserver has not said its server name yet\n",
            ),
        }
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let head = session.req_header();
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, b"only GET is answered here\n".to_vec());
        }
        match head.uri.path() {
            "/metrics" => text(StatusCode::OK, self.metrics.render()),
            "/health" => text(StatusCode::OK, b"ok\n".to_vec()),
            "/ready" => {
                let (status, reason) = self.readiness();
                text(status, reason.as_bytes().to_vec())
            }
            _ => text(StatusCode::NOT_FOUND, b"try /metrics, /health or /ready\n".to_vec()),
        }
    }
}

fn text(status: StatusCode, body: Vec<u8>) -> Response<Vec<u8>> {
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    headers.insert(header::CONTENT_LENGTH, length.into());
    response
}
