package overlaytest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs f with an internet inside a synctest bubble.
func bubble(t *testing.T, f func(t *testing.T, in *Internet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		in := New(1)
		defer in.Close()
		f(t, in)
	})
}

func udp(t *testing.T, h *Host, address string) *PacketConn {
	t.Helper()
	c, err := h.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*PacketConn)
}

// recv returns the next datagram, or "" when none comes within a second.
func recv(t *testing.T, c *PacketConn) (string, netip.AddrPort) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Second))
	b := make([]byte, 2000)
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return "", netip.AddrPort{}
	}
	return string(b[:n]), from
}

func send(t *testing.T, c *PacketConn, to netip.AddrPort, s string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(s), to); err != nil {
		t.Fatal(err)
	}
}

// empty discards waiting datagrams and returns their number.
func empty(c *PacketConn) int {
	c.host.in.mu.Lock()
	defer c.host.in.mu.Unlock()
	n := len(c.queue)
	c.queue, c.queued = nil, 0
	return n
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// TestNATKinds checks each kind's mapping and filtering against RFC 4787's
// terms.
func TestNATKinds(t *testing.T) {
	type behaviour struct {
		out       bool // UDP passes at all
		sameMap   bool // one mapping for all destinations
		preserved bool // the port outside is the socket's own
		known     bool // an answer from where we sent to
		otherPort bool // … from another port of that address
		otherAddr bool // … from another address
	}
	want := map[Kind]behaviour{
		NoNAT:               {true, true, true, true, true, true},
		FullCone:            {true, true, false, true, true, true},
		AddressRestricted:   {true, true, false, true, true, false},
		PortRestricted:      {true, true, false, true, false, false},
		Symmetric:           {true, false, false, true, false, false},
		SymmetricPreserving: {true, true, true, true, false, false},
		UDPBlocked:          {},
	}
	for _, kind := range Kinds {
		t.Run(kind.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, in *Internet) {
				s1, s2 := in.Host("s1", "192.0.2.1"), in.Host("s2", "192.0.2.2")
				inside := "192.168.1.2"
				if kind == NoNAT {
					inside = "198.51.100.10"
				}
				home := in.NAT("home", kind, "198.51.100.1")
				h := home.Host("h", inside)
				a, aOther, b := udp(t, s1, ":1000"), udp(t, s1, ":1001"), udp(t, s2, ":1000")
				c := udp(t, h, ":5000")

				send(t, c, addr("192.0.2.1:1000"), "hello")
				got, seen := recv(t, a)
				var have behaviour
				have.out = got == "hello"
				if !have.out {
					if have != want[kind] {
						t.Errorf("got %+v, want %+v", have, want[kind])
					}
					return
				}
				if translated := seen.Addr() == home.outside; translated == (kind == NoNAT) {
					t.Errorf("seen from outside as %v", seen)
				}
				have.preserved = seen.Port() == 5000
				answer := func(from *PacketConn) bool {
					send(t, from, seen, "answer")
					got, _ := recv(t, c)
					return got == "answer"
				}
				have.known = answer(a)
				have.otherPort = answer(aOther)
				have.otherAddr = answer(b)
				send(t, c, addr("192.0.2.2:1000"), "hello")
				if got, seenB := recv(t, b); got == "hello" {
					have.sameMap = seenB == seen
				}
				if have != want[kind] {
					t.Errorf("got %+v, want %+v", have, want[kind])
				}
				// The mapping is stable while in use, and ends some time later.
				for range 10 {
					time.Sleep(20 * time.Second)
					send(t, c, addr("192.0.2.1:1000"), "again")
					if _, again := recv(t, a); again != seen {
						t.Errorf("mapping changed from %v to %v", seen, again)
					}
				}
				home.SetMappingTimeout(time.Minute)
				time.Sleep(59 * time.Second)
				if !answer(a) {
					t.Error("the mapping was gone too early")
				}
				time.Sleep(61 * time.Second)
				if kind != NoNAT && answer(a) {
					t.Error("an expired mapping let a datagram in")
				}
				if home.Reboot(); kind != NoNAT && answer(a) {
					t.Error("a rebooted router let a datagram in")
				}
			})
		})
	}
}

