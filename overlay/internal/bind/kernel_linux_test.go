package bind

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"

	"weft/overlay/cert"
	"weft/overlay/internal/mono"
	"weft/overlay/relay/lane"
)

// opened2 opens a Bind with a kernel socket and returns the socket's receive function,
// which only the test calls.
func opened2(t testing.TB) (*Bind, conn.ReceiveFunc, netip.AddrPort) {
	t.Helper()
	b := New(Config{Listen: Listen})
	fns, _, err := b.Open(0)
	if err != nil || len(fns) != 2 {
		t.Fatalf("%d functions, %v, %v", len(fns), err, b.ListenError())
	}
	t.Cleanup(func() { b.Close() })
	return b, fns[1], netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), b.Port())
}

// One socket carries both families; an IPv4 socket returns an error for IPv6.
func TestFamilies(t *testing.T) {
	a, _, from := opened2(t)
	b, fn, to := opened2(t)
	loopbacks := []netip.Addr{from.Addr()}
	if c, err := net.ListenPacket("udp6", "[::1]:0"); err == nil { // where there is IPv6
		c.Close()
		loopbacks = append(loopbacks, netip.IPv6Loopback())
	}
	bufs, sizes, eps := [][]byte{make([]byte, MaxMessage)}, make([]int, 1), make([]conn.Endpoint, 1)
	for i, ip := range loopbacks {
		toB, toA := NewEndpoint(bob, addr), endpoint(b, cert.NodeID{9, byte(i)}, addr)
		toB.SetPath(Path{Kind: Direct, Addr: netip.AddrPortFrom(ip, to.Port())}, 1400)
		b.Verify(toA, Path{Kind: Direct, Addr: netip.AddrPortFrom(ip, from.Port())})
		a.Send([][]byte{data(100, 1)}, toB)
		if n, err := fn(bufs, sizes, eps); n != 1 || err != nil || eps[0] != toA || sizes[0] != 100 {
			t.Fatalf("%v: %d, %v, %v", ip, n, err, eps[0])
		}
	}

	var troubles []error
	only4 := New(Config{
		Listen:     func(network, address string) (net.PacketConn, error) { return Listen("udp4", address) },
		SendFailed: func(_ *Endpoint, _ Path, err error) { troubles = append(troubles, err) },
	})
	if _, _, err := only4.Open(0); err != nil {
		t.Fatal(err)
	}
	defer only4.Close()
	relay := &counter{}
	ep := endpoint(only4, bob, addr)
	ep.SetSender(relay)
	six := Path{Kind: Direct, Addr: netip.AddrPortFrom(netip.IPv6Loopback(), to.Port())}
	ep.SetPath(six, 1400)
	only4.Send([][]byte{data(100, 1)}, ep)
	if relay.n != 1 || len(troubles) != 1 || !errors.Is(troubles[0], unix.EAFNOSUPPORT) || !errors.Is(only4.SendTo(data(40, 1), six), unix.EAFNOSUPPORT) {
		t.Errorf("%d by the relay, %v", relay.n, troubles)
	}
	b.Verify(endpoint(b, cert.NodeID{8}, addr), Path{Kind: Direct, Addr: netip.AddrPortFrom(from.Addr(), only4.Port())})
	ep.SetPath(Path{Kind: Direct, Addr: to}, 1400)
	only4.Send([][]byte{data(100, 1)}, ep)
	if n, err := fn(bufs, sizes, eps); n != 1 || err != nil || sizes[0] != 100 {
		t.Fatalf("from an IPv4 socket: %d, %v", n, err)
	}
}

