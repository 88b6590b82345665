package ops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"sync"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// A server that was restored from an older backup does not know which devices were
// deleted after that backup. The nodes do: they hold the newer revocation list, signed
// by the network's CA. A node that finds the server's number lower than its own sends
// its list, and the server deletes the devices in it again. The CA's signature counts,
// whoever sends the list: so nodes and relays that joined after the backup, which this
// server does not know, may send it too.

// A list that the server signs before it has received theirs must not count as newer:
// nodes would take it and forget the deletions. So for an hour after the start, and
// after each list that was received, new lists are numbered just above the last one;
// later they are numbered by the clock, which is above every number given out before.
// An hour after the start no node is expected to hold a higher number, and a list that
// was signed early is signed again, so that it also reaches nodes that did not send
// theirs.

// settling is how long the server assumes that it may have been restored from a backup.
const settling = time.Hour

// settles returns since when a list may be about to come, and whether it may still
// at now. It is called by the store's writer goroutine.
func (s *Service) settles(now time.Time) (since time.Duration, ok bool) {
	since = now.Sub(s.settlesSince)
	return since, since >= 0 && since < settling
}

// nextNumber returns the number of a list that is signed at now, where last was
// the one before, and brought the number of a list that this one answers, 0 for none.
// While the server settles that goes on by the seconds, so that two servers restored
// from one backup are not likely to use the same.
func (s *Service) nextNumber(last, brought uint64, now time.Time) (number uint64, early bool) {
	last = max(last, s.brought, brought)
	byClock := uint64(max(0, now.Unix()))
	since, early := s.settles(now)
	if brought > 0 {
		since, early = 0, true
	}
	if early {
		number = last + 1 + uint64(since/time.Second)
		return number, number < byClock
	}
	return max(last+1, byClock), false
}

// maxStrangers is how many nodes and relays unknown to this server may send a list at
// once: each list takes up to a megabyte of memory.
const maxStrangers = 64

// strangers are the unknown senders of a list in progress, one request each, so that a
// deleted device cannot take all the slots to prevent its deletion. The zero value is
// ready.
type strangers struct {
	mu       sync.Mutex
	bringing map[cert.NodeID]struct{}
	verify   sync.Mutex // held for one list: that takes tens of milliseconds
}

func (s *strangers) enter(id cert.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.bringing[id]; ok || len(s.bringing) >= maxStrangers {
		return false
	}
	if s.bringing == nil {
		s.bringing = map[cert.NodeID]struct{}{}
	}
	s.bringing[id] = struct{}{}
	return true
}

func (s *strangers) leave(id cert.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bringing, id)
}

// handleRecall takes a revocation list that is newer than the server's.
func (s *Service) handleRecall(ctx context.Context, c *caller, r *http.Request) (any, error) {
	stranger := !s.knows(c)
	if stranger {
		if !s.strangers.enter(c.id) {
			return nil, fail(http.StatusServiceUnavailable, api.CodeUnavailable, "other revocation lists are being read", "try again")
		}
		defer s.strangers.leave(c.id)
	}
	der, err := io.ReadAll(r.Body) // bounded
	if err != nil {
		return nil, fail(http.StatusRequestEntityTooLarge, api.CodeTooLarge, "the revocation list is too long", "")
	}
	if stranger {
		s.strangers.verify.Lock()
		defer s.strangers.verify.Unlock()
	}
	if err := s.Recall(ctx, c.id.String(), der); err != nil {
		return nil, err
	}
	return statusOnly(http.StatusNoContent), nil
}

// Recall deletes every node that a revocation list of this network names. It keeps the
// serial numbers that are unknown here, and the date up to which the list may have
// dropped entries. A list from before this server was started changes nothing unless it
// is newer than the server's. by says who sent the list.
//
// A device that was deleted after the backup and whose certificate has left the list
// since is not deleted again: nobody knows of it any more. Others refuse its old
// certificate, but it can renew here.
func (s *Service) Recall(ctx context.Context, by string, der []byte) error {
	crl, err := s.auth.Roots.VerifyCRL(der)
	if err != nil {
		return fail(http.StatusBadRequest, api.CodeBadRequest, "the revocation list is not one of this network", "")
	}
	held := s.index.info()
	if crl.Number <= held.CRLNumber && (crl.Number <= s.found || bytes.Equal(der, held.CRL)) {
		return nil
	}
	own, err := s.auth.Roots.VerifyCRL(held.CRL)
	if err != nil {
		return fmt.Errorf("read the revocation list held: %w", err)
	}
	news := slices.DeleteFunc(crl.Serials(), own.Revoked)
	// Two nodes with different lists may have come at the same time.
	if crl.Number <= held.CRLNumber && len(news) == 0 {
		return nil
	}
	_, err = Do(ctx, s, nodeActor(ctx, by), recall{crl, news})
	return err
}

// recall deletes whom a revocation list names that is newer than the server's, or
// that has entries which are news.
type recall struct {
	crl  *cert.CRL
	news []*big.Int
}

func (recall) operation() *Operation { return opCRLRecall }

func (c recall) run(tx *Tx) (none struct{}, err error) {
	s, now := tx.s, tx.now
	if err := tx.may(target{}); err != nil {
		return none, err
	}
	held := s.index.info().CRLNumber
	changed, unknown := c.crl.Number > held, 0
	dropped, err := tx.Dropped(s.network)
	if err != nil {
		return none, err
	}
	for _, serial := range c.news {
		id, revoked, err := tx.HolderOf(s.network, serial)
		switch {
		case errors.Is(err, store.ErrNotFound):
			if dropped[string(serial.Bytes())] {
				continue
			}
			changed = true
			unknown++
			if err := tx.AddRevoked(s.network, serial, c.crl.Superseded(serial), now, now.Add(s.life)); err != nil {
				return none, err
			}
			continue
		case err != nil:
			return none, err
		case revoked:
			continue
		}
		node, err := tx.Node(s.network, id)
		if errors.Is(err, store.ErrNotFound) {
			continue // deleted a moment ago, in this list
		}
		if err != nil {
			return none, err
		}
		changed = true
		if c.crl.Superseded(serial) {
			// It got other tags or another owner after the backup, which says nothing of
			// them. The certificate stays revoked; what replaces it says what the backup does.
			before := node
			if err := tx.reissue(&node); err != nil {
				return none, fmt.Errorf("certify %s again: %w", node.Name, err)
			}
			tx.note(opDeviceRenew, deviceTarget(node), expiry{before.Software, before.Expires}, expiry{node.Software, node.Expires})
			s.log.Warn("a device had other tags or another owner than in the backup: look at it, and change them again", "name", node.Name, "id", node.ID)
			continue
		}
		if err := tx.delete(node); err != nil {
			return none, fmt.Errorf("delete %s again: %w", node.Name, err)
		}
		tx.did(deviceTarget(node), node, nil)
		s.log.Warn("a device that was deleted after the backup is deleted again", "name", node.Name, "id", node.ID)
	}
	if !changed {
		return none, nil
	}
	tx.did(target{kind: "crl"}, recalled{Number: held}, recalled{c.crl.Number, unknown})
	if err := tx.DroppedUntil(s.network, c.crl.Since); err != nil {
		return none, err
	}
	// Just above this list: who holds a still newer one brings that too.
	tx.Note(newList{brought: c.crl.Number})
	return none, nil
}

// recalled is a revocation list in the audit.
type recalled struct {
	Number  uint64 `json:"number"`
	Unknown int    `json:"unknown"` // certificates in it that are revoked from now on and were never known here
}
