//! Byte ranges: what was asked, and what is sent (RFC 9110, section 14).

/// A single range as a client asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From an offset to the end, or to an inclusive last position.
    From {
        /// The first position.
        first: u64,
        /// The last position, if the client named one.
        last: Option<u64>,
    },
    /// The last so many bytes.
    Suffix {
        /// How many bytes.
        length: u64,
    },
}

/// The bytes that a partial reply holds; never empty and always inside the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// The first position.
    pub first: u64,
    /// The last position, inclusive.
    pub last: u64,
    /// The size of the whole body; absent while that is not known.
    pub total: Option<u64>,
}

/// What a request's range means for a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeOutcome {
    /// 206 with these bytes.
    Partial(ContentRange),
    /// 416: no byte of the range exists.
    NotSatisfiable,
}

impl ByteRange {
    /// Parses a `Range` field.
    ///
    /// Returns `None` for anything that is to be ignored, so that the whole body is sent: another
    /// unit, a malformed range, several ranges (RFC 9110, section 14.2 lets a server ignore any).
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (unit, set) = text.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = set.trim().split_once('-')?;
        if first.is_empty() {
            return Some(Self::Suffix { length: parse_position(last)? });
        }
        let first = parse_position(first)?;
        let last = match last {
            "" => None,
            text => Some(parse_position(text)?),
        };
        if last.is_some_and(|last| last < first) {
            return None;
        }
        Some(Self::From { first, last })
    }

    /// Returns what the range means for a body of `total` bytes.
    pub fn resolve(self, total: u64) -> RangeOutcome {
        let range = match self {
            Self::From { first, last } if first < total => {
                let end = total - 1;
                Some((first, last.map_or(end, |last| last.min(end))))
            }
            Self::Suffix { length } if length > 0 && total > 0 => {
                Some((total - length.min(total), total - 1))
            }
            Self::From { .. } | Self::Suffix { .. } => None,
        };
        range.map_or(RangeOutcome::NotSatisfiable, |(first, last)| {
            RangeOutcome::Partial(ContentRange { first, last, total: Some(total) })
        })
    }

    /// Returns what the range means for a body whose size is not known, of which the first `there`
    /// bytes are; `None` if that cannot be said, so that the whole body is sent.
    ///
    /// A partial reply names its last byte (RFC 9110, section 14.4), so there is none without it.
    pub fn resolve_within(self, there: u64) -> Option<RangeOutcome> {
        match self {
            Self::From { first, last: Some(last) } if last < there => {
                Some(RangeOutcome::Partial(ContentRange { first, last, total: None }))
            }
            Self::From { .. } | Self::Suffix { .. } => None,
        }
    }
}

/// Digits only; a number beyond 64 bits stands for "past every end".
fn parse_position(text: &str) -> Option<u64> {
    let all_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| text.parse().unwrap_or(u64::MAX))
}

