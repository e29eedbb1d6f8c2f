//! What the pure parts of a request's road cost: finding the route, reading conditions and ranges,
//! building the head of a reply, signing a request and checking a signature.
//!
//! `cargo bench --bench pure`

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, header};
use mediary::federation::KeySeed;
use mediary::federation::x_matrix::{Claim, signed_request};
use mediary::media::{MediaBody, MediaItem};
use mediary::response::{Conditions, Reply};
use mediary::route::{Access, classify};
use mediary::types::{ByteRange, ContentHash, ContentType, FileName, ServerName};

fn classification(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classify");
    for (name, target) in [
        ("sync", "/_matrix/client/v3/sync?since=s72594_4483_1934&timeout=30000"),
        ("encoded room path", "/_matrix/client/v3/rooms/%21abc%3Aexample.org/messages?dir=b"),
        ("download", "/_matrix/client/v1/media/download/example.org/GCmhgzMPRjqgpODLsNQzVuHZ"),
        (
            "thumbnail",
            "/_matrix/client/v1/media/thumbnail/example.org/GCmhgzMPRjqgpODLsNQzVuHZ\
             ?width=96&height=96&method=crop",
        ),
        ("disguised media path", "/_matrix/%6dedia/v3/../v3//download/example.org/abc"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(classify(&Method::GET, black_box(target.as_bytes()))));
        });
    }
}

fn ranges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("range");
    for field in ["bytes=0-", "bytes=1000000-1999999", "bytes=-500", "bytes=0-1,5-6,8-9"] {
        group.bench_function(field, |bencher| {
            bencher.iter(|| {
                ByteRange::parse(black_box(field.as_bytes())).map(|range| range.resolve(10_000_000))
            });
        });
    }
}

fn headers(criterion: &mut Criterion) {
    let item = || MediaItem {
        content_type: ContentType::from_header(Some(b"image/jpeg")),
        filename: FileName::clean("holiday picture.jpg"),
        content_hash: Some(ContentHash([7; 32])),
        body: MediaBody::Memory(Bytes::from_static(b"picture")),
    };
    let mut group = criterion.benchmark_group("reply");
    for (name, fields) in [
        ("200", vec![]),
        ("206", vec![(header::RANGE, "bytes=1-3")]),
        ("304", vec![(header::IF_NONE_MATCH, "*")]),
    ] {
        let mut request = HeaderMap::new();
        for (name, value) in fields {
            request.insert(name, HeaderValue::from_static(value));
        }
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                item,
                |item| {
                    let conditions = Conditions::of(&Method::GET, black_box(&request));
                    Reply::media(item, None, Access::Authenticated, &conditions)
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
}

/// One signature or its check is to cost less than 100 microseconds; the key is known already.
fn signatures(criterion: &mut Criterion) {
    let name = |text: &str| text.parse::<ServerName>().expect("a server name");
    let (us, them) = (name("us.example"), name("them.example"));
    let target = "/_matrix/federation/v1/media/download/GCmhgzMPRjqgpODLsNQzVuHZ?timeout_ms=20000";
    let key = KeySeed::generate().expect("random numbers").signing_key();
    let field = key.authorization(&them, &us, &Method::GET, target);
    let headers: HeaderMap = [(header::AUTHORIZATION, field)].into_iter().collect();

    let verify_key = key.verify_key();

    let mut group = criterion.benchmark_group("x-matrix");
    group.bench_function("sign", |bencher| {
        bencher.iter(|| key.authorization(&us, &them, &Method::GET, black_box(target)));
    });
    group.bench_function("read", |bencher| {
        bencher.iter(|| Claim::from_headers(black_box(&headers)));
    });
    group.bench_function("read and check", |bencher| {
        bencher.iter(|| {
            let claim = Claim::from_headers(black_box(&headers)).expect("a claim");
            let message = signed_request(&Method::GET, black_box(target), &claim.origin, &us);
            assert!(claim.signatures[0].verifies(&verify_key, &message));
        });
    });
}

criterion_group!(benches, classification, ranges, headers, signatures);
criterion_main!(benches);
