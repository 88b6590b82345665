package ops

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// held is a directory as a node keeps it.
type held struct {
	version api.Version
	names   map[string]string // id -> name
}

// fetch takes a directory or a delta the way a node does.
func (h *held) fetch(t testing.TB, s *site, d *device) *api.Directory {
	t.Helper()
	dir, err := d.Directory(t.Context(), h.version)
	if err != nil {
		t.Fatal(err)
	}
	h.take(t, s, d, dir)
	return dir
}

// follow takes what a nudge brings along, and fetches when it brings nothing.
func (h *held) follow(t testing.TB, s *site, d *device) (told bool) {
	t.Helper()
	if ch := s.Changes(t.Context(), d.id, h.version); ch != nil {
		h.take(t, s, d, &ch.Directory)
		return true
	}
	h.fetch(t, s, d)
	return false
}

func (h *held) take(t testing.TB, s *site, d *device, dir *api.Directory) {
	t.Helper()
	if dir.Full || h.names == nil {
		h.names = map[string]string{}
	}
	for _, id := range dir.Removed {
		delete(h.names, id)
	}
	for _, p := range dir.Peers {
		n, err := s.auth.Roots.VerifyNode(p.Certificate, s.clock.Now(), nil)
		if err != nil {
			t.Fatal(err)
		}
		h.names[n.ID.String()] = n.Name
	}
	h.version = dir.Version
	if want := s.Versions(d.id).Directory; want != dir.Version {
		t.Errorf("directory at %v, the relay would say %v", dir.Version, want)
	}
}

