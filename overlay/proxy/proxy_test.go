package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"weft/overlay/status"
)

// fakeNode has one device, kitchen-pi, with the ports of this machine.
type fakeNode struct {
	mu     sync.Mutex
	dialed []string // addresses dialled through the overlay
	target map[string]string
}

var fakeNames = &status.Names{
	Ready: true, Suffix: "weft.internal", Complete: true,
	IPv4: netip.MustParsePrefix("100.64.0.0/10"), IPv6: netip.MustParsePrefix("fd00:77::/48"),
}

func (n *fakeNode) Names() *status.Names { return fakeNames }

func (n *fakeNode) Resolve(_ context.Context, name string) (status.Peer, error) {
	switch strings.TrimSuffix(name, ".weft.internal") {
	case "kitchen-pi", "attic", "vault", "slow", "closed", "100.64.0.2", "fd00:77::2":
		return status.Peer{Name: name}, nil
	case "elsewhere":
		return status.Peer{}, &status.Error{Kind: status.KindUnavailable, Message: "nobody can be asked"}
	}
	return status.Peer{}, &status.Error{Kind: status.KindUnknown, Message: "there is no device " + name}
}

func (n *fakeNode) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	n.dialed = append(n.dialed, network+" "+address)
	n.mu.Unlock()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if _, err := n.Resolve(ctx, strings.ToLower(strings.TrimSuffix(host, "."))); err != nil {
		return nil, err
	}
	switch strings.TrimSuffix(host, ".weft.internal") {
	case "attic":
		return nil, &status.Error{Kind: status.KindUnreachable, Message: "attic is offline, last seen yesterday"}
	case "vault":
		return nil, &status.Error{Kind: status.KindDenied, Message: "vault does not let laptop in"}
	case "slow":
		return nil, &status.Error{Kind: status.KindTimeout, Message: "slow did not answer in time"}
	case "closed":
		return nil, &status.Error{Kind: status.KindRefused, Message: "closed refused the connection"}
	}
	var d net.Dialer
	return d.DialContext(ctx, network, n.target[port])
}

func (n *fakeNode) last() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.dialed) == 0 {
		return ""
	}
	return n.dialed[len(n.dialed)-1]
}

// start serves a proxy and returns its address.
func start(t testing.TB, cfg Config) (*Proxy, string) {
	t.Helper()
	if cfg.Node == nil {
		cfg.Node = &fakeNode{}
	}
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := New(cfg)
	done := make(chan struct{})
	go func() { p.Serve(l); close(done) }()
	t.Cleanup(func() { p.Close(); <-done })
	return p, l.Addr().String()
}

