package netstack

import (
	"bytes"
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Merging of small TCP segments before they enter the stack (a kernel calls it GRO). A
// peer on a kernel interface, or a path that splits to MTU size, delivers runs of
// consecutive segments in one batch. One large segment costs one pass through the stack
// and one acknowledgement.
//
// gVisor's own gro package keeps state between batches, and its Flush forgets packets
// of a second flow in a bucket. This code looks at one batch only, keeps nothing, and
// so needs no lock between the goroutines of several peers.

// maxMerged is the size of the largest IP packet.
const maxMerged = 65535

// segment is a parsed TCP segment.
type segment struct {
	pkt     []byte
	ip, tcp int // header lengths
	seq     uint32
}

func (s *segment) payload() int { return len(s.pkt) - s.ip - s.tcp }

// parseSegment accepts a TCP data segment without IP options, fragmentation,
// padding, or flags other than ACK and PSH.
func parseSegment(pkt []byte) (s segment, ok bool) {
	switch protocolOfPacket(pkt) {
	case header.IPv4ProtocolNumber:
		// Version 4 and header length 5; no fragment; TCP.
		if pkt[0] != 0x45 || pkt[6]&0x3f != 0 || pkt[7] != 0 || pkt[9] != 6 ||
			int(binary.BigEndian.Uint16(pkt[2:])) != len(pkt) {
			return s, false
		}
		s.ip = header.IPv4MinimumSize
	case header.IPv6ProtocolNumber:
		if pkt[6] != 6 || int(binary.BigEndian.Uint16(pkt[4:]))+header.IPv6MinimumSize != len(pkt) {
			return s, false
		}
		s.ip = header.IPv6MinimumSize
	default:
		return s, false
	}
	if len(pkt) < s.ip+header.TCPMinimumSize {
		return s, false
	}
	t := pkt[s.ip:]
	s.tcp = int(t[12]>>4) * 4
	const ack, psh = uint8(header.TCPFlagAck), uint8(header.TCPFlagPsh)
	if s.tcp < header.TCPMinimumSize || s.tcp >= len(t) || t[13]&^psh != ack {
		return s, false
	}
	s.pkt = pkt
	s.seq = binary.BigEndian.Uint32(t[4:])
	return s, true
}

// sameFlow reports whether a and b belong to the same flow and have the same headers,
// except for length, checksum, identification and window.
func (a *segment) sameFlow(b *segment) bool {
	if a.ip != b.ip || a.tcp != b.tcp {
		return false
	}
	p, q := a.pkt, b.pkt
	if a.ip == header.IPv4MinimumSize {
		if p[1] != q[1] || p[6] != q[6] || p[8] != q[8] || !bytes.Equal(p[12:20], q[12:20]) {
			return false
		}
	} else if !bytes.Equal(p[:4], q[:4]) || !bytes.Equal(p[6:40], q[6:40]) {
		return false
	}
	p, q = p[a.ip:a.ip+a.tcp], q[a.ip:a.ip+a.tcp]
	return bytes.Equal(p[:4], q[:4]) && // ports
		bytes.Equal(p[8:12], q[8:12]) && // acknowledgement
		bytes.Equal(p[20:], q[20:]) // options, with the timestamps
}

// mergeRun looks at the packets bufs[i][offset:] from the first on. It returns how many
// of them are consecutive segments of one TCP flow, and the header and payload sizes of
// the merged packet. A run of 1 means that there is nothing to merge.
func mergeRun(bufs [][]byte, offset int) (run, header, payload int) {
	if len(bufs) < 2 {
		return 1, 0, 0
	}
	first, ok := parseSegment(bufs[0][offset:])
	if !ok {
		return 1, 0, 0
	}
	run, header, payload = 1, first.ip+first.tcp, first.payload()
	for run < len(bufs) {
		if offset > len(bufs[run]) {
			break
		}
		s, ok := parseSegment(bufs[run][offset:])
		if !ok || s.seq != first.seq+uint32(payload) || header+payload+s.payload() > maxMerged || !first.sameFlow(&s) {
			break
		}
		payload += s.payload()
		run++
	}
	return run, header, payload
}

// merge makes one packet of bufs[i][offset:]. It writes into hdr and payload, of the
// sizes that mergeRun returned: the headers of the first packet with the new length,
// PSH flag and window, and all payloads. Checksums are not valid; the stack does not
// verify them.
func merge(hdr, payload []byte, bufs [][]byte, offset int) {
	first, _ := parseSegment(bufs[0][offset:])
	copy(hdr, first.pkt)
	last, flags, n := first, uint8(0), 0
	for _, b := range bufs {
		last, _ = parseSegment(b[offset:])
		n += copy(payload[n:], last.pkt[last.ip+last.tcp:])
		flags |= last.pkt[last.ip+13]
	}
	if first.ip == header.IPv4MinimumSize {
		binary.BigEndian.PutUint16(hdr[2:], uint16(len(hdr)+n))
	} else {
		binary.BigEndian.PutUint16(hdr[4:], uint16(len(hdr)+n-header.IPv6MinimumSize))
	}
	t := hdr[first.ip:]
	t[13] = flags
	copy(t[14:16], last.pkt[last.ip+14:])
}
