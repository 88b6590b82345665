package overlay

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
)

// fakeNode is a node as a verified certificate would say.
func fakeNode(i int, name string) *cert.Node {
	n := &cert.Node{ID: cert.NodeID{byte(i), byte(i >> 8), 1}, Raw: []byte(fmt.Sprintf("%d:%s", i, name))}
	n.Name, n.FQDN = name, name+".weft.internal"
	n.IPv4 = netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
	n.IPv6 = netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)})
	return n
}

// fakeVerify believes "INDEX:NAME" certificates.
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
	full, deltas := newDirectory(time.Now), newDirectory(time.Now)
	a, b, c := fakeNode(1, "a"), fakeNode(2, "b"), fakeNode(3, "c")
	renamed := fakeNode(1, "kitchen")
	deltas.update(&api.Directory{Version: api.Version{Epoch: 1, N: 1}, Full: true, Peers: listed(a, b)}, fakeVerify)
	deltas.update(&api.Directory{Version: api.Version{Epoch: 1, N: 2}, Peers: listed(renamed), Removed: []string{b.ID.String()}}, fakeVerify)
	deltas.update(&api.Directory{Version: api.Version{Epoch: 1, N: 3}, Peers: listed(c)}, fakeVerify)
	full.update(&api.Directory{Version: api.Version{Epoch: 1, N: 3}, Full: true, Peers: listed(renamed, c)}, fakeVerify)
	for _, key := range []string{"a", "b", "c", "kitchen", a.IPv4.String(), b.IPv4.String(), c.IPv6.String()} {
		x, _ := full.find(key)
		y, _ := deltas.find(key)
		if (x == nil) != (y == nil) || x != nil && x.node.ID != y.node.ID {
			t.Errorf("%s: full %v, deltas %v", key, x, y)
		}
	}
	if k, _ := deltas.find("a"); k != nil {
		t.Error("the old name of a renamed node still resolves")
	}
}

func TestDirectoryBadRowHidesNobody(t *testing.T) {
	d := newDirectory(time.Now)
	refused := d.update(&api.Directory{Full: true, Peers: append([]api.Peer{{Certificate: []byte("junk")}}, listed(fakeNode(1, "a"))...)}, fakeVerify)
	if k, _ := d.find("a"); k == nil || refused != 1 {
		t.Errorf("found %v, refused %d", k, refused)
	}
}

// D13: an address that is given to another is never found under the old name.
func TestD13ReusedAddressLeavesOldName(t *testing.T) {
	d := newDirectory(time.Now)
	old, fresh := fakeNode(1, "old"), fakeNode(1, "new")
	fresh.ID = cert.NodeID{9}
	d.learn(&known{node: old})
	d.learn(&known{node: fresh})
	if k, _ := d.find("old"); k != nil {
		t.Error("the old name answers with an address that is another's now")
	}
	if k, _ := d.find(fresh.IPv4.String()); k == nil || k.node.ID != fresh.ID {
		t.Errorf("address belongs to %v", k)
	}
}

func TestLookedUpNodesAreBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	d := newDirectory(func() time.Time { now = now.Add(time.Second); return now })
	d.update(&api.Directory{Full: true, Peers: listed(fakeNode(60000, "listed"))}, fakeVerify)
	for i := range maxLookedUp + 50 {
		d.learn(&known{node: fakeNode(i, fmt.Sprintf("n%d", i))})
		d.find("n0") // in use, so it stays
	}
	all := d.all()
	if len(all) > maxLookedUp+1 {
		t.Errorf("%d nodes kept, want at most %d", len(all), maxLookedUp+1)
	}
	for name, want := range map[string]bool{"listed": true, "n0": true, "n5": false, fmt.Sprintf("n%d", maxLookedUp+49): true} {
		if k, _ := d.find(name); (k != nil) != want {
			t.Errorf("%s kept: %v, want %v", name, k != nil, want)
		}
	}
}

func TestNegativeAnswersEnd(t *testing.T) {
	now := time.Unix(1000, 0)
	d := newDirectory(func() time.Time { return now })
	d.setMissing("ghost")
	if _, missing := d.find("ghost"); !missing {
		t.Error("asked again at once")
	}
	now = now.Add(negativeTTL)
	if _, missing := d.find("ghost"); missing {
		t.Error("still missing after its time")
	}
	d.setMissing("ghost")
	d.update(&api.Directory{}, fakeVerify)
	if _, missing := d.find("ghost"); missing {
		t.Error("still missing after the directory changed")
	}
}

func TestNameKey(t *testing.T) {
	for in, want := range map[string]string{
		"kitchen-pi": "kitchen-pi", "Kitchen-Pi.": "kitchen-pi", "kitchen-pi.weft.internal": "kitchen-pi", "KITCHEN-PI.WEFT.INTERNAL.": "kitchen-pi",
		"100.64.0.7": "100.64.0.7", "[fd00::7]": "fd00::7", "FD00::7": "fd00::7", "Küche": "xn--kche-0ra", "KÜCHE.weft.internal.": "xn--kche-0ra", "xn--KCHE-0ra": "xn--kche-0ra", "::ffff:100.64.0.7": "100.64.0.7",
		"": "", ".": "", "a.b": "", "example.org": "", "../x": "", "a b": "", "a\"\nProxyCommand x": "", "<script>": "<script>",
	} {
		got, ok := nameKey(in, "weft.internal")
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v, want %q", in, got, ok, want)
		}
	}
}

