package standalone

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"weft/coord/ca"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// Two goroutines talk to the server: syncLoop asks for news by long polling, which the server
// answers when there are some, and reportLoop reports which nodes connected and left.
const (
	askTimeout   = 40 * time.Second
	askSpacing   = 50 * time.Millisecond // between the beginnings of two polls
	retryMin     = 500 * time.Millisecond
	retryMax     = 4 * time.Second        // bounds how late a revocation arrives after the server has come back
	reportGather = 100 * time.Millisecond // events within this time go into one report
	renewPercent = 66                     // of the certificate's life, after which it is renewed
	renewSpacing = time.Minute            // between attempts to renew
)

// syncLoop asks the server for news until ctx ends.
func (r *Relay) syncLoop(ctx context.Context) {
	req := api.RelaySync{Protocol: api.Protocol, URLs: r.o.URLs, STUN: r.stun, Software: r.o.Software}
	wait := retryMin
	lost := false
	var renewed time.Time // the last attempt
	for ctx.Err() == nil {
		if r.renewDue() && time.Since(renewed) > renewSpacing {
			renewed = time.Now()
			if err := r.renew(ctx); err != nil && ctx.Err() == nil {
				r.log.Warn("renew the relay's certificate", "err", err)
			}
		}
		req.CRL = 0
		if crl := r.crl.Load(); crl != nil {
			req.CRL = crl.Number
		}
		req.Relayed = new(r.Stats().Relayed())
		asked := time.Now()
		st, err := r.ask(ctx, req)
		if err == nil {
			err = r.take(st)
		}
		if err == nil && st.WantCRL {
			r.recall(ctx, "the server was restored from a backup that is older than the revocation list here, and was given it")
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if isRemoved(err) {
				r.removed(ctx, err)
				return
			}
			if !lost {
				r.log.Warn("the server does not answer; the relay continues without it", "err", err)
			}
			lost = true
			r.setAway(true)
			if !sleep(ctx, wait/2+rand.N(wait/2)) {
				return
			}
			wait = min(2*wait, retryMax)
			continue
		}
		if lost {
			r.log.Info("the server answers again")
			r.rouse() // reportLoop may have stopped retrying
		}
		lost, wait = false, retryMin
		r.setAway(false)
		r.synced.Store(time.Now().UnixNano())
		quiet := st.Instance == req.Instance && st.Seq == req.Ack
		req.Instance, req.Ack = st.Instance, st.Seq
		spacing := askSpacing
		if quiet {
			spacing = time.Second // a server that is stopping answers at once, without news
		}
		if took := time.Since(asked); took < spacing {
			if !sleep(ctx, spacing-took) {
				return
			}
		}
	}
}

// isRemoved reports whether the server says that this relay does not belong to its network.
func isRemoved(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Status == http.StatusUnauthorized && e.Code == api.CodeUnauthorized
}

// removed tells the clients to go elsewhere and ends the relay. The server may not know the
// relay because it was restored from a backup that is older than the relay. Then it does not
// know which devices were deleted since either, so the relay sends it the revocation list
// before it ends.
func (r *Relay) removed(ctx context.Context, err error) {
	grace, cancel := context.WithTimeout(ctx, closeGrace)
	defer cancel()
	r.relay.Shutdown(grace)
	r.recall(ctx, "the server does not know this relay and was given the revocation list")
	select {
	case r.failed <- err:
	default:
	}
}

func (r *Relay) setAway(away bool) {
	if r.away.Swap(away) != away {
		r.relay.NotifyAway(r.id.Load().Network)
	}
}

func (r *Relay) ask(ctx context.Context, req api.RelaySync) (*api.RelayState, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return r.client.SyncRelay(ctx, req)
}

