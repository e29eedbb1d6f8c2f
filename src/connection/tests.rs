//! A connection with both ends in memory, under a clock that moves only when everybody waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep};

use super::{ConnectionLimits, Guard, Guarded, Peer};
use crate::config::TrustedProxies;
use crate::limit::Places;
use crate::metrics::Metrics;

const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const SLOW_TIMEOUT: Duration = Duration::from_secs(60);
const MIN_RATE: u64 = 1000;

/// How much the connection holds that nobody has read.
const BUFFER: usize = 4096;

struct Pair {
    client: DuplexStream,
    guarded: Guarded,
    metrics: Arc<Metrics>,
}

fn connect() -> Pair {
    let (client, server) = duplex(BUFFER);
    let limits = ConnectionLimits {
        header_timeout: HEADER_TIMEOUT,
        min_rate: MIN_RATE,
        slow_timeout: SLOW_TIMEOUT,
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    let trusted = TrustedProxies::loopback();
    let places = Arc::new(Places::new(1));
    let guard = Arc::new(Guard::new(limits, places, trusted, metrics.clone(), false));
    Pair {
        client,
        guarded: Guarded::new(Box::new(server), guard, Peer::Address([192, 0, 2, 1].into()), None),
        metrics,
    }
}

impl Pair {
    fn ended(&self, reason: &str) -> bool {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        text.contains(&format!("mediary_connections_ended_total{{reason=\"{reason}\"}} 1"))
    }

    /// Reads until the guard has had enough, and returns how long that took.
    async fn read_until_cut(&mut self) -> Duration {
        let start = Instant::now();
        let mut bytes = [0; 1024];
        loop {
            match self.guarded.read(&mut bytes).await {
                Ok(0) => panic!("the client has closed the connection"),
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
                    return start.elapsed();
                }
            }
        }
    }

    /// Closes as Pingora does, and returns what the client reads.
    async fn close(mut self) -> String {
        let mut said = String::new();
        tokio::join!(self.guarded.shutdown(), async {
            self.client.read_to_string(&mut said).await.unwrap();
            drop(self.client);
        })
        .0
        .unwrap();
        said
    }
}

/// Writes these bytes again and again with a pause before each, until nobody takes them any more.
async fn drip(mut client: DuplexStream, bytes: &'static [u8], pause: Duration) -> DuplexStream {
    loop {
        sleep(pause).await;
        if client.write_all(bytes).await.is_err() {
            return client;
        }
    }
}

/// Runs the client's side in the background for as long as the other is looked at.
async fn while_dripping(pair: &mut Pair, bytes: &'static [u8], pause: Duration) -> Duration {
    let (spare, _) = duplex(1);
    let client = std::mem::replace(&mut pair.client, spare);
    let dripping = tokio::spawn(drip(client, bytes, pause));
    let lasted = pair.read_until_cut().await;
    dripping.abort();
    lasted
}