impl ContentRange {
    /// Parses a `Content-Range` field; `None` for anything that names no bytes inside the body.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (unit, range) = std::str::from_utf8(value).ok()?.trim().split_once(' ')?;
        let (positions, total) = range.trim().split_once('/')?;
        let (first, last) = positions.split_once('-')?;
        let (first, last) = (parse_position(first)?, parse_position(last)?);
        let total = if total == "*" { None } else { Some(parse_position(total)?) };
        let is_inside = first <= last && last < total.unwrap_or(u64::MAX);
        let is_of_bytes = unit.eq_ignore_ascii_case("bytes");
        (is_of_bytes && is_inside).then_some(Self { first, last, total })
    }

    /// Returns how many bytes the range holds.
    pub fn length(self) -> u64 {
        self.last - self.first + 1
    }

    /// Returns the value of a `Content-Range` field.
    pub fn header_value(self) -> String {
        let total = self.total.map_or_else(|| "*".to_owned(), |total| total.to_string());
        format!("bytes {}-{}/{total}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_a_body_of_unknown_size_only_what_is_there_can_be_named() {
        let within = |header: &str, there| {
            ByteRange::parse(header.as_bytes()).and_then(|range| range.resolve_within(there))
        };
        let Some(RangeOutcome::Partial(range)) = within("bytes=2-9", 10) else { panic!("there") };
        assert_eq!(range.header_value(), "bytes 2-9/*");
        assert_eq!(range.length(), 8);
        for header in ["bytes=2-10", "bytes=2-", "bytes=-5"] {
            assert_eq!(within(header, 10), None, "{header}");
        }
    }

    #[test]
    fn what_a_partial_answer_holds_is_read() {
        let read = |value: &str| ContentRange::parse(value.as_bytes());
        assert_eq!(read("bytes 2-9/10"), Some(ContentRange { first: 2, last: 9, total: Some(10) }));
        assert_eq!(read("Bytes 2-9/*"), Some(ContentRange { first: 2, last: 9, total: None }));
        for none in [
            "",
            "bytes",
            "bytes */10",
            "bytes 2-9",
            "bytes 2-10/10",
            "bytes 9-2/10",
            "items 2-9/10",
            "bytes=2-9/10",
            "bytes 2-18446744073709551615/*",
            "bytes +2-9/10",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    fn resolve(header: &str, total: u64) -> Option<RangeOutcome> {
        ByteRange::parse(header.as_bytes()).map(|range| range.resolve(total))
    }

    fn partial(first: u64, last: u64, total: u64) -> Option<RangeOutcome> {
        Some(RangeOutcome::Partial(ContentRange { first, last, total: Some(total) }))
    }

    #[test]
    fn single_ranges_are_resolved() {
        assert_eq!(resolve("bytes=0-0", 10), partial(0, 0, 10));
        assert_eq!(resolve("bytes=0-", 10), partial(0, 9, 10));
        assert_eq!(resolve("bytes=5-100", 10), partial(5, 9, 10));
        assert_eq!(resolve("bytes=-3", 10), partial(7, 9, 10));
        assert_eq!(resolve("bytes=-100", 10), partial(0, 9, 10));
        assert_eq!(resolve("Bytes=1-2", 10), partial(1, 2, 10));
    }

    #[test]
    fn range_past_end_is_not_satisfiable() {
        assert_eq!(resolve("bytes=10-", 10), Some(RangeOutcome::NotSatisfiable));
        assert_eq!(resolve("bytes=-0", 10), Some(RangeOutcome::NotSatisfiable));
        assert_eq!(resolve("bytes=0-", 0), Some(RangeOutcome::NotSatisfiable));
        assert_eq!(resolve("bytes=-5", 0), Some(RangeOutcome::NotSatisfiable));
        assert_eq!(resolve("bytes=18446744073709551615-", 10), Some(RangeOutcome::NotSatisfiable));
        assert_eq!(
            resolve("bytes=99999999999999999999999-", 10),
            Some(RangeOutcome::NotSatisfiable)
        );
    }

    #[test]
    fn what_is_malformed_or_multiple_is_ignored() {
        for ignored in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=+1-2",
            "items=0-1",
            "bytes=0-1,3-4",
            "bytes=0-1,",
            "bytes= 1 - 2",
        ] {
            assert_eq!(resolve(ignored, 10), None, "{ignored:?}");
        }
    }

    proptest! {
        #[test]
        fn a_partial_range_is_never_empty_and_lies_inside(text in "bytes=[0-9]{0,20}-[0-9]{0,20}", total in 0_u64..100) {
            if let Some(RangeOutcome::Partial(range)) = resolve(&text, total) {
                prop_assert!(range.first <= range.last && range.last < total);
                prop_assert_eq!(range.total, Some(total));
                prop_assert!(range.length() >= 1 && range.length() <= total);
            }
        }

        #[test]
        fn a_written_range_is_read_back(first in 0_u64..9, more in 0_u64..9, total in 18_u64..99) {
            for total in [Some(total), None] {
                let range = ContentRange { first, last: first + more, total };
                prop_assert_eq!(ContentRange::parse(range.header_value().as_bytes()), Some(range));
            }
        }

        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = ByteRange::parse(&bytes).map(|range| range.resolve(5));
            let _ = ContentRange::parse(&bytes).map(ContentRange::length);
        }
    }
}
