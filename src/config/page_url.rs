//! The address of a page for people.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// An absolute `https` or `http` address of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageUrl(Box<str>);

/// A text that is no such address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the address of a page; write it as in \"https://example.org/storage\"")]
pub struct InvalidPageUrl;

impl PageUrl {
    /// Returns the address as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PageUrl {
    type Err = InvalidPageUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The parser lets a fragment go; a page may have one.
        let uri: Uri = text.parse().map_err(|_| InvalidPageUrl)?;
        let is_page = matches!(uri.scheme_str(), Some("https" | "http"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if is_page { Ok(Self(text.into())) } else { Err(InvalidPageUrl) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_addresses_of_the_web_are_taken() {
        for text in [
            "https://example.org",
            "https://example.org/storage?plan=1#prices",
            "http://[::1]:8080/",
            "HTTPS://example.org/",
        ] {
            assert_eq!(text.parse::<PageUrl>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "example.org",
            "/storage",
            "//example.org/",
            "ftp://example.org/",
            "javascript:alert(1)",
            "mailto:a@example.org",
            "https://",
            "https:///storage",
            "https://user:secret@example.org/",
            "https://exa mple.org/",
        ] {
            assert_eq!(text.parse::<PageUrl>(), Err(InvalidPageUrl), "{text:?}");
        }
    }
}
