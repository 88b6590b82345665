package ops

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"weft/coord/store"
	"weft/overlay/cert"
)

const (
	upkeepEvery    = time.Minute
	notifyEvery    = 100 * time.Millisecond // between two rounds of the relay over its clients
	ephemeralAfter = 10 * time.Minute       // offline
	removedKeep    = 30 * 24 * time.Hour    // how far back directories are deltas
	deleteBatch    = 100
	manyEnded      = 1000           // expired entries of the revocation list: 28 KB
	shortenEvery   = 24 * time.Hour // when there are fewer
)

// relayHolder is the relay, once there is one.
type relayHolder struct{ p atomic.Pointer[Relay] }

func (h *relayHolder) get() Relay {
	if r := h.p.Load(); r != nil {
		return *r
	}
	return noRelay{}
}

// noRelay stands in when the database is worked on without a server.
type noRelay struct{}

func (noRelay) Notify(cert.NetworkID, *cert.NodeID)                 {}
func (noRelay) Kick(cert.NetworkID, cert.NodeID)                    {}
func (noRelay) PushCRL(cert.NetworkID, []byte, []cert.NodeID)       {}
func (noRelay) Look(context.Context, cert.NetworkID, []cert.NodeID) {}
func (noRelay) Heard(cert.NetworkID, cert.NodeID) (time.Time, bool) {
	return time.Time{}, false
}
func (noRelay) Traffic(cert.NetworkID, cert.NodeID) (sent, received uint64, ok bool) {
	return 0, 0, false
}
func (noRelay) Ping(context.Context, cert.NetworkID, cert.NodeID) (time.Duration, error) {
	return 0, errors.New("no relay runs here")
}

// SetRelay sets the relay in this process.
func (s *Service) SetRelay(r Relay) { s.relay.p.Store(&r) }

// changed is called after a version has changed; Run notifies the relay soon after.
func (s *Service) changed() {
	select {
	case s.notify <- struct{}{}:
	default:
	}
}

// Presence takes a report of the relay in this process. Reports about older connections have
// no effect.
func (s *Service) Presence(node cert.NodeID, conn uint64, online bool, at time.Time, addr netip.Addr) {
	s.presenceAt(s.auth.RelayID(), node, conn, online, at, addr)
}

// presenceAt takes a report of any relay.
func (s *Service) presenceAt(relay string, node cert.NodeID, conn uint64, online bool, at time.Time, addr netip.Addr) {
	if _, ok := s.index.has(node); !ok {
		return // deleted meanwhile
	}
	if s.presence.Report(node, conn, online, at.UTC(), relay, addr) {
		s.notePresence(node)
	}
}

// notePresence tells open consoles and webhooks that a node came or went.
func (s *Service) notePresence(node cert.NodeID) {
	s.hooks.moved(node, s.now())
	kind := EventOffline
	if st, _ := s.presence.Get(node); st.Online {
		kind = EventOnline
	}
	s.events.publish(kind, node)
}

// Run does the recurring work until ctx ends: it notifies the relay of changes, writes
// last seen, marks devices overdue whose owner has not signed them in again, deletes ephemeral
// nodes that stay offline, prunes, and sends webhooks.
func (s *Service) Run(ctx context.Context) {
	var hooks sync.WaitGroup
	defer hooks.Wait()
	hooks.Go(func() { s.runWebhooks(ctx) })
	upkeep := time.NewTicker(upkeepEvery)
	defer upkeep.Stop()
	signIns, judged := time.NewTicker(time.Second), int64(-1)
	defer signIns.Stop()
	if err := s.reviseCRL(ctx); err != nil && !errors.Is(err, context.Canceled) {
		s.log.Error("check the revocation list", "err", err)
	}
	for {
		select {
		case <-ctx.Done():
			if err := s.flushSeen(true); err != nil {
				s.log.Error("store last seen", "err", err)
			}
			if err := s.flushRefusals(context.Background(), true); err != nil {
				s.log.Error("record refusals", "err", err)
			}
			if err := s.flushTokenUses(context.Background()); err != nil {
				s.log.Error("record uses of tokens", "err", err)
			}
			return
		case <-s.notify:
			s.relay.get().Notify(s.network, nil)
			s.relays.rouse()
			select { // so that a thousand joins in a second cause ten rounds
			case <-ctx.Done():
			case <-time.After(notifyEvery):
			}
		case <-signIns.C:
			var err error
			if judged, err = s.checkSignIns(ctx, judged); err != nil && !errors.Is(err, context.Canceled) {
				s.log.Error("upkeep", "err", err)
			}
		case <-upkeep.C:
			if err := s.upkeep(ctx); err != nil && !errors.Is(err, context.Canceled) {
				s.log.Error("upkeep", "err", err)
			}
		}
	}
}

