//! Readers of an id whose content is still to come: they wait, they follow the upload while it
//! arrives, and no wait is without bounds (CS-DL-08 to CS-DL-11, CS-TH-20). The homeserver needs to
//! know nothing of it.

mod common;

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use common::fake::{FakeHomeserver, Received, respond};
use common::http::{Answer, Client, Connection, chunk};
use common::samples::png;
use common::{Mediary, PATIENCE, Settings, Synapse, noise, wait_until};

const UPLOAD: &str = "/_matrix/media/v3/upload";
const DOWNLOAD: &str = "/_matrix/client/v1/media/download";
const THUMBNAIL: &str = "/_matrix/client/v1/media/thumbnail";
const SMALL: &str = "width=32&height=32&method=crop";

const LARGE: usize = 3_000_001;

const WAITING: &str = "mediary_waiting_readers";

/// What a Conduit says of a local id that it does not know, and what its descendants say (FLD-19).
const NOT_FOUND: (u16, &str) = (404, r#"{"errcode":"M_NOT_FOUND","error":"Media not found."}"#);
const UNKNOWN: (u16, &str) =
    (400, r#"{"errcode":"M_UNKNOWN","error":"Unknown error when fetching file."}"#);

/// A homeserver like Conduit: any token `syt_NAME` is that of `@NAME:fake.example`, and there are no
/// asynchronous uploads.
fn conduit(unknown: (u16, &'static str)) -> FakeHomeserver {
    FakeHomeserver::with(move |request: &Received, stream: &mut TcpStream| {
        let target = request.target();
        let name = request.header("authorization").and_then(|it| it.strip_prefix("Bearer syt_"));
        match name {
            Some(name) if target.contains("/whoami") => {
                let user = format!(r#"{{"user_id":"@{name}:fake.example","device_id":"D"}}"#);
                Some(respond(stream, 200, &user))
            }
            _ if ["POST", "PUT"].contains(&request.method.as_str()) => {
                let error = r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized"}"#;
                Some(respond(stream, 404, error))
            }
            _ if target.starts_with("/_matrix/client/v1/media/") => {
                Some(respond(stream, unknown.0, unknown.1))
            }
            _ => None,
        }
    })
}

/// Mediary in front of a homeserver with two users.
struct Site {
    mediary: Mediary,
    alices_token: String,
    bobs_token: String,
    /// Kept for its end: a Synapse of our own stops when it is dropped.
    _synapse: Option<Synapse>,
}

impl Site {
    /// In front of Synapse, of Conduit and of one of its descendants.
    fn each() -> impl Iterator<Item = Self> {
        let conduits = [NOT_FOUND, UNKNOWN].map(|unknown| move || Self::with(unknown, ""));
        let synapse: Box<dyn FnOnce() -> Self> = Box::new(|| {
            let synapse = Synapse::get();
            let [alice, bob] = [(); 2].map(|()| synapse.user().access_token);
            Self {
                mediary: Mediary::in_front_of(&synapse.url),
                alices_token: alice,
                bobs_token: bob,
                _synapse: Some(synapse),
            }
        });
        let [first, second] = conduits;
        [synapse, Box::new(first), Box::new(second)].into_iter().map(|make| make())
    }

    fn new() -> Self {
        Self::with(NOT_FOUND, "")
    }

    fn with(unknown: (u16, &'static str), settings: &str) -> Self {
        Self::in_front_of(&conduit(unknown), settings)
    }

    fn in_front_of(homeserver: &FakeHomeserver, settings: &str) -> Self {
        Self {
            mediary: Settings::new(&homeserver.url).with(settings).start(),
            alices_token: "syt_alice".to_owned(),
            bobs_token: "syt_bob".to_owned(),
            _synapse: None,
        }
    }

    fn alice(&self) -> Client {
        self.mediary.client().with_token(&self.alices_token)
    }

    fn bob(&self) -> Client {
        self.mediary.client().with_token(&self.bobs_token)
    }

    /// Gives Alice a new id; returns what is behind `mxc://`.
    fn create(&self) -> String {
        self.alice().create().media()
    }

    /// Uploads in one go.
    fn put(&self, media: &str, content_type: &str, body: &[u8]) -> Answer {
        self.alice().put(media, content_type, body)
    }

    /// Sends a request with Bob's token, whose answer is read later.
    fn ask(&self, target: &str) -> Connection {
        self.ask_as(&self.bobs_token, target)
    }

    fn ask_as(&self, token: &str, target: &str) -> Connection {
        self.send("GET", target, &format!("Authorization: Bearer {token}\r\n"))
    }

    fn send(&self, method: &str, target: &str, fields: &str) -> Connection {
        let mut connection = self.mediary.client().connect();
        let request = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        connection.send(request.as_bytes());
        connection
    }

    fn waiting(&self) -> f64 {
        self.mediary.metric(WAITING)
    }

    fn wait_for_readers(&self, count: usize) {
        wait_until(&format!("{count} readers wait"), || self.waiting() == count as f64);
    }

    fn wait_for_upload(&self) {
        wait_until("the upload has begun", || !self.mediary.unfinished().is_empty());
    }
}

/// How an upload says where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Sized,
    Chunked,
}

const BOTH: [Framing; 2] = [Framing::Sized, Framing::Chunked];

/// An upload that the test sends piece by piece.
struct Upload {
    connection: Connection,
    framing: Framing,
}

impl Upload {
    /// Sends the head of an upload by Alice of so many bytes.
    fn begin(site: &Site, media: &str, framing: Framing, length: usize) -> Self {
        Self::send_head(site, media, framing, length, "")
    }

    /// Begins anew after an upload that broke off, as soon as Mediary has noticed that.
    fn begin_again(site: &Site, media: &str, framing: Framing, length: usize) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let expect = "Expect: 100-continue\r\n";
            let mut upload = Self::send_head(site, media, framing, length, expect);
            match upload.connection.read_any_answer("PUT").status {
                100 => return upload,
                409 => assert!(Instant::now() < deadline, "the first upload stays"),
                other => panic!("{other}"),
            }
        }
    }

    fn send_head(site: &Site, media: &str, framing: Framing, length: usize, more: &str) -> Self {
        let framed = match framing {
            Framing::Sized => format!("Content-Length: {length}"),
            Framing::Chunked => "Transfer-Encoding: chunked".to_owned(),
        };
        let mut connection = site.mediary.client().connect();
        let head = format!(
            "PUT {UPLOAD}/{media}?filename=a.mp4 HTTP/1.1\r\nHost: a\r\nContent-Type: video/mp4\r\n\
             Authorization: Bearer {}\r\n{framed}\r\n{more}\r\n",
            site.alices_token
        );
        connection.send(head.as_bytes());
        Self { connection, framing }
    }

    fn send(&mut self, piece: &[u8]) {
        match self.framing {
            Framing::Sized => self.connection.send(piece),
            Framing::Chunked => self.connection.send(&chunk(piece)),
        }
    }

    /// Ends the body and returns the answer.
    fn end(mut self) -> Answer {
        if self.framing == Framing::Chunked {
            self.connection.send(b"0\r\n\r\n");
        }
        self.connection.read_answer("PUT")
    }

    fn finish(self) {
        self.end().assert_stored();
    }
}

fn assert_broken_off(mut reader: Connection, mut answer: Answer, body: &[u8]) {
    reader.read_rest("GET", &mut answer);
    assert!(!answer.complete, "a body that broke off looks whole");
    assert!(body.starts_with(&answer.body), "not what was uploaded");
}

/// Reads the head of an answer and the first bytes of its body.
fn read_start(reader: &mut Connection, start: &[u8]) -> Answer {
    let mut answer = reader.read_head();
    assert_eq!(answer.status, 200, "{answer:?}");
    reader.read_up_to(start.len(), &mut answer);
    assert!(answer.body == start, "{} bytes instead of {}", answer.body.len(), start.len());
    answer
}

// --- following

#[test]
fn a_reader_waits_for_the_first_bytes_and_gets_the_rest_as_it_comes() {
    for site in Site::each() {
        for framing in BOTH {
            let media = site.create();
            let body = noise(LARGE, 1);
            let target = format!("{DOWNLOAD}/{media}");
            let mut early = site.ask(&target);
            site.wait_for_readers(1);
            let mut upload = Upload::begin(&site, &media, framing, LARGE);
            site.wait_for_upload();
            assert_eq!(site.waiting(), 1.0, "there is no byte to be had");

            upload.send(&body[..1000]);
            let mut answer = read_start(&mut early, &body[..1000]);
            assert_eq!(answer.header("content-type"), Some("video/mp4"));
            assert_eq!(answer.header("content-disposition"), Some("inline; filename=a.mp4"));
            let length = LARGE.to_string();
            let known = (framing == Framing::Sized).then_some(length.as_str());
            assert_eq!(answer.header("content-length"), known);
            assert_eq!(answer.header("etag"), None, "nobody knows the content yet");
            site.wait_for_readers(0);

            upload.send(&body[1000..200_000]);
            early.read_up_to(200_000, &mut answer);
            assert!(answer.body == body[..200_000]);
            let mut late = site.ask(&target);
            let mut second = read_start(&mut late, &body[..200_000]);

            upload.send(&body[200_000..]);
            upload.finish();
            for (reader, answer) in [(&mut early, &mut answer), (&mut late, &mut second)] {
                reader.read_rest("GET", answer);
                answer.assert_whole(&body);
            }
            site.bob().download(&media).assert_whole(&body);
        }
    }
}

#[test]
fn a_hundred_readers_follow_one_upload() {
    let site = Site::new();
    for framing in BOTH {
        let media = site.create();
        let body = noise(1_000_001, 2);
        let target = format!("{DOWNLOAD}/{media}");
        let ask = |number| site.ask_as(&format!("syt_user{}", number % 4), &target);
        let readers: Vec<Connection> = (0..100).map(ask).collect();
        site.wait_for_readers(100);
        thread::scope(|scope| {
            for mut reader in readers {
                let body = &body;
                scope.spawn(move || reader.read_answer("GET").assert_whole(body));
            }
            let mut upload = Upload::begin(&site, &media, framing, body.len());
            for piece in body.chunks(70_000) {
                upload.send(piece);
            }
            upload.finish();
        });
        assert_eq!(site.waiting(), 0.0);
    }
}

#[test]
fn a_reader_that_takes_nothing_holds_neither_the_uploader_nor_others_up() {
    let site = Site::new();
    // More than the sockets between hold.
    let body = noise(30_000_000, 3);
    for framing in BOTH {
        let media = site.create();
        let target = format!("{DOWNLOAD}/{media}");
        let mut upload = Upload::begin(&site, &media, framing, body.len());
        upload.send(&body[..1000]);
        let mut slow = site.ask(&target);
        let mut answer = read_start(&mut slow, &body[..1000]);
        let mut leaving = site.ask(&target);
        read_start(&mut leaving, &body[..1000]);
        drop(leaving);
        upload.send(&body[1000..]);
        upload.finish();
        site.bob().download(&media).assert_whole(&body);
        slow.read_rest("GET", &mut answer);
        answer.assert_whole(&body);
    }
}

#[test]
fn what_a_follower_saw_the_end_of_survives_a_kill() {
    let mut site = Site::new();
    for round in 0..3 {
        for framing in BOTH {
            let media = site.create();
            let body = noise(300_001, 10 + round);
            let mut reader = site.ask(&format!("{DOWNLOAD}/{media}"));
            site.wait_for_readers(1);
            let mut upload = Upload::begin(&site, &media, framing, body.len());
            upload.send(&body);
            if framing == Framing::Chunked {
                upload.connection.send(b"0\r\n\r\n");
            }
            let answer = reader.read_answer("GET");
            site.mediary = site.mediary.kill_and_restart();
            answer.assert_whole(&body);
            site.bob().download(&media).assert_whole(&body);
        }
    }
}

#[test]
fn two_uploads_of_one_content_are_followed_alike() {
    let site = Site::new();
    let body = noise(300_001, 4);
    let [first, second] = [(); 2].map(|()| site.create());
    let mut uploads = [&first, &second].map(|media| {
        let mut upload = Upload::begin(&site, media, Framing::Sized, body.len());
        upload.send(&body[..1000]);
        upload
    });
    let mut readers = [&first, &second].map(|media| {
        let mut reader = site.ask(&format!("{DOWNLOAD}/{media}"));
        (read_start(&mut reader, &body[..1000]), reader)
    });
    for upload in &mut uploads {
        upload.send(&body[1000..]);
    }
    for upload in uploads {
        upload.finish();
    }
    for (answer, reader) in &mut readers {
        reader.read_rest("GET", answer);
        answer.assert_whole(&body);
    }
    assert_eq!(site.mediary.blobs().len(), 1);
}

#[test]
fn of_two_racing_uploads_readers_see_one_whole() {
    let site = Site::new();
    let bodies = [noise(200_001, 5), noise(250_001, 6)];
    for _ in 0..10 {
        let media = site.create();
        let readers: Vec<Connection> =
            (0..4).map(|_| site.ask(&format!("{DOWNLOAD}/{media}"))).collect();
        site.wait_for_readers(4);
        let answers = thread::scope(|scope| {
            let (site, media) = (&site, &media);
            let race = bodies.each_ref().map(|body| scope.spawn(|| site.put(media, "a/b", body)));
            race.map(|racer| racer.join().expect("an answer"))
        });
        let winner = answers.iter().position(|answer| answer.status == 200).expect("a winner");
        answers[1 - winner].assert_error(409, "M_CANNOT_OVERWRITE_MEDIA");
        for mut reader in readers {
            reader.read_answer("GET").assert_whole(&bodies[winner]);
        }
    }
}

#[test]
fn an_upload_of_no_bytes_ends_every_wait() {
    let site = Site::new();
    for framing in BOTH {
        let media = site.create();
        let bearing = format!("Authorization: Bearer {}\r\n", site.bobs_token);
        let mut reader = site.ask(&format!("{DOWNLOAD}/{media}"));
        let mut head = site.send("HEAD", &format!("{DOWNLOAD}/{media}"), &bearing);
        let mut thumbnail = site.ask(&format!("{THUMBNAIL}/{media}?{SMALL}"));
        site.wait_for_readers(3);
        Upload::begin(&site, &media, framing, 0).finish();
        reader.read_answer("GET").assert_whole(b"");
        assert_eq!(head.read_answer("HEAD").status, 200);
        thumbnail.read_answer("GET").assert_error(400, "M_UNKNOWN");
        site.bob().download(&media).assert_whole(b"");
    }
}

#[test]
fn an_uploader_that_waits_to_be_told_is_told_although_readers_wait() {
    let site = Site::new();
    let media = site.create();
    let mut reader = site.ask(&format!("{DOWNLOAD}/{media}"));
    site.wait_for_readers(1);
    let mut upload = Upload::begin_again(&site, &media, Framing::Sized, 4);
    assert_eq!(site.waiting(), 1.0);
    upload.send(b"body");
    upload.finish();
    reader.read_answer("GET").assert_whole(b"body");
}

#[test]
fn an_id_waits_for_its_content_across_a_restart() {
    for mut site in Site::each() {
        let media = site.create();
        site.mediary = site.mediary.kill_and_restart();
        let mut reader = site.ask(&format!("{DOWNLOAD}/{media}"));
        site.wait_for_readers(1);
        site.put(&media, "text/plain", b"after the restart").assert_stored();
        reader.read_answer("GET").assert_whole(b"after the restart");
    }
}

// --- the time to wait

/// CS-DL-08, CS-DL-10, CS-TH-20, FLD-32
#[test]
fn without_patience_the_answer_is_at_once_that_nothing_is_uploaded_yet() {
    for site in Site::each() {
        let media = site.create();
        let begun = Instant::now();
        for target in [
            format!("{DOWNLOAD}/{media}?timeout_ms=0"),
            format!("{DOWNLOAD}/{media}/name.png?timeout_ms=0"),
            format!("{THUMBNAIL}/{media}?{SMALL}&timeout_ms=0"),
            format!("{DOWNLOAD}/{media}?timeout_ms=0&fi.mau.msc2246.timeout_ms=20000"),
        ] {
            site.bob().get(&target).assert_error(504, "M_NOT_YET_UPLOADED");
            let head = site.bob().request("HEAD", &target, &[], b"");
            assert_eq!((head.status, head.complete), (504, true));
        }
        for route in [format!("{DOWNLOAD}/{media}?"), format!("{THUMBNAIL}/{media}?{SMALL}&")] {
            let answer = site.bob().get(&format!("{route}fi.mau.msc2246.timeout_ms=0"));
            answer.assert_error(504, "FI.MAU.MSC2246_NOT_YET_UPLOADED");
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "somebody has waited");
        site.put(&media, "text/plain", b"body").assert_stored();
        let target = format!("{DOWNLOAD}/{media}?timeout_ms=0");
        site.bob().get(&target).assert_whole(b"body");
    }
}

/// CS-DL-08
#[test]
fn without_patience_an_upload_under_way_is_followed_all_the_same() {
    let site = Site::new();
    let media = site.create();
    let mut upload = Upload::begin(&site, &media, Framing::Sized, 10);
    upload.send(b"first");
    let patient = read_start(&mut site.ask(&format!("{DOWNLOAD}/{media}")), b"first");
    assert!(!patient.complete);
    let mut reader = site.ask(&format!("{DOWNLOAD}/{media}?timeout_ms=0"));
    let mut answer = read_start(&mut reader, b"first");
    upload.send(b"later");
    upload.finish();
    reader.read_rest("GET", &mut answer);
    answer.assert_whole(b"firstlater");
}

/// CS-DL-08, CS-DL-10
#[test]
fn a_reader_waits_as_long_as_it_says() {
    for site in Site::each() {
        let media = site.create();
        let bob = site.bob();
        // Who he is has to be asked first, which takes time of its own.
        bob.get(&format!("{DOWNLOAD}/{media}?timeout_ms=0"));
        for (parameter, errcode) in [
            ("timeout_ms", "M_NOT_YET_UPLOADED"),
            ("fi.mau.msc2246.timeout_ms", "FI.MAU.MSC2246_NOT_YET_UPLOADED"),
        ] {
            let begun = Instant::now();
            let answer = bob.get(&format!("{DOWNLOAD}/{media}?{parameter}=700"));
            let waited = begun.elapsed();
            answer.assert_error(504, errcode);
            assert!((700..10_000).contains(&waited.as_millis()), "{waited:?}");
        }
        // A connection that has waited in vain is as good as any.
        let mut connection = site.ask(&format!("{DOWNLOAD}/{media}?timeout_ms=1"));
        assert_eq!(connection.read_answer("GET").status, 504);
        let head = format!("Host: a\r\nAuthorization: Bearer {}\r\n\r\n", site.bobs_token);
        connection.send(format!("GET {DOWNLOAD}/{media} HTTP/1.1\r\n{head}").as_bytes());
        site.wait_for_readers(1);
        site.put(&media, "text/plain", b"body").assert_stored();
        connection.read_answer("GET").assert_whole(b"body");
    }
}

/// CS-DL-08
#[test]
fn a_time_that_makes_no_sense_is_the_default() {
    let site = Site::new();
    let media = site.create();
    let values = ["", "x", "-1", "0.5", "1e3", "%20", "99999999999999999999999999"];
    let mut readers: Vec<Connection> =
        values.iter().map(|it| site.ask(&format!("{DOWNLOAD}/{media}?timeout_ms={it}"))).collect();
    site.wait_for_readers(values.len());
    site.put(&media, "text/plain", b"body").assert_stored();
    for reader in &mut readers {
        reader.read_answer("GET").assert_whole(b"body");
    }
}

#[test]
fn an_uploader_that_sends_nothing_is_waited_for_like_one_that_has_not_come() {
    let site = Site::new();
    let media = site.create();
    let mut upload = Upload::begin(&site, &media, Framing::Sized, 4);
    site.wait_for_upload();
    let target = format!("{DOWNLOAD}/{media}?timeout_ms=300");
    site.bob().get(&target).assert_error(504, "M_NOT_YET_UPLOADED");
    let mut reader = site.ask(&format!("{DOWNLOAD}/{media}"));
    site.wait_for_readers(1);
    site.put(&media, "text/plain", b"x").assert_error(409, "M_CANNOT_OVERWRITE_MEDIA");
    assert_eq!(site.waiting(), 1.0);
    upload.send(b"body");
    upload.finish();
    reader.read_answer("GET").assert_whole(b"body");
}

/// CS-DL-11, CS-TH-20
#[test]
fn an_id_that_expires_is_not_found_from_then_on() {
    for unknown in [NOT_FOUND, UNKNOWN] {
        let site = Site::with(unknown, "[uploads]\nunused_expiry = \"1s\"");
        let media = site.create();
        let begun = Instant::now();
        let mut thumbnail = site.ask(&format!("{THUMBNAIL}/{media}?{SMALL}&timeout_ms=60000"));
        let mut early = site.ask(&format!("{DOWNLOAD}/{media}?timeout_ms=60000"));
        early.read_answer("GET").assert_error(404, "M_NOT_FOUND");
        thumbnail.read_answer("GET").assert_error(404, "M_NOT_FOUND");
        let late = site.bob().get(&format!("{DOWNLOAD}/{media}?timeout_ms=60000"));
        late.assert_error(404, "M_NOT_FOUND");
        assert!(begun.elapsed() < Duration::from_secs(15), "somebody has waited for nothing");
        assert_eq!(site.waiting(), 0.0);
    }
}

/// CS-PUT-06
#[test]
fn an_upload_that_began_in_time_is_followed_past_the_expiry() {
    let site = Site::with(NOT_FOUND, "[uploads]\nunused_expiry = \"2s\"");
    let media = site.create();
    let mut upload = Upload::begin(&site, &media, Framing::Chunked, 0);
    upload.send(b"begun");
    let mut reader = site.ask(&format!("{DOWNLOAD}/{media}"));
    let mut answer = read_start(&mut reader, b"begun");
    // Another id, given out later, has expired: so has this one.
    let later = site.create();
    site.bob().get(&format!("{DOWNLOAD}/{later}")).assert_error(404, "M_NOT_FOUND");
    let mut late = site.ask(&format!("{DOWNLOAD}/{media}"));
    let mut second = read_start(&mut late, b"begun");
    upload.send(b" and ended");
    upload.finish();
    for (reader, answer) in [(&mut reader, &mut answer), (&mut late, &mut second)] {
        reader.read_rest("GET", answer);
        answer.assert_whole(b"begun and ended");
    }
}

#[test]
fn ids_that_were_never_given_out_are_the_homeservers_to_answer_for() {
    for unknown in [NOT_FOUND, UNKNOWN] {
        let homeserver = conduit(unknown);
        let site = Site::in_front_of(&homeserver, "");
        let begun = Instant::now();
        let never = "fake.example/never";
        for target in [
            format!("{DOWNLOAD}/{never}?timeout_ms=50001"),
            format!("{THUMBNAIL}/{never}?{SMALL}&timeout_ms=50001"),
        ] {
            site.bob().get(&target).assert_error(404, "M_NOT_FOUND");
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "somebody has waited for nothing");
        let asked = homeserver.received_for("/media/");
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert!(asked.iter().all(|it| it.target().ends_with("never?timeout_ms=50001")));
        // What was given out is none of its business.
        let media = site.create();
        site.bob().get(&format!("{DOWNLOAD}/{media}?timeout_ms=0"));
        site.put(&media, "text/plain", b"body").assert_stored();
        site.bob().download(&media).assert_whole(b"body");
        assert_eq!(homeserver.received_for("/media/").len(), 2);
    }
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let bob = mediary.client_of(&synapse.user());
    let target = format!("{DOWNLOAD}/{}/never?timeout_ms=50000", synapse.server_name);
    bob.get(&target).assert_error(404, "M_NOT_FOUND");
}

// --- uploads that fail

#[test]
fn an_upload_that_breaks_off_breaks_what_follows_it_and_may_be_repeated() {
    for site in Site::each() {
        for framing in BOTH {
            let media = site.create();
            let target = format!("{DOWNLOAD}/{media}");
            let body = noise(500_001, 7);
            let mut upload = Upload::begin(&site, &media, framing, body.len());
            upload.send(&body[..200_000]);
            let mut followers = [(); 2].map(|()| site.ask(&target));
            let answers = followers.each_mut().map(|it| read_start(it, &body[..200_000]));
            drop(upload);
            for (follower, answer) in followers.into_iter().zip(answers) {
                assert_broken_off(follower, answer, &body);
            }
            let mut patient = site.ask(&target);
            site.wait_for_readers(1);
            let again = noise(400_001, 8);
            let mut upload = Upload::begin_again(&site, &media, framing, again.len());
            upload.send(&again);
            upload.finish();
            patient.read_answer("GET").assert_whole(&again);
            site.bob().download(&media).assert_whole(&again);
        }
        assert!(site.mediary.unfinished().is_empty());
    }
}

#[test]
fn who_has_seen_nothing_of_a_broken_upload_waits_for_the_next() {
    for site in Site::each() {
        for framing in BOTH {
            let media = site.create();
            let target = format!("{DOWNLOAD}/{media}");
            let mut reader = site.ask(&target);
            let mut thumbnail = site.ask(&format!("{THUMBNAIL}/{media}?{SMALL}"));
            site.wait_for_readers(2);
            for _ in 0..3 {
                drop(Upload::begin_again(&site, &media, framing, 100));
            }
            let body = png(200, 100);
            let mut upload = Upload::begin_again(&site, &media, framing, body.len());
            assert_eq!(site.waiting(), 2.0);
            upload.send(&body);
            upload.finish();
            reader.read_answer("GET").assert_whole(&body);
            assert_eq!(thumbnail.read_answer("GET").status, 200);
        }
    }
}

#[test]
fn an_upload_that_grows_too_large_breaks_what_follows_it_and_may_be_repeated() {
    let site = Site::with(NOT_FOUND, "[uploads]\nmax_size = \"100000 B\"");
    let media = site.create();
    let target = format!("{DOWNLOAD}/{media}");
    let body = noise(200_000, 9);
    // What says that it is too large never begins.
    let mut patient = site.ask(&target);
    site.wait_for_readers(1);
    let refused = Upload::begin(&site, &media, Framing::Sized, body.len()).end();
    refused.assert_error(413, "M_TOO_LARGE");
    assert_eq!(site.waiting(), 1.0);

    let mut upload = Upload::begin(&site, &media, Framing::Chunked, 0);
    upload.send(&body[..90_000]);
    let answer = read_start(&mut patient, &body[..90_000]);
    upload.send(&body[90_000..]);
    upload.end().assert_error(413, "M_TOO_LARGE");
    assert_broken_off(patient, answer, &body);

    let mut patient = site.ask(&target);
    site.wait_for_readers(1);
    site.put(&media, "text/plain", &body[..100_000]).assert_stored();
    patient.read_answer("GET").assert_whole(&body[..100_000]);
}

#[test]
fn an_upload_by_somebody_else_ends_no_wait() {
    for site in Site::each() {
        let media = site.create();
        let mut reader = site.ask(&format!("{DOWNLOAD}/{media}"));
        site.wait_for_readers(1);
        let target = format!("{UPLOAD}/{media}");
        site.bob().request("PUT", &target, &[], b"his").assert_error(403, "M_FORBIDDEN");
        assert_eq!(site.mediary.client().request("PUT", &target, &[], b"anybody's").status, 401);
        assert_eq!(site.waiting(), 1.0);
        site.put(&media, "text/plain", b"hers").assert_stored();
        reader.read_answer("GET").assert_whole(b"hers");
    }
}

// --- thumbnails

/// CS-TH-20
#[test]
fn a_thumbnail_waits_for_the_whole_picture() {
    for site in Site::each() {
        for framing in BOTH {
            let media = site.create();
            let target = format!("{THUMBNAIL}/{media}?{SMALL}");
            let mut early = site.ask(&target);
            site.wait_for_readers(1);
            let body = png(400, 300);
            let mut upload = Upload::begin(&site, &media, framing, body.len());
            upload.send(&body[..100]);
            let mut download = site.ask(&format!("{DOWNLOAD}/{media}"));
            read_start(&mut download, &body[..100]);
            let mut late = site.ask(&target);
            upload.send(&body[100..]);
            upload.finish();
            let kept = site.bob().get(&target);
            assert!(kept.header("etag").is_some());
            for answer in [early.read_answer("GET"), late.read_answer("GET")] {
                answer.assert_whole(&kept.body);
                assert_eq!(answer.header("etag"), kept.header("etag"));
            }
            let picture = image::load_from_memory(&kept.body).expect("a picture");
            assert_eq!((picture.width(), picture.height()), (32, 32));
        }
    }
}

#[test]
fn a_thumbnail_of_an_upload_that_fails_is_of_something_not_uploaded_yet() {
    for site in Site::each() {
        for framing in BOTH {
            let media = site.create();
            let mut early = site.ask(&format!("{THUMBNAIL}/{media}?{SMALL}"));
            site.wait_for_readers(1);
            let body = png(400, 300);
            let mut upload = Upload::begin(&site, &media, framing, body.len());
            upload.send(&body[..100]);
            site.wait_for_readers(0);
            drop(upload);
            early.read_answer("GET").assert_error(504, "M_NOT_YET_UPLOADED");
            let mut patient = site.ask(&format!("{THUMBNAIL}/{media}?{SMALL}"));
            site.wait_for_readers(1);
            let mut upload = Upload::begin_again(&site, &media, framing, body.len());
            upload.send(&body);
            upload.finish();
            assert_eq!(patient.read_answer("GET").status, 200);
        }
    }
}

/// CS-TH-20
#[test]
fn a_thumbnail_waits_for_a_slow_upload_no_longer_than_it_says() {
    let site = Site::new();
    for framing in BOTH {
        let media = site.create();
        let body = png(400, 300);
        let mut upload = Upload::begin(&site, &media, framing, body.len());
        upload.send(&body[..100]);
        read_start(&mut site.ask(&format!("{DOWNLOAD}/{media}")), &body[..100]);
        let begun = Instant::now();
        let target = format!("{THUMBNAIL}/{media}?{SMALL}&timeout_ms=500");
        site.bob().get(&target).assert_error(504, "M_NOT_YET_UPLOADED");
        assert!((500..10_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        upload.send(&body[100..]);
        upload.finish();
        assert_eq!(site.bob().get(&target).status, 200);
    }
}

#[test]
fn a_thumbnail_of_what_is_no_picture_is_refused_when_that_is_known() {
    for site in Site::each() {
        let media = site.create();
        let mut thumbnail = site.ask(&format!("{THUMBNAIL}/{media}?{SMALL}"));
        site.wait_for_readers(1);
        // A mistake in the question needs no waiting.
        site.bob().get(&format!("{THUMBNAIL}/{media}")).assert_error(400, "M_MISSING_PARAM");
        site.put(&media, "image/png", b"no picture at all").assert_stored();
        thumbnail.read_answer("GET").assert_error(400, "M_UNKNOWN");
    }
}

// --- parts, heads and old clients

#[test]
fn head_is_answered_as_soon_as_the_first_bytes_are_there() {
    let site = Site::new();
    for framing in BOTH {
        let media = site.create();
        let bearing = format!("Authorization: Bearer {}\r\n", site.bobs_token);
        let mut head = site.send("HEAD", &format!("{DOWNLOAD}/{media}"), &bearing);
        site.wait_for_readers(1);
        let mut upload = Upload::begin(&site, &media, framing, 1000);
        upload.send(&[1; 500]);
        let answer = head.read_answer("HEAD");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("video/mp4"));
        let known = (framing == Framing::Sized).then_some("1000");
        assert_eq!(answer.header("content-length"), known);
        // The connection is as good as any.
        let next = format!("GET {DOWNLOAD}/{media} HTTP/1.1\r\nHost: a\r\n{bearing}\r\n");
        head.send(next.as_bytes());
        let mut answer = read_start(&mut head, &[1; 500]);
        upload.send(&[2; 500]);
        upload.finish();
        head.read_rest("GET", &mut answer);
        answer.assert_whole(&[[1; 500], [2; 500]].concat());
    }
}

#[test]
fn a_part_that_is_there_is_served_while_the_rest_is_missing() {
    let site = Site::new();
    let body = noise(10_000, 11);
    for framing in BOTH {
        let media = site.create();
        let target = format!("{DOWNLOAD}/{media}");
        let ask = |range: &str| {
            let bearing = format!("Authorization: Bearer {}\r\n", site.bobs_token);
            site.send("GET", &target, &format!("{bearing}Range: bytes={range}\r\n"))
        };
        let total = if framing == Framing::Sized { "10000" } else { "*" };
        let assert_part = |answer: Answer, first: usize, last: usize, total: &str| {
            assert_eq!((answer.status, answer.complete), (206, true), "{first}-{last}: {answer:?}");
            let range = format!("bytes {first}-{last}/{total}");
            assert_eq!(answer.header("content-range"), Some(range.as_str()));
            assert!(answer.body == body[first..=last], "{range}");
        };
        let mut waiting = ask("10-19");
        site.wait_for_readers(1);
        let mut upload = Upload::begin(&site, &media, framing, body.len());
        upload.send(&body[..5000]);
        assert_part(waiting.read_answer("GET"), 10, 19, total);
        assert_part(ask("0-4999").read_answer("GET"), 0, 4999, total);
        let mut ahead = ask("4000-6999");
        let mut beyond = ask("20000-20001");
        if framing == Framing::Sized {
            let refused = beyond.read_answer("GET");
            assert_eq!(refused.status, 416);
            assert_eq!(refused.header("content-range"), Some("bytes */10000"));
        }
        // What has no end while nobody knows the size is all of it.
        let mut tails = ["9000-", "-100"].map(ask);
        let mut begun = Vec::new();
        if framing == Framing::Chunked {
            for reader in &mut tails {
                let answer = read_start(reader, &body[..5000]);
                assert_eq!(answer.header("content-range"), None);
                begun.push(answer);
            }
        }
        upload.send(&body[5000..7000]);
        assert_part(ahead.read_answer("GET"), 4000, 6999, total);
        upload.send(&body[7000..]);
        upload.finish();
        if framing == Framing::Sized {
            for (reader, first) in tails.iter_mut().zip([9000, 9900]) {
                assert_part(reader.read_answer("GET"), first, 9999, "10000");
            }
        } else {
            for (reader, answer) in tails.iter_mut().zip(&mut begun) {
                reader.read_rest("GET", answer);
                answer.assert_whole(&body);
            }
            let refused = beyond.read_answer("GET");
            assert_eq!(refused.status, 416, "{refused:?}");
        }
        assert_part(ask("-100").read_answer("GET"), 9900, 9999, "10000");
    }
}

#[test]
fn a_part_of_an_upload_that_breaks_off_is_visibly_incomplete_or_not_begun() {
    let site = Site::new();
    for framing in BOTH {
        let media = site.create();
        let target = format!("{DOWNLOAD}/{media}");
        let body = noise(10_000, 12);
        let mut upload = Upload::begin(&site, &media, framing, body.len());
        upload.send(&body[..5000]);
        let mut follower = site.ask(&target);
        read_start(&mut follower, &body[..5000]);
        let fields = "Authorization: Bearer syt_bob\r\nRange: bytes=4000-6999\r\n";
        let mut part = site.send("GET", &target, fields);
        if framing == Framing::Sized {
            let mut answer = part.read_head();
            assert_eq!(answer.status, 206);
            part.read_up_to(1000, &mut answer);
            drop(upload);
            assert_broken_off(part, answer, &body[4000..7000]);
        } else {
            let in_flight = || site.mediary.metric("mediary_requests_in_flight");
            wait_until("the range is waited for", || in_flight() >= 3.0);
            drop(upload);
            part.read_answer("GET").assert_error(504, "M_NOT_YET_UPLOADED");
        }
        drop(follower);
    }
}

#[test]
fn a_part_of_a_slow_upload_is_not_waited_for_without_end() {
    let site = Site::new();
    let media = site.create();
    let mut upload = Upload::begin(&site, &media, Framing::Chunked, 0);
    upload.send(b"first");
    let fields = "Authorization: Bearer syt_bob\r\nRange: bytes=0-999\r\n";
    let mut part = site.send("GET", &format!("{DOWNLOAD}/{media}?timeout_ms=300"), fields);
    // A range may be ignored.
    let mut answer = read_start(&mut part, b"first");
    upload.send(b"later");
    upload.finish();
    part.read_rest("GET", &mut answer);
    answer.assert_whole(b"firstlater");
}

#[test]
fn a_client_of_http_1_0_can_tell_a_broken_upload_from_a_whole_one() {
    let site = Site::new();
    let body = noise(300_001, 13);
    for framing in BOTH {
        for breaks_off in [false, true] {
            let media = site.create();
            let mut old = site.mediary.client().connect();
            let request = format!(
                "GET {DOWNLOAD}/{media} HTTP/1.0\r\nHost: a\r\nAuthorization: Bearer syt_bob\r\n\r\n"
            );
            old.send(request.as_bytes());
            site.wait_for_readers(1);
            let mut upload = Upload::begin(&site, &media, framing, body.len());
            upload.send(&body[..200_000]);
            site.wait_for_readers(0);
            if breaks_off {
                drop(upload);
                let answer = old.read_answer("GET");
                assert!(answer.status != 200 || !answer.complete, "{framing:?} looks whole");
            } else {
                upload.send(&body[200_000..]);
                upload.finish();
                let answer = old.read_answer("GET");
                answer.assert_whole(&body);
                assert_eq!(answer.header("transfer-encoding"), None);
            }
        }
    }
}

#[test]
fn a_request_sent_behind_one_that_waits_never_gets_its_neighbours_bytes() {
    let site = Site::new();
    let [first, second] = [(); 2].map(|()| site.create());
    let mut connection = site.mediary.client().connect();
    let request = |media: &str| {
        format!(
            "GET {DOWNLOAD}/{media} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer syt_bob\r\n\r\n"
        )
    };
    connection.send([request(&first), request(&second)].concat().as_bytes());
    site.wait_for_readers(1);
    site.put(&second, "text/plain", b"second").assert_stored();
    assert_eq!(site.waiting(), 1.0);
    site.put(&first, "text/plain", b"first").assert_stored();
    connection.read_answer("GET").assert_whole(b"first");
    // A server may close instead, and the client asks again (RFC 9112, section 9.3.2).
    let answer = connection.read_answer("GET");
    assert!(answer.status == 0 || answer.body == b"second", "{answer:?}");
}

// --- who may see

/// CS-FRZ-01, CS-FRZ-03, CS-TH-20
#[test]
fn frozen_routes_know_nothing_of_what_is_to_come() {
    let homeserver = conduit(NOT_FOUND);
    let site = Site::in_front_of(&homeserver, "");
    let media = site.create();
    let begun = Instant::now();
    let routes = |family: &str| {
        [
            format!("/_matrix/media/{family}/download/{media}"),
            format!("/_matrix/media/{family}/thumbnail/{media}?{SMALL}"),
        ]
    };
    let assert_unseen = || {
        for target in ["v3", "r0", "v1"].iter().flat_map(|it| routes(it)) {
            site.mediary.client().get(&target).assert_error(404, "M_NOT_FOUND");
            // A token makes no difference to a route that asks for none.
            site.alice().get(&target).assert_error(404, "M_NOT_FOUND");
        }
    };
    assert_unseen();
    let mut upload = Upload::begin(&site, &media, Framing::Sized, 10);
    upload.send(b"first");
    read_start(&mut site.ask(&format!("{DOWNLOAD}/{media}")), b"first");
    assert_unseen();
    upload.send(b"later");
    upload.finish();
    assert_unseen();
    assert!(begun.elapsed() < Duration::from_secs(15), "somebody has waited");
    site.mediary.client().get(&format!("{DOWNLOAD}/{media}")).assert_error(401, "M_MISSING_TOKEN");
}

/// CS-DL-08, CS-DL-10, CS-TH-20
#[test]
fn open_legacy_routes_wait_and_follow() {
    let site = Site::with(NOT_FOUND, "[legacy]\nmode = \"open\"");
    for framing in BOTH {
        let media = site.create();
        let target = format!("/_matrix/media/v3/download/{media}");
        let in_vain = site.mediary.client().get(&format!("{target}?timeout_ms=0"));
        in_vain.assert_error(504, "M_NOT_YET_UPLOADED");
        let mut reader = site.send("GET", &target, "");
        let thumbnail = format!("/_matrix/media/v3/thumbnail/{media}?{SMALL}");
        let mut thumbnail = site.send("GET", &thumbnail, "");
        site.wait_for_readers(2);
        let body = png(400, 300);
        let mut upload = Upload::begin(&site, &media, framing, body.len());
        upload.send(&body[..100]);
        let mut answer = read_start(&mut reader, &body[..100]);
        upload.send(&body[100..]);
        upload.finish();
        reader.read_rest("GET", &mut answer);
        answer.assert_whole(&body);
        assert_eq!(thumbnail.read_answer("GET").status, 200);
    }
}

/// What a server writes that has signed; the fake believes all.
const SIGNED: &str = "Authorization: X-Matrix origin=\"a.example\",\
                      destination=\"fake.example\",key=\"ed25519:1\",sig=\"abc+/\"\r\n";

/// Returns the media in an answer to another server.
fn media_part(answer: &Answer) -> &[u8] {
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    let content_type = answer.header("content-type").expect("a type");
    let boundary = content_type.strip_prefix("multipart/mixed; boundary=").expect("a boundary");
    let end = format!("\r\n--{boundary}--\r\n");
    let rest = answer.body.strip_suffix(end.as_bytes()).expect("an end");
    let head = format!(
        "\r\n--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n\
         Content-Type: video/mp4\r\nContent-Disposition: inline; filename=a.mp4\r\n\r\n"
    );
    let media = rest.strip_prefix(head.as_bytes()).expect("two heads");
    let holds_boundary = media.windows(boundary.len()).any(|part| part == boundary.as_bytes());
    assert!(!holds_boundary, "the media holds the boundary {boundary}");
    media
}

/// FM-S-03, FM-S-08
#[test]
fn other_servers_wait_and_follow() {
    let site = Site::new();
    let body = noise(300_001, 14);
    for framing in BOTH {
        for prefix in [
            "/_matrix/federation/v1/media",
            "/_matrix/federation/unstable/org.matrix.msc3916.v2/media",
        ] {
            let media = site.create();
            let id = media.split_once('/').expect("an id").1;
            let target = format!("{prefix}/download/{id}");
            let mut in_vain = site.send("GET", &format!("{target}?timeout_ms=0"), SIGNED);
            in_vain.read_answer("GET").assert_error(504, "M_NOT_YET_UPLOADED");
            let mut reader = site.send("GET", &target, SIGNED);
            site.wait_for_readers(1);
            let mut upload = Upload::begin(&site, &media, framing, body.len());
            upload.send(&body[..1000]);
            let mut answer = reader.read_head();
            assert_eq!(answer.status, 200, "{answer:?}");
            reader.read_up_to(1000, &mut answer);
            assert_eq!(answer.header("content-length").is_some(), framing == Framing::Sized);
            let mut broken = site.send("GET", &target, SIGNED);
            let second = broken.read_head();
            drop(upload);
            for (mut reader, mut answer) in [(reader, answer), (broken, second)] {
                reader.read_rest("GET", &mut answer);
                assert!(!answer.complete, "a body that broke off looks whole");
            }
            let mut reader = site.send("GET", &target, SIGNED);
            site.wait_for_readers(1);
            let mut upload = Upload::begin_again(&site, &media, framing, body.len());
            upload.send(&body);
            upload.finish();
            assert!(media_part(&reader.read_answer("GET")) == body);
        }
    }
}

/// FM-S-08
#[test]
fn a_thumbnail_for_another_server_waits_as_well() {
    let site = Site::new();
    let media = site.create();
    let id = media.split_once('/').expect("an id").1;
    let target = format!("/_matrix/federation/v1/media/thumbnail/{id}?{SMALL}");
    let mut in_vain = site.send("GET", &format!("{target}&timeout_ms=0"), SIGNED);
    in_vain.read_answer("GET").assert_error(504, "M_NOT_YET_UPLOADED");
    let mut thumbnail = site.send("GET", &target, SIGNED);
    site.wait_for_readers(1);
    site.put(&media, "image/png", &png(400, 300)).assert_stored();
    let answer = thumbnail.read_answer("GET");
    let own = site.bob().get(&format!("{THUMBNAIL}/{media}?{SMALL}")).body;
    assert_eq!((answer.status, answer.complete), (200, true));
    assert!(answer.body.windows(own.len()).any(|part| part == own));
}

#[test]
fn no_upload_under_way_holds_its_own_boundary() {
    let site = Site::new();
    // What an answer that follows is framed with cannot be learnt from another such answer.
    let mut learnt = b"--mediary--\r\n".to_vec();
    for _ in 0..2 {
        let body = [b"\r\n--mediary\r\n\r\n\r\n", &learnt[..], b"the end"].concat();
        let media = site.create();
        let id = media.split_once('/').expect("an id").1;
        let target = format!("/_matrix/federation/v1/media/download/{id}");
        let mut reader = site.send("GET", &target, SIGNED);
        site.wait_for_readers(1);
        let mut upload = Upload::begin(&site, &media, Framing::Sized, body.len());
        upload.send(&body[..10]);
        let mut answer = reader.read_head();
        upload.send(&body[10..]);
        upload.finish();
        reader.read_rest("GET", &mut answer);
        assert!(media_part(&answer) == body);
        learnt = answer.body;
    }
}

// --- bounds

/// CS-DL-14, CS-TH-20, CS-RL-02
#[test]
fn a_user_with_too_many_waiting_requests_is_refused_until_some_have_ended() {
    const OF_ONE_USER: usize = 32;
    for site in Site::each() {
        let media = site.create();
        let target = format!("{DOWNLOAD}/{media}");
        let mut readers: Vec<Connection> = (0..OF_ONE_USER).map(|_| site.ask(&target)).collect();
        site.wait_for_readers(OF_ONE_USER);
        let other = site.create();
        for refused in
            [target.clone(), format!("{DOWNLOAD}/{other}"), format!("{THUMBNAIL}/{media}?{SMALL}")]
        {
            site.bob().get(&refused).assert_limited();
        }
        assert_eq!(site.bob().request("HEAD", &target, &[], b"").status, 429);
        // The bound is each user's own, and an upload takes no place.
        readers.push(site.ask_as(&site.alices_token, &target));
        site.wait_for_readers(OF_ONE_USER + 1);
        site.put(&media, "text/plain", b"body").assert_stored();
        for reader in &mut readers {
            reader.read_answer("GET").assert_whole(b"body");
        }
        assert_eq!(site.waiting(), 0.0);
        let mut reader = site.ask(&format!("{DOWNLOAD}/{other}"));
        site.wait_for_readers(1);
        site.put(&other, "text/plain", b"other").assert_stored();
        reader.read_answer("GET").assert_whole(b"other");
    }
}

#[test]
fn an_id_with_too_many_waiting_readers_takes_no_more() {
    const FOR_ONE_ID: usize = 256;
    let site = Site::new();
    let [media, other] = [(); 2].map(|()| site.create());
    let target = format!("{DOWNLOAD}/{media}");
    let ask = |number| site.ask_as(&format!("syt_user{}", number / 32), &target);
    let mut readers: Vec<Connection> = (0..FOR_ONE_ID).map(ask).collect();
    site.wait_for_readers(FOR_ONE_ID);
    site.bob().get(&target).assert_limited();
    let mut elsewhere = site.ask(&format!("{DOWNLOAD}/{other}"));
    site.wait_for_readers(FOR_ONE_ID + 1);
    let body = noise(10_000, 15);
    site.put(&media, "text/plain", &body).assert_stored();
    for reader in &mut readers {
        reader.read_answer("GET").assert_whole(&body);
    }
    assert_eq!(site.waiting(), 1.0);
    site.put(&other, "text/plain", b"other").assert_stored();
    elsewhere.read_answer("GET").assert_whole(b"other");
    assert_eq!(site.waiting(), 0.0);
}

#[test]
fn the_place_of_a_reader_that_has_left_is_free_when_its_time_is_up() {
    let site = Site::new();
    let media = site.create();
    let target = format!("{DOWNLOAD}/{media}?timeout_ms=4000");
    let left: Vec<Connection> = (0..32).map(|_| site.ask(&target)).collect();
    site.wait_for_readers(32);
    drop(left);
    site.wait_for_readers(0);
    let mut reader = site.ask(&target);
    site.wait_for_readers(1);
    site.put(&media, "text/plain", b"body").assert_stored();
    reader.read_answer("GET").assert_whole(b"body");
}

#[test]
fn readers_that_wait_do_not_hold_the_end_of_the_process_up() {
    let homeserver = conduit(NOT_FOUND);
    let settings = "[server]\nshutdown_timeout = \"300ms\"";
    let mut site = Site::in_front_of(&homeserver, settings);
    let media = site.create();
    let target = format!("{DOWNLOAD}/{media}?timeout_ms=60000");
    let mut readers = [(); 3].map(|()| site.ask(&target));
    site.wait_for_readers(3);
    let begun = Instant::now();
    site.mediary.terminate();
    assert_eq!(site.mediary.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    for reader in &mut readers {
        let answer = reader.read_answer("GET");
        assert!(answer.status == 0 || answer.status == 504, "{answer:?}");
    }
}

#[test]
fn what_was_waited_for_still_comes_while_the_process_ends() {
    let homeserver = conduit(NOT_FOUND);
    let mut site = Site::in_front_of(&homeserver, "[server]\nshutdown_timeout = \"1h\"");
    let media = site.create();
    let mut reader = site.ask(&format!("{DOWNLOAD}/{media}?timeout_ms=60000"));
    site.wait_for_readers(1);
    let mut upload = Upload::begin(&site, &media, Framing::Sized, 4);
    site.wait_for_upload();
    site.mediary.terminate();
    site.mediary.wait_for_log("stopping; no new connections are taken");
    upload.send(b"body");
    upload.finish();
    reader.read_answer("GET").assert_whole(b"body");
    assert_eq!(site.mediary.wait().code(), Some(0));
}
