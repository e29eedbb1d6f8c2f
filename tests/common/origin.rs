//! Another homeserver, which answers over TLS as the test wants, and signs as what it is.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD_NO_PAD};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::fake::{Received, read_body, read_head, respond, respond_with};
use super::tls::{Authority, Certificate};

/// A signing key that a homeserver publishes, or should.
pub struct ServerKey {
    /// Its id, such as `ed25519:1`.
    pub id: String,
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl ServerKey {
    /// Makes a new key with this version.
    pub fn new(version: &str) -> Self {
        let random = ring::rand::SystemRandom::new();
        let seed = ring::rand::generate(&random).expect("random numbers").expose();
        Self::of_seed(version, seed)
    }

    /// Returns the key of a seed.
    pub fn of_seed(version: &str, seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a key");
        Self { id: format!("ed25519:{version}"), seed, pair }
    }

    /// Reads a line as Synapse keeps it in its file: `ed25519 VERSION SEED`.
    pub fn of_line(line: &str) -> Self {
        let words: Vec<_> = line.split_whitespace().collect();
        let ["ed25519", version, seed] = words[..] else { panic!("no line of a key file") };
        // The last letter has bits that stand for nothing; the specification's own seed has some set.
        let lenient = NO_PAD.with_decode_allow_trailing_bits(true);
        let engine = GeneralPurpose::new(&alphabet::STANDARD, lenient);
        let seed = engine.decode(seed).expect("base64");
        Self::of_seed(version, seed.try_into().expect("a seed"))
    }

    /// Returns the line that a homeserver's file has.
    pub fn line(&self) -> String {
        let version = self.id.strip_prefix("ed25519:").expect("an id");
        format!("ed25519 {version} {}\n", STANDARD_NO_PAD.encode(self.seed))
    }

    /// Returns the public half in base64.
    pub fn public(&self) -> String {
        STANDARD_NO_PAD.encode(self.pair.public_key().as_ref())
    }

    /// Returns the signature of an object in base64 (CJ-04).
    pub fn signature(&self, object: &Value) -> String {
        let mut signed = object.clone();
        let members = signed.as_object_mut().expect("an object");
        members.remove("signatures");
        members.remove("unsigned");
        STANDARD_NO_PAD.encode(self.pair.sign(canonical(&signed).as_bytes()))
    }

    /// Adds the signature of a server to an object.
    pub fn sign(&self, object: &mut Value, server_name: &str) {
        let signature = self.signature(object);
        object["signatures"][server_name][&self.id] = signature.into();
    }

    /// Returns what a server with this key publishes, good for so many milliseconds more; signed.
    pub fn published(&self, server_name: &str, valid_for: i64) -> Value {
        let mut answer = json!({
            "server_name": server_name,
            "valid_until_ts": unix_millis() + valid_for,
            "verify_keys": {&self.id: {"key": self.public()}},
            "old_verify_keys": {},
        });
        self.sign(&mut answer, server_name);
        answer
    }

    /// Returns the `Authorization` of a request without a body.
    pub fn authorization(
        &self,
        origin: &str,
        destination: &str,
        method: &str,
        uri: &str,
    ) -> String {
        let signature = self.signature(&json!({
            "method": method, "uri": uri, "origin": origin, "destination": destination,
        }));
        format!(
            r#"X-Matrix origin="{origin}",destination="{destination}",key="{}",sig="{signature}""#,
            self.id
        )
    }
}

/// Returns the time in milliseconds.
pub fn unix_millis() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    i64::try_from(now.as_millis()).expect("a time before the sun's end")
}

/// Writes JSON in the form that is signed. Written once more than in Mediary, so that both are held
/// against each other; for tests, without any limit.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().collect();
            let members: Vec<_> = sorted
                .into_iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        plain => plain.to_string(),
    }
}

/// Media that an [`Origin`] has.
#[derive(Clone)]
struct Media {
    content_type: String,
    filename: Option<String>,
    body: Vec<u8>,
}

/// A connection with who asks.
pub type TlsStream = StreamOwned<ServerConnection, TcpStream>;

/// What a test wants done with a request: write an answer and return whether the connection may be
/// used again, or `None` to let the server answer as servers do.
type Script = dyn Fn(&Received, &mut TlsStream) -> Option<bool> + Send + Sync;

