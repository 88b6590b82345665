package wg

import (
	"errors"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"
)

func TestMissHoldSetPeerDelivered(t *testing.T) {
	for name, wrap := range map[string]func(*testNet) tun.Device{
		"woken":  func(n *testNet) tun.Device { return n },
		"pumped": func(n *testNet) tun.Device { return plainNet{n} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire()
			a, b := newNode(t, w, 1, wrap), newNode(t, w, 2, wrap)
			for i := range uint32(3) {
				a.net.out <- a.udp(b, i)
			}
			a.net.out <- udpPacket(a.v6, b.v6, 3)
			for _, want := range b.ips() {
				if got := <-a.miss; got != want {
					t.Fatalf("miss of %v, want %v", got, want)
				}
			}
			b.silent(20 * time.Millisecond)
			a.introduce(b, 1)
			seen := make(map[uint32]bool)
			for range 4 {
				seen[number(b.recv())] = true
			}
			if len(seen) != 4 {
				t.Errorf("arrived: %v", seen)
			}
			b.ping(a, 9)
			a.ping(b, 10)
			if len(a.miss) != 0 || len(b.miss) != 0 {
				t.Error("more misses than destinations")
			}
			s, ok := a.dev.Stats(b.id)
			if !ok || s.TxPackets != 5 || s.RxPackets != 1 || s.RxBytes != 32 || s.LastHandshake.IsZero() || s.LastRx.IsZero() || s.LastTx.IsZero() {
				t.Errorf("stats %+v", s)
			}
			a.dev.Close()
			b.dev.Close()
			if err := a.dev.SetPeer(a.peerOf(b, 1, true)); !errors.Is(err, ErrClosed) {
				t.Errorf("SetPeer after Close: %v", err)
			}
			checkLeaks(t)
		})
	}
}