func (h *held) list() string {
	var names []string
	for _, n := range h.names {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestDirectory(t *testing.T) {
	s := openSite(t)
	bob, err := s.CreateUser(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	laptop := s.laptop("laptop")
	cam := s.camera("cam")
	bobs := s.joined(CreateKey{UserID: bob.ID}, "bobs")
	var h held
	want := func(full bool, names string) *api.Directory {
		t.Helper()
		dir := h.fetch(t, s, laptop)
		if h.list() != names || dir.Full != full {
			t.Errorf("holds %q (full %v), want %q (full %v)", h.list(), dir.Full, names, full)
		}
		return dir
	}
	want(true, "cam")
	if dir := want(false, "cam"); len(dir.Peers)+len(dir.Removed) != 0 {
		t.Errorf("a delta of nothing: %+v", dir)
	}
	before, _ := s.index.versions(laptop.id)
	names := s.Versions(laptop.id).Names
	s.joined(CreateKey{UserID: bob.ID}, "bobs-phone")
	if now, _ := s.index.versions(laptop.id); now != before {
		t.Error("another user's device nudges this one")
	}
	if s.Versions(laptop.id).Names == names {
		t.Error("who looks names up does not hear of a new one")
	}
	door := s.camera("door")
	want(false, "cam door")
	of := h.version
	if _, err := s.RenameDevice(t.Context(), cam.id, "hall"); err != nil {
		t.Fatal(err)
	}
	// Who may not see it, or holds another network's, is told nothing.
	for _, c := range []struct {
		who   cert.NodeID
		since api.Version
		told  bool
	}{
		{laptop.id, of, true}, {bobs.id, of, false}, {cam.id, of, false}, {laptop.id, api.Version{}, false},
		{laptop.id, api.Version{Epoch: of.Epoch + 1, N: of.N}, false}, {laptop.id, s.Versions(laptop.id).Directory, false}, {cert.NodeID{1}, of, false},
	} {
		ch := s.Changes(t.Context(), c.who, c.since)
		if (ch != nil) != c.told || ch != nil && (len(ch.Peers) != 1 || ch.Since != of) {
			t.Errorf("%s since %v: %+v", c.who, c.since, ch)
		}
	}
	want(false, "door hall")
	if _, err := s.DeleteDevice(t.Context(), door.id); err != nil {
		t.Fatal(err)
	}
	if dir := want(false, "hall"); !slices.Equal(dir.Removed, []string{door.id.String()}) {
		t.Errorf("removed %v", dir.Removed)
	}
	// What reaches nobody holds nothing, and is never behind.
	for _, d := range []*device{cam} {
		dir, err := d.Directory(t.Context(), api.Version{})
		if err != nil || len(dir.Peers) != 0 || !dir.Version.IsZero() || !s.Versions(d.id).Directory.IsZero() {
			t.Errorf("a tagged device: %+v, %v", dir, err)
		}
	}
	var b held
	b.fetch(t, s, bobs)
	if b.list() != "bobs-phone" {
		t.Errorf("bob holds %q", b.list())
	}
	// A version of another epoch, or of the future, or before what is kept.
	for _, v := range []api.Version{{Epoch: h.version.Epoch + 1, N: h.version.N}, {Epoch: h.version.Epoch, N: h.version.N + 100}} {
		h.version = v
		want(true, "hall")
	}
	s.clock.Add(removedKeep + time.Hour)
	if err := s.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.version.N = 3
	want(true, "hall")
}

// A random life of the network: whoever follows by deltas holds what whoever
// asks anew is given, and the relay's versions agree.
func TestDeltasEqualFull(t *testing.T) {
	s := openSite(t)
	laptop := s.laptop("laptop")
	tok := s.token(CreateKey{Reusable: true, Tags: []string{"device"}})
	var live []*device
	var h, told held
	pushes := 0
	for i := range 150 {
		switch {
		case i%3 == 0 || len(live) == 0:
			d := newDevice(t, s.Service)
			if err := d.join(t, tok, fmt.Sprintf("d%d", i%7)); err != nil {
				t.Fatal(err)
			}
			live = append(live, d)
		case i%5 == 1:
			d := live[i%len(live)]
			live = slices.DeleteFunc(live, func(o *device) bool { return o == d })
			if err := d.Logout(t.Context()); err != nil {
				t.Fatal(err)
			}
		case i%5 == 2:
			if _, err := s.RenameDevice(t.Context(), live[i%len(live)].id, fmt.Sprintf("n%d", i)); err != nil {
				t.Fatal(err)
			}
		case i%5 == 3: // comes back with the same key
			d := live[0]
			if err := d.Logout(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := d.join(t, tok, "back"); err != nil {
				t.Fatal(err)
			}
		default:
			h.fetch(t, s, laptop)
		}
		if i%8 != 0 && told.follow(t, s, laptop) {
			pushes++
		}
	}
	if told.follow(t, s, laptop); pushes < 50 {
		t.Errorf("%d of 150 changes were told", pushes)
	}
	h.fetch(t, s, laptop)
	var full held
	full.fetch(t, s, laptop)
	if h.list() != full.list() || told.list() != full.list() || len(full.names) != len(live) {
		t.Errorf("by deltas  %s\nin full    %s\nlive       %d", h.list(), full.list(), len(live))
	}
	// A server that starts anew says the same.
	v, _ := s.index.versions(laptop.id)
	x := newIndex(s.Network(), s.index.policy)
	if err := s.store.Read(t.Context(), x.load); err != nil {
		t.Fatal(err)
	}
	if got, _ := x.versions(laptop.id); got != v {
		t.Errorf("after a restart %+v, before %+v", got, v)
	}
}

func TestLookup(t *testing.T) {
	s := openSite(t)
	bob, err := s.CreateUser(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	laptop, cam := s.laptop("laptop"), s.camera("cam")
	bobs := s.joined(CreateKey{UserID: bob.ID}, "bobs")
	self := cam.res.Config.Self
	for _, q := range [][2]string{
		{"name", "cam"}, {"name", "CAM"}, {"name", "cam."}, {"name", "cam.weft.internal"}, {"name", "Cam.Weft.Internal."},
		{"ip", self.IPv4}, {"ip", self.IPv6}, {"ip", "::ffff:" + self.IPv4}, {"id", self.ID},
	} {
		p, err := laptop.Lookup(t.Context(), q[0], q[1])
		if err != nil {
			t.Errorf("%v: %v", q, err)
			continue
		}
		if string(p.Certificate) != string(cam.res.Certificate) || p.Online || p.LastSeen != nil || p.Relay != "" {
			t.Errorf("%v: %+v", q, p)
		}
	}
	// Unknown and invisible look the same.
	for _, q := range [][2]string{
		{"name", "nobody"}, {"name", "bobs"}, {"id", bobs.id.String()}, {"ip", bobs.res.Config.Self.IPv4}, {"ip", "10.0.0.1"}, {"ip", "fe80::1"},
		{"name", "cam.example.com"}, {"name", strings.Repeat("a", 1000)}, {"name", "."}, {"id", strings.Repeat("0", 32)},
	} {
		_, err := laptop.Lookup(t.Context(), q[0], q[1])
		wantCode(t, err, 404, api.CodeNotFound)
	}
	_, err = cam.Lookup(t.Context(), "name", "laptop") // reaches nobody
	wantCode(t, err, 404, api.CodeNotFound)
	if _, err := cam.Lookup(t.Context(), "name", "cam"); err != nil {
		t.Errorf("itself: %v", err)
	}
	for _, q := range [][2]string{{"ip", "cam"}, {"id", "cam"}, {"name", ""}, {"what", "x"}} {
		_, err := laptop.Lookup(t.Context(), q[0], q[1])
		wantCode(t, err, 400, api.CodeBadRequest)
	}
	// Presence is a hint in the answer.
	at := s.clock.Now()
	s.Presence(cam.id, 5, true, at, netip.MustParseAddr("192.0.2.7"))
	p, err := laptop.Lookup(t.Context(), "name", "cam")
	if err != nil || !p.Online || p.Relay != laptop.res.Config.Relays[0].ID || p.LastSeen == nil {
		t.Errorf("online: %+v, %v", p, err)
	}
}

func TestConfigVersions(t *testing.T) {
	s := openSite(t)
	laptop := s.laptop("laptop")
	c, err := laptop.Config(t.Context(), api.Version{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Version != laptop.res.Config.Version {
		t.Errorf("config at %v, at the join %v", c.Version, laptop.res.Config.Version)
	}
	if c, err := laptop.Config(t.Context(), c.Version); c != nil || err != nil {
		t.Errorf("unchanged: %+v, %v", c, err)
	}
	s.camera("cam")
	if c, err := laptop.Config(t.Context(), c.Version); c != nil || err != nil {
		t.Errorf("another joined: %+v, %v", c, err)
	}
	if _, err := s.RenameDevice(t.Context(), laptop.id, "renamed"); err != nil {
		t.Fatal(err)
	}
	c2, err := laptop.Config(t.Context(), c.Version)
	if err != nil || c2 == nil || c2.Self.FQDN != "renamed.weft.internal" {
		t.Fatalf("renamed: %+v, %v", c2, err)
	}
	csr, _ := cert.NewCSR(laptop.key)
	res, err := laptop.Renew(t.Context(), api.RenewRequest{Protocol: api.Protocol, CSR: csr})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.auth.Roots.VerifyNode(res.Certificate, s.clock.Now(), nil); err != nil || n.FQDN != c2.Self.FQDN {
		t.Errorf("renewed after the rename: %v, %v", n, err)
	}
	if c, err := laptop.Config(t.Context(), c2.Version); c != nil || err != nil {
		t.Errorf("after the renewal: %+v, %v", c, err)
	}
}

func TestManyVisible(t *testing.T) {
	s := openSite(t)
	laptop := s.laptop("laptop")
	preload(t, s, lookupAbove+5)
	c, err := laptop.Config(t.Context(), laptop.res.Config.Version)
	if err != nil || c == nil || !c.Lookup || !c.Versions.Directory.IsZero() {
		t.Fatalf("above %d visible nodes: %+v, %v", lookupAbove, c, err)
	}
	_, err = laptop.Directory(t.Context(), api.Version{})
	wantCode(t, err, 409, api.CodeTooLarge)
	if _, err := laptop.Lookup(t.Context(), "name", "sensor-1000"); err != nil {
		t.Error(err)
	}
}

// A device that was off for a year comes back by itself, a deleted one never.
func TestRenew(t *testing.T) {
	s := openSite(t)
	d := s.laptop("laptop")
	s.clock.Add(366 * 24 * time.Hour)
	csr, _ := cert.NewCSR(d.key)
	req := api.RenewRequest{Protocol: api.Protocol, CSR: csr, OS: "plan9/386", Software: "2.0"}
	res, err := d.Renew(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.auth.Roots.VerifyNode(res.Certificate, s.clock.Now(), nil)
	if err != nil || n.ID != d.id {
		t.Fatalf("%v, %v", n, err)
	}
	info, err := s.Device(t.Context(), Root(), "laptop")
	if err != nil || info.OS != "plan9/386" || info.Software != "2.0" {
		t.Errorf("%+v, %v", info, err)
	}
	other := newDevice(t, s.Service)
	bad := req
	bad.CSR, _ = cert.NewCSR(other.key)
	_, err = d.Renew(t.Context(), bad)
	wantCode(t, err, 401, api.CodeUnauthorized)
	if _, err := s.DeleteDevice(t.Context(), d.id); err != nil {
		t.Fatal(err)
	}
	_, err = d.Renew(t.Context(), req)
	wantCode(t, err, 401, api.CodeRevoked)
}

// A33, at the server: a deletion revokes every certificate that could still
// be valid, tells the relay at once, and the list only ever grows in number.
func TestDelete(t *testing.T) {
	s := openSite(t)
	laptop, cam := s.laptop("laptop"), s.camera("cam")
	s.clock.Add(65 * 24 * time.Hour)
	csr, _ := cert.NewCSR(cam.key)
	res, err := cam.Renew(t.Context(), api.RenewRequest{Protocol: api.Protocol, CSR: csr})
	if err != nil {
		t.Fatal(err)
	}
	before, err := s.auth.Roots.VerifyCRL(s.CRL())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeleteDevice(t.Context(), cam.id); err != nil {
		t.Fatal(err)
	}
	der, _, err := laptop.CRL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	crl, err := s.auth.Roots.VerifyCRL(der)
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range [][]byte{cam.res.Certificate, res.Certificate} {
		if _, err := s.auth.Roots.VerifyNode(raw, s.clock.Now(), crl); !errors.Is(err, cert.ErrRevoked) {
			t.Errorf("a certificate of the deleted node: %v", err)
		}
	}
	if _, err := s.auth.Roots.VerifyNode(laptop.res.Certificate, s.clock.Now(), crl); err != nil {
		t.Errorf("another node: %v", err)
	}
	if crl.Number <= before.Number || crl.Number < uint64(s.clock.Now().Unix()) || s.Versions(laptop.id).CRL != crl.Number {
		t.Errorf("CRL number %d after %d, version %+v", crl.Number, before.Number, s.Versions(laptop.id))
	}
	if !slices.Equal(s.told.kicked, []cert.NodeID{cam.id}) || len(s.told.crls) != 1 || !slices.Equal(s.told.revoked[0], []cert.NodeID{cam.id}) {
		t.Errorf("the relay was told %+v", s.told)
	}
	if _, err := s.DeleteDevice(t.Context(), cam.id); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleting twice: %v", err)
	}
	// A clock that goes back takes no number along.
	s.clock.Add(-10 * 365 * 24 * time.Hour)
	if _, err := s.DeleteDevice(t.Context(), laptop.id); err != nil {
		t.Fatal(err)
	}
	again, err := s.auth.Roots.VerifyCRL(s.CRL())
	if err != nil || again.Number <= crl.Number || again.Len() < 3 {
		t.Errorf("CRL %d of %d after %d, %v", again.Number, again.Len(), crl.Number, err)
	}
	// What has expired need not be listed.
	s.clock.Add(20 * 365 * 24 * time.Hour)
	third := s.laptop("third")
	s.DeleteDevice(t.Context(), third.id)
	if crl, _ := s.auth.Roots.VerifyCRL(s.CRL()); crl.Len() != 1 {
		t.Errorf("%d entries", crl.Len())
	}
}

// When nodes were last seen, and which config they have, is stored at the next attempt if a write
// fails.
func TestSeenStoredLater(t *testing.T) {
	broken := false
	s := openSite(t, func(o *Options) {
		o.BeforeCommit = func() error {
			if broken {
				return errors.New("disk full")
			}
			return nil
		}
	})
	d := s.laptop("laptop")
	left := s.clock.Now().Add(2 * time.Second)
	s.Presence(d.id, 1, true, s.clock.Now(), netip.Addr{})
	s.Presence(d.id, 1, false, left, netip.Addr{})
	if _, err := Do(t.Context(), s.Service, Root(), RenameDevice{ID: d.id, Name: "hall"}); err != nil {
		t.Fatal(err)
	}
	now := s.Versions(d.id)
	s.Holds(d.id, now)
	broken = true
	if err := s.flushSeen(false); err == nil {
		t.Fatal("a write that fails is no error")
	}
	broken = false
	if err := s.flushSeen(false); err != nil {
		t.Fatal(err)
	}
	var told uint64
	err := s.store.Read(t.Context(), func(r *store.Reader) error {
		n, err := r.Node(s.network, d.id)
		if err == nil && !n.Seen.Equal(left) {
			t.Errorf("last seen %v, want %v", n.Seen, left)
		}
		return errors.Join(err, r.EachBrief(s.network, func(b store.Brief) error { told = b.ToldN; return nil }))
	})
	if err != nil || told != now.Config.N {
		t.Errorf("the device has config %d, stored is %d: %v", now.Config.N, told, err)
	}
	if seen := s.presence.Flush(s.clock.Now(), false); len(seen) != 0 {
		t.Errorf("stored again: %v", seen)
	}
}

// A28 and last seen.
func TestPresence(t *testing.T) {
	s := openSite(t)
	d := s.laptop("laptop")
	addr := netip.MustParseAddr("192.0.2.7")
	t0 := s.clock.Now()
	s.Presence(d.id, 1, true, t0, addr)
	s.Presence(d.id, 2, true, t0, addr)
	s.Presence(d.id, 1, false, t0.Add(time.Second), addr) // late
	if st, _ := s.presence.Get(d.id); !st.Online {
		t.Error("the late end of an old connection counted")
	}
	s.Presence(d.id, 2, false, t0.Add(2*time.Second), addr)
	s.Presence(d.id, 2, true, t0.Add(3*time.Second), addr) // out of order
	if st, _ := s.presence.Get(d.id); st.Online {
		t.Error("a connection came back from the dead")
	}
	if err := s.flushSeen(false); err != nil {
		t.Fatal(err)
	}
	info, err := s.Device(t.Context(), Root(), "laptop")
	if err != nil || info.LastSeen == nil || !info.LastSeen.Equal(t0.Add(2*time.Second)) {
		t.Errorf("%+v, %v", info, err)
	}
	var row store.Node
	s.store.Read(t.Context(), func(r *store.Reader) (err error) { row, err = r.Node(s.network, d.id); return err })
	if !row.Seen.Equal(t0.Add(2 * time.Second)) {
		t.Errorf("stored %v", row.Seen)
	}
	s.DeleteDevice(t.Context(), d.id)
	s.Presence(d.id, 3, true, t0, addr)
	if _, ok := s.presence.Get(d.id); ok || s.presence.Online() != 0 {
		t.Error("a deleted node is present")
	}
}

func TestEphemeral(t *testing.T) {
	s := openSite(t)
	gone := s.joined(CreateKey{Ephemeral: true}, "gone")
	never := s.joined(CreateKey{Ephemeral: true}, "never")
	here := s.joined(CreateKey{Ephemeral: true}, "here")
	stays := s.laptop("stays")
	addr := netip.MustParseAddr("192.0.2.7")
	for i, d := range []*device{gone, here, stays} {
		s.Presence(d.id, uint64(i+1), true, s.clock.Now(), addr)
	}
	s.clock.Add(ephemeralAfter - time.Minute)
	s.Presence(gone.id, 1, false, s.clock.Now(), addr)
	s.Presence(stays.id, 3, false, s.clock.Now(), addr)
	exists := func(d *device) bool { _, ok := s.index.has(d.id); return ok }
	for _, step := range []struct {
		wait        time.Duration
		gone, never bool
	}{{0, true, true}, {time.Minute, true, false}, {ephemeralAfter - time.Minute, false, false}} {
		s.clock.Add(step.wait)
		if err := s.upkeep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if exists(gone) != step.gone || exists(never) != step.never || !exists(here) || !exists(stays) {
			t.Errorf("after %s: gone %v, never %v, here %v, stays %v", step.wait, exists(gone), exists(never), exists(here), exists(stays))
		}
	}
}

// What is in use is not deleted from under its users; deleting one user
// leaves the others' things alone.
func TestDeleteUser(t *testing.T) {
	s := openSite(t)
	bob, err := s.CreateUser(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	eve, err := s.CreateUser(t.Context(), "eve")
	if err != nil {
		t.Fatal(err)
	}
	s.joined(CreateKey{UserID: bob.ID}, "bobs")
	if err := s.DeleteUser(t.Context(), bob.ID); !errors.Is(err, ErrTaken) {
		t.Errorf("a user with devices: %v", err)
	}
	if err := s.DeleteUser(t.Context(), eve.ID); err != nil {
		t.Fatal(err)
	}
	keys, err := s.Keys(t.Context(), Actor{UserID: bob.ID, Role: RoleMember, Via: ViaConsole}, 10)
	if err != nil || len(keys) != 1 {
		t.Errorf("bob has %d keys, %v", len(keys), err)
	}
	for _, bad := range []string{"", "a b", "../x", "bob", strings.Repeat("a", 65)} {
		if _, err := s.CreateUser(t.Context(), bad); err == nil {
			t.Errorf("user %q was made", bad)
		}
	}
}

// Of many policies at once the last one acknowledged is in force, and an
// invalid one changes nothing.
func TestPolicyRace(t *testing.T) {
	s := openSite(t)
	laptop, cam := s.laptop("laptop"), s.camera("cam")
	text := func(port int) string {
		return fmt.Sprintf(`{"rules":[{"from":["user:*"],"to":["self"],"ports":["tcp:%d"]}]}`, port)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := s.SetPolicy(t.Context(), text(1000+i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := s.SetPolicy(t.Context(), text(22)); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"{", `{"rules":[{"from":["x"],"to":["*"],"ports":["*"]}]}`, `{"rule":[]}`} {
		if err := s.SetPolicy(t.Context(), bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	c, err := cam.Config(t.Context(), cam.res.Config.Version)
	if err != nil || c == nil || len(c.Rules) != 1 || c.Rules[0].Ports[0].First != 22 {
		t.Fatalf("%+v, %v", c, err)
	}
	var n store.Network
	s.store.Read(t.Context(), func(r *store.Reader) (err error) { n, err = r.Network(); return err })
	if n.Policy != text(22) || n.ConfigN != c.Version.N {
		t.Errorf("the database has %q at %d, the config is at %v", n.Policy, n.ConfigN, c.Version)
	}
	// Who sees whom follows the policy.
	h := held{version: laptop.res.Config.Versions.Directory}
	h.fetch(t, s, laptop)
	if err := s.SetPolicy(t.Context(), `{"rules":[]}`); err != nil {
		t.Fatal(err)
	}
	_, err = laptop.Lookup(t.Context(), "name", "cam")
	wantCode(t, err, 404, api.CodeNotFound)
	if c, err := laptop.Config(t.Context(), api.Version{}); err != nil || c.Directory || len(c.Rules) != 0 {
		t.Errorf("with no rule: %+v, %v", c, err)
	}
	if err := s.SetPolicy(t.Context(), `{"rules":[{"from":["tag:device"],"to":["user:admin"],"ports":["udp:53"]}]}`); err != nil {
		t.Fatal(err)
	}
	if _, err := cam.Lookup(t.Context(), "name", "laptop"); err != nil {
		t.Errorf("a tag that may initiate: %v", err)
	}
}
