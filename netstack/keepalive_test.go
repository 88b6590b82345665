package netstack

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// TestVanishedPeer: connections of a peer that vanished without a word end,
// whoever made them, and those of one that is there go on. Times are much
// shorter here.
func TestVanishedPeer(t *testing.T) {
	if longest := keepaliveIdle + keepaliveCount*keepaliveInterval; longest > 15*time.Minute {
		t.Errorf("a vanished peer is found out after %v", longest)
	}
	// gVisor answers what is out of the window, as these questions are, every half
	// second at most.
	const idle, interval = 300 * time.Millisecond, 150 * time.Millisecond
	var vanished atomic.Bool
	var carried atomic.Int64
	swallow := func(_ *Net, pkts [][]byte) [][]byte {
		if vanished.Load() {
			return nil
		}
		carried.Add(1)
		return pkts
	}
	p := newPair(t, Config{}, swallow, swallow)
	l, err := p.b.ListenTCP(netip.AddrPortFrom(addrB4, 5432))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := p.a.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	ends := make(chan error, 2)
	for _, c := range []net.Conn{client, server} {
		c.(*TCPConn).setKeepalive(idle, interval)
		go func() {
			_, err := c.Read(make([]byte, 1))
			ends <- err
		}()
	}
	for carried.Load() < 12 { // both ask, and answer, several times
		select {
		case err := <-ends:
			t.Fatalf("a connection to a peer that is there ended: %v", err)
		case <-time.After(idle):
		}
	}
	vanished.Store(true)
	for range 2 {
		select {
		case err := <-ends:
			if err == nil {
				t.Error("data from nowhere")
			}
		case <-time.After(20 * time.Second):
			t.Fatal("an end has not noticed")
		}
	}
}
