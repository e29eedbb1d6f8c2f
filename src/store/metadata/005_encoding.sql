-- What a still thumbnail may be encoded as becomes part of what names it. Those that there are were made
-- for everybody.
CREATE TABLE thumbnail_of_encoding (
    source_hash BLOB NOT NULL CHECK (length(source_hash) = 32),
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    method TEXT NOT NULL CHECK (method IN ('scale', 'crop')),
    animated INTEGER NOT NULL CHECK (animated IN (0, 1)),
    encoding TEXT NOT NULL CHECK (encoding IN ('universal', 'webp')),
    content_hash BLOB NOT NULL REFERENCES blob (content_hash),
    content_type TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (source_hash, width, height, method, animated, encoding)
) STRICT, WITHOUT ROWID;

-- But those that might have moved stood still until now. They are made anew.
INSERT INTO thumbnail_of_encoding
SELECT source_hash, width, height, method, animated, 'universal', content_hash, content_type, created_at
FROM thumbnail WHERE animated = 0;

CREATE TABLE standing_still AS
SELECT DISTINCT content_hash FROM thumbnail WHERE animated = 1;

DROP TABLE thumbnail;
ALTER TABLE thumbnail_of_encoding RENAME TO thumbnail;
CREATE INDEX thumbnail_by_content ON thumbnail (content_hash);

DELETE FROM blob WHERE content_hash IN (SELECT content_hash FROM standing_still)
    AND NOT EXISTS (SELECT 1 FROM media WHERE media.content_hash = blob.content_hash)
    AND NOT EXISTS (SELECT 1 FROM thumbnail WHERE thumbnail.content_hash = blob.content_hash);

DROP TABLE standing_still;
