package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"weft/overlay/cert"
	"weft/overlay/fips"
)

const (
	connectTimeout = 8 * time.Second // TCP, and a proxy's CONNECT
	directTimeout  = 4 * time.Second // the direct TLS handshake, before the WebSocket is tried; longer if the TCP handshake was slow
	patientTimeout = 9 * time.Second // the same if a direct handshake worked before; the server allows 10 s
	patience       = 2               // how many times in a row patientTimeout is used
	innerTimeout   = 8 * time.Second // WebSocket upgrade and the handshake inside
	retryDirect    = 24 * time.Hour
	retrySlow      = 15 * time.Minute // how long to prefer the WebSocket after the direct handshake got no answer in time
)

// Dialer makes links. The zero value of each optional field works; fields are
// set before first use and then constant. Its methods may be called from any
// goroutine.
type Dialer struct {
	// URLs returns the servers' current addresses, https://HOST[:PORT] or,
	// for a WebSocket without outer TLS, http://HOST[:PORT].
	URLs func() []string
	// Roots returns the pinned CAs.
	Roots func() *cert.ServerRoots
	// Identity returns this node's certificate, self-signed before joining.
	Identity func() *tls.Certificate
	// NetDial makes TCP connections; nil: a net.Dialer.
	NetDial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Proxy returns the HTTP proxy for a URL, nil for none. Unset: by
	// HTTP_PROXY, HTTPS_PROXY and NO_PROXY.
	Proxy func(*url.URL) (*url.URL, error)
	// Log may be nil.
	Log *slog.Logger

	mu sync.Mutex
	// mu guards the following.
	past map[string]past // by base URL
	last string          // base URL that last answered a request

	taken atomic.Pointer[Ahead] // nil: none
}

// past is the outcome of earlier attempts to reach a server.
type past struct {
	wsUntil time.Time // the WebSocket is tried first until then
	trust   int       // after a direct handshake worked: how often it may get no answer before the WebSocket is tried
}

// UnreachableError says that no TCP connection to a server, or to the proxy in front of
// it, could be made.
type UnreachableError struct {
	URL string
	Err error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("dial %s: %s", e.URL, e.reason()) }

// reason returns the cause in a few words, with the address only if the URL does not
// contain it.
func (e *UnreachableError) reason() string {
	var op *net.OpError
	var errno syscall.Errno
	if !errors.As(e.Err, &op) || !errors.As(op.Err, &errno) {
		return e.Err.Error()
	}
	if op.Addr == nil || strings.Contains(e.URL, "//"+op.Addr.String()) {
		return errno.Error()
	}
	return op.Addr.String() + ": " + errno.Error()
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// Dial makes a link to the coordination server at base, for its API. The server must have
// a certificate for its role under a pinned CA; otherwise the error wraps
// cert.ErrUntrusted, and nothing but the handshake was sent, which does not reveal who
// this node is. The TLS handshake of the returned connection is complete.
//
// A direct handshake is tried first. If it fails, the same session is tried inside a
// WebSocket, unless a weft server answered under a CA that is not pinned. The WebSocket,
// if it works, is tried first for a day. After a direct handshake that only took too long
// it is for a quarter of an hour: a busy server looks like a network that drops
// handshakes, and a fleet that returns at once should not pay for two handshakes for a
// whole day. For the same reason, where a direct handshake worked before, the next two
// that get no answer are given more time and no WebSocket is tried.
func (d *Dialer) Dial(ctx context.Context, base string) (*tls.Conn, error) {
	return d.dial(ctx, base, theAPI)
}

// DialRelay is Dial for relay frames. The relay must have this id (api.Relay.ID); if id
// is empty, it must be a coordination server. See cert.ServerRoots.VerifyRelay.
func (d *Dialer) DialRelay(ctx context.Context, id, base string) (*tls.Conn, error) {
	return d.dial(ctx, base, aRelay(id))
}

// want is what to dial: a protocol, and a check of the server's certificate.
type want struct {
	proto  string
	id     string // of the relay
	verify func(*cert.ServerRoots, []*x509.Certificate) error
}

var theAPI = want{proto: ProtoAPI, verify: func(r *cert.ServerRoots, chain []*x509.Certificate) error {
	return r.VerifyServer(chain, cert.RoleServer)
}}

func aRelay(id string) want {
	return want{proto: ProtoRelay, id: id, verify: func(r *cert.ServerRoots, chain []*x509.Certificate) error { return r.VerifyRelay(chain, id) }}
}

func (d *Dialer) dial(ctx context.Context, base string, to want) (*tls.Conn, error) {
	if tc, err, ok := d.madeAhead(ctx, base, to); ok {
		return tc, err
	}
	return d.make(ctx, base, to)
}

func (d *Dialer) make(ctx context.Context, base string, to want) (*tls.Conn, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, fmt.Errorf("dial %q: want https://HOST[:PORT]", base)
	}
	p := d.pastOf(base)
	patient := p.trust > 0
	direct := func(ctx context.Context, u *url.URL, to want) (*tls.Conn, error) {
		if patient {
			return d.direct(ctx, u, to, patientTimeout)
		}
		return d.direct(ctx, u, to, directTimeout)
	}
	ways := []func(context.Context, *url.URL, want) (*tls.Conn, error){direct, d.inWebSocket}
	wsFirst := time.Now().Before(p.wsUntil)
	switch {
	case u.Scheme == "http":
		ways = ways[1:]
	case wsFirst:
		ways[0], ways[1] = ways[1], ways[0]
	}
	var errs []error
	for i, way := range ways {
		tc, err := way(ctx, u, to)
		if err == nil {
			if !wsFirst || i > 0 { // its time starts when the direct handshake has failed
				d.remember(base, Of(tc).ws, errors.Is(errors.Join(errs...), context.DeadlineExceeded))
			}
			return tc, nil
		}
		errs = append(errs, err)
		var unreachable *UnreachableError
		if ctx.Err() != nil || errors.As(err, &unreachable) || errors.Is(err, errOtherCA) {
			break
		}
		if patient && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF)) {
			d.distrust(base)
			break
		}
	}
	if unreachable := (*UnreachableError)(nil); len(errs) == 1 && errors.As(errs[0], &unreachable) {
		return nil, errs[0] // its text has the URL already
	}
	return nil, fmt.Errorf("dial %s: %w", base, errors.Join(errs...))
}

