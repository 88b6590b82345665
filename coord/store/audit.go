package store

import (
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"time"

	"weft/coord/audit"
	"weft/overlay/cert"
)

// The audit of a network: rows that are only appended and are chained by their hashes
// (coord/audit). Appending continues from the stored head, not from the last row: if rows are
// removed, the gap stays and is found.

// ErrAudit is wrapped when a record cannot follow what is stored, because the
// audit was tampered with or damaged.
var ErrAudit = errors.New("the stored audit does not fit its head: run weft-server audit verify")

// auditEnd is where the audit of a network ends for the running batch.
type auditEnd struct {
	seq    uint64
	hash   audit.Hash
	signed uint64 // the seq in the stored head
}

// audits holds the end of each audit during a batch; it is read at the first record. A write
// that fails restores the former value.
type audits struct{ of map[cert.NetworkID]auditEnd }

func (a *audits) clone() audits { return audits{maps.Clone(a.of)} }

func (a *audits) set(id cert.NetworkID, e auditEnd) {
	if a.of == nil {
		a.of = map[cert.NetworkID]auditEnd{}
	}
	a.of[id] = e
}

// signed returns an error if the batch has appended records without a signed head.
func (a *audits) signed() error {
	for id, e := range a.of {
		if e.seq != e.signed {
			return fmt.Errorf("audit of network %s: no head was signed for record %d", id, e.seq)
		}
	}
	return nil
}

// AuditEnd returns the last record of the audit as this transaction sees it, as an unsigned
// head. Signed and stored with SetAuditHead, it covers the whole batch.
func (tx *Tx) AuditEnd(id cert.NetworkID) (audit.Head, error) {
	e, ok := tx.audit.of[id]
	if !ok {
		h, err := tx.AuditHead(id)
		if errors.Is(err, ErrNotFound) {
			h, err = audit.Head{Hash: audit.Genesis(id)}, nil
		}
		if err != nil {
			return audit.Head{}, err
		}
		e = auditEnd{seq: h.Seq, hash: h.Hash, signed: h.Seq}
		tx.audit.set(id, e)
	}
	return audit.Head{Network: id, Seq: e.seq, Hash: e.hash}, nil
}

// AppendAudit cleans records (audit.Record.Clean), appends them to the network's audit and
// sets their Seq. SetAuditHead must be called before the end of the batch, or the batch
// fails: see Options.Seal. The error wraps ErrAudit if they cannot follow what is stored.
func (tx *Tx) AppendAudit(id cert.NetworkID, records ...*audit.Record) error {
	head, err := tx.AuditEnd(id)
	if err != nil {
		return err
	}
	e := tx.audit.of[id]
	var buf []byte
	for _, r := range records {
		r.Clean()
		e.seq++
		r.Seq = e.seq
		if buf, err = r.Encode(buf[:0]); err != nil {
			return err
		}
		e.hash = e.hash.Next(buf)
		err := tx.exec(`INSERT INTO audit (network_id, seq, at, op, user_id, user_name, target_id, target_name, hash, record) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10)`,
			id[:], int64(r.Seq), r.At.UnixMilli(), r.Op, r.UserID, r.User, r.ID, r.Name, e.hash[:], buf)
		if isUnique(err, "audit.") {
			err = fmt.Errorf("record %d exists already, but the head says that %d is the last: %w", r.Seq, head.Seq, ErrAudit)
		}
		if err != nil {
			return fmt.Errorf("append to the audit: %w", err)
		}
	}
	tx.audit.set(id, e)
	return nil
}

// SetAuditHead stores the signed head for the end of the audit.
func (tx *Tx) SetAuditHead(h audit.Head) error {
	end, err := tx.AuditEnd(h.Network)
	if err != nil {
		return err
	}
	if h.Seq != end.Seq || h.Hash != end.Hash {
		return fmt.Errorf("store the audit's head: the head for record %d does not match the end of the audit, record %d", h.Seq, end.Seq)
	}
	if err := tx.exec(`INSERT INTO audit_heads (network_id, seq, hash, signed_at, signature) VALUES ($1,$2,$3,$4,$5)
		ON CONFLICT (network_id) DO UPDATE SET seq=excluded.seq, hash=excluded.hash, signed_at=excluded.signed_at, signature=excluded.signature`,
		signed(h)...); err != nil {
		return fmt.Errorf("store the audit's head: %w", err)
	}
	tx.audit.set(h.Network, auditEnd{seq: h.Seq, hash: h.Hash, signed: h.Seq})
	return nil
}

func signed(h audit.Head) []any {
	return []any{h.Network[:], int64(h.Seq), h.Hash[:], h.At.UnixMilli(), h.Signature}
}

// AuditHead returns the stored head of the network's audit, not verified; ErrNotFound if
// there is no record yet.
func (r *Reader) AuditHead(id cert.NetworkID) (audit.Head, error) {
	return r.auditSigned(`SELECT seq, hash, signed_at, signature FROM audit_heads WHERE network_id=$1`, id)
}

