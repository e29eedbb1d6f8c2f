-- What each user has uploaded here, so that nobody has to add it up. A row is made with their first file
-- and goes with their last. Whose media is, and what it holds, never changes.
CREATE TABLE uploaded (
    uploader TEXT PRIMARY KEY,
    files INTEGER NOT NULL CHECK (files >= 0),
    bytes INTEGER NOT NULL CHECK (bytes >= 0)
) STRICT, WITHOUT ROWID;

INSERT INTO uploaded (uploader, files, bytes)
SELECT uploader, count(*), sum(size) FROM media JOIN blob USING (content_hash)
WHERE source = 'owned' AND uploader IS NOT NULL
GROUP BY uploader;

CREATE TRIGGER uploaded_inserted AFTER INSERT ON media
WHEN new.source = 'owned' AND new.uploader IS NOT NULL BEGIN
    INSERT INTO uploaded (uploader, files, bytes)
    VALUES (new.uploader, 1, (SELECT size FROM blob WHERE content_hash = new.content_hash))
    ON CONFLICT (uploader) DO UPDATE SET files = files + 1, bytes = bytes + excluded.bytes;
END;

-- The blob of a piece of media goes after it, never before.
CREATE TRIGGER uploaded_deleted AFTER DELETE ON media
WHEN old.source = 'owned' AND old.uploader IS NOT NULL BEGIN
    UPDATE uploaded
    SET files = files - 1,
        bytes = bytes - (SELECT size FROM blob WHERE content_hash = old.content_hash)
    WHERE uploader = old.uploader;
    DELETE FROM uploaded WHERE uploader = old.uploader AND files = 0;
END;
