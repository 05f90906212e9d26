-- Policies that were stored over HTTP. A change is a new version, since decisions have the digest of theirs.
CREATE TABLE policies (
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    definition BLOB NOT NULL,
    definition_check INTEGER NOT NULL,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;
