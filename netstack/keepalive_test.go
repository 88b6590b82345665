package netstack

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// Connections of a peer that vanished end, whichever side opened them. Connections of a
// peer that is there stay open. The times are much shorter here.
func TestVanishedPeer(t *testing.T) {
	if longest := keepaliveIdle + keepaliveCount*keepaliveInterval; longest > 15*time.Minute {
		t.Errorf("a vanished peer is detected only after %v", longest)
	}
	// gVisor answers segments outside the window, such as these keepalives, at most
	// every half second.
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
	for carried.Load() < 12 { // both sides send and answer several keepalives
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
				t.Error("unexpected data")
			}
		case <-time.After(20 * time.Second):
			t.Fatal("one side has not noticed")
		}
	}
}
