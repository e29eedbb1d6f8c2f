//! Who asks, whether that is true, and whether they may: the cheap questions first, so that whoever is
//! refused costs no look-up of keys.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, header};

use super::Received;
use crate::auth::{Origin, OriginAuthenticator, OriginClaim};
use crate::error::ApiError;
use crate::federation::ServerRules;
use crate::federation::x_matrix::Claim;
use crate::limit::{Limit, Place, Places, RateLimit};
use crate::media::{SignedRequest, Signer};
use crate::policy::Denied;
use crate::types::ServerName;

/// When it is worth another try where too many requests are under way.
const SOON: Duration = Duration::from_secs(1);

/// A place among the requests of one server that are being answered.
pub(super) type ServerPlace = Place<ServerName>;

/// Judges signatures, and how often and how much at once a server may ask.
pub struct Judge {
    auth: OriginAuthenticator,
    rate: Option<RateLimit<ServerName>>,
    places: Arc<Places<ServerName>>,
}

/// Another server that may ask.
pub(super) struct Admitted {
    origin: Origin,
    /// Its place, until it is answered.
    pub(super) place: ServerPlace,
}

impl Judge {
    /// Lets servers ask at a rate, or at any, and so many times at once.
    pub fn new(
        auth: OriginAuthenticator,
        rate: Option<RateLimit<ServerName>>,
        places: Arc<Places<ServerName>>,
    ) -> Self {
        Self { auth, rate, places }
    }

    /// Finds out which server asks, and whether it may. `us` is our own name.
    ///
    /// # Errors
    ///
    /// [`ApiError::Origin`] if nobody can be believed to ask, [`Denied::Server`], or the limit that is
    /// exceeded: nobody else can use a server's share up, since its signature is checked first.
    pub(super) async fn admit(
        &self,
        us: &ServerName,
        rules: &ServerRules,
        received: Received<'_>,
    ) -> Result<Admitted, ApiError> {
        let Received { method, raw_target, headers } = received;
        let claim = OriginClaim::read(us, headers)?;
        check(rules, claim.server_name())?;
        let origin = self.auth.verify(claim, method, raw_target, None).await?;
        let server = origin.server_name();
        if let Some(rate) = &self.rate {
            let taken = rate.take(server, Instant::now());
            taken.map_err(|wait| Limit::ServerRequests.exceeded(wait))?;
        }
        let place = self.places.take(server.clone());
        let place = place.ok_or_else(|| Limit::ServerConcurrency.exceeded(SOON))?;
        Ok(Admitted { origin, place })
    }
}

impl Admitted {
    /// Returns the request as the homeserver may see it.
    pub(super) fn request(&self, signer: Signer, received: Received<'_>) -> SignedRequest {
        let authorization = received.headers.get_all(header::AUTHORIZATION);
        SignedRequest {
            origin: self.origin.clone(),
            signer,
            target: Bytes::copy_from_slice(received.raw_target),
            authorization: authorization.iter().cloned().collect(),
        }
    }
}

/// Refuses a server that media is not exchanged with, by the name that it gives itself; whether it has
/// signed, the homeserver finds out. What cannot be read is left to the homeserver too.
///
/// # Errors
///
/// [`Denied::Server`].
pub(super) fn check_claimed(rules: &ServerRules, headers: &HeaderMap) -> Result<(), ApiError> {
    match Claim::from_headers(headers) {
        Ok(claim) => check(rules, &claim.origin),
        Err(_) => Ok(()),
    }
}

fn check(rules: &ServerRules, server: &ServerName) -> Result<(), ApiError> {
    if rules.permit(server) { Ok(()) } else { Err(Denied::Server.into()) }
}
