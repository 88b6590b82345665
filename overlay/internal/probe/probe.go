// Package probe is the codec of path probes: the authenticated ping and pong by
// which two introduced nodes find out whether datagrams pass between two
// addresses.
//
//	0      1      2        4            12           20
//	+------+------+--------+------------+------------+--- - -+---------------+
//	| 0xF5 | kind | length | pair tag   | tx         | body  | MAC           |
//	+------+------+--------+------------+------------+--- - -+---------------+
//	  1      1      2        8            8            >= 18   16     bytes, big endian
//
// length counts the whole datagram. The tag names the pair's keys at the
// receiver; it comes from the key and looks random. tx is chosen at random by
// who pings. The body of a pong is the address from which the ping came (16
// bytes, IPv4 mapped into IPv6, and the port); that of a ping is padding, by
// which the sender also finds out which sizes pass. The MAC is BLAKE2s-128,
// keyed with the exporter key of the introduction for this direction, over
// everything before it.
//
// A ping is at least as long as the pong that answers it, so nobody gets more
// bytes sent to an address than he sends. A pong counts only while its tx is
// outstanding. A replayed ping is answered, to where it came from, and proves
// only that the peer pinged once: nothing may move because of it.
//
// The package is pure: no socket, no clock, no state but hash buffers. Nothing
// here allocates after NewKey.
package probe

import (
	"crypto/subtle"
	"encoding/binary"
	"hash"
	"net/netip"

	"golang.org/x/crypto/blake2s"
)

const (
	// First is the first byte of every probe.
	First = 0xF5

	// Len is the length of a pong and of the shortest ping in bytes.
	Len = headLen + bodyLen + macLen

	// MaxLen is the length of the longest ping: the payload that fills a
	// jumbo frame.
	MaxLen = 9216

	headLen = 20
	bodyLen = 18
	macLen  = 16
)

// Kind tells ping from pong.
type Kind byte

// The kinds.
const (
	Ping Kind = 1
	Pong Kind = 2
)

// Tag names a pair's keys at the receiver.
type Tag [8]byte

// Tx binds a pong to its ping.
type Tx [8]byte

// Key authenticates the probes of one direction between two nodes. It belongs
// to one goroutine.
type Key struct {
	tag Tag
	mac hash.Hash
	sum [macLen]byte
}

// NewKey makes a Key from the exporter key of a direction
// (intro.Session.ProbeSend or ProbeRecv).
func NewKey(secret [32]byte) *Key {
	k := &Key{}
	k.mac, _ = blake2s.New128(secret[:]) // fails for keys above 32 bytes only
	k.mac.Write([]byte("weft probe tag"))
	copy(k.tag[:], k.mac.Sum(k.sum[:0]))
	return k
}

// Tag returns the tag of the datagrams that are made with k, and that k opens.
func (k *Key) Tag() Tag { return k.tag }

// AppendPing appends a ping of size bytes, or as near to that as Len and MaxLen
// allow.
func (k *Key) AppendPing(dst []byte, tx Tx, size int) []byte {
	size = min(max(size, Len), MaxLen)
	dst = k.appendHead(dst, Ping, size, tx)
	dst = append(dst, zeros[:size-headLen-macLen]...)
	return k.appendMAC(dst, size)
}

var zeros [MaxLen]byte

// AppendPong appends the answer to the ping tx that came from observed.
func (k *Key) AppendPong(dst []byte, tx Tx, observed netip.AddrPort) []byte {
	dst = k.appendHead(dst, Pong, Len, tx)
	ip := observed.Addr().As16()
	dst = append(dst, ip[:]...)
	dst = binary.BigEndian.AppendUint16(dst, observed.Port())
	return k.appendMAC(dst, Len)
}

func (k *Key) appendHead(dst []byte, kind Kind, size int, tx Tx) []byte {
	dst = append(dst, First, byte(kind))
	dst = binary.BigEndian.AppendUint16(dst, uint16(size))
	dst = append(dst, k.tag[:]...)
	return append(dst, tx[:]...)
}

func (k *Key) appendMAC(dst []byte, size int) []byte {
	return append(dst, k.macOf(dst[len(dst)-(size-macLen):])...)
}

func (k *Key) macOf(b []byte) []byte {
	k.mac.Reset()
	k.mac.Write(b)
	return k.mac.Sum(k.sum[:0])
}

// Message is an opened probe.
type Message struct {
	Kind     Kind
	Tx       Tx
	Size     int            // of the datagram in bytes
	Observed netip.AddrPort // of a pong: from where the ping came
}

// Peek returns the tag of a datagram that has the form of a probe. Nothing of
// it is authenticated yet.
func Peek(b []byte) (Tag, bool) {
	if len(b) < Len || len(b) > MaxLen || b[0] != First ||
		Kind(b[1]) != Ping && (Kind(b[1]) != Pong || len(b) != Len) ||
		int(binary.BigEndian.Uint16(b[2:])) != len(b) {
		return Tag{}, false
	}
	return Tag(b[4:12]), true
}

// Open authenticates a datagram and returns what it says; ok is false for
// everything that was not made with the same key.
func (k *Key) Open(b []byte) (m Message, ok bool) {
	if tag, ok := Peek(b); !ok || tag != k.tag {
		return Message{}, false
	}
	end := len(b) - macLen
	if subtle.ConstantTimeCompare(k.macOf(b[:end]), b[end:]) != 1 {
		return Message{}, false
	}
	m = Message{Kind: Kind(b[1]), Tx: Tx(b[12:20]), Size: len(b)}
	if m.Kind == Pong {
		ip := netip.AddrFrom16([16]byte(b[headLen : headLen+16])).Unmap()
		m.Observed = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[headLen+16:]))
	}
	return m, true
}
