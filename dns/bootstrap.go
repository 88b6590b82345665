package dns

import (
	"cmp"
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
	"time"
)

// Bounds of a Bootstrap's file.
const (
	maxBootHosts = 32
	maxBootAddrs = 4
)

const (
	// lookupTime bounds one look-up: system resolvers give each of up to three
	// nameservers 5 s.
	lookupTime = 16 * time.Second
	// answerLife is how long an answer serves further dials. It is short: an answer
	// that came too late for one dial serves the next.
	answerLife = time.Minute
	// headStart is how long a dial waits for an answer before it also tries old
	// addresses.
	headStart = time.Second
	// fallbackDelay is the head start of IPv6 over IPv4 (RFC 8305 section 5).
	fallbackDelay = 300 * time.Millisecond
)

// Bootstrap dials servers and relays, and remembers in a file at which addresses they
// were last reached. So they are found when no resolver answers, or when one answers
// only after the first nameserver's 5 s, as after a crash or on a network that is
// partly up. Trying an old address is always safe, since whoever answers has to
// authenticate.
//
// A look-up does not belong to one dial: if it takes longer than the dial waits, it
// continues and serves the next one. Its methods may be called from any goroutine.
type Bootstrap struct {
	// Constant.
	path   string
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	ctx    context.Context // of the look-ups
	stop   context.CancelFunc

	wg sync.WaitGroup // of the look-ups

	mu sync.Mutex
	// mu guards the following.
	closed  bool
	read    bool
	hosts   map[string][]netip.Addr // most recently reached first
	answers map[string]*bootAnswer  // in progress, or at most answerLife old
}

// bootAnswer is the result of a look-up.
type bootAnswer struct {
	done  chan struct{} // closed when the fields below are set
	addrs []netip.Addr
	err   error
	at    time.Time
}

// NewBootstrap returns a Bootstrap with its file at path; the file's directory need not
// exist yet. lookup defaults to the system's resolver. dial connects to an address
// IP:PORT and defaults to a net.Dialer without keepalive. The caller must Close it.
func NewBootstrap(path string, lookup func(ctx context.Context, host string) ([]netip.Addr, error), dial func(ctx context.Context, network, address string) (net.Conn, error)) *Bootstrap {
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if dial == nil {
		dial = (&net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}).DialContext
	}
	b := &Bootstrap{path: path, lookup: lookup, dial: dial, answers: map[string]*bootAnswer{}}
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b
}

// Close cancels the look-ups in progress and waits for them.
func (b *Bootstrap) Close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.stop()
	b.wg.Wait()
}

// DialContext connects to address, HOST:PORT. While HOST is not resolved, it tries the
// addresses at which HOST was reached before; if none works, it returns the resolver's
// error.
func (b *Bootstrap) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return b.dial(ctx, network, address)
	}
	host = strings.ToLower(host)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	named := make(chan dialed, 1)
	go func() {
		addrs, err := b.resolve(ctx, host)
		if err != nil {
			named <- dialed{nil, err}
			return
		}
		c, err := b.dialAny(ctx, network, port, addrs)
		named <- dialed{c, err}
	}()
	saved := make(chan dialed, 1)
	go func() {
		saved <- b.dialSaved(ctx, network, host, port)
	}()
	var d dialed
	pending := saved
	select {
	case d = <-named:
		var unresolved *net.DNSError
		if errors.As(d.err, &unresolved) {
			pending = nil
			if k := <-saved; k.c != nil {
				d = k
			}
		}
	case d = <-saved:
		pending = named
		if d.c == nil {
			pending = nil
			d = <-named
		}
	}
	cancel()
	if pending != nil {
		if late := <-pending; late.c != nil {
			late.c.Close()
		}
	}
	if d.err != nil {
		return nil, d.err
	}
	b.reached(host, d.c.RemoteAddr())
	return d.c, nil
}

type dialed struct {
	c   net.Conn
	err error
}

// errNowhere means that the host was never reached before.
var errNowhere = errors.New("no address known")

