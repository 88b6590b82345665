package localapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"weft/overlay/netcheck"
	"weft/overlay/proxy/pipe"
	"weft/overlay/status"
)

// withTimeout is context.WithTimeout; the name keeps call sites short.
func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// Client calls the daemon. All methods may be used from many goroutines; their errors
// are *Error, even if no daemon runs (KindNoDaemon).
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client for the socket at path. It does not connect.
func NewClient(path string) *Client {
	c := &Client{path: path}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.connect(ctx) },
		IdleConnTimeout:   10 * time.Second,
		MaxIdleConns:      2,
		DisableKeepAlives: false,
	}}
	return c
}

// Path is the socket's path.
func (c *Client) Path() string { return c.path }

func (c *Client) connect(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err == nil {
		return conn, nil
	}
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return nil, &status.Error{Kind: status.KindDenied, Message: "the daemon at " + c.path + " belongs to another user",
			Hint: deniedHint(c.path)}
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return nil, &status.Error{Kind: status.KindNoDaemon, Message: "the daemon is not running (no answer at " + c.path + ")",
			Hint: "start it with: weft run"}
	}
	cause := err
	for under := errors.Unwrap(cause); under != nil; under = errors.Unwrap(cause) {
		cause = under
	}
	if errors.Is(err, syscall.EINVAL) { // the system's error for a path that is too long
		return nil, &status.Error{Kind: status.KindUsage, Message: fmt.Sprintf("%s is too long for the path of a socket: %d characters", c.path, len(c.path)), Hint: "choose a shorter one with --socket"}
	}
	if ctx.Err() != nil {
		return nil, err
	}
	return nil, &status.Error{Kind: status.KindFailed, Message: fmt.Sprintf("connect to the daemon at %s: %v", c.path, cause), Hint: "check that it runs: weft status"}
}

// deniedHint says how this user can get access to the socket: through the group that
// has access, if there is one.
func deniedHint(path string) string {
	if fi, err := os.Stat(path); err == nil && fi.Mode().Perm()&0o060 == 0o060 {
		if gid, ok := groupOf(fi); ok {
			if g, err := user.LookupGroupId(gid); err == nil && g.Name != "root" {
				return "give your user access with: sudo usermod -aG " + g.Name + " " + userName() + " (then log in again), or use sudo"
			}
		}
	}
	return "run this as that user, or as root with sudo"
}

// userName is the user who runs this program.
func userName() string {
	if u, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil {
		return u.Username
	}
	return "USER"
}

// Health returns nil when the daemon answers.
func (c *Client) Health(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, "/v1/health", nil, nil, nil)
}

// Status returns the daemon's status, with its peers.
func (c *Client) Status(ctx context.Context) (status.Status, error) {
	var s status.Status
	return s, c.call(ctx, http.MethodGet, "/v1/status", url.Values{"ask": {"no"}}, nil, &s)
}

// Look returns the daemon's status, see Node.Look. A daemon of an older version returns
// what it knows, and a peer named explicitly only if it returns that one anyway.
func (c *Client) Look(ctx context.Context, name string) (status.Status, error) {
	q := url.Values{}
	if name != "" {
		q.Set("name", name)
	}
	var s status.Status
	return s, c.call(ctx, http.MethodGet, "/v1/status", q, nil, &s)
}

// Up starts the node, see Node.Up.
func (c *Client) Up(ctx context.Context, token string) (status.Status, error) {
	var s status.Status
	return s, c.call(ctx, http.MethodPost, "/v1/up", nil, UpRequest{Token: token}, &s)
}

// Ask joins without a token, see Node.Ask.
func (c *Client) Ask(ctx context.Context, server, fingerprint string, shown func(status.Asked)) (status.Status, error) {
	resp, err := c.send(ctx, http.MethodPost, "/v1/ask", nil, AskRequest{Server: server, Fingerprint: fingerprint})
	if err != nil {
		return status.Status{}, err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var e AskEvent
		switch err := d.Decode(&e); {
		case err != nil && ctx.Err() != nil:
			return status.Status{}, ctx.Err()
		case err != nil:
			return status.Status{}, &status.Error{Kind: status.KindFailed, Message: "the daemon ended the connection", Hint: "it may just have stopped; see: weft status"}
		case e.Error != nil:
			return status.Status{}, e.Error
		case e.Status != nil:
			return *e.Status, nil
		case e.Asked != nil:
			shown(*e.Asked)
		}
	}
}

// Down stops the node, see Node.Down.
func (c *Client) Down(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/down", nil, struct{}{}, nil)
}

// Logout gives up the identity, see Node.Logout.
func (c *Client) Logout(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/logout", nil, struct{}{}, nil)
}

// Resolve finds a peer, see Node.Resolve.
func (c *Client) Resolve(ctx context.Context, name string) (status.Peer, error) {
	var p status.Peer
	return p, c.call(ctx, http.MethodGet, "/v1/resolve", url.Values{"name": {name}}, nil, &p)
}

