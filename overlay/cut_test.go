package overlay_test

import (
	"encoding/binary"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weft/coord/ops"

	"golang.zx2c4.com/wireguard/tun"

	"weft/netstack"
	"weft/overlay"
	"weft/overlay/internal/overlaytest"
)

// host is a machine's network as its programs see it. It counts packets received for a
// port, and on request sends the last packet of a port again, as TCP would. Each daemon
// has a face of it.
type host struct {
	*netstack.Net
	again chan []byte // to send

	mu sync.Mutex
	// mu guards the following.
	came map[uint16]int    // packets, by destination port
	last map[uint16][]byte // sent with a payload, by the port of who listens: either
}

// face is a daemon's side of a host, whose connections outlive it.
type face struct {
	*host
	closed atomic.Bool
	events chan tun.Event
}

// kernelFace is a face of a kernel's interface.
type kernelFace struct{ *face }

func (kernelFace) Outlives() (epoch string, first, last uint16) { return "boot 1", 16000, 65535 }

func newHost(t *testing.T) *host {
	t.Helper()
	nw, err := netstack.New(netstack.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nw.Close() })
	return &host{Net: nw, again: make(chan []byte, 16), came: map[uint16]int{}, last: map[uint16][]byte{}}
}

// on has a node run on the host, over its restarts.
func (h *host) on(n *node, kernel bool) {
	n.wrap = func(nw *netstack.Net) overlay.Net {
		nw.Close()
		f := &face{host: h, events: make(chan tun.Event)}
		if kernel {
			return kernelFace{f}
		}
		return f
	}
	n.restart()
}

func (f *face) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if f.closed.Load() {
		f.WakeRead() // wake the next reader
		return 0, os.ErrClosed
	}
	select {
	case p := <-f.again:
		sizes[0] = copy(bufs[0][offset:], p)
		return 1, nil
	default:
	}
	n, err := f.Net.Read(bufs, sizes, offset)
	f.mu.Lock()
	for i := range n {
		if p := bufs[i][offset : offset+sizes[i]]; sizes[i] > 0 {
			if from, to, data := ports(p); data {
				f.last[from], f.last[to] = slices.Clone(p), slices.Clone(p)
			}
		}
	}
	f.mu.Unlock()
	return n, err
}

func (f *face) Write(bufs [][]byte, offset int) (int, error) {
	f.mu.Lock()
	for _, b := range bufs {
		_, to, _ := ports(b[offset:])
		f.came[to]++
	}
	f.mu.Unlock()
	return f.Net.Write(bufs, offset)
}

func (f *face) Events() <-chan tun.Event { return f.events }

func (f *face) Close() error {
	if !f.closed.Swap(true) {
		close(f.events)
		f.WakeRead()
	}
	return nil
}

// ports reads an IPv4 packet of TCP or UDP. data says that it carries some.
func ports(p []byte) (from, to uint16, data bool) {
	if len(p) < 28 || p[0] != 0x45 || p[9] != 6 && p[9] != 17 {
		return 0, 0, false
	}
	head := 8
	if p[9] == 6 {
		head = int(p[32]>>4) * 4
	}
	return binary.BigEndian.Uint16(p[20:]), binary.BigEndian.Uint16(p[22:]), len(p) > 20+head
}

// repeat sends the last packet with data of a port again.
func (h *host) repeat(t *testing.T, port uint16) {
	t.Helper()
	h.mu.Lock()
	p := h.last[port]
	h.mu.Unlock()
	if p == nil {
		t.Fatalf("nothing was sent from or to port %d", port)
	}
	h.again <- p
	h.WakeRead()
}

func (h *host) in(port uint16) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.came[port]
}

// serve echoes on TCP and UDP ports, and counts bytes.
func (h *host) serve(t *testing.T, port uint16, got *atomic.Int64) {
	t.Helper()
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	l, err := h.ListenTCP(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	echo := func(c io.ReadWriter) {
		b := make([]byte, 1500)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			got.Add(int64(n))
			c.Write(b[:n])
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go echo(c)
		}
	}()
	u, err := h.ListenUDP(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			got.Add(int64(n))
			u.WriteTo(b[:n], from)
		}
	}()
}

