//! Which server has signed a request (section 12 of the checklist).

use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::federation::x_matrix::{Claim, XMatrixError, signed_request};
use crate::federation::{KeyError, RemoteKeys};
use crate::metrics::Metrics;
use crate::types::{ClientNetwork, ServerName};

/// Another homeserver that has signed its request. Holding one is the permission to be answered as
/// that server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    server_name: ServerName,
}

impl Origin {
    /// Returns its name.
    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    /// Vouches for a server without a signature.
    #[cfg(test)]
    pub fn for_test(server_name: ServerName) -> Self {
        Self { server_name }
    }
}

/// Why a request counts as nobody's (XM-08, FLD-24). The texts are for whoever runs the server that
/// sent it; what only our own log may say is in the source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// It is not signed, or its signature cannot be read.
    #[error(transparent)]
    Claim(#[from] XMatrixError),
    /// It claims to come from where it went to. Nobody federates with themselves.
    #[error("the request claims to be from {us}, and this is {us}: no server asks itself")]
    FromOurselves {
        /// Who we are.
        us: ServerName,
    },
    /// It is for another server (XM-05).
    #[error("the request is signed for {destination}, and this is {us}")]
    WrongDestination {
        /// For whom.
        destination: ServerName,
        /// Who we are.
        us: ServerName,
    },
    /// There is no key to check the signature with.
    #[error("the signature cannot be checked: {}", .0.public_text())]
    Key(KeyError),
    /// Too many keys are being fetched already for whoever sent it: it may be tried again soon.
    #[error("the keys of too many servers are being fetched for requests from this address")]
    Busy,
    /// The key did not make the signature.
    #[error(
        "the signature is not that of this request: method, target or names have changed on the way, \
         or the key is another"
    )]
    BadSignature,
}

impl From<KeyError> for OriginError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Busy => Self::Busy,
            error => Self::Key(error),
        }
    }
}

/// What a request says of where it comes from, read but not yet checked. Until then only rules and
/// limits may go by it.
#[derive(Debug, Clone)]
pub struct OriginClaim {
    claim: Claim,
    us: ServerName,
}

impl OriginClaim {
    /// Reads what a request claims, and makes sure that it is for us and from another server. Nobody is
    /// asked anything.
    ///
    /// # Errors
    ///
    /// [`OriginError`] if it claims nothing, or nothing that could be checked.
    pub fn read(us: &ServerName, headers: &HeaderMap) -> Result<Self, OriginError> {
        let claim = Claim::from_headers(headers)?;
        match &claim.destination {
            Some(destination) if destination != us => Err(OriginError::WrongDestination {
                destination: destination.clone(),
                us: us.clone(),
            }),
            _ if claim.origin == *us => Err(OriginError::FromOurselves { us: us.clone() }),
            _ => Ok(Self { claim, us: us.clone() }),
        }
    }

    /// Returns the server that it names. Anybody may write any name.
    pub fn server_name(&self) -> &ServerName {
        &self.claim.origin
    }
}

/// Checks which server has signed a request.
#[derive(Clone)]
pub struct OriginAuthenticator {
    keys: RemoteKeys,
    metrics: Arc<Metrics>,
}

impl OriginAuthenticator {
    /// Checks with these keys.
    pub fn new(keys: RemoteKeys, metrics: Arc<Metrics>) -> Self {
        Self { keys, metrics }
    }

    /// Holds a claim against the keys that the server publishes. One good signature is enough (XM-09).
    ///
    /// `raw_target` is path and query as they stand on the request line (XM-02). `sender` is the client
    /// that sent the request, where its address is known: it alone is refused if it names too many
    /// servers at once.
    ///
    /// # Errors
    ///
    /// [`OriginError`] if no signature is good: what is said is why the first was not that could be
    /// checked, else why there was no key.
    pub async fn verify(
        &self,
        claim: OriginClaim,
        method: &Method,
        raw_target: &[u8],
        sender: Option<ClientNetwork>,
    ) -> Result<Origin, OriginError> {
        let server = claim.server_name().clone();
        let outcome = self.judge(claim, method, raw_target, sender).await;
        let checks = &self.metrics.origin_checks;
        match &outcome {
            Ok(_) => checks.accepted.inc(),
            Err(OriginError::Busy) => checks.failed.inc(),
            Err(OriginError::Key(error)) if !matches!(error, KeyError::Unknown { .. }) => {
                checks.failed.inc();
                tracing::info!(%server, %error, "another server's signature cannot be checked");
            }
            Err(_) => checks.refused.inc(),
        }
        outcome
    }

