package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"weft/overlay/hostname"
)

// rules are compiled Settings. They are immutable.
type rules struct {
	settings  *Settings
	apex      string
	ttl       uint32
	records   map[string]*recordSet // full name, lower case, final dot
	inner     map[string]struct{}   // names that only have records below them
	aliases   map[string]alias      // full name
	wildcards map[string]struct{}   // full name of the device
	routes    map[string]*route     // full suffix
	global    *route                // nil: the machine's own resolvers
	allowed   []string              // names that may answer with private addresses
	portal    string                // URL to ask, or ""
	problems  []Problem
}

// recordSet are the extra records of one name.
type recordSet struct {
	outside bool // the name is not in the overlay's zone
	rrs     []dns.RR
}

type alias struct {
	target string // full name
	until  time.Time
}

// route is a set of upstreams with a name for people and the cache's key.
type route struct {
	name    string // the suffix, "global" or "system"
	servers []serverAddr
}

// serverAddr is a parsed Nameserver.
type serverAddr struct {
	proto string         // "udp", "tls" or "https"
	addr  netip.AddrPort // udp
	host  string         // tls, https: the certificate must be valid for it
	port  uint16         // tls, https
	url   string         // https
	boot  []netip.Addr   // tls, https: addresses of host, if known
}

func (a serverAddr) String() string {
	switch a.proto {
	case "udp":
		return a.addr.String()
	case "tls":
		return "tls://" + joinHostPort(a.host, a.port)
	}
	return a.url
}

func joinHostPort(host string, port uint16) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(port))
}

// compile turns settings into rules; apex is the zone's full name. s may be nil.
func compile(s *Settings, apex string) *rules {
	if s == nil {
		s = &Settings{}
	}
	r := &rules{
		settings: s, apex: apex, ttl: defaultTTL,
		records: map[string]*recordSet{}, inner: map[string]struct{}{}, aliases: map[string]alias{},
		wildcards: map[string]struct{}{}, routes: map[string]*route{},
	}
	switch {
	case s.TTL < 0 || s.TTL > maxTTL:
		r.problem("ttl", fmt.Errorf("%d: want 1 to %d seconds", s.TTL, maxTTL))
	case s.TTL > 0:
		r.ttl = uint32(s.TTL)
	}
	r.each("search", len(s.Search), MaxSearch, func(i int) error {
		_, err := asciiName(strings.TrimSuffix(s.Search[i], "."))
		return err
	})
	if s.PortalURL != "" {
		if u, err := url.Parse(s.PortalURL); err != nil || u.Scheme != "http" || u.Host == "" || len(s.PortalURL) > 512 {
			r.problem("portal_url", errors.New("want http://HOST/PATH"))
		} else {
			r.portal = s.PortalURL
		}
	}
	r.each("records", len(s.Records), MaxRecords, func(i int) error { return r.addRecord(s.Records[i], apex) })
	r.each("aliases", len(s.Aliases), MaxAliases, func(i int) error { return r.addAlias(s.Aliases[i], apex) })
	r.each("wildcards", len(s.Wildcards), MaxWildcards, func(i int) error {
		name, err := fullName(s.Wildcards[i], apex)
		if err == nil && (!within(name, apex) || name == apex) {
			err = errors.New("want the short name of a device")
		}
		if err == nil {
			r.wildcards[name] = struct{}{}
		}
		return err
	})
	r.each("rebinding_allowed", len(s.RebindingAllowed), MaxRecords, func(i int) error {
		name, err := asciiName(strings.TrimSuffix(s.RebindingAllowed[i], "."))
		if err == nil {
			r.allowed = append(r.allowed, name+".")
		}
		return err
	})
	r.each("routes", len(s.Routes), MaxRoutes, func(i int) error {
		rt := s.Routes[i]
		name, err := asciiName(strings.TrimSuffix(rt.Suffix, "."))
		name += "."
		switch {
		case err != nil:
			return err
		case within(name, apex):
			return errors.New("a route cannot cover names of the overlay: they never leave it")
		case r.routes[name] != nil:
			return errors.New("there is a route for this suffix already")
		}
		servers := r.servers(fmt.Sprintf("routes[%s].nameservers", strings.TrimSuffix(name, ".")), rt.Nameservers)
		if len(servers) == 0 && len(rt.Nameservers) > 0 {
			// Do not fall back to the machine's own resolvers: they would learn names
			// that are not for them. A route without a usable server fails.
			servers = []serverAddr{}
		} else if len(rt.Nameservers) == 0 {
			servers = nil
		}
		r.routes[name] = &route{name: name, servers: servers}
		return nil
	})
	if len(s.Nameservers) > 0 {
		r.global = &route{name: "global", servers: r.servers("nameservers", s.Nameservers)}
	}
	return r
}

