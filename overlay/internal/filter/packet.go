package filter

import (
	"encoding/binary"
	"net/netip"
)

// Protocol numbers and flags that the filter knows.
const (
	protoHopByHop = 0
	protoICMP4    = 1
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoAH       = 51
	protoICMP6    = 58
	protoNone     = 59
	protoDestOpts = 60
	protoMobility = 135
	protoHIP      = 139
	protoShim6    = 140
	protoTest1    = 253 // IPv6: an extension header that gVisor skips
	protoTest2    = 254

	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpACK = 0x10
)

// maxExtensions bounds the IPv6 extension headers of one packet. Real packets have at
// most three.
const maxExtensions = 8

type kind uint8

const (
	kindFlow kind = iota // has ports, or is a protocol unknown to the filter
	kindEcho
	kindEchoReply
	kindICMPError
	kindICMPOther
)

type fragment uint8

const (
	fragNone  fragment = iota
	fragFirst          // carries the transport header
	fragLater
)

// header is what the filter needs of a packet.
type header struct {
	src, dst         netip.Addr
	v6               bool
	proto            uint8 // of the transport, past all extension headers
	kind             kind
	frag             fragment
	tcpFlags         uint8
	srcPort, dstPort uint16 // 0 without ports; for echo both are the identifier
	fragID           uint32

	// quoted is the packet that an ICMP error is about.
	quoted struct {
		proto            uint8
		srcPort, dstPort uint16
	}
}

// opens reports whether the packet is a TCP SYN that begins a connection.
func (h *header) opens() bool {
	return h.proto == protoTCP && h.tcpFlags&(tcpSYN|tcpACK|tcpRST) == tcpSYN
}

// marks returns the marks of a TCP packet about the end of its connection. end is the
// mark of its sender.
func (h *header) marks(end uint64) uint64 {
	switch {
	case h.tcpFlags&(tcpRST|tcpFIN) == 0: // or not TCP
		return 0
	case h.tcpFlags&tcpRST != 0:
		return over
	}
	return end
}

// parse parses a whole IP packet and reports whether it is well formed.
func (h *header) parse(pkt []byte) bool {
	if len(pkt) == 0 {
		return false
	}
	var payload []byte
	var offset int // of the fragment, in bytes
	var more, ok bool
	switch pkt[0] >> 4 {
	case 4:
		if payload, ok = h.parse4(pkt); !ok || int(binary.BigEndian.Uint16(pkt[2:])) != len(pkt) {
			return false
		}
		field := binary.BigEndian.Uint16(pkt[6:])
		offset, more = int(field&0x1fff)*8, field&0x2000 != 0
		h.fragID = uint32(binary.BigEndian.Uint16(pkt[4:]))
	case 6:
		if len(pkt) < 40 || int(binary.BigEndian.Uint16(pkt[4:]))+40 != len(pkt) {
			return false
		}
		if payload, offset, more, ok = h.parse6(pkt); !ok {
			return false
		}
	default:
		return false
	}

	switch {
	case offset > 0:
		h.frag = fragLater
		// A fragment that would overwrite the ports and flags of the first one, or extend
		// past the longest datagram, has no honest use. The first fragment decides the
		// protocol, whatever this one says.
		if offset < 20 || offset+len(payload) > 65535 || len(payload) == 0 {
			return false
		}
		return !more || len(payload)%8 == 0
	case more:
		h.frag = fragFirst
		if len(payload)%8 != 0 {
			return false
		}
	}
	return h.transport(payload, h.frag == fragFirst)
}

// parse4 parses an IPv4 header and returns what follows it. It ignores the total length.
func (h *header) parse4(pkt []byte) (payload []byte, ok bool) {
	if len(pkt) < 20 {
		return nil, false
	}
	hlen := int(pkt[0]&15) * 4
	if hlen < 20 || hlen > len(pkt) || !options4(pkt[20:hlen]) {
		return nil, false
	}
	h.proto = pkt[9]
	h.src = netip.AddrFrom4([4]byte(pkt[12:16]))
	h.dst = netip.AddrFrom4([4]byte(pkt[16:20]))
	return pkt[hlen:], true
}

// options4 reports whether the IPv4 options are well formed and free of source
// routes.
func options4(opt []byte) bool {
	for len(opt) > 0 {
		switch opt[0] {
		case 0: // end of list
			return true
		case 1: // no operation
			opt = opt[1:]
			continue
		case 131, 137: // loose and strict source route
			return false
		}
		if len(opt) < 2 || opt[1] < 2 || int(opt[1]) > len(opt) {
			return false
		}
		opt = opt[opt[1]:]
	}
	return true
}

