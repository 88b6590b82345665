package dns

import (
	"github.com/miekg/dns"
)

// maxUDP fits into one packet on every path (RFC 9715); minUDP is what a client accepts
// that does not say (RFC 1035).
const (
	maxUDP = 1232
	minUDP = 512
)

// finish makes the message for the client: with the client's header and question, and
// with OPT if the client sent one.
func (s *Server) finish(q *query, a *answer) *dns.Msg {
	m := a.msg
	m.Id = q.req.Id
	m.Response = true
	m.Opcode = q.req.Opcode
	m.RecursionDesired = q.req.RecursionDesired
	m.CheckingDisabled = q.req.CheckingDisabled
	m.RecursionAvailable = true
	m.Zero = false
	m.Truncated = false
	m.Compress = true
	m.Question = q.req.Question

	opt := q.opt
	if opt == nil {
		opt = q.req.IsEdns0() // the question was refused before q.opt was set
	}
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
		m.Rcode = dns.RcodeServerFailure // the extended rcode needs an OPT
	}
	return m
}
