//! What survives: kills, damaged files, a damaged database, a full disk (threats DU-01 to DU-11).

mod common;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::fake::{SERVER_NAME, TOKEN, respond_with};
use common::http::Answer;
use common::{Client, FakeHomeserver, Mediary, Settings, Synapse, files_below, noise, wait_until};
use rusqlite::Connection;

const KILLS: u64 = 5;
const UPLOADERS: u64 = 8;

/// Larger than what is kept in memory, so that every read comes from the disk.
const LARGE: usize = 700_000;

/// What of a large body one checksum covers.
const BLOCK: usize = 64 * 1024;

fn hash(body: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, body);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns where the blob of a body lies.
fn blob(store: &Path, body: &[u8]) -> PathBuf {
    let hash = hash(body);
    store.join("blobs").join(&hash[..2]).join(&hash[2..4]).join(hash)
}

/// Starts with so little memory for media that everything is read from the disk.
fn without_memory(upstream: &str) -> Settings {
    Settings::new(upstream).with("[storage]\nmemory = \"1 B\"")
}

fn database(store: &Path) -> Connection {
    Connection::open(store.join("mediary.db")).expect("the database can be opened")
}

// --- kill -9

/// Uploads and returns what is behind `mxc://` if it was acknowledged; the server may go at any
/// moment.
fn try_upload(mediary: &Mediary, token: &str, body: &[u8]) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(mediary.address).ok()?;
    let length = body.len();
    let head = format!(
        "POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).ok()?;
    if !answer.starts_with("HTTP/1.1 200") {
        return None;
    }
    let (_, rest) = answer.split_once("mxc://")?;
    Some(rest.split('"').next()?.to_owned())
}

#[test]
fn an_acknowledged_upload_survives_being_killed_at_any_moment() {
    let synapse = Synapse::get();
    let user = synapse.user();
    let mut mediary = Mediary::in_front_of(&synapse.url);
    let mut acknowledged: HashMap<String, Vec<u8>> = HashMap::new();
    for round in 0..KILLS {
        let uploaded = Mutex::new(HashMap::new());
        let count = AtomicUsize::new(0);
        let killed = AtomicBool::new(false);
        // After how many acknowledged uploads the process is killed; where the others are then is
        // up to the scheduler.
        let enough = 3 + noise(1, round)[0] as usize % 30;
        thread::scope(|scope| {
            let threads: Vec<_> = (0..UPLOADERS)
                .map(|uploader| {
                    let (uploaded, count, killed) = (&uploaded, &count, &killed);
                    let (mediary, user) = (&mediary, &user);
                    scope.spawn(move || {
                        for number in 0.. {
                            let seed = (round * UPLOADERS + uploader) * 1000 + number;
                            let size = [0, 1, 900, 70_000, 300_000, 900_000][seed as usize % 6];
                            let mut body = noise(size, seed);
                            body.extend(seed.to_string().bytes());
                            match try_upload(mediary, &user.access_token, &body) {
                                Some(media) => {
                                    uploaded.lock().unwrap().insert(media, body);
                                    count.fetch_add(1, Ordering::Relaxed);
                                }
                                None if killed.load(Ordering::Relaxed) => return,
                                None => panic!("an upload failed although nobody was killed yet"),
                            }
                        }
                    })
                })
                .collect();
            wait_until("uploads are acknowledged", || {
                count.load(Ordering::Relaxed) >= enough || threads.iter().any(|t| t.is_finished())
            });
            killed.store(true, Ordering::Relaxed);
            let pid = mediary.pid().to_string();
            assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
            for thread in threads {
                thread.join().unwrap();
            }
        });
        mediary = mediary.kill_and_restart();
        acknowledged.extend(uploaded.into_inner().unwrap());

        assert!(mediary.unfinished().is_empty(), "round {round}: {:?}", mediary.unfinished());
        for path in mediary.blobs() {
            // One that no record names may be swept meanwhile.
            let Ok(body) = fs::read(&path) else { continue };
            assert!(path.ends_with(hash(&body)), "round {round}: {} is not whole", path.display());
        }
        let client = mediary.client_of(&user);
        for (media, body) in &acknowledged {
            let answer = client.download(media);
            assert!(
                answer.status == 200 && answer.complete && answer.body == *body,
                "round {round}: {media} of {} bytes is lost: {} with {} bytes",
                body.len(),
                answer.status,
                answer.body.len()
            );
        }
    }
    let store = mediary.store();
    wait_until("bodies without a record are swept", || {
        let rows: i64 =
            database(&store).query_row("SELECT count(*) FROM blob", [], |row| row.get(0)).unwrap();
        mediary.blobs().len() as i64 == rows
    });
}

