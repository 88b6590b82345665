-- An invitation is a sign-in link that lives longer, for somebody who has not signed in yet.
ALTER TABLE login_links ADD COLUMN invited_by TEXT; -- id of who invited, '' for nobody who is in users; NULL: it is no invitation

-- When somebody last signed in. Sessions end, and the audit is trimmed.
ALTER TABLE users ADD COLUMN signed_in_at INTEGER CHECK (signed_in_at > 0); -- NULL: not yet, as far as is known
-- What is known of it: of the audit the last sign-in that was let in, whose record has the
-- browser, and where the audit has none of somebody, the sessions.
UPDATE users SET signed_in_at = COALESCE(
	(SELECT MAX(at) / 1000 FROM audit a WHERE a.network_id = users.network_id AND a.target_id = users.user_id
		AND a.user_id = users.user_id AND a.op = 'session.create' AND instr(a.record, CAST('"agent":' AS BLOB)) > 0),
	(SELECT MAX(created_at) FROM sessions s WHERE s.network_id = users.network_id AND s.user_id = users.user_id));

-- A list of people says of each whether an invitation is open.
CREATE INDEX login_links_user ON login_links (network_id, user_id);

-- People's devices without tags may have to be signed in again every so many days.
ALTER TABLE sign_in ADD COLUMN device_days INTEGER NOT NULL DEFAULT 0 CHECK (device_days BETWEEN 0 AND 365); -- 0: never
ALTER TABLE sign_in ADD COLUMN device_from INTEGER CHECK (device_from > 0); -- no earlier sign-in counts, NULL: all do
ALTER TABLE nodes ADD COLUMN signed_in_at INTEGER NOT NULL DEFAULT 0; -- when its person last signed it in, or it joined
ALTER TABLE nodes ADD COLUMN overdue      INTEGER NOT NULL DEFAULT 0; -- 1: it reaches nothing until that is done again
UPDATE nodes SET signed_in_at = created_at;
CREATE INDEX nodes_signed_in ON nodes (network_id, signed_in_at) WHERE overdue = 0 AND tags = '';
CREATE INDEX nodes_overdue   ON nodes (network_id, user_id) WHERE overdue = 1;
