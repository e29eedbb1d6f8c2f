//! Record before blob: how a corrupt or missing blob is taken out of service.

use std::fs::File;
use std::io::ErrorKind;

use super::reader::verify;
use super::{Inner, Removed, StoreError};
use crate::types::ContentHash;

/// A blob that was found to be bad.
struct Suspect {
    content_hash: ContentHash,
    /// The file that is bad, or `None` if there was none.
    file: Option<File>,
}

impl Inner {
    /// Takes a blob out of service unless it is sound or being replaced.
    pub(super) fn set_aside(
        &self,
        content_hash: &ContentHash,
    ) -> Result<Option<Removed>, StoreError> {
        let Some(suspect) = self.examine(content_hash)? else { return Ok(None) };
        let retired = self.retire(&suspect);
        self.tally_cache();
        retired
    }

    /// Looks at a blob again: it may have been replaced since somebody found it bad.
    fn examine(&self, content_hash: &ContentHash) -> Result<Option<Suspect>, StoreError> {
        let Some(blob) = self.metadata.blob(content_hash)? else {
            return Ok(None);
        };
        let file = match self.blobs.open_blob(content_hash) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(StoreError::io("open a blob")(error)),
        };
        let is_sound = file.as_ref().is_some_and(|file| verify(file, &blob).is_ok());
        Ok((!is_sound).then_some(Suspect { content_hash: *content_hash, file }))
    }

    /// Takes a bad blob out of service unless it was replaced since it was examined.
    fn retire(&self, suspect: &Suspect) -> Result<Option<Removed>, StoreError> {
        let Suspect { content_hash, file } = suspect;
        let retired = self.publishing.unless_active(content_hash, || {
            let is_still = self.blobs.is_still(content_hash, file.as_ref());
            if !is_still.map_err(StoreError::io("look at a blob"))? {
                return Ok(None);
            }
            let removed = self.metadata.forget_corrupt(*content_hash)?;
            if file.is_none() && removed == Removed::default() {
                // It was retired before, and only owned records still name it.
                return Ok(None);
            }
            if file.is_some() {
                let moved = self.blobs.set_aside(content_hash);
                moved.map_err(StoreError::io("set a corrupt blob aside"))?;
            }
            tracing::error!(%content_hash, "set a corrupt or missing blob aside");
            Ok(Some(removed))
        });
        retired.unwrap_or(Ok(None))
    }
}

#[cfg(test)]
mod tests {
    use crate::store::tests::{flip_bit, open, path_of, put, read};

    #[tokio::test]
    async fn a_blob_replaced_since_it_was_examined_stays() {
        let (directory, store) = open();
        let blob = put(&store, "first", b"body").await.blob;
        for is_missing in [false, true] {
            if is_missing {
                std::fs::remove_file(path_of(&directory, &blob)).unwrap();
            } else {
                flip_bit(&directory, &blob, 0);
            }
            let suspect = store.inner.examine(&blob.content_hash).unwrap().unwrap();
            put(&store, &format!("again-{is_missing}"), b"body").await;
            assert_eq!(store.inner.retire(&suspect).unwrap(), None);
            assert_eq!(read(&store, &blob).await.unwrap(), b"body");
        }
    }
}
