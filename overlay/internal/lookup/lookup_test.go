package lookup

import (
	"context"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/homes"
	"weft/overlay/internal/network"
	"weft/overlay/status"
)

// world is a network with its server and this node, called laptop.
type world struct {
	t   *testing.T
	ca  *cert.CA
	cfg Config
	net *network.Network
	r   *Resolver

	asked          []string // requests to the server, in order
	lookup         func(kind, key string) (*api.Peer, error)
	presence       func(ids []string) ([]api.Presence, error)
	told, changed  int
	kept           []string
	trip           time.Duration
	devices        map[string]*api.Peer // by name
	addresses, ids map[string]string    // name of the device that has them
}

// errGone is the answer of a server that does not know the thing or the request, errAway
// the error when it does not answer.
var (
	errGone = &api.Error{Status: http.StatusNotFound, Code: api.CodeNotFound, Message: "no such device"}
	errAway = errors.New("connection refused")
)

func newWorld(t *testing.T, change ...func(*api.Config)) *world {
	t.Helper()
	ca, err := cert.NewCA("network", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pin := cert.PinOf(ca.Cert)
	id, err := network.NewIdentity(pin.NetworkID(), pin, []string{"https://weft.example"})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, ca: ca, devices: map[string]*api.Peer{}, addresses: map[string]string{}, ids: map[string]string{}}
	id.NetworkCAs = [][]byte{ca.Cert.Raw}
	id.Certificate = w.sign(id, "laptop", 1)
	config := &api.Config{
		Version: api.Version{Epoch: 1, N: 1}, Network: pin.NetworkID().String(), NetworkCAs: id.NetworkCAs, ServerURLs: id.URLs,
		Relays: []api.Relay{{ID: "r", URLs: id.URLs}}, Suffix: "weft.internal", Directory: true, Lookup: true,
		Self: api.Self{FQDN: "laptop.weft.internal", IPv4Prefix: "100.64.0.0/10", IPv6Prefix: "fd00::/48"},
	}
	for _, c := range change {
		c(config)
	}
	if w.net, err = network.New(id, config, nil); err != nil {
		t.Fatal(err)
	}
	w.lookup = w.find
	w.cfg = Config{
		Held: new(network.Holder), Directory: directory.New(time.Now), Health: new(status.Warnings), Log: slog.New(slog.DiscardHandler),
		Now: time.Now, Server: func() Server { return w }, Trip: func() time.Duration { return w.trip },
		Tell: func() { w.told++ }, NamesChanged: func() { w.changed++ }, Keep: func(file string) { w.kept = append(w.kept, file) },
	}
	w.cfg.Held.Join(id, w.net)
	w.r = New(w.cfg)
	return w
}

func (w *world) sign(id *network.Identity, name string, n byte) []byte {
	w.t.Helper()
	der, err := w.ca.SignNode(&id.Key.PublicKey, cert.Attributes{
		Name: name, FQDN: name + ".weft.internal", User: "owner", IPv4: netip.AddrFrom4([4]byte{100, 64, 0, n}), IPv6: netip.AddrFrom16([16]byte{0: 0xfd, 15: n}),
	}, big.NewInt(int64(n)), time.Now().Add(-time.Minute), time.Now().Add(24*time.Hour))
	if err != nil {
		w.t.Fatal(err)
	}
	return der
}

// device makes another device of the network, 100.64.0.n. The certificate is number n.
func (w *world) device(name string, n byte) (*api.Peer, *cert.Node) {
	w.t.Helper()
	pin := cert.PinOf(w.ca.Cert)
	id, err := network.NewIdentity(pin.NetworkID(), pin, []string{"https://weft.example"})
	if err != nil {
		w.t.Fatal(err)
	}
	p := &api.Peer{Certificate: w.sign(id, name, n), Online: true, Relay: "r"}
	node, err := w.net.VerifyListed(p.Certificate)
	if err != nil {
		w.t.Fatal(err)
	}
	w.devices[name], w.addresses[node.IPv4.String()], w.ids[node.ID.String()] = p, name, name
	return p, node
}

