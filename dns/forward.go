package dns

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// stagger is how long an upstream has before the next is asked as well, and
// resend how long before it is asked again.
const (
	stagger = 250 * time.Millisecond
	resend  = time.Second
)

// forwarder asks the resolvers that this machine had anyway.
type forwarder struct {
	// Constant.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	conf *resolvConf

	good atomic.Pointer[netip.AddrPort] // answered last, asked first
}

func newForwarder(cfg Config, own func(netip.AddrPort) bool) *forwarder {
	skip := func(a netip.AddrPort) bool {
		z := cfg.Zone()
		return own(a) || z != nil && z.contains(a.Addr())
	}
	return &forwarder{dial: cfg.Dial, conf: &resolvConf{path: cfg.ResolvConf, skip: skip}}
}

// forward is the last stage: it always answers.
func (s *Server) forward(ctx context.Context, q *query) *answer {
	if !q.req.RecursionDesired {
		// Somebody who wants no recursion is not helped by a forwarder.
		return reply(dns.RcodeRefused)
	}
	release, ok := s.wait()
	if !ok {
		return servfail(dns.ExtendedErrorCodeOther, "too many queries at once")
	}
	defer release()
	up := s.fwd.order(time.Now())
	if len(up) == 0 {
		return servfail(dns.ExtendedErrorCodeNetworkError, "there is no resolver in "+s.cfg.ResolvConf)
	}
	m, from, err := s.fwd.exchange(ctx, upstreamQuery(q), up)
	if err != nil {
		s.cfg.Log.Debug("dns: forward", "type", dns.TypeToString[q.q.Qtype], "err", err)
		return servfail(dns.ExtendedErrorCodeNoReachableAuthority, err.Error())
	}
	return takeOver(q, m, from)
}

// order returns the upstreams, the one that answered last first.
func (f *forwarder) order(now time.Time) []netip.AddrPort {
	up := f.conf.upstreams(now)
	good := f.good.Load()
	if good == nil || len(up) < 2 || up[0] == *good || !contains(up, *good) {
		return up
	}
	out := []netip.AddrPort{*good}
	for _, a := range up {
		if a != *good {
			out = append(out, a)
		}
	}
	return out
}

// upstreamQuery is the question as we ask it: nothing of the client's but the
// question, RD, CD, AD and DO goes out.
func upstreamQuery(q *query) *dns.Msg {
	m := &dns.Msg{MsgHdr: dns.MsgHdr{
		RecursionDesired:  true,
		CheckingDisabled:  q.req.CheckingDisabled,
		AuthenticatedData: q.req.AuthenticatedData,
	}}
	m.Question = []dns.Question{q.q}
	m.SetEdns0(maxUDP, q.opt != nil && q.opt.Do())
	return m
}

// takeOver makes an answer of an upstream's message. Its OPT stays behind,
// its extended errors come along.
func takeOver(q *query, m *dns.Msg, from netip.AddrPort) *answer {
	a := &answer{msg: m, source: from.String()}
	extra := m.Extra[:0]
	for _, rr := range m.Extra {
		opt, ok := rr.(*dns.OPT)
		if !ok {
			extra = append(extra, rr)
			continue
		}
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok && len(a.ede) < 4 {
				a.ede = append(a.ede, *e)
			}
		}
	}
	m.Extra = extra
	m.Authoritative = false
	// Who did not ask about DNSSEC is told nothing (RFC 6840 5.8).
	do := q.opt != nil && q.opt.Do()
	m.AuthenticatedData = m.AuthenticatedData && (do || q.req.AuthenticatedData)
	return a
}

// result is one upstream's answer.
type result struct {
	msg  *dns.Msg
	from netip.AddrPort
	err  error
}

// exchange asks the upstreams one after the other, each with a head start of
// stagger, and returns the first answer that settles the question. SERVFAIL
// and REFUSED settle nothing while there is somebody left to ask.
func (f *forwarder) exchange(ctx context.Context, m *dns.Msg, up []netip.AddrPort) (*dns.Msg, netip.AddrPort, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(up))
	next, running := 0, 0
	start := func() {
		if next == len(up) {
			return
		}
		a := up[next]
		next++
		running++
		go func() {
			r, err := f.ask(ctx, m, a)
			results <- result{r, a, err}
		}()
	}
	// The goroutines end with ctx; wait so that none outlives the query.
	defer func() {
		cancel()
		for ; running > 0; running-- {
			<-results
		}
	}()

	timer := time.NewTimer(stagger)
	defer timer.Stop()
	start()
	var last result
	for running > 0 {
		select {
		case r := <-results:
			running--
			if r.err == nil && settles(r.msg) {
				f.good.Store(&r.from)
				return r.msg, r.from, nil
			}
			if r.err == nil || last.msg == nil {
				last = r
			}
			start()
		case <-timer.C:
			start()
			timer.Reset(stagger)
		case <-ctx.Done():
			if last.msg == nil && last.err == nil {
				last.err = fmt.Errorf("no answer from %s in time", up[0])
			}
			if last.msg != nil {
				return last.msg, last.from, nil
			}
			return nil, netip.AddrPort{}, last.err
		}
	}
	if last.msg != nil {
		return last.msg, last.from, nil
	}
	return nil, netip.AddrPort{}, last.err
}

