//! Quotas against a real store: whatever is charged, stored and given up in whichever order, nobody has
//! more than their quota, and nobody is refused who fits.

use std::sync::Arc;
use std::thread;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::store::{MediaSource, NewMedia, Reservation};
use crate::types::ContentType;

const NOW: UnixMillis = UnixMillis(1000);

struct Bench {
    quotas: Arc<Quotas>,
    store: Store,
    clock: Clock,
    runtime: Runtime,
    _directory: TempDir,
}

impl Bench {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let clock = Clock::standing_at(NOW);
        let quotas = Quotas::new(store.clone(), clock.clone());
        let runtime = Builder::new_current_thread().build().unwrap();
        Self { quotas, store, clock, runtime, _directory: directory }
    }

    fn charge(&self, quota: &Quota, want: Want) -> Option<Charge> {
        match self.quotas.charge(&alice(), quota, want) {
            Ok(charge) => Some(charge),
            Err(MediaError::OverQuota { .. }) => None,
            Err(other) => panic!("{other}"),
        }
    }

    /// Stores media of Alice's.
    fn store(&self, mxc: Mxc, bytes: usize, hold: impl Send + 'static) {
        self.runtime.block_on(async {
            let mut staging = self.store.stage().await.unwrap();
            // No two bodies are alike.
            let mut body = mxc.media_id.as_str().as_bytes().to_vec();
            body.resize(bytes, b'.');
            staging.write(&body).await.unwrap();
            self.store.commit_media_with(staging, media(mxc), hold).await.unwrap();
        });
    }

    fn reserve(&self, mxc: Mxc, expires_at: i64, hold: impl Send + 'static) {
        let reservation = Reservation {
            mxc,
            uploader: alice(),
            created_at: NOW,
            expires_at: UnixMillis(expires_at),
        };
        self.runtime.block_on(self.store.reserve_with(reservation, 1000, hold)).unwrap();
    }

    fn uploaded(&self) -> Tally {
        self.store.holdings(&alice(), self.clock.now(), &[]).unwrap().uploaded
    }
}

fn alice() -> UserId {
    "@alice:example.org".parse().unwrap()
}

fn mxc(number: usize) -> Mxc {
    let media_id = format!("media{number}").parse().unwrap();
    Mxc { server_name: "example.org".parse().unwrap(), media_id }
}

fn media(mxc: Mxc) -> NewMedia {
    NewMedia {
        mxc,
        content_type: ContentType::from_header(None),
        filename: None,
        uploader: Some(alice()),
        source: MediaSource::Owned,
        created_at: NOW,
        legacy_readable: false,
    }
}

fn bytes(bytes: u64) -> Quota {
    Quota { bytes: Some(bytes), ..Quota::default() }
}

fn files(files: u64) -> Quota {
    Quota { files: Some(files), ..Quota::default() }
}

fn want(number: usize, bytes: u64) -> Want {
    Want { mxc: mxc(number), bytes, spare_bytes: 0, reserved_until: None }
}

#[test]
fn what_is_charged_is_not_there_for_others_until_it_is_given_up() {
    let bench = Bench::new();
    let quota = bytes(100);
    let first = bench.charge(&quota, want(1, 60)).unwrap();
    assert!(bench.charge(&quota, want(2, 41)).is_none());
    let second = bench.charge(&quota, want(2, 40)).unwrap();
    assert!(bench.charge(&quota, want(3, 1)).is_none());
    assert!(bench.charge(&quota, want(3, 0)).is_some(), "an empty file fits");
    drop(first);
    assert!(bench.charge(&quota, want(3, 60)).is_some());
    drop(second);
    assert!(bench.quotas.accounts().is_empty(), "nobody is remembered without a charge");
}

#[test]
fn a_refusal_leaves_nothing_behind() {
    let bench = Bench::new();
    assert!(bench.charge(&bytes(100), want(1, 101)).is_none());
    assert!(bench.charge(&files(0), want(1, 0)).is_none());
    assert!(bench.quotas.accounts().is_empty());
    assert!(bench.charge(&bytes(100), want(1, 100)).is_some());
}

