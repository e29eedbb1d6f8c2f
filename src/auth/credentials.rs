//! What a request says of its sender, before anybody has been asked whether it is true.

use http::{HeaderMap, header};

use crate::types::AccessToken;

/// The longest token that is taken for one; those in use stay far below.
const MAX_TOKEN_LENGTH: usize = 8 * 1024;

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
}

impl Credentials {
    /// Finds the token: in the `Authorization` header, otherwise in the `access_token` parameter
    /// (CS-AUTH-01, CS-AUTH-02). With both, the header counts.
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
        let token = match (fields.next(), fields.next()) {
            (Some(_), Some(_)) => return Err(InvalidCredentials::Ambiguous),
            (Some(field), None) => bearer(field.as_bytes()).map(AccessToken::new),
            (None, _) => parameter("access_token")
                .filter(|token| is_token(token.as_bytes()))
                .map(|token| AccessToken::new(token.as_ref())),
        };
        let named = |name| parameter(name).map(|value| value.as_ref().into());
        Ok(Self {
            token: token.ok_or(InvalidCredentials::Missing)?,
            user_id: named("user_id"),
            device_id: named("device_id"),
        })
    }
}

/// Takes the token out of `Bearer <token>`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(field: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(field).ok()?.trim();
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim_start();
    (scheme.eq_ignore_ascii_case("bearer") && is_token(token.as_bytes())).then_some(token)
}

/// Opaque (CS-AUTH-01), but it has to fit the header in which it is sent on.
fn is_token(token: &[u8]) -> bool {
    (1..=MAX_TOKEN_LENGTH).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic)
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
    fn the_header_counts_before_the_query() {
        let both = find(&["Bearer one"], &[("access_token", "two")]).unwrap();
        assert_eq!(both.token.reveal(), "one");
        let query = find(&[], &[("access_token", "two")]).unwrap();
        assert_eq!(query.token.reveal(), "two");
    }

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

    #[test]
    fn two_headers_are_refused() {
        assert_eq!(find(&["Bearer a", "Bearer a"], &[]), Err(InvalidCredentials::Ambiguous));
    }

    #[test]
    fn application_services_may_name_a_user_and_a_device() {
        let found = find(&["Bearer a"], &[("user_id", "@b:c"), ("device_id", "D")]).unwrap();
        assert_eq!(found.user_id.as_deref(), Some("@b:c"));
        assert_eq!(found.device_id.as_deref(), Some("D"));
    }

    #[test]
    fn tokens_that_fit_no_header_are_none() {
        for token in ["", "a\r\nX: y", "a b", "é", "\0"] {
            assert!(!is_token(token.as_bytes()), "{token:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = bearer(&bytes);
        }
    }
}
