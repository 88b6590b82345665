package network

import (
	"crypto/x509"
	"sync"
	"sync/atomic"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// Holder has a node's identity and, exactly while it is in a network, what it holds
// of that. Any goroutine may use it; reading takes no lock.
type Holder struct {
	mu  sync.Mutex // held while either changes: they change together
	id  atomic.Pointer[Identity]
	now atomic.Pointer[Network]
}

// Get returns what is held, and whether the node is in a network at all.
func (h *Holder) Get() (n *Network, ok bool) {
	n = h.now.Load()
	return n, n != nil
}

// Relays are those that there are now.
func (h *Holder) Relays() []api.Relay {
	if n, ok := h.Get(); ok {
		return n.Config.Relays
	}
	return nil
}

// IsServer reports whether a chain is of a coordination server, which has a relay in it,
// and not of a relay that runs alone.
func (h *Holder) IsServer(chain []*x509.Certificate) bool {
	n, ok := h.Get()
	return ok && n.ServerRoots.VerifyServer(chain, cert.RoleServer) == nil
}

// Identity returns who this node is, nil while it is nobody. One that is not Joined
// is in no network yet.
func (h *Holder) Identity() *Identity { return h.id.Load() }

// Is makes the node somebody who has yet to join.
func (h *Holder) Is(id *Identity) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.id.Store(id)
}

// Join puts the node into a network. What is held already of the same one is
// replaced, but for the revocation list: a join that is repeated forgets nobody who
// was deleted.
func (h *Holder) Join(id *Identity, n *Network) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if cur := h.now.Load(); cur != nil && cur.Self.ID == n.Self.ID {
		with := *n
		with.CRL = cur.CRL
		n = &with
	}
	h.id.Store(id)
	h.now.Store(n)
}

// Leave makes the node nobody, in no network.
func (h *Holder) Leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.id.Store(nil)
	h.now.Store(nil)
}

// Update changes identity and network together: change gets copies of what is held.
// It reports false, and calls nothing, when the node is in no network. change is not
// to wait, and not to use the Holder.
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

// UpdateIdentity changes the identity alone: change gets a copy, and reports whether
// it has changed it, as UpdateIdentity then does. It is not called while the node is
// in no network, and is not to wait, and not to use the Holder.
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

// While runs f, with what is held now, if the node is still in the network that of
// is: it may have left it, and joined another one, while somebody was asked. What f
// does is done before the node leaves. f is not to wait, and not to use the Holder;
// what it returns takes the place of what is held, unless it is nil. While reports
// whether f was run.
func (h *Holder) While(of *Network, f func(now *Network) *Network) bool {
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
