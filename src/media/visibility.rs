//! Who may see what: one decision for every route (threats rule 9).

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use super::Reader;
use crate::store::{MediaRecord, MediaSource, NewMedia};
use crate::types::{Mxc, UnixMillis};

/// What of media decides who may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provenance<'a> {
    mxc: &'a Mxc,
    source: MediaSource,
    created_at: UnixMillis,
    legacy_readable: bool,
}

impl<'a> Provenance<'a> {
    /// Is what an upload of this moment will have.
    pub(super) fn uploaded_at(mxc: &'a Mxc, created_at: UnixMillis) -> Self {
        Self { mxc, source: MediaSource::Owned, created_at, legacy_readable: false }
    }
}

impl<'a> From<&'a MediaRecord> for Provenance<'a> {
    fn from(record: &'a MediaRecord) -> Self {
        let MediaRecord { mxc, source, created_at, legacy_readable, .. } = record;
        Self { mxc, source: *source, created_at: *created_at, legacy_readable: *legacy_readable }
    }
}

impl<'a> From<&'a NewMedia> for Provenance<'a> {
    fn from(media: &'a NewMedia) -> Self {
        let NewMedia { mxc, source, created_at, legacy_readable, .. } = media;
        Self { mxc, source: *source, created_at: *created_at, legacy_readable: *legacy_readable }
    }
}

/// What the legacy routes may serve (CS-FRZ-01 to CS-FRZ-04). Clones share what is exempt.
#[derive(Debug, Clone)]
pub struct Freeze {
    rule: Rule,
    exempt: Exempt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// What was there before this moment.
    Since(UnixMillis),
    /// Everything: no freeze.
    Open,
    /// Nothing but icons: the legacy routes are off.
    Closed,
}

impl Freeze {
    /// Shows anybody what was there before this moment.
    pub fn since(moment: UnixMillis) -> Self {
        Self { rule: Rule::Since(moment), exempt: Exempt::default() }
    }

    /// Shows anybody everything.
    pub fn open() -> Self {
        Self { rule: Rule::Open, exempt: Exempt::default() }
    }

    /// Shows anybody nothing but what is exempt.
    pub fn closed() -> Self {
        Self { rule: Rule::Closed, exempt: Exempt::default() }
    }

    /// Exempts media that an operator has listed.
    pub fn with_readable(self, listed: impl IntoIterator<Item = Mxc>) -> Self {
        let exempt = Exempt { listed: Arc::new(listed.into_iter().collect()), ..self.exempt };
        Self { exempt, ..self }
    }

    /// Returns what is exempt.
    pub(super) fn exempt(&self) -> &Exempt {
        &self.exempt
    }

    /// Whether a reader may see media that is kept or arriving.
    pub fn shows<'a>(&self, media: impl Into<Provenance<'a>>, reader: Reader<'_>) -> bool {
        let media = media.into();
        match (reader, self.rule) {
            (Reader::Requester(_), _) | (Reader::Anybody, Rule::Open) => true,
            // Only our own media is handed to other servers, never what is cached (FM-S-02). Where the
            // homeserver judges it has answered with its own, or has none.
            (Reader::Origin(Some(_)), _) => media.source != MediaSource::Remote,
            (Reader::Origin(None), _) => media.source == MediaSource::Owned,
            (Reader::Anybody, Rule::Since(freeze)) => {
                media.legacy_readable
                    || media.created_at < freeze
                    || self.exempt.contains(media.mxc)
            }
            (Reader::Anybody, Rule::Closed) => self.exempt.contains(media.mxc),
        }
    }

    /// Whether anything is looked up at all for a reader of this media.
    pub(super) fn looks_up(&self, mxc: &Mxc, reader: Reader<'_>) -> bool {
        match reader {
            Reader::Requester(_) | Reader::Origin(_) => true,
            Reader::Anybody => self.rule != Rule::Closed || self.exempt.contains(mxc),
        }
    }

    /// Whether the homeserver is asked on behalf of anybody for media that is not shown. Whether it
    /// is kept makes no difference, so that nobody learns that from the time of a refusal.
    pub(super) fn asks_for_anybody(&self, mxc: &Mxc, is_local: bool) -> bool {
        match self.rule {
            Rule::Open => true,
            // What the homeserver shows of its own is older than the freeze, or its own freeze would
            // not. Of other servers' media nothing is fetched (CS-FRZ-06).
            Rule::Since(_) => is_local || self.exempt.contains(mxc),
            Rule::Closed => self.exempt.contains(mxc),
        }
    }

    /// Whether other servers may be asked for this media on behalf of anybody.
    pub(super) fn fetches_for_anybody(&self, mxc: &Mxc) -> bool {
        self.rule == Rule::Open || self.exempt.contains(mxc)
    }

    /// Whether anybody may wait for an upload to the homeserver.
    pub(super) fn waits_for_anybody(&self) -> bool {
        self.rule == Rule::Open
    }

    /// Whether an answer of the homeserver to anybody shows that this media is older than the freeze:
    /// only what is its own and its own freeze has let through. An operator who opens the legacy routes
    /// for a while, or an icon that is one for a while, does not open them for good.
    pub(super) fn is_proven_by_answer(&self, mxc: &Mxc, is_local: bool) -> bool {
        matches!(self.rule, Rule::Since(_)) && is_local && !self.exempt.contains(mxc)
    }
}

