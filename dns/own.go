package dns

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// ownTTL is the TTL of everything we make up ourselves, in seconds, negative
// answers included: a rename is seen soon.
const ownTTL = defaultTTL

// ownZones answers for the overlay's zone and its reverse zones.
func (s *Server) ownZones(ctx context.Context, q *query) *answer {
	ix := s.current()
	if ix == nil {
		// Not knowing yet is not a no.
		if within(q.name, strings.ToLower(s.cfg.DefaultSuffix)+".") {
			return servfail(dns.ExtendedErrorCodeNotReady, "not connected to a network yet")
		}
		return nil
	}
	if within(q.name, ix.apex) {
		return s.ownName(ctx, ix, q)
	}
	for _, p := range []netip.Prefix{ix.zone.IPv4, ix.zone.IPv6} {
		if zone := reverseZone(q.name, p); zone != "" {
			return s.ownReverse(ctx, ix, zone, q)
		}
	}
	return nil
}

// ownName answers for a name in the forward zone.
func (s *Server) ownName(ctx context.Context, ix *index, q *query) *answer {
	if q.name == ix.apex {
		return ix.atApex(q, ix.apex)
	}
	h, ok := ix.byName[q.name]
	if !ok {
		if _, inner := ix.inner[q.name]; inner {
			return ix.negative(q, dns.RcodeSuccess, ix.apex)
		}
		name := strings.TrimSuffix(q.name, "."+ix.apex)
		// Only a name that a device can have is worth a question.
		if strings.Contains(name, ".") || !validLabel(name) || name[0] == '_' || ix.zone.Complete {
			return ix.negative(q, dns.RcodeNameError, ix.apex)
		}
		var a *answer
		if h, a = s.lookup(ctx, ix, q, ix.apex, name, netip.Addr{}); a != nil {
			return a
		}
	}
	return ix.addresses(q, h)
}

// ownReverse answers for a name in one of the reverse zones.
func (s *Server) ownReverse(ctx context.Context, ix *index, zone string, q *query) *answer {
	if q.name == zone {
		return ix.atApex(q, zone)
	}
	r, _ := parseReverse(q.name)
	if !r.ok {
		return ix.negative(q, dns.RcodeNameError, zone)
	}
	if !r.full {
		// Inside the tree of addresses: it exists if anything is below it.
		return ix.negative(q, dns.RcodeSuccess, zone)
	}
	h, ok := ix.byAddr[r.addr]
	if !ok {
		if ix.zone.Complete {
			return ix.negative(q, dns.RcodeNameError, zone)
		}
		var a *answer
		if h, a = s.lookup(ctx, ix, q, zone, "", r.addr); a != nil {
			return a
		}
	}
	if q.q.Qtype == dns.TypeANY {
		return ix.any(q)
	}
	if q.q.Qtype != dns.TypePTR {
		return ix.negative(q, dns.RcodeSuccess, zone)
	}
	a := authoritative()
	a.msg.Answer = []dns.RR{&dns.PTR{Hdr: ownHeader(q, dns.TypePTR), Ptr: ix.fqdn(h.Name)}}
	return a
}

// lookup asks for a host that is not in the snapshot; the answer is nil when
// it was found.
func (s *Server) lookup(ctx context.Context, ix *index, q *query, zone, name string, addr netip.Addr) (Host, *answer) {
	if s.cfg.Lookup == nil {
		return Host{}, servfail(dns.ExtendedErrorCodeNoReachableAuthority, "the server cannot be asked")
	}
	release, ok := s.wait()
	if !ok {
		return Host{}, servfail(dns.ExtendedErrorCodeOther, "too many queries at once")
	}
	defer release()
	h, err := s.cfg.Lookup(ctx, name, addr)
	switch {
	case errors.Is(err, ErrNotFound):
		return Host{}, ix.negative(q, dns.RcodeNameError, zone)
	case err != nil:
		s.cfg.Log.Debug("dns: lookup", "name", name, "addr", addr, "err", err)
		return Host{}, servfail(dns.ExtendedErrorCodeNoReachableAuthority, "the server is away, so nobody knows this name")
	case name != "" && !strings.EqualFold(h.Name, name), addr.IsValid() && h.IPv4 != addr && h.IPv6 != addr:
		return Host{}, ix.negative(q, dns.RcodeNameError, zone)
	}
	return h, nil
}

// addresses answers with a host's addresses, or that it has none of the type.
func (ix *index) addresses(q *query, h Host) *answer {
	a := authoritative()
	switch q.q.Qtype {
	case dns.TypeA:
		if h.IPv4.Is4() {
			a.msg.Answer = []dns.RR{&dns.A{Hdr: ownHeader(q, dns.TypeA), A: h.IPv4.AsSlice()}}
			return a
		}
	case dns.TypeAAAA:
		if h.IPv6.Is6() {
			a.msg.Answer = []dns.RR{&dns.AAAA{Hdr: ownHeader(q, dns.TypeAAAA), AAAA: h.IPv6.AsSlice()}}
			return a
		}
	case dns.TypeANY:
		return ix.any(q)
	}
	return ix.negative(q, dns.RcodeSuccess, ix.apex)
}

// atApex answers at the top of a zone of ours.
func (ix *index) atApex(q *query, zone string) *answer {
	a := authoritative()
	switch q.q.Qtype {
	case dns.TypeSOA:
		soa := ix.soa(zone)
		soa.Hdr.Name = q.q.Name
		a.msg.Answer = []dns.RR{soa}
	case dns.TypeNS:
		a.msg.Answer = []dns.RR{&dns.NS{Hdr: ownHeader(q, dns.TypeNS), Ns: ix.fqdn(serviceHost)}}
		a.msg.Extra = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: ix.fqdn(serviceHost), Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ownTTL},
			A:   ServiceAddr.AsSlice(),
		}}
	case dns.TypeANY:
		return ix.any(q)
	default:
		return ix.negative(q, dns.RcodeSuccess, zone)
	}
	return a
}

// any is the smallest honest answer to "everything" (RFC 8482).
func (ix *index) any(q *query) *answer {
	a := authoritative()
	a.msg.Answer = []dns.RR{&dns.HINFO{Hdr: ownHeader(q, dns.TypeHINFO), Cpu: "RFC8482", Os: ""}}
	return a
}

// negative is NXDOMAIN or, with RcodeSuccess, NODATA in a zone of ours.
func (ix *index) negative(q *query, rcode int, zone string) *answer {
	a := authoritative()
	a.msg.Rcode = rcode
	a.msg.Ns = []dns.RR{ix.soa(zone)}
	return a
}

// negative is the same for a name that is nobody's: zone has no data at all.
func negative(q *query, rcode int, zone string, serial uint32) *answer {
	a := reply(rcode)
	a.msg.Ns = []dns.RR{&dns.SOA{
		Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ownTTL},
		Ns:  "localhost.", Mbox: "nobody.invalid.", Serial: serial,
		Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ownTTL,
	}}
	return a
}

func authoritative() *answer {
	return &answer{msg: &dns.Msg{MsgHdr: dns.MsgHdr{Authoritative: true}}, source: "overlay"}
}

// ownHeader names the record as the client spelled it.
func ownHeader(q *query, typ uint16) dns.RR_Header {
	return dns.RR_Header{Name: q.q.Name, Rrtype: typ, Class: dns.ClassINET, Ttl: ownTTL}
}
