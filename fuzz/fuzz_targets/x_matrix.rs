//! `Authorization: X-Matrix`, one field a line.
#![no_main]

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use mediary::federation::x_matrix::{Claim, XMatrix, signed_request};

fuzz_target!(|input: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in input.split(|&byte| byte == b'\n') {
        let _ = XMatrix::parse(line);
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(AUTHORIZATION, value);
        }
    }
    let Ok(claim) = Claim::from_headers(&headers) else { return };
    assert!(!claim.signatures.is_empty() && claim.signatures.len() <= headers.len());
    let Ok(target) = std::str::from_utf8(input) else { return };
    let destination = claim.destination.as_ref().unwrap_or(&claim.origin);
    let signed = signed_request(&Method::GET, target, &claim.origin, destination);
    let signed: serde_json::Value = serde_json::from_slice(&signed).expect("it is JSON");
    assert_eq!(signed["origin"], claim.origin.as_str());
    assert_eq!(signed["uri"], target);
});
