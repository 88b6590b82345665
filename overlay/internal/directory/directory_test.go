package directory

import (
	"fmt"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// fakeNode returns a node as from a verified certificate.
func fakeNode(i int, name string) *cert.Node {
	n := &cert.Node{ID: cert.NodeID{byte(i), byte(i >> 8), 1}, Raw: []byte(fmt.Sprintf("%d:%s", i, name))}
	n.Name, n.FQDN, n.Serial = name, name+".weft.internal", big.NewInt(int64(i))
	n.IPv4 = netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
	n.IPv6 = netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)})
	return n
}

// fakeVerify accepts certificates of the form "INDEX:NAME".
func fakeVerify(der []byte) (*cert.Node, error) {
	var i int
	var name string
	if _, err := fmt.Sscanf(string(der), "%d:%s", &i, &name); err != nil {
		return nil, cert.ErrUntrusted
	}
	return fakeNode(i, name), nil
}

func listed(nodes ...*cert.Node) (out []api.Peer) {
	for _, n := range nodes {
		out = append(out, api.Peer{Certificate: n.Raw, Online: true})
	}
	return out
}

func TestDirectoryFullEqualsDeltas(t *testing.T) {
	full, deltas := New(time.Now), New(time.Now)
	a, b, c := fakeNode(1, "a"), fakeNode(2, "b"), fakeNode(3, "c")
	renamed := fakeNode(1, "kitchen")
	deltas.Update(&api.Directory{Version: api.Version{Epoch: 1, N: 1}, Full: true, Peers: listed(a, b)}, fakeVerify)
	deltas.Update(&api.Directory{Version: api.Version{Epoch: 1, N: 2}, Peers: listed(renamed), Removed: []string{b.ID.String()}}, fakeVerify)
	deltas.Update(&api.Directory{Version: api.Version{Epoch: 1, N: 3}, Peers: listed(c)}, fakeVerify)
	full.Update(&api.Directory{Version: api.Version{Epoch: 1, N: 3}, Full: true, Peers: listed(renamed, c)}, fakeVerify)
	for _, key := range []string{"a", "b", "c", "kitchen", a.IPv4.String(), b.IPv4.String(), c.IPv6.String()} {
		x, _ := full.Find(key)
		y, _ := deltas.Find(key)
		if (x == nil) != (y == nil) || x != nil && x.Node.ID != y.Node.ID {
			t.Errorf("%s: full %v, deltas %v", key, x, y)
		}
	}
	if k, _ := deltas.Find("a"); k != nil {
		t.Error("the old name of a renamed node still resolves")
	}
}

func TestDirectoryBadRowHidesNobody(t *testing.T) {
	d := New(time.Now)
	refused := d.Update(&api.Directory{Full: true, Peers: append([]api.Peer{{Certificate: []byte("junk")}}, listed(fakeNode(1, "a"))...)}, fakeVerify)
	if k, _ := d.Find("a"); k == nil || refused != 1 {
		t.Errorf("found %v, refused %d", k, refused)
	}
}

// An address that now belongs to another node is not found under the old name.
func TestReusedAddressLeavesOldName(t *testing.T) {
	d := New(time.Now)
	old, fresh := fakeNode(1, "old"), fakeNode(1, "new")
	fresh.ID = cert.NodeID{9}
	d.Learn(&Entry{Node: old})
	d.Learn(&Entry{Node: fresh})
	if k, _ := d.Find("old"); k != nil {
		t.Error("the old name answers with an address that is another's now")
	}
	if k, _ := d.Find(fresh.IPv4.String()); k == nil || k.Node.ID != fresh.ID {
		t.Errorf("address belongs to %v", k)
	}
}

func TestLookedUpNodesAreBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	d := New(func() time.Time { now = now.Add(time.Second); return now })
	d.Update(&api.Directory{Full: true, Peers: listed(fakeNode(60000, "listed"))}, fakeVerify)
	for i := range maxLookedUp + 50 {
		d.Learn(&Entry{Node: fakeNode(i, fmt.Sprintf("n%d", i))})
		d.Find("n0") // in use, so it stays
	}
	all := d.All()
	if len(all) > maxLookedUp+1 {
		t.Errorf("%d nodes kept, want at most %d", len(all), maxLookedUp+1)
	}
	for name, want := range map[string]bool{"listed": true, "n0": true, "n5": false, fmt.Sprintf("n%d", maxLookedUp+49): true} {
		if k, _ := d.Find(name); (k != nil) != want {
			t.Errorf("%s kept: %v, want %v", name, k != nil, want)
		}
	}
}