// TestTwoSocketsBehindPreservingNAT: a second socket with the same port does not get the
// first one's port outside.
func TestTwoSocketsBehindPreservingNAT(t *testing.T) {
	bubble(t, func(t *testing.T, in *Internet) {
		s := udp(t, in.Host("s", "192.0.2.1"), ":1000")
		home := in.NAT("home", SymmetricPreserving, "198.51.100.1")
		a, b := udp(t, home.Host("a", "10.0.0.1"), ":5000"), udp(t, home.Host("b", "10.0.0.2"), ":5000")
		send(t, a, addr("192.0.2.1:1000"), "a")
		_, atA := recv(t, s)
		send(t, b, addr("192.0.2.1:1000"), "b")
		_, atB := recv(t, s)
		if atA.Port() != 5000 || atB.Port() == 5000 {
			t.Errorf("seen as %v and %v", atA, atB)
		}
		send(t, s, atB, "for b")
		if got, _ := recv(t, b); got != "for b" {
			t.Errorf("b got %q", got)
		}
	})
}

// punch does what two peers do that know each other's address from STUN: both send, a few
// times. It reports whether each receives something from the other.
func punch(t *testing.T, in *Internet, a, b *Host) bool {
	t.Helper()
	stun := udp(t, in.Host("stun", "192.0.2.1"), ":3478")
	ca, cb := udp(t, a, ":41641"), udp(t, b, ":41642")
	learn := func(c *PacketConn) netip.AddrPort {
		send(t, c, addr("192.0.2.1:3478"), "who am I")
		_, seen := recv(t, stun)
		return seen
	}
	atA, atB := learn(ca), learn(cb)
	if !atA.IsValid() || !atB.IsValid() {
		return false
	}
	toA, toB := atA, atB
	heardA, heardB := false, false
	for range 5 {
		send(t, ca, toB, "punch")
		send(t, cb, toA, "punch")
		// Answers go to the source of a datagram, as with probes.
		if got, from := recv(t, ca); got != "" {
			heardA, toB = true, from
		}
		if got, from := recv(t, cb); got != "" {
			heardB, toA = true, from
		}
	}
	return heardA && heardB
}

// TestHolePunchingGrid: hole punching between every pair of kinds works as in theory.
func TestHolePunchingGrid(t *testing.T) {
	possible := func(a, b Kind) bool {
		if a == UDPBlocked || b == UDPBlocked {
			return false
		}
		hard := func(k Kind) bool { return k == Symmetric }
		strict := func(k Kind) bool { return k == PortRestricted || k == Symmetric || k == SymmetricPreserving }
		// A random port for each destination cannot be guessed, and a strict filter lets
		// in that port only.
		return !(hard(a) && strict(b) || hard(b) && strict(a))
	}
	for _, ka := range Kinds {
		for _, kb := range Kinds {
			t.Run(fmt.Sprintf("%v/%v", ka, kb), func(t *testing.T) {
				bubble(t, func(t *testing.T, in *Internet) {
					a := in.NAT("na", ka, "198.51.100.1").Host("a", "198.51.100.11")
					b := in.NAT("nb", kb, "203.0.113.1").Host("b", "203.0.113.11")
					a.Link.SetLatency(10 * time.Millisecond)
					b.Link.SetLatency(15 * time.Millisecond)
					if got := punch(t, in, a, b); got != possible(ka, kb) {
						t.Errorf("hole punching worked: %v", got)
					}
				})
			})
		}
	}
}