// AuditCheckpoint returns the checkpoint after which the audit begins, not verified;
// ErrNotFound if no records were removed yet.
func (r *Reader) AuditCheckpoint(id cert.NetworkID) (audit.Checkpoint, error) {
	h, err := r.auditSigned(`SELECT seq, hash, signed_at, signature FROM audit_checkpoints WHERE network_id=$1`, id)
	return audit.Checkpoint(h), err
}

func (r *Reader) auditSigned(query string, id cert.NetworkID) (audit.Head, error) {
	h := audit.Head{Network: id}
	var seq, at int64
	var hash []byte
	if err := r.row(query, []any{id[:]}, &seq, &hash, &at, &h.Signature); err != nil {
		return audit.Head{}, fmt.Errorf("read the signed head or checkpoint of the audit: %w", err)
	}
	h.Seq, h.At = uint64(seq), time.UnixMilli(at).UTC()
	copy(h.Hash[:], hash)
	return h, nil
}

// AuditFilter selects records. The zero filter selects all, newest first.
type AuditFilter struct {
	Since  time.Time `json:"since"`  // at or after; zero for any
	Until  time.Time `json:"until"`  // before; zero for any
	Op     string    `json:"op"`     // a prefix of op
	User   string    `json:"user"`   // id or name
	Target string    `json:"target"` // id or name
	Cursor uint64    `json:"cursor"` // continue after the record with this number; 0 begins
	Limit  int       `json:"limit"`  // 0 for no limit
	Oldest bool      `json:"oldest"` // oldest first
	// Refused selects only refusals, Via only records with this Via ("" for any). No column
	// has these, so EachAudit ignores them and its caller checks them.
	Refused bool   `json:"refused"`
	Via     string `json:"via"`
}

// EachAudit calls f with the records that the filter selects, and their hashes.
// A record that cannot be decoded is an error that wraps ErrAudit.
func (r *Reader) EachAudit(id cert.NetworkID, w AuditFilter, f func(audit.Record, audit.Hash) error) error {
	query, args := w.query(id)
	return r.each(query, args, func(scan func(...any) error) error {
		var seq int64
		var hash, b sql.RawBytes
		if err := scan(&seq, &hash, &b); err != nil {
			return err
		}
		record, err := audit.Decode(b)
		if err != nil || len(hash) != len(audit.Hash{}) {
			return fmt.Errorf("audit record %d: %w", seq, errors.Join(err, ErrAudit))
		}
		return f(record, audit.Hash(hash))
	})
}

// query returns one of few texts, so that each is prepared once. Without a target, rows are
// examined one by one from the wanted end on.
func (w AuditFilter) query(id cert.NetworkID) (string, []any) {
	const forever = int64(1) << 62
	since, until, limit, cursor := int64(0), forever, forever, int64(w.Cursor)
	if !w.Since.IsZero() {
		since = w.Since.UnixMilli()
	}
	if !w.Until.IsZero() {
		until = w.Until.UnixMilli()
	}
	if w.Limit > 0 {
		limit = int64(w.Limit)
	}
	beyond, order := ` AND seq > $6`, ` ORDER BY seq LIMIT $7`
	if !w.Oldest {
		beyond, order = ` AND seq < $6`, ` ORDER BY seq DESC LIMIT $7`
		if cursor == 0 {
			cursor = forever
		}
	}
	args := []any{id[:], since, until, w.Op, w.User, cursor, limit}
	query := `SELECT seq, hash, record FROM audit WHERE network_id=$1 AND at >= $2 AND at < $3
		AND ($4 = '' OR substr(op, 1, length($4)) = $4) AND ($5 = '' OR user_id = $5 OR user_name = $5)`
	if w.Target == "" {
		return query + beyond + order, args
	}
	// With OR, SQLite would read all rows. With UNION it uses one index for the id and one
	// for the name.
	query += ` AND seq IN (SELECT seq FROM audit WHERE network_id=$1 AND target_id=$8` + beyond + ` UNION SELECT seq FROM audit WHERE network_id=$1 AND target_name=$8` + beyond + `)`
	return query + order, append(args, w.Target)
}

// VerifyAudit checks the whole audit of the network against its signed head and checkpoint
// and, unless outside is nil, against a head that was saved elsewhere. cas are the CA that
// founded the network and its trusted successors. The first fault is returned as a
// *audit.Fault.
func (r *Reader) VerifyAudit(id cert.NetworkID, cas []*x509.Certificate, outside *audit.Head) (audit.Report, error) {
	claims := audit.Claims{Network: id, CAs: cas, Outside: outside}
	if h, err := r.AuditHead(id); err == nil {
		claims.Head = &h
	} else if !errors.Is(err, ErrNotFound) {
		return audit.Report{}, err
	}
	var err error
	if claims.Checkpoint, err = r.auditStart(id); err != nil {
		return audit.Report{}, err
	}
	return audit.Verify(r.auditRows(id, math.MaxInt64), claims)
}

