package netstack

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// The link between the networks of a test, in memory.

var (
	addrA4 = netip.MustParseAddr("100.64.0.1")
	addrA6 = netip.MustParseAddr("fd7a:1::1")
	addrB4 = netip.MustParseAddr("100.64.0.2")
	addrB6 = netip.MustParseAddr("fd7a:1::2")
)

// pair is two networks joined by two wires.
type pair struct {
	a, b *Net
	wg   sync.WaitGroup
}

// wire decides what happens to a batch of packets in transit: it returns those that
// arrive at to now, and may write others to it later. nil passes everything.
type wire func(to *Net, pkts [][]byte) [][]byte

func newPair(t testing.TB, cfg Config, aToB, bToA wire) *pair {
	t.Helper()
	p := &pair{a: newNet(t, cfg, addrA4, addrA6), b: newNet(t, cfg, addrB4, addrB6)}
	p.wg.Go(func() { carry(p.a, p.b, aToB) })
	p.wg.Go(func() { carry(p.b, p.a, bToA) })
	t.Cleanup(p.close)
	return p
}

func (p *pair) close() {
	p.a.Close()
	p.b.Close()
	p.wg.Wait()
}

func newNet(t testing.TB, cfg Config, v4, v6 netip.Addr) *Net {
	t.Helper()
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	if err := n.SetAddrs(v4, v6); err != nil {
		t.Fatal(err)
	}
	return n
}

// wireOffset stands for WireGuard's header.
const wireOffset = 16

func carry(from, to *Net, w wire) {
	bufs := make([][]byte, from.BatchSize())
	for i := range bufs {
		bufs[i] = make([]byte, 65535)
	}
	sizes := make([]int, len(bufs))
	out := make([][]byte, 0, len(bufs))
	for {
		n, err := from.Read(bufs, sizes, wireOffset)
		if err != nil {
			return
		}
		out = out[:0]
		for i := range n {
			out = append(out, bufs[i][:wireOffset+sizes[i]])
		}
		if w != nil {
			pkts := make([][]byte, 0, n)
			for _, b := range out {
				pkts = append(pkts, append([]byte(nil), b[wireOffset:]...))
			}
			pkts = w(to, pkts)
			for i := range pkts {
				pkts[i] = append(make([]byte, wireOffset), pkts[i]...)
			}
			to.Write(pkts, wireOffset)
			continue
		}
		to.Write(out, wireOffset)
	}
}

// lossy drops packets at random, and delays others by half a millisecond.
func lossy(seed uint64, drop, late float64) wire {
	rng := rand.New(rand.NewPCG(seed, 1))
	return func(to *Net, pkts [][]byte) [][]byte {
		var out [][]byte
		for _, p := range pkts {
			switch x := rng.Float64(); {
			case x < drop:
			case x < drop+late:
				time.AfterFunc(500*time.Microsecond, func() { to.Write([][]byte{p}, 0) })
			default:
				out = append(out, p)
			}
		}
		return out
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// checkGoroutines fails the test if goroutines of this package or of gVisor are left
// after the test and its cleanups.
func checkGoroutines(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		var last string
		for range 100 {
			buf := make([]byte, 1<<20)
			buf = buf[:runtime.Stack(buf, true)]
			last = ""
			for g := range strings.SplitSeq(string(buf), "\n\n") {
				if (strings.Contains(g, "weft/netstack") || strings.Contains(g, "gvisor.dev")) && !strings.Contains(g, "testing.tRunner") {
					last += g + "\n\n"
				}
			}
			if last == "" {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("goroutines left:\n%s", last)
	})
}

func portOf(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return port
}
