//! A body is read while it is still arriving from the homeserver, by as many as like, and never
//! looks whole before it is (checklist section 6, threats FE-11 and DU-03).

mod common;

use std::io::{Cursor, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use common::fake::{OTHER_TOKEN, Received, SERVER_NAME, TOKEN, respond_with};
use common::http::{Answer, Connection, chunk};
use common::samples::{bytes, etag};
use common::{Client, FakeHomeserver, Mediary, PATIENCE, Settings, files_below, noise, wait_until};
use image::{GenericImageView, ImageFormat, RgbImage};

/// Media of the homeserver's own users and of another server's.
const LOCAL: &str = "fake.example/local";
const REMOTE: &str = "other.example/remote";

const CHUNKED: &str = "Transfer-Encoding: chunked";

// --- a homeserver whose answers about media the test writes itself

/// A homeserver that hands every request for media to the test, until it is told to answer itself.
struct Source {
    fake: FakeHomeserver,
    asked: Receiver<Asked>,
    by_itself: ByItself,
}

/// The status and the body that every request is answered with, if the test does not answer.
type ByItself = Arc<Mutex<Option<(u16, Vec<u8>)>>>;

/// A request for media that the test answers. Dropped, it closes the connection.
struct Asked {
    request: Received,
    stream: TcpStream,
    is_chunked: bool,
    over: Sender<()>,
}

impl Source {
    fn start() -> Self {
        let (hand, asked) = channel();
        let by_itself = ByItself::default();
        let answer = by_itself.clone();
        let fake = FakeHomeserver::with(move |request, stream| {
            if !request.target().contains("/download/") {
                return None;
            }
            if let Some((status, body)) = &*answer.lock().expect("the answer") {
                return Some(respond_with(stream, *status, &[("Content-Type", "image/png")], body));
            }
            let (over, ended) = channel();
            let stream = stream.try_clone().expect("a clone of the socket");
            stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
            let asked = Asked { request: request.clone(), stream, is_chunked: false, over };
            Some(hand.send(asked).is_ok() && ended.recv().is_ok())
        });
        Self { fake, asked, by_itself }
    }

    /// Returns the next request for media.
    fn asked(&self) -> Asked {
        self.asked.recv_timeout(PATIENCE).expect("the homeserver is asked")
    }

    /// Answers every further request with this body.
    fn answer_by_itself(&self, body: &[u8]) {
        self.refuse_by_itself(200, body);
    }

    /// Answers every further request with this status and body.
    fn refuse_by_itself(&self, status: u16, body: &[u8]) {
        *self.by_itself.lock().expect("the answer") = Some((status, body.to_vec()));
    }

    fn assert_not_asked(&self) {
        match self.asked.try_recv() {
            Ok(asked) => panic!("asked once more: {:?}", asked.request),
            Err(error) => assert_eq!(error, TryRecvError::Empty),
        }
    }

    /// Returns how often the homeserver was asked for this media.
    fn times(&self, media: &str) -> usize {
        self.fake.received_for(&format!("/download/{media}")).len()
    }
}

impl Asked {
    /// Sends the head of a good answer; `framing` says how long its body is.
    fn begin(&mut self, framing: &str) {
        self.is_chunked = framing == CHUNKED;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n{framing}\r\n\r\n");
        self.write(head.as_bytes());
    }

    /// Sends some bytes of the body.
    fn send(&mut self, bytes: &[u8]) {
        if self.is_chunked {
            self.write(&chunk(bytes));
        } else {
            self.write(bytes);
        }
    }

    /// Ends the answer properly.
    fn end(mut self) {
        if self.is_chunked {
            self.write(b"0\r\n\r\n");
        }
        self.over.send(()).expect("the homeserver waits");
    }

    /// Answers all of it at once.
    fn answer(mut self, status: u16, headers: &[(&str, &str)], body: &str) {
        assert!(respond_with(&mut self.stream, status, headers, body.as_bytes()));
        self.end();
    }

    /// Closes the connection in the rudest way.
    fn reset(self) {
        let stream = self.stream.try_clone().expect("a clone of the socket");
        let socket = tokio::net::TcpSocket::from_std_stream(stream);
        socket.set_zero_linger().expect("an option of the socket");
    }

    /// Writes bytes as they are.
    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("Mediary reads the answer");
    }

    fn bearer(&self) -> Option<&str> {
        self.request.header("authorization")?.strip_prefix("Bearer ")
    }
}

// --- readers that read no faster than the test says

/// A request on a connection of its own, with as much of the answer as was read.
struct Follower {
    connection: Connection,
    method: &'static str,
    answer: Answer,
}

impl Follower {
    fn begin(
        mediary: &Mediary,
        token: &str,
        method: &'static str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Self {
        let mut connection = mediary.client().connect();
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
        if !token.is_empty() {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        connection.send(format!("{head}\r\n").as_bytes());
        let answer = Answer { status: 0, headers: Vec::new(), body: Vec::new(), complete: false };
        Self { connection, method, answer }
    }

    fn download(mediary: &Mediary, token: &str, media: &str) -> Self {
        Self::begin(mediary, token, "GET", &path(media), &[])
    }

    fn range(mediary: &Mediary, media: &str, range: &str) -> Self {
        Self::begin(mediary, TOKEN, "GET", &path(media), &[("Range", range)])
    }

    fn thumbnail(mediary: &Mediary, token: &str, media: &str) -> Self {
        Self::begin(mediary, token, "GET", &thumbnail_path(media), &[])
    }

    fn legacy(mediary: &Mediary, media: &str, query: &str) -> Self {
        let target = format!("/_matrix/media/v3/download/{media}{query}");
        Self::begin(mediary, "", "GET", &target, &[])
    }

    /// Reads the head of the answer.
    fn head(&mut self) -> &Answer {
        if self.answer.status == 0 {
            self.answer = self.connection.read_head();
        }
        &self.answer
    }

    /// Reads until so many bytes of the body have come.
    fn read(&mut self, length: usize) -> &[u8] {
        self.head();
        self.connection.read_up_to(length, &mut self.answer);
        let there = self.answer.body.len();
        assert!(there >= length, "the body ended after {there} bytes");
        &self.answer.body
    }

    /// Reads to the end.
    fn finish(mut self) -> Answer {
        self.head();
        self.connection.read_rest(self.method, &mut self.answer);
        self.answer
    }
}

fn path(media: &str) -> String {
    format!("/_matrix/client/v1/media/download/{media}")
}

fn thumbnail_path(media: &str) -> String {
    format!("/_matrix/client/v1/media/thumbnail/{media}?width=32&height=32&method=crop")
}

/// A homeserver, Mediary in front of it, and a client with a token; both tokens have been checked.
fn start(settings: &str) -> (Source, Mediary, Client) {
    let source = Source::start();
    let mediary = Settings::new(&source.fake.url).with(settings).start();
    let client = check_tokens(&mediary);
    (source, mediary, client)
}

fn check_tokens(mediary: &Mediary) -> Client {
    let client = |token| mediary.client().with_token(token);
    for token in [OTHER_TOKEN, TOKEN] {
        assert_eq!(client(token).get("/_matrix/client/v1/media/config").status, 200);
    }
    client(TOKEN)
}

/// Waits until so many requests have come as far as to have had their token checked, since the
/// tokens were first seen. What is not held, they then ask for at once.
fn wait_for_token_checks(mediary: &Mediary, count: usize) {
    wait_until("the readers are there", || token_checks(mediary) >= count);
}

fn token_checks(mediary: &Mediary) -> usize {
    mediary.metric("mediary_token_checks_total{result=\"cached\"}") as usize
}

fn wait_in_flight(mediary: &Mediary, count: usize) {
    let series = "mediary_requests_in_flight";
    wait_until("the requests are there", || mediary.metric(series) >= count as f64);
}

fn assert_part(answer: &Answer, content_range: &str, part: &[u8]) {
    assert_eq!((answer.status, answer.complete), (206, true), "{content_range}");
    assert_eq!(answer.header("content-range"), Some(content_range));
    assert_eq!(answer.header("content-length"), Some(part.len().to_string().as_str()));
    assert!(answer.body == part, "{content_range}");
}

/// Asserts that a body is kept once and that it is served without the homeserver.
#[track_caller]
fn assert_kept_once(source: &Source, mediary: &Mediary, media: &str, body: &[u8]) {
    let copies = || mediary.copies_of(body);
    wait_until("it is kept", || copies() > 0 && fetches(mediary) == 0.0);
    assert_eq!((copies(), mediary.unfinished().len()), (1, 0));
    let times = source.times(media);
    let answer = mediary.client().with_token(OTHER_TOKEN).download(media);
    answer.assert_whole(body);
    assert_eq!(answer.header("etag"), Some(etag(body).as_str()));
    assert_eq!(source.times(media), times);
}

fn fetches(mediary: &Mediary) -> f64 {
    mediary.metric("mediary_fetches_in_flight")
}

/// Makes a PNG that is about as large as its pixels.
fn noisy_png(width: u32, height: u32) -> Vec<u8> {
    let pixels = noise((width * height * 3) as usize, 5);
    let picture = RgbImage::from_raw(width, height, pixels).expect("so many pixels");
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).expect("samples can be encoded");
    bytes.into_inner()
}

