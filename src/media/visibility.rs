//! Who may see what: one decision for every route (threats rule 9).

use super::Reader;
use crate::store::{MediaRecord, MediaSource};
use crate::types::UnixMillis;

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
    /// Whether a reader may see kept media.
    pub fn shows(self, record: &MediaRecord, reader: Reader<'_>) -> bool {
        match (reader, self) {
            (Reader::Requester(_), _) | (Reader::Anybody, Self::Open) => true,
            // Only our own media is handed to other servers, never what is cached (FM-S-02).
            (Reader::Origin, _) => record.source == MediaSource::Owned,
            (Reader::Anybody, Self::Since(freeze)) => {
                record.legacy_readable || record.created_at < freeze
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
    use crate::store::BlobRecord;
    use crate::types::{ContentHash, ContentType, Mxc};

    fn record(source: MediaSource, created_at: i64, legacy_readable: bool) -> MediaRecord {
        MediaRecord {
            mxc: Mxc {
                server_name: "example.org".parse().unwrap(),
                media_id: "abc".parse().unwrap(),
            },
            blob: BlobRecord { content_hash: ContentHash([0; 32]), size: 0, checksums: [].into() },
            content_type: ContentType::from_header(None),
            filename: None,
            uploader: None,
            source,
            created_at: UnixMillis(created_at),
            legacy_readable,
        }
    }

    #[test]
    fn anybody_sees_only_what_is_older_than_the_freeze_or_marked() {
        let freeze = Freeze::Since(UnixMillis(100));
        for source in [MediaSource::Owned, MediaSource::Upstream, MediaSource::Remote] {
            assert!(freeze.shows(&record(source, 99, false), Reader::Anybody));
            assert!(!freeze.shows(&record(source, 100, false), Reader::Anybody));
            assert!(freeze.shows(&record(source, 100, true), Reader::Anybody));
        }
    }

    #[test]
    fn open_shows_everything_and_closed_nothing() {
        let old = record(MediaSource::Owned, 0, true);
        assert!(Freeze::Open.shows(&record(MediaSource::Remote, i64::MAX, false), Reader::Anybody));
        assert!(!Freeze::Closed.shows(&old, Reader::Anybody));
        assert!(!Freeze::Closed.asks_for_anybody());
    }

    #[test]
    fn other_servers_see_only_our_own_media() {
        assert!(Freeze::Closed.shows(&record(MediaSource::Owned, 0, false), Reader::Origin));
        assert!(!Freeze::Open.shows(&record(MediaSource::Remote, 0, true), Reader::Origin));
        assert!(!Freeze::Open.shows(&record(MediaSource::Upstream, 0, true), Reader::Origin));
    }
}
