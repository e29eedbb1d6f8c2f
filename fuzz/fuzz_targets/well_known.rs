//! `/.well-known/matrix/server`: header fields, an empty line, and the body.
#![no_main]

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use mediary::federation::well_known::{lifetime, parse};

const HOUR: Duration = Duration::from_secs(60 * 60);

fuzz_target!(|input: &[u8]| {
    let mut headers = HeaderMap::new();
    let mut rest = input;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { break };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let fresh = lifetime(&headers, SystemTime::UNIX_EPOCH + 500_000 * HOUR);
    assert!(fresh >= Duration::from_secs(5 * 60) && fresh <= 48 * HOUR, "{fresh:?}");
    if let Ok(server) = parse(rest) {
        let body = serde_json::json!({"m.server": server.as_str()}).to_string();
        assert_eq!(parse(body.as_bytes()), Ok(server));
    }
});
