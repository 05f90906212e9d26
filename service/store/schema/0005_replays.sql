-- Replays of stored events, with their progress and results. `position` is that of the last decision that was replayed.

CREATE TABLE replays (
    id TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    state TEXT NOT NULL,
    request TEXT NOT NULL,
    total INTEGER,
    position_at INTEGER,
    position_seq INTEGER,
    changes TEXT NOT NULL,
    error TEXT
) STRICT, WITHOUT ROWID;
