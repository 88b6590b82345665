package loopback

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// No two nodes of a network share a source address, and a node has the same one for
// both of its addresses.
func TestSource(t *testing.T) {
	for peer, want := range map[string]string{
		"100.64.0.1": "127.64.0.1", "100.127.255.254": "127.127.255.254", "100.65.1.2": "127.65.1.2",
		"fd7a:1::6441:102": "127.65.1.2", "::ffff:100.65.1.2": "127.65.1.2",
		"10.0.0.1": "127.64.0.1", "10.63.1.2": "127.127.1.2", "192.168.7.9": "127.104.7.9",
	} {
		if got := Source(addr(peer)); got != addr(want) {
			t.Errorf("%s comes from %s, want %s", peer, got, want)
		}
	}
	for _, first := range []netip.Addr{addr("100.64.0.0"), addr("10.0.0.0"), addr("172.16.0.0")} {
		var seen [1 << 22]bool
		ip := first
		for range 1 << 20 {
			from := Source(ip)
			b := from.As4()
			n := uint32(b[1]&0x3f)<<16 | uint32(b[2])<<8 | uint32(b[3])
			if seen[n] || !Peers.Contains(from) {
				t.Fatalf("%s comes from %s, as another node does", ip, from)
			}
			seen[n] = true
			ip = ip.Next()
		}
	}
}

// A name may resolve to ::1: /etc/hosts contains ip6-localhost.
func TestNameOfLoopback6(t *testing.T) {
	for _, c := range []struct {
		ip     string
		isName bool
		ok     bool
	}{
		{"::1", true, false}, {"::1", false, true}, {"127.0.1.1", true, true}, {"0.0.0.0", true, false}, {"::", true, false}, {"192.168.1.9", true, true},
	} {
		if err := judge(addr(c.ip), c.isName); (err == nil) != c.ok {
			t.Errorf("%s, by name %v: %v", c.ip, c.isName, err)
		}
	}
}

func TestTarget(t *testing.T) {
	for target, want := range map[string]string{
		"": "127.0.0.1:80", ":81": "127.0.0.1:81", "localhost:81": "127.0.0.1:81", "0.0.0.0:81": "127.0.0.1:81", "[::]:81": "127.0.0.1:81",
		"[::ffff:0.0.0.0]:81": "127.0.0.1:81", "LocalHost.:81": "127.0.0.1:81", "127.0.0.2:81": "127.0.0.2:81", "[::1]:81": "[::1]:81", "192.168.1.9:81": "192.168.1.9:81", "nas:81": "nas:81",
	} {
		if got, err := Target(target, 80); got != want || err != nil {
			t.Errorf("%q: %q, %v, want %q", target, got, err, want)
		}
	}
	if _, err := Target("no port", 80); err == nil {
		t.Error("a target without a port was accepted")
	}
}

