package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"weft/overlay/limited"
)

// Header bits that are checked before a message is unpacked.
const (
	headerLen = 12
	bitQR     = 1 << 15
)

// incoming is one message from the network.
type incoming struct {
	st   *state
	from netip.Addr
	tcp  bool
	now  time.Time
}

// answer handles a message from the network and appends the answer to out, which is
// empty. If answer is nil, there is either nothing to say, or rest returns the answer:
// the caller runs it in a goroutine of its own, when in is no longer valid. answer
// never blocks.
func (s *Server) answer(i *incoming, in, out []byte) (answer []byte, rest func(out []byte) []byte) {
	defer limited.Survive(s.cfg.Log, "dns", func(error) {
		answer, rest = s.crashed(in, out), nil
	})
	// Responses are ignored, so that two resolvers cannot answer each other for ever;
	// so are messages that are too short.
	if len(in) < headerLen || binary.BigEndian.Uint16(in[2:])&bitQR != 0 {
		s.count(&s.counts.dropped)
		return nil, nil
	}
	if !i.st.mayAsk(i.from) {
		s.count(&s.counts.strangers)
		return nil, nil
	}
	if !s.limits.allow(i.from, i.now) {
		s.count(&s.counts.limited)
		return refuse(in, out, dns.RcodeRefused), nil
	}
	s.fwd.conf.watch(i.now)
	if bits := binary.BigEndian.Uint16(in[2:]); int(bits>>11)&0xf != dns.OpcodeQuery {
		s.counts.done(outRefused)
		return refuse(in, out, dns.RcodeNotImplemented), nil
	}
	n := func(at int) uint16 { return binary.BigEndian.Uint16(in[at:]) }
	req := new(dns.Msg)
	// RFC 9619, and no more records than a question can have.
	if n(4) != 1 || n(6) > 1 || n(8) > 1 || n(10) > 4 || req.Unpack(in) != nil || len(req.Question) != 1 {
		s.counts.done(outMalformed)
		return refuse(in, out, dns.RcodeFormatError), nil
	}
	q := &query{req: req, tcp: i.tcp, st: i.st}
	a, wait := s.resolve(q)
	if wait == nil {
		return s.write(i, q, a, in, out), nil
	}
	if !s.wait() {
		return s.write(i, q, tooBusy(), in, out), nil
	}
	asked := append([]byte(nil), in...)
	later := *i
	return nil, func(out []byte) (answer []byte) {
		defer s.waited()
		defer limited.Survive(s.cfg.Log, "dns", func(error) { answer = s.crashed(asked, out) })
		ctx, cancel := context.WithTimeout(s.ctx, budget)
		defer cancel()
		a := wait(ctx)
		later.now = time.Now()
		return s.write(&later, q, a, asked, out)
	}
}

// crashed answers a question whose handler panicked.
func (s *Server) crashed(in, out []byte) []byte {
	s.counts.done(outFailed)
	if len(in) < headerLen {
		return nil
	}
	return refuse(in, out, dns.RcodeServerFailure)
}

// write packs an answer.
func (s *Server) write(i *incoming, q *query, a *answer, in, out []byte) []byte {
	m := s.finish(q, a)
	b, err := s.pack(m, q, out)
	if err != nil {
		s.cfg.Log.Debug("dns: pack answer", "err", err)
		s.counts.done(outFailed)
		return refuse(in, out, dns.RcodeServerFailure)
	}
	s.counts.done(a.out)
	return b
}

// refuse answers with a header only: the question itself may be invalid.
func refuse(in, out []byte, rcode int) []byte {
	const keep = 0x7900 // opcode and RD
	bits := binary.BigEndian.Uint16(in[2:])&keep | bitQR | uint16(rcode)
	out = append(out, in[0], in[1])
	out = binary.BigEndian.AppendUint16(out, bits)
	return append(out, 0, 0, 0, 0, 0, 0, 0, 0)
}

var errTooLarge = errors.New("the answer does not fit")

// pack packs m into the size that the client accepts. It drops optional records first,
// then whole record sets from the end, and sets TC (RFC 2181 section 9).
func (s *Server) pack(m *dns.Msg, q *query, out []byte) ([]byte, error) {
	room := dns.MaxMsgSize - 1
	if !q.tcp {
		room = minUDP
		if opt := q.req.IsEdns0(); opt != nil {
			room = min(max(int(opt.UDPSize()), minUDP), maxUDP)
		}
	}
	for {
		b, err := m.PackBuffer(out[:cap(out)])
		if err != nil || len(b) <= room {
			return b, err
		}
		extra := only(append([]dns.RR(nil), m.Extra...), func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
		switch {
		case len(extra) < len(m.Extra):
			m.Extra = extra
		case len(m.Ns) > 0:
			m.Ns, m.Truncated = nil, true
		case len(m.Answer) > 0:
			m.Answer, m.Truncated = dropSet(m.Answer), true
		case len(extra) > 0 && len(extra[0].(*dns.OPT).Option) > 0:
			extra[0].(*dns.OPT).Option = nil
		default:
			return nil, errTooLarge
		}
	}
}

// dropSet drops the last record and the others of the same set.
func dropSet(rrs []dns.RR) []dns.RR {
	last := rrs[len(rrs)-1].Header()
	return only(append([]dns.RR(nil), rrs...), func(rr dns.RR) bool {
		h := rr.Header()
		return h.Rrtype != last.Rrtype || h.Name != last.Name
	})
}
