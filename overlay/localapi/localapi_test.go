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
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/overlay/netcheck"
	"weft/overlay/status"
	"weft/overlay/stun"
)

// nobody is the user id of the helper process.
const nobody = 65534

// TestMain is also the helper that connects to a socket as another user.
func TestMain(m *testing.M) {
	if path := os.Getenv("WEFT_TEST_AS_NOBODY"); path != "" {
		c := NewClient(path)
		fmt.Println(status.KindOf(c.Health(context.Background())), status.KindOf(c.Down(context.Background())))
		_, err := c.DialContext(context.Background(), "tcp", "kitchen-pi:80")
		fmt.Println(status.KindOf(err))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// testNode returns what a test sets.
type testNode struct {
	Node
	status status.Status
	err    error
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	downs  int
	looked []string // names
	block  bool
	ended  chan struct{} // closed when a blocked Ask ends
}

func (n *testNode) Status() status.Status { return n.status }
func (n *testNode) Look(_ context.Context, name string) (status.Status, error) {
	n.looked = append(n.looked, name)
	return n.status, n.err
}
func (n *testNode) Up(context.Context, string) error { return n.err }
func (n *testNode) Ask(ctx context.Context, server, fingerprint string, shown func(status.Asked)) error {
	shown(status.Asked{Code: "BCDFG-HJKLM", URL: server + "/approve", Fingerprint: fingerprint})
	if n.block {
		<-ctx.Done()
		close(n.ended)
		return ctx.Err()
	}
	return n.err
}
func (n *testNode) Down(context.Context) error { n.downs++; return n.err }
func (n *testNode) Names() *status.Names       { return nil }
func (n *testNode) Relays() []status.Relay     { return nil }
func (n *testNode) Wait(ctx context.Context, name string) error {
	if n.block {
		<-ctx.Done()
		return ctx.Err()
	}
	return n.err
}
func (n *testNode) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if n.err != nil {
		return nil, n.err
	}
	return n.dial(ctx, network, address)
}

// What a device shows while it waits arrives at once, before the end, and who goes away
// ends the waiting.
func TestAsk(t *testing.T) {
	n := &testNode{status: status.Status{State: status.StateRunning}}
	c, _ := serve(t, n)
	var shown []status.Asked
	st, err := c.Ask(t.Context(), "https://vpn.example", "AB", func(a status.Asked) { shown = append(shown, a) })
	if err != nil || st.State != status.StateRunning || len(shown) != 1 || shown[0].URL != "https://vpn.example/approve" || shown[0].Fingerprint != "AB" {
		t.Errorf("%+v, %+v, %v", st, shown, err)
	}
	n.err = &status.Error{Kind: status.KindDenied, Message: "denied", Hint: "ask"}
	var e *status.Error
	if _, err := c.Ask(t.Context(), "x", "", func(status.Asked) {}); !errors.As(err, &e) || *e != (status.Error{Kind: status.KindDenied, Message: "denied", Hint: "ask"}) {
		t.Errorf("%v", err)
	}
	n.block, n.ended = true, make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.Ask(ctx, "x", "", func(status.Asked) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	select {
	case <-n.ended:
	case <-time.After(10 * time.Second):
		t.Error("the daemon goes on waiting")
	}
}

// serve starts a server for node on a fresh socket.
func serve(t testing.TB, node Node) (*Client, *Server) {
	t.Helper()
	dir, err := os.MkdirTemp("", "weft") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(filepath.Join(dir, "d", "s"), "")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(ServerConfig{Node: node})
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		os.RemoveAll(dir)
	})
	return NewClient(filepath.Join(dir, "d", "s")), s
}

// echo returns the received data once the client has sent everything.
func echo(t testing.TB) func(ctx context.Context, network, address string) (net.Conn, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); pc.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				c.Write(b)
			}()
		}
	}()
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(buf[:n], from)
		}
	}()
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		if network == "udp" {
			return d.DialContext(ctx, "udp", pc.LocalAddr().String())
		}
		return d.DialContext(ctx, network, l.Addr().String())
	}
}

