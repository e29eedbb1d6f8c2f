//! Who is uploading what: of two uploads to one media id at the same time only the first goes on.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

use crate::types::Mxc;

/// The media ids that bodies are arriving for; as many as there are such requests.
#[derive(Default)]
pub(super) struct Claims(Mutex<HashSet<Mxc>>);

impl Claims {
    /// Claims a media id until the claim is dropped; `None` if it is claimed.
    pub(super) fn claim(&self, mxc: &Mxc) -> Option<Claim<'_>> {
        let is_first = self.claimed().insert(mxc.clone());
        is_first.then(|| Claim { claims: self, mxc: mxc.clone() })
    }

    fn claimed(&self) -> MutexGuard<'_, HashSet<Mxc>> {
        self.0.lock().expect("nothing panics while the claims are locked")
    }
}

/// The right to give a media id its content; ends however the upload ends, so that an uploader whose
/// upload has failed may try again.
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    mxc: Mxc,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.claimed().remove(&self.mxc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mxc(media_id: &str) -> Mxc {
        let server_name = "example.org".parse().unwrap();
        Mxc { server_name, media_id: media_id.parse().unwrap() }
    }

    #[test]
    fn a_media_id_is_claimed_once_until_the_claim_ends() {
        let claims = Claims::default();
        let claim = claims.claim(&mxc("one")).unwrap();
        assert!(claims.claim(&mxc("one")).is_none());
        assert!(claims.claim(&mxc("other")).is_some());
        drop(claim);
        assert!(claims.claim(&mxc("one")).is_some());
        assert!(claims.claimed().is_empty());
    }
}
