package coord

import (
	"context"
	"crypto/tls"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weft/coord/ops"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay"
)

// returning is a node as far as it keeps its home connection, with the code
// that nodes have for that. One with a live flow sends to its partner all the
// time.
type returning struct {
	relay.Handler // nothing else comes
	home          *relay.Home
	id            cert.NodeID
	partner       *returning // nil when idle

	back   atomic.Int64 // when it was last welcomed, unix nanoseconds
	flows  atomic.Int64 // when it first heard its partner since it was told to forget
	nudges atomic.Int64
}

func (r *returning) Drained()                           {}
func (r *returning) Draining(relay.Draining)            {}
func (r *returning) Gone(cert.NodeID, relay.GoneReason) {}
func (r *returning) Nudge(relay.Nudge)                  { r.nudges.Add(1) }
func (r *returning) Welcome(relay.Welcome)              { r.back.Store(time.Now().UnixNano()) }
func (r *returning) Packet(cert.NodeID, []byte)         { r.flows.CompareAndSwap(0, time.Now().UnixNano()) }

// run keeps the connection and the flow until ctx ends.
func (r *returning) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	if r.partner != nil {
		wg.Go(func() {
			tick := time.NewTicker(50 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					r.home.SendPackets(r.partner.id, [][]byte{make([]byte, 100)})
				}
			}
		})
	}
	r.home.Run(ctx)
}

// The server with its relay stops and starts again under many nodes, of
// which one in 20 has a live flow. All come back by themselves: those with flows
// at once, the idle ones spread as the relay said, and none of them has anything
// to fetch. WEFT_NODES is how many; scripts/test long many has 5,000.
func TestRestartWithManyNodes(t *testing.T) {
	nodes, _ := strconv.Atoi(os.Getenv("WEFT_NODES"))
	nodes = max(nodes, 100)
	data := t.TempDir()
	s := startServer(t, func(o *ServerOptions) { o.Data, o.STUN.Addr = data, "" })
	addr := s.Addr().String()
	tok, err := newToken(t.Context(), s.Service, ops.CreateKey{Reusable: true, Tags: []string{"device"}})
	if err != nil {
		t.Fatal(err)
	}
	roots, err := cert.NewServerRoots([]cert.Pin{tok.Server}, nil)
	if err != nil {
		t.Fatal(err)
	}
	fleet := make([]*returning, nodes)
	var joining sync.WaitGroup
	for w := range 8 {
		joining.Go(func() {
			for i := w; i < nodes; i += 8 {
				d := newDevice(t, s.Service)
				if err := d.join(t, tok, "sensor"); err != nil {
					t.Error(err)
					return
				}
				shown := tls.Certificate{Certificate: [][]byte{d.res.Certificate}, PrivateKey: d.key, Leaf: d.shown}
				config := d.res.Config
				held := config.Versions
				held.Directory, held.Names = api.Version{}, api.Version{} // as of a device that only serves
				r := &returning{id: d.id}
				r.home = relay.NewHome(relay.HomeConfig{
					Self: d.id,
					Dial: relay.DialWith(&link.Dialer{
						Roots:    func() *cert.ServerRoots { return roots },
						Identity: func() *tls.Certificate { return &shown },
					}),
					Relays:   func() []api.Relay { return config.Relays },
					Handler:  func(*relay.Conn) relay.Handler { return r },
					Versions: func() api.Versions { return held },
					Active:   func() bool { return r.partner != nil },
				})
				fleet[i] = r
			}
		})
	}
	joining.Wait()
	if t.Failed() {
		t.FailNow()
	}
	flows := max(2, nodes/20) &^ 1
	for i := range flows {
		fleet[i].partner = fleet[i^1]
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for _, r := range fleet {
		running.Go(func() { r.run(ctx) })
	}
	// all waits until every node was welcomed since, and hears its partner.
	all := func(since time.Time) {
		t.Helper()
		for end := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
			away := 0
			for _, r := range fleet {
				if r.back.Load() < since.UnixNano() || r.partner != nil && r.flows.Load() < since.UnixNano() {
					away++
				}
			}
			if away == 0 && len(s.Online()) == nodes {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%d of %d nodes are not back, %d are online", away, nodes, len(s.Online()))
			}
		}
	}
	start := time.Now()
	all(time.Unix(0, 1))
	t.Logf("%d nodes at once: all are online after %s", nodes, time.Since(start).Round(time.Millisecond))
	for range 3 {
		var before, after int64
		for _, r := range fleet {
			before += r.nudges.Load()
			r.flows.Store(0)
		}
		gone := time.Now()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		closed := time.Since(gone)
		for _, r := range fleet[:flows] {
			r.flows.Store(0) // what was under way
		}
		s = startServer(t, func(o *ServerOptions) { o.Data, o.Listen.Addr, o.STUN.Addr = data, addr, "" })
		up := time.Now()
		all(gone)
		var busy, resumed, idle []time.Duration // after the server was up
		for i, r := range fleet {
			after += r.nudges.Load()
			took := time.Unix(0, r.back.Load()).Sub(up)
			if i < flows {
				busy = append(busy, took)
				resumed = append(resumed, time.Unix(0, r.flows.Load()).Sub(up))
			} else {
				idle = append(idle, took)
			}
		}
		perSecond := map[time.Duration]int{}
		most := 0
		for _, d := range append(slices.Clone(busy), idle...) {
			perSecond[d/time.Second]++
			most = max(most, perSecond[d/time.Second])
		}
		t.Logf("%d nodes: the server closed in %s and was away for %s; with flows: %s; flows go on: %s; idle: %s; at most %d in a second",
			nodes, closed.Round(time.Millisecond), up.Sub(gone).Round(time.Millisecond), quantiles(busy), quantiles(resumed), quantiles(idle), most)
		if n := after - before; n > 0 {
			t.Errorf("%d nodes had to ask what is new", n)
		}
		// A slow machine only makes that later.
		spread := min(time.Duration(nodes)*2*time.Millisecond, 30*time.Second)
		if p75 := idle[len(idle)*3/4] + up.Sub(gone); p75 < spread/2 {
			t.Errorf("three quarters of the idle nodes were back after %s, of a spread of %s", p75, spread)
		}
	}
}

// quantiles sorts a list and says where it is.
func quantiles(list []time.Duration) string {
	slices.Sort(list)
	at := func(p int) string { return list[(len(list)-1)*p/100].Round(time.Millisecond).String() }
	return "median " + at(50) + ", p90 " + at(90) + ", p99 " + at(99) + ", last " + at(100)
}
