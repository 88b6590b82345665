-- How people sign in. Secrets that the server has to have again are sealed with a key
-- that is not in the database (coord/ca); all others are hashes.

-- How a session began, and when it ends whatever is done in it.
ALTER TABLE sessions ADD COLUMN method     TEXT NOT NULL DEFAULT ''; -- see store.Session, '' of older servers
ALTER TABLE sessions ADD COLUMN provider   TEXT NOT NULL DEFAULT ''; -- of oidc_providers
ALTER TABLE sessions ADD COLUMN refresh    BLOB;                     -- sealed, what extends it at the provider
ALTER TABLE sessions ADD COLUMN expires_at INTEGER CHECK (expires_at > 0); -- NULL: as all sessions do
CREATE INDEX sessions_provider ON sessions (network_id, provider) WHERE provider <> '';

-- Browsers in which somebody has signed in before: strangers who use up the attempts
-- to sign in as somebody do not use up those.
CREATE TABLE browsers (
    network_id BLOB    NOT NULL,
    user_id    TEXT    NOT NULL,
    token_hash BLOB    NOT NULL CHECK (length(token_hash) = 32),
    seen_at    INTEGER NOT NULL CHECK (seen_at > 0),
    PRIMARY KEY (network_id, user_id, token_hash),
    FOREIGN KEY (network_id, user_id) REFERENCES users ON DELETE CASCADE
) WITHOUT ROWID;

-- What makes codes that change every 30 seconds (TOTP).
CREATE TABLE totp (
    network_id BLOB    NOT NULL,
    user_id    TEXT    NOT NULL,
    secret     BLOB    NOT NULL,              -- sealed
    step       INTEGER NOT NULL,              -- of the last code that was used: none of before is taken
    created_at INTEGER NOT NULL CHECK (created_at > 0),
    PRIMARY KEY (network_id, user_id),
    FOREIGN KEY (network_id, user_id) REFERENCES users ON DELETE CASCADE
);

