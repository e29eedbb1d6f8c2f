//! Why no connection came about, in words for an operator.

use pingora::{Error, ErrorType};

use super::EgressError;

/// How many letters of what a certificate says are told: it may be for hundreds of names.
const MAX_REASON: usize = 200;

/// Why there is no connection to one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unconnected {
    /// Somebody is there who is not believed.
    Tls(String),
    /// Nobody answers.
    TimedOut,
    /// Nobody is there.
    Absent(String),
}

impl Unconnected {
    pub(super) fn by(error: &Error) -> Self {
        match error.etype() {
            ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Self::TimedOut,
            ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError => {
                Self::Tls(tls_reason(&error.to_string()))
            }
            ErrorType::ConnectRefused => Self::Absent("connection refused".to_owned()),
            ErrorType::ConnectNoRoute => Self::Absent("no route".to_owned()),
            other => Self::Absent(match error.root_cause().to_string() {
                cause if cause.is_empty() => other.as_str().to_owned(),
                cause => shortened(&cause),
            }),
        }
    }
}

/// Sums up what came of every address: that somebody is there who is not believed says more than that
/// others are not there.
pub(super) fn unconnected(endpoint: String, attempts: Vec<(String, Unconnected)>) -> EgressError {
    let doubt = attempts.iter().find_map(|(address, failure)| match failure {
        Unconnected::Tls(reason) => Some((address, reason.clone())),
        _ => None,
    });
    if let Some((address, reason)) = doubt {
        return EgressError::Tls { endpoint: format!("{endpoint} ({address})"), reason };
    }
    if attempts.iter().all(|(_, failure)| *failure == Unconnected::TimedOut) {
        return EgressError::Unreached("the connection");
    }
    let reasons: Vec<_> = attempts
        .into_iter()
        .map(|(address, failure)| match failure {
            Unconnected::Tls(reason) | Unconnected::Absent(reason) => {
                format!("{address}: {reason}")
            }
            Unconnected::TimedOut => format!("{address}: no answer in time"),
        })
        .collect();
    EgressError::Connect { endpoint, reason: reasons.join("; ") }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_REASON).collect()
}

/// What an operator can make of the words of the TLS library, which come wrapped twice.
fn tls_reason(words: &str) -> String {
    let words = words.split(", SNI: ").next().unwrap_or_default();
    let words = words.rsplit("cause: ").next().unwrap_or_default().trim();
    let Some(doubt) = words.strip_prefix("invalid peer certificate: ") else {
        return match words {
            "tls handshake eof" => "the connection was closed in the handshake".to_owned(),
            other if other.starts_with("received corrupt message") => {
                "what is there speaks no TLS".to_owned()
            }
            other => shortened(other),
        };
    };
    match doubt {
        "UnknownIssuer" | "BadSignature" => {
            "no known authority vouches for the certificate".to_owned()
        }
        _ if doubt.starts_with("certificate expired") => "the certificate has expired".to_owned(),
        _ if doubt.starts_with("certificate not valid yet") => {
            "the certificate is not valid yet".to_owned()
        }
        _ if doubt.starts_with("certificate not valid for name") => {
            let known = doubt.rsplit("only valid for ").next().unwrap_or_default();
            format!("the certificate is for another name: {}", shortened(known))
        }
        other => format!("the certificate is not valid: {}", shortened(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absent(address: &str, reason: &str) -> (String, Unconnected) {
        (address.to_owned(), Unconnected::Absent(reason.to_owned()))
    }

    fn silent(address: &str) -> (String, Unconnected) {
        (address.to_owned(), Unconnected::TimedOut)
    }

    #[test]
    fn somebody_else_says_more_than_nobody() {
        let doubtful = ("3".to_owned(), Unconnected::Tls("doubt".to_owned()));
        let failure = unconnected("a:1".to_owned(), vec![absent("1", "x"), silent("2"), doubtful]);
        let expected =
            EgressError::Tls { endpoint: "a:1 (3)".to_owned(), reason: "doubt".to_owned() };
        assert_eq!(failure, expected);
    }

    #[test]
    fn what_came_of_each_address_is_told() {
        let failure = unconnected("a:1".to_owned(), vec![absent("1", "no route"), silent("2")]);
        assert_eq!(failure.to_string(), "no connection to a:1: 1: no route; 2: no answer in time");
        let failure = unconnected("a:1".to_owned(), vec![silent("1"), silent("2")]);
        assert_eq!(failure, EgressError::Unreached("the connection"));
    }

    #[test]
    fn the_words_of_the_library_are_unwrapped() {
        let wrapped = |words: &str| {
            format!(
                "TLSHandshakeFailure context: TLS connect() failed:  TLSHandshakeFailure context: tls \
                 connect error cause: {words}, SNI: a.example cause: local address 127.0.0.1:4"
            )
        };
        let long = format!("invalid peer certificate: {}", "x".repeat(1000));
        for (words, told) in [
            ("invalid peer certificate: UnknownIssuer", "no known authority vouches"),
            (
                "invalid peer certificate: certificate expired: it is late",
                "the certificate has expired",
            ),
            (
                "invalid peer certificate: certificate not valid yet: soon",
                "the certificate is not valid yet",
            ),
            (
                "invalid peer certificate: certificate not valid for name \"b\"; certificate is only \
                 valid for DnsName(\"a\") or DnsName(\"c\")",
                "the certificate is for another name: DnsName(\"a\") or DnsName(\"c\")",
            ),
            ("invalid peer certificate: Revoked", "the certificate is not valid: Revoked"),
            ("received fatal alert: HandshakeFailure", "received fatal alert: HandshakeFailure"),
            ("tls handshake eof", "the connection was closed in the handshake"),
            (&*long, "the certificate is not valid: x"),
        ] {
            let reason = tls_reason(&wrapped(words));
            assert!(reason.starts_with(told), "{reason}");
            assert!(reason.len() < 2 * MAX_REASON, "{reason}");
        }
    }
}
