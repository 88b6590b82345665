package dns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"weft/overlay/limited"
)

// stagger is the head start of an upstream before the next one is asked as well.
const stagger = 250 * time.Millisecond

// maxSame bounds the queries that wait for the answer to one question. More than that
// are hardly clients, but a forwarding loop.
const maxSame = 256

// forwarder asks other resolvers.
type forwarder struct {
	// Constant.
	s     *Server
	conf  *resolvConf
	loops loops
	tls   tls.ClientSessionCache

	mu sync.Mutex
	// mu guards the following.
	ups     map[string]*upstream // by address
	good    map[string]*upstream // by route: answered last, so asked first
	flights map[cacheKey]*flight
	crowded time.Time // last time that too many queries waited for one question
}

// flight is a question in progress, shared by all queries that ask it.
type flight struct {
	done    chan struct{}
	entry   *entry // set before done is closed
	waiting int    // guarded by forwarder.mu
}

func newForwarder(s *Server) *forwarder {
	f := &forwarder{s: s, ups: map[string]*upstream{}, good: map[string]*upstream{}, flights: map[cacheKey]*flight{}, tls: tls.NewLRUClientSessionCache(16)}
	skip := func(a netip.AddrPort) bool {
		z := s.cfg.Zone()
		return s.isOwn(a) || z != nil && z.contains(a.Addr())
	}
	f.conf = &resolvConf{path: s.cfg.ResolvConf, system: s.cfg.System, skip: skip, changed: s.linkChanged}
	return f
}

func (f *forwarder) start(fn func()) bool { return f.s.start(fn) }

// dial connects to an upstream, through the overlay if it is inside.
func (f *forwarder) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	if f.s.isOwn(to) {
		return nil, errLoop
	}
	if z := f.s.cfg.Zone(); z != nil && z.contains(to.Addr()) {
		if f.s.cfg.DialOverlay == nil {
			return nil, errors.New("the resolver is inside the overlay, which is not connected")
		}
		return f.s.cfg.DialOverlay(ctx, network, to.String())
	}
	return f.s.cfg.Dial(ctx, network, to.String())
}

// tlsConfig is strict: nothing is asked unless the certificate is valid for host.
func (f *forwarder) tlsConfig(host string) *tls.Config {
	return &tls.Config{ServerName: host, RootCAs: f.s.cfg.RootCAs, MinVersion: tls.VersionTLS12, ClientSessionCache: f.tls}
}

// forward is the last stage: routes, rebinding filter, cache, upstreams. It always
// answers.
func (s *Server) forward(q *query) (*answer, later) {
	if !q.req.RecursionDesired {
		// A forwarder cannot help a client that wants no recursion.
		q.note("route", "recursion is not desired, and the name is not in an overlay zone")
		return reply(dns.RcodeRefused), nil
	}
	r := s.routeOf(q)
	key := cacheKey{name: q.name, qtype: q.q.Qtype, do: q.opt != nil && q.opt.Do(), cd: q.req.CheckingDisabled, route: r.name}
	now := time.Now()
	e, fresh := s.cache.get(key, now)
	if fresh {
		q.note("cache", "cached from %s %d s ago, valid for another %d s", e.source, now.Sub(e.stored)/time.Second, e.expires.Sub(now)/time.Second)
		return s.take(q, r, e, outCached), nil
	}
	if failed := s.cache.failed(key, now); failed != nil {
		q.note("cache", "no resolver could answer a moment ago")
		return s.fail(q, r, failed, e), nil
	}
	return nil, func(ctx context.Context) *answer {
		q.note("cache", "not cached")
		got, err := s.fwd.ask(ctx, q, r, key)
		switch {
		case errors.Is(err, errCrowd):
			a := tooBusy()
			a.ede[0].ExtraText = "too many queries wait for the answer to this question"
			return a
		case err != nil:
			return servfail(dns.ExtendedErrorCodeNoReachableAuthority, "no answer in time")
		case got.failure:
			return s.fail(q, r, got, e)
		}
		return s.take(q, r, got, outForwarded)
	}
}

// take turns an entry into an answer.
func (s *Server) take(q *query, r *route, e *entry, out outcome) *answer {
	m, err := e.unpack(time.Now(), false)
	if err != nil {
		return servfail(dns.ExtendedErrorCodeOther, "the answer cannot be read")
	}
	a := s.accept(q, r, m, e)
	a.out = out
	if out == outForwarded {
		q.note("forward", "%s answered %s with %d records", e.source, rcodeName(m.Rcode), len(m.Answer))
	}
	return a
}

