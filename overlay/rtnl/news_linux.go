package rtnl

import (
	"encoding/binary"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxNews bounds how many announcements of the kernel are remembered. When the table is
// full it is cleared, so repetitions count as news once more.
const maxNews = 4096

// news tells announcements of rtnetlink that change something from those that repeat a
// known state: each router advertisement, every few seconds in some homes, announces the
// same addresses and routes with other lifetimes. An announcement that cannot be parsed
// counts as news. It belongs to one goroutine.
type news map[string]string // state by subject, as subjectOf returns them

// changed reports whether b, the result of one read of the socket, has news.
func (n news) changed(b []byte) bool {
	msgs, err := syscall.ParseNetlinkMessage(b)
	if err != nil || len(msgs) == 0 {
		return true
	}
	changed := false
	for _, m := range msgs {
		key, value, ok := subjectOf(m)
		old, known := n[key]
		switch {
		case !ok:
			changed = true
		case m.Header.Type == unix.RTM_DELLINK, m.Header.Type == unix.RTM_DELADDR, m.Header.Type == unix.RTM_DELROUTE:
			delete(n, key)
			changed = true
		case !known || old != value || m.Header.Flags&unix.NLM_F_REPLACE != 0:
			if len(n) >= maxNews {
				clear(n)
			}
			n[key] = value
			changed = true
		}
	}
	return changed
}

// subjectOf returns the subject of an announcement (an interface, address or route), and
// its state without lifetimes and counters.
func subjectOf(m syscall.NetlinkMessage) (key, value string, ok bool) {
	size := 0
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		size = unix.SizeofIfInfomsg
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		size = unix.SizeofIfAddrmsg
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		size = unix.SizeofRtMsg
	}
	if size == 0 || len(m.Data) < size {
		return "", "", false
	}
	// with appends the attributes of these types.
	with := func(b []byte, types ...uint16) string {
		for typ, v := range attrsOf(m.Data[size:]) {
			if slices.Contains(types, typ) {
				b = append(b, byte(typ), byte(len(v)))
				b = append(b, v...)
			}
		}
		return string(b)
	}
	b := m.Data
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK: // struct ifinfomsg: index at 4, flags at 8
		const matter = unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOWER_UP
		flags := binary.NativeEndian.Uint32(b[8:]) & matter
		return "link" + string(b[4:8]), with(binary.NativeEndian.AppendUint32(nil, flags), unix.IFLA_IFNAME, unix.IFLA_ADDRESS, unix.IFLA_OPERSTATE), true
	case unix.RTM_NEWADDR, unix.RTM_DELADDR: // struct ifaddrmsg: family, prefix length, flags, scope, index
		return with([]byte{'a', b[0], b[1], b[3], b[4], b[5], b[6], b[7]}, unix.IFA_ADDRESS, unix.IFA_LOCAL), string(b[2:3]), true
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE: // struct rtmsg
		return with(append([]byte{'r'}, b[:unix.SizeofRtMsg]...), unix.RTA_DST, unix.RTA_GATEWAY, unix.RTA_OIF, unix.RTA_PRIORITY,
			unix.RTA_PREFSRC, unix.RTA_MULTIPATH, unix.RTA_TABLE), "", true
	}
	return "", "", false
}
