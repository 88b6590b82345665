package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"weft/overlay/limited"
	"weft/overlay/netcheck"
	"weft/overlay/peercred"
	"weft/overlay/status"
)

// host is the only allowed Host. A web page that makes a browser send requests here
// names another one.
const host = "weft.local"

// maxConns bounds the connections served at once, streams included.
const maxConns = 1024

// Server answers the local API. The zero value is not usable, see NewServer.
type Server struct {
	// Constant after NewServer.
	node  Node
	extra func() []status.Health
	dns   func(ctx context.Context, name, qtype string) (DNSAnswer, error)
	os    func() OSDNS
	http  *http.Server
	uid   uint32
	group bool // every process that can connect is allowed

	// streams are the hijacked connections, which http.Server.Close does not track:
	// Close waits for their goroutines.
	streams streamSet
}

// ServerConfig is constant after NewServer. Every field except Node may be nil.
type ServerConfig struct {
	Node Node
	// Health returns the caller's own warnings, such as a default port that was taken;
	// they are added to the node's Status.
	Health func() []status.Health
	// DNS asks the daemon's resolver; without it dns query fails.
	DNS func(ctx context.Context, name, qtype string) (DNSAnswer, error)
	// OSDNS returns the state of the system's DNS; nil for a daemon that does not set
	// it.
	OSDNS func() OSDNS
	// Resolver is the rest of the resolver, or nil.
	Resolver *Resolver
	// Group means that a group may use the socket: the kernel has checked who can
	// connect.
	Group bool
	Log   *slog.Logger
}

// NewServer returns a server that is idle until Serve.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{node: cfg.Node, extra: cfg.Health, dns: cfg.DNS, os: cfg.OSDNS, uid: uint32(os.Getuid()), group: cfg.Group}
	do := routes{
		"GET /v1/health":   func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"GET /v1/status":   s.status,
		"POST /v1/up":      s.up,
		"POST /v1/ask":     s.ask,
		"POST /v1/down":    s.down,
		"POST /v1/logout":  s.logout,
		"GET /v1/resolve":  s.resolve,
		"GET /v1/names":    s.names,
		"POST /v1/ping":    s.ping,
		"POST /v1/wait":    s.wait,
		"GET /v1/netcheck": s.netcheck,
		"POST /v1/dns":     s.query,
		"GET /v1/dns/os":   s.osDNS,
		"POST /v1/dial":    s.dial,
	}
	if cfg.Resolver != nil {
		cfg.Resolver.handle(do, s)
	}
	s.http = &http.Server{
		Handler: limited.Handler(cfg.Log, "local API", s.guard(do)),
		// The guard refuses OPTIONS *, too.
		DisableGeneralOptionsHandler: true,

		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, credKey{}, s.credential(c))
		},
	}
	s.streams.init()
	return s
}

// routes are the handlers by method and path: the part of net/http's mux that is needed
// here. Its patterns would add 40 KB.
type routes map[string]http.HandlerFunc

func (do routes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := do[r.Method+" "+r.URL.Path]; h != nil {
		h(w, r)
		return
	}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		if do[method+" "+r.URL.Path] != nil {
			w.Header().Set("Allow", method)
			http.Error(w, "405 method not allowed", http.StatusMethodNotAllowed)
			return
		}
	}
	http.NotFound(w, r)
}

// Serve answers the connections of l (see Listen) until Close. It returns
// http.ErrServerClosed after Close.
func (s *Server) Serve(l net.Listener) error { return s.http.Serve(limited.Listener(l, maxConns)) }

// Close closes the listener and all connections, streams included, and waits
// for the streams' goroutines.
func (s *Server) Close() error {
	err := s.http.Close()
	s.streams.close()
	return err
}

type credKey struct{}

// credential decides once per connection whether the process at its remote end is
// allowed.
func (s *Server) credential(c net.Conn) error {
	uid, err := peercred.UID(limited.Bare(c))
	if err != nil {
		return err
	}
	if uid != s.uid && uid != 0 && !s.group {
		return errors.New("only the daemon's own user and root may use this socket")
	}
	return nil
}

// guard checks every request first: its sender, address and size.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err, _ := r.Context().Value(credKey{}).(error); err != nil {
			fail(w, http.StatusForbidden, &status.Error{Kind: status.KindDenied, Message: err.Error(), Hint: "run this as that user, or as root with sudo"})
			return
		}
		if r.Host != host || len(r.Header["Origin"]) > 0 || len(r.Header["Referer"]) > 0 || strings.Contains(r.RequestURI, "://") {
			fail(w, http.StatusForbidden, &status.Error{Kind: status.KindDenied, Message: "refused: this request was not made by weft's command line"})
			return
		}
		// A form, which any web page can post, is not JSON.
		if ct := r.Header.Get("Content-Type"); r.Method == http.MethodPost && ct != "application/json" {
			fail(w, http.StatusForbidden, &status.Error{Kind: status.KindDenied, Message: "refused: the body is not application/json"})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("ask") == "no" {
		reply(w, s.Status())
		return
	}
	name := q.Get("name")
	if name != "" {
		var err error
		if name, err = status.CleanName(name); err != nil {
			s.failed(w, err)
			return
		}
	}
	st, err := s.node.Look(r.Context(), name)
	if err != nil {
		s.failed(w, err)
		return
	}
	reply(w, s.complete(st))
}

// Status is the node's status, with all empty fields present and the caller's warnings
// added.
func (s *Server) Status() status.Status { return s.complete(s.node.Status()) }