// Names returns the names known here, see Node.Names.
func (c *Client) Names(ctx context.Context) (status.Names, error) {
	var n status.Names
	return n, c.call(ctx, http.MethodGet, "/v1/names", nil, nil, &n)
}

// Ping sends one echo, see Node.Ping.
func (c *Client) Ping(ctx context.Context, name string, timeout time.Duration) (status.Pong, error) {
	var p status.Pong
	return p, c.call(ctx, http.MethodPost, "/v1/ping", nil, PingRequest{Name: name, Timeout: timeout}, &p)
}

// Wait waits for the node or a peer, see Node.Wait.
func (c *Client) Wait(ctx context.Context, name string, timeout time.Duration) error {
	return c.call(ctx, http.MethodPost, "/v1/wait", nil, WaitRequest{Name: name, Timeout: timeout}, nil)
}

// Netcheck measures the connections to the server and relays, see netcheck.Run.
func (c *Client) Netcheck(ctx context.Context) (netcheck.Report, error) {
	var n netcheck.Report
	return n, c.call(ctx, http.MethodGet, "/v1/netcheck", nil, nil, &n)
}

// DNS asks the daemon's resolver; qtype "" is A and AAAA.
func (c *Client) DNS(ctx context.Context, name, qtype string) (DNSAnswer, error) {
	var a DNSAnswer
	return a, c.call(ctx, http.MethodPost, "/v1/dns", nil, DNSRequest{Name: name, Type: qtype}, &a)
}

// call makes one request; in and out may be nil.
func (c *Client) call(ctx context.Context, method, path string, q url.Values, in, out any) error {
	resp, err := c.send(ctx, method, path, q, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return &status.Error{Kind: status.KindFailed, Message: "read the daemon's answer: " + err.Error()}
	}
	return nil
}

// send makes one request; in may be nil. The caller closes the body of the answer, which
// is a success.
func (c *Client) send(ctx context.Context, method, path string, q url.Values, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	u := url.URL{Scheme: "http", Host: host, Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, clientError(err)
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp, nil
}

// clientError removes the wrapping of net/http.
func clientError(err error) error {
	var e *status.Error
	if errors.As(err, &e) {
		return e
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return &status.Error{Kind: status.KindTimeout, Message: "the daemon did not answer in time"}
	}
	return &status.Error{Kind: status.KindFailed, Message: "call the daemon: " + err.Error(), Hint: "it may just have stopped; see: weft status"}
}

// readError reads the Error of a failed request.
func readError(resp *http.Response) error {
	var e status.Error
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody))
	if err == nil {
		err = json.Unmarshal(body, &e)
	}
	if err != nil || e.Kind == "" {
		return &status.Error{Kind: status.KindFailed, Message: "the daemon answered " + resp.Status}
	}
	return &e
}

// DialContext connects over the overlay through the daemon, see
// Node.DialContext. A TCP connection is a *StreamConn.
func (c *Client) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, clientError(err)
	}
	// The connection has no deadline of its own: closing it ends all waiting.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	r, err := c.upgrade(conn, network, address)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			return nil, clientError(ctx.Err())
		}
		return nil, clientError(err)
	}
	if network[0] == 'u' {
		return &datagramConn{Conn: conn, r: r}, nil
	}
	return &StreamConn{UnixConn: conn.(*net.UnixConn), early: r}, nil
}

func (c *Client) upgrade(conn net.Conn, network, address string) (*bufio.Reader, error) {
	upgrade := upgradeStream
	if len(network) > 2 && network[:3] == "udp" {
		upgrade = upgradeDatagram
	}
	q := url.Values{"network": {network}, "addr": {address}}
	if _, err := fmt.Fprintf(conn, "POST /v1/dial?%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n",
		q.Encode(), host, upgrade); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(conn, 4<<10)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return r, nil
}

// StreamConn is a TCP connection over the overlay: a unix socket with CloseWrite, whose
// first bytes may already have been read.
type StreamConn struct {
	*net.UnixConn
	early *bufio.Reader // nil once empty
}

// Read implements net.Conn.
func (c *StreamConn) Read(p []byte) (int, error) {
	if c.early != nil && c.early.Buffered() > 0 {
		return c.early.Read(p[:min(len(p), c.early.Buffered())])
	}
	return c.UnixConn.Read(p)
}

// Join copies between the connection and other until both directions have ended, like
// pipe.Join, but lets the kernel copy where it can.
func (c *StreamConn) Join(other net.Conn) error {
	if n := c.early.Buffered(); n > 0 {
		b, _ := c.early.Peek(n)
		if _, err := other.Write(b); err != nil {
			c.Close()
			other.Close()
			return err
		}
		c.early.Discard(n)
	}
	_, _, err := pipe.Join(c.UnixConn, other)
	return err
}
