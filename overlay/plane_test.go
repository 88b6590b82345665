package overlay

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Packets of programs are refused while the node is down. Packets held before it came up
// are not. When there are too many, later packets of the same program cause the refusal.
func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		r := refusals{held: make(chan netip.Addr, 2), up: up.Load}
		addr := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 0, last}) }
		for i := range byte(4) {
			r.ask(addr(i))
		}
		ctx, cancel := context.WithCancel(t.Context())
		var failed []netip.Addr
		done := make(chan struct{})
		go func() {
			r.run(ctx, func(dst netip.Addr) { failed = append(failed, dst) })
			close(done)
		}()
		synctest.Wait()
		up.Store(true)
		r.ask(addr(5))
		synctest.Wait()
		up.Store(false)
		r.ask(addr(6))
		synctest.Wait()
		cancel()
		<-done
		if want := []netip.Addr{addr(0), addr(1), addr(6)}; !slices.Equal(failed, want) {
			t.Errorf("refused %v, want %v", failed, want)
		}
	})
}
