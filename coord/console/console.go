package console

import (
	"context"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"weft/coord/install"
	"weft/coord/oidc"
	"weft/coord/ops"
	"weft/coord/passhash"
	"weft/coord/ratelimit"
	"weft/coord/store"
)

// Config is what New needs. Only Service is required.
type Config struct {
	Service *ops.Service
	Log     *slog.Logger
	Now     func() time.Time

	// Offer returns what devices install, nil while the server has no release. nil: never.
	Offer func() *install.Offer

	// TrustedSite reports whether a browser trusts the certificate that a request
	// came through, without being told to: passkeys need that. nil: never.
	TrustedSite func(*http.Request) bool

	// Style serves /style, every part of pages in every state, to who is signed in. Programs
	// of a release do not.
	Style bool

	// Health says how the server around the console is. nil: nobody knows.
	Health func(context.Context) Health

	// Passwords is what hashing one costs; the zero value is the usual cost.
	Passwords passhash.Cost

	// Providers carries requests to other places where people sign in; nil is the usual
	// transport.
	Providers http.RoundTripper

	// TrustedProxies may set X-Forwarded-For and X-Forwarded-Proto.
	TrustedProxies []netip.Prefix

	// IdleTimeout ends a session that made no request of its own for this
	// long (7 days); live updates do not count. MaxAge ends every session
	// (30 days).
	IdleTimeout, MaxAge time.Duration
	// Heartbeat is how often an idle stream writes and checks its session
	// (15 s).
	Heartbeat time.Duration
}

// maxForm bounds the body of a request in bytes: forms only. Those with a policy in them
// have a bound of their own.
const maxForm = 16 << 10

func boundOf(r *http.Request) int64 {
	switch r.URL.Path {
	case "/access", "/access/check":
		return maxPolicyForm
	case "/devices/list/change":
		return maxBulkForm
	}
	return maxForm
}

// Console is the handler of the public site.
type Console struct {
	// constant after New
	ops          *ops.Service
	log          *slog.Logger
	now          func() time.Time
	trusted      []netip.Prefix
	offer        func() *install.Offer
	trustedSite  func(*http.Request) bool     // nil: never
	showStyle    bool                         // see Config.Style
	health       func(context.Context) Health // nil: nobody knows
	idle, maxAge time.Duration
	heartbeat    time.Duration
	mux          *http.ServeMux
	cross        *http.CrossOriginProtection
	logins       *ratelimit.Limiter // by account, and by address
	passwords    passhash.Cost
	hashing      chan struct{} // slots for hashing passwords: memory and time are bounded
	box          box
	providers    *oidc.Providers
	extending    singleflight.Group // sessions, at their providers
	waiting      chan struct{}      // strangers that wait for one
	testing      chan struct{}      // slots of connection tests
	stopping     chan struct{}      // closed by Close

	verifying sync.Mutex // held while somebody has the audit checked

	mu      sync.Mutex // guards the following
	closed  bool
	streams map[*stream]struct{}
	lists   int                    // of streams: whose page shows a list of devices
	shown   map[string]shownToken  // by key id
	used    map[[32]byte]time.Time // hashes of what works once, until when it would
}

// New makes a Console. It starts nothing.
func New(cfg Config) *Console {
	c := &Console{
		ops:     cfg.Service,
		log:     cfg.Log,
		now:     cfg.Now,
		trusted: cfg.TrustedProxies,

		offer:       cfg.Offer,
		trustedSite: cfg.TrustedSite,
		showStyle:   cfg.Style,
		health:      cfg.Health,
		used:        make(map[[32]byte]time.Time),
		idle:        cfg.IdleTimeout,
		maxAge:      cfg.MaxAge,
		heartbeat:   cfg.Heartbeat,
		mux:         http.NewServeMux(),
		cross:       http.NewCrossOriginProtection(),
		passwords:   cfg.Passwords,
		hashing:     make(chan struct{}, 2),
		box:         newBox(),
		waiting:     make(chan struct{}, maxWaiting),
		testing:     make(chan struct{}, 8),
		stopping:    make(chan struct{}),
		streams:     make(map[*stream]struct{}),
		shown:       make(map[string]shownToken),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.offer == nil {
		c.offer = func() *install.Offer { return nil }
	}
	if c.idle == 0 {
		c.idle = 7 * 24 * time.Hour
	}
	if c.maxAge == 0 {
		c.maxAge = 30 * 24 * time.Hour
	}
	if c.heartbeat == 0 {
		c.heartbeat = 15 * time.Second
	}
	c.logins = ratelimit.New(10_000)
	c.providers = oidc.New(cfg.Providers, c.now)
	for _, rt := range routes {
		c.mux.Handle(rt.pattern, c.handler(rt))
	}
	return c
}

// Close ends all streams, so that a server can shut down. It does not wait for
// requests; the http.Server does.
func (c *Console) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.stopping)
	}
}

