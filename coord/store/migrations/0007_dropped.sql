-- What left the revocation list because it had ended. The list states until when
-- that was so, and everybody refuses certificates that ended before. Those that
-- were dropped by a clock that stood in the future come back when it is right.
CREATE TABLE dropped (
    network_id BLOB    NOT NULL REFERENCES networks,
    expires_at INTEGER NOT NULL CHECK (expires_at > 0),
    serial     BLOB    NOT NULL,
    PRIMARY KEY (network_id, expires_at, serial)
) WITHOUT ROWID;

ALTER TABLE networks ADD COLUMN crl_since     INTEGER CHECK (crl_since > 0);     -- what the list states
ALTER TABLE networks ADD COLUMN dropped_until INTEGER CHECK (dropped_until > 0); -- the latest end of what is not remembered any more
UPDATE networks SET dropped_until = unixepoch(); -- servers before this one forgot at once
