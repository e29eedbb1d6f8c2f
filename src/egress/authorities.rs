//! Whose certificates are believed: the system's authorities, and those of a file beside them.
//!
//! Pingora takes one file, which replaces the system's authorities, and panics if it does not like it.
//! So everything is tried here first, and handed over in a file that is in memory only.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pingora::tls::{RootCertStore, load_ca_file_into_store, load_native_certs};
use rustix::fs::MemfdFlags;

/// Certificates of authorities as PEM, in memory. The path is good for as long as this lives.
pub(super) struct Authorities {
    file: File,
}

impl Authorities {
    /// Gathers the system's authorities and those of `extra`.
    ///
    /// # Errors
    ///
    /// In words for the operator, if `extra` cannot be read or holds anything but certificates.
    pub(super) fn gather(extra: Option<&Path>) -> anyhow::Result<Self> {
        let mut pem = system_authorities();
        if let Some(path) = extra {
            pem.push(b'\n');
            pem.extend(read_authorities(path).with_context(|| {
                format!("the certificate authorities in {} are not usable", path.display())
            })?);
        }
        let gathered = Self::in_memory(&pem)?;
        if gathered.count()? == 0 {
            tracing::warn!("no certificate authority is known, so no other server can be believed");
        }
        Ok(gathered)
    }

    /// Where the file can be opened, by this process alone.
    pub(super) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }

    fn in_memory(pem: &[u8]) -> anyhow::Result<Self> {
        let memory = rustix::fs::memfd_create("certificate-authorities", MemfdFlags::CLOEXEC)
            .context("no memory for certificate authorities")?;
        let mut file = File::from(memory);
        file.write_all(pem).context("no memory for certificate authorities")?;
        Ok(Self { file })
    }

    /// Reads the certificates as Pingora will, and says how many there are.
    fn count(&self) -> anyhow::Result<usize> {
        let mut store = RootCertStore::empty();
        load_ca_file_into_store(self.path(), &mut store)
            .map_err(|error| anyhow::anyhow!("{}", error.root_cause()))?;
        Ok(store.len())
    }
}

/// The system's authorities as PEM, without those that TLS could not use.
fn system_authorities() -> Vec<u8> {
    let mut pem = Vec::new();
    match load_native_certs() {
        Ok(certificates) => {
            let mut store = RootCertStore::empty();
            for certificate in certificates {
                if store.add(certificate.clone()).is_ok() {
                    write_pem(&certificate, &mut pem);
                }
            }
        }
        Err(error) => tracing::warn!(%error, "the system's certificate authorities are not found"),
    }
    pem
}

fn read_authorities(path: &Path) -> anyhow::Result<Vec<u8>> {
    let pem = std::fs::read(path)?;
    match Authorities::in_memory(&pem)?.count()? {
        0 => anyhow::bail!("there is no certificate in it"),
        _ => Ok(pem),
    }
}

/// Writes a certificate as PEM (RFC 7468).
fn write_pem(certificate: &[u8], pem: &mut Vec<u8>) {
    pem.extend(b"-----BEGIN CERTIFICATE-----\n");
    for line in STANDARD.encode(certificate).as_bytes().chunks(64) {
        pem.extend(line);
        pem.push(b'\n');
    }
    pem.extend(b"-----END CERTIFICATE-----\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(authority: &str) -> (String, tempfile::NamedTempFile) {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, authority);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(pem.as_bytes()).unwrap();
        (pem, file)
    }

    #[test]
    fn those_of_the_file_stand_beside_the_systems() {
        let systems = Authorities::gather(None).unwrap().count().unwrap();
        let (one, mut file) = pem("one");
        let both = Authorities::gather(Some(file.path())).unwrap();
        assert_eq!(both.count().unwrap(), systems + 1);
        let (two, _) = pem("two");
        write!(file, "a comment\n{two}# and another\n{one}").unwrap();
        let more = Authorities::gather(Some(file.path())).unwrap();
        assert_eq!(more.count().unwrap(), systems + 3);
    }

    #[test]
    fn what_is_written_as_pem_is_read_as_it_was() {
        let (pem, _file) = pem("one");
        let encoded: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
        let mut written = Vec::new();
        write_pem(&STANDARD.decode(encoded).unwrap(), &mut written);
        assert_eq!(
            String::from_utf8(written).unwrap().replace('\n', ""),
            pem.replace("\r", "").replace('\n', "")
        );
    }

    #[test]
    fn without_any_authority_nobody_is_believed_and_nothing_fails() {
        assert_eq!(Authorities::in_memory(b"").unwrap().count().unwrap(), 0);
    }
}
