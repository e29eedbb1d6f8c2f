-- What may be evicted, and in which order: the blobs that records name, but no record of media owned
-- here. The blob is what goes, with all that names it and all thumbnails made of it.
CREATE TABLE cached (
    content_hash BLOB PRIMARY KEY REFERENCES blob (content_hash) ON DELETE CASCADE,
    size INTEGER NOT NULL CHECK (size >= 0),
    accessed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX cached_by_access ON cached (accessed_at, content_hash);

-- Access times were kept here before anything read them.
INSERT INTO cached (content_hash, size, accessed_at)
SELECT content_hash, size, max(
    coalesce((SELECT max(accessed_at) FROM media WHERE content_hash = blob.content_hash), 0),
    coalesce((SELECT max(created_at) FROM thumbnail WHERE content_hash = blob.content_hash), 0))
FROM blob
WHERE NOT EXISTS (
    SELECT 1 FROM media WHERE content_hash = blob.content_hash AND source = 'owned');

ALTER TABLE media DROP COLUMN accessed_at;

-- What the table above comes to, so that nobody has to add it up. One row.
CREATE TABLE cached_total (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    count INTEGER NOT NULL CHECK (count >= 0),
    bytes INTEGER NOT NULL CHECK (bytes >= 0)
) STRICT;

INSERT INTO cached_total SELECT 1, count(*), coalesce(sum(size), 0) FROM cached;

CREATE TRIGGER cached_inserted AFTER INSERT ON cached BEGIN
    UPDATE cached_total SET count = count + 1, bytes = bytes + new.size WHERE id = 1;
END;

CREATE TRIGGER cached_deleted AFTER DELETE ON cached BEGIN
    UPDATE cached_total SET count = count - 1, bytes = bytes - old.size WHERE id = 1;
END;
