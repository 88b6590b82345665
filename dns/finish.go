package dns

import (
	"github.com/miekg/dns"
)

// maxUDP is what fits into one packet on every path (RFC 9715), and minUDP
// what a client takes that says nothing (RFC 1035).
const (
	maxUDP = 1232
	minUDP = 512
)

// finish makes the message that goes to the client: header and question are
// the client's, OPT is there if it sent one, and the size is what it takes.
func (s *Server) finish(q *query, a *answer) *dns.Msg {
	m := a.msg
	m.Id = q.req.Id
	m.Response = true
	m.Opcode = q.req.Opcode
	m.RecursionDesired = q.req.RecursionDesired
	m.CheckingDisabled = q.req.CheckingDisabled
	m.RecursionAvailable = true
	m.Zero = false
	m.Compress = true
	m.Question = q.req.Question

	opt := clientOPT(q)
	switch {
	case opt != nil:
		out := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		out.SetUDPSize(maxUDP)
		out.SetDo(opt.Do())
		for i := range a.ede {
			out.Option = append(out.Option, &a.ede[i])
		}
		m.Extra = append(m.Extra, out)
	case m.Rcode > 0xf:
		m.Rcode = dns.RcodeServerFailure // needs an OPT to be said
	}

	size := dns.MaxMsgSize
	if !q.tcp {
		size = minUDP
		if opt != nil {
			size = min(max(int(opt.UDPSize()), minUDP), maxUDP)
		}
	}
	m.Truncate(size)
	return m
}

// clientOPT is the client's OPT, also when the question was refused before it
// was looked at.
func clientOPT(q *query) *dns.OPT {
	if q.opt != nil {
		return q.opt
	}
	return q.req.IsEdns0()
}
