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
