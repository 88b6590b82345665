package overlay

import (
	"errors"
	"log/slog"
	"math/big"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
	"weft/overlay/status"
)

// moments are the Networks of a node one after another: at first, after a new
// configuration, after a new revocation list, and after a new certificate.
type moments struct{ first, config, crl, self *network.Network }

func networkMoments(change func(*api.Config)) (m moments) {
	config := api.Config{Directory: true, Self: api.Self{FQDN: "pi.weft.internal", IPv4Prefix: "100.64.0.0/10", IPv6Prefix: "fd00::/48"}}
	self := &cert.Node{Serial: big.NewInt(1), Attributes: cert.Attributes{Name: "pi", FQDN: "pi.weft.internal"}}
	m.first = &network.Network{Self: self, Config: &config}
	after := func(n *network.Network, change func(*network.Network)) *network.Network {
		next := *n
		change(&next)
		return &next
	}
	m.config = after(m.first, func(n *network.Network) {
		next := config
		if change != nil {
			change(&next)
		}
		n.Config = &next
	})
	m.crl = after(m.config, func(n *network.Network) { n.CRL = &cert.CRL{Number: 1} })
	m.self = after(m.crl, func(n *network.Network) { next := *self; n.Self = &next })
	return m
}

// What each simple sink does when the node comes up, when something changes, when only
// something else changes, and when the node goes down.
func TestSinksPassOn(t *testing.T) {
	var did []string
	do := func(what string) func() { return func() { did = append(did, what) } }
	online := true
	connected := func() bool { return online }
	m := networkMoments(func(c *api.Config) { c.Self.FQDN = "pi2.weft.internal" })
	for _, c := range []struct {
		name                          string
		sink                          network.Sink
		up, config, crl, self, cutOff []string
	}{
		{"files", files{keep: func(file string) { did = append(did, file) }},
			[]string{state.ReleaseFile}, []string{state.ReleaseFile, state.ConfigFile}, []string{state.CRLFile}, nil, nil},
		{"tunnels", live{do("revoked"), do("decided")}, nil, []string{"decided"}, []string{"revoked"}, nil, nil},
		{"relays", relays{connected, do("wake"), do("tell")}, nil, []string{"wake"}, []string{"tell"}, nil, []string{"wake"}},
		{"current", current{do("hear")}, nil, nil, []string{"hear"}, nil, nil},
		{"named", named{do("changed")}, nil, []string{"changed"}, []string{"changed"}, nil, nil},
		{"renewal", renewal{do("renew")}, nil, []string{"renew"}, nil, nil, nil},
	} {
		for _, step := range []struct {
			what     string
			online   bool
			old, new *network.Network
			want     []string
		}{
			{"up", true, nil, m.first, c.up},
			{"config", true, m.first, m.config, c.config},
			{"list", true, m.config, m.crl, c.crl},
			{"certificate", true, m.crl, m.self, c.self},
			{"certificate without a relay", false, m.crl, m.self, c.cutOff},
			{"nothing", true, m.self, m.self, nil},
			{"down", true, m.self, nil, nil},
		} {
			did, online = nil, step.online
			if c.sink.Apply(step.old, step.new); !slices.Equal(did, step.want) {
				t.Errorf("%s, %s: did %v, want %v", c.name, step.what, did, step.want)
			}
		}
	}
	// Several changes at once, as when two goroutines make changes.
	did = nil
	live{do("revoked"), do("decided")}.Apply(m.first, m.self)
	if !slices.Equal(did, []string{"revoked", "decided"}) {
		t.Errorf("all at once: %v", did)
	}
	// A certificate with other tags, or another owner, is requested too.
	for what, change := range map[string]func(*api.Config){
		"tags": func(c *api.Config) { c.Self.Tags = []string{"door"} }, "owner": func(c *api.Config) { c.Self.User = "bob" },
	} {
		did = nil
		m = networkMoments(change)
		if (renewal{do("renew")}).Apply(m.first, m.config); len(did) != 1 {
			t.Errorf("other %s in the configuration: %v", what, did)
		}
	}
	// Without another name there is nothing to request.
	did = nil
	m = networkMoments(nil)
	if (renewal{do("renew")}).Apply(m.first, m.config); did != nil {
		t.Error("a certificate with the same name is asked for")
	}
}

