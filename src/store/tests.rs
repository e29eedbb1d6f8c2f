//! What the store promises through its doors, and what its own tests share.

use super::*;
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::task::{Context, Waker};
use tempfile::TempDir;
use tokio::runtime::Builder;

use crate::types::{ContentType, FileName, ThumbnailEncoding, ThumbnailMethod, ThumbnailSize};

/// Opens an empty store.
pub(super) fn open() -> (TempDir, Store) {
    let directory = TempDir::new().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, store)
}

/// Returns a body whose blocks all differ.
pub(super) fn body(length: usize) -> Vec<u8> {
    (0_u32..).flat_map(|number| (number ^ 0x5eed).to_le_bytes()).take(length).collect()
}

pub(super) fn new_media(media_id: &str, source: MediaSource) -> NewMedia {
    NewMedia {
        mxc: Mxc {
            server_name: "example.org".parse().unwrap(),
            media_id: media_id.parse().unwrap(),
        },
        content_type: ContentType::from_header(Some(b"image/png")),
        filename: FileName::clean("cat ☃.png"),
        uploader: Some("@alice:example.org".parse().unwrap()),
        source,
        created_at: UnixMillis(1_700_000_000_000),
        legacy_readable: false,
    }
}

pub(super) async fn stage(store: &Store, body: &[u8]) -> Staging {
    let mut staging = store.stage().await.unwrap();
    staging.write(body).await.unwrap();
    staging
}

pub(super) async fn put(store: &Store, media_id: &str, body: &[u8]) -> MediaRecord {
    put_from(store, media_id, body, MediaSource::Owned).await
}

pub(super) async fn put_from(
    store: &Store,
    media_id: &str,
    body: &[u8],
    source: MediaSource,
) -> MediaRecord {
    let staged = stage(store, body).await;
    store.commit_media(staged, new_media(media_id, source)).await.unwrap()
}

pub(super) async fn put_thumbnail(
    store: &Store,
    source: &MediaRecord,
    body: &[u8],
) -> ThumbnailRecord {
    let staged = stage(store, body).await;
    store.commit_thumbnail(staged, new_thumbnail(source, SPEC)).await.unwrap()
}

