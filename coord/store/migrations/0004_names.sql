-- What the owner decided about names, but for the records.
ALTER TABLE networks ADD COLUMN dns TEXT NOT NULL DEFAULT ''; -- JSON, '' for nothing

CREATE TABLE dns_records (
    network_id BLOB    NOT NULL REFERENCES networks,
    record_id  TEXT    NOT NULL,
    name       TEXT    NOT NULL CHECK (name <> ''), -- 'www', '@', 'www.example.com'; ASCII, lower case
    type       TEXT    NOT NULL,
    value      TEXT    NOT NULL,
    ttl        INTEGER NOT NULL CHECK (ttl >= 0),   -- seconds, 0 for the resolvers' own
    created_at INTEGER NOT NULL CHECK (created_at > 0),
    PRIMARY KEY (network_id, record_id)
);
CREATE INDEX dns_records_name ON dns_records (network_id, name);

-- Former names that still lead to their device. Nobody else gets one of them.
CREATE TABLE aliases (
    network_id BLOB    NOT NULL,
    name       TEXT    NOT NULL CHECK (name <> ''),
    node_id    BLOB    NOT NULL,
    until      INTEGER NOT NULL CHECK (until > 0),
    PRIMARY KEY (network_id, name),
    FOREIGN KEY (network_id, node_id) REFERENCES nodes (network_id, node_id) ON DELETE CASCADE
);
CREATE INDEX aliases_node ON aliases (network_id, node_id, until);
CREATE INDEX aliases_until ON aliases (network_id, until);

-- Names that deleted devices had: one that joins again with the same key takes
-- its own back, if nobody else has it by then.
CREATE TABLE former_names (
    network_id BLOB    NOT NULL REFERENCES networks,
    node_id    BLOB    NOT NULL,
    name       TEXT    NOT NULL CHECK (name <> ''),
    left_at    INTEGER NOT NULL CHECK (left_at > 0),
    PRIMARY KEY (network_id, node_id)
);
CREATE INDEX former_names_left ON former_names (network_id, left_at);

ALTER TABLE nodes ADD COLUMN wildcard  INTEGER NOT NULL DEFAULT 0; -- 1: answers for every name below its own
ALTER TABLE nodes ADD COLUMN lan_names INTEGER NOT NULL DEFAULT 0; -- 0: as the network says, 1: the LAN's names win, -1: the overlay's
CREATE INDEX nodes_wildcard ON nodes (network_id, node_id) WHERE wildcard = 1;
