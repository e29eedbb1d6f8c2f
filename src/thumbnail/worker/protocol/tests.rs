use super::*;
use crate::thumbnail::limits::Limits;
use crate::thumbnail::samples;
use crate::types::{MovingEncoding, ThumbnailEncoding, ThumbnailMethod, ThumbnailSpec};
use proptest::prelude::*;

const JPEG: &[u8] = b"\xff\xd8\xff\xe0 and so on";
const WEBP: &[u8] = b"RIFF\x10\0\0\0WEBPVP8L";

fn job(specs: usize) -> Job {
    let spec = ThumbnailSpec {
        size: ThumbnailSize { width: 9, height: 9 },
        method: ThumbnailMethod::Scale,
        animated: false,
        encoding: ThumbnailEncoding::Universal,
    };
    let limits = Limits { max_pixels: 1000, ..Limits::default() };
    Job { specs: vec![spec; specs], limits, moving: MovingEncoding::default(), is_extracted: false }
}

fn encoded(bytes: &[u8], content_type: &'static str) -> Rendered {
    let size = ThumbnailSize { width: 10, height: 100 };
    Rendered::Encoded { bytes: bytes.to_vec(), content_type, size }
}

fn packet(outcome: Result<Vec<Made>, Failure>) -> Vec<u8> {
    serde_json::to_vec(&Answer { outcome, used: Used::default() }).unwrap()
}

fn believed(
    packet: &[u8],
    job: &Job,
    body: &[u8],
) -> Result<Result<Vec<Rendered>, ThumbnailError>, Disbelief> {
    Answer::parse(packet).and_then(|answer| answer.believe(job, &samples::file(body)))
}

fn one(content_type: &str, width: u32, height: u32, bytes: u64) -> Made {
    let content_type = content_type.to_owned();
    Made::Encoded { content_type, size: ThumbnailSize { width, height }, bytes }
}

#[test]
fn thumbnails_arrive_as_they_were_sent() {
    let mut body = samples::file(b"");
    let rendered = vec![
        encoded(JPEG, "image/jpeg"),
        Rendered::Original { content_type: "image/gif" },
        encoded(WEBP, "image/webp"),
    ];
    let used = Used { cpu: Duration::from_millis(1500), memory_bytes: 7, grown_bytes: 9 };
    let answer = Answer::new(Ok(rendered.clone()), &mut body, used);
    let packet = serde_json::to_vec(&answer).unwrap();
    let read = Answer::parse(&packet).unwrap();
    assert_eq!(read.used, used);
    assert_eq!(read.believe(&job(3), &body).unwrap().unwrap(), rendered);
}

#[test]
fn each_failure_arrives_as_what_it_is() {
    let arrived = |error: ThumbnailError| {
        let answer = Answer::new(Err(error), &mut samples::file(b""), Used::default());
        let packet = serde_json::to_vec(&answer).unwrap();
        believed(&packet, &job(1), b"").unwrap().expect_err("a failure")
    };
    use ThumbnailError::{Damaged, Io, OutOfMemory, Panicked, TooLarge, Unsupported};
    assert!(matches!(arrived(Unsupported), Unsupported));
    assert!(matches!(arrived(Damaged("why".into())), Damaged(why) if why == "why"));
    assert!(matches!(arrived(TooLarge("why".into())), TooLarge(why) if why == "why"));
    assert!(matches!(arrived(Panicked("why".into())), Panicked(why) if why == "why"));
    assert!(matches!(arrived(OutOfMemory), OutOfMemory));
    assert!(matches!(arrived(Io(io::ErrorKind::NotFound.into())), Io(_)));
    assert!(matches!(arrived(Io(io::Error::from_raw_os_error(12))), OutOfMemory));
}

#[test]
fn the_longest_job_and_its_answer_fit_into_a_packet() {
    let job = job(MAX_SPECS);
    let spec =
        ThumbnailSpec { size: ThumbnailSize { width: u32::MAX, height: u32::MAX }, ..job.specs[0] };
    let job = Job { specs: vec![spec; MAX_SPECS], ..job };
    let max = super::super::channel::MAX_PACKET;
    assert!(serde_json::to_vec(&job).unwrap().len() < max);
    let made = vec![one("image/jpeg", u32::MAX, u32::MAX, u64::MAX); MAX_SPECS];
    assert!(packet(Ok(made)).len() < max);
    let text = "\u{1}".repeat(10_000);
    let failure = Failure::from(ThumbnailError::Damaged(text));
    assert!(packet(Err(failure)).len() < max);
}