const onlyWeb = `{"rules":[{"from":["user:*"],"to":["self"],"ports":["tcp:80"]}]}`

// A peer has a connection to a port, and a flow to another; policy closes both. Whatever
// happens to tunnels and daemons, and however both ends keep sending, nothing is let in
// there any more. What this machine began with the same peers continues.
func TestCutStaysCut(t *testing.T) {
	t.Parallel()
	for name, kernel := range map[string]bool{"user space": false, "kernel": true} {
		t.Run(name, func(t *testing.T) { testCutStaysCut(t, kernel) })
	}
}

func testCutStaysCut(t *testing.T, kernel bool) {
	t.Parallel()
	w := newNATWorld(t)
	pi, _, _ := w.home("kitchen-pi", overlaytest.FullCone, "198.51.100.1", "192.168.1.10")
	laptop, _, _ := w.home("laptop", overlaytest.FullCone, "198.51.100.2", "192.168.1.10")
	nas, _, _ := w.home("nas", overlaytest.FullCone, "198.51.100.3", "192.168.1.10", "device")
	piHost, laptopHost, nasHost := newHost(t), newHost(t), newHost(t)
	piHost.on(pi, kernel)
	laptopHost.on(laptop, kernel)
	nasHost.on(nas, kernel)
	var secret, web atomic.Int64
	piHost.serve(t, 22, &secret)
	piHost.serve(t, 50022, &secret)
	piHost.serve(t, 80, &web)
	nasHost.serve(t, 80, &web)

	// What the peer began, and what this machine has.
	cut := []uint16{22, 50022}
	for _, port := range []string{":22", ":50022"} {
		for _, network := range []string{"tcp4", "udp4"} {
			if network == "udp4" && port == ":22" {
				continue // the last packet of the port may be of either
			}
			c := laptop.dial(network, "kitchen-pi"+port)
			say(t, c, "hello")
		}
	}
	ours := pi.dial("tcp4", "nas:80")
	say(t, ours, "hello")

	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.SetPolicy{Text: onlyWeb}); err != nil {
		t.Fatal(err)
	}
	var base map[uint16]int
	var bytes int64
	// barrier waits until everything sent before has passed through the tunnel.
	barrier := func() {
		t.Helper()
		c := laptop.dial("tcp4", "kitchen-pi:80")
		say(t, c, "there?")
		c.Close()
	}
	// attempt makes both ends send again, and checks that nothing is let in.
	attempt := func(when string) {
		t.Helper()
		for range 2 {
			barrier()
			for _, port := range cut {
				piHost.repeat(t, port)
			}
			barrier()
			for _, port := range cut {
				laptopHost.repeat(t, port)
			}
			barrier()
		}
		for _, port := range cut {
			if n := piHost.in(port) - base[port]; n != 0 {
				t.Errorf("%s: %d packets came to port %d", when, n, port)
			}
		}
		if n := secret.Load() - bytes; n != 0 {
			t.Errorf("%s: the service got %d bytes", when, n)
		}
	}
	eventually(t, 20*time.Second, "the cut", func() bool {
		before := piHost.in(22)
		laptopHost.repeat(t, 22)
		barrier()
		return piHost.in(22) == before
	})
	base, bytes = map[uint16]int{22: piHost.in(22), 50022: piHost.in(50022)}, secret.Load()
	attempt("after the cut")

	downUp := func(n *node) {
		t.Helper()
		if err := n.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := n.Up(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		n.wait("")
	}
	downUp(laptop)
	attempt("after a bye of the peer")
	downUp(pi)
	attempt("after a bye of this node")
	say(t, ours, "still there after a bye")
	laptop.restart()
	attempt("after a restart of the peer")
	if kernel {
		pi.restart()
		attempt("after a restart of this node")
		say(t, ours, "still there after a restart")
		// An unknown connection does not count as ours.
		cut = cut[:1]
		pi.stop()
		if err := os.Remove(filepath.Join(pi.cfg.StateDir, "filters.json")); err != nil {
			t.Fatal(err)
		}
		pi.start()
		attempt("without memory")
	}
}