fn framings(length: usize) -> [String; 2] {
    [format!("Content-Length: {length}"), CHUNKED.to_owned()]
}

// --- bytes are read as they come

#[test]
fn the_head_and_a_single_byte_come_through_while_the_homeserver_is_silent() {
    let (source, mediary, _) = start("");
    for (number, framing) in framings(3).iter().enumerate() {
        let media = format!("other.example/m{number}");
        let mut follower = Follower::download(&mediary, TOKEN, &media);
        let mut asked = source.asked();
        asked.begin(framing);
        let head = follower.head();
        assert_eq!((head.status, head.header("content-type")), (200, Some("image/png")));
        assert_eq!(head.header("content-length").is_some(), number == 0);
        for (sent, byte) in [b"a", b"b"].into_iter().enumerate() {
            asked.send(byte);
            assert_eq!(follower.read(sent + 1), &b"ab"[..=sent], "{framing}");
        }
        // Somebody who comes late gets at once what is there.
        let mut late = Follower::download(&mediary, OTHER_TOKEN, &media);
        assert_eq!(late.read(2), b"ab");
        asked.send(b"c");
        asked.end();
        for follower in [follower, late] {
            follower.finish().assert_whole(b"abc");
        }
        assert_eq!(source.times(&media), 1);
    }
}

#[test]
fn a_head_request_is_answered_while_the_body_arrives() {
    let (source, mediary, _) = start("");
    for (number, framing) in framings(3).iter().enumerate() {
        let media = format!("other.example/m{number}");
        let head =
            || Follower::begin(&mediary, TOKEN, "HEAD", &path(&media), &[("Range", "bytes=9-")]);
        let first = head();
        let mut asked = source.asked();
        asked.begin(framing);
        for answer in [first.finish(), head().finish()] {
            assert_eq!((answer.status, answer.complete), (200, true), "{framing}");
            assert_eq!(answer.header("content-length"), (number == 0).then_some("3"));
            assert_eq!(answer.header("etag"), None, "it is not known before the end");
        }
        asked.send(b"abc");
        asked.end();
        wait_until("it is kept", || head().finish().header("etag").is_some());
        assert_eq!(source.times(&media), 1);
    }
}

/// Everything that one media can be asked for, by two users.
struct Crowd<'a> {
    mediary: &'a Mediary,
    body: &'a [u8],
    is_sized: bool,
    downloads: Vec<Follower>,
    heads: Vec<Follower>,
    ranges: Vec<Follower>,
    thumbnails: Vec<Follower>,
}

impl Crowd<'_> {
    /// The bytes that the ranges ask for.
    const RANGE: &'static str = "bytes=100-70099";
    const RANGE_END: usize = 70_100;

    fn grow(&mut self, media: &str) {
        for number in 0..5 {
            let token = [TOKEN, OTHER_TOKEN][number % 2];
            let begin = |method, fields: &[_]| {
                Follower::begin(self.mediary, token, method, &path(media), fields)
            };
            self.downloads.push(begin("GET", &[]));
            self.downloads.push(begin("GET", &[]));
            self.heads.push(begin("HEAD", &[]));
            self.ranges.push(begin("GET", &[("Range", Self::RANGE)]));
            self.thumbnails.push(Follower::thumbnail(self.mediary, token, media));
        }
    }

    fn len(&self) -> usize {
        self.downloads.len() + self.heads.len() + self.ranges.len() + self.thumbnails.len()
    }

    /// Reads so much of every download.
    fn read(&mut self, length: usize) {
        for (number, download) in self.downloads.iter_mut().enumerate() {
            assert!(download.read(length).starts_with(&self.body[..length]), "{number}");
        }
    }

    /// Reads the parts, which does not need the end of the body.
    fn finish_ranges(&mut self) {
        let total = if self.is_sized { self.body.len().to_string() } else { "*".to_owned() };
        for range in self.ranges.drain(..) {
            let content_range = format!("bytes 100-{}/{total}", Self::RANGE_END - 1);
            assert_part(&range.finish(), &content_range, &self.body[100..Self::RANGE_END]);
        }
    }

    fn finish(self) {
        for download in self.downloads {
            download.finish().assert_whole(self.body);
        }
        for head in self.heads {
            assert_eq!(head.finish().status, 200);
        }
        let pictures: Vec<_> = self.thumbnails.into_iter().map(Follower::finish).collect();
        for picture in &pictures {
            picture.assert_whole(&pictures[0].body);
        }
        let picture = image::load_from_memory(&pictures[0].body).expect("it can be decoded");
        assert_eq!(picture.dimensions(), (32, 32));
    }
}