// site is a web server that returns the request as it arrived.
func site(t testing.TB) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/big" {
			io.CopyN(w, zeros{}, 10<<20)
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s host=%s body=%s", r.Method, r.URL.Path, r.Host, body)
		for _, h := range []string{"Via", "Forwarded", "X-Forwarded-For", "Proxy-Connection", "Proxy-Authorization"} {
			if v := r.Header.Get(h); v != "" {
				fmt.Fprintf(w, " %s=%s", h, v)
			}
		}
	}))
	t.Cleanup(s.Close)
	return s
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestCurl fetches a page by host name with each kind of proxy setting that programs
// have, with curl.
func TestCurl(t *testing.T) {
	s := site(t)
	node := &fakeNode{target: map[string]string{"80": s.Listener.Addr().String(), "8080": s.Listener.Addr().String()}}
	_, addr := start(t, Config{Node: node})
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal("this test needs curl: apt-get install curl")
	}
	for _, c := range []struct {
		args []string
		want string
		dial string
	}{
		{[]string{"--proxy", "socks5h://" + addr, "http://kitchen-pi/a"}, "GET /a host=kitchen-pi body=", "tcp kitchen-pi:80"},
		{[]string{"--proxy", "socks5h://" + addr, "http://kitchen-pi.weft.internal:8080/a"}, "GET /a host=kitchen-pi.weft.internal:8080 body=", "tcp kitchen-pi.weft.internal:8080"},
		{[]string{"--proxy", "socks5h://" + addr, "http://100.64.0.2/a"}, "GET /a host=100.64.0.2 body=", "tcp 100.64.0.2:80"},
		{[]string{"--proxy", "socks5h://" + addr, "http://[fd00:77::2]/a"}, "GET /a host=[fd00:77::2] body=", "tcp [fd00:77::2]:80"},
		{[]string{"--proxy", "http://" + addr, "http://kitchen-pi/a"}, "GET /a host=kitchen-pi body=", "tcp kitchen-pi:80"},
		{[]string{"--proxy", "http://" + addr, "-d", "x=1", "http://KITCHEN-PI/a"}, "POST /a host=KITCHEN-PI body=x=1", "tcp KITCHEN-PI:80"},
		{[]string{"--proxy", "http://" + addr, "--proxytunnel", "http://kitchen-pi/a"}, "GET /a host=kitchen-pi body=", "tcp kitchen-pi:80"},
	} {
		out, err := exec.Command(curl, append([]string{"-sS", "--max-time", "10"}, c.args...)...).CombinedOutput()
		if err != nil || string(out) != c.want {
			t.Errorf("curl %v: %q, %v; want %q", c.args, out, err, c.want)
		}
		// An idle connection may serve the next request to the same host.
		if got := node.last(); got != c.dial && !strings.Contains(c.args[1], "http://"+addr) {
			t.Errorf("curl %v: dialled %q, want %q", c.args, got, c.dial)
		}
	}
	out, err := exec.Command(curl, "-sS", "--max-time", "20", "--proxy", "socks5h://"+addr, "-o", "/dev/null", "-w", "%{size_download}", "http://kitchen-pi/big").CombinedOutput()
	if err != nil || string(out) != "10485760" {
		t.Errorf("10 MiB: %s, %v", out, err)
	}
	// The reason for an unreachable host is in the answer.
	for host, want := range map[string]string{
		"attic": "502 weft: attic is offline, last seen yesterday", "vault": "403 weft: vault does not let laptop in",
		"slow": "504 weft: slow did not answer in time", "closed": "502 weft: closed refused the connection",
		"elsewhere": "502 weft: nobody can be asked", "nosuch.weft.internal": "502 weft: there is no device nosuch.weft.internal",
	} {
		out, err := exec.Command(curl, "-sS", "--max-time", "10", "--proxy", "http://"+addr, "-w", "%{http_code}", "http://"+host+"/").CombinedOutput()
		line, code, _ := strings.Cut(string(out), "\n")
		if got := code + " " + line; err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", host, got, err, want)
		}
	}
}

// socks connects with SOCKS5 and returns the connection and the reply code.
func socks(t testing.TB, proxy string, host string, port uint16) (net.Conn, socksReply) {
	t.Helper()
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	var b []byte
	if ip, err := netip.ParseAddr(host); err == nil {
		b = append([]byte{5, 1, 0, 5, 1, 0}, appendSOCKSAddr(nil, net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, port)))...)
		if ip.Is4In6() {
			b = append([]byte{5, 1, 0, 5, 1, 0, socksIPv6}, ip.AsSlice()...)
			b = binary.BigEndian.AppendUint16(b, port)
		}
	} else {
		b = append([]byte{5, 1, 0, 5, 1, 0, socksName, byte(len(host))}, host...)
		b = binary.BigEndian.AppendUint16(b, port)
	}
	c.Write(b)
	head := make([]byte, 2+4)
	if _, err := io.ReadFull(c, head); err != nil {
		t.Fatalf("%s: %v", host, err)
	}
	n := 4
	if head[5] == socksIPv6 {
		n = 16
	}
	if _, err := io.ReadFull(c, make([]byte, n+2)); err != nil {
		t.Fatalf("%s: %v", host, err)
	}
	return c, socksReply(head[3])
}

