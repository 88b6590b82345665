package pipe

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"weft/overlay/limited"
)

// pair returns two ends of a connection of the given network.
func pair(t testing.TB, network string) (net.Conn, net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c, s
}

// opaque hides the type of a connection, like a netstack connection.
type opaque struct{ net.Conn }

func (o opaque) CloseWrite() error {
	return o.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

func TestJoinBothWaysWithHalfClose(t *testing.T) {
	kinds := map[string]func() (net.Conn, net.Conn){
		"tcp":    func() (net.Conn, net.Conn) { return pair(t, "tcp") },
		"unix":   func() (net.Conn, net.Conn) { return pair(t, "unix") },
		"opaque": func() (net.Conn, net.Conn) { a, b := pair(t, "tcp"); return a, opaque{b} },
	}
	data := make([]byte, 3<<20+17)
	rand.Read(data)
	want := sha256.Sum256(data)
	for an, ak := range kinds {
		for bn, bk := range kinds {
			t.Run(an+"-"+bn, func(t *testing.T) {
				client, a := ak()
				server, b := bk()
				joined := make(chan error, 1)
				var up, down int64
				go func() {
					var err error
					up, down, err = Join(a, b)
					joined <- err
				}()
				// The server answers only after the client's end of stream: with a hash
				// of what it got, then all data.
				go func() {
					got, _ := io.ReadAll(server)
					sum := sha256.Sum256(got)
					server.Write(sum[:])
					server.Write(got)
					server.Close()
				}()
				go func() {
					client.Write(data)
					client.(interface{ CloseWrite() error }).CloseWrite()
				}()
				answer, err := io.ReadAll(client)
				if err != nil {
					t.Fatal(err)
				}
				if len(answer) < 32 || !bytes.Equal(answer[:32], want[:]) {
					t.Fatal("the server got other data than was sent")
				}
				if !bytes.Equal(answer[32:], data) {
					t.Fatal("the client got other data than was sent")
				}
				if err := <-joined; err != nil {
					t.Fatal(err)
				}
				if up != int64(len(data)) || down != int64(len(data)+32) {
					t.Fatalf("counted %d and %d bytes", up, down)
				}
			})
		}
	}
}

func TestJoinPassesAReset(t *testing.T) {
	client, a := pair(t, "tcp")
	server, b := pair(t, "tcp")
	done := make(chan error, 1)
	go func() { _, _, err := Join(a, opaque{b}); done <- err }()
	client.Write([]byte("x"))
	server.Read(make([]byte, 1))
	server.(*net.TCPConn).SetLinger(0)
	server.Close()
	client.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := client.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Fatalf("read after a reset: %v, want a reset", err)
	}
	if err := <-done; err == nil {
		t.Fatal("Join returned nil after a reset")
	}
}

func BenchmarkCopySocketToOpaque(b *testing.B) {
	client, a := pair(b, "tcp")
	server, c := pair(b, "tcp")
	go Join(a, opaque{c})
	go func() {
		buf := make([]byte, limited.LargeBuffer)
		for {
			if _, err := client.Write(buf); err != nil {
				return
			}
		}
	}()
	b.SetBytes(limited.LargeBuffer)
	buf := make([]byte, limited.LargeBuffer)
	for b.Loop() {
		if _, err := io.ReadFull(server, buf); err != nil {
			b.Fatal(err)
		}
	}
	client.Close()
}
