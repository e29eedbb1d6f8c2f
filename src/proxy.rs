//! The only `impl ProxyHttp`: one request from its head to its line in the log.
//!
//! Media requests are answered in [`request_filter`](ProxyHttp::request_filter); all others go to
//! the homeserver as they came. What is added on the way are the `X-Forwarded-*` fields, and what
//! is watched for are requests that end sessions.

mod body;
mod forwarded;
mod record;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::HttpPeer;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::{Error, ErrorSource, ErrorType};

use crate::auth::Credentials;
use crate::config::TrustedProxies;
use crate::error::ApiError;
use crate::handlers::{Request, Services};
use crate::homeserver::{HomeserverError, Sender, Upstream};
use crate::metrics::Metrics;
use crate::response::{Reply, write};
use crate::route::{Dialect, MediaRoute, Query, Route, SessionChange, classify};

use body::{NoBody, RequestBody};
use record::Record;

/// How long a connection without a request is kept. Pingora's own default is for ever.
const KEEPALIVE_SECONDS: u64 = 75;

/// How long the next bytes of a request may take.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The proxy as Pingora drives it.
pub struct Proxy {
    services: Arc<Services>,
    upstream: Arc<Upstream>,
    trusted_proxies: TrustedProxies,
    metrics: Arc<Metrics>,
    log_requests: bool,
}

/// One request's state between its phases.
pub struct Context {
    record: Record,
    /// What to forget once the homeserver has answered.
    session_change: Option<(SessionChange, Option<Credentials>)>,
}

impl Proxy {
    /// Puts the parts together. `log_requests` gives every request a line in the log.
    pub fn new(
        services: Arc<Services>,
        trusted_proxies: TrustedProxies,
        metrics: Arc<Metrics>,
        log_requests: bool,
    ) -> Self {
        let upstream = services.homeserver.upstream().clone();
        Self { services, upstream, trusted_proxies, metrics, log_requests }
    }

    /// Sends a reply and notes what became of it.
    async fn send(
        &self,
        session: &mut Session,
        context: &mut Context,
        reply: Reply,
    ) -> Result<(), Box<Error>> {
        context.record.status = Some(reply.status);
        let is_head = session.req_header().method == http::Method::HEAD;
        write(session, reply, is_head).await.inspect_err(|error| context.record.broke_off(error))
    }

    async fn send_error(
        &self,
        session: &mut Session,
        context: &mut Context,
        error: &ApiError,
    ) -> Result<(), Box<Error>> {
        context.record.failure(error);
        self.send(session, context, Reply::error(error, dialect(session.req_header()))).await
    }

    /// Answers a media request that has a body.
    async fn answer_with_body(
        &self,
        session: &mut Session,
        sender: Sender,
    ) -> Result<Reply, ApiError> {
        // The body is read from the session while the head is still looked at.
        let head = session.req_header().clone();
        let Route::Media(route) = classify(&head.method, head.raw_path()) else {
            return Err(ApiError::Unrecognized);
        };
        let mut body = RequestBody::new(session);
        self.services.answer(request(&head, route, sender), &mut body).await
    }

    /// As [`forget`](Self::forget), but only for somebody: without a token no session of anybody's
    /// was ended, and a stranger must not be able to empty the memory by hanging up.
    async fn forget_if_known(&self, context: &mut Context) {
        if matches!(&context.session_change, Some((_, Some(_)))) {
            self.forget(context).await;
        }
    }

    /// Forgets what the homeserver's answer to this request may have made wrong.
    async fn forget(&self, context: &mut Context) {
        let Some((change, credentials)) = context.session_change.take() else { return };
        let auth = &self.services.auth;
        match (change, credentials) {
            (SessionChange::OwnToken | SessionChange::Refreshed, Some(credentials)) => {
                auth.forget_token(&credentials);
            }
            (SessionChange::Refreshed, None) => {}
            (SessionChange::OwnUser, credentials) => auth.forget_user(credentials.as_ref()).await,
            (SessionChange::OwnToken, None) | (SessionChange::AnyUser, _) => {
                auth.forget_everybody();
            }
        }
    }
}

/// Returns which names a request used.
fn dialect(head: &RequestHeader) -> Dialect {
    match classify(&head.method, head.raw_path()) {
        Route::Media(route) => route.dialect(),
        _ => Dialect::Stable,
    }
}

fn request<'h>(head: &'h RequestHeader, route: MediaRoute<'h>, sender: Sender) -> Request<'h> {
    Request {
        route,
        raw_target: head.raw_path(),
        method: &head.method,
        headers: &head.headers,
        sender,
    }
}

