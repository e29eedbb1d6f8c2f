//! A homeserver that fails on demand, for what a real one will not do. It answers `whoami`,
//! `key/v2/server` and `versions` like a homeserver; the rest is up to the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// The server name that it has.
pub const SERVER_NAME: &str = "fake.example";

/// The token that it knows, of `@alice:fake.example`.
pub const TOKEN: &str = "syt_alice";

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// The method.
    pub method: String,
    /// The target, byte for byte.
    pub target: Vec<u8>,
    /// The header fields in their order, names as they were written.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Received {
    /// Returns the target as text.
    pub fn target(&self) -> String {
        String::from_utf8_lossy(&self.target).into_owned()
    }

    /// Returns a header field's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// What a test wants done with a request: write an answer and return whether the connection may be
/// used again, or `None` to let the fake answer as a homeserver would.
type Script = dyn Fn(&Received, &mut TcpStream) -> Option<bool> + Send + Sync;

/// A homeserver on a free port.
pub struct FakeHomeserver {
    /// Its URL.
    pub url: String,
    /// Where it listens.
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl FakeHomeserver {
    /// Starts one that behaves.
    pub fn start() -> Self {
        Self::with(|_, _| None)
    }

    /// Starts one that does what the script says.
    pub fn with(
        script: impl Fn(&Received, &mut TcpStream) -> Option<bool> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let received = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let record = received.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (script, record) = (script.clone(), record.clone());
                thread::spawn(move || serve(stream, &script, &record));
            }
        });
        Self { url: format!("http://{address}"), address, received }
    }

    /// Returns every request that arrived so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("the record").clone()
    }

    /// Returns the requests whose target holds this text.
    pub fn received_for(&self, text: &str) -> Vec<Received> {
        self.received().into_iter().filter(|request| request.target().contains(text)).collect()
    }
}

fn serve(stream: TcpStream, script: &Arc<Script>, record: &Mutex<Vec<Received>>) {
    let Ok(clone) = stream.try_clone() else { return };
    let mut reader = BufReader::new(clone);
    let mut stream = stream;
    while let Some(request) = read_request(&mut reader) {
        record.lock().expect("the record").push(request.clone());
        let keep = script(&request, &mut stream).unwrap_or_else(|| behave(&request, &mut stream));
        if !keep {
            return;
        }
    }
}

/// Answers as a homeserver would.
fn behave(request: &Received, stream: &mut TcpStream) -> bool {
    let path = request.target();
    let path = path.split('?').next().unwrap_or_default();
    let is_known = request.header("authorization") == Some(&format!("Bearer {TOKEN}"));
    match path {
        "/_matrix/client/v3/account/whoami" if is_known => {
            respond(stream, 200, r#"{"user_id":"@alice:fake.example","device_id":"D"}"#)
        }
        "/_matrix/client/v3/account/whoami" => respond(
            stream,
            401,
            r#"{"errcode":"M_UNKNOWN_TOKEN","error":"Unknown token","soft_logout":true}"#,
        ),
        "/_matrix/key/v2/server" => respond(stream, 200, r#"{"server_name":"fake.example"}"#),
        "/_matrix/client/versions" => respond(stream, 200, r#"{"versions":["v1.11"]}"#),
        _ if path.starts_with("/_matrix/federation/v1/media/")
            && request.header("authorization").is_none() =>
        {
            respond(stream, 401, r#"{"errcode":"M_UNAUTHORIZED","error":"Unsigned"}"#)
        }
        _ if path.contains("/media/") => {
            respond(stream, 404, r#"{"errcode":"M_NOT_FOUND","error":"Not found"}"#)
        }
        _ => respond(stream, 404, r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized"}"#),
    }
}

/// Writes a JSON answer; the connection may be used again.
pub fn respond(stream: &mut TcpStream, status: u16, body: &str) -> bool {
    respond_with(stream, status, &[("Content-Type", "application/json")], body.as_bytes())
}

/// Writes an answer with header fields; the connection may be used again.
pub fn respond_with(
    stream: &mut TcpStream,
    status: u16,
    headers: &[(&str, &str)],
    body: &[u8],
) -> bool {
    let mut head = format!("HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_ok()
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let line = read_line(reader)?;
    let mut words = line.splitn(2, |&b| b == b' ');
    let method = String::from_utf8_lossy(words.next()?).into_owned();
    let rest = words.next()?;
    let target = rest[..rest.len().checked_sub(" HTTP/1.1".len())?].to_vec();
    let mut headers = Vec::new();
    loop {
        let line = String::from_utf8_lossy(&read_line(reader)?).into_owned();
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut request = Received { method, target, headers, body: Vec::new() };
    if request.header("transfer-encoding") == Some("chunked") {
        loop {
            let line = String::from_utf8_lossy(&read_line(reader)?).into_owned();
            let length = u64::from_str_radix(line.trim(), 16).ok()?;
            reader.by_ref().take(length).read_to_end(&mut request.body).ok()?;
            read_line(reader)?;
            if length == 0 {
                break;
            }
        }
    } else if let Some(length) = request.header("content-length") {
        let length = length.parse().ok()?;
        let read = reader.by_ref().take(length).read_to_end(&mut request.body).ok()?;
        if (read as u64) < length {
            return None;
        }
    }
    Some(request)
}

fn read_line(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    if line.pop() != Some(b'\n') {
        return None;
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Some(line)
}