// parse6 parses an IPv6 header and its extension headers, up to a fragment header that is
// not of the first fragment, and returns what follows. It ignores the payload length.
//
// It accepts the headers that all stacks parse in the same way: hop-by-hop options as the
// first, destination options, one fragment header as the last. Headers such as
// authentication and mobility are skipped by one stack, taken for the transport by
// another, and parsed with another length by a third: after them there could be a port
// that the filter has not checked.
func (h *header) parse6(pkt []byte) (payload []byte, offset int, more, ok bool) {
	if len(pkt) < 40 {
		return nil, 0, false, false
	}
	h.v6 = true
	h.src = netip.AddrFrom16([16]byte(pkt[8:24]))
	h.dst = netip.AddrFrom16([16]byte(pkt[24:40]))
	next, rest := pkt[6], pkt[40:]
	fragmented := false
	for i := 0; ; i++ {
		if next == protoTCP || next == protoUDP { // nearly always
			h.proto = next
			return rest, offset, more, true
		}
		size := 0
		switch next {
		case protoHopByHop:
			if i > 0 {
				return nil, 0, false, false
			}
			fallthrough
		case protoDestOpts:
			if fragmented || len(rest) < 8 {
				return nil, 0, false, false
			}
			size = (int(rest[1]) + 1) * 8
			if size > len(rest) || !options6(rest[2:size]) {
				return nil, 0, false, false
			}
		case protoFragment:
			if fragmented || len(rest) < 8 {
				return nil, 0, false, false
			}
			fragmented, size = true, 8
			field := binary.BigEndian.Uint16(rest[2:])
			offset, more = int(field&^7), field&1 != 0
			h.fragID = binary.BigEndian.Uint32(rest[4:])
		case protoRouting, protoNone, protoAH, protoMobility, protoHIP, protoShim6, protoTest1, protoTest2:
			return nil, 0, false, false
		default:
			h.proto = next
			return rest, offset, more, true
		}
		if size > len(rest) || i == maxExtensions {
			return nil, 0, false, false
		}
		next, rest = rest[0], rest[size:]
		if offset > 0 {
			// What follows in a later fragment is data.
			h.proto = next
			return rest, offset, more, true
		}
	}
}

// options6 reports whether the options of an IPv6 extension header are padding. Stacks
// that know other options may take another length (jumbo payload) or another source (home
// address) from them. Two nodes need none.
func options6(opt []byte) bool {
	for len(opt) > 0 {
		switch {
		case opt[0] == 0: // one byte
			opt = opt[1:]
		case opt[0] == 1 && len(opt) >= 2 && int(opt[1])+2 <= len(opt):
			opt = opt[int(opt[1])+2:]
		default:
			return false
		}
	}
	return true
}

// transport parses the header above IP. first says that p is the first fragment of a
// longer datagram, so lengths inside may point past its end.
func (h *header) transport(p []byte, first bool) bool {
	switch h.proto {
	case protoTCP:
		if len(p) < 20 {
			return false
		}
		if off := int(p[12]>>4) * 4; off < 20 || off > len(p) {
			return false
		}
		h.tcpFlags = p[13]
		h.ports(p)

	case protoUDP:
		if len(p) < 8 {
			return false
		}
		if n := int(binary.BigEndian.Uint16(p[4:])); n < 8 || !first && n > len(p) {
			return false
		}
		h.ports(p)

	case protoICMP4, protoICMP6:
		if h.v6 != (h.proto == protoICMP6) || len(p) < 8 {
			return false
		}
		return h.icmp(p, first)
	}
	return true
}

func (h *header) ports(p []byte) {
	h.srcPort = binary.BigEndian.Uint16(p)
	h.dstPort = binary.BigEndian.Uint16(p[2:])
}

func (h *header) icmp(p []byte, first bool) bool {
	h.kind = kindICMPOther
	request, reply := uint8(8), uint8(0)
	if h.v6 {
		request, reply = 128, 129
	}
	switch p[0] {
	case request, reply:
		h.kind = kindEcho
		if p[0] == reply {
			h.kind = kindEchoReply
		}
		h.srcPort = binary.BigEndian.Uint16(p[4:])
		h.dstPort = h.srcPort
		return true
	}
	isError := p[0] == 3 || p[0] == 11 || p[0] == 12
	if h.v6 {
		isError = p[0] >= 1 && p[0] <= 4
	}
	if !isError {
		return true
	}
	h.kind = kindICMPError
	return !first && h.quote(p[8:])
}

// quote parses the packet that an ICMP error quotes. It must have been sent from the
// error's destination to its source. It is usually cut short, so its lengths are ignored.
func (h *header) quote(p []byte) bool {
	var q header
	var rest []byte
	ok := false
	if h.v6 {
		if len(p) == 0 || p[0]>>4 != 6 {
			return false
		}
		var offset int
		rest, offset, _, ok = q.parse6(p)
		ok = ok && offset == 0
	} else {
		if len(p) == 0 || p[0]>>4 != 4 {
			return false
		}
		rest, ok = q.parse4(p)
		ok = ok && binary.BigEndian.Uint16(p[6:])&0x1fff == 0
	}
	if !ok || q.src != h.dst || q.dst != h.src {
		return false
	}
	h.quoted.proto = q.proto
	switch q.proto {
	case protoTCP, protoUDP:
		if len(rest) < 4 {
			return false
		}
		h.quoted.srcPort = binary.BigEndian.Uint16(rest)
		h.quoted.dstPort = binary.BigEndian.Uint16(rest[2:])
	case protoICMP4, protoICMP6:
		// Only an echo request may be answered with an error.
		want := uint8(8)
		if h.v6 {
			want = 128
		}
		if h.v6 != (q.proto == protoICMP6) || len(rest) < 8 || rest[0] != want {
			return false
		}
		h.quoted.srcPort = binary.BigEndian.Uint16(rest[4:])
	}
	return true
}