func TestSOCKSReplies(t *testing.T) {
	_, addr := start(t, Config{})
	for host, want := range map[string]socksReply{
		"attic": socksHostUnreachable, "vault": socksNotAllowed, "slow": socksExpired, "closed": socksRefused,
		"elsewhere": socksHostUnreachable, "nosuch.weft.internal": socksHostUnreachable, "a b": socksHostUnreachable, "-x": socksHostUnreachable,
		"": socksHostUnreachable,
	} {
		c, got := socks(t, addr, host, 80)
		c.Close()
		if got != want {
			t.Errorf("%q: reply %d, want %d", host, got, want)
		}
	}
}

// The proxy never dials these addresses, in whatever spelling. The listeners that must
// not be reached are real.
func TestForbidden(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	reached := make(chan struct{}, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			reached <- struct{}{}
			c.Close()
		}
	}()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	_, addr := start(t, Config{})
	for _, host := range []string{
		"127.0.0.1", "127.1.2.3", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1",
		"64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1",
		"169.254.169.254", "169.254.1.1", "fe80::1", "fd00:ec2::254", "168.63.129.16", "224.0.0.1", "255.255.255.255", "ff02::1",
		"64:ff9b::100.64.0.2", // the overlay in another notation
		"localhost", "LOCALHOST", "localhost.", "foo.localhost",
		"0x7f.1", "0x7f000001", "2130706433", "127.1", "0177.0.0.1", "127.0.0.1.", "0", "017700000001",
	} {
		c, got := socks(t, addr, host, port)
		c.Close()
		if got != socksNotAllowed {
			t.Errorf("SOCKS %s: reply %d, want %d", host, got, socksNotAllowed)
		}
		target := net.JoinHostPort(host, fmt.Sprint(port))
		for _, req := range []string{
			"CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n\r\n",
			"GET http://" + target + "/ HTTP/1.1\r\nHost: " + target + "\r\n\r\n",
		} {
			resp := ask(t, addr, req)
			if resp.StatusCode != http.StatusForbidden {
				t.Errorf("%.40q: %s, want 403", req, resp.Status)
			}
		}
	}
	select {
	case <-reached:
		t.Fatal("a connection reached loopback")
	default:
	}
}

// A name with a forbidden address is refused when the socket connects. The system's own
// host name may resolve to loopback; "ip6-localhost" and similar names are in
// /etc/hosts.
func TestForbiddenByName(t *testing.T) {
	p, _ := start(t, Config{})
	for _, address := range []string{"localhost:80", "ip6-localhost:80", "127.0.0.1:80", "[::1]:80"} {
		host, _, _ := net.SplitHostPort(address)
		if ips, err := net.LookupHost(host); err != nil || len(ips) == 0 {
			continue // this machine does not know the name
		}
		_, err := p.dialDirect(t.Context(), "tcp", address)
		if status.KindOf(err) != status.KindDenied {
			t.Errorf("%s: %v, want denied", address, err)
		}
		_, err = p.dialDirect(t.Context(), "udp", address)
		if status.KindOf(err) != status.KindDenied {
			t.Errorf("udp %s: %v, want denied", address, err)
		}
	}
	if _, err := p.dialDirect(t.Context(), "udp", "100.64.0.2:80"); status.KindOf(err) != status.KindDenied {
		t.Errorf("an overlay address went out directly: %v", err)
	}
}

