package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// Timeout bounds one attempt, from the lookup of the host to the end of the answer.
	Timeout = 10 * time.Second

	maxAnswer  = 4 << 10         // bytes of a body that are read, and discarded
	maxHeader  = 16 << 10        // bytes of the header of an answer
	maxAddrs   = 8               // addresses of one host that are dialled
	idleFor    = 5 * time.Second // after which an unused connection is closed
	dialFor    = 4 * time.Second // per address, if others remain to be tried
	maxRetries = 24 * time.Hour  // a longer Retry-After is ignored
)

// Sender makes attempts. The zero value is usable. It must not be changed while it is
// in use; its methods may be called from many goroutines.
type Sender struct {
	// Agent is the User-Agent.
	Agent string
	// Network are the overlay's own prefixes. The sender does not dial addresses in them.
	Network []netip.Prefix
	// Lookup finds the addresses of a host; nil means the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Dial connects to an address that was checked; nil means net.Dialer.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// Roots are the CAs that may certify a receiver; nil means the system's.
	Roots *x509.CertPool
}

// Result is the result of an attempt. The receiver accepted the event if Err is nil.
type Result struct {
	Status     int           // of HTTP, 0 if there was no answer
	Err        error         // contains no part of the URL but the host, because the rest may be secret
	RetryAfter time.Duration // how long the receiver asked to wait, 0 if it did not
}

// Receiver is a connection to the receiver of one webhook. Only one goroutine at a time
// may call its methods.
type Receiver struct {
	url       *url.URL
	agent     string
	transport *http.Transport
}

// Receiver returns the receiver at a URL. Addresses in allow may be dialled whatever they are,
// also without TLS. The caller closes the receiver.
func (s *Sender) Receiver(rawURL string, allow []netip.Prefix) (*Receiver, error) {
	targets := Targets{Network: s.Network, Allow: allow}
	if err := CheckURL(rawURL, targets); err != nil {
		return nil, err
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("not a URL") // the parser's error repeats the URL, which may be secret
	}
	r := &Receiver{url: u, agent: s.Agent}
	r.transport = &http.Transport{
		// No proxy: we could not check which addresses a proxy dials.
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return s.dial(ctx, address, targets, u.Scheme == "http")
		},
		TLSClientConfig:        &tls.Config{RootCAs: s.Roots, MinVersion: tls.VersionTLS12},
		Protocols:              new(http.Protocols),
		TLSHandshakeTimeout:    Timeout + time.Second, // ends a handshake that goes on after the attempt has ended
		DisableCompression:     true,
		MaxConnsPerHost:        1,
		IdleConnTimeout:        idleFor,
		MaxResponseHeaderBytes: maxHeader,
	}
	r.transport.Protocols.SetHTTP1(true)
	return r, nil
}

// Close closes the connection.
func (r *Receiver) Close() { r.transport.CloseIdleConnections() }

// dial looks a host up, checks all its addresses, and connects to one of them. It does not look
// the host up again to connect, because a second lookup could return an address that was not
// checked (DNS rebinding).
func (s *Sender) dial(ctx context.Context, address string, t Targets, plain bool) (net.Conn, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, errors.New("the URL has no usable host and port")
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return nil, errors.New("the URL has no usable port")
	}
	addrs, err := s.lookup(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, cause(err))
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("look up %s: it has no addresses", host)
	}
	addrs = addrs[:min(len(addrs), maxAddrs)]
	for _, ip := range addrs {
		if err := t.Check(ip, plain); err != nil {
			return nil, fmt.Errorf("dial %s: %w", host, err)
		}
	}
	var conn net.Conn
	for i, ip := range addrs {
		to := netip.AddrPortFrom(ip.Unmap(), uint16(port))
		dctx, cancel := ctx, context.CancelFunc(func() {})
		if i < len(addrs)-1 {
			dctx, cancel = context.WithTimeout(ctx, dialFor)
		}
		conn, err = s.connect(dctx, to)
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", host, cause(err))
	}
	return conn, nil
}

func (s *Sender) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	if s.Lookup != nil {
		return s.Lookup(ctx, host)
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

func (s *Sender) connect(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if s.Dial != nil {
		return s.Dial(ctx, to)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", to.String())
}

// Post makes one attempt to send an event, signed with each of the secrets. It takes at most
// Timeout.
func (r *Receiver) Post(ctx context.Context, e Event, secrets []string, now time.Time) Result {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	body, err := e.Body()
	if err != nil {
		return Result{Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url.String(), strings.NewReader(string(body)))
	if err != nil {
		return Result{Err: errors.New("the URL cannot be used")}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", r.agent)
	req.Header.Set(IDHeader, e.ID)
	req.Header.Set(EventHeader, e.Op)
	req.Header.Set(SignatureHeader, Sign(secrets, now, body))
	// Use the transport and not an http.Client, which would follow redirects.
	res, err := r.transport.RoundTrip(req)
	if err != nil {
		if ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %s", Timeout)
		}
		return Result{Err: cause(err)}
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSwitchingProtocols { // after a 101 the body never ends, and has no deadline
		io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer)) // so that the connection can be reused
	}
	out := Result{Status: res.StatusCode}
	switch {
	case res.StatusCode >= 200 && res.StatusCode < 300:
	case res.StatusCode >= 300 && res.StatusCode < 400:
		out.Err = fmt.Errorf("it answered %d: redirects are not followed; give the URL that it leads to", res.StatusCode)
	default:
		out.Err = fmt.Errorf("it answered %d", res.StatusCode)
		if n, err := strconv.ParseUint(res.Header.Get("Retry-After"), 10, 31); err == nil && time.Duration(n)*time.Second <= maxRetries {
			out.RetryAfter = time.Duration(n) * time.Second
		}
	}
	return out
}

// cause returns the innermost error, without the address and the name of the system call that
// package net puts in front.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return fmt.Errorf("%w", op.Err)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return errors.New(dns.Err)
	}
	return err
}
