package store

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"weft/overlay/cert"
)

// The search for a free address starts after the last one that was given out. So a join costs
// the same with ten nodes as with 50,000, and a freed address is used again as late as
// possible. A node's IPv6 address carries its IPv4 address in its last 32 bits and needs no
// bookkeeping of its own.

// Quarantine is how long a freed address stays unused: longer than any node caches which
// device had it.
const Quarantine = time.Hour

// ServiceIPv4 is the overlay's own address (DNS), never a node's.
var ServiceIPv4 = netip.AddrFrom4([4]byte{100, 100, 100, 100})

// IPv6Of returns the overlay IPv6 address that goes with an IPv4 address.
func IPv6Of(prefix netip.Prefix, v4 netip.Addr) netip.Addr {
	b, a := prefix.Addr().As16(), v4.As4()
	copy(b[12:], a[:])
	return netip.AddrFrom16(b)
}

// IPv4Of is the inverse of IPv6Of; ok is false for an address of another form.
func IPv4Of(prefix netip.Prefix, v6 netip.Addr) (v4 netip.Addr, ok bool) {
	if !prefix.Contains(v6) {
		return netip.Addr{}, false
	}
	b := v6.As16()
	v4 = netip.AddrFrom4([4]byte(b[12:]))
	return v4, IPv6Of(prefix, v4) == v6
}

// usableIPv4 reports whether a node may have an address. It excludes those that programs or
// people could take for a network or broadcast address, and the service address.
func usableIPv4(prefix netip.Prefix, a uint32) bool {
	last := a & 0xff
	if last == 0 || last == 255 || a == toUint32(ServiceIPv4) {
		return false
	}
	first := toUint32(prefix.Masked().Addr())
	size := uint64(1) << (32 - prefix.Bits())
	return a != first && uint64(a-first) != size-1
}

// poolSize is how many addresses of a range are used: no more than have different low 22
// bits, because nodes tell peers apart by these bits (package loopback).
func poolSize(prefix netip.Prefix) uint64 { return 1 << min(32-prefix.Bits(), 22) }

// tries bounds the linear search before it continues elsewhere.
const tries = 32

// AllocIPv4 returns an address of the prefix that no node has and that is not in quarantine,
// or ErrFull. The caller inserts the node's row in the same transaction.
func (tx *Tx) AllocIPv4(id cert.NetworkID, prefix netip.Prefix, now time.Time) (netip.Addr, error) {
	first, size := toUint32(prefix.Masked().Addr()), poolSize(prefix)
	var cursor uint32
	if err := tx.row(`SELECT next_ipv4 FROM networks WHERE network_id=$1`, []any{id[:]}, &cursor); err != nil {
		return netip.Addr{}, err
	}
	take := func(a uint32) (netip.Addr, error) {
		err := tx.exec(`UPDATE networks SET next_ipv4=$2 WHERE network_id=$1`, id[:], a+1)
		return fromUint32(a), err
	}
	off := uint64(cursor - first)
	for range 2 { // from the cursor, then from somewhere else
		for range tries {
			a := first + uint32(off%size)
			off++
			if !usableIPv4(prefix, a) {
				continue
			}
			free, err := tx.freeIPv4(id, a, now)
			if err != nil {
				return netip.Addr{}, err
			}
			if free {
				return take(a)
			}
		}
		off = rand.Uint64N(size)
	}
	a, err := tx.firstGap(id, prefix, now)
	if err != nil {
		return netip.Addr{}, err
	}
	return take(a)
}

func (r *Reader) freeIPv4(id cert.NetworkID, a uint32, now time.Time) (free bool, err error) {
	err = r.row(`SELECT NOT EXISTS (SELECT 1 FROM nodes WHERE network_id=$1 AND ipv4=$2)
		AND NOT EXISTS (SELECT 1 FROM freed WHERE network_id=$1 AND ipv4=$2 AND until > $3)`,
		[]any{id[:], a, now.Unix()}, &free)
	return free, err
}

// firstGap reads all used addresses in order. It is called only when the pool is nearly full.
func (r *Reader) firstGap(id cert.NetworkID, prefix netip.Prefix, now time.Time) (uint32, error) {
	first := toUint32(prefix.Masked().Addr())
	end := uint64(first) + poolSize(prefix)
	next, found := uint64(first), false
	skip := func() {
		for next < end && !usableIPv4(prefix, uint32(next)) {
			next++
		}
	}
	skip()
	err := r.each(`SELECT ipv4 FROM nodes WHERE network_id=$1 UNION
		SELECT ipv4 FROM freed WHERE network_id=$1 AND until > $2 ORDER BY 1`, []any{id[:], now.Unix()},
		func(scan func(...any) error) error {
			var used uint32
			if err := scan(&used); err != nil || found || uint64(used) < next {
				return err
			}
			if uint64(used) > next {
				found = true
				return nil
			}
			next++
			skip()
			return nil
		})
	if err != nil {
		return 0, err
	}
	if next >= end {
		return 0, fmt.Errorf("the pool %s: %w", prefix, ErrFull)
	}
	return uint32(next), nil
}

// freeAddr puts an address into quarantine.
func (tx *Tx) freeAddr(id cert.NetworkID, a netip.Addr, now time.Time) error {
	return tx.exec(`INSERT INTO freed (network_id, ipv4, until) VALUES ($1,$2,$3)
		ON CONFLICT (network_id, ipv4) DO UPDATE SET until = excluded.until`,
		id[:], toUint32(a), now.Add(Quarantine).Unix())
}