// ServeHTTP implements http.Handler.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setHeaders(w.Header())
	v := &visit{Console: c, w: w, r: r}
	bound := boundOf(r)
	if r.ContentLength > bound {
		c.fail(v, errTooLarge)
		return
	}
	if r.Body != nil {
		r.Body = http.MaxBytesReader(w, r.Body, bound)
	}
	if err := c.cross.Check(r); err != nil {
		c.log.Info("cross-origin request refused", "path", r.URL.Path, "method", r.Method)
		c.fail(v, errCrossOrigin)
		return
	}
	// The mux's own answers (no such page, wrong method) are drawn as pages.
	if h, pattern := c.mux.Handler(r); pattern == "" {
		probe := &statusOnly{header: make(http.Header)}
		h.ServeHTTP(probe, r)
		if allow := probe.header.Get("Allow"); allow != "" {
			w.Header().Set("Allow", allow)
			c.fail(v, errMethod)
			return
		}
		if to := probe.header.Get("Location"); to != "" && probe.status/100 == 3 {
			// The mux cleans paths ("//devices"); only within this site.
			http.Redirect(w, r, localPath(to), probe.status)
			return
		}
		c.fail(v, ops.ErrNotFound)
		return
	}
	c.mux.ServeHTTP(w, r)
}

// statusOnly records what the mux would answer.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (s *statusOnly) WriteHeader(code int)        { s.status = code }

// contentPolicy allows nothing inline and nothing from elsewhere; without 'unsafe-eval',
// htmx cannot evaluate expressions in attributes either. Pages allow by its hash what of our
// own stands in them: see page.policy.
const contentPolicy = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"

// setHeaders sets what every answer carries.
func setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	// Not no-referrer: with that, browsers send "Origin: null" with forms.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), clipboard-write=(self)")
	h.Set("Cache-Control", "no-store")
}

// visit is one request on its way through the console.
type visit struct {
	*Console
	w       http.ResponseWriter
	r       *http.Request
	session store.Session // zero on public pages, as the actor is
	actor   ops.Actor
	mark    string // ops.EventMark before anything was read
}

// ctx is the request's context.
func (v *visit) ctx() context.Context {
	if v.r.Header.Get(passiveHeader) != "" {
		return ops.Passive(v.r.Context())
	}
	return v.r.Context()
}

// partial reports that htmx asks, so that errors must not replace the page.
func (v *visit) partial() bool { return v.r.Header.Get("HX-Request") == "true" }

// redirect answers a form.
func (v *visit) redirect(to string) error {
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
	return nil
}

// handler wraps a route: session, form, errors.
func (c *Console) handler(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &visit{Console: c, w: w, r: r, mark: c.ops.EventMark()}
		err := c.admit(v, rt)
		if err == nil {
			err = rt.serve(c, v)
		}
		if err != nil {
			c.fail(v, err)
		}
	})
}

// admit checks the session and parses the form.
func (c *Console) admit(v *visit, rt route) error {
	if rt.access != public {
		if err := c.authenticate(v); err != nil {
			return err
		}
		if v.actor.Weak && rt.access != anyMember {
			return ops.ErrWeak
		}
	}
	if v.r.Method != http.MethodPost {
		return nil
	}
	// A form of another site may be sent as text/plain without asking; ours
	// never is.
	ct := v.r.Header.Get("Content-Type")
	if mt, _, err := mime.ParseMediaType(ct); (ct != "" || v.r.ContentLength != 0) && (err != nil || mt != "application/x-www-form-urlencoded") {
		return errMediaType
	}
	if err := v.r.ParseForm(); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return errTooLarge
		}
		return errBadForm
	}
	return nil
}

// pageError is an error with a page of its own.
type pageError struct {
	status      int
	title, text string
}

func (e *pageError) Error() string { return e.title }

