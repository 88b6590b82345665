package relayserver

import (
	"sync/atomic"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/relay"
)

// nudged records the last nudge.
type nudged struct {
	relay.Handler // nil: nothing else is received
	crl           atomic.Uint64
}

func (n *nudged) Welcome(relay.Welcome)   {}
func (n *nudged) Drained()                {}
func (n *nudged) Draining(relay.Draining) {}
func (n *nudged) Nudge(nd relay.Nudge)    { n.crl.Store(nd.Versions.CRL) }

// Two goroutines notify of changes at once and the one with the older versions is slow:
// the node gets the newest last.
func TestNewestVersionIsNudgedLast(t *testing.T) {
	var current atomic.Uint64
	var slow atomic.Pointer[chan struct{}]
	asked := make(chan struct{})
	current.Store(1)
	w := newWorld(t, Config{Versions: func(cert.NetworkID, cert.NodeID) api.Versions {
		v := api.Versions{CRL: current.Load()}
		if on := slow.Swap(nil); on != nil {
			close(asked)
			<-*on
		}
		return v
	}})
	h := &nudged{}
	c := w.node("laptop").run(h)
	if err := c.SendVersions(api.Versions{}); err != nil {
		t.Fatal(err)
	}
	until := func(crl uint64) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); h.crl.Load() != crl; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("told of %d, want %d", h.crl.Load(), crl)
			}
		}
	}
	until(1)
	on, first, second := make(chan struct{}), make(chan struct{}), make(chan struct{})
	slow.Store(&on)
	current.Store(2)
	go func() { w.relay.Notify(w.network, nil); close(first) }()
	<-asked
	current.Store(3)
	go func() { w.relay.Notify(w.network, nil); close(second) }()
	select { // it waits for the first, or has overtaken it
	case <-second:
		until(3)
	case <-time.After(50 * time.Millisecond):
	}
	close(on)
	<-first
	<-second
	if _, err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(3)
}
