package dataplane

import (
	"encoding/binary"
	"time"

	"weft/overlay/internal/mono"
)

// refusals makes the answers to an outgoing packet that cannot be delivered, as
// its destination would send them: an ICMP unreachable and, for TCP, a reset.
func refusals(pkt []byte, reason Reason) [][]byte {
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4:
		return refusals4(pkt, reason)
	case len(pkt) >= 40 && pkt[0]>>4 == 6:
		return refusals6(pkt, reason)
	}
	return nil
}

const (
	icmp4Unreachable    = 3
	icmp4HostUnreach    = 1
	icmp4FragNeeded     = 4
	icmp4AdminProhibit  = 13
	icmp6Unreachable    = 1
	icmp6TooBig         = 2
	icmp6AdminProhibit  = 1
	icmp6AddressUnreach = 3

	// The longest errors: RFC 1812, 4.3.2.3, and RFC 4443, 2.4 (c).
	icmp4Max = 576
	icmp6Max = 1280

	tcpFIN, tcpSYN, tcpRST, tcpACK = 1, 2, 4, 16
)

// tooLong answers a packet that only the relay connection carries, so that its sender
// makes shorter ones. It does so now and then, once the path has settled. limit is the
// longest packet that the path carries.
func (f *Forwarder) tooLong(e *Entry, pkt []byte, limit int) {
	now := mono.Now()
	last := e.tooLongAt.Load()
	if now-last < int64(tooLongPause) || time.Since(e.ep.PathSince()) < tooLongWait {
		return
	}
	if answer := packetTooBig(pkt, limit); answer != nil {
		e.tooLongAt.Store(now)
		f.net.Write([][]byte{answer}, 0)
	}
}

const (
	tooLongPause = 10 * time.Second
	tooLongWait  = 3 * time.Second
)

// packetTooBig makes the ICMP error of a router whose next link has this MTU. It returns
// nil for a packet that may be fragmented, and for one that needs no answer.
func packetTooBig(pkt []byte, mtu int) []byte {
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4:
		hlen := int(pkt[0]&15) * 4
		if hlen < 20 || hlen > len(pkt) || pkt[6]&0x40 == 0 || pkt[9] == 1 {
			return nil
		}
		return error4(pkt, icmp4Unreachable, icmp4FragNeeded, uint16(mtu))
	case len(pkt) > icmp6Max && pkt[0]>>4 == 6 && mtu >= 1280 && pkt[6] != 58:
		return error6(pkt, icmp6TooBig, 0, uint32(mtu))
	}
	return nil
}

func refusals4(pkt []byte, reason Reason) [][]byte {
	hlen := int(pkt[0]&15) * 4
	if hlen < 20 || hlen > len(pkt) || binary.BigEndian.Uint16(pkt[6:])&0x1fff != 0 {
		return nil // a later fragment is not answered
	}
	proto, payload := pkt[9], pkt[hlen:]
	// No error about an error: of ICMP only echo requests are answered.
	if proto == 1 && (len(payload) < 8 || payload[0] != 8) {
		return nil
	}
	code := byte(icmp4HostUnreach)
	if reason == Prohibited {
		code = icmp4AdminProhibit
	}
	answers := [][]byte{error4(pkt, icmp4Unreachable, code, 0)}
	if proto == 6 {
		if seg := reset(payload); seg != nil {
			rst := append(make([]byte, 20, 40), seg...)
			header4(rst, 6, pkt)
			binary.BigEndian.PutUint16(rst[36:], ^sum(rst[20:], pseudo(rst[12:20], 6, 20)))
			answers = append(answers, rst)
		}
	}
	return answers
}

// error4 makes the ICMP error about pkt, and quotes as much of it as allowed.
func error4(pkt []byte, typ, code byte, mtu uint16) []byte {
	quoted := pkt[:min(len(pkt), icmp4Max-28)]
	icmp := make([]byte, 28+len(quoted))
	header4(icmp, 1, pkt)
	icmp[20], icmp[21] = typ, code
	binary.BigEndian.PutUint16(icmp[26:], mtu)
	copy(icmp[28:], quoted)
	binary.BigEndian.PutUint16(icmp[22:], ^sum(icmp[20:], 0))
	return icmp
}

