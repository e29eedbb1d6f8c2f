//! Downloads: bytes, headers, ranges and conditions (checklist sections 6 to 8).

mod common;

use common::{Mediary, Synapse};

#[test]
fn what_was_uploaded_comes_back_byte_for_byte() {
    let synapse = Synapse::get();
    let mediary = Mediary::in_front_of(&synapse.url);
    let client = mediary.client_of(&synapse.user());
    for size in [0, 1, 65_535, 65_536, 65_537, 300_000, 3_000_001] {
        let body: Vec<u8> = (0..size).map(|i: u32| (i % 251) as u8).collect();
        let media = client.upload("application/octet-stream", None, &body);
        let answer = client.download(&media);
        assert_eq!((answer.status, answer.complete), (200, true), "{size}");
        assert!(answer.body == body, "{size} bytes came back different");
    }
}
