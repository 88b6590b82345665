CREATE TABLE networks (
    network_id   BLOB    NOT NULL PRIMARY KEY CHECK (length(network_id) = 16),
    created_at   INTEGER NOT NULL CHECK (created_at > 0),
    epoch        INTEGER NOT NULL,            -- new after a restore
    n            INTEGER NOT NULL,            -- change counter: all versions are numbers of it
    config_n     INTEGER NOT NULL,            -- last change of everybody's config
    full_after   INTEGER NOT NULL,            -- deltas from before this change are not kept
    ipv4_prefix  TEXT    NOT NULL,
    ipv6_prefix  TEXT    NOT NULL,
    next_ipv4    INTEGER NOT NULL,            -- where the search for a free address goes on
    suffix       TEXT    NOT NULL,
    urls         TEXT    NOT NULL,            -- JSON array
    stun         TEXT    NOT NULL,            -- host:port JSON array
    policy       TEXT    NOT NULL,            -- JSON, '' for the starting policy
    crl_number   INTEGER NOT NULL,
    crl          BLOB    NOT NULL
);

CREATE TABLE users (
    network_id BLOB    NOT NULL REFERENCES networks,
    user_id    TEXT    NOT NULL,
    name       TEXT    NOT NULL CHECK (name <> ''),
    password   TEXT    NOT NULL DEFAULT '',   -- argon2id, '' for none yet
    owner      INTEGER NOT NULL,              -- 1 for the network's first user
    created_at INTEGER NOT NULL CHECK (created_at > 0),
    PRIMARY KEY (network_id, user_id),
    UNIQUE (network_id, name)
);

CREATE TABLE keys (
    network_id  BLOB    NOT NULL,
    key_id      TEXT    NOT NULL,
    secret_hash BLOB    NOT NULL CHECK (length(secret_hash) = 32),
    user_id     TEXT    NOT NULL,
    note        TEXT    NOT NULL,
    tags        TEXT    NOT NULL,             -- comma-separated, sorted, without "tag:"
    reusable    INTEGER NOT NULL,
    ephemeral   INTEGER NOT NULL,
    created_at  INTEGER NOT NULL CHECK (created_at > 0),
    expires_at  INTEGER NOT NULL CHECK (expires_at > 0),
    revoked_at  INTEGER          CHECK (revoked_at > 0),
    uses        INTEGER NOT NULL DEFAULT 0,
    used_at     INTEGER          CHECK (used_at > 0),
    PRIMARY KEY (network_id, key_id),
    UNIQUE (network_id, secret_hash),
    CHECK (reusable = 1 OR uses <= 1),
    FOREIGN KEY (network_id, user_id) REFERENCES users
);
CREATE INDEX keys_user ON keys (network_id, user_id, created_at);

CREATE TABLE nodes (
    network_id  BLOB    NOT NULL,
    node_id     BLOB    NOT NULL CHECK (length(node_id) = 16),
    spki        BLOB    NOT NULL,
    name        TEXT    NOT NULL,
    hostname    TEXT    NOT NULL,             -- as reported, cleaned of control characters
    user_id     TEXT    NOT NULL,
    tags        TEXT    NOT NULL,
    class       TEXT    NOT NULL,             -- user_id and tags: all that policy looks at
    ipv4        INTEGER NOT NULL,
    key_id      TEXT    NOT NULL,
    ephemeral   INTEGER NOT NULL,
    os          TEXT    NOT NULL,
    software    TEXT    NOT NULL,
    created_at  INTEGER NOT NULL CHECK (created_at > 0),
    seen_at     INTEGER          CHECK (seen_at > 0),
    certificate BLOB    NOT NULL,
    expires_at  INTEGER NOT NULL CHECK (expires_at > 0),
    n           INTEGER NOT NULL,             -- last change that others see
    config_n    INTEGER NOT NULL,             -- last change of this node's own config
    UNIQUE (network_id, node_id),
    UNIQUE (network_id, name),
    UNIQUE (network_id, ipv4),
    FOREIGN KEY (network_id, user_id) REFERENCES users
);
CREATE INDEX nodes_class ON nodes (network_id, class, n);
CREATE INDEX nodes_key ON nodes (network_id, key_id);

-- Nodes that were deleted or left a class: what deltas of the directory tell.
CREATE TABLE removed (
    network_id BLOB    NOT NULL REFERENCES networks,
    node_id    BLOB    NOT NULL,
    class      TEXT    NOT NULL,
    n          INTEGER NOT NULL,
    removed_at INTEGER NOT NULL CHECK (removed_at > 0),
    PRIMARY KEY (network_id, n)
);
CREATE INDEX removed_class ON removed (network_id, class, n);
CREATE INDEX removed_node ON removed (network_id, node_id);

-- Every certificate that may still be valid, whether its node exists or not.
CREATE TABLE issued (
    network_id BLOB    NOT NULL REFERENCES networks,
    node_id    BLOB    NOT NULL,
    serial     BLOB    NOT NULL,
    expires_at INTEGER NOT NULL CHECK (expires_at > 0),
    revoked_at INTEGER          CHECK (revoked_at > 0),
    PRIMARY KEY (network_id, node_id, serial)
) WITHOUT ROWID;
CREATE INDEX issued_revoked ON issued (network_id, revoked_at) WHERE revoked_at IS NOT NULL;

-- Addresses in quarantine.
CREATE TABLE freed (
    network_id BLOB    NOT NULL REFERENCES networks,
    ipv4       INTEGER NOT NULL,
    until      INTEGER NOT NULL CHECK (until > 0),
    PRIMARY KEY (network_id, ipv4)
);
CREATE INDEX freed_until ON freed (network_id, until);

-- next is the lowest number that base-NUMBER was never tried with; gaps are
-- lower ones that became free again.
CREATE TABLE name_bases (
    network_id BLOB    NOT NULL REFERENCES networks,
    base       TEXT    NOT NULL,
    next       INTEGER NOT NULL,
    PRIMARY KEY (network_id, base)
);
CREATE TABLE name_gaps (
    network_id BLOB    NOT NULL REFERENCES networks,
    base       TEXT    NOT NULL,
    number     INTEGER NOT NULL,
    PRIMARY KEY (network_id, base, number)
);

CREATE TABLE sessions (
    network_id BLOB    NOT NULL,
    token_hash BLOB    NOT NULL CHECK (length(token_hash) = 32),
    user_id    TEXT    NOT NULL,
    created_at INTEGER NOT NULL CHECK (created_at > 0),
    seen_at    INTEGER NOT NULL CHECK (seen_at > 0),
    agent      TEXT    NOT NULL,
    addr       TEXT    NOT NULL,
    PRIMARY KEY (network_id, token_hash),
    FOREIGN KEY (network_id, user_id) REFERENCES users ON DELETE CASCADE
);
CREATE INDEX sessions_user ON sessions (network_id, user_id, seen_at);

CREATE TABLE login_links (
    network_id BLOB    NOT NULL,
    token_hash BLOB    NOT NULL CHECK (length(token_hash) = 32),
    user_id    TEXT    NOT NULL,
    created_at INTEGER NOT NULL CHECK (created_at > 0),
    expires_at INTEGER NOT NULL CHECK (expires_at > 0),
    PRIMARY KEY (network_id, token_hash),
    FOREIGN KEY (network_id, user_id) REFERENCES users ON DELETE CASCADE
);
