//go:build unix

package proxy

import (
	"io"
	"net"
	"syscall"
	"testing"
)

// A connection that Listen accepts keeps an urgent byte at its place.
func TestListenKeepsUrgentByte(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client.Write([]byte("abc"))
	raw, err := client.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Write(func(fd uintptr) bool {
		_, err = syscall.SendmsgN(int(fd), []byte("!"), nil, nil, syscall.MSG_OOB)
		return true
	})
	client.Write([]byte("def"))
	client.Close()
	if got, rerr := io.ReadAll(c); string(got) != "abc!def" || rerr != nil || err != nil {
		t.Errorf("%q, %v, %v", got, rerr, err)
	}
}
