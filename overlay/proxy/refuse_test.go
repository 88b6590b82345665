package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Beyond MaxConns a client gets an error in its protocol, and there is a health
// warning.
func TestTooManyConnections(t *testing.T) {
	health := make(chan string, 10)
	p := New(Config{Node: nil, MaxConns: 1, Health: func(code, message string) { health <- code + " " + message }})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go p.Serve(l)
	defer p.Close()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}
	first := dial() // sends nothing and keeps its slot
	for served := 0; served == 0; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		served = p.served
		p.mu.Unlock()
	}
	defer first.Close()

	c := dial()
	io.WriteString(c, "\x05\x01\x00\x05\x01\x00\x03\x01a\x00\x50")
	reply := make([]byte, 12)
	if _, err := io.ReadFull(c, reply); err != nil || reply[3] != byte(socksFailed) {
		t.Errorf("SOCKS: %v, %v", reply, err)
	}
	c = dial()
	io.WriteString(c, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "too many connections") {
		t.Errorf("HTTP: %s, %q", resp.Status, body)
	}
	if h := <-health; !strings.HasPrefix(h, "connections:proxy too many connections") {
		t.Error(h)
	}
}

// One destination that does not answer leaves room for others.
func TestOneDestinationDoesNotTakeAll(t *testing.T) {
	p := New(Config{MaxConns: 9})
	for range 3 {
		if _, err := p.wait("hung:80"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.wait("hung:80"); err != errBusy {
		t.Errorf("a fourth: %v", err)
	}
	done, err := p.wait("other:80")
	if err != nil {
		t.Fatal(err)
	}
	if text := p.describeRefusals(1); !strings.Contains(text, "hung:80: 0 open, 3 waiting") {
		t.Error(text)
	}
	done()
	if _, ok := p.uses["other:80"]; ok {
		t.Error("kept")
	}
}
