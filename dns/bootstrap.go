package dns

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Bounds of what a Bootstrap keeps.
const (
	maxBootHosts = 32
	maxBootAddrs = 4
)

// Bootstrap dials servers and relays and remembers, in a file, at which
// addresses they were last reached: when no resolver answers, as after a crash
// or on a network that is half up, they are found all the same. It is never
// wrong to try an old address, since who answers has to prove who it is.
type Bootstrap struct {
	// Constant.
	path string
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu sync.Mutex
	// mu guards the following.
	read  bool
	hosts map[string][]netip.Addr // last reached first
}

// NewBootstrap returns a Bootstrap that keeps its file at path; the file's
// directory need not exist yet. dial connects and resolves; nil is a net.Dialer
// without keepalive.
func NewBootstrap(path string, dial func(ctx context.Context, network, address string) (net.Conn, error)) *Bootstrap {
	if dial == nil {
		dial = (&net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}).DialContext
	}
	return &Bootstrap{path: path, dial: dial}
}

// DialContext connects to address, HOST:PORT. When HOST cannot be resolved, the
// addresses at which it was reached before are tried; the error is then still
// that of the resolver.
func (b *Bootstrap) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return b.dial(ctx, network, address)
	}
	host = strings.ToLower(host)
	c, err := b.dial(ctx, network, address)
	if err == nil {
		b.reached(host, c.RemoteAddr())
		return c, nil
	}
	var unresolved *net.DNSError
	if !errors.As(err, &unresolved) || ctx.Err() != nil {
		return nil, err
	}
	for _, ip := range b.known(host) {
		if c, derr := b.dial(ctx, network, net.JoinHostPort(ip.String(), port)); derr == nil {
			b.reached(host, c.RemoteAddr())
			return c, nil
		}
	}
	return nil, err
}

// known returns the addresses of a host, last reached first.
func (b *Bootstrap) known(host string) []netip.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loadLocked()
	return slices.Clone(b.hosts[host])
}

// reached notes an address; the file is written when that is news. A disk that
// cannot be written costs the memory, not the connection.
func (b *Bootstrap) reached(host string, at net.Addr) {
	ap, err := netip.ParseAddrPort(at.String())
	if err != nil || len(host) > 253 {
		return
	}
	ip := ap.Addr().Unmap()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loadLocked()
	old := b.hosts[host]
	if len(old) > 0 && old[0] == ip || old == nil && len(b.hosts) >= maxBootHosts {
		return
	}
	list := append([]netip.Addr{ip}, slices.DeleteFunc(slices.Clone(old), func(a netip.Addr) bool { return a == ip })...)
	b.hosts[host] = list[:min(len(list), maxBootAddrs)]
	data, err := json.Marshal(b.hosts)
	if err != nil {
		return
	}
	tmp := b.path + ".new"
	if os.WriteFile(tmp, append(data, '\n'), 0o600) == nil && os.Rename(tmp, b.path) == nil {
		return
	}
	os.Remove(tmp)
}

// loadLocked reads the file once. A file that makes no sense is none.
func (b *Bootstrap) loadLocked() {
	if b.read {
		return
	}
	b.read = true
	b.hosts = map[string][]netip.Addr{}
	f, err := os.Open(filepath.Clean(b.path))
	if err != nil {
		return
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 64<<10))
	var hosts map[string][]netip.Addr
	if err != nil || json.Unmarshal(data, &hosts) != nil {
		return
	}
	for host, l := range hosts {
		if len(b.hosts) < maxBootHosts && len(l) > 0 {
			b.hosts[host] = l[:min(len(l), maxBootAddrs)]
		}
	}
}
