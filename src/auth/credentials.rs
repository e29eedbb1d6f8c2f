//! What a request says of its sender, before anybody has been asked whether it is true.

use http::{HeaderMap, header};

use crate::homeserver::{Caller, Sender};
use crate::types::AccessToken;

/// The longest user or device id that is sent on, in bytes: user ids have at most 255, and homeservers
/// keep device ids far below this.
const MAX_ID_LENGTH: usize = 512;

/// A token and, for application services, whom it acts for (CS-AS-01, CS-AS-02).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The access token.
    pub token: AccessToken,
    /// The `user_id` parameter.
    pub user_id: Option<Box<str>>,
    /// The `device_id` parameter.
    pub device_id: Option<Box<str>>,
}

/// Credentials that nobody needs to be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCredentials {
    /// Neither a header nor a parameter holds a token.
    #[error("Missing access token")]
    Missing,
    /// More than one `Authorization` field: it is not for us to choose.
    #[error("More than one Authorization header")]
    Ambiguous,
    /// Header and parameter hold different tokens: whoever wrote one may not know of the other.
    #[error(
        "The Authorization header and the access_token parameter hold different tokens; send one"
    )]
    Conflicting,
    /// A parameter that says whom an application service acts for is no id.
    #[error("The parameter {0} is too long to be an id")]
    TooLong(&'static str),
}

impl Credentials {
    /// Finds the token: in the `Authorization` header or in the `access_token` parameter
    /// (CS-AUTH-01, CS-AUTH-02). With both, they have to be the same (threats AU-08).
    ///
    /// `parameter` looks a query parameter up.
    ///
    /// # Errors
    ///
    /// [`InvalidCredentials`] if there is no token or more than one.
    pub fn find<'q>(
        headers: &HeaderMap,
        parameter: impl Fn(&str) -> Option<std::borrow::Cow<'q, str>>,
    ) -> Result<Self, InvalidCredentials> {
        let mut fields = headers.get_all(header::AUTHORIZATION).iter();
        let in_query = parameter("access_token");
        let token = match (fields.next(), fields.next()) {
            (Some(_), Some(_)) => return Err(InvalidCredentials::Ambiguous),
            (Some(field), None) => {
                let token = bearer(field.as_bytes()).ok_or(InvalidCredentials::Missing)?;
                if in_query.is_some_and(|other| other != token.reveal()) {
                    return Err(InvalidCredentials::Conflicting);
                }
                token
            }
            (None, _) => in_query
                .and_then(|token| AccessToken::parse(&token))
                .ok_or(InvalidCredentials::Missing)?,
        };
        let named = |name| match parameter(name) {
            Some(value) if value.len() > MAX_ID_LENGTH => Err(InvalidCredentials::TooLong(name)),
            value => Ok(value.map(|value| value.as_ref().into())),
        };
        Ok(Self { token, user_id: named("user_id")?, device_id: named("device_id")? })
    }

    /// Returns what the homeserver is asked with.
    pub(super) fn caller<'a>(&'a self, sender: &'a Sender) -> Caller<'a> {
        Caller {
            token: &self.token,
            user_id: self.user_id.as_deref(),
            device_id: self.device_id.as_deref(),
            sender,
        }
    }
}

/// Takes the token out of `Bearer <token>`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(field: &[u8]) -> Option<AccessToken> {
    let text = std::str::from_utf8(field).ok()?.trim();
    let (scheme, token) = text.split_once(' ')?;
    let token = AccessToken::parse(token.trim_start())?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn find(
        fields: &[&str],
        query: &[(&str, &'static str)],
    ) -> Result<Credentials, InvalidCredentials> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(field).unwrap());
        }
        Credentials::find(&headers, |name| {
            query.iter().find(|(key, _)| *key == name).map(|(_, value)| Cow::Borrowed(*value))
        })
    }

    /// CS-AUTH-01, CS-AUTH-02
    #[test]
    fn a_token_is_found_in_the_header_or_in_the_query() {
        let header = find(&["Bearer one"], &[]).unwrap();
        assert_eq!(header.token.reveal(), "one");
        let query = find(&[], &[("access_token", "two")]).unwrap();
        assert_eq!(query.token.reveal(), "two");
    }

    /// FLD-21
    #[test]
    fn the_same_token_twice_is_one_and_two_tokens_are_none() {
        let same = find(&["Bearer one"], &[("access_token", "one")]).unwrap();
        assert_eq!(same.token.reveal(), "one");
        for other in ["two", "", "One", "one two", "one\n"] {
            let both = find(&["Bearer one"], &[("access_token", other)]);
            assert_eq!(both, Err(InvalidCredentials::Conflicting), "{other:?}");
        }
    }

    /// CS-AUTH-04
    #[test]
    fn a_header_without_a_token_is_not_made_good_by_the_query() {
        for field in ["Bearer", "Bearer ", "Basic YTpi", "X-Matrix origin=a", "", "Bearer a b"] {
            assert_eq!(
                find(&[field], &[("access_token", "two")]),
                Err(InvalidCredentials::Missing),
                "{field:?}"
            );
        }
    }

    /// CS-AUTH-01
    #[test]
    fn the_scheme_is_known_in_any_case() {
        assert_eq!(find(&["bEaReR   one"], &[]).unwrap().token.reveal(), "one");
    }

    /// FLD-21
    #[test]
    fn two_headers_are_refused() {
        assert_eq!(find(&["Bearer a", "Bearer a"], &[]), Err(InvalidCredentials::Ambiguous));
    }

    /// CS-AS-01, CS-AS-02
    #[test]
    fn application_services_may_name_a_user_and_a_device() {
        let found = find(&["Bearer a"], &[("user_id", "@b:c"), ("device_id", "D")]).unwrap();
        assert_eq!(found.user_id.as_deref(), Some("@b:c"));
        assert_eq!(found.device_id.as_deref(), Some("D"));
        let long: &'static str = "x".repeat(MAX_ID_LENGTH + 1).leak();
        for name in ["user_id", "device_id"] {
            assert!(find(&["Bearer a"], &[(name, &long[1..])]).is_ok());
            let refused = find(&["Bearer a"], &[(name, long)]);
            assert_eq!(refused, Err(InvalidCredentials::TooLong(name)));
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = bearer(&bytes);
        }
    }
}
