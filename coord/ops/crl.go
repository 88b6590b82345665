package ops

import (
	"context"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// handleCRL sends the revocation list, unless the caller has it already: the list is long,
// and a node that cannot use it would fetch it again and again.
func (s *Service) handleCRL(_ context.Context, _ *caller, r *http.Request) (any, error) {
	network := s.index.info()
	a := raw{contentType: "application/pkix-crl", tag: api.CRLTag(network.CRLNumber), body: network.CRL}
	for known := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		a.known = a.known || strings.TrimSpace(known) == a.tag
	}
	return a, nil
}

// CRL returns the current signed revocation list.
func (s *Service) CRL() []byte { return s.index.info().CRL }

// listState describes the signed revocation list.
type listState struct {
	entries int       // in it
	left    int       // revoked certificates for which it has no room
	ended   int       // entries that have expired since
	signed  time.Time // zero: not since this process started
	early   bool      // signed while the server settled: see nextNumber
}

// Revocations is the state of the revocation list as `weft-server doctor` shows it.
type Revocations struct {
	Bytes   int `json:"bytes"`
	Max     int `json:"max"` // nodes refuse a longer one
	Entries int `json:"entries"`
	// Left is how many revoked certificates are not in it because it is full.
	Left int `json:"left"`
}

// Revocations says how full the revocation list is.
func (s *Service) Revocations() Revocations {
	list := s.list.Load()
	return Revocations{Bytes: len(s.CRL()), Max: cert.MaxCRL, Entries: list.entries, Left: list.left}
}

// openList reads the state of the list in the database. A list that is too long, as servers
// before 2026-11-29 signed it, is signed anew.
func (s *Service) openList(ctx context.Context) error {
	der, list := s.CRL(), listState{}
	s.list.Store(&list)
	crl, err := s.auth.Roots.VerifyCRL(der)
	if err != nil {
		s.log.Warn("the revocation list is signed anew", "bytes", len(der), "err", err)
		return s.store.Write(ctx, func(tx *store.Tx) error { tx.Note(newList{}); return nil })
	}
	if raw, err := x509.ParseRevocationList(der); err == nil { // it was parsed above
		list.early = crl.Number < uint64(max(0, raw.ThisUpdate.Unix()))
	}
	err = s.store.Read(ctx, func(r *store.Reader) error {
		revoked, err := r.Revoked(s.network, s.now())
		for _, v := range revoked {
			if !crl.Revoked(v.Serial) {
				list.left++
			}
		}
		list.entries, list.ended = crl.Len(), crl.Len()-(len(revoked)-list.left)
		return err
	})
	s.list.Store(&list)
	return err
}

// newList is the note (Tx.Note) of a write that revokes certificates. The batch of writes
// then ends with one new revocation list for all of them.
type newList struct {
	brought uint64 // number of a list that a node sent (recall.go), 0 for none
	// revoked holds all revoked certificates if they are known; if nil, they are read again.
	revoked []store.Revoked
}

// newListOf combines the notes of a batch.
func newListOf(notes []newList) (all newList) {
	known := true
	for _, n := range notes {
		all.brought = max(all.brought, n.brought)
		all.revoked = append(all.revoked, n.revoked...)
		known = known && len(n.revoked) > 0
	}
	if !known {
		all.revoked = nil
	}
	return all
}

// revocations are the revoked certificates in the order of their serial numbers, kept so that
// a deletion does not read all of them. It may hold expired ones.
type revocations []store.Revoked

// add inserts a certificate in order, or replaces its entry.
func (r *revocations) add(v store.Revoked) {
	i, found := slices.BinarySearchFunc(*r, v, bySerial)
	if found {
		(*r)[i] = v
	} else {
		*r = slices.Insert(*r, i, v)
	}
}

// at returns those that have not expired at now.
func (r revocations) at(now time.Time) []store.Revoked {
	return slices.DeleteFunc(slices.Clone(r), func(v store.Revoked) bool { return v.Expires <= now.Unix() })
}

func bySerial(a, b store.Revoked) int { return a.Serial.Cmp(b.Serial) }

