//! What is read of the field, and what is not.

use http::HeaderValue;
use proptest::prelude::*;

use super::super::signing_key::KeySeed;
use super::*;

/// 64 bytes whose base64 has all that a bare value may choke on.
const SIG: &str =
    "+/+/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn parse(text: &str) -> Result<XMatrix, XMatrixError> {
    XMatrix::parse(text.replace("<>", SIG).as_bytes())
}

fn name(text: &str) -> ServerName {
    text.parse().unwrap()
}

fn headers(fields: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for field in fields {
        let field = HeaderValue::try_from(field.replace("<>", SIG)).unwrap();
        headers.append(header::AUTHORIZATION, field);
    }
    headers
}

fn claim(fields: &[&str]) -> Result<Claim, XMatrixError> {
    Claim::from_headers(&headers(fields))
}

const USUAL: &str =
    r#"X-Matrix origin="a.example",destination="b.example:8448",key="ed25519:k_1",sig="<>""#;

/// XM-04, XM-07, CJ-06, threats FE-07
#[test]
fn one_field_may_be_written_in_many_ways() {
    let usual = parse(USUAL).unwrap();
    assert_eq!(usual.origin, name("a.example"));
    assert_eq!(usual.destination, Some(name("b.example:8448")));
    let signature = usual.signature.clone().unwrap();
    assert_eq!((signature.key_id.as_str(), signature.bytes[0]), ("ed25519:k_1", 0xfb));
    for other in [
        r#"x-mATRIX   ORIGIN="a.example",Destination="b.example:8448",kEY="ed25519:k_1",SIG="<>""#,
        r#"X-Matrix sig="<>",key="ed25519:k_1",destination="b.example:8448",origin="a.example""#,
        "X-Matrix\torigin=a.example,destination=b.example:8448,key=ed25519:k_1,sig=<>",
        // As Continuwuity writes it.
        r#"X-Matrix destination="b.example:8448",key="ed25519:k_1",origin=a.example,sig=<>"#,
        "X-Matrix origin=a.example,destination=b.example:8448,key=ed25519:k_1,sig=<>==",
        "X-Matrix origin=a.example \t, destination=b.example:8448,\tkey=ed25519:k_1 , sig=\"<>==\"",
        "X-Matrix origin = a.example,destination= \"b.example:8448\",key =ed25519:k_1,sig=<>",
        r#"X-Matrix origin="\a.exa\mple",destination="b\.example:8448",key="ed25519\:k_1",sig="<>""#,
        "X-Matrix ,origin=a.example,,destination=b.example:8448, ,key=ed25519:k_1,sig=<>,",
        "X-Matrix origin=a.example,destination=b.example:8448,key=ed25519:k_1,sig=<>,new=\"a \\\" , \u{e9}\"",
        "  X-Matrix new=,origin=a.example,destination=b.example:8448,key=ed25519:k_1,sig=<>  ",
    ] {
        assert_eq!(parse(other).as_ref(), Ok(&usual), "{other}");
    }
}

/// XM-03, XM-07
#[test]
fn names_with_ports_and_addresses_need_no_quotes() {
    let read = parse("X-Matrix origin=[::1]:8448,key=ed25519:1,sig=<>").unwrap();
    assert_eq!(read.origin, name("[::1]:8448"));
    assert_eq!(read.destination, None);
}

