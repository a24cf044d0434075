-- Statements of the SQLite catalog, by name. `{columns}` are those that catalog/rows.py expects, of `nodes n`.

-- :name node_by_id
SELECT {columns} FROM nodes n WHERE n.id = ?;

-- :name node_by_place
SELECT {columns} FROM nodes n WHERE n.parent = (SELECT p.row FROM nodes p WHERE p.id = ?) AND n.key = ?;

-- :name is_gone
SELECT 1 FROM gone WHERE id = ?;

-- :name row_and_depth
-- Neither ever changes.
SELECT row, depth FROM nodes WHERE id = ?;

-- :name children_of
SELECT children FROM nodes WHERE row = ?;

-- :name below_up_to
-- How many nodes are below one (not the root), but counted no further than asked.
SELECT count(*) FROM (SELECT 1 FROM ancestry WHERE ancestor = ? LIMIT ?);

-- :name revisions
SELECT r.number, r.metadata, r.specs, r.access_tags, r.time
FROM revisions r JOIN nodes n ON n.row = r.node WHERE n.id = ? ORDER BY r.number LIMIT ? OFFSET ?;

-- :name count_revisions
SELECT count(*) FROM revisions r JOIN nodes n ON n.row = r.node WHERE n.id = ?;

-- :name identity
SELECT identity FROM deployment;

-- :name revision
SELECT revision FROM deployment;

-- :name count_transaction
UPDATE deployment SET revision = revision + 1;

-- :name storages
SELECT name, incarnation FROM storages;

-- :name remember_storage
INSERT INTO storages (name, incarnation) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET incarnation = excluded.incarnation;

-- :name reached
-- Ids are a JSON list.
SELECT id, watermark, stored, lost FROM nodes WHERE id IN (SELECT value FROM json_each(?));

-- :name losses
SELECT n.id, l.first, l.last, l.time, l.reason FROM losses l JOIN nodes n ON n.row = l.node
WHERE l.accepted IS NULL ORDER BY l.id LIMIT ?;

-- :name insert_loss
INSERT INTO losses (node, first, last, time, reason) VALUES (?, ?, ?, ?, ?) ON CONFLICT (node, first, last) DO NOTHING;

-- :name count_lost
UPDATE nodes SET lost = lost + ? WHERE row = ?;

-- :name unaccepted
-- Rows of nodes with losses that have not been accepted, and the number of their records. Ids are a JSON list, or null for all nodes.
SELECT l.node, sum(l.last - l.first + 1) FROM losses l JOIN nodes n ON n.row = l.node
WHERE l.accepted IS NULL AND (?1 IS NULL OR n.id IN (SELECT value FROM json_each(?1))) GROUP BY l.node;

-- :name accept_losses
UPDATE losses SET accepted = (julianday('now') - 2440587.5) * 86400.0 WHERE node = ? AND accepted IS NULL;

-- :name forget_lost
-- Nothing is expected of the storage of these nodes any more. Ids are a JSON list, or null for all nodes with losses.
UPDATE nodes SET lost = 0, stored = 0
WHERE CASE WHEN ?1 IS NULL THEN lost > 0 ELSE id IN (SELECT value FROM json_each(?1)) END;

-- :name delete_losses
DELETE FROM losses WHERE node = ?;

-- :name last_row
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'nodes'), 0);

-- :name node_to_apply
SELECT row, depth, path, watermark, data_sources, stored FROM nodes WHERE id = ?;

-- :name ancestors
-- The node itself and what is above it, but for the root.
WITH RECURSIVE up (row, parent) AS (
    SELECT row, parent FROM nodes WHERE row = ?
    UNION ALL
    SELECT n.row, n.parent FROM nodes n JOIN up ON n.row = up.parent
)
SELECT row FROM up WHERE parent IS NOT NULL;

-- :name insert_node
INSERT INTO nodes (
    row, id, parent, key, depth, family, created, revision, time_created, time_updated, path, words, specs, access_tags,
    data_sources, metadata
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- :name insert_ancestor
INSERT INTO ancestry (ancestor, node) VALUES (?, ?);

-- :name insert_path
-- Another process may have named it meanwhile.
INSERT INTO paths (path) VALUES (?) ON CONFLICT (path) DO UPDATE SET path = excluded.path RETURNING id;

-- :name insert_fact
-- Lists may hold an element twice.
INSERT OR IGNORE INTO facts (node, path, kind, value, parent) VALUES (?, ?, ?, ?, ?);

-- :name delete_facts
DELETE FROM facts WHERE node = ?;

-- :name node_to_edit
SELECT row, parent, metadata, specs, access_tags FROM nodes WHERE id = ?;

-- :name insert_revision
INSERT OR REPLACE INTO revisions (node, number, metadata, specs, access_tags, time) VALUES (?, ?, ?, ?, ?, ?);

-- :name delete_revision
DELETE FROM revisions WHERE node = (SELECT row FROM nodes WHERE id = ?) AND number = ?;

-- :name describe
UPDATE nodes SET metadata = ?, specs = ?, access_tags = ?, words = ?, revision = max(revision, ?), time_updated = ? WHERE row = ?;

-- :name restructure
UPDATE nodes SET data_sources = ?, time_updated = ? WHERE row = ?;

-- :name advance
UPDATE nodes SET watermark = ?, children = children + ?, ended = max(ended, ?), has_odd_keys = max(has_odd_keys, ?),
    stored = max(stored, ?)
WHERE row = ?;

-- :name subtree
-- The node first, then what is below it, in the order of creation.
SELECT {columns} FROM nodes n WHERE n.row = ?1
UNION ALL
SELECT {columns} FROM ancestry a CROSS JOIN nodes n WHERE a.ancestor = ?1 AND n.row = a.node;

-- :name insert_gone
INSERT OR IGNORE INTO gone (id) VALUES (?);

-- :name delete_ancestor
DELETE FROM ancestry WHERE ancestor = ? AND node = ?;

-- :name delete_below
DELETE FROM ancestry WHERE ancestor = ?;

-- :name delete_revisions
DELETE FROM revisions WHERE node = ?;

-- :name delete_node
DELETE FROM nodes WHERE row = ?;

-- :name root
SELECT row, metadata, specs, time_updated FROM nodes WHERE parent IS NULL;

-- :name insert_root
INSERT OR IGNORE INTO nodes (
    id, key, depth, family, created, time_created, time_updated, path, words, specs, access_tags, data_sources, metadata
) VALUES (?, '', 0, 'container', 0, 0, 0, '[]', '', '[]', '[]', '[]', '{}');

-- :name table_names
SELECT name FROM sqlite_master WHERE type = 'table';

-- :name make_steps
CREATE TABLE IF NOT EXISTS schema_steps (
    number INTEGER PRIMARY KEY,
    name   TEXT NOT NULL,
    digest TEXT NOT NULL,
    time   TEXT NOT NULL                    -- when it was applied, UTC
);

-- :name steps
SELECT number, digest FROM schema_steps;

-- :name insert_step
INSERT INTO schema_steps (number, name, digest, time) VALUES (?, ?, ?, datetime('now'));

-- :name paths
SELECT path, id FROM paths LIMIT ?;
