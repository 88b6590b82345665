package filter

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	stackheader "gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	stacktcp "gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	stackudp "gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// receiver is the stack behind the filter. It reports as what it delivers a packet.
type receiver struct {
	stack *stack.Stack
	link  *channel.Endpoint
	took  []tuple // delivered to TCP and UDP since the last take
}

func newReceiver(t testing.TB) *receiver {
	r := &receiver{link: channel.New(16, 65535, "")}
	r.link.LinkEPCapabilities |= stack.CapabilityRXChecksumOffload
	r.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocolWithOptions(ipv4.Options{}), ipv6.NewProtocolWithOptions(ipv6.Options{})},
		TransportProtocols: []stack.TransportProtocolFactory{stacktcp.NewProtocolCUBIC, stackudp.NewProtocol},
		HandleLocal:        true,
	})
	t.Cleanup(r.close)
	if err := r.stack.CreateNIC(1, r.link); err != nil {
		t.Fatal(err)
	}
	for _, a := range []struct {
		proto tcpip.NetworkProtocolNumber
		ip    netip.Addr
	}{{stackheader.IPv4ProtocolNumber, us4}, {stackheader.IPv6ProtocolNumber, us6}} {
		addr := tcpip.ProtocolAddress{Protocol: a.proto, AddressWithPrefix: tcpip.AddrFromSlice(a.ip.AsSlice()).WithPrefix()}
		if err := r.stack.AddProtocolAddress(1, addr, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, proto := range []uint8{protoTCP, protoUDP} {
		r.stack.SetTransportProtocolHandler(tcpip.TransportProtocolNumber(proto), func(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
			r.took = append(r.took, tuple{id.LocalAddress.Len() == 16, proto, id.LocalPort, id.RemotePort})
			return true
		})
	}
	return r
}

func (r *receiver) close() {
	if r.stack != nil {
		r.stack.Destroy()
		r.stack = nil
	}
}

// take passes a packet to the stack and returns what it delivers.
func (r *receiver) take(b []byte) []tuple {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(append([]byte(nil), b...))})
	proto := stackheader.IPv4ProtocolNumber
	if b[0]>>4 == 6 {
		proto = stackheader.IPv6ProtocolNumber
	}
	r.took = nil
	r.link.InjectInbound(proto, pkt)
	pkt.DecRef()
	r.link.Drain()
	return r.took
}

// door is a filter in front of a stack. Port 80 and two flows of ours are open; a second
// filter opens everything.
type door struct {
	p, wide *Peer
	r       *receiver

	passed, taken int
}

func newDoor(t testing.TB) *door {
	d := &door{p: newPeer(open("tcp", 80, 80), open("udp", 80, 80), open("icmp", 0, 0)), wide: newPeer(open("*", 0, 65535)), r: newReceiver(t)}
	d.p.NoteOut(ip(us4, them4, protoTCP, tcp(50000, 443, tcpSYN)), 0)
	d.p.NoteOut(ip(us6, them6, protoUDP, udp(50001, 53)), 0)
	return d
}

// try returns an error if the packet passes the filter and reaches something in the stack
// that is not open, or if both parse it differently.
func (d *door) try(pkt []byte) error {
	v := d.p.CheckIn(pkt, 0)
	if v.OK() {
		d.passed++
	} else if d.wide.CheckIn(pkt, 0) != Allowed {
		return nil
	}
	var h header
	h.parse(pkt)
	if !v.OK() && h.frag != fragNone {
		return nil // it would stay in the stack and be reassembled with others
	}
	took := d.r.take(pkt)
	d.taken += len(took)
	if v.OK() {
		for _, c := range took {
			if c.ours != 80 && c != (tuple{false, protoTCP, 50000, 443}) && c != (tuple{true, protoUDP, 50001, 53}) {
				return fmt.Errorf("%v, and the stack delivers it to %+v", v, c)
			}
		}
	}
	if h.frag != fragNone {
		return nil
	}
	var want []tuple
	if h.proto == protoTCP || h.proto == protoUDP {
		want = []tuple{{h.v6, h.proto, h.dstPort, h.srcPort}}
	}
	if len(took) == 0 && pkt[0] > 0x45 && pkt[0]>>4 == 4 {
		return nil // the stack refused an IPv4 option
	}
	if !slices.Equal(took, want) {
		return fmt.Errorf("the filter reads %+v, the stack %+v", want, took)
	}
	return nil
}

// wire makes a packet of the peer from what follows the IP header, with the right
// addresses and length.
func wire(v6 bool, proto uint8, ident uint16, frag uint16, payload []byte) []byte {
	if v6 {
		return ip(them6, us6, proto, payload)
	}
	b := ip(them4, us4, proto, payload)
	binary.BigEndian.PutUint16(b[4:], ident)
	binary.BigEndian.PutUint16(b[6:], frag)
	return b
}

