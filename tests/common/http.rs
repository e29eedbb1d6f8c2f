//! A small HTTP/1.1 client over plain sockets: one connection a request, or a connection that is
//! written to byte by byte.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;
use super::record::Recorder;

/// An answer that was read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header fields in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the body came to its proper end: as long as announced, or with its last chunk.
    pub complete: bool,
}

impl Answer {
    /// Returns a header field's only value.
    ///
    /// # Panics
    ///
    /// Panics if the field is there more than once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values =
            self.headers.iter().filter(|(key, _)| key == name).map(|(_, v)| v.as_str());
        let first = values.next();
        assert!(values.next().is_none(), "{name} more than once in {self:?}");
        first
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Returns the `errcode` of a Matrix error.
    pub fn errcode(&self) -> String {
        self.json()["errcode"].as_str().unwrap_or_else(|| panic!("no errcode: {self:?}")).to_owned()
    }

    /// Asserts a Matrix error: status, code, a text, JSON, and the CORS fields (CS-GEN-03,
    /// CS-CORS-01).
    #[track_caller]
    pub fn assert_error(&self, status: u16, errcode: &str) {
        assert_eq!((self.status, self.errcode().as_str()), (status, errcode), "{}", self.text());
        assert!(self.json()["error"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("access-control-allow-origin"), Some("*"));
    }

    /// Returns what is behind `mxc://` in the answer to a successful upload or `create`.
    #[track_caller]
    pub fn media(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        let json = self.json();
        let uri = json["content_uri"].as_str().expect("a content_uri");
        uri.strip_prefix("mxc://").expect("an mxc URI").to_owned()
    }

    /// Asserts that this is a good answer with all of this body.
    #[track_caller]
    pub fn assert_whole(&self, body: &[u8]) {
        assert_eq!((self.status, self.complete), (200, true), "{:?}", self.headers);
        let (length, expected) = (self.body.len(), body.len());
        assert!(self.body == body, "{length} bytes of {expected}: {:?}", self.headers);
    }

    /// Asserts that a `PUT` was taken (CS-PUT, CS-CORS-01).
    #[track_caller]
    pub fn assert_stored(&self) {
        assert_eq!((self.status, self.text().as_str()), (200, "{}"), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("access-control-allow-origin"), Some("*"));
    }

    /// Asserts that a limit was met, and that it says in both ways alike when to try again
    /// (CS-RL-01 to CS-RL-03). Returns that in seconds.
    #[track_caller]
    pub fn assert_limited(&self) -> u64 {
        self.assert_error(429, "M_LIMIT_EXCEEDED");
        let seconds: u64 = self.header("retry-after").expect("a time").parse().expect("seconds");
        let millis = self.json()["retry_after_ms"].as_u64().expect("milliseconds");
        assert!(seconds >= 1 && seconds == millis.div_ceil(1000), "{seconds} s and {millis} ms");
        seconds
    }
}

/// Frames bytes as one chunk of a body (RFC 9112, section 7.1).
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Sends requests to one address.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    token: Option<String>,
    recorded_as: Option<&'static str>,
}

impl Client {
    /// Makes a client without a token.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, token: None, recorded_as: None }
    }

    /// Has the answers written down as those of a server of this name.
    pub fn recorded_as(mut self, server: &'static str) -> Self {
        self.recorded_as = Some(server);
        self
    }

    /// Bears this token in every request.
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Sends a GET.
    pub fn get(&self, target: &str) -> Answer {
        self.request("GET", target, &[], b"")
    }

    /// Sends a GET with header fields.
    pub fn get_with(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", target, headers, b"")
    }

    /// Uploads a file and returns what is behind `mxc://`.
    pub fn upload(&self, content_type: &str, filename: Option<&str>, body: &[u8]) -> String {
        let query = filename.map(|name| format!("?filename={name}")).unwrap_or_default();
        let target = format!("/_matrix/media/v3/upload{query}");
        self.request("POST", &target, &[("Content-Type", content_type)], body).media()
    }

    /// Asks for a media id to upload to later.
    pub fn create(&self) -> Answer {
        self.request("POST", "/_matrix/media/v1/create", &[], b"{}")
    }

    /// Uploads to a media id.
    pub fn put(&self, media: &str, content_type: &str, body: &[u8]) -> Answer {
        let target = format!("/_matrix/media/v3/upload/{media}");
        self.request("PUT", &target, &[("Content-Type", content_type)], body)
    }

    /// Sends a JSON body and returns the answer, whatever it is.
    pub fn call(&self, method: &str, target: &str, body: &Value) -> Answer {
        let fields = [("Content-Type", "application/json")];
        self.request(method, target, &fields, body.to_string().as_bytes())
    }

    /// Downloads media by the authenticated route.
    pub fn download(&self, media: &str) -> Answer {
        self.get(&format!("/_matrix/client/v1/media/download/{media}"))
    }

    /// Asks for a small thumbnail by the authenticated route.
    pub fn thumbnail(&self, media: &str) -> Answer {
        let query = "width=32&height=32&method=crop";
        self.get(&format!("/_matrix/client/v1/media/thumbnail/{media}?{query}"))
    }

    /// Sends a request on a connection of its own and reads the final answer.
    pub fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut connection = self.connect();
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.address);
        if let Some(token) = &self.token {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("Connection: close\r\n\r\n");
        connection.send(head.as_bytes());
        // A server that refuses early may close before all is written; its answer is still read.
        let _ = connection.stream.write_all(body);
        connection.read_answer(method)
    }

    /// Opens a connection for requests written by hand.
    pub fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("an option of the socket");
        let reader = BufReader::new(stream.try_clone().expect("a clone of the socket"));
        Connection { stream, reader, recorder: self.recorded_as.and_then(Recorder::of) }
    }

    /// Sends bytes as they are and reads one answer.
    pub fn raw(&self, request: &[u8]) -> Answer {
        let mut connection = self.connect();
        connection.send(request);
        connection.read_answer("GET")
    }
}