/// Reads remote media to its end, whatever becomes of it; the server may go at any moment.
fn try_read(mediary: &Mediary, name: &str) -> Option<()> {
    let mut stream = std::net::TcpStream::connect(mediary.address).ok()?;
    let request = format!(
        "GET /_matrix/client/v1/media/download/other.example/{name} HTTP/1.1\r\nHost: a\r\n\
         Authorization: Bearer {}\r\nConnection: close\r\n\r\n",
        TOKEN
    );
    stream.write_all(request.as_bytes()).ok()?;
    std::io::Read::read_to_end(&mut stream, &mut Vec::new()).ok().map(drop)
}

/// Returns how many bodies have a record, and holds every record against the file it names.
fn recorded_bodies(store: &Path) -> usize {
    let database = database(store);
    let mut rows = database
        .prepare("SELECT lower(hex(content_hash)), size FROM blob")
        .expect("the database can be read");
    let rows =
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("the database can be read");
    let rows: Vec<(String, i64)> = rows.map(|row| row.expect("the database can be read")).collect();
    for (digits, size) in &rows {
        let path = store.join("blobs").join(&digits[..2]).join(&digits[2..4]).join(digits);
        assert_eq!(fs::metadata(&path).expect("a record has its body").len() as i64, *size);
    }
    rows.len()
}

#[test]
fn a_kill_while_media_is_evicted_leaves_every_record_its_body_and_no_body_without_a_record() {
    const READERS: u64 = 3;
    let homeserver = FakeHomeserver::with(|request, stream| {
        let target = request.target();
        let name = target.split_once("/other.example/")?.1.split('?').next()?.to_owned();
        let body = noise(20_000, name.parse().ok()?);
        Some(respond_with(stream, 200, &[("Content-Type", "image/png")], &body))
    });
    let settings = Settings::new(&homeserver.url).with("[storage]\ncache_size = '200 KB'");
    let mut mediary = settings.start();
    for round in 0..KILLS {
        let killed = AtomicBool::new(false);
        let enough = 1.0 + f64::from(noise(1, round)[0] % 60);
        thread::scope(|scope| {
            for reader in 0..READERS {
                let (mediary, killed) = (&mediary, &killed);
                scope.spawn(move || {
                    for number in (0..).take_while(|_| !killed.load(Ordering::Relaxed)) {
                        let name = (round * READERS + reader) * 100_000 + number;
                        let _ = try_read(mediary, &name.to_string());
                    }
                });
            }
            wait_until("media is evicted", || mediary.metric("mediary_evictions_total") >= enough);
            let pid = mediary.pid().to_string();
            assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
            killed.store(true, Ordering::Relaxed);
        });
        mediary = mediary.kill_and_restart();
        let store = mediary.store();
        wait_until("bodies without a record are swept", || {
            mediary.blobs().len() == recorded_bodies(&store)
        });
        assert!(mediary.unfinished().is_empty(), "round {round}");
        assert_eq!(mediary.metric("mediary_corrupt_blobs_total"), 0.0, "round {round}");
    }
}

