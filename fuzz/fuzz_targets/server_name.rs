//! Server names, `mxc://` URIs, and patterns of server names: a pattern and a name, a line each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mediary::config::ServerPattern;
use mediary::types::{Mxc, ServerName};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (pattern, name) = text.split_once('\n').unwrap_or(("*", text));
    if let Ok(mxc) = name.parse::<Mxc>() {
        assert_eq!(mxc.to_string(), name);
    }
    let Ok(name) = name.parse::<ServerName>() else { return };
    assert!(name.as_str().bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'));
    // Host and port are the whole of it, and the host is a name of its own.
    let again = match name.port() {
        Some(port) => {
            let written: &str = &name.as_str()[name.host().len() + 1..];
            assert_eq!(written.parse(), Ok(port));
            format!("{}:{written}", name.host())
        }
        None => name.host().to_owned(),
    };
    assert_eq!(again, name.as_str());
    let host: ServerName = name.host().parse().expect("the host is a server name");
    if let Ok(pattern) = pattern.parse::<ServerPattern>() {
        assert_eq!(pattern.matches(&host), pattern.matches(&name));
    }
});
