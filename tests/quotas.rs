//! Quotas: what a user may keep, exact under concurrency, however uploads come and end (CS-LIM-04,
//! threats RX-06, RX-10).

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::sync::Barrier;
use std::thread;

use common::fake::TOKEN;
use common::http::{Answer, Connection, chunk};
use common::{Client, FakeHomeserver, Mediary, Settings, Synapse, noise, wait_until};

const UPLOAD: &str = "/_matrix/media/v3/upload";

fn start(homeserver: &FakeHomeserver, uploads: &str) -> Mediary {
    Settings::new(&homeserver.url).with(&format!("[uploads]\n{uploads}")).start()
}

fn post(client: &Client, body: &[u8]) -> Answer {
    client.request("POST", UPLOAD, &[], body)
}

/// Opens a connection and sends the head of an upload of Alice's; `fields` end in CRLF each.
fn begin(mediary: &Mediary, method: &str, target: &str, fields: &str) -> Connection {
    let mut connection = mediary.client().connect();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n{fields}\r\n"
    );
    connection.send(head.as_bytes());
    connection
}

/// Uploads without a length, in pieces.
fn chunked(mediary: &Mediary, method: &str, target: &str, body: &[u8]) -> Answer {
    let mut connection = begin(mediary, method, target, "Transfer-Encoding: chunked\r\n");
    for piece in body.chunks(1000) {
        connection.send(&chunk(piece));
    }
    connection.send(b"0\r\n\r\n");
    connection.read_answer(method)
}

/// What the records say that a user has uploaded, added up anew and as it is kept: files and bytes.
fn uploaded(mediary: &Mediary, user: &str) -> (u64, u64) {
    let database = rusqlite::Connection::open(mediary.store().join("mediary.db"));
    let database = database.expect("the database can be opened");
    let look = |sql: &str| {
        database
            .query_row(sql, [user], |row| {
                Ok((row.get::<_, u32>(0)?.into(), row.get::<_, u32>(1)?.into()))
            })
            .expect("two numbers")
    };
    let added_up = look(
        "SELECT count(*), coalesce(sum(size), 0) FROM media JOIN blob USING (content_hash)
         WHERE source = 'owned' AND uploader = ?1",
    );
    let kept = look(
        "SELECT coalesce(sum(files), 0), coalesce(sum(bytes), 0) FROM uploaded WHERE uploader = ?1",
    );
    assert_eq!(kept, added_up);
    kept
}

const ALICE: &str = "@alice:fake.example";

/// CS-LIM-04, CS-UP-05
#[test]
fn of_twenty_uploads_at_once_as_many_get_in_as_fit() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, "quota_bytes = \"50000 B\"");
    let announce = "Content-Length: 5000\r\nExpect: 100-continue\r\n";
    let mut connections: Vec<Connection> =
        (0..20).map(|_| begin(&mediary, "POST", UPLOAD, announce)).collect();
    let mut let_in = Vec::new();
    // All have asked before the first byte of any body is there.
    for mut connection in connections.drain(..) {
        match connection.read_any_answer("POST") {
            answer if answer.status == 100 => let_in.push(connection),
            refused => refused.assert_error(403, "M_FORBIDDEN"),
        }
    }
    assert_eq!(let_in.len(), 10);
    for (number, connection) in let_in.iter_mut().enumerate() {
        connection.send(&noise(5000, number as u64));
    }
    for connection in &mut let_in {
        connection.read_answer("POST").media();
    }
    assert_eq!(uploaded(&mediary, ALICE), (10, 50_000));
    post(&mediary.alice(), b"x").assert_error(403, "M_FORBIDDEN");
    assert_eq!(post(&mediary.alice(), b"").status, 200, "an empty file fits");
    let bob = mediary.bob();
    assert_eq!(post(&bob, &noise(50_000, 9)).status, 200, "the quota is each user's own");
    assert_eq!(mediary.metric("mediary_refusals_total{kind=\"quota\"}"), 11.0);
}

