-- Users: people, and services that outlive them. What a user may do is read from
-- here each time.
ALTER TABLE users ADD COLUMN kind TEXT NOT NULL DEFAULT 'person' CHECK (kind IN ('person', 'service'));
ALTER TABLE users ADD COLUMN role TEXT NOT NULL DEFAULT 'member' CHECK (role <> '');
ALTER TABLE users ADD COLUMN tags TEXT NOT NULL DEFAULT '';  -- as in keys; if there are any, they narrow the role
UPDATE users SET role = 'owner' WHERE owner = 1;

-- Tokens with which services use the API. The token itself is shown once.
CREATE TABLE tokens (
    network_id  BLOB    NOT NULL,
    token_id    TEXT    NOT NULL,
    token_hash  BLOB    NOT NULL CHECK (length(token_hash) = 32),
    user_id     TEXT    NOT NULL,
    description TEXT    NOT NULL,
    created_at  INTEGER NOT NULL CHECK (created_at > 0),
    expires_at  INTEGER          CHECK (expires_at > 0),   -- NULL: it does not
    revoked_at  INTEGER          CHECK (revoked_at > 0),
    used_at     INTEGER          CHECK (used_at > 0),      -- to the minute
    used_from   TEXT    NOT NULL DEFAULT '',  -- from which addresses, separated by commas, the last one first
    PRIMARY KEY (network_id, token_id),
    UNIQUE (network_id, token_hash),
    FOREIGN KEY (network_id, user_id) REFERENCES users ON DELETE CASCADE
);
CREATE INDEX tokens_user ON tokens (network_id, user_id, created_at);

-- What was done for requests with an idempotency key, for a day.
CREATE TABLE done_requests (
    network_id BLOB    NOT NULL REFERENCES networks,
    user_id    TEXT    NOT NULL,              -- '' for whoever has the data directory
    key        TEXT    NOT NULL,
    request    BLOB    NOT NULL CHECK (length(request) = 32),  -- hash of what was asked
    answer     TEXT    NOT NULL,              -- JSON, '' if there was a secret in it
    made       TEXT    NOT NULL,              -- what was made then, for people
    at         INTEGER NOT NULL CHECK (at > 0),
    PRIMARY KEY (network_id, user_id, key)
) WITHOUT ROWID;
CREATE INDEX done_requests_at ON done_requests (network_id, user_id, at);

-- Webhooks: who is sent what, and how far that is. The secret is none of these: it is
-- made from the salt and a key that is not in the database.
CREATE TABLE webhooks (
    network_id    BLOB    NOT NULL REFERENCES networks,
    webhook_id    TEXT    NOT NULL,
    revision      INTEGER NOT NULL,           -- number of its last change, of the network's counter
    url           TEXT    NOT NULL CHECK (url <> ''),
    note          TEXT    NOT NULL,
    events        TEXT    NOT NULL,           -- patterns, separated by commas
    tags          TEXT    NOT NULL,           -- comma-separated, sorted, without "tag:"
    allow         TEXT    NOT NULL,           -- ranges of addresses, separated by commas
    enabled       INTEGER NOT NULL,
    salt          BLOB    NOT NULL CHECK (length(salt) = 16),
    old_salt      BLOB             CHECK (length(old_salt) = 16),
    old_until     INTEGER          CHECK (old_until > 0),
    created_at    INTEGER NOT NULL CHECK (created_at > 0),
    audit_seq     INTEGER NOT NULL,           -- last record of the audit that is done with
    presence_n    INTEGER NOT NULL,           -- the same of presence_events
    attempts      INTEGER NOT NULL DEFAULT 0, -- of the event that comes next
    failing_at    INTEGER          CHECK (failing_at > 0),   -- when the first of them failed
    next_at       INTEGER          CHECK (next_at > 0),      -- when the next one is made
    paused_at     INTEGER          CHECK (paused_at > 0),
    delivered     INTEGER NOT NULL DEFAULT 0,
    delivered_at  INTEGER          CHECK (delivered_at > 0), -- the last one
    last_error    TEXT    NOT NULL DEFAULT '',
    missed        INTEGER NOT NULL DEFAULT 0, -- records that were removed, or too old, before they were sent
    missed_at     INTEGER          CHECK (missed_at > 0),
    recent        TEXT    NOT NULL DEFAULT '[]', -- the last attempts, JSON
    PRIMARY KEY (network_id, webhook_id)
);

