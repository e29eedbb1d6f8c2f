//! Answers of a homeserver that is out of its mind, the same ones for the same seed.

use crate::requests::Random;

/// What stands in front of the number of an answer in its body.
pub const MARK: &str = "answer-";

const STATUS_LINES: [&str; 24] = [
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 201 Created",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 206 Partial Content",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 302 Found",
    "HTTP/1.1 307 Temporary Redirect",
    "HTTP/1.1 400 Bad Request",
    "HTTP/1.1 401 Unauthorized",
    "HTTP/1.1 403 Forbidden",
    "HTTP/1.1 404 Not Found",
    "HTTP/1.1 429 Too Many Requests",
    "HTTP/1.1 500 Oh no",
    "HTTP/1.1 503 Later",
    "HTTP/1.1 504 Later",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX: y\r\n\r\nHTTP/1.1 200 OK",
    "HTTP/1.1 999 What",
    "HTTP/1.1 2OO OK",
    "SSH-2.0-OpenSSH_9.2",
];

const FIELDS: [&str; 34] = [
    "Content-Type: application/json",
    "Content-Type: text/html",
    "Content-Type: image/png",
    "Content-Type: multipart/mixed; boundary=b",
    "Content-Type: multipart/mixed",
    "Content-Type: \u{e9}\u{1}",
    "Content-Type: a/b\r\nContent-Type: text/html",
    "Content-Disposition: inline; filename=\"a\\\"; x-injected: 1\"",
    "Content-Disposition: inline; filename*=utf-8''%0d%0aX-Injected:%201",
    "Content-Disposition: attachment; filename=..%2f..%2fx",
    "Content-Disposition: ;;;=\"",
    "Content-Disposition: inline; filename=\u{202e}gpj.exe",
    "Content-Encoding: gzip",
    "Content-Encoding: identity",
    "Content-Range: bytes 0-1/2",
    "Retry-After: never",
    "Retry-After: 99999999999999999999",
    "Location: https://cdn.example/a",
    "Location: javascript:alert(1)",
    "Location: //evil.example",
    "Set-Cookie: a=b",
    "X-Injected: 1",
    "ETag: \"theirs\"",
    "Connection: close",
    "Connection: Content-Length",
    "Trailer: X-Injected",
    "Upgrade: websocket",
    "Keep-Alive: timeout=0",
    "X-Odd: a\r\n folded",
    "X-Odd : a",
    "X-Odd: \0",
    "X-Odd",
    ": a",
    "Access-Control-Allow-Origin: https://evil.example",
];

/// Bodies in JSON: what is asked of a homeserver, and nearly that.
const JSON: [&str; 24] = [
    r#"{"user_id":"@alice:fake.example"}"#,
    r#"{"user_id":"@alice:fake.example","is_guest":"REPEATED"}"#,
    r#"{"user_id":"@REPEATED:fake.example","device_id":"D"}"#,
    r#"{"user_id":"@alice:other.example"}"#,
    r#"{"user_id":"@a\u0000b:fake.example"}"#,
    r#"{"user_id":["REPEATED"]}"#,
    r#"{"user_id":"REPEATED"}"#,
    r#"{"errcode":"M_UNKNOWN_TOKEN","error":"REPEATED"}"#,
    r#"{"errcode":"M_NOT_FOUND","error":"no"}"#,
    r#"{"errcode":"M_UNRECOGNIZED","error":"no"}"#,
    r#"{"errcode":"M_LIMIT_EXCEEDED","error":"no","retry_after_ms":-1}"#,
    r#"{"errcode":"M_NOT_YET_UPLOADED","error":"no"}"#,
    r#"{"errcode":"M_TOO_LARGE","error":"no"}"#,
    r#"{"errcode":5,"error":{}}"#,
    r#"{"errcode":"M_X\r\nX-Injected: 1","error":"\u001b[31m"}"#,
    r#"{"og:title":"</script>","matrix:image:size":1e999}"#,
    r#"{"a":NaN}"#,
    r#""REPEATED""#,
    "[]",
    "null",
    "{",
    "",
    "\u{feff}{}",
    "{}{}",
];

/// An answer and what is to be done after it.
pub struct Mad {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether the connection stays open.
    pub stays: bool,
}

/// Makes the answer with this number of a seed, which repeats the token that it was sent.
pub fn answer(seed: u64, number: u64, token: &str) -> Mad {
    let mut random = Random::new(seed, number);
    let mut bytes = random.pick(&STATUS_LINES).as_bytes().to_vec();
    bytes.extend(b"\r\n");
    for _ in 0..random.below(5) {
        bytes.extend(random.pick(&FIELDS).bytes());
        bytes.extend(b"\r\n");
    }
    if random.one_in(4) {
        bytes.extend(format!("X-Echo: {token}\r\n").bytes());
    }
    if random.one_in(30) {
        bytes.extend(format!("X-Long: {}\r\n", "a".repeat(200_000)).bytes());
    }
    let body = body(&mut random, number, token);
    // Where the end is told wrongly, nobody is to wait for it.
    let mut stays = random.one_in(2);
    bytes.extend(frame(&mut random, &body, stays));
    if random.one_in(10) {
        let length = random.below(bytes.len());
        bytes.truncate(length);
        stays = false;
    }
    Mad { bytes, stays }
}

fn body(random: &mut Random, number: u64, token: &str) -> Vec<u8> {
    let mark = format!("{MARK}{number}.");
    match random.below(10) {
        0..=4 => random.pick(&JSON).replace("REPEATED", &format!("you said {token}")).into_bytes(),
        5 => "[".repeat(100_000).into_bytes(),
        6 => format!("{{\"a\":\"{}\"}}", "a".repeat(400_000)).into_bytes(),
        7 => format!(
            "\r\n--b\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--b\r\n\
             Content-Type: text/html\r\n\r\n{mark}\r\n--b--\r\n"
        )
        .into_bytes(),
        8 => [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xff\xff\xff", mark.as_bytes()].concat(),
        _ => format!("<script>{mark}</script>").into_bytes(),
    }
}

/// Returns the end of the head and the body, framed rightly or perhaps not.
fn frame(random: &mut Random, body: &[u8], rightly: bool) -> Vec<u8> {
    let length = body.len();
    let chunks = || {
        let head = format!("{length:x}\r\n");
        let end: &[u8] = if length == 0 { b"\r\n" } else { b"\r\n0\r\n\r\n" };
        [head.as_bytes(), body, end].concat()
    };
    let (fields, body) = match random.below(if rightly { 7 } else { 14 }) {
        0..=4 => (format!("Content-Length: {length}\r\n"), body.to_vec()),
        5..=6 => ("Transfer-Encoding: chunked\r\n".to_owned(), chunks()),
        7 => (String::new(), body.to_vec()),
        8 => (format!("Content-Length: {}\r\n", length + 10), body.to_vec()),
        9 => (format!("Content-Length: {}\r\n", length / 2), body.to_vec()),
        10 => (format!("Content-Length: {length}\r\nContent-Length: 0\r\n"), body.to_vec()),
        11 => {
            let both = format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n");
            (both, chunks())
        }
        12 => ("Transfer-Encoding: chunked\r\n".to_owned(), b"zz\r\nab\r\n0\r\n\r\n".to_vec()),
        _ => ("Content-Length: -1\r\n".to_owned(), body.to_vec()),
    };
    let extra: &[u8] = match random.below(6) {
        0 => b"HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n{\"user_id\":\"@alice:fake.example\"}",
        _ => b"",
    };
    [fields.as_bytes(), b"\r\n", &body, extra].concat()
}
