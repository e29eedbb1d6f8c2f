//! The two parts of a federation answer. The first line is how long the pieces are that it comes in, the
//! second its `Content-Type`, the rest the body.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mediary::federation::multipart::{Boundary, Event, Frame, MultipartError, Parser, PartHead};

fuzz_target!(|input: &[u8]| {
    let Some((length, rest)) = split_line(input) else { return };
    let Some((content_type, body)) = split_line(rest) else { return };
    let Ok(boundary) = Boundary::from_content_type(content_type) else { return };
    let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
    let length = length.filter(|&length: &usize| length > 0).unwrap_or(usize::MAX);

    let outcome = read(&boundary, body.chunks(length));
    assert_eq!(read(&boundary, [body]), outcome, "in one piece it is another");
    if outcome.2.is_ok() {
        assert!(outcome.0.is_some());
        assert!(outcome.1.is_empty() || body.windows(outcome.1.len()).any(|w| w == outcome.1));
    }
    what_is_framed_is_read_again(&boundary, body, length);
});

type Outcome = (Option<PartHead>, Vec<u8>, Result<(), MultipartError>);

fn read<'p>(boundary: &Boundary, pieces: impl IntoIterator<Item = &'p [u8]>) -> Outcome {
    let mut parser = Parser::new(boundary);
    let (mut head, mut media) = (None, Vec::new());
    for piece in pieces {
        parser.push(Bytes::copy_from_slice(piece));
        loop {
            match parser.next_event() {
                Ok(Some(Event::Head(found))) => assert_eq!(head.replace(found), None),
                Ok(Some(Event::Body(piece))) => {
                    assert!(head.is_some() && !piece.is_empty());
                    media.extend_from_slice(&piece);
                }
                Ok(None) => break,
                Err(error) => return (head, media, Err(error)),
            }
        }
    }
    (head, media, parser.finish())
}

fn what_is_framed_is_read_again(boundary: &Boundary, media: &[u8], length: usize) {
    let delimiter = format!("\r\n--{}", boundary.as_str());
    // The line end before the media may be that of a boundary, too.
    let framed = [b"\r\n", media, delimiter.as_bytes()].concat();
    let first = framed.windows(delimiter.len()).position(|part| part == delimiter.as_bytes());
    if first != Some(media.len() + 2) {
        return; // This boundary is in the media.
    }
    let frame = Frame::new(boundary, "image/png", "inline");
    let answer = [&frame.prefix, media, &frame.suffix].concat();
    let (head, read, end) = read(boundary, answer.chunks(length));
    assert_eq!(end, Ok(()));
    assert_eq!(head.and_then(|head| head.content_type).as_deref(), Some(&b"image/png"[..]));
    assert!(read == media);
}

fn split_line(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = input.iter().position(|&byte| byte == b'\n')?;
    Some((&input[..end], &input[end + 1..]))
}