// fail turns a failure into an answer; with an expired answer, if there is one and the
// failure is not intentional.
func (s *Server) fail(q *query, r *route, e, old *entry) *answer {
	if e.msg == nil || !e.final {
		if old != nil && !q.st.rules.settings.NoStale && (r != privateRoute) {
			if m, err := old.unpack(time.Now(), true); err == nil {
				q.note("cache", "no resolver can answer now: using an expired answer of %s", old.source)
				a := s.accept(q, r, m, old)
				a.ede = append(a.ede, dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeStaleAnswer})
				a.out = outStale
				return a
			}
		}
	}
	if e.noUpstream {
		return noResolver(q, r, s.cfg.ResolvConf)
	}
	var a *answer
	if e.msg != nil {
		if m, err := e.unpack(time.Now(), false); err == nil {
			q.note("forward", "%s answered %s", e.source, rcodeName(m.Rcode))
			a = s.accept(q, r, m, e)
		}
	}
	if a == nil {
		a = servfail(dns.ExtendedErrorCodeNoReachableAuthority, "no resolver answers")
		a.ede = append(a.ede[:0], e.ede...)
		for i := range a.ede {
			q.note("forward", "%s", a.ede[i].ExtraText)
		}
	}
	a.out = outFailed
	return a
}

// accept turns an upstream's message into our answer.
func (s *Server) accept(q *query, r *route, m *dns.Msg, e *entry) *answer {
	a := &answer{msg: m, source: e.source, ede: append([]dns.EDNS0_EDE(nil), e.ede...)}
	m.Authoritative = false
	// A client that did not ask for DNSSEC gets none (RFC 6840 section 5.8).
	do := q.opt != nil && q.opt.Do()
	m.AuthenticatedData = m.AuthenticatedData && (do || q.req.AuthenticatedData)
	// Spell the name as this client did.
	for _, rr := range m.Answer {
		if h := rr.Header(); strings.EqualFold(h.Name, q.q.Name) {
			h.Name = q.q.Name
		}
	}
	if r == portalRoute {
		for _, rr := range m.Answer {
			rr.Header().Ttl = min(rr.Header().Ttl, portalTTL)
		}
	}
	if s.unbind(q, r, m) {
		q.note("rebinding", "private addresses were removed from the answer")
		s.count(&s.counts.rebound)
		m.AuthenticatedData = false
		a.ede = append(a.ede, dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeBlocked, ExtraText: "a private address for a public name was removed"})
	}
	return a
}

// upstreamQuery is the question as we send it: of the client's message only the
// question, CD, AD and DO.
func upstreamQuery(q *query) *dns.Msg {
	m := &dns.Msg{MsgHdr: dns.MsgHdr{
		RecursionDesired:  true,
		CheckingDisabled:  q.req.CheckingDisabled,
		AuthenticatedData: true, // cache whether the answer was validated, for all clients
	}}
	m.Question = []dns.Question{q.q}
	m.SetEdns0(maxUDP, q.opt != nil && q.opt.Do())
	return m
}

var errCrowd = errors.New("too many queries wait for this question")