// TestCarrierGradeNAT: two routers in a row, and neighbours behind the same.
func TestCarrierGradeNAT(t *testing.T) {
	for _, hairpin := range []bool{true, false} {
		bubble(t, func(t *testing.T, in *Internet) {
			carrier := in.NAT("carrier", PortRestricted, "198.51.100.1")
			carrier.SetHairpin(hairpin)
			a := carrier.NAT("a-home", PortRestricted, "100.64.0.1").Host("a", "192.168.1.2")
			b := carrier.NAT("b-home", PortRestricted, "100.64.0.2").Host("b", "192.168.1.2")
			if got := punch(t, in, a, b); got != hairpin {
				t.Errorf("hole punching behind one carrier worked: %v, hairpin %v", got, hairpin)
			}
		})
	}
	bubble(t, func(t *testing.T, in *Internet) {
		a := in.NAT("carrier", PortRestricted, "198.51.100.1").NAT("a-home", PortRestricted, "100.64.0.1").Host("a", "192.168.1.2")
		b := in.NAT("b-home", PortRestricted, "203.0.113.1").Host("b", "192.168.1.2")
		if !punch(t, in, a, b) {
			t.Error("hole punching through two routers failed")
		}
	})
}

// TestLAN: neighbours reach each other without the router.
func TestLAN(t *testing.T) {
	bubble(t, func(t *testing.T, in *Internet) {
		home := in.NAT("home", UDPBlocked, "198.51.100.1")
		a, b := home.Host("a", "192.168.1.2"), home.Host("b", "192.168.1.3")
		home.Link.SetUp(false)
		ca, cb := udp(t, a, ":0"), udp(t, b, ":5000")
		send(t, ca, addr("192.168.1.3:5000"), "hi")
		if got, from := recv(t, cb); got != "hi" || from.Addr().String() != "192.168.1.2" {
			t.Errorf("got %q from %v", got, from)
		}
	})
}

// TestIPv6BehindRouter: IPv6 is not translated, and only answers are let in.
func TestIPv6BehindRouter(t *testing.T) {
	bubble(t, func(t *testing.T, in *Internet) {
		s := in.Host("s", "2001:db8::1")
		h := in.NAT("home", Symmetric, "198.51.100.1").Host("h", "192.168.1.2", "2001:db8:1::2")
		cs, other, ch := udp(t, s, ":1000"), udp(t, s, ":1001"), udp(t, h, ":5000")
		send(t, cs, addr("[2001:db8:1::2]:5000"), "unasked")
		if got, _ := recv(t, ch); got != "" {
			t.Errorf("got %q", got)
		}
		send(t, ch, addr("[2001:db8::1]:1000"), "hello")
		if got, from := recv(t, cs); got != "hello" || from != addr("[2001:db8:1::2]:5000") {
			t.Errorf("got %q from %v", got, from)
		}
		send(t, cs, addr("[2001:db8:1::2]:5000"), "answer")
		if got, _ := recv(t, ch); got != "answer" {
			t.Errorf("got %q", got)
		}
		send(t, other, addr("[2001:db8:1::2]:5000"), "other port")
		if got, _ := recv(t, ch); got != "" {
			t.Errorf("got %q", got)
		}
	})
}