// Path and query reach the device unchanged, and the answer has no headers that the
// device did not send.
func TestForwardKeepsRequest(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lines := make(chan string, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			br := bufio.NewReader(c)
			line, _ := br.ReadString('\n')
			for h := ""; h != "\r\n"; {
				if h, err = br.ReadString('\n'); err != nil {
					break
				}
			}
			lines <- strings.TrimSpace(line)
			io.WriteString(c, "HTTP/1.1 200 Fine\r\nX-Own: 1\r\nContent-Length: 7\r\nConnection: close\r\n\r\n<html>\n")
			c.Close()
		}
	}()
	_, addr := start(t, Config{Node: &fakeNode{target: map[string]string{"80": l.Addr().String()}}})
	for _, target := range []string{
		"/", "/?", "?", "?a=1", "", "/cgi?a=1&b=2", "/cgi?a=1;b=2", "/cgi?foo=bar;moo", "/set?level=100%", "/cgi?t=%zz&u=1", "/cgi?b=2&a=1;c=3",
		"/x?a=%u00e9", "/cgi?flag", "/cgi?=x", "/cgi?a=b=c", "/cgi?a=1&&b=2", "/cgi?a+b=c%20d", "/cgi?a?b", "/a%2Fb/c", "/a%2fb", "/a//b", "//a/b", "/a/../b",
		"/a/./b", "/a;v=1/b", "/it's(1)", "/%7Efile", "/caf%C3%A9", "/p|x", "/x?{\"a\":1}", "/a\"b", "/a[1]", "/a#b?c", "/http://b/?c",
	} {
		want := target
		if !strings.HasPrefix(want, "/") {
			want = "/" + want
		}
		resp := ask(t, addr, "GET http://kitchen-pi"+target+" HTTP/1.1\r\nHost: kitchen-pi\r\n\r\n")
		if resp.StatusCode != 200 {
			t.Errorf("%q: %s", target, resp.Status)
			continue
		}
		if got := <-lines; got != "GET "+want+" HTTP/1.1" {
			t.Errorf("asked for %q, the device got %q", target, got)
		}
		for name := range resp.Header {
			if name != "X-Own" && name != "Content-Length" && name != "Connection" {
				t.Errorf("%q: the answer has a %s header that the device did not send", target, name)
			}
		}
	}
}

// All other destinations are dialled as if there were no proxy.
func TestDirect(t *testing.T) {
	s := site(t)
	ap := netip.MustParseAddrPort(s.Listener.Addr().String())
	node := &fakeNode{}
	_, addr := start(t, Config{Node: node, exempt: func(a netip.AddrPort) bool { return a == ap }})
	u, _ := url.Parse("http://" + addr)
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(u)}}
	defer client.CloseIdleConnections()
	req, _ := http.NewRequest("GET", s.URL+"/x", nil)
	req.Header.Set("X-Forwarded-For", "1.2.3.4")
	req.Header.Set("Forwarded", "for=1.2.3.4")
	req.Header.Set("Proxy-Authorization", "Basic secret")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if want := "GET /x host=" + ap.String() + " body="; string(b) != want {
		t.Errorf("got %q, want %q", b, want)
	}
	c, code := socks(t, addr, ap.Addr().String(), ap.Port())
	defer c.Close()
	if code != socksOK {
		t.Errorf("SOCKS: %d", code)
	}
	if node.last() != "" {
		t.Errorf("went through the overlay: %s", node.last())
	}
}

// ask sends one raw request and reads the answer.
func ask(t testing.TB, addr, request string) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, request)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return resp
}

// A web page can make a browser send these.
func TestOriginFormRefused(t *testing.T) {
	_, addr := start(t, Config{})
	for _, req := range []string{
		"GET / HTTP/1.1\r\nHost: kitchen-pi\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: 127.0.0.1:1055\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: kitchen-pi\r\nContent-Length: 1\r\n\r\nx",
		"OPTIONS * HTTP/1.1\r\nHost: kitchen-pi\r\n\r\n",
		"GET https://kitchen-pi/ HTTP/1.1\r\nHost: kitchen-pi\r\n\r\n",
		"GET ftp://kitchen-pi/ HTTP/1.1\r\nHost: kitchen-pi\r\n\r\n",
		"GET file:///etc/passwd HTTP/1.1\r\nHost: kitchen-pi\r\n\r\n",
		"GET http://user:pw@kitchen-pi/ HTTP/1.1\r\nHost: kitchen-pi\r\n\r\n",
		"CONNECT kitchen-pi HTTP/1.1\r\nHost: kitchen-pi\r\n\r\n",
		"CONNECT kitchen-pi:0 HTTP/1.1\r\nHost: kitchen-pi\r\n\r\n",
		"CONNECT / HTTP/1.1\r\nHost: kitchen-pi\r\n\r\n",
	} {
		resp := ask(t, addr, req)
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%.40q: %s, want 400", req, resp.Status)
		}
		if resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%.40q: lets other origins read", req)
		}
	}
}