/// Whether the homeserver may have done what it was asked although no answer came.
fn may_have_been_done(error: &Error) -> bool {
    *error.esource() == ErrorSource::Upstream
        && !matches!(
            error.etype(),
            ErrorType::ConnectTimedout
                | ErrorType::ConnectRefused
                | ErrorType::ConnectNoRoute
                | ErrorType::ConnectError
        )
}

fn credentials(head: &RequestHeader) -> Option<Credentials> {
    let target = head.raw_path();
    let query = target.iter().position(|&b| b == b'?').map_or(&[][..], |mark| &target[mark + 1..]);
    let query = Query::new(query);
    Credentials::find(&head.headers, |name| query.get(name)).ok()
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context { record: Record::begin(&self.metrics), session_change: None }
    }

    async fn early_request_filter(
        &self,
        session: &mut Session,
        _: &mut Context,
    ) -> Result<(), Box<Error>> {
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(KEEPALIVE_SECONDS));
        }
        session.set_read_timeout(Some(READ_TIMEOUT));
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<bool, Box<Error>> {
        if let Some(error) = refusal::find(session) {
            session.set_keepalive(None);
            self.send_error(session, context, &error).await?;
            return Ok(true);
        }
        let is_bodiless = session.is_body_empty();
        let head = session.req_header();
        let outcome = match classify(&head.method, head.raw_path()) {
            Route::PassThrough(change) => {
                context.record.route = "pass_through";
                context.session_change = change.map(|change| (change, credentials(head)));
                return Ok(false);
            }
            Route::Preflight => {
                context.record.route = "preflight";
                Ok(Reply::preflight())
            }
            Route::Media(route) => {
                context.record.route = route.operation.name();
                let sender = forwarded::sender(session, &self.trusted_proxies);
                if is_bodiless {
                    self.services.answer(request(head, route, sender), &mut NoBody).await
                } else {
                    self.answer_with_body(session, sender).await
                }
            }
            Route::Unrecognized => Err(ApiError::Unrecognized),
            Route::MethodNotAllowed { allow } => Err(ApiError::MethodNotAllowed { allow }),
            Route::InvalidIdentifier(error) => Err(error.into()),
            Route::NotAPath => Err(ApiError::BadRequest("The request target is not a path")),
        };
        match outcome {
            Ok(reply) => self.send(session, context, reply).await?,
            Err(error) => self.send_error(session, context, &error).await?,
        }
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        _: &mut Session,
        _: &mut Context,
    ) -> Result<Box<HttpPeer>, Box<Error>> {
        self.upstream.peer().ok_or_else(|| {
            Error::explain(ErrorType::ConnectNoRoute, "the name does not resolve").into_up()
        })
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut Context,
    ) -> Result<(), Box<Error>> {
        let peer = forwarded::Peer::of(session);
        forwarded::rewrite(request, peer, &self.trusted_proxies)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<(), Box<Error>> {
        if !response.status.is_informational() {
            context.record.status = Some(response.status);
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            // A WebSocket may be silent for as long as it likes.
            session.set_read_timeout(None);
        }
        // A refused request has ended no session; 101 ends none either.
        if response.status.is_success() {
            self.forget(context).await;
        }
        Ok(())
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        context: &mut Context,
    ) -> FailToProxy {
        if may_have_been_done(error) {
            self.forget_if_known(context).await;
        }
        context.record.broke_off(error);
        let answer = match (error.esource(), error.etype()) {
            _ if session.response_written().is_some() => None,
            (ErrorSource::Upstream, ErrorType::ConnectTimedout | ErrorType::ReadTimedout) => {
                Some(ApiError::from(HomeserverError::TooSlow))
            }
            (ErrorSource::Downstream, ErrorType::ReadTimedout) => Some(ApiError::ClientTimedOut),
            (
                ErrorSource::Downstream,
                ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed,
            ) => None,
            (ErrorSource::Downstream, _) => {
                Some(ApiError::BadRequest("The request is not framed as HTTP asks"))
            }
            _ => Some(ApiError::from(HomeserverError::Unreachable(
                error.etype().as_str().to_owned(),
            ))),
        };
        let mut error_code = 0;
        if let Some(answer) = answer {
            error_code = answer.answer().status.as_u16();
            session.set_keepalive(None);
            // If this fails too there is nobody left to tell.
            let _ = self.send_error(session, context, &answer).await;
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, context: &mut Context) {
        context.record.finish(session, &self.metrics, &self.trusted_proxies, self.log_requests);
    }

    /// Every failure has its line in our own log, without the query, which may hold a token.
    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    fn request_summary(&self, session: &Session, _: &Context) -> String {
        record::path(session.req_header())
    }
}
