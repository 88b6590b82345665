//go:build unix

package loopback

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// A program of this machine sends an urgent byte to a peer.
func TestDialKeepsUrgentByte(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Dial(t.Context(), "tcp", l.Addr().String(), 0, addr("100.64.9.9"), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	program, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	program.Write([]byte("abc"))
	raw, err := program.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Write(func(fd uintptr) bool {
		_, err = syscall.SendmsgN(int(fd), []byte("!"), nil, nil, syscall.MSG_OOB)
		return true
	})
	program.Write([]byte("def"))
	program.Close()
	if got, rerr := io.ReadAll(c); string(got) != "abc!def" || rerr != nil || err != nil {
		t.Errorf("%q, %v, %v", got, rerr, err)
	}
}