/// XM-07, threats FE-01, FE-06, FE-07
#[test]
fn what_breaks_the_grammar_is_refused() {
    use XMatrixError::{Duplicate, InvalidParameter, NoParameter, OtherScheme, Syntax, TooLong};
    let all = "origin=a.example,destination=b.example,key=ed25519:1,sig=<>";
    for (field, error) in [
        ("", OtherScheme),
        ("Bearer token", OtherScheme),
        ("X-Matrixorigin=a", OtherScheme),
        ("X-Matrix", NoParameter("origin")),
        ("X-Matrix ", NoParameter("origin")),
        ("X-Matrix ,,", NoParameter("origin")),
        ("X-Matrix origin=\"\",destination=\"\",key=\"\",sig=\"\"", InvalidParameter("origin")),
        ("X-Matrix origin=,key=ed25519:1,sig=<>", InvalidParameter("origin")),
        ("X-Matrix origin=a.example,key=ed25519:1", NoParameter("sig")),
        ("X-Matrix origin=a.example,sig=<>", NoParameter("key")),
        ("X-Matrix key=ed25519:1,sig=<>", NoParameter("origin")),
        ("X-Matrix origin=a_b,key=ed25519:1,sig=<>", InvalidParameter("origin")),
        ("X-Matrix origin=\"a/b\",key=ed25519:1,sig=<>", InvalidParameter("origin")),
        (
            "X-Matrix origin=a,destination=\"\",key=ed25519:1,sig=<>",
            InvalidParameter("destination"),
        ),
        ("X-Matrix origin=a,key=ed25519,sig=<>", InvalidParameter("key")),
        ("X-Matrix origin=a,key=ed25519:,sig=<>", InvalidParameter("key")),
        ("X-Matrix origin=a,key=\"ed25519:a-b\",sig=<>", InvalidParameter("key")),
        ("X-Matrix origin=a,key=ed25519:1,sig=abc", InvalidParameter("sig")),
        ("X-Matrix origin=a,key=ed25519:1,sig=<>A", InvalidParameter("sig")),
        ("X-Matrix origin=a,key=ed25519:1,sig=\"-_+/\"", InvalidParameter("sig")),
        ("X-Matrix origin=a,key=ed25519:1,sig=\"<>", Syntax),
        ("X-Matrix origin=a,key=ed25519:1,sig=\"<>\\", Syntax),
        ("X-Matrix origin=a key=ed25519:1,sig=<>", Syntax),
        ("X-Matrix origin=\"a\"key=ed25519:1,sig=<>", Syntax),
        ("X-Matrix origin=\"a\"x,key=ed25519:1,sig=<>", Syntax),
        ("X-Matrix origin,key=ed25519:1,sig=<>", Syntax),
        ("X-Matrix =a,key=ed25519:1,sig=<>", Syntax),
        ("X-Matrix origin=\u{e9},key=ed25519:1,sig=<>", Syntax),
        ("X-Matrix origin=a,X-Matrix origin=b,key=ed25519:1,sig=<>", Syntax),
        ("X-Matrix,origin=a", NoParameter("key")),
        ("X-Matrix origin=a,key=ed25519:1,sig=<>,ORIGIN=a", Duplicate),
        ("X-Matrix origin=a,key=ed25519:1,sig=<>,sig=<>", Duplicate),
        ("X-Matrix new=1,origin=a,New=1,key=ed25519:1,sig=<>", Duplicate),
    ] {
        assert_eq!(parse(field), Err(error), "{field}");
    }
    let many = |count| (0..count).map(|n| format!(",p{n}=1")).collect::<String>();
    assert!(parse(&format!("X-Matrix {all}{}", many(MAX_PARAMETERS - 4))).is_ok());
    assert_eq!(parse(&format!("X-Matrix {all}{}", many(MAX_PARAMETERS - 3))), Err(TooLong));
    let long = |length| format!("X-Matrix {all},long=").replace("<>", SIG) + &"x".repeat(length);
    let rest = MAX_FIELD_LENGTH - long(0).len();
    assert!(parse(&long(rest)).is_ok());
    assert_eq!(parse(&long(rest + 1)), Err(TooLong));
}

/// XM-09
#[test]
fn several_fields_are_one_claim_if_they_name_the_same_servers() {
    let old = r#"X-Matrix origin="a.example",key="ed25519:old",sig="<>""#;
    for fields in [[USUAL, old], [old, USUAL]] {
        let claim = claim(&fields).unwrap();
        assert_eq!(claim.origin, name("a.example"));
        assert_eq!(claim.destination, Some(name("b.example:8448")));
        assert_eq!(claim.signatures.len(), 2);
    }
    for other in [
        r#"X-Matrix origin="c.example",destination="b.example:8448",key="ed25519:1",sig="<>""#,
        r#"X-Matrix origin="a.example",destination="c.example",key="ed25519:1",sig="<>""#,
        r#"X-Matrix origin="c.example",key="rsa:1",sig="x""#,
    ] {
        assert_eq!(claim(&[USUAL, other]), Err(XMatrixError::Contradiction), "{other}");
        assert_eq!(claim(&[old, USUAL, other]), Err(XMatrixError::Contradiction), "{other}");
    }
    assert_eq!(claim(&[USUAL, "X-Matrix"]), Err(XMatrixError::NoParameter("origin")));
    assert_eq!(claim(&[USUAL, "Bearer abc"]), Err(XMatrixError::OtherScheme));
    assert!(claim(&[USUAL; MAX_FIELDS]).is_ok());
    assert_eq!(claim(&[USUAL; MAX_FIELDS + 1]), Err(XMatrixError::TooLong));
    assert_eq!(claim(&[]), Err(XMatrixError::Missing));
}

/// CJ-05, threats FE-06
#[test]
fn signatures_of_other_algorithms_are_passed_over() {
    let other = r#"X-Matrix origin="a.example",key="rsa:1",sig="!""#;
    assert_eq!(claim(&[other]), Err(XMatrixError::UnknownAlgorithm));
    for fields in [[other, USUAL], [USUAL, other]] {
        assert_eq!(claim(&fields).unwrap().signatures.len(), 1);
    }
}

