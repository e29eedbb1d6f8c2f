//! Whether a user is suspended, which `whoami` does not tell (CS-AUTH-09): asked with an
//! administrator's token.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;

use super::answer::{Whole, errcode, is_unrecognized, parse};
use super::{Caller, Homeserver, HomeserverError, QUERY_VALUE, Sender, unexpected};
use crate::types::{AccessToken, UserId};

/// Where homeservers tell it, the specified route first: MSC4323 by its released and its unstable
/// name, and Synapse's own. All of them have the answer in a field of the same name.
const ROUTES: [&str; 3] = [
    "/_matrix/client/v1/admin/suspend/",
    "/_matrix/client/unstable/uk.timedout.msc4323/admin/suspend/",
    "/_synapse/admin/v2/users/",
];

/// Which of the routes the homeserver knows, so that it is not asked on all of them each time.
#[derive(Debug, Default)]
pub(super) struct KnownRoute(AtomicUsize);

#[derive(Deserialize)]
struct Standing {
    suspended: Option<bool>,
}

impl Homeserver {
    /// Asks whether a user of the homeserver is suspended, in the name of an administrator.
    ///
    /// Users that the homeserver keeps no account of, such as those of application services that never
    /// registered, are not.
    ///
    /// # Errors
    ///
    /// [`HomeserverError`] if the homeserver does not say; [`HomeserverError::Misbehaved`] also if it
    /// takes the token for no administrator's.
    pub async fn is_suspended(
        &self,
        user_id: &UserId,
        admin_token: &AccessToken,
    ) -> Result<bool, HomeserverError> {
        let sender = Sender::default();
        let admin = Caller::of_token(admin_token, &sender);
        let user_id = utf8_percent_encode(user_id.as_str(), QUERY_VALUE);
        let first = self.standing_route.0.load(Ordering::Relaxed);
        for number in (first..ROUTES.len()).chain(0..first) {
            let target = format!("{}{user_id}", ROUTES[number]);
            let answer = self.small(&target, &admin.fields()?).await?;
            if is_unknown_route(&answer) {
                continue;
            }
            self.standing_route.0.store(number, Ordering::Relaxed);
            return read(&answer);
        }
        let what = "it has no route that says whether a user is suspended".to_owned();
        Err(HomeserverError::Misbehaved(what))
    }
}

/// Whether the homeserver does not serve a route; some say so without JSON (FLD-08).
fn is_unknown_route(answer: &Whole) -> bool {
    is_unrecognized(answer.status, &answer.body)
        || (matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
            && errcode(&answer.body).is_none())
}

fn read(answer: &Whole) -> Result<bool, HomeserverError> {
    match answer.status {
        StatusCode::OK => parse::<Standing>(&answer.body)?.suspended.ok_or_else(|| {
            HomeserverError::Misbehaved("it does not say whether a user is suspended".to_owned())
        }),
        StatusCode::NOT_FOUND => Ok(false),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(HomeserverError::Misbehaved(
            "it takes the token in auth.admin_token_file for no administrator's".to_owned(),
        )),
        status => Err(unexpected(status, "the standing of a user")),
    }
}