/// Media that is exempt from the freeze: the icons of identity providers, which are shown before
/// anybody has logged in (CS-FRZ-04, FLD-23), and what an operator has listed.
#[derive(Debug, Clone, Default)]
pub(super) struct Exempt {
    listed: Arc<HashSet<Mxc>>,
    learnt: Arc<RwLock<HashSet<Mxc>>>,
}

impl Exempt {
    /// Puts what the homeserver names now in the place of what it named before.
    pub(super) fn learn(&self, icons: HashSet<Mxc>) {
        *self.learnt.write().unwrap_or_else(PoisonError::into_inner) = icons;
    }

    /// Whether media is exempt at this moment.
    pub(super) fn contains(&self, mxc: &Mxc) -> bool {
        self.listed.contains(mxc)
            || self.learnt.read().unwrap_or_else(PoisonError::into_inner).contains(mxc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: [MediaSource; 3] =
        [MediaSource::Owned, MediaSource::Upstream, MediaSource::Remote];

    fn mxc(id: &str) -> Mxc {
        format!("mxc://example.org/{id}").parse().unwrap()
    }

    fn media(
        mxc: &Mxc,
        source: MediaSource,
        created_at: i64,
        legacy_readable: bool,
    ) -> Provenance<'_> {
        Provenance { mxc, source, created_at: UnixMillis(created_at), legacy_readable }
    }

    /// CS-FRZ-01, CS-FRZ-02
    #[test]
    fn anybody_sees_only_what_is_older_than_the_freeze_or_marked() {
        let freeze = Freeze::since(UnixMillis(100));
        let mxc = mxc("a");
        for source in SOURCES {
            assert!(freeze.shows(media(&mxc, source, 99, false), Reader::Anybody));
            assert!(!freeze.shows(media(&mxc, source, 100, false), Reader::Anybody));
            assert!(freeze.shows(media(&mxc, source, 100, true), Reader::Anybody));
        }
    }

    /// CS-DL-01
    #[test]
    fn open_shows_everything_and_closed_nothing() {
        let mxc = mxc("a");
        let old = media(&mxc, MediaSource::Owned, 0, true);
        let new = media(&mxc, MediaSource::Remote, i64::MAX, false);
        assert!(Freeze::open().shows(new, Reader::Anybody));
        assert!(!Freeze::closed().shows(old, Reader::Anybody));
        assert!(!Freeze::closed().looks_up(&mxc, Reader::Anybody));
        assert!(Freeze::closed().looks_up(&mxc, Reader::Origin(None)));
    }

    /// FM-S-02
    #[test]
    fn other_servers_see_only_our_own_media() {
        let mxc = mxc("a");
        assert!(
            Freeze::closed().shows(media(&mxc, MediaSource::Owned, 0, false), Reader::Origin(None))
        );
        for source in [MediaSource::Remote, MediaSource::Upstream] {
            assert!(!Freeze::open().shows(media(&mxc, source, 0, true), Reader::Origin(None)));
        }
    }

    /// CS-FRZ-06
    #[test]
    fn the_homeserver_is_asked_for_anybody_by_the_name_alone() {
        let freeze = Freeze::since(UnixMillis(100));
        assert!(freeze.asks_for_anybody(&mxc("a"), true));
        assert!(!freeze.asks_for_anybody(&mxc("a"), false));
        assert!(!Freeze::closed().asks_for_anybody(&mxc("a"), true));
        assert!(Freeze::open().asks_for_anybody(&mxc("a"), false));
        assert!(freeze.is_proven_by_answer(&mxc("a"), true));
        assert!(!freeze.is_proven_by_answer(&mxc("a"), false));
        assert!(!Freeze::open().is_proven_by_answer(&mxc("a"), true));
    }

    /// CS-FRZ-04
    #[test]
    fn icons_are_shown_whatever_the_freeze_as_long_as_they_are_icons() {
        for freeze in [Freeze::since(UnixMillis(100)), Freeze::closed()] {
            let freeze = freeze.with_readable([mxc("listed")]);
            freeze.exempt().learn([mxc("learnt")].into());
            let shows = |id: &str, source| {
                freeze.shows(media(&mxc(id), source, 100, false), Reader::Anybody)
            };
            for source in SOURCES {
                assert!(shows("listed", source) && shows("learnt", source));
                assert!(!shows("other", source));
            }
            for id in ["listed", "learnt"] {
                assert!(freeze.looks_up(&mxc(id), Reader::Anybody));
                assert!(freeze.asks_for_anybody(&mxc(id), false));
                assert!(!freeze.is_proven_by_answer(&mxc(id), true));
            }
            freeze.exempt().learn(HashSet::new());
            assert!(shows("listed", MediaSource::Owned));
            assert!(!shows("learnt", MediaSource::Owned));
        }
    }
}
