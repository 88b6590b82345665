package gather

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

const (
	// maxServers bounds the STUN servers, maxPerName the addresses of one name per
	// family.
	maxServers = 16
	maxPerName = 2
	// nameTTL is after how long a name is looked up again. Meanwhile its old addresses
	// are asked: a round does not wait for the lookup.
	nameTTL = 10 * time.Minute
	// maxResolve bounds one lookup.
	maxResolve = 3 * time.Second
)

// names are the resolved STUN servers, at most maxServers.
type names struct {
	found   map[string]found // by host
	busy    map[string]bool
	pending int
}

type found struct {
	addrs []netip.Addr
	at    time.Time // when it was looked up; zero: look it up again
}

// keep drops all names but those of servers.
func (n *names) keep(servers []string) {
	for host := range n.found {
		if !slices.ContainsFunc(servers, func(s string) bool {
			h, _, _ := net.SplitHostPort(s)
			return h == host
		}) {
			delete(n.found, host)
		}
	}
}

// expire makes all names be looked up again.
func (n *names) expire() {
	for host, f := range n.found {
		f.at = time.Time{}
		n.found[host] = f
	}
}

// askLocked adds the known addresses of a server to the round, and looks its name up if
// necessary.
func (g *Gatherer) askLocked(now time.Time, server string) {
	host, service, err := net.SplitHostPort(server)
	port, perr := strconv.ParseUint(service, 10, 16)
	if err != nil || perr != nil || port == 0 || host == "" {
		g.round.failed = append(g.round.failed, Answer{Server: server, Err: "it is not HOST:PORT"})
		return
	}
	if a, err := netip.ParseAddr(host); err == nil {
		g.addLocked(now, server, []netip.Addr{a}, uint16(port))
		return
	}
	f := g.names.found[host]
	g.addLocked(now, server, f.addrs, uint16(port))
	if !f.at.IsZero() && now.Sub(f.at) < nameTTL || g.names.busy[server] {
		return
	}
	if g.names.found == nil {
		g.names.found, g.names.busy = map[string]found{}, map[string]bool{}
	}
	g.names.busy[server] = true
	g.names.pending++
	g.wg.Go(func() { g.resolve(server, host, uint16(port)) })
}

// resolve looks one name up and adds its addresses to the present round.
func (g *Gatherer) resolve(server, host string, port uint16) {
	ctx, cancel := context.WithTimeout(g.ctx, maxResolve)
	defer cancel()
	addrs, err := g.cfg.Resolve(ctx, host)
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.names.pending--
	delete(g.names.busy, server)
	defer signal(g.kick)
	if g.round == nil || !slices.Contains(g.servers, server) {
		return
	}
	if err != nil || len(addrs) == 0 {
		if len(g.names.found[host].addrs) == 0 {
			g.round.failed = append(g.round.failed, Answer{Server: server, Err: "the name was not found"})
		}
		return
	}
	addrs = some(addrs)
	g.names.found[host] = found{addrs: addrs, at: now}
	g.addLocked(now, server, addrs, port)
}

// some returns the first maxPerName addresses of each family.
func some(addrs []netip.Addr) (out []netip.Addr) {
	var n4, n6 int
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		n := &n6
		if a.Is4() {
			n = &n4
		}
		if *n++; *n <= maxPerName {
			out = append(out, a)
		}
	}
	return out
}

// addLocked adds those of addrs that a STUN server can have to the round. They include
// loopback: the server may be on this machine.
func (g *Gatherer) addLocked(now time.Time, server string, addrs []netip.Addr, port uint16) {
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		if a.Is4() && g.v4 == 0 || a.Is6() && g.v6 == 0 {
			continue
		}
		if a.IsGlobalUnicast() && (g.cfg.Refuse == nil || !g.cfg.Refuse(a)) || a.IsLoopback() {
			g.round.add(now, server, netip.AddrPortFrom(a, port))
		}
	}
}