// errOtherCA marks the answer of a weft server under a CA that is not pinned, or of
// another relay than the one dialled. A WebSocket would lead to the same server.
var errOtherCA = errors.New("the server is not the one pinned")

// errNoIdentity: the node has no identity, or has given it up during the dial.
var errNoIdentity = errors.New("this node has no identity")

func (d *Dialer) pastOf(base string) past {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.past[base]
}

// remember records how base was reached: ws is through a WebSocket, slow is that the
// direct handshake got no answer in time.
func (d *Dialer) remember(base string, ws, slow bool) {
	p := past{trust: patience}
	if ws {
		p = past{wsUntil: time.Now().Add(retryDirect)}
	}
	if ws && slow {
		p.wsUntil = time.Now().Add(retrySlow)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.past == nil {
		d.past = map[string]past{}
	}
	d.past[base] = p
}

// distrust records that a direct handshake got no answer, though one worked before.
func (d *Dialer) distrust(base string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.past[base]; p.trust > 0 {
		p.trust--
		d.past[base] = p
	}
}

// Forget drops what earlier attempts have shown, after the device has moved to another
// network.
func (d *Dialer) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.past)
}

// direct dials TLS over TCP.
func (d *Dialer) direct(ctx context.Context, u *url.URL, to want, timeout time.Duration) (*tls.Conn, error) {
	begun := time.Now()
	nc, err := d.connect(ctx, u)
	if err != nil {
		return nil, err
	}
	// Behind a full uplink each round trip takes seconds. The TCP handshake has just
	// shown how long; a slow answer does not mean that the network drops TLS handshakes.
	timeout = max(timeout, min(directTimeout+2*time.Since(begun), patientTimeout))
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return d.handshake(ctx, newConn(nc), u, to)
}

// inWebSocket dials the same TLS session inside a WebSocket. The TLS around it is not
// trusted at all.
func (d *Dialer) inWebSocket(ctx context.Context, u *url.URL, to want) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout+innerTimeout)
	defer cancel()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return d.connect(ctx, u) }
	tr := &http.Transport{
		DialContext:       dial,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: u.Hostname()},
		DisableKeepAlives: true,
		// The body of the answer is the connection, so the transport must not reuse it.
	}
	ws, resp, err := dialWebSocket(ctx, u.JoinPath(Path).String(),
		http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }})
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("websocket: the server answered %s", resp.Status)
		}
		return nil, fmt.Errorf("websocket: %w", err)
	}
	c := newConn(newWSConn(ws))
	c.ws = true
	return d.handshake(ctx, c, u, to)
}

