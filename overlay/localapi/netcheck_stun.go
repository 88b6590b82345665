package localapi

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"
	"time"
)

// checkSTUN asks each server from one UDP socket per address family, three
// tries each within udpTimeout.
func checkSTUN(ctx context.Context, servers []string) []UDPReply {
	replies := make([]UDPReply, len(servers))
	addrs := make([]netip.AddrPort, len(servers))
	for i, s := range servers {
		replies[i].Server = s
		a, err := resolveUDP(ctx, s)
		if err != nil {
			replies[i].Error = err.Error()
			continue
		}
		addrs[i] = a
	}
	for _, family := range []string{"udp4", "udp6"} {
		var mine []int
		for i, a := range addrs {
			if a.IsValid() && a.Addr().Is4() == (family == "udp4") {
				mine = append(mine, i)
			}
		}
		if len(mine) > 0 {
			askSTUN(ctx, family, addrs, mine, replies)
		}
	}
	return replies
}

func resolveUDP(ctx context.Context, hostport string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return netip.AddrPort{}, err
	}
	p, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(ips[0].Unmap(), uint16(p)), nil
}

// askSTUN fills replies[i] for each i of mine. The socket lives only as long
// as the check does and takes nothing but answers to what was asked.
func askSTUN(ctx context.Context, family string, addrs []netip.AddrPort, mine []int, replies []UDPReply) {
	conn, err := net.ListenUDP(family, nil)
	if err != nil {
		for _, i := range mine {
			replies[i].Error = err.Error()
		}
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	var ids = map[stunID]int{}
	sent := map[int]time.Time{}
	open := len(mine)
	buf := make([]byte, 1500)
	for try := 0; try < 3 && open > 0; try++ {
		for _, i := range mine {
			if replies[i].Endpoint != "" {
				continue
			}
			id := newStunID()
			ids[id] = i
			sent[i] = time.Now()
			conn.WriteToUDPAddrPort(stunRequest(id), addrs[i])
		}
		conn.SetReadDeadline(time.Now().Add(udpTimeout / 3))
		for open > 0 {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				break
			}
			id, mapped, ok := stunAnswer(buf[:n])
			i, asked := ids[id]
			if !ok || !asked || replies[i].Endpoint != "" || netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != addrs[i] {
				continue
			}
			rtt := ms(time.Since(sent[i]))
			replies[i].Endpoint, replies[i].RTTms = mapped.String(), &rtt
			open--
		}
	}
	for _, i := range mine {
		if replies[i].Endpoint == "" {
			replies[i].Error = "no answer: UDP to it is blocked, or it is down"
		}
	}
}

// The few bytes of RFC 8489 that a Binding request and its answer need.
type stunID [12]byte

const stunCookie = 0x2112A442

func newStunID() (id stunID) { rand.Read(id[:]); return }

func stunRequest(id stunID) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, 1)
	binary.BigEndian.PutUint32(b[4:], stunCookie)
	copy(b[8:], id[:])
	return b
}

// stunAnswer parses a Binding success response.
func stunAnswer(b []byte) (id stunID, mapped netip.AddrPort, ok bool) {
	if len(b) < 20 || binary.BigEndian.Uint16(b) != 0x0101 || binary.BigEndian.Uint32(b[4:]) != stunCookie {
		return id, mapped, false
	}
	copy(id[:], b[8:20])
	attrs := b[20:]
	if n := int(binary.BigEndian.Uint16(b[2:])); n <= len(attrs) {
		attrs = attrs[:n]
	} else {
		return id, mapped, false
	}
	for len(attrs) >= 4 {
		typ, n := binary.BigEndian.Uint16(attrs), int(binary.BigEndian.Uint16(attrs[2:]))
		if n > len(attrs)-4 {
			return id, mapped, false
		}
		v := attrs[4 : 4+n]
		if typ == 0x0020 && (n == 8 || n == 20) { // XOR-MAPPED-ADDRESS
			var pad [16]byte
			binary.BigEndian.PutUint32(pad[:], stunCookie)
			copy(pad[4:], id[:])
			port := binary.BigEndian.Uint16(v[2:]) ^ uint16(stunCookie>>16)
			ip := append([]byte(nil), v[4:]...)
			for i := range ip {
				ip[i] ^= pad[i]
			}
			a, _ := netip.AddrFromSlice(ip)
			return id, netip.AddrPortFrom(a, port), true
		}
		attrs = attrs[4+min((n+3)&^3, len(attrs)-4):]
	}
	return id, mapped, false
}
