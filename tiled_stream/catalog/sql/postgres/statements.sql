-- Statements of the PostgreSQL catalog, by name. `{columns}` are those that catalog/rows.py expects, of `nodes n`.

-- :name node_by_id
SELECT {columns} FROM nodes n WHERE n.id = $1;

-- :name node_by_place
SELECT {columns} FROM nodes n WHERE n.parent = (SELECT p.row FROM nodes p WHERE p.id = $1) AND n.key = $2;

-- :name is_gone
SELECT 1 FROM gone WHERE id = $1;

-- :name row_and_depth
-- Neither ever changes.
SELECT n.row, n.depth FROM nodes n WHERE n.id = $1;

-- :name children_of
SELECT n.children FROM nodes n WHERE n.row = $1;

-- :name below_up_to
-- How many nodes are below one (not the root), but counted no further than asked.
SELECT count(*) FROM (SELECT 1 FROM ancestry WHERE ancestor = $1 LIMIT $2) AS few;

-- :name revisions
SELECT r.number, r.metadata, r.specs, r.access_tags, r.time
FROM revisions r JOIN nodes n ON n.row = r.node WHERE n.id = $1 ORDER BY r.number LIMIT $2 OFFSET $3;

-- :name count_revisions
SELECT count(*) FROM revisions r JOIN nodes n ON n.row = r.node WHERE n.id = $1;

-- :name identity
SELECT identity FROM deployment;

-- :name revision
SELECT revision FROM deployment;

-- :name storages
SELECT name, incarnation FROM storages;

-- :name remember_storage
INSERT INTO storages (name, incarnation) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET incarnation = excluded.incarnation;

-- :name reached
SELECT id, watermark, stored, lost FROM nodes WHERE id = ANY($1::text[]);

-- :name losses
SELECT n.id, l.first, l.last, l.time, l.reason FROM losses l JOIN nodes n ON n.row = l.node
WHERE l.accepted IS NULL ORDER BY l.id LIMIT $1;

-- :name insert_losses
-- Those that are new, counted at their nodes. Returns the nodes.
WITH found AS (
    INSERT INTO losses (node, first, last, time, reason)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::double precision[], $5::text[])
    ON CONFLICT (node, first, last) DO NOTHING RETURNING node, last - first + 1 AS records
)
UPDATE nodes SET lost = lost + f.records FROM (SELECT node, sum(records) AS records FROM found GROUP BY node) f
WHERE nodes.row = f.node RETURNING nodes.row;

-- :name accept_losses
-- Under the lock, so that no loss is counted meanwhile. Ids are null for all nodes with losses. Returns the records. Nothing is
-- expected of the storage of these nodes any more.
WITH accepted AS (
    UPDATE losses SET accepted = extract(epoch FROM clock_timestamp()) FROM nodes n
    WHERE n.row = losses.node AND losses.accepted IS NULL AND ($1::text[] IS NULL OR n.id = ANY($1::text[]))
    RETURNING losses.node, losses.last - losses.first + 1 AS records
), forgotten AS (
    UPDATE nodes SET lost = 0, stored = 0
    WHERE CASE WHEN $1::text[] IS NULL THEN lost > 0 ELSE id = ANY($1::text[]) END
)
SELECT coalesce(sum(records), 0)::bigint FROM accepted;

-- :name lock
-- One transaction at a time changes the catalog, whichever process it is of: rows are committed in their order.
SELECT pg_advisory_xact_lock(741631121, hashtext(current_schema()));

-- :name lock_and_count
-- The same lock, which servers of versions that count nothing take too, and the count of the transaction, in one step. Where the row
-- was updated while this waited, PostgreSQL takes its newest version, and the lock once more.
UPDATE deployment SET revision = revision + 1 WHERE pg_advisory_xact_lock(741631121, hashtext(current_schema())) IS NOT NULL;

-- :name nodes_to_apply
SELECT n.id, n.row, n.parent, n.depth, n.path, n.above, n.watermark, n.metadata, n.specs, n.access_tags, n.data_sources, n.stored
FROM nodes n WHERE n.id = ANY($1::text[]);

-- :name next_rows
SELECT nextval('node_rows') FROM generate_series(1, $1::integer);