#[test]
fn a_hundred_readers_who_join_at_any_moment_share_one_request() {
    let body = noisy_png(300, 200);
    for framing in framings(body.len()) {
        let (source, mediary, _) = start("");
        let mut crowd = Crowd {
            mediary: &mediary,
            body: &body,
            is_sized: framing != CHUNKED,
            downloads: Vec::new(),
            heads: Vec::new(),
            ranges: Vec::new(),
            thumbnails: Vec::new(),
        };
        // Before the homeserver has answered.
        crowd.grow(REMOTE);
        wait_for_token_checks(&mediary, crowd.len());
        let mut asked = source.asked();
        asked.begin(&framing);
        asked.send(&body[..1]);
        crowd.read(1);
        // After the first byte.
        crowd.grow(REMOTE);
        crowd.read(1);
        asked.send(&body[1..100_000]);
        crowd.read(100_000);
        crowd.finish_ranges();
        // In the middle.
        crowd.grow(REMOTE);
        crowd.read(100_000);
        crowd.finish_ranges();
        // At the end, of which only the homeserver can tell that it is one.
        let last = body.len() - usize::from(crowd.is_sized);
        asked.send(&body[100_000..last]);
        crowd.read(last);
        crowd.grow(REMOTE);
        crowd.read(last);
        crowd.finish_ranges();
        asked.send(&body[last..]);
        asked.end();
        crowd.finish();
        assert_eq!(source.times(REMOTE), 1, "{framing}");
        assert_kept_once(&source, &mediary, REMOTE, &body);
        source.assert_not_asked();
    }
}

#[test]
fn a_reader_who_reads_nothing_holds_up_nobody() {
    let body = noise(64 << 20, 1);
    let (source, mediary, _) = start("");
    let slow = Follower::download(&mediary, TOKEN, REMOTE);
    let mut asked = source.asked();
    asked.begin(&format!("Content-Length: {}", body.len()));
    let quick = Follower::download(&mediary, OTHER_TOKEN, REMOTE);
    thread::scope(|scope| {
        let quick = scope.spawn(|| quick.finish());
        // This ends only if Mediary takes everything.
        asked.send(&body);
        asked.end();
        quick.join().expect("it reads").assert_whole(&body);
    });
    assert_eq!(mediary.blobs().len(), 1);
    slow.finish().assert_whole(&body);
    assert_eq!(source.times(REMOTE), 1);
}

// --- readers that leave

#[test]
fn whoever_leaves_costs_the_others_nothing() {
    let body = noise(200_000, 2);
    for framing in framings(body.len()) {
        let (source, mediary, _) = start("");
        let mut first = Follower::download(&mediary, TOKEN, REMOTE);
        let mut asked = source.asked();
        assert_eq!(asked.bearer(), Some(TOKEN));
        asked.begin(&framing);
        asked.send(&body[..1]);
        let mut others: Vec<_> =
            (0..4).map(|_| Follower::download(&mediary, OTHER_TOKEN, REMOTE)).collect();
        for follower in others.iter_mut().chain([&mut first]) {
            follower.read(1);
        }
        drop(first);
        drop(others.pop());
        asked.send(&body[1..100_000]);
        for other in &mut others {
            other.read(100_000);
        }
        drop(others.pop());
        asked.send(&body[100_000..]);
        asked.end();
        for other in others {
            other.finish().assert_whole(&body);
        }
        assert_kept_once(&source, &mediary, REMOTE, &body);
        assert_eq!(source.times(REMOTE), 1);
    }
}

#[test]
fn what_everybody_has_left_is_kept_all_the_same() {
    let body = noise(200_000, 3);
    for has_begun in [false, true] {
        let (source, mediary, _) = start("");
        let mut only = Follower::download(&mediary, TOKEN, LOCAL);
        let mut asked = source.asked();
        if has_begun {
            asked.begin(CHUNKED);
            asked.send(&body[..10]);
            only.read(10);
            drop(only);
            asked.send(&body[10..]);
        } else {
            drop(only);
            asked.begin(CHUNKED);
            asked.send(&body);
        }
        asked.end();
        assert_kept_once(&source, &mediary, LOCAL, &body);
        assert_eq!(source.times(LOCAL), 1);
    }
}

// --- parts of what is arriving

#[test]
fn a_range_of_an_announced_size_is_sent_as_soon_as_it_is_there() {
    let body = noise(200_000, 4);
    let (source, mediary, client) = start("");
    let first = Follower::range(&mediary, REMOTE, "bytes=0-99999");
    let mut asked = source.asked();
    asked.begin("Content-Length: 200000");
    asked.send(&body[..100_000]);
    assert_part(&first.finish(), "bytes 0-99999/200000", &body[..100_000]);
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=65530-65540", 65_530, 65_540),
        ("bytes=99999-99999", 99_999, 99_999),
    ] {
        let answer = Follower::range(&mediary, REMOTE, range).finish();
        assert_part(&answer, &format!("bytes {first}-{last}/200000"), &body[first..=last]);
    }
    // What is past the end of an announced size can be said at once.
    for range in ["bytes=200000-", "bytes=200000-200001", "bytes=-0"] {
        let answer = Follower::range(&mediary, REMOTE, range).finish();
        answer.assert_error(416, "M_UNKNOWN");
        assert_eq!(answer.header("content-range"), Some("bytes */200000"), "{range}");
    }
    let later = Follower::range(&mediary, REMOTE, "bytes=99998-150000");
    let ends = ["bytes=199990-199999", "bytes=-10", "bytes=199990-", "bytes=199990-999999"]
        .map(|range| Follower::range(&mediary, REMOTE, range));
    let mut ends = Vec::from(ends);
    ends.push(Follower::range(&mediary, REMOTE, "bytes=-300000"));
    for end in &mut ends {
        assert_eq!(end.head().status, 206);
    }
    asked.send(&body[100_000..150_001]);
    assert_part(&later.finish(), "bytes 99998-150000/200000", &body[99_998..150_001]);
    asked.send(&body[150_001..199_999]);
    for end in &mut ends[..4] {
        assert_eq!(end.read(9), &body[199_990..199_999]);
    }
    asked.send(&body[199_999..]);
    asked.end();
    let everything = ends.pop().expect("the last one");
    for end in ends {
        assert_part(&end.finish(), "bytes 199990-199999/200000", &body[199_990..]);
        // Whoever has the last byte may rely on it that it is kept.
        assert_eq!(client.download(REMOTE).header("etag"), Some(etag(&body).as_str()));
    }
    assert_part(&everything.finish(), "bytes 0-199999/200000", &body);
    assert_eq!(source.times(REMOTE), 1);
}

#[test]
fn a_range_of_an_unknown_size_is_sent_as_soon_as_it_is_there() {
    let body = bytes(20);
    let (source, mediary, _) = start("");
    let first = Follower::range(&mediary, REMOTE, "bytes=0-9");
    let mut asked = source.asked();
    asked.begin(CHUNKED);
    asked.send(&body[..10]);
    assert_part(&first.finish(), "bytes 0-9/*", &body[..10]);
    for (range, first, last) in [("bytes=0-9", 0, 9), ("bytes=9-9", 9, 9), ("bytes=0-0", 0, 0)] {
        let answer = Follower::range(&mediary, REMOTE, range).finish();
        assert_part(&answer, &format!("bytes {first}-{last}/*"), &body[first..=last]);
    }
    // What has no last byte, or one that nobody can know, gets everything from the start.
    let open_ends = ["bytes=5-", "bytes=-5", "bytes=99-", "bytes=0-1,3-4"];
    let mut open_ends = open_ends.map(|range| Follower::range(&mediary, REMOTE, range));
    for follower in &mut open_ends {
        assert_eq!(follower.read(10), &body[..10]);
        assert_eq!((follower.answer.status, follower.answer.header("content-range")), (200, None));
    }
    let later = Follower::range(&mediary, REMOTE, "bytes=8-14");
    let too_long = Follower::range(&mediary, REMOTE, "bytes=12-20");
    let at_end = Follower::range(&mediary, REMOTE, "bytes=20-21");
    let beyond = Follower::range(&mediary, REMOTE, "bytes=30-18446744073709551615");
    wait_for_token_checks(&mediary, 12);
    asked.send(&body[10..15]);
    assert_part(&later.finish(), "bytes 8-14/*", &body[8..15]);
    asked.send(&body[15..]);
    asked.end();
    assert_part(&too_long.finish(), "bytes 12-19/20", &body[12..]);
    for past_end in [at_end, beyond] {
        let answer = past_end.finish();
        answer.assert_error(416, "M_UNKNOWN");
        assert_eq!(answer.header("content-range"), Some("bytes */20"));
    }
    for follower in open_ends {
        follower.finish().assert_whole(&body);
    }
    assert_eq!(source.times(REMOTE), 1);
}