// take applies the server's answer, revocations before versions.
func (r *Relay) take(st *api.RelayState) error {
	if st.Trust != nil {
		if err := r.trust(*st.Trust, nil); err != nil {
			return err
		}
	}
	if st.CRL != nil {
		if err := r.takeCRL(st.CRL); err != nil {
			return err
		}
	}
	network := r.id.Load().Network
	for _, s := range st.Gone {
		if id, err := cert.ParseNodeID(s); err == nil {
			r.deny(id)
		}
	}
	changed := make([]cert.NodeID, 0, len(st.Nodes))
	r.mu.Lock()
	for _, n := range st.Nodes {
		id, err := cert.ParseNodeID(n.ID)
		if _, here := r.admitted[id]; err != nil || !here || n.Versions == r.versions[id] {
			continue
		}
		r.versions[id] = n.Versions
		changed = append(changed, id)
	}
	renamed := !st.Names.IsZero() && st.Names != r.names
	if renamed {
		r.names = st.Names
	}
	r.mu.Unlock()
	for _, id := range changed {
		r.relay.Notify(network, &id)
	}
	if renamed {
		r.relay.Notify(network, nil)
	}
	r.sawInstance(st.Instance)
	return nil
}

// trust saves the CAs and addresses that the server sent, and certificate unless it is nil.
func (r *Relay) trust(t api.RelayTrust, certificate []byte) error {
	id, err := r.id.Load().trusting(t, certificate, r.clock.Now())
	if err != nil {
		return err
	}
	if err := id.save(r.o.Data); err != nil {
		return err
	}
	r.id.Store(id)
	return nil
}

// takeCRL applies a revocation list if it is newer. It disconnects nodes whose certificates are
// revoked and not only superseded, and sends the list to all other clients, first to those that
// exchanged frames with a node on it.
func (r *Relay) takeCRL(der []byte) error {
	crl, err := r.id.Load().roots.VerifyCRL(der)
	if err != nil {
		return fmt.Errorf("the server's revocation list: %w", err)
	}
	if old := r.crl.Load(); old != nil && crl.Number <= old.Number {
		return nil
	}
	if err := ca.WriteFile(filepath.Join(r.o.Data, crlFile), crl.Raw); err != nil {
		return err
	}
	r.crl.Store(crl)
	network := r.id.Load().Network
	var revoked, superseded []cert.NodeID
	r.mu.Lock()
	for id, serial := range r.admitted {
		if crl.Superseded(serial) {
			superseded = append(superseded, id)
		} else if crl.Revoked(serial) {
			revoked = append(revoked, id)
			delete(r.admitted, id)
			delete(r.versions, id)
		}
	}
	r.mu.Unlock()
	for _, id := range revoked {
		r.relay.Kick(network, id)
	}
	r.relay.PushCRL(network, crl.Raw, slices.Concat(revoked, superseded))
	r.log.Info("new revocation list", "number", crl.Number, "revoked", crl.Len(), "dropped", len(revoked))
	return nil
}

// recall sends the server the revocation list of this relay, and logs why. A server that was
// restored from a backup learns from it which devices were deleted after the backup; any other
// server ignores the list.
func (r *Relay) recall(ctx context.Context, why string) {
	held := r.crl.Load()
	if held == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err := r.client.SendRelayCRL(ctx, held.Raw)
	r.log.Warn(why, "number", held.Number, "err", err)
}

// deny disconnects a node that the server does not know, and refuses it for goneFor.
func (r *Relay) deny(id cert.NodeID) {
	r.mu.Lock()
	if len(r.gone) >= maxGone {
		clear(r.gone)
	}
	r.gone[id] = time.Now()
	delete(r.versions, id)
	r.mu.Unlock()
	r.relay.Kick(r.id.Load().Network, id)
}

func (r *Relay) renewDue() bool {
	leaf := r.id.Load().leaf.Leaf
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return r.clock.Now().After(leaf.NotBefore.Add(life * renewPercent / 100))
}

func (r *Relay) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	csr, err := cert.NewCSR(r.id.Load().key)
	if err != nil {
		return err
	}
	res, err := r.client.RenewRelay(ctx, api.RelayRenewRequest{Protocol: api.Protocol, CSR: csr})
	if err != nil {
		return err
	}
	return r.trust(res.Trust, res.Certificate)
}