/// Another homeserver on a free port of 127.0.0.1; it lives to the end of the test.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    /// The key that it signs with and publishes.
    pub key: Arc<ServerKey>,
    state: Arc<State>,
}

struct State {
    server_name: Mutex<String>,
    key: Arc<ServerKey>,
    tls: Mutex<Arc<ServerConfig>>,
    script: Box<Script>,
    media: Mutex<BTreeMap<String, Media>>,
    received: Mutex<Vec<Received>>,
    names: Mutex<Vec<Option<String>>>,
    connections: AtomicUsize,
}

impl Origin {
    /// Starts one that behaves, with a certificate for `localhost` and loopback addresses.
    pub fn start(authority: &Authority) -> Self {
        Self::with(authority, |_, _| None)
    }

    /// Starts one that does what the script says.
    pub fn with(
        authority: &Authority,
        script: impl Fn(&Received, &mut TlsStream) -> Option<bool> + Send + Sync + 'static,
    ) -> Self {
        let certificate = authority.certificate(&["localhost", "127.0.0.1", "::1"]);
        Self::with_key(&certificate, ServerKey::new("test"), script)
    }

    /// Starts one that has this certificate and this key, and does what the script says.
    pub fn with_key(
        certificate: &Certificate,
        key: ServerKey,
        script: impl Fn(&Received, &mut TlsStream) -> Option<bool> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self::on(listener, certificate, key, script)
    }

    /// Starts one that listens where the test wants.
    pub fn on(
        listener: TcpListener,
        certificate: &Certificate,
        key: ServerKey,
        script: impl Fn(&Received, &mut TlsStream) -> Option<bool> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("an address");
        let key = Arc::new(key);
        let state = Arc::new(State {
            server_name: Mutex::new(format!("localhost:{}", address.port())),
            key: key.clone(),
            tls: Mutex::new(certificate.server_config()),
            script: Box::new(script),
            media: Mutex::default(),
            received: Mutex::default(),
            names: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let shared = shared.clone();
                thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, key, state }
    }

    /// Calls itself otherwise: a name that leads here by DNS or delegation.
    pub fn named(self, server_name: &str) -> Self {
        *self.state.server_name.lock().expect("the name") = server_name.to_owned();
        self
    }

    /// Shows another certificate from the next connection on.
    pub fn show(&self, certificate: &Certificate) {
        *self.state.tls.lock().expect("the certificate") = certificate.server_config();
    }

    /// Returns its server name.
    pub fn server_name(&self) -> String {
        self.state.server_name()
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Keeps media, which it gives out from now on, and returns what is behind `mxc://`.
    pub fn keep(&self, id: &str, content_type: &str, name: Option<&str>, body: &[u8]) -> String {
        let media = Media {
            content_type: content_type.to_owned(),
            filename: name.map(str::to_owned),
            body: body.to_owned(),
        };
        self.state.media.lock().expect("the media").insert(id.to_owned(), media);
        format!("{}/{id}", self.server_name())
    }

    /// Returns the `Authorization` of a request of this server, without a body.
    pub fn authorization(&self, destination: &str, method: &str, uri: &str) -> String {
        self.key.authorization(&self.server_name(), destination, method, uri)
    }

    /// Returns every request that arrived so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("the record").clone()
    }

    /// Returns the requests whose target holds this text.
    pub fn received_for(&self, text: &str) -> Vec<Received> {
        self.received().into_iter().filter(|request| request.target().contains(text)).collect()
    }

    /// Returns how many connections were made so far, handshake or not.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Returns which names were asked for by SNI so far, one for each handshake.
    pub fn names(&self) -> Vec<Option<String>> {
        self.state.names.lock().expect("the names").clone()
    }
}

impl State {
    fn server_name(&self) -> String {
        self.server_name.lock().expect("the name").clone()
    }

    fn serve(&self, stream: TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let _ = stream.set_nodelay(true);
        let config = self.tls.lock().expect("the certificate").clone();
        let Ok(mut connection) = ServerConnection::new(config) else { return };
        let mut stream = stream;
        while connection.is_handshaking() {
            if connection.complete_io(&mut stream).is_err() {
                return;
            }
        }
        let name = connection.server_name().map(str::to_owned);
        self.names.lock().expect("the names").push(name);
        let mut reader = BufReader::new(StreamOwned::new(connection, stream));
        while let Some(mut request) = read_head(&mut reader) {
            if read_body(&mut request, &mut reader).is_none() {
                return;
            }
            self.received.lock().expect("the record").push(request.clone());
            let stream = reader.get_mut();
            let keep = (self.script)(&request, stream);
            let keep = keep.unwrap_or_else(|| self.behave(&request, stream));
            if !keep {
                return;
            }
            if request.header("connection") == Some("close") {
                close(stream);
                return;
            }
        }
    }