#[test]
fn a_body_without_a_record_is_swept_and_strange_files_are_not() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.client().with_token(TOKEN);
    let media = client.upload("text/plain", None, b"named by a record");
    let settings = mediary.kill();
    let store = settings.store();
    let orphan = blob(&store, b"named by nothing");
    let stray = store.join("blobs/notes.txt");
    let unfinished = store.join("tmp/17.part");
    fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    fs::write(&orphan, b"named by nothing").unwrap();
    fs::write(&stray, b"of the operator").unwrap();
    fs::write(&unfinished, b"half a bo").unwrap();

    let mediary = settings.start();
    assert!(!unfinished.exists(), "an unfinished body stayed");
    wait_until("the body without a record is gone", || !orphan.exists());
    assert!(stray.exists(), "a file that is not ours was removed");
    let client = mediary.client().with_token(TOKEN);
    assert_eq!(client.download(&media).text(), "named by a record");
}

// --- damaged files

/// What happens to a file on a bad disk.
#[derive(Debug, Clone, Copy)]
enum Damage {
    FlipBit(usize),
    CutTo(usize),
    Removed,
}

impl Damage {
    fn inflict(self, path: &Path) {
        match self {
            Self::FlipBit(offset) => {
                let mut bytes = fs::read(path).expect("the file is there");
                bytes[offset] ^= 0x10;
                fs::write(path, bytes).expect("the file can be written");
            }
            Self::CutTo(length) => {
                let file = fs::OpenOptions::new().write(true).open(path);
                let file = file.expect("the file is there");
                file.set_len(length as u64).expect("the file can be cut");
            }
            Self::Removed => fs::remove_file(path).expect("the file is there"),
        }
    }

    fn of(length: usize) -> [Self; 6] {
        [
            Self::FlipBit(0),
            Self::FlipBit(length / 2),
            Self::FlipBit(length - 1),
            Self::CutTo(length - 1),
            Self::CutTo(0),
            Self::Removed,
        ]
    }
}

/// Asserts that nobody could take an answer for the media: an error, or visibly cut off, and not
/// one wrong byte.
fn assert_not_served(answer: &Answer, body: &[u8], case: &str) {
    match answer.status {
        500..600 => {
            answer.assert_error(answer.status, "M_UNKNOWN");
        }
        200 | 206 => {
            assert!(!answer.complete, "{case}: a damaged body came to a proper end");
            assert!(body.starts_with(&answer.body), "{case}: wrong bytes were sent");
        }
        other => panic!("{case}: {other}"),
    }
}

fn range(client: &Client, media: &str, first: usize, last: usize) -> Answer {
    let target = format!("/_matrix/client/v1/media/download/{media}");
    client.get_with(&target, &[("Range", &format!("bytes={first}-{last}"))])
}

/// Uploads a body for every kind of damage, inflicts it while nothing is in memory, and returns
/// what was uploaded.
fn damaged_uploads(mediary: Mediary, length: usize) -> (Mediary, Vec<(String, Vec<u8>, Damage)>) {
    let client = mediary.client().with_token(TOKEN);
    let uploads: Vec<_> = (0..)
        .zip(Damage::of(length))
        .map(|(seed, damage)| {
            let body = noise(length, seed);
            (client.upload("image/png", None, &body), body, damage)
        })
        .collect();
    let settings = mediary.kill();
    for (_, body, damage) in &uploads {
        damage.inflict(&blob(&settings.store(), body));
    }
    (settings.start(), uploads)
}

#[test]
fn damaged_uploads_are_never_served_until_they_are_uploaded_again() {
    let fake = FakeHomeserver::start();
    let mut mediary = Mediary::in_front_of(&fake.url);
    for length in [1000, 200_000, LARGE] {
        let uploads;
        (mediary, uploads) = damaged_uploads(mediary, length);
        let client = mediary.client().with_token(TOKEN);
        for (media, body, damage) in &uploads {
            let case = format!("{length} bytes, {damage:?}");
            for _ in 0..2 {
                assert_not_served(&client.download(media), body, &case);
            }
            let again = client.upload("image/png", None, body);
            for media in [media, &again] {
                let answer = client.download(media);
                assert!(answer.complete && answer.body == *body, "{case}: {}", answer.status);
            }
        }
        let counted = mediary.metric("mediary_corrupt_blobs_total");
        assert!(counted >= uploads.len() as f64, "{length} bytes: {counted} of {}", uploads.len());
    }
}

