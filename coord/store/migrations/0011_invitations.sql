-- An invitation is a sign-in link that lives longer, for somebody who has not signed in yet.
ALTER TABLE login_links ADD COLUMN invited_by TEXT; -- id of who invited, '' for nobody who is in users; NULL: it is no invitation

-- When somebody last signed in. Sessions end, and the audit is trimmed.
ALTER TABLE users ADD COLUMN signed_in_at INTEGER CHECK (signed_in_at > 0); -- NULL: not yet, as far as is known
UPDATE users SET signed_in_at = (SELECT MAX(created_at) FROM sessions s WHERE s.network_id = users.network_id AND s.user_id = users.user_id);

-- A list of people says of each whether an invitation is open.
CREATE INDEX login_links_user ON login_links (network_id, user_id);
