CREATE TABLE accounts_version (version INTEGER NOT NULL);
INSERT INTO accounts_version VALUES (1);
CREATE TABLE principals (
    uuid TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    roles TEXT NOT NULL,
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
CREATE INDEX api_keys_principal ON api_keys (principal)