// Datagrams of all sizes, in runs that the kernel joins and in others, arrive unchanged
// and in order, however many buffers the reader has.
func TestKernelDatagrams(t *testing.T) {
	for _, batch := range []int{1, 3, 64, BatchSize} {
		a, _, from := opened2(t)
		b, fn, to := opened2(t)
		toB, toA := endpoint(a, bob, addr), endpoint(b, alice, addr)
		toB.SetPath(Path{Kind: Direct, Addr: to}, MaxLimit)
		b.Verify(toA, Path{Kind: Direct, Addr: from})
		rng := rand.New(rand.NewPCG(7, uint64(batch)))
		bufs, sizes, eps := make([][]byte, batch), make([]int, batch), make([]conn.Endpoint, batch)
		for i := range bufs {
			bufs[i] = make([]byte, MaxMessage)
		}
		number := uint32(0)
		for round := range 60 {
			var sent [][]byte
			bytesSent := 0
			for len(sent) < 100 && bytesSent < 150_000 {
				size := []int{32, 64, 96, 148, 1200, 1452, 1452, 1452, 8900, 40_000}[rng.IntN(10)]
				if round%7 == 0 {
					size = minMessage + rng.IntN(3000)
				}
				for range 1 + rng.IntN(50) {
					msg := data(size, byte(rng.Uint32()))
					binary.LittleEndian.PutUint32(msg[4:], number)
					number++
					sent = append(sent, msg)
					if bytesSent += size; bytesSent > 150_000 {
						break
					}
				}
				if rng.IntN(2) == 0 { // a shorter one at the end
					msg := data(max(size-rng.IntN(size), minMessage), 9)
					sent = append(sent, msg)
				}
			}
			for i := 0; i < len(sent); i += BatchSize {
				a.Send(sent[i:min(i+BatchSize, len(sent))], toB)
			}
			// No timeout: on loopback a datagram has arrived once it was sent.
			for len(sent) > 0 {
				n, err := fn(bufs, sizes, eps)
				if err != nil {
					t.Fatal(err)
				}
				for i := range n {
					if sizes[i] == 0 {
						continue
					}
					if len(sent) == 0 || !bytes.Equal(bufs[i][:sizes[i]], sent[0]) || eps[i] != toA {
						t.Fatalf("batch %d, round %d: got %d bytes, want the message before %d others", batch, round, sizes[i], len(sent)-1)
					}
					toA.Done(1, sizes[i], mono.Now())
					sent = sent[1:]
				}
			}
		}
		if toB.Lost() != 0 || b.Dropped() != 0 {
			t.Errorf("%d lost, %d dropped", toB.Lost(), b.Dropped())
		}
	}
}

// Sending and receiving take no lock of this package and allocate nothing.
func TestSocketNoLockAndNoGarbage(t *testing.T) {
	for name, kind := range map[string]Kind{"direct": Direct, "lane": RelayedUDP} {
		t.Run(name, func(t *testing.T) {
			a, _, from := opened2(t)
			b, fn, to := opened2(t)
			toB, toA := endpoint(a, bob, addr), endpoint(b, alice, addr)
			lane := lane.ID{}
			if kind == RelayedUDP {
				lane[0] = 1
			}
			toB.SetPath(Path{Kind: kind, Addr: to, Lane: lane}, 1472)
			b.Verify(toA, Path{Kind: kind, Addr: from, Lane: lane})
			bufs, sizes, eps := make([][]byte, BatchSize), make([]int, BatchSize), make([]conn.Endpoint, BatchSize)
			for i := range bufs {
				bufs[i] = make([]byte, MaxMessage)
			}
			sent := make([][]byte, 90)
			for i := range sent {
				sent[i] = data(1452, byte(i))
			}
			batch := func() {
				a.Send(sent, toB)
				for got := 0; got < len(sent); {
					n, err := fn(bufs, sizes, eps)
					if err != nil {
						t.Fatal(err)
					}
					for i := range n {
						if sizes[i] > 0 {
							got++
							toA.Done(1, sizes[i], 1)
						}
					}
				}
			}
			for range 10 { // until the reader has adapted to the sizes
				batch()
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			b.mu.Lock()
			defer b.mu.Unlock()
			if n := testing.AllocsPerRun(200, batch); n > 0 && !raceEnabled {
				t.Errorf("%v allocations per batch", n)
			}
			if toB.Lost() != 0 {
				t.Error("not by the socket")
			}
		})
	}
}

func BenchmarkSocket(bm *testing.B) {
	a, _, from := opened2(bm)
	b, fn, to := opened2(bm)
	toB, toA := endpoint(a, bob, addr), endpoint(b, alice, addr)
	toB.SetPath(Path{Kind: Direct, Addr: to}, 1472)
	b.Verify(toA, Path{Kind: Direct, Addr: from})
	bufs, sizes, eps := make([][]byte, BatchSize), make([]int, BatchSize), make([]conn.Endpoint, BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, MaxMessage)
	}
	sent := make([][]byte, 44)
	for i := range sent {
		sent[i] = data(1452, byte(i))
	}
	bm.SetBytes(44 * 1452)
	bm.ReportAllocs()
	for bm.Loop() {
		a.Send(sent, toB)
		for got := 0; got < len(sent); {
			n, _ := fn(bufs, sizes, eps)
			for i := range n {
				if sizes[i] > 0 {
					got++
					toA.Done(1, sizes[i], 1)
				}
			}
		}
	}
}

// Nothing is fragmented, in either family, whatever ICMP says.
func TestSocketsDoNotFragment(t *testing.T) {
	for network, level := range map[string][2]int{"udp": {unix.SOL_IP, unix.IP_MTU_DISCOVER}, "udp6": {unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER}, "udp4": {unix.SOL_IP, unix.IP_MTU_DISCOVER}} {
		c, err := Listen(network, ":0")
		if err != nil {
			t.Fatal(err)
		}
		raw, err := c.(*net.UDPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			v, err := unix.GetsockoptInt(int(fd), level[0], level[1])
			if err != nil || v != unix.IP_PMTUDISC_PROBE {
				t.Errorf("%s: option %d, %v", network, v, err)
			}
		})
		c.Close()
	}
}