    async fn judge(
        &self,
        claim: OriginClaim,
        method: &Method,
        raw_target: &[u8],
        sender: Option<ClientNetwork>,
    ) -> Result<Origin, OriginError> {
        let OriginClaim { claim, us } = claim;
        // What is not ASCII has no place in a target (RFC 3986), and none in JSON that both sides would
        // write alike.
        let target = std::str::from_utf8(raw_target).ok().filter(|target| target.is_ascii());
        let target = target.ok_or(OriginError::BadSignature)?;
        let message = signed_request(method, target, &claim.origin, &us);
        let mut failure = None;
        for signature in &claim.signatures {
            match self.keys.key(&claim.origin, &signature.key_id, sender).await {
                Ok(key) if signature.verifies(&key, &message) => {
                    return Ok(Origin { server_name: claim.origin });
                }
                Ok(_) => failure = Some(OriginError::BadSignature),
                Err(error) => failure = failure.or(Some(error.into())),
            }
        }
        Err(failure.unwrap_or(OriginError::BadSignature))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;
    use crate::federation::{KeySeed, SigningKey};

    const TARGET: &str = "/_matrix/federation/v1/media/download/abc?a=1&b=2";

    fn name(text: &str) -> ServerName {
        text.parse().unwrap()
    }

    fn key() -> SigningKey {
        KeySeed::generate().unwrap().signing_key()
    }

    /// Knows the keys of one server, and has no way to ask for others.
    fn authenticator(server: &str, keys: &[&SigningKey]) -> OriginAuthenticator {
        let keys = RemoteKeys::for_test(name(server), keys);
        OriginAuthenticator::new(keys, Arc::new(Metrics::new().unwrap()))
    }

    fn headers(fields: &[HeaderValue]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::AUTHORIZATION, field.clone());
        }
        headers
    }

    fn signed_for(key: &SigningKey, destination: &str) -> HeaderValue {
        key.authorization(&name("a.example"), &name(destination), &Method::GET, TARGET)
    }

    async fn check(
        authenticator: &OriginAuthenticator,
        fields: &[HeaderValue],
    ) -> Result<Origin, OriginError> {
        let claim = OriginClaim::read(&name("us.example"), &headers(fields))?;
        authenticator.verify(claim, &Method::GET, TARGET.as_bytes(), None).await
    }

    /// FM-S-01, XM-01
    #[tokio::test]
    async fn a_server_that_has_signed_is_known_by_its_name() {
        let key = key();
        let authenticator = authenticator("a.example", &[&key]);
        let origin = check(&authenticator, &[signed_for(&key, "us.example")]).await.unwrap();
        assert_eq!(origin.server_name(), &name("a.example"));
    }

    /// XM-08, FLD-24, threats FE-01
    #[tokio::test]
    async fn a_request_without_a_signature_is_nobodys() {
        let authenticator = authenticator("a.example", &[]);
        let missing = check(&authenticator, &[]).await.unwrap_err();
        assert_eq!(missing, OriginError::Claim(XMatrixError::Missing));
        for field in ["Bearer token", "X-Matrix", "X-Matrix origin=\"\",key=\"\",sig=\"\"", ""] {
            let refused = check(&authenticator, &[HeaderValue::from_static(field)]).await;
            assert!(matches!(refused, Err(OriginError::Claim(_))), "{field}: {refused:?}");
        }
    }

    /// XM-05, threats FE-03
    #[tokio::test]
    async fn a_request_for_another_server_is_refused_before_any_key_is_looked_for() {
        let authenticator = authenticator("elsewhere.example", &[]);
        for destination in ["other.example", "us.example:8448", "US.example"] {
            let refused = check(&authenticator, &[signed_for(&key(), destination)]).await;
            let expected = OriginError::WrongDestination {
                destination: name(destination),
                us: name("us.example"),
            };
            assert_eq!(refused, Err(expected));
        }
    }

    /// Threats FE-03
    #[tokio::test]
    async fn a_request_from_ourselves_is_refused_before_any_key_is_looked_for() {
        let key = key();
        let authenticator = authenticator("us.example", &[&key]);
        let us = name("us.example");
        let field = key.authorization(&us, &us, &Method::GET, TARGET);
        let refused = check(&authenticator, &[field]).await.unwrap_err();
        assert!(refused.to_string().contains("claims to be from us.example"), "{refused}");
        assert_eq!(refused, OriginError::FromOurselves { us });
    }

    /// XM-05, threats FE-04
    #[tokio::test]
    async fn a_server_that_does_not_say_for_whom_must_have_signed_it_for_us() {
        let key = key();
        let authenticator = authenticator("a.example", &[&key]);
        let without_destination = |destination: &str| {
            let field = signed_for(&key, destination);
            let text = field.to_str().unwrap();
            HeaderValue::try_from(text.replace(&format!("destination=\"{destination}\","), ""))
                .unwrap()
        };
        assert!(check(&authenticator, &[without_destination("us.example")]).await.is_ok());
        let refused = check(&authenticator, &[without_destination("other.example")]).await;
        assert_eq!(refused, Err(OriginError::BadSignature));
    }

    /// XM-02, FLD-25, threats FE-02
    #[tokio::test]
    async fn what_was_signed_is_what_was_asked() {
        let key = key();
        let authenticator = authenticator("a.example", &[&key]);
        let headers = headers(&[signed_for(&key, "us.example")]);
        let claim = OriginClaim::read(&name("us.example"), &headers).unwrap();
        for (method, target) in [
            (Method::HEAD, TARGET.as_bytes()),
            (Method::GET, b"/_matrix/federation/v1/media/download/abc?b=2&a=1"),
            (Method::GET, b"/_matrix/federation/v1/media/download/%61bc?a=1&b=2"),
            (Method::GET, b"/_matrix/federation/v1/media/download/abc"),
            (Method::GET, "/_matrix/federation/v1/media/download/\u{e9}".as_bytes()),
            (Method::GET, b"/\xff"),
        ] {
            let refused = authenticator.verify(claim.clone(), &method, target, None).await;
            assert_eq!(refused, Err(OriginError::BadSignature));
        }
    }

    /// XM-09, XM-10, CJ-05, threats FE-06
    #[tokio::test]
    async fn one_good_signature_of_several_is_enough() {
        let (known, unknown) = (key(), key());
        let authenticator = authenticator("a.example", &[&known]);
        let good = signed_for(&known, "us.example");
        let with_unknown_key = signed_for(&unknown, "us.example");
        let bad = known.authorization(
            &name("a.example"),
            &name("us.example"),
            &Method::GET,
            "/elsewhere",
        );
        let other = HeaderValue::from_static(r#"X-Matrix origin="a.example",key="rsa:1",sig="x""#);
        for first in [&with_unknown_key, &bad, &other] {
            assert!(check(&authenticator, &[first.clone(), good.clone()]).await.is_ok());
            assert!(check(&authenticator, &[good.clone(), first.clone()]).await.is_ok());
        }
        for fields in [[&with_unknown_key, &bad], [&bad, &with_unknown_key]] {
            let refused = check(&authenticator, &fields.map(HeaderValue::clone)).await;
            assert_eq!(refused, Err(OriginError::BadSignature));
        }
        let refused = check(&authenticator, &[with_unknown_key]).await;
        assert!(matches!(refused, Err(OriginError::Key(KeyError::Unknown { .. }))));
    }

    /// Threats FE-06, FE-08
    #[test]
    fn a_client_that_names_too_many_servers_is_to_be_told_so_and_nothing_of_signatures() {
        assert_eq!(OriginError::from(KeyError::Busy), OriginError::Busy);
        let unknown = KeyError::Unknown { server: name("a.example"), key_id: "ed25519:1".into() };
        assert_eq!(OriginError::from(unknown.clone()), OriginError::Key(unknown));
    }

    #[test]
    fn a_claim_names_a_server_before_it_is_checked() {
        let fields = headers(&[signed_for(&key(), "us.example")]);
        let claim = OriginClaim::read(&name("us.example"), &fields).unwrap();
        assert_eq!(claim.server_name(), &name("a.example"));
    }
}
