-- The catalog, first shape. `row` is never used again (AUTOINCREMENT) and orders nodes over the whole catalog.

CREATE TABLE nodes (
    row          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    parent       INTEGER REFERENCES nodes (row),
    key          TEXT NOT NULL,
    path         TEXT NOT NULL,             -- JSON list of keys from the root, its own last
    family       TEXT NOT NULL,
    metadata     TEXT NOT NULL,             -- JSON object
    specs        TEXT NOT NULL,             -- JSON list of {name, version}
    access_tags  TEXT NOT NULL,             -- JSON list of strings
    data_sources TEXT NOT NULL,             -- JSON list
    words        TEXT NOT NULL,             -- words of all string values, case-folded, between single spaces
    created      INTEGER NOT NULL,          -- sequence of the creation in the parent's log
    revision     INTEGER NOT NULL DEFAULT 0,
    time_created REAL NOT NULL,
    time_updated REAL NOT NULL,
    watermark    INTEGER NOT NULL DEFAULT 0,
    children     INTEGER NOT NULL DEFAULT 0,
    UNIQUE (parent, key)
);

CREATE INDEX nodes_in_order ON nodes (parent, created);

-- Every pair of a node and something above it, for deep searches and for deleting subtrees.
CREATE TABLE ancestry (
    ancestor INTEGER NOT NULL,
    node     INTEGER NOT NULL,
    depth    INTEGER NOT NULL,
    PRIMARY KEY (ancestor, node)
) WITHOUT ROWID;

-- Metadata paths, named once.
CREATE TABLE paths (
    id   INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE
);

-- What stands at each metadata path of each node, so that filters and orders on any key use an index.
CREATE TABLE facts (
    path INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    value,                                  -- no affinity: numbers stay numbers, texts stay texts
    node INTEGER NOT NULL
);

CREATE INDEX facts_by_value ON facts (path, kind, value, node);
CREATE INDEX facts_by_node ON facts (node, path);

CREATE TABLE revisions (
    node        INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    metadata    TEXT NOT NULL,
    specs       TEXT NOT NULL,
    access_tags TEXT NOT NULL,
    time        REAL NOT NULL,
    PRIMARY KEY (node, number)
) WITHOUT ROWID;

-- Ids that were deleted: they never come back.
CREATE TABLE gone (
    id TEXT PRIMARY KEY
) WITHOUT ROWID;