// TestRenamedNodeLeavesLookedUpName: what was looked up is asked for again
// after a while, and a name that is gone leads nowhere.
func TestRenamedNodeLeavesLookedUpName(t *testing.T) {
	now := time.Unix(1000, 0)
	d := newDirectory(func() time.Time { return now })
	d.update(&api.Directory{Full: true, Peers: listed(fakeNode(1, "listed"))}, fakeVerify)
	d.learn(&known{node: fakeNode(2, "old")})
	l, _ := d.find("listed")
	k, _ := d.find("old")
	if k == nil || d.old(k) || d.old(l) {
		t.Fatal("old at once")
	}
	now = now.Add(lookedUpTTL + time.Second)
	if !d.old(k) || d.old(l) {
		t.Error("believed for longer, or the directory is not")
	}
	d.setMissing("old") // the server says so
	d.setMissing("listed")
	if got, missing := d.find("old"); got != nil || !missing {
		t.Error("the former name is still known")
	}
	if got, _ := d.find("listed"); got == nil {
		t.Error("a node of the directory is gone")
	}
	now = now.Add(negativeTTL)
	if got, _ := d.find("old"); got != nil {
		t.Error("the former name is back")
	}
	if d.get(k.node.ID) == nil {
		t.Error("the node itself is forgotten, which may have a tunnel")
	}
	d.learn(&known{node: fakeNode(2, "new")})
	if got, _ := d.find("new"); got == nil {
		t.Error("the new name is not known")
	}
	if got, _ := d.find(k.node.IPv4.String()); got == nil || got.node.Name != "new" {
		t.Error("the address is not the new name's")
	}
}

// A former name leads to its device until it ends, and never takes a name that
// another device's certificate holds.
func TestB18FormerNameInDirectory(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	d := newDirectory(func() time.Time { return now })
	peers := listed(fakeNode(1, "hall"), fakeNode(2, "cam"))
	peers[0].Aliases = []api.Alias{{Name: "kitchen-pi", Until: now.Add(time.Hour)}, {Name: "cam", Until: now.Add(time.Hour)}, {Name: "a.b", Until: now.Add(time.Hour)}, {Name: "ended", Until: now}}
	d.update(&api.Directory{Full: true, Peers: peers}, fakeVerify)
	want := func(key, name string) {
		t.Helper()
		k, _ := d.find(key)
		if k == nil && name != "" || k != nil && k.node.Name != name {
			t.Errorf("%s is %+v, want %q", key, k, name)
		}
	}
	want("kitchen-pi", "hall")
	want("cam", "cam")
	want("a.b", "")
	want("ended", "")
	d.setPresence(sighting{fakeNode(1, "hall").ID, false, now})
	d.setRelay(fakeNode(1, "hall").ID, "r")
	want("kitchen-pi", "hall")
	// What it says by introducing itself has no aliases in it.
	d.learn(&known{node: fakeNode(1, "hall")})
	want("kitchen-pi", "hall")
	if s := d.saved(); len(s.Peers) != 2 || len(s.Peers[0].Aliases)+len(s.Peers[1].Aliases) == 0 {
		t.Errorf("saved without former names: %+v", s.Peers)
	}
	now = now.Add(2 * time.Hour)
	want("kitchen-pi", "")
	now = now.Add(-2 * time.Hour)
	d.update(&api.Directory{Peers: listed(fakeNode(1, "hall"))}, fakeVerify) // ended by the owner
	want("kitchen-pi", "")
	peers[0].Aliases = make([]api.Alias, 100)
	for i := range peers[0].Aliases {
		peers[0].Aliases[i] = api.Alias{Name: fmt.Sprintf("n%d", i), Until: now.Add(time.Hour)}
	}
	d.update(&api.Directory{Peers: peers[:1]}, fakeVerify)
	want("n0", "hall")
	want("n99", "")
	d.remove(fakeNode(1, "hall").ID)
	want("n0", "")
	if len(d.byAlias) != 0 {
		t.Errorf("%d former names of nobody", len(d.byAlias))
	}
}

// TestB17LookedUpNamesFollowChanges: what was looked up before names changed is
// asked for again, and only then; an answer that was on its way counts as old.
func TestB17LookedUpNamesFollowChanges(t *testing.T) {
	d := newDirectory(time.Now)
	v := func(n uint64) api.Version { return api.Version{Epoch: 7, N: n} }
	if d.namesAre(v(1)) || !d.namesHeld().IsZero() {
		t.Error("a node that looked nothing up follows names")
	}
	round, tell := d.looks()
	if !tell || d.namesHeld() != v(1) {
		t.Errorf("held %v, tell %v", d.namesHeld(), tell)
	}
	d.learn(&known{node: fakeNode(1, "a"), round: round})
	d.setMissing("ghost")
	late, tell := d.looks()
	if tell || d.namesAre(v(1)) || d.namesAre(api.Version{}) {
		t.Error("told twice, or of no change")
	}
	before := d.changeCount()
	if !d.namesAre(v(2)) || d.changeCount() == before || !d.namesHeld().IsZero() {
		t.Errorf("a change is not taken; held %v", d.namesHeld())
	}
	if k, _ := d.find("a"); k == nil || !d.old(k) {
		t.Error("what was looked up before is not asked for again")
	}
	if _, missing := d.find("ghost"); missing {
		t.Error("a name that may have come to be is still missing")
	}
	d.learn(&known{node: fakeNode(2, "b"), round: late})
	if k, _ := d.find("b"); !d.old(k) {
		t.Error("an answer from before the change is believed")
	}
	round, tell = d.looks()
	d.learn(&known{node: fakeNode(1, "c"), round: round})
	if k, _ := d.find("c"); !tell || d.old(k) || d.namesHeld() != v(2) {
		t.Error("what is looked up after the change is not believed")
	}
}
