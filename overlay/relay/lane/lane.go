// Package lane is the datagrams of relay lanes: a lane is a relay's promise to
// forward UDP datagrams between two nodes that are both connected to it. The
// package is pure: no socket, no clock, no goroutine.
//
// A node asks for a lane over its TLS connection to the relay (relay.Conn,
// RequestLane); both nodes get an Info over theirs (relay.Handler, Lane). The
// nodes and the relay then speak over UDP, at the relay's STUN address:
//
//	data       0xF6, 0, 0, 0 | id 16 B | payload
//	bind       0xF6, 1, 0, 0 | id 16 B | cookie 24 B, zeros at first | MAC 16 B
//	challenge  0xF6, 2, 0, 0 | id 16 B | cookie 24 B                 | MAC 16 B
//	bound      0xF6, 3, 0, 0 | id 16 B | cookie 24 B                 | MAC 16 B
//
// id is always that of the side that sends through the relay: a node sends
// data and bind with Info.Send, it gets challenge and bound with Info.Send and
// data with Info.Recv, which is the other node's Send. The relay forwards a
// data datagram byte for byte, if it comes from the address that its side has
// bound and the other side has bound one too; everything else it drops without
// an answer. The payload (a WireGuard message or a probe) is sealed by the
// nodes; an id proves nothing about it, and whoever sees an id on the wire can
// do no more with it than lose datagrams of its own.
//
// The MAC is BLAKE2s-128 under Info.Key over all bytes before it. Each side
// has a key of its own, which never leaves the TLS connections.
//
// # What a node must do
//
// Bind only for a peer that it has an introduction with: any node of the
// network may ask for a lane with any other, the relay knows no policy.
//
// Bind: send bind with a zero cookie from the socket that will carry the lane,
// again after 250 ms, 500 ms, 1 s and 2 s; answer each challenge at once with
// bind and its cookie; stop at bound with a cookie that was sent. Binder does
// exactly this. It takes two round trips and proves to the relay that the node
// receives what is sent to that address, so neither a replayed nor a spoofed
// datagram moves a side or makes the relay send to a third party. No answer
// after all attempts: UDP to this relay is blocked.
//
// Bind again, which is possible at any time and as often as 5 times a second:
// when the node sends from another socket or address, after a wake, and when
// relay.Handler.LaneRebind says that datagrams of this side come from an
// address that is not bound (a NAT chose another port). The old address stays
// bound until the new one is.
//
// Take data only from the relay's UDP address and only with Info.Recv.
//
// A lane ends with either side's connection to the relay, and when neither
// side sent anything for Info.Idle; LaneGone tells whoever is still connected.
// Then ask anew, when there is something to send. Asking is cheap and changes
// nothing while the lane exists: the same Info comes again. A lane that came
// anew has other ids and keys and takes the place of the old one.
//
// Not for embedders: nodes and relays share it.
package lane

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"time"

	"golang.org/x/crypto/blake2s"
)

// First is the first byte of every lane datagram.
const First = 0xF6

const (
	// IDLen, KeyLen and CookieLen are in bytes.
	IDLen     = 16
	KeyLen    = 32
	CookieLen = 24
	macLen    = 16
	// HeaderLen is what goes before the payload of a data datagram.
	HeaderLen = 4 + IDLen
	// ControlLen is the length of bind, challenge and bound: all the same, so
	// that the relay never sends more than it was sent.
	ControlLen = HeaderLen + CookieLen + macLen
)

// ID names one side of a lane: 16 random bytes.
type ID [IDLen]byte

// Key authenticates the control datagrams of one side.
type Key [KeyLen]byte

// Cookie is what a challenge asks to be sent back.
type Cookie [CookieLen]byte

// Info is a node's side of a lane. Whoever holds Key can move the side.
type Info struct {
	Send ID // of what this node sends, and of its control datagrams
	Recv ID // of what it receives
	Key  Key
	// Idle is after how long without datagrams, give or take 30 s, the relay
	// forgets the lane; in whole seconds up to 65,535.
	Idle time.Duration
}

// InfoLen is the length of an encoded Info.
const InfoLen = 2*IDLen + KeyLen + 2