// Whatever the target, no peer comes from 127.0.0.1, and none from ::1 unless the
// target is [::1].
func TestDialFromSource(t *testing.T) {
	peer := addr("100.64.9.9")
	for _, network := range []string{"tcp", "udp"} {
		for _, c := range []struct{ listen, host, from string }{
			{"127.0.0.1", "", "127.64.9.9"},
			{"127.0.0.1", "localhost", "127.64.9.9"},
			{"127.0.0.1", "127.0.0.1", "127.64.9.9"},
			{"127.0.0.1", "0.0.0.0", "127.64.9.9"},
			{"127.0.0.1", "[::]", "127.64.9.9"},
			{"127.0.0.1", "[::ffff:127.0.0.1]", "127.64.9.9"},
			{"127.0.0.1", "localhost.", "127.64.9.9"},
			{"127.5.6.7", "127.5.6.7", "127.64.9.9"},
			{"[::1]", "[::1]", "::1"},
			{"[::1]", "", ""},
			{"[::1]", "localhost", ""},
			{"[::1]", "[::]", ""},
			{"[::1]", "localhost.", ""},
		} {
			t.Run(network+" "+c.listen+" "+c.host, func(t *testing.T) {
				if runtime.GOOS != "linux" && c.listen != "[::1]" {
					return // no other addresses of the interface
				}
				seen, port := listener(t, network, c.listen)
				for c.from == "" && network == "tcp" && !nobodyListens(t, port) {
					seen, port = listener(t, network, c.listen)
				}
				conn, err := Dial(t.Context(), network, fmt.Sprintf("%s:%s", c.host, port), 0, peer, 5*time.Second)
				if err == nil {
					defer conn.Close()
					conn.Write([]byte("x"))
				}
				if c.from == "" {
					// A datagram to 127.0.0.1 is refused later, or lost.
					if err == nil && network == "tcp" {
						t.Errorf("connected from %s", conn.LocalAddr())
					}
					if err == nil && addrOf(conn.LocalAddr()) != addr("127.64.9.9") {
						t.Errorf("sent from %s", conn.LocalAddr())
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				select {
				case from := <-seen:
					if from != addr(c.from) {
						t.Errorf("came from %s, want %s", from, c.from)
					}
				case <-time.After(10 * time.Second):
					t.Error("nothing came")
				}
			})
		}
	}
}

func addrOf(a net.Addr) netip.Addr {
	ap, _ := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap()
}

// nobodyListens has no other process listen on the port of 127.0.0.1 until the test ends:
// a connection of the test's own has the port. It reports whether that was possible.
func nobodyListens(t *testing.T, port string) bool {
	t.Helper()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	local, err := net.ResolveTCPAddr("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialTCP("tcp", local, other.Addr().(*net.TCPAddr))
	if err != nil {
		return false
	}
	t.Cleanup(func() { conn.Close() })
	return true
}

// listener reports the source of its first connection or datagram.
func listener(t *testing.T, network, host string) (seen <-chan netip.Addr, port string) {
	t.Helper()
	from := make(chan netip.Addr, 1)
	var at net.Addr
	if network == "tcp" {
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			if c, err := l.Accept(); err == nil {
				from <- addrOf(c.RemoteAddr())
				c.Close()
			}
		}()
		at = l.Addr()
	} else {
		c, err := net.ListenPacket("udp", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			if _, a, err := c.ReadFrom(make([]byte, 10)); err == nil {
				from <- addrOf(a)
			}
		}()
		at = c.LocalAddr()
	}
	_, port, _ = net.SplitHostPort(at.String())
	return from, port
}

func TestDialErrors(t *testing.T) {
	if _, err := Dial(t.Context(), "tcp", "no port", 80, addr("100.64.0.1"), time.Second); err == nil {
		t.Error("dialled a target without a port")
	}
	_, port := listener(t, "tcp", "[::1]")
	_, err := Dial(t.Context(), "tcp", "localhost:"+port, 80, addr("100.64.0.1"), time.Second)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a program at ::1 only: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Dial(ctx, "tcp", "", 80, addr("100.64.0.1"), time.Second); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A program that listens on ::1 only is reported once, and again when it is reached.
func TestWatch(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // not implemented there
	}
	type report struct {
		port, target uint16
		only6        bool
	}
	for _, network := range []string{"tcp", "udp"} {
		var got []report
		w := Watch{Report: func(port, target uint16, only6 bool) { got = append(got, report{port, target, only6}) }}
		refused := func(target string, port uint16) {
			w.lastLook = time.Time{}
			w.Refused(network, target, port)
		}
		_, p := listener(t, network, "[::1]")
		var at uint16
		fmt.Sscan(p, &at)
		refused("", at)
		refused("", at)
		refused("localhost:"+p, 80)
		refused("[::1]:"+p, 81)    // the target is [::1] itself
		refused("nas.lan:"+p, 82)  // another machine
		refused("no target", 83)   // invalid
		refused("127.0.0.2:1", 84) // nobody listens
		w.Reached(7)
		w.Reached(80)
		w.lastLook = time.Now()
		w.Refused(network, "localhost:"+p, 80) // too soon after the last look
		want := []report{{at, at, true}, {80, at, true}, {80, 0, false}}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: reported %v, want %v", network, got, want)
		}
		for i := range uint16(100) {
			refused("localhost:"+p, 1000+i)
		}
		if len(w.reported) > maxReported {
			t.Errorf("%d ports are remembered", len(w.reported))
		}
	}
	var none *Watch
	none.Refused("tcp", "", 80)
	none.Reached(80)
}
