package netcheck

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sort"
	"time"

	"weft/overlay/internal/gather"
	"weft/overlay/limited"
)

// Gatherer is an optional interface of a Node that finds, over its own UDP sockets,
// where it can be reached, and reports the result. Without it, or while the node is
// down, netcheck uses sockets of its own and asks no gateway.
type Gatherer interface {
	Gather(ctx context.Context) (*gather.Snapshot, error)
}

// gatherTimeout bounds a gathering: a round of STUN, and a gateway that answers in no
// protocol.
const gatherTimeout = 8 * time.Second

// gatherAll lets the node gather, or does it with own sockets.
func gatherAll(ctx context.Context, servers []string, node Gatherer) *gather.Snapshot {
	ctx, cancel := context.WithTimeout(ctx, gatherTimeout)
	defer cancel()
	if node != nil {
		if s, err := node.Gather(ctx); err == nil {
			return s
		}
	}
	var socks sockets
	defer socks.close()
	g := gather.New(gather.Config{Send: socks.send, Ports: socks.ports})
	defer g.Close()
	socks.open(g)
	g.Start()
	g.SetServers(servers)
	s, err := g.Check(ctx)
	if err != nil {
		s = g.Snapshot()
	}
	return s
}

// sockets are one UDP socket per available address family. They exist only during the
// check, and receive only answers to it.
type sockets struct {
	v4, v6  *net.UDPConn
	readers []func() // to wait for
}

func (s *sockets) open(g *gather.Gatherer) {
	read := func(c *net.UDPConn) {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil { // an error may be, for example, an ICMP error about a request
				g.STUN(buf[:n], from)
			}
		}
	}
	var err error
	if s.v4, err = net.ListenUDP("udp4", nil); err == nil {
		s.readers = append(s.readers, limited.Go(func() { read(s.v4) }))
	}
	if s.v6, err = net.ListenUDP("udp6", nil); err == nil {
		s.readers = append(s.readers, limited.Go(func() { read(s.v6) }))
	}
}

func (s *sockets) close() {
	for _, c := range []*net.UDPConn{s.v4, s.v6} {
		if c != nil {
			c.Close()
		}
	}
	for _, wait := range s.readers {
		wait()
	}
}

func (s *sockets) ports() (v4, v6 uint16) {
	port := func(c *net.UDPConn) uint16 {
		if c == nil {
			return 0
		}
		return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	}
	return port(s.v4), port(s.v6)
}

func (s *sockets) send(b []byte, to netip.AddrPort) error {
	c := s.v4
	if to.Addr().Is6() {
		c = s.v6
	}
	if c == nil {
		return net.ErrClosed
	}
	_, err := c.WriteToUDPAddrPort(b, to)
	return err
}

// replies lists the STUN answers, the fastest first, then the failures.
func replies(s *gather.Snapshot) []UDPReply {
	out := []UDPReply{} // never nil, so that JSON has a list
	for _, a := range s.Answers {
		r := UDPReply{Server: a.Server, Error: a.Err}
		if a.Addr.IsValid() {
			r.Address = a.Addr.String()
		}
		if a.Seen.IsValid() {
			rtt := ms(a.RTT)
			r.Endpoint, r.RTTms = a.Seen.String(), &rtt
		} else if r.Error == "" {
			r.Error = "no answer"
		}
		out = append(out, r)
	}
	sort.SliceStable(out, func(i, j int) bool { return byRTT(out[i].RTTms, out[j].RTTms) < 0 })
	return out
}
