//! What stands around media that we send to another server.

use bytes::Bytes;

use super::Boundary;

/// The bytes before and after the media, in the form that every known server reads: CRLF before the
/// first boundary (FLD-02), one field in the first part (FLD-04), the proper end (FLD-01), and all that
/// comes before the media in one piece (FLD-05).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Everything before the media.
    pub prefix: Bytes,
    /// Everything after it.
    pub suffix: Bytes,
}

impl Frame {
    /// Frames media of a type, with the value of its `Content-Disposition`. The boundary is one that
    /// the media cannot hold, of letters and digits only (FLD-03).
    pub fn new(boundary: &Boundary, content_type: &str, disposition: &str) -> Self {
        let boundary = boundary.as_str();
        let prefix = format!(
            "\r\n--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n\
             Content-Type: {content_type}\r\nContent-Disposition: {disposition}\r\n\r\n"
        );
        let suffix = format!("\r\n--{boundary}--\r\n");
        Self { prefix: prefix.into(), suffix: suffix.into() }
    }
}
