package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// words is a log that a test reads while others write to it.
type words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *words) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.b.Reset()
	return w.b.String()
}

// brokenNode panics when kitchen-pi's port 1 is dialled, and in the first read of a
// connection to its port 2.
type brokenNode struct{ fakeNode }

type brokenConn struct{ net.Conn }

func (brokenConn) Read([]byte) (int, error) { panic("crash in read") }

func (n *brokenNode) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if strings.HasSuffix(address, ":1") {
		panic("crash in dial")
	}
	c, err := n.fakeNode.DialContext(ctx, network, address)
	if strings.HasSuffix(address, ":2") {
		c = brokenConn{c}
	}
	return c, err
}

// A request whose handler panics ends, and its stack is in the log; the daemon and its
// other requests continue.
func TestCrashesAreSurvived(t *testing.T) {
	web := site(t)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	node := &brokenNode{fakeNode{target: map[string]string{"80": web.Listener.Addr().String(), "2": web.Listener.Addr().String()}}}
	var log words
	p, addr := start(t, Config{Node: node, Log: slog.New(slog.NewTextHandler(&log, nil))})
	request := func(method, target string) error {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: kitchen-pi\r\n\r\n", method, target)
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil || method != http.MethodConnect {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		_, err = r.ReadByte()
		return err
	}
	associate := func(port uint16) error {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, "\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00")
		reply := make([]byte, 2+10)
		if _, err := io.ReadFull(c, reply); err != nil {
			return err
		}
		bound := netip.AddrPortFrom(netip.AddrFrom4([4]byte(reply[6:10])), binary.BigEndian.Uint16(reply[10:]))
		u, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(bound))
		if err != nil {
			return err
		}
		defer u.Close()
		u.Write(append(binary.BigEndian.AppendUint16([]byte("\x00\x00\x00\x03\x0akitchen-pi"), port), "hello"...))
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			log.mu.Lock()
			there := log.b.Len() > 0
			log.mu.Unlock()
			if there {
				return nil
			}
		}
		return errors.New("nothing was logged")
	}
	for name, f := range map[string]func(){
		"SOCKS, dialling": func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			io.WriteString(c, "\x05\x01\x00\x05\x01\x00\x03\x0akitchen-pi\x00\x01")
			io.Copy(io.Discard, c)
		},
		"SOCKS, reading": func() {
			c, _ := socks(t, addr, "kitchen-pi", 2)
			defer c.Close()
			io.Copy(io.Discard, c)
		},
		"SOCKS UDP, dialling": func() {
			if err := associate(1); err != nil {
				t.Error(err)
			}
		},
		"CONNECT, dialling": func() { request(http.MethodConnect, "kitchen-pi:1") },
		"CONNECT, reading":  func() { request(http.MethodConnect, "kitchen-pi:2") },
		"GET, dialling":     func() { request(http.MethodGet, "http://kitchen-pi:1/") },
	} {
		t.Run(name, func(t *testing.T) {
			log.take()
			f()
			deadline := time.Now().Add(10 * time.Second)
			said := log.take()
			for ; said == "" && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
				said = log.take()
			}
			if !strings.Contains(said, "brokenNode") && !strings.Contains(said, "brokenConn") {
				t.Errorf("no stack in the log: %q", said)
			}
			if err := request(http.MethodGet, "http://kitchen-pi/"); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		left := len(p.open)
		p.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d connections are still counted", left)
		}
	}
}
