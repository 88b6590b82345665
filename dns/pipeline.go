package dns

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// budget bounds the time of one query; then it is answered with SERVFAIL.
const budget = 4500 * time.Millisecond

// query is one question on its path through the stages. It belongs to one goroutine at
// a time.
type query struct {
	req   *dns.Msg
	q     dns.Question
	name  string // the question's name in lower case, with the final dot
	tcp   bool
	opt   *dns.OPT // the client's, or nil
	st    *state   // names and settings for the answer
	depth int      // CNAMEs followed so far
	trace *[]Step  // nil unless the query is traced
}

// Step is one decision about a query.
type Step struct {
	Stage string `json:"stage"` // "special", "own", "records", "route", "rebinding", "cache", "forward"
	Text  string `json:"text"`
}

// note records a decision if the query is traced.
func (q *query) note(stage, format string, args ...any) {
	if q.trace != nil && len(*q.trace) < 100 {
		*q.trace = append(*q.trace, Step{stage, fmt.Sprintf(format, args...)})
	}
}

// to is the same question for another name, such as the target of a CNAME.
func (q *query) to(name string) *query {
	sub := *q
	sub.q.Name, sub.name = name, strings.ToLower(name)
	sub.depth++
	return &sub
}

// answer is the result of a stage.
type answer struct {
	msg    *dns.Msg // rcode, flags and sections; finish adds the rest
	ede    []dns.EDNS0_EDE
	source string // for people: "overlay", "local" or the upstream's address
	out    outcome
}

// later is the rest of the work for a query that has to wait for the server or an
// upstream; it always answers.
type later func(ctx context.Context) *answer

// stage answers a query, or returns a later for it, or neither to pass it on. It
// never blocks. The last stage always answers.
type stage func(q *query) (*answer, later)

// resolve answers a query from the network or from Query: it checks the question and
// runs the stages. It never blocks.
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

// decide runs the stages.
func (s *Server) decide(q *query) (*answer, later) {
	for _, st := range s.stages {
		if a, wait := st(q); a != nil || wait != nil {
			return a, wait
		}
	}
	return servfail(dns.ExtendedErrorCodeOther, "no stage had an answer"), nil
}

// answerNow is resolve for callers that can wait: it takes a slot if the query has to
// wait.
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

// wait takes a slot for a query that has to wait for the server or an upstream. It
// never blocks; false means that too many wait already.
func (s *Server) wait() bool {
	select {
	case s.busy <- struct{}{}:
		return true
	default:
		return false
	}
}

// waited releases the slot.
func (s *Server) waited() { <-s.busy }