#[test]
fn a_body_damaged_under_the_running_process_breaks_off() {
    let fake = FakeHomeserver::start();
    for damage in Damage::of(LARGE) {
        let mediary = Mediary::in_front_of(&fake.url);
        let client = mediary.client().with_token(TOKEN);
        let body = noise(LARGE, 1);
        let media = client.upload("video/mp4", None, &body);
        assert!(client.download(&media).body == body);
        damage.inflict(&blob(&mediary.store(), &body));
        assert_not_served(&client.download(&media), &body, &format!("{damage:?}"));
    }
}

#[test]
fn a_part_with_a_damaged_block_is_not_served_and_one_without_is() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.client().with_token(TOKEN);
    let body = noise(LARGE, 1);
    let media = client.upload("video/mp4", None, &body);
    Damage::FlipBit(5 * BLOCK + 17).inflict(&blob(&mediary.store(), &body));

    for (first, last) in [(0, 99), (3 * BLOCK, 5 * BLOCK - 1), (6 * BLOCK, LARGE - 1)] {
        let answer = range(&client, &media, first, last);
        assert_eq!((answer.status, answer.complete), (206, true), "{first}-{last}");
        assert!(answer.body == body[first..=last], "{first}-{last}");
    }
    for (first, last) in [(5 * BLOCK + 17, 5 * BLOCK + 17), (5 * BLOCK, LARGE - 1), (0, LARGE - 1)]
    {
        let answer = range(&client, &media, first, last);
        assert_not_served(&answer, &body[first..], &format!("{first}-{last}"));
    }
}

/// A homeserver that holds media of its own: the named size, from the last part of the id.
fn holding_media() -> FakeHomeserver {
    FakeHomeserver::with(|request, stream| {
        let target = request.target();
        let id = target
            .split('?')
            .next()?
            .strip_prefix("/_matrix/client/v1/media/download/")?
            .split('/')
            .nth(1)?;
        let length: usize = id.rsplit('-').next()?.parse().ok()?;
        Some(respond_with(stream, 200, &[("Content-Type", "image/png")], &noise(length, 7)))
    })
}

#[test]
fn damaged_media_of_the_homeserver_is_fetched_anew() {
    let homeserver = holding_media();
    let mut mediary = Mediary::in_front_of(&homeserver.url);
    for length in [1000, 200_000, LARGE] {
        let body = noise(length, 7);
        for (number, damage) in Damage::of(length).into_iter().enumerate() {
            let case = format!("{length} bytes, {damage:?}");
            let media = format!("{SERVER_NAME}/old-{number}-{length}");
            let fetched = || homeserver.received_for(&media).len();
            let client = mediary.client().with_token(TOKEN);
            for _ in 0..2 {
                assert!(client.download(&media).body == body);
            }
            assert_eq!(fetched(), 1, "{case}: it is not kept");

            let settings = mediary.kill();
            damage.inflict(&blob(&settings.store(), &body));
            mediary = settings.start();
            let client = mediary.client().with_token(TOKEN);
            // The head of a large body is out before its damage is seen: that reply breaks, and
            // the next one is whole.
            let first = client.download(&media);
            if first.status != 200 || first.body != body {
                assert_not_served(&first, &body, &case);
                assert!(length > 256 * 1024, "{case}: the first answer is {}", first.status);
            }
            wait_until("it is whole again", || {
                let answer = client.download(&media);
                answer.status == 200 && answer.complete && answer.body == body
            });
            assert_eq!(fetched(), 2, "{case}");
        }
    }
}

