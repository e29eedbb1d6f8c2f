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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use http::{StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::HttpPeer;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::{Error, ErrorSource, ErrorType};

use crate::auth::Credentials;
use crate::config::TrustedProxies;
use crate::connection::{self, Guarded, Peer};
use crate::error::ApiError;
use crate::handlers::{Request, Services};
use crate::homeserver::{HomeserverError, Sender, Upstream};
use crate::limit::{Place, Places, Tab};
use crate::metrics::Metrics;
use crate::response::{Reply, write};
use crate::route::{Dialect, MediaRoute, Query, Route, SessionChange, classify};
use crate::types::ClientNetwork;

use body::{NoBody, RequestBody};
use record::Record;

/// How long a connection without a request is kept. Pingora's own default is for ever.
const KEEPALIVE_SECONDS: u64 = 75;

/// The proxy as Pingora drives it.
pub struct Proxy {
    services: Arc<Services>,
    upstream: Arc<Upstream>,
    trusted_proxies: TrustedProxies,
    places: Arc<Places<ClientNetwork>>,
    metrics: Arc<Metrics>,
    log_requests: bool,
    /// Whether the operator was told that a proxy may be forgotten.
    has_suspected: AtomicBool,
}

/// One request's state between its phases.
pub struct Context {
    record: Record,
    /// The place that a request behind a trusted proxy takes.
    _place: Option<Place<ClientNetwork>>,
    /// What a media request is charged to, once it is let in.
    tab: Option<Tab>,
    /// What to forget once the homeserver has answered.
    session_change: Option<(SessionChange, Option<Credentials>)>,
}

impl Proxy {
    /// Puts the parts together. `log_requests` gives every request a line in the log.
    pub fn new(
        services: Arc<Services>,
        trusted_proxies: TrustedProxies,
        places: Arc<Places<ClientNetwork>>,
        metrics: Arc<Metrics>,
        log_requests: bool,
    ) -> Self {
        let upstream = services.homeserver.upstream().clone();
        let has_suspected = AtomicBool::new(false);
        Self { services, upstream, trusted_proxies, places, metrics, log_requests, has_suspected }
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
        if let Some(kind) = error.refusal() {
            self.metrics.refusal(kind);
        }
        self.send(session, context, Reply::error(error, dialect(session.req_header()))).await
    }

    /// Takes a place for a request that a trusted proxy passes on; whoever connects by itself has one
    /// already. Those on this machine that speak for nobody need none.
    fn take_place(&self, session: &Session) -> Result<Option<Place<ClientNetwork>>, ApiError> {
        match forwarded::client_behind(session, &self.trusted_proxies) {
            Some(client) => {
                let place = self.places.take(ClientNetwork::of(client));
                place.map(Some).ok_or(ApiError::TooManyConnections)
            }
            None => Ok(None),
        }
    }

    /// Answers a media request, within the limits on requests and bytes.
    async fn answer(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<Reply, ApiError> {
        let traffic = &self.services.traffic;
        let address = forwarded::limited_address(session, &self.trusted_proxies);
        let mut tab =
            traffic.open(address, Instant::now()).inspect_err(|_| self.suspect_proxy(session))?;
        let outcome = match self.answer_on(session, &mut tab).await {
            Ok(reply) => {
                let is_head = session.req_header().method == http::Method::HEAD;
                match reply.media_length().filter(|_| !is_head) {
                    Some(length) => match traffic.charge(&mut tab, length, Instant::now()) {
                        Ok(()) => Ok(reply),
                        Err(exceeded) => Err(exceeded.into()),
                    },
                    None => Ok(reply),
                }
            }
            refused => refused,
        };
        // Whoever met a limit is charged nothing for hearing of it: asking must not make it longer.
        if !matches!(outcome, Err(ApiError::Exceeded(_))) {
            context.tab = Some(tab);
        }
        outcome
    }

    /// Says once what may be wrong when an address meets its limits: all who come through a proxy that
    /// is not trusted have its address.
    fn suspect_proxy(&self, session: &Session) {
        let Some(peer) = forwarded::unbelieved(session, &self.trusted_proxies) else { return };
        if !self.has_suspected.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %peer,
                "an address that sends X-Forwarded-For meets limits.address_*; if it is a proxy of \
                 yours, name it in server.trusted_proxies, or all who come through it share its limits"
            );
        }
    }

    async fn answer_on(&self, session: &mut Session, tab: &mut Tab) -> Result<Reply, ApiError> {
        let sender = forwarded::sender(session, &self.trusted_proxies);
        if !session.is_body_empty() {
            return self.answer_with_body(session, sender, tab).await;
        }
        let head = session.req_header();
        let Route::Media(route) = classify(&head.method, head.raw_path()) else {
            return Err(ApiError::Unrecognized);
        };
        self.services.answer(request(head, route, sender, tab), &mut NoBody).await
    }

    /// Answers a media request that has a body.
    async fn answer_with_body(
        &self,
        session: &mut Session,
        sender: Sender,
        tab: &mut Tab,
    ) -> Result<Reply, ApiError> {
        // The body is read from the session while the head is still looked at.
        let head = session.req_header().clone();
        let Route::Media(route) = classify(&head.method, head.raw_path()) else {
            return Err(ApiError::Unrecognized);
        };
        let mut body = RequestBody::new(session);
        self.services.answer(request(&head, route, sender, tab), &mut body).await
    }

    /// As [`forget`](Self::forget), but only for somebody whose token is remembered, and only what is
    /// their own: nobody must be able to empty the memory with what the homeserver does not answer,
    /// which is anything that is too long for it.
    async fn forget_if_known(&self, context: &mut Context) {
        if let Some((SessionChange::OwnToken | SessionChange::OwnUser, Some(credentials))) =
            &context.session_change
            && self.services.auth.knows(credentials).await
        {
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

fn request<'h>(
    head: &'h RequestHeader,
    route: MediaRoute<'h>,
    sender: Sender,
    tab: &'h mut Tab,
) -> Request<'h> {
    Request {
        route,
        raw_target: head.raw_path(),
        method: &head.method,
        headers: &head.headers,
        sender,
        tab,
    }
}

/// Whether the head of a final answer has gone out; an interim one is followed by another.
fn has_answered(session: &Session) -> bool {
    session.response_written().is_some_and(|head| {
        !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS
    })
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
        let record = Record::begin(&self.metrics);
        Context { record, _place: None, tab: None, session_change: None }
    }

    async fn early_request_filter(
        &self,
        session: &mut Session,
        _: &mut Context,
    ) -> Result<(), Box<Error>> {
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(KEEPALIVE_SECONDS));
        }
        // How long reads may take is for the connection to say.
        session.set_read_timeout(None);
        let has_body = !session.is_body_empty();
        if let Some(connection) = connection::of(session) {
            connection.begin_answer(has_body);
        }
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
        match self.take_place(session) {
            Ok(place) => context._place = place,
            Err(error) => {
                self.send_error(session, context, &error).await?;
                return Ok(true);
            }
        }
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
                self.answer(session, context).await
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
        if session.req_header().version != Version::HTTP_11 {
            // It goes on as HTTP/1.1, where there is always a host and 1xx may come.
            if !request.headers.contains_key(header::HOST) {
                request.insert_header(header::HOST, self.upstream.authority())?;
            }
            request.remove_header(&header::EXPECT);
        }
        let peer = Peer::of(session.client_addr());
        forwarded::rewrite(request, peer, &self.trusted_proxies)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        _: &mut Option<Bytes>,
        end_of_stream: bool,
        _: &mut Context,
    ) -> Result<(), Box<Error>> {
        if let (true, Some(connection)) = (end_of_stream, connection::of(session)) {
            connection.end_body();
        }
        Ok(())
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
        if response.status == StatusCode::SWITCHING_PROTOCOLS
            && let Some(connection) = connection::of(session)
        {
            // A WebSocket may be silent for as long as it likes.
            connection.end_body();
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
            _ if has_answered(session) => None,
            (ErrorSource::Upstream, ErrorType::ConnectTimedout | ErrorType::ReadTimedout) => {
                Some(ApiError::from(HomeserverError::TooSlow))
            }
            (ErrorSource::Downstream, ErrorType::ReadError)
                if connection::of(session).is_some_and(Guarded::sent_too_slowly) =>
            {
                Some(ApiError::ClientTimedOut)
            }
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
        if let Some(tab) = context.tab.take() {
            let flowed = session.body_bytes_sent() as u64 + session.body_bytes_read() as u64;
            self.services.traffic.settle(&tab, flowed, Instant::now());
        }
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
