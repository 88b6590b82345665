package dns

import (
	"context"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// special answers names that mean something on this machine or link only, and
// those that no resolver could know: they are never forwarded.
func (s *Server) special(_ context.Context, q *query) *answer {
	labels := dns.SplitDomainName(q.name)
	if len(labels) == 0 {
		return nil // the root: forwarded
	}
	switch labels[len(labels)-1] {
	case "localhost":
		return localhost(q)
	case "local", "onion", "alt", "invalid":
		// RFC 6762, 7686, 9476, 6761.
		return negative(q, dns.RcodeNameError, labels[len(labels)-1]+".", 0)
	}
	// DNS-SD browsing of the own network's domain (RFC 6763 11) is for
	// multicast.
	if len(labels) > 3 && labels[1] == "_dns-sd" && labels[2] == "_udp" {
		return negative(q, dns.RcodeNameError, q.name, 0)
	}
	// A single label is a name of a search list, not of the world. Types that
	// only a validator asks for (DS, DNSKEY of "com.") do go out.
	if len(labels) == 1 {
		switch q.q.Qtype {
		case dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeDNSKEY, dns.TypeNSEC, dns.TypeRRSIG:
		default:
			if z := s.cfg.Zone(); z == nil || !strings.EqualFold(labels[0], z.Suffix) {
				return negative(q, dns.RcodeNameError, q.name, 0)
			}
		}
	}
	return nil
}

// localhost answers as RFC 6761 section 6.3 wants it.
func localhost(q *query) *answer {
	a := reply(dns.RcodeSuccess)
	hdr := dns.RR_Header{Name: q.q.Name, Class: dns.ClassINET, Ttl: ownTTL}
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
