-- Counters to detect missing commits at the next start, and a record of losses.

CREATE TABLE store (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    id BLOB NOT NULL,
    changes INTEGER NOT NULL,
    poison_known_after INTEGER NOT NULL
) STRICT;

INSERT INTO store VALUES (1, randomblob(16), 0, (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'decisions'));

CREATE TABLE losses (
    loss INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    decisions INTEGER NOT NULL,
    first_seq INTEGER,
    last_seq INTEGER,
    changes INTEGER NOT NULL
) STRICT;

-- Remains of corrupt rows that `store check --repair` removed.
CREATE TABLE quarantine (
    item INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    origin TEXT NOT NULL,
    seq INTEGER,
    id BLOB,
    reason TEXT NOT NULL,
    content BLOB NOT NULL
) STRICT;

-- The newest decision when a source's poisoned pages were deleted by request, to verify `poisoned_pages` against the decisions.
CREATE TABLE forgotten_pages (
    source TEXT PRIMARY KEY,
    seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- NULL: stored before there were checksums.
ALTER TABLE host_facts ADD COLUMN facts_check INTEGER;

-- Retention must be able to delete a row whose `sections` or `addresses` are corrupt JSON.
DROP TRIGGER decision_is_gone;
CREATE TRIGGER decision_is_gone AFTER DELETE ON decisions BEGIN
    DELETE FROM bodies WHERE seq = OLD.seq;
    DELETE FROM decision_sections WHERE seq = OLD.seq AND at = OLD.at
        AND section IN (SELECT value FROM json_each(CASE WHEN json_valid(OLD.sections) THEN OLD.sections ELSE '[]' END));
    DELETE FROM decision_addresses WHERE seq = OLD.seq AND at = OLD.at
        AND address IN (SELECT value FROM json_each(CASE WHEN json_valid(OLD.addresses) THEN OLD.addresses ELSE '[]' END));
END;
