//! What media is: its hash, its type, its name, and how a browser is told to show it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The SHA-256 of a body; the only thing that a blob's path is made from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// Returns the digest's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0_u8; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 0xf)];
        }
        f.write_str(std::str::from_utf8(&hex).expect("hexadecimal digits are ASCII"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 in lower-case hexadecimal")]
pub struct InvalidContentHash;

impl FromStr for ContentHash {
    type Err = InvalidContentHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(InvalidContentHash);
        }
        let mut hash = [0_u8; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit_value(pair[0])? << 4 | digit_value(pair[1])?;
        }
        Ok(Self(hash))
    }
}

fn digit_value(digit: u8) -> Result<u8, InvalidContentHash> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(InvalidContentHash),
    }
}

/// A media type as its uploader wrote it (CS-HDR-01, FLD-16), known to be safe in a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentType(Box<str>);

impl ContentType {
    /// The type of media whose uploader named none, or none that can be kept (CS-UP-02).
    pub const OCTET_STREAM: &str = "application/octet-stream";

    /// The longest type that is kept; RFC 6838 section 4.2 bounds each half to 127 characters.
    const MAX_LENGTH: usize = 255;

    /// The types that may be shown inside a browser (checklist section 8, CS-INL-01).
    const INLINE: &[&str] = &[
        "text/css",
        "text/plain",
        "text/csv",
        "application/json",
        "application/ld+json",
        "image/jpeg",
        "image/gif",
        "image/png",
        "image/apng",
        "image/webp",
        "image/avif",
        "video/mp4",
        "video/webm",
        "video/ogg",
        "video/quicktime",
        "audio/mp4",
        "audio/webm",
        "audio/aac",
        "audio/mpeg",
        "audio/ogg",
        "audio/wave",
        "audio/wav",
        "audio/x-wav",
        "audio/x-pn-wav",
        "audio/flac",
        "audio/x-flac",
    ];

    /// Takes the value of a `Content-Type` field as it stands.
    ///
    /// What is missing or cannot be a media type becomes [`OCTET_STREAM`](Self::OCTET_STREAM): a
    /// label may never cost anybody their file, nor add a header to a reply (threats HI-03).
    pub fn from_header(value: Option<&[u8]>) -> Self {
        value
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .map(str::trim)
            .filter(|text| Self::is_media_type(text))
            .map_or_else(|| Self(Self::OCTET_STREAM.into()), |text| Self(text.into()))
    }

    fn is_media_type(text: &str) -> bool {
        let essence = text.split(';').next().unwrap_or_default().trim_end();
        let is_token = |part: &str| !part.is_empty() && part.bytes().all(is_token_byte);
        text.len() <= Self::MAX_LENGTH
            && text.bytes().all(|b| (b' '..=b'~').contains(&b))
            && essence
                .split_once('/')
                .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
    }

    /// Returns the type as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the type itself without its parameters, in lower case: what types are compared by
    /// (FLD-16).
    pub fn essence(&self) -> String {
        self.written_essence().to_ascii_lowercase()
    }

    fn written_essence(&self) -> &str {
        self.0.split(';').next().unwrap_or_default().trim_end()
    }

    /// Returns how a browser is told to treat this type (CS-HDR-03): by its essence alone,
    /// whatever its case and parameters.
    pub fn disposition(&self) -> Disposition {
        let essence = self.written_essence();
        if Self::INLINE.iter().any(|safe| essence.eq_ignore_ascii_case(safe)) {
            Disposition::Inline
        } else {
            Disposition::Attachment
        }
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a byte may stand in a token (RFC 9110, section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// How a browser is told to treat media (RFC 6266).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Shown in place.
    Inline,
    /// Saved as a file.
    Attachment,
}

impl Disposition {
    /// Returns the word for a `Content-Disposition` field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Attachment => "attachment",
        }
    }

