//! TLS for tests: an authority that lives as long as the test, and a front that ends TLS for a server
//! that speaks plain HTTP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::NamedTempFile;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// A certificate authority. Nobody believes it but who is told to.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one, whose key is its own.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Mediary's test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("an authority") }
    }

    /// Returns its certificate as PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes its certificate into a file, which goes when it is dropped.
    pub fn file(&self) -> NamedTempFile {
        let file = NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), self.pem()).expect("the certificate can be written");
        file
    }

    /// Issues a certificate that is good now for these names and addresses.
    pub fn certificate(&self, names: &[&str]) -> Certificate {
        self.issue(names, 4096)
    }

    /// Issues one that was good until the end of 2020.
    pub fn expired_certificate(&self, names: &[&str]) -> Certificate {
        self.issue(names, 2021)
    }

    fn issue(&self, names: &[&str], until: i32) -> Certificate {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names for a certificate");
        params.distinguished_name.push(DnType::CommonName, "a server of a test");
        params.use_authority_key_identifier_extension = true;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Certificate { certificate: certificate.der().clone(), key: key.serialize_der() }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// A certificate with its key.
pub struct Certificate {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Certificate {
    /// Returns how a server of HTTP/1.1 shows it.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(self.key.clone()).expect("a key");
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .expect("the key is the certificate's");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// Ends TLS for a server behind it, which can be exchanged while it runs: so the same server name may
/// lead to a homeserver itself, or to Mediary in front of it. Ends with the test.
pub struct TlsFront {
    /// Where it listens.
    pub address: SocketAddr,
    backend: watch::Sender<Option<SocketAddr>>,
    names: Arc<Mutex<Vec<Option<String>>>>,
    connections: Arc<AtomicUsize>,
}

impl TlsFront {
    /// Listens on a free port of 127.0.0.1 with a certificate; until it is told where to lead,
    /// connections end after the handshake.
    pub fn new(certificate: &Certificate) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("an option of the socket");
        let front = Self {
            address: listener.local_addr().expect("an address"),
            backend: watch::Sender::new(None),
            names: Arc::default(),
            connections: Arc::default(),
        };
        let acceptor = TlsAcceptor::from(certificate.server_config());
        let (backend, names) = (front.backend.subscribe(), front.names.clone());
        let connections = front.connections.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::SeqCst);
                    let (backend, names) = (backend.clone(), names.clone());
                    tokio::spawn(forward(acceptor.clone(), stream, backend, names));
                }
            });
        });
        front
    }

    /// Leads to this server from now on; connections that led elsewhere end.
    pub fn lead_to(&self, backend: SocketAddr) {
        self.backend.send_replace(Some(backend));
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns a server name that leads here without discovery.
    pub fn server_name(&self) -> String {
        format!("localhost:{}", self.port())
    }

    /// Returns how many connections were made so far, handshake or not.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Returns which names were asked for by SNI so far, one for each handshake.
    pub fn names(&self) -> Vec<Option<String>> {
        self.names.lock().expect("the names").clone()
    }
}

async fn forward(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    mut backend: watch::Receiver<Option<SocketAddr>>,
    names: Arc<Mutex<Vec<Option<String>>>>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(mut outside) = acceptor.accept(stream).await else { return };
    let name = outside.get_ref().1.server_name().map(str::to_owned);
    names.lock().expect("the names").push(name);
    let leads_to = *backend.borrow_and_update();
    let Some(leads_to) = leads_to else { return };
    let Ok(mut inside) = TcpStream::connect(leads_to).await else { return };
    let _ = inside.set_nodelay(true);
    // Whichever side breaks off, the other one's connection goes too.
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut outside, &mut inside) => {}
        // A front that the test has no more use for still serves who is connected.
        Ok(()) = backend.changed() => {}
    }
}