/// CS-LIM-04
#[test]
fn commits_of_others_do_not_keep_out_who_fits() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, "quota_bytes = \"20000 B\"\nquota_files = 40");
    let client = mediary.alice();
    let barrier = Barrier::new(20);
    thread::scope(|scope| {
        for number in 0..20 {
            let (client, barrier) = (&client, &barrier);
            scope.spawn(move || {
                barrier.wait();
                // Exactly the whole quota, if each is counted once at every moment.
                for half in 0..2 {
                    let body = noise(500, number * 2 + half);
                    assert_eq!(post(client, &body).status, 200, "upload {number}");
                }
            });
        }
    });
    assert_eq!(uploaded(&mediary, ALICE), (40, 20_000));
    post(&client, b"").assert_error(403, "M_FORBIDDEN");
}

/// CS-LIM-04, CS-PUT-07
#[test]
fn uploads_of_all_kinds_at_once_never_pass_the_quota() {
    let homeserver = FakeHomeserver::start();
    let mediary =
        start(&homeserver, "quota_bytes = \"30000 B\"\nquota_files = 25\nmax_pending = 100");
    let client = mediary.alice();
    let ids: Vec<String> = (0..8).map(|_| client.create().media()).collect();
    let barrier = Barrier::new(24);
    let upload = |number: usize| {
        let body = noise(2000 + 100 * number, number as u64);
        barrier.wait();
        let answer = match number % 3 {
            0 => post(&client, &body),
            1 => chunked(&mediary, "POST", UPLOAD, &body),
            _ => {
                let target = format!("{UPLOAD}/{}", ids[number / 3]);
                if number.is_multiple_of(2) {
                    client.request("PUT", &target, &[], &body)
                } else {
                    chunked(&mediary, "PUT", &target, &body)
                }
            }
        };
        match answer.status {
            200 => body.len() as u64,
            _ => {
                answer.assert_error(403, "M_FORBIDDEN");
                0
            }
        }
    };
    let stored: u64 = thread::scope(|scope| {
        let upload = &upload;
        let threads: Vec<_> = (0..24).map(|number| scope.spawn(move || upload(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let (_, bytes) = uploaded(&mediary, ALICE);
    assert_eq!(bytes, stored, "what was acknowledged is what is kept");
    assert!(bytes <= 30_000);
    wait_until("the refused bodies are gone", || mediary.unfinished().is_empty());
    // What was refused is charged to nobody: the rest is free to the last byte.
    let rest = noise(usize::try_from(30_000 - bytes).unwrap(), 99);
    assert_eq!(post(&client, &rest).status, 200);
    post(&client, b"x").assert_error(403, "M_FORBIDDEN");
}

/// CS-UP-05, CS-UP-08, CS-PUT-07
#[test]
fn a_body_without_a_length_is_refused_at_the_first_byte_over_the_quota() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, "quota_bytes = \"1000 B\"");
    let client = mediary.alice();
    let media = client.create().media();
    for (method, target) in [("POST", UPLOAD.to_owned()), ("PUT", format!("{UPLOAD}/{media}"))] {
        // Without its end: the answer does not wait for it.
        let mut connection = begin(&mediary, method, &target, "Transfer-Encoding: chunked\r\n");
        connection.send(&chunk(&noise(1000, 1)));
        connection.send(&chunk(b"x"));
        connection.read_answer(method).assert_error(403, "M_FORBIDDEN");
    }
    mediary.assert_nothing_kept();
    let whole = noise(1000, 2);
    client.put(&media, "text/plain", &whole).assert_stored();
    assert!(client.download(&media).body == whole, "the media id has stayed theirs");
}

/// CS-UP-05, CS-UP-06, CS-PUT-07
#[test]
fn an_announced_size_over_the_quota_is_refused_before_the_body_is_sent() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, "max_size = \"2000 B\"\nquota_bytes = \"1000 B\"");
    let media = mediary.alice().create().media();
    for (method, target) in [("POST", UPLOAD.to_owned()), ("PUT", format!("{UPLOAD}/{media}"))] {
        for (length, status, errcode) in [
            ("1001", 403, "M_FORBIDDEN"),
            ("2000", 403, "M_FORBIDDEN"),
            ("2001", 413, "M_TOO_LARGE"),
            ("18446744073709551615", 413, "M_TOO_LARGE"),
        ] {
            let announced = format!("Content-Length: {length}\r\n");
            let mut connection = begin(&mediary, method, &target, &announced);
            connection.read_answer(method).assert_error(status, errcode);
        }
    }
    mediary.assert_nothing_kept();
}

/// CS-LIM-04
#[test]
fn sizes_at_the_edge_of_all_numbers_do_not_wrap() {
    let homeserver = FakeHomeserver::start();
    let most = i64::MAX;
    let limits = "[limits]\nuser_bytes_per_second = 0";
    let settings = format!("max_size = {most}\nquota_bytes = {most}\n{limits}");
    let mediary = start(&homeserver, &settings);
    let announced = format!("Content-Length: {most}\r\nExpect: 100-continue\r\n");
    let mut first = begin(&mediary, "POST", UPLOAD, &announced);
    assert_eq!(first.read_any_answer("POST").status, 100);
    for length in [1, most - 1, most] {
        let announced = format!("Content-Length: {length}\r\n");
        let mut connection = begin(&mediary, "POST", UPLOAD, &announced);
        connection.read_answer("POST").assert_error(403, "M_FORBIDDEN");
    }
    drop(first);
    wait_until("the charge is over", || post(&mediary.alice(), b"body").status == 200);
}

/// CS-LIM-04
#[test]
fn whoever_breaks_off_or_lies_is_charged_nothing() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, "quota_bytes = \"1000 B\"\nquota_files = 1");
    let client = mediary.alice();
    let half = noise(500, 1);
    for framing in ["Content-Length: 1000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let is_chunked = framing.starts_with("Transfer");
        let sent = if is_chunked { chunk(&half) } else { half.clone() };
        for is_silent in [true, false] {
            let mut gone = begin(&mediary, "POST", UPLOAD, framing);
            gone.send(&sent);
            wait_until("it has begun", || !mediary.unfinished().is_empty());
            post(&client, &half).assert_error(403, "M_FORBIDDEN");
            if is_silent {
                drop(gone);
            } else {
                gone.stream.shutdown(Shutdown::Write).unwrap();
                assert!(matches!(gone.read_answer("POST").status, 0 | 400));
            }
            wait_until("its file is gone", || mediary.unfinished().is_empty());
        }
    }
    assert_eq!(uploaded(&mediary, ALICE), (0, 0));
    wait_until("all of it is free", || post(&client, &noise(1000, 2)).status == 200);
    assert_eq!(uploaded(&mediary, ALICE), (1, 1000));
}

