package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"weft/overlay/limited"
	"weft/overlay/status"
)

// httpSide serves the connections that speak HTTP.
type httpSide struct {
	p       *Proxy
	srv     *http.Server
	conns   *connQueue
	forward *httputil.ReverseProxy
	tr      *http.Transport
	wg      sync.WaitGroup
}

func newHTTPSide(p *Proxy) *httpSide {
	h := &httpSide{p: p, conns: &connQueue{ch: make(chan net.Conn), done: make(chan struct{})}}
	h.srv = &http.Server{
		Handler: limited.Handler(p.cfg.Log, "proxy", h),
		// Treat OPTIONS * like any origin-form request: ServeHTTP refuses it.
		DisableGeneralOptionsHandler: true,

		ReadHeaderTimeout: p.cfg.IdleTimeout,
		IdleTimeout:       p.cfg.IdleTimeout,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(p.cfg.Log.Handler(), slog.LevelDebug),
	}
	h.tr = &http.Transport{
		// The transport calls this in a goroutine of its own.
		DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			defer limited.Survive(p.cfg.Log, "proxy", func(crash error) { c, err = nil, crash })
			host, port, err := splitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return p.dial(ctx, network, host, port)
		},
		DisableCompression:     true,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
	}
	h.forward = &httputil.ReverseProxy{
		// Rewrite removes the hop-by-hop headers and adds nothing: neither Forwarded
		// headers nor a User-Agent.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.Host = r.In.URL.Host
			keepTarget(r.Out.URL, r.In.RequestURI)
		},
		Transport:     h.tr,
		FlushInterval: -1,
		BufferPool:    bufferPool{},
		ErrorLog:      slog.NewLogLogger(p.cfg.Log.Handler(), slog.LevelDebug),
		ErrorHandler:  func(w http.ResponseWriter, r *http.Request, err error) { h.fail(w, err) },
	}
	h.wg.Go(func() { h.srv.Serve(h.conns) })
	return h
}

// serve blocks until the connection has ended.
func (h *httpSide) serve(c net.Conn) { h.conns.put(c) }

func (h *httpSide) close() {
	h.srv.Close()
	h.tr.CloseIdleConnections()
	h.wg.Wait()
}

// ServeHTTP answers one request.
func (h *httpSide) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect:
		h.connect(w, r)
	case r.URL.Scheme == "http" && r.URL.Host != "":
		if r.URL.User != nil {
			plain(w, http.StatusBadRequest, "user names in a URL are not supported")
			return
		}
		// The server must not add headers that the answer does not have.
		w.Header()["Date"], w.Header()["Content-Type"] = nil, nil
		h.forward.ServeHTTP(w, r)
	case r.URL.Scheme == "https":
		plain(w, http.StatusBadRequest, "this proxy does not make TLS connections itself: use CONNECT for https URLs")
	default:
		// A browser sends this if the proxy's address is opened as a page.
		plain(w, http.StatusBadRequest, "this is weft's proxy, not a web server: set it as the HTTP or SOCKS5 proxy, for example curl --proxy socks5h://"+h.addr(r)+" http://NAME/")
	}
}

// keepTarget makes u request path and query of an absolute-form target (RFC 9112
// section 3.2.2) exactly as the client wrote them. Cameras, PLCs and old CGI programs
// use unusual queries: "?a=1;b=2", "?level=100%".
func keepTarget(u *url.URL, target string) {
	_, rest, _ := strings.Cut(target, "://")
	i := strings.IndexAny(rest, "/?")
	if i < 0 {
		return // only a host
	}
	path, query, hasQuery := strings.Cut(rest[i:], "?")
	u.RawQuery, u.ForceQuery = query, hasQuery && query == ""
	// net/url writes an Opaque unchanged, but puts the scheme before one that starts
	// with "//". In that case Path keeps its slashes.
	if strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") {
		u.Opaque = path
	}
}

func (h *httpSide) addr(r *http.Request) string {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return a.String()
	}
	return "127.0.0.1:1055"
}

// connect makes a tunnel.
func (h *httpSide) connect(w http.ResponseWriter, r *http.Request) {
	host, port, err := splitHostPort(r.RequestURI)
	if err != nil {
		plain(w, http.StatusBadRequest, "CONNECT wants HOST:PORT")
		return
	}
	remote, err := h.p.dial(r.Context(), "tcp", host, port)
	if err != nil {
		h.fail(w, err)
		return
	}
	c, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		remote.Close()
		return
	}
	defer remote.Close()
	defer c.Close() // also ends serve
	c.SetDeadline(time.Time{})
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	if n := buf.Reader.Buffered(); n > 0 {
		early, _ := buf.Reader.Peek(n)
		if _, err := remote.Write(early); err != nil {
			return
		}
	}
	if q, ok := c.(*queuedConn); ok {
		c = q.Conn
	}
	h.p.join(c, remote, destination(host, port))
}

// splitHostPort is strict: exactly one host and a decimal port.
func splitHostPort(s string) (string, uint16, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, fmt.Errorf("bad address %q", s)
	}
	return host, uint16(n), nil
}

// fail answers with one clear line.
func (h *httpSide) fail(w http.ResponseWriter, err error) {
	if errors.Is(err, context.Canceled) {
		panic(http.ErrAbortHandler) // the client is gone
	}
	var oe *net.OpError
	var ue *url.Error
	text := err.Error()
	var le *status.Error
	switch {
	case errors.As(err, &le):
		text = le.Error()
	case errors.As(err, &ue):
		text = ue.Err.Error()
	case errors.As(err, &oe):
		text = oe.Error()
	}
	code := http.StatusBadGateway
	switch kindOf(err) {
	case status.KindDenied:
		code = http.StatusForbidden
	case status.KindTimeout:
		code = http.StatusGatewayTimeout
	case status.KindUsage:
		code = http.StatusBadRequest
	}
	if errors.Is(err, errBusy) {
		code = http.StatusServiceUnavailable
	}
	plain(w, code, text)
}

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Connection", "close")
	w.WriteHeader(code)
	fmt.Fprintf(w, "weft: %s\n", strings.ReplaceAll(text, "\n", " "))
}

type bufferPool struct{}

func (bufferPool) Get() []byte  { return limited.GetBuffer() }
func (bufferPool) Put(b []byte) { limited.PutBuffer(b) }

// connQueue is a listener that passes connections on to http.Server.
type connQueue struct {
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
}

// put passes a connection to the server and waits until it is closed.
func (q *connQueue) put(c net.Conn) {
	qc := &queuedConn{Conn: c, closed: make(chan struct{})}
	select {
	case q.ch <- qc:
		<-qc.closed
	case <-q.done:
	}
}

func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.ch:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *connQueue) Close() error   { q.once.Do(func() { close(q.done) }); return nil }
func (q *connQueue) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// queuedConn reports when it is closed.
type queuedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *queuedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.closed) })
	return err
}
