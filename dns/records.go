package dns

import (
	"context"

	"github.com/miekg/dns"
)

// outside answers from records in the settings for names of other zones. Such a name
// has no records of other types; names below it are not affected.
func (s *Server) outside(q *query) (*answer, later) {
	rules := q.st.rules
	set, ok := rules.records[q.name]
	if !ok {
		for up := parent(q.name); up != "" && !ok; up = parent(up) {
			set, ok = rules.records["*."+up]
		}
	}
	if !ok || !set.outside || s.isBootstrap(q.name) {
		return nil, nil
	}
	q.note("records", "%s has records in the settings", q.name)
	return s.records(q, set.rrs, "")
}

// records answers from extra records of the requested name. zone is our zone that
// contains it, or "".
func (s *Server) records(q *query, rrs []dns.RR, zone string) (*answer, later) {
	if c, ok := rrs[0].(*dns.CNAME); ok && q.q.Qtype != dns.TypeCNAME && q.q.Qtype != dns.TypeANY {
		return s.follow(q, c, zone)
	}
	if q.q.Qtype == dns.TypeANY {
		a := &answer{msg: &dns.Msg{}, source: "overlay", out: outOwn}
		a.msg.Authoritative = zone != ""
		a.msg.Answer = []dns.RR{&dns.HINFO{
			Hdr: dns.RR_Header{Name: q.q.Name, Rrtype: dns.TypeHINFO, Class: dns.ClassINET, Ttl: q.st.rules.ttl}, Cpu: "RFC8482",
		}}
		return a, nil
	}
	list := named(q, rrs)
	switch {
	case len(list) == 0 && zone != "":
		return q.st.ix.negative(q, dns.RcodeSuccess, zone), nil
	case len(list) == 0:
		a := negative(q, dns.RcodeSuccess, q.name, 0)
		a.source = "overlay"
		return a, nil
	}
	a := authoritative()
	a.msg.Authoritative = zone != ""
	a.msg.Answer = s.rotate(list)
	return a, nil
}

// named returns the records of the requested type, with the name as the client spelled
// it.
func named(q *query, rrs []dns.RR) []dns.RR {
	var out []dns.RR
	for _, rr := range rrs {
		if rr.Header().Rrtype == q.q.Qtype {
			rr = dns.Copy(rr)
			rr.Header().Name = q.q.Name
			out = append(out, rr)
		}
	}
	return out
}

// rotate rotates a list of addresses by one more each time.
func (s *Server) rotate(rrs []dns.RR) []dns.RR {
	if t := rrs[0].Header().Rrtype; len(rrs) < 2 || t != dns.TypeA && t != dns.TypeAAAA {
		return rrs
	}
	n := int(s.turn.Add(1) % uint32(len(rrs)))
	return append(rrs[n:len(rrs):len(rrs)], rrs[:n]...)
}

// follow answers with a CNAME and the records of its target, in whatever zone that is:
// some clients (musl) do not ask again. The rcode is that of the last name (RFC 6604).
func (s *Server) follow(q *query, c *dns.CNAME, zone string) (*answer, later) {
	if q.depth >= maxChain {
		q.note("records", "more than %d CNAMEs in a row", maxChain)
		return servfail(dns.ExtendedErrorCodeOther, "more than 8 CNAMEs in a row"), nil
	}
	rr := dns.Copy(c).(*dns.CNAME)
	rr.Hdr.Name = q.q.Name
	head := authoritative()
	head.msg.Authoritative = zone != ""
	head.msg.Answer = []dns.RR{rr}
	q.note("records", "CNAME to %s", c.Target)
	sub := q.to(c.Target)
	if !q.req.RecursionDesired && !(q.st.ix != nil && within(sub.name, q.st.ix.apex)) {
		return head, nil // only recursion follows it further
	}
	join := func(b *answer) *answer {
		m := head.msg
		m.Rcode = b.msg.Rcode
		m.Answer = append(m.Answer, b.msg.Answer...)
		m.Ns = b.msg.Ns
		m.AuthenticatedData = false
		head.ede, head.source = b.ede, b.source
		return head
	}
	b, wait := s.decide(sub)
	if wait == nil {
		return join(b), nil
	}
	return nil, func(ctx context.Context) *answer { return join(wait(ctx)) }
}

// exists reports whether there are extra records at or below name.
func (r *rules) exists(name string) bool {
	_, ok := r.inner[name]
	return ok
}

// exists reports whether a device's name is below name.
func (ix *index) exists(name string) bool {
	_, ok := ix.inner[name]
	return ok
}
