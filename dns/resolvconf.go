package dns

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxUpstreams bounds the resolvers taken from one file, maxResolvConf its size in
// bytes.
const (
	maxUpstreams  = 8
	maxResolvConf = 64 << 10
)

// parseResolvConf reads the nameserver lines of a resolv.conf: IPv4 and IPv6 addresses,
// with a zone, in brackets or with a port (as some write them). Comments may be
// anywhere. Invalid lines, duplicates and addresses that skip selects are left out.
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

// usable rejects addresses at which no resolver can be. 0.0.0.0 means this machine.
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
	path    string
	system  func() ([]netip.AddrPort, bool) // Config.System, or nil
	skip    func(netip.AddrPort) bool
	changed func() // called when the resolvers have changed

	watched atomic.Int64 // second of the last check of the file

	mu      sync.Mutex // guards the following
	checked time.Time
	stat    os.FileInfo
	servers []netip.AddrPort
}

// recheck is the interval of checks of the file while there are queries.
const recheck = time.Second

// forget makes the next question read the file again.
func (r *resolvConf) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checked, r.stat = time.Time{}, nil
}

// watch checks whether the file has changed, at most once a second, after it has been
// read once.
func (r *resolvConf) watch(now time.Time) {
	if last := r.watched.Load(); last != now.Unix() && r.watched.CompareAndSwap(last, now.Unix()) {
		r.mu.Lock()
		used := !r.checked.IsZero()
		r.mu.Unlock()
		if used {
			r.upstreams(now)
		}
	}
}

// upstreams returns the resolvers in the file's order. While there are none, it reads
// the file each time.
func (r *resolvConf) upstreams(now time.Time) []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.servers) > 0 && now.Sub(r.checked) < recheck {
		return r.servers
	}
	r.checked = now
	before := r.servers
	if known := r.ask(); !known {
		r.read()
	}
	if before != nil && r.changed != nil && !slices.Equal(before, r.servers) {
		r.changed()
	}
	return r.servers
}

// ask takes the resolvers from Config.System, if that knows them.
func (r *resolvConf) ask() bool {
	if r.system == nil {
		return false
	}
	l, known := r.system()
	if !known {
		return false
	}
	r.stat, r.servers = nil, nil
	for _, a := range l {
		a, ok := usable(netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
		if ok && len(r.servers) < maxUpstreams && !contains(r.servers, a) && !r.skip(a) {
			r.servers = append(r.servers, a)
		}
	}
	return true
}

func (r *resolvConf) read() {
	fi, err := os.Stat(r.path)
	if err != nil {
		r.stat, r.servers = nil, nil
		return
	}
	if r.stat != nil && os.SameFile(fi, r.stat) && fi.ModTime().Equal(r.stat.ModTime()) && fi.Size() == r.stat.Size() && len(r.servers) > 0 {
		return
	}
	f, err := os.Open(r.path)
	if err != nil {
		r.stat, r.servers = nil, nil
		return
	}
	defer f.Close()
	r.stat, r.servers = fi, parseResolvConf(f, r.skip)
}
