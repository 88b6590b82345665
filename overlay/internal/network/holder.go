package network

import (
	"crypto/x509"
	"sync"
	"sync/atomic"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// Holder holds a node's identity and, exactly while the node is in a network, its
// Network. Any goroutine may use it; reading takes no lock.
type Holder struct {
	mu  sync.Mutex // held while either changes, so that they change together
	id  atomic.Pointer[Identity]
	now atomic.Pointer[Network]
}

// Get returns the current Network. ok is false if the node is in no network.
func (h *Holder) Get() (n *Network, ok bool) {
	n = h.now.Load()
	return n, n != nil
}

// Relays returns the relays of the current config, nil if the node is in no network.
func (h *Holder) Relays() []api.Relay {
	if n, ok := h.Get(); ok {
		return n.Config.Relays
	}
	return nil
}

// IsServer reports whether a certificate chain belongs to a coordination server, which
// has a relay of its own, and not to a relay that runs alone.
func (h *Holder) IsServer(chain []*x509.Certificate) bool {
	n, ok := h.Get()
	return ok && n.ServerRoots.VerifyServer(chain, cert.RoleServer) == nil
}

// Identity returns the node's identity, nil if it has none. With an identity that is not
// Joined the node is in no network yet.
func (h *Holder) Identity() *Identity { return h.id.Load() }

// SetIdentity sets the identity of a node that has yet to join.
func (h *Holder) SetIdentity(id *Identity) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.id.Store(id)
}

// Join puts the node into a network. If it is in the same network already, everything is
// replaced, but the revocation list only by a newer one, so that a repeated join does not
// forget deleted nodes.
func (h *Holder) Join(id *Identity, n *Network) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if cur := h.now.Load(); cur != nil && cur.Self.ID == n.Self.ID && cur.CRL != nil && (n.CRL == nil || n.CRL.Number < cur.CRL.Number) {
		with := *n
		with.CRL = cur.CRL
		n = &with
	}
	h.id.Store(id)
	h.now.Store(n)
}

// Leave removes identity and network.
func (h *Holder) Leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.id.Store(nil)
	h.now.Store(nil)
}

// Update changes identity and network together: change gets copies of both and may modify
// them. If the node is in no network, Update does not call change and returns false.
// change must not block or use the Holder.
func (h *Holder) Update(change func(*Identity, *Network)) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	cur := h.now.Load()
	if cur == nil {
		return false
	}
	id, n := *h.id.Load(), *cur
	change(&id, &n)
	h.id.Store(&id)
	h.now.Store(&n)
	return true
}

// UpdateIdentity changes the identity alone: change gets a copy and returns whether it
// has modified it, which UpdateIdentity returns, too. If the node is in no network,
// change is not called. change must not block or use the Holder.
func (h *Holder) UpdateIdentity(change func(*Identity) bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now.Load() == nil {
		return false
	}
	id := *h.id.Load()
	if !change(&id) {
		return false
	}
	h.id.Store(&id)
	return true
}

// UpdateIn calls f with the current Network if the node is still in the network of the
// Network of: it may have left or joined another one since of was read. The node cannot
// leave while f runs. If f returns a Network, it replaces the current one. f must not
// block or use the Holder. While reports whether it called f.
func (h *Holder) UpdateIn(of *Network, f func(now *Network) *Network) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now.Load()
	if now == nil || now.Self.ID != of.Self.ID {
		return false
	}
	if next := f(now); next != nil {
		h.now.Store(next)
	}
	return true
}