    /// Returns the value of a `Content-Disposition` field with the given name.
    ///
    /// A plain token is written as it is; any other name in the form of RFC 8187, never as a quoted
    /// string, which old servers cannot read (FLD-15).
    pub fn header_value(self, filename: Option<&FileName>) -> String {
        /// Everything but the `attr-char` of RFC 8187, section 3.2.1.
        const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
            .remove(b'!')
            .remove(b'#')
            .remove(b'$')
            .remove(b'&')
            .remove(b'+')
            .remove(b'-')
            .remove(b'.')
            .remove(b'^')
            .remove(b'_')
            .remove(b'`')
            .remove(b'|')
            .remove(b'~');
        let kind = self.as_str();
        match filename {
            None => kind.to_owned(),
            Some(FileName(name)) if name.bytes().all(is_token_byte) => {
                format!("{kind}; filename={name}")
            }
            Some(FileName(name)) => {
                format!("{kind}; filename*=utf-8''{}", utf8_percent_encode(name, ENCODED))
            }
        }
    }
}

/// A file's name as its uploader gave it, without what could do harm; never part of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(Box<str>);

impl FileName {
    /// The longest name, in bytes of UTF-8; what file systems allow.
    const MAX_LENGTH: usize = 255;

    /// Cleans a name: control characters, path separators and marks that reorder text are left out,
    /// and what is too long is cut at a character (threats HI-01 to HI-04, PT-09).
    ///
    /// Returns `None` if nothing is left.
    pub fn clean(raw: &str) -> Option<Self> {
        let mut name = String::new();
        for character in raw.chars().filter(|c| !is_unsafe_in_a_name(*c)) {
            if name.len() + character.len_utf8() > Self::MAX_LENGTH {
                break;
            }
            name.push(character);
        }
        let name = name.trim();
        (!name.is_empty()).then(|| Self(name.into()))
    }

    /// Finds the name in a `Content-Disposition` field: `filename*` before `filename`, as a token or
    /// a quoted string (RFC 6266, RFC 8187; FLD-15), and cleans it. Of a repeated parameter the first
    /// counts. A field that is not UTF-8 is read as ISO-8859-1 (RFC 2616, section 2.2).
    pub fn from_content_disposition(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value)
            .map_or_else(|_| Cow::Owned(from_latin_1(value)), Cow::Borrowed);
        let parameters = disposition_parameters(&text);
        let find = |wanted: &str| {
            parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, v)| v)
        };
        let extended = find("filename*").and_then(|extended| decode_extended(extended));
        let extended = extended.and_then(|name| Self::clean(&name));
        extended.or_else(|| find("filename").and_then(|name| Self::clean(name)))
    }

    /// Returns the cleaned name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Splits what stands behind the disposition type into names and unquoted values.
fn disposition_parameters(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = text.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((name, value)) = rest.split_once('=') {
        let value = value.trim_start();
        let (value, remaining) = match value.strip_prefix('"') {
            Some(quoted) => take_quoted(quoted),
            None => {
                let (token, remaining) = value.split_once(';').unwrap_or((value, ""));
                (token.trim_end().to_owned(), remaining)
            }
        };
        let name = name.rsplit(';').next().unwrap_or_default().trim();
        parameters.push((name.to_owned(), value));
        rest = remaining;
    }
    parameters
}

/// Reads a quoted string up to its closing quote, undoing escapes; returns it and what follows.
fn take_quoted(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// Decodes `charset'language'percent-encoded` (RFC 8187, section 3.2), with the charset that servers
/// write now and the one that the RFC's forerunner (RFC 5987) asked for as well.
fn decode_extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    let bytes = percent_encoding::percent_decode_str(encoded);
    if charset.eq_ignore_ascii_case("utf-8") {
        bytes.decode_utf8().ok().map(Cow::into_owned)
    } else if charset.eq_ignore_ascii_case("iso-8859-1") {
        Some(from_latin_1(&bytes.collect::<Vec<_>>()))
    } else {
        None
    }
}

