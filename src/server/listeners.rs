//! Sockets, bound before anything else is started, so that a taken address ends the process with a
//! clear word; or handed over by systemd, so that a restart refuses nobody.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use listenfd::ListenFd;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use socket2::SockRef;

use crate::config::{Config, ListenAddress};

/// How much the kernel takes of a reply in bytes before its client does. By itself it would take
/// megabytes: thousands of clients that read nothing would fill the memory, and fill it first.
const MAX_UNSENT: u32 = 128 * 1024;

/// A socket that listens already.
pub(super) enum Listener {
    /// On an address and port.
    Tcp { socket: TcpListener, address: String },
    /// On a path.
    Unix { socket: UnixListener, path: String },
}

/// All sockets of the process.
pub(super) struct Sockets {
    /// Where clients connect.
    pub(super) proxy: Vec<Listener>,
    /// Where metrics and health are asked for.
    pub(super) admin: Option<Listener>,
}

/// Binds what the configuration names, or takes the sockets that systemd hands over in the place of
/// `server.listen`.
pub(super) fn bind(config: &Config) -> Result<Sockets> {
    let mut proxy = inherited().context("cannot use the sockets that systemd handed over")?;
    let admin_address = config.server.admin_listen.address();
    let is_admin = |listener: &Listener| {
        admin_address.is_some_and(|address| address.to_string() == listener.configured_form())
    };
    let mut admin = proxy.iter().position(is_admin).map(|index| proxy.swap_remove(index));
    if proxy.is_empty() {
        for address in &config.server.listen {
            proxy.push(Listener::bind(address)?);
        }
    }
    if let (None, Some(address)) = (&admin, admin_address) {
        admin = Some(Listener::bind(address)?);
    }
    Ok(Sockets { proxy, admin })
}

fn inherited() -> Result<Vec<Listener>> {
    let mut handed_over = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..handed_over.len() {
        let listener = match handed_over.take_tcp_listener(index) {
            Ok(Some(socket)) => Listener::tcp(socket)?,
            Ok(None) => continue,
            Err(_) => match handed_over.take_unix_listener(index)? {
                Some(socket) => {
                    let address = socket.local_addr()?;
                    let path = address.as_pathname().context("a Unix socket without a path")?;
                    let path = path.to_str().context("a socket path that is not UTF-8")?.to_owned();
                    Listener::unix(socket, path)?
                }
                None => continue,
            },
        };
        listeners.push(listener);
    }
    Ok(listeners)
}

impl Listener {
    fn bind(address: &ListenAddress) -> Result<Self> {
        let advice = |error: &std::io::Error| match error.kind() {
            ErrorKind::AddrInUse => "is another server, or another Mediary, using it?",
            ErrorKind::PermissionDenied => {
                "ports below 1024 and other users' directories need \
                                            rights that Mediary should not have"
            }
            _ => "is it an address of this machine?",
        };
        let explain = |error: std::io::Error| {
            let advice = advice(&error);
            anyhow::Error::new(error).context(format!("cannot listen on {address}; {advice}"))
        };
        match address {
            ListenAddress::Tcp(socket_address) => {
                Self::tcp(TcpListener::bind(socket_address).map_err(explain)?)
            }
            ListenAddress::Unix(path) => {
                remove_stale(path)?;
                let socket = UnixListener::bind(path).map_err(explain)?;
                // Who may connect is decided by the directory, as with Pingora's own sockets.
                fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
                let path = path.to_str().context("a socket path that is not UTF-8")?;
                Self::unix(socket, path.to_owned())
            }
        }
    }

    fn tcp(socket: TcpListener) -> Result<Self> {
        // A blocking socket would stall a whole thread in accept.
        socket.set_nonblocking(true)?;
        // What is accepted here inherits it.
        SockRef::from(&socket).set_tcp_notsent_lowat(MAX_UNSENT)?;
        let address = socket.local_addr()?.to_string();
        Ok(Self::Tcp { socket, address })
    }

    fn unix(socket: UnixListener, path: String) -> Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::Unix { socket, path })
    }

    /// Returns the address as Pingora knows it; a port that the system chose is named.
    pub(super) fn address(&self) -> &str {
        match self {
            Self::Tcp { address, .. } => address,
            Self::Unix { path, .. } => path,
        }
    }

    fn configured_form(&self) -> String {
        match self {
            Self::Tcp { address, .. } => address.clone(),
            Self::Unix { path, .. } => format!("unix:{path}"),
        }
    }

    fn into_raw(self) -> (String, RawFd) {
        match self {
            Self::Tcp { socket, address } => (address, socket.into_raw_fd()),
            Self::Unix { socket, path } => (path, socket.into_raw_fd()),
        }
    }
}

/// Removes the socket file of a process that is gone; one that answers is in use.
fn remove_stale(path: &Path) -> Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        bail!("cannot listen on unix:{}; a file that is no socket is in the way", path.display());
    }
    if UnixStream::connect(path).is_ok() {
        bail!("cannot listen on unix:{}; another process is listening there", path.display());
    }
    fs::remove_file(path)
        .with_context(|| format!("cannot remove the stale socket {}", path.display()))
}

/// A Pingora service that finds its sockets bound.
pub(super) struct Prebound<S> {
    service: S,
    sockets: Vec<Listener>,
}

impl<S> Prebound<S> {
    /// `service` must have been given the [`Listener::address`] of every socket.
    pub(super) fn new(service: S, sockets: Vec<Listener>) -> Self {
        Self { service, sockets }
    }
}

#[async_trait]
impl<S: Service> Service for Prebound<S> {
    async fn start_service(
        &mut self,
        fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        let fds = fds.expect("Pingora hands every service its table of sockets");
        for socket in self.sockets.drain(..) {
            let (address, fd) = socket.into_raw();
            fds.lock().add(address, fd);
        }
        self.service.start_service(Some(fds), shutdown, listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        self.service.name()
    }

    fn threads(&self) -> Option<usize> {
        self.service.threads()
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        self.service.listen_addresses()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_address_is_refused_with_advice() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ListenAddress::Tcp(taken.local_addr().unwrap());
        let error = Listener::bind(&address).err().unwrap();
        assert!(error.to_string().contains("is another server"), "{error}");
    }

    /// RX-03
    #[test]
    fn the_kernel_takes_little_of_a_reply_that_nobody_reads() {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = std::net::TcpStream::connect(listener.address()).unwrap();
        let Listener::Tcp { socket, .. } = &listener else { panic!("it has a port") };
        socket.set_nonblocking(false).unwrap();
        let (accepted, _) = socket.accept().unwrap();
        assert_eq!(SockRef::from(&accepted).tcp_notsent_lowat().unwrap(), MAX_UNSENT);
    }

    #[test]
    fn a_chosen_port_is_named() {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(!listener.address().ends_with(":0"));
    }

    #[test]
    fn only_stale_sockets_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let address = ListenAddress::Unix(path.clone());
        let live = Listener::bind(&address).unwrap();
        assert!(Listener::bind(&address).is_err(), "a socket in use was taken over");
        drop(live);
        assert!(Listener::bind(&address).is_ok(), "a stale socket was not replaced");
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"precious").unwrap();
        assert!(Listener::bind(&address).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