// dialSaved connects to an address at which a host was reached before, unless the host
// is resolved within headStart.
func (b *Bootstrap) dialSaved(ctx context.Context, network, host, port string) dialed {
	addrs := b.known(host)
	if len(addrs) == 0 {
		return dialed{nil, errNowhere}
	}
	soon, cancel := context.WithTimeout(ctx, headStart)
	defer cancel()
	if _, err := b.resolve(soon, host); err == nil {
		return dialed{nil, errNowhere} // resolved: use the answer
	}
	if ctx.Err() != nil {
		return dialed{nil, ctx.Err()}
	}
	for _, ip := range addrs {
		if c, err := b.dial(ctx, network, net.JoinHostPort(ip.String(), port)); err == nil {
			return dialed{c, nil}
		}
	}
	return dialed{nil, errNowhere}
}

// resolve returns the addresses of a host, from a look-up that others may share and
// that continues when ctx ends.
func (b *Bootstrap) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	b.mu.Lock()
	a := b.answers[host]
	if a == nil || !a.at.IsZero() && time.Since(a.at) > answerLife {
		if b.closed {
			b.mu.Unlock()
			return nil, net.ErrClosed
		}
		for h, old := range b.answers {
			if !old.at.IsZero() && time.Since(old.at) > answerLife {
				delete(b.answers, h)
			}
		}
		a = &bootAnswer{done: make(chan struct{})}
		b.answers[host] = a
		b.wg.Go(func() { b.lookUp(host, a) })
	}
	b.mu.Unlock()
	select {
	case <-a.done:
		return a.addrs, a.err
	case <-ctx.Done():
		return nil, &net.DNSError{Err: context.Cause(ctx).Error(), Name: host, IsTimeout: true}
	}
}

func (b *Bootstrap) lookUp(host string, a *bootAnswer) {
	ctx, cancel := context.WithTimeout(b.ctx, lookupTime)
	defer cancel()
	addrs, err := b.lookup(ctx, host)
	b.mu.Lock()
	defer b.mu.Unlock()
	a.addrs, a.err, a.at = addrs, err, time.Now()
	if err != nil {
		delete(b.answers, host) // the next dial looks up again
	}
	close(a.done)
}

// dialAny connects to one of the addresses: those of the first address's family in
// turn, and after fallbackDelay those of the other family in parallel.
func (b *Bootstrap) dialAny(ctx context.Context, network, port string, addrs []netip.Addr) (net.Conn, error) {
	var families [2][]netip.Addr
	for _, ip := range addrs {
		ip = ip.Unmap()
		i := 0
		if ip.Is4() != addrs[0].Unmap().Is4() {
			i = 1
		}
		families[i] = append(families[i], ip)
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan dialed, 2)
	failed := make(chan struct{}) // closed when the first family has failed
	family := func(i int) {
		var d dialed
		for _, ip := range families[i] {
			if d.c, d.err = b.dial(ctx, network, net.JoinHostPort(ip.String(), port)); d.err == nil || ctx.Err() != nil {
				break
			}
		}
		if i == 0 && d.err != nil {
			close(failed)
		}
		results <- d
	}
	go family(0)
	running := 1
	if len(families[1]) > 0 {
		running++
		go func() {
			t := time.NewTimer(fallbackDelay)
			defer t.Stop()
			select {
			case <-t.C:
			case <-failed:
			case <-ctx.Done():
			}
			family(1)
		}()
	}
	var won net.Conn
	var err error
	for range running {
		d := <-results
		switch {
		case d.err != nil:
			err = cmp.Or(err, d.err)
		case won == nil:
			won = d.c
			cancel() // the other ends soon
		default:
			d.c.Close()
		}
	}
	if won != nil {
		return won, nil
	}
	return nil, err
}

// known returns the saved addresses of a host, most recently reached first.
func (b *Bootstrap) known(host string) []netip.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loadLocked()
	return slices.Clone(b.hosts[host])
}

// reached records an address and writes the file if it is new. If the disk cannot be
// written, the address is lost at the next start, but the connection works.
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

// loadLocked reads the file once. It ignores an invalid file.
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