pub(super) async fn read(store: &Store, blob: &BlobRecord) -> Result<Vec<u8>, StoreError> {
    let mut reader = store.open_blob(blob)?;
    let mut whole = Vec::new();
    while let Some(chunk) = reader.next_chunk().await? {
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

pub(super) fn path_of(directory: &TempDir, blob: &BlobRecord) -> PathBuf {
    let digits = blob.content_hash.to_string();
    directory.path().join("blobs").join(&digits[..2]).join(&digits[2..4]).join(digits)
}

pub(super) fn entries(directory: &TempDir, name: &str) -> usize {
    fs::read_dir(directory.path().join(name)).unwrap().count()
}

/// Changes one bit of a blob on disk.
pub(super) fn flip_bit(directory: &TempDir, blob: &BlobRecord, bit: usize) {
    let path = path_of(directory, blob);
    let mut bytes = fs::read(&path).unwrap();
    bytes[bit / 8] ^= 1 << (bit % 8);
    fs::write(path, bytes).unwrap();
}

/// Copies a store's directory as it lies on disk at this moment, as if the process had been killed.
fn killed(directory: &TempDir) -> TempDir {
    fn copy(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir(&to).unwrap();
                copy(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let image = TempDir::new().unwrap();
    copy(directory.path(), image.path());
    image
}

pub(super) const SPEC: ThumbnailSpec = ThumbnailSpec {
    size: ThumbnailSize { width: 320, height: 240 },
    method: ThumbnailMethod::Scale,
    animated: false,
    encoding: ThumbnailEncoding::Universal,
};

/// A thumbnail of a piece of media, one of as many as you like.
pub(super) fn new_thumbnail(source: &MediaRecord, spec: ThumbnailSpec) -> NewThumbnail {
    NewThumbnail {
        source: source.blob.content_hash,
        spec,
        content_type: source.content_type.clone(),
        max_variants: u64::MAX,
        exempt: Arc::default(),
    }
}

async fn thumbnail_count(store: &Store) -> u64 {
    store.usage().await.unwrap().thumbnails.count
}

#[tokio::test]
async fn what_was_stored_is_read_back_also_by_the_next_process() {
    let (directory, store) = open();
    let started = store.first_started_at();
    for (media_id, length) in [("empty", 0), ("one", 1), ("block", 65_536), ("many", 1_000_003)] {
        let record = put(&store, media_id, &body(length)).await;
        assert_eq!(record.blob.size, length as u64);
        assert_eq!(record, new_media(media_id, MediaSource::Owned).with_blob(record.blob.clone()));
    }
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    for (media_id, length) in [("empty", 0), ("one", 1), ("block", 65_536), ("many", 1_000_003)] {
        let media = new_media(media_id, MediaSource::Owned);
        let record = store.media(&media.mxc).unwrap().unwrap();
        assert_eq!(read(&store, &record.blob).await.unwrap(), body(length));
        assert_eq!(record, media.with_blob(record.blob.clone()));
    }
    assert_eq!(store.first_started_at(), started);
    assert_eq!(store.media(&new_media("other", MediaSource::Owned).mxc).unwrap(), None);
}

#[tokio::test]
async fn media_without_a_name_or_an_uploader_stays_so() {
    let (_directory, store) = open();
    let media =
        NewMedia { filename: None, uploader: None, ..new_media("bare", MediaSource::Remote) };
    let staged = stage(&store, b"body").await;
    let record = store.commit_media(staged, media.clone()).await.unwrap();
    assert_eq!(store.media(&media.mxc).unwrap(), Some(record.clone()));
    assert_eq!((record.filename, record.uploader, record.source), (None, None, media.source));
}

#[tokio::test]
async fn ids_that_differ_by_case_are_different_media() {
    let (_directory, store) = open();
    let lower = put(&store, "abc", b"lower").await;
    let upper = put(&store, "ABC", b"upper").await;
    assert_eq!(store.media(&lower.mxc).unwrap(), Some(lower));
    assert_eq!(store.media(&upper.mxc).unwrap(), Some(upper));
}

#[tokio::test]
async fn the_same_content_is_one_blob() {
    let (_directory, store) = open();
    let first = put(&store, "first", b"same").await;
    let second = put_from(&store, "second", b"same", MediaSource::Remote).await;
    assert_eq!(first.blob, second.blob);
    let usage = store.usage().await.unwrap();
    assert_eq!(usage.blobs, Tally { count: 1, bytes: 4 });
    assert_eq!(usage.owned, Tally { count: 1, bytes: 4 });
    assert_eq!(usage.remote, Tally { count: 1, bytes: 4 });
    assert_eq!(usage.upstream, Tally::default());
}

#[tokio::test]
async fn of_two_commits_for_one_media_the_first_wins() {
    let (directory, store) = open();
    let first = put(&store, "contested", b"first").await;
    let late = stage(&store, b"second").await;
    let refused = store.commit_media(late, new_media("contested", MediaSource::Remote)).await;
    match refused {
        Err(StoreError::AlreadyExists(present)) => assert_eq!(*present, first),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.media(&first.mxc).unwrap(), Some(first));
    assert_eq!(entries(&directory, "tmp"), 0);
}

#[tokio::test]
async fn of_racing_commits_for_one_media_one_wins_and_the_others_leave_nothing() {
    let (directory, store) = open();
    let mut racers = Vec::new();
    for number in 0..8_u8 {
        let (store, staged) = (store.clone(), stage(&store, &[number]).await);
        racers.push(tokio::spawn(async move {
            store.commit_media(staged, new_media("contested", MediaSource::Owned)).await
        }));
    }
    let mut winners = Vec::new();
    let mut present = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            Ok(record) => winners.push(record),
            Err(StoreError::AlreadyExists(record)) => present.push(*record),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert!(present.iter().all(|record| *record == winners[0]));
    let usage = store.usage().await.unwrap();
    assert_eq!((usage.owned.count, usage.blobs.count), (1, 1));
    assert_eq!(store.sweep_orphans(|| false).await.unwrap().removed, 0);
    assert_eq!(entries(&directory, "tmp"), 0);
    read(&store, &winners[0].blob).await.unwrap();
}

#[tokio::test]
async fn what_was_committed_at_the_same_time_survives_a_kill() {
    let (directory, store) = open();
    let commits: Vec<_> = (0..50)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { put(&store, &format!("m{number}"), &body(number)).await })
        })
        .collect();
    let mut records = Vec::new();
    for commit in commits {
        records.push(commit.await.unwrap());
    }
    let image = killed(&directory);
    let revived = Store::open(image.path()).unwrap();
    for record in records {
        assert_eq!(revived.media(&record.mxc).unwrap().as_ref(), Some(&record));
        let size = usize::try_from(record.blob.size).unwrap();
        assert_eq!(read(&revived, &record.blob).await.unwrap(), body(size));
    }
    assert_eq!(revived.sweep_orphans(|| false).await.unwrap().removed, 0);
}

#[test]
fn a_commit_that_nobody_waits_for_is_made_all_the_same() {
    let (_directory, store) = open();
    // One thread for all that waits for the disk, which therefore does things in order.
    let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let staged = stage(&store, b"body").await;
        let media = new_media("impatient", MediaSource::Owned);
        let mut commit = Box::pin(store.commit_media(staged, media.clone()));
        let _ = commit.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        drop(commit);
        assert_eq!(store.usage().await.unwrap().owned.count, 1);
        let record = store.media(&media.mxc).unwrap().unwrap();
        assert_eq!(read(&store, &record.blob).await.unwrap(), b"body");
    });
}