/// A picture of noise, which stays large however it is packed.
fn picture() -> Vec<u8> {
    let (width, height) = (640, 480);
    let pixels = image::RgbImage::from_raw(width, height, noise(640 * 480 * 3, 3));
    let pixels = pixels.expect("as many bytes as pixels need");
    let mut png = std::io::Cursor::new(Vec::new());
    pixels.write_to(&mut png, image::ImageFormat::Png).expect("a picture that fits PNG");
    png.into_inner()
}

fn thumbnail(client: &Client, media: &str, side: u32) -> Answer {
    let path = format!("/_matrix/client/v1/media/thumbnail/{media}");
    client.get(&format!("{path}?width={side}&height={side}&method=crop"))
}

#[test]
fn a_damaged_thumbnail_is_made_again() {
    let fake = FakeHomeserver::start();
    let mut mediary = Mediary::in_front_of(&fake.url);
    let png = picture();
    let media = mediary.client().with_token(TOKEN).upload("image/png", None, &png);
    let good = thumbnail(&mediary.client().with_token(TOKEN), &media, 96);
    assert_eq!(good.status, 200, "{}", good.text());
    for damage in Damage::of(good.body.len()) {
        let settings = mediary.kill();
        damage.inflict(&blob(&settings.store(), &good.body));
        mediary = settings.start();
        let again = thumbnail(&mediary.client().with_token(TOKEN), &media, 96);
        assert_eq!((again.status, again.complete), (200, true), "{damage:?}");
        assert!(again.body == good.body, "{damage:?}");
    }
}

#[test]
fn no_thumbnail_is_made_of_a_damaged_picture() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.client().with_token(TOKEN);
    let png = picture();
    let media = client.upload("image/png", None, &png);
    let settings = mediary.kill();
    // In the pixels, where a decoder may see nothing wrong.
    Damage::FlipBit(png.len() / 2).inflict(&blob(&settings.store(), &png));
    let mediary = settings.start();
    let client = mediary.client().with_token(TOKEN);
    thumbnail(&client, &media, 96).assert_error(500, "M_UNKNOWN");

    let again = client.upload("image/png", None, &png);
    for media in [&media, &again] {
        assert_eq!(thumbnail(&client, media, 96).status, 200, "after it was uploaded again");
    }
}

// --- stores that cannot be used

fn settings_with_media(fake: &FakeHomeserver) -> Settings {
    let mediary = Mediary::in_front_of(&fake.url);
    mediary.client().with_token(TOKEN).upload("text/plain", None, b"body");
    mediary.kill()
}

fn assert_refused(settings: Settings, words: &[&str]) {
    let before = files_below(&settings.store());
    let (status, output) = settings.clone().refusal();
    assert_eq!(status.code(), Some(1), "{output}");
    let last = output.lines().last().unwrap_or_default();
    assert!(last.starts_with("mediary: cannot open the store in "), "{output}");
    for word in words {
        assert!(last.contains(word), "no {word:?} in {output}");
    }
    assert!(!output.contains("panicked"), "{output}");
    let blobs = |files: &[PathBuf]| {
        files.iter().filter(|path| path.to_string_lossy().contains("/blobs/")).count()
    };
    assert_eq!(blobs(&before), blobs(&files_below(&settings.store())), "blobs were touched");
}

fn remove_database(store: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(store.join(format!("mediary.db{suffix}")));
    }
}

#[test]
fn a_damaged_database_is_refused() {
    let fake = FakeHomeserver::start();
    let settings = settings_with_media(&fake);
    let path = settings.store().join("mediary.db");
    // All of it in one file, so that damage to that file is damage to the database.
    database(&settings.store()).pragma_update(None, "journal_mode", "delete").unwrap();
    let good = fs::read(&path).unwrap();
    let mut rotten = good.clone();
    rotten[4096..].fill(0xa5);
    for damaged in [noise(good.len(), 1), good[..good.len() / 2].to_vec(), rotten] {
        fs::write(&path, &damaged).unwrap();
        assert_refused(settings.clone(), &["mediary.db is damaged", "restore it from a backup"]);
        assert!(fs::read(&path).unwrap() == damaged, "a damaged database was written to");
    }
    fs::write(&path, &good).unwrap();
    settings.start();
}

