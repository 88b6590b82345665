// Package lane has the datagrams of relayed UDP. A lane lets two nodes that are connected
// to a relay exchange UDP datagrams through it. The package is pure: no socket, no clock,
// no goroutine.
//
// A node asks for a lane over its relay connection (relay.Conn.RequestLane); both nodes
// get an Info over theirs (relay.Handler.Lane). The nodes and the relay then exchange
// datagrams at the relay's STUN address:
//
//	data       0xF6, 0, 0, 0 | id 16 B | payload
//	bind       0xF6, 1, 0, 0 | id 16 B | cookie 24 B, zeros at first | MAC 16 B
//	challenge  0xF6, 2, 0, 0 | id 16 B | cookie 24 B                 | MAC 16 B
//	bound      0xF6, 3, 0, 0 | id 16 B | cookie 24 B                 | MAC 16 B
//
// id always belongs to the side that sends through the relay: a node sends data and bind
// with Info.Send, receives challenge and bound with Info.Send, and receives data with
// Info.Recv, which is the other node's Send. The relay forwards a data datagram unchanged
// if it comes from the address that its side has bound and the other side has bound one
// too. It drops everything else without an answer. The nodes encrypt the payload (a
// WireGuard message or a probe); an id proves nothing about it. Whoever sees an id on the
// wire gains nothing: datagrams from another address are dropped.
//
// The MAC is BLAKE2s-128 under Info.Key over all bytes before it. Each side
// has a key of its own, which never leaves the TLS connections.
//
// # What a node must do
//
// Bind only for a peer with which it has an introduction: any node of the network can ask
// for a lane with any other, because the relay does not know the policy.
//
// Bind: send bind with a zero cookie from the socket that will carry the data, again
// after 250 ms, 500 ms, 1 s and 2 s; answer each challenge at once with bind and its
// cookie; stop at a bound with a cookie that was sent. Binder does exactly this. It takes
// two round trips and proves to the relay that the node receives at that address, so that
// neither a replayed nor a spoofed datagram can rebind a side or make the relay send to a
// third party. If no attempt is answered, UDP to this relay is blocked.
//
// Bind again when the node sends from another socket or address, after it slept, and when
// relay.Handler.LaneRebind says that datagrams of this side come from an address that is
// not bound (a NAT chose another port). It may do so at any time, up to 5 times a second.
// The old address stays bound until the new one is.
//
// Accept data only from the relay's UDP address and only with Info.Recv.
//
// Ask again after the lane has ended, when there is something to send. A lane ends with
// either side's relay connection, or when neither side has sent anything for Info.Idle.
// The relay sends LaneGone to the nodes that are still connected. Asking is cheap and
// changes nothing while the lane exists: the relay repeats the same Info. A new lane has
// other ids and keys and replaces the old one.
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
	// HeaderLen is the length of the header before the payload of a data datagram.
	HeaderLen = 4 + IDLen
	// ControlLen is the length of bind, challenge and bound. It is the same for all, so
	// that the relay never sends more than it received.
	ControlLen = HeaderLen + CookieLen + macLen
)

// ID names one side of a lane: 16 random bytes.
type ID [IDLen]byte

// Key authenticates the control datagrams of one side.
type Key [KeyLen]byte

// Cookie is the value of a challenge, which the node sends back.
type Cookie [CookieLen]byte

// Info is a node's side of a lane. Whoever has Key can bind the side to an address.
type Info struct {
	Send ID // id of data that this node sends, and of its control datagrams
	Recv ID // id of data that it receives
	Key  Key
	// Idle is after how long without datagrams the relay ends the lane, give or take 30
	// s. Whole seconds, up to 65,535.
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

// ParseInfo decodes an Info; bytes after it are ignored. ok is false when b is too short,
// an id is zero or both ids are equal.
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

// AppendHeader appends the header of a data datagram.
func AppendHeader(dst []byte, id ID) []byte {
	dst = append(dst, First, byte(Data), 0, 0)
	return append(dst, id[:]...)
}

// PutHeader writes that header to the first HeaderLen bytes of b.
func PutHeader(b []byte, id ID) {
	b[0], b[1], b[2], b[3] = First, byte(Data), 0, 0
	copy(b[4:HeaderLen], id[:])
}

// Parse returns the kind and the ID of a lane datagram. ok is false for anything else:
// too short, another first byte, bytes that are not zero, an unknown kind, data without a
// payload, or a control datagram of another length than ControlLen. It authenticates
// nothing.
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

// ErrControl is returned for a malformed control datagram or one with a wrong MAC.
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

// OpenControl checks that a control datagram was made with id and key, and returns its
// kind and cookie. The error is ErrControl.
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
