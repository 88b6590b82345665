package loopback

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// A socket that receives from all ports of the target still reports when nobody listens
// at the target, and only then. It receives from no other address.
func TestDialUDP(t *testing.T) {
	target, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	u, err := DialUDP(t.Context(), target.LocalAddr().String(), 0, addr("100.64.9.9"), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	raw, err := u.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	receive := func() (n int, port uint16, err error) {
		u.SetReadDeadline(time.Now().Add(10 * time.Second))
		if rerr := raw.Read(func(fd uintptr) bool {
			n, port, err = u.Receive(fd, buf)
			return err != syscall.EAGAIN && err != syscall.EINTR
		}); rerr != nil {
			err = rerr
		}
		return n, port, err
	}
	free := func() uint16 {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	}
	send := func(from net.PacketConn, s string) {
		if _, err := from.WriteTo([]byte(s), u.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}

	unknown, err := net.ListenPacket("udp4", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer unknown.Close()
	other, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	send(unknown, "unknown")
	send(target, "target")
	if n, port, err := receive(); string(buf[:n]) != "target" || port != 0 || err != nil {
		t.Errorf("%q from port %d, %v", buf[:n], port, err)
	}
	// Nobody listens at another port; that says nothing about the target.
	for range 3 {
		if err := u.Send([]byte("x"), free()); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
	send(other, "other")
	if n, port, err := receive(); string(buf[:n]) != "other" || port != other.LocalAddr().(*net.UDPAddr).AddrPort().Port() || err != nil {
		t.Errorf("%q from port %d, %v", buf[:n], port, err)
	}
	target.Close()
	if err := u.Send([]byte("x"), 0); err != nil {
		t.Log(err)
	}
	if _, _, err := receive(); err != syscall.ECONNREFUSED {
		t.Errorf("nobody listens: %v", err)
	}
	// A thousand unread errors leave the socket usable.
	for range 1000 {
		u.Send([]byte("x"), 0)
	}
	send(other, "still")
	for range 1001 {
		if n, _, err := receive(); err == nil && string(buf[:n]) == "still" {
			return
		}
	}
	t.Error("nothing comes after many errors")
}
