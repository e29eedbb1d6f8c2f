//! Whether a text is an SVG document, by as much of its start as it takes to see its first element.

/// Returns whether the first element of an XML document in UTF-8 is called `svg`.
///
/// Before it there may be what XML allows there: a byte order mark, white space, comments, processing
/// instructions and a document type. Anything else in front, and it is some other file.
pub(super) fn is_svg(start: &[u8]) -> bool {
    let mut rest = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    loop {
        rest = rest.trim_ascii_start();
        let behind = if rest.starts_with(b"<?") {
            behind(rest, b"?>")
        } else if rest.starts_with(b"<!--") {
            behind(&rest[4..], b"-->")
        } else if rest.starts_with(b"<!DOCTYPE") {
            behind_document_type(rest)
        } else {
            return is_svg_element(rest);
        };
        match behind {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
}

fn behind<'t>(text: &'t [u8], end: &[u8]) -> Option<&'t [u8]> {
    let at = text.windows(end.len()).position(|part| part == end)?;
    Some(&text[at + end.len()..])
}

/// Skips a document type, with the declarations inside of its brackets.
fn behind_document_type(text: &[u8]) -> Option<&[u8]> {
    let at = text.iter().position(|byte| matches!(byte, b'[' | b'>'))?;
    match text[at] {
        b'>' => Some(&text[at + 1..]),
        _ => behind(behind(&text[at..], b"]")?, b">"),
    }
}

/// Whether an element begins here whose name, without its prefix, is `svg`.
fn is_svg_element(text: &[u8]) -> bool {
    let Some(text) = text.strip_prefix(b"<") else { return false };
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/');
    let Some(end) = text.iter().position(is_end) else { return false };
    let name = text[..end].rsplit(|&byte| byte == b':').next();
    name == Some(b"svg") && text[..end].iter().all(|&byte| byte.is_ascii_graphic() && byte != b'<')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_texts_are_none() {
        for text in [
            &b""[..],
            b"svg",
            b"<svg",
            b"<svgs>",
            b"<SVG>",
            b"< svg>",
            b"<html><svg>",
            b"<!-- <svg> ",
            b"<!DOCTYPE svg [ <!ENTITY a '",
            b"hello <svg>",
            b"\0<svg>",
            b"\xff\xfe<\0s\0v\0g\0>\0",
            b"<?xml version='1.0'?><rss>",
            b"<a<b:svg>",
        ] {
            assert!(!is_svg(text), "{text:?}");
        }
    }

    #[test]
    fn what_may_stand_before_the_first_element_is_passed_over() {
        for text in [
            &b"<svg>"[..],
            b"<svg/>",
            b"\n <svg\nwidth='1'>",
            b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- <html> --><svg >",
            b"<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' 'http://www.w3.org/svg11.dtd'><svg>",
            b"<!DOCTYPE svg [ <!ENTITY a 'b'> ]>\n<?php ?><svg:svg xmlns:svg='x'>",
        ] {
            assert!(is_svg(text), "{text:?}");
        }
    }
}
