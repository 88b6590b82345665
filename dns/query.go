package dns

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Answer is what Query returns, for people and programs.
type Answer struct {
	Name      string // as it was asked: short names get the zone's suffix
	Rcode     string // "NOERROR", "NXDOMAIN", ...
	Answers   []string
	Authority []string
	Source    string // "overlay", "local" or the upstream's address
	Note      string // the text of an extended error, if any
}

// Query asks the resolver from within the program, past the ACL. A short name
// is taken for one of the overlay, an address for its PTR. qtype is "A",
// "PTR", "TYPE65" and so on; "" is A and AAAA.
func (s *Server) Query(ctx context.Context, name, qtype string) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	var types []uint16
	if ip, err := netip.ParseAddr(name); err == nil && (qtype == "" || qtype == "PTR") {
		if name, err = dns.ReverseAddr(ip.Unmap().WithZone("").String()); err != nil {
			return Answer{}, err
		}
		types = []uint16{dns.TypePTR}
	} else if qtype == "" {
		types = []uint16{dns.TypeA, dns.TypeAAAA}
	} else if t, ok := typeByName(qtype); ok {
		types = []uint16{t}
	} else {
		return Answer{}, fmt.Errorf("unknown record type %q", qtype)
	}
	if !strings.Contains(name, ".") {
		if ix := s.current(); ix != nil {
			name += "." + ix.apex
		}
	}
	name = dns.Fqdn(name)
	if _, ok := dns.IsDomainName(name); !ok {
		return Answer{}, fmt.Errorf("%q is not a domain name", name)
	}

	out := Answer{Name: name, Answers: []string{}, Authority: []string{}}
	for _, t := range types {
		req := new(dns.Msg)
		req.SetQuestion(name, t)
		req.SetEdns0(maxUDP, false)
		q := &query{req: req, tcp: true}
		a := s.resolve(ctx, q)
		m := s.finish(q, a)
		// Of A and AAAA the worse outcome is reported only when the name has
		// neither.
		if out.Rcode == "" || out.Rcode == "NOERROR" && len(out.Answers) == 0 {
			out.Rcode = rcodeName(m.Rcode)
		}
		for _, rr := range m.Answer {
			out.Answers = append(out.Answers, rr.String())
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
	}
	return out, nil
}

func typeByName(s string) (uint16, bool) {
	s = strings.ToUpper(s)
	if t, ok := dns.StringToType[s]; ok {
		return t, true
	}
	var n uint16
	if _, err := fmt.Sscanf(s, "TYPE%d", &n); err == nil {
		return n, true
	}
	return 0, false
}

func rcodeName(r int) string {
	if s, ok := dns.RcodeToString[r]; ok {
		return s
	}
	return fmt.Sprintf("RCODE%d", r)
}
