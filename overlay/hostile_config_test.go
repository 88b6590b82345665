package overlay

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/release"
	"weft/overlay/status"
)

// What a node takes of a configuration, and what makes it refuse the whole.
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
	id := func() *identity {
		return &identity{
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
		s, err := makeSnapshot(id(), config, nil)
		if (err != nil) != c.refuse {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && strings.Join(s.config.Relays[0].URLs, " ") != c.relay {
			t.Errorf("%s: relays %v", name, s.config.Relays)
		}
	}
}

// The first release key is pinned; another one is told of and changes nothing.
func TestReleaseKeyIsPinned(t *testing.T) {
	state, err := openState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer state.close()
	n := &Node{log: slog.New(slog.DiscardHandler), state: state, keeper: newKeeper(), save: (*stateDir).save}
	first, other := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	for _, c := range []struct {
		key  []byte
		warn bool
	}{{nil, false}, {[]byte("short"), false}, {first, false}, {first, false}, {other, true}, {nil, true}, {first, false}} {
		n.snap.set(&snapshot{config: &api.Config{ReleaseKey: c.key}})
		n.keep(releaseFile)
		if err := n.keepNow(); err != nil {
			t.Fatal(err)
		}
		if n.health.Has(status.CodeReleaseKeyChanged) != c.warn {
			t.Errorf("key %x: %v", c.key, n.health.List())
		}
	}
	b, err := os.ReadFile(filepath.Join(state.path, releaseFile))
	if key, kerr := release.ParseKey(b); err != nil || kerr != nil || !bytes.Equal(key, first) {
		t.Errorf("pinned %q, %v, %v", b, err, kerr)
	}
}
