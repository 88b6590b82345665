package dns

import (
	"context"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// budget bounds how long one query may take before it is answered SERVFAIL.
const budget = 4500 * time.Millisecond

// query is one question on its way through the stages.
type query struct {
	req  *dns.Msg
	q    dns.Question
	name string // the question's name in lower case, with the final dot
	tcp  bool
	opt  *dns.OPT // the client's, or nil
}

// answer is what a stage says.
type answer struct {
	msg    *dns.Msg // rcode, flags and sections; the rest is finish's
	ede    []dns.EDNS0_EDE
	source string // for people: "overlay", "local" or the upstream's address
}

// stage answers a query or returns nil to pass it on. The last one always
// answers.
type stage func(ctx context.Context, q *query) *answer

// accept is the first look at a message, before it is unpacked: responses are
// ignored, so that two resolvers cannot talk to each other forever.
func accept(h dns.Header) dns.MsgAcceptAction {
	const qr = 1 << 15
	switch {
	case h.Bits&qr != 0:
		return dns.MsgIgnore
	case int(h.Bits>>11)&0xf != dns.OpcodeQuery:
		return dns.MsgRejectNotImplemented
	case h.Qdcount != 1 || h.Ancount > 1 || h.Nscount > 1 || h.Arcount > 4:
		return dns.MsgReject
	}
	return dns.MsgAccept
}

// serve answers one query from the network.
func (s *Server) serve(w dns.ResponseWriter, req *dns.Msg) {
	if !s.mayAsk(w.RemoteAddr()) {
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, budget)
	defer cancel()
	q := &query{req: req, tcp: w.RemoteAddr().Network() == "tcp"}
	m := s.finish(q, s.resolve(ctx, q))
	if err := w.WriteMsg(m); err != nil {
		s.cfg.Log.Debug("dns: write answer", "err", err)
	}
}

// resolve checks the question and asks the stages.
func (s *Server) resolve(ctx context.Context, q *query) *answer {
	if len(q.req.Question) != 1 {
		return reply(dns.RcodeFormatError)
	}
	q.q = q.req.Question[0]
	q.name = strings.ToLower(q.q.Name)
	for _, rr := range q.req.Extra {
		if opt, ok := rr.(*dns.OPT); ok {
			if q.opt != nil {
				return reply(dns.RcodeFormatError) // RFC 6891 6.1.1
			}
			q.opt = opt
		}
	}
	switch {
	case q.opt != nil && q.opt.Version() != 0:
		return reply(dns.RcodeBadVers)
	case q.q.Qclass != dns.ClassINET:
		return reply(dns.RcodeRefused)
	case q.q.Qtype == dns.TypeAXFR || q.q.Qtype == dns.TypeIXFR || q.q.Qtype == dns.TypeOPT:
		return reply(dns.RcodeRefused)
	}
	for _, st := range s.stages {
		if a := st(ctx, q); a != nil {
			return a
		}
	}
	return servfail(dns.ExtendedErrorCodeOther, "no stage had an answer")
}

// reply returns an empty answer with rcode.
func reply(rcode int) *answer {
	return &answer{msg: &dns.Msg{MsgHdr: dns.MsgHdr{Rcode: rcode}}, source: "local"}
}

// servfail returns SERVFAIL with the reason.
func servfail(code uint16, why string) *answer {
	a := reply(dns.RcodeServerFailure)
	a.ede = []dns.EDNS0_EDE{{InfoCode: code, ExtraText: why}}
	return a
}

// wait takes a slot for a query that has to wait for somebody else. It never
// blocks; ok is false when too many wait already.
func (s *Server) wait() (release func(), ok bool) {
	select {
	case s.busy <- struct{}{}:
		return func() { <-s.busy }, true
	default:
		return nil, false
	}
}