/// A connection that is written to by hand.
pub struct Connection {
    /// The socket.
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
    recorder: Option<Recorder>,
}

impl Connection {
    /// Writes bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        if let Some(recorder) = &mut self.recorder {
            recorder.sent(bytes);
        }
        self.stream.write_all(bytes).expect("the connection takes bytes");
    }

    /// Whether the other side has closed without sending anything more.
    pub fn is_closed(&mut self) -> bool {
        match self.reader.fill_buf() {
            Ok(bytes) => bytes.is_empty(),
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    /// Reads an answer, informational ones left out. An end without any answer has status 0.
    pub fn read_answer(&mut self, method: &str) -> Answer {
        loop {
            let answer = self.read_any_answer(method);
            if !(100..200).contains(&answer.status) || answer.status == 101 {
                return answer;
            }
        }
    }

    /// Reads the next answer, informational or not.
    pub fn read_any_answer(&mut self, method: &str) -> Answer {
        let mut answer = self.read_head();
        self.read_rest(method, &mut answer);
        answer
    }

    /// Reads the head of the next answer, informational or not; its body is still to come.
    pub fn read_head(&mut self) -> Answer {
        let mut answer =
            Answer { status: 0, headers: Vec::new(), body: Vec::new(), complete: false };
        let status_line = self.read_line();
        let Some(status) = status_line.split(' ').nth(1) else { return answer };
        answer.status = status.parse().expect("a status");
        loop {
            let line = self.read_line();
            let Some((name, value)) = line.split_once(':') else { break };
            answer.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        answer
    }

    /// Reads on in the body of an answer, whole chunks at a time, until it has so many bytes or
    /// breaks off.
    pub fn read_up_to(&mut self, length: usize, answer: &mut Answer) {
        if answer.header("transfer-encoding") == Some("chunked") {
            while answer.body.len() < length && self.read_chunk(&mut answer.body) == Some(true) {}
        } else {
            let missing = length.saturating_sub(answer.body.len());
            answer.body.extend(self.read_bytes(missing));
        }
    }

    /// Reads the rest of an answer's body.
    pub fn read_rest(&mut self, method: &str, answer: &mut Answer) {
        self.read_body(method, answer);
        let is_final = answer.status >= 200;
        if let Some(recorder) = self.recorder.as_mut().filter(|_| is_final) {
            recorder.answered(answer);
        }
    }

    fn read_body(&mut self, method: &str, answer: &mut Answer) {
        let is_bodiless = method == "HEAD"
            || matches!(answer.status, 0 | 204 | 304)
            || (100..200).contains(&answer.status);
        if is_bodiless {
            answer.complete = answer.status != 0;
        } else if answer.header("transfer-encoding") == Some("chunked") {
            answer.complete = loop {
                match self.read_chunk(&mut answer.body) {
                    Some(true) => {}
                    Some(false) => break true,
                    None => break false,
                }
            };
        } else if let Some(length) = answer.header("content-length") {
            let length: u64 = length.parse().expect("a length");
            let missing = length - answer.body.len() as u64;
            let read = (&mut self.reader).take(missing).read_to_end(&mut answer.body);
            answer.complete = read.is_ok_and(|read| read as u64 == missing);
        } else {
            answer.complete = self.reader.read_to_end(&mut answer.body).is_ok();
        }
    }

    /// Reads a chunk and returns whether more follow; `None` if the body breaks off.
    fn read_chunk(&mut self, body: &mut Vec<u8>) -> Option<bool> {
        let line = self.read_line();
        let length = u64::from_str_radix(line.trim(), 16).ok()?;
        (&mut self.reader).take(length).read_to_end(body).ok()?;
        // Behind the chunk is the end of its line, or nothing if the connection has ended.
        (self.read_line().is_empty()).then_some(length > 0)
    }

    /// Reads so many bytes, or fewer if the connection ends before.
    pub fn read_bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = (&mut self.reader).take(length as u64).read_to_end(&mut bytes);
        bytes
    }

    /// Reads a line without its end; empty at the end of the connection.
    pub fn read_line(&mut self) -> String {
        let mut line = Vec::new();
        let _ = self.reader.read_until(b'\n', &mut line);
        String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()
    }
}