func TestNegativeAnswersEnd(t *testing.T) {
	now := time.Unix(1000, 0)
	d := New(func() time.Time { return now })
	d.SetMissing("ghost")
	if _, missing := d.Find("ghost"); !missing {
		t.Error("asked again at once")
	}
	now = now.Add(negativeTTL)
	if _, missing := d.Find("ghost"); missing {
		t.Error("still missing after its time")
	}
	d.SetMissing("ghost")
	d.Update(&api.Directory{}, fakeVerify)
	if _, missing := d.Find("ghost"); missing {
		t.Error("still missing after the directory changed")
	}
}

func TestNameKey(t *testing.T) {
	for in, want := range map[string]string{
		"kitchen-pi": "kitchen-pi", "Kitchen-Pi.": "kitchen-pi", "kitchen-pi.weft.internal": "kitchen-pi", "KITCHEN-PI.WEFT.INTERNAL.": "kitchen-pi",
		"100.64.0.7": "100.64.0.7", "[fd00::7]": "fd00::7", "FD00::7": "fd00::7", "Küche": "xn--kche-0ra", "KÜCHE.weft.internal.": "xn--kche-0ra", "xn--KCHE-0ra": "xn--kche-0ra", "::ffff:100.64.0.7": "100.64.0.7",
		"": "", ".": "", "a.b": "", "example.org": "", "../x": "", "a b": "", "a\"\nProxyCommand x": "", "<script>": "<script>",
	} {
		got, ok := Key(in, "weft.internal")
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v, want %q", in, got, ok, want)
		}
	}
}

// TestRenamedNodeLeavesLookedUpName: a lookup becomes stale after a while, and a name
// that no longer exists finds nobody.
func TestRenamedNodeLeavesLookedUpName(t *testing.T) {
	now := time.Unix(1000, 0)
	d := New(func() time.Time { return now })
	d.Update(&api.Directory{Full: true, Peers: listed(fakeNode(1, "listed"))}, fakeVerify)
	d.Learn(&Entry{Node: fakeNode(2, "old")})
	l, _ := d.Find("listed")
	k, _ := d.Find("old")
	if k == nil || d.Stale(k) || d.Stale(l) {
		t.Fatal("old at once")
	}
	now = now.Add(lookedUpTTL + time.Second)
	if !d.Stale(k) || d.Stale(l) {
		t.Error("believed for longer, or the directory is not")
	}
	d.SetMissing("old") // the server says so
	d.SetMissing("listed")
	if got, missing := d.Find("old"); got != nil || !missing {
		t.Error("the former name is still known")
	}
	if got, _ := d.Find("listed"); got == nil {
		t.Error("a node of the directory is gone")
	}
	now = now.Add(negativeTTL)
	if got, _ := d.Find("old"); got != nil {
		t.Error("the former name is back")
	}
	if d.Get(k.Node.ID) == nil {
		t.Error("the node itself is forgotten, which may have a tunnel")
	}
	d.Learn(&Entry{Node: fakeNode(2, "new")})
	if got, _ := d.Find("new"); got == nil {
		t.Error("the new name is not known")
	}
	if got, _ := d.Find(k.Node.IPv4.String()); got == nil || got.Node.Name != "new" {
		t.Error("the address is not the new name's")
	}
}

// A former name finds its device until it expires, and never wins over a name in another
// device's certificate.
func TestFormerNameInDirectory(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	d := New(func() time.Time { return now })
	peers := listed(fakeNode(1, "hall"), fakeNode(2, "cam"))
	peers[0].Aliases = []api.Alias{{Name: "kitchen-pi", Until: now.Add(time.Hour)}, {Name: "cam", Until: now.Add(time.Hour)}, {Name: "a.b", Until: now.Add(time.Hour)}, {Name: "ended", Until: now}}
	d.Update(&api.Directory{Full: true, Peers: peers}, fakeVerify)
	want := func(key, name string) {
		t.Helper()
		k, _ := d.Find(key)
		if k == nil && name != "" || k != nil && k.Node.Name != name {
			t.Errorf("%s is %+v, want %q", key, k, name)
		}
	}
	want("kitchen-pi", "hall")
	want("cam", "cam")
	want("a.b", "")
	want("ended", "")
	d.SetPresence(Presence{fakeNode(1, "hall").ID, false, now})
	d.SetRelay(fakeNode(1, "hall").ID, "r")
	want("kitchen-pi", "hall")
	// An introduction does not report aliases.
	d.Learn(&Entry{Node: fakeNode(1, "hall")})
	want("kitchen-pi", "hall")
	if s := d.Saved(); len(s.Peers) != 2 || len(s.Peers[0].Aliases)+len(s.Peers[1].Aliases) == 0 {
		t.Errorf("saved without former names: %+v", s.Peers)
	}
	now = now.Add(2 * time.Hour)
	want("kitchen-pi", "")
	now = now.Add(-2 * time.Hour)
	d.Update(&api.Directory{Peers: listed(fakeNode(1, "hall"))}, fakeVerify) // removed by the owner
	want("kitchen-pi", "")
	peers[0].Aliases = make([]api.Alias, 100)
	for i := range peers[0].Aliases {
		peers[0].Aliases[i] = api.Alias{Name: fmt.Sprintf("n%d", i), Until: now.Add(time.Hour)}
	}
	d.Update(&api.Directory{Peers: peers[:1]}, fakeVerify)
	want("n0", "hall")
	want("n99", "")
	d.Forget(func(serial *big.Int) bool { return serial.Cmp(fakeNode(1, "hall").Serial) == 0 })
	want("n0", "")
	if len(d.byAlias) != 0 {
		t.Errorf("%d former names of nobody", len(d.byAlias))
	}
}