var extensions = []uint8{protoHopByHop, protoRouting, protoFragment, protoAH, protoDestOpts, protoNone, protoMobility, protoHIP, protoShim6, protoTest1, protoTest2, 50, 4, 41, 47, 132, protoTCP, protoUDP}

// chain puts random extension headers before a transport header.
func chain(r *rand.Rand) (proto uint8, b []byte) {
	port := [2]uint16{80, 22}[r.IntN(2)]
	proto, b = protoTCP, tcp(443, port, tcpACK, make([]byte, 8*r.IntN(4))...)
	if r.IntN(2) == 0 {
		proto, b = protoUDP, udp(53, port, make([]byte, 8*r.IntN(4))...)
	}
	for range r.IntN(4) {
		next := proto
		proto = extensions[r.IntN(len(extensions))]
		switch proto {
		case protoFragment:
			b = frag6(next, 8*[]int{0, 0, 0, 1, 2, 3, 5}[r.IntN(7)], r.IntN(2) == 0, uint32(r.IntN(3)), b)
		case protoAH:
			h := make([]byte, 8+4*r.IntN(5))
			h[0], h[1] = next, uint8(len(h)/4-2)
			if r.IntN(2) == 0 { // with the length of an extension header
				h = append(make([]byte, 0, 64), make([]byte, 24)...)
				h[0], h[1] = next, 4
			}
			b = append(h, b...)
		default:
			b = ext(next, 8*(1+r.IntN(3)), b)
			if r.IntN(4) == 0 {
				b[1] = uint8(r.IntN(6))
			}
			if r.IntN(4) == 0 {
				b[2], b[3] = uint8(r.IntN(8)*r.IntN(256)), uint8(r.IntN(8))
			}
		}
	}
	return proto, b
}

// Property: filter and stack parse every packet that passes in the same way, whatever its
// headers and fragments.
func TestStackReadsTheSame(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	d := newDoor(t)
	for range 60_000 {
		v6 := r.IntN(4) > 0
		proto, b := chain(r)
		frag := uint16(0)
		if !v6 && r.IntN(2) == 0 {
			frag = uint16(r.IntN(6)) | uint16(r.IntN(2))<<13
		}
		if r.IntN(4) == 0 && len(b) > 0 {
			b[r.IntN(min(len(b), 48))] = uint8(r.Uint32())
		}
		pkt := wire(v6, proto, uint16(r.IntN(3)), frag, b)
		if !v6 && r.IntN(8) == 0 { // options
			opt := make([]byte, 4)
			opt[0], opt[1], opt[2] = uint8(r.Uint32()), uint8(r.IntN(6)), uint8(r.Uint32())
			pkt = append(pkt[:20:20], append(opt, pkt[20:]...)...)
			pkt[0] = 0x46
			binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
		}
		if err := d.try(pkt); err != nil {
			t.Fatalf("%x: %v", pkt, err)
		}
	}
	if d.passed < 1000 || d.taken < 1000 {
		t.Errorf("only %d packets passed, %d arrived: nothing was tried", d.passed, d.taken)
	}
}

// FuzzStack tries packets one after the other: each is a byte of flags, a length,
// a protocol and what follows the IP header.
func FuzzStack(f *testing.F) {
	fixKeys(f)
	one := func(v6 bool, frag uint8, proto uint8, b []byte) []byte {
		flags := frag
		if v6 {
			flags |= 0x80
		}
		return append([]byte{flags, uint8(len(b)), proto}, b...)
	}
	first := frag6(protoUDP, 0, true, 1, with(udp(53, 80, make([]byte, 16)...), 4, 0, 48))
	f.Add(append(one(true, 0, protoFragment, first), one(true, 0, protoFragment, frag6(protoTCP, 24, false, 1, make([]byte, 24)))...))
	f.Add(one(true, 0, protoTest1, ext(protoTCP, 8, tcp(443, 22, tcpACK))))
	f.Add(one(true, 0, protoAH, ext(protoTCP, 24, tcp(443, 80, tcpACK))))
	f.Add(one(false, 0x40, protoUDP, udp(53, 80, make([]byte, 16)...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDoor(t)
		defer d.r.close()
		for len(b) >= 3 {
			flags, proto := b[0], b[2]
			n := min(int(b[1]), len(b)-3)
			payload := b[3 : 3+n]
			b = b[3+n:]
			if err := d.try(wire(flags&0x80 != 0, proto, 1, uint16(flags&0x40)<<7|uint16(flags&0x3f), payload)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
