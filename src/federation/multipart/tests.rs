use super::*;
use proptest::prelude::*;

const BOUNDARY: &str = "bd3f";

/// What is read of an answer: the head, the media, and how it ended.
type Outcome = (Option<PartHead>, Vec<u8>, Result<(), MultipartError>);

fn boundary() -> Boundary {
    BOUNDARY.parse().unwrap()
}

/// Reads an answer that comes in these pieces.
fn read<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Outcome {
    let mut parser = Parser::new(&boundary());
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
                Err(error) => {
                    assert_eq!(parser.next_event(), Err(error), "an error is final");
                    assert_eq!(parser.finish(), Err(error));
                    return (head, media, Err(error));
                }
            }
        }
    }
    (head, media, parser.finish())
}

/// Reads an answer in one piece and byte by byte, which makes no difference.
#[track_caller]
fn read_whole(answer: &[u8]) -> Outcome {
    let outcome = read([answer]);
    assert_eq!(read(answer.chunks(1)), outcome, "byte by byte");
    outcome
}

/// An answer in the form of the specification, with this around the media.
fn answer(head: &str, media: &[u8], end: &str) -> Vec<u8> {
    let first = "--bd3f\r\nContent-Type: application/json\r\n\r\n{}\r\n--bd3f\r\n";
    [first.as_bytes(), head.as_bytes(), b"\r\n", media, end.as_bytes()].concat()
}

#[track_caller]
fn media_of(answer: &[u8]) -> Vec<u8> {
    let (_, media, end) = read_whole(answer);
    assert_eq!(end, Ok(()), "{}", String::from_utf8_lossy(answer));
    media
}

#[track_caller]
fn error_of(answer: &[u8]) -> MultipartError {
    read_whole(answer).2.expect_err(&String::from_utf8_lossy(answer))
}

/// FM-C-10, FLD-02
#[test]
fn media_is_read_with_its_type_and_name() {
    let head = "Content-Type: image/png\r\nContent-Disposition: inline; filename=a.png\r\n";
    for start in ["", "\r\n", "\n", "\r\n\r\n", "a preamble\r\n--bd\r\n"] {
        let answer = [start.as_bytes(), &answer(head, b"\x89PNG\r\n", "\r\n--bd3f--\r\n")].concat();
        let (head, media, end) = read_whole(&answer);
        let head = head.unwrap();
        assert_eq!(head.content_type.as_deref(), Some(&b"image/png"[..]), "{start:?}");
        assert_eq!(head.content_disposition.as_deref(), Some(&b"inline; filename=a.png"[..]));
        assert_eq!((head.location, media, end), (None, b"\x89PNG\r\n".to_vec(), Ok(())));
    }
}

/// FLD-01
#[test]
fn the_last_boundary_may_lack_its_dashes_if_nothing_follows() {
    for end in ["\r\n--bd3f--", "\r\n--bd3f--\r\n", "\r\n--bd3f", "\r\n--bd3f\r\n", "\r\n--bd3f \n"]
    {
        assert_eq!(media_of(&answer("", b"media", end)), b"media", "{end:?}");
    }
    for end in ["", "\r\n", "\r\n--", "\r\n--bd3", "\n--bd3f--", "--bd3f--", "\r\n--bd3f-"] {
        assert_eq!(error_of(&answer("", b"media", end)), MultipartError::Truncated, "{end:?}");
    }
    for end in ["\r\n--bd3fx", "\r\n--bd3f-x", "\r\n--bd3f x\r\n", "\r\n--bd3f --"] {
        assert_eq!(error_of(&answer("", b"media", end)), MultipartError::BrokenBoundary, "{end:?}");
    }
}

/// FE-10
#[test]
fn a_third_part_is_refused() {
    for end in [
        "\r\n--bd3f\r\nContent-Type: text/plain\r\n\r\nmore\r\n--bd3f--\r\n",
        "\r\n--bd3f\r\n\r\nmore",
        "\r\n--bd3f\r\n--bd3f--",
        "\r\n--bd3f\nx",
    ] {
        assert_eq!(error_of(&answer("", b"media", end)), MultipartError::ThirdPart, "{end:?}");
    }
}

/// FE-10
#[test]
fn a_single_part_is_not_enough() {
    for answer in
        ["--bd3f--\r\n", "--bd3f\r\n\r\n{}\r\n--bd3f--\r\n", "\r\n--bd3f\r\n\r\n{}\n--bd3f--\n"]
    {
        assert_eq!(error_of(answer.as_bytes()), MultipartError::OnePart, "{answer:?}");
    }
    for answer in
        ["", "\r\n", "--bd3f", "--bd3f\r\n", "--bd3f\r\n\r\n{}", "--bd3f\r\n\r\n{}\r\n--bd3f"]
    {
        assert_eq!(error_of(answer.as_bytes()), MultipartError::Truncated, "{answer:?}");
    }
}

