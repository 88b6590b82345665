package stun

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"
)

var tx = TxID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}

func TestRoundTrip(t *testing.T) {
	for _, s := range []string{"192.0.2.1:32853", "[2001:db8::1]:1", "[::ffff:192.0.2.7]:65535"} {
		want := netip.MustParseAddrPort(s)
		got, addr, err := ParseResponse(AppendResponse(nil, tx, want))
		if err != nil || got != tx || addr != netip.AddrPortFrom(want.Addr().Unmap(), want.Port()) {
			t.Errorf("%s: %v %v %v", s, got, addr, err)
		}
	}
	if got, err := ParseRequest(AppendRequest(nil, tx)); err != nil || got != tx {
		t.Errorf("request: %v %v", got, err)
	}
}

// The sample messages of RFC 5769 sections 2.2 and 2.3, without their
// MESSAGE-INTEGRITY (whose key nobody here has) and FINGERPRINT.
func TestVectors(t *testing.T) {
	for _, v := range []struct{ msg, want string }{
		{"0101000c2112a442b7e7a701bc34d686fa87dfae002000080001a147e112a643", "192.0.2.1:32853"},
		{"010100182112a442b7e7a701bc34d686fa87dfae002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"},
	} {
		b, _ := hex.DecodeString(v.msg)
		if _, got, err := ParseResponse(b); err != nil || got.String() != v.want {
			t.Errorf("got %v %v, want %s", got, err, v.want)
		}
	}
}

// Only a request such as ours is answered.
func TestNoAnswerToJunk(t *testing.T) {
	from := netip.MustParseAddrPort("192.0.2.1:1000")
	req := AppendRequest(nil, tx)
	change := func(i int, b byte) []byte {
		c := bytes.Clone(req)
		c[i] = b
		return c
	}
	for name, pkt := range map[string][]byte{
		"empty": {}, "short": req[:19], "cut": req[:len(req)-4], "longer": append(bytes.Clone(req), 0, 0, 0, 0),
		"response": AppendResponse(nil, tx, from), "cookie": change(4, 0), "type": change(1, 3),
		"length": change(3, 4), "attribute length": change(23, 200), "must understand": change(20, 0),
		"huge": make([]byte, 2000),
	} {
		if out := NewServer(nil).Handle(pkt, from, time.Now()); out != nil {
			t.Errorf("%s: answered", name)
		}
	}
	if NewServer(nil).Handle(req, netip.MustParseAddrPort("192.0.2.1:0"), time.Now()) != nil {
		t.Error("answered port 0")
	}
}

// At most twice the bytes, at most 20 answers a second to an address.
func TestReplyBoundAndRate(t *testing.T) {
	s := NewServer(nil)
	now := time.Unix(1000, 0)
	bare := appendHead(nil, typeRequest, 0, tx)
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:7"), netip.MustParseAddrPort("[2001:db8::1]:7")
	for _, c := range []struct {
		pkt    []byte
		from   netip.AddrPort
		answer bool
	}{{bare, v4, true}, {bare, v6, false}, {AppendRequest(nil, tx), v6, true}} {
		out := s.Handle(c.pkt, c.from, now)
		if (out != nil) != c.answer || len(out) > 2*len(c.pkt) {
			t.Errorf("from %v: %d bytes for %d", c.from, len(out), len(c.pkt))
		}
	}
	now = now.Add(time.Second)
	answers := 0
	for i := range 100 { // one /64, many ports and addresses
		from := netip.AddrPortFrom(netip.MustParseAddr("2001:db8::").Next(), uint16(i+1))
		if s.Handle(AppendRequest(nil, tx), from, now) != nil {
			answers++
		}
	}
	if answers != perSecond {
		t.Errorf("%d answers in a second, want %d", answers, perSecond)
	}
	if s.Handle(AppendRequest(nil, tx), v6, now.Add(time.Second)) == nil {
		t.Error("silent in the next second")
	}
}

func TestHandleAllocs(t *testing.T) {
	s, req, from := NewServer(nil), AppendRequest(nil, tx), netip.MustParseAddrPort("192.0.2.1:7")
	now := time.Unix(1000, 0)
	if n := testing.AllocsPerRun(100, func() { s.Handle(req, from, now) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(AppendRequest(nil, tx))
	f.Add(AppendResponse(nil, tx, netip.MustParseAddrPort("192.0.2.1:7")))
	f.Add(AppendResponse(nil, tx, netip.MustParseAddrPort("[2001:db8::1]:7")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, addr, err := ParseResponse(b); err == nil {
			id2, addr2, err := ParseResponse(AppendResponse(nil, id, addr))
			if err != nil || id2 != id || addr2 != addr {
				t.Fatalf("%v %v %v", id2, addr2, err)
			}
		}
		from := netip.MustParseAddrPort("192.0.2.1:7")
		if out := NewServer(nil).Handle(b, from, time.Time{}); len(out) > 2*len(b) {
			t.Fatal("reflector")
		}
	})
}
