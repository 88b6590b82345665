package tunnels

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/bind"
	"weft/overlay/internal/dataplane"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/filters"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/hosttest"
	"weft/overlay/internal/intro"
	"weft/overlay/internal/network"
	"weft/overlay/internal/paths"
	"weft/overlay/status"
)

// Two tables that introduce themselves to each other, with everything real but the relay
// and the plane.

// pairTime is when a bubble of synctest begins.
var pairTime = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// pair is a network of two nodes, the one with the lower NodeID first.
type pair struct {
	roots *cert.NetworkRoots
	certs [2]tls.Certificate
	nodes [2]*cert.Node
}

// newPair makes the certificates once: introductions differ by their sessions.
var newPair = sync.OnceValues(func() (*pair, error) {
	ca, err := cert.NewCA("two", pairTime)
	if err != nil {
		return nil, err
	}
	id := cert.PinOf(ca.Cert).NetworkID()
	p := &pair{}
	if p.roots, err = cert.NewNetworkRoots(id, [][]byte{ca.Cert.Raw}); err != nil {
		return nil, err
	}
	for i := range p.nodes {
		var key *ecdsa.PrivateKey
		if key, err = cert.NewKey(); err != nil {
			return nil, err
		}
		name := string(rune('a' + i))
		der, err := ca.SignNode(&key.PublicKey, cert.Attributes{
			Name: name, FQDN: name + ".weft.internal", User: "alice",
			IPv4: netip.AddrFrom4([4]byte{100, 64, 0, byte(i + 1)}), IPv6: netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i + 1)}),
		}, cert.NewSerial(), pairTime.Add(-time.Hour), pairTime.Add(24*time.Hour))
		if err != nil {
			return nil, err
		}
		if p.nodes[i], err = cert.ParseNode(id, der); err != nil {
			return nil, err
		}
		p.certs[i] = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: p.nodes[i].Leaf}
	}
	if p.nodes[1].ID.Less(p.nodes[0].ID) {
		slices.Reverse(p.nodes[:])
		slices.Reverse(p.certs[:])
	}
	return p, nil
})

// end is a table of such a node, with a plane that notes the keys it is given.
// Everything that takes time takes a random time.
type end struct {
	*Table
	id    cert.NodeID
	other *end
	// before: an introduction that was overtaken once remains so, as nodes had it.
	before bool
	slow   func() int // turns of others until the owner does the next thing

	away func() time.Duration // until a relay proves to be out of reach

	mu sync.Mutex
	// mu guards the following.
	key    dataplane.Key
	secret map[cert.NodeID][32]byte
	named  map[cert.NodeID][32]byte // keys
}

// Key and the rest implement dataplane.Keys and dataplane.Plane.
func (e *end) Key() dataplane.Key {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.key
}

func (e *end) PairKey(own, peer [32]byte) (key [32]byte, err error) {
	if own != e.Key().Public {
		return key, dataplane.ErrKeyGone
	}
	if bytes.Compare(own[:], peer[:]) > 0 {
		own, peer = peer, own
	}
	return sha256.Sum256(append(own[:], peer[:]...)), nil
}

func (e *end) NewKey() error { return nil }
func (e *end) SetBack() bool { return true }

func (e *end) Rekey() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.key.Boot++
	e.key.Public = sha256.Sum256(e.key.Public[:])
	return nil
}

func (e *end) SetPeer(p dataplane.Peer) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.secret[p.ID], e.named[p.ID] = p.Secret, p.Key
	return nil
}

func (e *end) Prove(id cert.NodeID, key [32]byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.named[id] == key
}

func (e *end) RemovePeer(id cert.NodeID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.secret, id)
	delete(e.named, id)
}

func (e *end) Begins([]byte) bool { return false }
func (e *end) Close() error       { return nil }

