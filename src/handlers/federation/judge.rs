//! Who asks, whether that is true, and whether they may: the cheap questions first, so that whoever is
//! refused costs no look-up of keys.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;

use super::Received;
use crate::auth::{Origin, OriginAuthenticator, OriginClaim, OriginError};
use crate::error::ApiError;
use crate::federation::ServerRules;
use crate::federation::x_matrix::{Claim, XMatrixError};
use crate::limit::{Limit, Place, Places, RateLimit};
use crate::media::{SignedRequest, Signer};
use crate::policy::Denied;
use crate::types::ServerName;

/// When it is worth another try where too many requests are under way.
const SOON: Duration = Duration::from_secs(1);

/// A place among the requests of one server that are being answered.
pub(super) type RequestPlace = Place<ServerName>;

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
    pub(super) place: RequestPlace,
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
        let Received { method, raw_target, headers, client } = received;
        let claim = OriginClaim::read(us, headers)?;
        check(rules, claim.server_name())?;
        let origin = self.auth.verify(claim, method, raw_target, client).await?;
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
        SignedRequest {
            origin: self.origin.clone(),
            signer,
            target: Bytes::copy_from_slice(received.raw_target),
            authorization: received.authorization(),
        }
    }
}

/// Returns the `Authorization` that the homeserver is shown where it is the judge: the fields as they
/// came. Where there are lists of servers the name is held against them first, and the homeserver gets
/// what was read here, written anew: read in another way the fields as they came could name another
/// server.
///
/// # Errors
///
/// [`ApiError::Origin`] if there is nothing to judge, [`Denied::Server`].
pub(super) fn shown_to_homeserver(
    rules: &ServerRules,
    received: Received<'_>,
) -> Result<Arc<[HeaderValue]>, ApiError> {
    if rules.are_none() {
        let authorization = received.authorization();
        return if authorization.is_empty() {
            Err(OriginError::Claim(XMatrixError::Missing).into())
        } else {
            Ok(authorization)
        };
    }
    let claim = Claim::from_headers(received.headers).map_err(OriginError::from)?;
    check(rules, &claim.origin)?;
    Ok(claim.fields().into())
}

fn check(rules: &ServerRules, server: &ServerName) -> Result<(), ApiError> {
    if rules.permit(server) { Ok(()) } else { Err(Denied::Server.into()) }
}
