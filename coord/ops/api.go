package ops

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// access says who may call a route. The caller is always the holder of the key of the
// TLS client certificate; no field of a request names the caller.
type access int

const (
	anyKey      access = iota // the holder of any key, to join or to ask to join
	anyTimeNode               // a node that exists, even if its certificate has expired
	anyRelay                  // a relay on a machine of its own that was not removed
	anyMember                 // the holder of any certificate of this network, even of a node or relay that is not in the database
)

// route is one entry of the node API.
type route struct {
	method, path string
	access       access
	handle       func(*Service, context.Context, *caller, *http.Request) (any, error)
	forAll       bool // also callers that speak another version of the protocol
}

// ofRelays reports whether the route is for relays and not for nodes.
func (rt route) ofRelays() bool { return strings.HasPrefix(rt.path, "/v1/relay/") }

// routes is the whole node API: other paths are answered with 404. Except for join, ask and
// the recall of a revocation list, the caller must be a node or a relay that is in the
// database. Whether its certificate has expired does not matter, so that a server whose clock
// jumped does not lock everybody out.
var routes = []route{
	{"POST", "/v1/join", anyKey, (*Service).handleJoin, false},
	{"POST", "/v1/ask", anyKey, (*Service).handleAsk, false},
	{"POST", "/v1/ask/poll", anyKey, (*Service).handlePollAsk, false},
	{"POST", "/v1/ask/end", anyKey, (*Service).handleEndAsk, false},
	{"POST", "/v1/renew", anyTimeNode, (*Service).handleRenew, false},
	{"GET", "/v1/config", anyTimeNode, (*Service).handleConfig, false},
	{"GET", "/v1/directory", anyTimeNode, (*Service).handleDirectory, false},
	{"GET", "/v1/lookup", anyTimeNode, (*Service).handleLookup, false},
	{"POST", "/v1/presence", anyTimeNode, (*Service).handlePresence, false},
	{"GET", "/v1/crl", anyTimeNode, (*Service).handleCRL, true},
	{"POST", "/v1/crl", anyMember, (*Service).handleRecall, true},
	{"POST", "/v1/logout", anyTimeNode, (*Service).handleLogout, false},
	{"POST", "/v1/relay/join", anyKey, (*Service).handleRelayJoin, false},
	{"POST", "/v1/relay/renew", anyRelay, (*Service).handleRelayRenew, false},
	{"POST", "/v1/relay/sync", anyRelay, (*Service).handleRelaySync, false},
	{"POST", "/v1/relay/report", anyRelay, (*Service).handleRelayReport, false},
	{"POST", "/v1/relay/crl", anyMember, (*Service).handleRecall, true},
}

// maxBody bounds a request in bytes.
func (rt route) maxBody() int64 {
	if strings.HasSuffix(rt.path, "/crl") {
		return cert.MaxCRL
	}
	return api.MaxBody
}

// caller is the holder of the key of the TLS client certificate.
type caller struct {
	id   cert.NodeID
	key  *ecdsa.PublicKey
	spki []byte

	serial *big.Int // of that certificate
}

// raw is an answer that is not JSON.
type raw struct {
	contentType string
	tag         string // ETag
	known       bool   // the caller has it already: answer 304
	body        []byte
}

// statusOnly is an answer without a body.
type statusOnly int

// API returns the handler of the node API. Requests must come over TLS connections whose
// clients have shown a certificate; package link ensures that.
func (s *Service) API() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range routes {
		mux.HandleFunc(rt.method+" "+rt.path, func(w http.ResponseWriter, r *http.Request) { s.serveRoute(rt, w, r) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, nil, fail(http.StatusNotFound, api.CodeNotFound, "no such resource", ""))
	})
	return mux
}

func (s *Service) serveRoute(rt route, w http.ResponseWriter, r *http.Request) {
	c, err := s.identify(rt.access, r)
	var res any
	if err == nil {
		err = rt.checkHeader(r)
	}
	if err == nil {
		if rt.access == anyRelay {
			// A relay's long poll waits for its answer longer than the read deadline for
			// unauthenticated clients allows.
			http.NewResponseController(w).SetReadDeadline(time.Time{})
		}
		r.Body = http.MaxBytesReader(w, r.Body, rt.maxBody())
		ctx := r.Context()
		if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			ctx = context.WithValue(ctx, fromKey{}, from.Addr().Unmap())
		}
		s.hearIntroductions(ctx, rt, c, w, r)
		res, err = rt.handle(s, ctx, c, r)
	}
	s.answer(w, r, res, err)
}

