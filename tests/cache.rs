//! The cache has a size and leaves the disk some room: the longest unread goes first, what was uploaded
//! here never, and nobody is served anything wrong because of it.

mod common;

use std::fs;
use std::io::ErrorKind;
use std::thread;

use common::fake::{TOKEN, respond_with};
use common::samples::png;
use common::{Client, FakeHomeserver, Mediary, Settings, Synapse, noise, wait_until};
use image::GenericImageView;

const MIB: usize = 1024 * 1024;

/// A homeserver that has every file: `…/SIZE-SEED` is noise, `…/pngSIDE` is a picture.
fn homeserver() -> FakeHomeserver {
    FakeHomeserver::with(|request, stream| {
        let target = request.target();
        let name = target.split_once("/download/")?.1.split(['/', '?']).nth(1)?.to_owned();
        Some(respond_with(stream, 200, &[("Content-Type", "image/png")], &file(&name)))
    })
}

fn file(name: &str) -> Vec<u8> {
    if let Some(side) = name.strip_prefix("png") {
        let side = side.parse().expect("a side");
        return png(side, side);
    }
    let (size, seed) = name.split_once('-').expect("a size and a seed");
    noise(size.parse().expect("a size"), seed.parse().expect("a seed"))
}

/// Reads a remote file and compares it.
fn read(client: &Client, name: &str) {
    let answer = client.download(&format!("other.example/{name}"));
    assert_eq!((answer.status, answer.complete), (200, true), "{name}: {}", answer.text());
    assert!(answer.body == file(name), "{name}");
}

fn start(homeserver: &FakeHomeserver, storage: &str) -> (Mediary, Client) {
    let mediary = Settings::new(&homeserver.url).with(&format!("[storage]\n{storage}")).start();
    let client = mediary.client().with_token(TOKEN);
    (mediary, client)
}

/// How often the homeserver was asked for a file.
fn asked(homeserver: &FakeHomeserver, name: &str) -> usize {
    homeserver.received_for(&format!("/{name}?")).len()
}

fn evictions(mediary: &Mediary) -> f64 {
    mediary.metric("mediary_evictions_total")
}

/// Waits until so many bodies have been evicted and counted.
fn wait_for_evictions(mediary: &Mediary, least: f64) {
    wait_until("bodies are evicted", || evictions(mediary) >= least);
}

fn stored_bytes(mediary: &Mediary) -> u64 {
    // A file may go between being listed and being looked at.
    mediary.blobs().iter().filter_map(|path| fs::metadata(path).ok()).map(|m| m.len()).sum()
}

/// Waits until the cache is within its size, by its own account and on disk.
fn wait_until_within(mediary: &Mediary, limit: usize) {
    wait_until("the cache is within its size", || {
        mediary.metric("mediary_cache_bytes") <= limit as f64
            && stored_bytes(mediary) <= limit as u64
    });
}