/// RX-01
#[tokio::test(start_paused = true)]
async fn a_head_that_drips_ends_with_a_word_when_its_time_is_over() {
    let mut pair = connect();
    pair.client.write_all(b"GET /").await.unwrap();
    let start = Instant::now();
    let mut bytes = [0; 64];
    let cut = loop {
        tokio::select! {
            read = pair.guarded.read(&mut bytes) => if let Err(error) = read { break error },
            () = sleep(Duration::from_secs(10)) => pair.client.write_all(b"a").await.unwrap(),
        }
    };
    assert_eq!(cut.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(start.elapsed(), HEADER_TIMEOUT);
    assert!(pair.ended("head_too_slow"));
    let said = pair.close().await;
    assert!(said.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{said}");
    assert!(said.contains("\r\naccess-control-allow-origin: *\r\n"), "{said}");
    assert!(said.contains("\r\nconnection: close\r\n"), "{said}");
    assert!(said.contains("\"errcode\":\"M_UNKNOWN\""), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_that_says_nothing_is_closed_without_a_word() {
    let mut pair = connect();
    assert_eq!(pair.read_until_cut().await, HEADER_TIMEOUT);
    assert!(pair.ended("head_too_slow"));
    assert_eq!(pair.close().await, "");
}

#[tokio::test(start_paused = true)]
async fn each_request_of_a_connection_has_its_own_time_for_its_head() {
    let mut pair = connect();
    let mut bytes = [0; 64];
    for _ in 0..5 {
        pair.client.write_all(b"GET /").await.unwrap();
        assert_ne!(pair.guarded.read(&mut bytes).await.unwrap(), 0);
        sleep(HEADER_TIMEOUT / 2).await;
        pair.client.write_all(b" HTTP/1.1").await.unwrap();
        assert_ne!(pair.guarded.read(&mut bytes).await.unwrap(), 0);
        pair.guarded.begin_answer(false);
        pair.guarded.await_request();
        // Idle; how long that may last is for Pingora to say.
        sleep(10 * HEADER_TIMEOUT).await;
    }
}

/// RX-02
#[tokio::test(start_paused = true)]
async fn a_body_below_the_rate_is_cut_off_and_the_slower_the_sooner() {
    for (bytes, expected) in [(0, 60.0), (10, 60.0), (500, 119.0), (900, 591.0)] {
        let mut pair = connect();
        pair.guarded.begin_answer(true);
        let lasted = if bytes == 0 {
            pair.read_until_cut().await
        } else {
            while_dripping(&mut pair, &[0; 1000][..bytes], Duration::from_secs(1)).await
        };
        let seconds = lasted.as_secs_f64();
        assert!((seconds - expected).abs() < 1.5, "{bytes} bytes a second: after {seconds} s");
        assert!(pair.guarded.sent_too_slowly());
        assert!(pair.ended("body_too_slow"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_honest_slow_sender_is_waited_for() {
    let mut pair = connect();
    pair.guarded.begin_answer(true);
    let mut bytes = [0; 4096];
    for _ in 0..100 {
        // A tunnel, and what was held back in it comes at once.
        sleep(Duration::from_secs(50)).await;
        let burst = [0; 4096];
        for _ in 0..13 {
            pair.client.write_all(&burst).await.unwrap();
            pair.guarded.read_exact(&mut bytes).await.unwrap();
        }
    }
    assert!(!pair.guarded.sent_too_slowly());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_an_answer_may_be_silent_for_ever() {
    let mut pair = connect();
    pair.guarded.begin_answer(true);
    pair.guarded.end_body();
    let mut bytes = [0; 1];
    let silence = tokio::time::timeout(100 * SLOW_TIMEOUT, pair.guarded.read(&mut bytes)).await;
    silence.unwrap_err();
}

/// RX-03
#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_cut_off() {
    let mut pair = connect();
    pair.guarded.begin_answer(false);
    let start = Instant::now();
    let error = pair.guarded.write_all(&[0; 2 * BUFFER]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(start.elapsed(), SLOW_TIMEOUT);
    assert!(pair.ended("reader_too_slow"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_above_the_rate_gets_everything() {
    let mut pair = connect();
    pair.guarded.begin_answer(false);
    let reading = async {
        let mut taken = 0;
        let mut bytes = [0; 1100];
        while taken < 100 * BUFFER {
            sleep(Duration::from_secs(1)).await;
            taken += pair.client.read(&mut bytes).await.unwrap();
        }
    };
    let (written, ()) = tokio::join!(pair.guarded.write_all(&[0; 100 * BUFFER]), reading);
    written.unwrap();
}

/// SM-09
#[tokio::test]
async fn a_head_without_an_end_is_refused_in_bounded_memory() {
    let mut pair = connect();
    let (mut bytes, mut taken) = ([0; 1024], 0);
    let error = loop {
        pair.client.write_all(&[b'a'; 1024]).await.unwrap();
        match pair.guarded.read(&mut bytes).await {
            Ok(read) => taken += read,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::Other);
    assert_eq!(taken, 128 * 1024);
    assert!(pair.ended("head_too_large"));
    let said = pair.close().await;
    assert!(said.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{said}");
}

#[tokio::test]
async fn what_pingora_answers_before_a_request_is_taken_is_said_in_our_words() {
    for (theirs, status, errcode) in [
        ("HTTP/1.1 400 Bad Request\r\nServer: Pingora\r\n\r\n", 400, "M_UNKNOWN"),
        ("HTTP/1.1 405 Method Not Allowed\r\n\r\n", 405, "M_UNRECOGNIZED"),
    ] {
        let mut pair = connect();
        pair.client.write_all(b"what?").await.unwrap();
        assert_ne!(pair.guarded.read(&mut [0; 8]).await.unwrap(), 0);
        pair.guarded.write_all(theirs.as_bytes()).await.unwrap();
        pair.guarded.flush().await.unwrap();
        assert!(pair.ended("malformed"));
        let said = pair.close().await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        assert!(said.contains(errcode) && !said.contains("Pingora"), "{said}");
    }
}

/// AU-09
#[tokio::test]
async fn a_refused_head_request_gets_no_body_however_it_is_cut_into_pieces() {
    for pieces in [&["HEAD what?"][..], &["HE", "A", "D what?"]] {
        let mut pair = connect();
        for piece in pieces {
            pair.client.write_all(piece.as_bytes()).await.unwrap();
            assert_ne!(pair.guarded.read(&mut [0; 16]).await.unwrap(), 0);
        }
        pair.guarded.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let said = pair.close().await;
        assert!(said.starts_with("HTTP/1.1 400 ") && said.ends_with("\r\n\r\n"), "{said}");
        assert!(said.contains("\r\ncontent-length: "), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_word_is_not_waited_for_longer_than_two_seconds() {
    let mut pair = connect();
    pair.client.write_all(b"what?").await.unwrap();
    assert_ne!(pair.guarded.read(&mut [0; 8]).await.unwrap(), 0);
    pair.guarded.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let start = Instant::now();
    // The client neither reads nor closes.
    pair.guarded.shutdown().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

#[tokio::test]
async fn an_answer_passes_as_it_is() {
    let mut pair = connect();
    pair.guarded.begin_answer(false);
    pair.guarded.write_all(b"HTTP/1.1 400 Theirs\r\n\r\n").await.unwrap();
    pair.guarded.flush().await.unwrap();
    assert_eq!(pair.close().await, "HTTP/1.1 400 Theirs\r\n\r\n");
}
