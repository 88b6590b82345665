package dns

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// maxChain bounds the CNAMEs followed for one answer.
const maxChain = 8

// ownZones answers for the overlay's zone and its reverse zones, from the devices and
// then from the records, aliases and wildcards of the settings.
func (s *Server) ownZones(q *query) (*answer, later) {
	ix := q.st.ix
	if ix == nil {
		// Not knowing yet does not mean that the name does not exist.
		if within(q.name, q.st.rules.apex) && !s.isBootstrap(q.name) {
			q.note("own", "there is no configuration yet")
			return servfail(dns.ExtendedErrorCodeNotReady, "not connected to a network yet"), nil
		}
		return nil, nil
	}
	if within(q.name, ix.apex) {
		if _, device := ix.byName[q.name]; !device && s.isBootstrap(q.name) {
			q.note("own", "the server's own name is never answered from the overlay")
			return nil, nil
		}
		return s.ownName(q.folded())
	}
	for _, p := range []netip.Prefix{ix.zone.IPv4, ix.zone.IPv6} {
		if zone := reverseZone(q.name, p); zone != "" {
			return s.ownReverse(q, zone)
		}
	}
	if q.name == serviceReverse {
		return s.ownReverse(q, serviceReverse)
	}
	return nil, nil
}

// folded is the question for the A-labels of a name that came with raw letters beyond
// ASCII: most programs send the name as typed ("Küche"). The answer uses the client's
// spelling.
func (q *query) folded() *query {
	if !strings.Contains(q.name, `\`) {
		return q
	}
	raw := make([]byte, 255)
	n, err := dns.PackDomainName(q.q.Name, raw, 0, nil, false)
	if err != nil {
		return q
	}
	var typed []string
	for b := raw[:n]; len(b) > 0 && b[0] != 0; b = b[1+int(b[0]):] {
		typed = append(typed, string(b[1:1+int(b[0])]))
	}
	name, err := asciiName(strings.Join(typed, "."))
	if err != nil || len(strings.Split(name, ".")) != len(typed) {
		return q
	}
	sub := *q
	sub.name = name + "."
	return &sub
}

// ownName answers for a name in the forward zone.
func (s *Server) ownName(q *query) (*answer, later) {
	ix, rules := q.st.ix, q.st.rules
	if q.name == ix.apex {
		return ix.atApex(q, ix.apex), nil
	}
	label := strings.TrimSuffix(q.name, "."+ix.apex)
	single := !strings.Contains(label, ".")
	if single && Reserved(label) && rules.records[q.name] == nil {
		q.note("own", "programs look up %s by themselves and trust the device of that name: only records in the settings answer", label)
		return ix.negative(q, dns.RcodeNameError, ix.apex), nil
	}
	if h, ok := ix.byName[q.name]; ok && !(single && Reserved(label)) {
		q.note("own", "%s is a device, serial %d", q.name, ix.zone.Serial)
		return ix.device(q, h), nil
	}
	if set, ok := rules.records[q.name]; ok && !(single && !ix.zone.Complete && validLabel(label) && !Reserved(label) && beside(q, set)) {
		q.note("records", "%s has records in the settings", q.name)
		return s.records(q, set.rrs, ix.apex)
	}
	if al, ok := rules.aliases[q.name]; ok && (al.until.IsZero() || time.Now().Before(al.until)) {
		q.note("records", "%s is the former name of %s", q.name, al.target)
		return s.records(q, []dns.RR{&dns.CNAME{
			Hdr:    dns.RR_Header{Name: q.name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: ix.ttl},
			Target: al.target,
		}}, ix.apex)
	}
	if rules.records[q.name] == nil && (ix.exists(q.name) || rules.exists(q.name)) {
		q.note("own", "%s has no records, but there are names below it", q.name)
		return ix.negative(q, dns.RcodeSuccess, ix.apex), nil
	}
	if single {
		// Only look up a name that a device can have.
		if !validLabel(label) || label[0] == '_' || ix.zone.Complete {
			q.note("own", "there is no device %s", label)
			return ix.negative(q, dns.RcodeNameError, ix.apex), nil
		}
		return s.find(q, ix.apex, label, netip.Addr{}, func(h Host) *answer {
			if strings.EqualFold(h.Name, label) {
				return ix.device(q, h)
			}
			return ix.former(q, h)
		})
	}
	return s.below(q)
}

// beside reports whether a question for addresses needs a device look-up although there
// is a record set: that has records of other types only.
func beside(q *query, set *recordSet) bool {
	switch q.q.Qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeANY:
	default:
		return false
	}
	return !slices.ContainsFunc(set.rrs, func(rr dns.RR) bool {
		switch rr.Header().Rrtype {
		case dns.TypeA, dns.TypeAAAA, dns.TypeCNAME:
			return true
		}
		return false
	})
}

// below answers for a nonexistent name below other names, from the wildcard at its
// closest encloser (RFC 4592), if there is one.
func (s *Server) below(q *query) (*answer, later) {
	ix, rules := q.st.ix, q.st.rules
	for up := parent(q.name); len(up) > len(ix.apex); up = parent(up) {
		if set, ok := rules.records["*."+up]; ok {
			q.note("records", "*.%s matches", up)
			return s.records(q, set.rrs, ix.apex)
		}
		h, known := ix.byName[up]
		if _, ok := rules.wildcards[up]; ok {
			q.note("own", "the device %s answers for all names below its own", up)
			if known {
				return ix.addresses(q, h), nil
			}
			label := strings.TrimSuffix(up, "."+ix.apex)
			if !ix.zone.Complete && !strings.Contains(label, ".") {
				return s.find(q, ix.apex, label, netip.Addr{}, func(h Host) *answer { return ix.addresses(q, h) })
			}
			break
		}
		if known || ix.exists(up) || rules.records[up] != nil || rules.exists(up) {
			break
		}
	}
	q.note("own", "there is no such name")
	return ix.negative(q, dns.RcodeNameError, ix.apex), nil
}

// ownReverse answers for a name in one of the reverse zones.
func (s *Server) ownReverse(q *query, zone string) (*answer, later) {
	ix := q.st.ix
	r, _ := parseReverse(q.name)
	if q.name == zone && !r.full {
		return ix.atApex(q, zone), nil
	}
	if !r.ok {
		q.note("own", "not an address")
		return ix.negative(q, dns.RcodeNameError, zone), nil
	}
	if !r.full {
		// Inside the reverse tree: the name exists if there is anything below it.
		return ix.negative(q, dns.RcodeSuccess, zone), nil
	}
	pointer := func(h Host) *answer { return ix.pointer(q, zone, h) }
	if h, ok := ix.byAddr[r.addr]; ok {
		q.note("own", "%s is %s, serial %d", r.addr, h.Name, ix.zone.Serial)
		return pointer(h), nil
	}
	if set, ok := q.st.rules.records[q.name]; ok {
		q.note("records", "%s has records in the settings", q.name)
		return s.records(q, set.rrs, zone)
	}
	if ix.zone.Complete {
		q.note("own", "no device has the address %s", r.addr)
		return ix.negative(q, dns.RcodeNameError, zone), nil
	}
	return s.find(q, zone, "", r.addr, pointer)
}

// find looks up a host that is not in the snapshot; found turns the host into the
// answer.
func (s *Server) find(q *query, zone, name string, addr netip.Addr, found func(Host) *answer) (*answer, later) {
	key := name
	if addr.IsValid() {
		key = addr.String()
	}
	ix := q.st.ix
	take := func(e *hostEntry, how string) *answer {
		var a *answer
		switch {
		case e.err != nil:
			q.note("own", "the server could not be asked about %s: %v", key, e.err)
			return servfail(dns.ExtendedErrorCodeNoReachableAuthority, "the server is away, so this name cannot be resolved")
		case !e.found:
			q.note("own", "the server does not know %s%s", key, how)
			rcode := dns.RcodeNameError
			if q.st.rules.records[q.name] != nil {
				rcode = dns.RcodeSuccess // the name exists, with records of other types
			}
			a = ix.negative(q, rcode, zone)
		default:
			q.note("own", "the server knows %s%s", key, how)
			a = found(e.host)
		}
		return a
	}
	if e := s.hosts.get(q.st, key); e != nil {
		return take(e, " (cached)"), nil
	}
	if s.cfg.Lookup == nil {
		return servfail(dns.ExtendedErrorCodeNoReachableAuthority, "the server cannot be asked"), nil
	}
	return nil, func(ctx context.Context) *answer {
		e, err := s.hosts.ask(ctx, s, q.st, key, name, addr)
		if err != nil {
			return servfail(dns.ExtendedErrorCodeNoReachableAuthority, "the server did not answer in time")
		}
		return take(e, "")
	}
}

// device answers for a device's own name.
func (ix *index) device(q *query, h Host) *answer {
	switch q.q.Qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeANY, dns.TypeCNAME:
		return ix.addresses(q, h)
	}
	// Other record types can exist beside the device.
	if set, ok := q.st.rules.records[ix.fqdn(h.Name)]; ok {
		if rrs := named(q, set.rrs); len(rrs) > 0 {
			a := authoritative()
			a.msg.Answer = rrs
			return a
		}
	}
	return ix.negative(q, dns.RcodeSuccess, ix.apex)
}

// former answers for a former name of a device with its current name and that name's
// addresses.
func (ix *index) former(q *query, h Host) *answer {
	q.note("own", "%s is the former name of %s", q.name, h.Name)
	c := &dns.CNAME{Hdr: ix.header(q, dns.TypeCNAME), Target: ix.fqdn(h.Name)}
	a := authoritative()
	switch q.q.Qtype {
	case dns.TypeANY:
		return ix.any(q)
	case dns.TypeCNAME:
	default:
		a = ix.device(q.to(c.Target), h)
	}
	a.msg.Answer = append([]dns.RR{c}, a.msg.Answer...)
	return a
}

// addresses answers with the host's addresses, or with NODATA.
func (ix *index) addresses(q *query, h Host) *answer {
	switch q.q.Qtype {
	case dns.TypeA:
		if h.IPv4.Is4() && !(ix.zone.NoIPv4 && h.IPv6.Is6()) {
			a := authoritative()
			a.msg.Answer = []dns.RR{&dns.A{Hdr: ix.header(q, dns.TypeA), A: h.IPv4.AsSlice()}}
			return a
		}
	case dns.TypeAAAA:
		if h.IPv6.Is6() {
			a := authoritative()
			a.msg.Answer = []dns.RR{&dns.AAAA{Hdr: ix.header(q, dns.TypeAAAA), AAAA: h.IPv6.AsSlice()}}
			return a
		}
	case dns.TypeANY:
		return ix.any(q)
	}
	return ix.negative(q, dns.RcodeSuccess, ix.apex)
}

func (ix *index) pointer(q *query, zone string, h Host) *answer {
	switch q.q.Qtype {
	case dns.TypeANY:
		return ix.any(q)
	case dns.TypePTR:
		a := authoritative()
		a.msg.Answer = []dns.RR{&dns.PTR{Hdr: ix.header(q, dns.TypePTR), Ptr: ix.fqdn(h.Name)}}
		return a
	}
	return ix.negative(q, dns.RcodeSuccess, zone)
}

// atApex answers at the apex of one of our zones.
func (ix *index) atApex(q *query, zone string) *answer {
	q.note("own", "%s is a zone of the overlay, serial %d", zone, ix.zone.Serial)
	a := authoritative()
	switch q.q.Qtype {
	case dns.TypeSOA:
		soa := ix.soa(zone)
		soa.Hdr.Name = q.q.Name
		a.msg.Answer = []dns.RR{soa}
	case dns.TypeNS:
		a.msg.Answer = []dns.RR{&dns.NS{Hdr: ix.header(q, dns.TypeNS), Ns: ix.fqdn(serviceHost)}}
		a.msg.Extra = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: ix.fqdn(serviceHost), Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ix.ttl},
			A:   ServiceAddr.AsSlice(),
		}}
	case dns.TypeANY:
		return ix.any(q)
	default:
		if set, ok := q.st.rules.records[zone]; ok {
			if rrs := named(q, set.rrs); len(rrs) > 0 {
				a.msg.Answer = rrs
				return a
			}
		}
		return ix.negative(q, dns.RcodeSuccess, zone)
	}
	return a
}

// any is the smallest valid answer to ANY (RFC 8482).
func (ix *index) any(q *query) *answer {
	a := authoritative()
	a.msg.Answer = []dns.RR{&dns.HINFO{Hdr: ix.header(q, dns.TypeHINFO), Cpu: "RFC8482", Os: ""}}
	return a
}

// negative is NXDOMAIN or, with RcodeSuccess, NODATA in one of our zones.
func (ix *index) negative(_ *query, rcode int, zone string) *answer {
	a := authoritative()
	a.msg.Rcode = rcode
	a.msg.Ns = []dns.RR{ix.soa(zone)}
	return a
}

func authoritative() *answer {
	return &answer{msg: &dns.Msg{MsgHdr: dns.MsgHdr{Authoritative: true}}, source: "overlay", out: outOwn}
}

// header names the record as the client spelled it.
func (ix *index) header(q *query, typ uint16) dns.RR_Header {
	return dns.RR_Header{Name: q.q.Name, Rrtype: typ, Class: dns.ClassINET, Ttl: ix.ttl}
}
