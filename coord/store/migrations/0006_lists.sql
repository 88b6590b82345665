-- What keeps the revocation list short.
ALTER TABLE issued ADD COLUMN renamed_at INTEGER CHECK (renamed_at > 0); -- when a rename asked for it, NULL: it was a join or a renewal
ALTER TABLE issued ADD COLUMN key_id TEXT NOT NULL DEFAULT '';           -- of a revoked one: the key by which its device had joined
CREATE INDEX issued_key ON issued (network_id, key_id, expires_at, revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX issued_expires ON issued (network_id, expires_at);

-- How often a key was used in the hour that began at hour * 3600.
ALTER TABLE keys ADD COLUMN hour INTEGER NOT NULL DEFAULT 0;
ALTER TABLE keys ADD COLUMN hour_uses INTEGER NOT NULL DEFAULT 0;
