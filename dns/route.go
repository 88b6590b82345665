package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Routes that are not in the settings.
var (
	// systemRoute is the machine's own resolvers.
	systemRoute = &route{name: "system"}
	// privateRoute is those of them on private networks: public resolvers must not see
	// reverse names of private addresses.
	privateRoute = &route{name: "private"}
	// portalRoute is the machine's own resolvers behind a captive portal; their answers
	// are not cached.
	portalRoute = &route{name: "portal"}
)

// portalTTL is how long clients may cache such an answer, in seconds.
const portalTTL = 5

// routeOf chooses the upstreams for a name outside our zones.
func (s *Server) routeOf(q *query) *route {
	rules := q.st.rules
	if s.isBootstrap(q.name) {
		q.note("route", "a server's own name is always asked of the machine's resolvers")
		return systemRoute
	}
	for name := q.name; name != ""; name = parent(name) {
		if r := rules.routes[name]; r != nil {
			if r.servers == nil {
				q.note("route", "%s goes to the machine's own resolvers", strings.TrimSuffix(name, "."))
				return systemRoute
			}
			q.note("route", "%s goes to %s", strings.TrimSuffix(name, "."), listOf(r.servers))
			return r
		}
	}
	switch {
	case within(q.name, "home.arpa."), within(q.name, "ipv4only.arpa."):
		// RFC 8375 and 8880: these names belong to the local network.
		q.note("route", "%s belongs to the local network's resolvers", q.name)
		return systemRoute
	case privateReverse(q.name):
		q.note("route", "reverse names of private addresses stay on the local network")
		return privateRoute
	case rules.global == nil:
		q.note("route", "no route: the machine's own resolvers")
		return systemRoute
	case s.portal.captive():
		q.note("route", "there is a captive portal: the machine's own resolvers")
		return portalRoute
	}
	q.note("route", "no route: %s", listOf(rules.global.servers))
	return rules.global
}

// routed reports whether a route of the settings covers name.
func (r *rules) routed(name string) bool {
	for ; name != ""; name = parent(name) {
		if r.routes[name] != nil {
			return true
		}
	}
	return false
}

func listOf(servers []serverAddr) string {
	var l []string
	for _, a := range servers {
		l = append(l, a.String())
	}
	if len(l) == 0 {
		return "no resolver (see: weft dns status)"
	}
	return strings.Join(l, ", ")
}

// isBootstrap reports whether name is a server's or relay's: resolving those must not
// depend on the overlay.
func (s *Server) isBootstrap(name string) bool {
	if s.cfg.Bootstrap == nil {
		return false
	}
	name = strings.TrimSuffix(name, ".")
	return slices.ContainsFunc(s.cfg.Bootstrap(), func(b string) bool { return strings.EqualFold(strings.TrimSuffix(b, "."), name) })
}

// privateNets are the networks whose reverse zones are local (RFC 6303, 7793).
var privateNets = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("::/127"),
}

func isPrivate(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(privateNets, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// privateReverse reports whether name is the reverse name of private addresses.
func privateReverse(name string) bool {
	for _, p := range privateNets {
		// fe80::/10 and fc00::/7 end inside a label; reverseZone handles that.
		if reverseZone(name, p) != "" {
			return true
		}
	}
	return false
}

// noResolver is the answer if a route has no upstream.
func noResolver(q *query, r *route, resolvConf string) *answer {
	if r == privateRoute {
		// RFC 6303: answer NXDOMAIN ourselves instead of asking a public resolver.
		q.note("forward", "no resolver on a private network is known")
		return negative(q, dns.RcodeNameError, q.name, 0)
	}
	if r == systemRoute || r == portalRoute {
		q.note("forward", "there is no resolver in %s", resolvConf)
		return servfail(dns.ExtendedErrorCodeNetworkError, "there is no resolver in "+resolvConf)
	}
	q.note("forward", "the route has no usable resolver")
	return servfail(dns.ExtendedErrorCodeNetworkError, "no usable resolver is set for "+strings.TrimSuffix(r.name, "."))
}