#[tokio::test]
async fn a_blob_whose_record_never_came_is_swept_and_no_other() {
    let (directory, store) = open();
    let kept = put(&store, "kept", b"kept").await;
    let settled = stage(&store, b"orphan").await.settle().await.unwrap();
    let (orphan, published) = store.inner.publish(settled).unwrap();

    assert_eq!(store.sweep_orphans(|| false).await.unwrap().removed, 0);
    assert!(path_of(&directory, &orphan).exists(), "its record may still come");

    drop(published);
    assert_eq!(store.sweep_orphans(|| true).await.unwrap(), Swept::default());
    let swept = store.sweep_orphans(|| false).await.unwrap();
    assert_eq!(swept, Swept { removed: 1, bytes: 6, complete: true });
    assert!(!path_of(&directory, &orphan).exists());
    assert_eq!(read(&store, &kept.blob).await.unwrap(), b"kept");
}

#[tokio::test]
async fn a_crash_before_the_record_leaves_an_orphan_and_no_record() {
    let (directory, store) = open();
    let settled = stage(&store, b"orphan").await.settle().await.unwrap();
    let _published = store.inner.publish(settled).unwrap();
    let _half = stage(&store, &body(300_000)).await;
    let image = killed(&directory);
    let revived = Store::open(image.path()).unwrap();
    assert_eq!(entries(&image, "tmp"), 0);
    assert_eq!(revived.usage().await.unwrap(), Usage::default());
    assert_eq!(revived.sweep_orphans(|| false).await.unwrap().removed, 1);
}

#[tokio::test]
async fn thumbnails_are_found_by_content_and_specification() {
    let (_directory, store) = open();
    let original = put(&store, "original", b"large picture").await;
    let source = original.blob.content_hash;
    assert_eq!(store.thumbnail(&source, &SPEC).unwrap(), None);
    let made = put_thumbnail(&store, &original, b"small").await;
    assert_eq!(store.thumbnail(&source, &SPEC).unwrap(), Some(made.clone()));
    assert_eq!(read(&store, &made.blob).await.unwrap(), b"small");
    for other in [
        ThumbnailSpec { animated: true, ..SPEC },
        ThumbnailSpec { method: ThumbnailMethod::Crop, ..SPEC },
        ThumbnailSpec { encoding: ThumbnailEncoding::WebP, ..SPEC },
        ThumbnailSpec { size: ThumbnailSize { width: 240, height: 320 }, ..SPEC },
    ] {
        assert_eq!(store.thumbnail(&source, &other).unwrap(), None);
    }
    assert_eq!(store.usage().await.unwrap().thumbnails, Tally { count: 1, bytes: 5 });
}

#[tokio::test]
async fn a_thumbnail_made_twice_is_kept_as_it_was_first() {
    let (_directory, store) = open();
    let original = put(&store, "original", b"large").await;
    let first = put_thumbnail(&store, &original, b"small").await;
    assert_eq!(put_thumbnail(&store, &original, b"tiny").await, first);
    assert_eq!(store.usage().await.unwrap().blobs.count, 2);
    assert_eq!(store.sweep_orphans(|| false).await.unwrap().removed, 0);
}