    /// Answers as a homeserver would.
    fn behave(&self, request: &Received, stream: &mut TlsStream) -> bool {
        let target = request.target();
        let path = target.split('?').next().unwrap_or_default();
        let of_media = |prefix: &str| {
            let id = path.strip_prefix(prefix)?.rsplit('/').next()?;
            self.media.lock().expect("the media").get(id).cloned()
        };
        if path.trim_end_matches('/') == "/_matrix/key/v2/server" {
            let answer = self.key.published(&self.server_name(), 24 * 60 * 60 * 1000);
            return respond(stream, 200, &answer.to_string());
        }
        if path == "/_matrix/federation/v1/version" {
            let answer = json!({"server": {"name": "Origin", "version": "1"}});
            return respond(stream, 200, &answer.to_string());
        }
        if path.starts_with("/_matrix/federation/") && !is_signed(request) {
            return respond(stream, 401, r#"{"errcode":"M_UNAUTHORIZED","error":"Unsigned"}"#);
        }
        if let Some(media) = of_media("/_matrix/federation/v1/media/download/") {
            return respond_multipart(
                stream,
                &media.content_type,
                media.filename.as_deref(),
                &media.body,
            );
        }
        if let Some(media) = of_media("/_matrix/media/v3/download/") {
            let disposition = disposition(media.filename.as_deref());
            let fields =
                [("Content-Type", &*media.content_type), ("Content-Disposition", &*disposition)];
            return respond_with(stream, 200, &fields, &media.body);
        }
        if path.contains("/media/") {
            return respond(stream, 404, r#"{"errcode":"M_NOT_FOUND","error":"Not found"}"#);
        }
        respond(stream, 404, r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized"}"#)
    }
}

fn is_signed(request: &Received) -> bool {
    request.header("authorization").is_some_and(|value| value.starts_with("X-Matrix "))
}

fn disposition(filename: Option<&str>) -> String {
    filename.map_or_else(|| "inline".to_owned(), |name| format!("inline; filename={name}"))
}

/// The boundary of [`respond_multipart`].
pub const BOUNDARY: &str = "ofTwoParts";

/// Writes media in the two parts of a federation answer, as strictly as Synapse reads them (FLD-01 to
/// FLD-05); the connection may be used again.
pub fn respond_multipart(
    stream: &mut impl Write,
    content_type: &str,
    filename: Option<&str>,
    body: &[u8],
) -> bool {
    let fields = [("Content-Type", &*format!("multipart/mixed; boundary={BOUNDARY}"))];
    respond_with(stream, 200, &fields, &multipart(content_type, filename, body))
}

/// Returns the body of [`respond_multipart`].
pub fn multipart(content_type: &str, filename: Option<&str>, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "\r\n--{BOUNDARY}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{BOUNDARY}\r\n\
         Content-Type: {content_type}\r\nContent-Disposition: {}\r\n\r\n",
        disposition(filename)
    );
    [head.as_bytes(), body, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat()
}

/// Ends TLS in order, as a body without a length has to end; the connection cannot be used again.
/// Without this a connection that a script gives up just breaks off.
pub fn close(stream: &mut TlsStream) -> bool {
    stream.conn.send_close_notify();
    // The other side may be gone.
    let _ = stream.flush();
    false
}

/// Writes bytes one by one with a pause before each; the connection may be used again.
pub fn drip(stream: &mut TlsStream, bytes: &[u8], pause: Duration) -> bool {
    bytes.iter().all(|&byte| {
        thread::sleep(pause);
        stream.write_all(&[byte]).and_then(|()| stream.flush()).is_ok()
    })
}

/// Says nothing more until the other side gives up; the connection cannot be used again.
pub fn stall(stream: &mut TlsStream) -> bool {
    let mut ignored = [0; 1024];
    while stream.sock.read(&mut ignored).is_ok_and(|read| read > 0) {}
    false
}
