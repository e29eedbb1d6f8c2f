//! Record before blob: how a corrupt or missing blob is taken out of service.

use std::io::ErrorKind;

use super::reader::verify;
use super::{Inner, StoreError};
use crate::types::ContentHash;

impl Inner {
    /// Takes a blob out of service unless it is sound or being replaced.
    pub(super) fn set_aside(&self, content_hash: &ContentHash) -> Result<bool, StoreError> {
        let Some(blob) = self.metadata.blob(content_hash)? else {
            return Ok(false);
        };
        let file = match self.blobs.open_blob(content_hash) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(StoreError::io("open a blob")(error)),
        };
        // Somebody else may have replaced the file since the fault was seen.
        if file.as_ref().is_some_and(|file| verify(file, &blob).is_ok()) {
            return Ok(false);
        }
        self.publishing
            .unless_active(content_hash, || {
                // Or may have done so while it was read just now.
                let io_error = StoreError::io("set a corrupt blob aside");
                if !self.blobs.is_still(content_hash, file.as_ref()).map_err(io_error)? {
                    return Ok(false);
                }
                self.metadata.forget_corrupt(*content_hash)?;
                if file.is_some() {
                    let io_error = StoreError::io("set a corrupt blob aside");
                    self.blobs.set_aside(content_hash).map_err(io_error)?;
                }
                tracing::error!(%content_hash, "set a corrupt or missing blob aside");
                Ok(true)
            })
            .unwrap_or(Ok(false))
    }
}