/// CS-LIM-04
#[test]
fn whoever_hangs_up_at_the_last_moment_has_what_is_kept_and_no_more() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, "quota_bytes = \"20000 B\"");
    let client = mediary.alice();
    let ended = || mediary.metric("mediary_request_duration_seconds_count{route=\"upload\"}");
    thread::scope(|scope| {
        for number in 0..40_u64 {
            let mediary = &mediary;
            scope.spawn(move || {
                let body = noise(1000, number);
                let framing = match number % 2 {
                    0 => "Content-Length: 1000\r\n",
                    _ => "Transfer-Encoding: chunked\r\n",
                };
                let mut gone = begin(mediary, "POST", UPLOAD, framing);
                // It may have been refused already.
                let _ = match number % 2 {
                    0 => gone.stream.write_all(&body),
                    _ => gone.stream.write_all(&[&chunk(&body)[..], b"0\r\n\r\n"].concat()),
                };
            });
        }
    });
    wait_until("all have ended", || ended() >= 40.0);
    wait_until("nothing is unfinished", || mediary.unfinished().is_empty());
    // A commit that nobody waits for comes to its end all the same.
    wait_until("the rest is free to the last byte", || {
        let (_, bytes) = uploaded(&mediary, ALICE);
        let rest = usize::try_from(20_000 - bytes).expect("the quota is kept");
        rest == 0 || post(&client, &noise(rest, 99)).status == 200
    });
    assert_eq!(uploaded(&mediary, ALICE).1, 20_000);
    post(&client, b"x").assert_error(403, "M_FORBIDDEN");
}

