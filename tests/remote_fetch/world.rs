//! What the tests of fetching share: a way out that leads to scripted servers on loopback.

use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use mediary::federation::{
    FetchError, FetchOptions, RemoteFetcher, RemoteMedia, Servers, SigningKey, Transfer,
    TransferLimits,
};
use mediary::types::{BodyError, BodyReader, Mxc, ServerName};
use tempfile::NamedTempFile;

use crate::common::fake::{Received, respond_with};
use crate::common::origin::{BOUNDARY, TlsStream};
use crate::common::{Authority, DnsServer, Origin, ServerKey, egress};

/// Who we are.
pub const US: &str = "us.example";

/// The seed of our key.
const SEED: [u8; 32] = [7; 32];

/// What a reader wants unless a test says otherwise.
pub const OPTIONS: FetchOptions =
    FetchOptions { wait: Duration::from_secs(20), max_size: 1024 * 1024 };

/// What is allowed unless a test says otherwise.
pub const LIMITS: TransferLimits = TransferLimits {
    timeout: Duration::from_secs(20),
    max_per_server: 16,
    min_rate: 0,
    slow_timeout: Duration::from_secs(20),
};

/// Where servers are found.
pub struct World {
    pub authority: Authority,
    pub dns: DnsServer,
}

/// Runs a test in a world of its own.
pub fn in_a_world<F: Future>(test: impl FnOnce(Arc<World>) -> F) -> F::Output {
    let world = Arc::new(World { authority: Authority::new(), dns: DnsServer::start() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(test(world))
}

impl World {
    /// Returns what fetches here, with nothing remembered.
    pub fn fetcher(&self) -> RemoteFetcher {
        self.fetcher_within(LIMITS)
    }

    /// Returns one with limits of its own.
    pub fn fetcher_within(&self, limits: TransferLimits) -> RemoteFetcher {
        let servers = Servers::new(egress(&self.authority, &self.dns));
        let file = NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), our_key().line()).expect("the key can be written");
        let key = SigningKey::read(file.path()).expect("a key");
        RemoteFetcher::new(servers, Arc::new(key), limits)
    }

    /// Starts a server that has an answer of the test's own to everything about media.
    pub fn origin(
        &self,
        answer: impl Fn(&Received, &mut TlsStream) -> bool + Send + Sync + 'static,
    ) -> Origin {
        self.origin_that_may(move |request, stream| Some(answer(request, stream)))
    }

    /// Starts one that does what the script says, and behaves where that says nothing.
    pub fn origin_that_may(
        &self,
        script: impl Fn(&Received, &mut TlsStream) -> Option<bool> + Send + Sync + 'static,
    ) -> Origin {
        let origin = Origin::with(&self.authority, script);
        let name = format!("127.0.0.1:{}", origin.port());
        origin.named(&name)
    }

    /// Starts a server that is asked what one place has, and how that is said.
    pub fn origin_with(&self, fields: &'static [(&str, &str)], body: &'static [u8]) -> Origin {
        self.origin(move |_, stream| respond_with(stream, 200, fields, body))
    }

    /// Starts a server that says that its media is at this URL.
    pub fn origin_leading_to(&self, url: &str) -> Origin {
        let head = format!("Location: {url}\r\n");
        self.origin(move |_, stream| respond_parts(stream, &head, b""))
    }

    /// Fetches the media `abc` of a server, with nothing remembered.
    pub async fn fetch(&self, origin: &Origin) -> Result<RemoteMedia, FetchError> {
        fetch(&self.fetcher(), origin).await
    }

    /// Fetches it to its end.
    pub async fn whole(&self, origin: &Origin) -> Vec<u8> {
        read(self.fetch(origin).await.expect("media").body).await.expect("a whole body")
    }

    /// Fetches it and returns why there is none.
    #[track_caller]
    pub fn refusal(&self, origin: &Origin) -> impl Future<Output = FetchError> {
        let fetcher = self.fetcher();
        let origin = origin.server_name();
        async move { fetch_named(&fetcher, &origin, OPTIONS).await.err().expect("no media") }
    }

    /// Fetches it and returns how its body failed.
    pub async fn break_off(&self, origin: &Origin) -> BodyError {
        read(self.fetch(origin).await.expect("media").body).await.expect_err("a broken body")
    }
}

/// Returns the key that requests are signed with.
pub fn our_key() -> ServerKey {
    ServerKey::of_seed("ours", SEED)
}

/// Fetches the media `abc` of a server.
pub async fn fetch(fetcher: &RemoteFetcher, origin: &Origin) -> Result<RemoteMedia, FetchError> {
    fetch_named(fetcher, &origin.server_name(), OPTIONS).await
}

/// Fetches the media `abc` of a server with this name.
pub async fn fetch_named(
    fetcher: &RemoteFetcher,
    server: &str,
    options: FetchOptions,
) -> Result<RemoteMedia, FetchError> {
    let us: ServerName = US.parse().expect("a name");
    let mxc: Mxc = format!("mxc://{server}/abc").parse().expect("a URI");
    let place = fetcher.enter(&mxc.server_name).await?;
    fetcher.fetch(place, &us, &mxc, options).await
}

/// Reads a body to its end.
pub async fn read(mut body: Transfer) -> Result<Vec<u8>, BodyError> {
    let mut whole = Vec::new();
    while let Some(chunk) = body.next().await? {
        assert!(!chunk.is_empty());
        whole.extend_from_slice(&chunk);
    }
    assert!(matches!(body.next().await, Ok(None)), "an end is an end");
    Ok(whole)
}

/// Writes an answer of two parts, of which the second has this head.
pub fn respond_parts(stream: &mut impl Write, head: &str, media: &[u8]) -> bool {
    let content_type = format!("multipart/mixed; boundary={BOUNDARY}");
    respond_with(stream, 200, &[("Content-Type", &content_type)], &parts(head, media))
}

/// Returns the body of such an answer.
pub fn parts(head: &str, media: &[u8]) -> Vec<u8> {
    let before = format!(
        "\r\n--{BOUNDARY}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{BOUNDARY}\r\n{head}\r\n"
    );
    [before.as_bytes(), media, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat()
}

/// Writes the head of an answer and the beginning of its body, and no more.
pub fn begin(stream: &mut TlsStream, head: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {head}\r\n\r\n");
    // The other side may be gone.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let _ = stream.flush();
}
