// Package client is a node's half of the coordination server's API (package api). It runs
// over any http.RoundTripper. In practice that is the one of link.Dialer, which
// authenticates both ends and chooses among the server's addresses.
//
// Every method makes one request and returns a refusal of the server as *api.Error.
// Answers are bounded in size. Nothing is cached or retried. Concurrent lookups for the
// same node share one request.
//
// Not for embedders: a node makes its own requests; see package overlay.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/limited"
)

// Bounds of answers in bytes.
const (
	maxSmall     = 1 << 20
	maxDirectory = 8 << 20               // 1,000 nodes are about 1 MB
	maxSync      = 2*cert.MaxCRL + 1<<20 // a CRL in base64 and 1,000 nodes
)

// Client is one node's view of the coordination server. Its methods may be
// called from many goroutines.
type Client struct {
	// Cargo goes with each request, if there is one. Set it before the first request.
	Cargo Cargo

	rt      http.RoundTripper
	contact func(serverTime time.Time)
	lookups singleflight.Group
}

// Cargo is what a node tells the server with whatever it asks
// (api.IntroductionsHeader).
type Cargo interface {
	// Carry returns the header's value, "" for none, and a function that is called when
	// the server has taken it. It does not block.
	Carry() (value string, taken func())
}

// New returns a client. contact, if not nil, is called with the server's time of each
// answer, refusals included. The time is as authentic as the answer.
func New(rt http.RoundTripper, contact func(serverTime time.Time)) *Client {
	return &Client{rt: rt, contact: contact}
}

// Join asks for a first certificate. Repeating it with the same key and token
// is answered with the same node.
func (c *Client) Join(ctx context.Context, req api.JoinRequest) (*api.JoinResponse, error) {
	req.Hostname = clean(req.Hostname)
	var res api.JoinResponse
	return &res, c.call(ctx, http.MethodPost, "/v1/join", nil, req, &res, maxSmall)
}

// Ask asks to join without a token. A server that does not know of that answers with
// CodeNotFound.
func (c *Client) Ask(ctx context.Context, req api.Ask) (*api.Asked, error) {
	req.Hostname = clean(req.Hostname)
	return c.asked(ctx, "/v1/ask", req)
}

// PollAsk asks how this key's request stands.
func (c *Client) PollAsk(ctx context.Context, req api.Poll) (*api.Asked, error) {
	return c.asked(ctx, "/v1/ask/poll", req)
}

func (c *Client) asked(ctx context.Context, path string, req any) (*api.Asked, error) {
	var res api.Asked
	return &res, c.call(ctx, http.MethodPost, path, nil, req, &res, maxSmall)
}

// EndAsk withdraws this key's request.
func (c *Client) EndAsk(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/ask/end", nil, struct{}{}, nil, maxSmall)
}

// Renew asks for the certificate in force over the same key (api.RenewRequest).
func (c *Client) Renew(ctx context.Context, req api.RenewRequest) (*api.RenewResponse, error) {
	var res api.RenewResponse
	return &res, c.call(ctx, http.MethodPost, "/v1/renew", nil, req, &res, maxSmall)
}

// Config returns the node's configuration, or nil if it is still at have.
func (c *Client) Config(ctx context.Context, have api.Version) (*api.Config, error) {
	var res api.Config
	err := c.call(ctx, http.MethodGet, "/v1/config", since(have), nil, &res, maxSmall)
	if errors.Is(err, errNotModified) {
		return nil, nil
	}
	return &res, err
}

// Directory returns what changed since have, or the full directory.
func (c *Client) Directory(ctx context.Context, have api.Version) (*api.Directory, error) {
	var res api.Directory
	return &res, c.call(ctx, http.MethodGet, "/v1/directory", since(have), nil, &res, maxDirectory)
}