// signCRL signs the list of what is revoked as of now.
func (s *Service) signCRL(tx *store.Tx, news newList) (store.Change, error) {
	now, brought := s.now(), news.brought
	since, again, err := tx.Since(s.network, now)
	if err != nil {
		return store.Change{}, err
	}
	n, err := tx.Network()
	if err != nil {
		return store.Change{}, err
	}
	number, early := s.nextNumber(n.CRLNumber, brought, now)
	sign := func(list []store.Revoked) ([]byte, error) {
		deleted := make([]*big.Int, 0, len(list))
		var superseded []*big.Int
		for _, v := range list {
			if v.Superseded {
				superseded = append(superseded, v.Serial)
			} else {
				deleted = append(deleted, v.Serial)
			}
		}
		return s.auth.Network.SignCRL(number, deleted, since, now, superseded...)
	}
	held := s.revocations
	s.revocations = nil // until the commit it differs from the database
	if len(news.revoked) == 0 || again > 0 {
		held = nil
	}
	var revoked []store.Revoked
	var der []byte
	var listed int
	if held != nil {
		for _, v := range news.revoked {
			held.add(v)
		}
		revoked = held.at(now)
		listed = len(revoked)
		der, err = sign(revoked)
	}
	if held == nil || len(der) > cert.MaxCRL {
		held = nil
		if revoked, err = tx.Revoked(s.network, now); err != nil {
			return store.Change{}, err
		}
		der, listed, err = signList(revoked, sign)
		if listed == len(revoked) {
			held = slices.SortedFunc(slices.Values(revoked), bySerial)
		}
	}
	if err != nil {
		return store.Change{}, err
	}
	if err := tx.SetCRL(s.network, number, der, since); err != nil {
		return store.Change{}, err
	}
	list := listState{entries: listed, left: len(revoked) - listed, signed: now, early: early}
	tx.After(func() {
		s.revocations = held
		s.warnOfList(len(n.CRL), len(der), list)
		s.list.Store(&list)
		if brought > 0 {
			s.brought, s.settlesSince = max(s.brought, brought), now
		}
	})
	c, err := tx.Bump(s.network)
	return store.Change{N: c, Kind: store.CRLChanged}, err
}

// reviseCRL signs the revocation list anew if it was signed while the clock was wrong.
func (s *Service) reviseCRL(ctx context.Context) error {
	var off bool
	err := s.store.Read(ctx, func(r *store.Reader) (err error) { off, err = r.ListIsOff(s.network, s.now()); return err })
	if err != nil || !off {
		return err
	}
	return s.store.Write(ctx, func(tx *store.Tx) error { tx.Note(newList{}); return nil })
}

// signList signs a list that is never longer than cert.MaxCRL, and returns how many
// certificates are in it. If not all fit, it leaves out first those beyond the share of
// their join key, so that nobody can push out the devices of others, and then those
// that were revoked first: the device that was deleted last is always in the list.
// Relays refuse those left out too, because the server does not know them, and no node is
// introduced without a relay.
func signList(revoked []store.Revoked, sign func([]store.Revoked) ([]byte, error)) (der []byte, listed int, err error) {
	list := make([]store.Revoked, 0, len(revoked))
	var over []store.Revoked
	byKey := map[string]int{}
	for _, v := range revoked { // the latest first
		if byKey[v.KeyID]++; v.KeyID != "" && byKey[v.KeyID] > mostGone {
			over = append(over, v)
		} else {
			list = append(list, v)
		}
	}
	list = append(list, over...)
	for {
		if der, err = sign(list); err != nil || len(der) <= cert.MaxCRL {
			return der, len(list), err
		}
		fits := len(list) * cert.MaxCRL / len(der)
		if fits >= len(list) {
			return nil, 0, fmt.Errorf("revocation list of %d bytes without an entry that could go", len(der))
		}
		list = list[:fits]
	}
}

// warnOfList logs when the list becomes half full, when it falls below that again, and each
// time some certificates do not fit.
func (s *Service) warnOfList(before, after int, list listState) {
	switch {
	case list.left > 0:
		s.log.Error("the revocation list is full: deleted devices that are not in it are refused only by relays that reach the server; delete no more devices until some of the revoked certificates have expired, and see: weft-server doctor",
			"left_out", list.left, "entries", list.entries, "bytes", after)
	case before < halfList && after >= halfList:
		s.log.Warn("the revocation list is half full: from now on new certificates are valid for a shorter time, so that it empties; see: weft-server doctor", "entries", list.entries, "bytes", after, "max", cert.MaxCRL)
	case before >= halfList && after < halfList:
		s.log.Info("the revocation list is less than half full again", "entries", list.entries, "bytes", after)
	}
}
