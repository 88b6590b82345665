-- Whose certificate was that? asked with a revocation list that others hold.
CREATE INDEX issued_serial ON issued (network_id, serial);
