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

// Bounds on the settings that a server can send to a node; anything beyond them is left
// out.
const (
	MaxRecords     = 1000
	MaxRoutes      = 256
	MaxNameservers = 8 // per route, and for all other names
	MaxAliases     = 1000
	MaxWildcards   = 1000
	MaxSearch      = 16
)

// The default and maximum TTL of our own data, in seconds. It is low so that a rename
// takes effect soon.
const (
	defaultTTL = 5
	maxTTL     = 60
)

// Settings are an owner's decisions about names, with the same fields as api.DNS. The
// zero value is a resolver that answers for the overlay and forwards all other names to
// the machine's own resolvers.
//
// Names have the same form everywhere: a name without a dot is one of the overlay
// ("kitchen-pi"), any other is a full name with or without its final dot
// ("www.kitchen-pi.weft.internal", "example.com"), and "@" is the overlay's zone
// itself. Only in Search, RebindingAllowed and a route's Suffix a name without a dot is
// a full name, too ("lan"). Names with letters beyond ASCII are stored and served in
// their ASCII form (RFC 5891).
//
// An invalid part is left out and listed by Problems; the rest works. Settings must not
// be changed once they are in use.
type Settings struct {
	// Search are domains to try for short names, beside the overlay's own.
	Search []string `json:"search"`
	// LANNamesWin puts the overlay's zone behind the machine's own search
	// domains, so that "printer" is the LAN's printer where there is one.
	LANNamesWin bool `json:"lan_names_win"`
	// Nameservers answer for all names outside the overlay and the routes; if empty,
	// those names go to the machine's own resolvers.
	Nameservers []Nameserver `json:"nameservers"`
	// Routes send names to resolvers of their own (split DNS).
	Routes []Route `json:"routes"`
	// Records are answered beside the devices' own names. A device's name
	// wins over a record with the same name.
	Records []Record `json:"records"`
	// Aliases are former names of devices, answered until they end.
	Aliases []Alias `json:"aliases"`
	// Wildcards are the short names of devices that also answer for every nonexistent
	// name below their own.
	Wildcards []string `json:"wildcards"`
	// TTL of the overlay's own answers in seconds, 1 to 60; 0 is 5.
	TTL int `json:"ttl"`
	// StopRebinding removes overlay, private, loopback and link-local addresses from
	// answers for public names. Routes, home.arpa and the names at and below
	// RebindingAllowed are exempt.
	StopRebinding    bool     `json:"stop_rebinding"`
	RebindingAllowed []string `json:"rebinding_allowed"`
	// KeepBrowsers answers use-application-dns.net with NXDOMAIN, which makes browsers
	// keep their own DNS over HTTPS off.
	KeepBrowsers bool `json:"keep_browsers"`
	// NoStale never answers with expired data when all resolvers fail.
	NoStale bool `json:"no_stale"`
	// PortalURL is an http:// address that answers 204 on an open network and something
	// else behind a captive portal. It is fetched after the network changed and when
	// all Nameservers fail; behind a portal the machine's own resolvers are asked
	// instead of Nameservers. "" switches this off.
	PortalURL string `json:"portal_url"`
	// QueryLog logs one line per question; names are hashed with a key that is new at
	// each start.
	QueryLog bool `json:"query_log"`
}

// Nameserver is a resolver to ask.
type Nameserver struct {
	// Address is one of
	//	192.0.2.53  192.0.2.53:5353  [2001:db8::53]:53   UDP, TCP when needed
	//	tls://dns.example  tls://dns.example:853         DNS over TLS (RFC 7858)
	//	https://dns.example/dns-query                    DNS over HTTPS (RFC 8484)
	// The certificate must be valid for the host in it, name or address. An
	// address inside the overlay is reached through the overlay.
	Address string `json:"address"`
	// Bootstrap are the IP addresses of the host in Address. Without them the machine's
	// own resolvers are asked for its name.
	Bootstrap []string `json:"bootstrap"`
}

// Route sends a suffix to its own resolvers.
type Route struct {
	// Suffix matches whole labels: the name itself and all names below it; the longest
	// match wins. Reverse zones work like any other. A route inside the overlay's own
	// zones is not allowed. Names below .local are left to multicast DNS unless there
	// is a route.
	Suffix string `json:"suffix"`
	// Nameservers to ask; if empty, the machine's own resolvers.
	Nameservers []Nameserver `json:"nameservers"`
}

// Record is one record of a type in RecordTypes.
type Record struct {
	Name string `json:"name"` // for PTR also an address
	Type string `json:"type"`
	// Value is the data as in a zone file: "192.0.2.1", "10 mail", "0 5 443
	// kitchen-pi". TXT is taken literally.
	Value string `json:"value"`
	TTL   int    `json:"ttl"` // seconds, 1 to 86,400; 0 is 300
}

// RecordTypes are the types that a Record can have.
var RecordTypes = []string{"A", "AAAA", "CNAME", "TXT", "SRV", "MX", "PTR"}

// Alias is a former name of a device.
type Alias struct {
	Name   string    `json:"name"`   // short
	Target string    `json:"target"` // short: the device's current name
	Until  time.Time `json:"until"`  // the zero time is forever
}

