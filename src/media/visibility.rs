//! Who may see what: one decision for every route (threats rule 9).

use super::Reader;
use crate::store::{MediaRecord, MediaSource, NewMedia};
use crate::types::UnixMillis;

/// What of media decides who may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provenance {
    source: MediaSource,
    created_at: UnixMillis,
    legacy_readable: bool,
}

impl Provenance {
    /// Is what an upload of this moment will have.
    pub(super) fn uploaded_at(created_at: UnixMillis) -> Self {
        Self { source: MediaSource::Owned, created_at, legacy_readable: false }
    }
}

impl From<&MediaRecord> for Provenance {
    fn from(record: &MediaRecord) -> Self {
        let MediaRecord { source, created_at, legacy_readable, .. } = *record;
        Self { source, created_at, legacy_readable }
    }
}

impl From<&NewMedia> for Provenance {
    fn from(media: &NewMedia) -> Self {
        let NewMedia { source, created_at, legacy_readable, .. } = *media;
        Self { source, created_at, legacy_readable }
    }
}

/// What the legacy routes may serve (CS-FRZ-01 to CS-FRZ-03).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freeze {
    /// What was there before this moment.
    Since(UnixMillis),
    /// Everything: no freeze.
    Open,
    /// Nothing: the legacy routes are off.
    Closed,
}

impl Freeze {
    /// Whether a reader may see media that is kept or arriving.
    pub fn shows(self, media: impl Into<Provenance>, reader: Reader<'_>) -> bool {
        let media = media.into();
        match (reader, self) {
            (Reader::Requester(_), _) | (Reader::Anybody, Self::Open) => true,
            // Only our own media is handed to other servers, never what is cached (FM-S-02).
            (Reader::Origin, _) => media.source == MediaSource::Owned,
            (Reader::Anybody, Self::Since(freeze)) => {
                media.legacy_readable || media.created_at < freeze
            }
            (Reader::Anybody, Self::Closed) => false,
        }
    }

    /// Whether the homeserver may be asked on behalf of anybody at all.
    pub fn asks_for_anybody(self) -> bool {
        self != Self::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(source: MediaSource, created_at: i64, legacy_readable: bool) -> Provenance {
        Provenance { source, created_at: UnixMillis(created_at), legacy_readable }
    }

    #[test]
    fn anybody_sees_only_what_is_older_than_the_freeze_or_marked() {
        let freeze = Freeze::Since(UnixMillis(100));
        for source in [MediaSource::Owned, MediaSource::Upstream, MediaSource::Remote] {
            assert!(freeze.shows(media(source, 99, false), Reader::Anybody));
            assert!(!freeze.shows(media(source, 100, false), Reader::Anybody));
            assert!(freeze.shows(media(source, 100, true), Reader::Anybody));
        }
    }

    #[test]
    fn open_shows_everything_and_closed_nothing() {
        let old = media(MediaSource::Owned, 0, true);
        assert!(Freeze::Open.shows(media(MediaSource::Remote, i64::MAX, false), Reader::Anybody));
        assert!(!Freeze::Closed.shows(old, Reader::Anybody));
        assert!(!Freeze::Closed.asks_for_anybody());
    }

    /// FM-S-02
    #[test]
    fn other_servers_see_only_our_own_media() {
        assert!(Freeze::Closed.shows(media(MediaSource::Owned, 0, false), Reader::Origin));
        assert!(!Freeze::Open.shows(media(MediaSource::Remote, 0, true), Reader::Origin));
        assert!(!Freeze::Open.shows(media(MediaSource::Upstream, 0, true), Reader::Origin));
    }
}