-- Devices that came and went, for webhooks: the last ones, while some webhook is for them.
CREATE TABLE presence_events (
    network_id  BLOB    NOT NULL REFERENCES networks,
    n           INTEGER NOT NULL,
    event_id    TEXT    NOT NULL,
    ms_at       INTEGER NOT NULL CHECK (ms_at > 0), -- unix milliseconds
    node_id     BLOB    NOT NULL,
    name        TEXT    NOT NULL,
    tags        TEXT    NOT NULL,
    online      INTEGER NOT NULL,
    PRIMARY KEY (network_id, n)
);

-- The devices that were online according to the last of these events, and whether that
-- is known at all.
CREATE TABLE presence_told (
    network_id BLOB NOT NULL,
    node_id    BLOB NOT NULL,
    PRIMARY KEY (network_id, node_id),
    FOREIGN KEY (network_id, node_id) REFERENCES nodes (network_id, node_id) ON DELETE CASCADE
);
ALTER TABLE networks ADD COLUMN presence_known INTEGER NOT NULL DEFAULT 0;

-- What the owner decided about the audit: JSON, '' for nothing.
ALTER TABLE networks ADD COLUMN audit TEXT NOT NULL DEFAULT '';

-- Who introduced themselves to whom, as devices say that their owner asked to
-- (coord/ops/introductions.go): claims, no facts, so no part of the audit's chain.
-- They outlive the device that made them.
CREATE TABLE introductions (
    network_id BLOB    NOT NULL REFERENCES networks,
    hour       INTEGER NOT NULL CHECK (hour > 0),  -- hours since 1970 in which it was, by the device's clock
    node_id    BLOB    NOT NULL,                   -- the device that says so
    peer_id    BLOB    NOT NULL,                   -- all zero: several, of which nothing but the number is kept
    inbound    INTEGER NOT NULL,                   -- 1: the peer introduced itself, 0: the device did
    first_at   INTEGER NOT NULL CHECK (first_at > 0),
    last_at    INTEGER NOT NULL CHECK (last_at > 0),
    count      INTEGER NOT NULL CHECK (count > 0),
    node_name  TEXT    NOT NULL,                   -- as the server knew it then
    peer_name  TEXT    NOT NULL,                   -- these three as the device says
    peer_user  TEXT    NOT NULL,
    paths      TEXT    NOT NULL,
    doubts     TEXT    NOT NULL,                   -- what speaks against it, '' for nothing; words separated by spaces
    day        INTEGER NOT NULL CHECK (day > 0),   -- days since 1970 on which the server heard of it, by its own clock
    PRIMARY KEY (network_id, hour, node_id, peer_id, inbound, first_at)
) WITHOUT ROWID;
CREATE INDEX introductions_node ON introductions (network_id, node_id, hour);
CREATE INDEX introductions_day ON introductions (network_id, node_id, day);

-- Every text that was put into force as the policy, the last ones of them, and by whom.
-- The one in force is in networks. While nothing was put into force there is none.
CREATE TABLE policies (
    network_id BLOB    NOT NULL REFERENCES networks,
    number     INTEGER NOT NULL CHECK (number > 0),
    text       TEXT    NOT NULL,             -- '' for the starting policy
    set_at     INTEGER          CHECK (set_at > 0), -- not known of what was in force before this table
    user_id    TEXT    NOT NULL,
    user_name  TEXT    NOT NULL,             -- at that time
    via        TEXT    NOT NULL,
    PRIMARY KEY (network_id, number)
);
INSERT INTO policies (network_id, number, text, user_id, user_name, via)
    SELECT network_id, 1, policy, '', '', '' FROM networks WHERE policy <> '';
