package store

import (
	"errors"
	"fmt"
	"time"

	"weft/overlay/cert"
)

// KeptPolicies is how many texts of the policy are stored, including the one in force.
const KeptPolicies = 50

// PolicyRevision describes a policy that was put into force.
type PolicyRevision struct {
	Number int        `json:"number"` // from 1, without gaps; 0 is the starting policy of a new network
	At     *time.Time `json:"at"`     // nil when unknown
	UserID string     `json:"user_id"`
	User   string     `json:"user"` // name at that time
	Via    string     `json:"via"`
	Bytes  int        `json:"bytes"` // of the text
}

const policyColumns = `SELECT number, set_at, user_id, user_name, via, length(CAST(text AS BLOB))`

func scanPolicy(scan func(...any) error, more ...any) (p PolicyRevision, err error) {
	var at time.Time
	err = scan(append([]any{&p.Number, nullTime{&at}, &p.UserID, &p.User, &p.Via, &p.Bytes}, more...)...)
	if !at.IsZero() {
		p.At = &at
	}
	return p, err
}

// Policies lists the stored policies, the newest first. The first one is in force.
func (r *Reader) Policies(id cert.NetworkID) (list []PolicyRevision, err error) {
	err = r.each(policyColumns+` FROM policies WHERE network_id=$1 ORDER BY number DESC`, []any{id[:]}, func(scan func(...any) error) error {
		p, err := scanPolicy(scan)
		list = append(list, p)
		return err
	})
	return list, err
}

// PolicyText returns a stored policy with its text; ErrNotFound if it is not stored any more.
func (r *Reader) PolicyText(id cert.NetworkID, number int) (p PolicyRevision, text string, err error) {
	row := func(dest ...any) error {
		return r.row(policyColumns+`, text FROM policies WHERE network_id=$1 AND number=$2`, []any{id[:], number}, dest...)
	}
	p, err = scanPolicy(row, &text)
	return p, text, err
}

// PolicyNumber returns the number of the policy in force, 0 for the starting policy of a new
// network.
func (r *Reader) PolicyNumber(id cert.NetworkID) (number int, err error) {
	err = r.row(`SELECT COALESCE(MAX(number), 0) FROM policies WHERE network_id=$1`, []any{id[:]}, &number)
	return number, err
}

// AddPolicy stores the text that SetNetwork puts into force, and deletes all but the last
// KeptPolicies. It ignores p.Number and returns the number of the new policy.
func (tx *Tx) AddPolicy(id cert.NetworkID, p PolicyRevision, text string) (int, error) {
	last, err := tx.PolicyNumber(id)
	if err != nil {
		return 0, fmt.Errorf("store the policy: %w", err)
	}
	err = tx.exec(`INSERT INTO policies (network_id, number, text, set_at, user_id, user_name, via) VALUES ($1,$2,$3,$4,$5,$6,$7)`,
		id[:], last+1, text, orNull(orZero(p.At)), p.UserID, p.User, p.Via)
	if err == nil {
		err = tx.exec(`DELETE FROM policies WHERE network_id=$1 AND number <= $2`, id[:], last+1-KeptPolicies)
	}
	if err != nil {
		return 0, fmt.Errorf("store the policy: %w", err)
	}
	return last + 1, nil
}

func orZero(t *time.Time) (z time.Time) {
	if t != nil {
		return *t
	}
	return z
}

// ClassNames returns the names of at most limit nodes of a class.
func (r *Reader) ClassNames(id cert.NetworkID, class string, limit int) (names []string, err error) {
	err = r.each(`SELECT name FROM nodes WHERE network_id=$1 AND class=$2 ORDER BY n LIMIT $3`, []any{id[:], class, limit}, func(scan func(...any) error) error {
		var name string
		err := scan(&name)
		names = append(names, name)
		return err
	})
	return names, err
}

// Classes returns the classes of all nodes, in order. There are far fewer classes than nodes;
// the queries skip the nodes in the index.
func (r *Reader) Classes(id cert.NetworkID) (classes []string, err error) {
	last := ""
	for {
		var class string
		err := r.row(`SELECT class FROM nodes WHERE network_id=$1 AND class > $2 ORDER BY class LIMIT 1`, []any{id[:], last}, &class)
		if errors.Is(err, ErrNotFound) {
			return classes, nil
		}
		if err != nil {
			return nil, err
		}
		classes, last = append(classes, class), class
	}
}
