package store

import (
	"fmt"
	"time"

	"weft/overlay/cert"
)

// How long results are stored, how many for each user, and the bound on all answers of a user
// together, in bytes. The bound is applied when a long answer is added, such as a policy of
// up to 256 KB; short answers cannot exceed it.
const (
	DoneKeep  = 24 * time.Hour
	doneMax   = 1000
	doneBytes = 8 << 20
	doneShort = doneBytes / doneMax
)

// Done is the result of a request with an idempotency key.
type Done struct {
	UserID  string // "" for root on the server's machine
	Key     string
	Request [32]byte // hash of the request
	Answer  string   // JSON, "" if it contained a secret
	Made    string   // what the request made, for people; "" if Answer is stored
	At      time.Time
}

// DoneWith finds the result for a user's key, unless it is older than DoneKeep.
func (r *Reader) DoneWith(id cert.NetworkID, userID, key string, now time.Time) (d Done, err error) {
	var request []byte
	err = r.row(`SELECT user_id, key, request, answer, made, at FROM done_requests WHERE network_id=$1 AND user_id=$2 AND key=$3 AND at > $4`,
		[]any{id[:], userID, key, now.Add(-DoneKeep).Unix()}, &d.UserID, &d.Key, &request, &d.Answer, &d.Made, stored{&d.At})
	copy(d.Request[:], request)
	return d, err
}

// AddDone stores a result, and deletes those of the user before the last 1,000. After a
// long answer it also deletes those before the last 8 MiB of answers.
func (tx *Tx) AddDone(id cert.NetworkID, d Done) error {
	err := tx.exec(`INSERT INTO done_requests (network_id, user_id, key, request, answer, made, at) VALUES ($1,$2,$3,$4,$5,$6,$7)
		ON CONFLICT (network_id, user_id, key) DO UPDATE SET request=excluded.request, answer=excluded.answer, made=excluded.made, at=excluded.at`,
		id[:], d.UserID, d.Key, d.Request[:], d.Answer, d.Made, d.At.Unix())
	if err == nil {
		err = tx.exec(`DELETE FROM done_requests WHERE network_id=$1 AND user_id=$2 AND key IN
			(SELECT key FROM done_requests WHERE network_id=$1 AND user_id=$2 ORDER BY at DESC, key LIMIT 1000 OFFSET $3)`, id[:], d.UserID, doneMax)
	}
	if err == nil && len(d.Answer) > doneShort {
		err = tx.exec(`DELETE FROM done_requests WHERE network_id=$1 AND user_id=$2 AND key <> $3 AND key IN
			(SELECT key FROM (SELECT key, SUM(OCTET_LENGTH(answer)) OVER (ORDER BY at DESC, key) AS length
				FROM done_requests WHERE network_id=$1 AND user_id=$2) AS lengths WHERE length > $4)`, id[:], d.UserID, d.Key, doneBytes)
	}
	if err != nil {
		return fmt.Errorf("store the result of a request: %w", err)
	}
	return nil
}

// PruneDone deletes results older than DoneKeep, and those of deleted users.
func (tx *Tx) PruneDone(id cert.NetworkID, now time.Time) error {
	return tx.exec(`DELETE FROM done_requests WHERE network_id=$1 AND (at <= $2 OR user_id <> '' AND NOT EXISTS
		(SELECT 1 FROM users u WHERE u.network_id = done_requests.network_id AND u.user_id = done_requests.user_id))`, id[:], now.Add(-DoneKeep).Unix())
}