CREATE TABLE recovery_codes (
    network_id BLOB    NOT NULL,
    user_id    TEXT    NOT NULL,
    code_hash  BLOB    NOT NULL CHECK (length(code_hash) = 32),
    PRIMARY KEY (network_id, user_id, code_hash),
    FOREIGN KEY (network_id, user_id) REFERENCES users ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE passkeys (
    network_id    BLOB    NOT NULL,
    credential_id BLOB    NOT NULL CHECK (length(credential_id) BETWEEN 1 AND 1023),
    passkey_id    TEXT    NOT NULL,           -- names it in addresses and in the audit
    user_id       TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    rp_id         TEXT    NOT NULL,           -- domain that it is for
    public_key    BLOB    NOT NULL,           -- COSE
    counter       INTEGER NOT NULL,           -- of its last signature, 0 of those that count none
    flags         INTEGER NOT NULL,           -- of the authenticator data: backup eligible, backed up
    transports    TEXT    NOT NULL,           -- separated by commas
    aaguid        BLOB    NOT NULL,
    created_at    INTEGER NOT NULL CHECK (created_at > 0),
    used_at       INTEGER CHECK (used_at > 0),
    cloned_at     INTEGER CHECK (cloned_at > 0), -- last time that its counter went back
    PRIMARY KEY (network_id, credential_id),
    UNIQUE (network_id, passkey_id),
    FOREIGN KEY (network_id, user_id) REFERENCES users ON DELETE CASCADE
);
CREATE INDEX passkeys_user ON passkeys (network_id, user_id, created_at);

-- What the network demands of who signs in. One row, or none.
CREATE TABLE sign_in (
    network_id BLOB    NOT NULL PRIMARY KEY REFERENCES networks,
    rp_id      TEXT    NOT NULL,              -- domain of new passkeys, '' before the first
    demanded   INTEGER NOT NULL               -- 1: passkey or TOTP of operators, admins and owners
);

-- Where else people can sign in (OpenID Connect).
CREATE TABLE oidc_providers (
    network_id   BLOB    NOT NULL REFERENCES networks,
    provider_id  TEXT    NOT NULL CHECK (provider_id <> ''), -- a word in addresses
    title        TEXT    NOT NULL,
    issuer       TEXT    NOT NULL CHECK (issuer <> ''),
    client_id    TEXT    NOT NULL CHECK (client_id <> ''),
    secret       BLOB,                        -- sealed, NULL for none
    scopes       TEXT    NOT NULL,            -- beside openid, separated by spaces
    groups_claim TEXT    NOT NULL,
    name_claim   TEXT    NOT NULL,            -- '' for preferred_username
    admit_claim  TEXT    NOT NULL,            -- who has this value there is let in, '' for nobody
    admit_value  TEXT    NOT NULL,
    created_at   INTEGER NOT NULL CHECK (created_at > 0),
    PRIMARY KEY (network_id, provider_id)
);

-- Who somebody is at a provider: issuer and subject, and never the address of their
-- mail. Without a user it waits to be let in.
CREATE TABLE identities (
    network_id  BLOB    NOT NULL REFERENCES networks,
    identity_id TEXT    NOT NULL,
    issuer      TEXT    NOT NULL,
    subject     TEXT    NOT NULL,
    provider_id TEXT    NOT NULL,             -- by which it came last
    user_id     TEXT,
    admitted    INTEGER NOT NULL,             -- 1: by a rule, which has to hold at each sign-in
    name        TEXT    NOT NULL,             -- as the provider says: for people to look at
    mail        TEXT    NOT NULL,
    created_at  INTEGER NOT NULL CHECK (created_at > 0),
    seen_at     INTEGER NOT NULL CHECK (seen_at > 0),
    PRIMARY KEY (network_id, identity_id),
    UNIQUE (network_id, issuer, subject),
    FOREIGN KEY (network_id, user_id) REFERENCES users ON DELETE CASCADE
);
CREATE INDEX identities_user ON identities (network_id, user_id);

-- Groups of people, by who says so: a provider, or '' for the network's admins.
CREATE TABLE user_groups (
    network_id BLOB    NOT NULL,
    user_id    TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    name       TEXT    NOT NULL CHECK (name <> ''),
    PRIMARY KEY (network_id, user_id, source, name),
    FOREIGN KEY (network_id, user_id) REFERENCES users ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX user_groups_name ON user_groups (network_id, name);

-- Devices whose tags or owner change get another certificate, and the older ones are
-- revoked.
ALTER TABLE issued ADD COLUMN moved_at   INTEGER CHECK (moved_at > 0);  -- when such a change asked for it, NULL: something else did
ALTER TABLE issued ADD COLUMN superseded INTEGER NOT NULL DEFAULT 0;    -- 1: of a revoked one: its device has another one, and was not deleted
ALTER TABLE nodes  ADD COLUMN class_n    INTEGER NOT NULL DEFAULT 0;    -- change at which it came into its class, 0: when it joined

-- The life of a person here: what they are called beside their word, and whether they
-- may do anything at the moment.
ALTER TABLE users ADD COLUMN display_name TEXT NOT NULL DEFAULT ''; -- for people to read; '' for the name
ALTER TABLE users ADD COLUMN suspended_at INTEGER CHECK (suspended_at > 0); -- NULL: not

-- What somebody has is counted for each row of a list of people.
CREATE INDEX nodes_user ON nodes (network_id, user_id);

-- Names of users that were deleted. Certificates carry them, so nobody gets one again.
CREATE TABLE used_names (
    network_id BLOB NOT NULL REFERENCES networks,
    name       TEXT NOT NULL CHECK (name <> ''),
    PRIMARY KEY (network_id, name)
) WITHOUT ROWID;

-- Who made a token or a key, and has seen it: '' for nobody who is in users.
ALTER TABLE tokens ADD COLUMN made_by TEXT NOT NULL DEFAULT '';
ALTER TABLE keys   ADD COLUMN made_by TEXT NOT NULL DEFAULT '';
CREATE INDEX tokens_made_by ON tokens (network_id, made_by) WHERE made_by <> '';
CREATE INDEX keys_made_by ON keys (network_id, made_by) WHERE made_by <> '';

-- Groups that the network's admins made. Only they say who is in one: what a provider calls
-- the same counts for nothing.
CREATE TABLE groups (
    network_id BLOB    NOT NULL REFERENCES networks,
    name       TEXT    NOT NULL CHECK (name <> ''),
    created_at INTEGER NOT NULL CHECK (created_at > 0),
    PRIMARY KEY (network_id, name)
);