// AppendInfo encodes i as Send, Recv, Key, Idle in seconds.
func AppendInfo(dst []byte, i Info) []byte {
	dst = append(dst, i.Send[:]...)
	dst = append(dst, i.Recv[:]...)
	dst = append(dst, i.Key[:]...)
	s := min(max(i.Idle/time.Second, 0), 65535)
	return append(dst, byte(s>>8), byte(s))
}

// ParseInfo decodes an Info; bytes after it are ignored. ok is false when it
// is cut, an id is zero or both are the same.
func ParseInfo(b []byte) (i Info, ok bool) {
	if len(b) < InfoLen {
		return Info{}, false
	}
	copy(i.Send[:], b)
	copy(i.Recv[:], b[IDLen:])
	copy(i.Key[:], b[2*IDLen:])
	i.Idle = time.Duration(int(b[InfoLen-2])<<8|int(b[InfoLen-1])) * time.Second
	if i.Send == (ID{}) || i.Recv == (ID{}) || i.Send == i.Recv {
		return Info{}, false
	}
	return i, true
}

// NewID returns a random ID.
func NewID() (id ID) {
	rand.Read(id[:])
	return id
}

// NewKey returns a random Key.
func NewKey() (k Key) {
	rand.Read(k[:])
	return k
}

// Kind is the second byte of a lane datagram.
type Kind uint8

// The kinds of lane datagrams.
const (
	Data      Kind = 0
	Bind      Kind = 1 // from a node
	Challenge Kind = 2 // from the relay
	Bound     Kind = 3 // from the relay
)

// AppendHeader appends what goes before the payload of a data datagram.
func AppendHeader(dst []byte, id ID) []byte {
	dst = append(dst, First, byte(Data), 0, 0)
	return append(dst, id[:]...)
}

// PutHeader writes it to the first HeaderLen bytes of b.
func PutHeader(b []byte, id ID) {
	b[0], b[1], b[2], b[3] = First, byte(Data), 0, 0
	copy(b[4:HeaderLen], id[:])
}

// Parse returns the kind and the ID of a lane datagram. ok is false for
// anything else: too short, another first byte, bytes that are not zero, a
// kind that is not known, data without a payload, or a control datagram that
// has not exactly ControlLen bytes. Nothing is authenticated.
func Parse(b []byte) (k Kind, id ID, ok bool) {
	if len(b) <= HeaderLen || b[0] != First || b[2]|b[3] != 0 {
		return 0, ID{}, false
	}
	k = Kind(b[1])
	if k > Bound || k != Data && len(b) != ControlLen {
		return 0, ID{}, false
	}
	return k, ID(b[4:HeaderLen]), true
}

// ParseData returns the ID and the payload of a data datagram, which is part
// of b.
func ParseData(b []byte) (id ID, payload []byte, ok bool) {
	k, id, ok := Parse(b)
	if !ok || k != Data {
		return ID{}, nil, false
	}
	return id, b[HeaderLen:], true
}

// ErrControl is returned for a control datagram that is not one, or whose MAC
// is wrong.
var ErrControl = errors.New("bad lane control datagram")

// AppendControl appends a control datagram.
func AppendControl(dst []byte, k Kind, id ID, cookie Cookie, key Key) []byte {
	at := len(dst)
	dst = append(dst, First, byte(k), 0, 0)
	dst = append(dst, id[:]...)
	dst = append(dst, cookie[:]...)
	m := mac(key, dst[at:])
	return append(dst, m[:]...)
}

// OpenControl returns the kind and the cookie of a control datagram that was
// made with id and key.
func OpenControl(b []byte, id ID, key Key) (Kind, Cookie, error) {
	k, got, ok := Parse(b)
	if !ok || k == Data || got != id {
		return 0, Cookie{}, ErrControl
	}
	m := mac(key, b[:ControlLen-macLen])
	if subtle.ConstantTimeCompare(m[:], b[ControlLen-macLen:]) != 1 {
		return 0, Cookie{}, ErrControl
	}
	return k, Cookie(b[HeaderLen:]), nil
}

func mac(key Key, b []byte) (out [macLen]byte) {
	h, err := blake2s.New128(key[:])
	if err != nil {
		panic(err) // only for keys of another length
	}
	h.Write(b)
	h.Sum(out[:0])
	return out
}
