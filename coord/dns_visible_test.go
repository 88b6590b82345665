package coord

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weft/coord/ops"

	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay"
)

// reader is a node as far as it follows the directory: a relay connection that
// is nudged, takes what comes with the nudge, and else fetches with the jitter
// that nodes have.
type reader struct {
	relay.Handler // nothing else comes
	conn          *relay.Conn
	api           *client.Client
	nudged        chan relay.Nudge
	fetches       *atomic.Int64
	have          api.Versions
	roots         *cert.NetworkRoots
}

func (r *reader) Drained()              {}
func (r *reader) Welcome(relay.Welcome) {}
func (r *reader) CRL([]byte)            {}
func (r *reader) Nudge(n relay.Nudge) {
	select {
	case r.nudged <- n:
	default:
	}
}

// follow fetches until ctx ends and reports each name that it sees, former ones
// too.
func (r *reader) follow(ctx context.Context, saw func(name string)) error {
	for {
		var n relay.Nudge
		select {
		case <-ctx.Done():
			return nil
		case n = <-r.nudged:
		}
		if n.Versions.Directory == r.have.Directory {
			continue
		}
		dir, err := r.changes(ctx, n)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			select { // as nodes do: again, later
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second + rand.N(time.Second)):
			}
			r.Nudge(n)
			continue
		}
		for _, p := range dir.Peers {
			node, err := r.roots.VerifyNode(p.Certificate, time.Now(), nil)
			if err != nil {
				return err
			}
			saw(node.Name)
			for _, a := range p.Aliases {
				saw("was " + a.Name)
			}
		}
		r.have = n.Versions
		r.have.Directory = dir.Version
		if err := r.conn.SendVersions(r.have); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// changes is what a nudge is about.
func (r *reader) changes(ctx context.Context, n relay.Nudge) (*api.Directory, error) {
	if n.Changes != nil && n.Changes.Since.N <= r.have.Directory.N {
		return &n.Changes.Directory, nil
	}
	spread := max(300*time.Millisecond, time.Duration(n.SpreadMS)*time.Millisecond)
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(rand.N(spread)):
	}
	r.fetches.Add(1)
	return r.api.Directory(ctx, r.have.Directory)
}

// A rename is seen by every node that reads the directory, with the old name
// beside it, through the server's real listener and relay. WEFT_NODES makes it
// more of them; the figures are in the log.
func TestRenameIsSeen(t *testing.T) {
	nodes, _ := strconv.Atoi(os.Getenv("WEFT_NODES"))
	nodes = max(nodes, 25)
	s := startServer(t)
	tok, err := newToken(t.Context(), s.Service, ops.CreateKey{Reusable: true})
	if err != nil {
		t.Fatal(err)
	}
	roots, err := cert.NewServerRoots([]cert.Pin{tok.Server}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pi := newDevice(t, s.Service)
	piTok, err := newToken(t.Context(), s.Service, ops.CreateKey{Tags: []string{"device"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := pi.join(t, piTok, "kitchen-pi"); err != nil {
		t.Fatal(err)
	}
	network, err := cert.NewNetworkRoots(s.Network().ID, pi.res.Config.NetworkCAs)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	type sight struct {
		node int
		name string
		at   time.Time
	}
	seen := make(chan sight, 64*nodes)
	var fetches atomic.Int64
	var joining sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i := range nodes {
		joining.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			d := newDevice(t, s.Service)
			if err := d.join(t, tok, "laptop"); err != nil {
				t.Error(err)
				return
			}
			shown := tls.Certificate{Certificate: [][]byte{d.res.Certificate}, PrivateKey: d.key}
			dialer := &link.Dialer{
				URLs:     func() []string { return tok.URLs },
				Roots:    func() *cert.ServerRoots { return roots },
				Identity: func() *tls.Certificate { return &shown },
			}
			c, err := relay.DialWith(dialer)(ctx, s.RelayID(), tok.URLs[0])
			if err != nil {
				t.Error(err)
				return
			}
			r := &reader{fetches: &fetches, nudged: make(chan relay.Nudge, 1), api: client.New(dialer.Transport(), nil), have: d.res.Config.Versions, roots: network}
			r.have.Directory = api.Version{}
			r.conn = relay.NewConn(c, r)
			running.Go(func() { r.conn.Run(ctx) })
			running.Go(func() {
				defer r.api.CloseIdleConnections()
				if err := r.follow(ctx, func(name string) { seen <- sight{i, name, time.Now()} }); err != nil {
					t.Errorf("node %d: %v", i, err)
				}
			})
			if err := r.conn.SendVersions(r.have); err != nil {
				t.Error(err)
			}
		})
	}
	joining.Wait()
	defer running.Wait()
	defer cancel()
	// wait returns how long after start each node saw a name.
	wait := func(name string, start time.Time) []time.Duration {
		t.Helper()
		took := map[int]time.Duration{}
		limit := time.After(2 * time.Minute)
		for len(took) < nodes {
			select {
			case v := <-seen:
				if v.name == name && took[v.node] == 0 {
					took[v.node] = v.at.Sub(start)
				}
			case <-limit:
				t.Fatalf("%d of %d nodes saw %q", len(took), nodes, name)
			}
		}
		var list []time.Duration
		for _, d := range took {
			list = append(list, d)
		}
		slices.Sort(list)
		return list
	}
	wait("kitchen-pi", time.Now())
	old := "kitchen-pi"
	for _, name := range []string{"hall", "attic", "cellar"} {
		for quiet := false; !quiet; { // all have seen all that joined
			select {
			case <-seen:
			case <-time.After(2 * time.Second):
				quiet = true
			}
		}
		before := fetches.Load()
		start := time.Now()
		if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.RenameDevice{ID: pi.id, Name: name}); err != nil {
			t.Fatal(err)
		}
		took := wait("was "+old, start)
		if n := fetches.Load() - before; n > 0 {
			t.Errorf("%d nodes had to ask what was renamed", n)
		}
		t.Logf("%s seen by %d nodes: median %s, p99 %s, last %s", name, nodes, took[nodes/2].Round(time.Millisecond),
			took[nodes*99/100].Round(time.Millisecond), took[nodes-1].Round(time.Millisecond))
		if took[nodes/2] > time.Second || took[nodes*99/100] > 5*time.Second {
			t.Error("wanted: within 1 s at the median, 5 s at p99")
		}
		old = name
	}
}