// settles reports whether no other upstream needs to be asked. An answer that
// was withheld on purpose (bogus, blocked) is one.
func settles(m *dns.Msg) bool {
	switch m.Rcode {
	case dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented, dns.RcodeFormatError:
	default:
		return true
	}
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			e, ok := o.(*dns.EDNS0_EDE)
			if !ok {
				continue
			}
			switch e.InfoCode {
			case dns.ExtendedErrorCodeDNSBogus, dns.ExtendedErrorCodeBlocked, dns.ExtendedErrorCodeCensored, dns.ExtendedErrorCodeFiltered:
				return true
			}
		}
	}
	return false
}

// ask asks one upstream over UDP and, when the answer is cut, over TCP.
func (f *forwarder) ask(ctx context.Context, m *dns.Msg, to netip.AddrPort) (*dns.Msg, error) {
	r, err := f.askUDP(ctx, m, to)
	// Very old servers do not take an OPT.
	if err == nil && r.Rcode == dns.RcodeFormatError && r.IsEdns0() == nil && len(m.Extra) > 0 {
		bare := m.Copy()
		bare.Extra = nil
		r, err = f.askUDP(ctx, bare, to)
	}
	if err == nil && r.Truncated {
		if full, terr := f.askTCP(ctx, m, to); terr == nil {
			return full, nil
		}
		// A cut answer says "ask over TCP", which has just failed.
		return nil, fmt.Errorf("%s: the answer is too large for UDP and TCP failed", to)
	}
	return r, err
}

// askUDP sends m with a fresh id from a fresh, connected socket (RFC 5452) and
// waits for the answer that matches, passing over those that do not.
func (f *forwarder) askUDP(ctx context.Context, m *dns.Msg, to netip.AddrPort) (*dns.Msg, error) {
	conn, err := f.dial(ctx, "udp", to.String())
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", to, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	id := newID()
	out, err := packWith(m, id)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for {
		if _, err := conn.Write(out); err != nil {
			return nil, fmt.Errorf("ask %s: %w", to, err)
		}
		conn.SetReadDeadline(time.Now().Add(resend))
		for {
			n, err := conn.Read(buf)
			if err != nil {
				var ne net.Error
				if ctx.Err() == nil && errors.As(err, &ne) && ne.Timeout() {
					break // send it again
				}
				if ctx.Err() != nil {
					err = ctx.Err()
				}
				return nil, fmt.Errorf("ask %s: %w", to, err)
			}
			r := new(dns.Msg)
			if !matches(buf[:n], id, m.Question[0], r) {
				continue
			}
			return r, nil
		}
	}
}

// askTCP asks over TCP.
func (f *forwarder) askTCP(ctx context.Context, m *dns.Msg, to netip.AddrPort) (*dns.Msg, error) {
	conn, err := f.dial(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	id := newID()
	out, err := packWith(m, id)
	if err != nil {
		return nil, err
	}
	c := dns.Conn{Conn: conn}
	if _, err := conn.Write(binary.BigEndian.AppendUint16(nil, uint16(len(out)))); err != nil {
		return nil, err
	}
	if _, err := conn.Write(out); err != nil {
		return nil, err
	}
	buf, err := c.ReadMsgHeader(nil)
	if err != nil {
		return nil, err
	}
	r := new(dns.Msg)
	if !matches(buf, id, m.Question[0], r) {
		return nil, errors.New("the answer is for something else")
	}
	return r, nil
}

func newID() uint16 {
	var b [2]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint16(b[:])
}

// packWith packs m with another id, leaving m alone: several upstreams are
// asked at once.
func packWith(m *dns.Msg, id uint16) ([]byte, error) {
	out, err := m.Pack()
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint16(out, id)
	return out, nil
}

// matches unpacks b into r if it answers the question asked under id. A
// message that is cut may not unpack as a whole; its header and question
// count then.
func matches(b []byte, id uint16, q dns.Question, r *dns.Msg) bool {
	if len(b) < 12 || binary.BigEndian.Uint16(b) != id {
		return false
	}
	if err := r.Unpack(b); err != nil && !(r.Truncated && len(r.Question) == 1) {
		return false
	}
	return r.Response && r.Opcode == dns.OpcodeQuery && len(r.Question) == 1 &&
		r.Question[0].Qtype == q.Qtype && r.Question[0].Qclass == q.Qclass &&
		strings.EqualFold(r.Question[0].Name, q.Name)
}