#[test]
fn without_a_quota_nobody_is_remembered() {
    let bench = Bench::new();
    let mut charge = bench.charge(&Quota::default(), want(1, u64::MAX)).unwrap();
    charge.cover(u64::MAX).unwrap();
    assert!(bench.quotas.accounts().is_empty());
}

#[test]
fn sizes_beyond_any_number_are_refused_and_do_not_wrap() {
    let bench = Bench::new();
    let quota = bytes(i64::MAX as u64);
    let mut charges = Vec::new();
    for number in 0..3 {
        charges.extend(bench.charge(&quota, want(number, i64::MAX as u64)));
    }
    assert_eq!(charges.len(), 1);
    assert!(bench.charge(&quota, want(9, u64::MAX)).is_none());
    let mut small = bench.charge(&quota, want(9, 0)).unwrap();
    assert!(matches!(small.cover(u64::MAX), Err(MediaError::OverQuota { .. })));
    let spare = Want { spare_bytes: u64::MAX, ..want(10, 0) };
    assert!(bench.charge(&quota, spare).is_none());
}

#[test]
fn a_body_of_unknown_length_is_charged_as_it_grows_up_to_the_last_byte() {
    let bench = Bench::new();
    let quota = bytes(3 * STEP);
    let mut first = bench.charge(&quota, want(1, 0)).unwrap();
    first.cover(1).unwrap();
    assert!(bench.charge(&quota, want(2, 2 * STEP)).is_none(), "a step is charged in advance");
    first.cover(3 * STEP).unwrap();
    assert!(matches!(first.cover(3 * STEP + 1), Err(MediaError::OverQuota { .. })));
    assert!(bench.charge(&quota, want(2, 1)).is_none(), "what was covered stays so");
    first.settle(1);
    assert!(bench.charge(&quota, want(2, 3 * STEP - 1)).is_some(), "what was not needed is free");
}

#[test]
fn at_the_moment_of_its_commit_a_file_counts_once() {
    let bench = Bench::new();
    for quota in [bytes(20), files(2)] {
        let number = usize::try_from(bench.uploaded().count).unwrap();
        let quota = Quota {
            bytes: quota.bytes.map(|bytes| bytes + bench.uploaded().bytes),
            files: quota.files.map(|files| files + bench.uploaded().count),
            ..quota
        };
        let mut charge = bench.charge(&quota, want(number, 10)).unwrap();
        charge.settle(10);
        assert!(bench.charge(&quota, want(number + 1, 10)).is_some(), "before the record");
        // The record is there, and the charge with it.
        bench.store(mxc(number), 10, ());
        assert!(bench.charge(&quota, want(number + 1, 10)).is_some(), "with the record");
        drop(charge);
        let last = bench.charge(&quota, want(number + 1, 10));
        assert!(last.is_some(), "after the charge");
        assert!(bench.charge(&quota, want(number + 2, 10)).is_none());
    }
}

#[test]
fn a_media_id_is_one_file_from_its_creation_on() {
    let bench = Bench::new();
    let quota = files(2);
    let mut creation = bench.charge(&quota, want(1, 0)).unwrap();
    creation.settle(0);
    bench.reserve(mxc(1), 2000, ());
    let other = bench.charge(&quota, want(2, 0)).unwrap();
    assert!(bench.charge(&quota, want(3, 0)).is_none(), "both of the charge and the id count once");
    drop(creation);
    assert!(bench.charge(&quota, want(3, 0)).is_none());
    let upload = Want { reserved_until: Some(UnixMillis(2000)), ..want(1, 5) };
    let mut upload = bench.charge(&quota, upload).unwrap();
    upload.cover(10).unwrap();
    upload.settle(10);
    assert!(bench.charge(&quota, want(3, 0)).is_none());
    bench.store(mxc(1), 10, upload);
    assert!(bench.charge(&quota, want(3, 0)).is_none());
    drop(other);
    assert!(bench.charge(&quota, want(3, 0)).is_some());
}

