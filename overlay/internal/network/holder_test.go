package network

import (
	"slices"
	"sync"
	"testing"

	"weft/overlay/api"
	"weft/overlay/cert"
)

func at(id byte) (*Identity, *Network) {
	return &Identity{Network: cert.NetworkID{id}, Certificate: []byte{id}},
		&Network{Self: &cert.Node{ID: cert.NodeID{id}}, Config: &api.Config{Version: api.Version{N: 1}}}
}

// There is a Network exactly between Join and Leave. Outside, and for a caller that
// started in another network, nothing can be changed.
func TestHolder(t *testing.T) {
	var h Holder
	id, n := at(1)
	no := func(when string) {
		t.Helper()
		if _, ok := h.Get(); ok {
			t.Errorf("%s: there is a network", when)
		}
		if h.Update(func(*Identity, *Network) { t.Errorf("%s: it is changed", when) }) ||
			h.UpdateIdentity(func(*Identity) bool { t.Errorf("%s: its identity is changed", when); return true }) ||
			h.UpdateIn(n, func(*Network) *Network { t.Errorf("%s: somebody is in it", when); return nil }) {
			t.Errorf("%s: something was changed", when)
		}
	}
	no("at first")
	h.SetIdentity(&Identity{Network: id.Network})
	no("before it has joined")
	h.Join(id, n)
	if got, ok := h.Get(); !ok || got != n || h.Identity() != id {
		t.Fatalf("%v, %v", got, ok)
	}
	list := &cert.CRL{Number: 7}
	h.UpdateIn(n, func(now *Network) *Network { with := *now; with.CRL = list; return &with })
	if got, _ := h.Get(); got.CRL != list || n.CRL != nil {
		t.Error("a list was not taken, or into what others hold")
	}
	h.Join(at(1)) // repeated
	if got, _ := h.Get(); got.CRL != list {
		t.Error("a join that was repeated forgot who was deleted")
	}
	bring := func(number uint64) *cert.CRL {
		id, n := at(1)
		n.CRL = &cert.CRL{Number: number}
		h.Join(id, n)
		return n.CRL
	}
	if bring(6); h.now.Load().CRL != list {
		t.Error("a join that was repeated brought an older list, which was taken")
	}
	if list = bring(8); h.now.Load().CRL != list {
		t.Error("a join that was repeated brought a newer list, which was not taken")
	}
	if !h.Update(func(id *Identity, n *Network) { id.URLs, n.Config = []string{"x"}, &api.Config{} }) || id.URLs != nil || n.Config.Version.N != 1 {
		t.Error("what others hold was changed")
	}
	if h.UpdateIdentity(func(id *Identity) bool { id.URLs = nil; return false }) || h.Identity().URLs == nil {
		t.Error("what was given up was taken")
	}
	h.Leave()
	no("after it was left")
	h.Join(at(2))
	if h.UpdateIn(n, func(*Network) *Network { return nil }) {
		t.Error("who asked in one network is believed in another")
	}
	if got, _ := h.Get(); got.CRL != nil {
		t.Error("a list went from one network to another")
	}
}

// noting is a Sink that records its calls.
type noting struct {
	name string
	to   *[]string
}

func (s noting) Apply(old, new *Network) {
	version := func(n *Network) string {
		if n == nil {
			return "-"
		}
		return string('0' + rune(n.Config.Version.N))
	}
	*s.to = append(*s.to, s.name+version(old)+version(new))
}

// Every Sink is called once for each change, in order, and at the end in reverse order.
func TestSinks(t *testing.T) {
	var h Holder
	var told []string
	s := NewSinks(&h, noting{"a", &told}, noting{"b", &told})
	expect := func(what string, want ...string) {
		t.Helper()
		if !slices.Equal(told, want) {
			t.Errorf("%s: %v, want %v", what, told, want)
		}
		told = nil
	}
	s.Apply()
	expect("there is no network")
	h.Join(at(1))
	s.Apply()
	expect("joined", "a-1", "b-1")
	s.Apply()
	expect("nothing new")
	version := func(n uint64) {
		h.Update(func(_ *Identity, net *Network) { net.Config = &api.Config{Version: api.Version{N: n}} })
	}
	version(2)
	version(3)
	s.Apply()
	expect("two changes at once", "a13", "b13")
	s.End()
	expect("the end", "b3-", "a3-")
	version(4)
	s.Apply()
	s.End()
	expect("after the end")
}

// called makes a Sink of a function.
type called func(old, new *Network)

func (f called) Apply(old, new *Network) { f(old, new) }

// Apply returns once the caller's change is applied, by whichever goroutine; and what is
// applied last is the current Network.
func TestSinksFromManyGoroutines(t *testing.T) {
	var h Holder
	h.Join(at(1))
	var seen uint64
	s := NewSinks(&h, called(func(old, new *Network) {
		if old != nil && old.Config.Version.N != seen || new.Config.Version.N < seen {
			t.Errorf("from %d to %d after %d", old.Config.Version.N, new.Config.Version.N, seen)
		}
		seen = new.Config.Version.N
	}))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				h.Update(func(_ *Identity, n *Network) {
					n.Config = &api.Config{Version: api.Version{N: n.Config.Version.N + 1}}
				})
				s.Apply()
			}
		})
	}
	wg.Wait()
	if seen != 801 {
		t.Errorf("the last one was told of %d", seen)
	}
}
