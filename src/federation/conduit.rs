//! Reading the signing key out of a Conduit database.
//!
//! Conduit and its relatives keep their key nowhere else, and have no command that gives it out. With
//! SQLite it is read here, also while the server runs. RocksDB is not: its value has to be had by other
//! means, and is read from a file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::signature::{Ed25519KeyPair, KeyPair};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::signing_key::{KeyId, KeySeed};

/// What Conduit calls its file of SQLite.
const SQLITE_FILE: &str = "conduit.db";

/// How every file of SQLite begins.
const SQLITE_MARK: &[u8; 16] = b"SQLite format 3\0";

/// The largest value that is taken for a key, in bytes; it has about ninety.
const MAX_VALUE: u32 = 1024;

/// How long a server that is writing is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the seed lies in the PKCS#8 document (RFC 8410, section 7).
const SEED: std::ops::Range<usize> = 16..48;

/// Why there is no key; the texts say what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConduitError {
    /// It cannot be read.
    #[error("{path}: it cannot be read: {error}")]
    Unreadable {
        /// Which file or directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is a directory of RocksDB, which is not read here.
    #[error("{path}: this is a RocksDB database, which Mediary does not read itself")]
    RocksDb {
        /// Which directory.
        path: PathBuf,
    },
    /// It is something else.
    #[error(
        "{path}: there is no Conduit database; name the directory that is database_path in Conduit's \
         configuration, or the file {SQLITE_FILE} in it"
    )]
    NoDatabase {
        /// Which file or directory.
        path: PathBuf,
    },
    /// SQLite cannot read it.
    #[error(
        "{path}: SQLite says: {error}; run this as the user that the homeserver runs as, or with a copy \
         of the database made while the homeserver is stopped"
    )]
    Sqlite {
        /// Which file.
        path: PathBuf,
        /// What SQLite says.
        error: rusqlite::Error,
    },
    /// It is a database of something else.
    #[error("{path}: this database has no table `global`, so it is not one of Conduit's")]
    NoTable {
        /// Which file.
        path: PathBuf,
    },
    /// It holds no key.
    #[error(
        "{path}: there is no `keypair` in the table `global`; Conduit makes its key when it is first \
         started"
    )]
    NoKey {
        /// Which file.
        path: PathBuf,
    },
    /// What it holds is no key.
    #[error("{path}: its key is not understood: {reason}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
}

/// Reads the key of a Conduit with SQLite; `database` is the file, or the directory that it is in. The
/// database is opened for reading alone.
///
/// # Errors
///
/// [`ConduitError`]; [`ConduitError::RocksDb`] for the other kind of database.
pub fn read_key(database: &Path) -> Result<KeySeed, ConduitError> {
    let path = sqlite_file(database)?;
    let of_sqlite = |error| ConduitError::Sqlite { path: path.clone(), error };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(of_sqlite)?;
    connection.busy_timeout(PATIENCE).map_err(of_sqlite)?;
    let has_table = connection
        .query_row(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'global'",
            [],
            |_| Ok(()),
        )
        .optional()
        .map_err(of_sqlite)?;
    if has_table.is_none() {
        return Err(ConduitError::NoTable { path });
    }
    let value: Option<Vec<u8>> = connection
        .query_row(
            "SELECT CAST(substr(value, 1, ?1) AS BLOB) FROM \"global\" \
             WHERE key = CAST('keypair' AS BLOB)",
            [MAX_VALUE + 1],
            |row| row.get(0),
        )
        .optional()
        .map_err(of_sqlite)?;
    let Some(value) = value else { return Err(ConduitError::NoKey { path }) };
    parse(&value).map_err(|reason| ConduitError::Value { path, reason })
}

/// Reads the key from a file that holds the database's value as it is.
///
/// # Errors
///
/// [`ConduitError`] if the file cannot be read or holds something else.
pub fn read_raw_value(path: &Path) -> Result<KeySeed, ConduitError> {
    let mut value = Vec::new();
    File::open(path)
        .and_then(|file| file.take(u64::from(MAX_VALUE) + 1).read_to_end(&mut value))
        .map_err(|error| ConduitError::Unreadable { path: path.to_owned(), error })?;
    parse(&value).map_err(|reason| ConduitError::Value { path: path.to_owned(), reason })
}

