package coord

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weft/coord/ops"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/release"
)

const attackedFile = "weft-linux-amd64"

// released makes a release of one large file in dir.
func released(t testing.TB, dir string, size int) {
	t.Helper()
	_, key, _ := ed25519.GenerateKey(nil)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, attackedFile)
	if err := os.WriteFile(path, make([]byte, size), 0o755); err != nil {
		t.Fatal(err)
	}
	n, sum, err := release.Sum(path)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(release.Manifest{Schema: release.Schema, Version: "1", Files: []release.File{{Name: attackedFile, Program: "weft", OS: "linux", Arch: "amd64", Kind: "binary", Size: n, SHA256: sum}}})
	for name, b := range map[string][]byte{release.SignatureName: release.Sign(key, b), release.KeyName: release.EncodeKey(key.Public().(ed25519.PublicKey)), release.ManifestName: b} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAttackedProcess is no test: it is the server of TestWindowsOfZero, in a
// process of its own, until its stdin is closed.
func TestAttackedProcess(t *testing.T) {
	data := os.Getenv("WEFT_TEST_ATTACKED")
	if data == "" {
		return
	}
	s := startServer(t, func(o *ServerOptions) { o.Data = data })
	w, err := s.Welcome(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("\nSERVES %s %s\n", s.Addr(), w.Token)
	io.Copy(io.Discard, os.Stdin)
}

// attacked is a server in a process of its own.
type attacked struct {
	t     *testing.T
	pid   int
	addr  string
	token cert.Token
}

func startAttacked(t *testing.T) *attacked {
	t.Helper()
	data := t.TempDir()
	released(t, filepath.Join(data, "releases"), 12<<20)
	cmd := exec.Command(os.Args[0], "-test.run=^TestAttackedProcess$")
	cmd.Env = append(os.Environ(), "WEFT_TEST_ATTACKED="+data)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	a := &attacked{t: t, pid: cmd.Process.Pid}
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) == 3 && f[0] == "SERVES" {
			a.addr = f[1]
			if a.token, err = cert.ParseToken(f[2]); err != nil {
				t.Fatal(err)
			}
			go io.Copy(io.Discard, stdout)
			return a
		}
	}
	t.Fatal("the server did not start")
	return nil
}

// uses says what the process has of memory (bytes) and files; zero where there is
// no way to know.
func (a *attacked) uses() (rss int64, files int) {
	if runtime.GOOS != "linux" {
		return 0, 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", a.pid))
	if err != nil {
		a.t.Fatal(err)
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.pid))
	if err != nil {
		a.t.Fatal(err)
	}
	return pages * int64(os.Getpagesize()), len(list)
}

// from is a net.Dialer of one of the many addresses that loopback has.
func from(ip string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: 20 * time.Second}
}

// browser is an HTTP client at an address.
func browserAt(t testing.TB, ip string) *http.Client {
	jar, _ := cookiejar.New(nil)
	tr := &http.Transport{
		DialContext:       from(ip).DialContext,
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Jar: jar, Timeout: 20 * time.Second}
}

// stall opens an HTTP/2 connection whose windows are 0 and asks for a path n
// times. What comes back is counted.
func stall(d *net.Dialer, addr, path string, n int, answers *atomic.Int64) (net.Conn, error) {
	raw, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if err := c.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	var head, out bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", addr}, {":path", path}} {
		enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true})
	}
	out.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&out, c)
	fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	for i := range n {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true})
	}
	if _, err := c.Write(out.Bytes()); err != nil {
		raw.Close()
		return nil, err
	}
	go func() {
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			if _, ok := f.(*http2.HeadersFrame); ok {
				answers.Add(1)
			}
		}
	}()
	c.SetDeadline(time.Time{})
	return c, nil
}

// 80 connections without any right, with 250 requests each whose answers they do
// not read, take neither memory nor files, and keep nobody else from the console,
// or from joining.
func TestWindowsOfZero(t *testing.T) {
	for name, path := range map[string]string{"install": "/install/" + attackedFile, "static": "/static/htmx-4.0.1.min.js"} {
		for _, many := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/many addresses=%v", name, many), func(t *testing.T) {
				testWindowsOfZero(t, path, many)
			})
		}
	}
}

