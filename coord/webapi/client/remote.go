package client

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"weft/overlay/cause"
	"weft/overlay/cert"
	"weft/overlay/link"
)

// Remote returns a client for a server elsewhere, https://HOST[:PORT], as the service
// whose token it is. The server is known by the CA that the token pins, wherever it is,
// or, behind a reverse proxy, by a certificate for HOST that this system trusts. Plain
// http:// is for loopback only: the console's own address. Nothing is sent before the
// first call.
func Remote(server, token string) (*Client, error) {
	t, err := cert.ParseAPIToken(token)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(server)
	want := fmt.Errorf("server address %q: want https://HOST:PORT", server)
	switch {
	case err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, want
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, fmt.Errorf("server address %q: the token would go over the network in clear; want https://HOST:PORT", server)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, want
	}
	roots, err := cert.NewServerRoots([]cert.Pin{t.Server}, nil)
	if err != nil {
		return nil, err
	}
	base := u.Scheme + "://" + u.Host
	c := New(base, bearer{token, &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig:       link.SiteConfig(u.Hostname(), roots, nil),
		TLSHandshakeTimeout:   10 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		ResponseHeaderTimeout: 5 * time.Minute, // checking a long audit takes its time
	}})
	c.remote = true
	return c, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// bearer is a transport with a token.
type bearer struct {
	token string
	t     *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.t.RoundTrip(r)
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (b bearer) CloseIdleConnections() { b.t.CloseIdleConnections() }

// unreached says why a server elsewhere could not be asked.
func unreached(base string, err error) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case strings.Contains(err.Error(), "no application protocol"): // TLS alert 120, which has no type of its own
		return fmt.Errorf("ask the server at %s: it does not offer its API to programs: it is older than this weft-server; update it", base)
	case errors.Is(err, cert.ErrUntrusted):
		return fmt.Errorf("ask the server at %s: it is not the server that the token is of; check --server, or make a token there: weft-server tokens create: %w", base, err)
	case errors.As(err, &unknown), errors.As(err, &name), errors.As(err, &invalid):
		return fmt.Errorf("ask the server at %s: something in front of it has a certificate that is not trusted here: %w; name the server's own address", base, err)
	case strings.HasPrefix(base, "http:") && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return fmt.Errorf("ask the server at %s: it ended the connection: plain http is for the console's own address only; want https://HOST:PORT", base)
	}
	return fmt.Errorf("ask the server at %s: %w", base, cause.Of(err))
}
