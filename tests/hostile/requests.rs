//! Hostile requests without end, the same ones for the same seed.
//!
//! A request is put together from a target, a method, header fields and a body, each of them right,
//! odd or wrong. What is known of the framing says how much may be expected of the answer.

/// How every secret in a generated request begins.
pub const SECRET: &str = "hush-";

/// How the name of every header field begins that an answer holds only if something was injected.
pub const INJECTED: &str = "x-injected";

/// Where a request leads that only another reading of the bytes before it finds.
pub const HIDDEN: &str = "/hidden";

/// SplitMix64: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    /// Begins the numbers of one request of a seed.
    pub fn new(seed: u64, number: u64) -> Self {
        let mut random = Self(seed);
        let first = random.next();
        Self(first ^ number.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Returns true once in so many times.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Returns one of several.
    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// What is known of where a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// It ends where RFC 9112 says, so it has an answer, and what follows it is another request.
    Sound,
    /// It is malformed, cut short or can be read in two ways: it may have an answer, and what
    /// follows it is no request.
    Doubtful,
}

/// A request.
pub struct Hostile {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether its answer has no body.
    pub is_head: bool,
    /// What is known of its framing.
    pub framing: Framing,
}

impl Hostile {
    /// Whether its bytes hold this text.
    pub fn asks_for(&self, text: &str) -> bool {
        self.bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// What the requests are about.
pub struct World {
    /// Media that is there, behind `mxc://`.
    pub media: Vec<String>,
    /// A token that is good.
    pub token: &'static str,
}

/// Makes the request with this number of a seed.
pub fn request(seed: u64, number: u64, world: &World) -> Hostile {
    let random = Random::new(seed, number);
    Maker { random, number, world, is_sound: true, has_next: true, is_open: false }.request()
}

/// Those that media routes know more than once.
const METHODS: [&str; 18] = [
    "GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "POST", "POST", "POST", "PUT", "PUT",
    "OPTIONS", "DELETE", "PATCH", "TRACE", "get", "BREW",
];

/// Every family of media routes, up to the operation; those that have most of them more than once.
const PREFIXES: [&str; 12] = [
    "/_matrix/client/v1/media",
    "/_matrix/client/v1/media",
    "/_matrix/client/v1/media",
    "/_matrix/media/v3",
    "/_matrix/media/v3",
    "/_matrix/client/unstable/org.matrix.msc3916/media",
    "/_matrix/media/v3",
    "/_matrix/media/r0",
    "/_matrix/media/v1",
    "/_matrix/media/unstable/fi.mau.msc2246",
    "/_matrix/federation/v1/media",
    "/_matrix/federation/unstable/org.matrix.msc3916.v2/media",
];

/// Paths that are the homeserver's.
const OTHERS: [&str; 6] = [
    "/_matrix/client/v3/sync",
    "/_matrix/client/v3/logout",
    "/_matrix/client/v3/rooms/!a%2Fb:c/messages",
    "/_matrix/federation/v1/send/1",
    "/_synapse/admin/v1/users",
    "/",
];

const SERVERS: [&str; 24] = [
    "fake.example",
    "other.example",
    "other.example:8448",
    "[2001:db8::1]:8448",
    "192.0.2.1",
    "FAKE.EXAMPLE",
    "",
    ".",
    "..",
    "%2e%2e",
    "..%2f..%2f..%2fetc",
    "evil.example%2f..%2f..",
    "%2fetc%2fpasswd",
    "user@host",
    "host:0",
    "host:65536",
    "host:",
    "[::g]",
    "256.1.1.1",
    "a%00",
    "a%0d%0aX-Injected:%201",
    "%ff%fe",
    "%zz",
    "a..b",
];

const IDS: [&str; 24] = [
    "abc",
    "-rf",
    "tmp",
    "blobs",
    "",
    ".",
    "..",
    "%2e%2e",
    "..%2f..%2f..%2fetc%2fpasswd",
    "..%5c..%5cx",
    "%2fetc%2fpasswd",
    "%252e%252e%252f",
    "%c0%ae%c0%ae%c0%af",
    "%ef%bc%8fetc",
    "a%00.png",
    "a%0d%0aX-Injected:%201",
    "a%0aX-Injected:1",
    "%",
    "%zz",
    "%u002e",
    "a;b=c",
    "a:b",
    "~root",
    "mediary.sqlite",
];

const NAMES: [&str; 8] = [
    "x.png",
    "..%2f..%2fx",
    "a%0d%0aX-Injected:%201",
    "%22;%20filename=%22y.html",
    "%E2%80%AEgpj.exe",
    "%ff%fe%00",
    "",
    "%F0%9F%90%9F",
];

/// Parameters with values of every kind.
const PARAMETERS: [&str; 44] = [
    "width=32",
    "height=32",
    "width=0",
    "width=-1",
    "width=1e9",
    "width=99999999999999999999",
    "height=NaN",
    "height=1",
    "height=4294967296",
    "height=%00",
    "method=crop",
    "method=scale",
    "method=xyz",
    "method=crop%0d%0aX-Injected:%201",
    "animated=true",
    "animated=maybe",
    "org.matrix.msc2705.animated=true",
    "timeout_ms=x",
    "timeout_ms=-1",
    "timeout_ms=18446744073709551616",
    "allow_remote=false",
    "allow_redirect=true",
    "allow_redirect=%ff",
    "filename=a%0d%0aX-Injected:%201",
    "filename=..%2f..%2fetc%2fpasswd",
    "filename=%22;%20x=%22",
    "filename=%F0%9F%90%9F",
    "filename=%ff%fe%fd",
    "filename",
    "url=https%3A%2F%2Fa.example%2F",
    "url=file:///etc/passwd",
    "url=http://127.0.0.1:1/",
    "url=%0d%0aX-Injected:%201",
    "ts=99999999999999999999",
    "ts=%0d%0a",
    "user_id=@bob:fake.example",
    "user_id=%0d%0aX-Injected:%201",
    "user_id=@a:b%26user_id=@c:d%23",
    "device_id=%2e%2e%2f",
    "admin_unsafely_bypass_quarantine=true",
    "%ff=%fe",
    "=",
    "&&&",
    "a=b;c=d",
];

/// Header fields that a server has to take as they are, or refuse whole.
const FIELDS: [&str; 57] = [
    "Range: bytes=0-",
    "Range: bytes=5-2",
    "Range: bytes=-0",
    "Range: bytes=-1",
    "Range: bytes=",
    "Range: bytes=0-18446744073709551615",
    "Range: bytes=18446744073709551615-18446744073709551616",
    "Range: bytes=0-0,2-2,4-4,0-9,0-9",
    "Range: bytes=a-b",
    "Range: lines=1-2",
    "RANGE: bytes=0-1\r\nrange: bytes=2-3",
    "If-None-Match: *",
    "If-None-Match: \"a\", W/\"b\", ,,\"",
    "If-None-Match: \u{e9}",
    "If-Match: \"a\"",
    "If-Range: \"a\"",
    "If-Range: Wed, 21 Oct 2015 07:28:00 GMT",
    "If-Modified-Since: yesterday",
    "Accept: image/\u{ff}",
    "Accept-Encoding: gzip, br, *;q=0",
    "Content-Type: image/png",
    "Content-Type: text/html; charset=utf-7",
    "Content-Type: multipart/form-data; boundary=\"",
    "Content-Type: ////",
    "Content-Type: \u{e9}/\u{e9}",
    "Content-Type: image/png\r\nContent-Type: text/html",
    "Content-Encoding: gzip",
    "Content-Disposition: inline; filename=\"x",
    "Origin: null",
    "Origin: https://evil.example",
    "Access-Control-Request-Method: PUT",
    "Access-Control-Request-Headers: x\u{ff}",
    "Connection: close",
    "Connection: keep-alive, , ,",
    "Connection: Authorization",
    "Connection: Content-Length, Host",
    "Connection: \u{ff}",
    "Keep-Alive: timeout=-1",
    "TE: trailers, deflate",
    "Trailer: Content-Length",
    "Upgrade: websocket",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk",
    "X-Forwarded-For: 203.0.113.9, garbage, ::1",
    "X-Forwarded-For: ,,,,\r\nX-Forwarded-For: [::ffff:10.0.0.1]:99999",
    "X-Forwarded-For: \u{202e}",
    "X-Forwarded-Proto: javascript",
    "X-Forwarded-Host: evil.example",
    "X-Real-IP: 127.0.0.1",
    "Forwarded: for=\"_hidden\";by=;;;",
    "X-HTTP-Method-Override: DELETE",
    "X-Original-URL: /_matrix/media/v3/config",
    "X-Rewrite-URL: /_matrix/media/v3/config",
    "Host: other.example",
    "hOsT: h",
    "User-Agent: \u{1f41f}\u{202e}",
    "User-Agent: mediary/0.0.0",
    "Expect: 200-maybe",
];

/// Lines that are no header fields.
const BROKEN_FIELDS: [&[u8]; 14] = [
    b"X-Odd: a\0b",
    b"X-Odd: a\rX-Injected: 1",
    b"X-Odd: a\r\n folded",
    b"X-Odd: a\r\n\tfolded",
    b" X-Odd: a",
    b"X-Odd : a",
    b"X Odd: a",
    b"X-Odd",
    b": a",
    b"X-\xff: a",
    b"X-Odd: \x1b[31m\x07",
    b"(X-Odd): a",
    b"\0",
    b"GET / HTTP/1.1",
];

/// What says how long a body is, wrongly or in two ways.
const FRAMING_LIES: [&str; 26] = [
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 5\r\nContent-Length: 5",
    "Content-Length: 5, 5",
    "Content-Length: +5",
    "Content-Length: -5",
    "Content-Length: 0x5",
    "Content-Length: 5 5",
    "Content-Length: five",
    "Content-Length: \u{665}",
    "Content-Length: 18446744073709551616",
    "Content-Length:",
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 0",
    "tRANSFER-eNCODING: cHUNKED\r\ncONTENT-lENGTH: 3",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: \x0bchunked",
    "Transfer-Encoding:",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    "Transfer-Encoding: \"chunked\"",
    "Content-Length: 18446744073709551615",
    "Content-Length: 9223372036854775807",
    "Content-Length: 99999999",
];

/// Chunks that are none.
const BROKEN_CHUNKS: [&str; 12] = [
    "-1\r\nab\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nab\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "5\nhello\n0\n\n",
    "5\r\nhelloXX0\r\n\r\n",
    "5\rhello\r0\r\r",
    "5\r\nhel",
    "g\r\n",
    "\0\r\n",
];

struct Maker<'w> {
    random: Random,
    number: u64,
    world: &'w World,
    is_sound: bool,
    /// Whether what follows may be read as another request.
    has_next: bool,
    /// Whether a secret stands where only its name tells that it is one.
    is_open: bool,
}

impl Maker<'_> {
    fn request(&mut self) -> Hostile {
        let method = self.random.pick(&METHODS);
        let mut bytes = Vec::new();
        bytes.extend(self.method_as_written(method));
        bytes.push(b' ');
        bytes.extend(self.target(method));
        bytes.extend(self.version());
        bytes.extend(b"\r\n");
        for line in self.fields() {
            bytes.extend(line);
            bytes.extend(b"\r\n");
        }
        let (framing, body) = self.body(method);
        bytes.extend(framing);
        bytes.extend(b"\r\n");
        bytes.extend(body);
        if self.random.one_in(40) {
            self.is_sound = false;
            let length = self.random.below(bytes.len());
            bytes.truncate(length);
        } else if self.random.one_in(25) && !self.is_open {
            self.is_sound = false;
            for _ in 0..=self.random.below(4) {
                let at = self.random.below(bytes.len());
                bytes[at] = self.random.next() as u8;
            }
        } else if !self.has_next {
            bytes.extend(self.hidden());
        }
        let framing = if self.is_sound { Framing::Sound } else { Framing::Doubtful };
        Hostile { is_head: bytes.starts_with(b"HEAD "), bytes, framing }
    }

    fn hidden(&self) -> Vec<u8> {
        format!("GET {HIDDEN}-{} HTTP/1.1\r\nHost: h\r\n\r\n", self.number).into_bytes()
    }

    fn secret(&self) -> String {
        format!("{SECRET}{}", self.number)
    }

    fn method_as_written(&mut self, method: &'static str) -> Vec<u8> {
        if !self.random.one_in(60) {
            return method.as_bytes().to_vec();
        }
        self.is_sound = false;
        let odd = ["", "G\0T", "GE\tT", "CONNECT", "PRI", "\u{ff}", "G(T"];
        match self.random.below(odd.len() + 1) {
            0 => vec![b'M'; 60_000],
            other => odd[other - 1].as_bytes().to_vec(),
        }
    }

    fn version(&mut self) -> &'static [u8] {
        if !self.random.one_in(30) {
            return b" HTTP/1.1";
        }
        self.is_sound = false;
        let odd: [&[u8]; 8] = [
            b" HTTP/1.0",
            b" HTTP/2.0",
            b" HTTP/0.9",
            b" HTTP/1.9",
            b"",
            b" http/1.1",
            b" HTTP/1.1 x",
            b"\tHTTP/1.1",
        ];
        self.random.pick(&odd)
    }

    fn target(&mut self, method: &str) -> Vec<u8> {
        let path = match self.random.below(8) {
            0 => self.random.pick(&OTHERS).to_owned(),
            _ => self.media_path(method),
        };
        let mut target = path.into_bytes();
        if self.random.one_in(5) {
            for _ in 0..=self.random.below(3) {
                self.misspell(&mut target);
            }
        }
        if self.random.one_in(40) {
            self.is_open = true;
            let mark = self.random.pick(&["%3f", "&", "#", ";", "/"]);
            let equals = self.random.pick(&["=", "%3d", "%3D"]);
            target.extend(format!("{mark}access_token{equals}{}", self.secret()).bytes());
        }
        target.extend(self.query());
        target
    }

    /// Mostly the media routes as they are, with a good or a bad identifier.
    fn media_path(&mut self, method: &str) -> String {
        // Uploads have one family of routes.
        let prefix = match method {
            "POST" | "PUT" if !self.random.one_in(3) => "/_matrix/media/v3",
            _ => self.random.pick(&PREFIXES),
        };
        if prefix.contains("federation") {
            let kind = self.random.pick(&["download", "thumbnail", "nothing"]);
            return format!("{prefix}/{kind}/{}", self.id());
        }
        match (method, self.random.below(8)) {
            ("POST", 0..=4) => format!("{prefix}/upload"),
            ("POST", 5) => format!("{prefix}/create"),
            ("PUT", 0..=5) => format!("{prefix}/upload/{}", self.mxc()),
            (_, 0) => format!("{prefix}/config"),
            (_, 1) => format!("{prefix}/preview_url"),
            (_, 2) => prefix.to_owned(),
            (_, 3..=4) => format!("{prefix}/thumbnail/{}", self.mxc()),
            (_, 5) => format!("{prefix}/download/{}/{}", self.mxc(), self.random.pick(&NAMES)),
            _ => format!("{prefix}/download/{}", self.mxc()),
        }
    }

    fn mxc(&mut self) -> String {
        if !self.random.one_in(4) {
            let index = self.random.below(self.world.media.len());
            return self.world.media[index].clone();
        }
        format!("{}/{}", self.random.pick(&SERVERS), self.id())
    }

    fn id(&mut self) -> String {
        match self.random.below(12) {
            0 => "a".repeat([255, 256, 4096, 60_000][self.random.below(4)]),
            1 => {
                let bytes = self.random.bytes(5);
                bytes.iter().map(|byte| format!("%{byte:02x}")).collect()
            }
            2..=4 => {
                let index = self.random.below(self.world.media.len());
                let media = &self.world.media[index];
                media.split('/').nth(1).unwrap_or_default().to_owned()
            }
            _ => self.random.pick(&IDS).to_owned(),
        }
    }

    /// Writes a path in one more way that some server might read as the same.
    fn misspell(&mut self, path: &mut Vec<u8>) {
        let at = self.random.below(path.len());
        let slashes: Vec<_> = (0..path.len()).filter(|&i| path[i] == b'/').collect();
        let slash = slashes.get(self.random.below(slashes.len().max(1))).copied();
        let replace_slash = |path: &mut Vec<u8>, with: &[u8]| {
            if let Some(slash) = slash {
                path.splice(slash..=slash, with.iter().copied());
            }
        };
        match self.random.below(16) {
            0 => {
                let byte = format!("%{:02x}", path[at]);
                path.splice(at..=at, byte.bytes());
            }
            1 => {
                let byte = format!("%{:02X}", path[at]);
                path.splice(at..=at, byte.bytes());
            }
            2 => {
                let byte = format!("%25{:02x}", path[at]);
                path.splice(at..=at, byte.bytes());
            }
            3 => replace_slash(path, b"//"),
            4 => replace_slash(path, b"/./"),
            5 => replace_slash(path, b"/x/../"),
            6 => replace_slash(path, b"/%2e%2e/_matrix/"),
            7 => replace_slash(path, b"\\"),
            8 => replace_slash(path, b";a=b/"),
            9 => replace_slash(path, b"%c0%af"),
            10 => replace_slash(path, "\u{ff0f}".as_bytes()),
            11 => path.make_ascii_uppercase(),
            12 => path.splice(0..0, b"http://other.example".iter().copied()).for_each(drop),
            13 => path.splice(0..0, b"//other.example".iter().copied()).for_each(drop),
            14 => path[at] = 0x80 | self.random.next() as u8,
            _ => {
                let tails = ["/", "//", "/.", "/..", ";x", "%00", "%20", ".json", "%2f", "#a", "X"];
                path.extend(self.random.pick(&tails).bytes());
            }
        }
    }

    fn query(&mut self) -> Vec<u8> {
        let mut query = String::new();
        // Nobody here is to wait for an upload.
        query.push_str("?timeout_ms=0");
        if self.random.one_in(2) {
            query.push_str("&width=32&height=32");
        }
        for _ in 0..self.random.below(6) {
            query.push('&');
            query.push_str(self.random.pick(&PARAMETERS));
        }
        if self.random.one_in(4) {
            let name = self.random.pick(&["access_token", "access%5ftoken", "x=y&access_token"]);
            query.push_str(&format!("&{name}={}", self.secret()));
        }
        if self.random.one_in(6) {
            query.push_str(&format!("&access_token={}", self.world.token));
        }
        if self.random.one_in(50) {
            let long = ["a", "%00", "&", "a=b&", "width=1&", "user_id="];
            let piece = self.random.pick(&long);
            query.push('&');
            query.push_str(&piece.repeat(60_000 / piece.len()));
        }
        query.into_bytes()
    }

    fn fields(&mut self) -> Vec<Vec<u8>> {
        let mut fields: Vec<Vec<u8>> = vec![b"Host: h".to_vec()];
        fields.push(format!("X-Number: {}", self.number).into_bytes());
        if !self.random.one_in(4) {
            let authorization = self.authorization();
            fields.push(authorization.into_bytes());
        }
        for _ in 0..self.random.below(5) {
            fields.push(self.random.pick(&FIELDS).as_bytes().to_vec());
        }
        if self.random.one_in(60) {
            let name = self.random.pick(&["User-Agent", "X-Forwarded-For", "Range", "Cookie", "X"]);
            let value = self.random.pick(&["a", "1.2.3.4,", "bytes=0-1,", "\u{e9}"]);
            fields.push(format!("{name}: {}", value.repeat(30_000 / value.len())).into_bytes());
        }
        if self.random.one_in(80) {
            fields.extend((0..300).map(|field| format!("X-{field}: a").into_bytes()));
        }
        if self.random.one_in(12) {
            (self.is_sound, self.has_next) = (false, false);
            fields.push(self.random.pick(&BROKEN_FIELDS).to_vec());
        }
        if self.random.one_in(60) {
            self.is_sound = false;
            fields.remove(0);
        }
        let turn = self.random.below(fields.len());
        fields.rotate_left(turn);
        fields
    }

    fn authorization(&mut self) -> String {
        let (secret, token) = (self.secret(), self.world.token);
        match self.random.below(40) {
            0 => format!("Authorization: Bearer {secret}"),
            1 => format!("authorization: bearer   {secret}  "),
            2 => format!("Authorization: Bearer {secret}\r\nAuthorization: Bearer {token}"),
            3 => format!("Authorization: Basic {secret}"),
            4 => format!("Authorization: Bearer {secret} {secret}"),
            5 => format!("Authorization: {secret}"),
            6 => format!(
                "Authorization: X-Matrix origin=a.example,key=\"ed25519:1\",sig=\"{secret}\""
            ),
            7 => format!("Authorization: X-Matrix sig={secret},sig=\"{secret}\\\""),
            8 => format!("Authorization: Bearer {}", secret.repeat(16 * 1024 / secret.len())),
            9 => format!("Authorization: Bearer \u{e9}{secret}"),
            10 => "Authorization:".to_owned(),
            11 => {
                self.is_sound = false;
                let odd = self.random.pick(&["\0", " : ", "\x01: ", "\r\n : "]);
                format!("Authorization{odd}Bearer {secret}")
            }
            _ => format!("Authorization: Bearer {token}"),
        }
    }

    /// Returns the fields that frame a body, each with its line end, and the body.
    fn body(&mut self, method: &str) -> (Vec<u8>, Vec<u8>) {
        let has_body = matches!(method, "POST" | "PUT" | "PATCH") || self.random.one_in(8);
        if !has_body {
            return (Vec::new(), Vec::new());
        }
        let body = self.content();
        match self.random.below(16) {
            0..=7 => (format!("Content-Length: {}\r\n", body.len()).into_bytes(), body),
            8 => {
                let expect = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len());
                (expect.into_bytes(), body)
            }
            9..=11 => (b"Transfer-Encoding: chunked\r\n".to_vec(), self.chunked(&body)),
            12 => {
                (self.is_sound, self.has_next) = (false, false);
                let lie = self.random.pick(&FRAMING_LIES);
                (format!("{lie}\r\n").into_bytes(), b"5\r\nhello\r\n0\r\n\r\n".to_vec())
            }
            13 => {
                (self.is_sound, self.has_next) = (false, false);
                let broken = self.random.pick(&BROKEN_CHUNKS);
                (b"Transfer-Encoding: chunked\r\n".to_vec(), broken.as_bytes().to_vec())
            }
            14 => {
                (self.is_sound, self.has_next) = (false, false);
                // Long enough to hold what comes behind.
                let more = body.len() + 200 + self.random.below(100_000);
                (format!("Content-Length: {more}\r\n").into_bytes(), body)
            }
            _ => (Vec::new(), Vec::new()),
        }
    }

    fn content(&mut self) -> Vec<u8> {
        match self.random.below(8) {
            0 => Vec::new(),
            1 => self.hidden(),
            2 => b"<script>alert(document.domain)</script>".to_vec(),
            3 => [&b"\x89PNG\r\n\x1a\n"[..], &self.random.bytes(40)].concat(),
            4 => b"--\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nx\r\n----".to_vec(),
            5 => {
                let length = self.random.below(80_000);
                self.random.bytes(length)
            }
            6 => {
                let length = 130_000 + self.random.below(100_000);
                self.random.bytes(length)
            }
            _ => self.random.bytes(20),
        }
    }

    /// Cuts a body into chunks of any size, with all that the grammar allows.
    fn chunked(&mut self, body: &[u8]) -> Vec<u8> {
        let mut chunked = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(1 + self.random.below(rest.len()));
            rest = after;
            let extension = self.random.pick(&["", "", ";a=b", ";a=\"\\\"b\"", ";a"]);
            let zeros = self.random.pick(&["", "", "000"]);
            let size = chunk.len();
            let line = if self.random.one_in(2) {
                format!("{zeros}{size:x}{extension}\r\n")
            } else {
                format!("{zeros}{size:X}{extension}\r\n")
            };
            chunked.extend(line.bytes());
            chunked.extend(chunk);
            chunked.extend(b"\r\n");
        }
        let trailer = self.random.pick(&["", "", "X-Trailer: a\r\n", "Content-Length: 5\r\n"]);
        chunked.extend(format!("0\r\n{trailer}\r\n").bytes());
        chunked
    }
}
