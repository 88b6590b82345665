package network

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// Which parts of a configuration a node ignores, and what makes it refuse the whole.
func TestConfigIsChecked(t *testing.T) {
	now := time.Now()
	ca, err := cert.NewCA("network", now)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := cert.NewCA("stranger", now)
	if err != nil {
		t.Fatal(err)
	}
	key, err := cert.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.SignNode(&key.PublicKey, cert.Attributes{
		Name: "pi", FQDN: "pi.weft.internal", User: "owner",
		IPv4: netip.MustParseAddr("100.64.0.1"), IPv6: netip.MustParseAddr("fd00::1"),
	}, cert.NewSerial(), now, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	id := func() *Identity {
		return &Identity{
			Network: cert.PinOf(ca.Cert).NetworkID(), ServerPins: []cert.Pin{cert.PinOf(stranger.Cert)},
			URLs: []string{"https://weft.example"}, Certificate: der, NetworkCAs: [][]byte{ca.Cert.Raw},
		}
	}
	relays := func(urls ...string) func(*api.Config) {
		return func(c *api.Config) { c.Relays = []api.Relay{{ID: "r", URLs: urls}} }
	}
	for name, c := range map[string]struct {
		change func(*api.Config)
		refuse bool
		relay  string // the URLs left
	}{
		"plain":             {func(*api.Config) {}, false, "https://weft.example"},
		"no CA":             {func(c *api.Config) { c.NetworkCAs = nil }, true, ""},
		"a stranger's CA":   {func(c *api.Config) { c.NetworkCAs = append(c.NetworkCAs, stranger.Cert.Raw) }, true, ""},
		"all of IPv4":       {func(c *api.Config) { c.Self.IPv4Prefix = "0.0.0.0/0" }, true, ""},
		"half of IPv4":      {func(c *api.Config) { c.Self.IPv4Prefix = "0.0.0.0/1" }, true, ""},
		"all of IPv6":       {func(c *api.Config) { c.Self.IPv6Prefix = "::/0" }, true, ""},
		"others' range":     {func(c *api.Config) { c.Self.IPv4Prefix = "8.8.8.0/24" }, true, ""},
		"no range":          {func(c *api.Config) { c.Self.IPv4Prefix = "lots" }, true, ""},
		"file relay":        {relays("file:///etc/passwd"), true, ""},
		"plain relay":       {relays("http://weft.example"), true, ""},
		"relay with a path": {relays("https://weft.example/x?y", "https://weft.example"), false, "https://weft.example"},
		"relay and secret":  {relays("https://a:b@weft.example"), true, ""},
		"loopback relay":    {relays("https://127.0.0.1:22", "https://localhost", "https://[::1]:1", "https://a.localhost.", "https://[::ffff:127.0.0.1]"), true, ""},
		"metadata relay":    {relays("https://169.254.169.254", "https://0.0.0.0:1", "https://weft.example"), false, "https://weft.example"},
		"many addresses":    {relays(strings.Split(strings.Repeat("https://weft.example ", 100), " ")...), false, strings.TrimSuffix(strings.Repeat("https://weft.example ", maxURLs), " ")},
	} {
		config := &api.Config{
			Network: id().Network.String(), NetworkCAs: [][]byte{ca.Cert.Raw}, ServerURLs: []string{"https://weft.example"},
			Relays: []api.Relay{{ID: "r", URLs: []string{"https://weft.example"}}},
			Self:   api.Self{IPv4Prefix: "100.64.0.0/10", IPv6Prefix: "fd00::/48"},
		}
		c.change(config)
		s, err := New(id(), config, nil)
		if (err != nil) != c.refuse {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && strings.Join(s.Config.Relays[0].URLs, " ") != c.relay {
			t.Errorf("%s: relays %v", name, s.Config.Relays)
		}
	}
}

// A node with addresses that cannot be its own is refused: ours, and those outside the
// network's ranges.
func TestBelongs(t *testing.T) {
	ip := netip.MustParseAddr
	n := &Network{
		Self:   &cert.Node{ID: cert.NodeID{1}, Attributes: cert.Attributes{IPv4: ip("100.64.0.1"), IPv6: ip("fd00::1")}},
		Config: &api.Config{Self: api.Self{IPv4Prefix: "100.64.0.0/10", IPv6Prefix: "fd00::/48"}},
	}
	for _, c := range []struct {
		id     byte
		v4, v6 string
		ok     bool
	}{
		{2, "100.64.0.2", "fd00::2", true},
		{1, "100.64.0.1", "fd00::1", true}, // this node itself
		{2, "100.64.0.1", "fd00::2", false},
		{2, "100.64.0.2", "fd00::1", false},
		{2, "8.8.8.8", "fd00::2", false},
		{2, "100.64.0.2", "2001:db8::1", false},
	} {
		node := &cert.Node{ID: cert.NodeID{c.id}, Attributes: cert.Attributes{Name: "x", IPv4: ip(c.v4), IPv6: ip(c.v6)}}
		if err := n.belongs(node); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
		if c.ok && (!n.Contains(node.IPv4) || !n.Contains(node.IPv6)) {
			t.Errorf("%+v is not in the network", c)
		}
	}
	if n.Contains(ip("8.8.8.8")) {
		t.Error("8.8.8.8 is in the network")
	}
}

// The STUN servers of the home come first, the others in the server's order.
func TestSTUN(t *testing.T) {
	n := &Network{Config: &api.Config{Relays: []api.Relay{
		{ID: "a", STUN: []string{"a:1", "a:2"}}, {ID: "b"}, {ID: "c", STUN: []string{"c:1"}}, {ID: "d", STUN: []string{"d:1"}},
	}}}
	for home, want := range map[string][]string{
		"":  {"a:1", "a:2", "c:1", "d:1"},
		"b": {"a:1", "a:2", "c:1", "d:1"},
		"c": {"c:1", "a:1", "a:2", "d:1"},
	} {
		if got := n.STUN(home); !slices.Equal(got, want) {
			t.Errorf("at home at %q: %q, want %q", home, got, want)
		}
	}
}
