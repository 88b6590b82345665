package dns

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"weft/overlay/limited"
)

// portalAgain is the minimum time between two checks for a captive portal.
const portalAgain = 5 * time.Second

// portal detects a captive portal. Behind one the settings' resolvers cannot be
// reached, so the machine's own are asked, which lead to the sign-in page.
type portal struct {
	s *Server // constant

	mu sync.Mutex
	// mu guards the following.
	is       bool
	checking bool
	checked  time.Time
}

// captive reports whether there is a portal, and starts a check whether it has opened.
func (p *portal) captive() bool {
	p.mu.Lock()
	is := p.is
	p.mu.Unlock()
	if is {
		p.suspect()
	}
	return is
}

// suspect starts a check, unless there was one a moment ago or none is configured.
func (p *portal) suspect() {
	st := p.s.state.Load()
	if st == nil || st.rules.portal == "" || st.rules.global == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.checking || !p.checked.IsZero() && time.Since(p.checked) < portalAgain {
		return
	}
	p.checking = p.s.serve(func() { p.check(st.rules.portal) }, func(error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.checking, p.checked = false, time.Now()
	})
}

// moved forgets the result after a change of the network.
func (p *portal) moved() {
	p.mu.Lock()
	p.is, p.checked = false, time.Time{}
	p.mu.Unlock()
	p.suspect()
}

// check fetches a URL that answers 204 without content on an open network. Without any
// answer nothing changes.
func (p *portal) check(url string) {
	ctx, cancel := context.WithTimeout(p.s.ctx, budget)
	defer cancel()
	t := &http.Transport{DialContext: p.dial, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10}
	c := http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	is, known := false, false
	if req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil); err == nil {
		req.Header.Set("User-Agent", "")
		if resp, err := c.Do(req); err == nil {
			n, _ := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10))
			resp.Body.Close()
			known, is = true, resp.StatusCode != http.StatusNoContent || n > 0
		}
	}
	p.mu.Lock()
	p.checking, p.checked = false, time.Now()
	changed := known && p.is != is
	if known {
		p.is = is
	}
	p.mu.Unlock()
	if changed {
		p.s.cfg.Log.Info("dns: captive portal", "there", is)
		p.s.forget() // drop the portal's answers and the failures behind it
	}
}

// dial resolves the host with the machine's own resolvers, whatever the settings say.
func (p *portal) dial(ctx context.Context, _, addr string) (c net.Conn, err error) {
	// The transport calls this in a goroutine of its own.
	defer limited.Survive(p.s.cfg.Log, "dns", func(crash error) { c, err = nil, crash })
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	a := serverAddr{host: host, port: uint16(n)}
	if ip, err := netip.ParseAddr(host); err == nil {
		a.boot = []netip.Addr{ip.Unmap()}
	}
	return p.s.fwd.dialHost(ctx, &a)
}