/// Finds the file of SQLite, or says what is there instead.
fn sqlite_file(database: &Path) -> Result<PathBuf, ConduitError> {
    let unreadable = |error| ConduitError::Unreadable { path: database.to_owned(), error };
    let path = if fs::metadata(database).map_err(unreadable)?.is_dir() {
        if fs::read(database.join("CURRENT")).is_ok_and(|text| text.starts_with(b"MANIFEST-")) {
            return Err(ConduitError::RocksDb { path: database.to_owned() });
        }
        database.join(SQLITE_FILE)
    } else {
        database.to_owned()
    };
    let mut mark = [0; SQLITE_MARK.len()];
    match File::open(&path).and_then(|mut file| file.read_exact(&mut mark)) {
        Ok(()) if &mark == SQLITE_MARK => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(ConduitError::Unreadable { path, error })
        }
        _ => Err(ConduitError::NoDatabase { path: database.to_owned() }),
    }
}

/// Takes the value apart: the version, the byte 0xff, and a PKCS#8 document (RFC 8410) in the form that
/// the `ring` library writes.
fn parse(value: &[u8]) -> Result<KeySeed, &'static str> {
    if value.len() > MAX_VALUE as usize {
        return Err("it is too long");
    }
    let mark = value.iter().position(|&byte| byte == 0xff).ok_or("no version comes first")?;
    let (version, document) = (&value[..mark], &value[mark + 1..]);
    let version = std::str::from_utf8(version).map_err(|_| "its version is no text")?;
    let id = KeyId::of_version(version)
        .map_err(|_| "its version is not of letters, digits and underscores")?;
    // Both see to it that the public key belongs to the seed.
    let pair = Ed25519KeyPair::from_pkcs8(document)
        .map_err(|_| "what follows its version is no PKCS#8 document of a whole Ed25519 key")?;
    let seed = document.get(SEED).and_then(|seed| <[u8; 32]>::try_from(seed).ok());
    let seed = seed.ok_or("its PKCS#8 document is too short")?;
    Ed25519KeyPair::from_seed_and_public_key(&seed, pair.public_key().as_ref())
        .map_err(|_| "its PKCS#8 document is of another form than Conduit's")?;
    Ok(KeySeed::new(id, seed))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::rand::SystemRandom;

    use super::*;

    /// What Conduit keeps for a new key, and the key's public half.
    fn value(version: &str) -> (Vec<u8>, Vec<u8>) {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        assert_eq!(document.as_ref().len(), 83);
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let value = [version.as_bytes(), b"\xff", document.as_ref()].concat();
        (value, pair.public_key().as_ref().to_owned())
    }

    #[test]
    fn the_value_of_the_database_is_the_key() {
        let (value, public) = value("AbCd1234");
        let key = parse(&value).unwrap();
        assert_eq!(key.id().as_str(), "ed25519:AbCd1234");
        assert_eq!(key.signing_key().verify_key().as_ref(), public);
    }

    #[test]
    fn a_value_that_is_not_the_whole_key_is_refused() {
        let (good, _) = value("AbCd1234");
        for length in 0..good.len() {
            assert!(parse(&good[..length]).is_err(), "{length}");
        }
        for index in 9..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            assert!(parse(&bad).is_err(), "{index}");
        }
        for version in ["", "a b", "a-b", "\u{e9}"] {
            assert!(parse(&value(version).0).is_err(), "{version}");
        }
        assert!(parse(&[&good[..], &[0]].concat()).is_err());
        assert_eq!(parse(&[b'a'; 2000]).err(), Some("it is too long"));
        // Read as text that is no UTF-8, as an administrator's command prints it.
        let lossy = String::from_utf8_lossy(&good).into_owned();
        assert!(parse(lossy.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_value_is_read_without_panic(value in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&value);
            let _ = parse(&[b"a\xff", &value[..]].concat());
        }
    }
}