#[test]
fn what_is_no_answer_to_the_job_is_not_believed() {
    let jpeg = |bytes| one("image/jpeg", 1, 1, bytes);
    let original = |name: &str| Made::Original { content_type: name.to_owned() };
    for (made, body) in [
        // Another number of thumbnails.
        (vec![], JPEG),
        (vec![jpeg(5), jpeg(5)], JPEG),
        // Types that thumbnails do not have, or do not have here.
        (vec![one("text/html", 1, 1, 5)], JPEG),
        (vec![one("image/svg+xml", 1, 1, 5)], JPEG),
        (vec![original("text/html")], JPEG),
        (vec![original("image/jpeg\r\nx: y")], JPEG),
        (vec![one("image/png", 1, 1, 5)], JPEG),
        (vec![one("image/webp", 1, 1, 5)], JPEG),
        // Sizes that no thumbnail has.
        (vec![one("image/jpeg", 0, 1, 5)], JPEG),
        (vec![one("image/jpeg", 1001, 1, 5)], JPEG),
        (vec![one("image/jpeg", u32::MAX, u32::MAX, 5)], JPEG),
        // More bytes than there are, or than there may be.
        (vec![jpeg(0)], JPEG),
        (vec![jpeg(JPEG.len() as u64 + 1)], JPEG),
        (vec![jpeg(u64::MAX)], JPEG),
        (vec![jpeg(5)], b""),
    ] {
        let believed = believed(&packet(Ok(made.clone())), &job(1), body);
        assert!(believed.is_err(), "{made:?} was believed: {believed:?}");
    }
    let together = vec![jpeg(JPEG.len() as u64); 2];
    assert!(believed(&packet(Ok(together)), &job(2), JPEG).is_err());
}

#[test]
fn more_bytes_than_thumbnails_may_have_are_not_read_however_large_the_file_is() {
    let body = samples::file(b"");
    body.set_len(MAX_BODY_BYTES * 16).unwrap();
    let answer = Answer {
        outcome: Ok(vec![one("image/jpeg", 1, 1, MAX_BODY_BYTES + 1)]),
        used: Used::default(),
    };
    assert_eq!(answer.believe(&job(1), &body), Err(Disbelief("its results are too long")));
}

impl PartialEq for ThumbnailError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

#[test]
fn a_pictures_words_are_cut_and_kept_in_one_line() {
    let text = format!("a\nb\u{1b}[31mé\u{202e}{}", "x".repeat(1000));
    let failure = packet(Err(Failure::Damaged(text)));
    let Ok(Err(ThumbnailError::Damaged(text))) = believed(&failure, &job(1), b"") else {
        panic!("no failure");
    };
    assert!(text.starts_with("a?b?[31m??xxx"), "{text}");
    assert_eq!(text.len(), MAX_TEXT);
}

proptest! {
    #[test]
    fn arbitrary_packets_never_panic(packet: Vec<u8>, body: Vec<u8>) {
        let _ = believed(&packet, &job(1), &body);
    }

    #[test]
    fn arbitrary_answers_give_no_more_than_was_written(
        made in proptest::collection::vec((any::<u8>(), any::<[u32; 2]>(), any::<u64>()), 0..4),
        lengths: [u8; 4],
        body: Vec<u8>,
    ) {
        let names = ["image/jpeg", "image/png", "image/gif", "text/html", ""];
        let made = made.into_iter().zip(lengths).map(|((pick, [width, height], bytes), length)| {
            let name = names[usize::from(pick) % names.len()];
            match pick {
                0..=50 => Made::Original { content_type: name.to_owned() },
                51..=150 => one(name, width % 40, height % 40, u64::from(length)),
                _ => one(name, width, height, bytes),
            }
        });
        let made: Vec<_> = made.collect();
        let job = job(made.len());
        let body = [JPEG, &body].concat();
        if let Ok(Ok(rendered)) = believed(&packet(Ok(made)), &job, &body) {
            let lengths = rendered.iter().map(|one| match one {
                Rendered::Original { .. } => 0,
                Rendered::Encoded { bytes, .. } => bytes.len(),
            });
            prop_assert!(lengths.sum::<usize>() <= body.len());
        }
    }
}
