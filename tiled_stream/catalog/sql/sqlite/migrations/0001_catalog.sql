-- The catalog, first shape. `row` is never used again (AUTOINCREMENT) and grows with every creation: it is the insertion order, of
-- siblings and of the whole catalog. Long columns stand last, so that the short ones are read without them.

CREATE TABLE nodes (
    row          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    parent       INTEGER REFERENCES nodes (row),
    key          TEXT NOT NULL,
    depth        INTEGER NOT NULL,          -- 0 for the root
    family       TEXT NOT NULL,
    created      INTEGER NOT NULL,          -- sequence of the creation in the parent's log
    revision     INTEGER NOT NULL DEFAULT 0,
    time_created REAL NOT NULL,
    time_updated REAL NOT NULL,
    watermark    INTEGER NOT NULL DEFAULT 0,
    children     INTEGER NOT NULL DEFAULT 0,
    path         TEXT NOT NULL,             -- JSON list of keys from the root, its own last
    words        TEXT NOT NULL,             -- words of all string values, case-folded, between single spaces
    specs        TEXT NOT NULL,             -- JSON list of {name, version}
    access_tags  TEXT NOT NULL,             -- JSON list of strings
    data_sources TEXT NOT NULL,             -- JSON list
    metadata     TEXT NOT NULL,             -- JSON object
    UNIQUE (parent, key)
);

CREATE INDEX nodes_by_parent ON nodes (parent);

-- Every pair of a node and something above it, but for the root, which is above everything. For deep searches and for deleting
-- subtrees. What is above a node is found by its parents, which spares an index in the other direction.
CREATE TABLE ancestry (
    ancestor INTEGER NOT NULL,
    node     INTEGER NOT NULL,
    PRIMARY KEY (ancestor, node)
) WITHOUT ROWID;

-- Paths of facts, named once.
CREATE TABLE paths (
    id   INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE
);

-- What stands at each metadata path of each node, so that filters and orders on any key use an index. `value` has no affinity:
-- numbers stay numbers, texts stay texts; what is neither stands for itself by a number that sorts it. See catalog/facts.py.
CREATE TABLE facts (
    node   INTEGER NOT NULL,
    path   INTEGER NOT NULL,
    kind   INTEGER NOT NULL,
    value  NOT NULL,
    parent INTEGER NOT NULL,
    PRIMARY KEY (node, path, kind, value)
) WITHOUT ROWID;

-- Finds nodes by value, in insertion order, and knows whose children they are without looking at them.
CREATE INDEX facts_by_value ON facts (path, kind, value, parent, node);

CREATE TABLE revisions (
    node        INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    time        REAL NOT NULL,
    specs       TEXT NOT NULL,
    access_tags TEXT NOT NULL,
    metadata    TEXT NOT NULL,
    PRIMARY KEY (node, number)
);

-- Ids that were deleted: they never come back.
CREATE TABLE gone (
    id TEXT PRIMARY KEY
) WITHOUT ROWID;