// ask sends the question to the upstreams of r, or waits for a query that asks it
// already. The entry that it returns may be a failure.
func (f *forwarder) ask(ctx context.Context, q *query, r *route, key cacheKey) (*entry, error) {
	f.mu.Lock()
	fl := f.flights[key]
	switch {
	case fl == nil:
		if e, fresh := f.s.cache.get(key, time.Now()); fresh {
			f.mu.Unlock()
			return e, nil // the answer came since the first check
		}
		fl = &flight{done: make(chan struct{})}
		f.flights[key] = fl
		m, st := upstreamQuery(q), q.st
		// A goroutine of its own: the other queries go on when the first gives up.
		if !f.start(func() { f.run(fl, m, st, r, key) }) {
			delete(f.flights, key)
			f.mu.Unlock()
			return nil, net.ErrClosed
		}
	case fl.waiting >= maxSame:
		f.crowded = time.Now()
		f.mu.Unlock()
		return nil, errCrowd
	}
	fl.waiting++
	f.mu.Unlock()
	select {
	case <-fl.done:
		return fl.entry, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run asks the upstreams and caches the result.
func (f *forwarder) run(fl *flight, m *dns.Msg, st *state, r *route, key cacheKey) {
	// A little less than the waiting queries have.
	ctx, cancel := context.WithTimeout(f.s.ctx, budget-100*time.Millisecond)
	defer cancel()
	e := f.answerOf(ctx, m, r, key)
	for try := 0; e.failure && f.s.state.Load() != st && ctx.Err() == nil && try < 2; try++ {
		// The network has changed meanwhile: ask the new upstreams.
		st = f.s.state.Load()
		e = f.answerOf(ctx, m, r, key)
	}
	if f.s.state.Load() == st && r != portalRoute {
		f.s.cache.put(e)
	}
	if e.failure && e.msg == nil && r == st.rules.global {
		f.s.portal.suspect()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.flights, key)
	fl.entry = e
	close(fl.done)
}

// answerOf asks and returns an entry with the answer or the failure.
func (f *forwarder) answerOf(ctx context.Context, m *dns.Msg, r *route, key cacheKey) (e *entry) {
	now := time.Now()
	failed := func() *entry { return &entry{key: key, stored: now, expires: now.Add(failureTTL), failure: true} }
	e = failed()
	defer limited.Survive(f.s.cfg.Log, "dns", func(error) { e = failed() })
	ups := f.upstreams(r, now)
	if len(ups) == 0 {
		e.noUpstream, e.expires = true, now // not cached: the next query looks again
		return e
	}
	msg, from, err := f.exchange(ctx, m, r, ups)
	if err != nil {
		f.s.cfg.Log.Debug("dns: forward", "type", dns.TypeToString[key.qtype], "err", err)
		e.ede = []dns.EDNS0_EDE{{InfoCode: dns.ExtendedErrorCodeNoReachableAuthority, ExtraText: cut(err.Error())}}
		return e
	}
	e.source = from.String()
	extra := msg.Extra[:0]
	for _, rr := range msg.Extra {
		opt, ok := rr.(*dns.OPT)
		if !ok {
			extra = append(extra, rr)
			continue
		}
		for _, o := range opt.Option {
			if x, ok := o.(*dns.EDNS0_EDE); ok && len(e.ede) < 4 {
				e.ede = append(e.ede, dns.EDNS0_EDE{InfoCode: x.InfoCode, ExtraText: cut(x.ExtraText)})
			}
		}
	}
	msg.Extra = extra
	e.final = settles(msg, e.ede)
	if msg.Rcode > 0xf {
		msg.Rcode = dns.RcodeServerFailure // extended rcodes concern only us and the upstream
	}
	msg.Compress = true
	e.msg, err = msg.Pack()
	if err != nil {
		e.msg, e.source = nil, ""
		e.ede = []dns.EDNS0_EDE{{InfoCode: dns.ExtendedErrorCodeNoReachableAuthority, ExtraText: from.String() + " sent an invalid answer"}}
		return e
	}
	e.stored = time.Now()
	if d, ok := lifetime(msg); ok {
		e.failure, e.expires = false, e.stored.Add(d)
	} else if msg.Rcode == dns.RcodeSuccess || msg.Rcode == dns.RcodeNameError {
		e.failure, e.expires = false, e.stored // not cached
	} else {
		e.expires = e.stored.Add(failureTTL)
	}
	return e
}

// cut truncates a text from outside.
func cut(s string) string {
	if len(s) > 200 {
		s = s[:200]
	}
	return strings.ToValidUTF8(s, "?")
}

// lookup resolves an upstream's host with the machine's own resolvers.
func (f *forwarder) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		req := new(dns.Msg)
		req.SetQuestion(dns.Fqdn(host), t)
		q := &query{req: req, q: req.Question[0], name: strings.ToLower(dns.Fqdn(host)), st: f.s.current()}
		key := cacheKey{name: q.name, qtype: t, route: systemRoute.name}
		e, fresh := f.s.cache.get(key, time.Now())
		if !fresh {
			var err error
			if e, err = f.ask(ctx, q, systemRoute, key); err != nil {
				return nil, fmt.Errorf("resolve %s: %w", host, err)
			}
		}
		if e.msg == nil {
			continue
		}
		m, err := e.unpack(time.Now(), false)
		if err != nil {
			continue
		}
		for _, rr := range m.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				if a, ok := netip.AddrFromSlice(rr.A); ok {
					out = append(out, a.Unmap())
				}
			case *dns.AAAA:
				if a, ok := netip.AddrFromSlice(rr.AAAA); ok {
					out = append(out, a)
				}
			}
		}
		if len(out) > 0 {
			return out[:min(len(out), 4)], nil
		}
	}
	return nil, fmt.Errorf("resolve %s: the machine's own resolvers have no address", host)
}

// reset closes connections and forgets upstreams, after a change of the network or the
// settings.
func (f *forwarder) reset() {
	f.mu.Lock()
	ups := f.ups
	f.ups, f.good = map[string]*upstream{}, map[string]*upstream{}
	f.mu.Unlock()
	for _, u := range ups {
		u.drop()
	}
}
