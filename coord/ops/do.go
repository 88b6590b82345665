package ops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"weft/coord/audit"
	"weft/coord/ca"
	"weft/coord/store"
	"weft/overlay/cert"
)

// Command is one change that an actor asks for. Each command is a type of this package, in a
// file of its own.
type Command[R any] interface {
	// operation returns the command's row of the authorization matrix.
	operation() *Operation
	// run makes the change: it finds the thing that the command is about, checks that the
	// actor may change it (Tx.may), and changes the database. It notes for the audit what it
	// did (Tx.did), and for the index and other state in memory what has changed (Tx.changed).
	// It runs on the store's writer goroutine and does no I/O except on the database. Its
	// transaction may be rolled back after it has returned.
	run(tx *Tx) (R, error)
}

// Do authorizes, runs and records a command for an actor, in one transaction. If it returns
// nil, the change is durable, and the state in memory, the relay in this process and open
// consoles have been told. If it returns an error, nothing was changed.
func Do[R any](ctx context.Context, s *Service, a Actor, c Command[R]) (R, error) {
	var res, none R
	if err := s.do(ctx, a, c.operation(), func(tx *Tx) (err error) { res, err = c.run(tx); return err }); err != nil {
		return none, err
	}
	return res, nil
}

// do is Do for a command of any type.
func (s *Service) do(ctx context.Context, a Actor, o *Operation, run func(*Tx) error) error {
	err := s.store.Write(ctx, func(stx *store.Tx) error {
		tx := &Tx{Tx: stx, s: s, actor: a, op: o, now: s.now()}
		if err := tx.whoAsks(); err != nil {
			return err
		}
		a = tx.actor
		if err := run(tx); err != nil {
			return err
		}
		if !tx.asked {
			return fmt.Errorf("%s did not check who may do it: this is a bug in weft-server", o.Name)
		}
		return nil
	})
	switch {
	case errors.Is(err, ErrSuspended) && a.UserID != "":
		s.refusals.add(s.now(), a, o, target{}, "suspended")
	case errors.Is(err, ErrForbidden):
		s.refusals.add(s.now(), a, o, target{}, "not allowed")
	}
	return err
}

// Tx is the transaction of one command.
type Tx struct {
	*store.Tx
	s     *Service
	actor Actor
	op    *Operation
	now   time.Time
	asked bool
}

// whoAsks reads the actor's role and tags again, because the actor may have lost rights since
// the request arrived, or the API token may have expired.
func (tx *Tx) whoAsks() error {
	if tx.actor.UserID == "" {
		return nil
	}
	if tx.actor.Token != "" {
		t, err := tx.Token(tx.s.network, tx.actor.Token)
		if isNotFound(err) {
			err = fmt.Errorf("the token %s was deleted: %w", tx.actor.Token, ErrUnauthorized)
		}
		if err == nil {
			err = ended(t, tx.now)
		}
		if err != nil {
			return err
		}
	}
	u, err := tx.User(tx.s.network, tx.actor.UserID)
	if isNotFound(err) {
		return fmt.Errorf("%s by %s, whose user was deleted: %w", tx.op.Name, tx.actor.User, ErrForbidden)
	}
	if err != nil {
		return err
	}
	if err := active(u); err != nil {
		tx.asked = true
		return fmt.Errorf("%s: %w", tx.op.Name, err)
	}
	tx.actor.User, tx.actor.Role, tx.actor.Tags = u.Name, Role(u.Role), u.Tags
	return nil
}

// may returns nil if the actor may do the command's operation on t.
func (tx *Tx) may(t target) error {
	tx.asked = true
	if err := tx.op.authorize(tx.actor, t); err != nil {
		return err
	}
	return tx.op.checkFresh(tx.actor, tx.now)
}

// did records in the audit, with the commit, that the command did its operation on t, and logs
// it after the commit. before and after are the changed values, which are stored as JSON; nil
// for none.
func (tx *Tx) did(t target, before, after any) { tx.note(tx.op, t, before, after) }