// TestLookedUpNamesFollowChanges: lookups from before a change of names become stale, and
// only these; an answer that was in flight counts as older.
func TestLookedUpNamesFollowChanges(t *testing.T) {
	d := New(time.Now)
	v := func(n uint64) api.Version { return api.Version{Epoch: 7, N: n} }
	if d.SetNamesVersion(v(1)) || !d.NamesVersion().IsZero() {
		t.Error("a node that looked nothing up follows names")
	}
	round, tell := d.MarkUsed()
	if !tell || d.NamesVersion() != v(1) {
		t.Errorf("held %v, tell %v", d.NamesVersion(), tell)
	}
	d.Learn(&Entry{Node: fakeNode(1, "a"), Round: round})
	d.SetMissing("ghost")
	late, tell := d.MarkUsed()
	if tell || d.SetNamesVersion(v(1)) || d.SetNamesVersion(api.Version{}) {
		t.Error("told twice, or of no change")
	}
	before := d.Changes()
	if !d.SetNamesVersion(v(2)) || d.Changes() == before || !d.NamesVersion().IsZero() {
		t.Errorf("a change is not taken; held %v", d.NamesVersion())
	}
	if k, _ := d.Find("a"); k == nil || !d.Stale(k) {
		t.Error("what was looked up before is not asked for again")
	}
	if _, missing := d.Find("ghost"); missing {
		t.Error("a name that may have come to be is still missing")
	}
	d.Learn(&Entry{Node: fakeNode(2, "b"), Round: late})
	if k, _ := d.Find("b"); !d.Stale(k) {
		t.Error("an answer from before the change is believed")
	}
	round, tell = d.MarkUsed()
	d.Learn(&Entry{Node: fakeNode(1, "c"), Round: round})
	if k, _ := d.Find("c"); !tell || d.Stale(k) || d.NamesVersion() != v(2) {
		t.Error("what is looked up after the change is not believed")
	}
}

// A report of presence counts as a change only if something changes, and does not bring
// back a name that SetMissing has removed.
func TestPresenceReports(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	d := New(func() time.Time { return now })
	a := fakeNode(1, "a")
	d.Learn(&Entry{Node: a, Online: true})
	count := d.Changes()
	now = now.Add(time.Minute)
	d.SetPresence(Presence{a.ID, true, now}, Presence{fakeNode(2, "b").ID, true, now})
	if k := d.Peek(a.ID); d.Changes() != count || !k.PresenceAt.Equal(now) || !k.LastSeen.Equal(now) || d.Peek(fakeNode(2, "b").ID) != nil {
		t.Errorf("online still: %+v, %d changes", k, d.Changes()-count)
	}
	d.SetMissing("a")
	count = d.Changes()
	d.SetPresence(Presence{ID: a.ID})
	if k := d.Peek(a.ID); k.Online || !k.LastSeen.Equal(now) || d.Changes() == count {
		t.Errorf("gone: %+v", k)
	}
	if k, _ := d.Find("a"); k != nil {
		t.Errorf("a name that the server knows no more leads to %+v", k)
	}
}

// When the server does not know whether a peer is online, the last report still counts.
func TestPresenceNotReported(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	d := New(func() time.Time { return now })
	a := fakeNode(1, "a")
	d.Learn(&Entry{Node: a, NoPresence: true})
	if k := d.Peek(a.ID); k.Online || !k.PresenceAt.IsZero() {
		t.Errorf("nobody has said anything: %+v", k)
	}
	d.Learn(&Entry{Node: a, Online: true})
	was := now
	now = now.Add(time.Minute)
	d.Learn(&Entry{Node: a, NoPresence: true})
	if k := d.Peek(a.ID); !k.Online || !k.PresenceAt.Equal(was) {
		t.Errorf("it was said to be online: %+v", k)
	}
}