fn assert_no_damage(mediary: &Mediary) {
    assert_eq!(mediary.metric("mediary_corrupt_blobs_total"), 0.0);
    let log = mediary.log();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

/// CS-LIM-05
#[test]
fn a_flood_of_remote_media_leaves_the_cache_within_its_size() {
    let homeserver = homeserver();
    let (mediary, client) = start(&homeserver, "cache_size = '2 MiB'");
    let names: Vec<_> = (0..80).map(|seed| format!("100000-{seed}")).collect();
    thread::scope(|scope| {
        for names in names.chunks(20) {
            let client = &client;
            scope.spawn(move || names.iter().for_each(|name| read(client, name)));
        }
    });
    wait_until_within(&mediary, 2 * MIB);
    assert_eq!(mediary.metric("mediary_cache_limit_bytes"), (2 * MIB) as f64);
    assert!(mediary.metric("mediary_cache_bytes") > 1.5 * MIB as f64, "more went than had to");
    wait_for_evictions(&mediary, 60.0);
    wait_until("the bytes are counted too", || {
        mediary.metric("mediary_evicted_bytes_total") == evictions(&mediary) * 100_000.0
    });
    for name in &names {
        read(&client, name);
    }
    wait_until_within(&mediary, 2 * MIB);
    assert_no_damage(&mediary);
}

#[test]
fn what_was_read_last_stays_and_what_was_evicted_is_fetched_anew() {
    let homeserver = homeserver();
    let (mediary, client) = start(&homeserver, "cache_size = '1 MiB'");
    let names: Vec<_> = (0..13).map(|seed| format!("100000-{seed}")).collect();
    for name in &names[..9] {
        read(&client, name);
    }
    // From memory, which counts all the same.
    read(&client, &names[0]);
    for name in &names[9..] {
        read(&client, name);
    }
    wait_until_within(&mediary, MIB);
    wait_for_evictions(&mediary, 3.0);
    read(&client, &names[0]);
    read(&client, &names[12]);
    assert_eq!(asked(&homeserver, &names[0]), 1, "it was read after the others");
    assert_eq!(asked(&homeserver, &names[12]), 1, "it came last");
    read(&client, &names[1]);
    assert_eq!(asked(&homeserver, &names[1]), 2, "it was the oldest, and memory forgot it too");
    assert_no_damage(&mediary);
}

#[test]
fn access_times_survive_an_orderly_restart() {
    let homeserver = homeserver();
    let storage = "cache_size = '1 MiB'\nmemory = '1 B'";
    let (mut mediary, client) = start(&homeserver, storage);
    let names: Vec<_> = (0..9).map(|seed| format!("100000-{seed}")).collect();
    for name in &names {
        read(&client, name);
    }
    read(&client, &names[0]);
    mediary.terminate();
    assert!(mediary.wait().success());
    let mediary = mediary.kill_and_restart();
    let client = mediary.client().with_token(TOKEN);
    for seed in 20..24 {
        read(&client, &format!("100000-{seed}"));
    }
    wait_until_within(&mediary, MIB);
    for name in [&names[0], &names[1]] {
        read(&client, name);
    }
    assert_eq!((asked(&homeserver, &names[0]), asked(&homeserver, &names[1])), (1, 2));
}

/// CS-LIM-07
#[test]
fn owned_media_is_not_counted_and_survives_any_flood() {
    let homeserver = homeserver();
    let (mediary, client) = start(&homeserver, "cache_size = '1 MiB'");
    let large = noise(3 * MIB, 1);
    let owned = client.upload("video/mp4", None, &large);
    // The same content as a remote file, which was there before.
    read(&client, "100000-7");
    let shared = client.upload("image/png", None, &file("100000-7"));
    for seed in 10..40 {
        read(&client, &format!("100000-{seed}"));
    }
    wait_until_within_besides(&mediary, MIB, large.len() + 100_000);
    for (media, body) in [(&owned, large), (&shared, file("100000-7"))] {
        let answer = client.download(media);
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{media}");
    }
    read(&client, "100000-7");
    assert_eq!(asked(&homeserver, "100000-7"), 1, "its content is owned now");
    assert_no_damage(&mediary);
}

fn wait_until_within_besides(mediary: &Mediary, limit: usize, owned: usize) {
    wait_until("the cache is within its size", || {
        mediary.metric("mediary_cache_bytes") <= limit as f64
            && stored_bytes(mediary) <= (limit + owned) as u64
    });
}

#[test]
fn thumbnails_go_with_their_media_and_are_made_again() {
    let homeserver = homeserver();
    let (mediary, client) = start(&homeserver, "cache_size = '1 MiB'");
    let first = client.thumbnail("other.example/png300");
    assert_eq!(first.status, 200, "{}", first.text());
    for seed in 0..20 {
        read(&client, &format!("100000-{seed}"));
    }
    wait_until_within(&mediary, MIB);
    let again = client.thumbnail("other.example/png300");
    assert!(again.body == first.body);
    assert_eq!(image::load_from_memory(&again.body).unwrap().dimensions(), (32, 32));
    assert_eq!(asked(&homeserver, "png300"), 2, "its source went, and it went too");
    assert_no_damage(&mediary);
}

#[test]
fn who_reads_while_others_evict_gets_every_byte() {
    let homeserver = homeserver();
    // Memory holds all of it, the cache a few of them.
    let (mediary, client) = start(&homeserver, "cache_size = '300 KiB'");
    let pictures: Vec<_> = (0..4).map(|n| format!("other.example/png{}", 200 + n)).collect();
    thread::scope(|scope| {
        for reader in 0..6_u64 {
            let (client, pictures) = (&client, &pictures);
            scope.spawn(move || {
                for number in noise(60, reader + 1) {
                    if number % 4 == 0 {
                        let picture = &pictures[usize::from(number / 4 % 4)];
                        let answer = client.thumbnail(picture);
                        assert_eq!(answer.status, 200, "{picture}: {}", answer.text());
                        let image = image::load_from_memory(&answer.body).expect("a picture");
                        assert_eq!(image.dimensions(), (32, 32));
                    } else {
                        read(client, &format!("{}-{}", 60_000 + u32::from(number), number % 16));
                    }
                }
            });
        }
    });
    wait_until_within(&mediary, 300 * 1024);
    wait_for_evictions(&mediary, 50.0);
    assert_no_damage(&mediary);
}

#[test]
fn media_of_synapse_that_was_evicted_is_fetched_again_and_uploads_stay() {
    let synapse = Synapse::get();
    let mediary = Settings::new(&synapse.url).with("[storage]\ncache_size = '1 MiB'").start();
    let user = synapse.user();
    let client = mediary.client_of(&user);
    let upload = |client: &Client, seed| client.upload("image/png", None, &noise(300_000, seed));
    let older: Vec<_> = (0..8).map(|seed| upload(&synapse.client_of(&user), seed)).collect();
    let owned = upload(&client, 100);
    for _ in 0..2 {
        for (seed, media) in (0..).zip(&older) {
            let answer = client.download(media);
            assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
            assert!(answer.body == noise(300_000, seed), "{media}");
        }
        wait_until_within_besides(&mediary, MIB, 300_000);
    }
    wait_for_evictions(&mediary, 8.0);
    assert!(client.download(&owned).body == noise(300_000, 100));
    assert_no_damage(&mediary);
}

// --- a small disk

/// Starts with the store on a disk of its own, of so many MiB.
fn start_on_disk(homeserver: &FakeHomeserver, mib: usize, storage: &str) -> (Mediary, Client) {
    let settings = Settings::new(&homeserver.url).with(&format!("[storage]\n{storage}"));
    let mediary = settings.on_disk(mib).start();
    let client = mediary.client().with_token(TOKEN);
    (mediary, client)
}

fn free(mediary: &Mediary) -> f64 {
    mediary.metric("mediary_storage_free_bytes")
}

#[test]
fn the_disk_keeps_the_free_space_that_was_asked_for() {
    let homeserver = homeserver();
    let (mediary, client) = start_on_disk(&homeserver, 64, "min_free = '40 MiB'");
    let owned = client.upload("video/mp4", None, &noise(5 * MIB, 1));
    for seed in 0..25 {
        read(&client, &format!("{MIB}-{seed}"));
    }
    wait_until("there is room again", || {
        evictions(&mediary) > 0.0 && free(&mediary) >= 40.0 * MIB as f64
    });
    assert!(evictions(&mediary) < 20.0, "more went than had to");
    assert!(client.download(&owned).body == noise(5 * MIB, 1));
    for seed in [0, 24] {
        read(&client, &format!("{MIB}-{seed}"));
    }
    assert_eq!(asked(&homeserver, &format!("{MIB}-0")), 2);
    assert_eq!(asked(&homeserver, &format!("{MIB}-24")), 1);
    assert_no_damage(&mediary);
}

#[test]
fn that_nothing_is_left_to_evict_is_said_once() {
    let homeserver = homeserver();
    let (mediary, client) = start_on_disk(&homeserver, 64, "min_free = '60 MiB'");
    // Each round shows the free space; so it is known when one has passed.
    wait_until("the first round has passed", || free(&mediary) > 0.0);
    for seed in 1..=3 {
        let before = free(&mediary);
        client.upload("video/mp4", None, &noise(5 * MIB, seed));
        wait_until("a round has passed", || free(&mediary) < before - 4.0 * MIB as f64);
    }
    mediary.wait_for_log("nothing is left to evict");
    assert_eq!(mediary.log().matches("nothing is left to evict").count(), 1);
    assert_eq!(evictions(&mediary), 0.0);
    assert_no_damage(&mediary);
}

#[test]
fn a_full_disk_refuses_uploads_until_eviction_makes_room() {
    let homeserver = homeserver();
    let (mediary, client) = start_on_disk(&homeserver, 32, "min_free = '8 MiB'");
    let early = client.upload("text/plain", None, b"earlier media");
    for seed in 0..20 {
        read(&client, &format!("{MIB}-{seed}"));
    }
    // Somebody else takes all that is left, so that not even an eviction finds room to be recorded.
    let full = fs::write(mediary.mounted_store().join("filler"), noise(32 * MIB, 2)).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    let upload = |size| {
        let target = "/_matrix/media/v3/upload";
        client.request("POST", target, &[], &noise(size, 3))
    };
    upload(40 * MIB).assert_error(507, "M_UNKNOWN");
    assert_eq!(client.download(&early).text(), "earlier media");
    read(&client, &format!("{MIB}-19"));
    wait_until("an upload is taken", || {
        let answer = upload(MIB);
        if answer.status != 200 {
            answer.assert_error(507, "M_UNKNOWN");
        }
        answer.status == 200
    });
    wait_until("there is room again", || free(&mediary) >= 8.0 * MIB as f64);
    assert_eq!(client.download(&early).text(), "earlier media");
    read(&client, &format!("{MIB}-19"));
    assert_eq!(asked(&homeserver, &format!("{MIB}-19")), 1, "the last read stayed");
    assert_no_damage(&mediary);
}

#[test]
fn a_full_disk_without_a_cache_refuses_uploads_until_files_are_deleted() {
    let homeserver = homeserver();
    let (mediary, client) = start_on_disk(&homeserver, 8, "min_free = '0 B'");
    let early = client.upload("text/plain", None, b"earlier media");
    let filler = mediary.mounted_store().join("filler");
    fs::write(&filler, noise(16 * MIB, 2)).unwrap_err();
    let upload = || client.request("POST", "/_matrix/media/v3/upload", &[], &noise(MIB, 3));
    upload().assert_error(507, "M_UNKNOWN");
    assert_eq!(client.download(&early).text(), "earlier media");
    // What cannot be kept passes through all the same.
    read(&client, "300000-1");
    fs::remove_file(filler).unwrap();
    assert_eq!(upload().status, 200);
    assert_eq!(client.download(&early).text(), "earlier media");
    assert_no_damage(&mediary);
}