-- :name insert_node
INSERT INTO nodes (
    row, id, parent, key, depth, family, created, revision, time_created, time_updated, above, path, words, specs, access_tags,
    data_sources, metadata
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17);

-- :name insert_ancestor
INSERT INTO ancestry (ancestor, node) VALUES ($1, $2);

-- :name insert_paths
-- Those that are new: one that conflicts would use up a number, too.
INSERT INTO paths (path) SELECT new FROM unnest($1::bytea[]) new
WHERE NOT EXISTS (SELECT 1 FROM paths p WHERE p.path = new) ON CONFLICT DO NOTHING;

-- :name paths
SELECT path, id FROM paths WHERE path = ANY($1::bytea[]);

-- :name insert_fact
-- Lists may hold an element twice.
INSERT INTO facts (node, path, kind, value, text, parent) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING;

-- :name delete_facts
DELETE FROM facts WHERE node = ANY($1::bigint[]);

-- :name insert_revision
INSERT INTO revisions (node, number, metadata, specs, access_tags, time) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (node, number) DO UPDATE
SET metadata = excluded.metadata, specs = excluded.specs, access_tags = excluded.access_tags, time = excluded.time;

-- :name delete_revision
DELETE FROM revisions WHERE node = (SELECT n.row FROM nodes n WHERE n.id = $1) AND number = $2;

-- :name describe
UPDATE nodes SET metadata = $1, specs = $2, access_tags = $3, words = $4, revision = greatest(revision, $5), time_updated = $6
WHERE row = $7;

-- :name restructure
UPDATE nodes SET data_sources = $1, time_updated = $2 WHERE row = $3;

-- :name advance
UPDATE nodes SET watermark = a.watermark, children = nodes.children + a.children, ended = greatest(nodes.ended, a.ended),
    has_odd_keys = nodes.has_odd_keys OR a.has_odd_keys, stored = greatest(nodes.stored, a.stored)
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::boolean[], $6::bigint[])
    a (row, watermark, children, ended, has_odd_keys, stored)
WHERE nodes.row = a.row;

-- :name subtree
-- The node first, then what is below it, in the order of creation: $3 nodes below it that follow row $2 (0: the first page).
SELECT {columns} FROM (
    SELECT $1::bigint AS row WHERE $2::bigint = 0
    UNION ALL
    (SELECT a.node FROM ancestry a WHERE a.ancestor = $1::bigint AND a.node > $2::bigint ORDER BY a.node LIMIT $3::bigint)
) w JOIN nodes n ON n.row = w.row ORDER BY n.row;

-- :name insert_gone
INSERT INTO gone (id) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING;

-- :name delete_ancestry
DELETE FROM ancestry WHERE ancestor = ANY($1::bigint[]);

-- :name delete_below
DELETE FROM ancestry WHERE ancestor = ANY($1::bigint[]) AND node = ANY($2::bigint[]);

-- :name delete_revisions
-- And losses, which are as rare.
WITH losses_too AS (DELETE FROM losses WHERE node = ANY($1::bigint[])) DELETE FROM revisions WHERE node = ANY($1::bigint[]);

-- :name delete_nodes
DELETE FROM nodes WHERE row = ANY($1::bigint[]);

-- :name root
SELECT n.row, n.metadata, n.specs, n.time_updated FROM nodes n WHERE n.parent IS NULL;

-- :name insert_root
INSERT INTO nodes (
    row, id, key, depth, family, created, time_created, time_updated, above, path, words, specs, access_tags, data_sources, metadata
) VALUES (nextval('node_rows'), $1, '', 0, 'container', 0, 0, 0, '{}', '[]', '', '[]', '[]', '[]', '{}') ON CONFLICT DO NOTHING;

-- :name has_steps
SELECT to_regclass('schema_steps') IS NOT NULL;

-- :name make_steps
CREATE TABLE IF NOT EXISTS schema_steps (
    number integer PRIMARY KEY,
    name   text NOT NULL,
    digest text NOT NULL,
    time   timestamptz NOT NULL DEFAULT now()
);

-- :name steps
SELECT number, digest FROM schema_steps;

-- :name insert_step
INSERT INTO schema_steps (number, name, digest) VALUES ($1, $2, $3);