#[tokio::test]
async fn of_racing_thumbnails_one_is_kept_and_the_others_leave_nothing() {
    let (_directory, store) = open();
    let original = put(&store, "original", b"large").await;
    let mut racers = Vec::new();
    for number in 0..8_u8 {
        let (store, original) = (store.clone(), original.clone());
        racers.push(tokio::spawn(async move { put_thumbnail(&store, &original, &[number]).await }));
    }
    let kept = racers.pop().unwrap().await.unwrap();
    for racer in racers {
        assert_eq!(racer.await.unwrap(), kept);
    }
    assert_eq!(store.usage().await.unwrap().blobs.count, 2);
    assert_eq!(store.sweep_orphans(|| false).await.unwrap().removed, 0);
    read(&store, &kept.blob).await.unwrap();
}

#[tokio::test]
async fn a_thumbnail_of_each_encoding_is_kept_and_goes_with_its_body() {
    let (directory, store) = open();
    let original = put(&store, "original", b"large").await;
    let source = original.blob.content_hash;
    let webp = ThumbnailSpec { encoding: ThumbnailEncoding::WebP, ..SPEC };
    let universal = put_thumbnail(&store, &original, b"everybody's").await;
    let staged = stage(&store, b"smaller").await;
    let smaller = store.commit_thumbnail(staged, new_thumbnail(&original, webp)).await.unwrap();
    assert_eq!(store.thumbnail(&source, &SPEC).unwrap(), Some(universal));
    assert_eq!(store.thumbnail(&source, &webp).unwrap(), Some(smaller.clone()));
    assert_eq!(thumbnail_count(&store).await, 2);
    flip_bit(&directory, &smaller.blob, 3);
    let removed = store.set_aside(&smaller.blob.content_hash).await.unwrap().unwrap();
    assert_eq!(removed.thumbnails, [(source, webp)]);
    assert_eq!(thumbnail_count(&store).await, 1);
}

#[tokio::test]
async fn what_is_exempt_is_kept_past_the_most_variants_and_takes_nobodys_place() {
    let (_directory, store) = open();
    let original = put(&store, "original", b"large").await;
    let spec = |width| ThumbnailSpec { size: ThumbnailSize { width, height: 1 }, ..SPEC };
    let exempt = Arc::new(HashSet::from([spec(1), spec(2)]));
    let variant = |width| NewThumbnail {
        max_variants: 2,
        exempt: exempt.clone(),
        ..new_thumbnail(&original, spec(width))
    };
    for (width, is_kept) in [(1, true), (10, true), (11, true), (12, false), (2, true), (13, false)]
    {
        assert_eq!(store.has_room_for(&variant(width)).unwrap(), is_kept, "{width}");
        let staged = stage(&store, &[width as u8]).await;
        match store.commit_thumbnail(staged, variant(width)).await {
            Ok(_) => assert!(is_kept, "{width}"),
            Err(error) => assert!(!is_kept && matches!(error, StoreError::TooManyVariants)),
        }
    }
    assert_eq!(thumbnail_count(&store).await, 4);
}

#[tokio::test]
async fn the_name_of_a_body_is_the_one_that_it_is_stored_by() {
    let (_directory, store) = open();
    let stored = put(&store, "original", b"a body").await.blob.content_hash;
    assert_eq!(store.name_of(Bytes::from_static(b"a body")).await.unwrap(), stored);
}

#[tokio::test]
async fn of_racing_variants_no_more_are_kept_than_may_be_and_the_others_leave_nothing() {
    let (_directory, store) = open();
    let original = put(&store, "original", b"large").await;
    let source = original.blob.content_hash;
    let variant = |number: u8| {
        let size = ThumbnailSize { width: 1 + u32::from(number), height: 1 };
        NewThumbnail { max_variants: 3, ..new_thumbnail(&original, ThumbnailSpec { size, ..SPEC }) }
    };
    let mut racers = Vec::new();
    for number in 0..12_u8 {
        let (store, variant) = (store.clone(), variant(number));
        racers.push(tokio::spawn(async move {
            // Every third is the original itself.
            if number.is_multiple_of(3) {
                return store.record_original_as_thumbnail(variant).await;
            }
            let staged = stage(&store, &[number]).await;
            store.commit_thumbnail(staged, variant).await
        }));
    }
    let mut kept = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(_) => kept += 1,
            Err(StoreError::TooManyVariants) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((kept, thumbnail_count(&store).await), (3, 3));
    let named = store.usage().await.unwrap().blobs.count;
    assert!(named <= 4, "{named} blobs have records");
    assert_eq!(store.sweep_orphans(|| false).await.unwrap().removed, 0);
    // What is there is found as ever.
    let present = (0..12).find(|&n| store.thumbnail(&source, &variant(n).spec).unwrap().is_some());
    let present = variant(present.expect("three are kept"));
    store.record_original_as_thumbnail(present).await.unwrap();
}