// find is a server that knows the devices.
func (w *world) find(kind, key string) (*api.Peer, error) {
	switch kind {
	case "ip":
		key = w.addresses[key]
	case "id":
		key = w.ids[key]
	}
	if p := w.devices[key]; p != nil {
		return p, nil
	}
	return nil, errGone
}

// Lookup implements Server. The whole world belongs to the goroutine of the test.
func (w *world) Lookup(ctx context.Context, kind, key string) (*api.Peer, error) {
	w.asked = append(w.asked, kind+" "+key)
	return w.lookup(kind, key)
}

// Presence implements Server.
func (w *world) Presence(ctx context.Context, ids []string) ([]api.Presence, error) {
	w.asked = append(w.asked, "presence")
	return w.presence(ids)
}

// questions returns the requests to the server since the last call.
func (w *world) questions() []string {
	asked := w.asked
	w.asked = nil
	return asked
}

// resolve resolves a name, checks that it causes these requests to the server, and
// returns the name of the node, or the error and its hint.
func (w *world) resolve(name string, questions ...string) string {
	w.t.Helper()
	s, ok := w.cfg.Held.Get()
	if !ok {
		s = w.net
	}
	k, err := w.r.Resolve(w.t.Context(), s, name)
	if got := w.questions(); !slices.Equal(got, questions) {
		w.t.Errorf("%s: the server was asked %q, want %q", name, got, questions)
	}
	var said *status.Error
	switch {
	case errors.As(err, &said):
		return string(said.Kind) + ": " + said.Message + "; " + said.Hint
	case err != nil:
		return err.Error()
	}
	return k.Node.Name
}

func (w *world) expect(got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("got %q, want %q", got, want)
	}
}

// This node itself and known nodes are found without a request, others with one.
func TestResolve(t *testing.T) {
	w := newWorld(t)
	for _, self := range []string{"laptop", "Laptop.weft.internal.", "100.64.0.1", "[fd00::1]"} {
		w.expect(w.resolve(self), "laptop")
	}
	w.device("kitchen-pi", 2)
	w.expect(w.resolve("kitchen-pi", "name kitchen-pi"), "kitchen-pi")
	if w.told != 1 || !slices.Equal(w.kept, []string{"names.json"}) {
		t.Errorf("the relay was told %d times that names are used here, and %q are to be written", w.told, w.kept)
	}
	for _, again := range []string{"kitchen-pi", "Kitchen-Pi.weft.internal", "100.64.0.2", "::ffff:100.64.0.2"} {
		w.expect(w.resolve(again), "kitchen-pi")
	}
	w.device("cam", 3)
	w.expect(w.resolve("100.64.0.3", "ip 100.64.0.3"), "cam")
	if w.told != 1 {
		t.Errorf("the relay was told %d times", w.told)
	}
}

// A name without a node is an error, with a suggestion if there is a similar name, and is
// not looked up again at once.
func TestUnknown(t *testing.T) {
	w := newWorld(t)
	w.device("kitchen-pi", 2)
	w.resolve("kitchen-pi", "name kitchen-pi")
	const said = ` in this network that laptop may reach; `
	w.expect(w.resolve("kitchen-pie", "name kitchen-pie"), `unknown-peer: no device "kitchen-pie"`+said+"did you mean kitchen-pi? list them with: weft status")
	w.expect(w.resolve("kitchen-pie"), `unknown-peer: no device "kitchen-pie"`+said+"did you mean kitchen-pi? list them with: weft status")
	w.expect(w.resolve("100.64.9.9", "ip 100.64.9.9"), `unknown-peer: no device "100.64.9.9"`+said+"list them with: weft status")
	w.expect(w.resolve("no name"), `unknown-peer: no device "no name"`+said+"list them with: weft status")
	// Policy allows this node to reach nobody.
	w = newWorld(t, func(c *api.Config) { c.Directory = false })
	w.expect(w.resolve("kitchen-pi"), `unknown-peer: no device "kitchen-pi"`+said+"list them with: weft status")
}

