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
	// maxServers bounds the STUN servers, maxPerName the addresses taken of
	// one name, per family.
	maxServers = 16
	maxPerName = 2
	// nameTTL is how long a name is not looked up again. What was found
	// before is asked even so: looking up is not waited for.
	nameTTL = 10 * time.Minute
	// maxResolve bounds one lookup.
	maxResolve = 3 * time.Second
)

// names are the STUN servers that were found, at most maxServers.
type names struct {
	found   map[string]found // by host
	busy    map[string]bool
	pending int
}

type found struct {
	addrs []netip.Addr
	at    time.Time // zero: look again
}

// keep forgets the names that are no longer used.
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

// expire has all names looked up anew.
func (n *names) expire() {
	for host, f := range n.found {
		f.at = time.Time{}
		n.found[host] = f
	}
}

// askLocked adds a server to the round, as far as its name is known, and
// looks the name up if need be.
func (g *Gatherer) askLocked(now time.Time, server string) {
	host, service, err := net.SplitHostPort(server)
	port, perr := strconv.ParseUint(service, 10, 16)
	if err != nil || perr != nil || port == 0 || host == "" {
		g.round.failed = append(g.round.failed, Answer{Server: server, Err: "not an address and a port"})
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

// resolve looks one name up and has it asked in the round that runs.
func (g *Gatherer) resolve(server, host string, port uint16) {
	ctx, cancel := context.WithTimeout(g.ctx, maxResolve)
	defer cancel()
	addrs, err := g.cfg.Resolve(ctx, host)
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.names.pending--
	delete(g.names.busy, server)
	defer tell(g.kick)
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

// some takes the first addresses of each family.
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

// addLocked asks addresses that a STUN server can have. Loopback is one: a
// server on the same machine.
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
