-- The first shape. SQLite and PostgreSQL read the same file: texts, whole numbers and doubles only.

-- `appointed`: 1 if the configuration gives the role admin, and may take it away again.
CREATE TABLE principals (
    uuid TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    roles TEXT NOT NULL,
    appointed INTEGER NOT NULL DEFAULT 0,
    created DOUBLE PRECISION NOT NULL,
    latest_activity DOUBLE PRECISION
);

CREATE TABLE identities (
    provider TEXT NOT NULL,
    id TEXT NOT NULL,
    principal TEXT NOT NULL REFERENCES principals (uuid),
    latest_login DOUBLE PRECISION,
    PRIMARY KEY (provider, id)
);

CREATE INDEX identities_principal ON identities (principal);

CREATE TABLE sessions (
    uuid TEXT PRIMARY KEY,
    principal TEXT NOT NULL REFERENCES principals (uuid),
    created DOUBLE PRECISION NOT NULL,
    expires DOUBLE PRECISION NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL
);

CREATE INDEX sessions_principal ON sessions (principal);

-- `digest`: SHA-256 of the secret. Secrets are 36 random bytes, so there is nothing to guess that a slow hash would protect.
CREATE TABLE api_keys (
    digest TEXT PRIMARY KEY,
    first_eight TEXT NOT NULL,
    principal TEXT NOT NULL REFERENCES principals (uuid),
    created DOUBLE PRECISION NOT NULL,
    expires DOUBLE PRECISION,
    note TEXT,
    scopes TEXT NOT NULL,
    access_tags TEXT,
    latest_activity DOUBLE PRECISION
);

CREATE INDEX api_keys_principal ON api_keys (principal, first_eight);