/// CS-CRE-06
#[test]
fn of_many_media_ids_created_at_once_as_many_are_given_out_as_fit() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, "quota_files = 7\nmax_pending = 100");
    let client = mediary.alice();
    assert_eq!(post(&client, b"first").status, 200);
    let barrier = Barrier::new(20);
    let mut created: Vec<String> = thread::scope(|scope| {
        let create = || {
            barrier.wait();
            match client.create() {
                given if given.status == 200 => Some(given.media()),
                refused => {
                    refused.assert_error(403, "M_FORBIDDEN");
                    None
                }
            }
        };
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(create)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(created.len(), 6);
    created.sort();
    created.dedup();
    assert_eq!(created.len(), 6, "no id is given out twice");
    for media in &created {
        post(&client, b"").assert_error(403, "M_FORBIDDEN");
        client.put(media, "text/plain", media.as_bytes()).assert_stored();
    }
    assert_eq!(uploaded(&mediary, ALICE).0, 7);
}

/// CS-LIM-04
#[test]
fn what_a_user_has_is_known_after_a_kill_and_what_was_arriving_is_not_counted() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, "quota_bytes = \"1000 B\"\nquota_files = 3");
    assert_eq!(post(&mediary.alice(), &noise(400, 1)).status, 200);
    mediary.alice().create().media();
    let mut cut_off = begin(&mediary, "POST", UPLOAD, "Content-Length: 600\r\n");
    cut_off.send(&noise(300, 2));
    wait_until("it has begun", || !mediary.unfinished().is_empty());
    post(&mediary.alice(), b"x").assert_error(403, "M_FORBIDDEN");
    let mediary = mediary.kill_and_restart();
    let client = mediary.alice();
    post(&client, &noise(601, 3)).assert_error(403, "M_FORBIDDEN");
    assert_eq!(post(&client, &noise(600, 3)).status, 200);
    assert_eq!(uploaded(&mediary, ALICE), (2, 1000));
    let mediary = mediary.kill_and_restart();
    post(&mediary.alice(), b"x").assert_error(403, "M_FORBIDDEN");
    mediary.alice().create().assert_error(403, "M_FORBIDDEN");
}

/// CS-CRE-05, CS-CRE-06, CS-LIM-04
#[test]
fn a_media_id_counts_as_a_file_from_its_creation_to_its_expiry() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, "quota_files = 3\nmax_pending = 2");
    let client = mediary.alice();
    assert_eq!(post(&client, b"first").status, 200);
    let media = client.create().media();
    client.put(&media, "text/plain", b"second").assert_stored();
    client.create().media();
    client.create().assert_error(403, "M_FORBIDDEN");
    post(&client, b"fourth").assert_error(403, "M_FORBIDDEN");
    assert_eq!(uploaded(&mediary, ALICE).0, 2);
    let bob = mediary.bob();
    bob.create().media();
    bob.create().media();
    bob.create().assert_limited();

    let mediary = start(&homeserver, "quota_files = 1\nunused_expiry = \"1s\"");
    let client = mediary.alice();
    client.create().media();
    wait_until("it has expired", || post(&client, b"instead").status == 200);
    client.create().assert_error(403, "M_FORBIDDEN");
    assert_eq!(uploaded(&mediary, ALICE).0, 1);
}

