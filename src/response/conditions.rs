//! The conditions of a request: which copy the client has and which part it wants (RFC 9110,
//! sections 13 and 14).

use http::{HeaderMap, HeaderValue, Method, header};

use crate::types::{ByteRange, RangeOutcome};

/// The conditional fields of a request.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    if_none_match: Vec<HeaderValue>,
    if_range: Option<HeaderValue>,
    range: Option<ByteRange>,
}

impl Conditions {
    /// Reads the fields of a GET or HEAD. Several `Range` fields, or several ranges in one, are
    /// ignored, so that the whole body is sent; so is any range of a HEAD (RFC 9110, section 14.2).
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        let mut ranges = headers.get_all(header::RANGE).iter();
        let range = match (method, ranges.next(), ranges.next()) {
            (&Method::GET, Some(range), None) => ByteRange::parse(range.as_bytes()),
            _ => None,
        };
        Self {
            if_none_match: headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect(),
            if_range: headers.get(header::IF_RANGE).cloned(),
            range,
        }
    }

    /// Whether the client has this copy already, so that 304 answers it.
    pub fn is_not_modified(&self, etag: &str) -> bool {
        self.if_none_match.iter().any(|field| {
            let listed = field.to_str().unwrap_or_default();
            listed.split(',').map(str::trim).any(|tag| {
                // The comparison is the weak one (RFC 9110, section 13.1.2).
                tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
            })
        })
    }

    /// Returns what the asked range means for the current copy, or `None` for the whole body.
    ///
    /// A range under `If-Range` counts only if the copy is the same, by a strong tag (RFC 9110,
    /// section 13.1.5), which a copy that is still arriving does not have.
    pub fn range(&self, etag: Option<&str>, extent: Extent) -> Option<RangeOutcome> {
        let range = self.range?;
        if let Some(condition) = &self.if_range
            && etag.is_none_or(|etag| etag.as_bytes() != condition.as_bytes())
        {
            return None;
        }
        match extent {
            Extent::Whole(size) => Some(range.resolve(size)),
            Extent::AtLeast(there) => range.resolve_within(there),
        }
    }

    /// Returns the last position that the asked range names, which a body of unknown size has to
    /// reach before the range can be answered. Under `If-Range` there is nothing to wait for: a body
    /// that is arriving has no tag, so the range does not count.
    pub fn last_position(&self) -> Option<u64> {
        match self.range? {
            ByteRange::From { last, .. } if self.if_range.is_none() => last,
            ByteRange::From { .. } | ByteRange::Suffix { .. } => None,
        }
    }
}

/// What is known of a body's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// It has so many bytes.
    Whole(u64),
    /// So many bytes are there, and more may come.
    AtLeast(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(fields: &[(header::HeaderName, &'static str)]) -> Conditions {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        Conditions::of(&Method::GET, &headers)
    }

    #[test]
    fn tags_are_compared_weakly_and_in_lists() {
        for field in ["\"a\"", "W/\"a\"", "*", "\"b\", \"a\"", " \"b\" ,W/\"a\""] {
            assert!(
                conditions(&[(header::IF_NONE_MATCH, field)]).is_not_modified("\"a\""),
                "{field}"
            );
        }
        for field in ["\"b\"", "a", "", "\"a", "W/a"] {
            assert!(
                !conditions(&[(header::IF_NONE_MATCH, field)]).is_not_modified("\"a\""),
                "{field}"
            );
        }
        assert!(!conditions(&[]).is_not_modified("\"a\""));
    }

    #[test]
    fn a_range_for_another_copy_is_ignored() {
        let range = (header::RANGE, "bytes=0-1");
        assert!(
            conditions(std::slice::from_ref(&range))
                .range(Some("\"a\""), Extent::Whole(9))
                .is_some()
        );
        assert!(
            conditions(&[range.clone(), (header::IF_RANGE, "\"a\"")])
                .range(Some("\"a\""), Extent::Whole(9))
                .is_some()
        );
        for other in ["\"b\"", "W/\"a\"", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            let conditions = conditions(&[range.clone(), (header::IF_RANGE, other)]);
            assert!(conditions.range(Some("\"a\""), Extent::Whole(9)).is_none(), "{other}");
        }
    }

    #[test]
    fn a_range_of_a_head_is_ignored() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        assert!(
            Conditions::of(&Method::GET, &headers).range(Some("\"a\""), Extent::Whole(9)).is_some()
        );
        assert!(
            Conditions::of(&Method::HEAD, &headers)
                .range(Some("\"a\""), Extent::Whole(9))
                .is_none()
        );
    }

    #[test]
    fn two_range_fields_are_ignored() {
        let two = conditions(&[(header::RANGE, "bytes=0-1"), (header::RANGE, "bytes=3-4")]);
        assert!(two.range(Some("\"a\""), Extent::Whole(9)).is_none());
    }
}