// A server that does not answer, or answers something else, does not mislead this node.
func TestServerThatLies(t *testing.T) {
	w := newWorld(t)
	_, pi := w.device("kitchen-pi", 2)
	w.lookup = func(string, string) (*api.Peer, error) { return nil, errAway }
	w.expect(w.resolve("kitchen-pi", "name kitchen-pi"), "unavailable: look up kitchen-pi: the server does not answer: connection refused; see: weft status")
	w.lookup = func(string, string) (*api.Peer, error) { return w.devices["kitchen-pi"], nil }
	w.expect(w.resolve("cam", "name cam"), "look up cam: the server answered with kitchen-pi (100.64.0.2)")
	w.expect(w.resolve("100.64.0.7", "ip 100.64.0.7"), "look up 100.64.0.7: the server answered with kitchen-pi (100.64.0.2)")
	other := newWorld(t)
	w.lookup = func(string, string) (*api.Peer, error) { p, _ := other.device("cam", 3); return p, nil }
	if got := w.resolve("cam", "name cam"); !strings.HasPrefix(got, "look up cam: the server's answer is not usable: ") {
		t.Error(got)
	}
	if len(w.cfg.Directory.All()) != 0 {
		t.Error("something of that was noted")
	}
	// A former name finds its device until it expires.
	p := *w.devices["kitchen-pi"]
	p.Aliases = []api.Alias{{Name: "cellar-pi", Until: time.Now().Add(time.Hour)}}
	w.lookup = func(string, string) (*api.Peer, error) { return &p, nil }
	w.expect(w.resolve("cellar-pi", "name cellar-pi"), pi.Name)
}

// Lookups are repeated once a relay reports that names have changed. If the server cannot
// be asked, the last answer stays valid.
func TestAskedAgain(t *testing.T) {
	w := newWorld(t)
	w.device("kitchen-pi", 2)
	w.r.SetNamesVersion(api.Version{Epoch: 1, N: 1})
	if w.told != 0 || w.changed != 0 {
		t.Errorf("nobody uses names, and the relay was told %d times, the resolver %d", w.told, w.changed)
	}
	w.resolve("kitchen-pi", "name kitchen-pi")
	w.told = 0
	w.r.SetNamesVersion(api.Version{Epoch: 1, N: 1})
	w.r.SetNamesVersion(api.Version{Epoch: 1, N: 2})
	w.r.SetNamesVersion(api.Version{Epoch: 1, N: 3})
	if w.told != 1 || w.changed != 1 {
		t.Errorf("the relay was told %d times, the resolver %d, want once each", w.told, w.changed)
	}
	w.lookup = func(string, string) (*api.Peer, error) { return nil, errAway }
	w.expect(w.resolve("kitchen-pi", "name kitchen-pi"), "kitchen-pi")
	w.cfg.Health.Set(status.CodeServerOffline, "away")
	w.expect(w.resolve("kitchen-pi"), "kitchen-pi")
	w.cfg.Health.Clear(status.CodeServerOffline)
	w.lookup = w.find
	w.expect(w.resolve("kitchen-pi", "name kitchen-pi"), "kitchen-pi")
	w.expect(w.resolve("kitchen-pi"), "kitchen-pi")
}

