//! HTTP over connections to checked addresses.

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tokio::time::Instant;
use url::Url;

use super::{EgressError, EgressSettings, Endpoint, Response, SrvTarget, UrlRequest};
use crate::types::{BodyError, BodyReader};

pub(super) struct Inner;

#[expect(unused_variables, reason = "being built")]
impl Inner {
    pub(super) fn new(settings: EgressSettings) -> anyhow::Result<Self> {
        Ok(Self)
    }

    pub(super) async fn srv(
        &self,
        name: &str,
        deadline: Instant,
    ) -> Result<Vec<SrvTarget>, EgressError> {
        Err(EgressError::TimedOut("being built"))
    }

    pub(super) async fn get(
        &self,
        endpoint: &Endpoint,
        target: &str,
        fields: &[(HeaderName, HeaderValue)],
        deadline: Instant,
    ) -> Result<Response, EgressError> {
        Err(EgressError::TimedOut("being built"))
    }

    pub(super) async fn get_url(
        &self,
        request: UrlRequest,
        deadline: Instant,
    ) -> Result<(Url, Response), EgressError> {
        Err(EgressError::TimedOut("being built"))
    }
}

/// The body of an answer.
pub struct ResponseBody;

#[async_trait]
impl BodyReader for ResponseBody {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        Ok(None)
    }
}