// TestDatagrams: latency, loss, size, buffer, partition, moving.
func TestDatagrams(t *testing.T) {
	bubble(t, func(t *testing.T, in *Internet) {
		a, b := in.Host("a", "192.0.2.1"), in.Host("b", "192.0.2.2")
		ca, cb := udp(t, a, ":1"), udp(t, b, ":2")
		to := addr("192.0.2.2:2")
		a.Link.SetLatency(20 * time.Millisecond)
		b.Link.SetLatency(30 * time.Millisecond)
		start := time.Now()
		for i := range 100 {
			send(t, ca, to, fmt.Sprint(i))
		}
		for i := range 100 {
			if got, _ := recv(t, cb); got != fmt.Sprint(i) {
				t.Fatalf("got %q, want %d", got, i)
			}
		}
		if took := time.Since(start); took != 50*time.Millisecond {
			t.Errorf("took %v", took)
		}

		b.Link.SetLoss(0.3)
		lost := 0
		for range 1000 {
			send(t, ca, to, "x")
		}
		time.Sleep(time.Second)
		lost = 1000 - empty(cb)
		if lost < 250 || lost > 350 {
			t.Errorf("%d of 1000 lost", lost)
		}
		b.Link.SetLoss(0)

		b.Link.SetMTU(1280)
		send(t, ca, to, string(make([]byte, 1253)))
		send(t, ca, to, string(make([]byte, 1252)))
		if got, _ := recv(t, cb); len(got) != 1252 {
			t.Errorf("got %d bytes", len(got))
		}
		b.Link.SetMTU(0)

		in.Partition(a, b)
		send(t, ca, to, "x")
		time.Sleep(time.Second)
		in.Heal(a, b)
		send(t, ca, to, "x")
		time.Sleep(40 * time.Millisecond) // the datagram is on b's link when that goes down
		b.Link.SetUp(false)
		time.Sleep(time.Second)
		b.Link.SetUp(true)
		if got, _ := recv(t, cb); got != "" {
			t.Errorf("got %q", got)
		}

		for range 1000 {
			send(t, ca, to, string(make([]byte, 1000)))
		}
		time.Sleep(time.Second)
		if n := empty(cb); n != packetBuffer/1000 {
			t.Errorf("%d datagrams waiting", n)
		}

		b.Move(in.NAT("cafe", PortRestricted, "198.51.100.1").Net, "10.0.0.9")
		send(t, cb, addr("192.0.2.1:1"), "from the cafe")
		if got, from := recv(t, ca); got != "from the cafe" || from.Addr().String() != "198.51.100.1" {
			t.Errorf("got %q from %v", got, from)
		}
		var seen []string
		in.OnPacket(func(p Packet) {
			seen = append(seen, fmt.Sprint(p.From.Name(), p.Network, p.Src, p.Dst, len(p.Payload)))
		})
		if _, err := ca.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(to)); err != nil {
			t.Error(err)
		}
		if _, err := ca.WriteTo([]byte("x"), &net.TCPAddr{}); err == nil {
			t.Error("wrote to a TCP address")
		}
		if want := []string{"audp192.0.2.1:1 192.0.2.2:2 1"}; !slices.Equal(seen, want) {
			t.Errorf("saw %q, want %q", seen, want)
		}
		if err := cb.Close(); err != nil || cb.Close() == nil {
			t.Errorf("close: %v", err)
		}
		udp(t, b, ":2") // the port is free again
		if _, err := b.ListenPacket("udp", ":2"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("port taken twice: %v", err)
		}
		if _, err := ca.WriteToUDPAddrPort(nil, addr("[2001:db8::1]:1")); err == nil {
			t.Error("a host without IPv6 sent some")
		}
		if _, err := ca.WriteToUDPAddrPort(make([]byte, MaxDatagram+1), to); err == nil {
			t.Error("too large a datagram was sent")
		}
	})
}

// TestDeterministic: the same seed loses the same datagrams and gives the same
// ports.
func TestDeterministic(t *testing.T) {
	run := func(seed uint64) (out string) {
		synctest.Test(t, func(t *testing.T) {
			in := New(seed)
			defer in.Close()
			s := udp(t, in.Host("s", "192.0.2.1"), ":1000")
			home := in.NAT("home", Symmetric, "198.51.100.1")
			home.Link.SetLoss(0.5)
			c := udp(t, home.Host("h", "10.0.0.1"), ":0")
			for i := range 50 {
				send(t, c, addr("192.0.2.1:1000"), fmt.Sprint(i))
			}
			for {
				got, from := recv(t, s)
				if got == "" {
					return
				}
				out += fmt.Sprint(got, from, " ")
			}
		})
		return out
	}
	if a, b := run(7), run(7); a != b {
		t.Errorf("two runs differ:\n%s\n%s", a, b)
	}
	if run(7) == run(8) {
		t.Error("another seed makes no difference")
	}
}
