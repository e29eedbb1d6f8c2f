//! JSON that others have signed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mediary::federation::canonical_json::{encode, encode_signed_part, read_object};
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let Ok(object) = read_object(input) else { return };
    let Ok(canonical) = encode(&Value::Object(object.clone())) else { return };
    assert_eq!(read_object(&canonical).as_ref(), Ok(&object), "it says the same");
    let plain: Value = serde_json::from_slice(&canonical).expect("it is JSON");
    assert_eq!(encode(&plain).as_ref(), Ok(&canonical), "it is written in one way");
    let signed = encode_signed_part(&object).expect("a part of it is no worse");
    let signed = read_object(&signed).expect("it is an object");
    assert!(!signed.contains_key("signatures") && !signed.contains_key("unsigned"));
});