/// FM-C-10, FE-10
#[test]
fn the_first_part_has_to_be_a_json_object_and_may_hold_anything() {
    let with = |json: &str| format!("--bd3f\r\n\r\n{json}\r\n--bd3f\r\n\r\nmedia\r\n--bd3f--");
    for json in ["{}", " {}\n", "{\"restrictions\":{\"x\":[1,null]}}", "{\r\n\"a\": 1\r\n}\r\n"] {
        assert_eq!(media_of(with(json).as_bytes()), b"media", "{json:?}");
    }
    for json in ["", "[]", "null", "{", "{}{}", "{\"a\":\"\u{1}\"}", "<html>"] {
        assert_eq!(error_of(with(json).as_bytes()), MultipartError::Metadata, "{json:?}");
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
    assert_eq!(media_of(with(&deep).as_bytes()), b"media");
}

/// FLD-07
#[test]
fn heads_may_be_written_in_any_known_way() {
    for head in [
        "content-type: image/png\r\ncontent-disposition: inline\r\n",
        "CONTENT-TYPE:image/png\nContent-Disposition:inline\n",
        "Content-Type :  image/png \t\r\nX-Other: y\r\nContent-Disposition\t: inline\r\n",
        "Content-Type:\r\n image/png\r\nContent-Disposition: inline\r\nContent-Type: text/html\r\n",
        "Content-Transfer-Encoding: binary\r\nContent-Type: image/png\r\nContent-Disposition:\n\tinline\n",
    ] {
        let (found, media, end) = read_whole(&answer(head, b"x", "\r\n--bd3f--"));
        let found = found.unwrap();
        let said = |value: Option<Bytes>| String::from_utf8(value.unwrap().to_vec()).unwrap();
        assert_eq!(said(found.content_type).trim(), "image/png", "{head:?}");
        assert_eq!(said(found.content_disposition).trim(), "inline", "{head:?}");
        assert_eq!((media, end), (b"x".to_vec(), Ok(())));
    }
    let unix = "\n--bd3f\ncontent-type: application/json\n\n{}\n--bd3f\nA: b\n\nx\r\n--bd3f--";
    assert_eq!(media_of(unix.as_bytes()), b"x");
}

/// FE-10
#[test]
fn heads_that_are_none_are_refused() {
    for head in ["no field\r\n", ": nameless\r\n", "na me: x\r\n", " goes on\r\n", "--bd3f\r\n"] {
        let error = error_of(&answer(head, b"", "\r\n--bd3f--"));
        assert!(matches!(error, MultipartError::Head(_)), "{head:?}: {error}");
    }
    let many = "A: b\r\n".repeat(65);
    let error = error_of(&answer(&many, b"", "\r\n--bd3f--"));
    assert_eq!(error, MultipartError::Head("too many fields"));
    for coding in ["Content-Transfer-Encoding: base64\r\n", "content-encoding: gzip\r\n"] {
        assert_eq!(error_of(&answer(coding, b"x", "\r\n--bd3f--")), MultipartError::Coded);
    }
}

/// FE-10
#[test]
fn nothing_before_the_media_is_endless() {
    let long = |length: usize| "x".repeat(length);
    for endless in [
        long(2000).into_bytes(),
        "\r\n".repeat(600).into_bytes(),
        format!("--bd3f\r\nA: {}", long(17_000)).into_bytes(),
        format!("--bd3f\r\nA: {}\r\n\r\n", long(16_400)).into_bytes(),
        format!("--bd3f\r\n\r\n{{\"a\":\"{}\"}}", long(66_000)).into_bytes(),
        answer(&format!("Location: {}\r\n", long(1024 * 1024)), b"", "\r\n--bd3f--"),
    ] {
        let error = error_of(&endless);
        assert!(matches!(error, MultipartError::TooLong(_)), "{error}");
    }
    let most = format!("A: {}\r\n", long(16_300));
    assert_eq!(media_of(&answer(&most, b"x", "\r\n--bd3f--")), b"x");
}

#[test]
fn an_epilogue_is_dropped_and_has_a_bound() {
    let with = |length| format!("\r\n--bd3f--{}", "e".repeat(length));
    assert_eq!(media_of(&answer("", b"x", &with(4000))), b"x");
    assert_eq!(error_of(&answer("", b"x", &with(5000))), MultipartError::Epilogue);
    let blank = format!("\r\n--bd3f{}", " ".repeat(5000));
    assert_eq!(error_of(&answer("", b"x", &blank)), MultipartError::Epilogue);
}

/// FE-12
#[test]
fn media_may_be_empty() {
    for end in ["\r\n--bd3f--\r\n", "--bd3f--\r\n", "\r\n--bd3f", "--bd3f"] {
        assert_eq!(media_of(&answer("Content-Type: a/b\r\n", b"", end)), b"", "{end:?}");
    }
}

#[test]
fn media_may_look_nearly_like_a_boundary() {
    for media in [
        "--bd3",
        "--bd3\r\n--bd3\r\n",
        "\r\n--bd3\r\n--b",
        "\r\r\n--bd3",
        "-",
        "\r\n",
        "\r\n\r\n--",
        "\n--bd3f--\n",
        "x--bd3f--",
        "\r--bd3f",
    ] {
        let read = media_of(&answer("", media.as_bytes(), "\r\n--bd3f--"));
        assert_eq!(read, media.as_bytes(), "{media:?}");
    }
}

/// FE-10
#[test]
fn nested_parts_are_bytes_of_the_media() {
    let nested = b"--inner\r\nContent-Type: text/plain\r\n\r\nx\r\n--inner--\r\n";
    let head = "Content-Type: multipart/mixed; boundary=inner\r\n";
    assert_eq!(media_of(&answer(head, nested, "\r\n--bd3f--")), nested);
}

#[test]
fn media_is_handed_on_as_it_comes_and_is_not_copied() {
    let mut parser = Parser::new(&boundary());
    parser.push(answer("", b"f", "").into());
    assert!(matches!(parser.next_event(), Ok(Some(Event::Head(_)))));
    assert_eq!(parser.next_event(), Ok(Some(Event::Body(Bytes::from_static(b"f")))));
    let piece = Bytes::from(vec![b'x'; 1000]);
    parser.push(piece.clone());
    let Ok(Some(Event::Body(same))) = parser.next_event() else { panic!("no media") };
    assert_eq!((same.as_ptr(), same.len()), (piece.as_ptr(), 1000));
}

#[test]
fn the_size_of_the_media_is_bounded_by_that_of_the_answer() {
    for end in ["\r\n--bd3f", "\r\n--bd3f--\r\n", "\r\n--bd3f--an epilogue of some bytes"] {
        let answer = answer("A: b\r\n", &[b'x'; 10_000], end);
        let mut parser = Parser::new(&boundary());
        parser.push(answer.clone().into());
        parser.next_event().unwrap();
        let (least, most) = parser.size_within(answer.len() as u64);
        assert!((least..=most).contains(&10_000), "{least} to {most}");
        assert!(most - least <= MAX_EPILOGUE as u64 && most < 10_050);
    }
}

/// Bytes in which line ends, boundaries and pieces of them are frequent.
fn nasty() -> impl Strategy<Value = Vec<u8>> {
    of_words(&["\r\n--bd3f", "--bd3f", "bd3f", "\r\n", "\r", "\n", "-", "--", "x", "{}", "A: b"])
}

/// Media that looks like a boundary and holds none.
fn innocent() -> impl Strategy<Value = Vec<u8>> {
    of_words(&["\r\n--bd3", "--bd3", "bd3", "\r\n", "\r", "\n", "-", "--", "x"])
}

fn of_words(words: &[&'static str]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let word = prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    proptest::collection::vec(word, 0..20).prop_map(|words| words.concat())
}

/// Cuts bytes into pieces of these lengths again and again.
fn cut<'b>(bytes: &'b [u8], lengths: &[usize]) -> Vec<&'b [u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for length in lengths.iter().cycle() {
        let (piece, after) = rest.split_at((*length).min(rest.len()));
        pieces.push(piece);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    pieces
}