// Scripts rely on this table of exit codes.
func TestExitCodes(t *testing.T) {
	for kind, want := range map[status.Kind]int{
		status.KindFailed: 1, status.KindUsage: 2, status.KindNoDaemon: 3, status.KindNotJoined: 4, status.KindApproval: 4, status.KindUnknown: 5,
		status.KindUnavailable: 5, status.KindUnreachable: 5, status.KindRefused: 5, status.KindDenied: 6, status.KindTimeout: 7, "later": 1,
	} {
		if got := kind.ExitCode(); got != want {
			t.Errorf("%s: %d, want %d", kind, got, want)
		}
	}
	if k := status.KindOf(fmt.Errorf("dial: %w", context.DeadlineExceeded)); k != status.KindTimeout {
		t.Errorf("deadline: %s", k)
	}
	if k := status.KindOf(nil); k != "" {
		t.Errorf("nil: %s", k)
	}
}

// The socket's mode is private, and other users are refused even where modes fail.
func TestSocketIsPrivate(t *testing.T) {
	node := &testNode{dial: echo(t)}
	c, s := serve(t, node)
	for path, want := range map[string]os.FileMode{c.Path(): 0o600, filepath.Dir(c.Path()): 0o700, c.Path() + ".lock": 0o600} {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, fi.Mode().Perm(), want)
		}
	}
	if err := c.Health(t.Context()); err != nil {
		t.Fatalf("own user: %v", err)
	}

	if os.Getuid() != 0 {
		// The test runs without root: try another user's daemon, the check is the same.
		s.uid++
		c = NewClient(c.Path())
		if k := status.KindOf(c.Down(t.Context())); k != status.KindDenied {
			t.Fatalf("another user's call: %q, want denied", k)
		}
		return
	}
	// The modes are relaxed on purpose; the helper's binary must be reachable.
	dir := filepath.Dir(filepath.Dir(c.Path()))
	exe := filepath.Join(dir, "helper")
	b, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(exe, b, 0o755)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o755, filepath.Dir(c.Path()): 0o755, c.Path(): 0o666} {
		if err == nil {
			err = os.Chmod(path, mode)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = []string{"WEFT_TEST_AS_NOBODY=" + c.Path()}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := strings.Fields(string(out)); len(got) != 3 || got[0] != "denied" || got[1] != "denied" || got[2] != "denied" {
		t.Fatalf("as nobody: %q, want denied three times", out)
	}
	if node.downs != 0 {
		t.Fatal("nobody stopped the daemon")
	}
}

// No socket is made at these paths.
func TestListenRefuses(t *testing.T) {
	dir, err := os.MkdirTemp("", "weft")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)

	file := filepath.Join(dir, "file")
	os.WriteFile(file, []byte("precious"), 0o600)
	if _, err := Listen(file, ""); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file in the way: %v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Error("the file in the way was changed")
	}

	open := filepath.Join(dir, "open")
	os.Mkdir(open, 0o777)
	os.Chmod(open, 0o777)
	if _, err := Listen(filepath.Join(open, "s"), ""); err == nil || !strings.Contains(err.Error(), "writable by others") {
		t.Errorf("a directory that others can write to: %v", err)
	}

	victim := filepath.Join(dir, "victim")
	os.WriteFile(victim, nil, 0o600)
	if err := os.Symlink(victim, filepath.Join(dir, "l.lock")); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(dir, "l"), ""); err == nil {
		t.Error("a lock file that is a symbolic link was followed")
	}
}

// The lock decides whether a socket is a leftover.
func TestListenReplacesLeftovers(t *testing.T) {
	dir, err := os.MkdirTemp("", "weft")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	// kill -9 leaves the socket and the lock file behind, without a lock.
	left, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()
	os.WriteFile(path+".lock", nil, 0o600)

	l, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, ""); !errors.Is(err, ErrInUse) {
		t.Fatalf("second daemon: %v, want ErrInUse", err)
	}
	l.Close()
	for _, p := range []string{path, path + ".lock"} {
		if _, err := os.Lstat(p); err == nil {
			t.Errorf("%s is still there after Close", p)
		}
	}
	l, err = Listen(path, "")
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	l.Close()
}

