package rtnl

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// announcement makes a message of rtnetlink.
func announcement(typ, flags uint16, body []byte, attrs ...[]byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr)
	b = append(b, body...)
	for _, a := range attrs {
		b = append(b, a...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], flags)
	return b
}

func attribute(typ uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, typ), value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

// TestNews: an announcement that differs in its lifetimes only is no news.
func TestNews(t *testing.T) {
	ip := func(s string) []byte { return netip.MustParseAddr(s).AsSlice() }
	lifetimes := func(n byte) []byte {
		return attribute(unix.IFA_CACHEINFO, []byte{n, 0, 0, 0, n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	}
	addr := func(typ uint16, flags byte, a string, life byte) []byte {
		return announcement(typ, 0, []byte{unix.AF_INET6, 64, flags, 0, 2, 0, 0, 0}, attribute(unix.IFA_ADDRESS, ip(a)), lifetimes(life))
	}
	route := func(typ, flags uint16, via string, life byte) []byte {
		return announcement(typ, flags, []byte{unix.AF_INET6, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_RA, 0, unix.RTN_UNICAST, 0, 0, 0, 0},
			attribute(unix.RTA_GATEWAY, ip(via)), attribute(unix.RTA_OIF, []byte{2, 0, 0, 0}), attribute(unix.RTA_CACHEINFO, []byte{life, 0, 0, 0}))
	}
	name := "eth0"
	link := func(flags uint32, counter byte) []byte {
		b := []byte{0, 0, 1, 0, 2, 0, 0, 0}
		b = binary.NativeEndian.AppendUint32(b, flags)
		return announcement(unix.RTM_NEWLINK, 0, append(b, 0xff, 0xff, 0xff, 0xff), attribute(unix.IFLA_IFNAME, []byte(name+"\x00")), attribute(unix.IFLA_STATS, []byte{counter, 0, 0, 0}))
	}
	const up, lower = unix.IFF_UP | unix.IFF_RUNNING, unix.IFF_LOWER_UP
	n := news{}
	name = "lan0"
	renamed := link(unix.IFF_UP, 2)
	name = "eth0"
	for i, c := range []struct {
		what string
		msg  []byte
		news bool
	}{
		{"an address", addr(unix.RTM_NEWADDR, unix.IFA_F_TENTATIVE, "2001:db8::1", 9), true},
		{"it may be used", addr(unix.RTM_NEWADDR, 0, "2001:db8::1", 9), true},
		{"it lives longer", addr(unix.RTM_NEWADDR, 0, "2001:db8::1", 99), false},
		{"another one", addr(unix.RTM_NEWADDR, 0, "2001:db8::2", 99), true},
		{"a route", route(unix.RTM_NEWROUTE, 0, "fe80::1", 9), true},
		{"a second router", route(unix.RTM_NEWROUTE, 0, "fe80::2", 9), true},
		{"the first lives longer", route(unix.RTM_NEWROUTE, 0, "fe80::1", 99), false},
		{"the second lives longer", route(unix.RTM_NEWROUTE, 0, "fe80::2", 99), false},
		{"both in one message", append(route(unix.RTM_NEWROUTE, 0, "fe80::1", 9), addr(unix.RTM_NEWADDR, 0, "2001:db8::1", 8)...), false},
		{"both, and one is new", append(route(unix.RTM_NEWROUTE, 0, "fe80::1", 9), addr(unix.RTM_NEWADDR, 0, "2001:db8::3", 8)...), true},
		{"replaced", route(unix.RTM_NEWROUTE, unix.NLM_F_REPLACE, "fe80::1", 9), true},
		{"gone", route(unix.RTM_DELROUTE, 0, "fe80::1", 9), true},
		{"back", route(unix.RTM_NEWROUTE, 0, "fe80::1", 9), true},
		{"the address is gone", addr(unix.RTM_DELADDR, 0, "2001:db8::1", 9), true},
		{"and back", addr(unix.RTM_NEWADDR, 0, "2001:db8::1", 9), true},
		{"a link", link(up|lower, 1), true},
		{"its counters", link(up|lower, 2), false},
		{"no carrier", link(unix.IFF_UP, 2), true},
		{"another name", renamed, true},
		{"of another kind", announcement(unix.RTM_NEWNEIGH, 0, make([]byte, 12)), true},
		{"cut", link(up, 1)[:18], true},
		{"nothing", nil, true},
	} {
		if got := n.changed(c.msg); got != c.news {
			t.Errorf("%d, %s: news %v, want %v", i, c.what, got, c.news)
		}
	}
	for i := range 2 * maxNews {
		n.changed(addr(unix.RTM_NEWADDR, 0, netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)}).String(), 9))
	}
	if len(n) > maxNews {
		t.Errorf("remembers %d", len(n))
	}
}

func FuzzNews(f *testing.F) {
	f.Add(announcement(unix.RTM_NEWADDR, 0, make([]byte, 8), attribute(unix.IFA_ADDRESS, make([]byte, 16))))
	f.Add(announcement(unix.RTM_NEWLINK, 0, make([]byte, 16)))
	f.Add(announcement(unix.RTM_NEWROUTE, 0, make([]byte, 12)))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := news{}
		n.changed(b)
		if n.changed(b) && len(n) > maxNews {
			t.Error("too many")
		}
	})
}
