-- What was done, by whom, one row for each record (coord/audit). Rows are only
-- ever added at the end, and removed at the beginning behind a checkpoint. All
-- times in these three tables are unix milliseconds.
CREATE TABLE audit (
    network_id  BLOB    NOT NULL REFERENCES networks,
    seq         INTEGER NOT NULL CHECK (seq > 0),
    at          INTEGER NOT NULL CHECK (at > 0),
    op          TEXT    NOT NULL CHECK (op <> ''),
    user_id     TEXT    NOT NULL,             -- these, and the two above, are copied from the record
    user_name   TEXT    NOT NULL,
    target_id   TEXT    NOT NULL,
    target_name TEXT    NOT NULL,
    hash        BLOB    NOT NULL CHECK (length(hash) = 32),
    record      BLOB    NOT NULL,             -- its encoding: this is what hash is of
    PRIMARY KEY (network_id, seq)
) WITHOUT ROWID;
CREATE INDEX audit_target_id ON audit (network_id, target_id, seq);
CREATE INDEX audit_target_name ON audit (network_id, target_name, seq);

-- Which record is the last one, signed by the network CA.
CREATE TABLE audit_heads (
    network_id BLOB    NOT NULL PRIMARY KEY REFERENCES networks,
    seq        INTEGER NOT NULL CHECK (seq >= 0),
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    signed_at  INTEGER NOT NULL CHECK (signed_at > 0),
    signature  BLOB    NOT NULL
);

-- Up to which record they were removed, signed likewise.
CREATE TABLE audit_checkpoints (
    network_id BLOB    NOT NULL PRIMARY KEY REFERENCES networks,
    seq        INTEGER NOT NULL CHECK (seq > 0),
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    signed_at  INTEGER NOT NULL CHECK (signed_at > 0),
    signature  BLOB    NOT NULL
);

-- What memory follows: each change of which somebody has to be told, by the number
-- of the network's counter under which it was made. Whoever takes a number holds the
-- network's row until the commit, so a follower never passes over a lower one.
CREATE TABLE changes (
    network_id BLOB    NOT NULL REFERENCES networks,
    n          INTEGER NOT NULL,
    kind       TEXT    NOT NULL,             -- see store.ChangeKind
    id         TEXT    NOT NULL,             -- of what changed, '' where there is one only
    at         INTEGER NOT NULL CHECK (at > 0),
    PRIMARY KEY (network_id, n, kind, id)
) WITHOUT ROWID;

-- Last change of what names lead to: a certificate that is renewed is none.
ALTER TABLE networks ADD COLUMN names_n INTEGER NOT NULL DEFAULT 0;
UPDATE networks SET names_n = n;
