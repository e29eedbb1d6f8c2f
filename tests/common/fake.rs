//! A homeserver that fails on demand, for what a real one will not do. It answers `whoami`,
//! `key/v2/server` and `versions` like a homeserver; the rest is up to the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// The server name that it has.
pub const SERVER_NAME: &str = "fake.example";

/// The token that it knows, of `@alice:fake.example`.
pub const TOKEN: &str = "syt_alice";

/// A token of another device of hers.
pub const OTHER_DEVICE_TOKEN: &str = "syt_alice_too";

/// Another token that it knows, of `@bob:fake.example`.
pub const OTHER_TOKEN: &str = "syt_bob";

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

    /// Whether Mediary asks this in its own words: it was not passed on.
    pub fn is_mediarys_own(&self) -> bool {
        self.header("user-agent").is_some_and(|agent| agent.starts_with("mediary/"))
    }
}

/// What a test wants done with a request: write an answer and return whether the connection may be
/// used again, or `None` to let the fake answer as a homeserver would.
type Script = dyn Fn(&Received, &mut TcpStream) -> Option<bool> + Send + Sync;

/// The same for a request of which only the head is there; the rest is still to be read.
type HeadScript = dyn Fn(&Received, &mut BufReader<TcpStream>) -> Option<bool> + Send + Sync;

/// A homeserver on a free port.
pub struct FakeHomeserver {
    /// Its URL.
    pub url: String,
    /// Where it listens.
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
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
        Self::serving(Arc::new(|_, _| None), Arc::new(script))
    }

    /// Starts one that does what the script says as soon as the head of a request has come; the
    /// script reads the body itself.
    pub fn with_heads(
        script: impl Fn(&Received, &mut BufReader<TcpStream>) -> Option<bool> + Send + Sync + 'static,
    ) -> Self {
        Self::serving(Arc::new(script), Arc::new(|_, _| None))
    }

    fn serving(head_script: Arc<HeadScript>, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let received = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (record, count) = (received.clone(), connections.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                count.fetch_add(1, Ordering::SeqCst);
                let (head_script, script, record) =
                    (head_script.clone(), script.clone(), record.clone());
                thread::spawn(move || serve(stream, &*head_script, &*script, &record));
            }
        });
        Self { url: format!("http://{address}"), address, received, connections }
    }

    /// Returns how many connections were made so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Returns every request that arrived so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("the record").clone()
    }

    /// Returns the requests whose target holds this text.
    pub fn received_for(&self, text: &str) -> Vec<Received> {
        self.received().into_iter().filter(|request| request.target().contains(text)).collect()
    }

    /// Returns the requests that were passed on, without those that Mediary makes itself.
    pub fn passed_on(&self) -> Vec<Received> {
        self.received().into_iter().filter(|request| !request.is_mediarys_own()).collect()
    }
}

fn serve(
    stream: TcpStream,
    head_script: &HeadScript,
    script: &Script,
    record: &Mutex<Vec<Received>>,
) {
    // A head and a body written one after the other are not to wait for each other's receipt.
    let _ = stream.set_nodelay(true);
    let Ok(clone) = stream.try_clone() else { return };
    let mut reader = BufReader::new(clone);
    let mut stream = stream;
    while let Some(mut request) = read_head(&mut reader) {
        let keep = if let Some(keep) = head_script(&request, &mut reader) {
            record.lock().expect("the record").push(request);
            keep
        } else {
            if read_body(&mut request, &mut reader).is_none() {
                return;
            }
            record.lock().expect("the record").push(request.clone());
            script(&request, &mut stream).unwrap_or_else(|| behave(&request, &mut stream))
        };
        if !keep {
            return;
        }
    }
}

/// Answers as a homeserver would.
fn behave(request: &Received, stream: &mut TcpStream) -> bool {
    let path = request.target();
    let path = path.split('?').next().unwrap_or_default();
    let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    match path {
        "/_matrix/client/v3/account/whoami" => match token {
            Some(TOKEN) => {
                respond(stream, 200, r#"{"user_id":"@alice:fake.example","device_id":"D"}"#)
            }
            Some(OTHER_DEVICE_TOKEN) => {
                respond(stream, 200, r#"{"user_id":"@alice:fake.example","device_id":"F"}"#)
            }
            Some(OTHER_TOKEN) => {
                respond(stream, 200, r#"{"user_id":"@bob:fake.example","device_id":"E"}"#)
            }
            _ => respond(
                stream,
                401,
                r#"{"errcode":"M_UNKNOWN_TOKEN","error":"Unknown token","soft_logout":true}"#,
            ),
        },
        "/_matrix/key/v2/server" => respond(stream, 200, r#"{"server_name":"fake.example"}"#),
        "/_matrix/client/v3/login" if request.method == "GET" => {
            respond(stream, 200, r#"{"flows":[{"type":"m.login.password"}]}"#)
        }
        "/_matrix/client/versions" => respond(stream, 200, r#"{"versions":["v1.11"]}"#),
        _ if path.starts_with("/_matrix/federation/")
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
pub fn respond(stream: &mut impl Write, status: u16, body: &str) -> bool {
    respond_with(stream, status, &[("Content-Type", "application/json")], body.as_bytes())
}

/// Writes an answer with header fields; the connection may be used again.
pub fn respond_with(
    stream: &mut impl Write,
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

/// Reads the head of a request; `None` if the connection ends.
pub fn read_head(reader: &mut impl BufRead) -> Option<Received> {
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
    Some(Received { method, target, headers, body: Vec::new() })
}

/// Reads the body that a head announces; `None` if it breaks off.
pub fn read_body(request: &mut Received, reader: &mut impl BufRead) -> Option<()> {
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
    Some(())
}

fn read_line(reader: &mut impl BufRead) -> Option<Vec<u8>> {
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