// raw sends one request unchanged and returns status and headers.
func raw(t *testing.T, path, request string) *http.Response {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(c)
	resp, err := http.ReadResponse(newReader(b), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	return resp
}

// These requests can come from a browser.
func TestForeignRequestsRefused(t *testing.T) {
	node := &testNode{}
	c, _ := serve(t, node)
	const json = "Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
	for name, request := range map[string]string{
		"evil host":       "POST /v1/down HTTP/1.1\r\nHost: evil.com\r\n" + json,
		"nip.io":          "POST /v1/down HTTP/1.1\r\nHost: 127.0.0.1.nip.io\r\n" + json,
		"loopback":        "POST /v1/down HTTP/1.1\r\nHost: 127.0.0.1\r\n" + json,
		"localhost":       "POST /v1/down HTTP/1.1\r\nHost: localhost\r\n" + json,
		"overlay address": "POST /v1/down HTTP/1.1\r\nHost: 100.64.0.1\r\n" + json,
		"with a port":     "POST /v1/down HTTP/1.1\r\nHost: weft.local:80\r\n" + json,
		"empty host":      "POST /v1/down HTTP/1.1\r\nHost:\r\n" + json,
		"absolute form":   "POST http://weft.local/v1/down HTTP/1.1\r\nHost: weft.local\r\n" + json,
		"origin":          "POST /v1/down HTTP/1.1\r\nHost: weft.local\r\nOrigin: http://weft.local\r\n" + json,
		"origin null":     "POST /v1/down HTTP/1.1\r\nHost: weft.local\r\nOrigin: null\r\n" + json,
		"empty origin":    "POST /v1/down HTTP/1.1\r\nHost: weft.local\r\nOrigin:\r\n" + json,
		"referer":         "POST /v1/down HTTP/1.1\r\nHost: weft.local\r\nReferer: http://weft.local/\r\n" + json,
		"form":            "POST /v1/down HTTP/1.1\r\nHost: weft.local\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
		"text":            "POST /v1/down HTTP/1.1\r\nHost: weft.local\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
		"no type":         "POST /v1/down HTTP/1.1\r\nHost: weft.local\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
		"origin, read":    "GET /v1/status HTTP/1.1\r\nHost: weft.local\r\nOrigin: http://a\r\nConnection: close\r\n\r\n",
		"preflight":       "OPTIONS /v1/down HTTP/1.1\r\nHost: weft.local\r\nOrigin: http://a\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n",
	} {
		resp := raw(t, c.Path(), request)
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s, want 403", name, resp.Status)
		}
		for h := range resp.Header {
			if strings.HasPrefix(h, "Access-Control-") {
				t.Errorf("%s: answered with %s", name, h)
			}
		}
	}
	if resp := raw(t, c.Path(), "GET /v1/down HTTP/1.1\r\nHost: weft.local\r\nConnection: close\r\n\r\n"); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET of a verb: %s, want 405", resp.Status)
	}
	for _, path := range []string{"/", "/v1/down/", "//v1/down", "/v1/nosuch"} {
		if resp := raw(t, c.Path(), "POST "+path+" HTTP/1.1\r\nHost: weft.local\r\n"+json); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s, want 404", path, resp.Status)
		}
	}
	if node.downs != 0 {
		t.Fatal("a foreign request stopped the daemon")
	}
	if resp := raw(t, c.Path(), "POST /v1/down HTTP/1.1\r\nHost: weft.local\r\n"+json); resp.StatusCode != http.StatusNoContent || node.downs != 1 {
		t.Fatalf("the same request from weft: %s", resp.Status)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	c, _ := serve(t, &testNode{})
	big := `{"token":"` + strings.Repeat("x", MaxBody) + `"}`
	resp := raw(t, c.Path(), fmt.Sprintf("POST /v1/up HTTP/1.1\r\nHost: weft.local\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(big), big))
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%s, want 413", resp.Status)
	}
	deep := strings.Repeat("[", 20000)
	for _, body := range []string{"", "{", "null garbage", deep, `{"token":1}`} {
		resp := raw(t, c.Path(), fmt.Sprintf("POST /v1/up HTTP/1.1\r\nHost: weft.local\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body))
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("body %.20q: %s, want 400", body, resp.Status)
		}
	}
}

func TestErrorsCross(t *testing.T) {
	node := &testNode{}
	c, _ := serve(t, node)
	for _, kind := range []status.Kind{status.KindFailed, status.KindNotJoined, status.KindApproval, status.KindUnknown, status.KindUnavailable, status.KindUnreachable, status.KindRefused, status.KindDenied, status.KindTimeout} {
		want := &status.Error{Kind: kind, Message: "what and why", Hint: "next"}
		node.err = fmt.Errorf("wrapped: %w", want)
		var got *status.Error
		if err := c.Down(t.Context()); !errors.As(err, &got) || *got != *want {
			t.Errorf("%s: got %v", kind, err)
		}
		if _, err := c.DialContext(t.Context(), "tcp", "kitchen-pi:80"); !errors.As(err, &got) || *got != *want {
			t.Errorf("%s, dial: got %v", kind, err)
		}
	}
	node.err = errors.New("plain")
	if err := c.Down(t.Context()); status.KindOf(err) != status.KindFailed || err.Error() != "plain" {
		t.Errorf("plain error: %v", err)
	}
	node.err, node.block = nil, true
	if err := c.Wait(t.Context(), "", 10*time.Millisecond); status.KindOf(err) != status.KindTimeout {
		t.Errorf("wait: %v, want timeout", err)
	}
	if err := NewClient("/nonexistent/s").Down(t.Context()); status.KindOf(err) != status.KindNoDaemon {
		t.Errorf("no daemon: %v", err)
	}
}

// An empty node still has every field of status/1.
func TestStatusHasAllFields(t *testing.T) {
	c, _ := serve(t, &testNode{status: status.Status{State: status.StateUnjoined}})
	resp := raw(t, c.Path(), "GET /v1/status HTTP/1.1\r\nHost: weft.local\r\nConnection: close\r\n\r\n")
	var got map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"schema", "state", "network", "version", "server", "self", "peers", "health"} {
		if v, ok := got[key]; !ok || v == nil {
			t.Errorf("%s is %v", key, v)
		}
	}
	if got["schema"] != "status/1" {
		t.Errorf("schema %v", got["schema"])
	}
}

func TestDialStream(t *testing.T) {
	c, _ := serve(t, &testNode{dial: echo(t)})
	conn, err := c.DialContext(t.Context(), "tcp", "kitchen-pi:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	want := bytes.Repeat([]byte("weft"), 500_000)
	go func() {
		conn.Write(want)
		conn.(*StreamConn).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v; want %d", len(got), err, len(want))
	}
}

// The server sends first, so its bytes may arrive together with the 101.
func TestDialEarly(t *testing.T) {
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
			io.WriteString(c, "SSH-2.0-hello\r\n")
			c.Close()
		}
	}()
	client, _ := serve(t, &testNode{dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			c.SetReadDeadline(time.Time{})
		}
		return c, err
	}})
	for range 50 {
		conn, err := client.DialContext(t.Context(), "tcp", "kitchen-pi:22")
		if err != nil {
			t.Fatal(err)
		}
		out, in := net.Pipe()
		go func() { conn.(*StreamConn).Join(in) }()
		got := make([]byte, 15)
		if _, err := io.ReadFull(out, got); err != nil || string(got) != "SSH-2.0-hello\r\n" {
			t.Fatalf("%q, %v", got, err)
		}
		out.Close()
	}
}

