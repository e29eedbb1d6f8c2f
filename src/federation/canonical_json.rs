//! Canonical JSON, the form that is signed (CJ-01 to CJ-03), and a reader for what is to be checked.
//!
//! The reader is stricter than JSON: what two readers could understand in two ways (a key that comes
//! twice, a number that is no whole one) has no place under a signature.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess};
use serde_json::{Map, Value};

/// The largest whole number that every JSON reader keeps exactly: 2^53 - 1 (CJ-02).
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// How many objects and arrays may lie in one another, far more than any answer of a server has.
const MAX_DEPTH: usize = 32;

/// Why something has no canonical form, or is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalJsonError {
    /// It is not JSON, or not strict JSON: a key twice, a number that is not whole, too deep.
    #[error("not strict JSON: {0}")]
    Malformed(String),
    /// A number that is not whole, or not from -(2^53)+1 to (2^53)-1.
    #[error("a number is not a whole one of at most 53 bits")]
    Number,
    /// More objects and arrays in one another than are taken.
    #[error("it is nested too deep")]
    Depth,
    /// Only objects are signed.
    #[error("it is not an object")]
    NotAnObject,
}

/// Reads an object that is to be checked against a signature.
///
/// # Errors
///
/// [`CanonicalJsonError::Malformed`] if it is not JSON, if a key comes twice in one object, or if it is
/// nested too deep; `-0`, fractions and exponents are refused as numbers beyond 53 bits are, although
/// the specification's appendix lets writers bring `-0` and `1e10` into the form `0` and
/// `10000000000`: implementations do not agree on them, so nobody can have signed them.
/// [`CanonicalJsonError::NotAnObject`] if it is something else.
pub fn read_object(json: &[u8]) -> Result<Map<String, Value>, CanonicalJsonError> {
    let Strict(value) = serde_json::from_slice(json)
        .map_err(|error| CanonicalJsonError::Malformed(error.to_string()))?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(CanonicalJsonError::NotAnObject),
    }
}

/// Writes a value in its canonical form: no blanks, keys sorted by code point, whole numbers alone. It is
/// public for the fuzz targets and tests too; what is signed is [`encode_signed_part`].
///
/// # Errors
///
/// [`CanonicalJsonError::Number`] and [`CanonicalJsonError::Depth`] for what has none.
pub fn encode(value: &Value) -> Result<Vec<u8>, CanonicalJsonError> {
    let mut output = Vec::new();
    write_value(value, 0, &mut output)?;
    Ok(output)
}

/// Writes what a signature of an object is over: its canonical form without `signatures` and
/// `unsigned` (CJ-04).
///
/// # Errors
///
/// As [`encode`].
pub fn encode_signed_part(object: &Map<String, Value>) -> Result<Vec<u8>, CanonicalJsonError> {
    let mut output = Vec::new();
    write_object(object, &["signatures", "unsigned"], 0, &mut output)?;
    Ok(output)
}

/// Writes a text as canonical JSON: only quotes, backslashes and control characters are escaped
/// (CJ-03).
pub fn write_text(text: &str, output: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    output.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => output.extend_from_slice(b"\\\""),
            b'\\' => output.extend_from_slice(b"\\\\"),
            b'\n' => output.extend_from_slice(b"\\n"),
            b'\r' => output.extend_from_slice(b"\\r"),
            b'\t' => output.extend_from_slice(b"\\t"),
            0x08 => output.extend_from_slice(b"\\b"),
            0x0c => output.extend_from_slice(b"\\f"),
            0..=0x1f => {
                output.extend_from_slice(b"\\u00");
                output.push(DIGITS[usize::from(byte >> 4)]);
                output.push(DIGITS[usize::from(byte & 15)]);
            }
            _ => output.push(byte),
        }
    }
    output.push(b'"');
}

fn write_value(
    value: &Value,
    depth: usize,
    output: &mut Vec<u8>,
) -> Result<(), CanonicalJsonError> {
    match value {
        Value::Null => output.extend_from_slice(b"null"),
        Value::Bool(true) => output.extend_from_slice(b"true"),
        Value::Bool(false) => output.extend_from_slice(b"false"),
        Value::Number(number) => {
            let is_canonical = number.as_i64().is_some_and(|n| n.unsigned_abs() <= MAX_INTEGER);
            if !is_canonical {
                return Err(CanonicalJsonError::Number);
            }
            output.extend_from_slice(number.to_string().as_bytes());
        }
        Value::String(text) => write_text(text, output),
        Value::Array(items) => {
            let depth = deeper(depth)?;
            output.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    output.push(b',');
                }
                write_value(item, depth, output)?;
            }
            output.push(b']');
        }
        Value::Object(object) => write_object(object, &[], depth, output)?,
    }
    Ok(())
}