func TestListenLoopbackOnly(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0", "100.64.0.1:0", "1055", "127.0.0.1"} {
		if l, err := Listen(addr); err == nil {
			l.Close()
			t.Errorf("%s: listens", addr)
		}
	}
	for _, addr := range []string{"127.0.0.1:0", "localhost:0", "[::ffff:127.0.0.1]:0"} {
		l, err := Listen(addr)
		if err != nil {
			t.Errorf("%s: %v", addr, err)
			continue
		}
		if ip := l.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
			t.Errorf("%s: listens on %v", addr, ip)
		}
		l.Close()
	}
}

// A connection that comes from the overlay does not leave through the proxy, so no loop
// can form.
func TestFromOverlayRefused(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // no source addresses of peers on this system
	}
	_, addr := start(t, Config{})
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 64, 0, 2)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	c.Write([]byte{5, 1, 0})
	if _, err := c.Read(make([]byte, 2)); err == nil {
		t.Fatal("a connection from the overlay was served")
	} else if isTimeout(err) {
		t.Fatal("a connection from the overlay was left hanging")
	}
}

// An idle client is closed, even in the middle of a request.
func TestIdleClosed(t *testing.T) {
	_, addr := start(t, Config{IdleTimeout: 100 * time.Millisecond})
	for _, sent := range []string{"", "\x05", "\x05\x02\x00", "\x05\x01\x00\x05\x01\x00\x03\x09kit", "G", "GET http://kitchen-pi/ HTTP/1.1\r\nA: b"} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, sent)
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, c); isTimeout(err) {
			t.Errorf("%q: still open", sent)
		}
		c.Close()
	}
}

// Beyond the bound connections are closed at once, and slots are released.
func TestConnsBounded(t *testing.T) {
	s := site(t)
	node := &fakeNode{target: map[string]string{"80": s.Listener.Addr().String()}}
	_, addr := start(t, Config{Node: node, MaxConns: 8})
	var open []net.Conn
	for range 20 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	closed := 0
	for _, c := range open[8:] {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err != nil && !isTimeout(err) {
			closed++
		}
	}
	if closed != 12 {
		t.Errorf("%d of 12 connections beyond the cap were closed", closed)
	}
	for _, c := range open {
		c.Close()
	}
	end := time.Now().Add(5 * time.Second)
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.SetDeadline(time.Now().Add(time.Second))
			c.Write([]byte{5, 1, 0})
			_, err = io.ReadFull(c, make([]byte, 2))
			c.Close()
		}
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the slots were not released")
		}
	}
}

// Thousands of malformed greetings leave nothing behind.
func TestGarbage(t *testing.T) {
	_, addr := start(t, Config{IdleTimeout: 2 * time.Second})
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			b := make([]byte, 300)
			for i := range 200 {
				rand.Read(b)
				if i%2 == 0 {
					copy(b, []byte{5, 1, 0, 5})
				}
				c, err := net.Dial("tcp", addr)
				if err != nil {
					continue
				}
				c.Write(b[:1+int(b[299])])
				c.(*net.TCPConn).CloseWrite()
				c.SetDeadline(time.Now().Add(5 * time.Second))
				if _, err := io.Copy(io.Discard, c); isTimeout(err) {
					t.Errorf("%x: still open", b)
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	end := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before+20 {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		time.Sleep(20 * time.Millisecond)
	}
	c, code := socks(t, addr, "attic", 80)
	c.Close()
	if code != socksHostUnreachable {
		t.Errorf("after the garbage: reply %d", code)
	}
}

func TestNoPasswordMethodRefused(t *testing.T) {
	_, addr := start(t, Config{})
	for req, want := range map[string]string{
		"\x05\x01\x02":                                         "\x05\xff",
		"\x04\x01\x00\x50\x01\x02\x03\x04x\x00":                "\x00\x5b\x00\x00\x00\x00\x00\x00",
		"\x05\x01\x00\x05\x02\x00\x01\x01\x02\x03\x04\x00\x50": "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00", // BIND
		"\x05\x01\x00\x05\x01\x00\x09\x01\x02\x03\x04\x00\x50": "\x05\x00\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00",
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, req)
		c.SetDeadline(time.Now().Add(5 * time.Second))
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Errorf("%x: got %x, %v; want %x", req, got, err, want)
		}
		c.Close()
	}
}

