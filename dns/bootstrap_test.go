package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A server whose name does not resolve is reached at its last address.
func TestLastGoodAddresses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	file := filepath.Join(t.TempDir(), "addresses.json")
	resolves := true
	lookup := func(_ context.Context, host string) ([]netip.Addr, error) {
		if !resolves {
			return nil, &net.DNSError{Err: "server misbehaving", Name: host}
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	bootstrap := func(file string) *Bootstrap {
		b := NewBootstrap(file, lookup, nil)
		t.Cleanup(b.Close)
		return b
	}
	try := func(b *Bootstrap, host string) error {
		c, err := b.DialContext(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := try(bootstrap(file), "Weft.example"); err != nil {
		t.Fatal(err)
	}
	resolves = false
	b := bootstrap(file) // after a restart
	if err := try(b, "weft.example"); err != nil {
		t.Errorf("not reached at its last address: %v", err)
	}
	var unresolved *net.DNSError
	if err := try(b, "other.example"); !errors.As(err, &unresolved) {
		t.Errorf("another name: %v", err)
	}
	// A refused connection is an error: old addresses are only for names that do not
	// resolve.
	l.Close()
	resolves = true
	if err := try(b, "weft.example"); err == nil || errors.As(err, &unresolved) {
		t.Errorf("nobody listens: %v", err)
	}
	// Files that are invalid or cannot exist.
	os.WriteFile(file, []byte("{\"x\": 7"), 0o600)
	resolves = false
	if err := try(bootstrap(file), "weft.example"); err == nil {
		t.Error("an address came from a broken file")
	}
	b = bootstrap(filepath.Join(file, "not", "a", "directory"))
	for i := range 100 {
		b.reached(fmt.Sprintf("h%d.example", i), &net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(i)), Port: 1})
		b.reached("h0.example", &net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(i)), Port: 1})
	}
	if len(b.hosts) > maxBootHosts || len(b.hosts["h0.example"]) > maxBootAddrs {
		t.Errorf("%d hosts, %d addresses", len(b.hosts), len(b.hosts["h0.example"]))
	}
}

// The first of two nameservers is silent, so each look-up takes 5 s, as long as the
// dial waits.
func TestSilentNameserver(t *testing.T) {
	const patience = 5 * time.Second
	server := netip.MustParseAddr("192.0.2.1")
	file := filepath.Join(t.TempDir(), "addresses.json")
	run := func(t *testing.T, lookups *atomic.Int32, f func(dial func() (time.Duration, error))) {
		synctest.Test(t, func(t *testing.T) {
			lookup := func(ctx context.Context, host string) ([]netip.Addr, error) {
				lookups.Add(1)
				select {
				case <-time.After(patience + 10*time.Millisecond):
					return []netip.Addr{server}, nil
				case <-ctx.Done():
					return nil, &net.DNSError{Err: ctx.Err().Error(), Name: host}
				}
			}
			b := NewBootstrap(file, lookup, func(_ context.Context, _, address string) (net.Conn, error) {
				if address != server.String()+":443" {
					return nil, fmt.Errorf("dialled %s", address)
				}
				return connAt{netip.AddrPortFrom(server, 443)}, nil
			})
			defer b.Close()
			f(func() (time.Duration, error) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				began := time.Now()
				_, err := b.DialContext(ctx, "tcp", "weft.example:443")
				return time.Since(began), err
			})
		})
	}
	var lookups atomic.Int32
	run(t, &lookups, func(dial func() (time.Duration, error)) {
		if took, err := dial(); err == nil || took != patience {
			t.Errorf("resolved in %v: %v", took, err)
		}
		// The look-up continued.
		if took, err := dial(); err != nil || took > 20*time.Millisecond {
			t.Errorf("the next dial took %v: %v", took, err)
		}
		if took, err := dial(); err != nil || took > 0 || lookups.Load() != 1 {
			t.Errorf("and the next %v: %v; %d look-ups", took, err, lookups.Load())
		}
		time.Sleep(answerLife + time.Second)
		if took, err := dial(); err != nil || took > headStart || lookups.Load() != 2 {
			t.Errorf("after a while %v: %v; %d look-ups", took, err, lookups.Load())
		}
	})
	run(t, &lookups, func(dial func() (time.Duration, error)) {
		if took, err := dial(); err != nil || took != headStart {
			t.Errorf("after a restart: %v, %v", took, err)
		}
	})
}

// Of a host with addresses of both families, the one that answers is used.
func TestBootstrapFamilies(t *testing.T) {
	v6, v4 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct {
		name  string
		addrs []netip.Addr
		dead  netip.Addr // drops packets
		wrong netip.Addr // refuses
		want  netip.Addr // none: an error
		after time.Duration
	}{
		{"both", []netip.Addr{v6, v4}, netip.Addr{}, netip.Addr{}, v6, 0},
		{"IPv6 is dead", []netip.Addr{v6, v4}, v6, netip.Addr{}, v4, fallbackDelay},
		{"IPv6 refuses", []netip.Addr{v6, v4}, netip.Addr{}, v6, v4, 0},
		{"IPv4 is dead", []netip.Addr{v4, v6}, v4, netip.Addr{}, v6, fallbackDelay},
		{"one refuses, the other is dead", []netip.Addr{v4, v6}, v4, v6, netip.Addr{}, 5 * time.Second},
		{"one, which refuses", []netip.Addr{v4}, netip.Addr{}, v4, netip.Addr{}, 0},
		{"none", nil, netip.Addr{}, netip.Addr{}, netip.Addr{}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := NewBootstrap(filepath.Join(t.TempDir(), "x"), func(context.Context, string) ([]netip.Addr, error) { return c.addrs, nil },
					func(ctx context.Context, _, address string) (net.Conn, error) {
						at := netip.MustParseAddrPort(address)
						switch at.Addr() {
						case c.dead:
							<-ctx.Done()
							return nil, ctx.Err()
						case c.wrong:
							return nil, errors.New("connection refused")
						}
						return connAt{at}, nil
					})
				defer b.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				began := time.Now()
				conn, err := b.DialContext(ctx, "tcp", "weft.example:443")
				var got netip.Addr
				if err == nil {
					got = conn.(connAt).at.Addr()
				}
				if got != c.want || time.Since(began) != c.after {
					t.Errorf("%v (%v) after %v, want %v after %v", got, err, time.Since(began), c.want, c.after)
				}
			})
		})
	}
}

// connAt is a connection that has only a remote address.
type connAt struct{ at netip.AddrPort }

func (c connAt) RemoteAddr() net.Addr           { return net.TCPAddrFromAddrPort(c.at) }
func (connAt) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (connAt) Read([]byte) (int, error)         { return 0, net.ErrClosed }
func (connAt) Write([]byte) (int, error)        { return 0, net.ErrClosed }
func (connAt) Close() error                     { return nil }
func (connAt) SetDeadline(time.Time) error      { return nil }
func (connAt) SetReadDeadline(time.Time) error  { return nil }
func (connAt) SetWriteDeadline(time.Time) error { return nil }
