//! Request lines: the method, a space, and the target.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use mediary::route::{Route, classify};

fuzz_target!(|input: &[u8]| {
    let Some(space) = input.iter().position(|&byte| byte == b' ') else { return };
    let Ok(method) = Method::from_bytes(&input[..space]) else { return };
    let target = &input[space + 1..];
    let route = classify(&method, target);
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    let is_media = path.starts_with(b"/_matrix/media/")
        || path.starts_with(b"/_matrix/client/v1/media/")
        || path.starts_with(b"/_matrix/federation/v1/media/");
    assert!(!is_media || !matches!(route, Route::PassThrough(_)), "media is passed through");
    if let Route::Media(media) = route {
        let _ = (media.dialect(), media.operation.name());
        for name in ["width", "height", "method", "animated", "timeout_ms", "filename", "url"] {
            let _ = media.query.get(name);
        }
    }
});