/// Decodes ISO-8859-1, whose bytes are the first code points of Unicode.
fn from_latin_1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn is_unsafe_in_a_name(character: char) -> bool {
    character.is_control()
        || matches!(character, '/' | '\\')
        || matches!(character, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content_type(text: &str) -> ContentType {
        ContentType::from_header(Some(text.as_bytes()))
    }

    /// CS-HDR-01, FLD-16
    #[test]
    fn odd_but_harmless_types_are_kept_as_they_are() {
        for kept in ["img/png", "Text/Plain; charset=utf-8", "image/svg", "a/b;c=\"d e\""] {
            assert_eq!(content_type(kept).as_str(), kept);
        }
    }

    /// CS-HDR-01
    #[test]
    fn types_that_cannot_stand_in_a_header_become_octet_stream() {
        let long = format!("image/{}", "x".repeat(10 * 1024));
        for refused in
            ["", "png", "image/", "/png", "image/p\r\nX: y", "image/p\0", "imäge/png", &long]
        {
            assert_eq!(content_type(refused).as_str(), ContentType::OCTET_STREAM, "{refused:?}");
        }
        assert_eq!(ContentType::from_header(None).as_str(), ContentType::OCTET_STREAM);
        assert_eq!(
            ContentType::from_header(Some(b"\xff/\xfe")).as_str(),
            ContentType::OCTET_STREAM
        );
    }

    /// CS-HDR-03, CS-INL-01, FLD-16
    #[test]
    fn only_the_safe_list_is_inline_whatever_its_case_or_parameters() {
        for inline in ["image/png", "IMAGE/PNG", "Text/Plain; charset=utf-8", "audio/x-flac ; a=b"]
        {
            assert_eq!(content_type(inline).disposition(), Disposition::Inline, "{inline}");
        }
        for attached in [
            "text/html",
            "image/svg+xml",
            "image/svg",
            "application/javascript",
            "application/pdf",
            "application/xml",
            "application/wasm",
            "application/octet-stream",
            "img/png",
        ] {
            assert_eq!(content_type(attached).disposition(), Disposition::Attachment, "{attached}");
        }
    }

    /// FLD-15
    #[test]
    fn a_token_name_is_plain_and_any_other_is_encoded() {
        let value = |name: &str| Disposition::Inline.header_value(FileName::clean(name).as_ref());
        assert_eq!(value("cat.jpg"), "inline; filename=cat.jpg");
        assert_eq!(value("my cat.jpg"), "inline; filename*=utf-8''my%20cat.jpg");
        assert_eq!(
            value("x\"; filename=\"y.html"),
            "inline; filename*=utf-8''x%22%3B%20filename%3D%22y.html"
        );
        assert_eq!(value("кот.png"), "inline; filename*=utf-8''%D0%BA%D0%BE%D1%82.png");
        assert_eq!(value(""), "inline");
    }

    /// FLD-15
    #[test]
    fn names_lose_what_could_do_harm() {
        let clean = |raw: &str| FileName::clean(raw).map(|name| name.as_str().to_owned());
        assert_eq!(clean("a\r\nSet-Cookie: x=1").as_deref(), Some("aSet-Cookie: x=1"));
        assert_eq!(clean("../../etc/passwd").as_deref(), Some("....etcpasswd"));
        assert_eq!(clean("gpj.\u{202E}exe").as_deref(), Some("gpj.exe"));
        assert_eq!(clean("\u{0}\u{7f}"), None);
        assert_eq!(clean(&"é".repeat(200)).map(|name| name.len()), Some(254));
    }

    /// CS-HDR-05, FLD-15
    #[test]
    fn names_are_read_from_every_form_of_disposition() {
        let read = |field: &str| {
            FileName::from_content_disposition(field.as_bytes()).map(|n| n.as_str().to_owned())
        };
        assert_eq!(read("inline; filename=cat.jpg").as_deref(), Some("cat.jpg"));
        assert_eq!(read("inline;filename=\"my cat.jpg\"").as_deref(), Some("my cat.jpg"));
        assert_eq!(read("attachment; filename=\"a;b\\\"c\"; x=y").as_deref(), Some("a;b\"c"));
        assert_eq!(read("inline; filename*=utf-8''my%20cat.jpg").as_deref(), Some("my cat.jpg"));
        assert_eq!(
            read("inline; filename=\"x.jpg\"; filename*=UTF-8'en'%D0%BA.jpg").as_deref(),
            Some("к.jpg")
        );
        assert_eq!(
            read("inline; filename*=utf-8''%D0%BA.jpg; filename=x.jpg").as_deref(),
            Some("к.jpg")
        );
        assert_eq!(read("inline; filename*=latin1''%E9; filename=e").as_deref(), Some("e"));
        assert_eq!(read("inline; filename*=ISO-8859-1''%E9t%E9").as_deref(), Some("été"));
        assert_eq!(read("inline; filename*=utf-8''%E9; filename=e").as_deref(), Some("e"));
        assert_eq!(read("inline; filename*=utf-8''; filename=e").as_deref(), Some("e"));
        assert_eq!(read("inline; filename*=\"utf-8''%C3%A9\"").as_deref(), Some("é"));
        assert_eq!(read("inline; FileName = a ; FILENAME=b").as_deref(), Some("a"));
        assert_eq!(read("inline; x=\"y; filename=z\"; filename=a").as_deref(), Some("a"));
        assert_eq!(read("inline; x; filename=a; y").as_deref(), Some("a"));
        assert_eq!(read("form-data; name=\"file\"; filename=\"a=b\"").as_deref(), Some("a=b"));
        assert_eq!(read("inline; filename=\"été\"").as_deref(), Some("été"));
        assert_eq!(read("inline; filename=\"C:\\dir\\a.txt\"").as_deref(), Some("C:dira.txt"));
        assert_eq!(read("inline; filename=\"open").as_deref(), Some("open"));
        let latin_1 = FileName::from_content_disposition(b"inline; filename=\"\xe9t\xe9\"");
        assert_eq!(latin_1, FileName::clean("été"));
        for none in ["inline", "", "inline; filename=", "inline; name=x", "inline; filename=\"\""] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    proptest! {
        /// CS-HDR-04, FLD-15
        #[test]
        fn a_written_name_is_read_back(raw in "\\PC{0,80}") {
            if let Some(name) = FileName::clean(&raw) {
                let field = Disposition::Attachment.header_value(Some(&name));
                prop_assert_eq!(FileName::from_content_disposition(field.as_bytes()), Some(name));
            }
        }

        #[test]
        fn a_name_is_read_back_from_every_form_and_order(
            raw in "[\\PC&&[^\u{100}-\u{10ffff}]]{1,60}",
            kind in prop::sample::select(vec!["inline", "attachment", "form-data", "x"]),
            before in any::<bool>(),
        ) {
            let Some(name) = FileName::clean(&raw) else { return Ok(()) };
            let escaped = name.as_str().replace('\\', "\\\\").replace('"', "\\\"");
            let quoted = format!("filename=\"{escaped}\"");
            let read = FileName::from_content_disposition(format!("{kind}; {quoted}").as_bytes());
            prop_assert_eq!(read.as_ref(), Some(&name), "quoted");

            let bytes: Vec<u8> = name.as_str().chars().map(|c| c as u8).collect();
            let all = percent_encoding::percent_encode(&bytes, NON_ALPHANUMERIC);
            let latin_1 = format!("filename*=iso-8859-1'en'{all}");
            let all = utf8_percent_encode(name.as_str(), NON_ALPHANUMERIC);
            let utf_8 = format!("filename*=UTF-8''{all}");
            for extended in [latin_1, utf_8] {
                let other = "filename=\"another; filename=third\"".to_owned();
                let [one, two] = if before { [extended, other] } else { [other, extended] };
                let field = format!("{kind}; {one};{two}");
                let read = FileName::from_content_disposition(field.as_bytes());
                prop_assert_eq!(read.as_ref(), Some(&name), "{}", field);
            }
        }

        #[test]
        fn any_disposition_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = FileName::from_content_disposition(&bytes);
        }

        #[test]
        fn hashes_survive_printing(bytes in any::<[u8; 32]>()) {
            let hash = ContentHash(bytes);
            prop_assert_eq!(hash.to_string().parse::<ContentHash>(), Ok(hash));
        }

        #[test]
        fn any_name_gives_one_safe_header_value(raw in "\\PC{0,80}|(?s).{0,80}") {
            let value = Disposition::Attachment.header_value(FileName::clean(&raw).as_ref());
            prop_assert!(value.bytes().all(|b| (b' '..=b'~').contains(&b)));
            prop_assert!(value.matches("filename").count() <= 1 || raw.contains("filename"));
            prop_assert!(!value.contains('"'));
        }

        #[test]
        fn any_bytes_give_a_type_that_fits_a_header(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let kept = ContentType::from_header(Some(&bytes));
            prop_assert!(http::HeaderValue::from_str(kept.as_str()).is_ok());
        }
    }
}
