-- Decisions, their search tables, and related data.
--
-- `decisions` is narrow, because lists and statistics read many of its rows; the event and the decision themselves are in `bodies`.
-- Decisions with several sections or addresses have search tables that triggers maintain, so that one statement writes them all.

CREATE TABLE decisions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    at INTEGER NOT NULL,
    source TEXT,
    event_id TEXT,
    event_key BLOB NOT NULL,
    repeat_key BLOB,
    policy TEXT NOT NULL,
    policy_digest TEXT NOT NULL,
    action TEXT NOT NULL,
    certainty TEXT NOT NULL,
    notification TEXT NOT NULL,
    severity TEXT,
    sections TEXT NOT NULL,
    addresses TEXT NOT NULL,
    poisons TEXT,
    forgets INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX decisions_by_repeat_key ON decisions (repeat_key) WHERE repeat_key IS NOT NULL;
CREATE INDEX decisions_by_time ON decisions (at);
CREATE INDEX decisions_by_source ON decisions (source, at) WHERE source IS NOT NULL;
CREATE INDEX decisions_by_action ON decisions (action, at);
CREATE INDEX decisions_by_policy ON decisions (policy, at);
CREATE INDEX decisions_by_notification ON decisions (notification, at);
CREATE INDEX decisions_by_severity ON decisions (severity, at);

CREATE TABLE bodies (
    seq INTEGER PRIMARY KEY,
    event BLOB NOT NULL,
    event_check INTEGER NOT NULL,
    decision BLOB NOT NULL,
    decision_check INTEGER NOT NULL
) STRICT;

CREATE TABLE decision_sections (
    section TEXT NOT NULL,
    at INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (section, at, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE decision_addresses (
    address TEXT NOT NULL,
    at INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (address, at, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE poisoned_pages (
    source TEXT NOT NULL,
    start TEXT NOT NULL,
    shift INTEGER NOT NULL,
    address TEXT NOT NULL,
    PRIMARY KEY (source, start, shift)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER decision_is_found_by_sections AFTER INSERT ON decisions WHEN NEW.sections <> '[]' BEGIN
    INSERT INTO decision_sections SELECT value, NEW.at, NEW.seq FROM json_each(NEW.sections);
END;

CREATE TRIGGER decision_is_found_by_addresses AFTER INSERT ON decisions WHEN NEW.addresses <> '[]' BEGIN
    INSERT INTO decision_addresses SELECT value, NEW.at, NEW.seq FROM json_each(NEW.addresses);
END;

-- One trigger for both, because SQLite does not define the order of several triggers.
CREATE TRIGGER decision_changes_poison AFTER INSERT ON decisions WHEN NEW.source IS NOT NULL AND (NEW.forgets OR NEW.poisons IS NOT NULL) BEGIN
    DELETE FROM poisoned_pages WHERE NEW.forgets AND source = NEW.source;
    INSERT OR IGNORE INTO poisoned_pages
        SELECT NEW.source, value ->> 0, value ->> 1, value ->> 2 FROM json_each(coalesce(NEW.poisons, '[]'));
END;

CREATE TRIGGER decision_is_gone AFTER DELETE ON decisions BEGIN
    DELETE FROM bodies WHERE seq = OLD.seq;
    DELETE FROM decision_sections WHERE seq = OLD.seq AND at = OLD.at AND section IN (SELECT value FROM json_each(OLD.sections));
    DELETE FROM decision_addresses WHERE seq = OLD.seq AND at = OLD.at AND address IN (SELECT value FROM json_each(OLD.addresses));
END;

CREATE TABLE host_facts (
    source TEXT NOT NULL,
    version INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    facts BLOB,
    PRIMARY KEY (source, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE purges (
    purge INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    count INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    oldest INTEGER NOT NULL,
    newest INTEGER NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    secret_hash TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;

CREATE TABLE probe (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    room BLOB NOT NULL
) STRICT;

INSERT INTO probe VALUES (1, x'');