// "Send, close, read the answer" works through each kind of tunnel.
func TestHalfClose(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				fmt.Fprintf(c, "got %d", len(b))
			}()
		}
	}()
	_, addr := start(t, Config{Node: &fakeNode{target: map[string]string{"7": l.Addr().String()}}})
	tunnel := func(connect bool) net.Conn {
		if !connect {
			c, code := socks(t, addr, "kitchen-pi", 7)
			if code != socksOK {
				t.Fatalf("reply %d", code)
			}
			return c
		}
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		// Data that follows the request early must not get lost.
		io.WriteString(c, "CONNECT kitchen-pi:7 HTTP/1.1\r\nHost: kitchen-pi:7\r\n\r\nearly")
		c.SetDeadline(time.Now().Add(10 * time.Second))
		const want = "HTTP/1.1 200 Connection established\r\n\r\n"
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Fatalf("%q, %v", got, err)
		}
		return c
	}
	for connect, want := range map[bool]string{false: "got 1000000", true: "got 1000005"} {
		c := tunnel(connect)
		c.Write(make([]byte, 1_000_000))
		c.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(c); err != nil || string(b) != want {
			t.Errorf("connect %v: %q, %v; want %q", connect, b, err, want)
		}
		c.Close()
	}
}

// Close of the proxy ends open tunnels and waits.
func TestCloseEndsTunnels(t *testing.T) {
	s := site(t)
	p, addr := start(t, Config{Node: &fakeNode{target: map[string]string{"80": s.Listener.Addr().String()}}})
	c, code := socks(t, addr, "kitchen-pi", 80)
	defer c.Close()
	if code != socksOK {
		t.Fatalf("reply %d", code)
	}
	p.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Fatalf("read after Close: %v", err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Fatal("still listens after Close")
	}
}

// TestUDPAssociate sends datagrams through the overlay and directly.
func TestUDPAssociate(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(append([]byte("re: "), buf[:n]...), from)
		}
	}()
	ap := netip.MustParseAddrPort(pc.LocalAddr().String())
	node := &fakeNode{target: map[string]string{"53": ap.String()}}
	p, addr := start(t, Config{Node: node, exempt: func(a netip.AddrPort) bool { return a == ap }})

	tc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer tc.Close()
	tc.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(tc, "\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00")
	reply := make([]byte, 2+10)
	if _, err := io.ReadFull(tc, reply); err != nil || reply[3] != 0 {
		t.Fatalf("%x, %v", reply, err)
	}
	bound := netip.AddrPortFrom(netip.AddrFrom4([4]byte(reply[6:10])), binary.BigEndian.Uint16(reply[10:]))
	if !bound.Addr().IsLoopback() {
		t.Fatalf("the UDP socket is at %v", bound)
	}
	uc, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(bound))
	if err != nil {
		t.Fatal(err)
	}
	defer uc.Close()
	uc.SetDeadline(time.Now().Add(10 * time.Second))

	name := append([]byte{0, 0, 0, socksName, 10}, "kitchen-pi\x00\x35hello"...)
	direct := append(appendSOCKSAddr([]byte{0, 0, 0}, net.UDPAddrFromAddrPort(ap)), "hello"...)
	head := appendSOCKSAddr([]byte{0, 0, 0}, net.UDPAddrFromAddrPort(ap))
	buf := make([]byte, 2000)
	for _, msg := range [][]byte{name, direct} {
		uc.Write(msg)
		n, err := uc.Read(buf)
		if err != nil || !bytes.Equal(buf[:n], append(head, "re: hello"...)) {
			t.Fatalf("got %q, %v", buf[:n], err)
		}
	}
	if node.last() != "udp kitchen-pi:53" {
		t.Errorf("through the overlay: %q", node.last())
	}

	// Other sockets, fragments, invalid datagrams and forbidden addresses get no
	// answer.
	other, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(bound))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.Write(name)
	frag := append([]byte(nil), name...)
	frag[2] = 1
	uc.Write(frag)
	uc.Write([]byte{0, 0})
	uc.Write(append(appendSOCKSAddr([]byte{0, 0, 0}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}), 'x'))
	uc.Write(name)
	if n, err := uc.Read(buf); err != nil || !bytes.HasSuffix(buf[:n], []byte("re: hello")) {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	other.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := other.Read(buf); err == nil {
		t.Error("another socket was answered")
	}

	// The association ends with its TCP connection, and with the proxy.
	tc.Close()
	p.Close()
	uc.Write(name)
	if _, err := uc.Read(buf); err == nil {
		t.Error("the association outlived the proxy")
	}
}