func testWindowsOfZero(t *testing.T, path string, many bool) {
	a := startAttacked(t)
	person := browserAt(t, "127.0.0.9")
	get := func(path string) {
		t.Helper()
		res, err := person.Get("https://" + a.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || len(b) == 0 {
			t.Fatalf("%s: %s, %d bytes, %v", path, res.Status, len(b), err)
		}
	}
	get("/sign-in")
	before, filesBefore := a.uses()

	conns, per := 80, 1
	if many {
		conns, per = 1000, 20
	}
	var answers atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	next := make(chan int)
	for range 50 {
		wg.Go(func() {
			for i := range next {
				d := from("127.0.1.1")
				if many {
					d = from(fmt.Sprintf("127.0.2.%d", 1+i/per))
				}
				if c, err := stall(d, a.addr, path, 250, &answers); err == nil {
					mu.Lock()
					open = append(open, c)
					mu.Unlock()
				}
			}
		})
	}
	for i := range conns {
		next <- i
	}
	close(next)
	wg.Wait()
	waitFor(t, "the attack to be on", func() bool { return answers.Load() >= 32 })
	get("/sign-in")
	get(path)
	key, _ := cert.NewKey()
	shown, _ := cert.SelfSigned(key)
	csr, _ := cert.NewCSR(key)
	res, err := dial(t, a.token, func() *tls.Certificate { return &shown }).Join(t.Context(), api.JoinRequest{Protocol: api.Protocol, Secret: a.token.Secret, CSR: csr, Hostname: "kitchen-pi"})
	if err != nil {
		t.Fatal("join:", err)
	}
	node := tls.Certificate{Certificate: [][]byte{res.Certificate}, PrivateKey: key}
	roots, err := cert.NewServerRoots([]cert.Pin{a.token.Server}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &link.Dialer{Roots: func() *cert.ServerRoots { return roots }, Identity: func() *tls.Certificate { return &node }}
	tc, err := d.DialRelay(t.Context(), "", "https://"+a.addr)
	if err != nil {
		t.Fatal("relay:", err)
	}
	defer link.CloseNow(tc)
	tc.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := tc.Read(make([]byte, 100)); err != nil {
		t.Fatal("relay says nothing:", err)
	}

	after, files := a.uses()
	t.Logf("%d connections: RSS %d -> %d MB, files %d -> %d, %d answers begun", len(open), before>>20, after>>20, filesBefore, files, answers.Load())
	if grown, most := after-before, int64(64<<20); !raceEnabled && (!many && grown > most || grown > 4*most) {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
	if files > filesBefore+1000 {
		t.Errorf("%d files are open", files)
	}
}

// A page of a signed-in person stays live for longer than a response may go
// unread, over HTTP/1 and HTTP/2; who reads slowly gets what they asked for; and
// who does not is cut off.
func TestRollingDeadlines(t *testing.T) {
	// The timeout is long next to what a busy machine keeps one of the two ends waiting.
	const timeout, size = 2 * time.Second, 12 << 20
	data := t.TempDir()
	released(t, filepath.Join(data, "releases"), size)
	s := startServer(t, func(o *ServerOptions) { o.Data, o.siteTimeout = data, timeout })
	for name, c := range map[string]struct {
		base  string
		major int
	}{"plain": {s.ConsoleURL(), 1}, "HTTP/1": {"https://" + s.Addr().String(), 1}, "HTTP/2": {"https://" + s.Addr().String(), 2}} {
		user := strings.ToLower(strings.ReplaceAll(name, "/", "")) // sees its own devices
		if _, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.CreateUser{Name: user}); err != nil {
			t.Fatal(err)
		}
		person := browserAt(t, "127.0.0.3")
		person.Timeout = 0
		person.Transport.(*http.Transport).ForceAttemptHTTP2 = c.major == 2
		signIn(t, s, user, person, c.base)
		t.Run("events over "+name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "GET", c.base+"/events", nil)
			res, err := person.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusOK || res.ProtoMajor != c.major {
				t.Fatal(res.Status, res.Proto)
			}
			lines := bufio.NewScanner(res.Body)
			event := func() string {
				for lines.Scan() {
					if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok && name != "pulse" {
						return name
					}
				}
				t.Fatal("the stream ended: ", lines.Err())
				return ""
			}
			if e := event(); e != "resync" {
				t.Error(e)
			}
			<-time.After(4 * timeout) // what would end it ends it within this
			join(t, s, user)
			if e := event(); !strings.HasPrefix(e, "device") && !strings.HasPrefix(e, "key") {
				t.Error(e)
			}
		})
	}
	for _, major := range []int{1, 2} {
		t.Run(fmt.Sprintf("download over HTTP/%d", major), func(t *testing.T) {
			t.Parallel()
			tr := &http.Transport{
				TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
				ForceAttemptHTTP2: major == 2,
				DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					c, err := from("127.0.0.4").DialContext(ctx, network, addr)
					if err == nil {
						c.(*net.TCPConn).SetReadBuffer(128 << 10) // it would grow
					}
					return c, err
				},
			}
			defer tr.CloseIdleConnections()
			res, err := (&http.Client{Transport: tr}).Get("https://" + s.Addr().String() + "/install/" + attackedFile)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			n, start := 0, time.Now()
			buf := make([]byte, 64<<10)
			for tick := time.NewTicker(timeout / 40); err == nil; <-tick.C {
				var m int
				m, err = io.ReadFull(res.Body, buf)
				n += m
			}
			if err != io.EOF && err != io.ErrUnexpectedEOF || n != size || res.ProtoMajor != major {
				t.Errorf("%d bytes, %v over %s", n, err, res.Proto)
			}
			if d := time.Since(start); d < 4*timeout {
				t.Errorf("it took %s, which proves nothing", d)
			}
		})
	}
	t.Run("unread", func(t *testing.T) {
		t.Parallel()
		var answers atomic.Int64
		c, err := stall(from("127.0.0.5"), s.Addr().String(), "/install/"+attackedFile, 4, &answers)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		waitFor(t, "the requests to be taken", func() bool { return answers.Load() == 4 })
		waitFor(t, "the requests to be given up", func() bool { return openFiles(t, attackedFile) == 0 })
	})
}

func waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain for " + what)
		}
	}
}

// openFiles counts the files of a name that this process has open; 0 where there
// is no way to know.
func openFiles(t testing.TB, name string) (n int) {
	if runtime.GOOS != "linux" {
		return 0
	}
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && filepath.Base(to) == name {
			n++
		}
	}
	return n
}

// signIn makes a person's client signed in at base.
func signIn(t testing.TB, s *Server, user string, person *http.Client, base string) {
	t.Helper()
	raw, err := ops.Do(t.Context(), s.Service, ops.Root(), ops.CreateLink{User: user})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	res, err := person.PostForm(base+"/welcome", url.Values{"link": {u.Query().Get("link")}, "password": {"correct horse battery"}})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != http.StatusOK || res.Request.URL.Path != "/devices" {
		t.Fatalf("sign in: %s at %s: %s", res.Status, res.Request.URL, b)
	}
}

// join makes a device of a user, with the same name.
func join(t testing.TB, s *Server, name string) {
	t.Helper()
	tok, err := newToken(t.Context(), s.Service, ops.CreateKey{User: name, Tags: []string{"device"}})
	if err != nil {
		t.Fatal(err)
	}
	key, _ := cert.NewKey()
	shown, _ := cert.SelfSigned(key)
	csr, _ := cert.NewCSR(key)
	if _, err := dial(t, tok, func() *tls.Certificate { return &shown }).Join(t.Context(), api.JoinRequest{Protocol: api.Protocol, Secret: tok.Secret, CSR: csr, Hostname: name}); err != nil {
		t.Fatal(err)
	}
}
