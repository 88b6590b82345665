package dns

import (
	"context"
	"fmt"
	"time"

	"github.com/miekg/dns"

	"weft/overlay/limited"
)

// upstreams returns the upstreams of a route, the one that answered last first.
func (f *forwarder) upstreams(r *route, now time.Time) []*upstream {
	var addrs []serverAddr
	switch r {
	case systemRoute, privateRoute, portalRoute:
		for _, a := range f.conf.upstreams(now) {
			if r != privateRoute || isPrivate(a.Addr()) {
				addrs = append(addrs, serverAddr{proto: "udp", addr: a})
			}
		}
	default:
		addrs = r.servers
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	good := f.good[r.name]
	out := make([]*upstream, 0, len(addrs))
	for _, a := range addrs {
		key := a.String()
		if len(a.boot) > 0 {
			key += fmt.Sprint(a.boot)
		}
		u := f.ups[key]
		if u == nil {
			u = &upstream{addr: a, f: f, opening: make(chan struct{}, 1)}
			u.life, u.end = context.WithCancel(f.s.ctx)
			if a.proto == "https" {
				u.doh = newDoH(u)
			}
			f.ups[key] = u
		}
		out = append(out, u)
		if u == good {
			copy(out[1:], out)
			out[0] = u
		}
	}
	return out
}

// exchange asks the upstreams one after the other, each with a head start of stagger,
// and returns the first answer that settles the question. SERVFAIL and REFUSED do not
// settle it while there are upstreams left to ask.
func (f *forwarder) exchange(ctx context.Context, m *dns.Msg, r *route, ups []*upstream) (*dns.Msg, *upstream, error) {
	type result struct {
		msg  *dns.Msg
		from *upstream
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan result, len(ups))
	next, running := 0, 0
	begin := func() {
		if next == len(ups) {
			return
		}
		u := ups[next]
		next++
		running++
		f.lookForLoop(u)
		go func() {
			res := result{from: u}
			defer func() { results <- res }()
			defer limited.Survive(f.s.cfg.Log, "dns", func(err error) { res.err = err })
			res.msg, res.err = u.ask(ctx, m)
		}()
	}
	// The goroutines end with ctx; wait, so that none outlives the query.
	defer func() {
		cancel()
		for ; running > 0; running-- {
			<-results
		}
	}()

	timer := time.NewTimer(stagger)
	defer timer.Stop()
	begin()
	var last result
	for running > 0 {
		select {
		case res := <-results:
			running--
			if res.err == nil && settles(res.msg, nil) {
				f.mu.Lock()
				f.good[r.name] = res.from
				f.mu.Unlock()
				return res.msg, res.from, nil
			}
			if res.err == nil || last.msg == nil {
				last = res
			}
			begin()
		case <-timer.C:
			begin()
			if next < len(ups) {
				timer.Reset(stagger)
			}
		case <-ctx.Done():
			if last.msg == nil && last.err == nil {
				last.err = fmt.Errorf("no answer from %s in time", ups[0])
			}
			return last.msg, last.from, last.err
		}
	}
	return last.msg, last.from, last.err
}

// settles reports whether no other upstream needs to be asked. An intentional failure
// (bogus, blocked) settles the question. ede are the extended errors of m.
func settles(m *dns.Msg, ede []dns.EDNS0_EDE) bool {
	switch m.Rcode {
	case dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented, dns.RcodeFormatError:
	default:
		return true
	}
	onPurpose := func(code uint16) bool {
		switch code {
		case dns.ExtendedErrorCodeDNSBogus, dns.ExtendedErrorCodeBlocked, dns.ExtendedErrorCodeCensored, dns.ExtendedErrorCodeFiltered:
			return true
		}
		return false
	}
	for i := range ede {
		if onPurpose(ede[i].InfoCode) {
			return true
		}
	}
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok && onPurpose(e.InfoCode) {
				return true
			}
		}
	}
	return false
}
