//! What other servers ask for, and reading the answer, which has two parts.

use super::http::Answer;

/// Where media is asked for, up to its id.
pub const DOWNLOAD: &str = "/_matrix/federation/v1/media/download";

/// Where a thumbnail is asked for, up to its id.
pub const THUMBNAIL: &str = "/_matrix/federation/v1/media/thumbnail";

/// Returns what is behind the server name of media.
pub fn id(media: &str) -> &str {
    media.split_once('/').expect("a server name and an id").1
}

/// The second part of an answer.
#[derive(Debug, PartialEq)]
pub struct Part {
    /// Its type.
    pub content_type: String,
    /// Its disposition.
    pub disposition: String,
    /// The media.
    pub body: Vec<u8>,
}

/// Reads an answer in the one form that every known server understands, and takes no other.
#[track_caller]
pub fn parts(answer: &Answer) -> Part {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    parts_of_any_length(answer)
}

/// Reads an answer that may have begun before it was known how long it is.
#[track_caller]
pub fn parts_of_any_length(answer: &Answer) -> Part {
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    let content_type = answer.header("content-type").expect("a type");
    let boundary = content_type.strip_prefix("multipart/mixed; boundary=").expect("a boundary");
    assert!((1..=70).contains(&boundary.len()), "{boundary}");
    assert!(boundary.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{boundary}");

    let first = format!("\r\n--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}");
    let rest = answer.body.strip_prefix(first.as_bytes()).expect("a part with metadata");
    let rest = rest.strip_prefix(format!("\r\n--{boundary}\r\n").as_bytes()).expect("a part");
    let rest = rest.strip_suffix(format!("\r\n--{boundary}--\r\n").as_bytes()).expect("an end");
    let end = rest.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = std::str::from_utf8(&rest[..end]).expect("a head of text");
    let fields: Vec<_> = head.split("\r\n").filter_map(|line| line.split_once(": ")).collect();
    let [("Content-Type", content_type), ("Content-Disposition", disposition)] = fields[..] else {
        panic!("not the two fields of a part: {head}");
    };
    let body = rest[end + 4..].to_vec();
    assert!(!body.windows(boundary.len()).any(|window| window == boundary.as_bytes()));
    Part { content_type: content_type.to_owned(), disposition: disposition.to_owned(), body }
}