func (s *Service) upkeep(ctx context.Context) error {
	s.checkRelays()
	s.hooks.catchUp()
	s.lists.forget()
	return errors.Join(s.flushSeen(false), s.flushRefusals(ctx, false), s.flushTokenUses(ctx), s.deleteEphemeral(ctx), s.endAliases(ctx), s.prune(ctx), s.reviseCRL(ctx), s.keepAudit(ctx))
}

// flushSeen stores when nodes were last online and which version of their config they have, in
// one transaction. What it cannot store it stores at the next call. It also runs while the server
// stops.
func (s *Service) flushSeen(all bool) error {
	now := s.now()
	seen := s.presence.Flush(now, all)
	told := s.index.takeTold()
	if len(seen) == 0 && len(told) == 0 {
		return nil
	}
	err := s.store.Write(context.Background(), func(tx *store.Tx) error {
		return errors.Join(tx.SetSeen(s.network, seen), tx.SetTold(s.network, told))
	})
	if err != nil {
		s.presence.Unflush(seen)
		s.index.putBackTold(told)
	}
	return err
}

// deleteEphemeral deletes ephemeral nodes that have been offline for a while.
// After a start every node has that long to come back.
func (s *Service) deleteEphemeral(ctx context.Context) error {
	now := s.now()
	if now.Sub(s.started) < ephemeralAfter {
		return nil
	}
	var gone []cert.NodeID
	for id, last := range s.index.ephemeral() {
		if s.started.After(last) {
			last = s.started
		}
		st, ok := s.presence.Get(id)
		if ok {
			last = st.Since
		}
		if !st.Online && now.Sub(last) >= ephemeralAfter && len(gone) < deleteBatch {
			gone = append(gone, id)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	_, err := Do(ctx, s, System(), expireDevices{gone})
	return err
}

// expireDevices deletes ephemeral devices that are gone.
type expireDevices struct{ gone []cert.NodeID }

func (expireDevices) operation() *Operation { return opDeviceDelete }

func (c expireDevices) run(tx *Tx) (none struct{}, err error) {
	s, kept := tx.s, 0
	if err := tx.may(target{}); err != nil {
		return none, err
	}
	for _, id := range c.gone {
		node, err := tx.Node(s.network, id)
		if st, _ := s.presence.Get(id); isNotFound(err) || err == nil && st.Online {
			continue
		}
		if err == nil {
			err = s.mayLeave(&tx.Reader, node, tx.now)
		}
		if errors.Is(err, ErrTooOften) {
			kept++
			continue
		}
		if err == nil {
			err = tx.delete(node)
		}
		if err != nil {
			return none, err
		}
		tx.did(deviceTarget(node), node, nil)
	}
	if kept > 0 {
		s.log.Info("ephemeral devices that went offline stay until their certificates expire: the revocation list holds too many devices of their join keys", "devices", kept)
	}
	return none, nil
}

// endAliases deletes former names that have expired.
func (s *Service) endAliases(ctx context.Context) error {
	_, err := Do(ctx, s, System(), endAliases{})
	return err
}

// prune deletes data that are no longer needed, and removes expired certificates from the
// revocation list: when there are many, or a day after they expired, because each new list
// goes to every device. It leaves the list alone while a newer one may still arrive from a
// node (recall.go).
func (s *Service) prune(ctx context.Context) error {
	return s.store.Write(ctx, func(tx *store.Tx) error {
		now := s.now()
		full, ended, err := tx.Prune(s.network, now, removedKeep)
		err = errors.Join(err, tx.PruneTokens(s.network, now.Add(-tokenKeep)), tx.PruneDone(s.network, now))
		if err != nil {
			return err
		}
		if ended > 0 {
			s.revocations = nil
		}
		list := *s.list.Load()
		list.ended += int(ended)
		tx.After(func() {
			s.index.setFullAfter(full)
			s.list.Store(&list)
		})
		short := list.ended >= manyEnded || list.ended > 0 && now.Sub(list.signed).Abs() >= shortenEvery
		if _, wait := s.settles(now); !wait && (short || list.early) {
			tx.Note(newList{}) // signing it stores the new state
		}
		return nil
	})
}
