package console

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"weft/coord/ops"
	"weft/coord/store"
)

// touchEvery bounds how often a session's last request is written down.
const touchEvery = time.Minute

// passiveHeader marks requests that a page makes by itself (static/script, hx-headers).
// They do not keep a session alive, and wake no device (see ops.Passive). Whoever
// leaves it out on purpose only does what a click would do.
const passiveHeader = "Weft-Passive"

// authenticate finds the session of a request, or fails with errSignIn.
func (c *Console) authenticate(v *visit) error {
	token := c.cookie(v.r)
	if token == "" {
		return errSignIn
	}
	s, u, err := c.ops.Session(v.ctx(), ops.HashToken(token))
	if errors.Is(err, ops.ErrNotFound) {
		return errSignIn
	}
	if err != nil {
		return err
	}
	now := c.now()
	if c.ended(s, now) && s.Refresh != nil && c.liveHere(s, now) {
		s, _ = c.extend(v.ctx(), s)
	}
	if !c.live(s, now) {
		if _, err := ops.Do(v.ctx(), c.ops, ops.System(), ops.EndSession{Hash: s.Hash}); err != nil && !errors.Is(err, ops.ErrNotFound) {
			c.log.Warn("delete ended session", "err", err)
		}
		c.endStreams(func(st *stream) bool { return st.session == s.Hash })
		return errSignIn
	}
	if now.Sub(s.Seen) >= touchEvery && v.r.Header.Get(passiveHeader) == "" && v.r.URL.Path != "/events" {
		if err := c.ops.TouchSession(v.ctx(), s.Hash); err != nil {
			c.log.Warn("touch session", "err", err)
		}
		s.Seen = now
	}
	v.session, v.actor = s, c.ops.SessionActor(s, u, c.clientAddr(v.r))
	return nil
}

// live reports whether a stored session is still good.
func (c *Console) live(s store.Session, now time.Time) bool {
	return c.liveHere(s, now) && !c.ended(s, now)
}

// liveHere is live but for what a provider says.
func (c *Console) liveHere(s store.Session, now time.Time) bool {
	return now.Sub(s.Seen) < c.idle && now.Sub(s.Created) < c.maxAge
}

// ended reports whether a session that began elsewhere wants to be extended there.
func (c *Console) ended(s store.Session, now time.Time) bool {
	return !s.Expires.IsZero() && !now.Before(s.Expires)
}

// tokens are what a browser gets when somebody signs in with it.
type tokens struct{ session, browser string }

// newSession makes the tokens of a session to begin in this browser.
func (c *Console) newSession(v *visit) (t tokens, s ops.NewSession) {
	t = tokens{ops.NewToken(), c.token(v.r, knownCookie)}
	if t.browser == "" {
		t.browser = ops.NewToken()
	}
	return t, ops.NewSession{Hash: ops.HashToken(t.session), Browser: ops.HashToken(t.browser), Agent: strings.ToValidUTF8(cut(v.r.UserAgent(), 200), "")}
}

// formerSession is the hash of the session that the browser has, zero for none.
func (c *Console) formerSession(v *visit) (hash [32]byte) {
	if token := c.cookie(v.r); token != "" {
		hash = ops.HashToken(token)
	}
	return hash
}

// setCookies gives the browser the token of its session, and that by which it is
// known.
func (c *Console) setCookies(v *visit, t tokens) {
	http.SetCookie(v.w, c.newCookie(v.r, sessionCookie, t.session, c.maxAge))
	http.SetCookie(v.w, c.newCookie(v.r, knownCookie, t.browser, ops.BrowserLife))
}

// The cookies, as cookieName has them.
const (
	sessionCookie = ""
	knownCookie   = "-known" // of a browser in which somebody has signed in before
)

// cookieName is __Host-weft over TLS: browsers keep that one to this host,
// this path and TLS. Plain HTTP (loopback) cannot have it; there the port is
// in the name, since cookies of one host are shared by all its ports.
func (c *Console) cookieName(r *http.Request, which string) string {
	if c.secure(r) {
		return "__Host-weft" + which
	}
	if _, port, err := net.SplitHostPort(r.Host); err == nil && len(port) <= 5 && strings.Trim(port, "0123456789") == "" {
		return "weft-" + port + which
	}
	return "weft" + which
}

// cookie returns the session token of a request, "" when there is none.
func (c *Console) cookie(r *http.Request) string { return c.token(r, sessionCookie) }

// token returns the token in a cookie, "" when there is none.
func (c *Console) token(r *http.Request, which string) string {
	ck, err := r.Cookie(c.cookieName(r, which))
	if err != nil || len(ck.Value) != 43 {
		return ""
	}
	return ck.Value
}

// newCookie is a cookie for this host. A life below zero removes it.
func (c *Console) newCookie(r *http.Request, which, value string, life time.Duration) *http.Cookie {
	maxAge := int(life / time.Second)
	return &http.Cookie{
		Name:     c.cookieName(r, which),
		Value:    value,
		Path:     "/",
		MaxAge:   maxAge,
		Secure:   c.secure(r),
		HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
	}
}

// secure reports whether the browser's connection is TLS: to us, or to a
// reverse proxy that the owner trusts.
func (c *Console) secure(r *http.Request) bool {
	return r.TLS != nil || c.fromTrusted(r) && r.Header.Get("X-Forwarded-Proto") == "https"
}

// peerAddr is the address of the TCP connection.
func peerAddr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

func (c *Console) isTrusted(a netip.Addr) bool {
	for _, p := range c.trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (c *Console) fromTrusted(r *http.Request) bool { return c.isTrusted(peerAddr(r)) }

// clientAddr is the browser's address. X-Forwarded-For is read from the right,
// only as far as trusted proxies wrote it.
func (c *Console) clientAddr(r *http.Request) netip.Addr {
	addr := peerAddr(r)
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && c.isTrusted(addr); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = hop.Unmap().WithZone("")
	}
	return addr
}

// localPath returns p if it is a path on this site, else "".
func localPath(p string) string {
	u, err := url.Parse(p)
	if err != nil || len(p) > 1000 || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" ||
		!strings.HasPrefix(p, "/") || strings.HasPrefix(p, "//") || strings.ContainsAny(p, "\\\r\n\t") {
		return ""
	}
	return p
}

// cut returns at most n bytes of s.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
