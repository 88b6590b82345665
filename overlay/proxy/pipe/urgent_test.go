//go:build unix

package pipe

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"weft/netstack/loopback"
)

// All bytes arrive in order, even after one that was sent as urgent.
func TestUrgentByte(t *testing.T) {
	kinds := map[string]func() (net.Conn, net.Conn){
		"tcp":    func() (net.Conn, net.Conn) { return pair(t, "tcp") },
		"unix":   func() (net.Conn, net.Conn) { return pair(t, "unix") },
		"opaque": func() (net.Conn, net.Conn) { a, b := pair(t, "tcp"); return a, opaque{b} },
	}
	for name, kind := range kinds {
		client, a := pair(t, "tcp")
		raw, err := a.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := loopback.Inline(raw); err != nil {
			t.Fatal(err)
		}
		server, b := kind()
		go Join(a, b)
		go func() {
			client.Write([]byte("abc"))
			raw, _ := client.(*net.TCPConn).SyscallConn()
			raw.Write(func(fd uintptr) bool {
				_, err = syscall.SendmsgN(int(fd), []byte("!"), nil, nil, syscall.MSG_OOB)
				return true
			})
			for range 3 {
				client.Write([]byte("def"))
			}
			client.(*net.TCPConn).CloseWrite()
		}()
		server.SetReadDeadline(time.Now().Add(20 * time.Second))
		got, rerr := io.ReadAll(server)
		if string(got) != "abc!defdefdef" || rerr != nil || err != nil {
			t.Errorf("to %s: %q, %v, %v", name, got, rerr, err)
		}
	}
}