// header4 fills in the IPv4 header of b, an answer to pkt.
func header4(b []byte, proto byte, pkt []byte) {
	b[0] = 0x45
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	b[8], b[9] = 64, proto
	copy(b[12:16], pkt[16:20])
	copy(b[16:20], pkt[12:16])
	binary.BigEndian.PutUint16(b[10:], ^sum(b[:20], 0))
}

func refusals6(pkt []byte, reason Reason) [][]byte {
	proto, payload := pkt[6], pkt[40:]
	switch proto {
	case 58:
		if len(payload) < 8 || payload[0] != 128 {
			return nil
		}
	case 44:
		if len(payload) < 8 || binary.BigEndian.Uint16(payload[2:])&^7 != 0 {
			return nil
		}
	}
	code := byte(icmp6AddressUnreach)
	if reason == Prohibited {
		code = icmp6AdminProhibit
	}
	answers := [][]byte{error6(pkt, icmp6Unreachable, code, 0)}
	if proto == 6 {
		if seg := reset(payload); seg != nil {
			rst := append(make([]byte, 40, 60), seg...)
			header6(rst, 6, pkt)
			binary.BigEndian.PutUint16(rst[56:], ^sum(rst[40:], pseudo(rst[8:40], 6, 20)))
			answers = append(answers, rst)
		}
	}
	return answers
}

// error6 is error4 for IPv6.
func error6(pkt []byte, typ, code byte, mtu uint32) []byte {
	quoted := pkt[:min(len(pkt), icmp6Max-48)]
	icmp := make([]byte, 48+len(quoted))
	header6(icmp, 58, pkt)
	icmp[40], icmp[41] = typ, code
	binary.BigEndian.PutUint32(icmp[44:], mtu)
	copy(icmp[48:], quoted)
	binary.BigEndian.PutUint16(icmp[42:], ^sum(icmp[40:], pseudo(icmp[8:40], 58, len(icmp)-40)))
	return icmp
}

// header6 is header4 for IPv6.
func header6(b []byte, proto byte, pkt []byte) {
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	b[6], b[7] = proto, 64
	copy(b[8:24], pkt[24:40])
	copy(b[24:40], pkt[8:24])
}

// reset makes the TCP header, without checksum, that refuses a segment (RFC
// 9293, 3.10.7.1), or nil for a segment that is a reset.
func reset(seg []byte) []byte {
	if len(seg) < 20 {
		return nil
	}
	flags := seg[13]
	off := int(seg[12]>>4) * 4
	if flags&tcpRST != 0 || off < 20 || off > len(seg) {
		return nil
	}
	r := make([]byte, 20)
	copy(r[0:2], seg[2:4])
	copy(r[2:4], seg[0:2])
	r[12], r[13] = 5<<4, tcpRST
	if flags&tcpACK != 0 {
		copy(r[4:8], seg[8:12])
		return r
	}
	length := uint32(len(seg) - off)
	if flags&tcpSYN != 0 {
		length++
	}
	if flags&tcpFIN != 0 {
		length++
	}
	r[13] |= tcpACK
	binary.BigEndian.PutUint32(r[8:], binary.BigEndian.Uint32(seg[4:])+length)
	return r
}

// pseudo returns the sum of the pseudo header of a transport protocol. addrs is source
// and destination.
func pseudo(addrs []byte, proto byte, length int) uint32 {
	return uint32(sum(addrs, uint32(proto)+uint32(length)))
}

// sum returns the ones' complement sum of b, starting with start.
func sum(b []byte, start uint32) uint16 {
	s := uint64(start)
	for ; len(b) >= 2; b = b[2:] {
		s += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
