-- What is known about stored media. Times are milliseconds since the Unix epoch.

CREATE TABLE setting (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Files on disk. A row is made and removed together with the first and the last row that names it.
-- The checksums are the CRC-32 of every 64 KiB, as little-endian numbers of four bytes.
CREATE TABLE blob (
    content_hash BLOB PRIMARY KEY CHECK (length(content_hash) = 32),
    size INTEGER NOT NULL CHECK (size >= 0),
    checksums BLOB NOT NULL CHECK (length(checksums) = (size + 65535) / 65536 * 4)
) STRICT, WITHOUT ROWID;

CREATE TABLE media (
    server_name TEXT NOT NULL,
    media_id TEXT NOT NULL,
    content_hash BLOB NOT NULL REFERENCES blob (content_hash),
    content_type TEXT NOT NULL,
    filename TEXT,
    uploader TEXT,
    source TEXT NOT NULL CHECK (source IN ('owned', 'upstream', 'remote')),
    created_at INTEGER NOT NULL,
    accessed_at INTEGER NOT NULL,
    legacy_readable INTEGER NOT NULL CHECK (legacy_readable IN (0, 1)),
    PRIMARY KEY (server_name, media_id)
) STRICT, WITHOUT ROWID;

-- With the source, so that adding up sizes reads in the order of the blobs.
CREATE INDEX media_by_content ON media (content_hash, source);

-- Named by the content they were made of, which may be gone.
CREATE TABLE thumbnail (
    source_hash BLOB NOT NULL CHECK (length(source_hash) = 32),
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    method TEXT NOT NULL CHECK (method IN ('scale', 'crop')),
    animated INTEGER NOT NULL CHECK (animated IN (0, 1)),
    content_hash BLOB NOT NULL REFERENCES blob (content_hash),
    content_type TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (source_hash, width, height, method, animated)
) STRICT, WITHOUT ROWID;

CREATE INDEX thumbnail_by_content ON thumbnail (content_hash);
