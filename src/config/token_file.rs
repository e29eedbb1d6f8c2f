//! Secrets that stand in files of their own, so that the configuration file may be shown to anybody.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::AuthConfig;
use crate::types::AccessToken;

/// The largest file that is taken for one with a token.
const MAX_TOKEN_FILE: u64 = 64 * 1024;

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("auth.admin_token_file: it cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// Everybody on this machine may read it.
    #[error(
        "auth.admin_token_file: everybody on this machine may read it; take that away with `chmod o-rwx`"
    )]
    ReadableByAll,
    /// It holds something else.
    #[error("auth.admin_token_file: it has to hold an access token on one line, and nothing else")]
    NoToken,
}

impl AuthConfig {
    /// Reads the administrator's token from its file, if there is to be one.
    ///
    /// # Errors
    ///
    /// [`TokenFileError`] says what is wrong with the file.
    pub fn read_admin_token(&self) -> Result<Option<AccessToken>, TokenFileError> {
        self.admin_token_file.as_deref().map(read_token).transpose()
    }
}

/// Reads a token from a file that not everybody may read.
fn read_token(path: &Path) -> Result<AccessToken, TokenFileError> {
    let file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o007 != 0 {
        return Err(TokenFileError::ReadableByAll);
    }
    let mut text = String::new();
    file.take(MAX_TOKEN_FILE).read_to_string(&mut text)?;
    AccessToken::parse(text.trim()).ok_or(TokenFileError::NoToken)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    fn read(content: &[u8], mode: u32) -> Result<AccessToken, TokenFileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        read_token(file.path())
    }

    #[test]
    fn a_token_is_read_from_a_file_that_not_everybody_may_read() {
        for (content, mode) in [(&b"syt_admin"[..], 0o600), (b"syt_admin\n", 0o640)] {
            assert_eq!(read(content, mode).unwrap().reveal(), "syt_admin");
        }
        for mode in [0o644, 0o604, 0o602, 0o601, 0o777] {
            let refused = read(b"syt_admin", mode);
            assert!(matches!(refused, Err(TokenFileError::ReadableByAll)), "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        for content in [&b""[..], b"\n", b"two words", b"two\nlines", "tok\u{e9}n".as_bytes()] {
            let error = read(content, 0o600).unwrap_err();
            assert!(matches!(error, TokenFileError::NoToken), "{error}");
        }
        for content in [&b"\xff\xfe"[..], &[b'x'; 100_000]] {
            assert!(read(content, 0o600).is_err());
        }
        assert!(matches!(read_token(Path::new("/none")), Err(TokenFileError::Unreadable(_))));
    }
}