#[test]
fn an_upload_whose_media_id_expires_under_it_still_counts() {
    let bench = Bench::new();
    let quota = files(1);
    bench.reserve(mxc(1), 2000, ());
    let upload = Want { reserved_until: Some(UnixMillis(2000)), ..want(1, 5) };
    let mut upload = bench.charge(&quota, upload).unwrap();
    bench.clock.set(UnixMillis(2000));
    assert!(bench.charge(&quota, want(2, 0)).is_none());
    upload.cover(100).unwrap();
    upload.settle(100);
    assert!(bench.charge(&quota, want(2, 0)).is_none());
    drop(upload);
    assert!(bench.charge(&quota, want(2, 0)).is_some(), "an expired id counts for nothing");
}

#[test]
fn two_uploads_to_one_media_id_end_each_for_itself() {
    let bench = Bench::new();
    let quota = bytes(100);
    let again = || Want { reserved_until: Some(UnixMillis(2000)), ..want(1, 40) };
    let mut given_up = bench.charge(&quota, again()).unwrap();
    given_up.settle(40);
    let second = bench.charge(&quota, again()).unwrap();
    drop(given_up);
    assert!(bench.charge(&quota, want(2, 61)).is_none());
    drop(second);
    assert!(bench.charge(&quota, want(2, 100)).is_some());
}

#[test]
fn of_many_that_fit_each_but_not_together_as_many_get_in_as_fit() {
    let bench = Bench::new();
    let quota = Quota { bytes: Some(1000), files: Some(7), info: None };
    for (size, fit) in [(100, 7), (300, 3)] {
        let charges: Vec<Option<Charge>> = thread::scope(|scope| {
            let begin = |number| {
                scope.spawn({
                    let (bench, quota) = (&bench, &quota);
                    move || bench.charge(quota, want(number, size))
                })
            };
            let threads: Vec<_> = (0..20).map(begin).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(charges.iter().flatten().count(), fit);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Against a model that knows of every file whether it is to come, stored or given up.
    #[test]
    fn whatever_happens_the_quota_is_kept_and_whoever_fits_gets_in(
        steps in proptest::collection::vec((0..4_u8, 0..40_u64, any::<prop::sample::Index>()), 1..40),
    ) {
        const MOST_BYTES: u64 = 100;
        const MOST_FILES: u64 = 6;
        let bench = Bench::new();
        let quota = Quota { bytes: Some(MOST_BYTES), files: Some(MOST_FILES), info: None };
        let mut open: Vec<(usize, u64, Charge)> = Vec::new();
        let mut stored = Tally::default();
        for (number, (step, size, which)) in steps.into_iter().enumerate() {
            let used = stored.bytes + open.iter().map(|(_, bytes, _)| bytes).sum::<u64>();
            let files = stored.count + open.len() as u64;
            match step {
                0 | 1 => {
                    let fits = used + size <= MOST_BYTES && files < MOST_FILES;
                    let charge = bench.charge(&quota, want(number, size));
                    prop_assert_eq!(charge.is_some(), fits, "{} and {} files", used, files);
                    open.extend(charge.map(|charge| (number, size, charge)));
                }
                2 if !open.is_empty() => {
                    let (number, bytes, mut charge) = open.swap_remove(which.index(open.len()));
                    charge.settle(bytes);
                    bench.store(mxc(number), usize::try_from(bytes).unwrap(), charge);
                    stored.count += 1;
                    stored.bytes += bytes;
                }
                3 if !open.is_empty() => drop(open.swap_remove(which.index(open.len()))),
                _ => {}
            }
            prop_assert_eq!(bench.uploaded(), stored);
        }
        drop(open);
        prop_assert!(bench.quotas.accounts().is_empty());
    }
}