// each handles the first most of n items and records the problems.
func (r *rules) each(part string, n, most int, take func(i int) error) {
	for i := range n {
		if i == most {
			r.problem(fmt.Sprintf("%s[%d]", part, i), fmt.Errorf("only %d are used", most))
			return
		}
		if err := take(i); err != nil {
			r.problem(fmt.Sprintf("%s[%d]", part, i), err)
		}
	}
}

func (r *rules) problem(part string, err error) {
	if len(r.problems) < 100 {
		r.problems = append(r.problems, Problem{Part: part, Text: err.Error()})
	}
}

func (r *rules) servers(part string, list []Nameserver) []serverAddr {
	out := []serverAddr{}
	r.each(part, len(list), MaxNameservers, func(i int) error {
		a, err := parseServer(list[i])
		if err == nil {
			out = append(out, a)
		}
		return err
	})
	return out
}

// fullName turns a name of the Settings into a full name in lower-case ASCII.
func fullName(name, apex string) (string, error) {
	if name == "@" {
		return apex, nil
	}
	short := !strings.Contains(strings.TrimSuffix(name, "."), ".") && !strings.HasSuffix(name, ".")
	ascii, err := asciiName(strings.TrimSuffix(name, "."))
	if err != nil {
		return "", err
	}
	if short {
		ascii += "." + strings.TrimSuffix(apex, ".")
	}
	if len(ascii) > 253 {
		return "", fmt.Errorf("name %.40q...: longer than 253 letters", name)
	}
	return ascii + ".", nil
}

// asciiName is the lower-case ASCII form of a name without its final dot.
func asciiName(name string) (string, error) {
	name, err := hostname.ASCII(name)
	if err != nil {
		return "", fmt.Errorf("name %.80q: %w", name, err)
	}
	name = strings.ToLower(name)
	if name == "" || len(name) > 253 {
		return "", fmt.Errorf("name %.80q: want 1 to 253 letters", name)
	}
	for i, l := range strings.Split(name, ".") {
		if !validLabel(l) && !(l == "*" && i == 0) {
			return "", fmt.Errorf("name %.80q: want labels of letters, digits, '-' and '_', at most 63 long", name)
		}
	}
	return name, nil
}

func (r *rules) addAlias(a Alias, apex string) error {
	name, err := fullName(a.Name, apex)
	if err != nil {
		return err
	}
	target, err := fullName(a.Target, apex)
	switch {
	case err != nil:
		return err
	case !within(name, apex) || name == apex || !within(target, apex) || target == apex || name == target:
		return errors.New("want the short names of two devices")
	}
	r.aliases[name] = alias{target: target, until: a.Until}
	return nil
}

// addRecord adds one record.
func (r *rules) addRecord(rec Record, apex string) error {
	typ := strings.ToUpper(rec.Type)
	if !slices.Contains(RecordTypes, typ) {
		return fmt.Errorf("type %.20q: want one of %s", rec.Type, strings.Join(RecordTypes, ", "))
	}
	if rec.TTL < 0 || rec.TTL > 86400 {
		return fmt.Errorf("ttl %d: want 1 to 86400 seconds", rec.TTL)
	}
	var name string
	var err error
	if ip, perr := netip.ParseAddr(rec.Name); perr == nil && typ == "PTR" {
		name, err = dns.ReverseAddr(ip.Unmap().WithZone("").String())
	} else {
		name, err = fullName(rec.Name, apex)
	}
	if err != nil {
		return err
	}
	rr, err := makeRecord(name, typ, rec.Value, apex)
	if err != nil {
		return err
	}
	rr.Header().Ttl = 300
	if rec.TTL > 0 {
		rr.Header().Ttl = uint32(rec.TTL)
	}
	set := r.records[name]
	if set == nil {
		set = &recordSet{outside: !within(name, apex)}
	}
	for _, have := range set.rrs {
		if have.Header().Rrtype == rr.Header().Rrtype && dataOf(have) == dataOf(rr) {
			return errors.New("the same record twice")
		}
		// RFC 1034 3.6.2.
		if typ == "CNAME" || have.Header().Rrtype == dns.TypeCNAME {
			return fmt.Errorf("%s: a name with a CNAME has no other record", strings.TrimSuffix(name, "."))
		}
	}
	switch {
	case typ == "CNAME" && name == apex:
		return errors.New("the zone itself cannot be a CNAME")
	case name == "*."+apex:
		return errors.New("a wildcard at the top would make every name of the overlay exist: want a record for one name, or a wildcard below one")
	}
	set.rrs = append(set.rrs, rr)
	r.records[name] = set
	if !set.outside {
		for up := parent(name); within(up, apex) && up != apex; up = parent(up) {
			r.inner[up] = struct{}{}
		}
	}
	return nil
}
