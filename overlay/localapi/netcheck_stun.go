package localapi

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"time"

	"weft/overlay/stun"
)

// checkSTUN asks each server from one UDP socket per address family, three
// tries each within udpTimeout.
func checkSTUN(ctx context.Context, servers []string) []UDPReply {
	replies := make([]UDPReply, len(servers)) // never nil, so that JSON has a list
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

	ids := map[stun.TxID]int{}
	sent := map[int]time.Time{}
	open := len(mine)
	buf := make([]byte, 1500)
	for try := 0; try < 3 && open > 0; try++ {
		for _, i := range mine {
			if replies[i].Endpoint != "" {
				continue
			}
			var id stun.TxID
			rand.Read(id[:])
			ids[id] = i
			sent[i] = time.Now()
			conn.WriteToUDPAddrPort(stun.AppendRequest(nil, id), addrs[i])
		}
		conn.SetReadDeadline(time.Now().Add(udpTimeout / 3))
		for open > 0 {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				break
			}
			id, mapped, perr := stun.ParseResponse(buf[:n])
			i, asked := ids[id]
			if perr != nil || !asked || replies[i].Endpoint != "" || netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != addrs[i] {
				continue
			}
			rtt := ms(time.Since(sent[i]))
			replies[i].Endpoint, replies[i].RTTms = mapped.String(), &rtt
			open--
		}
	}
	for _, i := range mine {
		if replies[i].Endpoint == "" {
			replies[i].Error = "UDP to it is blocked, or it is down"
		}
	}
}
