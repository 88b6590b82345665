package ops

import (
	"context"
	"net/http"
	"slices"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// handleRelaySync answers a relay's long poll for news: when there are some, or after relayWait.
func (s *Service) handleRelaySync(ctx context.Context, c *caller, r *http.Request) (any, error) {
	var req api.RelaySync
	if err := readRequest(r, &req); err != nil {
		return nil, err
	}
	if err := checkProtocol(theRelay, req.Protocol); err != nil {
		return nil, err
	}
	id := cert.RelayID(c.spki)
	if err := s.noteRelay(ctx, id, &req); err != nil {
		return nil, err
	}
	rs := s.relays.of(id, s.now())
	if req.Relayed != nil {
		rs.load.note(*req.Relayed, s.now())
	}
	wait := time.NewTimer(relayWait)
	defer wait.Stop()
	for {
		state, news := s.relayState(rs, &req)
		if news {
			return state, nil
		}
		select {
		case <-rs.wake:
			if _, ok := s.index.relay(id); !ok {
				return nil, noRelayHere()
			}
		case <-wait.C:
			return state, nil
		case <-s.relays.done:
			return state, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// noteRelay stores the addresses and the version of a relay if they have changed.
func (s *Service) noteRelay(ctx context.Context, id string, req *api.RelaySync) error {
	if err := checkRelayAddrs(req.URLs, req.STUN); err != nil {
		return err
	}
	rl, ok := s.index.relay(id)
	if !ok {
		return noRelayHere()
	}
	software := printable(req.Software, 64)
	if slices.Equal(rl.URLs, req.URLs) && slices.Equal(rl.STUN, req.STUN) && rl.Software == software {
		return nil
	}
	next := rl
	next.URLs, next.STUN, next.Software = req.URLs, req.STUN, software
	_, err := Do(ctx, s, nodeActor(ctx, id), updateRelay{rl, next})
	return err
}

// updateRelay stores the addresses and the version of a relay.
type updateRelay struct{ old, next store.Relay }

func (updateRelay) operation() *Operation { return opRelayUpdate }

func (c updateRelay) run(tx *Tx) (none struct{}, err error) {
	if err := tx.may(relayTarget(c.next)); err != nil {
		return none, err
	}
	if err := tx.UpdateRelay(tx.s.network, c.next); err != nil {
		return none, err
	}
	tx.did(relayTarget(c.next), c.old, c.next)
	return none, tx.relaysChanged()
}

// relayState returns what a relay does not know yet. news reports whether there is anything.
func (s *Service) relayState(rs *relaySession, req *api.RelaySync) (st *api.RelayState, news bool) {
	n := s.index.info()
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.heard = s.now()
	st = &api.RelayState{Instance: rs.instance, Seq: rs.seq}
	if req.Instance != rs.instance {
		trust := s.relayTrust()
		st.Trust = &trust
	}
	if req.Instance != rs.instance || req.Ack != rs.seq {
		clear(rs.sent) // the last answer was lost: send everything again
		rs.names = api.Version{}
	}
	st.WantCRL = req.CRL > n.CRLNumber // this server was restored from a backup: see recall.go
	if req.CRL < n.CRLNumber {
		st.CRL = n.CRL
	}
	for id := range rs.members {
		v, ok := s.index.versions(id)
		switch {
		case len(st.Nodes)+len(st.Gone) >= syncNodes:
		case !ok:
			st.Gone = append(st.Gone, id.String())
			delete(rs.members, id)
			delete(rs.sent, id)
		case rs.sent[id] != v:
			st.Nodes = append(st.Nodes, api.RelayNode{ID: id.String(), Versions: v})
			rs.sent[id] = v
		}
	}
	if names := s.index.namesVersion(); names != rs.names && len(rs.members) > 0 {
		st.Names, rs.names = names, names
	}
	news = st.Trust != nil || st.CRL != nil || len(st.Nodes)+len(st.Gone) > 0 || !st.Names.IsZero()
	if news {
		rs.seq++
		st.Seq = rs.seq
	}
	return st, news
}
