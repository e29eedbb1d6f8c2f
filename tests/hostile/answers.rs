//! Answers as they stand in the bytes of a connection, read strictly.

use crate::common::http::Answer;

/// Reads all answers, informational ones left out. `is_head` says that the first has no body. One that
/// is cut short is the last, and not complete.
///
/// # Errors
///
/// Says what is not HTTP. Behind the last answer there must be nothing.
pub fn read(bytes: &[u8], is_head: bool) -> Result<Vec<Answer>, String> {
    let mut answers: Vec<Answer> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if find(rest, b"\r\n\r\n").is_none() && b"HTTP/1.1 ".starts_with(&rest[..rest.len().min(9)])
        {
            break;
        }
        let (answer, after) = read_one(rest, is_head && answers.is_empty())?;
        rest = after;
        if !(100..200).contains(&answer.status) {
            answers.push(answer);
        }
    }
    Ok(answers)
}

fn read_one(bytes: &[u8], is_head: bool) -> Result<(Answer, &[u8]), String> {
    let end = find(bytes, b"\r\n\r\n").ok_or("no answer")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|line| line.get(..3)?.parse().ok())
        .filter(|status| (100..600).contains(status))
        .ok_or_else(|| format!("no status line: {status_line:?}"))?;
    let headers: Vec<_> = lines.map(read_field).collect::<Result<_, _>>()?;
    let mut answer = Answer { status, headers, body: Vec::new(), complete: true };
    let is_bodiless = is_head || matches!(status, 100..200 | 204 | 304);
    if is_bodiless {
        return Ok((answer, rest));
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        let rest = read_chunks(rest, &mut answer)?;
        return Ok((answer, rest));
    }
    let length = answer.header("content-length").ok_or("a body of no length")?;
    let length: usize = length.parse().map_err(|_| format!("no length: {length:?}"))?;
    let (body, rest) = rest.split_at(length.min(rest.len()));
    answer.complete = body.len() == length;
    answer.body = body.to_vec();
    Ok((answer, rest))
}

fn read_field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or_else(|| format!("no field: {line:?}"))?;
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_value = !value.bytes().any(|b| b.is_ascii_control());
    if name.is_empty() || !is_name || !is_value {
        return Err(format!("no field: {line:?}"));
    }
    Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
}

/// Reads a body in chunks and returns what is behind it; one that is cut short is not complete.
fn read_chunks<'b>(mut rest: &'b [u8], answer: &mut Answer) -> Result<&'b [u8], String> {
    answer.complete = false;
    while let Some(end) = find(rest, b"\r\n") {
        let size = String::from_utf8_lossy(&rest[..end]).into_owned();
        let size = usize::from_str_radix(&size, 16).map_err(|_| format!("no size: {size:?}"))?;
        let chunk = &rest[end + 2..];
        let Some(after) = chunk.get(size..size + 2) else { break };
        if after != b"\r\n" {
            return Err("a chunk without its end".to_owned());
        }
        answer.body.extend(&chunk[..size]);
        rest = &chunk[size + 2..];
        if size == 0 {
            answer.complete = true;
            return Ok(rest);
        }
    }
    Ok(&[])
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
