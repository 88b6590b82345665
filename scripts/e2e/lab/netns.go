//go:build e2e

package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is one machine: a separate network namespace.
type Namespace struct {
	lab  *Lab
	Name string // name for ip netns
	Addr string // its address, "" for routers and bridges

	Addr6 string // "" without IPv6
}

func (l *Lab) namespace(name string) *Namespace {
	l.Helper()
	n := &Namespace{lab: l, Name: l.id + "-" + name}
	if out, err := exec.Command("ip", "netns", "add", n.Name).CombinedOutput(); err != nil {
		l.Fatalf("ip netns add %s: %v: %s", n.Name, err, out)
	}
	l.mu.Lock()
	l.spaces = append(l.spaces, n)
	l.mu.Unlock()
	n.IP("link set lo up")
	return n
}

func (n *Namespace) remove() {
	exec.Command("ip", "netns", "delete", n.Name).Run()
	os.RemoveAll("/etc/netns/" + n.Name)
	os.Remove("/etc/netns")
}

// IP runs lines of the ip command inside n.
func (n *Namespace) IP(lines ...string) {
	n.lab.Helper()
	cmd := exec.Command("ip", "-n", n.Name, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		n.lab.Fatalf("%s: ip %s: %v: %s", n.Name, strings.Join(lines, "; "), err, out)
	}
}

// NFT loads nftables rules inside n.
func (n *Namespace) NFT(rules string) {
	n.lab.Helper()
	cmd := exec.Command("ip", "netns", "exec", n.Name, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		n.lab.Fatalf("%s: nft: %v: %s", n.Name, err, out)
	}
}

// Sysctl sets net.KEY inside n, for example "ipv4/ip_forward".
func (n *Namespace) Sysctl(key, value string) {
	n.lab.Helper()
	n.Do(func() {
		if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil {
			n.lab.Fatalf("%s: sysctl %s: %v", n.Name, key, err)
		}
	})
}

// Resolver sets the name servers in /etc/resolv.conf for programs inside n.
func (n *Namespace) Resolver(addrs ...string) {
	n.lab.Helper()
	dir := "/etc/netns/" + n.Name
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("nameserver "+strings.Join(addrs, "\nnameserver ")+"\n"), 0o644)
	}
	if err != nil {
		n.lab.Fatalf("%v", err)
	}
}

// Do runs f on a thread inside n. Sockets opened there stay there.
func (n *Namespace) Do(f func()) {
	n.lab.Helper()
	if err := n.do(f); err != nil {
		n.lab.Fatalf("%v", err)
	}
}

func (n *Namespace) do(f func()) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open("/run/netns/" + n.Name)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", n.Name, err)
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // a thread in the wrong network would break other tests
		}
	}()
	f()
	return nil
}

// Dial connects from inside n to a literal address.
func (n *Namespace) Dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	// A literal address is dialled on the calling goroutine's thread.
	if e := n.do(func() { c, err = (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, addr) }); e != nil {
		return nil, e
	}
	return c, err
}

// Listen listens for TCP inside n until the test ends.
func (n *Namespace) Listen(addr string) net.Listener {
	n.lab.Helper()
	var ln net.Listener
	var err error
	n.Do(func() { ln, err = net.Listen("tcp", addr) })
	if err != nil {
		n.lab.Fatalf("%s: %v", n.Name, err)
	}
	n.lab.Cleanup(func() { ln.Close() })
	return ln
}

// ListenPacket listens for UDP inside n until the test ends.
func (n *Namespace) ListenPacket(addr string) net.PacketConn {
	n.lab.Helper()
	var pc net.PacketConn
	var err error
	n.Do(func() { pc, err = net.ListenPacket("udp", addr) })
	if err != nil {
		n.lab.Fatalf("%s: %v", n.Name, err)
	}
	n.lab.Cleanup(func() { pc.Close() })
	return pc
}

// Serve serves HTTP inside n until the test ends.
func (n *Namespace) Serve(addr string, h http.Handler) {
	n.lab.Helper()
	srv := &http.Server{Handler: h}
	go srv.Serve(n.Listen(addr))
	n.lab.Cleanup(func() { srv.Close() })
}

// HTTP is a client inside n, through a proxy unless proxyURL is "". It does not keep
// connections.
func (n *Namespace) HTTP(proxyURL string) *http.Client {
	t := &http.Transport{DialContext: n.Dial, DisableKeepAlives: true}
	if proxyURL != "" {
		u, err := url.Parse(proxyURL)
		if err != nil {
			n.lab.Fatalf("%v", err)
		}
		t.Proxy = http.ProxyURL(u)
	}
	return &http.Client{Transport: t, Timeout: 15 * time.Second}
}

// SOCKS connects from inside n to addr through a SOCKS5 proxy, which resolves the name.
// The connection can be half-closed.
func (n *Namespace) SOCKS(ctx context.Context, proxyAddr, addr string) (*net.TCPConn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	num, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	c, err := n.Dial(ctx, "tcp", proxyAddr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	request := append([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(host))}, host...)
	request = append(request, byte(num>>8), byte(num))
	answer := make([]byte, 2+10)
	_, err = c.Write(request)
	if err == nil {
		_, err = io.ReadFull(c, answer) // the bound address is IPv4 in an error, too
	}
	if err == nil && answer[3] != 0 {
		err = fmt.Errorf("connect to %s: SOCKS error %d", addr, answer[3])
	}
	if err == nil && answer[5] == 4 { // or IPv6
		_, err = io.ReadFull(c, make([]byte, 12))
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// Bytes is the traffic of an interface of n so far, including all headers.
func (n *Namespace) Bytes(dev string) (rx, tx uint64) {
	n.lab.Helper()
	out, err := exec.Command("ip", "netns", "exec", n.Name, "cat", "/proc/net/dev").Output()
	if err != nil {
		n.lab.Fatalf("%s: %v", n.Name, err)
	}
	for line := range bytes.Lines(out) {
		name, rest, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		if f := strings.Fields(rest); name == dev && len(f) >= 9 {
			rx, _ = strconv.ParseUint(f[0], 10, 64)
			tx, _ = strconv.ParseUint(f[8], 10, 64)
			return rx, tx
		}
	}
	n.lab.Fatalf("%s: no interface %s", n.Name, dev)
	return 0, 0
}