// note is did for another operation than the command's own.
func (tx *Tx) note(o *Operation, t target, before, after any) {
	r := record{actor: tx.actor, op: o.Name, target: t, at: tx.now, before: before, after: after}
	tx.Note(r)
	tx.After(func() {
		tx.s.log.Info(r.op, "id", t.id, "name", t.name, "by", tx.actor.User, "via", string(tx.actor.Via))
	})
}

// changed notes a change for Service.follow, which updates the state in memory. n is the result
// of Bump in this transaction.
func (tx *Tx) changed(n uint64, kind store.ChangeKind, id string) {
	tx.Note(store.Change{N: n, Kind: kind, ID: id})
}

// record is an audit record before it is encoded.
type record struct {
	actor         Actor
	op            string
	target        target
	at            time.Time
	before, after any
	refused       string // why the operation was refused, "" if it was done
	count         uint32 // how many equal refusals this stands for; 0 means 1
}

// seal completes a batch of commands before its commit. If certificates were revoked it signs
// one new revocation list. Then it prepares the changes of the state in memory, and appends to
// the audit. notes are what the commands noted with store.Tx.Note.
func (s *Service) seal(tx *store.Tx, notes []any) error {
	var changes []store.Change
	var records []record
	var lists []newList
	now := s.now()
	for _, n := range notes {
		switch n := n.(type) {
		case store.Change:
			changes = append(changes, n)
		case record:
			records = append(records, n)
		case newList:
			lists = append(lists, n)
		}
	}
	if len(lists) > 0 {
		c, err := s.signCRL(tx, newListOf(lists))
		if err != nil {
			return fmt.Errorf("sign revocation list: %w", err)
		}
		changes = append(changes, c)
	}
	if len(changes) > 0 {
		if err := tx.AddChanges(s.network, changes, now); err != nil {
			return err
		}
		if err := s.follow(tx); err != nil {
			return err
		}
	}
	return s.audit(tx, records)
}

// audit appends records to the audit, and signs its new head.
func (s *Service) audit(tx *store.Tx, records []record) error {
	if err := appendAudit(tx, s.network, s.auth, s.now(), records); err != nil {
		return err
	}
	if len(records) > 0 && s.hooks.some.Load() {
		tx.After(func() { s.hooks.recorded(records) })
	}
	return nil
}

func appendAudit(tx *store.Tx, network cert.NetworkID, auth *ca.Authorities, now time.Time, records []record) error {
	if len(records) == 0 {
		return nil
	}
	rows := make([]*audit.Record, len(records))
	for i, r := range records {
		var err error
		if rows[i], err = r.row(); err != nil {
			return fmt.Errorf("record %s: %w", r.op, err)
		}
	}
	if err := tx.AppendAudit(network, rows...); err != nil {
		return err
	}
	head, err := tx.AuditEnd(network)
	if err == nil {
		head, err = head.Sign(auth.Network.Key, now)
	}
	if err != nil {
		return fmt.Errorf("sign the audit: %w", err)
	}
	return tx.SetAuditHead(head)
}

// row returns the record in the form of package audit.
func (r record) row() (*audit.Record, error) {
	before, err := audit.JSON(r.before)
	if err != nil {
		return nil, err
	}
	after, err := audit.JSON(r.after)
	if err != nil {
		return nil, err
	}
	row := &audit.Record{
		At: r.at.UTC().Truncate(time.Millisecond), User: r.actor.User, UserID: r.actor.UserID, Role: string(r.actor.Role), Via: string(r.actor.Via),
		Op: r.op, Kind: r.target.kind, ID: r.target.id, Name: r.target.name, Before: before, After: after, Refused: r.refused, Count: max(1, r.count),
	}
	if r.actor.From.IsValid() {
		row.From = r.actor.From.String()
	}
	return row, nil
}
