package probe

import (
	"bytes"
	"net/netip"
	"testing"
)

var observed = netip.MustParseAddrPort("198.51.100.7:41641")

func secret(b byte) (s [32]byte) {
	for i := range s {
		s[i] = b
	}
	return s
}

func TestPingPong(t *testing.T) {
	send, recv := NewKey(secret(1)), NewKey(secret(1))
	tx := Tx{1, 2, 3, 4, 5, 6, 7, 8}
	for _, c := range []struct{ ask, size int }{{0, Len}, {Len, Len}, {1232, 1232}, {MaxLen, MaxLen}, {1 << 20, MaxLen}} {
		// After other bytes: only those of the ping count.
		b := send.AppendPing([]byte("before"), tx, c.ask)[len("before"):]
		if len(b) != c.size {
			t.Fatalf("a ping of %d bytes, asked for %d", len(b), c.ask)
		}
		if tag, ok := Peek(b); !ok || tag != recv.Tag() {
			t.Errorf("peek: %v %v", tag, ok)
		}
		if m, ok := recv.Open(b); !ok || m != (Message{Kind: Ping, Tx: tx, Size: c.size}) {
			t.Errorf("opened: %+v %v", m, ok)
		}
	}
	for _, from := range []netip.AddrPort{observed, netip.MustParseAddrPort("[2001:db8::1]:7")} {
		b := send.AppendPong(nil, tx, from)
		if m, ok := recv.Open(b); !ok || m != (Message{Kind: Pong, Tx: tx, Size: Len, Observed: from}) {
			t.Errorf("opened: %+v %v", m, ok)
		}
	}
}

// TestNoAmplification: no pong is longer than the shortest ping.
func TestNoAmplification(t *testing.T) {
	k := NewKey(secret(1))
	ping, pong := k.AppendPing(nil, Tx{}, 0), k.AppendPong(nil, Tx{}, netip.MustParseAddrPort("[2001:db8::1]:7"))
	if len(pong) > len(ping) {
		t.Errorf("a pong has %d bytes, a ping %d", len(pong), len(ping))
	}
	for n := range ping {
		if _, ok := k.Open(ping[:n]); ok {
			t.Errorf("%d bytes are a ping", n)
		}
	}
}

// TestForged: a changed byte, another key and another length are refused.
func TestForged(t *testing.T) {
	k := NewKey(secret(1))
	for _, b := range [][]byte{k.AppendPing(nil, Tx{9}, 100), k.AppendPong(nil, Tx{9}, observed)} {
		for i := range b {
			c := bytes.Clone(b)
			c[i] ^= 1
			if _, ok := k.Open(c); ok {
				t.Errorf("taken with byte %d changed", i)
			}
		}
		if _, ok := k.Open(append(bytes.Clone(b), 0)); ok {
			t.Error("taken with a byte more")
		}
		if _, ok := NewKey(secret(2)).Open(b); ok {
			t.Error("taken under another key")
		}
	}
}

// TestTagsDiffer: the tag differs between directions and does not reveal the key.
func TestTagsDiffer(t *testing.T) {
	a, b := NewKey(secret(1)), NewKey(secret(2))
	if a.Tag() == b.Tag() || a.Tag() == (Tag{}) || a.Tag() != NewKey(secret(1)).Tag() {
		t.Errorf("tags %x and %x", a.Tag(), b.Tag())
	}
}

func TestNoGarbage(t *testing.T) {
	k := NewKey(secret(1))
	buf := make([]byte, 0, MaxLen)
	allocs := testing.AllocsPerRun(100, func() {
		if _, ok := k.Open(k.AppendPing(buf, Tx{1}, 1400)); !ok {
			t.Fatal("not taken")
		}
		if _, ok := k.Open(k.AppendPong(buf, Tx{1}, observed)); !ok {
			t.Fatal("not taken")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func FuzzOpen(f *testing.F) {
	k := NewKey(secret(1))
	f.Add(k.AppendPing(nil, Tx{1}, 0))
	f.Add(k.AppendPing(nil, Tx{1}, 1232))
	f.Add(k.AppendPong(nil, Tx{1}, observed))
	f.Add([]byte{First, 1, 0, 54})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := k.Open(b)
		if _, peeked := Peek(b); ok && !peeked {
			t.Error("opened, but not peeked")
		}
		if !ok {
			return
		}
		// Whatever opens is exactly what this package writes, except for the padding,
		// which the MAC covers.
		if m.Kind == Pong && !bytes.Equal(k.AppendPong(nil, m.Tx, m.Observed), b) {
			t.Errorf("%x opened as %+v", b, m)
		}
	})
}
