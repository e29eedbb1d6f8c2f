use super::*;
use crate::thumbnail::samples;
use crate::types::{ThumbnailEncoding, ThumbnailMethod, ThumbnailSize};
use image::ImageFormat;
use std::path::PathBuf;
use tokio::sync::oneshot;

const CONTENT: ContentHash = ContentHash([7; 32]);

fn spec(side: u32) -> ThumbnailSpec {
    ThumbnailSpec {
        size: ThumbnailSize { width: side, height: side },
        method: ThumbnailMethod::Crop,
        animated: false,
        encoding: ThumbnailEncoding::Universal,
    }
}

fn settings(workers: usize, queue: usize) -> EngineSettings {
    EngineSettings::in_threads(Capacity { workers, queue }, Limits::default())
}

async fn opened(source: &[u8]) -> Result<File, ThumbnailError> {
    Ok(samples::file(source))
}

fn png() -> Vec<u8> {
    samples::encoded(&samples::quarters(32, 32), ImageFormat::Png)
}

fn widths(made: &[Rendered]) -> Vec<u32> {
    let width = |one: &Rendered| match one {
        Rendered::Encoded { size, .. } => size.width,
        Rendered::Original { .. } => 0,
    };
    made.iter().map(width).collect()
}

#[tokio::test]
async fn thumbnails_are_made_in_the_order_they_were_asked_for() {
    let engine = ThumbnailEngine::new(settings(1, 0)).unwrap();
    let specs = [spec(16), spec(8), spec(16)];
    // The keeper may not have offered its desk yet.
    let made = loop {
        match engine.render(CONTENT, opened(&png()), &specs, Urgency::Client).await {
            Err(ThumbnailError::Busy) => tokio::task::yield_now().await,
            made => break made,
        }
    };
    assert_eq!(widths(&made.unwrap()), [16, 8, 16]);
}

#[test]
fn without_programs_neither_videos_nor_heic_are_worth_a_look() {
    let engine = ThumbnailEngine::new(settings(0, 0)).unwrap();
    assert!(engine.can_make(&png()));
    for start in [
        &b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2\0\0\0\x08moov"[..],
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\x08meta",
        b"hello",
        b"",
    ] {
        assert!(!engine.can_make(start), "{start:?}");
    }
}

#[tokio::test]
async fn without_workers_everything_is_refused() {
    let engine = ThumbnailEngine::new(settings(0, 5)).unwrap();
    let made = engine.render(CONTENT, opened(b""), &[spec(8)], Urgency::Client).await;
    assert!(matches!(made, Err(ThumbnailError::Busy)), "{made:?}");
}

#[tokio::test]
async fn sizes_asked_for_at_once_share_one_job() {
    let settings = settings(1, 9);
    let jobs = settings.metrics.jobs.clone();
    let engine = ThumbnailEngine::new(settings).unwrap();
    let (open, may_open) = oneshot::channel();
    let source = async {
        may_open.await.unwrap();
        opened(&png()).await
    };
    let (small, large) = ([spec(8)], [spec(16)]);
    let first = engine.render(CONTENT, source, &small, Urgency::Client);
    let second = async {
        let never = std::future::pending::<Result<File, ThumbnailError>>();
        let made = engine.render(CONTENT, never, &large, Urgency::Client);
        let mut made = std::pin::pin!(made);
        assert!(futures_poll(made.as_mut()).await.is_none());
        open.send(()).unwrap();
        made.await
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((widths(&first.unwrap()), widths(&second.unwrap())), (vec![8], vec![16]));
    assert_eq!(jobs.get(), 1);
}

/// Polls a future once.
async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn what_opening_failed_with_is_told_to_who_opened() {
    #[derive(Debug, PartialEq)]
    enum Failure {
        Own,
        Thumbnail,
    }
    impl From<ThumbnailError> for Failure {
        fn from(_: ThumbnailError) -> Self {
            Self::Thumbnail
        }
    }
    let engine = ThumbnailEngine::new(settings(1, 1)).unwrap();
    let failing = async { Err(Failure::Own) };
    let made = engine.render(CONTENT, failing, &[spec(8)], Urgency::Client).await;
    assert_eq!(made, Err(Failure::Own));
    // The worker is free again.
    let made = engine.render(CONTENT, opened(&png()), &[spec(8)], Urgency::Client).await;
    assert!(made.is_ok(), "{made:?}");
}

#[tokio::test]
async fn where_no_worker_can_be_started_requests_fail_and_do_not_hang() {
    let launch = Launch::Processes(ProcessSettings {
        program: PathBuf::from("/nonexistent"),
        timeout: Duration::from_secs(1),
        memory_bytes: 1 << 30,
        jobs: 10,
        wholly: false,
    });
    let settings = EngineSettings { launch, ..settings(2, 5) };
    let engine = ThumbnailEngine::new(settings).unwrap();
    let start = engine.first_start(Duration::from_secs(30)).expect("it failed by now");
    assert!(start.is_err());
    let made = engine.render(CONTENT, opened(&png()), &[spec(8)], Urgency::Client).await;
    assert!(matches!(made, Err(ThumbnailError::Unavailable)), "{made:?}");
}

#[test]
fn an_engine_that_is_dropped_ends_its_threads() {
    let settings = settings(3, 1);
    let waiting = settings.metrics.waiting.clone();
    let engine = ThumbnailEngine::new(settings).unwrap();
    let queue = Arc::downgrade(&engine.queue);
    drop(engine);
    // Every keeper holds the queue.
    while queue.upgrade().is_some() {
        thread::yield_now();
    }
    assert_eq!(waiting.get(), 0);
}
