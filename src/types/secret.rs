//! Secrets that pass through, kept out of every log.

use std::fmt;

/// A Matrix access token; an opaque byte string (CS-AUTH-01).
///
/// Neither [`Debug`](fmt::Debug) nor any other formatting shows it. Only
/// [`reveal`](Self::reveal) does, and that is called where it is hashed or sent to the homeserver.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Box<str>);

impl AccessToken {
    /// The longest text that is taken for a token; those in use stay far below, and homeservers read
    /// heads of 16 KiB at most.
    const MAX_LENGTH: usize = 8 * 1024;

    /// Takes a token as it was sent.
    pub fn new(token: impl Into<Box<str>>) -> Self {
        Self(token.into())
    }

    /// Takes a text that can be a token: opaque, but it has to fit the header in which it is sent on.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=Self::MAX_LENGTH).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.into()))
    }

    /// Returns the token itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_does_not_show_in_debug_output() {
        let token = AccessToken::new("syt_secret");
        assert_eq!(format!("{token:?}"), "[redacted]");
    }

    /// CS-AUTH-01
    #[test]
    fn texts_that_fit_no_header_are_no_tokens() {
        for text in ["", "a\r\nX: y", "a b", "é", "\0"] {
            assert_eq!(AccessToken::parse(text), None, "{text:?}");
        }
        let longest = "x".repeat(AccessToken::MAX_LENGTH);
        assert!(AccessToken::parse(&longest).is_some());
        assert_eq!(AccessToken::parse(&format!("{longest}x")), None);
    }
}
