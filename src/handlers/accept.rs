//! Whether whoever asks reads WebP, by the `Accept` field (RFC 9110, section 12.5.1).
//!
//! Only a client that names the type counts: nearly every program sends `*/*`, whether it reads WebP
//! or not.

use http::{HeaderMap, header};

const WEBP: &str = "image/webp";

/// What thumbnails are otherwise.
const UNIVERSAL: [&str; 2] = ["image/jpeg", "image/png"];

/// Whether `image/webp` is named, and wanted no less than JPEG and PNG.
pub(super) fn accepts_webp(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(header::ACCEPT).iter();
    let ranges: Vec<_> =
        fields.flat_map(|field| members(field.as_bytes())).flat_map(read).collect();
    let named = ranges.iter().filter(|range| range.is(WEBP)).map(|range| range.weight).min();
    named.is_some_and(|weight| {
        weight > 0 && UNIVERSAL.iter().all(|other| weight >= weight_of(other, &ranges))
    })
}

/// One of the ranges of types that are listed.
struct Range<'a> {
    /// As in `image/*`, in whatever case.
    media_type: &'a str,
    /// From 0, which is "not acceptable", to 1000.
    weight: u16,
}

impl Range<'_> {
    fn is(&self, media_type: &str) -> bool {
        self.media_type.eq_ignore_ascii_case(media_type)
    }
}

/// Returns how much a type is wanted: what names it most closely counts.
fn weight_of(media_type: &str, ranges: &[Range<'_>]) -> u16 {
    let weight = |name: &str| ranges.iter().find(|range| range.is(name)).map(|range| range.weight);
    weight(media_type).or_else(|| weight("image/*")).or_else(|| weight("*/*")).unwrap_or(0)
}

/// Splits a list at its commas, but for those in quotes.
fn members(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(field, b',')
}

fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |&byte| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match byte {
            _ if was_escaped => false,
            b'\\' if is_quoted => {
                is_escaped = true;
                false
            }
            b'"' => {
                is_quoted = !is_quoted;
                false
            }
            byte => byte == separator && !is_quoted,
        }
    })
}

/// Reads one range. `None` for what follows no grammar, and for a type with parameters of its own,
/// which is a narrower one than is sent.
fn read(member: &[u8]) -> Option<Range<'_>> {
    let mut parts = split(member, b';');
    let media_type = std::str::from_utf8(parts.next()?).ok()?.trim_matches([' ', '\t']);
    let mut weight = 1000;
    for part in parts {
        let part = part.trim_ascii();
        match part.split_at_checked(2) {
            Some((b"q=" | b"Q=", value)) => weight = thousandths(value)?,
            // An empty parameter is none.
            _ if part.is_empty() => {}
            _ => return None,
        }
    }
    Some(Range { media_type, weight })
}

/// Reads a weight of at most three digits behind the point (RFC 9110, section 12.4.2).
fn thousandths(value: &[u8]) -> Option<u16> {
    let (&whole, rest) = value.split_first()?;
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 => digits,
        _ => return None,
    };
    if !matches!(whole, b'0' | b'1') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let padded = digits.iter().chain(b"000").take(3);
    let weight =
        padded.fold(u16::from(whole - b'0'), |sum, digit| 10 * sum + u16::from(digit - b'0'));
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn accepts(fields: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::ACCEPT, HeaderValue::from_str(field).unwrap());
        }
        accepts_webp(&headers)
    }

    #[test]
    fn who_does_not_name_webp_gets_none() {
        assert!(!accepts(&[]));
        for field in [
            "",
            "*/*",
            "image/*",
            "image/png,image/*;q=0.8,*/*;q=0.5",
            "image/webpx",
            "ximage/webp",
            "text/plain;a=\"image/webp\"",
            "text/plain;a=\",image/webp,\"",
            "text/plain;a=\"\\\",image/webp\"",
            "image/webp;level=1",
            "image / webp",
        ] {
            assert!(!accepts(&[field]), "{field}");
        }
    }

    #[test]
    fn who_names_it_gets_it() {
        for field in [
            "image/webp",
            "IMAGE/WebP",
            " image/webp ",
            "image/webp,*/*;q=0.8",
            "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
            "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5",
            "image/webp;q=1.000",
            "image/webp ; Q=0.001",
            "image/webp;",
            ",,image/webp,",
            "text/plain;a=\",\",image/webp",
            "image/webp;q=0.5, image/png;q=0.5, */*;q=0.1",
        ] {
            assert!(accepts(&[field]), "{field}");
        }
        assert!(accepts(&["text/html", "image/webp"]));
    }

    #[test]
    fn who_refuses_it_or_would_rather_have_another_gets_another() {
        for field in [
            "image/webp;q=0",
            "image/webp;q=0.0",
            "image/webp;q=0.000, */*",
            "image/webp, image/webp;q=0",
            "image/webp;q=0.5, image/jpeg",
            "image/webp;q=0.5, image/png;q=0.6, image/jpeg;q=0.1",
            "image/webp;q=0.5, image/*;q=0.9",
            "image/webp;q=0.8, */*",
        ] {
            assert!(!accepts(&[field]), "{field}");
        }
        assert!(!accepts(&["image/webp", "image/webp;q=0"]));
    }

    #[test]
    fn a_weight_that_is_none_makes_the_range_none() {
        for weight in ["", "x", "2", "1.001", "0.1234", "-1", ".5", "0.5.", "1e0", "01", "+1"] {
            assert!(!accepts(&[&format!("image/webp;q={weight}")]), "{weight}");
        }
        for (weight, thousandth) in
            [("0", 0), ("0.", 0), ("0.05", 50), ("0.999", 999), ("1", 1000), ("1.00", 1000)]
        {
            assert_eq!(thousandths(weight.as_bytes()), Some(thousandth), "{weight}");
        }
    }

    proptest! {
        #[test]
        fn no_field_panics(field in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&field) {
                let mut headers = HeaderMap::new();
                headers.append(header::ACCEPT, value);
                accepts_webp(&headers);
            }
        }

        #[test]
        fn the_weight_alone_decides_between_webp_and_the_rest(webp in 0..=1000_u16, rest in 0..=1000_u16) {
            let q = |weight: u16| format!("{}.{:03}", weight / 1000, weight % 1000);
            let field = format!("image/webp;q={}, */*;q={}", q(webp), q(rest));
            prop_assert_eq!(accepts(&[&field]), webp > 0 && webp >= rest);
        }
    }
}