func (r *Reader) auditRows(id cert.NetworkID, limit int64) iter.Seq2[audit.Row, error] {
	return func(yield func(audit.Row, error) bool) {
		stop := errors.New("stop")
		var row audit.Row
		var seq int64
		strict := func(name string, to any) any { return &strictly{name, to, &row.Odd} }
		dest := []any{strict("seq", &seq), strict("at", &row.At), strict("op", &row.Op), strict("user_id", &row.UserID), strict("user_name", &row.User),
			strict("target_id", &row.TargetID), strict("target_name", &row.Target), strict("hash", &row.Hash), strict("record", &row.Record)}
		err := r.each(`SELECT seq, at, op, user_id, user_name, target_id, target_name, hash, record FROM audit WHERE network_id=$1 ORDER BY seq LIMIT $2`, []any{id[:], limit},
			func(scan func(...any) error) error {
				row.Odd = ""
				if err := scan(dest...); err != nil {
					return err
				}
				row.Seq = uint64(seq)
				if !yield(row, nil) {
					return stop
				}
				return nil
			})
		if err != nil && !errors.Is(err, stop) {
			yield(audit.Row{}, err)
		}
	}
}

// strictly scans a value into an *int64, *string or *[]byte, which is valid until the next
// row. It records the name of a column whose value has another type: SQLite stores values of
// any type in a column, and does not find a blob by a text.
type strictly struct {
	column string
	to     any
	odd    *string
}

func (s *strictly) Scan(v any) error {
	var ok bool
	switch to := s.to.(type) {
	case *int64:
		*to, ok = v.(int64)
	case *string:
		*to, ok = v.(string)
	case *[]byte:
		*to, ok = v.([]byte)
	}
	if !ok {
		*s.odd = s.column
	}
	return nil
}

// AuditCut returns, as an unsigned checkpoint, up to which record the audit can be trimmed to
// remove all from before a time: at most limit records at once, so that other writes do not
// wait long. ErrNotFound if there is none. Records that do not verify are not removed: the
// error is then a *audit.Fault.
func (r *Reader) AuditCut(id cert.NetworkID, before time.Time, limit int) (audit.Checkpoint, error) {
	start, err := r.auditStart(id)
	if err != nil {
		return audit.Checkpoint{}, err
	}
	chain := audit.Follow(id, start)
	old := false
	for row, err := range r.auditRows(id, int64(limit)) {
		// After a clock was set back, older times follow newer ones: the cut is before the
		// first record that has to stay.
		if err == nil && row.At >= before.UnixMilli() {
			break
		}
		if err == nil {
			err = chain.Step(row)
		}
		if err != nil {
			return audit.Checkpoint{}, fmt.Errorf("look for old audit records: %w", err)
		}
		old = true
	}
	if !old {
		return audit.Checkpoint{}, fmt.Errorf("old audit records: %w", ErrNotFound)
	}
	return audit.Checkpoint(chain.End()), nil
}

// AuditSettings returns the settings of the audit, JSON or "".
func (r *Reader) AuditSettings(id cert.NetworkID) (settings string, err error) {
	if err := r.row(`SELECT audit FROM networks WHERE network_id=$1`, []any{id[:]}, &settings); err != nil {
		return "", fmt.Errorf("read audit settings: %w", err)
	}
	return settings, nil
}

// SetAuditSettings stores the settings of the audit.
func (tx *Tx) SetAuditSettings(id cert.NetworkID, settings string) error {
	return tx.changed(`UPDATE networks SET audit=$2 WHERE network_id=$1`, id[:], settings)
}

// auditStart is AuditCheckpoint, but returns nil if there is none.
func (r *Reader) auditStart(id cert.NetworkID) (*audit.Checkpoint, error) {
	c, err := r.AuditCheckpoint(id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return &c, err
}

// TrimAudit removes the records up to the signed checkpoint and stores it. The error wraps
// ErrAudit if the checkpoint does not match the stored record.
func (tx *Tx) TrimAudit(c audit.Checkpoint) error {
	var hash []byte
	err := tx.row(`SELECT hash FROM audit WHERE network_id=$1 AND seq=$2`, []any{c.Network[:], int64(c.Seq)}, &hash)
	if err == nil && string(hash) != string(c.Hash[:]) {
		err = fmt.Errorf("record %d has another hash than the checkpoint: %w", c.Seq, ErrAudit)
	}
	if err != nil {
		return fmt.Errorf("trim the audit: %w", err)
	}
	if err := tx.exec(`DELETE FROM audit WHERE network_id=$1 AND seq <= $2`, c.Network[:], int64(c.Seq)); err != nil {
		return fmt.Errorf("trim the audit: %w", err)
	}
	if err := tx.exec(`INSERT INTO audit_checkpoints (network_id, seq, hash, signed_at, signature) VALUES ($1,$2,$3,$4,$5)
		ON CONFLICT (network_id) DO UPDATE SET seq=excluded.seq, hash=excluded.hash, signed_at=excluded.signed_at, signature=excluded.signature`,
		signed(audit.Head(c))...); err != nil {
		return fmt.Errorf("trim the audit: %w", err)
	}
	return nil
}
