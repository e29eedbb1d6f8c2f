//! HTTP to the homeserver: one pool of connections, bodies that stream.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::prelude::HttpPeer;
use pingora::protocols::http::client::HttpSession;
use pingora::{Error, ErrorType};

use super::HomeserverError;
use super::upstream::{POOL_IDLE_TIMEOUT, Upstream};
use crate::types::{self, Announced, BodyError, BodyReader};

/// How long the next bytes of a body may take.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest target that is sent, and the most bytes of fields. Synapse takes 16 KiB of either with
/// all that belongs to it, and gives what is longer no answer that could be understood.
const MAX_TARGET: usize = 15 * 1024;
const MAX_FIELDS: usize = 15 * 1024;

/// How often a request is tried again after a pooled connection turned out to be closed.
const STALE_CONNECTION_RETRIES: usize = 3;

/// A client with a pool of connections to one homeserver. Clones share the pool.
#[derive(Clone)]
pub(super) struct Client {
    connector: Arc<Connector>,
    upstream: Arc<Upstream>,
}

/// The head of an answer, with its body still to be read.
pub type Response = types::Response<ResponseBody>;

impl Client {
    pub(super) fn new(upstream: Arc<Upstream>) -> Self {
        Self { connector: Arc::new(Connector::new(None)), upstream }
    }

    /// Sends a GET and waits for the head of the answer. Nothing bounds the wait but `deadline`.
    pub(super) async fn get(
        &self,
        target: &[u8],
        headers: &[(HeaderName, HeaderValue)],
        deadline: Duration,
    ) -> Result<Response, HomeserverError> {
        match tokio::time::timeout(deadline, self.send(target, headers)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(HomeserverError::TooSlow),
        }
    }

    async fn send(
        &self,
        target: &[u8],
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Response, HomeserverError> {
        let peer = self.upstream.peer().ok_or_else(|| {
            HomeserverError::Unreachable(format!("the name of {} does not resolve", self.upstream))
        })?;
        let request = self.request(target, headers)?;
        let mut tries = 0;
        loop {
            let (mut session, reused) =
                self.connector.get_http_session(&*peer).await.map_err(|error| classify(&error))?;
            match exchange(&mut session, request.clone()).await {
                Ok((status, headers)) => {
                    session.set_read_timeout(Some(BODY_IDLE_TIMEOUT));
                    let body = ResponseBody::new(session, self.connector.clone(), peer, &headers);
                    return Ok(Response { status, headers, body });
                }
                Err(_) if reused && tries < STALE_CONNECTION_RETRIES => tries += 1,
                Err(error) => return Err(classify(&error)),
            }
        }
    }

    fn request(
        &self,
        target: &[u8],
        headers: &[(HeaderName, HeaderValue)],
    ) -> Result<Box<RequestHeader>, HomeserverError> {
        let fields: usize = headers.iter().map(|(_, value)| value.len()).sum();
        if target.len() > MAX_TARGET || fields > MAX_FIELDS {
            return Err(HomeserverError::TooLong);
        }
        // Only the kind: Pingora quotes what it cannot build, which may hold a token.
        let unusable =
            |error: Box<Error>| HomeserverError::Misbehaved(error.etype().as_str().to_owned());
        let mut request =
            RequestHeader::build("GET", target, Some(headers.len() + 3)).map_err(unusable)?;
        request.insert_header(header::HOST, self.upstream.authority()).map_err(unusable)?;
        if !headers.iter().any(|(name, _)| *name == header::USER_AGENT) {
            let ours = concat!("mediary/", env!("CARGO_PKG_VERSION"));
            request.insert_header(header::USER_AGENT, ours).map_err(unusable)?;
        }
        // Bodies are kept as they come, so a coded one would be kept coded.
        request.insert_header(header::ACCEPT_ENCODING, "identity").map_err(unusable)?;
        for (name, value) in headers {
            request.append_header(name.clone(), value.clone()).map_err(unusable)?;
        }
        Ok(Box::new(request))
    }
}

/// Sends a request without a body and reads the head of the final answer.
async fn exchange(
    session: &mut HttpSession,
    request: Box<RequestHeader>,
) -> Result<(StatusCode, HeaderMap), Box<Error>> {
    session.write_request_header(request).await?;
    session.finish_request_body().await?;
    loop {
        session.read_response_header().await?;
        if let Some(head) = session.response_header()
            && !head.status.is_informational()
        {
            return Ok((head.status, head.headers.clone()));
        }
    }
}

fn classify(error: &Error) -> HomeserverError {
    match error.etype() {
        ErrorType::ConnectTimedout
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::ReadTimedout
        | ErrorType::WriteTimedout => HomeserverError::TooSlow,
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error => {
            HomeserverError::Misbehaved(error.etype().as_str().to_owned())
        }
        other => HomeserverError::Unreachable(match error.root_cause().to_string() {
            cause if cause.is_empty() => other.as_str().to_owned(),
            cause => cause,
        }),
    }
}

/// The body of an answer. A connection whose body was read to the end goes back to the pool; any
/// other is closed.
pub struct ResponseBody {
    session: Option<HttpSession>,
    connector: Arc<Connector>,
    peer: Box<HttpPeer>,
    announced: Announced,
}

impl ResponseBody {
    fn new(
        session: HttpSession,
        connector: Arc<Connector>,
        peer: Box<HttpPeer>,
        headers: &HeaderMap,
    ) -> Self {
        Self { session: Some(session), connector, peer, announced: Announced::by(headers) }
    }
}

#[async_trait]
impl BodyReader for ResponseBody {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let Some(session) = self.session.as_mut() else { return Ok(None) };
        loop {
            match session.read_response_body().await {
                Ok(Some(chunk)) if chunk.is_empty() => {}
                Ok(Some(chunk)) => {
                    self.announced.arrived(&chunk);
                    return Ok(Some(chunk));
                }
                Ok(None) => {
                    self.announced.ended()?;
                    break;
                }
                Err(error) if *error.etype() == ErrorType::ReadTimedout => {
                    return Err(BodyError::TimedOut);
                }
                Err(_) => return Err(BodyError::Gone),
            }
        }
        if let Some(session) = self.session.take() {
            self.connector
                .release_http_session(session, &*self.peer, Some(POOL_IDLE_TIMEOUT))
                .await;
        }
        Ok(None)
    }
}
