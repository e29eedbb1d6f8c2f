-- Media ids that were given out and have no content yet. A row is removed together with the insertion
-- of its media, or some time after it has expired.
CREATE TABLE reservation (
    server_name TEXT NOT NULL,
    media_id TEXT NOT NULL,
    uploader TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (server_name, media_id)
) STRICT, WITHOUT ROWID;

-- For counting what a user has pending.
CREATE INDEX reservation_by_uploader ON reservation (uploader, expires_at);

CREATE INDEX reservation_by_expiry ON reservation (expires_at);