#[test]
fn an_empty_body_of_unknown_size_has_no_ranges() {
    let (source, mediary, _) = start("");
    let range = Follower::range(&mediary, REMOTE, "bytes=0-9");
    let whole = Follower::download(&mediary, TOKEN, REMOTE);
    let mut asked = source.asked();
    wait_for_token_checks(&mediary, 2);
    asked.begin(CHUNKED);
    asked.end();
    let answer = range.finish();
    assert_eq!((answer.status, answer.header("content-range")), (416, Some("bytes */0")));
    whole.finish().assert_whole(b"");
}

#[test]
fn a_range_under_a_condition_gets_the_whole_body_while_it_has_no_tag() {
    let body = bytes(20);
    for (number, framing) in framings(20).iter().enumerate() {
        let (source, mediary, client) = start("");
        let media = format!("other.example/m{number}");
        let first = Follower::download(&mediary, TOKEN, &media);
        let mut asked = source.asked();
        asked.begin(framing);
        asked.send(&body[..10]);
        let tag = etag(&body);
        let conditions = [tag.as_str(), "\"x\"", "W/\"x\"", "Wed, 21 Oct 2026 07:28:00 GMT"];
        let mut followers = Vec::new();
        for condition in conditions {
            for range in ["bytes=0-4", "bytes=12-14"] {
                let fields = [("Range", range), ("If-Range", condition)];
                let mut follower = Follower::begin(&mediary, TOKEN, "GET", &path(&media), &fields);
                // There is no need to wait for the range.
                assert_eq!(follower.read(10), &body[..10], "{framing} {condition} {range}");
                followers.push(follower);
            }
        }
        asked.send(&body[10..]);
        asked.end();
        for follower in followers.into_iter().chain([first]) {
            follower.finish().assert_whole(&body);
        }
        let fields = [("Range", "bytes=0-4"), ("If-Range", tag.as_str())];
        let answer = client.get_with(&path(&media), &fields);
        assert_part(&answer, "bytes 0-4/20", &body[..5]);
    }
}

// --- nothing looks whole that is not

/// Bounds what may be read of another server.
const SMALL: &str = "[remote]\nmax_size = \"200 KB\"";

/// The ways in which an answer whose first half has come does not get to its end.
#[derive(Debug, Clone, Copy)]
enum Failure {
    Closes,
    Resets,
    LastByteMissing,
    BadChunkSize,
    BadChunkEnd,
    LastChunkMissing,
    TooLarge,
}

impl Failure {
    const SIZED: [Self; 3] = [Self::Closes, Self::Resets, Self::LastByteMissing];
    const CHUNKED: [Self; 6] = [
        Self::Closes,
        Self::Resets,
        Self::BadChunkSize,
        Self::BadChunkEnd,
        Self::LastChunkMissing,
        Self::TooLarge,
    ];

    fn strike(self, mut asked: Asked, rest: &[u8]) {
        match self {
            Self::Closes => {}
            Self::Resets => return asked.reset(),
            Self::LastByteMissing => asked.send(&rest[..rest.len() - 1]),
            Self::BadChunkSize => asked.write(b"zz\r\n"),
            Self::BadChunkEnd => asked.write(b"2\r\nabcd"),
            Self::LastChunkMissing => asked.send(rest),
            Self::TooLarge => {
                // Mediary hangs up before it has read everything.
                let _ = asked.stream.write_all(&[b"40000\r\n", &noise(0x40000, 6)[..]].concat());
            }
        }
        drop(asked);
    }

    fn errcode(self) -> &'static str {
        if matches!(self, Self::TooLarge) { "M_TOO_LARGE" } else { "M_UNKNOWN" }
    }
}

#[test]
fn a_body_that_breaks_off_looks_whole_to_nobody() {
    let body = noisy_png(200, 250);
    let half = body.len() / 2;
    let (source, mediary, client) = start(SMALL);
    let sized = Failure::SIZED.map(|failure| (failure, true));
    let chunked = Failure::CHUNKED.map(|failure| (failure, false));
    let mut all_media = Vec::new();
    for (number, (failure, is_sized)) in sized.into_iter().chain(chunked).enumerate() {
        let case = format!("{failure:?}, sized: {is_sized}");
        let media = format!("other.example/m{number}");
        let begin = |token, fields| Follower::begin(&mediary, token, "GET", &path(&media), fields);
        let before = token_checks(&mediary);
        let early = begin(TOKEN, &[]);
        let early_thumbnail = Follower::thumbnail(&mediary, OTHER_TOKEN, &media);
        wait_for_token_checks(&mediary, before + 2);
        let mut asked = source.asked();
        let framing = &framings(body.len())[usize::from(!is_sized)];
        asked.begin(framing);
        asked.send(&body[..half]);
        let late = begin(OTHER_TOKEN, &[]);
        let there = begin(OTHER_TOKEN, &[("Range", "bytes=5-9")]);
        let suffix = begin(TOKEN, &[("Range", "bytes=-10")]);
        let open_end = begin(TOKEN, &[("Range", "bytes=9-")]);
        let mut followers = vec![early, late, suffix, open_end];
        for (follower, there) in followers.iter_mut().zip([half, half, 0, half - 9]) {
            follower.read(there);
        }
        // Of an announced size the head has been sent, of an unknown one it has not.
        let past_end = format!("bytes=9-{}", body.len());
        let mut last = Follower::range(&mediary, &media, &past_end);
        if is_sized {
            last.read(half - 9);
        }
        let late_thumbnail = Follower::thumbnail(&mediary, TOKEN, &media);
        wait_for_token_checks(&mediary, before + 8);
        assert_eq!(there.finish().body, body[5..10], "{case}");

        failure.strike(asked, &body[half..]);
        for (number, follower) in followers.into_iter().enumerate() {
            let answer = follower.finish();
            assert!(!answer.complete, "{case}: follower {number} looks whole");
            assert!([200, 206].contains(&answer.status), "{case}: {}", answer.status);
        }
        // A crowd that asks again makes no crowd of requests.
        let crowd: Vec<_> = (0..20)
            .map(|number| begin([TOKEN, OTHER_TOKEN][number % 2], &[]))
            .chain([Follower::thumbnail(&mediary, TOKEN, &media)])
            .collect();
        for answer in crowd.into_iter().map(Follower::finish) {
            answer.assert_error(502, failure.errcode());
        }
        let last = last.finish();
        if is_sized {
            assert_eq!((last.status, last.complete), (206, false), "{case}");
        } else {
            last.assert_error(502, failure.errcode());
        }
        for thumbnail in [early_thumbnail, late_thumbnail] {
            thumbnail.finish().assert_error(502, failure.errcode());
        }
        source.assert_not_asked();
        mediary.assert_nothing_kept();
        assert_eq!(source.times(&media), 1, "{case}");
        all_media.push((media, failure));
    }
    // A moment later it works again, but for what took its whole length to find out.
    source.answer_by_itself(&body);
    for (media, failure) in &all_media {
        if matches!(failure, Failure::TooLarge) {
            client.download(media).assert_error(502, "M_TOO_LARGE");
            assert_eq!(source.times(media), 1);
            continue;
        }
        wait_until("it is fetched again", || client.download(media).status == 200);
        client.download(media).assert_whole(&body);
        assert_eq!(source.times(media), 2);
    }
}

