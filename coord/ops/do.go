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

// Command is one change that an actor asks for, as a value. The types of this package
// with these methods are the commands, each in a file of its own.
type Command[R any] interface {
	// operation is its row of the authorization matrix.
	operation() *Operation
	// run makes the change. It finds the thing that the command is about, checks that
	// the actor may change it (Tx.may), changes the database, and notes what it did for
	// the audit (Tx.did) and what memory has to follow (Tx.changed). It runs on the
	// store's writer goroutine and does no I/O but the database's. Its transaction may
	// be rolled back after it returned.
	run(tx *Tx) (R, error)
}

// Do authorizes, runs and records a command for an actor, in one transaction. When Do
// returns nil, the change is durable, and memory, relays and open consoles of this
// process follow it. When it returns an error, nothing was changed.
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

// whoAsks reads the role and the tags of the actor again: they may be less than when the
// request arrived, or its token may have ended.
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

// may says whether the actor may do this command to t.
func (tx *Tx) may(t target) error {
	tx.asked = true
	if err := tx.op.authorize(tx.actor, t); err != nil {
		return err
	}
	return tx.op.checkFresh(tx.actor, tx.now)
}

// did notes what the command did: it logs it at once, and records it in the audit with the
// commit. before and after are the changed values, as JSON; nil for none.
func (tx *Tx) did(t target, before, after any) { tx.note(tx.op, t, before, after) }

// note is did for what a command does besides.
func (tx *Tx) note(o *Operation, t target, before, after any) {
	r := record{actor: tx.actor, op: o.Name, target: t, at: tx.now, before: before, after: after}
	tx.Note(r)
	tx.After(func() {
		tx.s.log.Info(r.op, "id", t.id, "name", t.name, "by", tx.actor.User, "via", string(tx.actor.Via))
	})
}

// changed notes a change that memory follows. n is of Bump in this transaction.
func (tx *Tx) changed(n uint64, kind store.ChangeKind, id string) {
	tx.Note(store.Change{N: n, Kind: kind, ID: id})
}

// record is what a command did, on its way to the audit.
type record struct {
	actor         Actor
	op            string
	target        target
	at            time.Time
	before, after any
	refused       string // why it was not done
	count         uint32 // how many alike this is; 0 is 1
}

// seal completes a batch of commands, before its commit: one new revocation list
// where certificates were revoked, then what memory has to follow, then the audit.
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

// audit appends to the audit, and signs where it ends.
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

// row is a record as the audit has it.
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
