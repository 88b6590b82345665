package dns

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// maxUpstreams bounds the resolvers taken from one file, and maxResolvConf
// its size in bytes.
const (
	maxUpstreams  = 8
	maxResolvConf = 64 << 10
)

// parseResolvConf reads the nameserver lines of a resolv.conf: IPv4 and IPv6
// addresses, with a zone, in brackets or with a port (as some write them).
// Comments may stand anywhere; lines that make no sense are passed over.
// Duplicates and what skip says are left out.
func parseResolvConf(r io.Reader, skip func(netip.AddrPort) bool) []netip.AddrPort {
	var out []netip.AddrPort
	sc := bufio.NewScanner(io.LimitReader(r, maxResolvConf))
	sc.Buffer(make([]byte, 4<<10), maxResolvConf+1)
	for sc.Scan() && len(out) < maxUpstreams {
		line := sc.Text()
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		a, ok := parseNameserver(f[1])
		if !ok || contains(out, a) || skip != nil && skip(a) {
			continue
		}
		out = append(out, a)
	}
	return out
}

// parseNameserver accepts ADDR, [ADDR] and either with a port.
func parseNameserver(s string) (netip.AddrPort, bool) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return usable(netip.AddrPortFrom(a.Unmap(), 53))
	}
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 {
		return usable(netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
	}
	return netip.AddrPort{}, false
}

// usable refuses addresses that nobody answers at. 0.0.0.0 means this machine.
func usable(a netip.AddrPort) (netip.AddrPort, bool) {
	switch ip := a.Addr(); {
	case ip == netip.IPv4Unspecified():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port()), true
	case ip.IsUnspecified(), ip.IsMulticast():
		return netip.AddrPort{}, false
	}
	return a, true
}

func contains(l []netip.AddrPort, a netip.AddrPort) bool {
	for _, b := range l {
		if a == b {
			return true
		}
	}
	return false
}

// resolvConf holds the upstreams of a file and follows its changes.
type resolvConf struct {
	// Constant.
	path string
	skip func(netip.AddrPort) bool

	mu      sync.Mutex // guards the following
	checked time.Time
	stat    os.FileInfo
	servers []netip.AddrPort
}

// recheck is how often the file is looked at while queries come.
const recheck = time.Second

// upstreams returns the resolvers, in the file's order.
func (r *resolvConf) upstreams(now time.Time) []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.checked.IsZero() && now.Sub(r.checked) < recheck {
		return r.servers
	}
	r.checked = now
	fi, err := os.Stat(r.path)
	if err != nil {
		r.stat, r.servers = nil, nil
		return nil
	}
	if r.stat != nil && os.SameFile(fi, r.stat) && fi.ModTime().Equal(r.stat.ModTime()) && fi.Size() == r.stat.Size() && len(r.servers) > 0 {
		return r.servers
	}
	f, err := os.Open(r.path)
	if err != nil {
		r.stat, r.servers = nil, nil
		return nil
	}
	defer f.Close()
	r.stat, r.servers = fi, parseResolvConf(f, r.skip)
	return r.servers
}