// Lookup asks for one node. kind is "name" (short or full), "ip" or "id". An
// unknown node, or one that may not be seen, is an *api.Error with
// CodeNotFound.
func (c *Client) Lookup(ctx context.Context, kind, key string) (*api.Peer, error) {
	// The request must outlive a caller who gives up while others wait for it.
	ch := c.lookups.DoChan(kind+"="+key, func() (v any, err error) {
		// This goroutine belongs to no request, so a panic would end the program.
		defer limited.Survive(slog.New(slog.DiscardHandler), "", func(crash error) { err = crash })
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		var res api.Peer
		err = c.call(ctx, http.MethodGet, "/v1/lookup", url.Values{kind: {key}}, nil, &res, maxSmall)
		return &res, err
	})
	select {
	case r := <-ch:
		if crash, ok := r.Err.(*limited.Crash); ok {
			panic(crash) // the handler of the caller's request recovers
		}
		if r.Err != nil {
			return nil, r.Err
		}
		p := *r.Val.(*api.Peer) // each caller gets a copy of its own
		return &p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Presence asks which of these nodes (NodeIDs, hex, at most api.MaxPresence) are online.
// The answer leaves out nodes that the caller may not reach. A server before 2026-11-29
// answers with CodeNotFound.
func (c *Client) Presence(ctx context.Context, ids []string) ([]api.Presence, error) {
	var res api.PresenceResponse
	err := c.call(ctx, http.MethodPost, "/v1/presence", nil, api.PresenceRequest{IDs: ids}, &res, maxSmall)
	return res.Peers, err
}

// CRL returns the current revocation list (DER), which the caller must verify, and its
// ETag, "" if the server sends none. known are the tags of lists that the caller has: an
// earlier ETag, or api.CRLTag of a number. When the server's list is one of these, der is
// nil.
func (c *Client) CRL(ctx context.Context, known ...string) (der []byte, tag string, err error) {
	l := list{known: slices.DeleteFunc(known, func(tag string) bool { return tag == "" })}
	err = c.call(ctx, http.MethodGet, "/v1/crl", nil, nil, &l, cert.MaxCRL)
	if errors.Is(err, errNotModified) {
		return nil, l.tag, nil
	}
	return l.der, l.tag, err
}

// list is a body that is not JSON, with its ETag.
type list struct {
	known []string
	tag   string
	der   []byte
}

// AnswerError is an answer that arrived but cannot be used.
type AnswerError struct {
	Path string
	Came []byte // the part of the answer that was read
	// Broke says that the answer broke off, so that another attempt may succeed.
	// Otherwise it is too long or cannot be parsed, and another attempt will fail too.
	Broke bool
	Err   error
}

func (e *AnswerError) Error() string { return fmt.Sprintf("read answer of %s: %v", e.Path, e.Err) }
func (e *AnswerError) Unwrap() error { return e.Err }

// SendCRL sends the server a revocation list that is newer than its own, because it was
// restored from a backup.
func (c *Client) SendCRL(ctx context.Context, der []byte) error {
	return c.call(ctx, http.MethodPost, "/v1/crl", nil, raw(der), nil, maxSmall)
}

// Logout deletes the node on the server. It returns nil if the node was deleted already.
func (c *Client) Logout(ctx context.Context) error {
	err := c.call(ctx, http.MethodPost, "/v1/logout", nil, struct{}{}, nil, maxSmall)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Code == api.CodeRevoked {
		return nil
	}
	return err
}

// JoinRelay asks for a relay's first certificate, as Join does for a node.
func (c *Client) JoinRelay(ctx context.Context, req api.RelayJoinRequest) (*api.RelayJoinResponse, error) {
	req.Name = clean(req.Name)
	var res api.RelayJoinResponse
	return &res, c.call(ctx, http.MethodPost, "/v1/relay/join", nil, req, &res, maxSync)
}

// RenewRelay asks for a new certificate over the relay's key.
func (c *Client) RenewRelay(ctx context.Context, req api.RelayRenewRequest) (*api.RelayRenewResponse, error) {
	var res api.RelayRenewResponse
	return &res, c.call(ctx, http.MethodPost, "/v1/relay/renew", nil, req, &res, maxSmall)
}

// SyncRelay asks what is new for a relay. The server may take 20 s to answer.
func (c *Client) SyncRelay(ctx context.Context, req api.RelaySync) (*api.RelayState, error) {
	var res api.RelayState
	return &res, c.call(ctx, http.MethodPost, "/v1/relay/sync", nil, req, &res, maxSync)
}

// ReportRelay reports who connected to and disconnected from a relay.
func (c *Client) ReportRelay(ctx context.Context, req api.RelayReport) (*api.RelayReported, error) {
	var res api.RelayReported
	return &res, c.call(ctx, http.MethodPost, "/v1/relay/report", nil, req, &res, maxSmall)
}

// SendRelayCRL is SendCRL for a relay.
func (c *Client) SendRelayCRL(ctx context.Context, der []byte) error {
	return c.call(ctx, http.MethodPost, "/v1/relay/crl", nil, raw(der), nil, maxSmall)
}

// CloseIdleConnections closes connections that no request uses.
func (c *Client) CloseIdleConnections() {
	if rt, ok := c.rt.(interface{ CloseIdleConnections() }); ok {
		rt.CloseIdleConnections()
	}
}

var errNotModified = errors.New("not modified")

func since(v api.Version) url.Values {
	if v.IsZero() {
		return nil
	}
	return url.Values{"since": {v.String()}}
}

// raw is a body that is not JSON.
type raw []byte

// call makes one request. out is decoded from JSON; if it is a *list it gets the body
// unchanged. limit bounds the answer in bytes; an answer that announces more is not read
// at all.
func (c *Client) call(ctx context.Context, method, path string, q url.Values, in, out any, limit int64) error {
	var body io.Reader
	if b, ok := in.(raw); ok {
		body = bytes.NewReader(b)
	} else if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	// The transport replaces scheme and host.
	u := url.URL{Scheme: "https", Host: "weft-server", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return err
	}
	// The connection of a join shows a certificate that the node has signed itself, so that
	// nothing else can be asked over it. The server closes it, and the node need not wait for
	// that.
	req.Close = path == "/v1/join"
	req.Header.Set(api.ProtocolHeader, strconv.Itoa(api.Protocol))
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	l, _ := out.(*list)
	if l != nil && len(l.known) > 0 {
		req.Header.Set("If-None-Match", strings.Join(l.known, ", "))
	}
	var taken func()
	if c.Cargo != nil {
		var cargo string
		if cargo, taken = c.Cargo.Carry(); cargo != "" {
			req.Header.Set(api.IntroductionsHeader, cargo)
		}
	}
	res, err := c.rt.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if taken != nil && res.Header.Get(api.IntroductionsHeader) != "" {
		taken()
	}
	if t, err := time.Parse(time.RFC3339Nano, res.Header.Get(api.TimeHeader)); err == nil && c.contact != nil {
		c.contact(t)
	}
	if l != nil {
		l.tag = oneLine(res.Header.Get("ETag"))
	}
	if res.StatusCode == http.StatusNotModified {
		return errNotModified
	}
	if res.StatusCode >= 300 {
		return refusal(res)
	}
	if res.ContentLength > limit {
		return &AnswerError{Path: path, Err: tooLong(limit)}
	}
	b, err := readBounded(res.Body, limit)
	if err != nil {
		_, long := err.(tooLong)
		return &AnswerError{Path: path, Came: b, Broke: !long, Err: err}
	}
	switch out := out.(type) {
	case nil:
	case *list:
		out.der = b
	default:
		if err := json.Unmarshal(b, out); err != nil {
			return &AnswerError{Path: path, Came: b, Err: err}
		}
	}
	return nil
}

// refusal returns the error that the server sent, or one made from the status if the body
// is something else.
func refusal(res *http.Response) error {
	e := &api.Error{Status: res.StatusCode, Code: api.CodeUnavailable}
	b, err := readBounded(res.Body, 64<<10)
	if err != nil || json.Unmarshal(b, e) != nil || e.Message == "" {
		e.Message = fmt.Sprintf("the server answered %s", res.Status)
		if res.StatusCode < 500 {
			e.Code = api.CodeBadRequest
		}
	}
	e.Message, e.Hint = oneLine(e.Message), oneLine(e.Hint)
	return e
}

func readBounded(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = tooLong(limit)
	}
	return b, err
}

// tooLong is the error for an answer that is longer than this many bytes.
type tooLong int64

func (limit tooLong) Error() string { return fmt.Sprintf("longer than %d bytes", int64(limit)) }

// oneLine makes a server's text safe to print on a terminal.
func oneLine(s string) string {
	if len(s) > 500 {
		s = s[:500]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

// clean removes from a hostname what is not UTF-8, so that it can be sent as JSON. The
// server makes a name of the rest.
func clean(hostname string) string {
	if len(hostname) > 1024 {
		hostname = hostname[:1024]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(hostname, "-"), "\uFFFD", "-")
}
