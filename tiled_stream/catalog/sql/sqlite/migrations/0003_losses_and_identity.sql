-- The watermark that the node's storage had when the row was written: a storage that has less was restored to an earlier state.
ALTER TABLE nodes ADD COLUMN stored INTEGER NOT NULL DEFAULT 0;

-- How many records of the node are lost and not accepted as such: the sum of its losses that have no time of acceptance.
ALTER TABLE nodes ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;

-- Acknowledged records that are in no log, and are not in catalog or storage. `id` is the order in which they were found.
CREATE TABLE losses (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    node     INTEGER NOT NULL,               -- row of the node
    first    INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    time     REAL NOT NULL,                  -- when they were found to be lost
    reason   TEXT NOT NULL,
    accepted REAL,                           -- when an operator took note
    UNIQUE (node, first, last)
);

-- Storages that the catalog counts on, and the id that each was made with.
CREATE TABLE storages (
    name        TEXT PRIMARY KEY,
    incarnation TEXT NOT NULL
) WITHOUT ROWID;

-- One row: the id of the deployment, made here once and part of every backup, and how many transactions have changed the catalog.
CREATE TABLE deployment (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    identity TEXT NOT NULL,
    revision INTEGER NOT NULL DEFAULT 0
);
INSERT INTO deployment (one, identity) VALUES (1, lower(hex(randomblob(16))));
