package presence

import (
	"net/netip"
	"testing"
	"time"

	"weft/overlay/cert"
)

// Reports are fenced by connection number in whatever order they come.
func TestFence(t *testing.T) {
	id := cert.NodeID{1}
	t0 := time.Unix(1_000_000, 0)
	addr := netip.MustParseAddr("192.0.2.1")
	type report struct {
		conn   uint64
		online bool
	}
	for _, c := range []struct {
		name    string
		reports []report
		want    bool
	}{
		{"plain", []report{{1, true}}, true},
		{"gone", []report{{1, true}, {1, false}}, false},
		{"replaced, late end", []report{{1, true}, {2, true}, {1, false}}, true},
		{"replaced, late start", []report{{2, true}, {1, true}, {1, false}}, true},
		{"end before start", []report{{1, true}, {2, false}, {2, true}}, false},
		{"twice", []report{{1, true}, {1, true}, {1, false}, {1, false}}, false},
		{"end of the unknown", []report{{7, false}}, false},
		{"back again", []report{{1, true}, {1, false}, {2, true}}, true},
	} {
		tab := New()
		for i, r := range c.reports {
			tab.Report(id, r.conn, r.online, t0.Add(time.Duration(i)*time.Second), "relay", addr)
		}
		st, _ := tab.Get(id)
		online := 0
		if c.want {
			online = 1
		}
		if st.Online != c.want || tab.Online() != online || len(tab.Connected()) != online {
			t.Errorf("%s: %+v, %d online", c.name, st, tab.Online())
		}
	}
}

// Whatever time has passed, a report of an old connection changes nothing.
func TestFlushKeepsFence(t *testing.T) {
	tab := New()
	id, t0 := cert.NodeID{1}, time.Unix(1_000_000, 0)
	tab.Report(id, 2, true, t0, "r", netip.Addr{})
	tab.Report(id, 2, false, t0, "r", netip.Addr{})
	tab.Flush(t0.Add(2*time.Hour), false)
	if tab.Report(id, 1, true, t0, "r", netip.Addr{}) {
		t.Error("a report of an older connection counts")
	}
	if st, ok := tab.Get(id); !ok || st.Online || !st.Since.Equal(t0) {
		t.Errorf("%+v, %v", st, ok)
	}
}

func TestFlush(t *testing.T) {
	tab := New()
	t0 := time.Unix(1_000_000, 0)
	a, b := cert.NodeID{1}, cert.NodeID{2}
	tab.Report(a, 1, true, t0, "r", netip.Addr{})
	tab.Report(b, 2, true, t0, "r", netip.Addr{})
	tab.Report(b, 2, false, t0.Add(time.Second), "r", netip.Addr{})
	now := t0.Add(time.Minute)
	seen := tab.Flush(now, false)
	if len(seen) != 2 || !seen[a].Equal(now) || !seen[b].Equal(t0.Add(time.Second)) {
		t.Errorf("first batch: %v", seen)
	}
	if seen := tab.Flush(now, false); len(seen) != 0 {
		t.Errorf("nothing changed: %v", seen)
	}
	if seen := tab.Flush(now, true); len(seen) != 1 || !seen[a].Equal(now) {
		t.Errorf("last batch: %v", seen)
	}
	tab.Forget(a)
	if tab.Online() != 0 {
		t.Error("a forgotten node is online")
	}
}

// A node is at the relay where it came last, and online while it is at any:
// relays number their connections by themselves.
func TestRelays(t *testing.T) {
	id := cert.NodeID{1}
	tab := New()
	at := time.Unix(1_000_000, 0)
	want := func(what string, online bool, relay string) {
		t.Helper()
		if st, _ := tab.Get(id); st.Online != online || online && st.Relay != relay {
			t.Errorf("%s: %+v", what, st)
		}
	}
	tab.Report(id, 900, true, at, "a", netip.Addr{})
	want("at a", true, "a")
	if tab.Report(id, 5, true, at, "b", netip.Addr{}) {
		t.Error("moving is no change of being online")
	}
	want("moved to b", true, "b")
	tab.Report(id, 900, false, at, "a", netip.Addr{})
	want("gone from a", true, "b")
	tab.Report(id, 4, false, at, "b", netip.Addr{})
	want("late word of b", true, "b")
	tab.Report(id, 901, true, at, "a", netip.Addr{})
	want("back at a", true, "a")
	if tab.At("a") != 1 || tab.At("b") != 0 || tab.Online() != 1 {
		t.Errorf("%d at a, %d at b, %d online", tab.At("a"), tab.At("b"), tab.Online())
	}
	if changed := tab.Lose("a", at); len(changed) != 0 {
		t.Errorf("losing a: %v", changed)
	}
	want("a lost", true, "b")
	if changed := tab.Lose("b", at); len(changed) != 1 || tab.Online() != 0 {
		t.Errorf("losing b: %v", changed)
	}
	want("both lost", false, "")
	// A relay that is back says the same again.
	tab.Report(id, 5, true, at, "b", netip.Addr{})
	want("b is back", true, "b")
	for i := range 100 {
		relay := string(rune('A' + i))
		tab.Report(id, 1, true, at, relay, netip.Addr{})
		tab.Report(id, 1, false, at, relay, netip.Addr{})
	}
	if n := len(tab.nodes[id].homes); n > maxHomes {
		t.Errorf("%d relays remembered", n)
	}
	want("after a hundred relays", true, "b")
}

// Who is beside a node connected last from its IPv4 address or its /64 of IPv6.
func TestBeside(t *testing.T) {
	tab := New()
	at := time.Unix(1_000_000, 0)
	for i, addr := range []string{
		"192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1", "127.0.0.1", "127.0.0.1", "",
	} {
		a, _ := netip.ParseAddr(addr)
		tab.Report(cert.NodeID{byte(i + 1)}, 1, true, at, "r", a)
	}
	tab.Report(cert.NodeID{2}, 1, false, at.Add(time.Second), "r", netip.Addr{})
	tab.Report(cert.NodeID{2}, 2, true, at, "r", netip.MustParseAddr("192.0.2.1"))
	tab.Report(cert.NodeID{2}, 2, false, at.Add(time.Second), "r", netip.MustParseAddr("192.0.2.1"))
	for node, want := range map[byte][]byte{1: {2, 3}, 2: {1, 3}, 4: nil, 5: {6}, 7: nil, 8: nil, 10: nil, 99: nil} {
		got := tab.Beside(cert.NodeID{node})
		if len(got) != len(want) {
			t.Errorf("beside %d: %v, want %v", node, got, want)
		}
		for _, w := range want {
			if st, ok := got[cert.NodeID{w}]; !ok || st.Online != (w != 2) {
				t.Errorf("beside %d: %v of %d", node, st, w)
			}
		}
	}
}