func TestDialDatagrams(t *testing.T) {
	c, _ := serve(t, &testNode{dial: echo(t)})
	conn, err := c.DialContext(t.Context(), "udp", "kitchen-pi:53")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 64<<10)
	for _, size := range []int{0, 1, 1200, 9000, maxDatagram} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := conn.Write(want); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil || !bytes.Equal(buf[:n], want) {
			t.Fatalf("%d bytes: got %d, %v", size, n, err)
		}
	}
	if _, err := conn.Write(make([]byte, maxDatagram+1)); err == nil {
		t.Error("a datagram too long for UDP was accepted")
	}
}

func TestDialRefuses(t *testing.T) {
	c, _ := serve(t, &testNode{dial: echo(t)})
	for _, addr := range []string{"", "kitchen-pi", "-x:80", "a b:80", "a\n:80", `a":80`, strings.Repeat("a", 300) + ":80", "$(id):80", "kitchen-pi/../x:80"} {
		if _, err := c.DialContext(t.Context(), "tcp", addr); status.KindOf(err) != status.KindUsage {
			t.Errorf("%.20q: %v, want a usage error", addr, err)
		}
	}
	if _, err := c.DialContext(t.Context(), "unix", "kitchen-pi:80"); status.KindOf(err) != status.KindUsage {
		t.Error("network unix was accepted")
	}
}

