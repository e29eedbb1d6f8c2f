//! The query of a media request.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// A query as it was sent; parameters are looked up and decoded when they are asked for.
///
/// Of a repeated parameter the first counts, as with Synapse.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Query<'a>(&'a [u8]);

impl<'a> Query<'a> {
    /// Takes what stands behind the question mark.
    pub fn new(raw: &'a [u8]) -> Self {
        Self(raw)
    }

    /// Returns the decoded value of the first parameter with this name.
    ///
    /// The form is `application/x-www-form-urlencoded`: a plus is a blank, bytes that are not UTF-8
    /// become replacement characters.
    pub fn get(self, name: &str) -> Option<Cow<'a, str>> {
        self.parameters().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Iterates over all parameters in their order, decoded.
    pub fn parameters(self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        self.0.split(|&b| b == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = match pair.iter().position(|&b| b == b'=') {
                Some(mark) => (&pair[..mark], &pair[mark + 1..]),
                None => (pair, &[][..]),
            };
            (decode(key), decode(value))
        })
    }
}

impl std::fmt::Debug for Query<'_> {
    /// Shows nothing of the query: it may hold a token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Query({} bytes)", self.0.len())
    }
}

fn decode(raw: &[u8]) -> Cow<'_, str> {
    if raw.contains(&b'+') {
        let spaced: Vec<u8> = raw.iter().map(|&b| if b == b'+' { b' ' } else { b }).collect();
        Cow::Owned(percent_decode(&spaced).decode_utf8_lossy().into_owned())
    } else {
        percent_decode(raw).decode_utf8_lossy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_of_a_repeated_parameter_counts() {
        let query = Query::new(b"width=1&width=2&height");
        assert_eq!(query.get("width").as_deref(), Some("1"));
        assert_eq!(query.get("height").as_deref(), Some(""));
        assert_eq!(query.get("method"), None);
    }

    #[test]
    fn names_and_values_are_decoded_once() {
        let query = Query::new(b"file%6eame=my+cat%20%252e%26.png&&=x");
        assert_eq!(query.get("filename").as_deref(), Some("my cat %2e&.png"));
    }

    #[test]
    fn a_query_does_not_show_in_debug_output() {
        let query = Query::new(b"access_token=secret");
        assert_eq!(format!("{query:?}"), "Query(19 bytes)");
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_asked(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Query::new(&bytes).get("width");
            let _ = Query::new(&bytes).parameters().count();
        }
    }
}
