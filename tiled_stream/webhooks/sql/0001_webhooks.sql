-- The first shape. SQLite and PostgreSQL read the same file: texts, whole numbers and doubles only.

-- `chain`: JSON list of the ids from the root to the node. `secret` is encrypted. `events`: JSON list, NULL: all.
-- `worker` has the exclusive right to deliver until `leased`. `failures`: in a row. Nothing is tried before `due`.
CREATE TABLE webhooks (
    id BIGINT PRIMARY KEY,
    node TEXT NOT NULL,
    chain TEXT NOT NULL,
    url TEXT NOT NULL,
    secret TEXT,
    events TEXT,
    created DOUBLE PRECISION NOT NULL,
    worker TEXT,
    leased DOUBLE PRECISION NOT NULL DEFAULT 0,
    failures BIGINT NOT NULL DEFAULT 0,
    due DOUBLE PRECISION NOT NULL DEFAULT 0
);

CREATE INDEX webhooks_node ON webhooks (node);

-- What happened. `payload` NULL: it is not known yet whom it concerns.
CREATE TABLE events (
    id TEXT PRIMARY KEY,
    number BIGINT NOT NULL,
    log TEXT NOT NULL,
    kind TEXT NOT NULL,
    time DOUBLE PRECISION NOT NULL,
    child TEXT,
    key TEXT NOT NULL,
    about TEXT NOT NULL,
    payload TEXT
);

CREATE INDEX events_open ON events (number) WHERE payload IS NULL;

CREATE TABLE deliveries (
    id BIGINT PRIMARY KEY,
    webhook BIGINT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event TEXT NOT NULL REFERENCES events (id),
    created DOUBLE PRECISION NOT NULL,
    outcome TEXT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    status_code BIGINT,
    error TEXT,
    delivered DOUBLE PRECISION,
    UNIQUE (webhook, event)
);

CREATE INDEX deliveries_webhook ON deliveries (webhook, id);
CREATE INDEX deliveries_pending ON deliveries (webhook, id) WHERE outcome = 'pending';
CREATE INDEX deliveries_event ON deliveries (event);

-- The last number given of each kind.
CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO counters (name, value) VALUES ('webhooks', 0);
INSERT INTO counters (name, value) VALUES ('events', 0);
INSERT INTO counters (name, value) VALUES ('deliveries', 0);