func (d *Dialer) handshake(ctx context.Context, c *Conn, u *url.URL, to want) (*tls.Conn, error) {
	tc := tls.Client(c, d.config(u.Hostname(), to))
	begun := time.Now()
	if err := tc.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	c.trip = time.Since(begun)
	return tc, nil
}

func (d *Dialer) config(host string, to want) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		CurvePreferences:            fips.Hybrids(),
		NextProtos:                  []string{to.proto},
		ServerName:                  host,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			// crypto/tls would use a nil certificate. It can get here after a logout: an
			// HTTP client finishes a handshake even if nobody waits for it.
			if c := d.Identity(); c != nil {
				return c, nil
			}
			return nil, errNoIdentity
		},
		// VerifyConnection checks the pinned CAs instead.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			roots := d.Roots()
			if roots == nil {
				return errNoIdentity
			}
			err := to.verify(roots, cs.PeerCertificates)
			switch {
			case cs.NegotiatedProtocol != to.proto:
				return fmt.Errorf("this is not a weft server, or it does not offer %s", to.proto)
			case err != nil:
				return fmt.Errorf("%w: %w", errOtherCA, err)
			}
			return nil
		},
	}
}

// SiteConfig is the TLS configuration of a client of the public site at host, which has
// no identity: the server is known by a pinned CA, whatever its name and its public
// certificate are, or, where something else answers in its place, such as a reverse
// proxy, by a certificate for host that trusted has (nil: the system's CAs).
func SiteConfig(host string, roots *cert.ServerRoots, trusted *x509.CertPool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, // of a reverse proxy
		NextProtos: []string{ProtoSite, "http/1.1"},
		ServerName: host,
		// VerifyConnection checks instead.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol == ProtoSite {
				return roots.VerifyServer(cs.PeerCertificates, cert.RoleServer)
			}
			between := x509.NewCertPool()
			for _, c := range cs.PeerCertificates[1:] {
				between.AddCert(c)
			}
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: host, Roots: trusted, Intermediates: between})
			return err
		},
	}
}

// Transport returns an HTTP client transport over weft-api/1. It ignores scheme and host
// of a request's URL and asks the servers of URLs in turn until one answers, beginning
// with the one that answered last. A request with a body needs GetBody (http.NewRequest
// sets it). One connection per server stays open for 3 s after its last answer.
func (d *Dialer) Transport() http.RoundTripper {
	t := &transport{d: d, bases: map[string]string{}}
	t.http = &http.Transport{
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return d.Dial(ctx, t.base(addr))
		},
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        3 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
	}
	return t
}

type transport struct {
	d    *Dialer
	http *http.Transport

	mu    sync.Mutex
	bases map[string]string // host:port -> base URL; mu guards it
}

func (t *transport) base(addr string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bases[addr]
}

// CloseIdleConnections closes connections that no request uses.
func (t *transport) CloseIdleConnections() { t.http.CloseIdleConnections() }

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer req.Body.Close()
	}
	bases := t.d.ordered()
	if len(bases) == 0 {
		return nil, errors.New("no server address is known")
	}
	var errs []error
	for i, base := range bases {
		resp, err := t.once(req, base)
		if err == nil {
			t.d.answered(base)
			return resp, nil
		}
		errs = append(errs, err)
		if req.Context().Err() != nil || (req.Body != nil && req.Body != http.NoBody && req.GetBody == nil && i == 0) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// once asks one server. All requests of the API are idempotent, so a request whose answer
// was lost can be repeated at the next server.
func (t *transport) once(req *http.Request, base string) (*http.Response, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	addr := hostPort(u)
	t.mu.Lock()
	t.bases[addr] = base
	t.mu.Unlock()
	r := req.Clone(req.Context())
	r.URL.Scheme, r.URL.Host, r.Host = "https", addr, u.Host
	if req.GetBody != nil {
		if r.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return t.http.RoundTrip(r)
}

// ordered returns the servers, the one that answered last first.
func (d *Dialer) ordered() []string {
	urls := d.URLs()
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]string, 0, len(urls))
	for _, u := range urls {
		if u == d.last {
			out = append(out, u)
		}
	}
	for _, u := range urls {
		if u != d.last {
			out = append(out, u)
		}
	}
	return out
}

func (d *Dialer) answered(base string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = base
}

// hostPort returns the address to connect to.
func hostPort(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "http":
		port = "80"
	default:
		port = "443"
	}
	return net.JoinHostPort(strings.Trim(u.Hostname(), "[]"), port)
}
