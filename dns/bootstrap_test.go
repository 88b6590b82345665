package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestB32LastGoodAddresses: a server whose name nobody resolves is found where
// it was.
func TestB32LastGoodAddresses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	file := filepath.Join(t.TempDir(), "addresses.json")
	resolves := true
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, _ := net.SplitHostPort(address)
		if net.ParseIP(host) == nil {
			if !resolves {
				return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "server misbehaving", Name: host}}
			}
			address = net.JoinHostPort("127.0.0.1", port)
		}
		return dialer.DialContext(ctx, network, address)
	}
	try := func(b *Bootstrap, host string) error {
		c, err := b.DialContext(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := try(NewBootstrap(file, dial), "Weft.example"); err != nil {
		t.Fatal(err)
	}
	resolves = false
	b := NewBootstrap(file, dial) // another start
	if err := try(b, "weft.example"); err != nil {
		t.Errorf("not found where it was: %v", err)
	}
	var unresolved *net.DNSError
	if err := try(b, "other.example"); !errors.As(err, &unresolved) {
		t.Errorf("another name: %v", err)
	}
	// A refusal is one: the old address is for names that do not resolve.
	l.Close()
	resolves = true
	if err := try(b, "weft.example"); err == nil || errors.As(err, &unresolved) {
		t.Errorf("nobody listens: %v", err)
	}
	// Files that make no sense, or cannot be there.
	os.WriteFile(file, []byte("{\"x\": 7"), 0o600)
	resolves = false
	if err := try(NewBootstrap(file, dial), "weft.example"); err == nil {
		t.Error("found by a broken file")
	}
	b = NewBootstrap(filepath.Join(file, "not", "a", "directory"), nil)
	for i := range 100 {
		b.reached(fmt.Sprintf("h%d.example", i), &net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(i)), Port: 1})
		b.reached("h0.example", &net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(i)), Port: 1})
	}
	if len(b.hosts) > maxBootHosts || len(b.hosts["h0.example"]) > maxBootAddrs {
		t.Errorf("%d hosts, %d addresses", len(b.hosts), len(b.hosts["h0.example"]))
	}
}
