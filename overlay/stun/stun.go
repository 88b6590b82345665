// Package stun is the part of RFC 8489 that tells a node its address as seen
// from outside: Binding requests and responses, and a server for them.
//
// The server answers a Binding request with XOR-MAPPED-ADDRESS and nothing else, at most
// 20 a second and source (an IPv4 address or an IPv6 /64), never with more than twice the
// bytes of the request, and never to anything but a well-formed request. So nobody can
// use it as a reflector.
//
// Not for embedders: nodes and relays share it.
package stun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
)

const (
	headLen = 20
	cookie  = 0x2112A442

	typeRequest  = 0x0001
	typeResponse = 0x0101

	attrMapped      = 0x0001
	attrXORMapped   = 0x0020
	attrSoftware    = 0x8022
	attrFingerprint = 0x8028
	fingerprintXOR  = 0x5354554e

	// maxMessage bounds what is parsed.
	maxMessage = 1280
)

// TxID is a transaction id. It must be random: nothing else ties a response to its
// request.
type TxID [12]byte

// ErrNotSTUN is wrapped by all errors of the parsers.
var ErrNotSTUN = errors.New("not a valid STUN message")

// AppendRequest appends a Binding request. It is padded so that an answer with an IPv6
// address is at most twice as long.
func AppendRequest(dst []byte, tx TxID) []byte {
	dst = appendHead(dst, typeRequest, 8, tx)
	return append(dst, attrSoftware>>8, attrSoftware&0xff, 0, 4, 'w', 'e', 'f', 't')
}

// AppendResponse appends the answer to tx for a client seen at addr.
func AppendResponse(dst []byte, tx TxID, addr netip.AddrPort) []byte {
	ip := addr.Addr().Unmap()
	raw := ip.AsSlice()
	dst = appendHead(dst, typeResponse, 8+len(raw), tx)
	family := byte(1)
	if ip.Is6() {
		family = 2
	}
	dst = append(dst, attrXORMapped>>8, attrXORMapped&0xff, 0, byte(4+len(raw)), 0, family)
	dst = binary.BigEndian.AppendUint16(dst, addr.Port()^cookie>>16)
	key := xorKey(tx)
	for i, b := range raw {
		dst = append(dst, b^key[i])
	}
	return dst
}

func appendHead(dst []byte, typ, n int, tx TxID) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(typ))
	dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	dst = binary.BigEndian.AppendUint32(dst, cookie)
	return append(dst, tx[:]...)
}

func xorKey(tx TxID) (key [16]byte) {
	binary.BigEndian.PutUint32(key[:], cookie)
	copy(key[4:], tx[:])
	return key
}

// ParseRequest returns the transaction of a Binding request. It refuses malformed
// requests, and requests with attributes that a server must understand and this one does
// not. Errors wrap ErrNotSTUN.
func ParseRequest(b []byte) (TxID, error) {
	tx, err := parse(b, typeRequest, func(typ uint16, _ []byte) error {
		if typ < 0x8000 {
			return fmt.Errorf("%w: attribute %#x", ErrNotSTUN, typ)
		}
		return nil
	})
	return tx, err
}

// ParseResponse returns the transaction of a Binding response and the address in it.
// Errors wrap ErrNotSTUN.
func ParseResponse(b []byte) (TxID, netip.AddrPort, error) {
	var mapped, xored netip.AddrPort
	var key [16]byte
	if len(b) >= headLen {
		key = xorKey(TxID(b[8:headLen]))
	}
	tx, err := parse(b, typeResponse, func(typ uint16, v []byte) (err error) {
		switch typ {
		case attrXORMapped:
			xored, err = address(v, key)
		case attrMapped:
			mapped, err = address(v, [16]byte{})
		}
		return err
	})
	if err == nil && !xored.IsValid() {
		xored = mapped
	}
	if err == nil && !xored.IsValid() {
		err = fmt.Errorf("%w: no address", ErrNotSTUN)
	}
	if err != nil {
		return TxID{}, netip.AddrPort{}, err
	}
	return tx, xored, nil
}

func address(v []byte, key [16]byte) (netip.AddrPort, error) {
	if len(v) < 4 {
		return netip.AddrPort{}, fmt.Errorf("%w: address of %d bytes", ErrNotSTUN, len(v))
	}
	n := map[byte]int{1: 4, 2: 16}[v[1]]
	if n == 0 || len(v) != 4+n {
		return netip.AddrPort{}, fmt.Errorf("%w: address family %d in %d bytes", ErrNotSTUN, v[1], len(v))
	}
	port := binary.BigEndian.Uint16(v[2:]) ^ binary.BigEndian.Uint16(key[:])
	var raw [16]byte
	for i := range n {
		raw[i] = v[4+i] ^ key[i]
	}
	ip, _ := netip.AddrFromSlice(raw[:n])
	return netip.AddrPortFrom(ip.Unmap(), port), nil
}

// parse checks a message of one type and hands each attribute to attr.
func parse(b []byte, typ uint16, attr func(typ uint16, v []byte) error) (TxID, error) {
	if len(b) < headLen || len(b) > maxMessage ||
		binary.BigEndian.Uint16(b) != typ ||
		int(binary.BigEndian.Uint16(b[2:])) != len(b)-headLen || len(b)%4 != 0 ||
		binary.BigEndian.Uint32(b[4:]) != cookie {
		return TxID{}, ErrNotSTUN
	}
	for rest := b[headLen:]; len(rest) > 0; {
		if len(rest) < 4 {
			return TxID{}, ErrNotSTUN
		}
		t, n := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		padded := 4 + (n+3)&^3
		if padded > len(rest) {
			return TxID{}, ErrNotSTUN
		}
		if t == attrFingerprint {
			at := len(b) - len(rest)
			if n != 4 || padded != len(rest) || binary.BigEndian.Uint32(rest[4:]) != crc32.ChecksumIEEE(b[:at])^fingerprintXOR {
				return TxID{}, fmt.Errorf("%w: fingerprint", ErrNotSTUN)
			}
		} else if err := attr(t, rest[4:4+n]); err != nil {
			return TxID{}, err
		}
		rest = rest[padded:]
	}
	return TxID(b[8:headLen]), nil
}
