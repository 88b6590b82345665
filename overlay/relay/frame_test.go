package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"weft/overlay/cert"
)

func TestCheckHead(t *testing.T) {
	for _, c := range []struct {
		side Side
		t    Type
		n    int
		ok   bool
	}{
		{AtRelay, TypePacket, 16, false}, {AtRelay, TypePacket, 17, true},
		{AtRelay, TypePacket, 16 + 65535, true}, {AtRelay, TypePacket, 16 + 65536, false},
		{AtRelay, TypeSession, 16 + MaxSession, true}, {AtRelay, TypeSession, 17 + MaxSession, false},
		{AtRelay, TypePing, 8, true}, {AtRelay, TypePing, 7, false}, {AtRelay, TypePong, 9, false},
		{AtRelay, TypeVersions, 4096, true}, {AtRelay, TypeVersions, 4097, false}, {AtRelay, TypeVersions, 0, false},
		{AtRelay, TypeGone, 17, false}, {AtRelay, TypeCRL, 100, false}, {AtRelay, 0, 0, false}, {AtRelay, 200, 0, false},
		{AtRelay, TypePacket, 1<<24 - 1, false},
		{AtRelay, TypeLane, 16, true}, {AtRelay, TypeLane, 17, false}, {AtRelay, TypeLaneGone, 17, false}, {AtRelay, TypeRebind, 16, false},
		{AtNode, TypeLane, 16, false}, {AtNode, TypeLane, 98, true}, {AtNode, TypeLane, 257, false}, {AtNode, TypeLaneGone, 17, true}, {AtNode, TypeRebind, 16, true},
		{AtNode, TypeVersions, 2, false}, {AtNode, TypeGone, 17, true}, {AtNode, TypeGone, 16, false}, {AtNode, TypeGone, 20, true}, {AtNode, TypeGone, 257, false},
		{AtNode, TypeCRL, MaxCRL, true}, {AtNode, TypeCRL, MaxCRL + 1, false},
		{AtNode, TypeReplaced, 0, true}, {AtNode, TypeReplaced, 1, true}, {AtNode, TypeRefused, 2, true}, {AtNode, TypeBusy, 17, true}, {AtNode, TypePing, 9, false},
		{AtNode, 200, 1000, true}, {AtNode, 200, 1 << 20, false},
	} {
		if err := CheckHead(c.side, c.t, c.n); (err == nil) != c.ok || (err != nil && !errors.Is(err, ErrFrame)) {
			t.Errorf("side %v type %d, %d bytes: %v, want ok=%v", c.side, c.t, c.n, err, c.ok)
		}
	}
}

// bytesConn returns its bytes in chunks of n.
type bytesConn struct {
	net.Conn
	b []byte
	n int
}

func (c *bytesConn) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.b[:min(c.n, len(c.b))])
	c.b = c.b[n:]
	return n, nil
}

func TestReader(t *testing.T) {
	a, b := cert.NodeID{1}, cert.NodeID{2}
	var in []byte
	var want [][]byte
	add := func(f []byte) { want = append(want, f); in = append(in, f...) }
	add(AppendPeerFrame(nil, TypePacket, a, make([]byte, MaxPacket)))
	add(AppendFrame(nil, TypePing, make([]byte, 8)))
	add(AppendPeerFrame(nil, TypeSession, b, bytes.Repeat([]byte{7}, MaxSession)))
	add(AppendFrame(nil, TypeCRL, bytes.Repeat([]byte{9}, MaxCRL)))
	add(AppendFrame(nil, TypeReplaced))
	for i := range 100 {
		add(AppendPeerFrame(nil, TypePacket, b, bytes.Repeat([]byte{byte(i)}, 1+i*653)))
	}
	for _, chunk := range []int{1, 3, 1000, 16384, 1 << 20} {
		for _, ready := range []bool{false, true} {
			c := &bytesConn{b: in, n: chunk}
			r := NewReader(c, AtNode)
			if ready { // then Read must not wait
				r.ready = func() bool { return len(c.b) > 0 }
			}
			var got int
			for {
				err := r.Fill()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				for f := r.Next(); f != nil; f = r.Next() {
					if !bytes.Equal(f, want[got]) {
						t.Fatalf("chunk %d: frame %d differs", chunk, got)
					}
					got++
				}
			}
			if got != len(want) {
				t.Fatalf("chunk %d: %d frames, want %d", chunk, got, len(want))
			}
			r.Release()
		}
	}
}

// The frames before a malformed one are delivered, then the error.
func TestReaderStopsAtJunk(t *testing.T) {
	good := AppendFrame(nil, TypePing, make([]byte, 8))
	for name, bad := range map[string][]byte{
		"no peer": AppendPeerFrame(nil, TypePacket, cert.NodeID{}, []byte("x")), "type": {99, 0, 0, 0}, "length": {1, 255, 255, 255},
	} {
		r := NewReader(&bytesConn{b: append(bytes.Clone(good), bad...), n: 1 << 20}, AtRelay)
		if err := r.Fill(); err != nil || r.Next() == nil || r.Next() != nil {
			t.Fatalf("%s: good frame lost: %v", name, err)
		}
		if err := r.Fill(); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(AppendPeerFrame(nil, TypePacket, cert.NodeID{1}, []byte("hello")), 3, true)
	f.Add(AppendFrame(AppendFrame(nil, TypePing, make([]byte, 8)), TypeVersions, []byte("{}")), 7, false)
	f.Add([]byte{1, 0xff, 0xff, 0xff}, 1, true)
	f.Add([]byte{11, 0x10, 0, 0, 1, 2, 3}, 100, false)
	f.Fuzz(func(t *testing.T, in []byte, chunk int, side bool) {
		if chunk <= 0 {
			chunk = 1
		}
		r := NewReader(&bytesConn{b: in, n: chunk}, Side(side))
		defer r.Release()
		rest := in
		for r.Fill() == nil {
			n := 0
			for fr := r.Next(); fr != nil; fr = r.Next() {
				if !bytes.HasPrefix(rest, fr) {
					t.Fatal("a frame that is not the input")
				}
				if err := CheckHead(Side(side), Type(fr[0]), len(fr)-HeadLen); err != nil {
					t.Fatal(err)
				}
				rest, n = rest[len(fr):], n+1
			}
			if n == 0 {
				t.Fatal("Fill without a frame")
			}
		}
	})
}
