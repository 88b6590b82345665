package dns

import (
	"net"
	"strings"

	"github.com/miekg/dns"
)

// special answers names that have a meaning only on this machine or link, and names
// that no resolver can know: they are never forwarded.
func (s *Server) special(q *query) (*answer, later) {
	labels := dns.SplitDomainName(q.name)
	if len(labels) == 0 {
		return nil, nil // the root: forwarded
	}
	if q.q.Qtype == dns.TypeHINFO && s.fwd.loops.returned(q.name) {
		return reply(dns.RcodeRefused), nil
	}
	nx := func(zone, why string) (*answer, later) {
		q.note("special", "%s", why)
		return negative(q, dns.RcodeNameError, zone, 0), nil
	}
	top := labels[len(labels)-1]
	switch top {
	case "localhost":
		q.note("special", "localhost is this machine (RFC 6761)")
		return localhost(q), nil
	case "local":
		if q.st.rules.routed(q.name) {
			break
		}
		return nx("local.", ".local is for multicast DNS (RFC 6762)")
	case "onion", "alt", "invalid":
		return nx(top+".", "."+top+" is never in DNS (RFC 7686, 9476, 6761)")
	}
	// DNS-SD browsing of the local network's domain (RFC 6763 section 11) is for
	// multicast.
	if len(labels) > 3 && labels[1] == "_dns-sd" && labels[2] == "_udp" {
		return nx(q.name, "services are browsed by multicast DNS (RFC 6763)")
	}
	switch {
	case q.name == "_dns.resolver.arpa.":
		// This resolver offers no encrypted transport (RFC 9462).
		q.note("special", "this resolver does not offer DNS over TLS or HTTPS (RFC 9462)")
		return negative(q, dns.RcodeSuccess, "resolver.arpa.", 0), nil
	case within(q.name, "resolver.arpa."):
		return nx("resolver.arpa.", "resolver.arpa is this resolver's own (RFC 9462)")
	case q.st.rules.settings.KeepBrowsers && q.name == "use-application-dns.net.":
		return nx(q.name, "the settings ask browsers to keep their own DNS off")
	}
	if len(labels) == 1 {
		return s.singleLabel(q)
	}
	return nil, nil
}

// singleLabel answers "kitchen-pi" without any dot: such a name needs a search list and
// is not in public DNS. Types that only a validator asks for (DS, DNSKEY of "com.") are
// forwarded.
func (s *Server) singleLabel(q *query) (*answer, later) {
	switch q.q.Qtype {
	case dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeDNSKEY, dns.TypeNSEC, dns.TypeRRSIG:
		return nil, nil
	}
	label := strings.TrimSuffix(q.name, ".")
	if ix := q.st.ix; ix != nil && q.name == ix.apex {
		return nil, nil
	}
	if ix := q.st.ix; ix != nil && s.cfg.ShortNames && q.depth == 0 && validLabel(label) {
		q.note("special", "short names mean overlay names here")
		sub := q.to(ix.fqdn(label))
		sub.q.Name = q.q.Name // answer with the client's spelling
		return s.ownZones(sub)
	}
	q.note("special", "a single label needs a search list; it is not a full name")
	return negative(q, dns.RcodeNameError, q.name, 0), nil
}

// localhost answers as RFC 6761 section 6.3 requires.
func localhost(q *query) *answer {
	a := reply(dns.RcodeSuccess)
	a.out = outLocal
	hdr := dns.RR_Header{Name: q.q.Name, Class: dns.ClassINET, Ttl: defaultTTL}
	switch q.q.Qtype {
	case dns.TypeA:
		hdr.Rrtype = dns.TypeA
		a.msg.Answer = []dns.RR{&dns.A{Hdr: hdr, A: net.IPv4(127, 0, 0, 1)}}
	case dns.TypeAAAA:
		hdr.Rrtype = dns.TypeAAAA
		a.msg.Answer = []dns.RR{&dns.AAAA{Hdr: hdr, AAAA: net.IPv6loopback}}
	default:
		return negative(q, dns.RcodeSuccess, "localhost.", 0)
	}
	return a
}

// negative is NXDOMAIN or NODATA for a name outside our zones: zone has no data at all.
func negative(_ *query, rcode int, zone string, serial uint32) *answer {
	a := reply(rcode)
	a.out = outLocal
	a.msg.Ns = []dns.RR{&dns.SOA{
		Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: defaultTTL},
		Ns:  "localhost.", Mbox: "nobody.invalid.", Serial: serial,
		Refresh: 3600, Retry: 600, Expire: 86400, Minttl: defaultTTL,
	}}
	return a
}
