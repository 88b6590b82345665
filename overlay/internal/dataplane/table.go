package dataplane

import "net/netip"

// table is the forwarding table: which peer an overlay address belongs to. It is immutable.
type table struct {
	v4 map[[4]byte]*Entry
	v6 map[[16]byte]*Entry
}

func newTable(byIP map[netip.Addr]*Entry) *table {
	t := &table{v4: make(map[[4]byte]*Entry, len(byIP)/2), v6: make(map[[16]byte]*Entry, len(byIP)/2)}
	for ip, e := range byIP {
		if ip.Is4() {
			t.v4[ip.As4()] = e
		} else {
			t.v6[ip.As16()] = e
		}
	}
	return t
}

// bySource returns the entry of the peer that has the source address of a packet.
func (t *table) bySource(pkt []byte) *Entry {
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4:
		return t.v4[[4]byte(pkt[12:16])]
	case len(pkt) >= 40 && pkt[0]>>4 == 6:
		return t.v6[[16]byte(pkt[8:24])]
	}
	return nil
}

// byDestination returns the entry of the peer that has the destination address of a
// packet. ok is false if pkt is not an IP packet.
func (t *table) byDestination(pkt []byte) (e *Entry, ok bool) {
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4:
		return t.v4[[4]byte(pkt[16:20])], true
	case len(pkt) >= 40 && pkt[0]>>4 == 6:
		return t.v6[[16]byte(pkt[24:40])], true
	}
	return nil, false
}

// destination returns the destination address of a packet that byDestination
// accepted.
func destination(pkt []byte) netip.Addr {
	if pkt[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(pkt[16:20]))
	}
	return netip.AddrFrom16([16]byte(pkt[24:40]))
}
