package dns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// Answer is the result of Query, for people and programs.
type Answer struct {
	Name      string // the full name: short names get the zone's suffix
	Rcode     string // "NOERROR", "NXDOMAIN", ...
	Answers   []string
	Authority []string
	Source    string // "overlay", "local" or the upstream's address
	Note      string // the text of an extended error, if any
	Steps     []Step // the decisions, only from Trace
}

// Query resolves a name from within the program, without the ACL. A name without a dot
// means one of the overlay, an address its PTR record; letters beyond ASCII are
// allowed. qtype is "A", "PTR", "TYPE65" and so on; "" is A and AAAA.
func (s *Server) Query(ctx context.Context, name, qtype string) (Answer, error) {
	return s.query(ctx, name, qtype, nil)
}

// Trace is Query that also returns each decision.
func (s *Server) Trace(ctx context.Context, name, qtype string) (Answer, error) {
	return s.query(ctx, name, qtype, &[]Step{})
}

func (s *Server) query(ctx context.Context, name, qtype string, trace *[]Step) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	st := s.current()
	name, types, err := st.question(name, qtype)
	if err != nil {
		return Answer{}, err
	}
	out := Answer{Name: name, Answers: []string{}, Authority: []string{}, Steps: []Step{}}
	for _, t := range types {
		req := new(dns.Msg)
		req.SetQuestion(name, t)
		req.SetEdns0(maxUDP, false)
		q := &query{req: req, tcp: true, st: st, trace: trace}
		q.note("question", "%s %s", name, dns.Type(t))
		a := s.answerNow(ctx, q)
		m := s.finish(q, a)
		// With A and AAAA the worse outcome is reported only if the name has neither.
		if out.Rcode == "" || out.Rcode == "NOERROR" && len(out.Answers) == 0 {
			out.Rcode = rcodeName(m.Rcode)
		}
		for _, rr := range m.Answer {
			if text := rr.String(); !slices.Contains(out.Answers, text) {
				out.Answers = append(out.Answers, text)
			}
		}
		if len(out.Authority) == 0 {
			for _, rr := range m.Ns {
				out.Authority = append(out.Authority, rr.String())
			}
		}
		out.Source = a.source
		for _, e := range a.ede {
			out.Note = e.ExtraText
			if out.Note == "" {
				out.Note = dns.ExtendedErrorCodeToString[e.InfoCode]
			}
		}
		q.note("answer", "%s, %d records, from %s", rcodeName(m.Rcode), len(m.Answer), a.source)
	}
	if trace != nil {
		out.Steps = *trace
	}
	return out, nil
}

// question turns typed text into a full name and types.
func (st *state) question(name, qtype string) (string, []uint16, error) {
	var types []uint16
	if ip, err := netip.ParseAddr(name); err == nil && (qtype == "" || strings.EqualFold(qtype, "PTR")) {
		name, err := dns.ReverseAddr(ip.Unmap().WithZone("").String())
		return name, []uint16{dns.TypePTR}, err
	}
	if qtype == "" {
		types = []uint16{dns.TypeA, dns.TypeAAAA}
	} else if t, ok := typeByName(qtype); ok {
		types = []uint16{t}
	} else {
		return "", nil, fmt.Errorf("unknown record type %q", qtype)
	}
	name, err := ASCIIName(name)
	if err != nil {
		return "", nil, err
	}
	if !strings.Contains(name, ".") && st.ix != nil {
		name += "." + st.ix.apex
	}
	name = dns.Fqdn(name)
	if _, ok := dns.IsDomainName(name); !ok {
		return "", nil, fmt.Errorf("%q is not a domain name", name)
	}
	return name, types, nil
}

// ASCIIName converts a name with letters beyond ASCII to its ASCII form ("küche" to
// xn--kche-0ra, RFC 5891). Other names are unchanged.
func ASCIIName(name string) (string, error) {
	for i := range len(name) {
		if name[i] >= 0x80 {
			return asciiName(strings.TrimSuffix(name, "."))
		}
	}
	return name, nil
}

func typeByName(s string) (uint16, bool) {
	s = strings.ToUpper(s)
	if t, ok := dns.StringToType[s]; ok {
		return t, true
	}
	digits, ok := strings.CutPrefix(s, "TYPE")
	n, err := strconv.ParseUint(digits, 10, 16)
	return uint16(n), ok && err == nil
}

func rcodeName(r int) string {
	if s, ok := dns.RcodeToString[r]; ok {
		return s
	}
	return fmt.Sprintf("RCODE%d", r)
}
