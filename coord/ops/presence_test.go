package ops

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
)

// Who asks hears of those that policy lets it reach, as a lookup would say it, and
// nothing of anybody else: not even that they exist.
func TestPresenceOfPeers(t *testing.T) {
	s := openSite(t)
	laptop, pi, cam, off := s.laptop("laptop"), s.camera("kitchen-pi"), s.camera("cam"), s.laptop("phone")
	addr := netip.MustParseAddr("192.0.2.7")
	t0 := s.clock.Now()
	s.Presence(pi.id, 1, true, t0, addr)
	s.Presence(cam.id, 2, true, t0, addr)
	s.Presence(cam.id, 2, false, t0.Add(time.Minute), addr)
	s.clock.Add(time.Hour)
	asks := func(d *device, ids ...string) (map[string]api.Presence, error) {
		c := client.New(&direct{api: s.API(), leaf: func() *x509.Certificate { return d.shown }}, nil)
		peers, err := c.Presence(t.Context(), ids)
		m := map[string]api.Presence{}
		for _, p := range peers {
			if _, twice := m[p.ID]; twice {
				t.Errorf("%s is said twice", p.ID)
			}
			m[p.ID] = p
		}
		return m, err
	}
	all := []string{laptop.id.String(), pi.id.String(), cam.id.String(), off.id.String(), pi.id.String(), cert.NodeID{1}.String()}
	for _, c := range []struct {
		name   string
		policy string
		by     *device
		sees   []*device
	}{
		{"a user's devices", "", laptop, []*device{laptop, pi, cam, off}},
		{"a device", "", pi, nil},
		{"nothing any more", `{"rules":[]}`, laptop, nil},
		{"one kind", `{"rules":[{"from":["tag:device"],"to":["user:admin"],"ports":["udp:53"]}]}`, pi, []*device{laptop, off}},
		{"and not back", "", laptop, nil},
	} {
		if c.policy != "" {
			if err := s.SetPolicy(t.Context(), c.policy); err != nil {
				t.Fatal(err)
			}
		}
		got, err := asks(c.by, all...)
		if err != nil || len(got) != len(c.sees) {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
		for _, d := range c.sees {
			p, ok := got[d.id.String()]
			looked, err := client.New(&direct{api: s.API(), leaf: func() *x509.Certificate { return c.by.shown }}, nil).Lookup(t.Context(), "id", d.id.String())
			if err != nil || !ok {
				t.Errorf("%s: %s: %v, %v", c.name, d.name(), p, err)
				continue
			}
			same := p.LastSeen == nil && looked.LastSeen == nil || p.LastSeen != nil && looked.LastSeen != nil && p.LastSeen.Equal(*looked.LastSeen)
			if p.Online != looked.Online || p.Online != (d == pi) || !same {
				t.Errorf("%s: %s: %+v, and a lookup says %v, %v", c.name, d.name(), p, looked.Online, looked.LastSeen)
			}
			if d == cam && (p.LastSeen == nil || !p.LastSeen.Equal(t0.Add(time.Minute))) {
				t.Errorf("%s was last seen %v", d.name(), p.LastSeen)
			}
		}
	}
	var refused *api.Error
	if _, err := asks(laptop, "x"); !errors.As(err, &refused) || refused.Code != api.CodeBadRequest {
		t.Errorf("what is no id: %v", err)
	}
	if _, err := asks(laptop, slices.Repeat(all[:1], api.MaxPresence)...); err != nil {
		t.Errorf("as many as may be: %v", err)
	}
	if _, err := asks(laptop, slices.Repeat(all[:1], api.MaxPresence+1)...); !errors.As(err, &refused) || refused.Code != api.CodeBadRequest {
		t.Errorf("one too many: %v", err)
	}
	if b, _ := json.Marshal(api.PresenceRequest{IDs: slices.Repeat(all[:1], api.MaxPresence)}); len(b) > api.MaxBody {
		t.Errorf("a request of %d bytes, and %d may be", len(b), api.MaxBody)
	}
	// A server that has started again knows what the database does.
	if err := s.flushSeen(false); err != nil {
		t.Fatal(err)
	}
	fresh := newIndex(s.index.network, s.index.policy)
	if err := s.store.Read(t.Context(), fresh.load); err != nil {
		t.Fatal(err)
	}
	if got := fresh.reached(pi.id, []cert.NodeID{laptop.id, cam.id}); len(got) != 1 || got[0].id != laptop.id || !got[0].seen.IsZero() {
		t.Errorf("after a restart: %+v", got)
	}
	if seen := fresh.nodes[cam.id].seen; seen != t0.Add(time.Minute).Unix() {
		t.Errorf("after a restart it was last seen %v", seen)
	}
}
