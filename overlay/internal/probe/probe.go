// Package probe encodes and decodes probes: the authenticated pings and pongs with which
// two introduced nodes find out whether datagrams pass between two addresses.
//
//	0      1      2        4            12           20
//	+------+------+--------+------------+------------+--- - -+---------------+
//	| 0xF5 | kind | length | pair tag   | tx         | body  | MAC           |
//	+------+------+--------+------------+------------+--- - -+---------------+
//	  1      1      2        8            8            >= 18   16     bytes, big endian
//
// length is that of the whole datagram. The pair tag tells the receiver which key to use;
// it is derived from the key and looks random. The sender of a ping chooses tx at random.
// The body of a pong is the address from which the ping came (16 bytes, IPv4 mapped into
// IPv6, and the port). The body of a ping is padding, with which the sender also finds
// out which sizes pass. The MAC is BLAKE2s-128 over everything before it, keyed with the
// exporter key of the introduction for this direction.
//
// A ping is at least as long as its pong, so pings with forged sources do not amplify. A
// pong counts only for a tx that was sent and not answered yet. A replayed ping is
// answered, to the address that it came from. It proves only that the peer has sent it
// once, so it must not change a path.
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

// Tag tells the receiver which key to use.
type Tag [8]byte

// Tx ties a pong to its ping.
type Tx [8]byte

// Key authenticates the probes of one direction between two nodes. It belongs
// to one goroutine.
type Key struct {
	tag Tag
	mac hash.Hash
	sum [macLen]byte
}

// NewKey makes a Key from the exporter key of one direction (intro.Session.ProbeSend or
// ProbeRecv).
func NewKey(secret [32]byte) *Key {
	k := &Key{}
	k.mac, _ = blake2s.New128(secret[:]) // fails for keys above 32 bytes only
	k.mac.Write([]byte("weft probe tag"))
	copy(k.tag[:], k.mac.Sum(k.sum[:0]))
	return k
}

// Tag returns the tag of the datagrams that k makes and opens.
func (k *Key) Tag() Tag { return k.tag }

// AppendPing appends a ping of size bytes, which is first limited to between Len and
// MaxLen.
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
	Size     int            // length of the datagram in bytes
	Observed netip.AddrPort // of a pong: from where the ping came
}

// Peek returns the tag of a datagram that has the form of a probe. It authenticates
// nothing.
func Peek(b []byte) (Tag, bool) {
	if len(b) < Len || len(b) > MaxLen || b[0] != First ||
		Kind(b[1]) != Ping && (Kind(b[1]) != Pong || len(b) != Len) ||
		int(binary.BigEndian.Uint16(b[2:])) != len(b) {
		return Tag{}, false
	}
	return Tag(b[4:12]), true
}

// Open authenticates and parses a datagram. ok is false unless it was made with the same
// key.
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