fn write_object(
    object: &Map<String, Value>,
    without: &[&str],
    depth: usize,
    output: &mut Vec<u8>,
) -> Result<(), CanonicalJsonError> {
    let depth = deeper(depth)?;
    let mut members: Vec<_> =
        object.iter().filter(|(key, _)| !without.contains(&key.as_str())).collect();
    // The order of UTF-8 bytes is that of code points.
    members.sort_unstable_by_key(|(key, _)| key.as_bytes());
    output.push(b'{');
    for (index, (key, value)) in members.into_iter().enumerate() {
        if index > 0 {
            output.push(b',');
        }
        write_text(key, output);
        output.push(b':');
        write_value(value, depth, output)?;
    }
    output.push(b'}');
    Ok(())
}

fn deeper(depth: usize) -> Result<usize, CanonicalJsonError> {
    if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(CanonicalJsonError::Depth) }
}

/// A value that was read strictly.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Reader { depth: 0 }.deserialize(deserializer).map(Self)
    }
}

/// Reads one value that lies so deep.
#[derive(Clone, Copy)]
struct Reader {
    depth: usize,
}

impl Reader {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        deeper(self.depth).map(|depth| Self { depth }).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value without fractions")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        if value <= MAX_INTEGER {
            Ok(value.into())
        } else {
            Err(E::custom(CanonicalJsonError::Number))
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() <= MAX_INTEGER {
            Ok(value.into())
        } else {
            Err(E::custom(CanonicalJsonError::Number))
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let value = members.next_value_seed(inner)?;
            if object.insert(key, value).is_some() {
                return Err(A::Error::custom("a key comes twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn canonical(json: &str) -> String {
        let object = read_object(json.as_bytes()).unwrap();
        String::from_utf8(encode(&Value::Object(object)).unwrap()).unwrap()
    }

    /// CJ-01, CJ-07: the examples of the specification's appendix "Canonical JSON".
    #[test]
    fn the_examples_of_the_specification_get_their_form() {
        for (json, expected) in [
            ("{}", "{}"),
            (r#"{"one": 1, "two": "Two"}"#, r#"{"one":1,"two":"Two"}"#),
            (r#"{"b": "2", "a": "1"}"#, r#"{"a":"1","b":"2"}"#),
            (r#"{"b":"2","a":"1"}"#, r#"{"a":"1","b":"2"}"#),
            (
                r#"{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {
                    "display_name": "John Doe", "three_pids": [
                        {"medium": "email", "address": "john.doe@example.org"},
                        {"medium": "msisdn", "address": "123456789"}]}}}"#,
                concat!(
                    r#"{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","#,
                    r#""three_pids":[{"address":"john.doe@example.org","medium":"email"},"#,
                    r#"{"address":"123456789","medium":"msisdn"}]},"success":true}}"#,
                ),
            ),
            (r#"{"a": "日本語"}"#, r#"{"a":"日本語"}"#),
            (r#"{"本": 2, "日": 1}"#, r#"{"日":1,"本":2}"#),
            (r#"{"a": "\u65E5"}"#, r#"{"a":"日"}"#),
            (r#"{"a": null}"#, r#"{"a":null}"#),
        ] {
            assert_eq!(canonical(json), expected);
        }
    }

    /// CJ-01
    #[test]
    fn keys_are_sorted_by_code_point_and_not_by_utf_16_unit() {
        // In UTF-16 the second begins with D83D and would come first.
        let sorted = "{\"\u{ff61}\":1,\"\u{1f600}\":2}";
        assert_eq!(canonical("{\"\u{1f600}\":2,\"\u{ff61}\":1}"), sorted);
    }

    /// CJ-02
    #[test]
    fn only_whole_numbers_of_53_bits_are_read_and_written() {
        for number in ["0", "-1", "9007199254740991", "-9007199254740991"] {
            assert_eq!(canonical(&format!("{{\"a\":{number}}}")), format!("{{\"a\":{number}}}"));
        }
        for number in [
            "-0",
            "1e10",
            "1.0",
            "1.5",
            "-0.0",
            "9007199254740992",
            "-9007199254740992",
            "18446744073709551616",
            "1e400",
        ] {
            let read = read_object(format!("{{\"a\":{number}}}").as_bytes());
            assert!(matches!(read, Err(CanonicalJsonError::Malformed(_))), "{number}: {read:?}");
        }
        for number in [json!(1.5), json!(-0.0), json!(1_u64 << 53), json!(i64::MIN)] {
            assert_eq!(encode(&number), Err(CanonicalJsonError::Number), "{number}");
        }
    }

    /// CJ-03
    #[test]
    fn only_quotes_backslashes_and_control_characters_are_escaped() {
        let value = json!("\"\\/\u{8}\t\n\u{c}\r\0\u{1f}\u{7f}\u{80}é<\u{2028}😀");
        let expected =
            "\"\\\"\\\\/\\b\\t\\n\\f\\r\\u0000\\u001f\u{7f}\u{80}é<\u{2028}😀\"".as_bytes();
        assert_eq!(encode(&value).unwrap(), expected);
    }

    /// CJ-04
    #[test]
    fn signatures_and_what_is_unsigned_are_not_signed_where_they_stand_at_the_top() {
        let json = br#"{"unsigned":1,"b":{"signatures":2,"unsigned":3},"signatures":{"a":"b"}}"#;
        let signed = encode_signed_part(&read_object(json).unwrap()).unwrap();
        assert_eq!(signed, br#"{"b":{"signatures":2,"unsigned":3}}"#);
    }

    /// Threats FE-09
    #[test]
    fn a_key_that_comes_twice_is_refused_wherever_it_is() {
        for json in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":[{"b":{},"c":0,"b":1}]}"#,
            r#"{"verify_keys":{"ed25519:1":{},"ed25519:1":{}}}"#,
        ] {
            let error = read_object(json.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("twice"), "{json}: {error}");
        }
        assert!(read_object(br#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }

    /// Threats FE-09
    #[test]
    fn what_is_no_object_of_json_or_too_deep_is_refused() {
        for json in ["", "{", "nonsense", "{}{}", "{}x", "{\"a\":\"\\ud800\"}", "{\"a\":\u{1}}"] {
            let read = read_object(json.as_bytes());
            assert!(matches!(read, Err(CanonicalJsonError::Malformed(_))), "{json}: {read:?}");
        }
        assert!(read_object(b"{\"a\":\"\xff\"}").is_err());
        for json in ["[]", "null", "\"a\"", "1"] {
            assert_eq!(read_object(json.as_bytes()), Err(CanonicalJsonError::NotAnObject));
        }
        let nested = |depth: usize| format!("{}{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let nested = |depth: usize| nested(depth).replace(":}", ":1}");
        assert!(read_object(nested(MAX_DEPTH).as_bytes()).is_ok());
        for depth in [MAX_DEPTH + 1, 1000, 100_000] {
            assert!(read_object(nested(depth).as_bytes()).is_err());
            assert!(read_object("[".repeat(depth).as_bytes()).is_err());
        }
        let deep = (0..=MAX_DEPTH).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(encode(&deep), Err(CanonicalJsonError::Depth));
    }

    fn value() -> impl Strategy<Value = Value> {
        let integer = -(MAX_INTEGER as i64)..=MAX_INTEGER as i64;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            integer.prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::hash_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Writes the canonical form in the slow and plain way.
    fn naive(value: &Value) -> String {
        match value {
            Value::Array(items) => {
                format!("[{}]", items.iter().map(naive).collect::<Vec<_>>().join(","))
            }
            Value::Object(object) => {
                let mut members: Vec<(Vec<char>, String)> = object
                    .iter()
                    .map(|(key, value)| {
                        (key.chars().collect(), format!("{}:{}", json!(key), naive(value)))
                    })
                    .collect();
                members.sort();
                let members: Vec<_> = members.into_iter().map(|(_, text)| text).collect();
                format!("{{{}}}", members.join(","))
            }
            leaf => leaf.to_string(),
        }
    }

    proptest! {
        /// CJ-01
        #[test]
        fn the_form_is_that_of_a_naive_writer_and_reads_back_as_the_same(value in value()) {
            let written = encode(&value).unwrap();
            prop_assert_eq!(std::str::from_utf8(&written).unwrap(), naive(&value));
            let wrapped = [b"{\"a\":", &written[..], b"}"].concat();
            let read = read_object(&wrapped).unwrap();
            prop_assert_eq!(&read["a"], &value);
            prop_assert_eq!(encode(&Value::Object(read)).unwrap(), wrapped);
        }

        #[test]
        fn any_bytes_are_read_without_panic(json in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = read_object(&json);
        }
    }
}
