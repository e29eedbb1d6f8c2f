//! Synapse's file of signing keys: read, and written anew.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::signing_key::{KeyId, KeySeed, from_base64};

/// The largest file that is taken for one with keys.
const MAX_FILE: u64 = 64 * 1024;

/// Why there is no signing key; the texts say what to do, and never hold a part of a key.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    /// It cannot be read.
    #[error("{path}: it cannot be read: {error}{}", advice(error))]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Everybody on this machine has some access to it.
    #[error(
        "{path}: it is not for its owner and group alone; take everybody else's access away with \
         `chmod o-rwx`"
    )]
    OpenToAll {
        /// Which file.
        path: PathBuf,
    },
    /// It holds more than keys.
    #[error("{path}: it is too large for a file of keys")]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// A line that is no key.
    #[error(
        "{path}, line {line}: {reason}; each line has to be `ed25519 VERSION SEED`, as in Synapse's \
         signing.key"
    )]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, the first being 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It is empty.
    #[error(
        "{path}: there is no key in it; name Synapse's signing.key, or make one with `mediary key generate`"
    )]
    Empty {
        /// Which file.
        path: PathBuf,
    },
}

/// Says what helps against the errors that people meet.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; make it readable by the group of the user that Mediary runs as (`chgrp`, `chmod g+r`)"
        }
        io::ErrorKind::NotFound => "; `mediary key --help` says how to get one",
        _ => "",
    }
}

/// Reads all keys of a file, in their order, at least one. Nobody but the file's owner and group may
/// have any access to it.
pub(super) fn read(path: &Path) -> Result<Vec<KeySeed>, SigningKeyError> {
    let unreadable = |error| SigningKeyError::Unreadable { path: path.to_owned(), error };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.permissions().mode() & 0o007 != 0 {
        return Err(SigningKeyError::OpenToAll { path: path.to_owned() });
    }
    let mut content = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > MAX_FILE {
        return Err(SigningKeyError::TooLarge { path: path.to_owned() });
    }
    let keys = parse(&content).map_err(|(line, reason)| SigningKeyError::Line {
        path: path.to_owned(),
        line,
        reason,
    })?;
    if keys.is_empty() {
        return Err(SigningKeyError::Empty { path: path.to_owned() });
    }
    Ok(keys)
}

/// Reads all lines, or says which is wrong and why.
fn parse(content: &[u8]) -> Result<Vec<KeySeed>, (usize, &'static str)> {
    let mut keys = Vec::new();
    let mut ids = HashSet::new();
    for (index, line) in content.split(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let key = parse_line(line).map_err(|reason| (index + 1, reason))?;
        if !ids.insert(key.id().clone()) {
            return Err((index + 1, "a line above has the same version"));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn parse_line(line: &[u8]) -> Result<KeySeed, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "it is no text")?;
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let [algorithm, version, seed] = words[..] else {
        return Err("there are not three words in it");
    };
    if algorithm != "ed25519" {
        return Err("the algorithm is not ed25519");
    }
    let id = KeyId::of_version(version)
        .map_err(|_| "the version is not of letters, digits and underscores")?;
    let seed = from_base64(seed.as_bytes()).ok_or("the seed is not 32 bytes of base64")?;
    Ok(KeySeed::new(id, seed))
}

/// Writes a key into a new file; see [`KeySeed::write_new`].
pub(super) fn write_new(path: &Path, key: &KeySeed) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{}\n", key.reveal_line()).as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use proptest::prelude::*;

    use super::*;

    const SEED: &str = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";

    fn read_content(content: &[u8], mode: u32) -> Result<Vec<KeySeed>, SigningKeyError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        read(file.path())
    }

    fn ids(keys: &[KeySeed]) -> Vec<&str> {
        keys.iter().map(|key| key.id().as_str()).collect()
    }

    #[test]
    fn keys_are_read_in_the_order_of_their_lines() {
        let content = format!("\r\ned25519 a_AbCd {SEED}\n\n  ed25519\t2  {SEED}= \r\n \n");
        for mode in [0o600, 0o640, 0o400] {
            let keys = read_content(content.as_bytes(), mode).unwrap();
            assert_eq!(ids(&keys), ["ed25519:a_AbCd", "ed25519:2"]);
            assert_eq!(keys[0].reveal_line().split_once(' ').unwrap().0, "ed25519");
        }
    }

    #[test]
    fn a_file_that_everybody_has_any_access_to_is_refused() {
        for mode in [0o644, 0o604, 0o602, 0o601, 0o777] {
            let refused = read_content(format!("ed25519 1 {SEED}").as_bytes(), mode);
            assert!(matches!(refused, Err(SigningKeyError::OpenToAll { .. })), "{mode:o}");
        }
    }

    #[test]
    fn errors_name_file_and_line_and_what_to_do_but_repeat_no_key() {
        for (bad, reason) in [
            (SEED.to_owned(), "three words"),
            (format!("ed25519 {SEED}"), "three words"),
            (format!("ed25519 1 {SEED} # mine"), "three words"),
            (format!("rsa 1 {SEED}"), "algorithm"),
            (format!("ed25519 a-b {SEED}"), "version"),
            (format!("ed25519 1 {SEED}AA"), "32 bytes"),
            (format!("ed25519 1 {}", &SEED[..42]), "32 bytes"),
            (format!("ed25519 first {SEED}"), "same version"),
        ] {
            let content = format!("ed25519 first {SEED}\n\n{bad}\n");
            let error = read_content(content.as_bytes(), 0o600).unwrap_err().to_string();
            assert!(error.starts_with('/') && error.contains(", line 3: "), "{error}");
            assert!(error.contains(reason) && error.contains("VERSION SEED"), "{error}");
            assert!(!error.contains(&SEED[..8]), "{error}");
        }
        let error = read_content(b"\xff\xfe\n", 0o600).unwrap_err().to_string();
        assert!(error.contains("line 1: it is no text"), "{error}");
    }

    #[test]
    fn empty_large_and_missing_files_are_told_apart() {
        for content in [&b""[..], b"\n \n"] {
            assert!(matches!(read_content(content, 0o600), Err(SigningKeyError::Empty { .. })));
        }
        let large = read_content(&[b'\n'; MAX_FILE as usize + 1], 0o600);
        assert!(matches!(large, Err(SigningKeyError::TooLarge { .. })));
        let missing = read(Path::new("/none")).unwrap_err().to_string();
        assert!(missing.starts_with("/none: ") && missing.contains("mediary key"), "{missing}");
    }

    #[test]
    fn a_new_file_is_for_its_owner_alone_and_no_file_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signing.key");
        let key = KeySeed::generate().unwrap();
        write_new(&path, &key).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = read(&path).unwrap();
        assert_eq!(read[0].reveal_line(), key.reveal_line());

        let again = write_new(&path, &KeySeed::generate().unwrap()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", key.reveal_line()));
    }

    proptest! {
        #[test]
        fn any_file_is_read_without_panic(content in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&content);
        }

        #[test]
        fn what_is_written_is_what_is_read(version in "[a-zA-Z0-9_]{1,40}", seed: [u8; 32]) {
            let key = KeySeed::new(KeyId::of_version(&version).unwrap(), seed);
            let read = parse(key.reveal_line().as_bytes()).unwrap();
            prop_assert_eq!(read[0].reveal_line(), key.reveal_line());
            prop_assert_eq!(read[0].id(), key.id());
        }
    }
}
