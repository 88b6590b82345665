package tun

import (
	"encoding/binary"
	"math/bits"
)

const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58

	tcpFIN = 1
	tcpSYN = 2
	tcpRST = 4
	tcpPSH = 8
	tcpACK = 16
	tcpURG = 32

	maxHeader = 60 + 60 // of IPv4 and TCP, with all options
)

// tcpShape is the layout of a TCP packet.
type tcpShape struct {
	ip   int // length of the IP header
	head int // length of both headers
	v6   bool
}

// shapeOf parses a TCP packet of exactly its stated length that is not a fragment and
// has no IPv6 extension header.
func shapeOf(pkt []byte) (s tcpShape, ok bool) {
	switch {
	case len(pkt) >= 40 && pkt[0]>>4 == 4:
		s.ip = int(pkt[0]&15) * 4
		if s.ip < 20 || pkt[9] != protoTCP || binary.BigEndian.Uint16(pkt[6:])&0x3fff != 0 ||
			int(binary.BigEndian.Uint16(pkt[2:])) != len(pkt) {
			return s, false
		}
	case len(pkt) >= 60 && pkt[0]>>4 == 6:
		s.ip, s.v6 = 40, true
		if pkt[6] != protoTCP || int(binary.BigEndian.Uint16(pkt[4:])) != len(pkt)-40 {
			return s, false
		}
	default:
		return s, false
	}
	if len(pkt) < s.ip+20 {
		return s, false
	}
	tcp := int(pkt[s.ip+12]>>4) * 4
	s.head = s.ip + tcp
	return s, tcp >= 20 && len(pkt) >= s.head
}

// addresses are the bytes of source and destination.
func (s tcpShape) addresses(pkt []byte) []byte {
	if s.v6 {
		return pkt[8:40]
	}
	return pkt[12:20]
}

// setLength writes the length of a whole packet and the checksum into its IP header.
func (s tcpShape) setLength(head []byte, length int) {
	if s.v6 {
		binary.BigEndian.PutUint16(head[4:], uint16(length-40))
		return
	}
	binary.BigEndian.PutUint16(head[2:], uint16(length))
	head[10], head[11] = 0, 0
	binary.NativeEndian.PutUint16(head[10:], ^fold(sum(head[:s.ip], 0)))
}

// pseudo is the sum of the pseudo header of a TCP packet of that length.
func (s tcpShape) pseudo(head []byte, length int) uint64 {
	l := length - s.ip
	return sum([]byte{0, protoTCP, byte(l >> 8), byte(l)}, sum(s.addresses(head), 0))
}

// splitter splits a TCP packet into segments.
type splitter struct {
	shape tcpShape
	size  int // payload of a segment
	head  [maxHeader]byte
	rest  []byte // remaining payload
	index int
	seq   uint32
}

// begin starts to split a packet into segments with up to size bytes of payload. It
// uses the packet until the last segment.
func (s *splitter) begin(pkt []byte, shape tcpShape, size int) {
	s.shape, s.size, s.index = shape, size, 0
	copy(s.head[:], pkt[:shape.head])
	s.rest = pkt[shape.head:]
	s.seq = binary.BigEndian.Uint32(pkt[shape.ip+4:])
}

// more reports whether there is another segment.
func (s *splitter) more() bool { return len(s.rest) > 0 }

// next writes the next segment into out and returns its length.
func (s *splitter) next(out []byte) int {
	payload := s.rest[:min(s.size, len(s.rest))]
	s.rest = s.rest[len(payload):]
	head, n := s.shape.head, s.shape.head+len(payload)
	copy(out[head:n], payload)
	copy(out[:head], s.head[:head])
	if !s.shape.v6 {
		binary.BigEndian.PutUint16(out[4:], binary.BigEndian.Uint16(out[4:])+uint16(s.index))
	}
	s.shape.setLength(out, n)
	tcp := out[s.shape.ip:n]
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	if len(s.rest) > 0 {
		tcp[13] &^= tcpFIN | tcpPSH
	}
	tcp[16], tcp[17] = 0, 0
	binary.NativeEndian.PutUint16(tcp[16:], ^fold(sum(tcp, s.shape.pseudo(out, n))))
	s.seq += uint32(len(payload))
	s.index++
	return n
}

// complete finishes a checksum that the kernel has left to the interface: it covers the
// packet from start on, and start+offset contains the sum of the pseudo header.
func complete(pkt []byte, start, offset int) bool {
	if start+offset+2 > len(pkt) {
		return false
	}
	c := ^fold(sum(pkt[start:], 0))
	if c == 0 && offset == 6 {
		c = 0xffff // UDP: zero would mean none
	}
	binary.NativeEndian.PutUint16(pkt[start+offset:], c)
	return true
}

// sum adds b to a ones' complement sum of native words; b must start at an even offset
// of the summed data.
func sum(b []byte, acc uint64) uint64 {
	var c uint64
	for len(b) >= 64 {
		w := (*[64]byte)(b)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[0:]), 0)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[8:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[16:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[24:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[32:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[40:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[48:]), c)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(w[56:]), c)
		acc, c = bits.Add64(acc, 0, c)
		acc += c
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(b), 0)
		acc += c
		b = b[8:]
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		acc, c = bits.Add64(acc, binary.NativeEndian.Uint64(last[:]), 0)
		acc += c
	}
	return acc
}

// fold reduces a sum to 16 bits in native order.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc>>16 + acc&0xffff)
}