#[test]
fn a_database_of_a_later_release_is_refused() {
    let fake = FakeHomeserver::start();
    let settings = settings_with_media(&fake);
    database(&settings.store()).pragma_update(None, "user_version", 9999).unwrap();
    assert_refused(settings, &["schema version 9999", "run the newer Mediary"]);
}

#[test]
fn blobs_without_their_database_are_refused() {
    let fake = FakeHomeserver::start();
    let settings = settings_with_media(&fake);
    remove_database(&settings.store());
    assert_refused(settings.clone(), &["mediary.db is missing", "from a backup"]);
    assert!(!settings.store().join("mediary.db").exists(), "a fresh database was made");
    fs::write(settings.store().join("mediary.db"), b"").unwrap();
    assert_refused(settings, &["is missing or empty"]);
}

#[test]
fn a_store_in_use_is_refused_to_a_second_mediary() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.client().with_token(TOKEN);
    let media = client.upload("text/plain", None, b"body");
    assert_refused(mediary.settings().clone(), &["in use by another Mediary"]);
    assert_eq!(client.download(&media).text(), "body");
}

#[test]
fn a_file_or_a_missing_parent_in_the_place_of_the_store_is_refused() {
    let settings = Settings::new("http://127.0.0.1:1");
    fs::write(settings.store(), b"a file").unwrap();
    assert_refused(settings.clone(), &["is not a directory"]);
    assert_eq!(fs::read(settings.store()).unwrap(), b"a file");
}

#[test]
fn a_store_that_everybody_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let settings = Settings::new("http://127.0.0.1:1");
    fs::create_dir(settings.store()).unwrap();
    fs::set_permissions(settings.store(), fs::Permissions::from_mode(0o777)).unwrap();
    assert_refused(settings, &["can be written by everybody", "chmod o-w"]);
}

#[test]
fn a_store_on_a_read_only_file_system_is_refused() {
    let fake = FakeHomeserver::start();
    let settings = settings_with_media(&fake);
    let script = "mount --bind \"$0\" \"$0\"; mount -o remount,bind,ro \"$0\"";
    assert_refused(settings.in_namespace(script), &["cannot be written", "read-only"]);
}

// --- a store that stops working

#[test]
fn a_full_disk_refuses_uploads_and_serves_what_is_there_until_there_is_room() {
    let homeserver = holding_media();
    let mediary = without_memory(&homeserver.url).on_disk(4).start();
    let store = mediary.mounted_store();
    let client = mediary.client().with_token(TOKEN);
    let upload = |length, seed| {
        client.request("POST", "/_matrix/media/v3/upload", &[], &noise(length, seed))
    };
    let unfinished = || files_below(&store.join("tmp"));
    let early = client.upload("text/plain", None, b"earlier media");

    for length in [6_000_000, 40_000_000] {
        upload(length, 1).assert_error(507, "M_UNKNOWN");
        assert!(unfinished().is_empty(), "{:?}", unfinished());
    }
    let filler = store.join("filler");
    let full = fs::write(&filler, noise(8 << 20, 2)).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    for length in [1, 5000, 300_000] {
        upload(length, 3).assert_error(507, "M_UNKNOWN");
    }
    assert!(unfinished().is_empty(), "{:?}", unfinished());
    assert_eq!(client.download(&early).text(), "earlier media");
    // What cannot be kept passes through all the same.
    let passing = client.download(&format!("{SERVER_NAME}/passing-300000"));
    assert!(passing.complete && passing.body == noise(300_000, 7), "{}", passing.status);
    assert!(unfinished().is_empty(), "{:?}", unfinished());

    fs::remove_file(filler).unwrap();
    for length in [1, 5000, 300_000] {
        let media = client.upload("text/plain", None, &noise(length, 3));
        assert!(client.download(&media).body == noise(length, 3));
    }
    assert_eq!(client.download(&early).text(), "earlier media");
}

