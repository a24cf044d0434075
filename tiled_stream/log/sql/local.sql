-- The file of the local log, version 1.

-- What holds for the whole file: epoch, life (how often it was opened), boot (of the machine, at the last opening),
-- clean (1 if it was closed in order), fence (all fences that earlier processes gave are below it), catalog (the deployment it
-- belongs to), revision (of the catalog).
CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Every node that ever had a record. A head is never forgotten, or sequences would begin again (I1).
CREATE TABLE nodes (
    node    TEXT PRIMARY KEY,
    head    INTEGER NOT NULL,
    settled INTEGER NOT NULL
) WITHOUT ROWID;

-- Nodes that were deleted.
CREATE TABLE gone (
    node TEXT PRIMARY KEY
) WITHOUT ROWID;

-- The records that are still in the log. The rowid follows the order of arrival; the event is msgpack.
CREATE TABLE records (
    node     TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    time     REAL NOT NULL,
    event    BLOB NOT NULL,
    payload  BLOB NOT NULL,
    PRIMARY KEY (node, sequence)
);
