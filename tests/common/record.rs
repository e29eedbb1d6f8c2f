//! Writes down what was answered, for `tests/openapi.py`: lines of JSON in a file of this process, in
//! the folder that `MEDIARY_TEST_RECORD` names. Without it nothing is written, and in no case is a
//! token.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use serde_json::json;

use super::http::Answer;

/// More of a head is not looked at: no such request is meant to be understood.
const MAX_HEAD: usize = 64 * 1024;

/// More of a JSON body is not written down.
const MAX_BODY: usize = 64 * 1024;

/// What is written down; the answers to other requests may hold tokens.
const ROUTES: &[&str] = &["/media", "/account/whoami", "/client/versions"];

/// The parameters whose values are written down; whatever else is in a query may be a token.
const PARAMETERS: &[&str] =
    &["width", "height", "method", "animated", "timeout_ms", "allow_remote", "allow_redirect"];

/// Where the answers of one server go, and which request on a connection each is for.
pub struct Recorder {
    server: &'static str,
    unanswered: VecDeque<Request>,
    head: Vec<u8>,
    body: Body,
}

/// What is known of a request's body that is still being sent.
enum Body {
    /// So many bytes are missing.
    Sized(u64),
    /// It ends before the next request, which comes after the answer.
    UntilAnswered,
}

struct Request {
    method: String,
    target: String,
    token: Option<String>,
}

impl Recorder {
    /// Returns one for a new connection to a server of this name, if answers are written down.
    pub fn of(server: &'static str) -> Option<Self> {
        file().map(|_| Self::new(server))
    }

    /// Returns one for a new connection to a server of this name.
    pub fn new(server: &'static str) -> Self {
        let (unanswered, head, body) = (VecDeque::new(), Vec::new(), Body::Sized(0));
        Self { server, unanswered, head, body }
    }

    /// Takes what was sent on the connection.
    pub fn sent(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Body::Sized(missing) = &mut self.body {
            let taken = rest.len().min(usize::try_from(*missing).unwrap_or(usize::MAX));
            *missing -= taken as u64;
            rest = &rest[taken..];
            if rest.is_empty() || self.head.len() > MAX_HEAD {
                return;
            }
            let known = self.head.len();
            self.head.extend_from_slice(rest);
            let end = b"\r\n\r\n";
            let from = known.saturating_sub(end.len() - 1);
            let Some(at) = self.head[from..].windows(end.len()).position(|part| part == end) else {
                return;
            };
            let length = from + at + end.len();
            rest = &rest[length - known..];
            let head = String::from_utf8_lossy(&self.head[..length]).into_owned();
            self.head.clear();
            self.take_head(&head);
        }
    }

    fn take_head(&mut self, head: &str) {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().splitn(3, ' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut request =
            Request { method: method.to_owned(), target: target.to_owned(), token: None };
        self.body = Body::Sized(0);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "transfer-encoding" => self.body = Body::UntilAnswered,
                "content-length" => self.body = Body::Sized(value.parse().unwrap_or(0)),
                "authorization" => {
                    request.token = value.split_once(' ').map(|(_, token)| token.to_owned());
                }
                _ => {}
            }
        }
        self.unanswered.push_back(request);
    }

    /// Writes an answer down as far as it was read, if it is known what for.
    pub fn answered(&mut self, answer: &Answer) {
        let Some(line) = self.line(answer) else { return };
        let file = file().expect("it was there when the recorder was made");
        // In one piece, for threads that write at the same time.
        file.lock().expect("the record").write_all(line.as_bytes()).expect("the record grows");
    }

    /// Returns the line for an answer; `None` if it is not known what for.
    pub fn line(&mut self, answer: &Answer) -> Option<String> {
        let request = self.unanswered.pop_front();
        if self.unanswered.is_empty() {
            // What came behind the last head was its body, however it was sent.
            self.head.clear();
            self.body = Body::Sized(0);
        }
        let is_known = |target: &str| ROUTES.iter().any(|route| target.contains(route));
        let request = request.filter(|request| is_known(&request.target))?;
        let is_json = answer
            .headers
            .iter()
            .any(|(name, value)| name == "content-type" && value.starts_with("application/json"));
        let body = (is_json && answer.complete && answer.body.len() <= MAX_BODY)
            .then(|| request.without_token(&String::from_utf8_lossy(&answer.body)));
        let field = |(name, value): &(String, String)| [name.clone(), request.without_token(value)];
        let exchange = json!({
            "server": self.server,
            "test": test_name(),
            "method": request.method,
            "target": request.without_token(&without_secrets(&request.target)),
            "status": answer.status,
            "headers": answer.headers.iter().map(field).collect::<Vec<_>>(),
            "length": answer.body.len(),
            "body": body,
        });
        Some(exchange.to_string() + "\n")
    }
}

impl Request {
    /// Returns a text without the token that the request bears.
    fn without_token(&self, text: &str) -> String {
        // What is shorter is no token but a word of a test.
        let token = self.token.as_deref().filter(|token| token.len() >= 8);
        token.map_or_else(|| text.to_owned(), |token| text.replace(token, "[token]"))
    }
}

/// Returns a target with the values of those parameters alone that are known to be no secret.
fn without_secrets(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let known = query
        .split('&')
        .filter(|pair| PARAMETERS.contains(&pair.split_once('=').map_or(*pair, |(name, _)| name)));
    let known: Vec<_> = known.collect();
    if known.is_empty() { path.to_owned() } else { format!("{path}?{}", known.join("&")) }
}

/// Returns the name of the test that this process runs, or of this thread, which is it as well.
fn test_name() -> String {
    let of_process = std::env::args().skip_while(|argument| argument != "--exact").nth(1);
    let of_thread = || std::thread::current().name().map(str::to_owned);
    of_process.or_else(of_thread).unwrap_or_default()
}

fn file() -> Option<&'static Mutex<File>> {
    static FILE: OnceLock<Option<Mutex<File>>> = OnceLock::new();
    let open = || {
        let folder = std::env::var_os("MEDIARY_TEST_RECORD")?;
        let path = Path::new(&folder).join(format!("{}.jsonl", std::process::id()));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        Some(Mutex::new(file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))))
    };
    FILE.get_or_init(open).as_ref()
}