/// DU-04
#[test]
fn a_store_that_is_unmounted_takes_nothing_and_is_whole_when_it_is_back() {
    let homeserver = holding_media();
    let script = "mkdir -p \"$0.disk\"; chmod 700 \"$0.disk\"; mount --bind \"$0.disk\" \"$0\"";
    let mediary = without_memory(&homeserver.url).in_namespace(script).start();
    let client = mediary.client().with_token(TOKEN);
    let owned = client.upload("text/plain", None, b"uploaded media");
    let remote = format!("{SERVER_NAME}/passing-3000");
    assert!(client.download(&remote).body == noise(3000, 7));
    wait_until("it is kept", || files_below(&mediary.mounted_store().join("blobs")).len() == 2);

    let namespace = ["--user", "--preserve-credentials", "--mount"];
    let unmount = ["umount", "--lazy", mediary.store().to_str().unwrap()].map(str::to_owned);
    let status = Command::new("/usr/bin/nsenter")
        .args(["--target", &mediary.pid().to_string()])
        .args(namespace)
        .args(unmount)
        .status();
    assert!(status.unwrap().success());
    for _ in 0..3 {
        let upload = client.request("POST", "/_matrix/media/v3/upload", &[], b"later media");
        assert!((500..=507).contains(&upload.status), "{upload:?}");
        let read = client.download(&owned);
        assert!(read.status >= 500 || read.text() == "uploaded media", "{read:?}");
        client.download(&remote);
    }
    let left = files_below(&mediary.mounted_store());
    assert!(left.is_empty(), "written into the empty mount point: {left:?}");

    let mediary = mediary.kill_and_restart();
    let client = mediary.client().with_token(TOKEN);
    assert_eq!(client.download(&owned).text(), "uploaded media");
    assert!(client.download(&remote).body == noise(3000, 7));
    let later = client.upload("text/plain", None, b"later media");
    assert_eq!(client.download(&later).text(), "later media");
}

#[test]
fn a_file_size_limit_fails_the_upload_and_nothing_else() {
    let fake = FakeHomeserver::start();
    // A megabyte, in blocks of 512 bytes; the signal that comes with it is ignored.
    let script = "trap '' XFSZ; ulimit -f 2048; exec \"$@\"";
    let mediary = without_memory(&fake.url).through(&["/bin/sh", "-c", script, "sh"]).start();
    let client = mediary.client().with_token(TOKEN);
    let early = client.upload("text/plain", None, b"earlier media");
    let answer = client.request("POST", "/_matrix/media/v3/upload", &[], &noise(2_000_000, 1));
    answer.assert_error(500, "M_UNKNOWN");
    assert!(mediary.unfinished().is_empty());
    assert_eq!(client.download(&early).text(), "earlier media");
    client.upload("text/plain", None, &noise(100_000, 1));
}

#[test]
fn a_database_locked_by_another_process_makes_uploads_wait_but_not_for_ever() {
    let fake = FakeHomeserver::start();
    let mediary = Mediary::in_front_of(&fake.url);
    let client = mediary.client().with_token(TOKEN);
    let early = client.upload("text/plain", None, b"earlier media");
    let backup = database(&mediary.store());
    backup.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = client.request("POST", "/_matrix/media/v3/upload", &[], b"locked out");
    answer.assert_error(503, "M_UNKNOWN");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(client.download(&early).text(), "earlier media");
    backup.execute_batch("ROLLBACK").unwrap();
    let media = client.upload("text/plain", None, b"let in");
    assert_eq!(client.download(&media).text(), "let in");
    assert_eq!(mediary.blobs().len(), 2, "the body without a record stayed");
}
