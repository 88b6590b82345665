-- Relays that run alone. A relay's key is one like a device's.
CREATE TABLE relays (
    network_id BLOB    NOT NULL REFERENCES networks,
    relay_id   TEXT    NOT NULL,              -- hex, from its public key
    name       TEXT    NOT NULL CHECK (name <> ''),
    urls       TEXT    NOT NULL,              -- JSON array
    stun       TEXT    NOT NULL,              -- host:port JSON array
    key_id     TEXT    NOT NULL,
    software   TEXT    NOT NULL,
    created_at INTEGER NOT NULL CHECK (created_at > 0),
    PRIMARY KEY (network_id, relay_id),
    UNIQUE (network_id, name)
);

ALTER TABLE keys ADD COLUMN relay INTEGER NOT NULL DEFAULT 0; -- 1: its token is for a relay
