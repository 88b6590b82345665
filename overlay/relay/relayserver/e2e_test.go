package relayserver

import (
	"context"
	"crypto/tls"
	"hash/crc32"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay"
)

// checker verifies the packets that arrive: each ends with its checksum and starts with a
// number that grows.
type checker struct {
	counter
	mu      sync.Mutex
	last    uint32
	bad     int
	from    cert.NodeID
	welcome chan struct{}
	once    sync.Once
}

func (c *checker) Packet(from cert.NodeID, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := uint32(p[0])<<24 | uint32(p[1])<<16 | uint32(p[2])<<8 | uint32(p[3])
	sum := crc32.ChecksumIEEE(p[:len(p)-4])
	want := uint32(p[len(p)-4])<<24 | uint32(p[len(p)-3])<<16 | uint32(p[len(p)-2])<<8 | uint32(p[len(p)-1])
	if from != c.from || n <= c.last || sum != want {
		c.bad++
	}
	c.last = n
	c.frames.Add(1)
}

func (c *checker) Welcome(relay.Welcome) { c.once.Do(func() { close(c.welcome) }) }

func packet(n uint32, size int) []byte {
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(uint32(i) * n)
	}
	p[0], p[1], p[2], p[3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	sum := crc32.ChecksumIEEE(p[:size-4])
	p[size-4], p[size-3], p[size-2], p[size-1] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
	return p
}

// Two nodes send each other packets of all sizes at once, over TLS and TCP.
func TestBothWays(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("", func(t *testing.T) {
		w := newWorld(t, Config{})
		a, b := w.node("a"), w.node("b")
		ca, cb := &checker{from: b.id, welcome: make(chan struct{})}, &checker{from: a.id, welcome: make(chan struct{})}
		la, lb := a.run(ca), b.run(cb)
		<-ca.welcome
		<-cb.welcome
		const n = 2000
		sizes := []int{8, 100, 1380, 9000, 60000, relay.MaxPacket}
		var wg sync.WaitGroup
		for _, s := range []struct {
			c  *relay.Conn
			to cert.NodeID
		}{{la, b.id}, {lb, a.id}} {
			wg.Go(func() {
				for i := uint32(1); i <= n; i++ {
					if err := s.c.SendPackets(s.to, [][]byte{packet(i, sizes[int(i)%len(sizes)])}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		// A receiver that gets no CPU time for 100 ms loses some, so on a busy
		// machine not all arrive.
		got := func() int64 { return ca.frames.Load() + cb.frames.Load() }
		for last, end := got(), time.Now().Add(2*time.Second); got() < 2*n && time.Now().Before(end); {
			if now := got(); now > last {
				last, end = now, time.Now().Add(2*time.Second)
			}
			time.Sleep(10 * time.Millisecond)
		}
		ca.mu.Lock()
		cb.mu.Lock()
		if lost := 2*n - got(); ca.bad+cb.bad > 0 || lost > n {
			t.Errorf("%d bad, %d lost of %d", ca.bad+cb.bad, lost, 2*n)
		}
		ca.mu.Unlock()
		cb.mu.Unlock()
		if rtt, err := la.Ping(t.Context()); err != nil || rtt > 5*time.Second {
			t.Errorf("ping: %v %v", rtt, err)
		}
	})
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines left, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// The relay refuses, over a real link, a node without a certificate of the network, an
// unknown node, and any node while it cannot check.
func TestRelayRefusesUnknownNodes(t *testing.T) {
	w := newWorld(t, Config{})
	foreign := newWorld(t, Config{})
	stranger, known := foreign.node("x"), w.node("y")
	stranger.w = w
	try := func(n *node) error {
		c := relay.NewConn(n.dial(), &counter{})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return c.Run(ctx)
	}
	want := (&relay.RefusedError{Reason: relay.RefusedUnknown}).Error()
	if err := try(stranger); err == nil || err.Error() != want {
		t.Errorf("foreign network: %v", err)
	}
	w.mu.Lock()
	w.down = true
	w.mu.Unlock()
	if err := try(known); err == nil || err.Error() != want {
		t.Errorf("database down: %v", err)
	}
}

// When a relay is killed and started again, its nodes reconnect, and their packets flow
// within half a second.
func TestRestart(t *testing.T) {
	w := newWorld(t, Config{})
	a, b := w.node("a"), w.node("b")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	crt := w.leaf()
	id := cert.RelayID(crt.Leaf.RawSubjectPublicKeyInfo)
	var rs *Server
	var ls *link.Server
	served := make(chan struct{})
	start := func(l net.Listener) {
		rs = New(Config{Verify: w.verify})
		ls = link.NewServer(link.ServerConfig{Certificate: func() *tls.Certificate { return crt }, Relay: rs.Serve})
		go func(s *link.Server) { s.Serve(l); served <- struct{}{} }(ls)
	}
	start(l)
	var got counter
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	homes := map[*node]*relay.Home{}
	for _, n := range []*node{a, b} {
		h := relay.NewHome(relay.HomeConfig{
			Self:     n.id,
			Dial:     relay.DialWith(n.dialer()),
			Relays:   func() []api.Relay { return []api.Relay{{ID: id, URLs: []string{"https://" + addr}}} },
			Handler:  func(*relay.Conn) relay.Handler { return &got },
			Versions: func() api.Versions { return api.Versions{} },
			Active:   func() bool { return true },
		})
		homes[n] = h
		wg.Go(func() { h.Run(ctx) })
	}
	flows := func() time.Duration {
		begin := time.Now()
		for n := got.frames.Load(); got.frames.Load() == n; {
			if time.Since(begin) > 10*time.Second {
				t.Fatal("nothing flows")
			}
			homes[a].SendPackets(b.id, [][]byte{make([]byte, 1000)})
			time.Sleep(5 * time.Millisecond)
		}
		return time.Since(begin)
	}
	flows()
	for _, gentle := range []bool{true, false} {
		if gentle {
			rs.Shutdown(t.Context())
		}
		ls.Shutdown(t.Context())
		<-served
		rs.Shutdown(t.Context())
		time.Sleep(500 * time.Millisecond)
		if l, err = net.Listen("tcp", addr); err != nil {
			t.Fatal(err)
		}
		start(l)
		if d := flows(); d > 10*time.Second { // 0.3 s of jitter, the handshakes, and a loaded machine
			t.Errorf("flows again after %v", d)
		}
	}
	cancel()
	wg.Wait()
	rs.Shutdown(context.Background())
	ls.Shutdown(context.Background())
	<-served
}
