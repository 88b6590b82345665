//go:build e2e

// Package e2e tests the programs as users run them: weft-server on an internet of
// network namespaces, a device and a laptop in two homes behind NAT routers that drop
// all UDP, and OpenSSH, curl, dig, iperf3, nginx and Python as clients. weft runs as
// nobody, without capabilities.
//
//	go test -tags e2e -count=1 ./scripts/e2e/...        (root, Linux)
//
// Tests that measure run first, one by one; tests that mostly wait run afterwards, in
// parallel. WEFT_CRASH_ROUNDS, WEFT_IDLE and WEFT_ASLEEP make some longer, WEFT_E2E_KEEP
// keeps the logs, WEFT_E2E_BIN is a directory with prebuilt programs, WEFT_E2E_FIPS the
// FIPS mode that they run in (scripts/test fips).
//
//	job_test.go        the main job: everything a user does
//	names_test.go      dig
//	ways_test.go       443 only, nginx, an HTTP proxy
//	relay_test.go      a relay of its own, and the server away
//	tokens_test.go     tokens and hostnames that are no good
//	state_test.go      state directories, daemons, ports
//	offline_test.go    peers that are off, or deleted
//	restart_test.go    server and nodes that go and come back, under load
//	move_test.go       the server moves to another machine and address
//	crash_test.go      kill -9 at random moments
//	embed_test.go      weft inside of another program
//	console_test.go    the console's first page
//	osdns_test.go      names in every program: systemd-resolved, resolvconf, files
//	portmap_test.go    port mappings, by miniupnpd
//	paths_test.go      direct paths through routers of each kind, cuts, relayed UDP
//	install_test.go    the console's line on Debian: systemd, reboot, upgrade, removal
//	install_init_test.go    what stops it; OpenWrt's and Alpine's files
//	install_server_test.go  the server as a service, its doctor
//	package_test.go    a release: packages, programs for other machines
//	acme_test.go       a certificate from Pebble
//	dnssettings_test.go  what an owner decides about names, by dig
//	fips_test.go       a network that enters FIPS mode
//	metrics_test.go    Debian's Prometheus
//	idle_test.go       what an idle device costs
//	conntrack_test.go  a router that forgets connections
//	asleep_test.go     a machine sleeps for ten minutes
//	memory_test.go     a device with little memory
//	compat_test.go     programs of another version
//	compat_renew_test.go  their renewals
//
// A wrong clock at boot is not tested here. Namespaces have no clock of their own, and
// static Go programs ask the kernel; the package tests cover 1970 and 2040.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// bin holds the programs under test.
var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: run as root: network namespaces need it")
		os.Exit(1)
	}
	for _, tool := range []string{"ip", "nft", "setpriv", "ss", "curl", "ssh", "scp", "ssh-keygen", "dig", "iperf3", "python3", "nginx", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err, "(scripts/test installs what is needed)")
			os.Exit(1)
		}
	}
	lab.Sweep()
	// Waiting costs no processor: run more tests at once than there are cores.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set("6")
	}
	os.Exit(func() int {
		if bin = os.Getenv("WEFT_E2E_BIN"); bin != "" {
			return m.Run()
		}
		var err error
		if bin, err = os.MkdirTemp("", "weft-e2e-bin-"); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		defer os.RemoveAll(bin)
		os.Chmod(bin, 0o755)
		if err := lab.Build(bin, "weft/scripts/e2e/embed"); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		return m.Run()
	}())
}

// oneLine fails unless the command's stderr is one short line.
func oneLine(t *testing.T, r lab.Result) {
	t.Helper()
	s := strings.TrimSuffix(r.Err, "\n")
	if s == "" || strings.Contains(s, "\n") || len(s) > 400 {
		t.Errorf("want one line on stderr: %v", r)
	}
}