// The STUN servers are set to the relays of a new configuration, the home relay first;
// without a new one they are not set.
func TestCandidates(t *testing.T) {
	home := "b"
	var asked [][]string
	c := candidates{home: func() string { return home }, ask: func(stun []string) { asked = append(asked, stun) }}
	m := networkMoments(func(c *api.Config) {
		c.Relays = []api.Relay{{ID: "a", STUN: []string{"a:3478"}}, {ID: "b", STUN: []string{"b:3478", "b:443"}}}
	})
	for _, step := range [][2]*network.Network{{nil, m.first}, {m.config, m.crl}, {m.crl, m.self}, {m.self, m.self}, {m.self, nil}} {
		c.Apply(step[0], step[1])
	}
	if asked != nil {
		t.Errorf("asked %q although no relay came or went", asked)
	}
	c.Apply(m.first, m.config)
	home = "a"
	c.Apply(m.first, m.self) // other changes came with it
	c.Apply(m.self, m.first)
	want := [][]string{{"b:3478", "b:443", "a:3478"}, {"a:3478", "b:3478", "b:443"}, nil}
	if !slices.EqualFunc(asked, want, slices.Equal) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}

// A range that cannot be routed is a warning, until the server sends another.
func TestRoutes(t *testing.T) {
	var v4, v6 netip.Prefix
	var broken error
	var health status.Warnings
	calls := 0
	r := routes{health: &health, log: slog.New(slog.DiscardHandler), set: func(a, b netip.Prefix) error {
		if calls++; broken == nil {
			v4, v6 = a, b
		}
		return broken
	}}
	m := networkMoments(func(c *api.Config) { c.Self.IPv4Prefix, c.Self.IPv6Prefix = "lots", "" })
	r.Apply(nil, m.first)
	if v4 != netip.MustParsePrefix("100.64.0.0/10") || v6 != netip.MustParsePrefix("fd00::/48") {
		t.Errorf("%v %v", v4, v6)
	}
	broken = errors.New("no such range")
	r.Apply(m.first, m.config)
	if !health.Has(status.CodeRoutes) {
		t.Error("no warning")
	}
	calls = 0
	r.Apply(m.config, m.self)
	r.Apply(m.self, nil)
	if calls > 0 {
		t.Error("routes are set although no range changed, or the node went down")
	}
	broken = nil
	r.Apply(m.first, m.config)
	if health.Has(status.CodeRoutes) || v4.IsValid() || v6.IsValid() {
		t.Errorf("%v %v %v", health.List(), v4, v6)
	}
}

// Nodes that this node may no longer reach, and revoked ones, are dropped.
func TestKnown(t *testing.T) {
	ca, err := cert.NewCA("network", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	roots, err := cert.NewNetworkRoots(cert.PinOf(ca.Cert).NetworkID(), [][]byte{ca.Cert.Raw})
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.SignCRL(1, []*big.Int{big.NewInt(7)}, time.Time{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	list, err := roots.VerifyCRL(der)
	if err != nil {
		t.Fatal(err)
	}
	dir := directory.New(time.Now)
	learn := func(serial int64, name string) {
		dir.Learn(&directory.Entry{Node: &cert.Node{
			ID: cert.NodeID{byte(serial)}, Serial: big.NewInt(serial), Attributes: cert.Attributes{Name: name, FQDN: name + ".weft.internal"},
		}})
	}
	learn(7, "stolen")
	learn(8, "pi")
	m := networkMoments(func(c *api.Config) { c.Directory = false })
	m.crl.CRL = list
	k := nodes{dir}
	k.Apply(nil, m.first)
	k.Apply(m.first, m.config)
	if len(dir.All()) != 0 {
		t.Errorf("%d are known who may not be reached any more", len(dir.All()))
	}
	learn(7, "stolen")
	learn(8, "pi")
	k.Apply(m.config, m.crl)
	if a, _ := dir.Find("stolen"); a != nil {
		t.Error("who was revoked is still known")
	}
	if a, _ := dir.Find("pi"); a == nil {
		t.Error("somebody else was forgotten")
	}
	k.Apply(m.crl, nil)
	if len(dir.All()) != 1 {
		t.Error("all were forgotten when the node went down")
	}
	lost := 0
	member := membership{renew: func() { t.Error("a certificate that was not superseded is replaced") }, lost: func() { lost++ }}
	self := *m.crl
	self.Self = &cert.Node{Serial: big.NewInt(7)}
	for _, step := range [][2]*network.Network{{nil, m.crl}, {m.config, m.crl}, {m.crl, &self}, {&self, nil}} {
		member.Apply(step[0], step[1])
	}
	if lost != 0 {
		t.Error("a member is told that it is none")
	}
	member.Apply(nil, &self)
	member.Apply(m.config, &self)
	if lost != 2 {
		t.Errorf("who was revoked is told so %d times of 2", lost)
	}
}