#[tokio::test]
async fn an_original_can_be_its_own_thumbnail() {
    let (_directory, store) = open();
    let original = put(&store, "original", b"small already").await;
    let source = original.blob.content_hash;
    let thumbnail = new_thumbnail(&original, SPEC);
    let linked = store.record_original_as_thumbnail(thumbnail.clone()).await.unwrap();
    assert_eq!(linked.blob, original.blob);
    assert_eq!(store.thumbnail(&source, &SPEC).unwrap(), Some(linked.clone()));
    let again = store.record_original_as_thumbnail(thumbnail.clone()).await.unwrap();
    assert_eq!(again, linked);
    let nothing = ContentHash([7; 32]);
    let unknown = NewThumbnail { source: nothing, ..thumbnail };
    let refused = store.record_original_as_thumbnail(unknown).await;
    assert!(
        matches!(refused, Err(StoreError::Missing { content_hash }) if content_hash == nothing)
    );
}

#[tokio::test]
async fn the_mark_that_media_is_readable_without_a_token_is_kept() {
    let (_directory, store) = open();
    let record = put(&store, "frozen", b"body").await;
    store.mark_legacy_readable(&record.mxc).await.unwrap();
    store.mark_legacy_readable(&new_media("unknown", record.source).mxc).await.unwrap();
    let marked = MediaRecord { legacy_readable: true, ..record.clone() };
    assert_eq!(store.media(&record.mxc).unwrap(), Some(marked));
}

#[tokio::test]
async fn a_setting_is_kept_and_replaced() {
    let (directory, store) = open();
    assert_eq!(store.setting("server_name").unwrap(), None);
    store.set_setting("server_name", "example.com").await.unwrap();
    store.set_setting("server_name", "example.org").await.unwrap();
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.setting("server_name").unwrap().as_deref(), Some("example.org"));
}

#[tokio::test]
async fn corrupt_media_that_another_server_has_is_forgotten_and_fetched_again() {
    let (directory, store) = open();
    for source in [MediaSource::Upstream, MediaSource::Remote] {
        let record = put_from(&store, "elsewhere", &body(100_000), source).await;
        flip_bit(&directory, &record.blob, 77);
        assert!(store.set_aside(&record.blob.content_hash).await.unwrap().is_some());
        assert_eq!(store.media(&record.mxc).unwrap(), None);
        assert_eq!(entries(&directory, "corrupt"), 1);
        let again = put_from(&store, "elsewhere", &body(100_000), source).await;
        assert_eq!(read(&store, &again.blob).await.unwrap(), body(100_000));
        fs::remove_file(path_of(&directory, &again.blob)).unwrap();
        assert!(
            store.set_aside(&again.blob.content_hash).await.unwrap().is_some(),
            "missing is as bad"
        );
        assert_eq!(store.usage().await.unwrap(), Usage::default());
    }
}

#[tokio::test]
async fn corrupt_media_owned_here_keeps_its_record_until_it_is_uploaded_again() {
    let (directory, store) = open();
    let owned = put(&store, "owned", b"body").await;
    let copy = put_from(&store, "copy", b"body", MediaSource::Remote).await;
    let hash = owned.blob.content_hash;
    store.record_original_as_thumbnail(new_thumbnail(&owned, SPEC)).await.unwrap();
    flip_bit(&directory, &owned.blob, 0);
    assert!(store.set_aside(&hash).await.unwrap().is_some());
    assert_eq!(store.media(&copy.mxc).unwrap(), None);
    assert_eq!(store.thumbnail(&hash, &SPEC).unwrap(), None);
    let record = store.media(&owned.mxc).unwrap().unwrap();
    let failed = read(&store, &record.blob).await;
    assert!(matches!(failed, Err(StoreError::Missing { content_hash }) if content_hash == hash));
    put(&store, "again", b"body").await;
    assert_eq!(read(&store, &record.blob).await.unwrap(), b"body");
}