proptest! {
    /// FLD-05
    #[test]
    fn it_does_not_matter_in_what_pieces_an_answer_comes(
        media in nasty(),
        end in nasty(),
        lengths in proptest::collection::vec(1_usize..9, 1..9),
    ) {
        let mut whole = answer("Content-Type: a/b\r\n", &media, "\r\n--bd3f");
        whole.extend(end);
        prop_assert_eq!(read(cut(&whole, &lengths)), read([&whole[..]]));
    }

    #[test]
    fn nor_if_it_is_none(
        whole in nasty(),
        lengths in proptest::collection::vec(1_usize..9, 1..9),
    ) {
        prop_assert_eq!(read(cut(&whole, &lengths)), read([&whole[..]]));
    }

    /// FM-S-03, FLD-01, FLD-02
    #[test]
    fn what_is_written_is_read(
        media in innocent(),
        lengths in proptest::collection::vec(1_usize..9, 1..9),
    ) {
        let frame = Frame::new(&boundary(), "image/png", "inline; filename=x");
        let whole = [&frame.prefix[..], &media, &frame.suffix].concat();
        let (head, read, end) = read(cut(&whole, &lengths));
        let head = head.unwrap();
        prop_assert_eq!(head.content_type.as_deref(), Some(&b"image/png"[..]));
        prop_assert_eq!(head.content_disposition.as_deref(), Some(&b"inline; filename=x"[..]));
        prop_assert_eq!((read, end), (media, Ok(())));
    }

    /// FE-11
    #[test]
    fn no_answer_that_breaks_off_looks_whole(media in innocent(), missing in 1_usize..60) {
        let frame = Frame::new(&boundary(), "image/png", "inline");
        let whole = [&frame.prefix[..], &media, &frame.suffix[..frame.suffix.len() - 4]].concat();
        let cut = whole.len().saturating_sub(missing);
        prop_assert!(read([&whole[..cut]]).2.is_err());
    }
}
