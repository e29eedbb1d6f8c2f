//! Where key documents come from.

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;

use crate::federation::key_error::KeyError;
use crate::federation::servers::{ServerError, Servers};
use crate::types::ServerName;

/// The largest answer that is read, in bytes (threats FE-09).
pub(super) const MAX_ANSWER: u64 = 64 * 1024;

/// Gives out what servers say of keys.
#[async_trait]
pub(super) trait Source: Send + Sync {
    /// Asks a server and returns the whole body of its answer.
    async fn get(
        &self,
        server: &ServerName,
        target: &str,
        deadline: Instant,
    ) -> Result<Bytes, KeyError>;
}

#[async_trait]
impl Source for Servers {
    async fn get(
        &self,
        server: &ServerName,
        target: &str,
        deadline: Instant,
    ) -> Result<Bytes, KeyError> {
        let response = Servers::get(self, server, target, &[], deadline).await?;
        if response.status != StatusCode::OK {
            let status = response.status.as_u16();
            return Err(KeyError::Refused { server: server.clone(), status });
        }
        let answer = response.whole(MAX_ANSWER, deadline).await;
        answer.map_err(|error| ServerError::Exchange { server: server.clone(), error }.into())
    }
}
