//! Secrets that pass through, kept out of every log.

use std::fmt;

/// A Matrix access token; an opaque byte string (CS-AUTH-01).
///
/// Neither [`Debug`](fmt::Debug) nor any other formatting shows it. Only
/// [`reveal`](Self::reveal) does, and that is called where it is hashed or sent to the homeserver.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Box<str>);

impl AccessToken {
    /// Takes a token as it was sent.
    pub fn new(token: impl Into<Box<str>>) -> Self {
        Self(token.into())
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
}