var (
	errSignIn      = &pageError{http.StatusUnauthorized, "Sign in", ""}
	errCrossOrigin = &pageError{http.StatusForbidden, "Request refused", "This request came from another site, so nothing was changed. Open the console itself and try again."}
	errMethod      = &pageError{http.StatusMethodNotAllowed, "Not like this", "This address takes another kind of request."}
	errMediaType   = &pageError{http.StatusUnsupportedMediaType, "Request refused", "Only forms of this console are accepted here."}
	errBadForm     = &pageError{http.StatusBadRequest, "Request refused", "The form could not be read."}
	errTooLarge    = &pageError{http.StatusRequestEntityTooLarge, "Too large", "That is more than this page accepts."}
	errWant        = &pageError{http.StatusUnprocessableEntity, "Not like this", "This address takes names of events: devices, device-ID, key-ID, at most 8 of them, with commas between them."}
	errBusy        = &pageError{http.StatusServiceUnavailable, "Busy", "The server has too much to do at the moment. Try again in a few seconds."}
	errDiskFull    = &pageError{http.StatusServiceUnavailable, "The disk is full", "Nothing was changed. Make room on the file system of the server's data directory and try again; devices go on meanwhile."}
	errStale       = &pageError{http.StatusForbidden, "Sign in again", "Nothing was changed."}
	errWeak        = &pageError{http.StatusForbidden, "A second factor is needed", "This network demands a passkey or codes of everybody with your role. Set one up on your account page."}
	errSuspended   = &pageError{http.StatusForbidden, "This account is suspended", "An owner or an admin of this network has suspended it. Ask them to resume it, then sign in."}
	errForbidden   = &pageError{http.StatusForbidden, "Not allowed", "This is for others in this network to see or to do. Nothing was changed."}
	errNotFound    = &pageError{http.StatusNotFound, "Nothing here", "This page does not exist, or what it showed was deleted."}
	errInternal    = &pageError{http.StatusInternalServerError, "Something went wrong", "The server could not do this. Its log says why."}
)

// fail answers with an error page; for htmx with the status alone, so that the
// page stays as it is and says so (static/script).
func (c *Console) fail(v *visit, err error) {
	if errors.Is(err, context.Canceled) && v.ctx().Err() != nil {
		return // nobody is there to read it
	}
	pe, ok := errors.AsType[*pageError](err)
	switch {
	case ok:
	case errors.Is(err, ops.ErrNotFound):
		pe = errNotFound
	case errors.Is(err, ops.ErrStale):
		if to := againPath(v.r); v.partial() {
			v.w.Header().Set("HX-Redirect", to)
		} else {
			v.redirect(to)
			return
		}
		pe = errStale
	case errors.Is(err, ops.ErrWeak):
		if v.r.Method == http.MethodGet && !v.partial() {
			v.redirect("/account")
			return
		}
		pe = errWeak
	case errors.Is(err, ops.ErrSuspended):
		pe = errSuspended
	case errors.Is(err, ops.ErrForbidden):
		pe = errForbidden
	case errors.Is(err, store.ErrDiskFull):
		pe = errDiskFull
	default:
		c.log.Error("console request failed", "path", v.r.URL.Path, "err", err)
		pe = errInternal
	}
	h := v.w.Header()
	if pe.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "5")
	}
	if v.partial() || strings.Contains(v.r.Header.Get("Accept"), "text/event-stream") {
		if pe == errSignIn {
			h.Set("HX-Redirect", "/sign-in")
		}
		h.Set("HX-Reswap", "none")
		h.Set("Content-Type", "text/plain; charset=utf-8")
		v.w.WriteHeader(pe.status)
		v.w.Write([]byte(pe.title + "\n"))
		return
	}
	if pe == errSignIn {
		next := v.r.URL.RequestURI()
		if v.r.Method != http.MethodGet {
			// Back to the page with the form; static/script fills in what was typed.
			next = ""
			if u, err := url.Parse(v.r.Referer()); err == nil && u.Host == v.r.Host {
				next = u.RequestURI()
			}
		}
		if err := c.signInForm(v, pe.status, signInView{Next: localPath(next)}); err != nil {
			c.log.Error("draw sign-in page", "err", err)
		}
		return
	}
	c.render(v, pe.status, "error", pe.view())
}

type errorView struct {
	Status      int
	Title, Text string
}

func (e *pageError) view() errorView { return errorView{e.status, e.title, e.text} }