func (s *Server) complete(st status.Status) status.Status {
	st.Schema = status.Schema
	if st.Peers == nil {
		st.Peers = []status.PeerStatus{}
	}
	st.Health = append([]status.Health{}, st.Health...)
	if s.extra != nil {
		st.Health = append(st.Health, s.extra()...)
	}
	return st
}

func (s *Server) up(w http.ResponseWriter, r *http.Request) {
	var req UpRequest
	if !read(w, r, &req) {
		return
	}
	if err := s.node.Up(r.Context(), req.Token); err != nil {
		s.failed(w, err)
		return
	}
	reply(w, s.Status())
}

// ask answers with a line for each event, as they happen. Closing the connection ends the
// waiting.
func (s *Server) ask(w http.ResponseWriter, r *http.Request) {
	var req AskRequest
	if !read(w, r, &req) {
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	say := func(e AskEvent) {
		json.NewEncoder(w).Encode(e)
		http.NewResponseController(w).Flush()
	}
	err := s.node.Ask(r.Context(), req.Server, req.Fingerprint, func(a status.Asked) { say(AskEvent{Asked: &a}) })
	if err != nil {
		say(AskEvent{Error: errorOf(err)})
		return
	}
	st := s.Status()
	say(AskEvent{Status: &st})
}

func (s *Server) down(w http.ResponseWriter, r *http.Request) {
	s.done(w, s.node.Down(r.Context()))
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	s.done(w, s.node.Logout(r.Context()))
}

func (s *Server) resolve(w http.ResponseWriter, r *http.Request) {
	name, err := status.CleanName(r.URL.Query().Get("name"))
	if err != nil {
		s.failed(w, err)
		return
	}
	p, err := s.node.Resolve(r.Context(), name)
	if err != nil {
		s.failed(w, err)
		return
	}
	reply(w, p)
}

func (s *Server) names(w http.ResponseWriter, r *http.Request) {
	n := s.node.Names()
	if n == nil {
		n = &status.Names{}
	}
	reply(w, n)
}

func (s *Server) ping(w http.ResponseWriter, r *http.Request) {
	var req PingRequest
	if !read(w, r, &req) {
		return
	}
	name, err := status.CleanName(req.Name)
	if err != nil {
		s.failed(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), bounded(req.Timeout, 5*time.Second, time.Minute))
	defer cancel()
	pong, err := s.node.Ping(ctx, name)
	if err != nil {
		s.failed(w, err)
		return
	}
	reply(w, pong)
}

func (s *Server) wait(w http.ResponseWriter, r *http.Request) {
	var req WaitRequest
	if !read(w, r, &req) {
		return
	}
	name := ""
	if req.Name != "" {
		var err error
		if name, err = status.CleanName(req.Name); err != nil {
			s.failed(w, err)
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), bounded(req.Timeout, 30*time.Second, 24*time.Hour))
	defer cancel()
	s.done(w, s.node.Wait(ctx, name))
}

func (s *Server) netcheck(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	g, _ := s.node.(netcheck.Gatherer)
	reply(w, netcheck.Run(ctx, s.node.Relays(), g))
}

func (s *Server) query(w http.ResponseWriter, r *http.Request) {
	var req DNSRequest
	if !read(w, r, &req) {
		return
	}
	name, err := status.CleanName(req.Name)
	if err != nil {
		s.failed(w, err)
		return
	}
	if s.dns == nil {
		s.failed(w, &status.Error{Kind: status.KindFailed, Message: "the daemon runs without its resolver", Hint: "start it with: weft run --dns 127.0.0.1:5335"})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	a, err := s.dns(ctx, name, req.Type)
	if err != nil {
		s.failed(w, err)
		return
	}
	reply(w, a)
}

// bounded returns d, or def if d is not positive, but at most max.
func bounded(d, def, max time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return min(d, max)
}

// read decodes the request's body into v, or sends an error and returns false.
func read(w http.ResponseWriter, r *http.Request, v any) bool {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		var tooLong *http.MaxBytesError
		if errors.As(err, &tooLong) {
			fail(w, http.StatusRequestEntityTooLarge, &status.Error{Kind: status.KindUsage, Message: "the request is too long"})
		}
		return false
	}
	if err := json.Unmarshal(body, v); err != nil {
		fail(w, http.StatusBadRequest, &status.Error{Kind: status.KindUsage, Message: "the request is not valid JSON"})
		return false
	}
	return true
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// done answers a request without a result.
func (s *Server) done(w http.ResponseWriter, err error) {
	if err != nil {
		s.failed(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// failed answers with the kind of err.
func (s *Server) failed(w http.ResponseWriter, err error) {
	e := errorOf(err)
	code := http.StatusBadGateway
	switch e.Kind {
	case status.KindUsage:
		code = http.StatusBadRequest
	case status.KindNotJoined, status.KindApproval:
		code = http.StatusConflict
	case status.KindUnknown:
		code = http.StatusNotFound
	case status.KindDenied:
		code = http.StatusForbidden
	case status.KindTimeout:
		code = http.StatusGatewayTimeout
	case status.KindFailed:
		code = http.StatusInternalServerError
	}
	fail(w, code, e)
}

// errorOf is err for the client.
func errorOf(err error) *status.Error {
	var e *status.Error
	if !errors.As(err, &e) {
		e = &status.Error{Kind: status.KindOf(err), Message: err.Error()}
	}
	return e
}

func fail(w http.ResponseWriter, code int, e *status.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(e)
}