// flow is a connection through the tunnel that sends a numbered line every 20 ms and
// receives its echo.
type flow struct {
	t    *testing.T
	from *lab.Node
	conn net.Conn
	done chan struct{}

	mu   sync.Mutex
	last time.Time     // time of the last echo
	gap  time.Duration // longest time between two echoes
	n    int           // echoes
	err  error
	stop bool
}

// newFlow opens one through the laptop's proxy to an echo server.
func newFlow(t *testing.T, from *lab.Node, to string) *flow {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := from.Host.SOCKS(ctx, lab.Proxy, to)
	if err != nil {
		t.Fatalf("connect to %s: %v", to, err)
	}
	f := &flow{t: t, from: from, conn: c, done: make(chan struct{}), last: time.Now()}
	go f.write()
	go f.read()
	t.Cleanup(func() { f.end() })
	return f
}

func (f *flow) write() {
	for i := 0; ; i++ {
		if _, err := fmt.Fprintf(f.conn, "%015d\n", i); err != nil {
			f.fail(fmt.Errorf("write: %w", err))
			return
		}
		time.Sleep(20 * time.Millisecond)
		f.mu.Lock()
		stop := f.stop
		f.mu.Unlock()
		if stop {
			return
		}
	}
}

func (f *flow) read() {
	defer close(f.done)
	buf := make([]byte, 16)
	for i := 0; ; i++ {
		if _, err := io.ReadFull(f.conn, buf); err != nil {
			f.fail(fmt.Errorf("read: %w", err))
			return
		}
		if want := fmt.Sprintf("%015d\n", i); string(buf) != want {
			f.fail(fmt.Errorf("got line %q, want %q", buf, want))
			return
		}
		f.mu.Lock()
		now := time.Now()
		f.gap = max(f.gap, now.Sub(f.last))
		f.last = now
		f.n++
		f.mu.Unlock()
	}
}

func (f *flow) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && !f.stop {
		f.err = err
	}
}

// echoes waits for n further echoes and returns how long the first took.
func (f *flow) echoes(n int, limit time.Duration) time.Duration {
	f.t.Helper()
	start := time.Now()
	f.mu.Lock()
	have := f.n
	f.mu.Unlock()
	var first time.Duration
	for {
		f.mu.Lock()
		now, err := f.n, f.err
		f.mu.Unlock()
		if now > have && first == 0 {
			first = time.Since(start)
		}
		switch {
		case err != nil:
			f.t.Fatalf("the connection died: %v", err)
		case now >= have+n:
			return first
		case time.Since(start) > limit:
			f.t.Logf("status: %v", f.from.Weft("status", "--json"))
			f.t.Logf("a new connection: %v", f.from.Weft("ping", "-c", "2", "kitchen-pi"))
			f.t.Fatalf("%d echoes in %v, want %d", now-have, limit, n)
		}
		time.Sleep(time.Millisecond)
	}
}

// quiet waits until the connection has ended, or no echo came for a second, and returns
// when the last echo came, counted from the call.
func (f *flow) quiet(limit time.Duration) time.Duration {
	f.t.Helper()
	start := time.Now()
	for {
		f.mu.Lock()
		last, err := f.last, f.err
		f.mu.Unlock()
		if err != nil {
			return time.Since(start)
		}
		if time.Since(last) > time.Second {
			return max(0, last.Sub(start))
		}
		if time.Since(start) > limit {
			f.t.Fatalf("echoes still come after %v", limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// end closes it and returns the longest gap and any error.
func (f *flow) end() (time.Duration, error) {
	f.mu.Lock()
	f.stop = true
	f.mu.Unlock()
	f.conn.Close()
	<-f.done
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(f.err, net.ErrClosed) {
		f.err = nil
	}
	return f.gap, f.err
}

// fetch requires the device's page within limit.
func fetch(t *testing.T, from *lab.Node, url string, limit time.Duration) time.Duration {
	t.Helper()
	start := time.Now()
	body, err := from.Get(url, limit)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	if !strings.HasPrefix(body, "kitchen GET ") {
		t.Fatalf("%s: got %q", url, body)
	}
	return time.Since(start)
}
