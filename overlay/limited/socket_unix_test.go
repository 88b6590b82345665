//go:build unix

package limited

import (
	"net"
	"syscall"
	"testing"
)

// A shrunk socket is at most as large as it counts, even one that a listener accepts.
func TestShrinkSocket(t *testing.T) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { shrinkSocket(c); return nil }}
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := net.Dialer{Control: config.Control}
	a, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for name, c := range map[string]net.Conn{"dialled": a, "accepted": b} {
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			for _, opt := range []int{syscall.SO_RCVBUF, syscall.SO_SNDBUF} {
				if n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, opt); err != nil || n > SmallSocket {
					t.Errorf("%s: option %d: %d bytes, %v, want at most %d", name, opt, n, err, SmallSocket)
				}
			}
		})
	}
}

func TestShort(t *testing.T) {
	for memory, want := range map[int64]bool{-1: false, 0: false, 1: true, 64 << 20: true, 1<<30 - 1: true, 1 << 30: false, 24 << 30: false} {
		if Short(memory) != want {
			t.Errorf("%d bytes: %v, want %v", memory, !want, want)
		}
	}
}
