//! The `boundary` parameter of a `Content-Type` (FLD-03).

use super::MultipartError;

/// The longest boundary (RFC 2046, section 5.1.1).
const MAX_LENGTH: usize = 70;

/// What separates the parts of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary(Box<str>);

impl Boundary {
    /// Finds the boundary in the value of a `Content-Type` field, which has to be `multipart/mixed`.
    /// The parameter may be quoted or not, in any case, and stand anywhere among others.
    ///
    /// Of the alphabet of RFC 2046 only the outer bounds are held to: visible ASCII, and blanks inside
    /// of quotes.
    ///
    /// # Errors
    ///
    /// [`MultipartError::OtherType`] or [`MultipartError::Boundary`].
    pub fn from_content_type(value: &[u8]) -> Result<Self, MultipartError> {
        let text = std::str::from_utf8(value).map_err(|_| MultipartError::OtherType)?;
        let (essence, mut rest) = text.split_once(';').unwrap_or((text, ""));
        if !essence.trim().eq_ignore_ascii_case("multipart/mixed") {
            return Err(MultipartError::OtherType);
        }
        let mut found = None;
        while !rest.trim().is_empty() {
            let (name, value, after) = parameter(rest)?;
            if name.eq_ignore_ascii_case("boundary") && found.replace(value).is_some() {
                return Err(MultipartError::Boundary("two boundaries"));
            }
            rest = after;
        }
        let found = found.ok_or(MultipartError::Boundary("no boundary"))?;
        found.parse()
    }

    /// Returns it as it stands between two dashes and the end of the line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Boundary {
    type Err = MultipartError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_good = (1..=MAX_LENGTH).contains(&text.len())
            && text.bytes().all(|b| (b' '..=b'~').contains(&b))
            && !text.ends_with(' ');
        let error = MultipartError::Boundary("a boundary that cannot be used");
        if is_good { Ok(Self(text.into())) } else { Err(error) }
    }
}

/// Takes the first parameter off a list and returns its name, its value and what follows.
fn parameter(list: &str) -> Result<(&str, String, &str), MultipartError> {
    let end = list.find([';', '=']).unwrap_or(list.len());
    let name = list[..end].trim();
    let Some(behind) = list[end..].strip_prefix('=') else {
        // A parameter without a value.
        return Ok((name, String::new(), list.get(end + 1..).unwrap_or_default()));
    };
    let Some(quoted) = behind.trim_start().strip_prefix('"') else {
        let end = behind.find(';').unwrap_or(behind.len());
        let after = behind.get(end + 1..).unwrap_or_default();
        return Ok((name, behind[..end].trim().to_owned(), after));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                let after = &quoted[at + 1..];
                let after = after.find(';').map_or("", |next| &after[next + 1..]);
                return Ok((name, value, after));
            }
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    Err(MultipartError::Boundary("an open quote"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(value: &str) -> Result<String, MultipartError> {
        Boundary::from_content_type(value.as_bytes()).map(|boundary| boundary.as_str().to_owned())
    }

    /// FLD-03
    #[test]
    fn a_boundary_is_found_quoted_or_not_and_anywhere_among_parameters() {
        for (value, boundary) in [
            ("multipart/mixed; boundary=abc", "abc"),
            ("multipart/mixed;boundary=abc", "abc"),
            ("multipart/mixed; boundary=\"abc\"", "abc"),
            ("Multipart/MIXED ; BOUNDARY = abc ; charset=utf-8", "abc"),
            ("multipart/mixed; charset=\"utf-8; boundary=no\"; boundary=yes", "yes"),
            ("multipart/mixed; boundary=\"a b;c\\\"d\"; x", "a b;c\"d"),
            ("multipart/mixed; x; boundary=a=b;", "a=b"),
            ("multipart/mixed; boundary=gc0pJq0M:08jU534c0p", "gc0pJq0M:08jU534c0p"),
            ("multipart/mixed; boundary='simple'", "'simple'"),
        ] {
            assert_eq!(read(value).as_deref(), Ok(boundary), "{value}");
        }
    }

    /// FLD-06, FE-10
    #[test]
    fn what_is_of_another_type_or_names_no_boundary_is_refused() {
        for value in ["", "image/png", "multipart/form-data; boundary=a", "multipart/mixedx"] {
            assert_eq!(read(value), Err(MultipartError::OtherType), "{value}");
        }
        for value in [
            "multipart/mixed",
            "multipart/mixed;",
            "multipart/mixed; boundary",
            "multipart/mixed; boundary=",
            "multipart/mixed; boundary=\"\"",
            "multipart/mixed; boundary=\"abc",
            "multipart/mixed; boundary=\"abc \"",
            "multipart/mixed; boundary=a; boundary=b",
            "multipart/mixed; boundary=é",
            "multipart/mixed; boundary=a\tb",
        ] {
            assert!(matches!(read(value), Err(MultipartError::Boundary(_))), "{value}");
        }
        let longest = "b".repeat(70);
        assert!(read(&format!("multipart/mixed; boundary={longest}")).is_ok());
        assert!(read(&format!("multipart/mixed; boundary={longest}b")).is_err());
    }

    proptest! {
        #[test]
        fn any_value_is_read_without_panic(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Boundary::from_content_type(&value);
        }

        #[test]
        fn any_boundary_is_read_back_from_quotes(text in "[ -~]{1,70}", before in "[a-z]{0,5}") {
            prop_assume!(!text.ends_with(' '));
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            let value = format!("multipart/mixed; {before}; boundary=\"{escaped}\"; z=\"\"");
            prop_assert_eq!(read(&value), Ok(text));
        }

        #[test]
        fn any_boundary_of_the_alphabet_is_read_back_without_quotes(
            text in "[0-9a-zA-Z'()+_,./:=?-]{1,70}",
        ) {
            prop_assert_eq!(read(&format!("multipart/mixed; boundary={text}")), Ok(text));
        }
    }
}
