package dns

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// budget bounds how long one query may take before it is answered SERVFAIL.
const budget = 4500 * time.Millisecond

// query is one question on its way through the stages. It belongs to one
// goroutine at a time.
type query struct {
	req   *dns.Msg
	q     dns.Question
	name  string // the question's name in lower case, with the final dot
	tcp   bool
	opt   *dns.OPT // the client's, or nil
	st    *state   // the settings and names that it is answered from
	depth int      // how many CNAMEs led here
	trace *[]Step  // nil unless somebody wants to know
}

// Step is one decision on a query's way.
type Step struct {
	Stage string `json:"stage"` // "special", "own", "records", "route", "rebinding", "cache", "forward"
	Text  string `json:"text"`
}

// note records a decision for who asked for them.
func (q *query) note(stage, format string, args ...any) {
	if q.trace != nil && len(*q.trace) < 100 {
		*q.trace = append(*q.trace, Step{stage, fmt.Sprintf(format, args...)})
	}
}

// to is the same question for another name: what a CNAME points to.
func (q *query) to(name string) *query {
	sub := *q
	sub.q.Name, sub.name = name, strings.ToLower(name)
	sub.depth++
	return &sub
}

// answer is what a stage says.
type answer struct {
	msg    *dns.Msg // rcode, flags and sections; the rest is finish's
	ede    []dns.EDNS0_EDE
	source string // for people: "overlay", "local" or the upstream's address
	out    outcome
}

// later is the rest of the work for a query that has to wait for somebody
// else; it always answers.
type later func(ctx context.Context) *answer

// stage answers a query, or returns what gives the answer later, or neither to
// pass it on. It never blocks. The last one always answers.
type stage func(q *query) (*answer, later)

// resolve answers a query from the network or from Query: it checks the
// question and asks the stages. It never blocks.
func (s *Server) resolve(q *query) (*answer, later) {
	if len(q.req.Question) != 1 {
		return reply(dns.RcodeFormatError), nil
	}
	q.q = q.req.Question[0]
	q.name = strings.ToLower(q.q.Name)
	for _, rr := range q.req.Extra {
		if opt, ok := rr.(*dns.OPT); ok {
			if q.opt != nil {
				return reply(dns.RcodeFormatError), nil // RFC 6891 6.1.1
			}
			q.opt = opt
		}
	}
	switch {
	case q.opt != nil && q.opt.Version() != 0:
		return reply(dns.RcodeBadVers), nil
	case q.q.Qclass != dns.ClassINET:
		q.note("question", "only class IN is answered")
		return reply(dns.RcodeRefused), nil
	case q.q.Qtype == dns.TypeAXFR || q.q.Qtype == dns.TypeIXFR || q.q.Qtype == dns.TypeOPT:
		q.note("question", "zone transfers are refused")
		return reply(dns.RcodeRefused), nil
	}
	s.logQuery(q)
	return s.decide(q)
}

// decide asks the stages.
func (s *Server) decide(q *query) (*answer, later) {
	for _, st := range s.stages {
		if a, wait := st(q); a != nil || wait != nil {
			return a, wait
		}
	}
	return servfail(dns.ExtendedErrorCodeOther, "no stage had an answer"), nil
}

// answerNow is resolve for who can wait: it takes one of the slots for queries
// that do.
func (s *Server) answerNow(ctx context.Context, q *query) *answer {
	a, wait := s.resolve(q)
	if wait == nil {
		return a
	}
	if !s.wait() {
		return tooBusy()
	}
	defer s.waited()
	return wait(ctx)
}

// reply returns an empty answer with rcode.
func reply(rcode int) *answer {
	a := &answer{msg: &dns.Msg{MsgHdr: dns.MsgHdr{Rcode: rcode}}, source: "local", out: outRefused}
	return a
}

// servfail returns SERVFAIL with the reason.
func servfail(code uint16, why string) *answer {
	a := reply(dns.RcodeServerFailure)
	a.ede = []dns.EDNS0_EDE{{InfoCode: code, ExtraText: why}}
	a.out = outFailed
	return a
}

func tooBusy() *answer {
	a := servfail(dns.ExtendedErrorCodeOther, "too many queries wait for an answer")
	a.out = outBusy
	return a
}

// wait takes a slot for a query that has to wait for somebody else. It never
// blocks; false when too many wait already.
func (s *Server) wait() bool {
	select {
	case s.busy <- struct{}{}:
		return true
	default:
		return false
	}
}

// waited gives the slot back.
func (s *Server) waited() { <-s.busy }