// identify returns the caller, or an error if the caller may not call the route.
func (s *Service) identify(a access, r *http.Request) (*caller, error) {
	refused := fail(http.StatusUnauthorized, api.CodeUnauthorized, "this key belongs to no device of this network", "join with a token: weft up TOKEN")
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, refused
	}
	leaf := r.TLS.PeerCertificates[0]
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, refused
	}
	c := &caller{id: cert.NodeIDOf(s.network, leaf.RawSubjectPublicKeyInfo), key: key, spki: leaf.RawSubjectPublicKeyInfo, serial: leaf.SerialNumber}
	switch a {
	case anyKey:
		return c, nil
	case anyRelay:
		// The key identifies the relay. The relay's certificate is for the nodes that connect
		// to the relay, so it is not checked here.
		if _, ok := s.index.relay(cert.RelayID(c.spki)); !ok {
			return nil, noRelayHere()
		}
		return c, nil
	case anyMember:
		if _, ok := s.index.relay(cert.RelayID(c.spki)); !ok && !s.certified(r.TLS.PeerCertificates) {
			return nil, refused
		}
		return c, nil
	}
	if _, ok := s.index.has(c.id); !ok {
		var removed bool
		err := s.store.Read(r.Context(), func(rd *store.Reader) (err error) { removed, err = rd.WasRemoved(s.network, c.id); return err })
		if err != nil {
			return nil, err
		}
		if removed {
			return nil, fail(http.StatusUnauthorized, api.CodeRevoked, "this device was deleted from the network", "join again with a new token: weft logout, then weft up TOKEN")
		}
		return nil, refused
	}
	if _, err := s.auth.Roots.VerifyNodeAnyTime(leaf.Raw); err != nil {
		return nil, fail(http.StatusUnauthorized, api.CodeUnauthorized, "the certificate shown is not one of this network", "repeat: weft up TOKEN")
	}
	return c, nil
}

// knows reports whether a caller is a relay of this network, or a node that
// exists.
func (s *Service) knows(c *caller) bool {
	_, node := s.index.has(c.id)
	_, relay := s.index.relay(cert.RelayID(c.spki))
	return node || relay
}

// certified reports whether this network's CAs have ever signed the chain for a node or a
// relay.
func (s *Service) certified(chain []*x509.Certificate) bool {
	if _, err := s.auth.Roots.VerifyNodeAnyTime(chain[0].Raw); err == nil {
		return true
	}
	return s.auth.ServerRoots.VerifyServer(chain, cert.RoleRelay) == nil
}

func (s *Service) answer(w http.ResponseWriter, r *http.Request, res any, err error) {
	h := w.Header()
	h.Set(api.TimeHeader, s.now().UTC().Format(time.RFC3339Nano))
	h.Set("Cache-Control", "no-store")
	if err != nil {
		e := s.apiError(r, err)
		if e.Status == http.StatusServiceUnavailable || e.Status == http.StatusTooManyRequests {
			h.Set("Retry-After", "5")
		}
		writeJSON(w, e.Status, e)
		return
	}
	switch res := res.(type) {
	case statusOnly:
		w.WriteHeader(int(res))
	case raw:
		h.Set("ETag", res.tag)
		if res.known {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", res.contentType)
		sayLength(w, res.body)
		w.Write(res.body)
	default:
		writeJSON(w, http.StatusOK, res)
	}
}

// sayLength sets Content-Length for a long answer, so that a client that refuses answers of
// that length need not read it.
func sayLength(w http.ResponseWriter, body []byte) {
	if len(body) > 64<<10 {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"code":"internal","message":"cannot encode the answer"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	sayLength(w, b)
	w.WriteHeader(status)
	w.Write(b)
}

// apiError returns the answer for any error. Errors that are not meant for callers are logged
// here and nowhere else.
func (s *Service) apiError(r *http.Request, err error) *api.Error {
	var e *api.Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &tooLarge):
		return fail(http.StatusRequestEntityTooLarge, api.CodeTooLarge, fmt.Sprintf("the request body is longer than %d bytes", tooLarge.Limit), "")
	case errors.Is(err, store.ErrNotFound):
		return fail(http.StatusNotFound, api.CodeNotFound, "not found", "")
	case errors.Is(err, store.ErrFull):
		s.log.Error("no address left", "pool", s.ipv4)
		return fail(http.StatusServiceUnavailable, api.CodeFull, "no free address left in "+s.ipv4.String(), "delete devices that are gone, or wait an hour for freed addresses")
	case errors.Is(err, store.ErrDiskFull): // the store has logged it
		return fail(http.StatusServiceUnavailable, api.CodeUnavailable, "the server's disk is full: it can save no changes, and no device can join", "tell the server's owner, then try again")
	case errors.Is(err, store.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fail(http.StatusServiceUnavailable, api.CodeUnavailable, "the server is stopping or overloaded", "try again")
	}
	s.log.Error("request failed", "route", r.Method+" "+r.URL.Path, "err", err)
	return fail(http.StatusInternalServerError, api.CodeInternal, "the server could not do this; its log says why", "")
}

func fail(status int, code, message, hint string) *api.Error {
	return &api.Error{Status: status, Code: code, Message: message, Hint: hint}
}

// readRequest decodes the body of a request into v.
func readRequest(r *http.Request, v any) error {
	b, err := io.ReadAll(r.Body) // bounded in serveRoute
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return fail(http.StatusBadRequest, api.CodeBadRequest, "the request body broke off", "")
	}
	if err := Decode(b, v); err != nil {
		return fail(http.StatusBadRequest, api.CodeBadRequest, err.Error(), "")
	}
	return nil
}