/// XM-01, XM-02, CJ-03
#[test]
fn what_is_signed_has_the_target_as_it_was_sent_and_no_content() {
    let target = "/_matrix/federation/v1/media/download/a%2Fb?z=\"\\&a=%40";
    let signed = signed_request(&Method::GET, target, &name("a.example:1"), &name("b.example"));
    let expected = concat!(
        r#"{"destination":"b.example","method":"GET","origin":"a.example:1","#,
        r#""uri":"/_matrix/federation/v1/media/download/a%2Fb?z=\"\\&a=%40"}"#,
    );
    assert_eq!(std::str::from_utf8(&signed).unwrap(), expected);
}

/// Threats FE-02
#[test]
fn a_signature_is_good_for_one_method_target_origin_and_destination() {
    let key = KeySeed::generate().unwrap().signing_key();
    let (us, them) = (name("us.example"), name("them.example"));
    let target = "/_matrix/federation/v1/media/download/abc?a=1&b=2";
    let field = key.authorization(&them, &us, &Method::GET, target);
    let signature = XMatrix::parse(field.as_bytes()).unwrap().signature.unwrap();
    let verifies =
        |method: &Method, target: &str, origin: &ServerName, destination: &ServerName| {
            let message = signed_request(method, target, origin, destination);
            signature.verifies(&key.verify_key(), &message)
        };
    assert!(verifies(&Method::GET, target, &them, &us));
    assert!(!verifies(&Method::HEAD, target, &them, &us));
    for other in [
        "/_matrix/federation/v1/media/download/abc?b=2&a=1",
        "/_matrix/federation/v1/media/download/abc",
        "/_matrix/federation/v1/media/download/%61bc?a=1&b=2",
        "/_matrix/federation/v1/media/download/abd?a=1&b=2",
    ] {
        assert!(!verifies(&Method::GET, other, &them, &us), "{other}");
    }
    assert!(!verifies(&Method::GET, target, &name("them.example:8448"), &us));
    assert!(!verifies(&Method::GET, target, &them, &name("US.example")));
    assert!(!verifies(&Method::GET, target, &us, &them));
    let other_key = KeySeed::generate().unwrap().signing_key().verify_key();
    let message = signed_request(&Method::GET, target, &them, &us);
    assert!(!signature.verifies(&other_key, &message));
}

fn server_name() -> impl Strategy<Value = ServerName> {
    "([a-z0-9]{1,20}(\\.[a-z]{2,8}){0,3}|\\[::[0-9a-f]{1,4}\\])(:[1-9][0-9]{0,3})?"
        .prop_map(|text| text.parse().unwrap())
}

/// Writes a value bare, quoted, or quoted with every byte escaped.
fn spelt(value: &str, how: u8) -> String {
    match how % 3 {
        0 => value.to_owned(),
        1 => format!("\"{value}\""),
        _ => format!("\"{}\"", value.chars().flat_map(|c| ['\\', c]).collect::<String>()),
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(
        field in proptest::collection::vec(any::<u8>(), 0..200),
        list in "X-Matrix [a-z=\",\\\\ \t:+/]{0,60}",
    ) {
        let _ = XMatrix::parse(&field);
        let _ = XMatrix::parse(&[b"X-Matrix ", &field[..]].concat());
        let _ = XMatrix::parse(list.as_bytes());
    }

    /// XM-04
    #[test]
    fn what_is_written_is_what_is_read(
        origin in server_name(),
        destination in server_name(),
        target in "/[ -~]{0,80}",
    ) {
        let key = KeySeed::generate().unwrap().signing_key();
        let field = key.authorization(&origin, &destination, &Method::GET, &target);
        let read = XMatrix::parse(field.as_bytes()).unwrap();
        prop_assert_eq!((&read.origin, read.destination.as_ref()), (&origin, Some(&destination)));
        let signature = read.signature.unwrap();
        prop_assert_eq!(&signature.key_id, key.id());
        let message = signed_request(&Method::GET, &target, &origin, &destination);
        prop_assert!(signature.verifies(&key.verify_key(), &message));
    }

    /// XM-07
    #[test]
    fn order_quotes_and_blanks_make_no_difference(
        origin in server_name(),
        destination in server_name(),
        hows: [u8; 4],
        order in Just([0, 1, 2, 3]).prop_shuffle(),
        blank in "[ \t]{0,3}",
    ) {
        let values = [
            ("origin", origin.as_str()),
            ("destination", destination.as_str()),
            ("key", "ed25519:a_1"),
            ("sig", SIG),
        ];
        let list: Vec<_> = order
            .map(|index| {
                let (name, value) = values[index];
                format!("{name}={}", spelt(value, hows[index]))
            })
            .into();
        let field = format!("X-Matrix {}", list.join(&format!("{blank},{blank}")));
        let read = XMatrix::parse(field.as_bytes()).unwrap();
        prop_assert_eq!((read.origin, read.destination), (origin, Some(destination)));
        let signature = read.signature.unwrap();
        prop_assert_eq!(signature.key_id.as_str(), "ed25519:a_1");
    }
}