// An answer does not count if the node has left the network meanwhile, or the node in it
// was revoked.
func TestMeanwhile(t *testing.T) {
	for _, c := range []struct {
		what  string
		while func(w *world)
	}{
		{"left", func(w *world) { w.cfg.Held.Leave() }},
		{"in another network", func(w *world) {
			other := newWorld(t)
			w.cfg.Held.Leave()
			w.cfg.Held.Join(other.cfg.Held.Identity(), other.net)
		}},
		{"revoked", func(w *world) {
			der, err := w.ca.SignCRL(1, []*big.Int{big.NewInt(2)}, time.Time{}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			list, err := w.net.Roots.VerifyCRL(der)
			if err != nil {
				t.Fatal(err)
			}
			w.cfg.Held.Update(func(_ *network.Identity, s *network.Network) { s.CRL = list })
		}},
	} {
		w := newWorld(t)
		w.device("kitchen-pi", 2)
		w.lookup = func(kind, key string) (*api.Peer, error) {
			c.while(w)
			return w.find(kind, key)
		}
		if got := w.resolve("kitchen-pi", "name kitchen-pi"); !strings.HasPrefix(got, "unknown-peer: ") {
			t.Errorf("%s: %s", c.what, got)
		}
		if all := w.cfg.Directory.All(); len(all) != 0 {
			t.Errorf("%s: %s is known", c.what, all[0].Node.Name)
		}
		w = newWorld(t)
		_, pi := w.device("kitchen-pi", 2)
		w.lookup = func(kind, key string) (*api.Peer, error) {
			c.while(w)
			return w.find(kind, key)
		}
		if at := w.r.Where(t.Context(), pi.ID); at != (homes.Presence{}) {
			t.Errorf("%s: it is at %+v", c.what, at)
		}
	}
}

// Without a network nobody is found and nothing is asked.
func TestNotJoined(t *testing.T) {
	w := newWorld(t)
	_, pi := w.device("kitchen-pi", 2)
	w.cfg.Held.Leave()
	if _, err := w.r.Find(t.Context(), "kitchen-pi"); err != error(ErrNotJoined) {
		t.Error(err)
	}
	if at := w.r.Where(t.Context(), pi.ID); at != (homes.Presence{}) {
		t.Errorf("%+v", at)
	}
	if asked := w.questions(); asked != nil {
		t.Errorf("the server was asked %q", asked)
	}
}

// The server says where a peer is; an answer about another peer is ignored.
func TestWhere(t *testing.T) {
	w := newWorld(t)
	p, pi := w.device("kitchen-pi", 2)
	_, cam := w.device("cam", 3)
	for _, c := range []struct {
		what   string
		lookup func(kind, key string) (*api.Peer, error)
		want   homes.Presence
	}{
		{"online", w.find, homes.Presence{Online: true, Relay: "r"}},
		{"offline", func(string, string) (*api.Peer, error) { return &api.Peer{Certificate: p.Certificate, Relay: "r"}, nil }, homes.Presence{Relay: "r"}},
		{"not known yet", func(string, string) (*api.Peer, error) {
			return &api.Peer{Certificate: p.Certificate, Unknown: true}, nil
		}, homes.Presence{Unknown: true}},
		{"of another", func(string, string) (*api.Peer, error) { return w.find("id", cam.ID.String()) }, homes.Presence{}},
		{"unusable", func(string, string) (*api.Peer, error) { return &api.Peer{Certificate: []byte("x"), Online: true}, nil }, homes.Presence{}},
		{"gone", func(string, string) (*api.Peer, error) { return nil, errGone }, homes.Presence{}},
		{"away", func(string, string) (*api.Peer, error) { return nil, errAway }, homes.Presence{}},
	} {
		w.lookup = c.lookup
		if at := w.r.Where(t.Context(), pi.ID); at != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, at, c.want)
		}
		if asked := w.questions(); !slices.Equal(asked, []string{"id " + pi.ID.String()}) {
			t.Errorf("%s: asked %q", c.what, asked)
		}
	}
	w.expect(w.r.Name(pi.ID), "kitchen-pi")
	w.expect(w.r.Name(cert.NodeID{1}), "node "+cert.NodeID{1}.String()[:8])
}

// A request may take longer if round trips are slow, within bounds.
func TestAskTime(t *testing.T) {
	w := newWorld(t)
	for trip, want := range map[time.Duration]time.Duration{0: 5 * time.Second, 500 * time.Millisecond: 7 * time.Second, time.Hour: 21 * time.Second} {
		w.trip = trip
		if got := w.r.AskTime(5 * time.Second); got != want {
			t.Errorf("with a round trip of %v: %v, want %v", trip, got, want)
		}
	}
}