// A dial is canceled when its client is gone.
func TestClientGoneCancelsDial(t *testing.T) {
	gone := make(chan struct{})
	p, addr := start(t, Config{Node: &hangingNode{ended: gone}})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.Write(append([]byte{5, 1, 0, 5, 1, 0, socksName, 10}, "kitchen-pi\x00\x50"...))
	io.ReadFull(c, make([]byte, 2))
	c.Close()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Fatal("the dial goes on")
	}
	p.Close()
}

type hangingNode struct {
	fakeNode
	ended chan struct{}
}

func (n *hangingNode) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	close(n.ended)
	return nil, ctx.Err()
}

func TestKindOf(t *testing.T) {
	for want, err := range map[status.Kind]error{
		status.KindRefused:     &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
		status.KindUnreachable: &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH},
		status.KindUnknown:     &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}},
		status.KindTimeout:     &net.OpError{Op: "dial", Err: context.DeadlineExceeded},
		status.KindDenied:      &net.OpError{Op: "dial", Err: refused("x")},
	} {
		if got := kindOf(err); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}

func FuzzSOCKSGreeting(f *testing.F) {
	f.Add([]byte("\x01\x00\x05\x01\x00\x03\x0akitchen-pi\x00\x50"))
	f.Add([]byte("\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50"))
	f.Add([]byte("\x02\x00\x02\x05\x03\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50"))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := readSOCKS(bytes.NewReader(b), io.Discard)
		if err == nil && len(req.host) > 255 {
			t.Fatalf("a host of %d bytes", len(req.host))
		}
	})
}

func FuzzSOCKSDatagram(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x03\x0akitchen-pi\x00\x50payload"))
	f.Add([]byte("\x00\x00\x00\x01\x7f\x00\x00\x01\x00\x50"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, payload, ok := parseUDP(b); ok && len(payload) > len(b) {
			t.Fatal("more payload than datagram")
		}
	})
}

// FuzzHTTP feeds whole connections: none may panic or reach loopback.
func FuzzHTTP(f *testing.F) {
	f.Add([]byte("CONNECT kitchen-pi:80 HTTP/1.1\r\nHost: kitchen-pi:80\r\n\r\nx"))
	f.Add([]byte("GET http://kitchen-pi/ HTTP/1.1\r\nHost: a\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"))
	f.Add([]byte("POST http://[::1]:0x50/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"))
	p := New(Config{Node: &refusingNode{}, IdleTimeout: time.Second, DialTimeout: time.Second, offline: true})
	f.Cleanup(func() { p.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || b[0] < 'A' || b[0] > 'Z' {
			return
		}
		c, s := net.Pipe()
		go io.Copy(io.Discard, c)
		go func() { c.Write(b[1:]); c.Close() }()
		p.http.serve(&sniffed{Conn: s, first: b[:1]})
	})
}

// refusingNode claims every name and connects to nothing.
type refusingNode struct{}

func (*refusingNode) Names() *status.Names {
	return &status.Names{Ready: true, Suffix: "x", IPv4: netip.MustParsePrefix("0.0.0.0/0"), IPv6: netip.MustParsePrefix("::/0")}
}
func (*refusingNode) Resolve(context.Context, string) (status.Peer, error) {
	return status.Peer{}, nil
}
func (*refusingNode) DialContext(context.Context, string, string) (net.Conn, error) {
	return nil, &status.Error{Kind: status.KindRefused, Message: "refused"}
}
