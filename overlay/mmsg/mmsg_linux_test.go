package mmsg

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// open opens a socket that joins datagrams.
func open(t *testing.T, addr string) (netip.AddrPort, syscall.RawConn) {
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Skip(err) // no IPv6 here
	}
	t.Cleanup(func() { c.Close() })
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1) })
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), raw
}

// TestSendReceive: a datagram of two pieces, an empty one, one without a receiver's
// buffer for all of it, and three that the kernel splits, in both families.
func TestSendReceive(t *testing.T) {
	for _, host := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(host, func(t *testing.T) {
			from, out := open(t, host)
			to, in := open(t, host)
			long := bytes.Repeat([]byte("x"), 700)
			large := bytes.Repeat([]byte("0123456789"), 25)
			var (
				bufs [5]Buffer
				msgs [4]Message
				name Name
				ctl  [SegmentSpace]byte
			)
			for i, b := range [][]byte{[]byte("one "), []byte("piece"), nil, long, large} {
				bufs[i].Set(b)
				if !bytes.Equal(bufs[i].Bytes(), b) {
					t.Errorf("a buffer of %d bytes, want %d", len(bufs[i].Bytes()), len(b))
				}
			}
			length := name.Set(to, to.Addr().Is4())
			if got := name.AddrPort(); got != to {
				t.Errorf("%v became %v", to, got)
			}
			for i, v := range [][]Buffer{bufs[:2], bufs[2:3], bufs[3:4], bufs[4:]} {
				msgs[i].SetName(&name, length)
				msgs[i].SetBuffers(v)
				msgs[i].SetControl(nil)
			}
			msgs[3].SetControl(ctl[:PutSegment(ctl[:], 100)]) // 100, 100 and 50
			for sent := 0; sent < len(msgs); {
				err := out.Write(func(fd uintptr) bool {
					n, errno := Send(fd, msgs[sent:])
					if errno != 0 && errno != unix.EAGAIN {
						t.Fatal(errno)
					}
					sent += n
					return errno == 0
				})
				if err != nil {
					t.Fatal(err)
				}
			}

			var (
				store [8][600]byte
				ins   [8]Buffer
				got   [8]Message
				names [8]Name
				ctls  [8][SegmentSpace]byte
				said  []string
				split int
			)
			for i := range got {
				ins[i].Set(store[i][:])
				got[i].SetBuffers(ins[i:][:1])
			}
			for len(said) < 3 || split < len(large) {
				for i := range got {
					got[i].SetName(&names[i], MaxName)
					got[i].SetControl(ctls[i][:])
				}
				n := 0
				err := in.Read(func(fd uintptr) bool {
					var errno syscall.Errno
					n, errno = Receive(fd, got[:])
					return errno != unix.EAGAIN
				})
				if err != nil || n == 0 {
					t.Fatal(n, err)
				}
				for i := range n {
					m := &got[i]
					b := store[i][:m.Len()]
					switch {
					case names[i].AddrPort() != from || m.NameLen() != length:
						t.Errorf("from %v (%d), want %v (%d)", names[i].AddrPort(), m.NameLen(), from, length)
					case m.Truncated() != (len(b) == len(store[i])):
						t.Errorf("%d bytes, truncated %v", len(b), m.Truncated())
					case len(said) < 3:
						said = append(said, string(b[:min(len(b), 9)]))
					default: // three, or joined again
						if s := m.Segment(); s != 0 && s != 100 || s == 0 && len(b) > 100 || !bytes.HasPrefix(large[split:], b) {
							t.Errorf("%d bytes of segments of %d at %d", len(b), s, split)
						}
						split += len(b)
					}
				}
			}
			if len(said) != 3 || said[0] != "one piece" || said[1] != "" || said[2] != "xxxxxxxxx" {
				t.Errorf("%q", said)
			}
		})
	}
}

// TestErrors: the caller gets the kernel's errno.
func TestErrors(t *testing.T) {
	_, raw := open(t, "127.0.0.1:0")
	raw.Control(func(fd uintptr) {
		var v [1]Buffer
		var m [1]Message
		m[0].SetBuffers(v[:])
		if n, errno := Receive(fd, m[:]); n != 0 || errno != unix.EAGAIN {
			t.Errorf("nothing there: %d, %v", n, errno)
		}
		if n, errno := Send(fd, m[:]); n != 0 || errno != unix.EDESTADDRREQ {
			t.Errorf("to nobody: %d, %v", n, errno)
		}
		if n, errno := Send(fd, nil); n != 0 || errno != 0 {
			t.Errorf("nothing to send: %d, %v", n, errno)
		}
	})
	if a := new(Name).AddrPort(); a.IsValid() {
		t.Errorf("no address is %v", a)
	}
	// As for a socket of both families.
	var a Name
	if want := netip.MustParseAddrPort("192.0.2.1:53"); a.Set(want, false) != unix.SizeofSockaddrInet6 || a.AddrPort() != want {
		t.Errorf("%v, want %v", a.AddrPort(), want)
	}
}

// FuzzControl: what PutControl wrote is found behind arbitrary bytes, and nothing is read
// beyond the end.
func FuzzControl(f *testing.F) {
	var b [64]byte
	n := PutControl(b[:], unix.SOL_IP, unix.IP_PKTINFO, make([]byte, 12))
	n += PutSegment(b[n:], 1452)
	f.Add(b[:n])
	f.Add(b[:n-1])
	f.Add(b[:unix.SizeofCmsghdr])
	f.Fuzz(func(t *testing.T, in []byte) {
		in = append([]byte(nil), in...)
		find(in, -1, -1) // looks at all of them
		if b := find(in, unix.SOL_UDP, unix.UDP_SEGMENT); len(b) >= len(in) && len(in) > 0 {
			t.Errorf("%d bytes of %d", len(b), len(in))
		}
		ctl := make([]byte, SegmentSpace+len(in)+unix.SizeofCmsghdr)
		n := PutSegment(ctl, 1452)
		copy(ctl[n:], in)
		if b := find(ctl, unix.SOL_UDP, unix.UDP_SEGMENT); len(b) != 2 || binary.NativeEndian.Uint16(b) != 1452 {
			t.Errorf("%x in %x", b, ctl)
		}
	})
}