func newEnd(t *testing.T, p *pair, i int, send func(to cert.NodeID, frame []byte) error) *end {
	self := p.nodes[i]
	e := &end{
		id: self.ID, key: dataplane.Key{Public: sha256.Sum256(self.ID[:]), Boot: uint64(100 * (i + 1))},
		secret: map[cert.NodeID][32]byte{}, named: map[cert.NodeID][32]byte{},
	}
	log := slog.New(slog.DiscardHandler)
	held := new(network.Holder)
	n := &network.Network{Self: self, Roots: p.roots, Config: &api.Config{
		Rules: []api.Rule{{From: []string{"*"}, Ports: []api.PortRange{{Proto: "*", Last: 65535}}}},
	}}
	held.Join(&network.Identity{}, n)
	b := bind.New(bind.Config{})
	home, guests := homes.New(homes.Config{
		Self: self.ID, Bind: b, Relays: held.Relays, Log: log, GuestEnded: func(*homes.Guest) {},
		Dial: func(context.Context, string, string) (net.Conn, error) {
			time.Sleep(e.away())
			return nil, errors.New("nobody there")
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	e.Table = New(ctx, n, Config{
		Held: held, Directory: directory.New(time.Now), Clock: cert.NewClock(pairTime, time.Now), Health: new(status.Warnings), Log: log,
		Bind: b, Forwarder: dataplane.New(dataplane.Config{Net: hosttest.NewNet()}), Plane: e, Keys: e, Filters: filters.New(log),
		Home: home, Guests: guests, UDP: paths.UDP{Off: true}, Identity: func() *tls.Certificate { return &p.certs[i] },
		Where:   func(context.Context, cert.NodeID) homes.Presence { return homes.Presence{} },
		AskTime: func(d time.Duration) time.Duration { return d }, Behind: func() bool { return false },
		Name: func(id cert.NodeID) string { return id.String() },
	})
	// As in New, but for where frames go.
	e.intro = intro.New(intro.Config{
		Network: p.roots.Network(), ID: self.ID, Identity: e.cfg.Identity, Verify: e.verify,
		Hello:   func() intro.Hello { k := e.Key(); return intro.Hello{Boot: k.Boot, Key: k.Public} },
		PairKey: e.PairKey, CRL: func() (uint64, []byte) { return 0, nil }, OnCRL: func([]byte) {},
		Send: send, Accept: e.accept, Known: e.knows, Live: e.paths.Live, Message: e.paths.Message,
		Closed: e.sessionClosed, OnReset: e.onReset,
	})
	e.early.pending = e.intro.InProgress
	e.UpToDate()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case f := <-e.calls:
				// No sleep: others may wait for a lock meanwhile, which stops the
				// clock of the bubble.
				for range e.slow() {
					runtime.Gosched()
				}
				e.run(f)
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		e.intro.Close()
		e.wg.Wait()
		guests.Close()
	})
	return e
}

// callAnew is CallAnew, with a relay that is tried in vain first: that takes time
// in which the other node may be heard.
func (e *end) callAnew(n int) {
	relay := api.Relay{ID: fmt.Sprint(n), Name: "away", URLs: []string{"https://127.0.0.1"}}
	e.cfg.Held.Update(func(_ *network.Identity, n *network.Network) {
		c := *n.Config
		c.Relays = []api.Relay{relay, {}} // the other is home
		n.Config = &c
	})
	e.cfg.Directory.SetRelay(e.other.id, relay.ID)
	go e.CallAnew(e.ctx, e.other.id)
}

// run has the owner do something.
func (e *end) run(f func()) {
	q := e.table[e.other.id]
	var d *dialing
	if q != nil {
		d = q.dial
	}
	stays := e.before && d != nil && d.overtaken
	f()
	if stays {
		d.overtaken = true
	}
}

// endState is what a node has of the other.
type endState struct {
	made    bool // a tunnel
	secret  [32]byte
	session *intro.Session // nil if there is none, or it has ended
}

func (e *end) state() (st endState) {
	e.inLoop(func() error {
		e.mu.Lock()
		st.secret = e.secret[e.other.id]
		e.mu.Unlock()
		if q := e.table[e.other.id]; q != nil {
			st.made = q.installed()
			if q.session != nil && q.session.Err() == nil {
				st.session = q.session
			}
		}
		return nil
	})
	return st
}

// check requires that a node that has a session has its keys: nothing else would tell
// it soon that they do not fit.
func (st endState) check(t *testing.T, who string) {
	if st.session != nil && (!st.made || st.secret != st.session.PSK) {
		t.Errorf("%s: the tunnel has not the keys of its session", who)
	}
}

// order is how two nodes introduce themselves to each other. Its functions say how
// long things take: they are called from many goroutines.
type order struct {
	away    func(i int) time.Duration                  // until a relay proves to be out of reach, for node i
	owner   func() int                                 // turns of others, until the owner of a table does the next thing
	latency func() (after time.Duration, arrives bool) // of a frame
	ways    bool                                       // each introduction goes by a relay of its own
	before  [2]bool
}

// newEnds makes the two nodes.
func newEnds(t *testing.T, o order) (e [2]*end) {
	p, err := newPair()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	last := map[string]time.Time{} // frame of a lane
	for i := range e {
		e[i] = newEnd(t, p, i, func(_ cert.NodeID, frame []byte) error {
			after, arrives := o.latency()
			if !arrives {
				return nil
			}
			frame = slices.Clone(frame)
			lane := fmt.Sprint(i)
			if o.ways {
				id, _ := intro.FrameSession(frame)
				lane = fmt.Sprint(i, id)
			}
			mu.Lock()
			at := latest(time.Now().Add(after), last[lane].Add(1))
			last[lane] = at
			mu.Unlock()
			time.AfterFunc(time.Until(at), func() { e[1-i].intro.Deliver(e[i].id, frame) })
			return nil
		})
		e[i].before, e[i].slow = o.before[i], o.owner
		e[i].away = func() time.Duration { return o.away(i) }
	}
	e[0].other, e[1].other = e[1], e[0]
	return e
}

// A node whose call is still looking for a relay accepts the other's, and then its own
// is accepted: that one is the newer, for both.
func TestCallAfterAccept(t *testing.T) {
	for i := range 2 {
		synctest.Test(t, func(t *testing.T) {
			e := newEnds(t, order{
				away: func(j int) time.Duration {
					if i == j {
						return time.Second
					}
					return 0
				},
				owner:   func() int { return 0 },
				latency: func() (time.Duration, bool) { return 10 * time.Millisecond, true },
			})
			for n := range 2 { // the second time there is a tunnel
				e[0].callAnew(2 * n)
				e[1].callAnew(2*n + 1)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				a, b := e[0].state(), e[1].state()
				a.check(t, "lower")
				b.check(t, "higher")
				if a.session == nil || b.session == nil || a.secret != b.secret {
					t.Errorf("node %d is late, round %d: %v and %v", i, n, a, b)
				}
			}
		})
	}
}

// Two nodes introduce themselves to each other in many orders, while frames are late
// or lost, sessions and tunnels end, and nodes take other keys. In the end both have
// the same keys, or know that they have lost each other.
func TestGlare(t *testing.T) {
	for _, before := range [][2]bool{{}, {true, false}, {false, true}} {
		seeds := 300
		if before != [2]bool{} {
			seeds = 40
		}
		for seed := range uint64(seeds) {
			glare(t, seed, before)
		}
	}
}

// glare plays the order that seed decides. Where a node is as nodes were before,
// nothing is required of that one.
func glare(t *testing.T, seed uint64, before [2]bool) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards the following
		r, quiet := rand.New(rand.NewPCG(seed, 1)), false
		upTo := func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			if quiet || n == 0 {
				return 0
			}
			return r.IntN(n)
		}
		within := func(d time.Duration) time.Duration { return time.Duration(upTo(int(d))) }
		delay, away, turns, loses := within(200*time.Millisecond), time.Duration(upTo(2))*within(300*time.Millisecond), upTo(30), upTo(4) == 0
		e := newEnds(t, order{
			away:  func(int) time.Duration { return within(away) },
			owner: func() int { return upTo(turns) },
			latency: func() (time.Duration, bool) {
				return within(delay), !loses || upTo(12) < 11
			},
			ways: upTo(2) == 0, before: before,
		})
		for n := range 2 + upTo(6) {
			time.Sleep(within(250 * time.Millisecond))
			me := e[upTo(2)]
			with := func(f func(q *peer)) {
				me.do(func() {
					if q := me.table[me.other.id]; q != nil {
						f(q)
					}
				})
			}
			switch upTo(12) {
			case 0:
				me.do(me.checkClock) // another WireGuard key, and boot id
			case 1:
				me.do(func() { me.evict(me.other.id) })
			case 2:
				with(func(q *peer) {
					if q.session != nil {
						q.session.Close()
					}
				})
			case 3:
				with(func(q *peer) { me.endAndRedial(q, "its certificate has expired", true) })
			default:
				me.callAnew(2 * n)
			}
			if upTo(2) == 0 {
				me.other.callAnew(2*n + 1)
			}
		}
		time.Sleep(time.Minute) // longer than any introduction
		mu.Lock()
		quiet = true
		mu.Unlock()
		synctest.Wait()
		a, b := e[0].state(), e[1].state()
		who := func(i int) string { return fmt.Sprintf("seed %d, before %v, node %d", seed, before, i) }
		if !before[0] {
			a.check(t, who(0))
		}
		if !before[1] {
			b.check(t, who(1))
		}
		// Who has no tunnel says so to whoever uses theirs, and who has no session makes
		// one when there are data. What a relay has lost may be what would tell the other.
		if before == [2]bool{} && a.made && b.made && a.secret != b.secret && (a.session != nil && b.session != nil || !loses && (a.session != nil || b.session != nil)) {
			t.Errorf("%s: different keys, and not both know: %v and %v", who(0), a.session, b.session)
		}
	})
}
