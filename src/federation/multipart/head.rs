//! The head of a part.

use bytes::Bytes;

use super::MultipartError;

/// The most lines that a head may have; real ones have two.
const MAX_LINES: usize = 64;

/// What the head of the second part says; values are as they came, without the blanks around them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartHead {
    /// `Content-Type`.
    pub content_type: Option<Bytes>,
    /// `Content-Disposition`.
    pub content_disposition: Option<Bytes>,
    /// `Location`: where the media is, if it is not in this part (FM-S-05).
    pub location: Option<Bytes>,
}

/// The fields that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    ContentType,
    ContentDisposition,
    Location,
    Coding,
}

impl Field {
    const COUNT: usize = 4;

    fn named(name: &[u8]) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match () {
            () if is("content-type") => Some(Self::ContentType),
            () if is("content-disposition") => Some(Self::ContentDisposition),
            () if is("location") => Some(Self::Location),
            () if is("content-encoding") || is("content-transfer-encoding") => Some(Self::Coding),
            () => None,
        }
    }
}

/// Takes a head line by line. Names may be of any case, blanks may stand around names and values
/// (FLD-07), and a line may go on in the next (RFC 5322, section 2.2.3). Of repeated fields the first
/// counts.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    values: [Option<Vec<u8>>; Field::COUNT],
    /// Where the next line goes on to, if it is no field of its own.
    open: Option<Field>,
    lines: usize,
}

impl HeadReader {
    /// Takes a line without its end. Returns the head if that was the empty line behind it.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<Option<PartHead>, MultipartError> {
        if line.is_empty() {
            return self.end().map(Some);
        }
        self.lines += 1;
        if self.lines > MAX_LINES {
            return Err(MultipartError::Head("too many fields"));
        }
        if line[0] == b' ' || line[0] == b'\t' {
            return self.go_on(line).map(|()| None);
        }
        let colon =
            memchr::memchr(b':', line).ok_or(MultipartError::Head("a line that is none"))?;
        let name = line[..colon].trim_ascii();
        if name.is_empty() || !name.iter().all(|b| (b'!'..=b'~').contains(b)) {
            return Err(MultipartError::Head("a field without a proper name"));
        }
        let field = Field::named(name).filter(|field| self.value(*field).is_none());
        if let Some(field) = field {
            *self.value(field) = Some(line[colon + 1..].trim_ascii().to_vec());
        }
        self.open = field;
        Ok(None)
    }

    fn go_on(&mut self, line: &[u8]) -> Result<(), MultipartError> {
        if self.lines == 1 {
            return Err(MultipartError::Head("a line that goes on from none"));
        }
        if let Some(field) = self.open
            && let Some(value) = self.value(field)
        {
            value.push(b' ');
            value.extend_from_slice(line.trim_ascii());
        }
        Ok(())
    }

    fn end(&mut self) -> Result<PartHead, MultipartError> {
        if self.value(Field::Coding).take().is_some_and(|coding| !is_identity(&coding)) {
            return Err(MultipartError::Coded);
        }
        let mut take = |field| self.value(field).take().map(Bytes::from);
        Ok(PartHead {
            content_type: take(Field::ContentType),
            content_disposition: take(Field::ContentDisposition),
            location: take(Field::Location),
        })
    }

    fn value(&mut self, field: Field) -> &mut Option<Vec<u8>> {
        &mut self.values[field as usize]
    }
}

/// Whether a coding leaves the bytes as they are (RFC 2045, section 6.1).
fn is_identity(coding: &[u8]) -> bool {
    let plain: [&[u8]; 4] = [b"binary", b"8bit", b"7bit", b"identity"];
    plain.iter().any(|known| coding.eq_ignore_ascii_case(known))
}
