package dns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// index is a Zone prepared for queries. It is immutable.
type index struct {
	zone   *Zone
	ttl    uint32
	apex   string              // "weft.internal."
	byName map[string]Host     // full name in lower case, with the final dot
	byAddr map[netip.Addr]Host //
	inner  map[string]struct{} // names that exist only because there are names below them
}

// serviceHost is the name of the resolver itself. No device name can contain '_'.
const serviceHost = "_dns"

// serviceReverse is the reverse name of ServiceAddr, ours in every network.
const serviceReverse = "100.100.100.100.in-addr.arpa."

// validSuffix rejects zone names that a hostile server could send.
func validSuffix(s string) bool {
	if s == "" || len(s) > 200 {
		return false
	}
	for _, l := range strings.Split(s, ".") {
		if !validLabel(l) {
			return false
		}
	}
	return true
}

// validLabel accepts letters, digits, '-' and '_' (RFC 1123 and a little).
func validLabel(l string) bool {
	if l == "" || len(l) > 63 {
		return false
	}
	for _, c := range []byte(l) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

func newIndex(z *Zone, ttl uint32) *index {
	ix := &index{
		zone:   z,
		ttl:    ttl,
		apex:   strings.ToLower(z.Suffix) + ".",
		byName: make(map[string]Host, len(z.Hosts)+1),
		byAddr: make(map[netip.Addr]Host, 2*len(z.Hosts)+1),
		inner:  map[string]struct{}{},
	}
	ix.add(Host{Name: serviceHost, IPv4: ServiceAddr})
	for _, h := range z.Hosts {
		ix.add(h)
	}
	return ix
}

// add adds a host. A name or address that is already taken stays with the first host;
// an invalid host name is left out.
func (ix *index) add(h Host) {
	for _, l := range strings.Split(h.Name, ".") {
		if !validLabel(l) {
			return
		}
	}
	name := ix.fqdn(h.Name)
	if _, taken := ix.byName[name]; taken || len(name) > 255 {
		return
	}
	ix.byName[name] = h
	for _, a := range []netip.Addr{h.IPv4, h.IPv6} {
		if _, taken := ix.byAddr[a]; a.IsValid() && !taken {
			ix.byAddr[a] = h
		}
	}
	for up := parent(name); up != ix.apex && len(up) > len(ix.apex); up = parent(up) {
		ix.inner[up] = struct{}{}
	}
}

// fqdn is the full name of a host, in lower case, with the final dot.
func (ix *index) fqdn(name string) string { return strings.ToLower(name) + "." + ix.apex }

// parent is the name without its first label.
func parent(name string) string {
	_, up, _ := strings.Cut(name, ".")
	return up
}

// within reports whether name is zone or below it; both end with a dot.
func within(name, zone string) bool {
	return name == zone || strings.HasSuffix(name, "."+zone)
}

// reverse is a name below in-addr.arpa or ip6.arpa.
type reverse struct {
	addr netip.Addr // the given part of the address, the rest zero
	bits int        // length of the given part
	full bool       // whether it is a whole address
	ok   bool       // whether it is well formed
}

// parseReverse reads a reverse name; arpa is false for any other name.
func parseReverse(name string) (r reverse, arpa bool) {
	if rest, ok := cutZone(name, "in-addr.arpa."); ok {
		return parseReverse4(rest), true
	}
	if rest, ok := cutZone(name, "ip6.arpa."); ok {
		return parseReverse6(rest), true
	}
	return reverse{}, false
}

func cutZone(name, zone string) (string, bool) {
	if name == zone {
		return "", true
	}
	return strings.CutSuffix(name, "."+zone)
}

func parseReverse4(rest string) reverse {
	var b [4]byte
	labels := splitLabels(rest)
	if len(labels) > 4 {
		return reverse{}
	}
	for i := range labels {
		l := labels[len(labels)-1-i]
		n := 0
		for _, c := range []byte(l) {
			if c < '0' || c > '9' {
				return reverse{}
			}
			n = n*10 + int(c-'0')
		}
		if l == "" || len(l) > 3 || n > 255 || len(l) > 1 && l[0] == '0' {
			return reverse{}
		}
		b[i] = byte(n)
	}
	return reverse{addr: netip.AddrFrom4(b), bits: 8 * len(labels), full: len(labels) == 4, ok: true}
}

func parseReverse6(rest string) reverse {
	var b [16]byte
	labels := splitLabels(rest)
	if len(labels) > 32 {
		return reverse{}
	}
	for i := range labels {
		l := labels[len(labels)-1-i]
		if len(l) != 1 {
			return reverse{}
		}
		var n byte
		switch c := l[0]; {
		case c >= '0' && c <= '9':
			n = c - '0'
		case c >= 'a' && c <= 'f':
			n = c - 'a' + 10
		default:
			return reverse{}
		}
		b[i/2] |= n << (4 * (1 - i%2))
	}
	return reverse{addr: netip.AddrFrom16(b), bits: 4 * len(labels), full: len(labels) == 32, ok: true}
}

func splitLabels(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ".")
}

// reverseZone returns the zone of prefix that contains name, "" if there is none. A
// prefix that does not end at a label has several zones: 100.64.0.0/10 has
// 64.100.in-addr.arpa to 127.100.in-addr.arpa, and nothing more is ours.
func reverseZone(name string, prefix netip.Prefix) string {
	if !prefix.IsValid() {
		return ""
	}
	r, arpa := parseReverse(name)
	step, suffix := 8, "in-addr.arpa."
	if prefix.Addr().Is6() {
		step, suffix = 4, "ip6.arpa."
	}
	if !arpa || !strings.HasSuffix(name, suffix) {
		return ""
	}
	labels := splitLabels(strings.TrimSuffix(strings.TrimSuffix(name, suffix), "."))
	depth := (prefix.Bits() + step - 1) / step // labels of a zone of ours
	if len(labels) < depth {
		return ""
	}
	zone := strings.Join(labels[len(labels)-depth:], ".")
	if zone != "" {
		zone += "."
	}
	zone += suffix
	if len(labels) != depth || !r.ok {
		if r, _ = parseReverse(zone); !r.ok {
			return ""
		}
	}
	if !prefix.Contains(r.addr) {
		return ""
	}
	return zone
}

// soa makes the SOA record of zone.
func (ix *index) soa(zone string) *dns.SOA {
	return &dns.SOA{
		Hdr:     dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: min(ix.ttl, 10)},
		Ns:      ix.fqdn(serviceHost),
		Mbox:    "nobody.invalid.",
		Serial:  uint32(ix.zone.Serial),
		Refresh: 3600, Retry: 600, Expire: 86400, Minttl: min(ix.ttl, 10),
	}
}