/// CS-DL-13, CS-TH-13, CS-LIM-03
#[test]
fn a_size_over_the_limit_is_refused_to_all_before_a_byte_is_sent() {
    let (source, mediary, client) = start(SMALL);
    let readers = [
        Follower::download(&mediary, TOKEN, REMOTE),
        Follower::download(&mediary, OTHER_TOKEN, REMOTE),
        Follower::range(&mediary, REMOTE, "bytes=0-9"),
        Follower::thumbnail(&mediary, OTHER_TOKEN, REMOTE),
    ];
    wait_for_token_checks(&mediary, readers.len());
    let mut asked = source.asked();
    asked.begin("Content-Length: 200001");
    for reader in readers {
        reader.finish().assert_error(502, "M_TOO_LARGE");
    }
    for _ in 0..20 {
        client.download(REMOTE).assert_error(502, "M_TOO_LARGE");
    }
    source.assert_not_asked();
    mediary.assert_nothing_kept();
    source.answer_by_itself(b"smaller");
    wait_until("it is fetched again", || client.download(REMOTE).status == 200);
    assert_eq!(client.download(REMOTE).text(), "smaller");
}

#[test]
fn a_body_that_cannot_be_kept_in_the_end_looks_whole_to_nobody() {
    let body = noise(100_000, 7);
    let (source, mediary, client) = start("");
    let database = rusqlite::Connection::open(mediary.store().join("mediary.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut followers = Vec::new();
    let mut refused = Vec::new();
    for (number, framing) in framings(body.len()).iter().enumerate() {
        let media = format!("other.example/m{number}");
        let follower = Follower::download(&mediary, TOKEN, &media);
        let mut asked = source.asked();
        asked.begin(framing);
        asked.send(&body[..50_000]);
        followers.push(follower);
        followers.push(Follower::range(&mediary, &media, "bytes=-10"));
        refused.push(Follower::thumbnail(&mediary, OTHER_TOKEN, &media));
        for follower in &mut followers {
            follower.head();
        }
        wait_for_token_checks(&mediary, followers.len() + refused.len());
        asked.send(&body[50_000..]);
        asked.end();
    }
    for follower in followers {
        let answer = follower.finish();
        assert!(!answer.complete, "{} with {} bytes", answer.status, answer.body.len());
    }
    for answer in refused.into_iter().map(Follower::finish) {
        answer.assert_error(503, "M_UNKNOWN");
    }
    assert!(mediary.unfinished().is_empty());
    database.execute_batch("ROLLBACK").unwrap();
    source.answer_by_itself(&body);
    wait_until("it is fetched again", || client.download("other.example/m0").status == 200);
    client.download("other.example/m0").assert_whole(&body);
}

#[test]
fn only_a_body_whose_end_can_be_told_is_kept() {
    for (framing, sent, is_kept) in [
        ("Transfer-Encoding: gzip, Chunked", "3\r\nabc\r\n0\r\n\r\n", true),
        ("Transfer-Encoding: x\r\nTransfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n", true),
        ("Transfer-Encoding: chunked\r\nContent-Length: 99", "3\r\nabc\r\n0\r\n\r\n", true),
        ("Content-Length: 3\r\nContent-Length: 3", "abc", true),
        ("Transfer-Encoding: identity", "abc", false),
        ("Transfer-Encoding: chunked, x", "abc", false),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", "abc", false),
    ] {
        let (source, mediary, _) = start("");
        let follower = Follower::download(&mediary, TOKEN, REMOTE);
        let mut asked = source.asked();
        asked.begin(framing);
        if !is_kept {
            // That it cannot be kept is seen by its head, and from then on each reader asks alone.
            drop(asked);
            asked = source.asked();
            asked.begin(framing);
        }
        asked.write(sent.as_bytes());
        drop(asked);
        follower.finish().assert_whole(b"abc");
        if is_kept {
            assert_kept_once(&source, &mediary, REMOTE, b"abc");
        } else {
            mediary.assert_nothing_kept();
        }
    }
}

#[test]
fn bytes_past_the_announced_end_are_nobodys() {
    let (source, mediary, client) = start("");
    let more = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for (number, (framing, sent)) in
        [("Content-Length: 3", "abc"), (CHUNKED, "3\r\nabc\r\n0\r\n\r\n")].iter().enumerate()
    {
        let media = format!("other.example/m{number}");
        let follower = Follower::download(&mediary, TOKEN, &media);
        let mut asked = source.asked();
        asked.begin(framing);
        asked.write(format!("{sent}{more}").as_bytes());
        asked.is_chunked = false;
        asked.end();
        follower.finish().assert_whole(b"abc");
        assert_kept_once(&source, &mediary, &media, b"abc");
        let next = Follower::download(&mediary, TOKEN, &format!("{media}-next"));
        source.asked().answer(200, &[], framing);
        assert_eq!(next.finish().text(), *framing);
        assert_eq!(client.download(&media).text(), "abc");
    }
}

#[test]
fn whoever_joins_while_it_ends_gets_all_of_it_or_sees_that_it_is_not_all() {
    let (source, mediary, _) = start("");
    for round in 0..24 {
        let body = noise([2, 20_000, 200_000][round % 3], round as u64);
        let (framing, is_good) = (&framings(body.len())[round % 2], round % 4 < 2);
        let media = format!("other.example/m{round}");
        let first = Follower::download(&mediary, TOKEN, &media);
        let mut asked = source.asked();
        asked.begin(framing);
        asked.send(&body[..body.len() - 1]);
        thread::scope(|scope| {
            let readers = [TOKEN, OTHER_TOKEN].map(|token| {
                let (mediary, media) = (&mediary, &media);
                let read = move || Follower::download(mediary, token, media).finish();
                scope.spawn(move || [0; 8].map(|_| read()))
            });
            if is_good {
                asked.send(&body[body.len() - 1..]);
                asked.end();
            } else {
                drop(asked);
            }
            let answers = readers.map(|reader| reader.join().expect("it reads"));
            for answer in answers.into_iter().flatten().chain([first.finish()]) {
                if is_good {
                    answer.assert_whole(&body);
                } else if answer.status == 200 {
                    assert!(!answer.complete, "{media} looks whole");
                } else {
                    answer.assert_error(502, "M_UNKNOWN");
                }
            }
        });
        assert_eq!(source.times(&media), 1, "{media}");
    }
}

// --- whose answer it is

#[test]
fn what_is_said_to_one_token_counts_for_that_one_only() {
    for (number, (status, body)) in [
        (401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"gone"}"#),
        (403, r#"{"errcode":"M_FORBIDDEN","error":"blocked"}"#),
        (429, r#"{"errcode":"M_LIMIT_EXCEEDED","error":"slower","retry_after_ms":7000}"#),
        (504, r#"{"errcode":"M_NOT_YET_UPLOADED","error":"later"}"#),
    ]
    .into_iter()
    .enumerate()
    {
        let (source, mediary, _) = start("");
        let media = [LOCAL, REMOTE][number % 2];
        let leader = Follower::download(&mediary, TOKEN, media);
        let first = source.asked();
        assert_eq!(first.bearer(), Some(TOKEN));
        let others = [0; 3].map(|_| Follower::download(&mediary, OTHER_TOKEN, media));
        wait_for_token_checks(&mediary, 4);
        // If they asked for themselves, that would come before what is asked for after them.
        let between = Follower::download(&mediary, OTHER_TOKEN, "other.example/between");
        let mut question = source.asked();
        assert!(question.request.target().contains("/between?"), "{:?}", question.request);
        question.begin("Content-Length: 5");
        question.send(b"other");
        question.end();
        between.finish().assert_whole(b"other");
        source.assert_not_asked();
        first.answer(status, &[("Retry-After", "7")], body);
        let refused = leader.finish();
        assert_eq!((refused.status, refused.text().as_str()), (status, body));
        assert_eq!(refused.header("retry-after"), Some("7"), "{status}");
        let mut second = source.asked();
        assert_eq!(second.bearer(), Some(OTHER_TOKEN));
        second.begin("Content-Length: 4");
        second.send(b"good");
        second.end();
        for other in others {
            other.finish().assert_whole(b"good");
        }
        assert_eq!(source.times(media), 2, "{status}");
        assert_kept_once(&source, &mediary, media, b"good");
    }
}

#[test]
fn what_is_said_of_the_media_counts_for_all() {
    for (status, body, told) in [
        (404, r#"{"errcode":"M_NOT_FOUND","error":"?"}"#, (404, "M_NOT_FOUND")),
        (400, r#"{"errcode":"M_UNKNOWN","error":"?"}"#, (404, "M_NOT_FOUND")),
        (502, r#"{"errcode":"M_TOO_LARGE","error":"?"}"#, (502, "M_TOO_LARGE")),
        (500, "", (502, "M_UNKNOWN")),
    ] {
        let (source, mediary, _) = start("");
        let readers = [
            Follower::download(&mediary, TOKEN, REMOTE),
            Follower::download(&mediary, OTHER_TOKEN, REMOTE),
            Follower::range(&mediary, REMOTE, "bytes=0-9"),
            Follower::thumbnail(&mediary, OTHER_TOKEN, REMOTE),
        ];
        wait_for_token_checks(&mediary, readers.len());
        source.asked().answer(status, &[], body);
        for reader in readers {
            reader.finish().assert_error(told.0, told.1);
        }
        assert_eq!(source.times(REMOTE), 1, "{status}");
        mediary.assert_nothing_kept();
    }
}

const NOT_FOUND: &str = r#"{"errcode":"M_NOT_FOUND","error":"Frozen"}"#;

/// CS-DL-04, CS-FRZ-03, CS-FRZ-06
#[test]
fn readers_without_a_token_see_nothing_of_what_a_token_fetches() {
    let body = noise(100_000, 8);
    let (source, mediary, _) = start("");
    let mut follower = Follower::download(&mediary, TOKEN, LOCAL);
    let mut asked = source.asked();
    asked.begin("Content-Length: 100000");
    asked.send(&body[..50_000]);
    follower.read(50_000);
    // They are told what the homeserver says to them, while the other is still reading.
    for target in [path(LOCAL), thumbnail_path(LOCAL)] {
        let target = target.replace("client/v1/media", "media/v3");
        let reader = Follower::begin(&mediary, "", "GET", &target, &[]);
        let question = source.asked();
        assert_eq!(question.bearer(), None);
        let expected = "/_matrix/media/v3/download/fake.example/local?allow_remote=false&";
        assert!(question.request.target().starts_with(expected), "{:?}", question.request);
        question.answer(404, &[], NOT_FOUND);
        reader.finish().assert_error(404, "M_NOT_FOUND");
    }
    asked.send(&body[50_000..]);
    asked.end();
    follower.finish().assert_whole(&body);
    let anybody = Follower::legacy(&mediary, LOCAL, "");
    source.asked().answer(404, &[], NOT_FOUND);
    anybody.finish().assert_error(404, "M_NOT_FOUND");
    assert_kept_once(&source, &mediary, LOCAL, &body);
}

#[test]
fn readers_without_a_token_share_what_the_homeserver_shows_them() {
    let (source, mediary, _) = start("");
    let readers = [0; 5].map(|_| Follower::legacy(&mediary, LOCAL, ""));
    wait_in_flight(&mediary, readers.len());
    let mut asked = source.asked();
    asked.begin(CHUNKED);
    asked.send(b"old");
    let mut late = Follower::legacy(&mediary, LOCAL, "");
    assert_eq!(late.read(3), b"old");
    // Who has a token asks with it.
    let user = Follower::download(&mediary, TOKEN, LOCAL);
    let question = source.asked();
    assert_eq!(question.bearer(), Some(TOKEN));
    question.answer(403, &[], r#"{"errcode":"M_FORBIDDEN","error":"not you"}"#);
    user.finish().assert_error(403, "M_FORBIDDEN");
    asked.send(b" media");
    asked.end();
    for reader in readers.into_iter().chain([late]) {
        reader.finish().assert_whole(b"old media");
    }
    assert_eq!(source.times(LOCAL), 2);
}

#[test]
fn frozen_media_stays_so_for_readers_who_waited_while_somebody_else_fetched_it() {
    let (source, mediary, client) = start("");
    let first = Follower::legacy(&mediary, LOCAL, "");
    let question = source.asked();
    let others = [0; 10].map(|_| Follower::legacy(&mediary, LOCAL, ""));
    wait_in_flight(&mediary, 11);
    source.answer_by_itself(b"secret");
    assert_eq!(client.download(LOCAL).text(), "secret");
    // They ask once more, and what a user has fetched meanwhile is none of their business.
    source.refuse_by_itself(404, NOT_FOUND.as_bytes());
    let slower = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"slower"}"#;
    question.answer(429, &[], slower);
    first.finish().assert_error(429, "M_LIMIT_EXCEEDED");
    for other in others {
        other.finish().assert_error(404, "M_NOT_FOUND");
    }
    let asked = source.fake.received_for("/_matrix/media/v3/download/");
    assert!(asked.len() > 1 && asked.iter().all(|it| it.header("authorization").is_none()));
}

/// CS-DL-04
#[test]
fn whether_other_servers_may_be_asked_is_passed_on_where_the_freeze_is_lifted() {
    let (source, mediary, _) = start("[legacy]\nmode = \"open\"");
    let closed = Follower::legacy(&mediary, REMOTE, "?allow_remote=false");
    let no = source.asked();
    assert!(no.request.target().contains("?allow_remote=false&"), "{:?}", no.request);
    // What is not to be fetched for one is not the answer for another.
    let open = Follower::legacy(&mediary, REMOTE, "");
    let mut yes = source.asked();
    assert!(yes.request.target().contains("?allow_remote=true&"), "{:?}", yes.request);
    assert_eq!((no.bearer(), yes.bearer()), (None, None));
    no.answer(404, &[], NOT_FOUND);
    closed.finish().assert_error(404, "M_NOT_FOUND");
    yes.begin(CHUNKED);
    yes.send(b"theirs");
    yes.end();
    open.finish().assert_whole(b"theirs");
    let kept = Follower::legacy(&mediary, REMOTE, "?allow_remote=false").finish();
    kept.assert_whole(b"theirs");
}

// --- limits

#[test]
fn a_fetch_that_is_one_too_many_waits_for_its_turn() {
    let (source, mediary, _) = start("[remote]\nmax_fetches = 1");
    let mut first = Follower::download(&mediary, TOKEN, "other.example/first");
    let mut asked = source.asked();
    asked.begin("Content-Length: 2");
    asked.send(b"1");
    first.read(1);
    let second = Follower::download(&mediary, TOKEN, "other.example/second");
    wait_for_token_checks(&mediary, 2);
    // By the time that this one reads what is there, the one before it would have asked.
    let mut joined = Follower::download(&mediary, OTHER_TOKEN, "other.example/first");
    joined.read(1);
    source.assert_not_asked();
    asked.send(b"1");
    asked.end();
    for follower in [first, joined] {
        follower.finish().assert_whole(b"11");
    }
    let mut asked = source.asked();
    assert!(asked.request.target().contains("/second?"), "{:?}", asked.request);
    asked.begin(CHUNKED);
    asked.send(b"2");
    asked.end();
    second.finish().assert_whole(b"2");
    for media in ["other.example/first", "other.example/second"] {
        assert_eq!(source.times(media), 1, "{media}");
    }
}

#[test]
fn unfinished_bodies_wait_for_room() {
    let body = noise(700_000, 9);
    let (source, mediary, _) = start("[remote]\nmax_unfinished = \"1 MiB\"");
    let mut first = Follower::download(&mediary, TOKEN, "other.example/first");
    let mut asked = source.asked();
    asked.begin("Content-Length: 700000");
    asked.send(&body[..10]);
    first.read(10);
    // What has room goes on.
    let small = Follower::download(&mediary, TOKEN, "other.example/small");
    let mut question = source.asked();
    question.begin("Content-Length: 4");
    question.send(b"tiny");
    question.end();
    small.finish().assert_whole(b"tiny");
    let second = Follower::download(&mediary, TOKEN, "other.example/second");
    let mut question = source.asked();
    question.begin("Content-Length: 700000");
    wait_for_token_checks(&mediary, 3);
    assert_eq!(fetches(&mediary), 1.0);
    asked.send(&body[10..]);
    asked.end();
    first.finish().assert_whole(&body);
    question.send(&body);
    question.end();
    second.finish().assert_whole(&body);
    assert_eq!(mediary.blobs().len(), 2);
}

/// CS-DL-14
#[test]
fn a_fetch_that_waits_for_too_long_is_told_to_come_later() {
    let limits = ["[remote]\nmax_fetches = 1", "[remote]\nmax_unfinished = \"1 MiB\""];
    thread::scope(|scope| {
        for limit in limits {
            scope.spawn(move || {
                let (source, mediary, client) = start(limit);
                let mut first = Follower::download(&mediary, TOKEN, "other.example/first");
                let mut asked = source.asked();
                asked.begin(CHUNKED);
                asked.send(b"1");
                first.read(1);
                let second = "other.example/second";
                let readers = [
                    Follower::download(&mediary, TOKEN, second),
                    Follower::download(&mediary, OTHER_TOKEN, second),
                    Follower::thumbnail(&mediary, OTHER_TOKEN, second),
                ];
                let question = limit.contains("max_unfinished").then(|| {
                    let mut question = source.asked();
                    question.begin(CHUNKED);
                    question
                });
                for reader in readers {
                    let answer = reader.finish();
                    answer.assert_error(429, "M_LIMIT_EXCEEDED");
                    assert!(answer.header("retry-after").is_some());
                }
                drop(question);
                source.assert_not_asked();
                asked.end();
                first.finish().assert_whole(b"1");
                source.answer_by_itself(b"2");
                assert_eq!(client.download(second).text(), "2");
            });
        }
    });
}

// --- the process ends

#[test]
fn nothing_of_a_body_stays_when_the_process_is_killed_while_it_arrives() {
    let body = noise(700_000, 10);
    for framing in framings(body.len()) {
        let (source, mediary, _) = start("");
        let mut follower = Follower::download(&mediary, TOKEN, REMOTE);
        let mut asked = source.asked();
        asked.begin(&framing);
        asked.send(&body[..600_000]);
        follower.read(600_000);
        assert_eq!(mediary.unfinished().len(), 1);
        let mediary = mediary.kill_and_restart();
        assert!(!follower.finish().complete, "{framing}");
        drop(asked);
        mediary.assert_nothing_kept();
        let client = mediary.client().with_token(TOKEN);
        source.answer_by_itself(&body);
        client.download(REMOTE).assert_whole(&body);
        assert_kept_once(&source, &mediary, REMOTE, &body);
        assert_eq!(source.times(REMOTE), 2, "{framing}");
    }
}

#[test]
fn followers_get_the_rest_when_the_process_is_told_to_stop() {
    let body = noise(300_000, 11);
    let (source, mut mediary, _) = start("[server]\nshutdown_timeout = \"1h\"");
    let mut followers: Vec<_> =
        [TOKEN, OTHER_TOKEN].map(|token| Follower::download(&mediary, token, REMOTE)).into();
    let mut asked = source.asked();
    asked.begin("Content-Length: 300000");
    asked.send(&body[..100_000]);
    followers.push(Follower::thumbnail(&mediary, TOKEN, REMOTE));
    for follower in &mut followers[..2] {
        follower.read(100_000);
    }
    wait_for_token_checks(&mediary, 3);
    mediary.terminate();
    mediary.wait_for_log("stopping; no new connections are taken");
    asked.send(&body[100_000..]);
    asked.end();
    let thumbnail = followers.pop().expect("three");
    for follower in followers {
        follower.finish().assert_whole(&body);
    }
    // It is no picture, which can only be said of the whole.
    thumbnail.finish().assert_error(400, "M_UNKNOWN");
    assert_eq!(mediary.wait().code(), Some(0));
    let mediary = mediary.kill_and_restart();
    assert_kept_once(&source, &mediary, REMOTE, &body);
}

#[test]
fn a_fetch_that_nobody_follows_does_not_keep_the_process() {
    let (source, mut mediary, _) = start("[server]\nshutdown_timeout = \"1h\"");
    let head = Follower::begin(&mediary, TOKEN, "HEAD", &path(REMOTE), &[]);
    let mut asked = source.asked();
    asked.begin("Content-Length: 100");
    asked.send(b"some");
    assert_eq!(head.finish().status, 200);
    mediary.terminate();
    assert_eq!(mediary.wait().code(), Some(0));
    mediary.kill_and_restart().assert_nothing_kept();
}

// --- a homeserver of the Conduit family

/// CS-DL-17, CS-HDR-01
#[test]
fn what_conduit_and_its_kin_answer_is_understood() {
    let body = noisy_png(100, 100);
    let (source, mediary, client) = start("");
    for (number, server_name) in [SERVER_NAME, "other.example"].into_iter().enumerate() {
        let media = format!("{server_name}/m{number}");
        let mut follower = Follower::download(&mediary, TOKEN, &media);
        let mut asked = source.asked();
        asked.is_chunked = true;
        asked.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: \r\ncontent-disposition: attachment\r\n\
              transfer-encoding: chunked\r\nx-content-type-options: nosniff\r\n\r\n",
        );
        for part in body.chunks(1_000) {
            asked.send(part);
            let read = follower.answer.body.len() + part.len();
            follower.read(read);
        }
        let mut thumbnail = Follower::thumbnail(&mediary, OTHER_TOKEN, &media);
        asked.end();
        assert_eq!(thumbnail.head().status, 200);
        let answer = follower.finish();
        answer.assert_whole(&body);
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.header("content-disposition"), Some("attachment"));
        let again = client.download(&media);
        assert_eq!(again.header("content-type"), Some("application/octet-stream"));
        assert_eq!(source.times(&media), 1);
    }
    let before = token_checks(&mediary);
    for (number, (status, body, told)) in [
        (
            400,
            r#"{"errcode":"M_UNKNOWN","error":"M_UNKNOWN: Unknown error when fetching file."}"#,
            (404, "M_NOT_FOUND"),
        ),
        (
            404,
            r#"{"errcode":"M_NOT_FOUND","error":"M_NOT_FOUND: Media not found."}"#,
            (404, "M_NOT_FOUND"),
        ),
        (
            404,
            r#"{"errcode":"M_UNKNOWN","error":"Answer from other.example: [404 / M_NOT_FOUND]"}"#,
            (404, "M_NOT_FOUND"),
        ),
        (
            500,
            r#"{"errcode":"M_UNKNOWN","error":"Could not connect to server."}"#,
            (502, "M_UNKNOWN"),
        ),
        (500, "", (502, "M_UNKNOWN")),
    ]
    .into_iter()
    .enumerate()
    {
        let media = format!("other.example/unknown{number}");
        let readers = [
            Follower::download(&mediary, TOKEN, &media),
            Follower::thumbnail(&mediary, OTHER_TOKEN, &media),
        ];
        wait_for_token_checks(&mediary, before + 2 * (number + 1));
        let mut asked = source.asked();
        asked.is_chunked = true;
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n"
        );
        asked.write(head.as_bytes());
        if !body.is_empty() {
            asked.send(body.as_bytes());
        }
        asked.end();
        for reader in readers {
            reader.finish().assert_error(told.0, told.1);
        }
    }
}

// --- a full disk

/// Starts Mediary with a store on a small disk of its own.
fn on_small_disk(source: &Source) -> Mediary {
    Settings::new(&source.fake.url).with("[storage]\nmemory = \"1 B\"").on_disk(4).start()
}

#[test]
fn a_body_that_fills_the_disk_breaks_off_and_then_passes_through() {
    let body = noise(6_000_000, 12);
    let source = Source::start();
    let mediary = on_small_disk(&source);
    let client = check_tokens(&mediary);
    let early = client.upload("text/plain", None, b"earlier media");
    let mut followers =
        [TOKEN, OTHER_TOKEN].map(|token| Follower::download(&mediary, token, REMOTE));
    let mut asked = source.asked();
    asked.begin(CHUNKED);
    asked.send(&body[..100_000]);
    for follower in &mut followers {
        follower.read(100_000);
    }
    let thumbnail = Follower::thumbnail(&mediary, TOKEN, REMOTE);
    wait_for_token_checks(&mediary, 3);
    // Mediary may hang up before it has read everything.
    let _ = asked.stream.write_all(&[b"700000\r\n", &noise(0x70_0000, 13)[..]].concat());
    for follower in followers {
        let answer = follower.finish();
        assert_eq!((answer.status, answer.complete), (200, false));
        assert!(answer.body.starts_with(&body[..100_000]));
    }
    drop(asked);
    thumbnail.finish().assert_error(507, "M_UNKNOWN");
    // For a while it is known that there is no room.
    let again = Follower::download(&mediary, TOKEN, REMOTE);
    assert_passes_through(source.asked(), CHUNKED, again, &body);
    assert_room_for_little(&source, &mediary, &early);
}

#[test]
fn a_body_that_announces_more_than_the_disk_has_room_for_passes_through() {
    let body = noise(6_000_000, 14);
    let source = Source::start();
    let mediary = on_small_disk(&source);
    let client = check_tokens(&mediary);
    let early = client.upload("text/plain", None, b"earlier media");
    let thumbnail = Follower::thumbnail(&mediary, OTHER_TOKEN, LOCAL);
    let mut asked = source.asked();
    let follower = Follower::download(&mediary, TOKEN, LOCAL);
    wait_for_token_checks(&mediary, 2);
    let framing = format!("Content-Length: {}", body.len());
    asked.begin(&framing);
    // It is known from the head, and from then on each reader asks alone.
    assert_passes_through(source.asked(), &framing, follower, &body);
    drop(asked);
    thumbnail.finish().assert_error(507, "M_UNKNOWN");
    assert_room_for_little(&source, &mediary, &early);
}

/// Answers with a body and asserts that all of it reaches the reader.
fn assert_passes_through(mut asked: Asked, framing: &str, reader: Follower, body: &[u8]) {
    thread::scope(|scope| {
        let reader = scope.spawn(|| reader.finish());
        asked.begin(framing);
        asked.send(body);
        asked.end();
        reader.join().expect("it reads").assert_whole(body);
    });
}

/// Asserts that nothing but one upload is on the small disk, and that what is small is taken in.
fn assert_room_for_little(source: &Source, mediary: &Mediary, early: &str) {
    let store = mediary.mounted_store();
    wait_until("nothing is left", || files_below(&store.join("tmp")).is_empty());
    assert_eq!(files_below(&store.join("blobs")).len(), 1);
    let client = mediary.client().with_token(TOKEN);
    let large = noise(6_000_000, 15);
    let refused = client.request("POST", "/_matrix/media/v3/upload", &[], &large);
    refused.assert_error(507, "M_UNKNOWN");
    assert_eq!(client.download(early).text(), "earlier media");
    let small = "other.example/small";
    for framing in framings(100_000) {
        let media = format!("{small}-{}", framing.len());
        let follower = Follower::download(mediary, TOKEN, &media);
        let mut asked = source.asked();
        asked.begin(&framing);
        asked.send(&large[..100_000]);
        asked.end();
        follower.finish().assert_whole(&large[..100_000]);
        client.download(&media).assert_whole(&large[..100_000]);
        assert_eq!(source.times(&media), 1);
    }
    client.upload("text/plain", None, b"later media");
}
