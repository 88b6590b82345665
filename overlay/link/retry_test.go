package link

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// keyShareOf returns the bytes of a ClientHello that name the group of its only key
// share.
func keyShareOf(t testing.TB, hello []byte) []byte {
	t.Helper()
	// Extension key_share (51), its length, that of the shares, X25519MLKEM768.
	i := bytes.LastIndex(hello, []byte{0x11, 0xec, 0x04, 0xc0})
	if i < 6 || hello[i-6] != 0 || hello[i-5] != 51 {
		t.Fatal("the ClientHello looks different from what it used to")
	}
	return hello[i : i+2]
}

func oneShareHello(t testing.TB) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go tls.Client(near, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}, NextProtos: []string{ProtoRelay}}).Handshake()
	b := make([]byte, 8192)
	n, err := far.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// The expensive work after a HelloRetryRequest waits for a slot too, and a client that
// sends half of the second ClientHello has none.
func TestHelloRetryWaits(t *testing.T) {
	s, hold, begun := slowSite(t)
	release := sync.OnceFunc(func() { close(hold) })
	defer release()
	second := oneShareHello(t)
	first := bytes.Clone(second)
	copy(keyShareOf(t, first), []byte{0x12, 0x34}) // an unknown group
	second[2] = 3                                  // version of the record: only the first may say TLS 1.0
	s.srv.cpu.mu.Lock()
	slots := s.srv.cpu.free
	s.srv.cpu.mu.Unlock()
	const flood = 40
	retry := func() net.Conn {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write(first); err != nil {
			t.Fatal(err)
		}
		// The HelloRetryRequest and the record for middleboxes after it.
		var got []byte
		for buf := make([]byte, 1024); !bytes.HasSuffix(got, []byte{20, 3, 3, 0, 1, 1}); {
			n, err := c.Read(buf)
			if got = append(got, buf[:n]...); err != nil {
				t.Fatalf("%v after %x", err, got)
			}
		}
		if !isHelloRetry(got) {
			t.Fatalf("no HelloRetryRequest: %x", got)
		}
		return c
	}
	conns := make([]net.Conn, flood)
	for i := range conns {
		conns[i] = retry()
	}
	// In two records, the second of which is never sent.
	for range 2 * slots {
		c := retry()
		half := len(second) / 2
		c.Write([]byte{recordHandshake, 3, 3, byte((half - recordHead) >> 8), byte(half - recordHead)})
		c.Write(second[recordHead:half])
	}
	for _, c := range conns {
		if _, err := c.Write(second); err != nil {
			t.Fatal(err)
		}
	}
	// Some halves may have arrived when all slots were taken, and wait too.
	until(t, "the others wait", func() bool { return s.waiting() >= flood-slots })
	until(t, "those with a slot sign", func() bool { return int(begun.Load()) >= slots })
	if n := int(begun.Load()); n != slots {
		t.Errorf("%d signatures at once, want %d", n, slots)
	}
	release()
	for _, c := range conns {
		if _, err := io.ReadFull(c, make([]byte, 1000)); err != nil {
			t.Errorf("no answer: %v", err)
		}
	}
	if n := int(begun.Load()); n != flood {
		t.Errorf("%d signatures", n)
	}
}

// A client that gets a HelloRetryRequest can connect.
func TestHelloRetry(t *testing.T) {
	s := newSite(t, func(c *ServerConfig) { c.Public.CurvePreferences = []tls.CurveID{tls.CurveP384} })
	tc, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer tc.Close()
	if state := tc.ConnectionState(); !state.HelloRetryRequest {
		t.Error("it was not asked again, so nothing was tested")
	}
	s.srv.cpu.mu.Lock()
	defer s.srv.cpu.mu.Unlock()
	if want := max(2, runtime.GOMAXPROCS(0)); s.srv.cpu.free != want {
		t.Errorf("%d slots are free, want %d", s.srv.cpu.free, want)
	}
}
