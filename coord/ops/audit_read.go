package ops

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"weft/coord/audit"
	"weft/coord/store"
)

// maxAuditPage is how many records one answer has at most.
const maxAuditPage = 1000

// AuditReport is the result of checking the audit.
type AuditReport struct {
	audit.Report
	Removed *time.Time   `json:"removed_at"` // when records were last removed, by the signed checkpoint; nil for never
	Fault   *audit.Fault `json:"fault"`      // the first fault, nil for none
}

// Audit returns the records that w selects, at most maxAuditPage of them. The cursor of the
// next page is the number of the last record. If w.Target names a device, it selects all
// records about that device, under whatever name. It ignores w.Refused and w.Via; AuditPage
// does not.
func (s *Service) Audit(ctx context.Context, a Actor, w store.AuditFilter) ([]audit.Line, error) {
	if err := opAuditRead.readsAll(a); err != nil {
		return nil, err
	}
	if w.Limit <= 0 || w.Limit > maxAuditPage {
		w.Limit = maxAuditPage
	}
	var err error
	if w.Target, err = s.auditTarget(ctx, w.Target); err != nil {
		return nil, err
	}
	page := []audit.Line{}
	err = s.store.Read(ctx, func(r *store.Reader) error {
		return r.EachAudit(s.network, w, func(rec audit.Record, h audit.Hash) error {
			page = append(page, audit.LineOf(rec, h))
			return ctx.Err()
		})
	})
	return page, err
}

// AuditNames returns an error if w names a user or a target that does not exist and that no
// record names. Callers that get no records for w use it to tell a wrong name from an empty
// result.
func (s *Service) AuditNames(ctx context.Context, a Actor, w store.AuditFilter) error {
	if err := opAuditRead.readsAll(a); err != nil {
		return err
	}
	target, err := s.auditTarget(ctx, w.Target)
	if err != nil {
		return err
	}
	return s.store.Read(ctx, func(r *store.Reader) error {
		if w.User != "" {
			_, err := findUser(r, s.network, a, w.User)
			if known, err := s.recorded(r, store.AuditFilter{User: w.User}, err); !known {
				return About(KindUser, w.User, err)
			}
		}
		if target == "" || target != w.Target { // a device
			return nil
		}
		_, err := findUser(r, s.network, a, target)
		if isNotFound(err) {
			_, err = r.Key(s.network, target)
		}
		if isNotFound(err) {
			_, err = r.Token(s.network, target)
		}
		if isNotFound(err) {
			_, err = r.Webhook(s.network, target)
		}
		if isNotFound(err) {
			relays, e := r.Relays(s.network)
			if err = e; e == nil && !slices.ContainsFunc(relays, func(o store.Relay) bool { return o.Name == target || o.ID == target }) {
				err = ErrNotFound
			}
		}
		if known, err := s.recorded(r, store.AuditFilter{Target: target}, err); !known {
			return fmt.Errorf("nothing was ever called %q here, as far back as the audit goes: %w", printable(target, 80), err)
		}
		return nil
	})
}

// recorded reports whether something exists or is in a record that w selects. err is the
// result of reading it: nil if it exists.
func (s *Service) recorded(r *store.Reader, w store.AuditFilter, err error) (bool, error) {
	if !isNotFound(err) {
		return err == nil, err
	}
	w.Limit = 1
	found := false
	if e := r.EachAudit(s.network, w, func(audit.Record, audit.Hash) error { found = true; return nil }); e != nil {
		return false, e
	}
	return found, err
}

// maxAuditLook is how many records are read at most to fill a page that is selected by fields
// without a column.
const maxAuditLook = 50_000

// AuditPage is a page of records. Next is the cursor of the next page, 0 at the end.
type AuditPage struct {
	Records []audit.Line
	Next    uint64
}

// AuditPage is Audit with the cursor of the next page, and with w.Refused and w.Via. With one
// of these a page may have fewer records than w.Limit, or none, although there is a next page.
func (s *Service) AuditPage(ctx context.Context, a Actor, w store.AuditFilter) (page AuditPage, err error) {
	if w.Limit <= 0 || w.Limit > maxAuditPage {
		w.Limit = maxAuditPage
	}
	if !w.Refused && w.Via == "" {
		page.Records, err = s.Audit(ctx, a, w)
		if n := len(page.Records); n == w.Limit {
			page.Next = page.Records[n-1].Seq
		}
		return page, err
	}
	if err := opAuditRead.readsAll(a); err != nil {
		return page, err
	}
	if w.Target, err = s.auditTarget(ctx, w.Target); err != nil {
		return page, err
	}
	wanted, looked := w.Limit, 0
	page.Records, w.Limit = []audit.Line{}, maxAuditLook
	full := errors.New("the page is full")
	err = s.store.Read(ctx, func(r *store.Reader) error {
		return r.EachAudit(s.network, w, func(rec audit.Record, h audit.Hash) error {
			looked++
			page.Next = rec.Seq
			if (!w.Refused || rec.Refused != "") && (w.Via == "" || rec.Via == w.Via) {
				page.Records = append(page.Records, audit.LineOf(rec, h))
			}
			if len(page.Records) == wanted {
				return full
			}
			return ctx.Err()
		})
	})
	if errors.Is(err, full) {
		return page, nil
	}
	if looked < maxAuditLook {
		page.Next = 0
	}
	return page, err
}

// ReadsAudit reports whether the actor may read the audit.
func (a Actor) ReadsAudit() bool { return opAuditRead.readsAll(a) == nil }

// auditTarget returns the id of the device that word names, since records name devices by id.
// If word names no device it returns word.
func (s *Service) auditTarget(ctx context.Context, word string) (string, error) {
	if word == "" {
		return "", nil
	}
	n, err := s.FindDevice(ctx, word)
	switch {
	case err == nil:
		return n.ID.String(), nil
	case isNotFound(err):
		return word, nil
	}
	return "", err
}

// VerifyAudit checks the whole audit. If outside is not nil, it also compares the audit
// with that head, which was saved elsewhere earlier. Faults of the audit are in the
// report.
func (s *Service) VerifyAudit(ctx context.Context, a Actor, outside *audit.Head) (AuditReport, error) {
	if err := opAuditRead.readsAll(a); err != nil {
		return AuditReport{}, err
	}
	if outside != nil && outside.Network != s.network {
		return AuditReport{}, Invalid("that head belongs to network %s; this is network %s", outside.Network, s.network)
	}
	var report AuditReport
	err := s.store.Read(ctx, func(r *store.Reader) (err error) {
		if c, err := r.AuditCheckpoint(s.network); err == nil {
			report.Removed = &c.At // VerifyAudit below verifies the checkpoint
		} else if !isNotFound(err) {
			return err
		}
		report.Report, err = r.VerifyAudit(s.network, []*x509.Certificate{s.auth.Network.Cert}, outside)
		return err
	})
	if errors.Is(err, audit.ErrUnsigned) {
		err = Invalid("%v", err)
	}
	if errors.As(err, &report.Fault) {
		err = nil
	}
	return report, err
}

// AuditHead returns the signed head of the audit. If there is no record yet, it signs a head
// with Seq 0.
func (s *Service) AuditHead(ctx context.Context, a Actor) (h audit.Head, err error) {
	if err := opAuditRead.readsAll(a); err != nil {
		return h, err
	}
	err = s.store.Read(ctx, func(r *store.Reader) error { h, err = r.AuditHead(s.network); return err })
	if isNotFound(err) {
		return audit.Head{Network: s.network, Hash: audit.Genesis(s.network)}.Sign(s.auth.Network.Key, s.now())
	}
	return h, err
}