// Problem is an unused part of the settings, with the reason.
type Problem struct {
	Part string `json:"part"` // "records[3]", "routes[0].nameservers[1]"
	Text string `json:"text"` // one line
}

// Problems checks settings for a network whose zone is suffix. Code that takes settings
// from people refuses them if there are any problems.
func (s *Settings) Problems(suffix string) []Problem {
	return compile(s, strings.ToLower(suffix)+".").problems
}

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

// dataOf is a record's data as text.
func dataOf(rr dns.RR) string { return strings.TrimPrefix(rr.String(), rr.Header().String()) }

// makeRecord parses a record's value.
func makeRecord(name, typ, value, apex string) (dns.RR, error) {
	if len(value) > 4096 || value == "" {
		return nil, errors.New("value: want 1 to 4096 letters")
	}
	hdr := dns.RR_Header{Name: name, Class: dns.ClassINET, Rrtype: dns.StringToType[typ]}
	bad := func(want string) error { return fmt.Errorf("value %.60q: want %s", value, want) }
	f := strings.Fields(value)
	numbers := func(want string, n int) ([]uint16, string, error) {
		if len(f) != n+1 {
			return nil, "", bad(want)
		}
		var out []uint16
		for _, s := range f[:n] {
			v, err := strconv.ParseUint(s, 10, 16)
			if err != nil {
				return nil, "", bad(want)
			}
			out = append(out, uint16(v))
		}
		if f[n] == "." {
			return out, ".", nil
		}
		target, err := fullName(f[n], apex)
		return out, target, err
	}
	switch typ {
	case "A", "AAAA":
		ip, err := netip.ParseAddr(value)
		if err != nil || ip.Zone() != "" || ip.Is4() != (typ == "A") || ip.Is4In6() {
			return nil, bad("an IPv4 address for A, an IPv6 address for AAAA")
		}
		if typ == "A" {
			return &dns.A{Hdr: hdr, A: ip.AsSlice()}, nil
		}
		return &dns.AAAA{Hdr: hdr, AAAA: ip.AsSlice()}, nil
	case "CNAME", "PTR":
		target, err := fullName(value, apex)
		if err != nil {
			return nil, err
		}
		if typ == "PTR" {
			return &dns.PTR{Hdr: hdr, Ptr: target}, nil
		}
		return &dns.CNAME{Hdr: hdr, Target: target}, nil
	case "MX":
		n, target, err := numbers("PREFERENCE NAME, for example 10 mail", 1)
		if err != nil {
			return nil, err
		}
		return &dns.MX{Hdr: hdr, Preference: n[0], Mx: target}, nil
	case "SRV":
		n, target, err := numbers("PRIORITY WEIGHT PORT NAME, for example 0 5 443 kitchen-pi", 3)
		if err != nil {
			return nil, err
		}
		return &dns.SRV{Hdr: hdr, Priority: n[0], Weight: n[1], Port: n[2], Target: target}, nil
	}
	// TXT: strings of at most 255 bytes. The library treats a backslash as an escape.
	txt := &dns.TXT{Hdr: hdr}
	for len(value) > 0 {
		n := min(len(value), 255)
		txt.Txt = append(txt.Txt, strings.ReplaceAll(value[:n], `\`, `\\`))
		value = value[n:]
	}
	return txt, nil
}

// parseServer parses a Nameserver.
func parseServer(n Nameserver) (serverAddr, error) {
	if len(n.Address) > 512 || len(n.Bootstrap) > MaxNameservers {
		return serverAddr{}, errors.New("address: too long")
	}
	if a, ok := parseNameserver(n.Address); ok {
		return serverAddr{proto: "udp", addr: a}, nil
	}
	bad := fmt.Errorf("address %.60q: want IP, IP:PORT, tls://HOST or https://HOST/PATH", n.Address)
	u, err := url.Parse(n.Address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return serverAddr{}, bad
	}
	a := serverAddr{proto: u.Scheme, host: strings.ToLower(u.Hostname())}
	switch u.Scheme {
	case "tls":
		a.port = 853
		if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return serverAddr{}, bad
		}
	case "https":
		a.port = 443
		// A URI template's variable (RFC 8484) is only for GET; we use POST.
		u.Path = strings.TrimSuffix(u.Path, "{?dns}")
		u.RawPath = ""
		a.url = u.String()
	default:
		return serverAddr{}, bad
	}
	if p := u.Port(); p != "" {
		v, err := strconv.ParseUint(p, 10, 16)
		if err != nil || v == 0 {
			return serverAddr{}, bad
		}
		a.port = uint16(v)
	}
	if ip, err := netip.ParseAddr(a.host); err == nil {
		a.boot = []netip.Addr{ip.Unmap()}
	} else if a.host, err = asciiName(strings.TrimSuffix(a.host, ".")); err != nil {
		return serverAddr{}, bad
	}
	for _, b := range n.Bootstrap {
		ip, err := netip.ParseAddr(b)
		if err != nil {
			return serverAddr{}, fmt.Errorf("bootstrap %.40q: want an IP address", b)
		}
		a.boot = append(a.boot, ip.Unmap())
	}
	return a, nil
}