// No stream outlives the server, and Close waits.
func TestCloseEndsStreams(t *testing.T) {
	c, s := serve(t, &testNode{dial: echo(t)})
	conn, err := c.DialContext(t.Context(), "tcp", "kitchen-pi:80")
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeoutErr(err) {
		t.Fatalf("read after Close: %v", err)
	}
}

// Connections beyond the bound are closed, and the daemon recovers.
func TestConnectionsAreBounded(t *testing.T) {
	c, _ := serve(t, &testNode{})
	var open []net.Conn
	for range maxConns + 50 {
		conn, err := net.Dial("unix", c.Path())
		if err != nil {
			break // the backlog, or our own file limit
		}
		open = append(open, conn)
	}
	for _, conn := range open {
		conn.Close()
	}
	end := time.Now().Add(5 * time.Second)
	for c.Health(t.Context()) != nil {
		if time.Now().After(end) {
			t.Fatal("the daemon did not come back after a flood")
		}
	}
}

func TestNetcheck(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	mapped := netip.MustParseAddrPort("203.0.113.9:4321")
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo([]byte("junk"), from)
			if id, err := stun.ParseRequest(buf[:n]); err == nil {
				pc.WriteTo(stun.AppendResponse(nil, id, mapped), from)
			}
		}
	}()
	n := netcheck.Run(t.Context(), []status.Relay{
		{Name: "server", Server: true, URLs: []string{"https://" + l.Addr().String()}},
		{ID: "r", Name: "home", URLs: []string{"https://127.0.0.1:1", "::not a url"}, STUN: []string{pc.LocalAddr().String()}, Current: true},
	}, nil)
	if len(n.Links) != 3 || n.Links[0].RTTms == nil || n.Links[0].Kind != "server" || n.Links[1].RTTms != nil || n.Links[1].Error == "" || n.Links[2].Error == "" {
		t.Errorf("links: %+v", n.Links)
	}
	if !n.UDP.Works || n.UDP.Endpoint != mapped.String() || n.UDP.Varies {
		t.Errorf("udp: %+v, %+v", n.UDP, n.STUN)
	}
}

func FuzzDatagramFrames(f *testing.F) {
	f.Add([]byte{0, 1, 'x', 0, 0, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		buf := make([]byte, maxDatagram)
		for {
			if _, err := readDatagram(r, buf); err != nil {
				return
			}
		}
	})
}
func newReader(b []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(b)) }

func isTimeoutErr(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// A request for the status refreshes the presence of peers, unless it asks not to:
// weft's own requests for the status must not cost a question to the server.
func TestStatusLooks(t *testing.T) {
	node := &testNode{status: status.Status{State: status.StateRunning}}
	c, _ := serve(t, node)
	st, err := c.Status(t.Context())
	if err != nil || st.State != status.StateRunning || len(node.looked) != 0 {
		t.Errorf("%+v, %v, looked up %q", st, err, node.looked)
	}
	for _, name := range []string{"", "Kitchen-Pi"} {
		if st, err := c.Look(t.Context(), name); err != nil || st.Schema != status.Schema || st.Peers == nil {
			t.Errorf("%+v, %v", st, err)
		}
	}
	if got := strings.ToLower(strings.Join(node.looked, "|")); got != "|kitchen-pi" {
		t.Errorf("looked up %q", node.looked)
	}
	resp := raw(t, c.Path(), "GET /v1/status HTTP/1.1\r\nHost: weft.local\r\nConnection: close\r\n\r\n") // the request of older versions
	if resp.StatusCode != http.StatusOK || len(node.looked) != 3 {
		t.Errorf("%s, looked up %q", resp.Status, node.looked)
	}
	if _, err := c.Look(t.Context(), strings.Repeat("x", 5000)); status.KindOf(err) != status.KindUsage && status.KindOf(err) != status.KindUnknown {
		t.Errorf("an invalid name: %v", err)
	}
	node.err = &status.Error{Kind: status.KindUnknown, Message: "nobody"}
	if _, err := c.Look(t.Context(), "nobody"); status.KindOf(err) != status.KindUnknown {
		t.Errorf("an unknown name: %v", err)
	}
}