/// CS-CRE-06
#[test]
fn whoever_has_no_byte_left_gets_no_media_id() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, "quota_bytes = \"10 B\"");
    let client = mediary.alice();
    assert_eq!(post(&client, b"123456789").status, 200);
    let media = client.create().media();
    client.put(&media, "text/plain", b"12").assert_error(403, "M_FORBIDDEN");
    client.put(&media, "text/plain", b"1").assert_stored();
    client.create().assert_error(403, "M_FORBIDDEN");
}

/// CS-GEN-09, CS-UP-05, CS-CRE-06, CS-PUT-07
#[test]
fn where_to_learn_more_is_told_if_there_is_such_a_place() {
    let homeserver = FakeHomeserver::start();
    let settings = "quota_bytes = \"10 B\"\nquota_can_upgrade = true
                    quota_info_url = \"https://example.org/storage?from=matrix\"";
    let mediary = start(&homeserver, settings);
    let client = mediary.alice();
    let media = client.create().media();
    let refused = [
        post(&client, b"more than ten"),
        client.put(&media, "text/plain", b"more than ten"),
        chunked(&mediary, "PUT", &format!("{UPLOAD}/{media}"), b"more than ten"),
        {
            assert_eq!(post(&client, b"ten bytes.").status, 200);
            client.create()
        },
    ];
    for answer in refused {
        answer.assert_error(403, "M_USER_LIMIT_EXCEEDED");
        assert_eq!(answer.json()["info_uri"], "https://example.org/storage?from=matrix");
        assert_eq!(answer.json()["can_upgrade"], true);
    }
}

/// CS-LIM-04
#[test]
fn the_same_bytes_again_count_again() {
    let homeserver = FakeHomeserver::start();
    let mediary = start(&homeserver, "quota_bytes = \"25 B\"");
    let client = mediary.alice();
    assert_eq!(post(&client, b"ten bytes.").status, 200);
    assert_eq!(post(&client, b"ten bytes.").status, 200);
    post(&client, b"ten bytes.").assert_error(403, "M_FORBIDDEN");
    assert_eq!(uploaded(&mediary, ALICE), (2, 20));
    assert_eq!(mediary.blobs().len(), 1);
}

/// CS-LIM-04
#[test]
fn a_rule_gives_some_users_another_quota_or_none() {
    let homeserver = FakeHomeserver::start();
    let settings = "quota_bytes = \"10 B\"
                    [[rules]]
                    users = [\"@b?b:fake.*\"]
                    quota_bytes = 0
                    max_size = \"100 B\"
                    [[rules]]
                    users = [\"*\"]
                    quota_bytes = \"20 B\"";
    let mediary = start(&homeserver, settings);
    let bob = mediary.bob();
    for number in 0..5 {
        assert_eq!(post(&bob, &noise(100, number)).status, 200);
    }
    post(&bob, &noise(101, 1)).assert_error(413, "M_TOO_LARGE");
    post(&mediary.alice(), &noise(21, 1)).assert_error(403, "M_FORBIDDEN");
    assert_eq!(post(&mediary.alice(), &noise(20, 1)).status, 200);
}

/// CS-LIM-04, CS-UP-05, CS-CRE-06
#[test]
fn with_a_real_homeserver_the_quota_holds_for_its_users() {
    let synapse = Synapse::get();
    let settings = "[uploads]\nquota_bytes = \"1000 B\"\nquota_files = 2";
    let mediary = Settings::new(&synapse.url).with(settings).start();
    let user = synapse.user();
    let [first, second] =
        [user.clone(), synapse.log_in(&user)].map(|user| mediary.client_of(&user));
    assert_eq!(post(&first, &noise(600, 1)).status, 200);
    post(&second, &noise(401, 2)).assert_error(403, "M_FORBIDDEN");
    let media = second.create().media();
    first.create().assert_error(403, "M_FORBIDDEN");
    first.put(&media, "text/plain", &noise(400, 3)).assert_stored();
    second.create().assert_error(403, "M_FORBIDDEN");
    assert_eq!(uploaded(&mediary, &user.user_id), (2, 1000));
    assert!(second.download(&media).body == noise(400, 3));
}
