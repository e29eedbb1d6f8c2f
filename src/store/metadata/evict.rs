//! Taking records out, each together with what hangs on it.

use rusqlite::Connection;

use super::{cached, media, thumbnail};
use crate::store::Removed;
use crate::types::{ContentHash, UnixMillis};

/// Removes the records of what was not read for the longest time, until enough bytes are gone or so
/// many contents have been looked at. All that is looked at goes, so the cost is that of the outcome.
pub(super) fn evict(
    connection: &Connection,
    bytes: u64,
    limit: u64,
    now: UnixMillis,
) -> rusqlite::Result<Removed> {
    let mut removed = Removed::default();
    for content_hash in cached::oldest(connection, limit)? {
        if removed.bytes >= bytes {
            break;
        }
        remove_named(connection, &content_hash, now, &mut removed)?;
        remove_made_of(connection, &content_hash, now, &mut removed)?;
    }
    Ok(removed)
}

/// Removes every record that names a content, but for those of media owned here; and the content's
/// own if that was all.
pub(super) fn remove_named(
    connection: &Connection,
    content_hash: &ContentHash,
    now: UnixMillis,
    removed: &mut Removed,
) -> rusqlite::Result<()> {
    removed.media.extend(media::remove_evictable(connection, content_hash)?);
    removed.thumbnails.extend(thumbnail::remove(connection, content_hash)?);
    settle(connection, content_hash, now, removed)
}

/// Removes the thumbnails made of a content: nobody could ask for them without it.
fn remove_made_of(
    connection: &Connection,
    source: &ContentHash,
    now: UnixMillis,
    removed: &mut Removed,
) -> rusqlite::Result<()> {
    for (spec, content_hash) in thumbnail::remove_made_of(connection, source)? {
        removed.thumbnails.push((*source, spec));
        settle(connection, &content_hash, now, removed)?;
    }
    Ok(())
}

fn settle(
    connection: &Connection,
    content_hash: &ContentHash,
    now: UnixMillis,
    removed: &mut Removed,
) -> rusqlite::Result<()> {
    if let Some(size) = cached::settle(connection, content_hash, now)? {
        removed.contents.push(*content_hash);
        removed.bytes += size;
    }
    Ok(())
}
