package link

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// connect makes the TCP connection to a server, through the HTTP proxy that
// the environment names for it if there is one.
func (d *Dialer) connect(ctx context.Context, u *url.URL) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	proxyFor := d.Proxy
	if proxyFor == nil {
		proxyFor = proxyFromEnvironment
	}
	proxy, err := proxyFor(&url.URL{Scheme: u.Scheme, Host: u.Host})
	if err != nil {
		return nil, &UnreachableError{u.String(), fmt.Errorf("proxy: %w", err)}
	}
	if proxy == nil {
		nc, err := d.tcp(ctx, hostPort(u))
		if err != nil {
			return nil, &UnreachableError{u.String(), err}
		}
		return nc, nil
	}
	nc, err := d.throughProxy(ctx, proxy, hostPort(u))
	if err != nil {
		return nil, &UnreachableError{u.String(), fmt.Errorf("proxy %s: %w", proxy.Host, err)}
	}
	return nc, nil
}

// proxyFromEnvironment calls net/http's function. golang.org/x/net has the same one, but
// would add a second copy of the Unicode tables to the binary.
func proxyFromEnvironment(u *url.URL) (*url.URL, error) {
	return http.ProxyFromEnvironment(&http.Request{URL: u})
}

func (d *Dialer) tcp(ctx context.Context, addr string) (net.Conn, error) {
	if d.NetDial != nil {
		return d.NetDial(ctx, "tcp", addr)
	}
	nd := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}
	return nd.DialContext(ctx, "tcp", addr)
}

func (d *Dialer) throughProxy(ctx context.Context, proxy *url.URL, target string) (net.Conn, error) {
	if proxy.Scheme != "http" && proxy.Scheme != "https" {
		return nil, fmt.Errorf("scheme %q is not supported, use http or https", proxy.Scheme)
	}
	nc, err := d.tcp(ctx, hostPort(proxy))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	conn := nc
	if proxy.Scheme == "https" {
		tc := tls.Client(nc, &tls.Config{ServerName: proxy.Hostname()})
		err = tc.HandshakeContext(ctx)
		conn = tc
	}
	if err == nil {
		err = httpConnect(conn, proxy, target)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return conn, nil
}

// httpConnect asks the proxy for a tunnel. In TLS the client sends first, so bytes after
// the head of the answer are an error.
func httpConnect(c net.Conn, proxy *url.URL, target string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: target}, Host: target, Header: http.Header{}}
	if user := proxy.User; user != nil {
		password, _ := user.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := req.Write(c); err != nil {
		return err
	}
	br := bufio.NewReader(io.LimitReader(c, 64<<10))
	resp, err := http.ReadResponse(br, req)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("CONNECT %s: %s", target, resp.Status)
	case br.Buffered() > 0:
		return errors.New("CONNECT: the proxy sent data before the client did")
	}
	return nil
}
