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

// A server that was restored from an older backup does not know which devices were deleted after
// that backup. The nodes do: they have the newer revocation list, signed by the network's CA. A
// node that finds the server's number lower than its own sends its list, and the server deletes
// the devices in it again. Because the CA's signature proves the list, it does not matter who
// sends it: also nodes and relays may that joined after the backup, so that this server does not
// know them.
//
// A list that the server signs before it has received the newer list from the nodes must not
// get a higher number than that list: nodes would accept it and forget the deletions. So for an
// hour after the start, and after each list that was received, new lists are numbered just above
// the last one. Later they are numbered by the clock, which is above every number used before.
// By then no node is expected to have a list with a higher number, and a list that was signed
// early is signed again, so that it also reaches nodes that have not sent theirs.

// settling is how long the server assumes that it may have been restored from a backup.
const settling = time.Hour

// settles returns how long the server has been settling, and whether it still is: then a newer
// list may arrive from a node. Only the store's writer goroutine calls it.
func (s *Service) settles(now time.Time) (since time.Duration, ok bool) {
	since = now.Sub(s.settlesSince)
	return since, since >= 0 && since < settling
}

// nextNumber returns the number of a list that is signed now. last is the number of the list
// before, and brought that of a received list which this one follows, 0 for none. While the
// server settles the seconds since it began are added, so that two servers that were restored
// from the same backup are unlikely to use the same number. early says that the number is below
// what the clock would give.
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

// maxStrangers is how many nodes and relays that this server does not know may send a list at the
// same time. Each list takes up to a megabyte of memory.
const maxStrangers = 64

// strangers are the unknown senders that are sending a list now. Each may send only one at a
// time, so that a deleted device cannot take all places to prevent its deletion. The zero value
// is usable.
type strangers struct {
	mu       sync.Mutex // guards bringing
	bringing map[cert.NodeID]struct{}
	verify   sync.Mutex // held while a list is verified, which takes tens of milliseconds
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
	der, err := io.ReadAll(r.Body) // bounded in serveRoute
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

// Recall deletes every node that a revocation list of this network names. It stores serial
// numbers that it does not know as revoked, and the date up to which the list may have dropped
// entries. A list from before the start of this server has an effect only if it is newer than
// the server's. by is the id of the sender.
//
// A device that was deleted after the backup, and whose certificate has left the list since, is
// not deleted again, because no list names it any more. Others refuse its old certificate, but it
// can renew the certificate here.
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
		return fmt.Errorf("read the server's own revocation list: %w", err)
	}
	news := slices.DeleteFunc(crl.Serials(), own.Revoked)
	// A list that is not newer still counts if it has entries that are news: two nodes may have
	// sent different lists.
	if crl.Number <= held.CRLNumber && len(news) == 0 {
		return nil
	}
	_, err = Do(ctx, s, nodeActor(ctx, by), recall{crl, news})
	return err
}

// recall applies a revocation list that is newer than the server's, or that has entries which
// the server's list has not.
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
			continue // deleted a moment ago, for another certificate in this list
		}
		if err != nil {
			return none, err
		}
		changed = true
		if c.crl.Superseded(serial) {
			// The device got other tags or another owner after the backup, which does not have
			// them. The certificate stays revoked, and the new one has the tags and the owner of
			// the backup.
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
	// Number the new list just above this one, so that a node with a still newer list sends that.
	tx.Note(newList{brought: c.crl.Number})
	return none, nil
}

// recalled is the value of audit records about a received revocation list.
type recalled struct {
	Number  uint64 `json:"number"`
	Unknown int    `json:"unknown"` // certificates in it that this server never knew
}