#[tokio::test]
async fn checksums_that_rotted_are_healed_by_the_next_upload_of_the_content() {
    let (directory, store) = open();
    let first = put(&store, "first", b"body").await;
    let database = rusqlite::Connection::open(directory.path().join("mediary.db")).unwrap();
    database.execute("UPDATE blob SET checksums = x'00000000'", []).unwrap();
    let rotten = store.media(&first.mxc).unwrap().unwrap().blob;
    assert!(matches!(read(&store, &rotten).await, Err(StoreError::Corrupt { .. })));
    put(&store, "again", b"body").await;
    assert_eq!(store.media(&first.mxc).unwrap(), Some(first));
}

#[tokio::test]
async fn a_blob_stays_while_it_is_in_doubt_whether_its_record_was_committed() {
    let (directory, store) = open();
    let database = rusqlite::Connection::open(directory.path().join("mediary.db")).unwrap();
    let failing = "CREATE TRIGGER failing BEFORE INSERT ON media
                   BEGIN SELECT RAISE(ABORT, 'a fault'); END";
    database.execute_batch(failing).unwrap();
    let staged = stage(&store, b"body").await;
    let refused = store.commit_media(staged, new_media("media", MediaSource::Owned)).await;
    assert!(matches!(refused, Err(StoreError::Database(_))));
    assert_eq!(store.sweep_orphans(|| false).await.unwrap().removed, 1);
}

#[tokio::test]
async fn a_corrupt_thumbnail_is_forgotten_and_one_of_a_lost_original_is_kept() {
    let (directory, store) = open();
    let original = put_from(&store, "original", b"large", MediaSource::Remote).await;
    let source = original.blob.content_hash;
    let thumbnail = put_thumbnail(&store, &original, b"small").await;
    flip_bit(&directory, &original.blob, 3);
    assert!(store.set_aside(&source).await.unwrap().is_some());
    assert_eq!(store.thumbnail(&source, &SPEC).unwrap(), Some(thumbnail.clone()));
    flip_bit(&directory, &thumbnail.blob, 3);
    assert!(store.set_aside(&thumbnail.blob.content_hash).await.unwrap().is_some());
    assert_eq!(store.thumbnail(&source, &SPEC).unwrap(), None);
    assert_eq!(store.usage().await.unwrap(), Usage::default());
}

#[tokio::test]
async fn a_blob_that_is_sound_or_being_replaced_is_not_set_aside() {
    let (directory, store) = open();
    let record = put_from(&store, "remote", b"body", MediaSource::Remote).await;
    let hash = record.blob.content_hash;
    assert!(store.set_aside(&hash).await.unwrap().is_none(), "it is sound");
    assert!(store.set_aside(&ContentHash([7; 32])).await.unwrap().is_none(), "it is unknown");
    flip_bit(&directory, &record.blob, 1);
    let published = store.inner.publishing.begin(hash);
    assert!(store.set_aside(&hash).await.unwrap().is_none(), "it is being replaced");
    drop(published);
    assert!(store.set_aside(&hash).await.unwrap().is_some());
}

#[test]
fn a_store_in_use_is_refused() {
    let (directory, store) = open();
    let refused = Store::open(directory.path()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse(_)), "{refused}");
    drop(store);
    Store::open(directory.path()).unwrap();
}

#[tokio::test]
async fn blobs_without_their_database_are_refused() {
    let (directory, store) = open();
    put(&store, "media", b"body").await;
    drop(store);
    let database = directory.path().join("mediary.db");
    let saved = fs::read(&database).unwrap();
    fs::remove_file(&database).unwrap();
    let refused = Store::open(directory.path()).unwrap_err();
    assert!(matches!(refused, OpenError::MissingDatabase(_)), "{refused}");
    assert!(!database.exists());
    fs::write(&database, saved).unwrap();
    assert_eq!(Store::open(directory.path()).unwrap().usage().await.unwrap().owned.count, 1);
}

#[test]
fn a_closed_store_leaves_one_private_database_file() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, store) = open();
    drop(store);
    let mode = fs::metadata(directory.path().join("mediary.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!directory.path().join("mediary.db-wal").exists(), "the log has been moved in");
}
